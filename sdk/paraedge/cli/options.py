"""Option types that several commands share."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Any, ClassVar

import click

__all__ = [
    "BRANCHES",
    "DATASET",
    "DELEGATE",
    "ENGINE",
    "LABELS",
    "RECIPE",
    "SIZE",
    "TARGET",
    "THREADS",
    "Branches",
    "Names",
    "beside",
    "data_dir_option",
    "engine_option",
    "threads_option",
    "trusted_keys_option",
]

Branches = int | tuple[int, ...] | None


def beside(bundle: Path, ending: str) -> Path:
    """The bundle's path with an ending behind its name, for what is made of it; ``.`` and ``..`` have a name too."""
    named = bundle if bundle.name not in ("", "..") else Path(os.path.abspath(bundle))
    return named.with_name(f"{named.name}{ending}")


class Names(click.Choice):  # type: ignore[type-arg]
    """One of some names: shown in the help, completed by the shell. An unknown one is answered with the nearest."""

    def __init__(self, what: str, names: tuple[str, ...]) -> None:
        super().__init__(names)
        self._what = what

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The name itself, or a usage error."""
        if value in self.choices:
            return value
        from paraedge_runtime._arguments import unknown_text

        self.fail(unknown_text(self._what, value, self.choices), param, ctx)


# The names of the registries, repeated so that --help imports none of them; tests/sdk/test_cli_help.py compares.
ENGINE = Names("engine", ("executorch", "litert", "onnxruntime"))
TARGET = Names("target", ("android", "ios", "linux", "microcontroller", "raspberry-pi", "web"))
DELEGATE = Names("delegate", ("coreml", "ethos-u55", "ethos-u85", "gpu", "vulkan"))
DATASET = Names("data set", ("digits", "fashion-mnist", "cifar10", "folder", "npz"))
_RECIPES = ("fp32", "fp16", "int8-dynamic", "int8-static", "int8-weight", "int4-weight")
RECIPE = Names("quantization recipe", (*_RECIPES, *(f"{name}+fp32-stem" for name in _RECIPES[1:]), "small", "auto"))


class _BranchesType(click.ParamType):  # type: ignore[type-arg]
    """``2`` the first two, ``0,3,5`` those, ``3,`` that one alone, ``all``."""

    name = "branches"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Branches:
        if value is None or not isinstance(value, str):
            return value  # type: ignore[return-value]
        text = value.strip()
        if text == "all":
            return None
        try:
            if "," in text:
                return tuple(int(piece) for piece in text.removesuffix(",").split(","))
            return int(text)
        except ValueError:
            self.fail(
                f"{value!r} is not a choice of branches; give a count (2), indices (0,3,5), one index (3,) or all",
                param,
                ctx,
            )


BRANCHES = _BranchesType()


class _ThreadsType(click.ParamType):  # type: ignore[type-arg]
    """``1,2,4``: thread counts."""

    name = "threads"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if not isinstance(value, str):
            return value  # type: ignore[return-value]
        try:
            return tuple(int(piece) for piece in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of thread counts, such as 1,2,4", param, ctx)


THREADS = _ThreadsType()


class _LabelsType(click.ParamType):  # type: ignore[type-arg]
    """``cat,dog,bird``: names of classes, in Unicode's composed form as those of class folders are."""

    name = "labels"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if not isinstance(value, str):
            return value  # type: ignore[return-value]
        names = tuple(unicodedata.normalize("NFC", piece.strip()) for piece in value.split(","))
        if not all(names) or len(set(names)) != len(names):
            self.fail(f"{value!r} is not a list of unique names, such as cat,dog,bird", param, ctx)
        return names


LABELS = _LabelsType()


class _SizeType(click.ParamType):  # type: ignore[type-arg]
    """``2MB``, ``500 kB``, ``1.5MiB`` or bytes."""

    name = "size"
    units: ClassVar = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)", str(value).strip())
        if found is None or found[2].lower() not in self.units or float(found[1]) == 0:
            self.fail(f"{value!r} is not a size, such as 2MB, 500kB or a number of bytes above 0", param, ctx)
        return int(float(found[1]) * self.units[found[2].lower()])


SIZE = _SizeType()


def _given_or_none(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...] | None:
    return value or None


data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Folder, or .npz file, of the data set. [default: $PARAEDGE_DATA]",
)
engine_option = click.option(
    "--engine", type=ENGINE, help="Another engine that can run the same files. [default: the bundle's]"
)
threads_option = click.option(
    "--threads", type=int, help="Number of threads for branches. [default: one per branch, up to the number of cores]"
)

trusted_keys_option = click.option(
    "--key",
    "trusted_keys",
    multiple=True,
    callback=_given_or_none,
    help="Require a signature by this key: a public key, its file, or a folder of keys. May be repeated. "
    "[default: $PARAEDGE_TRUSTED_KEYS]",
)

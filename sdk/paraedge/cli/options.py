"""Option types that several commands share."""

from __future__ import annotations

import re
import unicodedata
from typing import ClassVar

import click

__all__ = ["BRANCHES", "LABELS", "SIZE", "THREADS", "Branches", "trusted_keys_option"]

Branches = int | tuple[int, ...] | None


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
                f"{value!r} is not a choice of branches; write a count (2), indexes (0,3,5), one index (3,) or all",
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
            self.fail(f"{value!r} is no list of thread counts; write it as 1,2,4", param, ctx)


THREADS = _ThreadsType()


class _LabelsType(click.ParamType):  # type: ignore[type-arg]
    """``cat,dog,bird``: names of classes, in Unicode's composed form as those of class folders are."""

    name = "labels"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if not isinstance(value, str):
            return value  # type: ignore[return-value]
        names = tuple(unicodedata.normalize("NFC", piece.strip()) for piece in value.split(","))
        if not all(names) or len(set(names)) != len(names):
            self.fail(f"{value!r} is no list of different names; write them as cat,dog,bird", param, ctx)
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
            self.fail(f"{value!r} is no size; write it as 2MB, 500kB or a number of bytes above 0", param, ctx)
        return int(float(found[1]) * self.units[found[2].lower()])


SIZE = _SizeType()


def _given_or_none(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...] | None:
    return value or None


trusted_keys_option = click.option(
    "--key",
    "trusted_keys",
    multiple=True,
    callback=_given_or_none,
    help="Open it only if this key signed it: a public key, its file, or a folder of them; again for more. "
    "[default: what PARAEDGE_TRUSTED_KEYS names]",
)

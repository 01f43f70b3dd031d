"""What an export is asked to make: parsed and checked once, before anything slow begins. Needs no torch."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from paraedge_converters.delegates import DELEGATES, delegate_for
from paraedge_converters.recipes import FLOAT_STEM, Recipe, part_recipe, recipe_for
from paraedge_converters.targets import TARGETS, backend_for
from paraedge_runtime._arguments import as_choice, as_path, choose_branches
from paraedge_runtime.atomic import check_writable
from paraedge_runtime.bundle import check_destination
from paraedge_runtime.engines import engine_info
from paraedge_runtime.errors import InputError
from paraedge_runtime.manifest import Name

__all__ = ["SMALL", "ExportRequest", "bundle_name", "check_name", "fitting_name", "parse_request"]

SMALL = "small"  # stands for the target's own quantization recipe


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """A validated export request, made by :func:`parse_request`.

    Attributes:
        name: name of the model and of the bundle.
        num_branches: number of branches in the whole model.
        branches: indexes of the exported branches, ascending.
        target: kind of device, a key of ``TARGETS``.
        engine: engine that runs the parts.
        converter: converter that lowers the parts, a key of ``backends.CONVERTERS``.
        quantize: quantization recipe, a key of ``RECIPES``, or one with ``+fp32-stem``.
        out: bundle folder to write.
        fused: add the chosen branches as a single ordinary model file.
        allow_undelegated: allow operators outside the engine's fast backend.
        delegate: a key of ``DELEGATES``; ``None``: all parts are for the CPU.
    """

    name: str
    num_branches: int
    branches: tuple[int, ...]
    target: str
    engine: str
    converter: str
    quantize: str
    out: Path
    fused: bool
    allow_undelegated: bool
    delegate: str | None = None

    @property
    def recipe(self) -> Recipe:
        """The recipe, whose tolerance the parity gate applies."""
        return recipe_for(self.quantize, self.converter)

    def recipe_of(self, part: str) -> str:
        """The name of one part's quantization recipe."""
        return part_recipe(self.quantize, part)

    def delegate_of(self, part: str) -> str | None:
        """The delegate that gets one part, if any."""
        return self.delegate if self.delegate is not None and DELEGATES[self.delegate].takes(part) else None


def parse_request(
    *,
    name: str,
    num_branches: int,
    target: str,
    engine: str | None = None,
    quantize: str = "fp32",
    branches: int | Sequence[int] | None = None,
    out: str | os.PathLike[str] | None = None,
    fused: bool = False,
    allow_undelegated: bool = False,
    delegate: str | None = None,
) -> ExportRequest:
    """Check everything that can be checked without the model's weights.

    Args:
        name: of the model.
        num_branches: of the model.
        target: a key of ``TARGETS``.
        engine: another engine than the target's own.
        quantize: a quantization recipe that the engine has; ``small`` is the target's.
        branches: the first so many, or these indexes in ascending order; all when ``None``.
        out: bundle folder to write; ``NAME-TARGET-BRANCHES.paraedge`` here when ``None``.
        fused, allow_undelegated, delegate: see :class:`ExportRequest`.

    Raises:
        InputError: unknown target, engine or quantization recipe, no such branch, a name that no bundle can
            have, or ``out`` cannot be written.
        BundleError: something stands at ``out`` that is not a complete bundle; it is not replaced.
    """
    check_name(name)
    as_choice("target", target, sorted(TARGETS))
    recipe_name = TARGETS[target].recipe if isinstance(quantize, str) and quantize == SMALL else quantize
    if delegate is not None:
        recipe_for(recipe_name, "")
        found = delegate_for(delegate, target, engine, recipe_name)
        if fused:
            raise InputError(
                "a fused model is for the CPU alone; leave out fused (--fused), or the delegate (--delegate)"
            )
        engine_name, converter = found.engine, found.engine
    else:
        engine_name, converter = backend_for(target, engine)
    engine_info(engine_name)
    recipe_for(recipe_name, converter)
    if fused and recipe_name.endswith(FLOAT_STEM):
        raise InputError(
            f"a fused model has no stem of its own; leave out fused (--fused), or use the recipe "
            f"{recipe_name.removesuffix(FLOAT_STEM)!r}"
        )
    chosen = choose_branches(branches, tuple(range(num_branches)))
    destination = (
        as_path("out", out)
        if out is not None
        else Path(bundle_name(name, target, chosen, num_branches, recipe_name, delegate))
    )
    check_destination(destination)
    try:
        check_writable(destination)
    except OSError as error:
        raise InputError(
            f"{destination} cannot be written: {error.strerror}; choose another path with --out"
        ) from error
    return ExportRequest(
        name=name,
        num_branches=num_branches,
        branches=chosen,
        target=target,
        engine=engine_name,
        converter=converter,
        quantize=recipe_name,
        out=destination,
        fused=fused,
        allow_undelegated=allow_undelegated,
        delegate=delegate,
    )


def check_name(name: str) -> None:
    """Refuse a name that no bundle can have.

    Raises:
        InputError: with a name that would do.
    """
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError:
        raise InputError(
            f"{name!r} is not a valid bundle name; use letters, digits, '_', '.', '+' and '-', at most 100 "
            f"of them, the first a letter, a digit or '_': {fitting_name(name)!r}"
        ) from None


def fitting_name(text: str) -> str:
    """The name of a bundle nearest to any text: ``my-photos``, ``Prufbilder``; ``model`` where nothing is left."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", str(text)) if not unicodedata.combining(letter))
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", plain).strip(".+-")[:100] or "model"


def bundle_name(
    name: str,
    target: str,
    branches: Sequence[int],
    num_branches: int,
    quantize: str = "fp32",
    delegate: str | None = None,
) -> str:
    """``fashion-mnist-android-2.paraedge``; ``-all`` for all branches, ``-0-3-5`` for a choice of them.

    A quantization recipe other than ``fp32`` comes after it, and a delegate last:
    ``fashion-mnist-android-2-int8-dynamic.paraedge``, ``fashion-mnist-ios-2-coreml.paraedge``.
    """
    if list(branches) == list(range(num_branches)):
        choice = "all"
    elif list(branches) == list(range(len(branches))):
        choice = str(len(branches))
    else:
        choice = "-".join(str(index) for index in branches)
        if len(branches) == 1:
            choice = f"only-{choice}"
    suffix = ("" if quantize == "fp32" else f"-{quantize}") + ("" if delegate is None else f"-{delegate}")
    return f"{name}-{target}-{choice}{suffix}.paraedge"

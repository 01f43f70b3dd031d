"""The export in stages: request → split → lower → prove → assemble. Each stage has a file of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paraedge_converters.assemble import assemble
from paraedge_converters.backends import converter_for
from paraedge_converters.cache import PartCache, tool_versions
from paraedge_converters.description import ModelDescription, check_description
from paraedge_converters.lowering import lower_parts
from paraedge_converters.parity import torch_reference
from paraedge_converters.proof import prove
from paraedge_converters.protocol import BranchModel
from paraedge_converters.request import ExportRequest, parse_request
from paraedge_converters.split import check_contract, split_model
from paraedge_runtime.bundle import Bundle
from paraedge_runtime.engines import open_engine
from paraedge_runtime.errors import ParityError
from paraedge_runtime.inputs import normalise

__all__ = ["ConversionProgress", "convert", "run_export"]


@dataclass(frozen=True)
class ConversionProgress:
    """One thing done: ``what`` of ``total`` steps; ``cached`` parts were not lowered again."""

    what: str
    step: int
    total: int
    cached: bool = False


def convert(
    model: BranchModel,
    description: ModelDescription,
    out: str | os.PathLike[str],
    *,
    target: str,
    engine: str | None = None,
    quantize: str = "fp32",
    branches: int | Sequence[int] | None = None,
    fused: bool = False,
    allow_undelegated: bool = False,
    cache: PartCache | None = None,
    on_progress: Callable[[ConversionProgress], None] = lambda progress: None,
) -> Bundle:
    """Export chosen branches of a model as a bundle that is proven against torch.

    Args:
        model: any network that keeps the ``BranchModel`` contract; it is not changed.
        description: names, and real inputs.
        out: bundle folder to write; a bundle that stands there is replaced.
        target: kind of device, a key of ``targets.TARGETS``.
        engine: another engine than the target's own.
        quantize: a quantization recipe, a key of ``recipes.RECIPES`` that the engine has; ``NAME+fp32-stem``
            leaves the stem as it is, ``small`` is the target's own.
        branches: the first so many, or these indexes in ascending order; all when ``None``.
        fused: add the chosen branches as one ordinary model for other tools.
        allow_undelegated: accept operators outside the engine's fast backend (they are listed).
        cache: of lowered parts; the user's when ``None``.
        on_progress: called when a step is done.

    Raises:
        InputError: unknown target, engine or quantization recipe, no such branch, unusable samples, or ``out``
            cannot be written.
        UnsupportedModel: the network does not keep the contract.
        ConversionError: the backend failed or left operators it should not have.
        ParityError: the result does not compute what torch computes. Nothing is written.
        BundleError: ``out`` exists and is no bundle folder.
    """
    check_contract(model)
    request = parse_request(
        name=description.name,
        num_branches=len(model.branches),
        target=target,
        engine=engine,
        quantize=quantize,
        branches=branches,
        out=out,
        fused=fused,
        allow_undelegated=allow_undelegated,
    )
    return run_export(model, description, request, cache=cache, on_progress=on_progress)


def run_export(
    model: BranchModel,
    description: ModelDescription,
    request: ExportRequest,
    *,
    cache: PartCache | None = None,
    on_progress: Callable[[ConversionProgress], None] = lambda progress: None,
) -> Bundle:
    """Carry a request out; see :func:`convert`."""
    check_description(model, description, len(request.branches))
    tool_versions(converter_for(request.converter))
    engine = open_engine(request.engine)
    cache = cache or PartCache()

    parts = split_model(model, request.branches, fused=request.fused)
    reference = torch_reference(model, request.branches, normalise(description.samples, model.input_spec))
    num_tested = 0 if description.test_set is None else len(description.test_set.labels)
    progress = _Progress(on_progress, len(parts) + len(reference.inputs) + num_tested)

    def lower_prove_assemble(anew: bool) -> Bundle:
        with lower_parts(parts, request, engine, reference.inputs, cache, anew=anew, on_part=progress.part) as lowered:
            try:
                proof = prove(lowered, reference, description, model.input_spec, request, progress.sample)
            except ParityError as error:
                if lowered.from_cache:
                    raise _Suspicious from error
                for key in lowered.cache_keys.values():
                    cache.discard(key)
                raise
            return assemble(model, description, request, engine, parts, lowered, reference, proof)

    try:
        return lower_prove_assemble(anew=False)
    except _Suspicious:
        progress.start_again()
        return lower_prove_assemble(anew=True)


class _Suspicious(Exception):
    """The gate refused parts of which some came from the cache: they may not be what they are said to be."""


class _Progress:
    """Counts steps for ``on_progress``."""

    def __init__(self, tell: Callable[[ConversionProgress], None], total: int) -> None:
        self._tell = tell
        self._steps = self._total = total
        self._done = 0

    def part(self, name: str, cached: bool) -> None:
        self._advance(name, cached)

    def sample(self, what: str) -> None:
        self._advance(what, False)

    def start_again(self) -> None:
        """All steps are still to be done."""
        self._total = self._done + self._steps

    def _advance(self, what: str, cached: bool) -> None:
        self._done += 1
        self._tell(ConversionProgress(what, self._done, self._total, cached))

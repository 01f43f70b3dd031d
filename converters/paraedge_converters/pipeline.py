"""The export in stages: request → split → lower → prove → assemble. Each stage has a file of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from paraedge_converters._given import plain_description
from paraedge_converters._logging import root_logger_kept
from paraedge_converters._temporary import temporary_files
from paraedge_converters.assemble import assemble
from paraedge_converters.backends import converter_for
from paraedge_converters.cache import PartCache, tool_versions
from paraedge_converters.delegates import DELEGATES
from paraedge_converters.description import ModelDescription, check_description
from paraedge_converters.file_metadata import file_metadata
from paraedge_converters.lowering import lower_parts
from paraedge_converters.parity import torch_reference
from paraedge_converters.proof import prove
from paraedge_converters.protocol import BranchModel
from paraedge_converters.recipes import FLOAT_STEM, finer_recipes
from paraedge_converters.request import ExportRequest, parse_request
from paraedge_converters.split import check_contract, split_model
from paraedge_runtime._arguments import as_callable, as_instance, as_path
from paraedge_runtime.bundle import Bundle
from paraedge_runtime.engines import open_engine
from paraedge_runtime.errors import ConversionError, EngineError, ParityError
from paraedge_runtime.inputs import normalise
from paraedge_runtime.trial import remember_bundle, remember_part

__all__ = ["ConversionProgress", "convert", "run_export"]


@dataclass(frozen=True)
class ConversionProgress:
    """One finished step of an export. ``cached`` parts were not lowered again."""

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
    delegate: str | None = None,
    cache: PartCache | None = None,
    on_progress: Callable[[ConversionProgress], None] = lambda progress: None,
) -> Bundle:
    """Export chosen branches of a model as a bundle, and check every part against torch.

    Args:
        model: a network that implements ``BranchModel``; it is not changed.
        description: name, labels, licence and real inputs.
        out: bundle folder to write; an existing bundle is replaced.
        target: kind of device, a key of ``targets.TARGETS``.
        engine: an engine; ``None`` for the target's own.
        quantize: quantization recipe, a key of ``recipes.RECIPES`` that the engine supports; ``NAME+fp32-stem``
            leaves the stem in float32, ``small`` is the target's recipe.
        branches: a count (the first ones), or indexes in ascending order; ``None`` for all.
        fused: add the chosen branches as a single ordinary model file.
        allow_undelegated: allow operators outside the engine's fast backend.
        delegate: GPU or NPU that gets some parts, a key of ``delegates.DELEGATES``. A part that nothing here can run is
            exported all the same, and the card says so.
        cache: cache of lowered parts; ``None`` for the user's.
        on_progress: called after each step.

    Raises:
        InputError: unknown target, engine, quantization recipe or branch, invalid samples, or ``out`` cannot be
            written.
        UnsupportedModel: the network does not implement ``BranchModel``.
        ConversionError: the backend failed, or left operators that the target does not run.
        ParityError: a part does not compute what torch computes; nothing is written. If a quantization recipe fails,
            finer ones are tried (nine at most, each as long as an export without a test set), and the message names
            the first that passes.
        BundleError: ``out`` exists and is not a complete bundle; it is not replaced.
    """
    check_contract(model)
    as_callable("on_progress", on_progress)
    if cache is not None:
        as_instance("cache", cache, PartCache)
    description = plain_description(description)
    request = parse_request(
        name=description.name,
        num_branches=len(model.branches),
        target=target,
        engine=engine,
        quantize=quantize,
        branches=branches,
        out=as_path("out", out),
        fused=fused,
        allow_undelegated=allow_undelegated,
        delegate=delegate,
    )
    return run_export(model, description, request, cache=cache, on_progress=on_progress)


def run_export(
    model: BranchModel,
    description: ModelDescription,
    request: ExportRequest,
    *,
    cache: PartCache | None = None,
    try_finer: bool = True,
    on_progress: Callable[[ConversionProgress], None] = lambda progress: None,
) -> Bundle:
    """Carry a request out; see :func:`convert`. ``try_finer`` is whether finer recipes are tried for the message.

    The description holds arrays and tuples, as :func:`plain_description` makes them.
    """
    with temporary_files(request.out), root_logger_kept():
        return _export(model, description, request, cache or PartCache(), try_finer, on_progress)


def _export(
    model: BranchModel,
    description: ModelDescription,
    request: ExportRequest,
    cache: PartCache,
    try_finer: bool,
    on_progress: Callable[[ConversionProgress], None],
) -> Bundle:
    check_description(model, description, len(request.branches))
    tool_versions(converter_for(request.converter))
    if request.delegate is not None:
        tool_versions(converter_for(DELEGATES[request.delegate].converter))
    engine = open_engine(request.engine)

    parts = split_model(model, request.branches, fused=request.fused)
    reference = torch_reference(model, request.branches, normalise(description.samples, model.input_spec))
    metadata = file_metadata(model.input_spec, description.output(model.num_outputs), description)
    num_tested = 0 if description.test_set is None else len(description.test_set.labels)
    progress = _Progress(on_progress, len(parts) + len(reference.inputs) + num_tested)

    def lower_and_prove(asked: ExportRequest, described: ModelDescription, write: bool, anew: bool) -> Bundle | None:
        with lower_parts(
            parts, asked, engine, reference.inputs, cache, anew=anew, metadata=metadata, on_part=progress.part
        ) as lowered:
            try:
                proof = prove(lowered, reference, described, model.input_spec, asked, progress.sample)
            except ParityError as error:
                if lowered.from_cache:
                    raise _Suspicious from error
                for key in lowered.cache_keys.values():
                    cache.discard(key)
                raise
            ran = {name for name, how in lowered.proofs.items() if how == "engine"}
            for name in ran:
                remember_part(asked.engine, lowered.entries[name])
            if not write:
                return None
            bundle = assemble(model, described, asked, engine, parts, lowered, reference, proof)
            if len(ran) == len(lowered.proofs):
                remember_bundle(bundle)
            return bundle

    def attempt(asked: ExportRequest, described: ModelDescription, write: bool) -> Bundle | None:
        try:
            return lower_and_prove(asked, described, write, anew=False)
        except _Suspicious:
            progress.start_again()
            return lower_and_prove(asked, described, write, anew=True)

    def passes(name: str) -> bool:
        progress.start_again()
        try:
            attempt(replace(request, quantize=name), replace(description, test_set=None), write=False)
        except (ConversionError, EngineError):  # the refused recipe's own error is told, not this one's
            return False
        return True

    try:
        bundle = attempt(request, description, write=True)
    except ParityError as error:
        finer = finer_recipes(request.quantize, request.converter) if try_finer else ()
        if request.fused:  # which has no stem of its own
            finer = tuple(name for name in finer if not name.endswith(FLOAT_STEM))
        if request.delegate is not None:
            finer = tuple(name for name in finer if DELEGATES[request.delegate].reads(name))
        if not finer:
            raise
        found = next((name for name in finer if passes(name)), "fp32")
        why = "which passes" if found != "fp32" else "no finer recipe passes"
        raise ParityError(f'{error}; export with --quantize {found} (quantize="{found}" in Python), {why}') from error
    assert bundle is not None
    return bundle


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

"""The second stage: every part becomes a program, lowered now or taken from the cache, and is loaded in the engine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from paraedge_converters.backends import converter_for
from paraedge_converters.cache import CachedPart, PartCache
from paraedge_converters.delegates import DELEGATES, Proof
from paraedge_converters.file_metadata import with_metadata
from paraedge_converters.request import ExportRequest
from paraedge_converters.split import Part, count_macs, quantizable
from paraedge_runtime.bundle import file_entry
from paraedge_runtime.engines import Engine, LoadedPart, engine_info
from paraedge_runtime.errors import ConversionError, EngineUnavailable, IntegrityError
from paraedge_runtime.manifest import PartEntry
from paraedge_runtime.trial import try_part

__all__ = ["LoweredModel", "lower_parts"]

Array = NDArray[np.float32]

NUM_CALIBRATION = 128  # inputs whose ranges a quantized part is made for; every second one of the description


@dataclass(frozen=True, eq=False)
class LoweredModel:
    """All parts by name: ``stem``, ``branch_NN`` …, and ``fused`` if it was asked for.

    Attributes:
        programs: with operators and multiply-adds.
        entries: of their files, as in the manifest.
        loaded: in the engine, or in what proves a part of a delegate.
        proofs: what that is; see ``PartCard.proof``.
        cache_keys: of the parts that the cache can keep.
        from_cache: names of those that were not lowered now.
    """

    programs: Mapping[str, CachedPart]
    entries: Mapping[str, PartEntry]
    loaded: Mapping[str, LoadedPart]
    proofs: Mapping[str, Proof]
    cache_keys: Mapping[str, str]
    from_cache: tuple[str, ...]


@contextlib.contextmanager
def lower_parts(
    parts: Sequence[Part],
    request: ExportRequest,
    engine: Engine,
    inputs: Array,
    cache: PartCache,
    *,
    anew: bool,
    metadata: Mapping[str, object],
    on_part: Callable[[str, bool], None],
) -> Iterator[LoweredModel]:
    """Yield the parts as a :class:`LoweredModel`, which is closed when the block ends.

    Args:
        parts: from ``split_model``, the stem first.
        request: what to make.
        engine: opened.
        inputs: (n, …), normalised; quantized parts are calibrated on some of them.
        cache: of lowered parts.
        anew: take nothing from the cache.
        metadata: what the file of a fused model says about it.
        on_part: called with each name, and whether it came from the cache.

    Raises:
        ConversionError: the backend failed or left operators it should not have.
        EngineError: the engine refused a program.

    Programs from the cache run in a process of their own first; one that kills it is lowered anew.
    """
    programs: dict[str, CachedPart] = {}
    entries: dict[str, PartEntry] = {}
    loaded: dict[str, LoadedPart] = {}
    proofs: dict[str, Proof] = {}
    keys: dict[str, str] = {}
    from_cache: list[str] = []
    images = samples = inputs[1::2][:NUM_CALIBRATION] if len(inputs) > 1 else inputs
    with contextlib.ExitStack() as stack:
        for part in parts:
            name = part.name
            is_fused = name == "fused"
            programs[name], key, was_cached = _lower(part, request, images if is_fused else samples, cache, anew)
            if is_fused:  # the cache's has none: a label decides nothing that is computed
                suffix = engine_info(request.engine).suffix
                programs[name] = replace(
                    programs[name], program=with_metadata(suffix, programs[name].program, metadata)
                )
            if key is not None:
                keys[name] = key
            if was_cached:
                from_cache.append(name)
            entries[name] = _entry(part, programs[name], request)
            ready, proofs[name] = _load(part, programs[name], entries[name], engine)
            if ready is None:  # the same part for the CPU stands in for it
                on_cpu = replace(request, delegate=None)
                stood_in, key, was_cached_too = _lower(part, on_cpu, samples, cache, anew)
                if key is not None:
                    keys[f"{name} for the CPU"] = key
                if was_cached_too:
                    from_cache.append(f"{name} for the CPU")
                ready = _open(engine, name, stood_in.program, _entry(part, stood_in, on_cpu))
            loaded[name] = ready
            stack.callback(loaded[name].close)
            if name == "stem" and request.quantize != "fp32":
                # Branches are calibrated on what this stem makes, its errors included.
                samples = np.concatenate([loaded[name].run(sample[None]) for sample in samples])
            on_part(name, was_cached)
        yield LoweredModel(programs, entries, loaded, proofs, keys, tuple(from_cache))


def _load(part: Part, lowered: CachedPart, entry: PartEntry, engine: Engine) -> tuple[LoadedPart | None, Proof]:
    """The program loaded, and what runs it; ``None`` where nothing does here."""
    proof: Proof = "engine" if entry.delegate is None else DELEGATES[entry.delegate].proof
    if proof == "reference model":
        from paraedge_converters.backends.ethos_u import TosaPart

        return TosaPart(lowered.reference), proof
    if proof == "engine":
        try:
            return _open(engine, part.name, lowered.program, entry), proof
        except EngineUnavailable:
            if entry.delegate is None:
                raise
    return None, "never run"


def _open(engine: Engine, name: str, program: bytes, entry: PartEntry) -> LoadedPart:
    """Open a program; what a device would refuse is a fault of the export, and no file of anybody is damaged."""
    try:
        return engine.load(name, program, entry)
    except IntegrityError as error:
        problem, _, _ = str(error).rpartition("; ")
        raise ConversionError(
            f"{name}: devices would reject the exported program: {problem}; write this part of the network "
            "with other operators, or try another --engine"
        ) from error


def _lower(
    part: Part, request: ExportRequest, samples: Array, cache: PartCache, anew: bool
) -> tuple[CachedPart, str | None, bool]:
    """The program, its key in the cache (``None``: it has none), and whether it came from there."""
    delegate, recipe = request.delegate_of(part.name), request.recipe_of(part.name)
    converter = converter_for(request.converter if delegate is None else DELEGATES[delegate].converter)
    calibration = torch.from_numpy(samples if recipe != "fp32" else samples[:0])
    module = part.module if recipe == "fp32" else quantizable(part.module)
    key = cache.key(
        module,
        part.example,
        request.engine,
        converter,
        recipe=recipe,
        calibration=calibration,
        allow_undelegated=request.allow_undelegated,
    )
    if key is not None and not anew and (found := cache.get(key)) is not None:
        try:
            if delegate is None or DELEGATES[delegate].proof == "engine":
                try_part(request.engine, part.name, found.program, _entry(part, found, request))
        except IntegrityError:
            cache.discard(key)  # it is not what was kept
        else:
            return found, key, True
    try:
        lowered = converter.lower(
            module, part.example, recipe=recipe, calibration=calibration, allow_undelegated=request.allow_undelegated
        )
    except ConversionError as error:
        raise ConversionError(f"{part.name}: {error}") from error
    made = CachedPart(lowered.program, lowered.operators, lowered.reference, count_macs(part))
    if key is not None:
        cache.put(key, made)
    return made, key, False


def _entry(part: Part, lowered: CachedPart, request: ExportRequest) -> PartEntry:
    entry = file_entry(f"{part.name}{engine_info(request.engine).suffix}", lowered.program)
    return PartEntry(
        file=entry.file,
        size_bytes=entry.size_bytes,
        sha256=entry.sha256,
        input_shape=tuple(part.example.shape),
        output_shape=part.output_shape,
        macs=lowered.macs,
        delegate=request.delegate_of(part.name),
    )

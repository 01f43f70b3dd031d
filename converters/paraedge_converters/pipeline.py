"""The pipeline: choose branches, split, lower each part (or take it from the cache), gate, write."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from paraedge_converters.cache import PartCache, fingerprint, tool_versions
from paraedge_converters.lowering import CachedPart, Converter, converter_for
from paraedge_converters.parity import check_parity, torch_reference
from paraedge_converters.protocol import BranchModel
from paraedge_converters.split import Part, SubsetModel, check_contract, count_macs, split_model
from paraedge_converters.targets import target_for
from paraedge_runtime.bundle import Bundle, GoldenData, file_entry, golden_entry, write_bundle
from paraedge_runtime.chatter import captured_chatter
from paraedge_runtime.engines import engine_info, open_engine
from paraedge_runtime.errors import InputError, UnsupportedModel
from paraedge_runtime.inputs import normalise
from paraedge_runtime.manifest import Accuracy, BranchEntry, EarlyStop, Manifest, PartEntry
from paraedge_runtime.session import choose_branches

__all__ = ["ConversionProgress", "ModelDescription", "convert"]

# fp32: what is left is the order of additions and the engines' own exp, erf and rsqrt.
MIN_SNR_DB = 100.0
MIN_TOP1_AGREEMENT = 1.0
NUM_GOLDEN = 32


@dataclass(frozen=True, eq=False, kw_only=True)
class ModelDescription:
    """What a bundle says about its model, and the real images that prove it right.

    Attributes:
        name: short, used for file names: letters, digits, ``.``, ``-``, ``_``, ``+``.
        description: one sentence.
        license: of the weights and the images.
        labels: one name per output.
        images: (n, H, W, C) uint8, real ones; parity needs them, a few become golden.
        image_labels: (n,) class indexes.
        accuracy: of every prefix of the chosen branches, if known.
        early_stop: from :func:`calibrate_early_stop` on the chosen branches, if wanted.
    """

    name: str
    description: str
    license: str
    labels: tuple[str, ...]
    images: NDArray[np.uint8]
    image_labels: NDArray[np.int64]
    accuracy: Accuracy | None = None
    early_stop: EarlyStop | None = None


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
    out: str | Path,
    *,
    target: str,
    engine: str | None = None,
    branches: int | Sequence[int] | None = None,
    fused: bool = False,
    allow_undelegated: bool = False,
    cache: PartCache | None = None,
    on_progress: Callable[[ConversionProgress], None] = lambda progress: None,
) -> Bundle:
    """Export chosen branches of a model as a bundle that is proven against torch.

    Args:
        model: any network that keeps the ``BranchModel`` contract; it is not changed.
        description: names, and real images.
        out: bundle folder to write; a bundle that stands there is replaced.
        target: a key of ``targets.TARGETS``.
        engine: another engine than the target's own.
        branches: the first so many, or these indexes in ascending order; all when ``None``.
        fused: add the chosen branches as one ordinary model for other tools.
        allow_undelegated: accept operators outside the engine's fast backend (they are listed).
        cache: of lowered parts; the user's when ``None``.
        on_progress: called when a step is done.

    Raises:
        InputError: unknown target or engine, no such branch, unusable images.
        UnsupportedModel: the network does not keep the contract.
        ConversionError: the backend failed or left operators it should not have.
        ParityError: the result does not compute what torch computes. Nothing is written.
    """
    default_engine = target_for(target).engine
    engine_name = engine or default_engine
    suffix = engine_info(engine_name).suffix
    check_contract(model)
    total_branches = len(model.branches)
    chosen = choose_branches(branches, tuple(range(total_branches)))
    _check_description(model, description, len(chosen))
    converter = converter_for(engine_name)
    with captured_chatter():
        runner = open_engine(engine_name)
    cache = cache or PartCache()

    # Modules are switched to eval mode on copies or put back: the caller's model is not changed.
    was_training = [module for module in _modules(model) if module.training]
    for module in _modules(model):
        module.eval()
    try:
        parts = split_model(model, chosen)
        reference = torch_reference(model, chosen, normalise(description.images, model.input_spec))
        checkpoint_sha256 = fingerprint(
            {
                f"{place}.{name}": tensor
                for place, module in enumerate([model.stem, *model.branches])
                for name, tensor in module.state_dict().items()
            }
        )
    finally:
        for module in was_training:
            module.train()

    whole = _whole_model(parts, model) if fused else None
    steps = len(parts) + (1 if whole else 0) + len(reference.inputs)
    done = 0

    def advance(what: str, *, cached: bool = False) -> None:
        nonlocal done
        done += 1
        on_progress(ConversionProgress(what, done, steps, cached))

    lowered: dict[str, CachedPart] = {}
    for part in [*parts, *([whole] if whole else [])]:
        lowered[part.name], was_cached = _lower(part, engine_name, converter, cache, allow_undelegated)
        advance(part.name, cached=was_cached)

    files = {f"{name}{suffix}": program.program for name, program in lowered.items()}
    entries = {
        part.name: _part_entry(part, lowered[part.name], suffix) for part in [*parts, *([whole] if whole else [])]
    }
    with captured_chatter():
        loaded = {name: runner.load(name, lowered[name].program, entry) for name, entry in entries.items()}
    try:
        parity = check_parity(
            reference,
            {part.name: loaded[part.name] for part in parts},
            min_snr_db=MIN_SNR_DB,
            min_top1_agreement=MIN_TOP1_AGREEMENT,
            fused=loaded.get("fused"),
            on_sample=lambda: advance("parity"),
        )
    finally:
        for program in loaded.values():
            program.close()

    golden = GoldenData(
        description.images[:NUM_GOLDEN],
        np.ascontiguousarray(reference.branch_outputs[:NUM_GOLDEN]),
        description.image_labels[:NUM_GOLDEN],
    )
    golden_files = golden.files()
    manifest = Manifest(
        format="paraedge-bundle/1",
        name=description.name,
        description=description.description,
        license=description.license,
        labels=description.labels,
        input=model.input_spec,
        stem=entries["stem"],
        branches=tuple(_branch_entry(entries[part.name], index) for part, index in zip(parts[1:], chosen, strict=True)),
        total_branches=total_branches,
        fused=entries.get("fused"),
        engine=engine_name,
        engine_min_version=converter.ENGINE_MIN_VERSION,
        target=target,
        recipe="fp32",
        accuracy=description.accuracy,
        early_stop=description.early_stop,
        parity=parity,
        golden=golden_entry(golden_files, tuple(int(label) for label in golden.labels)),
        tool_versions={
            "paraedge": importlib.metadata.version("paraedge"),
            "python": platform.python_version(),
            runner.distribution: runner.version,
            **tool_versions(converter),
        },
        checkpoint_sha256=checkpoint_sha256,
    )
    return write_bundle(manifest, {**files, **golden_files}, out)


def _modules(model: BranchModel) -> list[torch.nn.Module]:
    return [module for part in (model.stem, *model.branches) for module in part.modules()]


def _check_description(model: BranchModel, description: ModelDescription, num_chosen: int) -> None:
    if len(description.labels) != model.num_outputs:
        raise InputError(f"{len(description.labels)} labels for a model of {model.num_outputs} outputs")
    _, channels, height, width = model.input_spec.shape
    images = description.images
    if images.dtype != np.uint8 or images.shape[1:] != (height, width, channels) or not len(images):
        raise InputError(
            f"images for the parity gate are {images.shape} {images.dtype}; "
            f"(n, {height}, {width}, {channels}) uint8 real images are needed"
        )
    labels = description.image_labels
    if labels.shape != (len(images),) or labels.min() < 0 or labels.max() >= model.num_outputs:
        raise InputError(f"image_labels must be one class index below {model.num_outputs} per image")
    if description.early_stop is not None and len(description.early_stop.prefixes) != num_chosen:
        raise InputError(
            f"early_stop has {len(description.early_stop.prefixes)} prefixes for {num_chosen} branches; "
            "calibrate it on the branches that are exported"
        )
    if images.min() == images.max():
        raise InputError("all images for the parity gate are one flat colour; real images are needed")


def _whole_model(parts: list[Part], model: BranchModel) -> Part:
    stem = parts[0]
    module = SubsetModel(stem.module, [part.module for part in parts[1:]]).eval()
    return Part(
        name="fused",
        module=module,
        example=stem.example,
        output_shape=(1, model.num_outputs),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
    )


def _lower(
    part: Part, engine: str, converter: Converter, cache: PartCache, allow_undelegated: bool
) -> tuple[CachedPart, bool]:
    key = cache.key(part, engine, converter, allow_undelegated=allow_undelegated)
    if (found := cache.get(key)) is not None:
        return found, True
    lowered = converter.lower(part.module, part.example, allow_undelegated=allow_undelegated)
    kept = CachedPart(lowered.program, lowered.operators, count_macs(part))
    cache.put(key, kept)
    return kept, False


def _part_entry(part: Part, lowered: CachedPart, suffix: str) -> PartEntry:
    entry = file_entry(f"{part.name}{suffix}", lowered.program)
    if part.parameters == 0 and part.name != "stem":
        raise UnsupportedModel(f"{part.name} has no parameters; a branch that learned nothing cannot be meant")
    return PartEntry(
        file=entry.file,
        size_bytes=entry.size_bytes,
        sha256=entry.sha256,
        input_shape=tuple(part.example.shape),
        output_shape=part.output_shape,
        parameters=part.parameters,
        macs=lowered.macs,
        operators=lowered.operators,
    )


def _branch_entry(entry: PartEntry, index: int) -> BranchEntry:
    return BranchEntry(index=index, **{name: getattr(entry, name) for name in entry.__struct_fields__})

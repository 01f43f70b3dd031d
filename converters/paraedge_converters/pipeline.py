"""The pipeline: choose branches, split, lower each part (or take it from the cache), gate, write."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from paraedge_converters.cache import PartCache, fingerprint, tool_versions
from paraedge_converters.early_stop import DEFAULT_MAX_ACCURACY_DROP, Calibration, calibrate_early_stop
from paraedge_converters.lowering import CachedPart, Converter, converter_for
from paraedge_converters.parity import check_parity, torch_reference
from paraedge_converters.protocol import BranchModel
from paraedge_converters.recipes import FLOAT_STEM, part_recipe, recipe_for
from paraedge_converters.split import Part, SubsetModel, check_contract, count_macs, quantizable, split_model
from paraedge_converters.targets import backend_for
from paraedge_runtime.bundle import Bundle, GoldenData, card_entry, check_place, file_entry, write_bundle
from paraedge_runtime.card import Accuracy, Card, PartCard
from paraedge_runtime.chatter import captured_chatter
from paraedge_runtime.engines import LoadedPart, engine_info, open_engine
from paraedge_runtime.errors import InputError, ParityError, UnsupportedModel
from paraedge_runtime.inputs import normalise
from paraedge_runtime.manifest import (
    BranchEntry,
    InputSpec,
    LabelsOutput,
    Manifest,
    PartEntry,
)
from paraedge_runtime.session import choose_branches

__all__ = ["ConversionProgress", "EvaluationSet", "ModelDescription", "convert"]

NUM_GOLDEN = 32
NUM_CALIBRATION = 128  # images whose ranges a quantized part is made for; every second one of the description


@dataclass(frozen=True, eq=False, kw_only=True)
class EvaluationSet:
    """Images that trained nothing, on which the parts that were just made are measured.

    Attributes:
        images: (M, H, W, C) uint8.
        labels: (M,) class indexes.
        dataset: what they are, for people.
        max_accuracy_drop: what early stop may cost; see :func:`calibrate_early_stop`.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    dataset: str
    max_accuracy_drop: float = DEFAULT_MAX_ACCURACY_DROP


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
        accuracy: of every prefix of the chosen branches in float32, if known.
        early_stop: from :func:`calibrate_early_stop` on the chosen branches in float32, if wanted.
        test_set: if given, accuracy and early stop are measured on the exported parts themselves. A
            quantized bundle is another model than the one in float32, and has none without it.
        version: of the model; a whole number that grows.
    """

    name: str
    description: str
    license: str
    labels: tuple[str, ...]
    images: NDArray[np.uint8]
    image_labels: NDArray[np.int64]
    accuracy: Accuracy | None = None
    early_stop: Calibration | None = None
    test_set: EvaluationSet | None = None
    version: int = 1


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
    recipe: str = "fp32",
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
        recipe: a key of ``recipes.RECIPES`` that the engine has; ``NAME+fp32-stem`` leaves the stem as it is.
        branches: the first so many, or these indexes in ascending order; all when ``None``.
        fused: add the chosen branches as one ordinary model for other tools.
        allow_undelegated: accept operators outside the engine's fast backend (they are listed).
        cache: of lowered parts; the user's when ``None``.
        on_progress: called when a step is done.

    Raises:
        InputError: unknown target, engine or recipe, no such branch, unusable images.
        UnsupportedModel: the network does not keep the contract.
        ConversionError: the backend failed or left operators it should not have.
        ParityError: the result does not compute what torch computes. Nothing is written.
        BundleError: ``out`` exists and is no bundle folder.
    """
    engine_name, converter_name = backend_for(target, engine)
    suffix = engine_info(engine_name).suffix
    gate = recipe_for(recipe, converter_name)
    check_place(out)
    if fused and recipe != "fp32":
        raise InputError(f"a fused model is float32 only; leave out --fused or the recipe {recipe!r}")
    check_contract(model)
    total_branches = len(model.branches)
    chosen = choose_branches(branches, tuple(range(total_branches)))
    _check_description(model, description, len(chosen))
    converter = converter_for(converter_name)
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
    test_set = description.test_set
    num_tested = 0 if test_set is None else len(test_set.labels)
    steps = len(parts) + (1 if whole else 0) + len(reference.inputs) + num_tested
    done = 0

    def advance(what: str, *, cached: bool = False) -> None:
        nonlocal done
        done += 1
        on_progress(ConversionProgress(what, done, steps, cached))

    programs: dict[str, bytes] = {}
    entries: dict[str, PartEntry] = {}
    operators: dict[str, dict[str, int]] = {}
    loaded: dict[str, LoadedPart] = {}
    calibration = reference.inputs[1::2][:NUM_CALIBRATION] if len(reference.inputs) > 1 else reference.inputs
    try:
        for part in [*parts, *([whole] if whole else [])]:
            how = part_recipe(recipe, part.name)
            lowered, was_cached = _lower(
                part, engine_name, converter, cache, how, calibration, allow_undelegated=allow_undelegated
            )
            programs[f"{part.name}{suffix}"] = lowered.program
            entries[part.name] = _part_entry(part, lowered, suffix)
            operators[part.name] = lowered.operators
            with captured_chatter():
                loaded[part.name] = runner.load(part.name, lowered.program, entries[part.name])
            if part.name == "stem" and recipe != "fp32":
                # Branches are calibrated on what this stem makes, its errors included.
                calibration = np.concatenate([loaded["stem"].run(image[None]) for image in calibration])
            advance(part.name, cached=was_cached)
        chain = {part.name: loaded[part.name] for part in parts}
        try:
            parity, similarities, answers = check_parity(
                reference,
                chain,
                min_snr_db=gate.min_snr_db,
                min_top1_agreement=gate.min_top1_agreement,
                fused=loaded.get("fused"),
                on_sample=lambda: advance("parity"),
            )
        except ParityError as error:
            if recipe == part_recipe(recipe, "stem") != "fp32":
                raise ParityError(f"{error}; a stem left as trained may do: {recipe}{FLOAT_STEM}") from error
            raise
        accuracy, stopping = description.accuracy, description.early_stop
        if test_set is not None:
            accuracy, stopping = _measure(
                chain, test_set, model.input_spec, f"{recipe} in {engine_name}", lambda: advance("test set")
            )
        elif recipe != "fp32":
            accuracy = stopping = None
    finally:
        for program in loaded.values():
            program.close()

    # A device may round otherwise: images that are a close call here would prove nothing there.
    kept = np.flatnonzero(
        (answers.argmax(axis=2) == reference.branch_outputs.cumsum(axis=1).argmax(axis=2)).all(axis=1)
    )[:NUM_GOLDEN]
    golden = GoldenData(
        description.images[kept],
        np.ascontiguousarray(reference.branch_outputs[kept]),
        description.image_labels[kept],
    )
    card = Card(
        description=description.description,
        license=description.license,
        parts={
            part.name: PartCard(
                parameters=part.parameters, operators=operators[part.name], similarity=similarities[part.name]
            )
            for part in parts
        },
        parity=parity,
        accuracy=accuracy,
        early_stop=None if stopping is None else stopping.early_stop,
        golden=golden.record(),
        tool_versions={
            "paraedge": importlib.metadata.version("paraedge"),
            "python": platform.python_version(),
            runner.distribution: runner.version,
            **tool_versions(converter),
        },
        checkpoint_sha256=checkpoint_sha256,
    )
    golden_files = golden.files()
    manifest = Manifest(
        format="paraedge-bundle/2",
        name=description.name,
        version=description.version,
        engine=engine_name,
        engine_min_version=converter.engine_min_version(recipe),
        target=target,
        quantization=recipe,
        input=model.input_spec,
        output=LabelsOutput(labels=description.labels),
        stem=entries["stem"],
        branches=tuple(_branch_entry(entries[part.name], index) for part, index in zip(parts[1:], chosen, strict=True)),
        total_branches=total_branches,
        fused=None if whole is None else file_entry(f"fused{suffix}", programs[f"fused{suffix}"]),
        stop_rules=None if stopping is None else stopping.stop_rules,
        card=card_entry(card),
        files=tuple(file_entry(name, data) for name, data in golden_files.items()),
        signature=None,
    )
    return write_bundle(manifest, card, {**programs, **golden_files}, out)


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
    if description.early_stop is not None and len(description.early_stop.stop_rules) != num_chosen:
        raise InputError(
            f"early_stop has {len(description.early_stop.stop_rules)} prefixes for {num_chosen} branches; "
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
    part: Part,
    engine: str,
    converter: Converter,
    cache: PartCache,
    recipe: str,
    calibration: NDArray[np.float32],
    *,
    allow_undelegated: bool,
) -> tuple[CachedPart, bool]:
    samples = torch.from_numpy(calibration if recipe != "fp32" else calibration[:0])
    key = cache.key(part, engine, converter, recipe=recipe, calibration=samples, allow_undelegated=allow_undelegated)
    if (found := cache.get(key)) is not None:
        return found, True
    module = part.module if recipe == "fp32" else quantizable(part.module)
    lowered = converter.lower(
        module, part.example, recipe=recipe, calibration=samples, allow_undelegated=allow_undelegated
    )
    kept = CachedPart(lowered.program, lowered.operators, count_macs(part))
    cache.put(key, kept)
    return kept, False


def _measure(
    parts: Mapping[str, LoadedPart],
    test_set: EvaluationSet,
    input_spec: InputSpec,
    how: str,
    on_image: Callable[[], None],
) -> tuple[Accuracy, Calibration]:
    """Run the test set through the parts, in the engine."""
    stem, *branches = parts.values()
    logits = []
    for image in test_set.images:
        tokens = stem.run(normalise(image[None], input_spec))
        logits.append(np.stack([branch.run(tokens)[0] for branch in branches]))
        on_image()
    branch_logits = np.stack(logits, axis=1)  # (k, M, C)
    correct = branch_logits.cumsum(axis=0, dtype=np.float32).argmax(axis=2) == test_set.labels
    accuracy = Accuracy(
        dataset=f"{test_set.dataset}, {how}",
        num_samples=len(test_set.labels),
        prefix_accuracy=tuple(round(float(value), 6) for value in correct.mean(axis=1)),
    )
    early_stop = calibrate_early_stop(
        branch_logits, test_set.labels, dataset=accuracy.dataset, max_accuracy_drop=test_set.max_accuracy_drop
    )
    return accuracy, early_stop


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
        macs=lowered.macs,
    )


def _branch_entry(entry: PartEntry, index: int) -> BranchEntry:
    return BranchEntry(index=index, **{name: getattr(entry, name) for name in entry.__struct_fields__})

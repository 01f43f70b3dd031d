"""From a checkpoint to a bundle: what ``paraedge export`` does, as one call."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from paraedge.data.images import ImageDataset, LabelledImages
from paraedge.data.signals import LabelledSignals, SignalDataset
from paraedge.model.checkpoint import Checkpoint, load_checkpoint
from paraedge.packaged import DEFAULT_MODEL, resolve_checkpoint
from paraedge.training.evaluate import evaluate_model
from paraedge_converters._temporary import temporary_files
from paraedge_converters.cache import PartCache
from paraedge_converters.description import EvaluationSet, ModelDescription
from paraedge_converters.early_stop import DEFAULT_MAX_ACCURACY_DROP, calibrate_early_stop
from paraedge_converters.pipeline import ConversionProgress, run_export
from paraedge_converters.recipes import FLOAT_STEM, RECIPES
from paraedge_converters.request import ExportRequest, bundle_name, fitting_name, parse_request
from paraedge_runtime._arguments import as_callable, as_path, shown
from paraedge_runtime.bundle import Bundle
from paraedge_runtime.card import Accuracy
from paraedge_runtime.errors import InputError, ParityError

TestSet = LabelledImages | ImageDataset | LabelledSignals | SignalDataset

__all__ = ["Trial", "export", "export_checkpoint", "export_smallest"]


def export(
    model: str | os.PathLike[str] | Checkpoint = DEFAULT_MODEL,
    *,
    target: str,
    branches: int | Sequence[int] | None = None,
    engine: str | None = None,
    quantize: str = "fp32",
    test_set: TestSet | None = None,
    out: str | os.PathLike[str] | None = None,
    fused: bool = False,
    allow_undelegated: bool = False,
    delegate: str | None = None,
    max_accuracy_drop: float = DEFAULT_MAX_ACCURACY_DROP,
    on_progress: Callable[[ConversionProgress], None] = lambda progress: None,
) -> Bundle:
    """Export chosen branches of a trained ParaFormer.

    For another network use :func:`paraedge_converters.convert` with a ``BranchModel``.

    Args:
        model: a packaged model's name, a checkpoint folder, or a loaded checkpoint.
        target: kind of device, a key of ``paraedge_converters.TARGETS``.
        branches: a count (the first ones), or indexes; ``None`` for all.
        engine: an engine; ``None`` for the target's own.
        quantize: quantization recipe, a key of ``paraedge_converters.RECIPES`` that the engine supports; ``small`` is
            the target's recipe.
        test_set: held-out images or signals of the model's data set, or a data set with a test split, from
            :func:`paraedge.data.load_dataset`. Accuracy and early stop of the exported parts are measured on it;
            without it a quantized bundle has neither.
        out: bundle folder; ``NAME-TARGET-BRANCHES.paraedge`` here when ``None``.
        fused: add the chosen branches as a single ordinary model file.
        allow_undelegated: allow operators outside the engine's fast backend.
        delegate: GPU or NPU that gets some parts; see :func:`paraedge_converters.convert`.
        max_accuracy_drop: accuracy that early stop may lose, a fraction above 0 and at most 0.1; see
            :func:`paraedge_converters.calibrate_early_stop`. A session stops early only if a request asks for it.
        on_progress: called after each step.

    Raises:
        ParaEdgeError: see :func:`paraedge_converters.convert`.
    """
    as_callable("on_progress", on_progress)
    checkpoint = _checkpoint(model)
    request = parse_request(
        name=fitting_name(checkpoint.config.name),
        num_branches=checkpoint.config.model.num_branches,
        target=target,
        engine=engine,
        quantize=quantize,
        branches=branches,
        out=out,
        fused=fused,
        allow_undelegated=allow_undelegated,
        delegate=delegate,
    )
    return export_checkpoint(
        checkpoint, request, test_set=test_set, max_accuracy_drop=max_accuracy_drop, on_progress=on_progress
    )


def export_checkpoint(
    checkpoint: Checkpoint,
    request: ExportRequest,
    *,
    test_set: TestSet | None = None,
    max_accuracy_drop: float = DEFAULT_MAX_ACCURACY_DROP,
    cache: PartCache | None = None,
    try_finer: bool = True,
    on_progress: Callable[[ConversionProgress], None] = lambda progress: None,
) -> Bundle:
    """Carry out a request that is parsed already; see :func:`export`.

    ``try_finer``: where the gate refuses the quantization recipe, finer ones are tried for the error's message.
    """
    config, evaluation = checkpoint.config, checkpoint.evaluation
    dataset = f"{config.dataset} test split, float32 in torch"
    images = None if test_set is None else _test_images(test_set, checkpoint)
    tested_on = test_set.name if isinstance(test_set, ImageDataset | SignalDataset) else config.dataset
    description = ModelDescription(
        name=request.name,
        description=config.description,
        license=config.license,
        labels=config.labels,
        samples=checkpoint.samples.inputs,
        sample_labels=checkpoint.samples.labels,
        accuracy=Accuracy(
            dataset=dataset,
            num_samples=len(evaluation.labels),
            prefix_accuracy=evaluation.prefix_accuracy(request.branches),
        ),
        early_stop=calibrate_early_stop(
            evaluation.branch_logits[list(request.branches)],
            evaluation.labels,
            dataset=dataset,
            max_accuracy_drop=max_accuracy_drop,
        ),
        test_set=None
        if test_set is None or images is None
        else EvaluationSet(
            samples=images.inputs,
            labels=images.labels,
            dataset=f"{tested_on} test split",
            max_accuracy_drop=max_accuracy_drop,
        ),
    )
    return run_export(checkpoint.model, description, request, cache=cache, try_finer=try_finer, on_progress=on_progress)


def _checkpoint(model: str | os.PathLike[str] | Checkpoint) -> Checkpoint:
    return model if isinstance(model, Checkpoint) else load_checkpoint(resolve_checkpoint(as_path("the model", model)))


def _test_images(test_set: TestSet, checkpoint: Checkpoint) -> LabelledImages | LabelledSignals:
    """The inputs, with the class indices of the checkpoint."""
    if not isinstance(test_set, TestSet):
        raise InputError(
            f"test_set is {shown(test_set)}; pass what paraedge.data.load_dataset returns, or its test split"
        )
    if isinstance(test_set, ImageDataset | SignalDataset):
        return test_set.with_class_names(checkpoint.config.labels).test
    return test_set


@dataclass(frozen=True)
class Trial:
    """One quantization recipe that ``export_smallest`` tried.

    Attributes:
        quantization: its name.
        size_bytes: of the whole bundle; ``None`` where the gate refused it.
        accuracy_drop: the largest over all prefixes against float32; ``None`` where not measured.
        problem: why it was refused.
    """

    quantization: str
    size_bytes: int | None = None
    accuracy_drop: float | None = None
    problem: str = ""


def export_smallest(
    model: str | os.PathLike[str] | Checkpoint = DEFAULT_MODEL,
    *,
    target: str,
    test_set: TestSet,
    branches: int | Sequence[int] | None = None,
    engine: str | None = None,
    out: str | os.PathLike[str] | None = None,
    allow_undelegated: bool = False,
    max_accuracy_drop: float = DEFAULT_MAX_ACCURACY_DROP,
    cache: PartCache | None = None,
    on_progress: Callable[[str, ConversionProgress], None] = lambda quantize, progress: None,
) -> tuple[Bundle, list[Trial]]:
    """Export with the recipe that makes the smallest bundle and costs no prefix more than ``max_accuracy_drop``.

    Every quantization recipe of the engine is tried, and with a stem left in float32 too. They are measured from
    the smallest up, in the engine, on ``test_set``; the first that is accurate enough is kept.

    Returns:
        The bundle, and what was tried, the smallest first.

    Raises:
        ParaEdgeError: see :func:`export`.
    """
    as_callable("on_progress", on_progress)
    checkpoint = _checkpoint(model)
    config = checkpoint.config
    plain = parse_request(
        name=fitting_name(config.name),
        num_branches=config.model.num_branches,
        target=target,
        engine=engine,
        branches=branches,
        out=out,
        allow_undelegated=allow_undelegated,
    )
    in_torch = evaluate_model(checkpoint.model, _test_images(test_set, checkpoint))
    reference = np.array(in_torch.prefix_accuracy(plain.branches))
    names = [name for name, recipe in RECIPES.items() if plain.converter not in recipe.refused]

    def run(quantize: str, folder: Path, images: TestSet | None) -> Bundle:
        return export_checkpoint(
            checkpoint,
            replace(plain, quantize=quantize, out=folder),
            test_set=images,
            max_accuracy_drop=max_accuracy_drop,
            cache=cache,
            try_finer=False,  # every one is tried here
            on_progress=lambda progress: on_progress(quantize, progress),
        )

    refused, made = [], []
    with temporary_files(plain.out), tempfile.TemporaryDirectory() as folder:
        for name in [*names, *(f"{name}{FLOAT_STEM}" for name in names if name != "fp32")]:
            try:
                made.append(Trial(name, run(name, Path(folder, name), None).size_bytes))
            except ParityError as error:
                refused.append(Trial(name, problem=str(error)))
        made.sort(key=lambda trial: trial.size_bytes or 0)
        for place, trial in enumerate(made):
            bundle = run(trial.quantization, Path(folder, trial.quantization), test_set)
            drop = float((reference - np.array(_prefix_accuracy(bundle))).max())
            made[place] = replace(trial, accuracy_drop=round(drop, 6))
            if drop <= max_accuracy_drop or trial.quantization == "fp32":  # nothing larger than fp32 is of use
                break
        default = bundle_name(plain.name, target, plain.branches, plain.num_branches, trial.quantization)
        return bundle.subset(plain.branches, plain.out if out is not None else default), [*made[: place + 1], *refused]


def _prefix_accuracy(bundle: Bundle) -> tuple[float, ...]:
    assert bundle.card.accuracy is not None
    return bundle.card.accuracy.prefix_accuracy

"""From a checkpoint to a bundle: what ``paraedge export`` does, as one call."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from paraedge.data.images import LabelledImages
from paraedge.model.checkpoint import Checkpoint, load_checkpoint
from paraedge.model.records import CheckpointConfig
from paraedge.packaged import DEFAULT_MODEL, resolve_checkpoint
from paraedge.training.evaluate import evaluate_model
from paraedge_converters.early_stop import DEFAULT_MAX_ACCURACY_DROP, calibrate_early_stop
from paraedge_converters.pipeline import ConversionProgress, EvaluationSet, ModelDescription, convert
from paraedge_converters.recipes import FLOAT_STEM, RECIPES
from paraedge_converters.targets import backend_for
from paraedge_runtime.bundle import Bundle, check_place
from paraedge_runtime.card import Accuracy
from paraedge_runtime.errors import ParityError
from paraedge_runtime.session import choose_branches

__all__ = ["Trial", "bundle_name", "export", "export_smallest"]


def export(
    model: str | os.PathLike[str] | Checkpoint = DEFAULT_MODEL,
    *,
    target: str,
    branches: int | Sequence[int] | None = None,
    engine: str | None = None,
    quantize: str = "fp32",
    test_set: LabelledImages | None = None,
    out: str | os.PathLike[str] | None = None,
    fused: bool = False,
    allow_undelegated: bool = False,
    max_accuracy_drop: float = DEFAULT_MAX_ACCURACY_DROP,
    on_progress: Callable[[ConversionProgress], None] = lambda progress: None,
) -> Bundle:
    """Export chosen branches of a trained ParaFormer.

    For another network use :func:`paraedge_converters.convert` with a ``BranchModel``.

    Args:
        model: a packaged model's name, a checkpoint folder, or a loaded checkpoint.
        target: kind of device, a key of ``paraedge_converters.TARGETS``.
        branches: the first so many, or these indexes; all when ``None``.
        engine: another engine than the target's own.
        quantize: a recipe, a key of ``paraedge_converters.RECIPES`` that the engine has.
        test_set: images of the model's data set that trained nothing. If given, accuracy and early stop are
            measured on the exported parts; without it a quantized bundle has neither.
        out: bundle folder; ``NAME-TARGET-BRANCHES.paraedge`` here when ``None``.
        fused: add one ordinary single-file model.
        allow_undelegated: accept operators outside the engine's fast backend.
        max_accuracy_drop: what early stop may cost, a fraction above 0 and at most 0.1; see
            :func:`paraedge_converters.calibrate_early_stop`. Nothing stops early unless a session is told to.
        on_progress: called after each step.

    Raises:
        ParaEdgeError: see :func:`paraedge_converters.convert`.
    """
    checkpoint = model if isinstance(model, Checkpoint) else load_checkpoint(resolve_checkpoint(Path(model)))
    config = checkpoint.config
    chosen = choose_branches(branches, tuple(range(config.model.num_branches)))
    evaluation = checkpoint.evaluation
    dataset = f"{config.dataset} test split, float32 in torch"
    description = ModelDescription(
        name=config.name,
        description=config.description,
        license=config.license,
        labels=config.labels,
        images=checkpoint.samples.images,
        image_labels=checkpoint.samples.labels,
        accuracy=Accuracy(
            dataset=dataset,
            num_samples=len(evaluation.labels),
            prefix_accuracy=evaluation.prefix_accuracy(chosen),
        ),
        early_stop=calibrate_early_stop(
            evaluation.branch_logits[list(chosen)],
            evaluation.labels,
            dataset=dataset,
            max_accuracy_drop=max_accuracy_drop,
        ),
        test_set=None
        if test_set is None
        else EvaluationSet(
            images=test_set.images,
            labels=test_set.labels,
            dataset=f"{config.dataset} test split",
            max_accuracy_drop=max_accuracy_drop,
        ),
    )
    return convert(
        checkpoint.model,
        description,
        Path(out) if out is not None else Path(bundle_name(config, target, chosen, quantize)),
        target=target,
        engine=engine,
        recipe=quantize,
        branches=chosen,
        fused=fused,
        allow_undelegated=allow_undelegated,
        on_progress=on_progress,
    )


@dataclass(frozen=True)
class Trial:
    """One recipe that ``export_smallest`` tried.

    Attributes:
        recipe: its name.
        size_bytes: of the whole bundle; ``None`` where the gate refused it.
        accuracy_drop: the largest over all prefixes against float32; ``None`` where not measured.
        problem: why it was refused.
    """

    recipe: str
    size_bytes: int | None = None
    accuracy_drop: float | None = None
    problem: str = ""


def export_smallest(
    model: str | os.PathLike[str] | Checkpoint = DEFAULT_MODEL,
    *,
    target: str,
    test_set: LabelledImages,
    branches: int | Sequence[int] | None = None,
    engine: str | None = None,
    out: str | os.PathLike[str] | None = None,
    allow_undelegated: bool = False,
    max_accuracy_drop: float = DEFAULT_MAX_ACCURACY_DROP,
    on_progress: Callable[[str, ConversionProgress], None] = lambda recipe, progress: None,
) -> tuple[Bundle, list[Trial]]:
    """Export with the recipe that makes the smallest bundle and costs no prefix more than ``max_accuracy_drop``.

    Every recipe of the engine is tried, and with a stem left in float32 too. They are measured from
    the smallest up, in the engine, on ``test_set``; the first that is accurate enough is kept.

    Returns:
        The bundle, and what was tried, the smallest first.

    Raises:
        ParaEdgeError: see :func:`export`.
    """
    checkpoint = model if isinstance(model, Checkpoint) else load_checkpoint(resolve_checkpoint(Path(model)))
    config = checkpoint.config
    _, converter = backend_for(target, engine)
    chosen = choose_branches(branches, tuple(range(config.model.num_branches)))
    if out is not None:
        check_place(out)
    reference = np.array(evaluate_model(checkpoint.model, test_set).prefix_accuracy(chosen))
    plain = [name for name, recipe in RECIPES.items() if converter not in recipe.refused]

    def run(recipe: str, folder: Path, images: LabelledImages | None) -> Bundle:
        return export(
            checkpoint,
            target=target,
            branches=chosen,
            engine=engine,
            quantize=recipe,
            test_set=images,
            out=folder,
            allow_undelegated=allow_undelegated,
            max_accuracy_drop=max_accuracy_drop,
            on_progress=lambda progress: on_progress(recipe, progress),
        )

    refused, made = [], []
    with tempfile.TemporaryDirectory() as folder:
        for recipe in [*plain, *(f"{name}{FLOAT_STEM}" for name in plain if name != "fp32")]:
            try:
                made.append(Trial(recipe, run(recipe, Path(folder, recipe), None).size_bytes))
            except ParityError as error:
                refused.append(Trial(recipe, problem=str(error)))
        made.sort(key=lambda trial: trial.size_bytes or 0)
        for place, trial in enumerate(made):
            bundle = run(trial.recipe, Path(folder, trial.recipe), test_set)
            assert bundle.card.accuracy is not None
            drop = float((reference - np.array(bundle.card.accuracy.prefix_accuracy)).max())
            made[place] = replace(trial, accuracy_drop=round(drop, 6))
            if drop <= max_accuracy_drop or trial.recipe == "fp32":  # nothing larger than fp32 is of use
                break
        target_folder = Path(out) if out is not None else Path(bundle_name(config, target, chosen, trial.recipe))
        return bundle.subset(chosen, target_folder), [*made[: place + 1], *refused]


def bundle_name(config: CheckpointConfig, target: str, branches: Sequence[int], recipe: str = "fp32") -> str:
    """``fashion-mnist-android-2.paraedge``; ``-all`` for all branches, ``-0-3-5`` for a choice of them.

    A recipe other than ``fp32`` comes last: ``fashion-mnist-android-2-int8-dynamic.paraedge``.
    """
    if list(branches) == list(range(config.model.num_branches)):
        choice = "all"
    elif list(branches) == list(range(len(branches))):
        choice = str(len(branches))
    else:
        choice = "-".join(str(index) for index in branches)
        if len(branches) == 1:
            choice = f"only-{choice}"
    suffix = "" if recipe == "fp32" else f"-{recipe}"
    return f"{config.name}-{target}-{choice}{suffix}.paraedge"

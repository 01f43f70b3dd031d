"""From a checkpoint to a bundle: what ``paraedge export`` does, as one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from paraedge.model.checkpoint import Checkpoint, load_checkpoint
from paraedge.packaged import DEFAULT_MODEL, resolve_checkpoint
from paraedge_converters.early_stop import DEFAULT_MAX_ACCURACY_DROP, calibrate_early_stop
from paraedge_converters.pipeline import ConversionProgress, ModelDescription, convert
from paraedge_runtime.bundle import Bundle
from paraedge_runtime.manifest import Accuracy
from paraedge_runtime.session import choose_branches

__all__ = ["bundle_name", "export"]


def export(
    model: str | os.PathLike[str] | Checkpoint = DEFAULT_MODEL,
    *,
    target: str,
    branches: int | Sequence[int] | None = None,
    engine: str | None = None,
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
    )
    return convert(
        checkpoint.model,
        description,
        Path(out) if out is not None else Path(bundle_name(config.name, target, chosen, config.model.num_branches)),
        target=target,
        engine=engine,
        branches=chosen,
        fused=fused,
        allow_undelegated=allow_undelegated,
        on_progress=on_progress,
    )


def bundle_name(name: str, target: str, branches: Sequence[int], total_branches: int) -> str:
    """``fashion-mnist-android-2.paraedge``; ``-all`` for all branches, ``-0-3-5`` for a choice of them."""
    if list(branches) == list(range(total_branches)):
        choice = "all"
    elif list(branches) == list(range(len(branches))):
        choice = str(len(branches))
    else:
        choice = "-".join(str(index) for index in branches)
        if len(branches) == 1:
            choice = f"only-{choice}"
    return f"{name}-{target}-{choice}.paraedge"

"""Run a torch model over a test set and keep every branch's logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from paraedge.data.images import LabelledImages
from paraedge.data.signals import LabelledSignals
from paraedge.model.paraformer import ParaFormer
from paraedge.training.batches import normalise
from paraedge_measure.evaluation import Evaluation

__all__ = ["evaluate_model"]

_BATCH_PIXELS = 1 << 22


def evaluate_model(
    model: ParaFormer,
    data: LabelledImages | LabelledSignals,
    *,
    batch_size: int | None = None,
    on_batch: Callable[[int], None] = lambda count: None,
) -> Evaluation:
    """Compute every branch's logits on ``data``. ``on_batch`` is called with the size of each batch.

    By default a batch has 256 images, or fewer if they are large.
    """
    if batch_size is None:
        batch_size = min(256, max(8, _BATCH_PIXELS // (data.inputs.shape[1] * data.inputs.shape[2])))
    device = next(model.parameters()).device
    model.eval()
    logits = []
    with torch.inference_mode():
        for start in range(0, len(data), batch_size):
            images = torch.from_numpy(data.inputs[start : start + batch_size]).to(device)
            logits.append(model.branch_logits(normalise(images, model.config)).float().cpu().numpy())
            on_batch(len(images))
    return Evaluation(np.concatenate(logits, axis=1), data.labels)

"""Progressive approximation in one pass: prefixes of branches, and the weighted loss of all of them.

Letters in shape comments: N branches, B images, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["branch_loss", "cross_entropies", "prefix_sums", "prefix_weights", "progressive_loss"]


def prefix_weights(num_branches: int, weights: tuple[float, ...] | None) -> Tensor:
    """Loss weights (N,) that sum to 1; equal ones when ``weights`` is ``None``."""
    if weights is None:
        return torch.full((num_branches,), 1.0 / num_branches)
    if len(weights) != num_branches:
        raise ValueError(f"prefix_weights has {len(weights)} values, the model has {num_branches} branches")
    tensor = torch.tensor(weights)
    return tensor / tensor.sum()


def prefix_sums(branch_logits: Tensor) -> Tensor:
    """Entry k is the sum of the first k + 1 branches: (N, B, C) -> (N, B, C)."""
    return branch_logits.cumsum(dim=0)


def progressive_loss(
    prefix_logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    *,
    label_smoothing: float = 0.0,
    temperature_power: float = 0.0,
) -> Tensor:
    """``sum_k w_k · CE(prefix_k, y)`` as one scalar.

    The paper (arXiv 2510.15425) takes N optimizer steps per batch, so that each branch lowers the loss left by the
    branches before it. Here one forward pass computes all prefixes by a cumulative sum, and one backward pass serves
    all of them.

    Args:
        prefix_logits: (N, B, C) from :func:`prefix_sums`.
        targets: (B,) class indices or (B, C) shares that sum to 1.
        weights: (N,) from :func:`prefix_weights`.
        label_smoothing: of every prefix's cross-entropy.
        temperature_power: the logits of the first k branches are divided by k to this power.
    """
    logits = prefix_logits.float()
    if temperature_power:
        counts = torch.arange(1, len(logits) + 1, device=logits.device, dtype=torch.float32)
        logits = logits / (counts**temperature_power)[:, None, None]
    return (cross_entropies(logits, targets, label_smoothing) * weights).sum()


def branch_loss(branch_logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of the branches, each alone, as one scalar: what trains the members of an ensemble.

    Args:
        branch_logits: (N, B, C).
        targets: (B,) class indices or (B, C) shares that sum to 1.
        label_smoothing: as in ``TrainingConfig``.
    """
    return cross_entropies(branch_logits.float(), targets, label_smoothing).mean()


def cross_entropies(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Of each of N predictions, the mean over the images: (N, B, C) and (B,) or (B, C) -> (N,)."""
    count, batch, _ = logits.shape
    repeated = targets.repeat(count, *[1] * (targets.ndim - 1))  # (N·B,) or (N·B, C)
    losses = F.cross_entropy(logits.flatten(0, 1), repeated, label_smoothing=label_smoothing, reduction="none")
    return losses.reshape(count, batch).mean(dim=1)

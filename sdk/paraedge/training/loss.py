"""Progressive approximation in one pass: the weighted cross-entropy of every prefix of branches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["prefix_weights", "progressive_loss"]


def prefix_weights(num_branches: int, weights: tuple[float, ...] | None) -> Tensor:
    """Loss weights (N,) that sum to 1; equal ones when ``weights`` is ``None``."""
    if weights is None:
        return torch.full((num_branches,), 1.0 / num_branches)
    if len(weights) != num_branches:
        raise ValueError(f"prefix_weights has {len(weights)} values, the model has {num_branches} branches")
    tensor = torch.tensor(weights)
    return tensor / tensor.sum()


def progressive_loss(prefix_logits: Tensor, labels: Tensor, weights: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """``sum_k w_k · CE(prefix_k, y)`` as one scalar.

    The paper's rule (arXiv 2510.15425: each new branch lowers the loss that the branches before it
    left) without its loop of N optimizer steps per batch: one forward pass gives all prefixes by a
    cumulative sum, one backward pass serves all of them.

    Args:
        prefix_logits: (N, B, C), entry k being the sum of the first k + 1 branches.
        labels: (B,) class indexes.
        weights: (N,) from :func:`prefix_weights`.
        label_smoothing: see :func:`torch.nn.functional.cross_entropy`.
    """
    num_branches, batch, classes = prefix_logits.shape
    losses = F.cross_entropy(
        prefix_logits.reshape(num_branches * batch, classes).float(),
        labels.repeat(num_branches),
        label_smoothing=label_smoothing,
        reduction="none",
    )  # (N·B,)
    return (losses.reshape(num_branches, batch).mean(dim=1) * weights).sum()

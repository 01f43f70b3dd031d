"""Progressive approximation in one pass: prefixes of branches, and the weighted loss of all of them.

Letters in shape comments: N branches, B images, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from paraedge.training.config import TrainingConfig

__all__ = ["branch_loss", "prefix_sums", "prefix_weights", "progressive_loss", "shuffle_branches"]

_PLAIN = TrainingConfig()


def prefix_weights(num_branches: int, weights: tuple[float, ...] | None) -> Tensor:
    """Loss weights (N,) that sum to 1; equal ones when ``weights`` is ``None``."""
    if weights is None:
        return torch.full((num_branches,), 1.0 / num_branches)
    if len(weights) != num_branches:
        raise ValueError(f"prefix_weights has {len(weights)} values, the model has {num_branches} branches")
    tensor = torch.tensor(weights)
    return tensor / tensor.sum()


def prefix_sums(branch_logits: Tensor, earlier_gradient: float = 1.0) -> Tensor:
    """Entry k is the sum of the first k + 1 branches: (N, B, C) -> (N, B, C).

    Of the gradient that arrives at entry k, branch k gets all and the branches before it
    ``earlier_gradient``: with 1 they learn together; with 0 each fits what the ones before it left,
    as in gradient boosting.
    """
    if earlier_gradient == 1.0:
        return branch_logits.cumsum(dim=0)
    before = branch_logits.detach().cumsum(dim=0) - branch_logits.detach()  # (N, B, C), without branch k
    if earlier_gradient > 0.0:
        moving = branch_logits.cumsum(dim=0) - branch_logits
        before = before + earlier_gradient * (moving - moving.detach())
    return before + branch_logits


def shuffle_branches(branch_logits: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """The branches after the first in random order for a ``share`` of the images: (N, B, C) -> (N, B, C).

    Prefix sums of the result are those of random subsets, so that any of them is trained to predict.
    """
    num_branches, batch, classes = branch_logits.shape
    device = branch_logits.device
    order = torch.rand(num_branches, batch, generator=generator, device=device) + 1.0
    chosen = torch.rand(batch, generator=generator, device=device) < share
    order = torch.where(chosen, order, torch.arange(num_branches, device=device)[:, None] + 1.0)
    order[0] = 0.0  # the first branch stays the first
    return branch_logits.gather(0, order.argsort(dim=0)[..., None].expand(-1, -1, classes))


def progressive_loss(
    prefix_logits: Tensor, targets: Tensor, weights: Tensor, config: TrainingConfig = _PLAIN
) -> Tensor:
    """``sum_k w_k · L(prefix_k, y)`` as one scalar.

    The paper's rule (arXiv 2510.15425: each new branch lowers the loss that the branches before it
    left) without its loop of N optimizer steps per batch: one forward pass gives all prefixes by a
    cumulative sum, one backward pass serves all of them. L is the cross-entropy with the targets,
    or, by ``config.distillation_weight``, partly that with the softened prediction of all branches
    (arXiv 1503.02531, with the model as its own teacher as in arXiv 1905.08094).

    Args:
        prefix_logits: (N, B, C) from :func:`prefix_sums`.
        targets: (B,) class indexes or (B, C) shares that sum to 1.
        weights: (N,) from :func:`prefix_weights`.
        config: label smoothing, distillation, temperature of the prefixes; none of them by default.
    """
    num_branches = len(prefix_logits)
    logits = prefix_logits.float()
    if config.prefix_temperature_power:
        counts = torch.arange(1, num_branches + 1, device=logits.device, dtype=torch.float32)
        logits = logits / (counts**config.prefix_temperature_power)[:, None, None]
    per_prefix = _cross_entropy(logits, targets, config.label_smoothing)  # (N,)
    if config.distillation_weight and num_branches > 1:
        temperature = config.distillation_temperature
        teacher = (logits[-1].detach() / temperature).softmax(dim=1)  # (B, C)
        student = (logits[:-1] / temperature).log_softmax(dim=2)  # (N-1, B, C)
        # T² keeps the size of the gradient; the teacher's entropy moves no weight, so it is left out.
        distilled = -(teacher * student).sum(dim=2).mean(dim=1) * temperature**2
        taught = torch.lerp(per_prefix[:-1], distilled, config.distillation_weight)
        per_prefix = torch.cat([taught, per_prefix[-1:]])
    return (per_prefix * weights).sum()


def branch_loss(branch_logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of the branches, each alone, as one scalar: what trains the members of an ensemble.

    Args:
        branch_logits: (N, B, C).
        targets: (B,) class indexes or (B, C) shares that sum to 1.
        label_smoothing: as in ``TrainingConfig``.
    """
    return _cross_entropy(branch_logits.float(), targets, label_smoothing).mean()


def _cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Of each of N predictions, the mean over the images: (N, B, C) and (B,) or (B, C) -> (N,)."""
    count, batch, _ = logits.shape
    repeated = targets.repeat(count, *[1] * (targets.ndim - 1))  # (N·B,) or (N·B, C)
    losses = F.cross_entropy(logits.flatten(0, 1), repeated, label_smoothing=label_smoothing, reduction="none")
    return losses.reshape(count, batch).mean(dim=1)

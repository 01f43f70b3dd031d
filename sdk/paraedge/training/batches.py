"""Batches for training: whole-batch random crops and flips on uint8 images, then normalisation."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from paraedge.model.config import ParaFormerConfig
from paraedge.training.config import TrainingConfig

__all__ = ["normalise", "training_batches"]


def normalise(images: Tensor, config: ParaFormerConfig) -> Tensor:
    """uint8 (B, H, W, C) -> float32 (B, C, H, W), ``(x / 255 - mean) / std`` per channel."""
    images = images.permute(0, 3, 1, 2).float() / 255.0
    shift = torch.tensor(config.mean, device=images.device).reshape(1, -1, 1, 1)
    scale = torch.tensor(config.std, device=images.device).reshape(1, -1, 1, 1)
    return (images - shift) / scale


def training_batches(
    images: Tensor, labels: Tensor, config: TrainingConfig, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of augmented uint8 batches (B, H, W, C) with labels (B,).

    Order and augmentation depend on ``config.seed`` and ``epoch`` alone, so that a resumed run
    sees what an uninterrupted one would have seen.
    """
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    order = torch.randperm(len(images), generator=generator)
    for start in range(0, len(images), config.batch_size):
        chosen = order[start : start + config.batch_size].to(images.device)
        batch = images[chosen]
        if config.crop_padding:
            batch = _random_crop(batch, config.crop_padding, generator)
        if config.horizontal_flip:
            flip = (torch.rand(len(batch), generator=generator) < 0.5).to(batch.device)
            batch = torch.where(flip[:, None, None, None], batch.flip(2), batch)
        yield batch, labels[chosen]


def _random_crop(batch: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    count, height, width, _ = batch.shape
    padded = F.pad(batch, (0, 0, padding, padding, padding, padding))
    offsets = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator).to(batch.device)
    rows = offsets[0] + torch.arange(height, device=batch.device)  # (B, H)
    columns = offsets[1] + torch.arange(width, device=batch.device)  # (B, W)
    image = torch.arange(count, device=batch.device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]]

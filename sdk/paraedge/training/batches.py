"""Batches for training: which images each step sees, augmented on the CPU, and their normalisation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from paraedge.training.augment import augment, mix
from paraedge.training.augment_signals import augment_signals, sensor_axes
from paraedge.training.config import TrainingConfig

if TYPE_CHECKING:
    from paraedge.training.features import FeatureBatches

__all__ = ["TrainingBatches", "image_order", "normalise", "random_numbers", "training_batches"]


class _Statistics(Protocol):
    """A network's configuration, as far as it says how images are normalised: one value per channel."""

    @property
    def mean(self) -> tuple[float, ...]: ...

    @property
    def std(self) -> tuple[float, ...]: ...


def normalise(images: Tensor, config: _Statistics) -> Tensor:
    """As the network reads it: uint8 (B, H, W, C) -> float32 (B, C, H, W), ``(x / 255 - mean) / std`` per channel;
    float32 (B, C, T) -> the same shape, ``(x - mean) / std``."""
    if images.ndim == 3:
        shift, scale = _statistics(config.mean, config.std, images.device)
        return (images - shift[..., 0]) / scale[..., 0]
    images = images.permute(0, 3, 1, 2).float() / 255.0
    shift, scale = _statistics(config.mean, config.std, images.device)
    return (images - shift) / scale


@functools.lru_cache(maxsize=8)  # making a tensor on a GPU waits for all that was queued there
def _statistics(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    shift, scale = (torch.tensor(values, device=device).reshape(1, -1, 1, 1) for values in (mean, std))
    return shift, scale


class TrainingBatches(Dataset[tuple[Tensor, Tensor]]):
    """Batch number s of the run: uint8 images (B, H, W, channels), or float32 signals (B, channels, T), and targets
    (B, num_classes) that sum to 1.

    What a batch holds depends on ``config.seed`` and its number alone: a resumed run, or one with more
    worker processes, sees what an uninterrupted one would have seen.

    With ``share`` (i, n) it holds every n-th image of the batch, from the i-th on: the shares are equally
    large (the last batch is filled up with its first images), and each is augmented by itself. ``channel_names``
    are those of signals.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        num_classes: int,
        config: TrainingConfig,
        share: tuple[int, int] = (0, 1),
        augment: Callable[[Tensor, TrainingConfig, torch.Generator], Tensor] = augment,
        channel_names: tuple[str, ...] = (),
    ) -> None:
        self._share, self._augment = share, augment
        self._axes = sensor_axes(channel_names)
        self.steps_per_epoch = -(-len(images) // config.batch_size)
        self._images, self._labels, self._num_classes, self._config = images, labels, num_classes, config

    def __len__(self) -> int:
        return self.steps_per_epoch * self._config.epochs

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        epoch, step = divmod(number, self.steps_per_epoch)
        config = self._config
        order = image_order(len(self._images), config.seed, epoch)
        chosen = order[step * config.batch_size : (step + 1) * config.batch_size]
        part, parts = self._share
        chosen = chosen[torch.arange(part, -(-len(chosen) // parts) * parts, parts) % len(chosen)]
        generator = random_numbers(config.seed, epoch, step * parts + part + 1)
        images = self._images[chosen]
        if images.ndim == 3:
            images = augment_signals(images, config, generator, self._axes)
        else:
            images = self._augment(images, config, generator)
        return mix(images, self._labels[chosen], self._num_classes, config, generator)


@functools.lru_cache(maxsize=1)  # for all batches of the epoch
def image_order(count: int, seed: int, epoch: int) -> Tensor:
    """In which order an epoch sees ``count`` images: (count,) indexes."""
    return torch.randperm(count, generator=random_numbers(seed, epoch, 0))


def random_numbers(seed: int, epoch: int, step: int) -> torch.Generator:
    """The random numbers of one step of one epoch, whatever came before."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) * 1_000_003 + step)


def training_batches(
    batches: TrainingBatches | FeatureBatches, epochs_done: int, *, num_workers: int = 0, pin_memory: bool = False
) -> Iterator[tuple[Tensor | list[Tensor], Tensor]]:
    """The batches of all epochs still to come, made by ``num_workers`` processes beside the training."""
    todo = range(epochs_done * batches.steps_per_epoch, len(batches))
    loader = DataLoader(
        batches,
        sampler=todo,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=pin_memory,
        # Not 'fork': by now this process has threads, whose locks a forked copy would hold for ever.
        multiprocessing_context="forkserver" if num_workers else None,
    )
    return iter(loader)

"""What a frozen backbone makes of the training images: computed once, then branches learn from it in seconds an epoch.

Letters in shape comments: B images, N branches, C classes; c×h×w what a branch's own convolutions read.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from paraedge.model.paraformer import ParaFormer
from paraedge.training.augment import augment
from paraedge.training.batches import image_order, normalise, random_numbers
from paraedge.training.config import TrainingConfig
from paraedge_runtime.errors import InputError

__all__ = ["FeatureBatches", "frozen_features"]

_MAX_BYTES = 8 << 30
_BATCH_SIZE = 32
# Copies draw from other numbers than any epoch.
_FIRST_COPY = 1 << 20


def frozen_features(
    model: ParaFormer, images: Tensor, config: TrainingConfig, on_images: Callable[[int, int], None]
) -> list[Tensor]:
    """What stem and pretrained stages make of ``config.feature_copies`` augmented copies of every image.

    Args:
        model: on the CPU, with its pretrained weights.
        images: uint8 (count, H, W, channels).
        config: how copies are augmented.
        on_images: called with the number of images done, and that of all.

    Returns:
        For each branch (copies, count, c, h, w) float16. Branches that read the same share one tensor.

    Raises:
        InputError: they would take more than 8 GiB.
    """
    model.eval()
    copies, count = config.feature_copies, len(images)
    backbones: list[nn.Module | None] = [
        None if isinstance(branch.backbone, nn.Identity) else branch.backbone for branch in model.own_branches()
    ]
    kept: dict[nn.Module | None, Tensor] = {}
    with torch.no_grad():
        for copy in range(copies):
            for start in range(0, count, _BATCH_SIZE):
                views = images[start : start + _BATCH_SIZE]
                if copy:  # the first one is as a device sees it
                    views = augment(views, config, random_numbers(config.seed, _FIRST_COPY + copy, start))
                stem = model.stem(normalise(views, model.config))
                for backbone in dict.fromkeys(backbones):
                    features = stem if backbone is None else backbone(stem)
                    if backbone not in kept:
                        kept[backbone] = _room(features, copies, count, len(set(backbones)))
                    kept[backbone][copy, start : start + len(views)] = features
                on_images(copy * count + start + len(views), copies * count)
    return [kept[backbone] for backbone in backbones]


def _room(features: Tensor, copies: int, count: int, kinds: int) -> Tensor:
    size = 2 * copies * count * features[0].numel() * kinds
    if size > _MAX_BYTES:
        raise InputError(
            f"the frozen backbone's features of {copies} copies of {count} images take {size / 2**30:.1f} GiB, "
            f"more than {_MAX_BYTES >> 30} GiB; lower feature_copies, or train on a GPU"
        )
    return torch.empty((copies, count, *features.shape[1:]), dtype=torch.float16)


class FeatureBatches(Dataset[tuple[list[Tensor], Tensor]]):
    """As ``TrainingBatches``, of features: for every branch (B, c, h, w) float32, of one of each image's copies."""

    def __init__(self, features: list[Tensor], labels: Tensor, num_classes: int, config: TrainingConfig) -> None:
        self.steps_per_epoch = -(-len(labels) // config.batch_size)
        self._features, self._labels, self._num_classes, self._config = features, labels, num_classes, config

    def __len__(self) -> int:
        return self.steps_per_epoch * self._config.epochs

    def __getitem__(self, number: int) -> tuple[list[Tensor], Tensor]:
        epoch, step = divmod(number, self.steps_per_epoch)
        config = self._config
        order = image_order(len(self._labels), config.seed, epoch)
        chosen = order[step * config.batch_size : (step + 1) * config.batch_size]
        generator = random_numbers(config.seed, epoch, step + 1)
        copies = torch.randint(len(self._features[0]), chosen.shape, generator=generator)
        read = {id(kept): kept[copies, chosen].float() for kept in self._features}
        targets = nn.functional.one_hot(self._labels[chosen], self._num_classes).float()
        return [read[id(kept)] for kept in self._features], targets

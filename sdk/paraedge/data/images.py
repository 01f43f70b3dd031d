"""What a data set is here: labelled uint8 images in memory, split into train and test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from paraedge.data.labelled import Labelled, LabelledDataset
from paraedge_runtime.errors import InputError

__all__ = ["ImageDataset", "LabelledImages"]


@dataclass(frozen=True, eq=False)
class LabelledImages(Labelled):
    """Images as (N, H, W, C) uint8 with their class indices (N,) int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise InputError(
                f"images must be (N, H, W, C) uint8, got {self.images.shape} {self.images.dtype}; "
                "convert them before building the data set"
            )
        if self.labels.shape != (len(self.images),) or self.labels.dtype != np.int64:
            raise InputError(
                f"labels must be ({len(self.images)},) int64, one per image, "
                f"got {self.labels.shape} {self.labels.dtype}"
            )

    @property
    def inputs(self) -> NDArray[np.uint8]:
        """(N, H, W, C), the inputs of a network."""
        return self.images

    def take(self, chosen: NDArray[np.int64]) -> LabelledImages:
        """The images at these indexes."""
        return LabelledImages(self.images[chosen], self.labels[chosen])


@dataclass(frozen=True, eq=False)
class ImageDataset(LabelledDataset[LabelledImages]):
    """A train and a test split of equally shaped images."""

    kind: ClassVar[str] = "images"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""
        height, width, channels = self.train.images.shape[1:]
        return (height, width, channels)

    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of every channel of the train split, on a scale of 0 to 1."""
        channels = self.image_shape[2]
        # By histogram: exact, and no float copy of a large data set.
        levels = np.arange(256) / 255.0
        means, stds = [], []
        for channel in range(channels):
            counts = np.bincount(self.train.images[..., channel].ravel(), minlength=256)
            weights = counts / counts.sum()
            mean = float((weights * levels).sum())
            means.append(round(mean, 6))
            stds.append(round(max(float(np.sqrt((weights * (levels - mean) ** 2).sum())), 1e-3), 6))
        return tuple(means), tuple(stds)

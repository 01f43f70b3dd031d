"""What a data set is here: labelled uint8 images in memory, split into train and test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.errors import InputError

__all__ = ["ImageDataset", "LabelledImages"]


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images as (N, H, W, C) uint8 with their class indexes (N,) int64."""

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

    def __len__(self) -> int:
        return len(self.images)

    def balanced_sample(self, size: int, seed: int) -> LabelledImages:
        """About ``size`` images with the classes in turn, the same ones for the same seed."""
        chosen = self.balanced_order(seed)[:size]
        return LabelledImages(self.images[chosen], self.labels[chosen])

    def balanced_order(self, seed: int) -> NDArray[np.int64]:
        """Indexes of all images in an order that takes the classes in turn, the same for the same seed."""
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(self))
        # Rank of each image within its class: taking ranks in order takes the classes in turn.
        rank = np.empty(len(self), dtype=np.int64)
        for label in np.unique(self.labels):
            members = order[self.labels[order] == label]
            rank[members] = np.arange(len(members))
        return np.lexsort((self.labels, rank))


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """A train and a test split of equally shaped images.

    Attributes:
        name: how the data set is called on the command line.
        class_names: one name per class index.
        license: licence of the images, as far as known; travels with checkpoints and bundles.
    """

    name: str
    train: LabelledImages
    test: LabelledImages
    class_names: tuple[str, ...]
    license: str

    def __post_init__(self) -> None:
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise InputError(
                f"{self.name}: train images are {self.train.images.shape[1:]}, test images "
                f"{self.test.images.shape[1:]}; both splits must have one shape"
            )
        for split_name, split in (("train", self.train), ("test", self.test)):
            if not len(split):
                raise InputError(f"{self.name}: the {split_name} split has no images")
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= len(self.class_names):
                raise InputError(
                    f"{self.name}: {split_name} labels run from {low} to {high}, "
                    f"but there are {len(self.class_names)} class names"
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""
        height, width, channels = self.train.images.shape[1:]
        return (height, width, channels)

    def holdout(self, count: int, seed: int) -> ImageDataset:
        """The same train split without ``count`` of its images, the classes in turn, which become the test split.

        For choosing between settings: the real test split is for the result alone.

        Raises:
            InputError: there are not more than ``count`` train images.
        """
        if not 0 < count < len(self.train):
            raise InputError(f"{self.name} has {len(self.train)} train images; {count} cannot be held out")
        chosen = self.train.balanced_order(seed)[:count]
        rest = np.setdiff1d(np.arange(len(self.train)), chosen)
        train, held = (LabelledImages(self.train.images[part], self.train.labels[part]) for part in (rest, chosen))
        return ImageDataset(f"{self.name} ({count} train images held out)", train, held, self.class_names, self.license)

    def with_class_names(self, names: tuple[str, ...]) -> ImageDataset:
        """The same images with their classes in another order, and with classes that have no image here.

        Raises:
            InputError: ``names`` lacks a class of this data set.
        """
        missing = [name for name in self.class_names if name not in names]
        if missing:
            raise InputError(f"{self.name} has the class {missing[0]!r}, which is not among {', '.join(names)}")
        positions = np.asarray([names.index(name) for name in self.class_names], dtype=np.int64)
        train, test = (LabelledImages(split.images, positions[split.labels]) for split in (self.train, self.test))
        return ImageDataset(self.name, train, test, names, self.license)

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

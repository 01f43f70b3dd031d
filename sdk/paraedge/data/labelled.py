"""What data sets of every kind have in common: inputs with class indices, split into train and test."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.errors import InputError

__all__ = ["Labelled", "LabelledDataset"]


class Labelled(ABC):
    """Inputs with their class indices (N,) int64."""

    labels: NDArray[np.int64]

    @property
    @abstractmethod
    def inputs(self) -> NDArray[Any]:
        """(N, ...), what a network learns from."""

    @abstractmethod
    def take(self, chosen: NDArray[np.int64]) -> Self:
        """The inputs of these indexes."""

    def __len__(self) -> int:
        return len(self.labels)

    def balanced_sample(self, size: int, seed: int) -> Self:
        """About ``size`` inputs with the classes in turn, the same ones for the same seed."""
        return self.take(self.balanced_order(seed)[:size])

    def balanced_order(self, seed: int) -> NDArray[np.int64]:
        """Indexes of all inputs in an order that takes the classes in turn, the same for the same seed."""
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(self))
        # Rank of each input within its class: taking ranks in order takes the classes in turn.
        rank = np.empty(len(self), dtype=np.int64)
        for label in np.unique(self.labels):
            members = order[self.labels[order] == label]
            rank[members] = np.arange(len(members))
        return np.lexsort((self.labels, rank))


L = TypeVar("L", bound=Labelled)


@dataclass(frozen=True, eq=False)
class LabelledDataset(Generic[L]):
    """A train and a test split of equally shaped inputs.

    Attributes:
        name: how the data set is called on the command line.
        class_names: one name per class index.
        license: licence of the inputs, as far as known; travels with checkpoints and bundles.
    """

    kind: ClassVar[str] = "inputs"  # for messages

    name: str
    train: L
    test: L
    class_names: tuple[str, ...]
    license: str

    def __post_init__(self) -> None:
        shapes = [split.inputs.shape[1:] for split in (self.train, self.test)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"{self.name}: train {self.kind} are {shapes[0]}, test {self.kind} {shapes[1]}; "
                "both splits must have the same shape"
            )
        for split_name, split in (("train", self.train), ("test", self.test)):
            if not len(split):
                raise InputError(f"{self.name}: the {split_name} split has no {self.kind}")
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= len(self.class_names):
                raise InputError(
                    f"{self.name}: {split_name} labels run from {low} to {high}, "
                    f"but there are {len(self.class_names)} class names"
                )

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Of every input."""
        return self.train.inputs.shape[1:]

    def holdout(self, count: int, seed: int) -> Self:
        """The same train split without ``count`` of its inputs, the classes in turn, which become the test split.

        For choosing between settings: the real test split is for the result alone.

        Raises:
            InputError: there are not more than ``count`` train inputs.
        """
        if not 0 < count < len(self.train):
            raise InputError(
                f"cannot hold out {count} of the {len(self.train)} train {self.kind} of {self.name}; hold out fewer"
            )
        chosen = self.train.balanced_order(seed)[:count]
        rest = np.setdiff1d(np.arange(len(self.train)), chosen)
        name = f"{self.name} ({count} train {self.kind} held out)"
        return replace(self, name=name, train=self.train.take(rest), test=self.train.take(chosen))

    def with_class_names(self, names: tuple[str, ...]) -> Self:
        """The same inputs with their classes in another order, and with classes that have no input here.

        Raises:
            InputError: ``names`` lacks a class of this data set.
        """
        missing = [name for name in self.class_names if name not in names]
        if missing:
            raise InputError(
                f"{self.name} has the class {missing[0]!r}, the labels are {', '.join(names)}; add it to the labels, "
                "or remove its inputs"
            )
        positions = np.asarray([names.index(name) for name in self.class_names], dtype=np.int64)
        train, test = (replace(split, labels=positions[split.labels]) for split in (self.train, self.test))  # type: ignore[type-var]
        return replace(self, train=train, test=test, class_names=names)

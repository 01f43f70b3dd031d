"""Samples over time in memory, sound or motion: labelled float32 windows, split into train and test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from paraedge.data.labelled import Labelled, LabelledDataset
from paraedge_runtime.errors import InputError

__all__ = ["LabelledSignals", "SignalDataset"]


@dataclass(frozen=True, eq=False)
class LabelledSignals(Labelled):
    """Windows as (N, C, T) float32 with their class indices (N,) int64.

    ``groups`` (N,) int64 is the speaker or person of each window, if known.
    """

    signals: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.signals.dtype != np.float32 or self.signals.ndim != 3:
            raise InputError(
                f"signals must be (N, C, T) float32, got {self.signals.shape} {self.signals.dtype}; "
                "convert them before building the data set"
            )
        for name, values in (("labels", self.labels), ("groups", self.groups)):
            if values is not None and (values.shape != (len(self.signals),) or values.dtype != np.int64):
                raise InputError(
                    f"{name} must be ({len(self.signals)},) int64, one per signal, got {values.shape} {values.dtype}"
                )
        if not np.isfinite(self.signals).all():
            wrong = int(np.flatnonzero(~np.isfinite(self.signals).all(axis=(1, 2)))[0])
            raise InputError(f"signal {wrong} has non-finite values; remove or fix it")

    @property
    def inputs(self) -> NDArray[np.float32]:
        """(N, C, T), the inputs of a network."""
        return self.signals

    def take(self, chosen: NDArray[np.int64]) -> LabelledSignals:
        """The signals at these indexes."""
        groups = None if self.groups is None else self.groups[chosen]
        return LabelledSignals(self.signals[chosen], self.labels[chosen], groups)

    def without_groups(self, held_out: tuple[int, ...]) -> tuple[LabelledSignals, LabelledSignals]:
        """Split by group: the signals of all other groups, and those of ``held_out``.

        Raises:
            InputError: the groups are unknown, or one of these has no signal.
        """
        known = [] if self.groups is None else np.unique(self.groups).tolist()
        if self.groups is None or not set(held_out) <= set(known):
            raise InputError(f"cannot hold out the groups {list(held_out)}; choose from {known}")
        held = np.isin(self.groups, held_out)
        return self.take(np.flatnonzero(~held)), self.take(np.flatnonzero(held))


@dataclass(frozen=True, eq=False)
class SignalDataset(LabelledDataset[LabelledSignals]):
    """A train and a test split of equally long signals.

    Attributes:
        rate_hz: samples per second.
        channel_names: one per channel, such as ``mono``, or ``acc_x``.
    """

    kind: ClassVar[str] = "signals"

    rate_hz: float
    channel_names: tuple[str, ...]

    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of every channel of the train split."""
        means = [
            float(self.train.signals[:, channel].mean(dtype=np.float64)) for channel in range(self.sample_shape[0])
        ]
        stds = [float(self.train.signals[:, channel].std(dtype=np.float64)) for channel in range(self.sample_shape[0])]
        return tuple(round(value, 9) for value in means), tuple(round(max(value, 1e-6), 9) for value in stds)

"""What every branch predicted for labelled images that trained nothing: how accurate any choice of branches is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Evaluation"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Every branch's logits on the test set: ``branch_logits`` (num_branches, M, C), ``labels`` (M,)."""

    branch_logits: NDArray[np.float32]
    labels: NDArray[np.int64]

    def prefix_accuracy(self, branches: tuple[int, ...] | None = None) -> tuple[float, ...]:
        """Accuracy of the first 1, 2, … of ``branches`` (default: all) on the test set."""
        chosen = self.branch_logits if branches is None else self.branch_logits[list(branches)]
        correct = chosen.cumsum(axis=0).argmax(axis=2) == self.labels  # (k, M)
        return tuple(round(float(accuracy), 6) for accuracy in correct.mean(axis=1))

    def correct(self, branches: Sequence[int]) -> NDArray[np.bool_]:
        """Which images the sum of these branches gets right: (M,)."""
        correct: NDArray[np.bool_] = self.branch_logits[list(branches)].sum(axis=0).argmax(axis=1) == self.labels
        return correct

    def of(self, branches: Sequence[int]) -> Evaluation:
        """Of these branches only."""
        return Evaluation(self.branch_logits[list(branches)], self.labels)

"""What a session answers: the output, which branches made it, and when each part ran."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["DroppedBranch", "PartRun", "Prediction"]


@dataclass(frozen=True)
class DroppedBranch:
    """A branch that does not count in the answer, and why."""

    index: int
    reason: str


class PartRun(NamedTuple):
    """When a part ran: milliseconds since the request began; thread 0 is the caller's."""

    part: str
    thread: int
    start_ms: float
    end_ms: float


@dataclass(frozen=True, eq=False)
class Prediction:
    """One answer.

    Attributes:
        output: (C,) float32 logits, the sum of the branches used, added in branch order.
        label_index: index of the largest logit.
        label: its name.
        confidence: softmax probability of that label; not calibrated.
        branches_used: indexes of the branches in the sum.
        branches_dropped: the others that were asked for, each with its reason.
        branch_outputs: (len(branches_used), C) float32, what each used branch contributed.
        elapsed_ms: from checked input to answer.
        timeline: when each part ran.
        engine: which implementation ran, and whether branches ran in parallel.
    """

    output: NDArray[np.float32]
    label_index: int
    label: str
    confidence: float
    branches_used: tuple[int, ...]
    branches_dropped: tuple[DroppedBranch, ...]
    branch_outputs: NDArray[np.float32]
    elapsed_ms: float
    timeline: tuple[PartRun, ...]
    engine: str

    @property
    def prefix_outputs(self) -> NDArray[np.float32]:
        """(len(branches_used), C): the answer after the first, the first two, … used branches."""
        return self.branch_outputs.cumsum(axis=0, dtype=np.float32)

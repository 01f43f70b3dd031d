"""What a session answers: the output, which branches made it and why, and when each part ran."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Answer", "BranchRun", "BranchState", "DroppedBranch", "PartRun", "Prediction"]


class BranchState(IntEnum):
    """What became of a branch; the numbers are those of ``paraedge/runtime.h``."""

    USED = 0
    FAILED = 1
    NOT_FINITE = 2
    WOULD_NOT_FIT = 3
    LATE = 4
    NOT_NEEDED = 5


@dataclass(frozen=True, slots=True)
class BranchRun:
    """One branch in one request. Times are milliseconds since the request began.

    Attributes:
        index: place in the model it was taken from.
        state: a ``BranchState``.
        thread: 0 is the caller's; -1 when it never started.
        start_ms: when it started.
        end_ms: when it ended; 0 when it had not.
        predicted_ms: when it was last decided on: the time it would probably (0.9) not exceed. NaN:
            nothing was known of it, or nothing had to be decided.
        left_ms: what was left of the budget then; NaN when nothing had to be decided.
        problem: why it failed.
    """

    index: int
    state: int
    thread: int
    start_ms: float
    end_ms: float
    predicted_ms: float
    left_ms: float
    problem: str

    @property
    def reason(self) -> str:
        """Why it ran, or why it does not count."""
        decided = not math.isnan(self.left_ms)
        predicted = f"{self.predicted_ms:.2f} ms predicted, {self.left_ms:.2f} ms left"
        if self.state == BranchState.USED:
            return predicted if decided else "nothing had to be decided"
        if self.state == BranchState.FAILED:
            return self.problem
        if self.state == BranchState.NOT_FINITE:
            return "its output is not finite"
        if self.state == BranchState.WOULD_NOT_FIT:
            if math.isnan(self.predicted_ms):
                return "nothing was known yet of how long it takes on this device"
            return f"it would probably not have ended before the deadline: {predicted}"
        if self.state == BranchState.LATE:
            return "it had not ended at the deadline" if self.thread >= 0 else "no thread was free before the deadline"
        return "the answer was good enough without it"


class Answer(Protocol):
    """What a runner found; see ``Prediction``."""

    @property
    def output(self) -> NDArray[np.float32]: ...  # noqa: D102
    @property
    def branch_outputs(self) -> NDArray[np.float32]: ...  # noqa: D102
    @property
    def branches(self) -> Sequence[tuple[Any, ...]]: ...  # noqa: D102  # the fields of BranchRun
    @property
    def label_index(self) -> int: ...  # noqa: D102
    @property
    def confidence(self) -> float: ...  # noqa: D102
    @property
    def stem_ms(self) -> float: ...  # noqa: D102
    @property
    def elapsed_ms(self) -> float: ...  # noqa: D102
    @property
    def cut_short(self) -> bool: ...  # noqa: D102  # the deadline ended the wait
    @property
    def requests_to_learn(self) -> int: ...  # noqa: D102


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


class Prediction:
    """One answer. Nothing of it is computed before somebody reads it, and nothing can be changed.

    Attributes:
        output: (C,) float32 logits, the sum of the branches used, added in branch order.
        label_index: index of the largest logit.
        label: its name.
        confidence: softmax probability of that label; not calibrated.
        branches: every branch that was asked for, in order.
        branches_used: indexes of the branches in the sum.
        branches_dropped: the others that were asked for, each with its reason.
        branch_outputs: (len(branches_used), C) float32, what each used branch contributed.
        elapsed_ms: from checked input to answer.
        deadline_met: whether the answer was there in time; true without a budget.
        timeline: when each part ran that ended, by start.
        requests_to_learn: requests until the speed of this device is known; 0 when it is.
        engine: which implementation ran, and whether branches ran in parallel.
    """

    def __init__(self, answer: Answer, labels: Sequence[str], engine: str, deadline_met: bool) -> None:
        fields = self.__dict__  # past __setattr__
        fields["_answer"] = answer
        fields["_labels"] = labels
        fields["engine"] = engine
        fields["deadline_met"] = deadline_met

    _answer: Answer
    _labels: Sequence[str]
    engine: str
    deadline_met: bool

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a prediction cannot be changed, nor its {name!r}")

    def __repr__(self) -> str:
        return (
            f"Prediction(label={self.label!r}, confidence={self.confidence:.3f}, "
            f"branches_used={self.branches_used}, elapsed_ms={self.elapsed_ms:.3f})"
        )

    @cached_property
    def output(self) -> NDArray[np.float32]:  # noqa: D102
        return self._answer.output

    @cached_property
    def branch_outputs(self) -> NDArray[np.float32]:  # noqa: D102
        return self._answer.branch_outputs

    @cached_property
    def branches(self) -> tuple[BranchRun, ...]:  # noqa: D102
        return tuple([BranchRun(*fields) for fields in self._answer.branches])

    @property
    def label_index(self) -> int:  # noqa: D102
        return self._answer.label_index

    @property
    def label(self) -> str:  # noqa: D102
        return self._labels[self._answer.label_index]

    @property
    def confidence(self) -> float:  # noqa: D102
        return self._answer.confidence

    @property
    def branches_used(self) -> tuple[int, ...]:  # noqa: D102
        return tuple([run.index for run in self.branches if run.state == BranchState.USED])

    @property
    def branches_dropped(self) -> tuple[DroppedBranch, ...]:  # noqa: D102
        dropped = [run for run in self.branches if run.state != BranchState.USED]
        return tuple([DroppedBranch(run.index, run.reason) for run in dropped])

    @property
    def elapsed_ms(self) -> float:  # noqa: D102
        return self._answer.elapsed_ms

    @property
    def requests_to_learn(self) -> int:  # noqa: D102
        return self._answer.requests_to_learn

    @cached_property
    def timeline(self) -> tuple[PartRun, ...]:  # noqa: D102
        ended = [
            PartRun(f"branch_{run.index:02d}", run.thread, run.start_ms, run.end_ms)
            for run in self.branches
            if run.end_ms > 0
        ]
        return (PartRun("stem", 0, 0.0, self._answer.stem_ms), *sorted(ended, key=lambda run: run.start_ms))

    @property
    def prefix_outputs(self) -> NDArray[np.float32]:
        """(len(branches_used), C): the answer after the first, the first two, … used branches."""
        return self.branch_outputs.cumsum(axis=0, dtype=np.float32)

    def explain(self) -> str:
        """Why each branch ran or was dropped, a line each."""
        lines = []
        if self.requests_to_learn:
            lines.append(
                f"this device's speed is still being learned, for {self.requests_to_learn} more request(s); "
                "'paraedge profile' measures it beforehand"
            )
        for place, run in enumerate(self.branches):
            if run.state == BranchState.USED:
                when = f"ran from {run.start_ms:.2f} to {run.end_ms:.2f} ms on thread {run.thread}"
                why = "the first branch always runs" if place == 0 else run.reason
                lines.append(f"branch {run.index} {when}: {why}")
            else:
                lines.append(f"branch {run.index} does not count: {run.reason}")
        return "\n".join(lines)

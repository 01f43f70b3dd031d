"""A prediction: the output, which branches made it and why, and when each part ran."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, NamedTuple, NoReturn, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime._arguments import shown
from paraedge_runtime.errors import InputError

__all__ = [
    "BranchRun",
    "BranchState",
    "DroppedBranch",
    "PartRun",
    "Prediction",
    "RawPrediction",
    "softmax",
    "softmax_confidence",
]


class BranchState(IntEnum):
    """State of a branch after a request. The values are those of ``paraedge.h``."""

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
        index: index of the branch in the model.
        state: a ``BranchState``.
        thread: 0 is the caller's thread; -1 if the branch never started.
        start_ms: when it started.
        end_ms: when it finished; 0 if it did not.
        predicted_ms: 0.9 quantile of its predicted time, at the last decision; NaN if nothing was known yet, or no
            decision was needed.
        left_ms: time left of the budget at that decision; NaN if no decision was needed.
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
        """Why the branch ran, or why it is not in the sum."""
        decided = not math.isnan(self.left_ms)
        predicted = f"{self.predicted_ms:.2f} ms predicted, {self.left_ms:.2f} ms left"
        if self.state == BranchState.USED:
            return predicted if decided else "no decision was needed"
        if self.state == BranchState.FAILED:
            return self.problem
        if self.state == BranchState.NOT_FINITE:
            return "its output is not finite"
        if self.state == BranchState.WOULD_NOT_FIT:
            if math.isnan(self.predicted_ms):
                return "its time on this device is not known yet"
            return f"predicted to miss the deadline: {predicted}"
        if self.state == BranchState.LATE:
            return (
                "it had not finished at the deadline" if self.thread >= 0 else "no thread was free before the deadline"
            )
        return "the prediction was confident enough without it"


class RawPrediction(Protocol):
    """What a session of the core found; see ``Prediction``."""

    @property
    def output(self) -> NDArray[np.float32]: ...  # noqa: D102
    @property
    def branch_outputs(self) -> NDArray[np.float32]: ...  # noqa: D102
    @property
    def branches(self) -> Sequence[Any]: ...  # noqa: D102  # with the attributes of BranchRun
    @property
    def label_index(self) -> int: ...  # noqa: D102
    @property
    def confidence(self) -> float: ...  # noqa: D102
    @property
    def is_calibrated(self) -> bool: ...  # noqa: D102
    @property
    def stem_ms(self) -> float: ...  # noqa: D102
    @property
    def elapsed_ms(self) -> float: ...  # noqa: D102
    @property
    def deadline_met(self) -> bool: ...  # noqa: D102
    @property
    def requests_to_learn(self) -> int: ...  # noqa: D102


def softmax(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """The softmax of ``logits / temperature``; both are (C,)."""
    exponentials = np.exp((logits - logits.max()).astype(np.float64) / temperature)
    return cast("NDArray[np.float64]", exponentials / exponentials.sum())


def softmax_confidence(logits: NDArray[np.float32], temperature: float) -> float:
    """Their softmax at its largest."""
    return float(softmax(logits, temperature).max())


@dataclass(frozen=True)
class DroppedBranch:
    """A branch that is not part of the prediction, and the reason."""

    index: int
    reason: str


def _branch_run(raw: Any) -> BranchRun:
    """A ``BranchRun`` from an object with its attributes."""
    return BranchRun(
        index=raw.index,
        state=raw.state,
        thread=raw.thread,
        start_ms=raw.start_ms,
        end_ms=raw.end_ms,
        predicted_ms=raw.predicted_ms,
        left_ms=raw.left_ms,
        problem=raw.problem,
    )


class PartRun(NamedTuple):
    """When a part ran: milliseconds since the request began; thread 0 is the caller's."""

    part: str
    thread: int
    start_ms: float
    end_ms: float


class _KeptPrediction(NamedTuple):
    """A ``RawPrediction`` without a session."""

    output: NDArray[np.float32]
    branch_outputs: NDArray[np.float32]
    branches: tuple[BranchRun, ...]
    label_index: int
    confidence: float
    is_calibrated: bool
    stem_ms: float
    elapsed_ms: float
    deadline_met: bool
    requests_to_learn: int


def _kept(
    raw: _KeptPrediction, labels: Sequence[str], engine: str, temperatures: Sequence[float], min_confidence: float
) -> Prediction:
    """What pickle makes again; as before, its arrays cannot be changed."""
    for values in (raw.output, raw.branch_outputs):
        values.flags.writeable = False
    return Prediction(raw, labels, engine, temperatures, min_confidence)


class Prediction:
    """The result of one request. Immutable; values are computed when first read.

    If the bundle's output is a vector, there are no labels: ``label``, ``label_index``, ``confidence``,
    ``probabilities`` and ``top_k`` raise ``InputError``; read ``output`` instead.

    Attributes:
        output: (C,) float32, the sum of the branches used, added in branch order: logits, or the vector.
        label_index: index of the largest logit.
        label: name of that label; ``None`` if the prediction is unknown.
        is_unknown: whether the confidence is below the request's ``min_confidence``; false if it had none.
        confidence: softmax probability of the label; see ``is_calibrated``.
        probabilities: (C,) float64, one per label; the largest is the confidence.
        is_calibrated: whether the confidence uses a temperature that was fitted at export for these branches. Without
            one it is usually too high.
        branches: every requested branch, in order.
        branches_used: indexes of the branches in the sum.
        branches_dropped: the other requested branches, each with a reason.
        branch_outputs: (len(branches_used), C) float32, the output of each used branch.
        elapsed_ms: time from the checked input to the prediction.
        deadline_met: whether the prediction was ready by the deadline; true without a budget.
        timeline: when each finished part ran, ordered by start.
        requests_to_learn: requests until this device's speed is known; 0 once it is.
        engine: which implementation ran, and whether branches ran in parallel.
    """

    def __init__(
        self,
        raw: RawPrediction,
        labels: Sequence[str],
        engine: str,
        temperatures: Sequence[float],
        min_confidence: float = 0.0,
    ) -> None:
        fields = self.__dict__  # past __setattr__
        fields["_min_confidence"] = min_confidence
        fields["_temperatures"] = temperatures
        fields["_raw"] = raw
        fields["_labels"] = labels
        fields["engine"] = engine

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle, and so for other processes: with everything that the session's core has found."""
        kept = {name: getattr(self._raw, name) for name in _KeptPrediction._fields if name != "branches"}
        raw = _KeptPrediction(**kept, branches=self.branches)
        return _kept, (raw, tuple(self._labels), self.engine, tuple(self._temperatures), self._min_confidence)

    _raw: RawPrediction
    _labels: Sequence[str]
    _min_confidence: float
    _temperatures: Sequence[float]  # of the first 1, 2, … branches
    engine: str

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a prediction is immutable; {name!r} cannot be set")

    def __repr__(self) -> str:
        what = (
            f"label={self.label!r}, confidence={self.confidence:.3f}"
            if self._labels
            else f"output={self.output.shape[0]} numbers"
        )
        return f"Prediction({what}, branches_used={self.branches_used}, elapsed_ms={self.elapsed_ms:.3f})"

    @cached_property
    def output(self) -> NDArray[np.float32]:  # noqa: D102
        return self._raw.output

    @cached_property
    def branch_outputs(self) -> NDArray[np.float32]:  # noqa: D102
        return self._raw.branch_outputs

    @cached_property
    def branches(self) -> tuple[BranchRun, ...]:  # noqa: D102
        return tuple([_branch_run(run) for run in self._raw.branches])

    @property
    def label_index(self) -> int:  # noqa: D102
        return self._labelled().label_index

    @property
    def label(self) -> str | None:  # noqa: D102
        return None if self.is_unknown else self._labels[self._labelled().label_index]

    @property
    def is_unknown(self) -> bool:  # noqa: D102
        return self._min_confidence > 0.0 and self.confidence < self._min_confidence

    @property
    def confidence(self) -> float:  # noqa: D102
        return self._labelled().confidence

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:  # noqa: D102
        self._labelled()
        temperature = self._temperatures[len(self.branches_used) - 1] if self.is_calibrated else 1.0
        values = softmax(self.output, temperature)
        values.flags.writeable = False
        return values

    def top_k(self, k: int) -> tuple[tuple[str, float], ...]:
        """The ``k`` most probable labels with their probabilities, the most probable first.

        Raises:
            InputError: ``k`` is not a whole number from 1 to the number of labels.
        """
        probabilities = self.probabilities
        try:
            count = 0 if isinstance(k, bool) else operator.index(k)
        except TypeError:
            count = 0
        if not 1 <= count <= len(probabilities):
            raise InputError(
                f"k must be an integer from 1 to {len(probabilities)} (the number of labels), got {shown(k)}"
            )
        order = np.argsort(-self.output, kind="stable")[:count]
        return tuple([(self._labels[index], float(probabilities[index])) for index in order])

    @property
    def is_calibrated(self) -> bool:  # noqa: D102
        return self._raw.is_calibrated

    @property
    def deadline_met(self) -> bool:  # noqa: D102
        return self._raw.deadline_met

    def _labelled(self) -> RawPrediction:
        if not self._labels:
            raise InputError(f"this bundle's output is a vector of {self.output.size} numbers; read 'output'")
        return self._raw

    @property
    def branches_used(self) -> tuple[int, ...]:  # noqa: D102
        return tuple([run.index for run in self.branches if run.state == BranchState.USED])

    @property
    def branches_dropped(self) -> tuple[DroppedBranch, ...]:  # noqa: D102
        dropped = [run for run in self.branches if run.state != BranchState.USED]
        return tuple([DroppedBranch(run.index, run.reason) for run in dropped])

    @property
    def elapsed_ms(self) -> float:  # noqa: D102
        return self._raw.elapsed_ms

    @property
    def requests_to_learn(self) -> int:  # noqa: D102
        return self._raw.requests_to_learn

    @cached_property
    def timeline(self) -> tuple[PartRun, ...]:  # noqa: D102
        finished = [
            PartRun(f"branch_{run.index:02d}", run.thread, run.start_ms, run.end_ms)
            for run in self.branches
            if run.end_ms > 0
        ]
        return (PartRun("stem", 0, 0.0, self._raw.stem_ms), *sorted(finished, key=lambda run: run.start_ms))

    @property
    def prefix_outputs(self) -> NDArray[np.float32]:
        """(len(branches_used), C): the output after one, two, … of the used branches."""
        return self.branch_outputs.cumsum(axis=0, dtype=np.float32)

    def to_dict(self) -> dict[str, Any]:
        """The prediction as JSON-serializable types: ``json.dumps(prediction.to_dict())``.

        ``label``, ``label_index`` and ``confidence`` are ``None`` if the output is a vector; ``label`` is also
        ``None`` if the prediction is unknown.
        """
        has_labels = bool(self._labels)
        return {
            "label": self.label if has_labels else None,
            "label_index": self.label_index if has_labels else None,
            "confidence": self.confidence if has_labels else None,
            "is_unknown": self.is_unknown,
            "is_calibrated": self.is_calibrated,
            "output": self.output.tolist(),
            "branches_used": list(self.branches_used),
            "branches_dropped": [{"index": drop.index, "reason": drop.reason} for drop in self.branches_dropped],
            "elapsed_ms": self.elapsed_ms,
            "deadline_met": self.deadline_met,
            "requests_to_learn": self.requests_to_learn,
            "engine": self.engine,
            "timeline": [run._asdict() for run in self.timeline],
        }

    def explain(self) -> str:
        """One line per branch: why it ran or was dropped."""
        lines = [f"engine: {self.engine}"] if "one after another" in self.engine else []
        if self.requests_to_learn:
            lines.append(
                f"this device's speed is still being learned, for {self.requests_to_learn} more request(s); "
                "'paraedge profile' measures it beforehand"
            )
        for position, run in enumerate(self.branches):
            if run.state == BranchState.USED:
                when = f"ran from {run.start_ms:.2f} to {run.end_ms:.2f} ms on thread {run.thread}"
                why = "the first branch always runs" if position == 0 else run.reason
                lines.append(f"branch {run.index} {when}: {why}")
            else:
                lines.append(f"branch {run.index} was dropped: {run.reason}")
        return "\n".join(lines)

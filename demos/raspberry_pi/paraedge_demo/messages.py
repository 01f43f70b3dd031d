"""What is said of the demo and of one processed frame: the same for the page, the terminal and a recording."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from paraedge_runtime.prediction import BranchRun, BranchState, Prediction

__all__ = ["FORMAT", "BranchBar", "FrameRecord", "Header", "Outcome", "branch_bars", "return_ms"]

FORMAT = "paraedge-demo/1"
Outcome = Literal["used", "late", "dropped", "failed"]

# What a person has to tell apart; of the rest the reason is told.
OUTCOMES: dict[BranchState, Outcome] = {
    BranchState.USED: "used",
    BranchState.FAILED: "failed",
    BranchState.NOT_FINITE: "failed",
    BranchState.WOULD_NOT_FIT: "dropped",
    BranchState.LATE: "late",
    BranchState.NOT_NEEDED: "dropped",
}


class Header(msgspec.Struct, frozen=True, tag_field="type", tag="header"):
    """What stays the same until another bundle is loaded.

    Attributes:
        format: ``FORMAT``.
        bundle: the model's name.
        engine: which implementation runs it.
        branches: indexes of the branches.
        labels: of the classes.
        source: where images come from.
        max_threads: more cannot be chosen.
    """

    format: str
    bundle: str
    engine: str
    branches: tuple[int, ...]
    labels: tuple[str, ...]
    source: str
    max_threads: int


class BranchBar(msgspec.Struct, frozen=True):
    """One branch in one request; times are milliseconds since the request began, 0 when there is none.

    Attributes:
        index: of the branch.
        outcome: used, late (had not ended at the deadline), dropped (was not started) or failed.
        thread: that ran it; -1 when none did.
        start_ms: when it started.
        end_ms: when it ended.
        reason: why it ran or does not count.
        predicted_start_ms, predicted_end_ms: when it would have run, as it was predicted when it was last decided on.
    """

    index: int
    outcome: Outcome
    thread: int
    start_ms: float
    end_ms: float
    reason: str
    predicted_start_ms: float = 0.0
    predicted_end_ms: float = 0.0


class FrameRecord(msgspec.Struct, frozen=True, tag_field="type", tag="frame"):
    """One processed frame.

    Attributes:
        number: of the frame among those processed, from 1.
        at_s: seconds since the demo began.
        name: of the image.
        label: the predicted one; ``None`` where it is unknown, see ``--min-confidence``.
        confidence: softmax probability of it.
        truth: the right label where it is known.
        latency_ms: from the frame's arrival to its prediction; the budget counts from there too.
        inference_ms: the part of it inside the session.
        stem_ms: from the request's begin to the stem's end.
        overhead_ms: what came on top of inference before the views saw the prediction.
        deadline_met: whether the prediction was there in time.
        branches: every branch of the bundle.
        budget_ms, threads, policy, count, load: the settings that it ran with.
        dropped_frames: frames replaced by newer ones, so far.
        requests_to_learn: requests until the speed of this device is known.
        return_ms: when the session meant to begin to return, milliseconds since the request began: a margin before the
            deadline. What would probably not end by then is not started. 0 where nothing had to be decided.
    """

    number: int
    at_s: float
    name: str
    label: str | None
    confidence: float
    truth: str | None
    latency_ms: float
    inference_ms: float
    stem_ms: float
    overhead_ms: float
    deadline_met: bool
    branches: Annotated[tuple[BranchBar, ...], Meta(min_length=1)]
    budget_ms: Annotated[float, Meta(gt=0)]
    threads: int
    policy: str
    count: int
    load: bool
    dropped_frames: int
    requests_to_learn: int
    return_ms: float = 0.0


def branch_bars(prediction: Prediction, indexes: tuple[int, ...]) -> tuple[BranchBar, ...]:
    """A bar for every branch of the bundle; those that were not asked for are dropped by the policy."""
    asked = {run.index: run for run in prediction.branches}
    last_ms = prediction.timeline[-1].end_ms
    return tuple(_bar(index, asked.get(index), len(asked), last_ms) for index in indexes)


def return_ms(prediction: Prediction) -> float:
    """When the session meant to begin to return; see ``FrameRecord``."""
    last_ms = prediction.timeline[-1].end_ms
    decided = [run for run in prediction.branches if not math.isnan(run.left_ms)]
    started = [run for run in decided if run.thread >= 0]  # of these the moment of the decision is known best
    return round(max((_decided_ms(run, last_ms) + run.left_ms for run in started or decided), default=0.0), 3)


def _decided_ms(run: BranchRun, last_ms: float) -> float:
    """When a branch was last decided on: when it was started, or when the last other part had ended."""
    return run.start_ms if run.thread >= 0 else last_ms


def _bar(index: int, run: BranchRun | None, asked: int, last_ms: float) -> BranchBar:
    if run is None:
        return BranchBar(index, "dropped", -1, 0.0, 0.0, f"the policy asks for the first {asked} only")
    outcome = OUTCOMES[BranchState(run.state)]
    start_ms, end_ms = round(run.start_ms, 3), round(run.end_ms, 3)
    if math.isnan(run.predicted_ms):
        return BranchBar(index, outcome, run.thread, start_ms, end_ms, run.reason)
    decided_ms = _decided_ms(run, last_ms)
    predicted = (round(decided_ms, 3), round(decided_ms + run.predicted_ms, 3))
    return BranchBar(index, outcome, run.thread, start_ms, end_ms, run.reason, *predicted)

"""One block of requests: given to a policy at their times, or recorded for the oracles."""

from __future__ import annotations

import bisect
import contextlib
import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paraedge_measure.deadlines.interference import Align
from paraedge_measure.deadlines.oracles import Durations, Trace
from paraedge_measure.deadlines.policies import Policy
from paraedge_measure.deadlines.records import Outcomes
from paraedge_runtime import Session

__all__ = ["FAR_S", "LEAD_S", "WARM", "Block", "Served", "record_block", "run_every_branch", "serve_block"]

FAR_S = 60.0  # a deadline that is never in the way
WARM = 2  # requests before each block, not counted: another policy's data is in the caches
LEAD_S = 2e-3  # from there to the first arrival: hogs hear of the block, late branches end
SPIN_S = 2e-4  # a sleep ends late by less than this; the rest of a wait is spent looking at the clock


@dataclass(frozen=True, eq=False)
class Block:
    """Requests that one policy serves without a pause.

    Attributes:
        place: where they are among the requests of the cell.
        images: (n, H, W, C) uint8.
        labels: (n,) class indices.
        offsets_s: (n,) arrivals since the start of the block.
        deadline_s: from arrival.
        closed: a request arrives when the one before has returned; ``offsets_s`` mean nothing.
        phase_s: how far the square wave is in its period at the start.
        settle_s: pause after the last prediction, for branches that are late.
    """

    place: slice
    images: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.int64]
    offsets_s: NDArray[np.float64]
    deadline_s: float
    closed: bool
    phase_s: float
    settle_s: float

    def begin(self, align: Align) -> float:
        """Start of the block, now; the interference has its phase, and what was late has ended."""
        start_s = time.monotonic() + LEAD_S
        align(start_s - self.phase_s)
        _wait_until(start_s)
        return start_s


class Served:
    """What became of a policy's requests so far."""

    def __init__(self, requests: int) -> None:
        self.latency_s = np.full(requests, np.nan)
        self.branches = np.zeros(requests, dtype=np.int64)
        self.right = np.zeros(requests, dtype=np.bool_)
        self.cpu_s = 0.0

    def outcomes(self, deadline_s: float) -> Outcomes:
        """By the caller's clock: a prediction after the deadline is a miss, by however little."""
        missed = ~(self.latency_s <= deadline_s)  # skipped ones have NaN
        return Outcomes(self.latency_s, self.branches, missed, self.right & ~missed)


def serve_block(policy: Policy, block: Block, align: Align, served: Served) -> None:
    """Give a policy the requests of a block, each at its time or as soon after as it is free.

    Latency counts from the scheduled arrival. A request whose deadline has passed before it can begin
    is skipped, and one that the policy drops counts as skipped. CPU time is that of the whole process, less what
    waiting for arrivals took.
    """
    for image in block.images[:WARM]:
        policy(image, time.monotonic() + block.deadline_s, ())
    start_s = block.begin(align)
    latency_s = np.full(len(block.images), np.nan)
    branches, right = np.zeros_like(block.labels), np.zeros(len(block.labels), dtype=np.bool_)
    with _no_garbage_collection():
        used_s, waited_s = time.process_time(), 0.0
        deadlines_s = (start_s + block.offsets_s + block.deadline_s).tolist()
        for number, (image, label) in enumerate(zip(block.images, block.labels.tolist(), strict=True)):
            waiting_s: list[float] = []
            if block.closed:
                until_s = time.monotonic() + block.deadline_s
            else:
                until_s = deadlines_s[number]
                waited_s += _wait_until(until_s - block.deadline_s)
                now_s = time.monotonic()
                if now_s >= until_s:
                    continue
                arrived = bisect.bisect_right(deadlines_s, now_s + block.deadline_s)
                waiting_s = deadlines_s[number + 1 : arrived]
            prediction = policy(image, until_s, waiting_s)
            if prediction is None:
                continue
            predicted = prediction.label_index  # before the clock is read: it is what the caller waits for
            latency_s[number] = time.monotonic() - until_s + block.deadline_s
            branches[number] = len(prediction.branches_used)
            right[number] = predicted == label
        time.sleep(block.settle_s)  # what is late belongs to this block
        served.cpu_s += time.process_time() - used_s - waited_s
    served.latency_s[block.place] = latency_s
    served.branches[block.place] = branches
    served.right[block.place] = right


def record_block(session: Session, block: Block, align: Align) -> Trace:
    """Durations of the full model on a block's arrivals, without a deadline; see ``oracles``."""
    for image in block.images[:WARM]:
        run_every_branch(session, image)
    start_s = block.begin(align)
    arrivals_s = [*(start_s + block.offsets_s).tolist(), float("inf")]
    starts_s: list[float] = []
    durations: list[Durations] = []
    with _no_garbage_collection():
        for image, arrival_s, next_s in zip(block.images, arrivals_s, arrivals_s[1:], strict=False):
            if not block.closed:
                if starts_s and time.monotonic() >= next_s:
                    continue
                _wait_until(arrival_s)
            starts_s.append(time.monotonic() - start_s)
            durations.append(run_every_branch(session, image)[0])
    return Trace(starts_s, durations)


def run_every_branch(session: Session, image: NDArray[np.uint8]) -> tuple[Durations, list[float]]:
    """What the parts took, and when 1, 2, … branches were in, with a deadline that is never in the way."""
    start_s = time.monotonic()
    prediction = session.run(image, deadline_s=start_s + FAR_S, policy="all")
    _ = prediction.label_index
    wall_s = time.monotonic() - start_s
    ends_s = sorted(part.end_ms / 1e3 for part in prediction.timeline if part.part != "stem")
    return Durations.of(prediction.timeline, wall_s), ends_s


def _wait_until(time_s: float) -> float:
    """Wait, and return the CPU seconds that this thread spent on it."""
    before_s = time.thread_time()
    left_s = time_s - time.monotonic()
    if left_s > SPIN_S:
        time.sleep(left_s - SPIN_S)
    while time.monotonic() < time_s:
        time.sleep(0)  # lets go of the interpreter: a Python engine may have a late branch to end
    return time.thread_time() - before_s


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

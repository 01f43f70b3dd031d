"""Runs a cell: policies take turns in blocks, on the same requests, under the same interference."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.benchmarking.arrivals import arrival_pattern
from paraedge_runtime.benchmarking.cells import Cell
from paraedge_runtime.benchmarking.interference import open_interference
from paraedge_runtime.benchmarking.oracles import (
    ORACLE_DYNAMIC,
    ORACLE_FIRST,
    ORACLE_STATIC,
    Durations,
    Trace,
    replay_dynamic,
    replay_static,
)
from paraedge_runtime.benchmarking.policies import Known, Policy, make_policy
from paraedge_runtime.benchmarking.records import FORMAT, Header, Outcomes, Record
from paraedge_runtime.bundle import Bundle
from paraedge_runtime.errors import EngineError, InputError
from paraedge_runtime.manifest import encode_manifest
from paraedge_runtime.placement import available_cores
from paraedge_runtime.session import Session

__all__ = ["ORACLES", "Bench", "LabelledPictures"]

ORACLES = (ORACLE_STATIC, ORACLE_DYNAMIC, ORACLE_FIRST)

LEAST_RUNS, LEAST_S = 100, 1.0  # of the unloaded measurement
FAR_S = 60.0  # a deadline that no request meets
FAMILIAR = 30  # requests that every policy sees before the interference begins, for those that learn
WARM = 2  # requests before each block, not counted: another policy's data is in the caches
LEAD_S = 2e-3  # from there to the first arrival: hogs hear of the block, late branches end
SPIN_S = 2e-4  # a sleep ends late by less than this; the rest of a wait is spent looking at the clock

Progress = Callable[[int], None]


@dataclass(frozen=True)
class LabelledPictures:
    """(M, H, W, C) uint8 images with (M,) class indexes, and where they are from.

    Raises:
        InputError: no images, or not one label for each.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    source: str

    def __post_init__(self) -> None:
        if not len(self.images):
            raise InputError(f"{self.source}: there are no images; accuracy needs some")
        if self.labels.shape != (len(self.images),):
            raise InputError(
                f"{self.source}: {len(self.images)} images have labels of shape {self.labels.shape}; "
                "every image needs one"
            )


class Bench:
    """A bundle on this machine: measured unloaded when made, then cell by cell.

    Attributes:
        header: what all records share.
        full_s: median of the full model, by the caller's clock.
        known: what policies may know.
    """

    def __init__(
        self,
        bundle: Bundle,
        pictures: LabelledPictures,
        *,
        engine: str | None = None,
        threads: int | None = None,
        block: int = 64,
        on_progress: Progress = lambda count: None,
    ) -> None:
        """Run every image once, then measure the unloaded machine.

        Args:
            bundle: what is measured.
            pictures: requests are drawn from them.
            engine, threads: as ``Session.open`` takes them.
            block: requests that one policy serves before another takes its turn.
            on_progress: called with a number of images that were run.

        Raises:
            InputError: pictures that do not fit the bundle, or a block below 1.
            EngineError: a branch does not work: accuracy would mean nothing.
        """
        if block < 1:
            raise InputError(f"a block of {block} requests cannot be; give at least 1")
        manifest = bundle.manifest
        if pictures.labels.min() < 0 or pictures.labels.max() >= manifest.num_outputs:
            raise InputError(
                f"{pictures.source}: labels run from {pictures.labels.min()} to {pictures.labels.max()}, "
                f"the bundle knows {manifest.num_outputs}"
            )
        self._pictures = pictures
        self._open: Callable[[], Session] = lambda: Session.open(bundle, engine=engine, threads=threads)
        self._shared = self._open()
        try:
            # (K, M): whether the first 1, 2, … branches name image m
            self._prefix_correct = self._classify(on_progress)
            prefix_accuracy = tuple(round(float(value), 6) for value in self._prefix_correct.mean(axis=1))
            published = manifest.accuracy
            accuracy = prefix_accuracy if published is None else published.prefix_accuracy
            self.full_s, stage_s, return_s = self._measure_unloaded()
            self.known = Known(stage_s, return_s, accuracy)
        except BaseException:
            self.close()
            raise
        self.header = Header(
            format=FORMAT,
            bundle=manifest.name,
            bundle_sha256=hashlib.sha256(encode_manifest(manifest)).hexdigest(),
            engine=self._shared.engine.description,
            threads=self._shared.threads,
            cores=available_cores(),
            images=f"{len(pictures.images)} images, {pictures.source}",
            images_sha256=hashlib.sha256(pictures.images.tobytes() + pictures.labels.tobytes()).hexdigest(),
            prefix_accuracy=prefix_accuracy,
            block=block,
        )

    def _classify(self, on_progress: Progress) -> NDArray[np.bool_]:
        rows = []
        for image, label in zip(self._pictures.images, self._pictures.labels, strict=True):
            prediction = self._shared.run(image)
            if prediction.branches_dropped:
                drop = prediction.branches_dropped[0]
                raise EngineError(f"branch {drop.index} was dropped: {drop.reason}; accuracy would mean nothing")
            rows.append(prediction.prefix_outputs.argmax(axis=1) == label)
            on_progress(1)
        return np.array(rows).T

    def _measure_unloaded(self) -> tuple[float, tuple[float, ...], float]:
        """Median seconds of the full model; until 1, 2, … branches are in; and from there to the caller."""
        full, stages, returns = [], [], []
        begin = time.monotonic()
        while len(full) < LEAST_RUNS or time.monotonic() - begin < LEAST_S:
            image = self._pictures.images[len(full) % len(self._pictures.images)]
            start = time.monotonic()
            self._shared.run(image)
            full.append(time.monotonic() - start)
            durations, ends_s = _recorded(self._shared, image)[1:]
            stages.append(ends_s)
            returns.append(durations.return_s)
        return (
            float(np.median(full)),
            tuple(float(value) for value in np.median(stages, axis=0)),
            float(np.median(returns)),
        )

    def close(self) -> None:
        """End the threads, free the programs."""
        self._shared.close()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def expected_s(self, cell: Cell, num_policies: int) -> float:
        """About how long ``run_cell`` takes without interference, ``num_policies`` with the recording of the oracles."""
        deadline_s = cell.deadline * self.full_s
        if cell.load:
            gap_s = self.full_s / cell.load
            gap_s = max(gap_s, deadline_s) if cell.arrivals == "periodic" else gap_s
        else:
            gap_s = min(self.full_s, deadline_s)
        between_s = WARM * min(self.full_s, deadline_s) + 2 * LEAD_S
        rounds = -(-cell.requests // self.header.block)
        return num_policies * (cell.requests * gap_s + rounds * between_s + FAMILIAR * self.full_s)

    def check(self, policy: str) -> None:
        """Answer one request by a policy.

        Raises:
            ParaEdgeError: it does not work with this bundle, such as an early stop without thresholds.
        """
        with contextlib.closing(_Sessions(self._open)) as sessions:
            answer = make_policy(policy, self.known, self._shared, sessions.open)
            answer(self._pictures.images[0], time.monotonic() + FAR_S)

    def run_cell(
        self,
        cell: Cell,
        policies: Sequence[str],
        seed: int,
        *,
        oracles: bool = True,
        on_progress: Progress = lambda count: None,
    ) -> list[Record]:
        """Measure policies in turns, and replay the oracles.

        Args:
            cell: what to measure.
            policies: names; in every round they take turns in an order drawn anew.
            seed: of arrivals, images, order, and the phase of the square wave.
            oracles: record durations in turns with the policies, and replay.
            on_progress: called with a number of requests that were served.

        Raises:
            InputError, DeviceError: the interference cannot be made here.
            EngineError: a part failed.
        """
        pattern = arrival_pattern(cell.arrivals)
        deadline_s = cell.deadline * self.full_s
        arrivals = pattern.times(
            cell.requests, full_s=self.full_s, deadline_s=deadline_s, load=cell.load or None, seed=seed
        )
        rng = np.random.default_rng([seed, 2])
        count = len(self._pictures.images)
        laps = -(-cell.requests // count)
        order = np.concatenate([rng.permutation(count) for _ in range(laps)])[: cell.requests]
        blocks = [slice(start, start + self.header.block) for start in range(0, cell.requests, self.header.block)]
        times = [arrivals[block] - arrivals[block.start] for block in blocks]

        turns: list[str | None] = [*policies, *([None] if oracles else [])]  # None: recording for the oracles
        served = {name: _Served(cell.requests) for name in policies}
        traces: list[Trace] = []
        with contextlib.closing(_Sessions(self._open)) as sessions:
            answering = {name: make_policy(name, self.known, self._shared, sessions.open) for name in policies}
            for number in range(FAMILIAR):
                for policy in answering.values():
                    policy(self._pictures.images[order[number % len(order)]], time.monotonic() + deadline_s)
            with open_interference(cell.interference, cell.interference_settings) as align:
                for block, offsets in zip(blocks, times, strict=True):
                    phase_s = rng.uniform(0, cell.square_period_s)
                    for turn in rng.permutation(len(turns)):
                        name = turns[turn]
                        images = self._pictures.images[order[block]]

                        def begin(images: NDArray[np.uint8] = images, phase_s: float = phase_s) -> float:
                            start_s = time.monotonic() + LEAD_S
                            align(start_s - phase_s)
                            return start_s

                        if name is None:
                            traces.append(self._record(images, offsets, pattern.closed, begin))
                        else:
                            labels = self._pictures.labels[order[block]]
                            served[name].cpu_s += self._serve(
                                answering[name], images, labels, offsets, deadline_s, pattern.closed, begin,
                                served[name], block,
                            )  # fmt: skip
                        on_progress(len(images))
        run = uuid.uuid4().hex[:12]
        records = [
            Record.of(
                done.outcomes(deadline_s), cell=cell, policy=name, seed=seed, run=run, full_s=self.full_s,
                cpu_s=done.cpu_s,
            )
            for name, done in served.items()
        ]  # fmt: skip
        if oracles:
            for name, counts in self._replay(traces, times, order, deadline_s, pattern.closed).items():
                outcomes = self._replayed(counts, order)
                records.append(
                    Record.of(outcomes, cell=cell, policy=name, seed=seed, run=run, full_s=self.full_s, cpu_s=None)
                )
        return records

    def _serve(
        self,
        policy: Policy,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        offsets: NDArray[np.float64],
        deadline_s: float,
        closed: bool,
        begin: Callable[[], float],
        served: _Served,
        block: slice,
    ) -> float:
        """One block of one policy; returns the CPU seconds of this process, waiting left out."""
        for image in images[:WARM]:
            policy(image, time.monotonic() + deadline_s)
        start_s = begin()
        arrivals = (start_s + offsets).tolist()
        _wait_until(start_s)
        latency_s, branches, right = [], [], []
        with _no_garbage_collection():
            used_s = time.process_time()
            waited_s = 0.0
            for image, label, arrival_s in zip(images, labels.tolist(), arrivals, strict=True):
                if closed:
                    arrival_s = time.monotonic()
                else:
                    waited_s += _wait_until(arrival_s)
                if time.monotonic() >= arrival_s + deadline_s:
                    latency_s.append(np.nan)
                    branches.append(0)
                    right.append(False)
                    continue
                prediction = policy(image, arrival_s + deadline_s)
                latency_s.append(time.monotonic() - arrival_s)
                branches.append(len(prediction.branches_used))
                right.append(prediction.label_index == label)
            time.sleep(self.full_s)  # what is late belongs to this block too
            used_s = time.process_time() - used_s
        served.latency_s[block] = latency_s
        served.branches[block] = branches
        served.right[block] = right
        return used_s - waited_s

    def _record(
        self, images: NDArray[np.uint8], offsets: NDArray[np.float64], closed: bool, begin: Callable[[], float]
    ) -> Trace:
        """The full model without a deadline on the same arrivals, as ``oracles`` says."""
        for image in images[:WARM]:
            _recorded(self._shared, image)
        start_s = begin()
        arrivals = [*(start_s + offsets).tolist(), np.inf]
        _wait_until(start_s)
        starts_s, durations = [], []
        with _no_garbage_collection():
            for image, arrival_s, next_s in zip(images, arrivals, arrivals[1:], strict=False):
                if not closed:
                    if starts_s and time.monotonic() >= next_s:
                        continue
                    _wait_until(arrival_s)
                began_s, taken, _ = _recorded(self._shared, image)
                starts_s.append(began_s - start_s)
                durations.append(taken)
        return Trace(starts_s, durations)

    def _replay(
        self,
        traces: list[Trace],
        times: list[NDArray[np.float64]],
        order: NDArray[np.int64],
        deadline_s: float,
        closed: bool,
    ) -> dict[str, NDArray[np.int64]]:
        threads, accuracy = self._shared.threads, self.known.accuracy
        blocks = [(trace, offsets.tolist()) for trace, offsets in zip(traces, times, strict=True)]
        static = [
            np.concatenate(
                [replay_static(count, trace, at, deadline_s, threads, closed=closed) for trace, at in blocks]
            )
            for count in range(1, len(accuracy) + 1)
        ]
        dynamic = np.concatenate(
            [replay_dynamic(accuracy, trace, at, deadline_s, threads, closed=closed) for trace, at in blocks]
        )
        best = max(static, key=lambda counts: int(self._replayed(counts, order).correct.sum()))
        return {ORACLE_STATIC: best, ORACLE_DYNAMIC: dynamic, ORACLE_FIRST: static[0]}

    def _replayed(self, counts: NDArray[np.int64], order: NDArray[np.int64]) -> Outcomes:
        missed = counts == 0
        correct = ~missed & self._prefix_correct[np.maximum(counts, 1) - 1, order]
        return Outcomes(np.full(len(counts), np.nan), counts, missed, correct)


class _Sessions:
    """Sessions that are closed together."""

    def __init__(self, open_session: Callable[[], Session]) -> None:
        self._open = open_session
        self._opened: list[Session] = []

    def open(self) -> Session:
        self._opened.append(self._open())
        return self._opened[-1]

    def close(self) -> None:
        for session in self._opened:
            session.close()


class _Served:
    """What one policy has answered so far."""

    def __init__(self, requests: int) -> None:
        self.latency_s = np.full(requests, np.nan)
        self.branches = np.zeros(requests, dtype=np.int64)
        self.right = np.zeros(requests, dtype=np.bool_)
        self.cpu_s = 0.0

    def outcomes(self, deadline_s: float) -> Outcomes:
        missed = ~(self.latency_s <= deadline_s)  # NaN, which is skipped, is a miss
        return Outcomes(self.latency_s, self.branches, missed, self.right & ~missed)


def _recorded(session: Session, image: NDArray[np.uint8]) -> tuple[float, Durations, list[float]]:
    """A run of every branch: when it began, what the parts took, and when 1, 2, … branches were in."""
    start = time.monotonic()
    prediction = session.run(image, deadline_s=start + FAR_S, policy="all")
    wall_s = time.monotonic() - start
    ends_s = sorted(part.end_ms / 1e3 for part in prediction.timeline if part.part != "stem")
    return start, Durations.of(prediction.timeline, wall_s), ends_s


def _wait_until(time_s: float) -> float:
    """Wait, and return the CPU seconds that this thread spent on it."""
    before = time.thread_time()
    left_s = time_s - time.monotonic()
    if left_s > SPIN_S:
        time.sleep(left_s - SPIN_S)
    while time.monotonic() < time_s:
        time.sleep(0)  # lets go of the interpreter: threads of a Python engine may have to end a late branch
    return time.thread_time() - before


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

"""Branches of a Python engine in parallel threads: what ``runtime/native/src/session.cpp`` does in C++.

The stem and the first branch run in the caller's thread, the others wherever a thread is free. With a
deadline, or somebody who wants every answer on the way, a worker takes the caller's place after that.
A branch that is late finishes on its worker; its request is closed, so nobody reads what it computes.
"""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.controller import Controller
from paraedge_runtime.engines.base import LoadedPart, RunnerOptions, RunOptions
from paraedge_runtime.errors import EngineError
from paraedge_runtime.inputs import check_input, stem_input
from paraedge_runtime.manifest import BranchEntry, PartEntry
from paraedge_runtime.placement import WorkerCores
from paraedge_runtime.pool import WorkerPool
from paraedge_runtime.prediction import BranchRun, BranchState

__all__ = ["ThreadedEngine", "ThreadedRunner"]

_STAND_IN = 0  # number of the worker that takes the caller's place
_RETURN_MARGIN_MS = 0.05  # at least, as the native core's; what Python needs beyond it, the session knows


class ThreadedEngine(ABC):
    """Base of engines whose parts are run by Python threads."""

    @abstractmethod
    def load(self, name: str, program: bytes, entry: PartEntry) -> LoadedPart:
        """Load a part with one thread of its own; see ``Engine.load``."""

    def open_runner(self, programs: Iterable[tuple[str, bytes, PartEntry]], options: RunnerOptions) -> ThreadedRunner:
        """Load the stem and the branches, one after another: not every engine may load two at a time."""
        parts: list[LoadedPart] = []
        entries: list[BranchEntry] = []
        try:
            for name, program, entry in programs:
                parts.append(self.load(name, program, entry))
                if isinstance(entry, BranchEntry):
                    entries.append(entry)
            return ThreadedRunner(parts, entries, options)
        except BaseException:
            for part in parts:
                part.close()
            raise


class _Task:
    """A branch in one request."""

    __slots__ = ("busy", "end_s", "ended", "left_ms", "output", "predicted_ms", "problem", "start_s", "state", "thread")

    def __init__(self) -> None:
        self.thread = -1  # -1: waiting
        self.ended = False
        self.state = BranchState.LATE
        self.busy = 0  # branches that ran when it began, itself included
        self.start_s = self.end_s = 0.0
        self.predicted_ms = self.left_ms = math.nan
        self.output: NDArray[np.float32] | None = None  # (C,)
        self.problem = ""


class _Request:
    """One request, from the stem's end until its answer is given."""

    def __init__(self, options: RunOptions, tokens: NDArray[np.float32]) -> None:
        self.options = options
        self.leave_s = min(options.deadline_s, options.leave_s)
        # Branches are started in order of index: not all of them may run, or somebody watches.
        self.in_order = self.hurried or options.early_stop or options.on_answer is not None
        self.tokens = tokens
        self.tasks = [_Task() for _ in range(options.branches)]
        self.open = True  # results count
        self.unfinished = options.branches
        self.used = self.running = 0
        self.cut_short = False  # the deadline ended the wait
        self.judged = 0  # branches of the prefix whose sum this is
        self.prefix_sum: NDArray[np.float32] | None = None  # (C,)
        self.last_end_s = -math.inf  # of a branch

    @property
    def hurried(self) -> bool:
        return self.leave_s != math.inf


class _Answer:
    """See ``paraedge_runtime.prediction.Answer``. What few ask for is computed when they do."""

    def __init__(self, request: _Request, indexes: Sequence[int], started_s: float, stem_ms: float, to_learn: int):
        advice = "'paraedge verify' checks the bundle on this device"
        self.branches: list[tuple[Any, ...]] = [
            (
                index,
                task.state,
                task.thread,
                (task.start_s - started_s) * 1e3 if task.thread >= 0 else 0.0,
                (task.end_s - started_s) * 1e3 if task.ended and task.thread >= 0 else 0.0,
                task.predicted_ms,
                task.left_ms,
                task.problem,
            )
            for index, task in zip(indexes, request.tasks, strict=False)
        ]
        self._rows = [
            task.output for task in request.tasks if task.state == BranchState.USED and task.output is not None
        ]
        if not self._rows:
            causes = "; ".join(sorted({BranchRun(*run).reason for run in self.branches}))
            raise EngineError(f"every branch failed: {causes}; {advice}")
        self.output = self._rows[0].copy()
        with np.errstate(over="ignore", invalid="ignore"):
            for row in self._rows[1:]:
                self.output += row
        if not np.isfinite(self.output).all():
            raise EngineError(f"the sum of the branches is not finite; {advice}")
        self.stem_ms = stem_ms
        self.requests_to_learn = to_learn
        self.cut_short = request.cut_short
        self.elapsed_ms = (time.monotonic() - started_s) * 1e3

    @property
    def branch_outputs(self) -> NDArray[np.float32]:
        return np.stack(self._rows)

    @cached_property
    def label_index(self) -> int:
        return int(self.output.argmax())

    @cached_property
    def confidence(self) -> float:
        return _confidence(self.output, 1.0)


class ThreadedRunner:
    """A stem and its branches, and the threads that run them."""

    def __init__(self, parts: Sequence[LoadedPart], entries: Sequence[BranchEntry], options: RunnerOptions) -> None:
        self._stem, *self._parts = parts
        self._indexes = [entry.index for entry in entries]
        self._input = options.input
        self._threads = options.threads
        self._stop_rules = options.stop_rules
        self._controller = Controller([entry.macs for entry in entries], options.part_ms, options.contention)
        # Started in this order, branches of unequal size end at about the same time.
        self._by_cost = sorted(range(len(entries)), key=lambda place: -entries[place].macs)
        self._lock = threading.Lock()  # of everything below, and of the request in progress
        self._news = threading.Condition(self._lock)
        self._wants_every_end = False
        self._busy = [False] * len(entries)  # a thread is inside
        self._current: _Request | None = None
        self._pool = WorkerPool(lambda number: self._drain(number or self._threads))
        for number in range(1, self._threads):
            self._pool.start(number)
        self._cores = WorkerCores(self._threads)
        self._worker_ids = self._pool.native_ids()

    @property
    def mandatory_ms(self) -> float:
        """Stem and first branch; see ``Runner.mandatory_ms``."""
        with self._lock:
            return self._controller.mandatory_ms

    def run(self, image: NDArray[np.float32] | NDArray[np.uint8], options: RunOptions) -> _Answer:
        """Run the stem, then branches in parallel; see ``Runner.run``."""
        x = check_input(image, self._input)
        started_s = time.monotonic()
        tokens = self._stem.run(stem_input(x, self._input))
        if not np.isfinite(tokens).all():
            raise EngineError("the stem's output is not finite; 'paraedge verify' checks the bundle on this device")
        stem_ms = (time.monotonic() - started_s) * 1e3
        request = _Request(options, tokens)
        try:
            with self._lock:
                self._controller.observe(0, 1, stem_ms)
                self._wants_every_end = options.on_answer is not None
                self._current = request
                # In a request that may leave branches out the first is the caller's: it has to be waited for
                # in any case, and so no late worker ever has it when the next request wants it.
                first = 0 if request.in_order else next(self._waiting(request))
                self._claim(request, first, thread=0)
            helpers = min(options.branches, self._threads) - 1
            if helpers > 0 and self._has_more(request):
                self._cores.move_away(self._worker_ids)
                for number in range(1, helpers + 1):
                    self._pool.wake(number)
            self._run_part(request, first)
            # Inside another branch the caller could neither return at the deadline nor hand out an answer.
            if not request.hurried and options.on_answer is None:
                self._drain(0)
            elif self._has_more(request):
                self._pool.wake(_STAND_IN)
            self._wait(request, started_s, stem_ms)
        except BaseException:  # Ctrl-C in this thread: nothing of this request may run into the next one
            self._abandon(request)
            raise
        finally:
            self._close(request)
        return _Answer(request, self._indexes, started_s, stem_ms, self._controller.requests_to_learn)

    def close(self) -> None:
        """Wait for late branches, end the threads, free the programs."""
        self._pool.close()
        for part in (self._stem, *self._parts):
            part.close()

    def _claim(self, request: _Request, place: int, thread: int) -> None:
        self._busy[place] = True
        request.running += 1
        task = request.tasks[place]
        task.busy = sum(self._busy)
        task.thread = thread
        task.start_s = time.monotonic()

    def _waiting(self, request: _Request) -> Iterator[int]:
        """Branches in order that have not begun and that no late worker has."""
        for place in range(len(request.tasks)) if request.in_order else self._by_cost:
            if place < len(request.tasks) and not self._busy[place]:
                task = request.tasks[place]
                if not task.ended and task.thread < 0:
                    yield place

    def _take(self, thread: int) -> tuple[_Request, int] | None:
        """The next branch that may run now. Called at every completion: every decision is made anew."""
        with self._lock:
            request = self._current
            if request is None or not request.open or (place := self._admitted(request)) is None:
                return None
            self._claim(request, place, thread)
            return request, place

    def _has_more(self, request: _Request) -> bool:
        """Whether a worker that is woken now would find something to do."""
        with self._lock:
            return request.open and self._admitted(request) is not None

    def _admitted(self, request: _Request) -> int | None:
        for place in self._waiting(request):
            if self._admits(request, place):
                return place
        if request.running == 0:
            if any(self._busy[place] for place, task in enumerate(request.tasks) if not task.ended):
                return None  # one waits for the worker that is late in it
            for task in request.tasks:  # nothing will end any more that could change it
                if not task.ended:
                    task.ended, task.state = True, BranchState.WOULD_NOT_FIT
                    self._end_one(request)
        return None

    def _admits(self, request: _Request, place: int) -> bool:
        if not request.hurried:
            return True
        if request.used == request.running == 0:  # the first branch failed: there is no answer yet
            return True
        left_ms = (self._return_time_s(request) - time.monotonic()) * 1e3
        if request.options.admit_all:
            return left_ms > 0
        task = request.tasks[place]
        task.predicted_ms = self._controller.predicted_ms(place + 1, sum(self._busy) + 1)
        task.left_ms = left_ms
        return task.predicted_ms <= left_ms  # not so when nothing is known

    def _return_time_s(self, request: _Request) -> float:
        return request.leave_s - self._controller.margin_ms(_RETURN_MARGIN_MS) / 1e3

    def _drain(self, thread: int) -> None:
        while (taken := self._take(thread)) is not None:
            self._run_part(*taken)

    def _run_part(self, request: _Request, place: int) -> None:
        output: NDArray[np.float32] | None = None
        state, problem = BranchState.FAILED, "interrupted"
        try:
            output = self._parts[place].run(request.tokens)[0]
            state, problem = BranchState.USED, ""
            if not np.isfinite(output).all():
                state, output = BranchState.NOT_FINITE, None
        except EngineError as error:
            problem = str(error)
        except Exception as error:
            # A defect of ours, not the engine's; still no reason to lose the other branches.
            problem = f"{type(error).__name__}: {error}"
        finally:
            end_s = time.monotonic()
            with self._lock:
                self._busy[place] = False
                request.running -= 1
                self._end_part(request, place, end_s, state, output, problem)
                if not request.running:
                    self._news.notify()

    def _end_part(
        self,
        request: _Request,
        place: int,
        end_s: float,
        state: BranchState,
        output: NDArray[np.float32] | None,
        problem: str,
    ) -> None:
        if not request.open:  # late: the answer was given without it
            return
        task = request.tasks[place]
        if state != BranchState.FAILED:
            self._controller.observe(place + 1, task.busy, (end_s - task.start_s) * 1e3)
        task.ended, task.end_s, task.state, task.output, task.problem = True, end_s, state, output, problem
        request.last_end_s = end_s
        request.used += state == BranchState.USED
        if request.options.early_stop and self._enough(request):
            request.open = False
        self._end_one(request)

    def _enough(self, request: _Request) -> bool:
        """Add what has ended to the prefix, and say whether its confidence is enough."""
        tasks = request.tasks
        while request.judged < len(tasks) and (output := tasks[request.judged].output) is not None:
            request.prefix_sum = output if request.prefix_sum is None else request.prefix_sum + output
            rule = self._stop_rules[request.judged]
            request.judged += 1
            if request.judged == len(tasks) or rule.threshold is None:
                continue
            if _confidence(request.prefix_sum, rule.temperature) < rule.threshold:
                continue
            # The rule was calibrated for exactly this prefix, so that is the answer.
            for task in tasks[request.judged :]:
                task.state, task.output = BranchState.NOT_NEEDED, None
            request.unfinished = 1  # the branch whose end this is
            return True
        return False

    def _end_one(self, request: _Request) -> None:
        request.unfinished -= 1
        if request.unfinished == 0 or self._wants_every_end:
            self._news.notify()

    def _wait(self, request: _Request, started_s: float, stem_ms: float) -> None:
        """Until every branch has ended, or it is enough; when it is time to return, until there is an answer at all."""
        options = request.options
        until_s = math.inf
        told = 0  # branches in the answer that was handed out last
        with self._lock:
            waits = request.unfinished > 0
            if request.hurried:
                until_s = self._return_time_s(request)
            while request.unfinished:
                if options.on_answer is not None and request.used > told:
                    told = request.used
                    to_learn = self._controller.requests_to_learn
                    so_far = _Answer(request, self._indexes, started_s, stem_ms, to_learn)
                    self._lock.release()
                    try:
                        go_on = options.on_answer(so_far)
                    finally:
                        self._lock.acquire()
                    if not go_on:
                        for task in request.tasks:
                            if not task.ended:
                                task.state = BranchState.NOT_NEEDED
                        return
                    continue
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    request.cut_short = request.used > 0
                    self._wants_every_end = True
                    while request.unfinished and not request.used:
                        self._news.wait()
                    break
                self._news.wait(None if left_s == math.inf else left_s)
            if not request.hurried or options.on_answer is not None or options.branches == 1:
                return
            if not waits:
                self._controller.did_not_wait()
            elif request.unfinished == 0 or request.cut_short:
                due_s = until_s if request.unfinished else min(request.last_end_s, until_s)
                self._controller.returned((time.monotonic() - due_s) * 1e3)

    def _close(self, request: _Request) -> None:
        now_s = time.monotonic()
        with self._lock:
            for place, task in enumerate(request.tasks):
                if task.ended:
                    continue
                if task.thread >= 0:
                    self._controller.outlasted(place + 1, task.busy, (now_s - task.start_s) * 1e3)
                elif task.state == BranchState.LATE and not math.isnan(task.left_ms):
                    task.state = BranchState.WOULD_NOT_FIT  # it was decided on, and nothing ended since
            request.open = False
            self._current = None

    def _abandon(self, request: _Request) -> None:
        """Close the request and wait for whoever is inside a branch; Ctrl-C cannot cut that short."""
        while True:
            try:
                with self._lock:
                    request.open = False
                    while request.running:
                        self._news.wait()
                return
            except BaseException:  # one exception is on its way already
                continue


def _confidence(logits: NDArray[np.float32], temperature: float) -> float:
    """The softmax of ``logits / temperature`` at its largest; logits are (C,)."""
    exponentials = np.exp((logits - logits.max()).astype(np.float64) / temperature)
    return float(1.0 / exponentials.sum())

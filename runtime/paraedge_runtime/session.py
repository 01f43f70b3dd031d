"""A session: a bundle's parts loaded into an engine, and threads that run its branches in parallel."""

from __future__ import annotations

import asyncio
import math
import operator
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from queue import SimpleQueue
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.bundle import Bundle
from paraedge_runtime.device import Device, check_machine, find_measurement, foreign_measurement, read_device
from paraedge_runtime.engines import Engine, Runner, engine_info, open_engine
from paraedge_runtime.engines.base import RunnerOptions, RunOptions
from paraedge_runtime.errors import EngineError, EngineUnavailable, InputError
from paraedge_runtime.hardware import read_hardware
from paraedge_runtime.manifest import BranchEntry, StopRule
from paraedge_runtime.placement import available_cores
from paraedge_runtime.prediction import Answer, Prediction
from paraedge_runtime.return_margin import ReturnMargin

__all__ = ["POLICIES", "Session", "choose_branches"]

Image = NDArray[np.uint8] | NDArray[np.float32]

# Which branches are started under a budget.
POLICIES = {
    "anytime": "those that will probably end in time, decided anew whenever one ends",
    "all": "every one, however late it may be",
}


class Session:
    """Runs one bundle. A ``Bundle`` may be shared by many sessions.

    Use one session per calling thread. Calls from several threads are safe and happen one after
    another; they gain nothing from each other. ``close`` waits for a call in progress.

        with Session.open("model.paraedge", threads=4) as session:
            prediction = session.run(picture)                  # all branches
            prediction = session.run(picture, budget_ms=12)    # the best answer there is after 12 ms
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        runner: Runner,
        branches: tuple[int, ...],
        threads: int,
        stop_rules: tuple[StopRule, ...],
    ) -> None:
        self.bundle = bundle
        self.engine = engine
        self.threads = threads
        self._labels = bundle.manifest.labels
        self._description = engine.description
        self._stop_rules = stop_rules
        self._margin = ReturnMargin()
        self._everything = RunOptions(len(branches))  # made once: what Python does is cold after a request
        self._runner: Runner | None = runner
        self._branches = branches
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        bundle: Bundle | str | os.PathLike[str],
        *,
        engine: str | None = None,
        threads: int | None = None,
        branches: int | Sequence[int] | None = None,
        device: Device | str | os.PathLike[str] | None = None,
        allow_foreign_profile: bool = False,
    ) -> Session:
        """Load a bundle into its engine.

        Args:
            bundle: an open bundle, or the path of one.
            engine: the bundle's own when ``None``; another one must be able to run its files.
            threads: threads that run branches, the caller's included; one per branch up to the
                number of cores when ``None``.
            branches: load the first so many, or those with these indexes; all when ``None``.
            device: what ``paraedge profile`` measured here, or the path of it: budgets are kept from the
                first request on. ``None``: the speed of this device is learned in twenty requests.
            allow_foreign_profile: take the profile of another device, or its nearest measurement of
                another bundle, to begin with.

        Raises:
            BundleError: the bundle cannot be trusted.
            ProfileError: ``device`` cannot be read, or is not of this device and bundle.
            EngineUnavailable: the engine is not installed, or older than the bundle needs.
            EngineError: the engine refuses a part.
            InputError: ``engine``, ``threads`` or ``branches`` cannot be.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        manifest = opened.manifest
        name = engine or manifest.engine
        suffix = engine_info(name).suffix
        if not all(part.file.endswith(suffix) for part in manifest.parts().values()):
            raise InputError(
                f"engine {name!r} runs {suffix} files, {opened.path} was made for {manifest.engine!r}; "
                f"export it again with --engine {name}"
            )
        chosen = choose_branches(branches, manifest.branch_indexes)
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise InputError(f"threads is {threads!r}; a whole number of at least 1 is needed")
        loaded_engine = open_engine(name)
        _check_version(loaded_engine, manifest.engine_min_version)
        if not loaded_engine.parallel:
            threads = 1  # more would only wait for each other
        elif threads is None:
            threads = min(len(chosen), available_cores())

        part_ms, contention = _known_latency(device, opened, name, threads, chosen, allow_foreign_profile)
        programs = (  # read when the engine asks for the next one, so that few are in memory at a time
            (part_name, opened.read(entry), entry)
            for part_name, entry in manifest.parts().items()
            if not isinstance(entry, BranchEntry) or entry.index in chosen
        )
        calibrated = manifest.stop_rules if chosen == manifest.branch_indexes else None  # for all of them together
        stop_rules = calibrated or ()
        options = RunnerOptions(threads, manifest.input, part_ms, contention, stop_rules)
        runner = loaded_engine.open_runner(programs, options)
        return cls(opened, loaded_engine, runner, chosen, threads, stop_rules)

    @property
    def branches(self) -> tuple[int, ...]:
        """Indexes of the branches that are loaded."""
        return self._branches

    def run(
        self,
        image: Image,
        *,
        branches: int | None = None,
        budget_ms: float | None = None,
        deadline_s: float | None = None,
        waiting_s: Sequence[float] = (),
        policy: str = "anytime",
        early_stop: bool = False,
    ) -> Prediction:
        """Run the stem, then branches in parallel, and add up their logits.

        Under a budget the first branch always runs, others as they will probably end in time, and the
        answer is returned at the deadline with what has ended by then; ``deadline_met`` is false when
        that was nothing. A branch that fails, or answers with something that is not finite, is
        dropped; ``Prediction.explain`` tells why of each. The sum is made in branch order, so the
        number of threads never changes a bit of it.

        Args:
            image: a uint8 picture (H, W, C), or (H, W) for one channel; or float32 (1, C, H, W),
                normalised already.
            branches: run only the first so many of the loaded ones.
            budget_ms: answer within so many milliseconds from now.
            deadline_s: the same as a point in time, of ``time.monotonic()``.
            waiting_s: deadlines of the requests that wait for this one, the next one's first. No branch but
                the first is waited for so long that one of them would probably have no answer in time.
            policy: a key of ``POLICIES``.
            early_stop: answer with the first prefix whose confidence reaches the threshold that was
                calibrated at export.

        Raises:
            InputError: ``image`` does not fit the bundle, or an option the session.
            EngineError: the stem failed, every branch failed, or the session is closed.
        """
        if (
            branches is budget_ms is deadline_s is None
            and policy == "anytime"
            and not early_stop
            and len(waiting_s) == 0
        ):
            return self._run(image, self._everything)
        options = self._options(branches, budget_ms, deadline_s, policy, early_stop)
        return self._run(image, options, _points_in_time(waiting_s))

    async def arun(
        self,
        image: Image,
        *,
        branches: int | None = None,
        budget_ms: float | None = None,
        deadline_s: float | None = None,
        waiting_s: Sequence[float] = (),
        policy: str = "anytime",
        early_stop: bool = False,
    ) -> Prediction:
        """``run`` for asyncio: the loop goes on meanwhile. The budget counts from the call."""
        options = self._options(branches, budget_ms, deadline_s, policy, early_stop)
        return await asyncio.to_thread(self._run, image, options, _points_in_time(waiting_s))

    def stream(
        self,
        image: Image,
        *,
        branches: int | None = None,
        budget_ms: float | None = None,
        deadline_s: float | None = None,
        policy: str = "anytime",
        early_stop: bool = False,
    ) -> Iterator[Prediction]:
        """Every answer on the way: after the first branch, then whenever more have ended.

        The last one is what ``run`` would have returned. Whoever stops reading stops the request:
        no further branch is started. The request runs in a thread of its own, from the first
        ``next``; the budget counts from the call.
        """
        options = self._options(branches, budget_ms, deadline_s, policy, early_stop)
        return self._stream(image, options)

    def _stream(self, image: Image, options: RunOptions) -> Iterator[Prediction]:
        answers: SimpleQueue[Prediction | BaseException] = SimpleQueue()
        wanted = True

        def tell(answer: Answer) -> bool:
            in_time = time.monotonic() <= options.deadline_s
            answers.put(Prediction(answer, self._labels, self._description, in_time))
            return wanted

        def work() -> None:
            try:
                answers.put(self._run(image, options._replace(on_answer=tell)))
            except BaseException as error:  # raised where the answers are read
                answers.put(error)
            done.set()

        done = threading.Event()
        threading.Thread(target=work, name="paraedge-stream", daemon=True).start()
        try:
            while not (done.is_set() and answers.empty()):
                answer = answers.get()
                if isinstance(answer, BaseException):
                    raise answer
                yield answer
        finally:
            wanted = False
            done.wait()

    def _options(
        self,
        branches: int | None,
        budget_ms: float | None,
        deadline_s: float | None,
        policy: str,
        early_stop: bool,
    ) -> RunOptions:
        if budget_ms is not None:
            if deadline_s is not None:
                raise InputError(f"budget_ms {budget_ms!r} and deadline_s {deadline_s!r} are both given; pass one")
            if not _is_number(budget_ms) or not 0 < budget_ms < math.inf:
                raise InputError(f"budget_ms is {budget_ms!r}; a number of milliseconds above 0 is needed")
            deadline_s = time.monotonic() + budget_ms / 1e3
        elif deadline_s is None:
            deadline_s = math.inf
        elif not _is_number(deadline_s) or math.isnan(deadline_s):
            raise InputError(f"deadline_s is {deadline_s!r}; a point in time of time.monotonic() is needed")
        if policy not in POLICIES:
            raise InputError(f"unknown policy {policy!r}; choose one of {', '.join(POLICIES)}")
        if early_stop and not self._stop_rules:
            raise InputError(
                "early_stop needs thresholds calibrated at export for just these branches, and there are none; "
                "'paraedge inspect' shows them"
            )
        count = len(self._branches) if branches is None else len(choose_branches(branches, self._branches))
        return RunOptions(count, deadline_s, admit_all=policy == "all", early_stop=early_stop)

    def _run(self, image: Image, options: RunOptions, waiting_s: Sequence[float] = ()) -> Prediction:
        deadline_s = options.deadline_s
        with self._lock:
            runner = self._runner
            if runner is None:
                raise EngineError(f"the session on {self.bundle.path} is closed; open a new one")
            if deadline_s == math.inf and not waiting_s:
                return Prediction(runner.run(image, options), self._labels, self._description, True)
            margin_s = self._margin.seconds
            leave_s = _leave_s(waiting_s, runner.mandatory_ms) if waiting_s else math.inf
            options = options._replace(deadline_s=deadline_s - margin_s, leave_s=leave_s - margin_s)
            answer = runner.run(image, options)
            now_s = time.monotonic()
            if answer.cut_short and options.deadline_s <= options.leave_s:
                self._margin.returned(deadline_s, now_s)
        return Prediction(answer, self._labels, self._description, now_s <= deadline_s)

    def close(self) -> None:
        """Wait for a call in progress, end the threads, free the programs. Calling it again does nothing."""
        with self._lock:
            if self._runner is not None:
                self._runner.close()
            self._runner = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def choose_branches(branches: int | Sequence[int] | None, available: tuple[int, ...]) -> tuple[int, ...]:
    """The first so many of ``available``, or those with the given indexes; all for ``None``.

    Raises:
        InputError: a count or an index that is not there, or indexes unordered or repeated.
    """
    if branches is None:
        return available
    if isinstance(branches, bool):
        raise InputError(f"branches is {branches}; pass a count or a sequence of indexes")
    try:
        if isinstance(branches, Iterable):
            chosen = tuple(operator.index(index) for index in branches)
        else:
            count = operator.index(branches)
            if not 1 <= count <= len(available):
                raise InputError(f"{count} branches were asked for; there are {len(available)}: {list(available)}")
            return available[:count]
    except TypeError:
        raise InputError(f"branches is {branches!r}; pass a count or a sequence of indexes") from None
    unknown = [index for index in chosen if index not in available]
    if unknown:
        raise InputError(f"there is no branch {unknown[0]}; choose from {list(available)}")
    if not chosen or list(chosen) != sorted(set(chosen)):
        raise InputError(f"branches {list(chosen)} cannot be; name at least one, each once, in ascending order")
    return chosen


def _known_latency(
    device: Device | str | os.PathLike[str] | None,
    bundle: Bundle,
    engine: str,
    threads: int,
    branches: tuple[int, ...],
    allow_foreign: bool,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Medians of the stem and the chosen branches, and contention, as measured on ``device``."""
    if device is None:
        return (), ()
    known = device if isinstance(device, Device) else read_device(device)
    parts = ["stem", *(f"branch_{index:02d}" for index in branches)]
    if allow_foreign:
        measurement = foreign_measurement(known, bundle.sha256, engine, threads, parts)
    else:
        check_machine(known, read_hardware().fingerprint)
        measurement = find_measurement(known, bundle.sha256, engine, threads)
    return tuple(measurement.parts[part].p50_ms for part in parts), measurement.contention


def _points_in_time(waiting_s: Sequence[float]) -> tuple[float, ...]:
    for other_s in waiting_s:
        if not _is_number(other_s) or math.isnan(other_s):
            raise InputError(f"waiting_s has {other_s!r}; points in time of time.monotonic() are needed")
    return tuple(waiting_s)


def _leave_s(waiting_s: Sequence[float], mandatory_ms: float) -> float:
    """When to leave, so that those that wait can have their first answers in time, one after another."""
    if math.isnan(mandatory_ms):
        return math.inf
    now_s = time.monotonic()
    not_lost = [other_s for other_s in waiting_s if other_s > now_s]
    return min(
        (other_s - place * mandatory_ms / 1e3 for place, other_s in enumerate(not_lost, start=1)), default=math.inf
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _check_version(engine: Engine, minimum: dict[str, str]) -> None:
    if engine.distribution not in minimum:
        raise EngineUnavailable(
            f"this bundle needs {' or '.join(minimum)}, and {engine.distribution} {engine.version} is installed"
        )
    needed = minimum[engine.distribution]

    def numbers(version: str) -> list[int]:
        found = [int(number) for number in re.findall(r"\d+", version)[:4]]
        return found + [0] * (4 - len(found))

    if numbers(engine.version) < numbers(needed):
        raise EngineUnavailable(
            f"this bundle needs {engine.distribution} {needed} or newer, {engine.version} is installed; "
            f"pip install '{engine.distribution}>={needed}'"
        )

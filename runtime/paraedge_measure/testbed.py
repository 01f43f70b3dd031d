"""Where requests run that ``paraedge profile`` measures: sessions of this process, or whatever replies the same."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from paraedge_measure.command import MODULE, read_reply
from paraedge_measure.device import TimerJitter, WakeUp
from paraedge_measure.hardware import ROOT
from paraedge_runtime import Bundle, PartRun, Prediction, Session
from paraedge_runtime.cores import available_cores, core_numbers
from paraedge_runtime.engines import open_engine
from paraedge_runtime.errors import DeviceError

__all__ = ["ColdStart", "LocalTestBed", "RequestTimes", "TestBed", "measure_cold_start", "rounded"]

_COLD_START_LIMIT_S = 600


class RequestTimes(NamedTuple):
    """How long one request took, and when each of its parts ran."""

    elapsed_ms: float
    timeline: tuple[PartRun, ...]


class ColdStart(msgspec.Struct, frozen=True, kw_only=True):
    """One process that opens a bundle and runs one request.

    Attributes:
        load_ms: ``Session.open`` of an open bundle: parts read and checked, loaded, threads started. The
            engine's package is imported before.
        request_ms: the first request with all branches.
        parts_ms: each part within it.
        memory_bytes: the most memory the process had resident, all of it included.
    """

    load_ms: float
    request_ms: float
    parts_ms: dict[str, float]
    memory_bytes: int | None


class TestBed(Protocol):
    """A device with a bundle and an engine, that runs requests and tells when their parts ran."""

    engine: str
    engine_version: str
    parallel: bool
    cores: int
    """That its threads may use."""
    core_numbers: frozenset[int]

    def open(self, threads: Sequence[int]) -> None:
        """Open a session for each number of threads; once, before ``run``."""

    def run(self, threads: int, branches: int, count: int) -> list[RequestTimes]:
        """``count`` requests in a row of the first ``branches`` in the session of ``threads``."""

    def cold_start(self, threads: int) -> ColdStart:
        """A process of its own that opens the bundle and runs one request."""

    def timer_jitter(self) -> TimerJitter: ...  # noqa: D102
    def wakeup(self) -> WakeUp: ...  # noqa: D102
    def cpu_s(self) -> float:
        """Processor time of the process that runs the requests."""

    def system(self) -> Path:
        """A folder with /proc and /sys as they are now."""

    def close(self) -> None: ...  # noqa: D102


class LocalTestBed:
    """Sessions of this process, on the bundle's golden images."""

    parallel: bool

    def __init__(self, bundle: Bundle, engine: str) -> None:
        opened = open_engine(engine)
        self.engine, self.engine_version, self.parallel = engine, opened.version, opened.parallel
        self.core_numbers = core_numbers()
        self.cores = available_cores()
        self._bundle = bundle
        self._images = itertools.cycle(bundle.golden().inputs)
        self._sessions: dict[int, Session] = {}
        self._stack = ExitStack()

    def open(self, threads: Sequence[int]) -> None:  # noqa: D102
        for count in threads:
            self._sessions[count] = self._stack.enter_context(
                Session.open(self._bundle, engine=self.engine, threads=count)
            )

    def run(self, threads: int, branches: int, count: int) -> list[RequestTimes]:  # noqa: D102
        session = self._sessions[threads]
        predictions = [_complete(session.run(next(self._images), branches=branches)) for _ in range(count)]
        return [RequestTimes(prediction.elapsed_ms, prediction.timeline) for prediction in predictions]

    def cold_start(self, threads: int) -> ColdStart:  # noqa: D102
        command = [sys.executable, *MODULE, "cold", str(self._bundle.path.absolute())]
        command += ["--engine", self.engine, "--threads", str(threads)]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=_COLD_START_LIMIT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DeviceError(
                f"the process that measures a cold start failed: {error}; try 'paraedge run' here"
            ) from error
        return read_reply(done.stdout, done.stderr, done.returncode, ColdStart)

    def timer_jitter(self, duration_s: float = 0.3) -> TimerJitter:  # noqa: D102
        readings = array("q")
        clock = time.perf_counter_ns
        end = clock() + int(duration_s * 1e9)
        while (now := clock()) < end:
            readings.append(now)
        gaps_us = np.diff(np.asarray(readings)) / 1e3
        return TimerJitter(**_quantiles(gaps_us, p50=0.5, p99=0.99, p999=0.999))

    def wakeup(self, count: int = 300, sleep_s: float = 1e-3) -> WakeUp:  # noqa: D102
        late_us = array("d")
        for _ in range(count):
            begin = time.perf_counter()
            time.sleep(sleep_s)
            late_us.append(max(0.0, (time.perf_counter() - begin - sleep_s) * 1e6))
        return WakeUp(**_quantiles(np.asarray(late_us), p50=0.5, p99=0.99))

    def cpu_s(self) -> float:  # noqa: D102
        return time.process_time()

    def system(self) -> Path:  # noqa: D102
        return ROOT

    def close(self) -> None:  # noqa: D102
        self._stack.close()


def measure_cold_start(bundle: Bundle, engine: str, threads: int) -> ColdStart:
    """Open a session and run one request. Means something in a fresh process only."""
    image = bundle.golden().inputs[0]
    open_engine(engine)
    started = time.perf_counter()
    with Session.open(bundle, engine=engine, threads=threads) as session:
        load_ms = (time.perf_counter() - started) * 1e3
        prediction = _complete(session.run(image))
        return ColdStart(
            load_ms=rounded(load_ms),
            request_ms=prediction.elapsed_ms,
            parts_ms={run.part: run.end_ms - run.start_ms for run in prediction.timeline},
            memory_bytes=_peak_memory_bytes(),
        )


def rounded(value: float) -> float:
    """Six digits: a clock tells no more, and a file of them can be read. Never rounds what was measured to 0."""
    return float(f"{value:.6g}")


def _complete(prediction: Prediction) -> Prediction:
    if prediction.branches_dropped:
        drop = prediction.branches_dropped[0]
        raise DeviceError(f"branch {drop.index} was dropped while it was measured: {drop.reason}")
    return prediction


def _peak_memory_bytes() -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def _quantiles(values: NDArray[np.float64], **which: float) -> dict[str, Any]:
    return {name: rounded(float(np.quantile(values, share))) for name, share in which.items()}

"""Measures bundles on this machine: latencies of parts and requests, contention, cold start, what disturbed it.

``python -m paraedge_runtime.profiling`` is the side of ``paraedge profile`` that runs on the device.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from paraedge_runtime import errors
from paraedge_runtime.bundle import Bundle
from paraedge_runtime.chatter import captured_chatter
from paraedge_runtime.device import MAX_OTHER_LOAD, P99_MIN_RUNS, Measurement, PartLatency, TimerJitter, WakeUp
from paraedge_runtime.engines import open_engine
from paraedge_runtime.errors import BundleError, DeviceError, InputError, ParaEdgeError
from paraedge_runtime.hardware import (
    read_busy_s,
    read_frequency_mhz,
    read_hardware,
    read_temperature_c,
    read_throttling,
)
from paraedge_runtime.placement import available_cores
from paraedge_runtime.prediction import PartRun, Prediction
from paraedge_runtime.session import Session

__all__ = [
    "RIGOROUS",
    "USUAL",
    "ColdStart",
    "Progress",
    "StopRule",
    "busy_workers",
    "main",
    "measure_cold_start",
    "profile_bundle",
    "read_answer",
]

_T = TypeVar("_T")

Progress = Callable[[float, float, str], None]
"""Called with seconds done, seconds in all (an estimate), and what is being done."""

# Requests in a row of one session, and those before them that do not count: the other sessions have
# had the caches and the cores in between.
_BLOCK, _BLOCK_WARM_UP = 10, 3
_WARM_UP_S = 0.2
# A branch's run stands for c busy workers when the number of branches that ran meanwhile, averaged
# over its duration and itself included, is that near to c.
_BUSY_TOLERANCE = 0.2
# A processor that ends at less than this share of the frequency it started with was slowed down.
_FREQUENCY_KEPT = 0.9
_COLD_START_ESTIMATE_S = 1.5
_COLD_START_LIMIT_S = 600
_PROGRESS_EVERY_S = 0.2


@dataclass(frozen=True)
class StopRule:
    """A series ends when every part has ``min_runs`` runs, and took ``min_seconds`` for each part it runs."""

    min_runs: int
    min_seconds: float


USUAL = StopRule(min_runs=50, min_seconds=1.0)
RIGOROUS = StopRule(min_runs=1024, min_seconds=60.0)


def profile_bundle(
    bundle: Bundle | str | os.PathLike[str],
    *,
    engine: str | None = None,
    threads: Sequence[int] | None = None,
    rule: StopRule = USUAL,
    on_progress: Progress = lambda done_s, total_s, what: None,
) -> tuple[Measurement, ...]:
    """Measure a bundle through ``Session.run`` on its golden images, one result per thread count.

    Sessions of all thread counts are open at once and take turns in blocks of ten requests, so that
    what disturbs one disturbs all. In each result

    - ``parts`` of branches is their time in a session of one thread, which runs one after another;
      of the stem, its time in a session of ``threads``, since an engine may split it;
    - ``request`` is ``Prediction.elapsed_ms`` with all branches on ``threads``;
    - ``contention[c - 1]`` is the median, over runs of branches while c workers were busy, of the
      run's time divided by that branch's ``p50_ms`` alone. Where c never happened, the one before
      is repeated;
    - ``first_ms``, ``load_ms`` and ``memory_bytes`` come from a process of its own, see
      :func:`measure_cold_start`.

    Args:
        bundle: an open bundle, or the path of one.
        engine: the bundle's own when ``None``.
        threads: 1 and as many as there are cores (at most one per branch) when ``None``.
        rule: when to stop.
        on_progress: called after every block.

    Raises:
        InputError: ``threads`` cannot be, or the engine does not run this bundle.
        BundleError, EngineError: as ``Session.open`` and ``Session.run``.
        DeviceError: a branch was dropped, or the process of its own failed.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    name = engine or opened.manifest.engine
    parallel = open_engine(name).parallel
    counts = _thread_counts(threads, len(opened.manifest.branches), parallel)
    images = list(opened.golden().images)

    with ExitStack() as stack:
        # One thread is always measured: it tells what a branch takes alone.
        sessions = {
            count: stack.enter_context(Session.open(opened, engine=name, threads=count))
            for count in sorted({1, *counts})
        }
        series = [_Series(sessions[1], images, len(opened.manifest.branches), rule)]
        for count, session in sessions.items():
            if count > 1:
                branches = len(opened.manifest.branches)
                series += [_Series(session, images, busy, rule) for busy in range(2, min(count, branches - 1) + 1)]
                series += [_Series(session, images, branches, rule)]

        cold_s = _COLD_START_ESTIMATE_S * len(counts)
        total_s = cold_s + sum(one.target_s for one in series)
        cold = {}
        for place, count in enumerate(counts):
            on_progress(place * _COLD_START_ESTIMATE_S, total_s, f"{name}, cold start")
            cold[count] = _measure_cold_start_apart(opened, name, count)
        jitter, wakeup = _timer_jitter(), _wakeup()

        watch = _Watch()
        for one in series:
            one.warm_up()
        watch.start()
        while unfinished := [one for one in series if one.progress < 1]:
            min(unfinished, key=lambda one: one.progress).run_block()
            done_s = cold_s + sum(one.target_s * min(one.progress, 1.0) for one in series)
            on_progress(done_s, total_s, f"{name}, {' and '.join(map(str, sessions))} thread(s)")
        disturbance = watch.stop()

    alone = series[0]
    results = []
    for count in counts:
        whole = next(one for one in series if one.threads == count and one.branches == len(opened.manifest.branches))
        first = cold[count]
        parts = {
            part: _latency((whole if part == "stem" else alone).parts[part], first.parts_ms[part])
            for part in opened.manifest.parts()
        }
        results.append(
            Measurement(
                bundle_name=opened.manifest.name,
                bundle_sha256=opened.sha256,
                engine=name,
                engine_version=whole.session.engine.version,
                threads=count,
                measured_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                parts=parts,
                request=_latency(whole.request_ms, first.request_ms),
                contention=_contention([one for one in series if one.threads == count], parts, count),
                load_ms=first.load_ms,
                memory_bytes=first.memory_bytes,
                timer_jitter_us=jitter,
                wakeup_us=wakeup,
                temperature_start_c=disturbance.temperature_start_c,
                temperature_end_c=disturbance.temperature_end_c,
                frequency_start_mhz=disturbance.frequency_start_mhz,
                frequency_end_mhz=disturbance.frequency_end_mhz,
                throttled=disturbance.throttled,
                other_load=disturbance.other_load,
                valid=not disturbance.throttled and (disturbance.other_load or 0.0) <= MAX_OTHER_LOAD,
            )
        )
    return tuple(results)


def _thread_counts(threads: Sequence[int] | None, branches: int, parallel: bool) -> tuple[int, ...]:
    most = branches if parallel else 1
    if threads is None:
        return tuple(sorted({1, min(available_cores(), most)}))
    if not threads:
        raise InputError("threads is empty; name at least one number of threads")
    for count in threads:
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InputError(f"threads is {count!r}; a whole number of at least 1 is needed")
        if count > most:
            reason = f"the bundle has {branches} branch(es)" if parallel else "this engine runs one at a time"
            raise InputError(f"threads is {count}, and {reason}; at most {most} can be busy, ask for no more")
    return tuple(sorted(set(threads)))


class _Series:
    """Requests of the first so many branches in one session, as far as they have been measured."""

    def __init__(self, session: Session, images: Sequence[NDArray[np.uint8]], branches: int, rule: StopRule) -> None:
        self.session = session
        self.threads = session.threads
        self.branches = branches
        whole = branches == len(session.branches)
        # Parts are measured by whole requests; fewer branches are run for the contention only.
        self.target_s = rule.min_seconds * (1 + branches if whole else 1)
        self.request_ms = array("d")
        self.parts: dict[str, array[float]] = {}
        self.busy_ms: dict[tuple[int, str], array[float]] = {}  # busy workers and branch -> its times
        self._images = itertools.cycle(images)
        self._min_runs = rule.min_runs
        self._spent_s = 0.0

    @property
    def progress(self) -> float:
        """1 when both parts of the stop rule are met."""
        return min(len(self.request_ms) / self._min_runs, self._spent_s / self.target_s)

    def warm_up(self) -> None:
        """Run without counting until caches, clocks and the engine's own threads are as they stay."""
        end = time.perf_counter() + _WARM_UP_S
        self._run()
        while time.perf_counter() < end:
            self._run()

    def run_block(self) -> None:
        """Run one block of requests, and count all but the first few."""
        for _ in range(_BLOCK_WARM_UP):
            self._run()
        started = time.perf_counter()
        predictions = [self._run() for _ in range(_BLOCK)]
        self._spent_s += time.perf_counter() - started
        for prediction in predictions:
            self.request_ms.append(prediction.elapsed_ms)
            for run in prediction.timeline:
                self.parts.setdefault(run.part, array("d")).append(run.end_ms - run.start_ms)
            for run, busy in busy_workers(prediction.timeline):
                if abs(busy - round(busy)) <= _BUSY_TOLERANCE:
                    self.busy_ms.setdefault((round(busy), run.part), array("d")).append(run.end_ms - run.start_ms)

    def _run(self) -> Prediction:
        return _complete(self.session.run(next(self._images), branches=self.branches))


def _complete(prediction: Prediction) -> Prediction:
    if prediction.branches_dropped:
        drop = prediction.branches_dropped[0]
        raise DeviceError(f"branch {drop.index} was dropped while it was measured: {drop.reason}")
    return prediction


def busy_workers(timeline: Iterable[PartRun]) -> list[tuple[PartRun, float]]:
    """Each branch's run with the number of branches that ran meanwhile, averaged over its duration.

    The run itself counts: alone it has 1.0.
    """
    runs = [run for run in timeline if run.part != "stem"]
    result = []
    for run in runs:
        own = run.end_ms - run.start_ms
        shared = sum(
            max(0.0, min(run.end_ms, other.end_ms) - max(run.start_ms, other.start_ms))
            for other in runs
            if other is not run
        )
        result.append((run, 1.0 + (shared / own if own > 0 else 0.0)))
    return result


def _contention(series: Iterable[_Series], parts: dict[str, PartLatency], threads: int) -> tuple[float, ...]:
    found: dict[int, list[NDArray[np.float64]]] = {}
    for one in series:
        for (busy, part), times_ms in one.busy_ms.items():
            found.setdefault(busy, []).append(np.asarray(times_ms) / max(parts[part].p50_ms, 1e-6))
    factors = [1.0]
    for busy in range(2, threads + 1):
        factors.append(float(np.median(np.concatenate(found[busy]))) if busy in found else factors[-1])
    return tuple(_rounded(factor) for factor in factors)


def _latency(times_ms: Sequence[float], first_ms: float) -> PartLatency:
    """Quantiles interpolate linearly between neighbouring runs."""
    values = np.asarray(times_ms)
    p50, p90, p95, p99 = (_rounded(value) for value in np.quantile(values, [0.5, 0.9, 0.95, 0.99]))
    return PartLatency(
        n=len(values),
        min_ms=_rounded(values.min()),
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99 if len(values) >= P99_MIN_RUNS else None,
        first_ms=_rounded(first_ms),
    )


def _rounded(value: float) -> float:
    """Six digits: a clock tells no more, and a file of them can be read. Never rounds what was measured to 0."""
    return float(f"{value:.6g}")


# What disturbs ---------------------------------------------------------------------------------


def _timer_jitter(duration_s: float = 0.3) -> TimerJitter:
    readings = array("q")
    clock = time.perf_counter_ns
    end = clock() + int(duration_s * 1e9)
    while (now := clock()) < end:
        readings.append(now)
    gaps_us = np.diff(np.asarray(readings)) / 1e3
    return TimerJitter(**_quantiles(gaps_us, p50=0.5, p99=0.99, p999=0.999))


def _wakeup(count: int = 300, sleep_s: float = 1e-3) -> WakeUp:
    late_us = array("d")
    for _ in range(count):
        begin = time.perf_counter()
        time.sleep(sleep_s)
        late_us.append(max(0.0, (time.perf_counter() - begin - sleep_s) * 1e6))
    return WakeUp(**_quantiles(np.asarray(late_us), p50=0.5, p99=0.99))


def _quantiles(values: NDArray[np.float64], **which: float) -> dict[str, float]:
    return {name: _rounded(float(np.quantile(values, share))) for name, share in which.items()}


@dataclass(frozen=True)
class _Disturbance:
    temperature_start_c: float | None
    temperature_end_c: float | None
    frequency_start_mhz: float | None
    frequency_end_mhz: float | None
    throttled: bool
    other_load: float | None


@dataclass
class _Watch:
    """What goes on beside a measurement, from ``start`` to ``stop``; both are called right after requests."""

    _cores: frozenset[int] = field(default_factory=lambda: _allowed_cores())

    def start(self) -> None:
        self._temperature_c = read_temperature_c()
        self._frequency_mhz = read_frequency_mhz()
        _, self._throttle_count = read_throttling()
        self._busy_s = read_busy_s(self._cores)
        self._own_s, self._clock_s = time.process_time(), time.perf_counter()

    def stop(self) -> _Disturbance:
        frequency_mhz = read_frequency_mhz()
        own_s, clock_s = time.process_time() - self._own_s, time.perf_counter() - self._clock_s
        busy_s = read_busy_s(self._cores)
        other_load = None
        if busy_s is not None and self._busy_s is not None:
            others_s = busy_s - self._busy_s - own_s
            other_load = _rounded(min(max(others_s / (clock_s * len(self._cores)), 0.0), 1.0))
        cooling, throttle_count = read_throttling()
        slowed = (
            frequency_mhz is not None
            and self._frequency_mhz is not None
            and frequency_mhz < _FREQUENCY_KEPT * self._frequency_mhz
        )
        return _Disturbance(
            temperature_start_c=self._temperature_c,
            temperature_end_c=read_temperature_c(),
            frequency_start_mhz=self._frequency_mhz,
            frequency_end_mhz=frequency_mhz,
            throttled=cooling or slowed or throttle_count > self._throttle_count,
            other_load=other_load,
        )


def _allowed_cores() -> frozenset[int]:
    try:
        return frozenset(os.sched_getaffinity(0))
    except AttributeError:  # not on this operating system
        return frozenset(range(os.cpu_count() or 1))


# Cold start ------------------------------------------------------------------------------------


class ColdStart(msgspec.Struct, frozen=True, kw_only=True):
    """One process that opens a bundle and answers once.

    Attributes:
        load_ms: ``Session.open`` of an open bundle: parts read and checked, loaded, threads started. The
            engine's package is imported before.
        request_ms: the first request with all branches.
        parts_ms: each part within it.
        memory_bytes: the most memory the process had resident, Python and the engine included.
    """

    load_ms: float
    request_ms: float
    parts_ms: dict[str, float]
    memory_bytes: int | None


def measure_cold_start(bundle: Bundle, engine: str, threads: int) -> ColdStart:
    """Open a session and run one request. Means something in a fresh process only."""
    image = bundle.golden().images[0]
    open_engine(engine)
    started = time.perf_counter()
    with Session.open(bundle, engine=engine, threads=threads) as session:
        load_ms = (time.perf_counter() - started) * 1e3
        prediction = _complete(session.run(image))
        return ColdStart(
            load_ms=_rounded(load_ms),
            request_ms=prediction.elapsed_ms,
            parts_ms={run.part: run.end_ms - run.start_ms for run in prediction.timeline},
            memory_bytes=_peak_memory_bytes(),
        )


def _peak_memory_bytes() -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def _measure_cold_start_apart(bundle: Bundle, engine: str, threads: int) -> ColdStart:
    command = [sys.executable, "-m", "paraedge_runtime.profiling", "cold", str(bundle.path.absolute())]
    command += ["--engine", engine, "--threads", str(threads)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_COLD_START_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(f"the process that measures a cold start failed: {error}; try 'paraedge run' here") from error
    return read_answer(done.stdout, done.stderr, done.returncode, ColdStart)


# The command on the device ---------------------------------------------------------------------


class _Answer(msgspec.Struct, frozen=True):
    result: Any = None
    error: str | None = None
    message: str = ""


def read_answer(stdout: str, stderr: str, code: int, kind: type[_T]) -> _T:
    """What :func:`main` printed in another process, or its error raised here.

    Raises:
        ParaEdgeError: of the same type and message as there.
        DeviceError: it printed no answer at all, or one that is no ``kind``.
    """
    try:
        answer = msgspec.json.decode(stdout.strip().splitlines()[-1], type=_Answer)
    except (msgspec.MsgspecError, IndexError, RecursionError):
        last = " | ".join(stderr.strip().splitlines()[-3:])[:400] or "it printed nothing"
        raise DeviceError(f"measuring ended with exit code {code}: {last}; is paraedge there this version?") from None
    if answer.error is not None:
        known = answer.error in errors.__all__
        raise (getattr(errors, answer.error) if known else DeviceError)(answer.message)
    try:
        return msgspec.convert(answer.result, kind)
    except msgspec.ValidationError as error:
        raise DeviceError(f"the device answered what cannot be: {error}; is paraedge there this version?") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one JSON document on stdout, and lines ``progress DONE_S TOTAL_S WHAT`` on stderr."""
    options = _parser().parse_args(arguments)
    with os.fdopen(os.dup(1), "w") as answer, os.fdopen(os.dup(2), "w", buffering=1) as progress:
        shown_s = 0.0

        def show(done_s: float, total_s: float, what: str) -> None:
            nonlocal shown_s
            if time.perf_counter() - shown_s >= _PROGRESS_EVERY_S:
                progress.write(f"progress {done_s:.2f} {total_s:.2f} {what}\n")
                shown_s = time.perf_counter()

        document: dict[str, Any]
        try:
            with captured_chatter():
                document = {"result": msgspec.to_builtins(options.call(options, show))}
        except ParaEdgeError as error:
            document = {"error": type(error).__name__, "message": str(error)}
        answer.write(json.dumps(document) + "\n")
    return 1 if "error" in document else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m paraedge_runtime.profiling", description=main.__doc__)
    commands = parser.add_subparsers(required=True)
    hardware = commands.add_parser("hardware", help="what this machine is")
    hardware.set_defaults(call=lambda options, show: read_hardware())
    check = commands.add_parser("check", help="hash of each bundle that is here and whole, else null")
    check.set_defaults(call=lambda options, show: [_hash_if_whole(path) for path in options.bundles])
    check.add_argument("bundles", nargs="+", type=Path)
    cold = commands.add_parser("cold", help="open a bundle and answer once")
    cold.set_defaults(
        call=lambda options, show: measure_cold_start(Bundle.open(options.bundle), options.engine, options.threads)
    )
    cold.add_argument("bundle", type=Path)
    cold.add_argument("--engine", required=True)
    cold.add_argument("--threads", type=int, required=True)
    measure = commands.add_parser("measure", help="measure one bundle with one engine")
    measure.set_defaults(
        call=lambda options, show: profile_bundle(
            options.bundle,
            engine=options.engine,
            threads=options.threads,
            rule=StopRule(options.min_runs, options.min_seconds),
            on_progress=show,
        )
    )
    measure.add_argument("bundle", type=Path)
    measure.add_argument("--engine")
    measure.add_argument("--threads", type=int, nargs="+")
    measure.add_argument("--min-runs", type=int, default=USUAL.min_runs)
    measure.add_argument("--min-seconds", type=float, default=USUAL.min_seconds)
    return parser


def _hash_if_whole(path: Path) -> str | None:
    try:
        return Bundle.open(path).sha256
    except BundleError:
        return None


if __name__ == "__main__":
    sys.exit(main())

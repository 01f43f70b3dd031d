"""Measures bundles on this machine: latencies of parts and requests, contention, cold start, what disturbed it."""

from __future__ import annotations

import math
import os
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from paraedge_measure.device import (
    MAX_OTHER_LOAD,
    P99_MIN_RUNS,
    FirmwareLimit,
    Measurement,
    PartLatency,
    Sustained,
    SustainedMinute,
)
from paraedge_measure.hardware import (
    firmware_limits,
    read_busy_s,
    read_firmware_word,
    read_frequency_mhz,
    read_temperature_c,
    read_throttling,
)
from paraedge_measure.testbed import LocalTestBed, RequestTimes, TestBed, rounded
from paraedge_runtime import Bundle, PartRun
from paraedge_runtime._arguments import as_callable, as_instance, as_list, as_number, as_whole
from paraedge_runtime.errors import InputError

__all__ = [
    "RIGOROUS",
    "USUAL",
    "Progress",
    "SeriesLength",
    "busy_workers",
    "profile_bundle",
    "profile_on",
    "sustain",
]

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
_MINUTE_S = 60.0
_MAX_SUSTAINED_S = 86_400.0


@dataclass(frozen=True)
class SeriesLength:
    """How long to measure: every part runs at least ``min_runs`` times, and ``min_s`` seconds in total.

    With ``sustained_s``, whole requests then run for that long on the largest thread count, without a pause.
    """

    min_runs: int
    min_s: float
    sustained_s: float = 0.0

    def __post_init__(self) -> None:
        as_whole("min_runs", self.min_runs, least=0), as_number("min_s", self.min_s)
        if not 0 <= as_number("sustained_s", self.sustained_s) <= _MAX_SUSTAINED_S:
            raise InputError(f"sustained_s must be at most {_MAX_SUSTAINED_S:.0f} (a day), got {self.sustained_s}")
        if self.min_runs < 1 or not 0 < self.min_s < math.inf:
            raise InputError(f"give at least 1 run and a time above 0, got {self.min_runs} runs and {self.min_s} s")


USUAL = SeriesLength(min_runs=50, min_s=1.0)
RIGOROUS = SeriesLength(min_runs=1024, min_s=60.0)


def profile_bundle(
    bundle: Bundle | str | os.PathLike[str],
    *,
    engine: str | None = None,
    threads: Sequence[int] | None = None,
    length: SeriesLength = USUAL,
    on_progress: Progress = lambda done_s, total_s, what: None,
) -> tuple[Measurement, ...]:
    """Measure a bundle through ``Session.run`` on its golden images, one result per thread count.

    Sessions of all thread counts are open at once and take turns in blocks of ten requests, so that a disturbance
    affects all of them. In each result:

    - ``parts`` of branches is their time in a session of one thread, which runs one after another;
      of the stem, its time in a session of ``threads``, since an engine may split it;
    - ``request`` is ``Prediction.elapsed_ms`` with all branches on ``threads``;
    - ``contention[c - 1]`` is the median, over runs of branches while c workers were busy, of the
      run's time divided by that branch's ``p50_ms`` alone. Where c never happened, the one before
      is repeated;
    - ``sustained``, with ``length.sustained_s``, is what follows in the session of the most threads, and no other;
    - ``first_ms``, ``load_ms`` and ``memory_bytes`` come from a process of its own, see
      :func:`~paraedge_measure.testbed.measure_cold_start`.

    Args:
        bundle: an open bundle, or the path of one.
        engine: an engine; ``None`` for the bundle's own.
        threads: thread counts; ``None`` for 1 and the number of cores (at most one per branch).
        length: how long to measure.
        on_progress: called after every block.

    Raises:
        InputError: ``threads`` is invalid, or the engine does not run this bundle.
        BundleError, EngineError: as ``Session.open`` and ``Session.run``.
        DeviceError: a branch was dropped, or the process for the cold start failed.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    as_instance("length", length, SeriesLength)
    as_callable("on_progress", on_progress)
    bed = LocalTestBed(opened, opened.manifest.engine if engine is None else engine)
    with closing(bed):
        return profile_on(bed, opened, threads=threads, length=length, on_progress=on_progress)


def profile_on(
    bed: TestBed, bundle: Bundle, *, threads: Sequence[int] | None, length: SeriesLength, on_progress: Progress
) -> tuple[Measurement, ...]:
    """:func:`profile_bundle` on any test bed."""
    branches = len(bundle.manifest.branches)
    counts = _thread_counts(threads, branches, bed)
    sessions = sorted({1, *counts})  # one thread is always measured: it tells what a branch takes alone
    series = [_Series(bed, 1, branches, length, whole=True)]
    for count in sessions:
        if count > 1:
            series += [_Series(bed, count, busy, length) for busy in range(2, min(count, branches - 1) + 1)]
            series += [_Series(bed, count, branches, length, whole=True)]

    bed.open(sessions)
    cold_s = _COLD_START_ESTIMATE_S * len(counts)
    total_s = cold_s + sum(one.target_s for one in series) + length.sustained_s
    cold = {}
    for position, count in enumerate(counts):
        on_progress(position * _COLD_START_ESTIMATE_S, total_s, f"{bed.engine}, cold start")
        cold[count] = bed.cold_start(count)
    jitter, wakeup = bed.timer_jitter(), bed.wakeup()

    watch = _Watch(bed)
    for one in series:
        one.warm_up()
    watch.start()
    while unfinished := [one for one in series if one.progress < 1]:
        min(unfinished, key=lambda one: one.progress).run_block()
        done_s = cold_s + sum(one.target_s * min(one.progress, 1.0) for one in series)
        on_progress(done_s, total_s, f"{bed.engine}, {' and '.join(map(str, sessions))} thread(s)")
    disturbance = watch.stop()
    measured_s = total_s - length.sustained_s
    sustained = None
    if length.sustained_s:
        sustained = sustain(
            bed, counts[-1], branches, length.sustained_s,
            on_progress=lambda done_s: on_progress(
                measured_s + done_s, total_s, f"{bed.engine}, {counts[-1]} thread(s) without a pause"
            ),
        )  # fmt: skip

    alone = series[0]
    results = []
    for count in counts:
        whole = next(one for one in series if one.threads == count and one.whole)
        first = cold[count]
        parts = {
            part: _latency((whole if part == "stem" else alone).parts[part], first.parts_ms[part])
            for part in bundle.manifest.parts()
        }
        results.append(
            Measurement(
                bundle_name=bundle.manifest.name,
                bundle_sha256=bundle.sha256,
                engine=bed.engine,
                engine_version=bed.engine_version,
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
                firmware_limits=disturbance.firmware_limits,
                sustained=sustained if count == counts[-1] else None,
            )
        )
    return tuple(results)


def sustain(
    bed: TestBed,
    threads: int,
    branches: int,
    duration_s: float,
    *,
    minute_s: float = _MINUTE_S,
    on_progress: Callable[[float], None] = lambda done_s: None,
) -> Sustained:
    """Requests of ``branches`` on ``threads`` without a pause, summed up every ``minute_s``.

    A minute that was begun counts only from half of its time on, but the first.
    """
    started_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    whole, minutes = _Watch(bed), list[SustainedMinute]()
    whole.start()
    started_s = time.perf_counter()
    while (left_s := duration_s - (time.perf_counter() - started_s)) > 0:
        if minutes and left_s < minute_s / 2:
            break
        watch, begin_s = _Watch(bed), time.perf_counter()
        watch.start()
        times_ms = array("d")
        while (now_s := time.perf_counter()) < begin_s + min(minute_s, left_s):
            on_progress(now_s - started_s)
            times_ms.extend(request.elapsed_ms for request in bed.run(threads, branches, _BLOCK))
        during = watch.stop(since=whole)
        p50, p95 = np.quantile(np.asarray(times_ms), [0.5, 0.95])
        minutes.append(
            SustainedMinute(
                n=len(times_ms),
                p50_ms=rounded(p50),
                p95_ms=rounded(p95),
                temperature_c=during.temperature_end_c,
                frequency_mhz=during.frequency_end_mhz,
                throttled=during.throttled,
                firmware_limits=during.firmware_limits,
                other_load=during.other_load,
            )
        )
    on_progress(duration_s)
    return Sustained(measured_at=started_at, minutes=tuple(minutes))


def _thread_counts(threads: Sequence[int] | None, branches: int, bed: TestBed) -> tuple[int, ...]:
    most = branches if bed.parallel else 1
    if threads is None:
        return tuple(sorted({1, min(bed.cores, most)}))
    threads = as_list("threads", threads)
    if not threads:
        raise InputError("threads is empty; give at least one number of threads")
    counts = [as_whole("threads", count) for count in threads]
    for count in counts:
        if count > most:
            reason = (
                f"the bundle has {branches} branch{'es' if branches > 1 else ''}"
                if bed.parallel
                else "this engine runs one branch at a time"
            )
            raise InputError(f"threads must be at most {most}, got {count}: {reason}")
    return tuple(sorted(set(counts)))


class _Series:
    """Requests of the first so many branches in one session, as far as they have been measured."""

    def __init__(self, bed: TestBed, threads: int, branches: int, length: SeriesLength, *, whole: bool = False) -> None:
        self.threads, self.branches = threads, branches
        self.whole = whole  # all branches
        # Parts are measured by whole requests; fewer branches are run for the contention only.
        self.target_s = length.min_s * (1 + branches if whole else 1)
        self.request_ms = array("d")
        self.parts: dict[str, array[float]] = {}
        self.busy_ms: dict[tuple[int, str], array[float]] = {}  # busy workers and branch -> its times
        self._bed = bed
        self._min_runs = length.min_runs
        self._spent_s = 0.0

    @property
    def progress(self) -> float:
        """1 when both limits of the series length are reached."""
        return min(len(self.request_ms) / self._min_runs, self._spent_s / self.target_s)

    def warm_up(self) -> None:
        """Run without counting until caches, clocks and the engine's own threads are as they stay."""
        end = time.perf_counter() + _WARM_UP_S
        self._run(1)
        while time.perf_counter() < end:
            self._run(1)

    def run_block(self) -> None:
        """Run one block of requests, and count all but the first few."""
        counted = self._run(_BLOCK_WARM_UP + _BLOCK)[_BLOCK_WARM_UP:]
        self._spent_s += sum(request.elapsed_ms for request in counted) / 1e3
        for request in counted:
            self.request_ms.append(request.elapsed_ms)
            for run in request.timeline:
                self.parts.setdefault(run.part, array("d")).append(run.end_ms - run.start_ms)
            for run, busy in busy_workers(request.timeline):
                if abs(busy - round(busy)) <= _BUSY_TOLERANCE:
                    self.busy_ms.setdefault((round(busy), run.part), array("d")).append(run.end_ms - run.start_ms)

    def _run(self, count: int) -> list[RequestTimes]:
        return self._bed.run(self.threads, self.branches, count)


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
    return tuple(rounded(factor) for factor in factors)


def _latency(times_ms: Sequence[float], first_ms: float) -> PartLatency:
    """Quantiles interpolate linearly between neighbouring runs."""
    values = np.asarray(times_ms)
    p50, p90, p95, p99 = (rounded(value) for value in np.quantile(values, [0.5, 0.9, 0.95, 0.99]))
    return PartLatency(
        n=len(values),
        min_ms=rounded(values.min()),
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99 if len(values) >= P99_MIN_RUNS else None,
        first_ms=rounded(first_ms),
    )


# What disturbs ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Disturbance:
    temperature_start_c: float | None
    temperature_end_c: float | None
    frequency_start_mhz: float | None
    frequency_end_mhz: float | None
    throttled: bool
    firmware_limits: tuple[FirmwareLimit, ...] | None
    other_load: float | None


@dataclass
class _Watch:
    """What goes on beside a measurement, from ``start`` to ``stop``; both are called right after requests."""

    _bed: TestBed

    def start(self) -> None:
        root = self._bed.system()
        self._temperature_c = read_temperature_c(root)
        self._frequency_mhz = read_frequency_mhz(root)
        _, self._throttle_count = read_throttling(root)
        self._firmware_word = read_firmware_word(root)
        self._busy_s = read_busy_s(self._bed.core_numbers, root)
        self._own_s, self._clock_s = self._bed.cpu_s(), time.perf_counter()

    def stop(self, since: _Watch | None = None) -> _Disturbance:
        """What went on since ``start``; that a clock is low is judged against ``since``, this watch's own start."""
        first_mhz = (since or self)._frequency_mhz
        own_s, clock_s = self._bed.cpu_s() - self._own_s, time.perf_counter() - self._clock_s
        root = self._bed.system()
        frequency_mhz = read_frequency_mhz(root)
        busy_s = read_busy_s(self._bed.core_numbers, root)
        other_load = None
        if busy_s is not None and self._busy_s is not None:
            others_s = busy_s - self._busy_s - own_s
            other_load = rounded(min(max(others_s / (clock_s * len(self._bed.core_numbers)), 0.0), 1.0))
        cooling, throttle_count = read_throttling(root)
        slowed = frequency_mhz is not None and first_mhz is not None and frequency_mhz < _FREQUENCY_KEPT * first_mhz
        limits = firmware_limits(self._firmware_word, read_firmware_word(root))
        return _Disturbance(
            temperature_start_c=self._temperature_c,
            temperature_end_c=read_temperature_c(root),
            frequency_start_mhz=self._frequency_mhz,
            frequency_end_mhz=frequency_mhz,
            throttled=cooling or slowed or throttle_count > self._throttle_count or bool(limits),
            firmware_limits=limits,
            other_load=other_load,
        )

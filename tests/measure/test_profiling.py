"""Measuring bundles: real engines on real images, with series of a moment; no time is compared with a limit."""

import time
from itertools import count
from pathlib import Path

import pytest
from support.bundles import fake_bundle
from support.tensor_branches import EmbeddingBranches, MotionBranches, SoundBranches, describe

from paraedge_converters.pipeline import convert
from paraedge_measure.device import Device, decode_device, encode_device, merge
from paraedge_measure.hardware import read_hardware
from paraedge_measure.profiling import RIGOROUS, USUAL, SeriesLength, busy_workers, profile_bundle, sustain
from paraedge_measure.testbed import RequestTimes
from paraedge_runtime import BundleError, InputError, PartRun

BRIEF = SeriesLength(min_runs=20, min_s=0.01)
ENGINES = ("litert", "onnxruntime", "executorch")


@pytest.fixture(scope="module")
def small(bundles, tmp_path_factory):
    """Three branches of the packaged model."""
    folder = tmp_path_factory.mktemp("small")
    return lambda engine: bundles[engine].subset((0, 1, 5), folder / f"{engine}.paraedge")


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_measured_makes_a_profile(small, engine):
    bundle = small(engine)
    seen = []
    measurements = profile_bundle(bundle, threads=[1, 2], length=BRIEF, on_progress=lambda *step: seen.append(step))
    hardware = read_hardware()
    device = merge(Device(name="here", hardware=hardware), measurements)
    assert decode_device(encode_device(device)) == device  # keeps every rule of the format

    assert [one.threads for one in measurements] == [1, 2]
    for one in measurements:
        assert (one.bundle_name, one.bundle_sha256, one.engine) == ("fashion-mnist", bundle.sha256, engine)
        assert list(one.parts) == ["stem", "branch_00", "branch_01", "branch_05"]
        assert all(latency.n >= BRIEF.min_runs for latency in [*one.parts.values(), one.request])
        assert all(latency.min_ms > 0 and latency.first_ms > 0 for latency in [*one.parts.values(), one.request])
        assert one.request.min_ms > one.parts["stem"].min_ms
        assert len(one.contention) == one.threads
        assert one.load_ms > 0
        assert one.memory_bytes is None or one.memory_bytes > 10_000_000
    single, double = measurements
    # Alone is alone: the branches of both are the same runs, the stem is each session's own.
    assert {name: latency.p50_ms for name, latency in single.branches.items()} == {
        name: latency.p50_ms for name, latency in double.branches.items()
    }
    assert single.request.min_ms >= sum(latency.min_ms for latency in single.parts.values())

    done_s, total_s, what = zip(*seen, strict=True)
    assert list(done_s) == sorted(done_s)
    assert done_s[-1] == pytest.approx(total_s[-1])
    assert engine in what[-1]


@pytest.mark.export
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "make", [SoundBranches, MotionBranches, EmbeddingBranches], ids=["sound", "motion", "embedding"]
)
def test_bundles_of_tensors_and_vectors_are_measured(make, engine, tmp_path):
    model = make().eval()
    bundle = convert(model, describe(model), tmp_path / "b.paraedge", target="linux", engine=engine)
    measurements = profile_bundle(bundle, length=BRIEF)
    assert measurements[0].threads == 1
    for one in measurements:
        assert (one.bundle_sha256, one.engine) == (bundle.sha256, engine)
        assert list(one.parts) == list(bundle.manifest.parts())
        assert all(latency.n >= BRIEF.min_runs and latency.first_ms > 0 for latency in one.parts.values())


def test_one_thread_is_measured_for_what_branches_take_alone_and_not_listed(small):
    (measurement,) = profile_bundle(small("litert"), threads=[3], length=BRIEF)
    assert measurement.threads == 3
    assert len(measurement.contention) == 3


def test_requests_without_a_pause_are_told_with_the_most_threads(small):
    seen = []
    length = SeriesLength(min_runs=5, min_s=0.01, sustained_s=0.2)
    single, double = profile_bundle(
        small("litert"), threads=[1, 2], length=length, on_progress=lambda *step: seen.append(step)
    )
    assert single.sustained is None
    (minute,) = double.sustained.minutes  # one that is shorter
    assert minute.n >= 10
    assert 0 < minute.p50_ms <= minute.p95_ms
    assert double.sustained.measured_at <= double.measured_at
    done_s, total_s, what = zip(*seen, strict=True)
    assert list(done_s) == sorted(done_s)
    assert done_s[-1] == pytest.approx(total_s[-1])
    assert what[-1] == "litert, 2 thread(s) without a pause"
    device = merge(Device(name="here", hardware=read_hardware()), [single, double])
    assert decode_device(encode_device(device)) == device


class _HotBed:
    """Requests that take longer from minute to minute, on a machine whose clock falls and whose firmware says so."""

    core_numbers = frozenset({0})

    def __init__(self, root, minute_s):
        self._root, self._minute_s, self._started_s = root, minute_s, time.perf_counter()
        self._write("sys/class/thermal/thermal_zone0/type", "cpu-thermal")

    def _write(self, name, text):
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    @property
    def minute(self):
        return int((time.perf_counter() - self._started_s) / self._minute_s)

    def run(self, threads, branches, count):
        time.sleep(self._minute_s / 20)
        return [RequestTimes(10.0 + self.minute, ()) for _ in range(count)]

    def cpu_s(self):
        return time.process_time()

    def system(self) -> Path:
        hot = self.minute >= 2
        self._write("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1500000" if hot else "2400000")
        self._write("sys/class/thermal/thermal_zone0/temp", "85000" if hot else "60000")
        self._write("sys/devices/platform/soc/soc:firmware/get_throttled", "80008" if hot else "0")
        return self._root


def test_every_minute_has_its_own_times_clock_temperature_and_what_the_firmware_said(tmp_path):
    bed = _HotBed(tmp_path, minute_s=0.4)
    done = count()
    sustained = sustain(bed, 1, 1, 1.6, minute_s=0.4, on_progress=lambda done_s: next(done))
    assert next(done) > 4
    assert len(sustained.minutes) == 4
    first, *_, last = sustained.minutes
    assert first.p50_ms < last.p50_ms
    assert (first.throttled, first.frequency_mhz, first.firmware_limits) == (False, 2400.0, ())
    assert (last.throttled, last.frequency_mhz, last.temperature_c) == (True, 1500.0, 85.0)
    assert last.firmware_limits == ("soft temperature limit",)


@pytest.mark.parametrize("sustained_s", [-1.0, 1e6, float("nan")])
def test_a_time_that_cannot_be_sustained_is_refused(sustained_s):
    with pytest.raises(InputError):
        SeriesLength(min_runs=1, min_s=1.0, sustained_s=sustained_s)


def test_the_lengths_are_the_documented_ones():
    assert (USUAL.min_runs, USUAL.min_s) == (50, 1.0)
    assert (RIGOROUS.min_runs, RIGOROUS.min_s) == (1024, 60.0)


@pytest.mark.parametrize(
    ("options", "error", "problem"),
    [
        ({"threads": [0]}, InputError, "threads must be an integer of at least 1, got 0"),
        ({"threads": [1, -1]}, InputError, "at least 1, got -1"),
        ({"threads": [True]}, InputError, "at least 1, got True"),
        ({"threads": [1.5]}, InputError, r"at least 1, got 1\.5"),
        ({"threads": []}, InputError, "threads is empty"),
        ({"threads": [4]}, InputError, r"threads must be at most 3, got 4: the bundle has 3 branches"),
        ({"engine": "tensorflow"}, InputError, "unknown engine 'tensorflow'"),
    ],
)
@pytest.mark.usefixtures("fake_engine")
def test_what_cannot_be_measured_is_refused(tmp_path, options, error, problem):
    bundle = fake_bundle(tmp_path / "b.paraedge")
    with pytest.raises(error, match=problem):
        profile_bundle(bundle, length=BRIEF, **options)


def test_an_engine_without_parallel_branches_is_measured_on_one_thread(tmp_path, fake_engine, monkeypatch):
    fake_engine.register(monkeypatch, "SequentialFakeEngine")
    bundle = fake_bundle(tmp_path / "b.paraedge")
    with pytest.raises(InputError, match="threads must be at most 1, got 2: this engine runs one branch at a time"):
        profile_bundle(bundle, threads=[2], length=BRIEF)


def test_an_engine_for_other_files_is_refused(small):
    with pytest.raises(InputError, match="export it again with --engine onnxruntime"):
        profile_bundle(small("litert"), engine="onnxruntime", length=BRIEF)


def test_a_bundle_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BundleError, match="does not exist"):
        profile_bundle(tmp_path / "none.paraedge", length=BRIEF)


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(0, 1)], [1.0]),
        ([(0, 1), (1, 2)], [1.0, 1.0]),
        ([(0, 1), (0, 1)], [2.0, 2.0]),
        ([(0, 2), (1, 2)], [1.5, 2.0]),
        ([(0, 4), (0, 2), (2, 4)], [2.0, 2.0, 2.0]),
        ([(0, 3), (0, 3), (0, 3)], [3.0, 3.0, 3.0]),
        ([(1, 1), (0, 2)], [1.0, 1.0]),
        ([], []),
    ],
)
def test_busy_workers(spans, expected):
    timeline = [PartRun("stem", 0, 0.0, 9.0)]
    timeline += [PartRun(f"branch_{n:02d}", n, float(start), float(end)) for n, (start, end) in enumerate(spans)]
    found = busy_workers(timeline)
    assert [run for run, _ in found] == timeline[1:]
    assert [busy for _, busy in found] == expected

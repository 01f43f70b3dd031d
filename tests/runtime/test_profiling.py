"""Measuring bundles: real engines on real images, with stop rules of a moment; no time is compared with a limit."""

import json
import subprocess
import sys

import pytest
from support.bundles import fake_bundle, replace_file

from paraedge_runtime import BundleError, DeviceError, EngineUnavailable, InputError, IntegrityError
from paraedge_runtime.device import Device, decode_device, encode_device, merge
from paraedge_runtime.hardware import read_hardware
from paraedge_runtime.prediction import PartRun
from paraedge_runtime.profiling import RIGOROUS, USUAL, StopRule, busy_workers, main, profile_bundle
from paraedge_runtime.testbed import read_answer

BRIEF = StopRule(min_runs=20, min_seconds=0.01)
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
    measurements = profile_bundle(bundle, threads=[1, 2], rule=BRIEF, on_progress=lambda *step: seen.append(step))
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


def test_one_thread_is_measured_for_what_branches_take_alone_and_not_listed(small):
    (measurement,) = profile_bundle(small("litert"), threads=[3], rule=BRIEF)
    assert measurement.threads == 3
    assert len(measurement.contention) == 3


def test_the_stop_rules_are_the_documented_ones():
    assert (USUAL.min_runs, USUAL.min_seconds) == (50, 1.0)
    assert (RIGOROUS.min_runs, RIGOROUS.min_seconds) == (1024, 60.0)


@pytest.mark.parametrize(
    ("options", "error", "problem"),
    [
        ({"threads": [0]}, InputError, "threads is 0; a whole number"),
        ({"threads": [1, -1]}, InputError, "threads is -1"),
        ({"threads": [True]}, InputError, "threads is True"),
        ({"threads": [1.5]}, InputError, r"threads is 1\.5"),
        ({"threads": []}, InputError, "threads is empty"),
        ({"threads": [4]}, InputError, r"threads is 4, and the bundle has 3 branch.*at most 3"),
        ({"engine": "tensorflow"}, InputError, "unknown engine 'tensorflow'"),
    ],
)
@pytest.mark.usefixtures("fake_engine")
def test_what_cannot_be_measured_is_refused(tmp_path, options, error, problem):
    bundle = fake_bundle(tmp_path / "b.paraedge")
    with pytest.raises(error, match=problem):
        profile_bundle(bundle, rule=BRIEF, **options)


def test_an_engine_without_parallel_branches_is_measured_on_one_thread(tmp_path, fake_engine, monkeypatch):
    fake_engine.register(monkeypatch, "SequentialFakeEngine")
    bundle = fake_bundle(tmp_path / "b.paraedge")
    with pytest.raises(InputError, match="threads is 2, and this engine runs one at a time"):
        profile_bundle(bundle, threads=[2], rule=BRIEF)


def test_an_engine_for_other_files_is_refused(small):
    with pytest.raises(InputError, match="export it again with --engine onnxruntime"):
        profile_bundle(small("litert"), engine="onnxruntime", rule=BRIEF)


def test_a_bundle_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BundleError, match="does not exist"):
        profile_bundle(tmp_path / "none.paraedge", rule=BRIEF)


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


# The command on the device ---------------------------------------------------------------------


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "paraedge_runtime.profiling", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_measures(small):
    bundle = small("litert")
    done = command("measure", bundle.path, "--threads", "1", "--min-runs", "20", "--min-seconds", "0.01")
    assert done.returncode == 0, done.stderr
    (document,) = json.loads(done.stdout)["result"]
    assert (document["bundle_sha256"], document["threads"]) == (bundle.sha256, 1)
    assert all(line.startswith("progress ") for line in done.stderr.splitlines())


def test_the_command_tells_what_is_whole(small, tmp_path):
    bundle = small("litert")
    damaged = bundle.subset((0,), tmp_path / "damaged.paraedge")
    (damaged.path / "stem.tflite").write_bytes(b"")
    done = command("check", bundle.path, damaged.path, tmp_path / "none.paraedge")
    assert json.loads(done.stdout) == {"result": [bundle.sha256, None, None]}


def test_the_command_reads_the_hardware():
    done = command("hardware")
    assert json.loads(done.stdout)["result"]["fingerprint"] == read_hardware().fingerprint


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        (["measure", "none.paraedge"], IntegrityError, r"none\.paraedge does not exist"),
        (["cold", "none.paraedge", "--engine", "litert", "--threads", "1"], IntegrityError, "does not exist"),
    ],
)
def test_an_error_over_there_is_the_same_error_here(arguments, error, problem, capfd):
    assert main(arguments) == 1
    printed = capfd.readouterr()
    with pytest.raises(error, match=problem):
        read_answer(printed.out, printed.err, 1, list)


def test_a_part_that_cannot_be_loaded_is_an_error_of_the_bundle(small, tmp_path):
    bundle = small("litert").subset((0,), tmp_path / "bad.paraedge")
    replace_file(bundle.path, "branch_00.tflite", b"no program")
    done = command("measure", bundle.path)
    assert done.returncode == 1
    with pytest.raises(Exception, match=r"branch_00\.tflite"):
        read_answer(done.stdout, done.stderr, done.returncode, list)


@pytest.mark.parametrize(
    ("stdout", "stderr", "error", "problem"),
    [
        ("", "Killed", DeviceError, r"exit code 9: Killed; is paraedge there this version\?"),
        ("", "", DeviceError, "it printed nothing"),
        ("Welcome!\n", "", DeviceError, "exit code 9"),
        ("[]", "", DeviceError, "exit code 9"),
        ('{"error": "NoSuchError", "message": "new"}', "", DeviceError, "^new$"),
        ('{"error": "EngineUnavailable", "message": "m"}', "", EngineUnavailable, "^m$"),
        ('{"error": "annotations", "message": "no class"}', "", DeviceError, "^no class$"),
        ('{"result": 7}', "", DeviceError, "the device answered what cannot be: .*; is paraedge there this version"),
    ],
)
def test_what_is_no_answer(stdout, stderr, error, problem):
    with pytest.raises(error, match=problem):
        read_answer(stdout, stderr, 9, list[int])


def test_what_was_printed_before_the_answer_does_not_matter():
    assert read_answer('Welcome to this board!\n{"result": [1]}\n', "", 0, list[int]) == [1]

"""``python -m paraedge_measure``, which runs on the device: what it prints, and how the other side reads it."""

import json
import subprocess
import sys

import pytest
from support.bundles import replace_file

from paraedge_measure.__main__ import main
from paraedge_measure.command import read_reply
from paraedge_measure.hardware import read_hardware
from paraedge_runtime import DeviceError, EngineUnavailable, InputError, IntegrityError


@pytest.fixture(scope="module")
def small(bundles, tmp_path_factory):
    """Two branches of the packaged model."""
    folder = tmp_path_factory.mktemp("small")
    return lambda engine: bundles[engine].subset((0, 1), folder / f"{engine}.paraedge")


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "paraedge_measure", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_measures(small):
    bundle = small("litert")
    done = command("measure", bundle.path, "--threads", "1", "--min-runs", "20", "--min-s", "0.01")
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
        (["measure", "none.paraedge", "--min-s", "0"], InputError, r"time above 0, got 50 runs and 0\.0 s"),
        (["measure", "none.paraedge", "--min-runs", "0"], InputError, r"time above 0, got 0 runs and 1\.0 s"),
        (["cold", "none.paraedge", "--engine", "litert", "--threads", "1"], IntegrityError, "does not exist"),
    ],
)
def test_an_error_over_there_is_the_same_error_here(arguments, error, problem, capfd):
    assert main(arguments) == 1
    printed = capfd.readouterr()
    with pytest.raises(error, match=problem):
        read_reply(printed.out, printed.err, 1, list)


def test_a_part_that_cannot_be_loaded_is_an_error_of_the_bundle(small, tmp_path):
    bundle = small("litert").subset((0,), tmp_path / "bad.paraedge")
    replace_file(bundle.path, "branch_00.tflite", b"no program")
    done = command("measure", bundle.path)
    assert done.returncode == 1
    with pytest.raises(Exception, match=r"branch_00\.tflite"):
        read_reply(done.stdout, done.stderr, done.returncode, list)


@pytest.mark.parametrize(
    ("stdout", "stderr", "error", "problem"),
    [
        ("", "Killed", DeviceError, r"exit code 9: Killed; install this version of paraedge there"),
        ("", "", DeviceError, "it printed nothing"),
        ("Welcome!\n", "", DeviceError, "exit code 9"),
        ("[]", "", DeviceError, "exit code 9"),
        ('{"error": "NoSuchError", "message": "new"}', "", DeviceError, "^new$"),
        ('{"error": "EngineUnavailable", "message": "m"}', "", EngineUnavailable, "^m$"),
        ('{"error": "annotations", "message": "no class"}', "", DeviceError, "^no class$"),
        (
            '{"result": 7}',
            "",
            DeviceError,
            "the device sent an invalid reply: .*; install this version of paraedge there",
        ),
    ],
)
def test_what_is_no_reply(stdout, stderr, error, problem):
    with pytest.raises(error, match=problem):
        read_reply(stdout, stderr, 9, list[int])


def test_what_was_printed_before_the_reply_does_not_matter():
    assert read_reply('Welcome to this board!\n{"result": [1]}\n', "", 0, list[int]) == [1]

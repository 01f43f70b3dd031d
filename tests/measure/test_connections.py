"""Devices that answer as an attacker would make them: no file, no hang, no traceback, nothing that a terminal obeys."""

import os
import subprocess
import sys

import pytest
from support import evil_adb
from support.bundles import fake_bundle, tree

from paraedge_measure import connections
from paraedge_measure.command import read_reply
from paraedge_measure.connections import adb, native, processes
from paraedge_measure.connections.adb import AdbConnection
from paraedge_measure.connections.processes import run_process
from paraedge_measure.device import Adb, Hardware
from paraedge_measure.profiling import SeriesLength
from paraedge_runtime import DeviceError, InputError

assert connections  # the package is imported first, as everywhere


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """Make a phone that answers so."""

    def make(**answers):
        monkeypatch.setenv("PATH", f"{evil_adb.install(tmp_path / 'bin', **answers)}{os.pathsep}{os.environ['PATH']}")
        (tmp_path / "tools").mkdir(exist_ok=True)
        (tmp_path / "tools" / "paraedge-testbed").write_text("")
        return AdbConnection(Adb(serial="EVIL", tools=str(tmp_path / "tools"), folder="/data/local/tmp/paraedge"))

    return make


def test_an_honest_phone_is_described(phone):
    hardware = phone().hardware()
    assert (hardware.cores, hardware.cpu, hardware.os) == (4, "A processor", "Android 15")
    assert (hardware.machine, hardware.kernel, hardware.memory_bytes) == ("aarch64", "Linux 5.15", 4_096_000_000)


NAMES = {
    "climbs": "/../../../../../../../../../../{place}/PWNED",
    "absolute": "{place}/PWNED",
    "climbs behind a name that was asked for": "/proc/cpuinfo/../../../{place}/PWNED",
    "below a name that was asked for": "/proc/cpuinfo/x",
    "a folder": "/",
    "nothing": "",
    "a zero": "/proc/\0x",
    "long": "/" + "a" * 5000,
    "another file of proc": "/proc/version",
    "a core of another kind": "/sys/devices/system/cpu/cpu../cpu_capacity",
    "a core of many digits": "/sys/devices/system/cpu/cpu" + "9" * 300 + "/cpu_capacity",
    "another case": "/PROC/cpuinfo",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_phone_writes_no_file_that_nobody_asked_for(phone, tmp_path, name):
    place, folder = tmp_path / "place", tmp_path / "folder"
    place.mkdir()
    folder.mkdir()
    connection = phone(files={name.format(place=str(place).lstrip("/")): "alias ls=true"})
    with pytest.raises(DeviceError, match="EVIL sent a file that was not requested, ") as caught:
        connection._device.read_system(folder)
    assert tree(place) == {}
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()
    with pytest.raises(DeviceError, match="was not requested"):
        connection.hardware()


CPU = "/sys/devices/system/cpu"
SAYS = {
    "control characters": (
        {"/proc/cpuinfo": "model name : evil \x1b]0;x\x07\x1b[31m\u202e [/red]"},
        "evil ]0;x[31m [/red]",
    ),
    "a name of a megabyte": ({"/proc/cpuinfo": "model name : " + "a" * 1_000_000}, "a" * 200),
}


@pytest.mark.parametrize(("files", "cpu"), SAYS.values(), ids=SAYS)
def test_what_a_phone_calls_itself_is_one_short_printable_line(phone, files, cpu):
    assert phone(files=files).hardware().cpu == cpu


NUMBERS = {
    "a thousand million cores": {f"{CPU}/present": "0-999999999"},
    "cores that no number holds": {f"{CPU}/present": "0-99999999999999999999"},
    "cores backwards": {f"{CPU}/present": "3-0"},
    "many ranges": {f"{CPU}/present": ",".join(["0-9999"] * 1000)},
    "cores in other digits": {f"{CPU}/present": "²"},
    "memory in other digits": {"/proc/meminfo": "MemTotal: ² kB"},
    "memory of 5000 digits": {"/proc/meminfo": f"MemTotal: {'9' * 5000} kB"},
    "a frequency of 400 digits": {f"{CPU}/cpu0/cpufreq/cpuinfo_max_freq": "9" * 400},
    "a frequency of words": {f"{CPU}/cpu0/cpufreq/cpuinfo_max_freq": "fast"},
    "a machine with control characters": {"/machine": "\x1b[2J"},
    "a long kernel": {"/kernel": "k" * 5000},
}


@pytest.mark.parametrize("files", NUMBERS.values(), ids=NUMBERS)
def test_numbers_that_cannot_be_are_left_out_or_refused(phone, files):
    try:
        hardware = phone(files=files).hardware()
    except DeviceError as error:
        assert "EVIL sent an invalid description of itself" in str(error)  # noqa: PT017
        assert str(error).isprintable()  # noqa: PT017
    else:
        assert 1 <= hardware.cores <= 10_000
        assert all(label.isprintable() and len(label) <= 200 for label in (hardware.machine, hardware.kernel))


def test_what_the_client_says_reaches_nobody_raw(phone):
    connection = phone(state="error: \x1b]0;PWNED\x07\x1b[2J\x1b[31mdevice \x9b31m offline\n")
    with pytest.raises(DeviceError, match="EVIL cannot be reached: error: ") as caught:
        connection.hardware()
    assert str(caught.value).isprintable()


def test_a_phone_that_talks_for_ever_is_ended(phone):
    with pytest.raises(DeviceError, match="adb sent more than 16777216 bytes"):
        phone(endless=True).hardware()


@pytest.fixture
def impatient(monkeypatch):
    for module in (processes, native):
        monkeypatch.setattr(module, "MAX_SILENCE_S", 2.0)


@pytest.mark.usefixtures("impatient")
def test_a_phone_that_says_nothing_is_ended(phone):
    with pytest.raises(DeviceError, match="adb sent no output for 2 s"):
        phone(silent=True).hardware()


def test_a_client_that_does_not_say_what_is_attached_is_ended(phone, monkeypatch):
    monkeypatch.setattr(adb, "_MAX_STATE_S", 1.0)
    with pytest.raises(DeviceError, match="adb sent no output for 1 s"):
        phone(asleep=True).hardware()


@pytest.mark.parametrize("listed", ["", "List of devices\n0A\tdevice\n", "\x1b[2Jnonsense\n"])
def test_a_client_that_lists_nonsense_is_named(tmp_path, monkeypatch, listed):
    client = tmp_path / "adb"
    client.write_text(f"#!{sys.executable}\nprint({listed!r})\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match=r"adb devices failed: .*; try the same by hand") as caught:
        AdbConnection(Adb()).hardware()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["/etc/passwd", "tools-0123456789ab/../../x", "\x1b[2J", "tools-0123456789ab\u202e"])
def test_a_phone_that_claims_to_have_removed_something_else(phone, name):
    assert phone(removed="tools-0123456789ab\r\n").clean() == ("tools-0123456789ab",)
    with pytest.raises(DeviceError, match="EVIL removed a file that is not paraedge's, ") as caught:
        phone(removed=f"tools-0123456789ab\n{name}\n").clean()
    assert str(caught.value).isprintable()


def measure(connection, tmp_path):
    bundle = fake_bundle(tmp_path / "b.paraedge", [{"add": 1.0}], engine="executorch")
    return connection.measure(
        bundle,
        engine=None,
        threads=(1,),
        length=SeriesLength(min_runs=2, min_s=0.01),
        on_progress=lambda *step: None,
    )


ANSWERS = {
    "no hello": {"hello": "{}"},
    "a list for a hello": {"hello": "[]"},
    "null": {"hello": "null"},
    "a number of text": {"hello": '{"executorch": "1.5.1", "load_ms": "x"}'},
    "a version that is markup": {"hello": '{"executorch": "[/red]", "load_ms": 1}'},
    "control characters": {"hello": "\x1b]0;x\x07 not json"},
    "deep": {"hello": "[" * 100_000},
    "long": {"hello": '"' + "a" * 20_000_000 + '"'},
    "not UTF-8": {"hello": '{"executorch": "\udcff", "load_ms": 1}'},
    "no requests": {"run": "[]"},
    "an object of requests": {"run": "{}"},
    "a request of numbers": {"run": "[[1, 2, 3]]"},
    "endless times": {"run": "[[1.0, 0.1, [[0, 0, 0, 1e999]]]]"},
    "negative times": {"run": "[[-1.0, 0.1, [[0, 0, 0, 1]]]]"},
    "another branch": {"run": "[[1.0, 0.1, [[7, 0, 0, 1]]]]"},
    "a branch twice": {"run": "[[1.0, 0.1, [[0, 0, 0, 1], [0, 0, 0, 1]]]]"},
    "a branch of text": {"run": '[[1.0, 0.1, [["x", 0, 0, 1]]]]'},
    "more requests than asked for": {"run": "[" + ",".join(["[1.0, 0.1, [[0, 0, 0, 1]]]"] * 1000) + "]"},
    "no usage": {"usage": "{}"},
    "no jitter": {"jitter": "{}"},
}


@pytest.mark.parametrize("answers", ANSWERS.values(), ids=ANSWERS)
def test_what_the_program_there_says_is_held_to_a_schema(phone, tmp_path, answers):
    with pytest.raises(DeviceError) as caught:
        measure(phone(**answers), tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    assert "it said nothing" not in str(caught.value)  # the program was started, and answered


@pytest.mark.usefixtures("impatient")
def test_a_program_that_hangs_is_ended_and_its_noise_is_not_kept(phone, tmp_path):
    with pytest.raises(DeviceError, match="paraedge-testbed on EVIL ended: it said nothing for 2 s"):
        measure(phone(run=None, noise=True), tmp_path)


# Replies over ssh --------------------------------------------------------------------------------


def test_an_error_of_another_machine_is_printable_and_short():
    with pytest.raises(InputError) as caught:
        read_reply(
            '{"error": "InputError", "message": "\\u001b[31m[/red]\\u202e' + "x" * 100_000 + '"}', "", 1, Hardware
        )
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 2000


def test_progress_and_errors_of_a_program_are_printable():
    steps = []
    script = r"import sys; sys.stderr.write('progress 1 2 \x1b[2Jhello\n\x1b[31mred\n'); sys.stderr.write('x' * 10**6)"
    _, stderr, code = run_process(
        [sys.executable, "-c", script], on_progress=lambda done, total, what: steps.append((done, total, what))
    )
    assert steps == [(1.0, 2.0, "[2Jhello")]
    assert code == 0
    assert stderr.splitlines()[0] == "[31mred"


def test_a_program_reads_all_of_what_it_is_sent():
    data = bytes(range(256)) * 10_000
    script = "import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    import hashlib

    stdout, _, _ = run_process([sys.executable, "-c", script], stdin=data)
    assert stdout.strip() == hashlib.sha256(data).hexdigest()


def test_a_program_that_is_ended_is_gone(monkeypatch):
    monkeypatch.setattr(processes, "MAX_SILENCE_S", 1.0)
    started = []
    real = subprocess.Popen

    def remember(*arguments, **options):
        started.append(real(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(processes.subprocess, "Popen", remember)
    with pytest.raises(DeviceError, match="sent no output for 1 s"):
        run_process([sys.executable, "-c", "import time; time.sleep(1000)"])
    assert started[0].poll() is not None

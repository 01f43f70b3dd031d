"""``paraedge profile`` as its users meet it: here, over a real sshd, over adb, and refused."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from support import fake_adb, fake_ssh, fake_testbed
from support.devices import DEVICE, MEASUREMENT
from support.ssh_server import ssh_server

import paraedge_runtime
from paraedge_measure.device import Adb, Browser, Device, Local, Ssh, find_measurement, read_device, write_device

PARAEDGE = [sys.executable, "-c", "import sys; sys.argv[0] = 'paraedge'; from paraedge.cli.main import main; main()"]


def run(*arguments, cwd, code=0, **environment):
    done = subprocess.run(
        [*PARAEDGE, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        timeout=280,
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    if code == 0:
        return done.stdout
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    return last


@pytest.fixture(scope="module")
def bundle(bundles, tmp_path_factory):
    """One branch: a profile of it takes three seconds."""
    return bundles["litert"].subset((0,), tmp_path_factory.mktemp("bundle") / "one.paraedge")


@pytest.fixture(scope="module")
def other_bundle(bundles, tmp_path_factory):
    return bundles["litert"].subset((1,), tmp_path_factory.mktemp("bundle") / "other.paraedge")


# Here ------------------------------------------------------------------------------------------


def test_a_new_profile_then_another_bundle_then_the_first_again(bundle, other_bundle, tmp_path):
    text = run("profile", bundle.path, "--name", "bench-1", cwd=tmp_path)
    device = read_device(tmp_path / "device.json")
    assert (device.name, len(device.measurements)) == ("bench-1", 1)
    assert find_measurement(device, bundle.sha256, "litert", 1).parts.keys() == {"stem", "branch_00"}
    for words in ("bench-1", "branch_00", "request", "p95", "1 thread(s)", "device.json: 1 measurement(s)"):
        assert words in text

    run("profile", "device.json", other_bundle.path, cwd=tmp_path)
    both = read_device(tmp_path / "device.json")
    assert both.measurements[0] == device.measurements[0]
    assert [one.bundle_sha256 for one in both.measurements] == [bundle.sha256, other_bundle.sha256]

    document = json.loads(
        run(
            "profile",
            "device.json",
            bundle.path,
            "--json",
            "--html",
            "page.html",
            "--engine",
            "litert",
            "--sustained",
            "0.005",
            cwd=tmp_path,
        )
    )
    again = read_device(tmp_path / "device.json")
    assert document["path"] == "device.json"
    assert len(document["device"]["measurements"]) == 2
    assert again.measurements[1] == both.measurements[1]
    assert again.measurements[0].measured_at >= both.measurements[0].measured_at

    assert both.measurements[0].sustained is None
    (minute,) = again.measurements[0].sustained.minutes
    assert minute.n >= 10

    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 3
    for line in page.splitlines():
        assert "src=" not in line, "nothing is loaded from elsewhere"
    ElementTree.fromstring(page[page.index("<body>") : page.index("</body>") + 7])  # every tag is closed


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "truncated"),
        (b'{"format": "paraedge-device/1", "name": "x"', "truncated"),
        (b'{"format": "paraedge-device/1", "name": "x", "colour": 1}', "unknown field `colour`"),
        (b'{"format": "paraedge-device/9"}', "newer than 'paraedge-device/1'"),
        (b'{"format": "device"}', "Invalid enum value 'device'"),
        (b"name: x", "malformed"),
    ],
    ids=["empty", "cut off", "unknown field", "newer", "another format", "no JSON"],
)
def test_a_damaged_file_is_refused_before_measuring_and_stays(bundle, tmp_path, content, problem):
    (tmp_path / "device.json").write_bytes(content)
    assert problem in run("profile", "device.json", bundle.path, cwd=tmp_path, code=2)
    assert (tmp_path / "device.json").read_bytes() == content


def test_the_file_of_another_machine_is_refused_and_stays(bundle, tmp_path):
    write_device(DEVICE, tmp_path / "pi.json")
    line = run("profile", "pi.json", bundle.path, cwd=tmp_path, code=2)
    assert "describes another machine (Raspberry Pi 5" in line
    assert read_device(tmp_path / "pi.json").measurements == (MEASUREMENT,)


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["device.json", "none.paraedge"], 2, "none.paraedge does not exist"),
        (["device.txt"], 2, "device.txt is neither a device file (NAME.json) nor a bundle"),
        (["BUNDLE", "--threads", "0"], 2, "threads must be an integer of at least 1, got 0"),
        (["BUNDLE", "--threads", "2"], 2, "threads must be at most 1, got 2: the bundle has 1 branch"),
        (["BUNDLE", "--threads", "one"], 2, "'one' is not a list of thread counts, such as 1,2,4"),
        (["BUNDLE", "--threads", ""], 2, "'' is not a list of thread counts"),
        (["BUNDLE", "--engine", "tensorflow"], 2, "unknown engine 'tensorflow'; choose one of"),
        (["BUNDLE", "--engine", "onnxruntime"], 2, "export it again with --engine onnxruntime"),
        (["BUNDLE", "--sustained", "0"], 2, "0.0 is not in the range 0<x<=1440"),
        (
            ["BUNDLE", "--name", "a b"],
            2,
            "--name must be 1 to 100 letters, digits and any of '_.+-', a letter, digit or '_' first, got 'a b'",
        ),
        (["/proc/nothing/device.json", "BUNDLE"], 2, "/proc/nothing/device.json cannot be written"),
    ],
)
def test_mistakes_are_refused(bundle, tmp_path, arguments, code, problem):
    arguments = [bundle.path if word == "BUNDLE" else word for word in arguments]
    assert problem in run("profile", *arguments, cwd=tmp_path, code=code)


def test_plots_need_matplotlib(bundle, tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ModuleNotFoundError('gone', name='matplotlib')")
    environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    line = run("profile", bundle.path, "--html", "page.html", cwd=tmp_path, code=2, **environment)
    assert "plots need matplotlib; pip install 'paraedge[train]', or leave the plot out" in line
    assert not (tmp_path / "device.json").exists()


# Over ssh --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    # A login starts with an environment of its own: it is to find the same paraedge as this process.
    source = str(Path(paraedge_runtime.__file__).parents[1])
    places = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), source])
    with ssh_server(tmp_path_factory.mktemp("sshd"), {"PYTHONPATH": places}) as running:
        yield running


@pytest.fixture
def ssh_device(server, tmp_path):
    """Writes ``device.json`` with an ssh connection, changed where a test wants it, and runs a profile."""

    def profile(bundle, code=0, **changes):
        settings = {
            "host": "127.0.0.1",
            "port": server.port,
            "identity_file": str(server.identity_file),
            "python": sys.executable,
            "folder": str(tmp_path / "there" / "bundles"),
        }
        path = tmp_path / "device.json"
        if not path.exists():
            write_device(Device(name="board", connection=Ssh(**{**settings, **changes})), path)
        return run("profile", "device.json", bundle.path, cwd=tmp_path, code=code, PATH=server.path)

    return profile


def test_over_ssh_files_are_pushed_once_and_the_result_comes_back(ssh_device, bundle, tmp_path):
    text = ssh_device(bundle)
    assert "board" in text
    device = read_device(tmp_path / "device.json")
    assert isinstance(device.connection, Ssh)
    assert find_measurement(device, bundle.sha256, "litert", 1).bundle_name == "fashion-mnist"
    (pushed,) = (tmp_path / "there" / "bundles").iterdir()
    assert pushed.name == f"fashion-mnist-{bundle.sha256[:12]}.paraedge"
    before = pushed.stat().st_ino

    ssh_device(bundle)
    assert pushed.stat().st_ino == before, "it was there already"

    (pushed / "stem.tflite").write_bytes(b"damaged")
    ssh_device(bundle)
    assert pushed.stat().st_ino != before
    assert len(read_device(tmp_path / "device.json").measurements) == 1


def test_over_ssh_errors_of_the_device_come_back(ssh_device, bundle, tmp_path):
    (tmp_path / "there").write_text("a file where the folder should be")
    assert "failed with exit code" in ssh_device(bundle, code=1)
    assert read_device(tmp_path / "device.json").measurements == ()


@pytest.mark.parametrize(
    ("changes", "problem", "advice"),
    [
        (
            {"host": "no-such-host.invalid"},
            "no-such-host.invalid cannot be reached",
            "that it is on and runs an ssh server",
        ),
        ({"port": 1}, "Connection refused", "that it is on and runs an ssh server"),
        ({"identity_file": "OTHER"}, "Permission denied (publickey", "ssh-copy-id 127.0.0.1"),
        ({"host": "localhost"}, "Host key verification failed", "run 'ssh localhost' once"),
        ({"python": "no-python"}, "127.0.0.1 has no no-python", "connection.python"),
        ({"python": "BARE"}, "has no paraedge", "-m pip install --upgrade 'paraedge[litert]'"),
        (
            {"python": "NONSENSE"},
            "the device sent an invalid reply: Expected `object`",
            "install this version of paraedge there",
        ),
    ],
    ids=["host", "port", "key", "host key", "python", "paraedge", "nonsense"],
)
def test_over_ssh_what_fails_says_the_next_step(ssh_device, server, bundle, tmp_path, changes, problem, advice):
    bare = tmp_path / "bare-python"  # one without paraedge, and without anything else
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    nonsense = tmp_path / "nonsense"  # an answer by the protocol that says nothing
    nonsense.write_text("#!/bin/sh\necho '{\"result\": 7}'\n")
    nonsense.chmod(0o755)
    words = {"OTHER": str(server.other_identity_file), "BARE": str(bare), "NONSENSE": str(nonsense)}
    line = ssh_device(bundle, code=1, **{name: words.get(value, value) for name, value in changes.items()})
    assert problem in line
    assert advice in line
    assert read_device(tmp_path / "device.json").measurements == ()


def test_without_an_ssh_client(bundle, tmp_path):
    write_device(Device(name="board", connection=Ssh(host="board")), tmp_path / "device.json")
    line = run("profile", "device.json", bundle.path, cwd=tmp_path, code=1, PATH=str(tmp_path))
    assert "ssh cannot be started: No such file or directory; apt install openssh-client" in line


# Without Python on the device: over adb, and over ssh to a board -------------------------------------


@pytest.fixture(scope="module")
def executorch_bundle(bundles, tmp_path_factory):
    return bundles["executorch"].subset((0, 1), tmp_path_factory.mktemp("bundle") / "two.paraedge")


def native_device(kind, folder, tools=None):
    """Its connection, and where it keeps what it is sent."""
    if kind == "adb":
        return Adb(serial="0A1B2C", tools=tools and str(tools), folder=str(folder / "phone")), folder / "phone"
    return Ssh(host="board", tools=tools and str(tools), folder="kept"), folder / "home" / "kept"


def on_device(kind, *arguments, folder, code=1, tools=None, state=None, machine="aarch64", **environment):
    """A command with ``device.json``, a phone or a board; its client is a stand-in with this ``state``, or PATH's."""
    path = folder / "device.json"
    if not path.exists():
        write_device(Device(name="phone", connection=native_device(kind, folder, tools)[0]), path)
    if state is not None:
        stand_in = {"adb": fake_adb, "ssh": fake_ssh}[kind]
        environment["PATH"] = f"{stand_in.install(folder, state, machine)}{os.pathsep}{os.environ['PATH']}"
    said = run(*arguments, cwd=folder, code=code, **environment)
    if code:
        assert read_device(path).measurements == ()
    return said


def over_adb(bundle, folder, **options):
    return on_device("adb", "profile", "device.json", bundle.path, folder=folder, **options)


each_way = pytest.mark.parametrize("kind", ["adb", "ssh"])


def test_over_adb_program_and_bundle_are_pushed_and_answers_become_a_profile(executorch_bundle, tmp_path):
    tools = fake_testbed.install(tmp_path / "tools")
    text = over_adb(executorch_bundle, tmp_path, code=0, tools=tools, state="device")
    assert "phone" in text
    device = read_device(tmp_path / "device.json")
    assert device.hardware is not None
    assert device.hardware.cores == os.cpu_count()
    two = find_measurement(device, executorch_bundle.sha256, "executorch", 2)
    assert two.parts.keys() == {"stem", "branch_00", "branch_01"}
    assert two.request.n >= 50
    assert two.parts["stem"].p50_ms + two.parts["branch_00"].p50_ms < two.request.p95_ms * 2
    assert (two.wakeup_us.p99, two.memory_bytes) == (900.0, 50_000_000)

    (pushed,) = (tmp_path / "phone").glob("*.paraedge")
    assert pushed.name == f"fashion-mnist-{executorch_bundle.sha256[:12]}.paraedge"
    before = pushed.stat().st_ino
    over_adb(executorch_bundle, tmp_path, code=0, state="device")
    assert pushed.stat().st_ino == before, "it was there already"
    assert len(read_device(tmp_path / "device.json").measurements) == len(device.measurements)


NO_PROGRAM = {
    "adb": ("adb", {}, "0A1B2C is reached over adb (aarch64), but .*/cache/phone-tools has no paraedge-testbed; 'make"),
    "adb, other folder": ("adb", {"tools": "nowhere"}, "'connection.tools' is 'nowhere': no folder with paraedge-test"),
    "ssh": (
        "ssh",
        {},
        "board has no python3: .*: not found .aarch64., but .*/cache/phone-tools has no paraedge-testbed; install "
        "Python 3.11 or newer there, or write its path into 'connection.python', or 'make phone-tools' in a checkout",
    ),
    "ssh, other folder": (
        "ssh",
        {"tools": "nowhere"},
        "board is measured without Python .aarch64., but 'connection.tools' is 'nowhere': no folder with paraedge-test",
    ),
}


@pytest.mark.parametrize(("kind", "options", "problem"), NO_PROGRAM.values(), ids=NO_PROGRAM)
def test_without_the_program(executorch_bundle, tmp_path, kind, options, problem):
    line = on_device(
        kind, "profile", "device.json", executorch_bundle.path, folder=tmp_path, state="device",
        PARAEDGE_CACHE=str(tmp_path / "cache"), **options,
    )  # fmt: skip
    assert re.search(problem.replace("(aarch64)", ".aarch64."), line), line
    assert "builds it for 64-bit Arm" in line


@each_way
@pytest.mark.parametrize("machine", ["armv7l", "x86_64"])
def test_tools_of_make_phone_tools_are_for_one_processor(executorch_bundle, tmp_path, kind, machine):
    fake_testbed.install(tmp_path / "cache" / "phone-tools")
    line = on_device(
        kind, "verify", executorch_bundle.path, "--profile", "device.json", folder=tmp_path, state="device",
        machine=machine, PARAEDGE_CACHE=str(tmp_path / "cache"),
    )  # fmt: skip
    assert f"({machine}), but what 'make phone-tools' builds runs on 64-bit Arm only (aarch64); " in line
    assert f"build paraedge-testbed for {machine} and name its folder as 'connection.tools'" in line
    assert not list(native_device(kind, tmp_path)[1].rglob("*")), "nothing was sent"


@each_way
def test_tools_of_make_phone_tools_are_found_and_sent_once(executorch_bundle, tmp_path, kind):
    tools = fake_testbed.install(tmp_path / "cache" / "phone-tools")
    kept = native_device(kind, tmp_path)[1]

    def verify():
        on_device(
            kind, "verify", executorch_bundle.path, "--profile", "device.json", folder=tmp_path, code=0,
            state="device", PARAEDGE_CACHE=str(tmp_path / "cache"),
        )  # fmt: skip

    for _ in range(2):
        verify()
        (first,) = kept.glob("tools-*")
    made = first.stat().st_ino
    (tools / "more").write_text("another version")
    verify()
    assert len(list(kept.glob("tools-*"))) == 2
    assert first.stat().st_ino == made, "it was there already"


@each_way
def test_a_program_that_does_not_run_there(executorch_bundle, tmp_path, kind):
    tools = fake_testbed.install(tmp_path / "tools", broken=True)
    line = on_device(
        kind, "profile", "device.json", executorch_bundle.path, folder=tmp_path, tools=tools, state="device"
    )
    assert 'library "libexecutorch.so" not found; check that it is built for this device' in line


@each_way
def test_a_place_that_cannot_be_written(executorch_bundle, tmp_path, kind):
    kept = native_device(kind, tmp_path)[1]
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("a file where the folder should be")
    line = on_device(
        kind, "profile", "device.json", executorch_bundle.path, folder=tmp_path, state="device",
        tools=fake_testbed.install(tmp_path / "tools"),
    )  # fmt: skip
    assert {"adb": "adb shell to 0A1B2C failed: ", "ssh": "board failed with exit code 1: "}[kind] in line
    assert "File exists; name another folder of the device as 'connection.folder'" in line


@pytest.mark.parametrize(
    ("kind", "found"),
    [("adb", "0A1B2C is reached over adb, so only"), ("ssh", ": not found, so only")],
)
def test_only_executorch_is_measured_without_python(bundle, tmp_path, kind, found):
    line = on_device(kind, "profile", "device.json", bundle.path, folder=tmp_path, code=2, state="device")
    assert f"{found} executorch bundles can be measured there, not litert; " in line
    assert line.endswith("export one with --engine executorch")


@each_way
def test_a_full_device_keeps_no_half_of_it(executorch_bundle, tmp_path, kind):
    line = on_device(
        kind, "profile", "device.json", executorch_bundle.path, folder=tmp_path, state="full",
        tools=fake_testbed.install(tmp_path / "tools"),
    )  # fmt: skip
    assert "No space left on device; 'paraedge profile DEVICE.JSON --clean' removes what paraedge keeps there" in line
    assert list(native_device(kind, tmp_path)[1].iterdir()) == []


@each_way
def test_a_device_that_is_unplugged_meanwhile(executorch_bundle, tmp_path, kind):
    line = on_device(
        kind, "profile", "device.json", executorch_bundle.path, folder=tmp_path, state="unplugged",
        tools=fake_testbed.install(tmp_path / "tools"),
    )  # fmt: skip
    assert {
        "adb": "0A1B2C cannot be reached: error: device '0A1B2C' not found; 'adb devices' lists what is there",
        "ssh": "board cannot be reached: ssh: connect to host board port 22: No route to host; check that it is on",
    }[kind] in line


@each_way
def test_golden_inputs_and_accuracy_are_those_of_this_machine(executorch_bundle, checkpoint, tmp_path, kind):
    """Another process sends the same at the same time."""
    connection, kept = native_device(kind, tmp_path, fake_testbed.install(tmp_path / "tools"))
    write_device(Device(name="phone", connection=connection), tmp_path / "phone.json")
    client = {"adb": fake_adb, "ssh": fake_ssh}[kind].install(tmp_path, "shared")
    assert_runs_there(executorch_bundle, checkpoint.samples, tmp_path, "phone.json", client)
    assert not list(kept.glob("inputs-*"))
    assert not list(kept.rglob("*.new"))


def test_a_board_without_python_is_profiled_and_cleaned(executorch_bundle, tmp_path):
    tools, kept = fake_testbed.install(tmp_path / "cache" / "phone-tools"), tmp_path / "home" / "kept"
    options = {"folder": tmp_path, "code": 0, "state": "device", "PARAEDGE_CACHE": str(tools.parent)}
    text = on_device("ssh", "profile", "device.json", executorch_bundle.path, "--threads", "2", **options)
    assert "\nmeasured without Python, by paraedge-testbed: board has no python3: " in text
    device = read_device(tmp_path / "device.json")
    assert device.hardware.machine == "aarch64"
    two = find_measurement(device, executorch_bundle.sha256, "executorch", 2)
    assert (two.parts.keys(), two.memory_bytes) == ({"stem", "branch_00", "branch_01"}, 50_000_000)
    removed = ", ".join(sorted(path.name for path in kept.iterdir()))
    assert re.fullmatch(r"fashion-mnist-[0-9a-f]{12}\.paraedge, tools-[0-9a-f]{12}", removed)
    said = on_device("ssh", "profile", "device.json", "--clean", **options)
    assert sorted(said.strip().removeprefix("phone: removed ").split(", ")) == removed.split(", ")
    assert not kept.exists()
    assert read_device(tmp_path / "device.json") == device


# What paraedge sends, and what a process leaves there that was killed.
OWN = (
    "tools-0123456789ab", "tools-0123456789ab.aaaaaaaaaaaa.new", "my.model-0123456789ab.paraedge",
    "m-0123456789ab.paraedge.bbbbbbbbbbbb.new", "inputs-0123456789ab", "inputs-0123456789ab.cccccccccccc.new",
)  # fmt: skip
# What looks like it.
FOREIGN = ("tools", "tools-0123456789abc", "model.paraedge", "m-0123456789AB.paraedge", "inputs-1.npy", "a b 'c'\"")


@each_way
def test_clean_removes_what_was_sent_and_nothing_else(tmp_path, kind):
    kept, outside = native_device(kind, tmp_path)[1], tmp_path / "outside"
    for name in (*OWN, *FOREIGN):
        (kept / name).mkdir(parents=True)
        (kept / name / "file").write_text("x")
    outside.mkdir()
    (outside / "precious").write_text("x")
    (kept / OWN[0] / "link").symlink_to(outside)
    (kept / "tools-aaaaaaaaaaaa").symlink_to(outside)
    (kept / "inputs-aaaaaaaaaaaa.npy").write_text("x")
    options = {"folder": tmp_path, "code": 0, "state": "device"}
    document = json.loads(on_device(kind, "profile", "device.json", "--clean", "--json", **options))
    assert sorted(document["removed"]) == sorted([*OWN, "tools-aaaaaaaaaaaa", "inputs-aaaaaaaaaaaa.npy"])
    assert sorted(path.name for path in kept.iterdir()) == sorted(FOREIGN)
    assert (outside / "precious").read_text() == "x"
    again = on_device(kind, "profile", "device.json", "--clean", **options)
    assert again == "phone: removed nothing, nothing was there\n"


@each_way
def test_what_a_killed_process_left_is_removed_by_the_next_one_that_sends(executorch_bundle, tmp_path, kind):
    kept, week_ago = native_device(kind, tmp_path)[1], time.time() - 8 * 86_400
    for name in (*OWN, *FOREIGN):
        (kept / name).mkdir(parents=True)
        os.utime(kept / name, (week_ago, week_ago))
    (kept / "tools-0123456789ab.dddddddddddd.new").mkdir()  # one that is sent now
    on_device(
        kind, "verify", executorch_bundle.path, "--profile", "device.json", folder=tmp_path, code=0, state="device",
        tools=fake_testbed.install(tmp_path / "tools"),
    )  # fmt: skip
    left = {path.name for path in kept.iterdir()}
    assert left >= {OWN[0], OWN[2], "tools-0123456789ab.dddddddddddd.new", *FOREIGN}
    assert not left & {OWN[1], *OWN[3:]}


@pytest.mark.parametrize(
    ("connection", "arguments", "code", "problem"),
    [
        (Local(), [], 2, "nothing is sent to this machine; name the device.json of one that is reached by ssh or adb"),
        (Browser(), [], 2, "nothing is sent to a browser; it removes what pages keep with the data of the site"),
        (Ssh(host="board"), ["one.paraedge"], 2, "--clean removes everything that was sent; leave one.paraedge out"),
        (None, [], 2, "device.json does not exist"),
        (Ssh(host="no-such-host.invalid"), [], 1, "no-such-host.invalid cannot be reached: "),
    ],
)
def test_clean_refuses(tmp_path, connection, arguments, code, problem):
    if connection is not None:
        write_device(Device(name="phone", connection=connection), tmp_path / "device.json")
    assert problem in run("profile", "device.json", *arguments, "--clean", cwd=tmp_path, code=code)


# Over adb --------------------------------------------------------------------------------------


def test_over_adb_the_real_client_finds_no_device(executorch_bundle, tmp_path):
    if shutil.which("adb") is None:
        pytest.skip("needs Debian's adb; 'make test' as root installs it")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    try:
        line = over_adb(executorch_bundle, tmp_path, ANDROID_ADB_SERVER_PORT=port)
    finally:
        subprocess.run(["adb", "kill-server"], env={**os.environ, "ANDROID_ADB_SERVER_PORT": port}, check=False)
    assert "0A1B2C cannot be reached: error: device '0A1B2C' not found; 'adb devices' lists what is there" in line


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ("offline", "error: device offline; unplug it"),
        ("unauthorized", "error: device unauthorized.; unlock it and allow debugging"),
        ("recovery", "0A1B2C cannot be reached: recovery; 'adb devices' lists"),
        ("no permissions", "missing udev rules?; Debian's package android-sdk-platform-tools-common lets users"),
        ("none", "error: device '0A1B2C' not found; 'adb devices' lists what is there; switch on USB debugging"),
        (
            "others",
            "error: device '0A1B2C' not found; attached: 1F2E3D (device), emulator-5554 (offline), E[2JVIL "
            "(unauthorized); is one of these 'connection.serial'?",
        ),
    ],
)
def test_over_adb_what_the_client_says_is_passed_on(executorch_bundle, tmp_path, state, problem):
    assert problem in over_adb(executorch_bundle, tmp_path, state=state)


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ("device", "cache/phone-tools has no paraedge-testbed"),  # it is asked, and answers
        ("unauthorized", "0A1B2C cannot be reached: error: device unauthorized.; unlock it and allow debugging"),
        ("none", "no device is attached; turn on USB debugging, plug it in"),
        (
            "two",
            "2 devices are attached: 0A1B2C (device), 1F2E3D (unauthorized); name one as 'connection.serial' in the",
        ),
    ],
)
def test_over_adb_without_a_serial_it_is_the_only_device(executorch_bundle, tmp_path, state, problem):
    write_device(Device(name="phone", connection=Adb()), tmp_path / "device.json")
    line = over_adb(executorch_bundle, tmp_path, state=state, PARAEDGE_CACHE=str(tmp_path / "cache"))
    assert problem in line


def test_without_an_adb_client(executorch_bundle, tmp_path):
    line = over_adb(executorch_bundle, tmp_path, PATH=str(tmp_path))
    assert "adb cannot be started: No such file or directory; apt install adb" in line


def test_over_ssh_golden_inputs_and_accuracy_are_those_of_this_machine(server, executorch_bundle, checkpoint, tmp_path):
    connection = Ssh(
        host="127.0.0.1", port=server.port, identity_file=str(server.identity_file), python=sys.executable,
        folder=str(tmp_path / "there"),
    )  # fmt: skip
    write_device(Device(name="board", connection=connection), tmp_path / "board.json")
    assert_runs_there(executorch_bundle, checkpoint.samples, tmp_path, "board.json", server.path)
    assert not list((tmp_path / "there").glob("inputs-*"))


def assert_runs_there(bundle, samples, folder, device, path):
    """``verify`` and ``evaluate`` say with ``--profile`` what they say without."""
    images, labels = samples.images[:60, :, :, 0], samples.labels[:60].astype(np.uint8)
    np.savez(folder / "fashion_mnist.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    places = {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}
    verified = [
        json.loads(run("verify", bundle.path, *there, "--json", cwd=folder, **places))
        for there in ((), ("--profile", device))
    ]
    assert verified[0].pop("engine") != verified[1].pop("engine")
    assert verified[0] == verified[1]
    assert verified[1]["passed"]
    accuracy = [
        json.loads(run("evaluate", bundle.path, *there, "--data-dir", folder, "--json", cwd=folder, **places))
        for there in ((), ("--profile", device))
    ]
    assert accuracy[0]["prefix_accuracy"] == accuracy[1]["prefix_accuracy"]
    assert accuracy[1]["num_samples"] == 60
    assert "on the device" in accuracy[1]["source"]

"""Real processes: they begin, they are aligned, and nothing of them is left, whatever ends the one who started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paraedge_measure.deadlines.interference import INTERFERENCES, InterferenceSettings, open_interference
from paraedge_runtime.errors import DeviceError, InputError

SETTINGS = InterferenceSettings(hogs=2, square_period_s=0.05, quota=0.5)
PATIENCE_S = 30
HOGS = {"none": 0, "compute": 2, "memory": 2, "square": 2}


def hogs_of(parent):
    """Process ids of the living hogs that ``parent`` started; zombies are dead."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, ppid = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (folder / "cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        if int(ppid) == parent and state != "Z" and b"hog.py" in command:
            found.append(int(folder.name))
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids):
    until = time.monotonic() + PATIENCE_S
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.01)
    return not any(map(alive, pids))


@pytest.mark.parametrize("name", HOGS)
def test_hogs_live_as_long_as_the_block(name):
    with open_interference(name, SETTINGS) as align:
        pids = hogs_of(os.getpid())
        assert len(pids) == HOGS[name]
        for _ in range(3):
            align(time.monotonic())
        assert all(map(alive, pids))
    assert hogs_of(os.getpid()) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_hogs_end_with_an_error(error):
    def interrupted():
        with open_interference("square", SETTINGS):
            assert len(hogs_of(os.getpid())) == 2
            raise error

    with pytest.raises(error):
        interrupted()
    assert hogs_of(os.getpid()) == []


def busy_s(pid):
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def used_within(pid, seconds):
    before_s = busy_s(pid)
    time.sleep(seconds)
    return busy_s(pid) - before_s


def test_the_square_wave_obeys_its_origin():
    """With a period of an hour, the phase alone decides whether a hog works."""
    hour = InterferenceSettings(hogs=1, square_period_s=3600.0, quota=0.5)
    with open_interference("square", hour) as align:
        (pid,) = hogs_of(os.getpid())
        for begun_s, works in ((0, True), (2000, False), (0, True)):
            align(time.monotonic() - begun_s)
            until = time.monotonic() + PATIENCE_S
            while works != (used_within(pid, 0.2) > 0):
                assert time.monotonic() < until, f"{begun_s} s into its period it should work: {works}"


@pytest.mark.parametrize("name", ["compute", "memory", "square"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_hogs_end_with_their_parent(name, number):
    script = (
        "import time\n"
        "from paraedge_measure.deadlines.interference import InterferenceSettings, open_interference\n"
        f"with open_interference({name!r}, InterferenceSettings(2, 0.05, 0.5)):\n"
        "    print('open', flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        try:
            assert parent.stdout.readline() == b"open\n"
            pids = hogs_of(parent.pid)
            assert len(pids) == 2
            parent.send_signal(number)
            assert gone(pids)
        finally:
            parent.kill()


def test_a_hog_that_somebody_ends_is_noticed():
    with open_interference("compute", SETTINGS) as align:
        pids = hogs_of(os.getpid())
        os.kill(pids[0], signal.SIGKILL)
        assert gone(pids[:1])
        with pytest.raises(DeviceError, match="a compute hog was ended from outside"):
            align(time.monotonic())
    assert hogs_of(os.getpid()) == []


def test_quota_holds_within_the_block_or_is_refused_with_the_way_out():
    def groups():
        return Path("/proc/self/cgroup").read_text()

    before = groups()
    try:
        with open_interference("quota", SETTINGS) as align:
            align(0.0)
            assert f"paraedge-bench-{os.getpid()}" in groups()
    except InputError as error:
        assert "interference 'quota' needs a control group that this user may change" in str(error)  # noqa: PT017
        assert "or leave 'quota' out" in str(error)  # noqa: PT017
    assert groups() == before


def test_unknown_interference_lists_the_known_ones():
    with pytest.raises(InputError, match="unknown interference 'noise'; choose from none, compute, memory, square"):
        open_interference("noise", SETTINGS)
    assert set(INTERFERENCES) == {*HOGS, "quota"}

"""Real processes: they begin, they are aligned, and nothing of them is left, whatever ends the one who started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paraedge_measure.deadlines import interference
from paraedge_measure.deadlines.interference import (
    INTERFERENCES,
    InterferenceSettings,
    open_interference,
    throttle_means,
    throttle_share,
)
from paraedge_measure.hardware import cpu_control_group
from paraedge_runtime.cores import available_cores
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


@pytest.mark.parametrize(
    ("elapsed_s", "share"),
    [(0, 1.0), (9.9, 1.0), (10, 0.875), (25, 0.75), (35, 0.625), (40, 0.5), (55, 0.625), (79, 0.875), (80, 1.0)],
)
def test_throttling_goes_down_in_steps_and_up_again(elapsed_s, share):
    assert throttle_share(elapsed_s, period_s=80.0, least=0.5) == share


def only(monkeypatch, means):
    """Of what may throttle this machine, the one whose words begin so."""
    chosen = {words: opened for words, opened in interference._THROTTLES.items() if words.startswith(means)}
    monkeypatch.setattr(interference, "_THROTTLES", chosen)


FAST = InterferenceSettings(hogs=1, square_period_s=0.1, quota=0.25, throttle_period_s=0.4)


def seen_until(read, wanted):
    """Every value read, until those wanted have been among them."""
    seen, until = set(), time.monotonic() + PATIENCE_S
    while not wanted <= seen:
        assert time.monotonic() < until, f"{wanted} among {seen}"
        seen.add(read())
        time.sleep(0.005)
    return seen


def test_the_highest_clock_goes_down_and_is_afterwards_what_it_was(monkeypatch, tmp_path):
    clocks = [tmp_path / f"policy{number}/scaling_max_freq" for number in (0, 4)]
    for path in clocks:
        path.parent.mkdir()
        path.write_text("2000000\n")
        (path.parent / "cpuinfo_min_freq").write_text("600000\n")
    monkeypatch.setattr(interference, "_CPUFREQ", tmp_path)
    assert throttle_means() == "the highest clock (cpufreq)"
    with open_interference("throttle", FAST) as align:
        seen = seen_until(clocks[1].read_text, {"2000000", "1250000", "600000"})
        align(time.monotonic())
    assert "500000" not in seen  # no core goes below its least
    assert [path.read_text() for path in clocks] == ["2000000\n"] * 2


def test_the_quota_goes_down_and_nothing_of_it_is_left(monkeypatch):
    monkeypatch.setattr(interference, "_CPUFREQ", Path("/nowhere"))
    if not throttle_means().startswith("CPU time"):
        pytest.skip("no control group may be changed here")
    before, cores = Path("/proc/self/cgroup").read_text(), available_cores()
    with open_interference("throttle", FAST) as align:
        version, home = cpu_control_group()
        limit = home / ("cpu.max" if version == 2 else "cpu.cfs_quota_us")
        quotas = {max(round(share * cores * 5000), 1000) for share in (1.0, 0.625, 0.25)}
        seen_until(lambda: int(limit.read_text().split()[0]), quotas)
        align(0.0)
    assert Path("/proc/self/cgroup").read_text() == before
    assert not home.exists()


def test_where_neither_may_be_set_hogs_take_the_time_and_say_that_they_stand_in(monkeypatch):
    only(monkeypatch, "hogs")
    assert throttle_means() == "hogs that take CPU time, a stand-in"
    with open_interference("throttle", FAST):
        pids = hogs_of(os.getpid())
        assert len(pids) == 3 * available_cores()
        until = time.monotonic() + PATIENCE_S
        while used_within(pids[0], 0.1) == 0:
            assert time.monotonic() < until
    assert hogs_of(os.getpid()) == []
    full_speed = InterferenceSettings(hogs=1, square_period_s=0.1, quota=0.25, throttle_period_s=3600.0)
    with open_interference("throttle", full_speed):
        (pid, *_) = hogs_of(os.getpid())
        until = time.monotonic() + PATIENCE_S
        while used_within(pid, 0.2) > 0:
            assert time.monotonic() < until, "at full speed nothing is taken"


def test_a_throttle_that_fails_under_way_is_noticed(monkeypatch):
    only(monkeypatch, "hogs")
    with open_interference("throttle", FAST) as align:
        for pid in hogs_of(os.getpid()):
            os.kill(pid, signal.SIGKILL)

        def notice():
            until = time.monotonic() + PATIENCE_S
            while time.monotonic() < until:
                align(time.monotonic())
                time.sleep(0.01)

        with pytest.raises(DeviceError, match="could not be slowed down any more"):
            notice()


def test_unknown_interference_lists_the_known_ones():
    with pytest.raises(InputError, match="unknown interference 'noise'; choose from none, compute, memory, square"):
        open_interference("noise", SETTINGS)
    assert set(INTERFERENCES) == {*HOGS, "quota", "throttle"}

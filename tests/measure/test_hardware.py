"""What is read from /proc and /sys: folders as real machines have them, and what is missing stays unknown."""

import os

import pytest

from paraedge_measure.hardware import (
    firmware_limits,
    read_busy_s,
    read_firmware_word,
    read_frequency_mhz,
    read_hardware,
    read_quota_cores,
    read_temperature_c,
    read_throttling,
)

CPU = "sys/devices/system/cpu"
PI_5 = {
    f"{CPU}/present": "0-3\n",
    **{f"{CPU}/cpu{core}/cpufreq/cpuinfo_max_freq": "2400000\n" for core in range(4)},
    **{f"{CPU}/cpu{core}/cpufreq/scaling_governor": "ondemand\n" for core in range(4)},
    **{f"{CPU}/cpu{core}/cpufreq/scaling_cur_freq": f"{1500000 + core}\n" for core in range(4)},
    "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 108.00\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\n"
    "processor\t: 1\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\nModel\t\t: Raspberry Pi 5\n",
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/meminfo": "MemTotal:        8257984 kB\nMemFree:         100 kB\n",
    "etc/os-release": 'ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48750\n",
}
CAPACITIES = [250] * 4 + [760] * 3 + [1024]
PHONE = {
    f"{CPU}/present": "0-7\n",
    **{
        f"{CPU}/cpu{core}/cpu_capacity": f"{capacity}\n" for core, capacity in enumerate([250] * 4 + [760] * 3 + [1024])
    },
    **{f"{CPU}/cpu{core}/cpufreq/cpuinfo_max_freq": "1800000\n" for core in range(8)},
    **{f"{CPU}/cpu{core}/cpufreq/scaling_governor": f"{name}\n" for core, name in [(0, "walt"), (7, "performance")]},
    "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd05\n\nprocessor\t: 7\n"
    "CPU implementer\t: 0x41\nCPU part\t: 0xd44\n\nHardware\t: Qualcomm SM8350\n",
}
SERVER = {
    f"{CPU}/present": "0-1\n",
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD EPYC 7763 64-Core Processor\ncpu MHz\t\t: 2445.4\n",
    "proc/meminfo": "MemTotal:       24684092 kB\n",
    "sys/class/hwmon/hwmon0/name": "nvme\n",
    "sys/class/hwmon/hwmon0/temp1_input": "91000\n",
    "sys/class/hwmon/hwmon1/name": "k10temp\n",
    "sys/class/hwmon/hwmon1/temp1_input": "51000\n",
    "sys/class/hwmon/hwmon1/temp3_input": "56000\n",
}


@pytest.fixture
def system(tmp_path):
    """A folder with these files: path -> text."""

    def make(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(
            PI_5,
            {
                "os": "Debian GNU/Linux 12 (bookworm)",
                "cpu": "Raspberry Pi 5 Model B Rev 1.0 0x41:0xd0b",
                "cores": 4,
                "clusters": ((0, 1, 2, 3),),
                "max_frequency_mhz": (2400.0,) * 4,
                "governor": "ondemand",
                "memory_bytes": 8257984 * 1024,
            },
            id="Raspberry Pi",
        ),
        pytest.param(
            PHONE,
            {
                "cpu": "Qualcomm SM8350 0x41:0xd05 0x41:0xd44",
                "cores": 8,
                "clusters": ((7,), (4, 5, 6), (0, 1, 2, 3)),
                "max_frequency_mhz": (1800.0,) * 8,
                "governor": "performance walt",
                "memory_bytes": None,
            },
            id="phone with three clusters",
        ),
        pytest.param(
            SERVER,
            {
                "cpu": "AMD EPYC 7763 64-Core Processor",
                "cores": 2,
                "clusters": (),
                "max_frequency_mhz": None,
                "governor": None,
            },
            id="virtual machine",
        ),
        pytest.param(
            {},
            {
                "cpu": None,
                "cores": os.cpu_count(),
                "clusters": (),
                "max_frequency_mhz": None,
                "governor": None,
                "memory_bytes": None,
            },
            id="nothing",
        ),
        pytest.param(
            {f"{CPU}/present": "all of them", "proc/meminfo": "MemTotal: lots kB\n", "proc/cpuinfo": "model name\n"},
            {"cpu": None, "cores": os.cpu_count(), "memory_bytes": None},
            id="nonsense",
        ),
        pytest.param(
            {**PI_5, f"{CPU}/cpu3/cpufreq/cpuinfo_max_freq": ""},
            {"cores": 4, "clusters": (), "max_frequency_mhz": None},
            id="one core does not tell",
        ),
        pytest.param(
            {f"{CPU}/present": "0,2-3", **{f"{CPU}/cpu{core}/cpu_capacity": "1024" for core in (0, 2, 3)}},
            {"cores": 3, "clusters": ((0, 2, 3),)},
            id="a core that is not there",
        ),
        pytest.param(
            {"proc/cpuinfo": "model name : evil \x1b[31m name\n"}, {"cpu": "evil [31m name"}, id="terminal codes"
        ),
    ],
)
def test_hardware(system, files, expected):
    hardware = read_hardware(system(files))
    assert {name: getattr(hardware, name) for name in expected} == expected


def test_the_fingerprint_is_of_the_machine_not_of_its_state(system, tmp_path):
    before = read_hardware(system(PI_5)).fingerprint
    changed = {f"{CPU}/cpu0/cpufreq/scaling_governor": "performance", "etc/os-release": 'PRETTY_NAME="Debian 13"'}
    assert read_hardware(system(changed)).fingerprint == before
    assert read_hardware(system({"proc/meminfo": "MemTotal: 4000000 kB\n"})).fingerprint != before


def test_this_machine_is_read():
    hardware = read_hardware()
    assert hardware.cores >= 1
    assert hardware.machine
    assert read_hardware() == hardware


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (PI_5, 48.75),
        (SERVER, 56.0),  # the processor's hottest sensor, not the disk's
        (PHONE, None),
        ({"sys/class/thermal/thermal_zone0/type": "battery", "sys/class/thermal/thermal_zone0/temp": "31000"}, None),
        ({**PI_5, "sys/class/thermal/thermal_zone0/temp": "-274000"}, None),
        ({**PI_5, "sys/class/thermal/thermal_zone0/temp": ""}, None),
    ],
    ids=["zone", "monitor", "none", "battery", "a sensor that is off", "empty"],
)
def test_temperature(system, files, expected):
    assert read_temperature_c(system(files)) == expected


@pytest.mark.parametrize(("files", "expected"), [(PI_5, 1500.003), (SERVER, None), ({}, None)])
def test_frequency(system, files, expected):
    assert read_frequency_mhz(system(files)) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (False, 0)),
        ({"sys/class/thermal/cooling_device0/type": "Processor"}, (False, 0)),
        (
            {
                "sys/class/thermal/cooling_device0/type": "thermal-cpufreq-0",
                "sys/class/thermal/cooling_device0/cur_state": "2",
            },
            (True, 0),
        ),
        (
            {
                "sys/class/thermal/cooling_device0/type": "pwm-fan",
                "sys/class/thermal/cooling_device0/cur_state": "3",
            },
            (False, 0),
        ),
        (
            {
                f"{CPU}/cpu0/thermal_throttle/core_throttle_count": "3",
                f"{CPU}/cpu1/thermal_throttle/package_throttle_count": "4",
            },
            (False, 7),
        ),
    ],
    ids=["nothing", "no state", "cooling", "a fan", "counters"],
)
def test_throttling(system, files, expected):
    assert read_throttling(system(files)) == expected


STAT = "cpu  60 0 0 400 0 0 0 0 0 0\ncpu0 10 1 2 100 50 3 4 5 0 0\ncpu1 20 0 0 100 0 0 0 0 0 0\nintr 5\n"


@pytest.mark.parametrize(
    ("stat", "cores", "ticks"),
    [
        (STAT, {0}, 25),  # user, nice, system, interrupts, stolen; not idle nor waiting for a disk
        (STAT, {0, 1}, 45),
        (STAT, {7}, None),
        ("cpu0 1 2\n", {0}, None),
        ("", {0}, None),
    ],
)
def test_busy_time(system, stat, cores, ticks):
    busy_s = read_busy_s(cores, system({"proc/stat": stat}))
    assert busy_s == (None if ticks is None else ticks / os.sysconf("SC_CLK_TCK"))


def test_busy_time_of_this_machine_grows():
    cores = range(os.cpu_count())
    before = read_busy_s(cores)
    if before is None:
        pytest.skip("this system has no /proc/stat")
    assert 0 < before <= read_busy_s(cores)


FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({FIRMWARE: "0\n"}, 0),
        ({FIRMWARE: "50005\n"}, 0x50005),
        ({"sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "0x80008\n"}, 0x80008),
        ({FIRMWARE: "none\n"}, None),
        ({"sys/class/hwmon/hwmon2/name": "rpi_volt\n", "sys/class/hwmon/hwmon2/in0_lcrit_alarm": "1\n"}, 1),
        ({"sys/class/hwmon/hwmon2/name": "rpi_volt\n", "sys/class/hwmon/hwmon2/in0_lcrit_alarm": "0\n"}, 0),
        ({"sys/class/hwmon/hwmon2/name": "nvme\n", "sys/class/hwmon/hwmon2/in0_lcrit_alarm": "1\n"}, None),
    ],
    ids=["nothing", "all well", "word", "Raspberry Pi 5", "nonsense", "under-voltage", "no alarm", "another monitor"],
)
def test_what_the_firmware_of_a_raspberry_pi_says(system, files, expected):
    assert read_firmware_word(system(files)) == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo throttled=0x50005", 0x50005),
        ("echo throttled=0x0", 0),
        ("echo VCHI initialization failed; exit 255", None),
        ("sleep 60", None),
        ("head -c 100000000 /dev/zero", None),
    ],
    ids=["word", "all well", "no firmware", "hangs", "floods"],
)
def test_vcgencmd_is_asked_on_this_machine(tmp_path, monkeypatch, script, expected):
    program = tmp_path / "vcgencmd"
    program.write_text(f'#!/bin/sh\n[ "$1" = get_throttled ] || exit 1\n{script.replace("sleep", "exec sleep")}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert read_firmware_word() == expected


@pytest.mark.parametrize(
    ("before", "now", "limits"),
    [
        (None, None, None),
        (0, None, None),
        (0, 0, ()),
        (0, 0x50005, ("under-voltage", "throttled")),
        (0x50000, 0x50000, ()),  # it happened before
        (0x50000, 0xD0000, ("soft temperature limit",)),  # it happened meanwhile
        (0, 0x20002, ("frequency capped",)),
        (None, 0x2, ("frequency capped",)),
    ],
)
def test_firmware_limits_are_those_of_now_and_of_meanwhile(before, now, limits):
    assert firmware_limits(before, now) == limits


# A container's quota ---------------------------------------------------------------------------

_V2 = ("0::/pod\n", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", "sys/fs/cgroup/pod")
_V1 = ("3:cpu,cpuacct:/pod\n0::/\n", "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu,cpuacct 0 0\n", "sys/fs/cgroup/cpu/pod")


@pytest.mark.parametrize(
    ("group", "files", "cores"),
    [
        (_V2, {"cpu.max": "150000 100000\n"}, 1.5),
        (_V2, {"cpu.max": "max 100000\n"}, None),
        (_V2, {"cpu.max": "nonsense\n"}, None),
        (_V2, {}, None),
        (_V1, {"cpu.cfs_quota_us": "200000\n", "cpu.cfs_period_us": "100000\n"}, 2.0),
        (_V1, {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, None),
    ],
)
def test_a_control_group_s_quota_is_read(tmp_path, group, files, cores):
    groups, mounts, folder = group
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    (tmp_path / "proc/self/mounts").write_text(mounts)
    (tmp_path / folder).mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / folder / name).write_text(text)
    assert read_quota_cores(tmp_path) == cores


def test_no_control_group_is_no_quota(tmp_path):
    assert read_quota_cores(tmp_path) is None

"""What this machine is and how it is doing, from /proc and /sys; what the system does not tell is ``None``.

Linux and Android tell most of it. Elsewhere the number of cores and what Python's ``platform`` says is left.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

from paraedge_measure._plain_line import plain_line
from paraedge_measure.device import FirmwareLimit, Hardware, hardware_fingerprint

__all__ = [
    "cpu_control_group",
    "firmware_limits",
    "read_busy_s",
    "read_firmware_word",
    "read_frequency_mhz",
    "read_hardware",
    "read_quota_cores",
    "read_temperature_c",
    "read_throttling",
]

ROOT = Path("/")

_MAX_CORES = 10_000
# Thermal zones and hardware monitors that stand for the processor, by the beginning of their names.
_CPU_ZONES = ("x86_pkg_temp", "cpu", "soc", "tsens_tz_sensor", "mtktscpu", "big", "little")
_CPU_MONITORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
# Cooling devices that slow the processor down; a fan is none of them.
_CPU_COOLING = ("Processor", "thermal-cpufreq", "cpufreq", "thermal-cpu", "intel_powerclamp")
# Bits of a Raspberry Pi's throttling word, as https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
# lists them; 16 further on each stands for "has happened since the system started".
_FIRMWARE_LIMITS: dict[int, FirmwareLimit] = {
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
_HAPPENED_SHIFT = 16
_VCGENCMD_LIMIT_S = 2.0


def read_hardware(root: Path = ROOT, *, machine: str = "", kernel: str = "") -> Hardware:
    """Read the hardware of this machine.

    A cluster is the cores with the same ``cpu_capacity`` (Arm), or else the same maximum frequency, as in the native
    core.

    Args:
        root: folder that contains /proc, /sys and /etc.
        machine: output of ``uname -m``, if ``root`` belongs to another machine.
        kernel: output of ``uname -sr`` there.
    """
    cpus = root / "sys/devices/system/cpu"
    numbers = _core_list(_text(cpus / "present")) or list(range(os.cpu_count() or 1))
    highest_khz = [_number(cpus / f"cpu{core}/cpufreq/cpuinfo_max_freq") for core in numbers]
    capacities = [_number(cpus / f"cpu{core}/cpu_capacity") for core in numbers]
    frequencies = tuple(khz / 1e3 for khz in highest_khz if khz is not None and khz > 0)
    governors = sorted({name for core in numbers if (name := _text(cpus / f"cpu{core}/cpufreq/scaling_governor"))})
    machine = machine or platform.machine() or "unknown"
    cpu = _cpu_name(root)
    clusters = _clusters(numbers, capacities) or _clusters(numbers, highest_khz)
    max_frequency_mhz = frequencies if len(frequencies) == len(numbers) else None
    memory_bytes = _memory_bytes(root)
    return Hardware(
        machine=machine,
        os=_os_name(root),
        kernel=kernel or f"{platform.system()} {platform.release()}".strip() or "unknown",
        cpu=cpu,
        cores=len(numbers),
        clusters=clusters,
        max_frequency_mhz=max_frequency_mhz,
        governor=_label(" ".join(governors)) or None,
        memory_bytes=memory_bytes,
        fingerprint=hardware_fingerprint(
            machine=machine,
            cpu=cpu,
            cores=len(numbers),
            clusters=clusters,
            max_frequency_mhz=max_frequency_mhz,
            memory_bytes=memory_bytes,
        ),
    )


def read_temperature_c(root: Path = ROOT) -> float | None:
    """Of the processor's hottest sensor."""
    found: list[float] = []
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        if (_text(zone / "type") or "").lower().startswith(_CPU_ZONES):
            found += _degrees(zone / "temp")
    for monitor in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if (_text(monitor / "name") or "").lower().startswith(_CPU_MONITORS):
            for sensor in sorted(monitor.glob("temp*_input")):
                found += _degrees(sensor)
    return max(found, default=None)


def read_frequency_mhz(root: Path = ROOT) -> float | None:
    """At which the fastest core runs now."""
    cpus = root / "sys/devices/system/cpu"
    found = [_number(path) for path in cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    return max((khz / 1e3 for khz in found if khz is not None and khz > 0), default=None)


def read_throttling(root: Path = ROOT) -> tuple[bool, int]:
    """Whether the system slows the processor down now to cool it, and how often it has done so since it started.

    Cooling devices of the processor tell the first, the throttle counters of x86 the second; both stay
    at ``False`` and 0 where there is neither.
    """
    cooling = False
    for device in (root / "sys/class/thermal").glob("cooling_device*"):
        if (_text(device / "type") or "").startswith(_CPU_COOLING):
            cooling = cooling or (_number(device / "cur_state") or 0) > 0
    counters = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/*_throttle_count")
    return cooling, sum(_number(path) or 0 for path in counters)


def read_firmware_word(root: Path = ROOT) -> int | None:
    """A Raspberry Pi's throttling word: its firmware lowers the clock by itself, and cpufreq does not show that.

    From the firmware's driver, else from ``vcgencmd get_throttled``, else under-voltage alone from the monitor
    ``rpi_volt``; ``None`` where there is none of these.
    """
    for path in sorted((root / "sys/devices/platform").glob("soc*/soc*:firmware/get_throttled")):
        if (word := _word(_text(path))) is not None:
            return word
    if root == ROOT and (word := _word(_vcgencmd())) is not None:
        return word
    for monitor in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if _text(monitor / "name") == "rpi_volt" and (alarm := _number(monitor / "in0_lcrit_alarm")) is not None:
            return int(alarm > 0)
    return None


def firmware_limits(before: int | None, now: int | None) -> tuple[FirmwareLimit, ...] | None:
    """What the firmware limits now, or has limited since it said ``before``; ``None`` where it says nothing."""
    if now is None:
        return None
    happened = (now & ~(before or 0)) >> _HAPPENED_SHIFT
    return tuple(name for bit, name in _FIRMWARE_LIMITS.items() if (now | happened) >> bit & 1)


def read_busy_s(cores: Collection[int], root: Path = ROOT) -> float | None:
    """Seconds that ``cores`` have worked since the system started; what a hypervisor took away counts too."""
    ticks = 0
    seen = False
    for line in (_text(root / "proc/stat") or "").splitlines():
        name, *columns = line.split()
        is_core = re.fullmatch(r"cpu[0-9]{1,4}", name) is not None and int(name[3:]) in cores
        if is_core and len(columns) >= 8 and all(re.fullmatch(r"[0-9]{1,15}", column) for column in columns[:8]):
            user, nice, system, _, _, irq, softirq, steal = map(int, columns[:8])
            ticks += user + nice + system + irq + softirq + steal
            seen = True
    return ticks / os.sysconf("SC_CLK_TCK") if seen else None


def cpu_control_group(root: Path = ROOT) -> tuple[int, Path]:
    """Version and folder of the control group that limits this process's CPU time.

    Raises:
        OSError: there is none.
    """
    groups = {}  # controllers -> path
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path))
    for line in (root / "proc/self/mounts").read_text().splitlines():
        _, folder, kind, options = line.split()[:4]
        if kind == "cgroup" and "cpu" in options.split(",") and "cpu" in groups:
            return 1, Path(folder + groups["cpu"])
        if kind == "cgroup2" and "cpu" not in groups and "" in groups:
            return 2, Path(folder + groups[""])
    raise FileNotFoundError("no control groups for the CPU are mounted")


def read_quota_cores(root: Path = ROOT) -> float | None:
    """Cores' worth of CPU time that a control group, such as a container's, allows; ``None`` without a limit."""
    try:
        version, folder = cpu_control_group(root)
    except (OSError, ValueError):  # another system, or one that hides it
        return None
    inside = root / folder.relative_to("/")
    if version == 2:
        quota, _, period = (_text(inside / "cpu.max") or "max").partition(" ")
    else:
        quota, period = (_text(inside / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period"))
    if not re.fullmatch(r"[1-9][0-9]{0,14}", quota) or not re.fullmatch(r"[1-9][0-9]{0,14}", period):
        return None  # "max", "-1": no limit
    return int(quota) / int(period)


def _text(path: Path) -> str | None:
    try:
        # A device tree ends its texts with a NUL.
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n\t") or None
    except OSError:
        return None


def _vcgencmd() -> str | None:
    """What the firmware's own program says, where it is installed."""
    program = shutil.which("vcgencmd")
    if program is None:
        return None
    command = [program, "get_throttled"]
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_VCGENCMD_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout[:200].decode(errors="replace").strip().removeprefix("throttled=")


def _word(text: str | None) -> int | None:
    """``0x50005`` or ``50005``, which are hexadecimal both."""
    found = re.fullmatch(r"(?:0x)?([0-9a-fA-F]{1,8})", text or "")
    return int(found[1], 16) if found else None


def _number(path: Path) -> int | None:
    text = _text(path) or ""
    return int(text) if re.fullmatch(r"-?[0-9]{1,15}", text) else None


def _degrees(path: Path) -> list[float]:
    """Zero or one temperature; a sensor that is off reads as something no processor survives."""
    millidegrees = _number(path)
    return [millidegrees / 1e3] if millidegrees is not None and -40_000 < millidegrees < 150_000 else []


def _core_list(text: str | None) -> list[int]:
    """``0-3,6`` -> [0, 1, 2, 3, 6]; empty where it is something else."""
    cores: list[int] = []
    for piece in (text or "").split(","):
        found = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", piece)
        if found is None or len(cores) > _MAX_CORES:
            return []
        cores += range(int(found[1]), int(found[2] or found[1]) + 1)
    return cores


def _clusters(cores: list[int], speeds: list[int | None]) -> tuple[tuple[int, ...], ...]:
    known = [speed for speed in speeds if speed is not None]
    if len(known) < len(cores):
        return ()
    groups = {speed: tuple(core for core, own in zip(cores, known, strict=True) if own == speed) for speed in known}
    return tuple(groups[speed] for speed in sorted(groups, reverse=True))


def _cpu_name(root: Path) -> str | None:
    """x86 has a model name; Arm has numbers of makers and designs, and boards name themselves."""
    fields: dict[str, list[str]] = {}
    for line in (_text(root / "proc/cpuinfo") or "").splitlines():
        key, colon, value = line.partition(":")
        if colon and value.strip():
            fields.setdefault(key.strip(), []).append(value.strip())
    if "model name" in fields:
        return _label(fields["model name"][0])
    board = _text(root / "proc/device-tree/model") or next(iter(fields.get("Hardware", [])), None)
    designs = sorted(set(zip(fields.get("CPU implementer", []), fields.get("CPU part", []), strict=False)))
    pieces = [board or "", *(f"{maker}:{design}" for maker, design in designs)]
    return _label(" ".join(piece for piece in pieces if piece)) or None


def _memory_bytes(root: Path) -> int | None:
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        key, _, value = line.partition(":")
        words = value.split()
        if key == "MemTotal" and len(words) == 2 and re.fullmatch(r"[0-9]{1,12}", words[0]) and words[1] == "kB":
            return int(words[0]) * 1024 or None
    return None


def _os_name(root: Path) -> str:
    for line in (_text(root / "etc/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME" and (name := _label(value.strip().strip('"'))):
            return name
    return platform.system() or "unknown"


def _label(text: str) -> str:
    """On one line, without what a terminal would take for a command."""
    return plain_line(text, 200)

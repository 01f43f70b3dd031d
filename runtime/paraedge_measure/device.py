"""``device.json``: what a device is and what was measured on it; every rule that can be checked in the file.

The format, and what each number means, is specified in ``docs/device-profile.md``.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shlex
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec.structs import replace

from paraedge_runtime._arguments import as_instance, as_instances, as_path
from paraedge_runtime._reading import read_bounded
from paraedge_runtime.atomic import new_file
from paraedge_runtime.errors import DeviceError, ProfileError

__all__ = [
    "DEFAULT_PYTHON",
    "FORMAT",
    "MAX_OTHER_LOAD",
    "P99_MIN_RUNS",
    "Adb",
    "Browser",
    "Device",
    "FirmwareLimit",
    "Hardware",
    "Local",
    "Measurement",
    "PartLatency",
    "Ssh",
    "Sustained",
    "SustainedMinute",
    "TimerJitter",
    "WakeUp",
    "check_machine",
    "check_name",
    "decode_device",
    "encode_device",
    "find_measurement",
    "foreign_measurement",
    "hardware_fingerprint",
    "merge",
    "read_device",
    "write_device",
]

FORMAT = "paraedge-device/1"
MAX_DEVICE_BYTES = 16 << 20
DEFAULT_PYTHON = "python3"
_FORMAT_PATTERN = re.compile(r"paraedge-device/([0-9]{1,6})")

P99_MIN_RUNS = 1000
# Above this share of the CPU used by others, a measurement says more about them than about the device.
MAX_OTHER_LOAD = 0.10

_LABEL = r"^[^\x00-\x1f\x7f]{1,200}\Z"
_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}\Z"
_WORD = r"^[A-Za-z0-9_./:][A-Za-z0-9_./:@%+=,-]{0,499}\Z"
# The same for people, in messages.
_PATTERN_TEXTS = {
    _LABEL: "1 to 200 characters, none of them a control character",
    _NAME: "1 to 100 letters, digits and any of '_.+-', a letter, digit or '_' first",
    _WORD: "1 to 500 letters, digits and any of '_./:@%+=,-', none of '@%+=,-' first",
}
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Label = Annotated[str, msgspec.Meta(pattern=_LABEL)]
Name = Annotated[str, msgspec.Meta(pattern=_NAME)]
# Handed to ssh, adb and a remote shell: nothing that could be read as an option, or as two words.
Word = Annotated[str, msgspec.Meta(pattern=_WORD)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Fingerprint = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
Time = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")]
Positive = Annotated[int, msgspec.Meta(ge=1, le=1 << 53)]
Core = Annotated[int, msgspec.Meta(ge=0, le=99_999)]
Duration = Annotated[float, msgspec.Meta(ge=0)]
Above0 = Annotated[float, msgspec.Meta(gt=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
# What the firmware of a Raspberry Pi limits, in its own words.
FirmwareLimit = Literal["under-voltage", "frequency capped", "throttled", "soft temperature limit"]


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Local(_Record, frozen=True, kw_only=True, tag_field="kind", tag="local"):
    """The machine that reads the file."""


class Ssh(_Record, frozen=True, kw_only=True, tag_field="kind", tag="ssh"):
    """A device that the OpenSSH client reaches without a question: a key, and a known host.

    ``python`` has paraedge installed. Where ``tools`` is named, or there is no ``python3`` with paraedge, a program
    without Python measures, as over adb. ``folder`` is where bundles are kept, from the user's home.
    """

    host: Word
    user: Name | None = None
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    identity_file: Label | None = None
    python: Word = DEFAULT_PYTHON
    tools: Label | None = None
    folder: Word = "paraedge"


class Adb(_Record, frozen=True, kw_only=True, tag_field="kind", tag="adb"):
    """A device that ``adb devices`` lists: the one with this serial, or the only one when it is not named.

    ``tools`` is a folder of this machine with ``paraedge-testbed``, built for the device, and the
    libraries it needs; the one that ``make phone-tools`` makes when it is not named. ``folder`` is where
    that and bundles are kept over there.
    """

    serial: Word | None = None
    tools: Label | None = None
    folder: Word = "/data/local/tmp/paraedge"


class Browser(_Record, frozen=True, kw_only=True, tag_field="kind", tag="browser"):
    """A device with a browser, whose page measured it; nothing reaches it from here."""


class Hardware(_Record, frozen=True, kw_only=True):
    """The hardware of a machine. What the system does not report is ``null``.

    ``cores`` counts the machine's cores, including those that this process may not use. ``clusters`` groups core
    numbers by speed, fastest first; it is empty if the system does not report speeds.
    ``fingerprint`` names the kind of machine, see :func:`hardware_fingerprint`.
    """

    machine: Label
    os: Label
    kernel: Label
    cpu: Label | None
    cores: Positive
    clusters: tuple[tuple[Core, ...], ...]
    max_frequency_mhz: tuple[Above0, ...] | None
    governor: Label | None
    memory_bytes: Positive | None
    fingerprint: Fingerprint


class PartLatency(_Record, frozen=True, kw_only=True):
    """Times of ``n`` runs, in milliseconds, and of the first run in a fresh process, which is not one of them."""

    n: Positive
    min_ms: Duration
    p50_ms: Duration
    p90_ms: Duration
    p95_ms: Duration
    p99_ms: Duration | None
    first_ms: Duration


class TimerJitter(_Record, frozen=True, kw_only=True):
    """Microseconds between two readings of the clock in a loop that does nothing else."""

    p50: Duration
    p99: Duration
    p999: Duration


class WakeUp(_Record, frozen=True, kw_only=True):
    """Microseconds by which a thread that sleeps for a millisecond wakes up late."""

    p50: Duration
    p99: Duration


class SustainedMinute(_Record, frozen=True, kw_only=True):
    """A minute of requests without a pause, the last one perhaps a shorter one; what is read is read at its end."""

    n: Positive
    p50_ms: Duration
    p95_ms: Duration
    temperature_c: float | None
    frequency_mhz: Above0 | None
    throttled: bool
    firmware_limits: tuple[FirmwareLimit, ...] | None
    other_load: Fraction | None


class Sustained(_Record, frozen=True, kw_only=True):
    """How whole requests go on when the device gets no rest: minute by minute."""

    measured_at: Time
    minutes: Annotated[tuple[SustainedMinute, ...], msgspec.Meta(min_length=1, max_length=1440)]


class Measurement(_Record, frozen=True, kw_only=True):
    """One bundle with one engine on one number of threads. ``docs/device-profile.md`` has every field."""

    bundle_name: Name
    bundle_sha256: Sha256
    engine: Name
    engine_version: Label
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)]
    measured_at: Time
    parts: dict[str, PartLatency]
    request: PartLatency
    contention: tuple[Above0, ...]
    load_ms: Duration
    memory_bytes: Positive | None
    timer_jitter_us: TimerJitter
    wakeup_us: WakeUp
    temperature_start_c: float | None
    temperature_end_c: float | None
    frequency_start_mhz: Above0 | None
    frequency_end_mhz: Above0 | None
    throttled: bool
    other_load: Fraction | None
    valid: bool
    firmware_limits: tuple[FirmwareLimit, ...] | None = None
    sustained: Sustained | None = None

    @property
    def branches(self) -> dict[str, PartLatency]:
        """``branch_NN`` -> latency, in the bundle's order."""
        return {name: latency for name, latency in self.parts.items() if name != "stem"}


class Device(_Record, frozen=True, kw_only=True):
    """The contents of ``device.json``. ``hardware`` is ``null`` before the first measurement."""

    format: Literal["paraedge-device/1"] = "paraedge-device/1"
    name: Name
    connection: Local | Ssh | Adb | Browser = Local()
    hardware: Hardware | None = None
    measurements: tuple[Measurement, ...] = ()


def hardware_fingerprint(
    *,
    machine: str,
    cpu: str | None,
    cores: int,
    clusters: tuple[tuple[int, ...], ...],
    max_frequency_mhz: tuple[float, ...] | None,
    memory_bytes: int | None,
) -> str:
    """16 hexadecimal digits that are equal on two machines of one kind.

    Memory counts as the next power of two: a kernel keeps some of it for itself, and not always as much.
    """
    rounded = None if memory_bytes is None else 1 << (memory_bytes - 1).bit_length()
    identity = [machine, cpu, cores, clusters, max_frequency_mhz, rounded]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def encode_device(device: Device) -> bytes:
    """The bytes of ``device.json``: indented JSON, fields in their declared order."""
    return msgspec.json.format(msgspec.json.encode(device), indent=2) + b"\n"


def decode_device(raw: bytes, source: str = "device.json") -> Device:
    """Parse and check ``device.json``.

    Raises:
        ProfileError: not JSON, cut off, an unknown or missing field, a wrong type, a newer format, or
            fields that contradict each other. The message names ``source`` and the field.
    """
    if len(raw) > MAX_DEVICE_BYTES:
        raise ProfileError(f"{source} has {len(raw)} bytes, more than the {MAX_DEVICE_BYTES} allowed; profile anew")
    try:
        version = msgspec.json.decode(raw, type=_FormatOnly).format
        known = _FORMAT_PATTERN.fullmatch(version)
        if known and int(known[1]) > 1:
            raise ProfileError(f"{source}: field 'format' is {version!r}, newer than {FORMAT!r}; update paraedge")
        device = msgspec.json.decode(raw, type=Device)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProfileError(f"{source}: {_plain(error, raw)}; fix the file, or profile into another one") from error
    _check(device, source)
    return device


def _plain(error: Exception, raw: bytes) -> str:
    """The error with a pattern in words, and the value that does not match it."""
    said = str(error)
    for pattern, words in _PATTERN_TEXTS.items():
        expected, colon, path = said.partition(f"`str` matching regex {pattern!r} - at `$")
        if colon:
            value = _text_at(raw, path)
            got = "" if value is None else f", got {value[:80]!r}"
            return f"{expected}{words}{got} - at `${path}"
    return said


def _text_at(raw: bytes, path: str) -> str | None:
    """The string at a path of msgspec's; ``None`` if what follows it is no JSON, or has the same name once more."""
    try:
        value = msgspec.json.decode(raw)
        for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", path):
            value = value[key or int(index)]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, LookupError, TypeError):
        return None
    return value if isinstance(value, str) else None


class _FormatOnly(msgspec.Struct):
    format: str


def read_device(path: str | os.PathLike[str]) -> Device:
    """Read and check a ``device.json``.

    Raises:
        ProfileError: the file cannot be read, or is not a valid ``device.json``.
    """
    target = as_path("the profile", path)
    try:
        raw = read_bounded(target, MAX_DEVICE_BYTES)
    except FileNotFoundError:
        command = shlex.join(["paraedge", "profile", str(path)])
        raise ProfileError(f"{path} does not exist; make it: {command}") from None
    except OSError as error:
        raise ProfileError(f"{path} cannot be read: {error.strerror}; name a device.json") from error
    return decode_device(raw, str(path))


def write_device(device: Device, path: str | os.PathLike[str]) -> None:
    """Write a ``device.json``, completely or not at all.

    Raises:
        DeviceError: the measurements are not valid in a ``device.json``; an existing file is kept.
        ProfileError: the file cannot be written; an existing file is kept.
    """
    raw = encode_device(as_instance("device", device, Device))
    target = as_path("the profile", path)
    try:
        decode_device(raw, f"the output of {device.name}")
    except ProfileError as error:
        raise DeviceError(f"{path} was not written: {str(error).rpartition('; ')[0]}; profile it again") from error
    try:
        with new_file(target) as building:
            building.write_bytes(raw)
    except OSError as error:
        raise ProfileError(f"{path} cannot be written: {error.strerror}; choose another path") from error


def merge(device: Device, measurements: Iterable[Measurement]) -> Device:
    """Return the device with these measurements added.

    A new measurement replaces the one with the same bundle, engine and number of threads. All others are kept, and so
    is a sustained measurement until it is repeated.
    """
    merged = {_key(one): one for one in as_instance("device", device, Device).measurements}
    for one in as_instances("measurements", measurements, Measurement):
        earlier = merged.get(_key(one))
        if earlier is not None and earlier.sustained is not None and one.sustained is None:
            one = replace(one, sustained=earlier.sustained)
        merged[_key(one)] = one
    return replace(device, measurements=tuple(merged.values()))


def _key(measurement: Measurement) -> tuple[str, str, int]:
    return measurement.bundle_sha256, measurement.engine, measurement.threads


def find_measurement(device: Device, bundle_sha256: str, engine: str, threads: int) -> Measurement:
    """What was measured of a bundle with this engine on so many threads.

    Raises:
        ProfileError: nothing was; the message names what is there.
    """
    for measurement in device.measurements:
        if _key(measurement) == (bundle_sha256, engine, threads):
            return measurement
    there = "; ".join(
        f"{m.bundle_name} ({m.bundle_sha256[:12]}…) {m.engine} {m.threads} thread(s)" for m in device.measurements
    )
    raise ProfileError(
        f"the profile of {device.name} has no measurement of bundle {bundle_sha256[:12]}… with {engine} on {threads} "
        f"thread(s); it has: {there or 'none'}; run 'paraedge profile' with this bundle and '--threads {threads}', "
        "or use another one with --allow-foreign-profile"
    )


def foreign_measurement(
    device: Device, bundle_sha256: str, engine: str, threads: int, parts: Iterable[str]
) -> Measurement:
    """The nearest measurement that has these parts, of whatever bundle: same bundle, then engine, then threads.

    Raises:
        ProfileError: no measurement has all of these parts.
    """
    wanted = set(parts)
    usable = [measurement for measurement in device.measurements if wanted <= set(measurement.parts)]
    if not usable:
        raise ProfileError(
            f"the profile of {device.name} has no measurement of {', '.join(sorted(wanted))}; "
            "run 'paraedge profile' with a bundle that has these branches"
        )
    return min(
        usable,
        key=lambda one: (one.bundle_sha256 != bundle_sha256, one.engine != engine, abs(one.threads - threads)),
    )


def check_name(what: str, name: str) -> None:
    """Refuse what cannot be the name of a device.

    Raises:
        ProfileError: ``what`` is named so.
    """
    if re.fullmatch(_NAME, name) is None:
        raise ProfileError(f"{what} must be {_PATTERN_TEXTS[_NAME]}, got {name[:80]!r}")


def check_machine(device: Device, fingerprint: str) -> None:
    """Refuse a profile of another kind of machine.

    Args:
        device: the profile.
        fingerprint: of the machine at hand, ``read_hardware().fingerprint``.

    Raises:
        ProfileError: it was measured on another one.
    """
    if device.hardware is None or device.hardware.fingerprint != fingerprint:
        measured = "an unknown machine" if device.hardware is None else f"{device.hardware.fingerprint}"
        raise ProfileError(
            f"the profile of {device.name} was measured on another device ({measured}, this one is {fingerprint}); "
            "run 'paraedge profile' here, or use it with --allow-foreign-profile"
        )


_BRANCH = re.compile(r"branch_[0-9]{2,4}")


def _check(device: Device, source: str) -> None:
    """Rules between fields; msgspec has checked each field by itself."""

    def require(fine: bool, field: str, problem: str) -> None:
        if not fine:
            raise ProfileError(f"{source}: field '{field}' {problem}; fix the file, or profile into another one")

    hardware = device.hardware
    if hardware is not None:
        numbers = [core for cluster in hardware.clusters for core in cluster]
        require(
            not numbers or (len(numbers) == len(set(numbers)) == hardware.cores and all(hardware.clusters)),
            "hardware.clusters",
            f"is {hardware.clusters}, which does not name each of {hardware.cores} cores once",
        )
        frequencies = hardware.max_frequency_mhz
        require(
            frequencies is None or len(frequencies) == hardware.cores,
            "hardware.max_frequency_mhz",
            f"has {len(frequencies or ())} values for {hardware.cores} cores",
        )
        expected = hardware_fingerprint(
            machine=hardware.machine,
            cpu=hardware.cpu,
            cores=hardware.cores,
            clusters=hardware.clusters,
            max_frequency_mhz=frequencies,
            memory_bytes=hardware.memory_bytes,
        )
        require(
            hardware.fingerprint == expected,
            "hardware.fingerprint",
            f"is {hardware.fingerprint}, the machine described there has {expected}",
        )
    require(hardware is not None or not device.measurements, "hardware", "is null, though there are measurements")
    seen: set[tuple[str, str, int]] = set()
    for index, measurement in enumerate(device.measurements):
        field = f"measurements[{index}]"
        key = _key(measurement)
        require(key not in seen, field, "has the bundle, engine and threads of an earlier one")
        seen.add(key)
        branches = [name for name in measurement.parts if name != "stem"]
        require("stem" in measurement.parts, f"{field}.parts", "has no 'stem'")
        require(bool(branches), f"{field}.parts", "has no branch")
        for name in branches:
            require(_BRANCH.fullmatch(name) is not None, f"{field}.parts", f"has {name!r}, not branch_NN")
        latencies = {f"parts.{name}": latency for name, latency in measurement.parts.items()}
        for name, latency in {**latencies, "request": measurement.request}.items():
            ordered = [latency.min_ms, latency.p50_ms, latency.p90_ms, latency.p95_ms]
            ordered += [] if latency.p99_ms is None else [latency.p99_ms]
            require(ordered == sorted(ordered), f"{field}.{name}", f"is not in order: {ordered}")
            require(
                (latency.p99_ms is not None) == (latency.n >= P99_MIN_RUNS),
                f"{field}.{name}.p99_ms",
                f"is {latency.p99_ms} with n {latency.n}; it is there from n {P99_MIN_RUNS} on, and null below",
            )
        require(
            len(measurement.contention) == measurement.threads,
            f"{field}.contention",
            f"has {len(measurement.contention)} values for {measurement.threads} threads",
        )
        require(
            measurement.contention[0] == 1.0, f"{field}.contention", f"starts with {measurement.contention[0]}, not 1.0"
        )
        jitter, wakeup = measurement.timer_jitter_us, measurement.wakeup_us
        require(jitter.p50 <= jitter.p99 <= jitter.p999, f"{field}.timer_jitter_us", "is not in order")
        require(wakeup.p50 <= wakeup.p99, f"{field}.wakeup_us", "is not in order")
        temperatures = (measurement.temperature_start_c, measurement.temperature_end_c)
        require(all(math.isfinite(t) for t in temperatures if t is not None), f"{field}.temperature", "is not finite")
        for number, minute in enumerate(measurement.sustained.minutes if measurement.sustained else ()):
            name = f"{field}.sustained.minutes[{number}]"
            require(minute.p50_ms <= minute.p95_ms, name, "is not in order")
            require(minute.temperature_c is None or math.isfinite(minute.temperature_c), name, "is not finite")
        valid = not measurement.throttled and (measurement.other_load or 0.0) <= MAX_OTHER_LOAD
        require(
            measurement.valid == valid,
            f"{field}.valid",
            f"is {str(measurement.valid).lower()} with throttled {str(measurement.throttled).lower()} and "
            f"other_load {measurement.other_load} (at most {MAX_OTHER_LOAD} is valid)",
        )

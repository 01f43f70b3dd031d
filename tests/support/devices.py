"""A device and its measurement in full, to be changed by tests."""

from typing import Any

from msgspec.structs import replace

from paraedge_measure.device import (
    FORMAT,
    Device,
    Hardware,
    Local,
    Measurement,
    PartLatency,
    Sustained,
    SustainedMinute,
    TimerJitter,
    WakeUp,
    hardware_fingerprint,
)

_IDENTITY: dict[str, Any] = {
    "machine": "aarch64",
    "cpu": "Raspberry Pi 5 Model B Rev 1.0 0x41:0xd0b",
    "cores": 4,
    "clusters": ((2, 3), (0, 1)),
    "max_frequency_mhz": (1800.0, 1800.0, 2400.0, 2400.0),
    "memory_bytes": 8_000_000_000,
}
HARDWARE = Hardware(
    **_IDENTITY, os="Debian 12", kernel="Linux 6.6", governor="ondemand", fingerprint=hardware_fingerprint(**_IDENTITY)
)


def latency(p50_ms: float, n: int = 50) -> PartLatency:
    return PartLatency(
        n=n,
        min_ms=p50_ms * 0.9,
        p50_ms=p50_ms,
        p90_ms=p50_ms * 1.2,
        p95_ms=p50_ms * 1.3,
        p99_ms=p50_ms * 2 if n >= 1000 else None,
        first_ms=p50_ms * 3,
    )


MINUTE = SustainedMinute(
    n=14_000,
    p50_ms=4.1,
    p95_ms=5.0,
    temperature_c=71.0,
    frequency_mhz=2400.0,
    throttled=False,
    firmware_limits=(),
    other_load=0.02,
)
MEASUREMENT = Measurement(
    bundle_name="tiny-1.0",
    bundle_sha256="5f" * 32,
    engine="litert",
    engine_version="2.3.0",
    threads=2,
    measured_at="2026-01-31T12:00:00Z",
    parts={"stem": latency(1.0, n=1000), "branch_00": latency(2.0), "branch_03": latency(2.5)},
    request=latency(4.0),
    contention=(1.0, 1.25),
    load_ms=20.0,
    memory_bytes=60_000_000,
    timer_jitter_us=TimerJitter(p50=0.1, p99=0.2, p999=5.0),
    wakeup_us=WakeUp(p50=60.0, p99=100.0),
    temperature_start_c=40.0,
    temperature_end_c=55.5,
    frequency_start_mhz=2400.0,
    frequency_end_mhz=2390.0,
    throttled=False,
    other_load=0.01,
    valid=True,
    firmware_limits=(),
    sustained=Sustained(measured_at="2026-01-31T12:10:00Z", minutes=(MINUTE,)),
)
DEVICE = Device(format=FORMAT, name="pi-5", connection=Local(), hardware=HARDWARE, measurements=(MEASUREMENT,))


def with_measurement(**changes: Any) -> Device:
    return replace(DEVICE, measurements=(replace(MEASUREMENT, **changes),))

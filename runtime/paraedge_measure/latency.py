"""From a device's profile to what a session begins with: the latency of its parts, instead of learning it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from paraedge_measure.device import Device, check_machine, find_measurement, foreign_measurement, read_device
from paraedge_measure.hardware import read_hardware
from paraedge_runtime import Bundle, Latency
from paraedge_runtime._arguments import as_instance, choose_branches
from paraedge_runtime.engines import open_engine
from paraedge_runtime.session import choose_threads

__all__ = ["known_latency"]


def known_latency(
    profile: Device | str | os.PathLike[str] | None,
    bundle: Bundle,
    *,
    engine: str | None = None,
    threads: int | None = None,
    branches: int | Sequence[int] | None = None,
    allow_foreign: bool = False,
) -> Latency | None:
    """Read a session's latency from a device profile, for ``Session.open(latency=...)``.

    Args:
        profile: this device's profile, or the path of its ``device.json``; ``None`` returns ``None``.
        bundle: an open bundle.
        engine: as in ``Session.open``.
        threads: as in ``Session.open``.
        branches: as in ``Session.open``.
        allow_foreign: accept the profile of another device, or its nearest measurement of another bundle.

    Raises:
        ProfileError: ``profile`` cannot be read, or belongs to another device or bundle.
        InputError, EngineUnavailable: as ``Session.open``.
    """
    if profile is None:
        return None
    known = profile if isinstance(profile, Device) else read_device(profile)
    as_instance("bundle", bundle, Bundle)
    name = bundle.manifest.engine if engine is None else engine
    chosen = choose_branches(branches, bundle.manifest.branch_indexes)
    count = choose_threads(threads, open_engine(name), len(chosen))
    parts = ["stem", *(f"branch_{index:02d}" for index in chosen)]
    if allow_foreign:
        measurement = foreign_measurement(known, bundle.sha256, name, count, parts)
    else:
        check_machine(known, read_hardware().fingerprint)
        measurement = find_measurement(known, bundle.sha256, name, count)
    return Latency(tuple(measurement.parts[part].p50_ms for part in parts), measurement.contention)

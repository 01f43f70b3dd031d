"""Which cores this process may use, and how many these are."""

from __future__ import annotations

import os

__all__ = ["available_cores", "core_numbers"]


def core_numbers() -> frozenset[int]:
    """Numbers of the cores that this process may use."""
    try:
        return frozenset(os.sched_getaffinity(0))
    except AttributeError:  # not on this operating system
        return frozenset(range(os.cpu_count() or 1))


def available_cores() -> int:
    """Cores that this process may use."""
    return len(core_numbers())

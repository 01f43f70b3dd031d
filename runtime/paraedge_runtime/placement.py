"""Keeps worker threads off the core that the caller runs on.

A scheduler wakes a worker on the caller's own core more often than not. Branches of a millisecond
are over before it moves one of the two elsewhere, and the parallel run gains nothing.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence

__all__ = ["WorkerCores", "available_cores"]


def available_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this operating system
        return os.cpu_count() or 1


class WorkerCores:
    """Where the workers of one pool may run: anywhere but on the caller's core.

    Does nothing where there are more threads than cores (then somebody has to share), and where the
    operating system has no affinity.
    """

    def __init__(self, threads: int) -> None:
        self._current_core = _core_reader() if 1 < threads <= available_cores() else None
        self._avoided = -1

    def move_away(self, workers: Sequence[int | None]) -> None:
        """Called before workers are woken, by the thread whose core they shall leave alone.

        Costs a system call per worker when that thread has moved since the last call, else none.

        Args:
            workers: their ``native_id``.
        """
        if self._current_core is None:
            return
        core = self._current_core()
        if core == self._avoided:
            return
        others = os.sched_getaffinity(0) - {core}
        try:
            for worker in workers:
                if worker is not None and others:
                    os.sched_setaffinity(worker, others)
        except OSError:  # not allowed here: the scheduler decides
            self._current_core = None
        self._avoided = core


def _core_reader() -> Callable[[], int] | None:
    try:
        # PyDLL: the call is too short to be worth handing the GIL over.
        reader: Callable[[], int] = ctypes.PyDLL(None).sched_getcpu
    except (AttributeError, OSError, TypeError):
        return None
    return reader if hasattr(os, "sched_setaffinity") else None

"""Keep workers off the core the caller runs on.

The scheduler likes to wake a worker on its waker's own core. For a branch of about a millisecond
that is the whole story: both run one after the other, and the parallel run gains nothing.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence

__all__ = ["Placement"]


def _current_cpu() -> Callable[[], int] | None:
    try:
        function = ctypes.CDLL(None).sched_getcpu
    except (OSError, AttributeError, TypeError):  # no Linux
        return None
    return function if function() >= 0 else None


class Placement:
    """Moves workers when the caller has moved; does nothing where that is not possible.

    Not possible: on other systems than Linux, or where the process may use a single core.
    """

    def __init__(self) -> None:
        self._current_cpu = _current_cpu() if hasattr(os, "sched_setaffinity") else None
        self._avoided: int | None = None

    def avoid_caller(self, workers: Sequence[threading.Thread]) -> None:
        """Let ``workers`` use every core of this process but the one this thread is on now."""
        if self._current_cpu is None:
            return
        cpu = self._current_cpu()
        if cpu == self._avoided:
            return
        allowed = os.sched_getaffinity(0) - {cpu}  # the caller's own, so a changed one is followed
        if not allowed:
            return
        for worker in workers:
            if worker.native_id is not None:
                try:
                    os.sched_setaffinity(worker.native_id, allowed)
                except OSError:  # forbidden, as in some containers: then it stays as it is
                    self._current_cpu = None
                    return
        self._avoided = cpu

"""How many threads torch trains with on a CPU: as many as there are cores that nobody else keeps busy.

A thread that waits for another one, which waits for a core, costs more than it brings: small networks train slower on
two threads than on one where another program has the second core.
"""

from __future__ import annotations

import os
import time

from paraedge.cli.output import print_progress
from paraedge_measure.hardware import read_busy_s, read_quota_cores
from paraedge_runtime.cores import core_numbers

__all__ = ["FreeCores"]


class FreeCores:
    """What other programs leave free, from when this object is made until it is asked."""

    def __init__(self) -> None:
        self._cores = core_numbers()
        self._busy_s = read_busy_s(self._cores)
        self._own_s, self._clock_s = time.process_time(), time.perf_counter()

    def use(self, device: str | None, *, tell: bool) -> None:
        """Let torch train with so many threads, if it does that on a CPU, and say so in one line."""
        import torch

        if torch.cuda.is_available() if device is None else not device.startswith("cpu"):
            return
        threads, why = self.choose(torch.get_num_threads())
        torch.set_num_threads(threads)
        if tell:
            print_progress(f"torch on {threads} thread(s): {why}")

    def choose(self, most: int) -> tuple[int, str]:
        """Threads to train with, and why.

        Args:
            most: as many as there are by themselves.
        """
        if given := os.environ.get("OMP_NUM_THREADS"):
            return most, f"OMP_NUM_THREADS is {given}"
        cores, quota = len(self._cores), read_quota_cores()
        allowed = cores if quota is None else min(quota, cores)
        others = self._others()
        threads = max(1, min(most, int(allowed), round(cores - others)))
        limited = "" if allowed == cores else f", of which a quota allows {allowed:g}"
        return threads, f"{cores} core(s){limited}, {others:.1f} busy with other programs; OMP_NUM_THREADS sets another"

    def _others(self) -> float:
        """Cores that other programs kept busy; 0 where nobody can tell."""
        busy_s, clock_s = read_busy_s(self._cores), time.perf_counter() - self._clock_s
        if busy_s is None or self._busy_s is None or clock_s <= 0:
            return 0.0
        own_s = time.process_time() - self._own_s
        return min(max((busy_s - self._busy_s - own_s) / clock_s, 0.0), len(self._cores))

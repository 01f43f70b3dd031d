"""What one decision of the controller takes: note how long a branch took, then ask whether the next one fits.

    .venv/bin/python benchmarks/decision_time.py

In C++ called from Python, so that the figure holds the call as well. Eight branches.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from paraedge_runtime.core import load_core

BRANCHES, DECISIONS, BLOCK = 8, 20_000, 100


def decide(controller: Any, number: int) -> bool:
    branch = 1 + number % BRANCHES
    controller.observe(branch, 2, 1.0 + number % 7 / 10)
    fits = controller.predicted_ms(1 + branch % BRANCHES, 2) + controller.margin_ms(0.05) <= 2.0
    return bool(fits)


def main() -> None:
    known = ([1000.0] * BRANCHES, [1.0] * (BRANCHES + 1), [1.0, 1.1])
    controller = load_core().Controller.make(*known)
    times_us = []
    for first in range(0, DECISIONS, BLOCK):
        begin = time.perf_counter()
        for number in range(first, first + BLOCK):
            decide(controller, number)
        times_us.append((time.perf_counter() - begin) / BLOCK * 1e6)
    table = Table("median, µs", "p99, µs", box=None)
    table.add_row(f"{statistics.median(times_us):.2f}", f"{statistics.quantiles(times_us, n=100)[98]:.2f}")
    Console(markup=False, emoji=False, width=100).print(table)


if __name__ == "__main__":
    main()

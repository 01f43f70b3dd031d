"""A process that keeps a core or the memory busy; started by ``interference``, needs nothing but Python.

    python hog.py compute|memory SQUARE_PERIOD_S

It is busy in the first half of every period counted from the time that was last read from standard input
(``time.monotonic()``, one number a line), always with a period of 0. A second number on the line is another share of
the period than half. It ends when standard input does, so it never outlives who started it, and after PATIENCE_S
without a word.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable

__all__ = ["main"]

PATIENCE_S = 600.0
SLICE_BYTES = 1 << 20
BUFFER_BYTES = 64 << 20  # more than a last-level cache holds


def _compute() -> Callable[[], None]:
    def work() -> None:
        for _ in range(10_000):
            pass

    return work


def _memory() -> Callable[[], None]:
    source, target = memoryview(bytearray(b"\1") * BUFFER_BYTES), memoryview(bytearray(BUFFER_BYTES))
    place = 0

    def work() -> None:
        nonlocal place
        target[place : place + SLICE_BYTES] = source[place : place + SLICE_BYTES]
        place = (place + SLICE_BYTES) % BUFFER_BYTES

    return work


KINDS = {"compute": _compute, "memory": _memory}


def main(kind: str, period_s: float) -> None:
    """Work until standard input ends."""
    work = KINDS[kind]()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    origin_s = heard_s = time.monotonic()
    idle_s, share = 0.0, 0.5
    while time.monotonic() - heard_s < PATIENCE_S:
        if select.select([0], [], [], idle_s)[0]:
            text = os.read(0, 65536)
            if not text:
                return
            origin_s, *shares = map(float, text.splitlines()[-1].split())
            heard_s = time.monotonic()
            share = shares[0] if shares else 0.5
        place_s = (time.monotonic() - origin_s) % period_s if period_s else 0.0
        if not period_s or place_s < share * period_s:
            idle_s = 0.0
            work()
        else:
            idle_s = period_s - place_s


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))

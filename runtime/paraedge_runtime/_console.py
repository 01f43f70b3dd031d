"""For entry points only: what a command prints must reach every terminal."""

from __future__ import annotations

import io
import os
import sys

__all__ = ["open_missing_streams", "replace_unprintable"]


def open_missing_streams() -> None:
    """Put nothing in place of standard streams that the caller has closed: what is written there goes nowhere."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.dup(number), "w", encoding="utf-8", errors="replace"))


def replace_unprintable() -> None:
    """Print ``?`` for what a stream cannot show: a file's name may be any bytes, a terminal may know few characters."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")

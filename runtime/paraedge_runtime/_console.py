"""For entry points only: what a command prints must reach every terminal."""

from __future__ import annotations

import io
import sys

__all__ = ["replace_unprintable"]


def replace_unprintable() -> None:
    """Print ``?`` for what a stream cannot show: a file's name may be any bytes, a terminal may know few characters."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")

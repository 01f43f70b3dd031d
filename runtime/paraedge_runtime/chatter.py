"""Keep what engines and converters print about themselves off the terminal, and keep its end."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import IO

__all__ = ["Chatter", "captured_chatter"]


class Chatter:
    """What was printed inside a :func:`captured_chatter` block."""

    def __init__(self, log: IO[bytes]) -> None:
        self._log = log

    def tail(self, lines: int = 3) -> str:
        """The last lines on one line, for an error message."""
        self._log.seek(0)
        found = self._log.read().decode(errors="replace").strip().splitlines()[-lines:]
        return " | ".join(found)[:400]


@contextlib.contextmanager
def captured_chatter() -> Iterator[Chatter]:
    """Send everything that is written to stdout and stderr to a file, by Python and by C.

    Logging below ERROR and warnings are silenced as well. For the whole process and all its
    threads: the command line and the converters use it, ``Session`` by itself never does.
    """
    with tempfile.TemporaryFile() as log, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.stdout.flush()
        sys.stderr.flush()
        saved = [(number, os.dup(number)) for number in (1, 2)]
        level = logging.root.manager.disable
        logging.disable(max(level, logging.WARNING))
        text = os.fdopen(os.dup(log.fileno()), "w", buffering=1, errors="replace")
        try:
            for number, _ in saved:
                os.dup2(log.fileno(), number)
            with text, contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
                yield Chatter(log)
        finally:
            logging.disable(level)
            for number, copy in saved:
                os.dup2(copy, number)
                os.close(copy)

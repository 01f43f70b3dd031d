"""Keep what engines and converters print about themselves off the command's output, and keep its end."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

__all__ = ["Chatter", "captured_chatter"]


class Chatter:
    """What was printed inside a :func:`captured_chatter` block, so far or in all."""

    def __init__(self, log: IO[bytes]) -> None:
        self._log: IO[bytes] | None = log
        self._text = ""

    def finish(self) -> None:
        """Keep the text; the file is about to go."""
        self._text, self._log = self._read(), None

    def tail(self, lines: int = 3) -> str:
        """The last lines on one line, for an error message."""
        return " | ".join(self._read().strip().splitlines()[-lines:])[:400]

    def _read(self) -> str:
        if self._log is None:
            return self._text
        _flush()
        self._log.seek(0)
        return self._log.read().decode(errors="replace")


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).fflush(None)  # C's own buffers, which a pipe keeps full


def _log() -> IO[bytes]:
    """A file without a name: in memory where the system has that, as there may be no folder that can be written."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox may forbid the call
            return os.fdopen(os.memfd_create("paraedge-chatter"), "w+b")
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return Path(os.devnull).open("w+b")  # the chatter is lost, the command works


@contextlib.contextmanager
def captured_chatter() -> Iterator[Chatter]:
    """Send everything that is written to stdout and stderr to a file, by Python and by C.

    Logging below ERROR and warnings are silenced as well. For the whole process and all its
    threads, so it belongs to the command line and to nothing below it.
    """
    with _log() as log, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _flush()
        saved = [(number, os.dup(number)) for number in (1, 2)]
        level = logging.root.manager.disable
        logging.disable(max(level, logging.WARNING))
        text = os.fdopen(os.dup(log.fileno()), "w", buffering=1, errors="replace")
        try:
            for number, _ in saved:
                os.dup2(log.fileno(), number)
            with text, contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
                chatter = Chatter(log)
                try:
                    yield chatter
                finally:
                    chatter.finish()
        finally:
            logging.disable(level)
            for number, copy in saved:
                os.dup2(copy, number)
                os.close(copy)

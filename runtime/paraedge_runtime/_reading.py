"""Reads a file from outside: a plain one, of a bounded size. A pipe is refused, not waited for."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

__all__ = ["read_bounded"]


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """All bytes of a file.

    Raises:
        OSError: it cannot be read, is no plain file, or has more bytes; ``strerror`` says which.
    """
    with open(path, "rb", opener=_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "It is not a plain file", str(path))
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise OSError(errno.EFBIG, f"It has more than {most_bytes} bytes", str(path))
    return data


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))

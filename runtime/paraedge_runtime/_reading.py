"""Reads a file from outside: a plain one, of a bounded size. A pipe is refused, not waited for."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

__all__ = ["open_file", "read_bounded"]


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """A plain file, open to be read.

    Raises:
        OSError: it cannot be read, or is no plain file; ``strerror`` says which.
    """
    flags = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_BINARY"))
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "It is not a plain file", os.fspath(path))
    return os.fdopen(descriptor, "rb")


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """All bytes of a file.

    Raises:
        OSError: it cannot be read, is no plain file, or has more bytes; ``strerror`` says which.
    """
    with open_file(path) as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise OSError(errno.EFBIG, f"It has more than {most_bytes} bytes", str(path))
    return data

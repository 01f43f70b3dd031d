"""Reads files that somebody else made: plain ones only, at once, and no more than there may be.

A pipe would be waited for, a device never ends.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

__all__ = ["open_plain", "read_plain"]


def open_plain(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file to read; links are followed.

    Raises:
        OSError: it cannot be opened, or is a pipe, a device or a folder.
    """
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    return file


def read_plain(path: Path, most_bytes: int) -> bytes:
    """All of a file.

    Raises:
        OSError: as :func:`open_plain`, or it has more bytes.
    """
    with open_plain(path) as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise OSError(errno.EFBIG, f"it has more than {most_bytes} bytes", str(path))
    return data


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))

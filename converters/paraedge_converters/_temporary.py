"""Converters write temporary files: where the system has no folder for them, beside what is exported."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paraedge_runtime.atomic import scratch_folder
from paraedge_runtime.errors import InputError

__all__ = ["check_room", "no_room", "temporary_files"]


@contextmanager
def temporary_files(out: Path) -> Iterator[None]:
    """Inside, ``tempfile`` works for every library; what is written beside ``out`` for want of a folder goes again."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        with scratch_folder(out) as folder:
            tempfile.tempdir = str(folder)  # nothing but an error is there to be changed
            try:
                yield
            finally:
                tempfile.tempdir = None
    else:
        yield


def check_room(size_bytes: int) -> None:
    """Ask before a library writes a temporary file that ends the process where it cannot.

    Raises:
        InputError: less than so much is free.
    """
    folder = tempfile.gettempdir()
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < size_bytes:
        raise no_room(f"{free_bytes / 1e6:.1f} MB free, {size_bytes / 1e6:.1f} MB required")


def no_room(problem: str) -> InputError:
    """The error of a folder for temporary files that is full."""
    return InputError(
        f"a temporary file cannot be written in {tempfile.gettempdir()}: {problem}; free some of it, or set TMPDIR to "
        "another folder"
    )

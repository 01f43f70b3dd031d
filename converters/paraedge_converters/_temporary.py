"""Converters write temporary files: where the system has no folder for them, beside what is exported."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paraedge_runtime.atomic import scratch_folder

__all__ = ["temporary_files"]


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

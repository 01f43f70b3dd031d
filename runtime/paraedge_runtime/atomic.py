"""Files and folders that appear whole or not at all: build beside the target, then rename."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["new_file", "new_folder"]

_UMASK = os.umask(0)
os.umask(_UMASK)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``target`` when the block ends without an error.

    What stood at ``target`` is replaced only then; after an error it stands as it was. The
    temporary folder is a neighbour, so that the rename never crosses file systems.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # mkdtemp makes folders private to this user; what is shipped must be readable.
    building = Path(tempfile.mkdtemp(prefix=f".{target.name}.new.", dir=target.parent))
    building.chmod(0o777 & ~_UMASK)
    try:
        yield building
        if target.is_dir() and not target.is_symlink():
            retired = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
            target.rename(retired / target.name)
            try:
                building.rename(target)
            except BaseException:
                (retired / target.name).rename(target)
                raise
            finally:
                shutil.rmtree(retired, ignore_errors=True)
        else:
            building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield a path to write; it becomes ``target`` when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.new.", dir=target.parent)
    os.close(handle)
    building = Path(name)
    building.chmod(0o666 & ~_UMASK)
    try:
        yield building
        building.replace(target)
    finally:
        building.unlink(missing_ok=True)

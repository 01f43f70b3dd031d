"""Files and folders that appear whole or not at all: build beside the target, then rename."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

__all__ = ["check_writable", "new_file", "new_folder"]


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``target`` when the block ends without an error.

    What stood at ``target`` is replaced only then; after an error it stands as it was. The
    temporary folder is a neighbour, so that the rename never crosses file systems.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    building = _neighbour(target, "new")
    building.mkdir()  # with the modes that the umask allows, and no chmod: some file systems refuse it
    try:
        yield building
        if target.is_dir() and not target.is_symlink():
            retired = _neighbour(target, "old")
            retired.mkdir()
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
    building = _neighbour(target, "new")
    building.touch(exist_ok=False)
    try:
        yield building
        building.replace(target)
    finally:
        building.unlink(missing_ok=True)


def check_writable(target: Path) -> None:
    """Ask before long work whether :func:`new_folder` and :func:`new_file` can write ``target``; leaves nothing.

    Raises:
        OSError: they cannot.
    """
    made: list[Path] = []
    try:
        for folder in reversed([target, *target.parents][1:]):
            if not folder.exists():
                folder.mkdir()
                made.append(folder)
        probe = _neighbour(target, "new")
        probe.mkdir()
        made.append(probe)
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _neighbour(target: Path, kind: str) -> Path:
    """A hidden name beside ``target`` that nothing has."""
    if not target.name:  # ".", "/"
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    return target.with_name(f".{target.name}.{kind}.{secrets.token_hex(8)}")

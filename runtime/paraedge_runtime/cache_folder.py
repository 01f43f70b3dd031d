"""Where this user's files that can be made again are kept: lowered parts, trials, the packaged bundle, tools."""

from __future__ import annotations

import os
from pathlib import Path

from paraedge_runtime.errors import InputError

__all__ = ["CACHE_VARIABLE", "cache_folder", "own_folder"]

CACHE_VARIABLE = "PARAEDGE_CACHE"
_TRUSTED_UIDS = (0,)  # root may write anywhere


def cache_folder() -> Path:
    """``$PARAEDGE_CACHE``, else ``paraedge`` in the user's cache folder.

    Raises:
        InputError: this user has no home folder, as in some containers.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "paraedge"
    try:
        return Path.home() / ".cache" / "paraedge"
    except RuntimeError:
        raise InputError(f"this user has no home folder for the cache; set {CACHE_VARIABLE}") from None


def own_folder(name: str, root: Path | None = None) -> Path:
    """The folder ``name`` of the cache, made if it is not there: nobody but this user (or root) can write in it.

    Args:
        name: ``parts``, ``trials``, …
        root: another cache folder than this user's.

    Raises:
        InputError: it cannot be made, belongs to another user, or others may write in it or beside it.
    """
    folder = (cache_folder() if root is None else root) / name
    try:
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except FileNotFoundError:
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
        for place in (folder.parent, folder):
            _check_own(place)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}; set {CACHE_VARIABLE}") from None
    return folder


def _check_own(folder: Path) -> None:
    if os.name != "posix":  # who may write there is told by other means
        return
    status = folder.stat()
    if status.st_uid not in (os.geteuid(), *_TRUSTED_UIDS):
        raise InputError(
            f"{folder} belongs to another user, so paraedge does not trust its contents; set {CACHE_VARIABLE} to a "
            "folder of your own"
        )
    if status.st_mode & 0o022:
        raise InputError(
            f"{folder} can be written by other users, so paraedge does not trust its contents; empty it, then "
            f"chmod go-w, or set {CACHE_VARIABLE}"
        )

"""Where this user's files that can be made again are kept: lowered parts, the packaged bundle, a phone's tools."""

from __future__ import annotations

import os
from pathlib import Path

from paraedge_runtime.errors import InputError

__all__ = ["CACHE_VARIABLE", "cache_folder"]

CACHE_VARIABLE = "PARAEDGE_CACHE"


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
        raise InputError(f"this user has no home folder to keep files in; set {CACHE_VARIABLE}") from None

"""Where lowered parts are kept; apart from the cache itself, so that ``doctor`` needs no torch."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["CACHE_VARIABLE", "cache_folder"]

CACHE_VARIABLE = "PARAEDGE_CACHE"


def cache_folder() -> Path:
    """``$PARAEDGE_CACHE``, else ``paraedge`` in the user's cache folder."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paraedge"

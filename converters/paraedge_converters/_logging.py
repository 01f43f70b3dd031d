"""Converters' libraries set up the root logger when it has no handler: the caller's logging stays as it is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["root_logger_kept"]


@contextmanager
def root_logger_kept() -> Iterator[None]:
    """Inside, ``logging.basicConfig`` of other libraries does nothing; afterwards handlers and level are as before."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    if not handlers and logging.lastResort is not None:
        root.addHandler(logging.lastResort)  # what Python does without a handler: warnings on stderr
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)

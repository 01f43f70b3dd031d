"""The location of an operator in the caller's network: the path of its module, and its line in the source."""

from __future__ import annotations

import linecache
import os
import site
import sysconfig
from pathlib import Path
from types import TracebackType

import torch
from torch import nn

__all__ = ["is_library", "location_text", "source_location"]

_LIBRARIES = tuple({
    os.path.realpath(str(path))
    for path in (*site.getsitepackages(), sysconfig.get_path("purelib"), Path(torch.__file__).parents[1])
})  # fmt: skip


_EXPORT_ROOT = "_export_root."  # torch.export wraps the module


def is_library(file: str) -> bool:
    """Whether the file is of an installed package."""
    return os.path.realpath(file).startswith(_LIBRARIES)


def location_text(path: str, file: str, line: int | str, code: str) -> str:
    """`` (blocks.0.mlp, net.py:12: return x.cumsum(1))``, as far as they are known; "" if nothing is."""
    known = [path] if path else []
    if file:
        relative = os.path.relpath(file)
        shown = file if relative.startswith("..") else relative
        known.append(f"{shown}:{line}: {code.strip()[:100]}")
    return f" ({', '.join(known)})" if known else ""


def source_location(error: BaseException) -> str:
    """The last line of the network that an error passed through, as ``location_text``; "" if it passed through none."""
    root: nn.Module | None = None
    last: nn.Module | None = None
    found: tuple[str, int] | None = None
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        frame, line = trace.tb_frame, trace.tb_lineno
        module = frame.f_locals.get("self")
        if isinstance(module, nn.Module) and frame.f_code.co_name == "forward":
            root, last = root or module, module
        if root is not None and not is_library(frame.f_code.co_filename):
            found = (frame.f_code.co_filename, line)
        trace = trace.tb_next
    if root is None or found is None:
        return ""
    path = next((name for name, module in root.named_modules() if module is last), "")
    return location_text(path.removeprefix(_EXPORT_ROOT), *found, linecache.getline(*found))

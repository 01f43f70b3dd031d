"""The ExecuTorch engine: the native core where it is built, else the Python binding; both say which they are."""

from __future__ import annotations

import importlib

from paraedge_runtime.engines.base import Engine
from paraedge_runtime.engines.executorch_native import ExecuTorchNative
from paraedge_runtime.errors import EngineUnavailable

__all__ = ["open_executorch"]


def open_executorch() -> Engine:
    """The native core, or the Python binding with the reason in its ``description``.

    Raises:
        EngineUnavailable: neither works; the message says why.
    """
    try:
        return ExecuTorchNative()
    except EngineUnavailable as error:
        reason = str(error)
    try:
        binding: Engine = importlib.import_module("paraedge_runtime.engines.executorch_binding").ExecuTorchBinding()
    except EngineUnavailable as error:
        raise EngineUnavailable(f"{error}; or the native core, which needs no torch: {reason}") from error
    binding.description = f"{binding.description[:-1]}; {reason})"
    return binding

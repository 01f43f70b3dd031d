"""The native core, ``paraedge_runtime._native``: threads, deadlines and early stop for every engine."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from paraedge_runtime.errors import EngineUnavailable

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["core_problem", "load_core"]


def load_core() -> ModuleType:
    """The extension module; ``_native.pyi`` describes it.

    Raises:
        EngineUnavailable: it was not built for this machine.
    """
    if problem := core_problem():
        raise EngineUnavailable(problem)
    return importlib.import_module("paraedge_runtime._native")


def core_problem() -> str:
    """Why the core cannot be used here, and what to do; empty when it can."""
    advice = (
        "install a wheel of paraedge for this machine, or a C++ compiler and then "
        "pip install --force-reinstall --no-deps --no-binary paraedge paraedge"
    )
    try:
        importlib.import_module("paraedge_runtime._native")
    except ModuleNotFoundError:
        return f"paraedge's native core was not built; {advice}"
    except ImportError as error:
        return f"paraedge's native core cannot be loaded ({error}); {advice}"
    return ""

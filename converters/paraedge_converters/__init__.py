"""Turn chosen branches of a torch model into a bundle: split, lower, prove, write.

Importing this package imports no torch; ``convert`` and ``BranchModel`` do.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from paraedge_converters.targets import TARGETS, Target

if TYPE_CHECKING:
    from paraedge_converters.convert import ConversionProgress, ModelDescription, convert
    from paraedge_converters.protocol import BranchModel

__all__ = ["TARGETS", "BranchModel", "ConversionProgress", "ModelDescription", "Target", "convert"]

_LAZY = {
    "BranchModel": "paraedge_converters.protocol",
    "ConversionProgress": "paraedge_converters.convert",
    "ModelDescription": "paraedge_converters.convert",
    "convert": "paraedge_converters.convert",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)

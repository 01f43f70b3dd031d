"""paraedge: put parallel-branch Transformers on phones, Raspberry Pis and other small machines.

    import paraedge

    bundle = paraedge.export("fashion-mnist", target="android", branches=2)   # needs torch
    with paraedge.Session.open(bundle) as session:                            # needs one engine
        print(session.run(picture).label)

Importing this package imports no torch; the names that need it do when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from paraedge_runtime import Bundle, ParaEdgeError, Prediction, Session

if TYPE_CHECKING:
    from paraedge.exporting import export
    from paraedge.model import ParaFormer, ParaFormerConfig, load_checkpoint

__all__ = [
    "Bundle",
    "ParaEdgeError",
    "ParaFormer",
    "ParaFormerConfig",
    "Prediction",
    "Session",
    "export",
    "load_checkpoint",
]

_LAZY = {
    "ParaFormer": "paraedge.model",
    "ParaFormerConfig": "paraedge.model",
    "export": "paraedge.exporting",
    "load_checkpoint": "paraedge.model",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)

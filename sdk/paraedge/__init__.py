"""paraedge: put parallel-branch Transformers on phones, Raspberry Pis and other small machines.

    import paraedge

    bundle = paraedge.export("fashion-mnist", target="android", branches=2)   # needs torch
    with paraedge.Session.open(bundle) as session:                            # needs one engine
        print(session.run(picture).label)

Importing this package imports no torch; the names that need it do when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paraedge_runtime.errors import ParaEdgeError
from paraedge_runtime.lazy import lazy_names

if TYPE_CHECKING:
    from paraedge.exporting import export
    from paraedge.model import ParaFormer, ParaFormerConfig, load_checkpoint
    from paraedge_runtime import Bundle, Prediction, Session, __version__

__all__ = [
    "Bundle",
    "ParaEdgeError",
    "ParaFormer",
    "ParaFormerConfig",
    "Prediction",
    "Session",
    "__version__",
    "export",
    "load_checkpoint",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Bundle": "paraedge_runtime",
        "ParaFormer": "paraedge.model",
        "ParaFormerConfig": "paraedge.model",
        "Prediction": "paraedge_runtime",
        "Session": "paraedge_runtime",
        "__version__": "paraedge_runtime",
        "export": "paraedge.exporting",
        "load_checkpoint": "paraedge.model",
    },
)

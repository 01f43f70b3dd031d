"""The ParaFormer network, its frozen configuration, and the checkpoint folder it is saved in.

The records (``config.py``, ``records.py``) need no torch; the names that do are imported when used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paraedge.model.config import ParaFormerConfig
from paraedge_runtime.lazy import lazy_names

if TYPE_CHECKING:
    from paraedge.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from paraedge.model.paraformer import ParaFormer

__all__ = ["Checkpoint", "ParaFormer", "ParaFormerConfig", "load_checkpoint", "save_checkpoint"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Checkpoint": "paraedge.model.checkpoint",
        "ParaFormer": "paraedge.model.paraformer",
        "load_checkpoint": "paraedge.model.checkpoint",
        "save_checkpoint": "paraedge.model.checkpoint",
    },
    with_torch=("Checkpoint", "ParaFormer", "load_checkpoint", "save_checkpoint"),
)

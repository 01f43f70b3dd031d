"""The ParaFormer network, its configuration and checkpoint folder; other networks cut into branches.

The records (``config.py``, ``records.py``) do not need torch; names that do are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paraedge.model.config import ParaFormerConfig
from paraedge.model.signals import LogMel, Signal
from paraedge_runtime.lazy import lazy_names

if TYPE_CHECKING:
    from paraedge.model.backbones import register_backbone
    from paraedge.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from paraedge.model.paraformer import ParaFormer
    from paraedge.model.records import CheckpointConfig
    from paraedge.model.splitting import SplitNetwork, branches_from, distill

__all__ = [
    "Checkpoint",
    "CheckpointConfig",
    "LogMel",
    "ParaFormer",
    "ParaFormerConfig",
    "Signal",
    "SplitNetwork",
    "branches_from",
    "distill",
    "load_checkpoint",
    "register_backbone",
    "save_checkpoint",
]

_WITH_TORCH = {
    "Checkpoint": "paraedge.model.checkpoint",
    "ParaFormer": "paraedge.model.paraformer",
    "SplitNetwork": "paraedge.model.splitting",
    "branches_from": "paraedge.model.splitting",
    "distill": "paraedge.model.splitting",
    "load_checkpoint": "paraedge.model.checkpoint",
    "register_backbone": "paraedge.model.backbones",
    "save_checkpoint": "paraedge.model.checkpoint",
}

__getattr__, __dir__ = lazy_names(
    __name__, {**_WITH_TORCH, "CheckpointConfig": "paraedge.model.records"}, with_torch=_WITH_TORCH
)

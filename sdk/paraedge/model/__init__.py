"""The ParaFormer network, its frozen configuration, and the checkpoint folder it is saved in."""

from paraedge.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from paraedge.model.config import ParaFormerConfig
from paraedge.model.paraformer import ParaFormer

__all__ = ["Checkpoint", "ParaFormer", "ParaFormerConfig", "load_checkpoint", "save_checkpoint"]

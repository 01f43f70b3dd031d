"""Training by progressive approximation, and evaluation of every prefix of branches."""

from paraedge.training.config import TrainingConfig
from paraedge.training.evaluate import evaluate_model
from paraedge.training.loop import TrainingProgress, train
from paraedge.training.loss import prefix_weights, progressive_loss

__all__ = [
    "TrainingConfig",
    "TrainingProgress",
    "evaluate_model",
    "prefix_weights",
    "progressive_loss",
    "train",
]

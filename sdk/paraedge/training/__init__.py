"""Training by progressive approximation, and evaluation of every prefix of branches."""

from paraedge.training.config import TrainingConfig
from paraedge.training.evaluate import evaluate_model
from paraedge.training.extension import extend
from paraedge.training.loop import TrainingProgress, train
from paraedge.training.loss import prefix_sums, prefix_weights, progressive_loss
from paraedge.training.recipes import RECIPES, NetworkShape, Recipe, load_recipe, with_settings
from paraedge.training.teacher import Teacher

__all__ = [
    "RECIPES",
    "NetworkShape",
    "Recipe",
    "Teacher",
    "TrainingConfig",
    "TrainingProgress",
    "evaluate_model",
    "extend",
    "load_recipe",
    "prefix_sums",
    "prefix_weights",
    "progressive_loss",
    "train",
    "with_settings",
]

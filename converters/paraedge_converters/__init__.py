"""Turn chosen branches of a torch model into a bundle: split, lower, prove, write.

Importing this package imports no torch; ``convert`` and ``BranchModel`` do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paraedge_converters.recipes import RECIPES, Recipe
from paraedge_converters.request import ExportRequest
from paraedge_converters.targets import TARGETS, Target
from paraedge_runtime.lazy import lazy_names

if TYPE_CHECKING:
    from paraedge_converters.description import EvaluationSet, ModelDescription
    from paraedge_converters.early_stop import calibrate_early_stop
    from paraedge_converters.pipeline import ConversionProgress, convert
    from paraedge_converters.protocol import BranchModel

__all__ = [
    "RECIPES",
    "TARGETS",
    "BranchModel",
    "ConversionProgress",
    "EvaluationSet",
    "ExportRequest",
    "ModelDescription",
    "Recipe",
    "Target",
    "calibrate_early_stop",
    "convert",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "BranchModel": "paraedge_converters.protocol",
        "ConversionProgress": "paraedge_converters.pipeline",
        "ModelDescription": "paraedge_converters.description",
        "EvaluationSet": "paraedge_converters.description",
        "calibrate_early_stop": "paraedge_converters.early_stop",
        "convert": "paraedge_converters.pipeline",
    },
    with_torch=(
        "BranchModel",
        "ConversionProgress",
        "EvaluationSet",
        "ModelDescription",
        "calibrate_early_stop",
        "convert",
    ),
)

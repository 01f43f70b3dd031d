"""Lower a part for a GPU through LiteRT: the program of ``litert.py``. If a GPU takes it whole shows when it runs."""

from __future__ import annotations

from torch import Tensor, nn

from paraedge_converters.backends import LoweredPart, litert

TOOLS = litert.TOOLS
RECIPES = {"fp32": "the GPU computes in float32"}


def engine_min_version(recipe: str) -> dict[str, str]:
    """See :class:`paraedge_converters.backends.Converter`."""
    return {"ai-edge-litert": "2.3"}


def lower(
    module: nn.Module, example: Tensor, *, recipe: str, calibration: Tensor, allow_undelegated: bool
) -> LoweredPart:
    """Lower a module; see :class:`paraedge_converters.backends.Converter`."""
    return litert.lower(module, example, recipe=recipe, calibration=calibration, allow_undelegated=allow_undelegated)

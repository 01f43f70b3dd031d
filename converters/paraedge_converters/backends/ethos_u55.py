"""Lower a part for Arm's Ethos-U55 with 128 MACs; how is in ``_ethos_u.py``."""

from __future__ import annotations

from torch import Tensor, nn

from paraedge_converters.backends import LoweredPart, _ethos_u

TOOLS = _ethos_u.TOOLS
RECIPES = _ethos_u.RECIPES
engine_min_version = _ethos_u.engine_min_version


def lower(
    module: nn.Module, example: Tensor, *, recipe: str, calibration: Tensor, allow_undelegated: bool
) -> LoweredPart:
    """Lower a module; see :class:`paraedge_converters.backends.Converter`."""
    return _ethos_u.lowered(
        "ethos-u55-128", module, example, calibration=calibration, allow_undelegated=allow_undelegated
    )

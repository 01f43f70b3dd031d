"""Lower a part to an ExecuTorch program (``.pte``) for Vulkan.

Promise: one delegate takes the whole part. ExecuTorch's wheel cannot run it; its Android build can.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paraedge_converters.backends import LoweredPart, lowering_with
from paraedge_converters.backends._whole import lowered_whole

TOOLS = ("torch", "executorch")
RECIPES = {"fp32": "Vulkan computes in float32"}


def engine_min_version(recipe: str) -> dict[str, str]:
    """See :class:`paraedge_converters.backends.Converter`."""
    return {"executorch": "1.5"}


def lower(
    module: nn.Module, example: Tensor, *, recipe: str, calibration: Tensor, allow_undelegated: bool
) -> LoweredPart:
    """Lower a module; see :class:`paraedge_converters.backends.Converter`."""
    with lowering_with("Vulkan"):
        from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

        return lowered_whole(
            torch.export.export(module, (example,)),
            VulkanPartitioner(),
            "VulkanBackend",
            allow_undelegated=allow_undelegated,
        )

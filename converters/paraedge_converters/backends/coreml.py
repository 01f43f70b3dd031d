"""Lower a part to an ExecuTorch program (``.pte``) for Apple's Core ML.

Promise: one delegate takes the whole part. Only Apple's machines compile and run it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paraedge_converters.backends import LoweredPart, lowering_with
from paraedge_converters.backends._whole import lowered_whole

TOOLS = ("torch", "executorch", "coremltools")
RECIPES = {
    "fp32": "Core ML computes in float32: CPU and GPU",
    "fp16": "Core ML computes in float16, float32 at both ends: the Neural Engine too",
}


def engine_min_version(recipe: str) -> dict[str, str]:
    """See :class:`paraedge_converters.backends.Converter`."""
    return {"executorch": "1.5"}


def lower(
    module: nn.Module, example: Tensor, *, recipe: str, calibration: Tensor, allow_undelegated: bool
) -> LoweredPart:
    """Lower a module; see :class:`paraedge_converters.backends.Converter`."""
    with lowering_with("Core ML", extra="coreml"):
        import coremltools
        from executorch.backends.apple.coreml.compiler import CoreMLBackend
        from executorch.backends.apple.coreml.partition.coreml_partitioner import CoreMLPartitioner

        precision = coremltools.precision.FLOAT16 if recipe == "fp16" else coremltools.precision.FLOAT32
        specs = CoreMLBackend.generate_compile_specs(
            minimum_deployment_target=coremltools.target.iOS17, compute_precision=precision
        )
        return lowered_whole(
            torch.export.export(module, (example,)),
            CoreMLPartitioner(compile_specs=specs),
            "CoreMLBackend",
            allow_undelegated=allow_undelegated,
        )

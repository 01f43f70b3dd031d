"""Lower a part to an ONNX program (``.onnx``).

Promise: the ONNX checker passes, and every operator belongs to the standard's own domain.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from paraedge_converters.lowering import LoweredPart, lowering_with
from paraedge_runtime.errors import ConversionError

ENGINE_MIN_VERSION = {"onnxruntime": "1.19"}
TOOLS = ("torch", "onnx", "onnxscript")


def lower(module: nn.Module, example: Tensor, *, allow_undelegated: bool) -> LoweredPart:
    """Lower a module; see :class:`paraedge_converters.lowering.Converter`."""
    with lowering_with("ONNX"):
        import onnx

        exported = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            input_names=["x"],
            output_names=["y"],
            external_data=False,
            verbose=False,
        )
        if exported is None:
            raise ConversionError("torch.onnx.export returned nothing")
        model = exported.model_proto
        onnx.checker.check_model(model, full_check=True)
        program = model.SerializeToString(deterministic=True)
    foreign = sorted({node.domain for node in model.graph.node} - {"", "ai.onnx"})
    if foreign:
        raise ConversionError(
            f"the program needs operators of the domain(s) {', '.join(foreign)}; write these otherwise"
        )
    return LoweredPart(program, dict(sorted(Counter(node.op_type for node in model.graph.node).items())))

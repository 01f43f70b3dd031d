"""Lower a part to an ExecuTorch program (``.pte``) for XNNPACK.

Promise: nothing but layer norm stays outside the XNNPACK delegate (that release of XNNPACK has no
layer norm; it runs in ExecuTorch's optimized kernels).
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from paraedge_converters.lowering import LoweredPart, lowering_with
from paraedge_runtime.errors import ConversionError

ENGINE_MIN_VERSION = {"executorch": "1.5"}
TOOLS = ("torch", "executorch")

_DELEGATE = "XnnpackBackend"
_ALLOWED_OUTSIDE = frozenset({_DELEGATE, "aten.native_layer_norm.default"})


def lower(module: nn.Module, example: Tensor, *, allow_undelegated: bool) -> LoweredPart:
    """Lower a module; see :class:`paraedge_converters.lowering.Converter`."""
    with lowering_with("ExecuTorch"):
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        exported = torch.export.export(module, (example,))
        edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        operators = _operators(edge.exported_program().graph_module)
        program = bytes(edge.to_executorch().buffer)
    outside = {name: count for name, count in operators.items() if name not in _ALLOWED_OUTSIDE}
    if (outside or _DELEGATE not in operators) and not allow_undelegated:
        listed = ", ".join(f"{name} ×{count}" for name, count in sorted(outside.items())) or "everything"
        raise ConversionError(
            f"the XNNPACK delegate did not take {listed}; write these otherwise, "
            "or accept slower portable kernels with --allow-undelegated"
        )
    return LoweredPart(program, operators)


def _operators(graph_module: torch.fx.GraphModule) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for node in graph_module.graph.nodes:
        if node.op != "call_function":
            continue
        name = getattr(node.target, "__name__", str(node.target))
        if name == "getitem":  # takes a result out of a tuple; nothing runs
            continue
        if name == "executorch_call_delegate":
            name = str(getattr(graph_module, str(node.args[0].target)).backend_id)
        counts[name] += 1
    return dict(sorted(counts.items()))

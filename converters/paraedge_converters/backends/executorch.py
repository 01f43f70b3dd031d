"""Lower a part to an ExecuTorch program (``.pte``) for XNNPACK.

Promise: nothing but layer norm stays outside the XNNPACK delegate (that release of XNNPACK has no
layer norm; it runs in ExecuTorch's optimized kernels). Operators that XNNPACK does not take are written in others
before.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from paraedge_converters.backends import LoweredPart, _undelegated, _xnnpack_forms, lowering_with
from paraedge_converters.backends._whole import operators_in, operators_of
from paraedge_runtime.errors import ConversionError

TOOLS = ("torch", "executorch", "torchao")
RECIPES = {
    "fp32": "XNNPACK",
    "fp16": "the module in half precision, float32 at both ends; XNNPACK keeps convolution weights in float32",
    "int8-dynamic": "PT2E, weights per channel: linear layers dynamic; a part with convolutions static",
    "int8-static": "PT2E, weights per channel: all static, the last linear layer float",
}

_DELEGATE = "XnnpackBackend"
_ALLOWED_OUTSIDE = frozenset({_DELEGATE, "aten.native_layer_norm.default"})
# The casts at both ends, and a gelu for which XNNPACK has no kernel of this precision.
_ALLOWED_OUTSIDE_FP16 = _ALLOWED_OUTSIDE | {"dim_order_ops._to_dim_order_copy.default", "aten.gelu.default"}


def engine_min_version(recipe: str) -> dict[str, str]:
    """See :class:`paraedge_converters.backends.Converter`."""
    return {"executorch": "1.5"}


def lower(
    module: nn.Module, example: Tensor, *, recipe: str, calibration: Tensor, allow_undelegated: bool
) -> LoweredPart:
    """Lower a module; see :class:`paraedge_converters.backends.Converter`."""
    allowed = _ALLOWED_OUTSIDE
    with lowering_with("ExecuTorch"):
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.backends.xnnpack.utils.configs import get_transform_passes
        from executorch.exir import to_edge_transform_and_lower

        passes = None
        if recipe == "fp16":
            module, allowed = _HalfPrecision(module).eval(), _ALLOWED_OUTSIDE_FP16
        module = _xnnpack_forms.in_xnnpack_forms(module, example)
        if recipe.startswith("int8"):
            module = _quantized(module, example, calibration, dynamic=recipe == "int8-dynamic")
            passes = get_transform_passes()
        exported = torch.export.export(module, (example,))
        try:
            edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()], transform_passes=passes)
        except Exception as error:
            if (clause := _undelegated.unknown_operator(exported.graph_module, str(error))) is None:
                raise
            raise ConversionError(f"ExecuTorch has no {clause}") from error
        lowered = edge.exported_program().graph_module
        found = operators_of(lowered)
        outside = {name: count for name, count in found.items() if name not in allowed}
        if (outside or _DELEGATE not in found) and not allow_undelegated:
            listed = _undelegated.undelegated(lowered, outside) or "anything"
            raise ConversionError(
                f"the XNNPACK delegate does not support {listed}; "
                "or accept slower portable kernels with --allow-undelegated"
            )
        made = edge.to_executorch()
    return LoweredPart(bytes(made.buffer), operators_in(made.executorch_program))


class _HalfPrecision(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).half()

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.half()).float()  # type: ignore[no-any-return]


def _quantized(module: nn.Module, example: Tensor, calibration: Tensor, *, dynamic: bool) -> nn.Module:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    graph_module = torch.export.export(module, (example,)).module()
    called = [node for node in graph_module.graph.nodes if node.op == "call_function"]
    products = [node.name for node in called if node.target == torch.ops.aten.linear.default]
    # An image's convolution and the depthwise one behind it have next to no weights, and their rounding is in all that
    # follows: of EfficientNet-Lite0 it made nearly all of the error.
    convs = [node for node in called if node.target == torch.ops.aten.conv2d.default][:2]
    groups = [node.args[6] if len(node.args) > 6 else 1 for node in convs]
    is_separable = groups[:1] == [1] and groups[1:] > [1] and example.shape[1] <= 4
    left = {*products[-1:], *[node.name for node in convs if is_separable]}
    # XNNPACK has no dynamic kernel for a convolution that an activation follows.
    dynamic = dynamic and not any(node.target == torch.ops.aten.conv2d.default for node in called)

    class Quantizer(XNNPACKQuantizer):  # type: ignore[misc]  # imported without types
        """Knows ReLU6 behind a product as it knows ReLU: the delegate computes both with the product, rounded once.

        It finds what it rounds by operator. Pools and recurrent layers it would find by module, and stop at their
        forms, which are other operators.
        """

        SUPPORTED_PATTERNS = [  # noqa: RUF012
            pattern for pattern in XNNPACKQuantizer.SUPPORTED_PATTERNS if pattern.name not in _FOUND_BY_MODULE
        ]

        def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
            clamps = [(node, node.target) for node in model.graph.nodes if _is_clamp_of_product(node)]
            for node, _ in clamps:
                node.target = torch.ops.aten.relu.default
            super().annotate(model)
            for node, target in clamps:
                node.target = target
            return model

    quantizer = Quantizer()
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True, is_dynamic=dynamic))
    if not dynamic:
        quantizer.set_filter_function(lambda node: node.name not in left)
    prepared = prepare_pt2e(graph_module, quantizer)
    with torch.no_grad():
        for sample in calibration[:, None]:
            prepared(sample)
    return convert_pt2e(prepared)  # type: ignore[no-any-return]


_FOUND_BY_MODULE = ("adaptive_avg_pool2d", "gru_io_only")
_PRODUCTS: set[Any] = {torch.ops.aten.conv2d.default, torch.ops.aten.linear.default}
_CLAMPS: set[Any] = {torch.ops.aten.hardtanh.default, torch.ops.aten.hardtanh_.default}


def _is_clamp_of_product(node: torch.fx.Node) -> bool:
    """ReLU6 and its like: between 0 and a number."""
    source = node.args[0] if node.target in _CLAMPS and node.args[1:2] == (0,) else None
    return isinstance(source, torch.fx.Node) and source.target in _PRODUCTS

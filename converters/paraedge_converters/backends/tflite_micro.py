"""Lower a part to a ``.tflite`` program that TensorFlow Lite Micro runs: what ``litert.py`` makes, GELU written out.

Promise: only operators that TensorFlow Lite Micro has. The file is an ordinary ``.tflite``, so LiteRT runs it too,
and the parity gate does. Two of LiteRT's recipes are left: see ``recipes.py`` for why not the others.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paraedge_converters.backends import LoweredPart, litert, lowering_with
from paraedge_runtime.errors import ConversionError

TOOLS = litert.TOOLS
RECIPES = {name: litert.RECIPES[name] for name in ("fp32", "int8-static")}

# What the package tflite-micro registers (0.dev20261023), less control flow and state: a part is a function.
OPERATORS = frozenset({
    "ABS", "ADD", "ADD_N", "ARG_MAX", "ARG_MIN", "AVERAGE_POOL_2D", "BATCH_MATMUL", "BATCH_TO_SPACE_ND",
    "BROADCAST_ARGS", "BROADCAST_TO", "CAST", "CEIL", "CONCATENATION", "CONV_2D", "COS", "CUMSUM",
    "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE", "DEQUANTIZE", "DIV", "DYNAMIC_UPDATE_SLICE", "ELU", "EMBEDDING_LOOKUP",
    "EQUAL", "EXP", "EXPAND_DIMS", "FILL", "FLOOR", "FLOOR_DIV", "FLOOR_MOD", "FULLY_CONNECTED", "GATHER",
    "GATHER_ND", "GREATER", "GREATER_EQUAL", "HARD_SWISH", "L2_NORMALIZATION", "L2_POOL_2D", "LEAKY_RELU", "LESS",
    "LESS_EQUAL", "LOG", "LOGICAL_AND", "LOGICAL_NOT", "LOGICAL_OR", "LOGISTIC", "LOG_SOFTMAX", "MAXIMUM",
    "MAX_POOL_2D", "MEAN", "MINIMUM", "MIRROR_PAD", "MUL", "NEG", "NOT_EQUAL", "PACK", "PAD", "PADV2", "PRELU",
    "QUANTIZE", "REDUCE_ALL", "REDUCE_MAX", "REDUCE_MIN", "RELU", "RELU6", "RESHAPE", "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2", "ROUND", "RSQRT", "SELECT_V2", "SHAPE", "SIN", "SLICE", "SOFTMAX",
    "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "SQUEEZE",
    "STRIDED_SLICE", "SUB", "SUM", "SVDF", "TANH", "TRANSPOSE", "TRANSPOSE_CONV", "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "UNPACK", "ZEROS_LIKE",
})  # fmt: skip

# GELU(x) = x · sigmoid(x · p(x²)) for these p, lowest power first, if x² is cut off at _LARGEST_SQUARE. What ``none``
# has is a fit to log(Φ / (1 − Φ)), 5e-6 off at most; ``tanh`` is that form itself, (1 + tanh z) / 2 = sigmoid(2 z).
# Not with TANH: the converter knows that form, and makes a GELU of it.
_GELU = {
    "none": (1.5956562724, 0.0729375794, -0.000249721449, -6.11623973e-05, 2.23818768e-06),
    "tanh": (1.5957691216, 0.0713548163),
}
_LARGEST_SQUARE = 20.25


def engine_min_version(recipe: str) -> dict[str, str]:
    """See :class:`paraedge_converters.backends.Converter`."""
    return litert.engine_min_version(recipe)


def lower(
    module: nn.Module, example: Tensor, *, recipe: str, calibration: Tensor, allow_undelegated: bool
) -> LoweredPart:
    """Lower a module; see :class:`paraedge_converters.backends.Converter`."""
    with lowering_with("LiteRT"):
        written_out = write_out_gelu(module, example)
    lowered = litert.lower(
        written_out, example, recipe=recipe, calibration=calibration, allow_undelegated=allow_undelegated
    )
    missing = [f"{name} ×{count}" for name, count in lowered.operators.items() if name not in OPERATORS]
    if missing:
        raise ConversionError(f"TensorFlow Lite Micro has no {', '.join(missing)}; replace them")
    return lowered


def write_out_gelu(module: nn.Module, example: Tensor) -> nn.Module:
    """The same function with every GELU, whether a module or a call, as products, sums and a sigmoid."""
    traced = torch.export.export(module, (example,)).module()
    assert isinstance(traced, torch.fx.GraphModule)
    for node in traced.graph.nodes:
        if node.target is torch.ops.aten.gelu.default:
            node.target = _gelu
    traced.recompile()
    return traced


def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    square = (x * x).clamp(max=_LARGEST_SQUARE)
    *lower_powers, slope = _GELU[approximate]
    value: Tensor | float = slope
    for coefficient in reversed(lower_powers):
        value = value * square + coefficient
    return x * torch.sigmoid(x * value)

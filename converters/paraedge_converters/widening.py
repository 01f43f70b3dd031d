"""Parts with weights in half precision, as the same function in float32: what every engine can run."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.node import map_aggregate

__all__ = ["has_half_precision", "widened"]

_HALF = (torch.float16, torch.bfloat16)


def has_half_precision(module: nn.Module) -> bool:
    """Whether a parameter or a buffer is float16 or bfloat16."""
    return any(tensor.dtype in _HALF for tensor in itertools.chain(module.parameters(), module.buffers()))


def widened(module: nn.Module, example: Tensor) -> nn.Module:
    """The module's graph for inputs of the example's shape, with float32 wherever it has float16 or bfloat16."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.export.export(module, (example,)).module()
    assert isinstance(traced, torch.fx.GraphModule)
    for node in traced.graph.nodes:
        node.args = map_aggregate(node.args, _widened_dtype)
        node.kwargs = map_aggregate(node.kwargs, _widened_dtype)
    traced.recompile()
    return traced.float()


def _widened_dtype(value: Any) -> Any:
    return torch.float32 if isinstance(value, torch.dtype) and value in _HALF else value

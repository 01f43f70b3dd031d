"""What an operator outside the delegate is told: where it stands in the caller's network, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from paraedge_converters.backends._source_location import is_library, location_text

__all__ = ["undelegated", "unknown_operator"]

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)\n\s*([^\n]*)')
# What the operator's name begins with -> what to write instead.
_HINTS = {
    "aten.erf": "write GELU as torch.nn.functional.gelu",
    "aten.index": "take parts of a tensor by slices and torch.cat, or by a product with a constant matrix of 0 and 1",
    "aten.gather": "take parts of a tensor by slices and torch.cat",
    "aten.embedding": "look tokens up in the stem's caller, outside the network",
    "aten.topk": "leave the choice to the program that reads the output",
    "aten.argmax": "leave the choice to the program that reads the output",
    "aten.sort": "leave the order to the program that reads the output",
    "aten.prod": "write it as products of slices",
    "aten.unfold": "write it as slices and torch.stack, or as a convolution",
    "aten.gt": "write the condition as relu, clamp, minimum or maximum",
    "aten.lt": "write the condition as relu, clamp, minimum or maximum",
    "aten.ge": "write the condition as relu, clamp, minimum or maximum",
    "aten.le": "write the condition as relu, clamp, minimum or maximum",
    "aten.eq": "write the condition as relu, clamp, minimum or maximum",
    "aten.where": "write the condition as relu, clamp, minimum or maximum",
    "aten.sign": "write the condition as relu, clamp, minimum or maximum",
    "aten.pow": "write the power as products, sqrt, or exp of a multiple of log",
    "aten.max_pool2d": "leave ceil_mode out where there is a dilation",
    "aten.avg_pool2d": "leave ceil_mode and divisor_override out",
    "aten.grid_sampler": "scale and cut out before the network, with interpolate or slices",
    "aten._fft": "write it as a product with the transform's matrix, or as convolutions with its sines",
    "aten.stft": "write it as convolutions with the windowed sines",
    "aten.convolution": "write a convolution over three dimensions as one over each image and one over time",
    "aten.conv3d": "write a convolution over three dimensions as one over each image and one over time",
    "aten.max_pool3d": "write it as max_pool2d of each image, and a maximum over time",
    "aten.avg_pool3d": "write it as avg_pool2d of each image, and a mean over time",
    "aten.complex": "write complex numbers as pairs: a rotation is x * cos + y * sin",
    "aten.view_as": "write complex numbers as pairs: a rotation is x * cos + y * sin",
    "aten.gru": "take at most 256 steps, or write it as convolutions or attention",
    "aten.lstm": "take at most 256 steps, or write it as convolutions or attention",
    "aten.rnn": "take at most 256 steps, or write it as convolutions or attention",
    "dim_order_ops._to_dim_order_copy": "keep everything in float32, comparisons and integers too",
}


def undelegated(graph_module: torch.fx.GraphModule, outside: Mapping[str, int]) -> str:
    """One clause for each operator in ``outside``: count, first location in the network, what to write instead."""
    first: dict[str, torch.fx.Node] = {}
    for node in graph_module.graph.nodes:
        name = getattr(node.target, "__name__", str(node.target))
        if node.op == "call_function" and name in outside:
            first.setdefault(name, node)
    clauses = []
    for name, count in sorted(outside.items()):
        location = _location(first[name]) if name in first else ""
        clauses.append(f"{name} ×{count}{location}: {_hint(name)}")
    return "; ".join(clauses)


def _location(node: torch.fx.Node) -> str:
    """Module path and source line, as far as they are known: `` (blocks.0.mlp, net.py:12: return x.cumsum(1))``."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if not is_library(frame[0])]
    file, line, _, code = (own or frames)[-1] if frames else ("", "", "", "")
    return location_text(path, file, line, code)


def unknown_operator(graph_module: torch.fx.GraphModule, text: str) -> str | None:
    """A clause for the operator that ExecuTorch says it does not know; ``None`` if it says something else."""
    found = re.search(r"Operator torch\._ops\.(aten\.\w+)\S* is not in Core ATen", text)
    if found is None:
        return None
    name = found.group(1)
    nodes = [node for node in graph_module.graph.nodes if node.op == "call_function"]
    best = max(nodes, key=lambda node: _shared_letters(str(node.target), name), default=None)
    is_it = best is not None and _shared_letters(str(best.target), name) >= 3
    return f"{name}{_location(best) if best is not None and is_it else ''}: {_hint(name)}"


def _shared_letters(first: str, second: str) -> int:
    """How many letters two operators' names begin with alike: ``aten.fft_fft`` became ``aten._fft_c2c``."""
    names = [name.removeprefix("aten.").lstrip("_") for name in (first, second)]
    pairs = enumerate(zip(*names, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(map(len, names)))


def _hint(name: str) -> str:
    return next((hint for start, hint in _HINTS.items() if name.startswith(start)), "write it in other operators")

"""What an operator outside the delegate is told: where it stands in the caller's network, and what to write instead."""

from __future__ import annotations

import os
import re
import site
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import torch

__all__ = ["undelegated"]

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)\n\s*([^\n]*)')
_LIBRARIES = tuple({
    os.path.realpath(str(path))
    for path in (*site.getsitepackages(), sysconfig.get_path("purelib"), Path(torch.__file__).parents[1])
})  # fmt: skip

# What the operator's name begins with -> what to write instead.
_HINTS = {
    "aten.erf": "write GELU as torch.nn.functional.gelu",
    "aten.index": "take parts of a tensor by slices and torch.cat, or by a product with a constant matrix of 0 and 1",
    "aten.gather": "take parts of a tensor by slices and torch.cat",
    "aten.embedding": "look tokens up in the stem's caller, outside the network",
    "aten.cumsum": "write it as a product with a triangular matrix of ones",
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
    "aten.max_pool2d": "take a stride that is not larger than the kernel, and no dilation",
    "aten.avg_pool2d": "leave ceil_mode and divisor_override out",
    "aten.upsample_nearest": "scale by a whole number",
    "aten.gru": "take at most 256 steps, or write it as convolutions or attention",
    "aten.lstm": "take at most 256 steps, or write it as convolutions or attention",
    "aten.rnn": "take at most 256 steps, or write it as convolutions or attention",
    "dim_order_ops._to_dim_order_copy": "keep everything in float32, comparisons and integers too",
}


def undelegated(graph_module: torch.fx.GraphModule, outside: Mapping[str, int]) -> str:
    """One clause for each operator in ``outside``: its count, the first place in the network, what to write instead."""
    first: dict[str, torch.fx.Node] = {}
    for node in graph_module.graph.nodes:
        name = getattr(node.target, "__name__", str(node.target))
        if node.op == "call_function" and name in outside:
            first.setdefault(name, node)
    clauses = []
    for name, count in sorted(outside.items()):
        place = _place(first[name]) if name in first else ""
        hint = next((hint for start, hint in _HINTS.items() if name.startswith(start)), "write it in other operators")
        clauses.append(f"{name} ×{count}{place}: {hint}")
    return "; ".join(clauses)


def _place(node: torch.fx.Node) -> str:
    """Module path and source line, as far as they are known: `` (blocks.0.mlp, net.py:12: return x.cumsum(1))``."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if not os.path.realpath(frame[0]).startswith(_LIBRARIES)]
    known = [path] if path else []
    if frames:
        file, line, _, code = (own or frames)[-1]
        known.append(f"{_shown(file)}:{line}: {code.strip()[:100]}")
    return f" ({', '.join(known)})" if known else ""


def _shown(file: str) -> str:
    relative = os.path.relpath(file)
    return file if relative.startswith("..") else relative

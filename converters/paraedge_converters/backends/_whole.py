"""A part lowered to one ExecuTorch delegate, whole: what the delegates of GPUs and NPUs have in common."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from paraedge_converters.backends import LoweredPart, _undelegated
from paraedge_runtime.errors import ConversionError

__all__ = ["lowered_whole", "operators_in", "operators_of"]


def lowered_whole(
    exported: torch.export.ExportedProgram,
    partitioner: Any,
    backend: str,
    *,
    beside: frozenset[str] = frozenset(),
    allow_undelegated: bool,
) -> LoweredPart:
    """Lower a module to one delegate.

    Args:
        exported: the module.
        partitioner: of the delegate.
        backend: what ExecuTorch calls it.
        beside: operators that may stay on the CPU.
        allow_undelegated: accept others too, and more delegates than one.

    Raises:
        ConversionError: operators are left outside; the message names them.
    """
    from executorch.exir import to_edge_transform_and_lower

    edge = to_edge_transform_and_lower(exported, partitioner=[partitioner])
    graph_module = edge.exported_program().graph_module
    operators = operators_of(graph_module)
    outside = {name: count for name, count in operators.items() if name not in beside | {backend}}
    if (outside or operators.get(backend) != 1) and not allow_undelegated:
        listed = _undelegated.undelegated(graph_module, outside) or "this part in one piece"
        raise ConversionError(
            f"the delegate {backend} does not support {listed}; "
            "or accept slower portable kernels with --allow-undelegated"
        )
    made = edge.to_executorch()
    return LoweredPart(bytes(made.buffer), operators_in(made.executorch_program))


def operators_in(program: Any) -> dict[str, int]:
    """How often each operator occurs in ExecuTorch's program, by the names that its runtime knows them by."""
    counts: Counter[str] = Counter()
    for plan in program.execution_plan:
        names = [".".join(filter(None, (operator.name, operator.overload))) for operator in plan.operators]
        for instruction in (one.instr_args for chain in plan.chains for one in chain.instructions):
            if hasattr(instruction, "op_index"):
                counts[names[instruction.op_index]] += 1
            elif hasattr(instruction, "delegate_index"):
                counts[plan.delegates[instruction.delegate_index].id] += 1
    return dict(sorted(counts.items()))


def operators_of(graph_module: torch.fx.GraphModule) -> dict[str, int]:
    """How often each operator occurs in a graph; a delegate is one operator of its name."""
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

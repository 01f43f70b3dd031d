"""Lower a part to an ExecuTorch program (``.pte``) for Arm's Ethos-U, and run it in the TOSA reference model.

Promise: one delegate takes the whole part, in 8 bits; what is left turns float32 into 8 bits and back, at both ends. No
Ethos-U is at hand: the operators that Vela compiles for it run in Arm's reference model of TOSA, bit for bit as the
specification has them.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from paraedge_converters.backends import LoweredPart, lowering_with
from paraedge_converters.backends._whole import lowered_whole
from paraedge_runtime.errors import ConversionError, EngineError

__all__ = ["U55", "U85", "EthosU", "TosaPart"]

_ENDS = ("quantized_decomposed.quantize_per_tensor.default", "quantized_decomposed.dequantize_per_tensor.default")


class _Scale(msgspec.Struct, frozen=True):
    """What a float32 tensor is in integers: ``round(x / scale) + zero_point``, between ``least`` and ``most``."""

    scale: float
    zero_point: int
    least: int
    most: int


class _Reference(msgspec.Struct, frozen=True):
    """What the reference model runs: operators in TOSA's format, between two scales."""

    graph: bytes
    input: _Scale
    output: _Scale


@dataclass(frozen=True)
class EthosU:
    """The converter for one processor, as Vela calls it; see :class:`paraedge_converters.backends.Converter`."""

    processor: str

    TOOLS: ClassVar[tuple[str, ...]] = ("torch", "executorch", "torchao", "ethos-u-vela", "tosa-tools")
    RECIPES: ClassVar[dict[str, str]] = {"int8-static": "PT2E with Arm's quantizer: all in 8 bits, logits too"}

    def engine_min_version(self, recipe: str) -> dict[str, str]:
        """See :class:`paraedge_converters.backends.Converter`."""
        return {"executorch": "1.5"}

    def lower(
        self, module: nn.Module, example: Tensor, *, recipe: str, calibration: Tensor, allow_undelegated: bool
    ) -> LoweredPart:
        """Lower a module; see :class:`paraedge_converters.backends.Converter`."""
        with (
            lowering_with("Vela", needed="--no-deps ethos-u-vela==5.1.0 tosa-tools==2026.5.0"),
            tempfile.TemporaryDirectory() as folder,
        ):
            from executorch.backends.arm.ethosu import EthosUCompileSpec, EthosUPartitioner

            spec = EthosUCompileSpec(self.processor).dump_intermediate_artifacts_to(folder)
            module = _quantized(module, example, calibration, spec)
            exported = torch.export.export(module, (example,))
            scales = _scales(exported.graph_module)
            part = lowered_whole(
                exported,
                EthosUPartitioner(spec),
                "EthosUBackend",
                beside=frozenset(_ENDS),
                allow_undelegated=allow_undelegated,
            )
            graphs = list(Path(folder).glob("output_tag*.tosa"))
            if len(graphs) != 1 or part.operators.get("EthosUBackend") != 1 or len(part.operators) != 1 + len(_ENDS):
                raise ConversionError(
                    "Vela split the part into several delegates, the parity gate supports one; use another --delegate"
                )
            reference = _Reference(graphs[0].read_bytes(), *scales)
            return LoweredPart(part.program, part.operators, msgspec.msgpack.encode(reference))


U55 = EthosU("ethos-u55-128")
U85 = EthosU("ethos-u85-256")


def _quantized(module: nn.Module, example: Tensor, calibration: Tensor, spec: Any) -> nn.Module:
    from executorch.backends.arm.quantizer import EthosUQuantizer, get_symmetric_quantization_config
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = EthosUQuantizer(spec)
    quantizer.set_global(get_symmetric_quantization_config())
    # Arm's quantizer refuses the call that checks a part's inputs.
    prepared = prepare_pt2e(torch.export.export(module, (example,)).module(check_guards=False), quantizer)
    with torch.no_grad():
        for sample in calibration[:, None]:
            prepared(sample)
    return convert_pt2e(prepared)  # type: ignore[no-any-return]


def _scales(graph_module: torch.fx.GraphModule) -> tuple[_Scale, _Scale]:
    """Those of the input, and of the output."""
    nodes = list(graph_module.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder" and node.users]
    first = next(user for user in inputs[-1].users if "quantize_per_tensor" in str(user.target))
    last = next(node for node in nodes if node.op == "output").args[0][0]
    return _scale(first), _scale(last)


def _scale(node: torch.fx.Node) -> _Scale:
    scale, zero_point, least, most = node.args[1:5]
    return _Scale(float(scale), int(zero_point), int(least), int(most))  # type: ignore[arg-type]


class TosaPart:
    """A ``LoadedPart`` in Arm's reference model."""

    def __init__(self, reference: bytes) -> None:
        import tosa_reference_model

        self._model: Any = tosa_reference_model
        self._reference = msgspec.msgpack.decode(reference, type=_Reference)

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the part."""
        read, made = self._reference.input, self._reference.output
        integers = np.clip(np.rint(x / np.float32(read.scale)) + read.zero_point, read.least, read.most)
        outputs, status = self._model.run(self._reference.graph, [integers.astype(np.int8)], verbosity="LOW")
        if status != self._model.GraphStatus.TOSA_VALID:
            raise EngineError(f"the TOSA reference model cannot run it: {status}")
        result = (outputs[0].astype(np.float32) - np.float32(made.zero_point)) * np.float32(made.scale)
        return np.ascontiguousarray(result, dtype=np.float32)

    def close(self) -> None:
        """Nothing is held."""

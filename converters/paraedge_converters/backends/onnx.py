"""Lower a part to an ONNX program (``.onnx``).

Promise: the ONNX checker passes, and every operator belongs to the standard's own domain, or is
``MatMulNBits`` of ONNX Runtime where a recipe names it.

Where ranges are measured, integer weights are signed, with the zero point 0 everywhere: only for these does ONNX
Runtime have fast kernels. On x86 without VNNI they would overflow; the engine asks for the exact ones there.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from paraedge_converters.backends import LoweredPart, lowering_with
from paraedge_runtime.errors import ConversionError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime")
RECIPES = {
    "fp32": "as converted",
    "fp16": "the whole graph in half precision, float32 at both ends",
    "int8-dynamic": "matrix products dynamic, unsigned weights; convolutions static",
    "int8-static": "matrix products and convolutions static, signed weights per channel, the last product float",
    "int8-weight": "MatMulNBits, 8 bits in blocks of 32; convolutions stay float32",
    "int4-weight": "MatMulNBits, 4 bits in blocks of 32; convolutions stay float32",
}

_PRODUCTS = ("MatMul", "Gemm")
_ACTIVATIONS = ("Relu", "Clip")  # that the rounding of what stands before them does by itself
_STANDARD = ("", "ai.onnx")
_OWN_DOMAIN = {"com.microsoft": {"MatMulNBits"}}


def engine_min_version(recipe: str) -> dict[str, str]:
    """See :class:`paraedge_converters.backends.Converter`."""
    return {"onnxruntime": "1.19"}


def lower(
    module: nn.Module, example: Tensor, *, recipe: str, calibration: Tensor, allow_undelegated: bool
) -> LoweredPart:
    """Lower a module; see :class:`paraedge_converters.backends.Converter`."""
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
        if recipe != "fp32":
            model = _quantized(model, recipe, calibration)
        _strip(model)
        onnx.checker.check_model(model, full_check=recipe == "fp32")
        program = model.SerializeToString(deterministic=True)
    foreign = sorted(
        {
            node.domain
            for node in model.graph.node
            if node.domain not in _STANDARD and node.op_type not in _OWN_DOMAIN.get(node.domain, ())
        }
    )
    if foreign:
        raise ConversionError(f"the program needs operators of the domain(s) {', '.join(foreign)}; replace them")
    names = (node.op_type if node.domain in _STANDARD else f"{node.domain}.{node.op_type}" for node in model.graph.node)
    return LoweredPart(program, dict(sorted(Counter(names).items())))


def _strip(model: ModelProto) -> None:
    """Drop what nobody runs: the exporter's notes with its stack traces, inferred shapes, long names."""
    graph = model.graph
    names: dict[str, str] = {"": "", "x": "x", "y": "y"}

    def short(name: str) -> str:
        return names.setdefault(name, f"v{len(names):x}")

    for node in graph.node:
        node.input[:] = map(short, node.input)
        node.output[:] = map(short, node.output)
        for text in ("name", "doc_string", "metadata_props"):
            node.ClearField(text)
    for tensor in graph.initializer:
        tensor.name = short(tensor.name)
    for record in (model, graph, *graph.input, *graph.output, *graph.initializer):
        record.ClearField("doc_string")
        record.ClearField("metadata_props")
    graph.ClearField("value_info")


def _quantized(model: ModelProto, recipe: str, calibration: Tensor) -> ModelProto:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    from onnxruntime.quantization.shape_inference import quant_pre_process
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    if recipe in ("int8-weight", "int4-weight"):
        work = MatMulNBitsQuantizer(model, bits=8 if recipe == "int8-weight" else 4, block_size=32, is_symmetric=True)
        work.process()
        return work.model.model
    with tempfile.TemporaryDirectory() as folder:
        whole, prepared, result = (Path(folder, f"{name}.onnx") for name in ("whole", "prepared", "result"))
        onnx.save(model, whole)
        # Shapes are fixed, and inferred by ONNX; the symbolic ones fail on an Expand, as of normalize.
        quant_pre_process(whole, prepared, skip_symbolic_shape=True)
        if recipe == "fp16":
            half = OnnxModel(convert_float_to_float16(onnx.load(prepared), keep_io_types=True))
            half.topological_sort()
            return half.model
        present = [node for node in onnx.load(prepared).graph.node]
        products = [node.name for node in present if node.op_type in _PRODUCTS]
        # What follows a convolution is rounded once, after its activation: half of the range before a ReLU is lost.
        activated = {name for node in present if node.op_type in _ACTIVATIONS for name in node.input[:1]}
        sums = [node.name for node in present if node.op_type == "Add" and node.output[0] not in activated]
        # A convolution of an image of 1 or 3 channels has next to no weights, and its rounding is in all that follows;
        # so it is with a depthwise one behind it.
        convs = [node for node in present if node.op_type == "Conv"]
        first = [node.name for node in convs if node.input[0] == "x"]
        first += [node.name for node in convs[1:2] if _groups(node) > 1]
        few = calibration.shape[1] <= 4
        weighted = ["Conv", *(_PRODUCTS if recipe == "int8-static" else ())]
        if any(node.op_type in weighted for node in present):
            quantize_static(
                prepared,
                result,
                _Samples(calibration),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=[*weighted, *_ACTIVATIONS, "Add"],
                nodes_to_exclude=[*products[-1:], *sums, *(first if few else ())],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QUInt8,
            )
            onnx.save(_with_signed_weights(onnx.load(result)), result)
            prepared = result
        if recipe == "int8-dynamic" and products:
            final = Path(folder, "final.onnx")
            quantize_dynamic(prepared, final, weight_type=QuantType.QUInt8, op_types_to_quantize=list(_PRODUCTS))
            prepared = final
        return onnx.load(prepared)


def _with_signed_weights(model: ModelProto) -> ModelProto:
    """The same weights as numbers from -128 to 127 around the zero point 0.

    The quantizer gives a channel without weights another zero point than all others; for a depthwise convolution with
    several, ONNX Runtime has a kernel that takes a hundred times as long.
    """
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in tensors:
            continue
        weights, zeros = (numpy_helper.to_array(tensors[name]) for name in (node.input[0], node.input[2]))
        if weights.dtype != np.uint8 or weights.ndim < 2 or zeros.shape != (len(weights),):
            continue
        signed = weights.astype(np.int16) - zeros.reshape(-1, *[1] * (weights.ndim - 1))
        if signed.min() < -128 or signed.max() > 127:
            continue
        for name, values in ((node.input[0], signed), (node.input[2], np.zeros_like(zeros))):
            tensors[name].CopyFrom(numpy_helper.from_array(values.astype(np.int8), name))
    return model


def _groups(node: NodeProto) -> int:
    """Of a convolution."""
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "group"), 1)


class _Samples:
    """What ONNX Runtime calls a calibration data reader."""

    def __init__(self, calibration: Tensor) -> None:
        self._samples: Iterator[Tensor] = iter(calibration[:, None])

    def get_next(self) -> dict[str, Any] | None:
        sample = next(self._samples, None)
        return None if sample is None else {"x": sample.numpy()}

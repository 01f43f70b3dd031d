"""Lower a part to a LiteRT / TensorFlow Lite program (``.tflite``).

Promise: built-in operators only, no custom and no Flex ones, so that every interpreter can run it.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from paraedge_converters._temporary import check_room
from paraedge_converters.backends import LoweredPart, _xnnpack_forms, lowering_with
from paraedge_converters.recipes import TFLITE_RUNTIME_RECIPES, part_recipe
from paraedge_runtime.errors import ConversionError

# More than a program has beside its weights.
_PROGRAM_BYTES = 1 << 20

TOOLS = ("torch", "litert-torch", "litert-converter", "ai-edge-quantizer")
RECIPES = {
    "fp32": "as converted",
    "fp16": "16-bit weights, cast to float32 when loaded",
    "int8-dynamic": "matrix products and convolutions dynamic, weights per channel",
    "int8-static": "matrix products and convolutions static, weights per channel, the last product float",
    "int8-weight": "8-bit weights per channel, computed with in float32",
    "int4-weight": "4-bit weights per channel, computed with in float32",
}


def engine_min_version(recipe: str) -> dict[str, str]:
    """See :class:`paraedge_converters.backends.Converter`."""
    newer = {"ai-edge-litert": "1.2"}
    old = part_recipe(recipe, "branch") in TFLITE_RUNTIME_RECIPES
    return {**newer, "tflite-runtime": "2.14"} if old else newer


def lower(
    module: nn.Module, example: Tensor, *, recipe: str, calibration: Tensor, allow_undelegated: bool
) -> LoweredPart:
    """Lower a module; see :class:`paraedge_converters.backends.Converter`."""
    with lowering_with("LiteRT"), _no_progress(), tempfile.TemporaryDirectory() as folder:
        # LLVM, which writes the program, ends the process on a full disk.
        check_room(2 * sum(tensor.nbytes for tensor in module.state_dict().values()) + _PROGRAM_BYTES)
        path = Path(folder, "part.tflite")
        _convert(module, example, path)
        if recipe != "fp32" and not (recipe == "int8-static" and _has_last_product_only(path.read_bytes())):
            _quantize(path, recipe, calibration)
        program = path.read_bytes()
        operators, custom = _operators(program)
    if custom:
        raise ConversionError(f"the program needs operators that are not built in: {', '.join(custom)}; replace them")
    return LoweredPart(program, operators)


@contextlib.contextmanager
def _no_progress() -> Iterator[None]:
    """The converter prints each of its steps to stdout, which belongs to the caller's program."""
    from litert_torch import progress

    before = progress.console.quiet
    progress.console.quiet = True
    try:
        yield
    finally:
        progress.console.quiet = before


_NO_FORM = "Lowering not found"  # what the converter says of an operator that it does not know


def _convert(module: nn.Module, example: Tensor, path: Path) -> None:
    """Write the program as one graph.

    What the converter has no form for, or writes as graphs of their own that not every interpreter takes, goes in plain
    operators: products, convolutions, pools.
    """
    import litert_torch

    try:
        litert_torch.convert(module, (example,)).export(str(path))
    except RuntimeError as error:
        if not str(error).startswith(_NO_FORM):
            raise
        try:
            plain = _xnnpack_forms.in_xnnpack_forms(module, example)
            litert_torch.convert(plain, (example,)).export(str(path))
        except Exception:
            raise error from None  # says it of the network as it was written
    else:
        if _num_graphs(path.read_bytes()) == 1:
            return
        litert_torch.convert(_xnnpack_forms.in_xnnpack_forms(module, example), (example,)).export(str(path))
    if (count := _num_graphs(path.read_bytes())) != 1:
        raise ConversionError(
            f"the program must have one graph, got {count}; write a dilated pool or a loop in other operators"
        )


def _num_graphs(program: bytes) -> int:
    from ai_edge_litert import schema_py_generated as schema

    return int(schema.Model.GetRootAs(program, 0).SubgraphsLength())


def _quantize(path: Path, recipe: str, calibration: Tensor) -> None:
    """Quantize a program in place."""
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer
    from ai_edge_quantizer import recipe as recipes

    names, algorithms = qtyping.TFLOperationName, algorithm_manager.AlgorithmName
    work = quantizer.Quantizer(str(path))
    calibrated = None
    if recipe == "fp16":
        half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        work.update_quantization_recipe(
            regex=".*",
            operation_name=names.ALL_SUPPORTED,
            algorithm_key=algorithms.FLOAT_CASTING,
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=half, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
            ),
        )
    elif recipe == "int8-static":
        # Layer norms, written out by the converter, lose too much in 8 bits.
        for name in (names.FULLY_CONNECTED, names.CONV_2D, names.DEPTHWISE_CONV_2D):
            work.add_static_config(regex=".*", operation_name=name, activation_num_bits=8, weight_num_bits=8)
        if (last := _last_product(path.read_bytes())) is not None:
            work.update_quantization_recipe(
                regex=re.escape(last), operation_name=names.FULLY_CONNECTED, algorithm_key=algorithms.NO_QUANTIZE
            )
        calibrated = _ranges(path, work.get_quantization_recipe(), calibration)
    else:
        work.load_quantization_recipe(
            {
                "int8-dynamic": recipes.dynamic_wi8_afp32,
                "int8-weight": recipes.weight_only_wi8_afp32,
                "int4-weight": recipes.weight_only_wi4_afp32,
            }[recipe]()
        )
    if recipe != "fp16":
        kinds = (names.CONV_2D, names.DEPTHWISE_CONV_2D)
        for made, name in zip(_first_convolutions(path.read_bytes()), kinds, strict=False):
            work.update_quantization_recipe(
                regex=re.escape(made), operation_name=name, algorithm_key=algorithms.NO_QUANTIZE
            )
    program = work.quantize(calibrated, enable_progress_report=False).quantized_model
    path.write_bytes(_with_short_names(bytes(program)))


def _ranges(path: Path, recipe: Any, calibration: Tensor) -> dict[str, Any]:
    """The least and the largest value of every tensor that a quantizer's recipe names.

    The quantizer's own ranges are moving averages, which the first sample has most of: they cut off what others need.
    """
    from ai_edge_quantizer import calibrator, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(recipe)
    watched = calibrator.Calibrator(str(path), qsv_update_func=qsv_utils.min_max_update)
    watched.calibrate({"serving_default": [{"args_0": sample.numpy()} for sample in calibration[:, None]]}, manager)
    return dict(watched.get_model_qsvs())


def _with_short_names(program: bytes) -> bytes:
    """Tensors are called after the Python classes that made them: a fifth of a small quantized part."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(program))
    for graph in model.subgraphs:
        for number, tensor in enumerate(graph.tensors):
            tensor.name = f"t{number}".encode()
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _has_last_product_only(program: bytes) -> bool:
    """Whether nothing is left to quantize: the last product stays float."""
    operators, _ = _operators(program)
    return sum(operators.get(name, 0) for name in ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")) <= 1 and (
        "FULLY_CONNECTED" in operators
    )


def _last_product(program: bytes) -> str | None:
    """The name of what the last fully connected operator makes."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(program, 0)
    graph = model.subgraphs[0]
    outputs = [
        operator.outputs[0]
        for operator in graph.operators
        if model.operatorCodes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.FULLY_CONNECTED
    ]
    return graph.tensors[outputs[-1]].name.decode() if outputs else None


def _first_convolutions(program: bytes) -> list[str]:
    """The names of what an image's convolution and the depthwise one behind it make, where a part begins with both.

    They have next to no weights, and their rounding is in all that follows: of EfficientNet-Lite0 it made nearly all of
    the error.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(program, 0)
    graph, kinds = model.subgraphs[0], schema.BuiltinOperator
    found = [
        (code, operator)
        for operator in graph.operators
        if (code := model.operatorCodes[operator.opcodeIndex].builtinCode) in (kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D)
    ][:2]
    if [code for code, _ in found] != [kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D]:
        return []
    channels = graph.tensors[found[0][1].inputs[1]].shape[3]  # of weights (out, height, width, in)
    return [graph.tensors[operator.outputs[0]].name.decode() for _, operator in found] if channels <= 4 else []


def _operators(program: bytes) -> tuple[dict[str, int], list[str]]:
    from ai_edge_litert import schema_py_generated as schema

    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    model = schema.ModelT.InitFromPackedBuf(program, 0)
    counts: Counter[str] = Counter()
    custom: set[str] = set()
    for graph in model.subgraphs:
        for operator in graph.operators or ():
            code = model.operatorCodes[operator.opcodeIndex]
            # Old readers know the first 127 operators by a narrower field.
            number = max(code.builtinCode, code.deprecatedBuiltinCode)
            name = names.get(number, f"operator {number}")
            if number == schema.BuiltinOperator.CUSTOM:
                name = code.customCode.decode() if isinstance(code.customCode, bytes) else str(code.customCode)
                custom.add(name)
            counts[name] += 1
    return dict(sorted(counts.items())), sorted(custom)

"""Lower a part to a LiteRT / TensorFlow Lite program (``.tflite``).

Promise: built-in operators only, no custom and no Flex ones, so that every interpreter can run it.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from torch import Tensor, nn

from paraedge_converters.lowering import LoweredPart, lowering_with
from paraedge_runtime.errors import ConversionError

ENGINE_MIN_VERSION = {"ai-edge-litert": "1.2", "tflite-runtime": "2.14"}
TOOLS = ("torch", "litert-torch", "litert-converter")


def lower(module: nn.Module, example: Tensor, *, allow_undelegated: bool) -> LoweredPart:
    """Lower a module; see :class:`paraedge_converters.lowering.Converter`."""
    with lowering_with("LiteRT"), tempfile.TemporaryDirectory() as folder:
        import litert_torch

        path = Path(folder, "part.tflite")
        litert_torch.convert(module, (example,)).export(str(path))
        program = path.read_bytes()
        operators, custom = _operators(program)
    if custom:
        raise ConversionError(
            f"the program needs operators that are not built in: {', '.join(custom)}; write these otherwise"
        )
    return LoweredPart(program, operators)


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

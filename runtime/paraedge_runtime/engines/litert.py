"""The LiteRT engine: ``ai_edge_litert``, or ``tflite_runtime`` where only that is installed.

``Interpreter.invoke`` releases the GIL, so parts run in parallel in ordinary Python threads.
(``CompiledModel`` does not, and is not used.)
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.engines.base import check_program, check_shapes, mapped_error, mapped_errors
from paraedge_runtime.errors import EngineUnavailable
from paraedge_runtime.manifest import PartEntry

__all__ = ["LiteRTEngine"]

_PACKAGES = (("ai_edge_litert", "ai-edge-litert"), ("tflite_runtime", "tflite-runtime"))


class LiteRTEngine:
    """Runs ``.tflite`` parts on the CPU with XNNPACK."""

    name = "litert"
    parallel = True
    native: str | None = None  # ai-edge-litert exports no C API that it promises to keep

    def __init__(self) -> None:
        for package, distribution in _PACKAGES:
            try:
                module = importlib.import_module(f"{package}.interpreter")
            except ModuleNotFoundError as error:
                if error.name is None or not error.name.startswith(package):
                    raise EngineUnavailable(f"{distribution} is installed but needs {error.name}") from error
                continue
            except ImportError as error:
                raise EngineUnavailable(f"{distribution} is installed but cannot be loaded: {error}") from error
            self._interpreter = module.Interpreter
            self.distribution = distribution
            self.version = importlib.metadata.version(distribution)
            self.description = f"{distribution} {self.version}"
            return
        raise EngineUnavailable(
            "the engine 'litert' is not installed; pip install 'paraedge[litert]' "
            "(or 'paraedge[tflite-runtime]' on 32-bit ARM)"
        )

    def load(self, name: str, program: bytes, entry: PartEntry) -> _LiteRTPart:
        """Load a part with one thread of its own."""
        with mapped_errors(self.name, f"loading {entry.file}"):
            check_program(self.name, entry.file, program)
            interpreter = self._interpreter(model_content=program, num_threads=1)
            interpreter.allocate_tensors()
            inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
            check_shapes(name, entry, _shapes(inputs), _shapes(outputs))
            return _LiteRTPart(name, interpreter, inputs[0]["index"], outputs[0]["index"])


def _shapes(details: list[dict[str, Any]]) -> list[tuple[tuple[int, ...], str]]:
    return [(tuple(int(size) for size in detail["shape"]), np.dtype(detail["dtype"]).name) for detail in details]


class _LiteRTPart:
    def __init__(self, name: str, interpreter: Any, input_index: int, output_index: int) -> None:
        self._name = name
        self._interpreter = interpreter
        self._input_index = input_index
        self._output_index = output_index

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        try:  # no context manager: with the GIL held, two branches wait for each other
            self._interpreter.set_tensor(self._input_index, x)
            self._interpreter.invoke()
            result: NDArray[np.float32] = self._interpreter.get_tensor(self._output_index)  # a copy
        except Exception as error:
            raise mapped_error("litert", f"running {self._name}", error) from error
        return result

    def close(self) -> None:
        self._interpreter = None

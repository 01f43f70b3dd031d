"""The LiteRT engine: ``ai_edge_litert``, or ``tflite_runtime`` where only that is installed.

``Interpreter.invoke`` releases the GIL, so parts run in parallel in ordinary Python threads.
``CompiledModel`` does not; it runs parts of the delegate ``gpu``: the stem, before any branch.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.engines.base import LoadedPart, check_program, check_shapes, mapped_error, mapped_errors
from paraedge_runtime.errors import EngineError, EngineUnavailable
from paraedge_runtime.manifest import PartEntry

__all__ = ["LiteRTEngine"]

_SIGNATURE = "serving_default"
_NO_GPU = (
    "{} was made for the delegate {!r}, and {} on this machine; use the bundle on a device that has one, or export one "
    "without --delegate"
)
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

    def load(self, name: str, program: bytes, entry: PartEntry) -> LoadedPart:
        """Load a part with one thread of its own, or on the GPU."""
        with mapped_errors(self.name, f"loading {entry.file}"):
            check_program(self.name, entry.file, program)
            if entry.delegate is not None:
                return _GpuPart(name, program, entry)
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


class _GpuPart:
    """A part on the GPU, in float32; whole or not at all, as LiteRT would run on the CPU what the GPU does not take."""

    def __init__(self, name: str, program: bytes, entry: PartEntry) -> None:
        try:
            from ai_edge_litert.compiled_model import CompiledModel
            from ai_edge_litert.hardware_accelerator import HardwareAccelerator
            from ai_edge_litert.options import GpuOptions, Options
        except ImportError as error:
            raise EngineUnavailable(
                f"{entry.file} was made for the delegate {entry.delegate!r}, which needs ai-edge-litert 2.3 or newer "
                f"({error}); pip install --upgrade ai-edge-litert"
            ) from error
        options = Options(hardware_accelerators=HardwareAccelerator.GPU, gpu_options=GpuOptions(enforce_f32=True))
        try:
            model = CompiledModel.from_buffer(program, options=options)
            is_whole = model.is_fully_accelerated()
        except Exception as error:
            raise EngineUnavailable(_NO_GPU.format(entry.file, entry.delegate, "LiteRT finds no GPU")) from error
        if not is_whole:
            raise EngineError(
                f"{entry.file} was made for the delegate {entry.delegate!r}, and the GPU takes only some of its "
                "operators; export the bundle without --delegate"
            )
        (signature,) = model.get_signature_list().values()
        (read,), (made,) = signature["inputs"], signature["outputs"]
        details = [model.get_input_tensor_details(_SIGNATURE)[read], model.get_output_tensor_details(_SIGNATURE)[made]]
        check_shapes(name, entry, _shapes(details[:1]), _shapes(details[1:]))
        self._name, self._shape = name, entry.output_shape
        self._model: Any = model
        self._input, self._output = model.create_input_buffers(0)[0], model.create_output_buffers(0)[0]

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            self._input.write(np.ascontiguousarray(x))
            self._model.run_by_index(0, [self._input], [self._output])
            values = self._output.read(math.prod(self._shape), np.float32)
        except Exception as error:
            raise mapped_error("litert", f"running {self._name} on the GPU", error) from error
        return np.array(values, dtype=np.float32).reshape(self._shape)

    def close(self) -> None:
        self._model = self._input = self._output = None

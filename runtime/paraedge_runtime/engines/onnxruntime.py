"""The ONNX Runtime engine: called by the native core through its C API, or its Python package without the core.

One session per part, one thread each. An idle pool that spins slows everything beside it, which is why
intra-op threads are one and spinning is off.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.core import core_problem, load_core
from paraedge_runtime.engines.base import Engine, check_shapes, mapped_errors
from paraedge_runtime.engines.native_part import NativePart
from paraedge_runtime.engines.onnx_external_data import refuse_external_data
from paraedge_runtime.errors import EngineUnavailable
from paraedge_runtime.manifest import PartEntry

__all__ = ["OnnxRuntimeEngine", "OnnxRuntimeNative", "open_onnxruntime"]

_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}
_MISSING = "the engine 'onnxruntime' is not installed ({}); pip install 'paraedge[onnxruntime]'"


def open_onnxruntime() -> Engine:
    """The native engine, or the Python package where there is no core.

    Raises:
        EngineUnavailable: the package is not installed or cannot be loaded.
    """
    return OnnxRuntimeEngine() if core_problem() else OnnxRuntimeNative()


class OnnxRuntimeNative:
    """Runs ``.onnx`` parts on the CPU, each branch on a thread of its own; late ones are stopped."""

    name = "onnxruntime"
    distribution = "onnxruntime"
    parallel = True
    native = "onnxruntime"

    def __init__(self) -> None:
        load_core().load_onnxruntime(str(_library()))
        self.version = importlib.metadata.version("onnxruntime")
        self.description = f"onnxruntime {self.version} (native core)"

    def load(self, name: str, program: bytes, entry: PartEntry) -> NativePart:
        """Load a part with one thread of its own."""
        return NativePart("onnxruntime", name, program, entry)


def _library() -> Path:
    """The file that exports ``OrtGetApiBase``: a library of its own, or the binding in older packages."""
    try:
        found = importlib.util.find_spec("onnxruntime")
    except (ImportError, ValueError) as error:
        raise EngineUnavailable(_MISSING.format(error)) from error
    if found is None:
        raise EngineUnavailable(_MISSING.format("no such package"))
    for folder in found.submodule_search_locations or ():
        for pattern in ("libonnxruntime.so*", "libonnxruntime*.dylib", "onnxruntime_pybind11_state*.so"):
            if files := sorted(Path(folder, "capi").glob(pattern)):
                return files[0]
    raise EngineUnavailable(_MISSING.format("the package holds no library"))


class OnnxRuntimeEngine:
    """Runs ``.onnx`` parts on the CPU through the Python package."""

    name = "onnxruntime"
    distribution = "onnxruntime"
    parallel = True
    native: str | None = None

    def __init__(self) -> None:
        try:
            self._ort: Any = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise EngineUnavailable(_MISSING.format(error)) from error
        self.version = str(self._ort.__version__)
        self.description = f"onnxruntime {self.version} (Python package)"

    def load(self, name: str, program: bytes, entry: PartEntry) -> _OnnxRuntimePart:
        """Load a part with one thread of its own."""
        with mapped_errors(self.name, f"loading {entry.file}"):
            refuse_external_data(entry.file, program)
            options = self._ort.SessionOptions()
            options.intra_op_num_threads = 1
            options.inter_op_num_threads = 1
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            # Its own format is another way to weights from outside, which nobody looked for there.
            options.add_session_config_entry("session.load_model_format", "ONNX")
            # x86 without VNNI adds pairs of 8-bit products in 16 bits, which overflow silently: exact there, and slower
            options.add_session_config_entry("session.x64quantprecision", "1")
            options.log_severity_level = 3
            session = self._ort.InferenceSession(program, options, providers=["CPUExecutionProvider"])
            inputs, outputs = session.get_inputs(), session.get_outputs()
            check_shapes(name, entry, _shapes(inputs), _shapes(outputs))
            return _OnnxRuntimePart(name, session, inputs[0].name, outputs[0].name)


def _shapes(tensors: list[Any]) -> list[tuple[tuple[int, ...], str]]:
    return [(tuple(tensor.shape), _DTYPES.get(tensor.type, tensor.type)) for tensor in tensors]


class _OnnxRuntimePart:
    def __init__(self, name: str, session: Any, input_name: str, output_name: str) -> None:
        self._name = name
        self._session = session
        self._input_name = input_name
        self._outputs = [output_name]

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        with mapped_errors("onnxruntime", f"running {self._name}"):
            result: NDArray[np.float32] = self._session.run(self._outputs, {self._input_name: x})[0]
            return result

    def close(self) -> None:
        self._session = None

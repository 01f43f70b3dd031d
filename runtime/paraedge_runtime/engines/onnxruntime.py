"""The ONNX Runtime engine: one session per part, one thread each, no spinning pools.

``InferenceSession.run`` releases the GIL. An idle pool that spins slows everything beside it,
which is why intra-op threads are one and spinning is off.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.engines.base import check_shapes, mapped_errors
from paraedge_runtime.errors import EngineUnavailable
from paraedge_runtime.manifest import PartEntry
from paraedge_runtime.threaded import ThreadedEngine

__all__ = ["OnnxRuntimeEngine"]

_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}


class OnnxRuntimeEngine(ThreadedEngine):
    """Runs ``.onnx`` parts on the CPU."""

    name = "onnxruntime"
    distribution = "onnxruntime"
    parallel = True

    def __init__(self) -> None:
        try:
            self._ort: Any = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise EngineUnavailable(
                f"the engine 'onnxruntime' is not installed ({error}); pip install 'paraedge[onnxruntime]'"
            ) from error
        self.version = str(self._ort.__version__)
        self.description = f"onnxruntime {self.version}"

    def load(self, name: str, program: bytes, entry: PartEntry) -> _OnnxRuntimePart:
        """Load a part with one thread of its own."""
        with mapped_errors(self.name, f"loading {entry.file}"):
            options = self._ort.SessionOptions()
            options.intra_op_num_threads = 1
            options.inter_op_num_threads = 1
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
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

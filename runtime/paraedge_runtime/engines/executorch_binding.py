"""ExecuTorch through its Python binding: the one file of the runtime that imports torch.

The binding holds the GIL while a program runs, so parts run one after another whatever the number
of threads; ``parallel`` is ``False`` and every ``Prediction`` says so.
"""

from __future__ import annotations

import importlib.metadata
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.engines.base import check_program, check_shapes, mapped_errors
from paraedge_runtime.errors import EngineUnavailable
from paraedge_runtime.manifest import PartEntry

__all__ = ["ExecuTorchBinding"]

_FLOAT32 = 6  # ScalarType::Float of executorch's runtime/core/portable_type/scalar_type.h


class ExecuTorchBinding:
    """Runs ``.pte`` parts on the CPU with XNNPACK."""

    name = "executorch"
    distribution = "executorch"
    parallel = False
    native: str | None = None

    def __init__(self) -> None:
        try:
            # The binding itself: its wrappers, portable_lib and executorch.runtime, import the whole
            # exporter (executorch.exir) for the sake of one warning, which takes 5 s. It needs torch first.
            import torch
            from executorch.extension.pybindings import _C as binding  # noqa: N811
        except ImportError as error:
            raise EngineUnavailable(
                f"the engine 'executorch' is not installed ({error}); pip install 'paraedge[executorch]'"
            ) from error
        _use_one_thread(binding)
        self._torch = torch
        self._binding = binding
        self.version = importlib.metadata.version("executorch")
        self.description = f"executorch {self.version} (Python binding: branches run one after another)"

    def load(self, name: str, program: bytes, entry: PartEntry) -> _ExecuTorchPart:
        """Load a part with one thread of its own."""
        with mapped_errors(self.name, f"loading {entry.file}"):
            check_program(self.name, entry.file, program)
            verification = self._binding.Verification.InternalConsistency
            loaded = self._binding._load_program_from_buffer(program, program_verification=verification)
            methods = [loaded.get_method_name(position) for position in range(loaded.num_methods())]
            if "forward" not in methods:
                raise ValueError(f"it has no method 'forward', only {methods}")
            method = loaded.load_method("forward")
            meta = method.method_meta()
            inputs = [_tensor_info(meta.input_tensor_meta(position)) for position in range(meta.num_inputs())]
            outputs = [_tensor_info(meta.output_tensor_meta(position)) for position in range(meta.num_outputs())]
            check_shapes(name, entry, inputs, outputs)
            return _ExecuTorchPart(name, self._torch, program, loaded, method)


_thread_lock = threading.Lock()
_threads_set = False


def _use_one_thread(binding: Any) -> None:
    """Give the process-wide pool one thread, before anything is loaded: doing it later leaves
    loaded programs with a pool that is gone."""
    global _threads_set
    with _thread_lock:
        if not _threads_set:
            binding._unsafe_reset_threadpool(1)
            _threads_set = True


def _tensor_info(meta: Any) -> tuple[tuple[int, ...], str]:
    dtype = int(meta.dtype())
    return tuple(meta.sizes()), "float32" if dtype == _FLOAT32 else f"scalar type {dtype}"


class _ExecuTorchPart:
    def __init__(self, name: str, torch: Any, program: bytes, loaded: Any, method: Any) -> None:
        self._name = name
        self._torch = torch
        # The binding keeps no reference from method to program to bytes; without these it crashes.
        self._alive: tuple[Any, ...] = (program, loaded)
        self._method = method

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        with mapped_errors("executorch", f"running {self._name}"):
            # torch warns about arrays it may not write to
            writable = x if x.flags.writeable else x.copy()
            output = self._method([self._torch.from_numpy(writable)])[0]
            result: NDArray[np.float32] = output.numpy().copy()  # the method reuses its output memory
            return result

    def close(self) -> None:
        self._method = None
        self._alive = ()

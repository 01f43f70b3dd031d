"""ExecuTorch through the native core (``runtime/native``): branches in truly parallel threads, no torch.

The extension is built when paraedge is installed on a machine with a C++ compiler. It uses the
shared libraries of the installed ``executorch`` package; ``pip install --no-deps executorch==1.5.1``
is enough.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.engines.base import Array, Picture, RunnerOptions, RunOptions, mapped_errors
from paraedge_runtime.errors import EngineUnavailable
from paraedge_runtime.inputs import check_input, scale_and_shift
from paraedge_runtime.manifest import BranchEntry, InputSpec, PartEntry
from paraedge_runtime.prediction import Answer

__all__ = ["ExecuTorchNative", "load_native"]

# In the order in which they need each other.
_LIBRARIES = ("executorch", "executorch_threadpool", "executorch_kernels_optimized", "executorch_backend_xnnpack")

_NEVER = 2.0  # a confidence that no answer reaches


@functools.cache
def load_native() -> Any:
    """The extension module ``paraedge_runtime._native``.

    Raises:
        EngineUnavailable: it was not built, or not for the ``executorch`` that is installed.
    """
    if importlib.util.find_spec("paraedge_runtime._native") is None:
        raise EngineUnavailable(
            "paraedge's native core was not built; install a C++ compiler, then "
            "pip install --force-reinstall --no-deps --no-binary paraedge paraedge"
        )
    found = importlib.util.find_spec("executorch")
    places = list(found.submodule_search_locations or ()) if found is not None else []
    folder = next((Path(place, "lib") for place in places if Path(place, "lib", "libexecutorch.so").is_file()), None)
    if folder is None:
        raise EngineUnavailable("the package executorch is not installed; pip install --no-deps executorch==1.5.1")
    try:
        # By their full paths: the two packages need not be neighbours.
        for name in _LIBRARIES:
            ctypes.CDLL(str(folder / f"lib{name}.so"))
        native = importlib.import_module("paraedge_runtime._native")
    except (OSError, ImportError) as error:
        raise EngineUnavailable(f"paraedge's native core cannot be loaded: {error}") from error
    installed = importlib.metadata.version("executorch")
    if installed.partition("+")[0] != native.executorch_version:
        # Its C++ interface changes from version to version, and nothing else would notice.
        raise EngineUnavailable(
            f"paraedge's native core was built for executorch {native.executorch_version}, {installed} is installed; "
            f"pip install --no-deps executorch=={native.executorch_version}"
        )
    return native


class ExecuTorchNative:
    """Runs ``.pte`` parts on the CPU with XNNPACK, each branch on a thread of its own."""

    name = "executorch"
    distribution = "executorch"
    parallel = True

    def __init__(self) -> None:
        self._native = load_native()
        self.version = importlib.metadata.version("executorch")
        self.description = f"executorch {self.version} (native core)"

    def load(self, name: str, program: bytes, entry: PartEntry) -> _NativePart:
        """Load a part with one thread of its own."""
        with mapped_errors(self.name, f"loading {entry.file}"):
            return _NativePart(self._native.Part(name, entry.file, program, entry.input_shape, entry.output_shape))

    def open_runner(self, programs: Iterable[tuple[str, bytes, PartEntry]], options: RunnerOptions) -> _NativeRunner:
        """Load the stem and the branches into a native session."""
        parts = [
            (
                entry.file,
                entry.index if isinstance(entry, BranchEntry) else -1,
                program,
                entry.input_shape,
                entry.output_shape,
                entry.macs,
            )
            for _, program, entry in programs
        ]
        scale, shift = scale_and_shift(options.input)
        rules = [
            (rule.temperature, _NEVER if rule.threshold is None else rule.threshold) for rule in options.stop_rules
        ]
        with mapped_errors(self.name, "loading the bundle"):
            return _NativeRunner(
                self._native.Session(
                    parts,
                    scale.tolist(),
                    shift.tolist(),
                    options.threads,
                    part_ms=options.part_ms,
                    contention=options.contention,
                    early_stop=rules,
                ),
                options.input,
            )


class _NativePart:
    def __init__(self, part: Any) -> None:
        self._part = part

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = self._part.run(x)
        return result

    def close(self) -> None:
        self._part = None


class _NativeRunner:
    def __init__(self, session: Any, spec: InputSpec) -> None:
        self._session = session
        self._run = session.run
        self._input = spec

    def run(self, image: Array | Picture, options: RunOptions) -> Answer:
        answer: Answer | None = self._run(image, *options)
        if answer is None:  # the core takes what it reads and nothing else
            answer = self._run(check_input(image, self._input), *options)
            assert answer is not None
        return answer

    @property
    def mandatory_ms(self) -> float:
        return float(self._session.mandatory_ms)

    def close(self) -> None:
        self._session.close()

"""The ExecuTorch engine: called by the native core, or through ExecuTorch's Python binding; both say which they are.

The native one (``libparaedge_executorch.so``, in paraedge's wheels) uses the shared libraries of the installed
``executorch`` package: ``pip install --no-deps executorch==1.5.1`` is enough, and no torch is needed.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.metadata
import importlib.util
from pathlib import Path

from paraedge_runtime.core import load_core
from paraedge_runtime.engines.base import Engine
from paraedge_runtime.engines.native_part import NativePart
from paraedge_runtime.errors import EngineUnavailable
from paraedge_runtime.manifest import PartEntry

__all__ = ["ExecuTorchNative", "load_native_executorch", "open_executorch"]

# In the order in which they need each other.
_LIBRARIES = ("executorch", "executorch_threadpool", "executorch_kernels_optimized", "executorch_backend_xnnpack")
_ENGINE = "lib/libparaedge_executorch.so"


def open_executorch() -> Engine:
    """The native engine, or the Python binding with the reason in its ``description``.

    Raises:
        EngineUnavailable: neither works; the message says why.
    """
    try:
        return ExecuTorchNative()
    except EngineUnavailable as error:
        reason = str(error)
    try:
        binding: Engine = importlib.import_module("paraedge_runtime.engines.executorch_binding").ExecuTorchBinding()
    except EngineUnavailable as error:
        raise EngineUnavailable(f"{error}; or the native engine, which needs no torch: {reason}") from error
    binding.description = f"{binding.description[:-1]}; {reason})"
    return binding


class ExecuTorchNative:
    """Runs ``.pte`` parts on the CPU with XNNPACK, each branch on a thread of its own."""

    name = "executorch"
    distribution = "executorch"
    parallel = True
    native = "executorch"

    def __init__(self) -> None:
        load_native_executorch()
        self.version = importlib.metadata.version("executorch")
        self.description = f"executorch {self.version} (native core)"

    def load(self, name: str, program: bytes, entry: PartEntry) -> NativePart:
        """Load a part with one thread of its own."""
        return NativePart("executorch", name, program, entry)


@functools.cache
def load_native_executorch() -> str:
    """Make the engine known to the core.

    Returns:
        The version of ExecuTorch it was built for.

    Raises:
        EngineUnavailable: it was not built, or not for the ``executorch`` that is installed.
    """
    core = load_core()
    engine = _engine_library()
    found = importlib.util.find_spec("executorch")
    places = list(found.submodule_search_locations or ()) if found is not None else []
    folder = next((Path(place, "lib") for place in places if Path(place, "lib", "libexecutorch.so").is_file()), None)
    if folder is None:
        raise EngineUnavailable("the package executorch is not installed; pip install --no-deps executorch==1.5.1")
    try:
        # By their full paths: the two packages need not be neighbours.
        for name in _LIBRARIES:
            ctypes.CDLL(str(folder / f"lib{name}.so"))
        library = ctypes.CDLL(str(engine))
    except OSError as error:
        raise EngineUnavailable(f"paraedge's ExecuTorch engine cannot be loaded: {error}") from error
    library.pe_executorch_version.restype = ctypes.c_char_p
    built_for = str(library.pe_executorch_version().decode())
    installed = importlib.metadata.version("executorch")
    if installed.partition("+")[0] != built_for:
        # Its C++ interface changes from version to version, and nothing else would notice.
        raise EngineUnavailable(
            f"paraedge's ExecuTorch engine was built for executorch {built_for}, {installed} is installed; "
            f"pip install --no-deps executorch=={built_for}"
        )
    core.load_engine(str(engine))
    return built_for


def _engine_library() -> Path:
    native = importlib.util.find_spec("paraedge_runtime._native")
    path = Path(str(native and native.origin)).parent / _ENGINE  # an editable install keeps built files elsewhere
    if path.is_file():
        return path
    raise EngineUnavailable(
        "paraedge's ExecuTorch engine was not built; install a wheel of paraedge for this machine, or executorch "
        "first and then pip install --force-reinstall --no-deps --no-build-isolation --no-binary paraedge paraedge"
    )

"""Engines by name. An engine's package is imported when it is chosen, never before."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass

from paraedge_runtime._arguments import as_choice
from paraedge_runtime.engines.base import Engine, LoadedPart

__all__ = ["ENGINES", "Engine", "EngineInfo", "LoadedPart", "engine_info", "open_engine"]


@dataclass(frozen=True)
class EngineInfo:
    """Where an engine is, and which files it runs.

    Attributes:
        location: ``module:callable`` that makes the engine.
        suffix: of the part files it runs.
        distributions: packages that provide it, best first.
        extra: of ``pip install 'paraedge[extra]'``.
    """

    location: str
    suffix: str
    distributions: tuple[str, ...]
    extra: str


ENGINES: dict[str, EngineInfo] = {
    "executorch": EngineInfo(
        "paraedge_runtime.engines.executorch:open_executorch", ".pte", ("executorch",), "executorch"
    ),
    "litert": EngineInfo(
        "paraedge_runtime.engines.litert:LiteRTEngine", ".tflite", ("ai-edge-litert", "tflite-runtime"), "litert"
    ),
    "onnxruntime": EngineInfo(
        "paraedge_runtime.engines.onnxruntime:open_onnxruntime", ".onnx", ("onnxruntime",), "onnxruntime"
    ),
}


def engine_info(name: str) -> EngineInfo:
    """Look an engine up.

    Raises:
        InputError: unknown name; the message lists the valid ones.
    """
    return ENGINES[as_choice("engine", name, sorted(ENGINES))]


def open_engine(name: str) -> Engine:
    """Import and open an engine.

    Raises:
        InputError: unknown name.
        EngineUnavailable: its package is not installed; the message says what to install.
    """
    module, _, attribute = engine_info(name).location.partition(":")
    with warnings.catch_warnings():
        # What an engine's package warns about while it is imported concerns its own authors.
        warnings.simplefilter("ignore")
        engine: Engine = getattr(importlib.import_module(module), attribute)()
    return engine

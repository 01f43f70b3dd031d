"""Engines by name. An engine's package is imported when it is chosen, never before."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

from paraedge_runtime._arguments import as_choice
from paraedge_runtime.engines.base import Engine, LoadedPart
from paraedge_runtime.errors import EngineUnavailable
from paraedge_runtime.manifest import PartEntry

__all__ = ["ENGINES", "Engine", "EngineInfo", "LoadedPart", "check_delegates", "engine_info", "open_engine"]


@dataclass(frozen=True)
class EngineInfo:
    """Where an engine is, and which files it runs.

    Attributes:
        location: ``module:callable`` that makes the engine.
        suffix: of the part files it runs.
        distributions: packages that provide it, best first.
        extra: of ``pip install 'paraedge[extra]'``.
        delegates: whose parts it can run, where the machine has them.
    """

    location: str
    suffix: str
    distributions: tuple[str, ...]
    extra: str
    delegates: tuple[str, ...] = ()


ENGINES: dict[str, EngineInfo] = {
    "executorch": EngineInfo(
        "paraedge_runtime.engines.executorch:open_executorch", ".pte", ("executorch",), "executorch"
    ),
    "litert": EngineInfo(
        "paraedge_runtime.engines.litert:LiteRTEngine",
        ".tflite",
        ("ai-edge-litert", "tflite-runtime"),
        "litert",
        ("gpu",),
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


def check_delegates(name: str, parts: Iterable[PartEntry]) -> None:
    """Refuse parts of a delegate that the engine cannot run in Python; nothing runs them on the CPU instead.

    Raises:
        EngineUnavailable: names the part and the delegate.
    """
    known = ENGINES.get(name)
    for part in parts:
        if known is not None and part.delegate is not None and part.delegate not in known.delegates:
            raise EngineUnavailable(
                f"{part.file} was made for the delegate {part.delegate!r}, which {name} does not have on this machine; "
                "use the bundle on a device that has it, or export one without --delegate"
            )


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

"""The targets that ``--target`` names: which engine and converter a kind of device gets."""

from __future__ import annotations

from dataclasses import dataclass

from paraedge_runtime._arguments import as_choice
from paraedge_runtime.errors import InputError

__all__ = ["TARGETS", "Target", "backend_for"]


@dataclass(frozen=True)
class Target:
    """A kind of device.

    Attributes:
        engine: default engine.
        recipe: the smallest recipe that kept the accuracy on this engine (docs/targets.md), used by ``--quantize
            small``.
        description: one line, shown to users.
        tested: on what hardware this target was tested.
        converter: converter that lowers the parts, a key of ``lowering.CONVERTERS``; ``None`` for the engine's own. A
            target with a converter of its own has only one engine.
    """

    engine: str
    recipe: str
    description: str
    tested: str
    converter: str | None = None


TARGETS: dict[str, Target] = {
    "android": Target(
        "executorch",
        "int8-dynamic",
        "Android phones and tablets, CPU (XNNPACK)",
        "parts run on x86-64 and on emulated 64-bit Arm",
    ),
    "ios": Target(
        "executorch", "int8-dynamic", "iPhone and iPad, CPU (XNNPACK)", "parts run on x86-64 and on emulated 64-bit Arm"
    ),
    "raspberry-pi": Target(
        "litert",
        "int8-dynamic",
        "Raspberry Pi 3, 4, 5 and other small Linux boards",
        "run on x86-64 and on emulated 64-bit Arm",
    ),
    "linux": Target(
        "onnxruntime", "int8-dynamic", "Linux on x86-64 or 64-bit ARM", "run on x86-64 and on emulated 64-bit Arm"
    ),
    "web": Target("litert", "int8-dynamic", "a browser, on a phone or anywhere", "run in headless Chromium on x86-64"),
    "microcontroller": Target(
        "litert",
        "int8-static",
        "microcontrollers, TensorFlow Lite Micro",
        "parts run in TensorFlow Lite Micro on x86-64; no board",
        converter="tflite-micro",
    ),
}


def backend_for(target: str, engine: str | None) -> tuple[str, str]:
    """The engine that runs the parts for a target, and the converter that makes them.

    Args:
        target: a key of ``TARGETS``.
        engine: another engine than the target's own.

    Raises:
        InputError: unknown target, the message lists the valid ones; or its converter writes for another engine.
    """
    chosen = TARGETS[as_choice("target", target, sorted(TARGETS))]
    if chosen.converter is None:
        name = chosen.engine if engine is None else engine
        return name, name
    if engine not in (None, chosen.engine):
        raise InputError(f"the target {target} uses the engine {chosen.engine}; leave out --engine {engine}")
    return chosen.engine, chosen.converter

"""The targets that ``--target`` names: which engine a kind of device gets."""

from __future__ import annotations

from dataclasses import dataclass

from paraedge_runtime.errors import InputError

__all__ = ["TARGETS", "Target", "target_for"]


@dataclass(frozen=True)
class Target:
    """A kind of device.

    Attributes:
        engine: what runs the parts there, unless ``--engine`` says otherwise.
        recipe: the smallest that kept accuracy on this engine when it was measured (docs/targets.md); an export
            is ``fp32`` unless ``--quantize`` names it.
        description: one line for people.
        tested: how far this was really run, said honestly.
    """

    engine: str
    recipe: str
    description: str
    tested: str


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
}

# Kinds of device that people ask for -> what stands in the way.
_REFUSED = {
    "microcontroller": "TensorFlow Lite Micro has no GELU operator, and every branch of a ParaFormer has two; "
    "a board that runs Linux can take raspberry-pi",
}


def target_for(name: str) -> Target:
    """Look a target up.

    Raises:
        InputError: unknown name, the message lists the valid ones; or a kind of device that cannot be served.
    """
    if name in _REFUSED:
        raise InputError(f"no bundle can be made for {name!r}: {_REFUSED[name]}")
    if name not in TARGETS:
        raise InputError(f"unknown target {name!r}; choose one of {', '.join(sorted(TARGETS))}")
    return TARGETS[name]

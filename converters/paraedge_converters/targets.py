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
        description: one line for people.
        tested: how far this was really run, said honestly.
    """

    engine: str
    description: str
    tested: str


TARGETS: dict[str, Target] = {
    "android": Target("executorch", "Android phones and tablets, CPU (XNNPACK)", "parts run on x86-64 only"),
    "ios": Target("executorch", "iPhone and iPad, CPU (XNNPACK)", "parts run on x86-64 only"),
    "raspberry-pi": Target("litert", "Raspberry Pi 3, 4, 5 and other small Linux boards", "run on x86-64 only"),
    "linux": Target("onnxruntime", "Linux on x86-64 or 64-bit ARM", "run on x86-64"),
}


def target_for(name: str) -> Target:
    """Look a target up.

    Raises:
        InputError: unknown name; the message lists the valid ones.
    """
    if name not in TARGETS:
        raise InputError(f"unknown target {name!r}; choose one of {', '.join(sorted(TARGETS))}")
    return TARGETS[name]

"""The delegates that ``--delegate`` names: which parts a GPU or an NPU gets, how that is proven. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paraedge_converters.recipes import RECIPES, part_recipe
from paraedge_converters.targets import TARGETS
from paraedge_runtime._arguments import as_choice
from paraedge_runtime.errors import InputError

__all__ = ["DELEGATES", "Delegate", "Proof", "delegate_for"]

Proof = Literal["engine", "reference model", "never run"]


@dataclass(frozen=True)
class Delegate:
    """Hardware beside the CPU that runs parts of a bundle.

    A GPU has one queue: branches in parallel gain nothing there. So it gets the stem, and the CPU the branches. A
    microcontroller's NPU is all the speed there is, and gets every part.

    Attributes:
        description: one line for people.
        targets: that have it, keys of ``TARGETS``.
        engine: that calls it.
        converter: that lowers its parts, a key of ``backends.CONVERTERS``.
        parts: which parts it gets.
        recipes: the quantization recipes of these parts.
        proof: how they are proven where the export runs: by the engine, where the machine has such a device; by a
            reference model of the hardware; or not at all, "exported, never run".
    """

    description: str
    targets: tuple[str, ...]
    engine: str
    converter: str
    parts: Literal["stem", "all"]
    recipes: tuple[str, ...]
    proof: Proof

    def takes(self, part: str) -> bool:
        """Whether it gets a part (``stem``, ``branch_NN``)."""
        return self.parts == "all" or part == "stem"

    def reads(self, quantize: str) -> bool:
        """Whether the parts that it gets are in one of its recipes."""
        return {part_recipe(quantize, part) for part in ("stem", "branch") if self.takes(part)} <= set(self.recipes)


_ETHOS_U = "; gate in the TOSA reference model"

DELEGATES: dict[str, Delegate] = {
    "coreml": Delegate(
        "Apple's GPU and Neural Engine through Core ML",
        targets=("ios",),
        engine="executorch",
        converter="coreml",
        parts="stem",
        recipes=("fp32", "fp16"),
        proof="never run",
    ),
    "ethos-u55": Delegate(
        f"Arm Ethos-U55 with 128 MACs, through Vela{_ETHOS_U}",
        targets=("microcontroller",),
        engine="executorch",
        converter="ethos-u55",
        parts="all",
        recipes=("int8-static",),
        proof="reference model",
    ),
    "ethos-u85": Delegate(
        f"Arm Ethos-U85 with 256 MACs, through Vela{_ETHOS_U}",
        targets=("microcontroller",),
        engine="executorch",
        converter="ethos-u85",
        parts="all",
        recipes=("int8-static",),
        proof="reference model",
    ),
    "gpu": Delegate(
        "a GPU through LiteRT's CompiledModel",
        targets=("android", "linux", "raspberry-pi"),
        engine="litert",
        converter="litert-gpu",
        parts="stem",
        recipes=("fp32",),
        proof="engine",
    ),
    "vulkan": Delegate(
        "a GPU through ExecuTorch's Vulkan backend",
        targets=("android",),
        engine="executorch",
        converter="vulkan",
        parts="stem",
        recipes=("fp32",),
        proof="never run",
    ),
}


def delegate_for(name: str, target: str, engine: str | None, quantize: str) -> Delegate:
    """Look a delegate up for an export.

    Args:
        name: a key of ``DELEGATES``.
        target: a key of ``TARGETS``.
        engine: another engine than the target's own, if one is named.
        quantize: a quantization recipe that the engine has.

    Raises:
        InputError: unknown name, or one that is not for this target, engine or quantization recipe; the message has
            the valid ones.
    """
    delegate = DELEGATES[as_choice("delegate", name, sorted(DELEGATES))]
    if target not in delegate.targets:
        others = [other for other, one in sorted(DELEGATES.items()) if target in one.targets]
        has = f"for {target} choose {' or '.join(others)}" if others else f"{target} has none; leave the delegate out"
        raise InputError(f"the delegate {name!r} is for the target {' or '.join(delegate.targets)}; {has}")
    plain = TARGETS[target].engine if engine is None else engine
    if plain != delegate.engine and (engine is not None or TARGETS[target].converter is None):
        others = [other for other, one in sorted(DELEGATES.items()) if target in one.targets and one.engine == plain]
        has = f"; with {plain} choose {' or '.join(others)}" if others else ""
        raise InputError(
            f"the delegate {name!r} needs the engine {delegate.engine}, not {plain} (--engine {delegate.engine}){has}"
        )
    if not delegate.reads(quantize):
        which = "the stem" if delegate.parts == "stem" else "every part"
        on_cpu = "+" not in quantize and delegate.engine not in RECIPES[quantize].refused
        stays = f", or {quantize}+fp32-stem" if delegate.parts == "stem" and on_cpu else ""
        raise InputError(
            f"the delegate {name!r} takes {which} in {' or '.join(delegate.recipes)}, not {quantize}; "
            f"choose {' or '.join(delegate.recipes)}{stays}"
        )
    return delegate

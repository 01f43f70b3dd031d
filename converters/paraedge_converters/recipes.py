"""The quantization recipes that ``quantize`` names, and which engine has which. Needs no torch.

How an engine does it is in its converter (``RECIPES`` there); why it does not is here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from paraedge_runtime.errors import InputError

__all__ = [
    "FLOAT_STEM",
    "RECIPES",
    "TFLITE_RUNTIME_RECIPES",
    "Recipe",
    "finer_recipes",
    "least_agreement",
    "part_recipe",
    "recipe_for",
]

FLOAT_STEM = "+fp32-stem"


@dataclass(frozen=True)
class Recipe:
    """A way to write the numbers of a part smaller.

    Attributes:
        description: one line for people.
        min_snr_db: what every part and every prefix must reach against torch in float32.
        max_scale_error: how far a part or a prefix may be from torch by a common factor: 0.05 is from 0.95 to 1.05.
        min_top1_agreement: share of inputs on which every prefix must keep torch's label. The gate has few inputs, and
            refuses what they show to be below it; see :func:`least_agreement`.
        max_relative_error: of the worst sample and every prefix, where the output is a vector and has no labels.
        refused: converter -> why it has no such thing. An engine's own has its name.
    """

    description: str
    min_snr_db: float
    max_scale_error: float
    min_top1_agreement: float
    max_relative_error: float
    refused: dict[str, str] = field(default_factory=dict)


_NO_WEIGHT_ONLY = "XNNPACK has no weight-only kernels; int8-dynamic stores the same 8-bit weights"
_NO_HALF = "TensorFlow Lite Micro has no kernel that reads 16-bit floats"
_NO_HYBRID = "TensorFlow Lite Micro has no kernels of 8-bit weights and float inputs"
_NO_SCALES = "TensorFlow Lite Micro uses the first channel's scale for all where it turns weights into floats"
_NO_INT4 = "TensorFlow Lite Micro has no kernel that turns 4-bit weights into floats"

# The labels are the gate. The floors of SNR only tell a wrong part from a coarse one: they hold for a
# branch that learned to say little too, whose rounding is large beside what it says. Rounding errors have no
# direction, so even then the scale stays: over all packaged models it was off by 0.009 with 8 bits, 0.07 with 4.
RECIPES: dict[str, Recipe] = {
    # What is left is the order of additions and the engines' own exp, erf and rsqrt.
    "fp32": Recipe(
        "as trained", min_snr_db=100.0, max_scale_error=1e-4, min_top1_agreement=1.0, max_relative_error=1e-4
    ),
    "fp16": Recipe(
        "weights in half precision, 16 bits",
        min_snr_db=40.0,
        max_scale_error=0.01,
        min_top1_agreement=0.99,
        max_relative_error=0.03,
        refused={"tflite-micro": _NO_HALF},
    ),
    "int8-dynamic": Recipe(
        "8-bit weights; inputs of matrix products rounded to 8 bits as they come",
        min_snr_db=10.0,
        max_scale_error=0.05,
        min_top1_agreement=0.99,
        max_relative_error=0.2,
        refused={"tflite-micro": _NO_HYBRID},
    ),
    "int8-static": Recipe(
        "8-bit weights and 8-bit inputs, their ranges measured on real images; logits stay float",
        min_snr_db=10.0,
        max_scale_error=0.1,  # measured ranges may cut off the largest values
        min_top1_agreement=0.98,
        max_relative_error=0.25,
    ),
    "int8-weight": Recipe(
        "8-bit weights, computed with in float",
        min_snr_db=20.0,
        max_scale_error=0.05,
        min_top1_agreement=0.99,
        max_relative_error=0.2,
        refused={"executorch": _NO_WEIGHT_ONLY, "tflite-micro": _NO_SCALES},
    ),
    "int4-weight": Recipe(
        "4-bit weights, computed with in float",
        min_snr_db=3.0,
        max_scale_error=0.1,
        min_top1_agreement=0.95,
        max_relative_error=0.6,
        refused={"executorch": _NO_WEIGHT_ONLY, "tflite-micro": _NO_INT4},
    ),
}


# What the last release of tflite-runtime, 2.14, runs as it should. Of int8-dynamic it makes noise, and int8-static
# (on Arm) and int4-weight end the process: these need ai-edge-litert.
TFLITE_RUNTIME_RECIPES = ("fp32", "fp16", "int8-weight")


def recipe_for(name: str, converter: str) -> Recipe:
    """Look a quantization recipe up; ``NAME+fp32-stem`` is ``NAME`` with a stem that stays as trained.

    Raises:
        InputError: unknown name, or the converter has no such thing; the message lists what it has.
    """
    plain = name.removesuffix(FLOAT_STEM)
    if plain not in RECIPES or name == f"fp32{FLOAT_STEM}":
        raise InputError(
            f"unknown quantization recipe {name!r}; choose one of {', '.join(RECIPES)}, "
            f"or one of them with {FLOAT_STEM} to leave the stem as trained"
        )
    if converter in RECIPES[plain].refused:
        possible = ", ".join(other for other, recipe in RECIPES.items() if converter not in recipe.refused)
        raise InputError(f"{converter} has no {plain}: {RECIPES[plain].refused[converter]}; choose one of {possible}")
    return RECIPES[plain]


def part_recipe(name: str, part: str) -> str:
    """The quantization recipe of one part (``stem``, ``branch_NN``) of a bundle made by ``name``."""
    if name.endswith(FLOAT_STEM):
        return "fp32" if part == "stem" else name.removesuffix(FLOAT_STEM)
    return name


# From the coarsest to the finest: what to try when the gate refuses one.
_BY_FINENESS = ("int4-weight", "int8-static", "int8-dynamic", "int8-weight", "fp16")


def finer_recipes(name: str, converter: str) -> tuple[str, ...]:
    """The quantization recipes to try in place of ``name``, the smallest first: with a float stem, then finer ones."""
    plain = name.removesuffix(FLOAT_STEM)
    if plain not in _BY_FINENESS:
        return ()
    finer = [
        other for other in _BY_FINENESS[_BY_FINENESS.index(plain) + 1 :] if converter not in RECIPES[other].refused
    ]
    names = [plain + FLOAT_STEM, *(both for other in finer for both in (other, other + FLOAT_STEM))]
    return tuple(names[1:] if name.endswith(FLOAT_STEM) else names)


# A share that is kept is refused by chance in at most so many of all draws of the gate's inputs.
_REFUSED_BY_CHANCE = 0.05


def least_agreement(share: float, count: int) -> float:
    """The lowest agreement on ``count`` inputs that does not show that less than ``share`` of all inputs agree.

    Of 256 inputs a model that keeps 0.99 of all labels changes 3 or more half the time, 6 or more in 4.5 of 100
    draws: 5 are let through, 6 are not. Where every label must be kept, one that changes is one too many.
    """
    probable, changed = 1.0, 0  # of at least so many changed labels
    while changed < count:
        probable -= _binomial(changed, count, 1.0 - share)
        if probable <= _REFUSED_BY_CHANCE + 1e-12:
            break
        changed += 1
    return (count - changed) / count


def _binomial(successes: int, count: int, probability: float) -> float:
    """The chance of exactly so many successes."""
    if probability <= 0.0:
        return float(successes == 0)
    ways = math.lgamma(count + 1) - math.lgamma(successes + 1) - math.lgamma(count - successes + 1)
    return math.exp(ways + successes * math.log(probability) + (count - successes) * math.log1p(-probability))

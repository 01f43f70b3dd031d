"""The quantization recipes that ``quantize`` names, and which engine has which. Needs no torch.

How an engine does it is in its converter (``RECIPES`` there); why it does not is here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from paraedge_runtime._arguments import unknown_text
from paraedge_runtime.errors import InputError
from paraedge_runtime.tolerances import FLOAT_STEM, TOLERANCES, Tolerance

__all__ = [
    "FLOAT_STEM",
    "RECIPES",
    "TFLITE_RUNTIME_RECIPES",
    "Recipe",
    "finer_recipes",
    "part_recipe",
    "recipe_for",
]


@dataclass(frozen=True)
class Recipe:
    """A quantization recipe: how the numbers of a part are stored and computed.

    Attributes:
        description: one line, shown to users.
        tolerance: how close to torch the parts must be.
        refused: converter -> why it does not support the recipe. An engine's own converter has the engine's name.
    """

    description: str
    tolerance: Tolerance
    refused: dict[str, str] = field(default_factory=dict)


_NO_WEIGHT_ONLY = "XNNPACK has no weight-only kernels; int8-dynamic stores the same 8-bit weights"
_NO_HALF = "TensorFlow Lite Micro has no kernel that reads 16-bit floats"
_NO_HYBRID = "TensorFlow Lite Micro has no kernels of 8-bit weights and float inputs"
_NO_SCALES = "TensorFlow Lite Micro uses the first channel's scale for all where it turns weights into floats"
_NO_INT4 = "TensorFlow Lite Micro has no kernel that turns 4-bit weights into floats"

RECIPES: dict[str, Recipe] = {
    "fp32": Recipe("as trained", TOLERANCES["fp32"]),
    "fp16": Recipe("weights in half precision, 16 bits", TOLERANCES["fp16"], refused={"tflite-micro": _NO_HALF}),
    "int8-dynamic": Recipe(
        "8-bit weights; inputs of matrix products rounded to 8 bits as they come",
        TOLERANCES["int8-dynamic"],
        refused={"tflite-micro": _NO_HYBRID},
    ),
    "int8-static": Recipe(
        "8-bit weights and 8-bit inputs, their ranges measured on real images; logits stay float",
        TOLERANCES["int8-static"],
    ),
    "int8-weight": Recipe(
        "8-bit weights, computed with in float",
        TOLERANCES["int8-weight"],
        refused={"executorch": _NO_WEIGHT_ONLY, "tflite-micro": _NO_SCALES},
    ),
    "int4-weight": Recipe(
        "4-bit weights, computed with in float",
        TOLERANCES["int4-weight"],
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
    plain = name.removesuffix(FLOAT_STEM) if isinstance(name, str) else ""
    if plain not in RECIPES or name == f"fp32{FLOAT_STEM}":
        raise InputError(
            f"{unknown_text('quantization recipe', name, RECIPES)}, "
            f"or one of them with {FLOAT_STEM} to leave the stem as trained"
        )
    if converter in RECIPES[plain].refused:
        possible = ", ".join(other for other, recipe in RECIPES.items() if converter not in recipe.refused)
        raise InputError(
            f"{converter} does not support {plain}: {RECIPES[plain].refused[converter]}; choose one of {possible}"
        )
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

"""Training recipes: network and settings that belong together, by name or from a JSON file.

A name decodes: the data set, then what differs from the plain recipe of that data set.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec.structs import replace

from paraedge.training.config import TrainingConfig
from paraedge_runtime.errors import InputError

__all__ = ["RECIPES", "NetworkShape", "Recipe", "load_recipe"]


class NetworkShape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The part of a ``ParaFormerConfig`` that no data set decides; see there."""

    embed_dim: int
    num_heads: int
    mlp_ratio: float
    num_branches: int
    branch_depth: int
    stem_stride: int
    stem_width: int | None = None
    stem_residual_blocks: int = 0


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to train one model from scratch.

    Attributes:
        description: what it is for, in one line.
        dataset: a key of ``paraedge.data.DATASETS``.
        network: shape of the network.
        training: everything else that, with the data, decides the weights.
    """

    description: str
    dataset: str
    network: NetworkShape
    training: TrainingConfig


_CIFAR10 = Recipe(
    description="CIFAR-10, 8 branches: every prefix trained jointly",
    dataset="cifar10",
    network=NetworkShape(
        embed_dim=192,
        num_heads=3,
        mlp_ratio=3.0,
        num_branches=8,
        branch_depth=2,
        stem_stride=4,
        stem_width=128,
        stem_residual_blocks=1,
    ),
    training=TrainingConfig(
        epochs=150,
        batch_size=500,
        learning_rate=2e-3,
        weight_decay=0.05,
        warmup_epochs=5.0,
        ema_decay=0.999,
        label_smoothing=0.1,
        crop_padding=4,
        rand_augment_magnitude=9,
        erasing_probability=0.25,
        mixup_alpha=0.4,
        cutmix_alpha=1.0,
        mix_probability=0.5,
    ),
)

_FASHION_MNIST = Recipe(
    description="Fashion-MNIST, 8 branches: every prefix trained jointly",
    dataset="fashion-mnist",
    network=NetworkShape(
        embed_dim=128,
        num_heads=4,
        mlp_ratio=2.0,
        num_branches=8,
        branch_depth=2,
        stem_stride=4,
        stem_width=96,
        stem_residual_blocks=1,
    ),
    training=TrainingConfig(
        epochs=60,
        batch_size=500,
        learning_rate=2e-3,
        weight_decay=0.05,
        warmup_epochs=4.0,
        ema_decay=0.999,
        label_smoothing=0.1,
        crop_padding=2,
        erasing_probability=0.5,
        mixup_alpha=0.4,
        cutmix_alpha=1.0,
        mix_probability=0.5,
    ),
)


def _variant(recipe: Recipe, description: str, **changes: object) -> Recipe:
    return replace(recipe, description=description, training=replace(recipe.training, **changes))


def _slim(recipe: Recipe, stem_width: int, description: str) -> Recipe:
    network = replace(recipe.network, stem_width=stem_width, stem_residual_blocks=0)
    return replace(recipe, description=description, network=network)


# Prefixes average their branches, which after the first add up in random order: no branch can leave
# the work to another, and every subset with the first branch is trained.
_ENSEMBLE = {"prefix_temperature_power": 1.0, "subset_probability": 1.0}

RECIPES: dict[str, Recipe] = {
    "fashion-mnist": _FASHION_MNIST,
    "fashion-mnist-ensemble": _variant(
        _FASHION_MNIST, "Fashion-MNIST; random subsets average their branches", **_ENSEMBLE
    ),
    "fashion-mnist-slim": _slim(
        _FASHION_MNIST, 64, "Fashion-MNIST; a stem of a fifth of the multiply-adds leaves more to the branches"
    ),
    "fashion-mnist-small": replace(
        _FASHION_MNIST,
        description="Fashion-MNIST; narrower stem and branches",
        network=replace(_FASHION_MNIST.network, embed_dim=96, stem_width=64),
    ),
    "cifar10": _CIFAR10,
    "cifar10-boosting": _variant(
        _CIFAR10, "CIFAR-10; each branch fits what the ones before it left", earlier_gradient=0.0
    ),
    "cifar10-distilled": _variant(
        _CIFAR10, "CIFAR-10; prefixes also follow the answer of all branches", distillation_weight=0.5
    ),
    "cifar10-ensemble": _variant(_CIFAR10, "CIFAR-10; random subsets average their branches", **_ENSEMBLE),
    "cifar10-slim": _slim(
        _CIFAR10, 96, "CIFAR-10; a stem of a quarter of the multiply-adds leaves more to the branches"
    ),
    "cifar10-slim-ensemble": _slim(
        _variant(_CIFAR10, "", **_ENSEMBLE), 96, "CIFAR-10; small stem, random subsets average their branches"
    ),
    "cifar10-subsets": _variant(
        _CIFAR10, "CIFAR-10; every subset with the first branch is trained", subset_probability=0.5
    ),
    "cifar10-mean": _variant(
        _CIFAR10, "CIFAR-10; prefixes average their branches, as an ensemble does", prefix_temperature_power=1.0
    ),
    "cifar10-last": _variant(
        _CIFAR10, "CIFAR-10; only the sum of all branches is trained", prefix_weights=(0.0,) * 7 + (1.0,)
    ),
    # One branch is an ordinary Vision Transformer with the same stem. Depth 9 costs as many
    # multiply-adds as 8 branches of depth 2: eight blocks over all tokens, and last blocks are nearly free.
    "cifar10-vit": replace(
        _CIFAR10,
        description="CIFAR-10; a ViT with the same stem and the same multiply-adds, to compare with",
        network=replace(_CIFAR10.network, num_branches=1, branch_depth=9),
    ),
}


def load_recipe(recipe: str | os.PathLike[str]) -> Recipe:
    """A recipe by name, or from a JSON file with the fields of :class:`Recipe`.

    Raises:
        InputError: unknown name, or a file that is missing or malformed.
    """
    if (known := RECIPES.get(str(recipe))) is not None:
        return known
    path = Path(recipe)
    if path.suffix != ".json":
        raise InputError(f"unknown recipe {str(recipe)!r}; choose one of {', '.join(RECIPES)}, or a .json file")
    try:
        return msgspec.json.decode(path.read_bytes(), type=Recipe)
    except (msgspec.MsgspecError, ValueError, OSError, RecursionError) as error:
        raise InputError(f"the recipe {path} cannot be read: {error}") from error

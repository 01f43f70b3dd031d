"""Training recipes: network and settings that belong together, by name or from a JSON file.

A name decodes: the data set, then what differs from the plain recipe of that data set.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec.structs import replace

from paraedge.training.config import TrainingConfig
from paraedge_runtime._arguments import unknown_text
from paraedge_runtime._reading import read_bounded
from paraedge_runtime.errors import InputError

__all__ = ["RECIPES", "NetworkShape", "Recipe", "load_recipe"]


class NetworkShape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The part of a ``ParaFormerConfig`` that no data set decides; see there."""

    embed_dim: int
    num_heads: int
    mlp_ratio: float
    num_branches: int
    branch_depth: int | tuple[int, ...]
    stem_stride: int = 4
    stem_width: int | None = None
    stem_residual_blocks: int = 0
    branch_width: int | tuple[int, ...] | None = None
    branch_residual_blocks: int = 0
    backbone: str | None = None
    backbone_stage: int | None = None
    branch_stage: int | tuple[int, ...] | None = None
    mel_bands: int | None = None  # of sound, see ``paraedge.model.signals.LogMel``


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


_MAX_RECIPE_BYTES = 1 << 20

_CIFAR10 = Recipe(
    description="CIFAR-10, 4 branches with convolutions of their own, the first two alike, the others larger",
    dataset="cifar10",
    network=NetworkShape(
        embed_dim=128,
        num_heads=4,
        mlp_ratio=3.0,
        num_branches=4,
        # One block: convolutions are the better use of multiply-adds here. The first two are alike: two cores
        # share them evenly.
        branch_depth=1,
        stem_stride=4,
        stem_width=48,
        stem_residual_blocks=1,
        branch_width=(80, 80, 120, 232),
        branch_residual_blocks=1,
    ),
    training=TrainingConfig(
        epochs=110,
        batch_size=500,
        learning_rate=2e-3,
        weight_decay=0.05,
        warmup_epochs=5.0,
        ema_decay=0.999,
        label_smoothing=0.1,
        crop_padding=4,
        erasing_probability=0.25,
        mixup_alpha=0.4,
        cutmix_alpha=1.0,
        mix_probability=0.5,
        # Half of the loss trains every branch to predict alone, the other half the means of the first k:
        # in a plain sum the first branch takes all the work (docs/lab/models.md).
        branch_weight=0.5,
        prefix_temperature_power=1.0,
    ),
)

_FASHION_MNIST = Recipe(
    description="Fashion-MNIST, 8 branches with convolutions of their own, each larger than the one before",
    dataset="fashion-mnist",
    network=replace(
        _CIFAR10.network,
        embed_dim=64,
        num_branches=8,
        stem_width=32,
        branch_width=(32, 40, 48, 56, 64, 80, 96, 112),
    ),
    training=replace(_CIFAR10.training, crop_padding=2, mix_probability=0.25),
)

# Behind a pretrained backbone, for 224×224 photographs.
_PHOTOGRAPHS = Recipe(
    description="photographs, behind a pretrained backbone that learns too, on a GPU",
    dataset="folder",
    network=NetworkShape(
        embed_dim=128,
        num_heads=4,
        mlp_ratio=2.0,
        num_branches=4,
        branch_depth=(1, 1, 2, 2),
        branch_width=(32, 64, 96, 128),
        backbone="efficientnet-lite0",
        backbone_stage=5,
    ),
    training=TrainingConfig(
        epochs=60,
        batch_size=64,
        learning_rate=1e-3,
        weight_decay=0.05,
        warmup_epochs=3.0,
        ema_decay=0.995,
        label_smoothing=0.1,
        crop_padding=0,
        crop_area=0.4,
        horizontal_flip=True,
        colour_jitter=0.3,
        cutmix_alpha=1.0,
        mix_probability=0.3,
        branch_weight=0.5,
        prefix_temperature_power=1.0,
        backbone_rate=0.3,
    ),
)

# Small enough for a microcontroller.
_MOTION = Recipe(
    description="windows of motion, one to three seconds of some channels; three small branches, for microcontrollers",
    dataset="folder",
    network=NetworkShape(
        embed_dim=32,
        num_heads=2,
        mlp_ratio=2.0,
        num_branches=3,
        branch_depth=1,
        stem_stride=4,
        stem_width=16,
        branch_width=(16, 24, 32),
    ),
    training=TrainingConfig(
        epochs=15,
        batch_size=128,
        learning_rate=3e-3,
        weight_decay=0.05,
        warmup_epochs=1.0,
        ema_decay=0.99,
        label_smoothing=0.1,
        # Nobody wears a watch or carries a phone as another does: worth 2.5 points with unseen people.
        rotation_degrees=30.0,
        gain_db=0.8,
        noise_db=-20.0,
        branch_weight=0.5,
        prefix_temperature_power=1.0,
    ),
)

_SOUND = Recipe(
    description="keywords and other short sounds, 4 small branches on the log-mel of a window",
    dataset="folder",
    network=NetworkShape(
        mel_bands=40,
        embed_dim=48,
        num_heads=4,
        mlp_ratio=2.0,
        num_branches=4,
        branch_depth=1,
        stem_stride=8,
        stem_width=32,
        branch_width=(32, 48, 48, 64),
    ),
    training=TrainingConfig(
        epochs=40,
        batch_size=64,
        learning_rate=3e-3,
        weight_decay=0.05,
        warmup_epochs=2.0,
        ema_decay=0.99,
        label_smoothing=0.1,
        # Few voices teach: others speak faster, higher, louder, and begin at another moment.
        time_shift=0.1,
        speed_change=0.15,
        gain_db=10.0,
        noise_db=-10.0,
        mixup_alpha=0.2,
        mix_probability=0.5,
        branch_weight=0.5,
        prefix_temperature_power=1.0,
    ),
)

_ONE_STEM: dict[str, object] = {
    "num_branches": 8,
    "branch_depth": 2,
    "branch_width": None,
    "branch_residual_blocks": 0,
}
_PLAIN_SUM: dict[str, object] = {"branch_weight": 0.0, "prefix_temperature_power": 0.0}


def _variant(recipe: Recipe, description: str, network: dict[str, object], training: dict[str, object]) -> Recipe:
    return replace(
        recipe,
        description=description,
        network=replace(recipe.network, **network),
        training=replace(recipe.training, **training),
    )


RECIPES: dict[str, Recipe] = {
    "fashion-mnist": _FASHION_MNIST,
    "fashion-mnist-four": _variant(
        _FASHION_MNIST,
        "Fashion-MNIST, 4 larger branches, each two blocks deep",
        {"embed_dim": 96, "num_heads": 3, "num_branches": 4, "branch_depth": 2, "branch_width": (32, 48, 80, 128)},
        {},
    ),
    "fashion-mnist-one-stem": _variant(
        _FASHION_MNIST,
        "Fashion-MNIST, 8 equal branches on one stem, a plain sum: accurate, but flat",
        {**_ONE_STEM, "embed_dim": 128, "num_heads": 4, "mlp_ratio": 2.0, "stem_width": 96},
        {**_PLAIN_SUM, "epochs": 60, "warmup_epochs": 4.0, "erasing_probability": 0.5, "mix_probability": 0.5},
    ),
    "cifar10": _CIFAR10,
    "cifar10-two-blocks": _variant(
        _CIFAR10,
        "CIFAR-10; branches of two blocks behind narrower convolutions, each larger than the one before",
        {"branch_depth": 2, "branch_width": (48, 80, 128, 208)},
        {},
    ),
    "cifar10-wider": _variant(
        _CIFAR10,
        "CIFAR-10; wider convolutions, each branch larger than the one before",
        {"branch_width": (88, 112, 152, 224)},
        {},
    ),
    "cifar10-equal": _variant(_CIFAR10, "CIFAR-10; branches of one size", {"branch_width": 128}, {}),
    "cifar10-boosting": _variant(
        _CIFAR10, "CIFAR-10; a prefix's loss teaches its last branch only", {}, {"earlier_gradient": 0.0}
    ),
    "cifar10-sum": _variant(_CIFAR10, "CIFAR-10; the loss of every prefix of a plain sum", {}, _PLAIN_SUM),
    "cifar10-last": _variant(
        _CIFAR10,
        "CIFAR-10; only the sum of all branches is trained",
        {},
        {**_PLAIN_SUM, "prefix_weights": (0.0, 0.0, 0.0, 1.0)},
    ),
    "cifar10-one-stem": _variant(
        _CIFAR10,
        "CIFAR-10, 8 equal branches on one stem, a plain sum: accurate, but flat",
        {**_ONE_STEM, "embed_dim": 192, "num_heads": 3, "stem_width": 128},
        {**_PLAIN_SUM, "epochs": 150, "rand_augment_magnitude": 9},
    ),
    "cifar10-double": _variant(
        _CIFAR10,
        "CIFAR-10; cifar10-two-blocks, everything twice as wide, to teach cifar10-taught",
        {
            "embed_dim": 256,
            "num_heads": 8,
            "branch_depth": 2,
            "stem_width": 96,
            "branch_width": (96, 160, 256, 416),
        },
        {"epochs": 60},
    ),
    "cifar10-taught": _variant(
        _CIFAR10,
        "CIFAR-10; a teacher's predictions are the targets (--teacher), every batch is mixed, for long",
        {},
        {"epochs": 300, "teacher_weight": 1.0, "label_smoothing": 0.0, "mix_probability": 1.0},
    ),
    "cifar10-deeper-taught": _variant(
        _CIFAR10,
        "CIFAR-10; cifar10-taught with twice as many residual blocks, narrower ones, and twice as many steps",
        {"branch_residual_blocks": 2, "branch_width": (64, 64, 96, 184)},
        {"epochs": 300, "batch_size": 250, "teacher_weight": 1.0, "label_smoothing": 0.0, "mix_probability": 1.0},
    ),
    "fashion-mnist-taught": _variant(
        _FASHION_MNIST,
        "Fashion-MNIST; a teacher's predictions are the targets (--teacher), every batch is mixed, for long",
        {},
        {"epochs": 300, "teacher_weight": 1.0, "label_smoothing": 0.0, "mix_probability": 1.0},
    ),
    # One branch is an ordinary network. Both cost about as many multiply-adds as the four branches.
    "cifar10-vit": _variant(
        _CIFAR10,
        "CIFAR-10; one deep branch, to compare with",
        {"num_branches": 1, "branch_width": 128, "branch_depth": 14},
        {},
    ),
    "cifar10-wide": _variant(
        _CIFAR10,
        "CIFAR-10; one branch of wide convolutions, to compare with",
        {"num_branches": 1, "branch_depth": 2, "branch_width": 304},
        {},
    ),
    # Eight of them, each with a seed of its own, are an ensemble that costs as many.
    "cifar10-small": _variant(
        _CIFAR10,
        "CIFAR-10; one small branch, for ensembles to compare with",
        {"num_branches": 1, "branch_depth": 2, "branch_width": 72, "stem_width": 32, "stem_residual_blocks": 0},
        {},
    ),
    "motion": _MOTION,
    "sound": _SOUND,
    "photographs": _PHOTOGRAPHS,
    "photographs-frozen": _variant(
        _PHOTOGRAPHS,
        "photographs, behind a pretrained backbone that stays as it is, on a CPU in minutes",
        {"backbone_stage": 6},  # not trained, its later stages know more: 83 % instead of 82, on one split
        {"epochs": 30, "ema_decay": 0.0, "feature_copies": 4, "cutmix_alpha": 0.0},
    ),
    "waste": _variant(
        _PHOTOGRAPHS,
        "photographs; branches begin earlier, the last two go on with pretrained stages of their own",
        {
            "backbone_stage": 4,
            "branch_stage": (4, 4, 5, 5),
            "branch_depth": (1, 2, 2, 2),
            "branch_width": (32, 96, 96, 128),
        },
        {"epochs": 98, "rotation_degrees": 15.0},
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
        raise InputError(f"{unknown_text('recipe', str(recipe), RECIPES)}, or a .json file")
    try:
        return msgspec.json.decode(read_bounded(path, _MAX_RECIPE_BYTES), type=Recipe)
    except (msgspec.MsgspecError, ValueError, OSError, RecursionError) as error:
        raise InputError(f"the recipe {path} cannot be read: {error}") from error

"""Training recipes: network and settings that belong together, by name or from a JSON file.

They are what shipped models and the tutorials were made with. ``benchmarks/experiments.py`` has those of experiments.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_type_hints

import msgspec
from msgspec.structs import replace

from paraedge.data.images import ImageDataset
from paraedge.data.signals import SignalDataset
from paraedge.model.config import ParaFormerConfig
from paraedge.model.signals import Signal, log_mel
from paraedge.model.stages import STAGES
from paraedge.training.config import TrainingConfig
from paraedge_runtime._arguments import unknown_text
from paraedge_runtime._reading import read_bounded
from paraedge_runtime.errors import InputError

__all__ = ["RECIPES", "NetworkShape", "Recipe", "load_recipe", "network_config", "with_settings"]


class NetworkShape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of a network, without the fields that depend on the data set; see ``ParaFormerConfig``.

    ``stem_stride`` may be ``None``: 2 for images of up to 16 pixels, else 4.
    """

    embed_dim: int
    num_heads: int
    mlp_ratio: float
    num_branches: int
    branch_depth: int | tuple[int, ...]
    stem_stride: int | None = 4
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
        description: what the recipe is for, in one line.
        dataset: a key of ``paraedge.data.DATASETS``.
        network: shape of the network.
        training: settings of the training.
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

_PLAIN = Recipe(
    description="small images of any kind: 8 equal branches on one stem, a plain sum; minutes on a CPU",
    dataset="fashion-mnist",
    network=NetworkShape(embed_dim=64, num_heads=4, mlp_ratio=2.0, num_branches=8, branch_depth=2, stem_stride=None),
    training=TrainingConfig(),
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
        # Most of the convolutions are the stem's: 12 tokens for a second, of which branches see the same.
        stem_stride=16,
        stem_width=72,
        branch_width=(32, 32, 40, 48),
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

RECIPES: dict[str, Recipe] = {
    "plain": _PLAIN,
    "fashion-mnist": _FASHION_MNIST,
    "cifar10": _CIFAR10,
    "cifar10-taught": replace(
        _CIFAR10,
        description="CIFAR-10; a teacher's predictions are the targets (--teacher), every batch is mixed, for long",
        training=replace(_CIFAR10.training, epochs=300, teacher_weight=1.0, label_smoothing=0.0, mix_probability=1.0),
    ),
    "motion": _MOTION,
    "sound": _SOUND,
    "photographs": _PHOTOGRAPHS,
    "photographs-frozen": replace(
        _PHOTOGRAPHS,
        description="photographs, behind a pretrained backbone that stays as it is, on a CPU in minutes",
        # Not trained, the backbone's later stages know more: 83 % instead of 82, on one split.
        network=replace(_PHOTOGRAPHS.network, backbone_stage=6),
        training=replace(_PHOTOGRAPHS.training, epochs=30, ema_decay=0.0, feature_copies=4, cutmix_alpha=0.0),
    ),
    "waste": replace(
        _PHOTOGRAPHS,
        description="photographs; branches begin earlier, the last two go on with pretrained stages of their own",
        network=replace(
            _PHOTOGRAPHS.network,
            backbone_stage=4,
            branch_stage=(4, 4, 5, 5),
            branch_depth=(1, 2, 2, 2),
            branch_width=(32, 96, 96, 128),
        ),
        training=replace(_PHOTOGRAPHS.training, epochs=98, rotation_degrees=15.0),
    ),
}


def load_recipe(recipe: str | os.PathLike[str]) -> Recipe:
    """Load a recipe by name, or from a JSON file with the fields of :class:`Recipe`.

    Raises:
        InputError: the name is unknown, or the file is missing or malformed.
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


def with_settings(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Return a copy of ``recipe`` with some settings changed.

    Args:
        recipe: the recipe to start from.
        settings: texts ``key=value``. A key is a field of :class:`NetworkShape` or :class:`TrainingConfig`; a value
            is JSON, plain text, or a list of numbers with commas.

    Raises:
        InputError: the setting does not exist, or the value is invalid.
    """
    network, training = get_type_hints(type(recipe.network)), get_type_hints(type(recipe.training))
    changes: dict[str, dict[str, object]] = {"network": {}, "training": {}}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"{setting!r} is not a setting; give KEY=VALUE, such as num_branches=4")
        if key not in network and key not in training:
            raise InputError(unknown_text("setting", key, (*network, *training)))
        place, kind = ("network", network[key]) if key in network else ("training", training[key])
        try:
            changes[place][key] = msgspec.convert(_value(text), kind)
        except msgspec.ValidationError as error:
            raise InputError(f"invalid {key} {text!r}: {error}") from error
    if "epochs" in changes["training"] and "warmup_epochs" not in changes["training"]:
        epochs = cast("int", changes["training"]["epochs"])
        changes["training"]["warmup_epochs"] = min(recipe.training.warmup_epochs, epochs / 10)
    try:
        return replace(
            recipe,
            network=replace(recipe.network, **changes["network"]),
            training=replace(recipe.training, **changes["training"]),
        )
    except ValueError as error:
        raise InputError(str(error)) from error


def _value(text: str) -> object:
    """What a value on the command line means."""
    for candidate in (text, f"[{text}]"):
        try:
            return msgspec.json.decode(candidate)
        except (msgspec.DecodeError, RecursionError):
            continue
    return text


def network_config(
    shape: NetworkShape, data: ImageDataset | SignalDataset, resize: Literal["stretch", "crop"] = "stretch"
) -> ParaFormerConfig:
    """The network of that shape for this data, normalised as it, or its backbone, wants it.

    Raises:
        InputError: the two do not fit together.
    """
    takes = _signal(shape, data) if isinstance(data, SignalDataset) else _image(shape, data, resize)
    fields = {name: value for name, value in msgspec.structs.asdict(shape).items() if name != "mel_bands"}
    try:
        return ParaFormerConfig(num_classes=len(data.class_names), **{**fields, **takes})
    except ValueError as error:
        raise InputError(str(error)) from error


def _image(shape: NetworkShape, data: ImageDataset, resize: str) -> dict[str, Any]:
    """What the images decide of a ``ParaFormerConfig``."""
    height, width, channels = data.image_shape
    if shape.backbone is not None and channels != 3:
        raise InputError(
            f"the backbone {shape.backbone} reads images in colour, those of {data.name} are grey; "
            "leave out --grey or --backbone, or give images with three channels"
        )
    if height != width:
        raise InputError(f"{data.name} has images of {height}×{width}; a ParaFormer needs square images")
    if shape.mel_bands is not None:
        raise InputError(f"the recipe is for sound, {data.name} has images; leave out --recipe, or name another")
    known = STAGES.get(shape.backbone or "")
    mean, std = (known.mean, known.std) if known is not None else data.channel_statistics()
    return {
        "image_size": height,
        "in_channels": channels,
        "stem_stride": shape.stem_stride or (2 if height <= 16 else 4),
        "resize": resize,
        "mean": mean,
        "std": std,
    }


def _signal(shape: NetworkShape, data: SignalDataset) -> dict[str, Any]:
    """What the signals decide of a ``ParaFormerConfig``."""
    channels, length = data.sample_shape
    mean, std = data.channel_statistics()
    return {
        "signal": Signal(
            length=length,
            rate_hz=data.rate_hz,
            channel_names=data.channel_names,
            log_mel=None if shape.mel_bands is None else log_mel(shape.mel_bands, data.rate_hz),
        ),
        "in_channels": channels,
        "stem_stride": shape.stem_stride or 4,
        "mean": mean,
        "std": std,
    }

"""The frozen settings of a training run: everything that, with the data, decides the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

__all__ = ["Range", "TrainingConfig", "check_ranges"]


class Range(NamedTuple):
    """What a number may be: both ends belong to it but for those that are ``open``."""

    low: float = 0.0
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or not math.isfinite(value):
            return False
        is_above = self.low < value if self.open_low else self.low <= value
        return is_above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        low = f"{'above' if self.open_low else 'at least'} {self.low:.12g}"
        return (
            low if self.high == math.inf else f"{low} and {'below' if self.open_high else 'at most'} {self.high:.12g}"
        )


_ABOVE_0 = Range(open_low=True)
_SHARE = Range(high=1)
_BELOW_1 = Range(high=1, open_high=True)
_RANGES = {
    "epochs": Range(1),
    "batch_size": Range(1),
    "learning_rate": _ABOVE_0,
    "weight_decay": Range(),
    "warmup_epochs": Range(),
    "clip_norm": _ABOVE_0,
    "ema_decay": _BELOW_1,
    "label_smoothing": _BELOW_1,
    "crop_padding": Range(),
    "crop_area": Range(high=1, open_low=True),
    "rotation_degrees": Range(high=180),
    "colour_jitter": _BELOW_1,
    "erasing_probability": _SHARE,
    "time_shift": _SHARE,
    "speed_change": _BELOW_1,
    "gain_db": Range(high=60),
    "noise_db": Range(-60, 0),
    "mixup_alpha": Range(),
    "cutmix_alpha": Range(),
    "mix_probability": _SHARE,
    "prefix_temperature_power": _SHARE,
    "branch_weight": _SHARE,
    "teacher_weight": _SHARE,
    "backbone_rate": _SHARE,
    "feature_copies": Range(high=64),
    "seed": Range(high=2**32 - 1),
}


def check_ranges(config: msgspec.Struct, ranges: Mapping[str, Range]) -> None:
    """Raise ``ValueError`` for the first field that is outside its range."""
    for name, allowed in ranges.items():
        value = getattr(config, name)
        if value not in allowed:
            raise ValueError(f"invalid {name} {value}; give {allowed}")


class TrainingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a training: AdamW with warm-up and cosine decay on the summed prefix losses.

    Crops and flips apply to images only; shift, speed, gain and noise to signals only; rotation to both.

    Attributes:
        epochs: passes over the train split.
        batch_size: images per step.
        learning_rate: peak learning rate of AdamW.
        weight_decay: weight decay of matrices; norms, biases and positions have none.
        warmup_epochs: linear warm-up; may be a fraction.
        clip_norm: maximum norm of the gradients.
        ema_decay: decay per step of the moving average of the weights, which is the result; 0 for the weights of the
            last step. A training of less than 10 / (1 - decay) steps uses a smaller decay.
        label_smoothing: label smoothing of every prefix's cross-entropy.
        crop_padding: padding in pixels for random crops; 0 for none.
        crop_area: smallest area of a random resized crop, as a fraction of the image, with sides up to 4:3; 1 for
            none.
        rotation_degrees: largest rotation of an image. For signals: of all sensors with three axes (channels such as
            ``acc_x``, ``acc_y``, ``acc_z``) together, about a random axis.
        horizontal_flip: flip half of the images.
        colour_jitter: largest relative change of brightness, contrast and saturation.
        erasing_probability: fraction of images in which a random rectangle is erased.
        time_shift: largest shift of a signal, as a fraction of its window.
        speed_change: largest relative change of a signal's speed (and pitch).
        gain_db: largest change of a signal's level.
        noise_db: add white noise to half of the signals, up to this far below the signal's level; 0 for none.
        mixup_alpha, cutmix_alpha: parameter of the Beta distribution that mixes pairs of images; 0 for none. With
            both, one is chosen at random for each batch.
        mix_probability: fraction of batches that are mixed.
        prefix_weights: one loss weight per prefix, scaled to sum to 1; ``None`` for equal weights.
        prefix_temperature_power: the logits of the first k branches are divided by k to this power in
            the loss: 0 for a plain sum, 1 for the mean, as in an ensemble.
        branch_weight: weight of the mean cross-entropy of the single branches in the loss, as in an ensemble; the
            rest is the loss of the prefixes.
        teacher_weight: weight of a trained network's prediction in the targets; the rest is the labels.
        backbone_rate: learning rate of a pretrained backbone, as a fraction of ``learning_rate``.
        feature_copies: freeze the backbone and compute its features of this many augmented copies of every image
            once, before the first epoch; 0 to train the backbone.
        seed: seed of weights, order and augmentation.
    """

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 1.0
    clip_norm: float = 1.0
    ema_decay: float = 0.0
    label_smoothing: float = 0.0
    crop_padding: int = 2
    crop_area: float = 1.0
    rotation_degrees: float = 0.0
    horizontal_flip: bool = True
    colour_jitter: float = 0.0
    erasing_probability: float = 0.0
    time_shift: float = 0.0
    speed_change: float = 0.0
    gain_db: float = 0.0
    noise_db: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    mix_probability: float = 1.0
    prefix_weights: tuple[float, ...] | None = None
    prefix_temperature_power: float = 0.0
    branch_weight: float = 0.0
    teacher_weight: float = 0.0
    backbone_rate: float = 0.1
    feature_copies: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(self, _RANGES)
        if not self.warmup_epochs <= self.epochs:
            raise ValueError(f"invalid warmup_epochs {self.warmup_epochs}; give at most epochs, {self.epochs}")
        if self.prefix_weights is not None and (
            not all(math.isfinite(weight) and weight >= 0 for weight in self.prefix_weights)
            or self.prefix_weights[-1:] == (0.0,)
            or not self.prefix_weights
        ):
            raise ValueError(
                f"invalid prefix_weights {self.prefix_weights}: "
                "finite, not negative, and the last (the full model) above 0"
            )

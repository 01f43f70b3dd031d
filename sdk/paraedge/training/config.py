"""The frozen settings of a training run: everything that, with the data, decides the weights."""

from __future__ import annotations

import math

import msgspec

__all__ = ["TrainingConfig"]


class TrainingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """AdamW with warm-up and cosine decay over the summed prefix losses.

    Attributes:
        epochs: passes over the train split.
        batch_size: images per step.
        learning_rate: peak learning rate of AdamW.
        weight_decay: of matrices only; norms, biases and positions have none.
        warmup_epochs: linear warm-up; may be a fraction.
        clip_norm: gradients are scaled down to this norm.
        label_smoothing: of every prefix's cross-entropy.
        crop_padding: random crops from the image padded by this many pixels; 0 for none.
        horizontal_flip: flip half of the images.
        prefix_weights: one loss weight per prefix, scaled to sum to 1; ``None`` for equal ones.
        seed: of weights, order and augmentation.
    """

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 1.0
    clip_norm: float = 1.0
    label_smoothing: float = 0.0
    crop_padding: int = 2
    horizontal_flip: bool = True
    prefix_weights: tuple[float, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "learning_rate": math.isfinite(self.learning_rate) and self.learning_rate > 0,
            "weight_decay": math.isfinite(self.weight_decay) and self.weight_decay >= 0,
            "warmup_epochs": 0 <= self.warmup_epochs <= self.epochs,
            "clip_norm": math.isfinite(self.clip_norm) and self.clip_norm > 0,
            "label_smoothing": 0 <= self.label_smoothing < 1,
            "crop_padding": self.crop_padding >= 0,
            "seed": 0 <= self.seed < 2**32,
        }
        for name, fine in checks.items():
            if not fine:
                raise ValueError(f"{name} cannot be {getattr(self, name)}; see 'paraedge train --help'")
        if self.prefix_weights is not None and (
            not all(math.isfinite(weight) and weight >= 0 for weight in self.prefix_weights)
            or self.prefix_weights[-1:] == (0.0,)
            or not self.prefix_weights
        ):
            raise ValueError(
                f"prefix_weights cannot be {self.prefix_weights}: "
                "finite, not negative, and the last (the full model) above 0"
            )

"""The frozen settings of a training run: everything that, with the data, decides the weights."""

from __future__ import annotations

import math

import msgspec

__all__ = ["TrainingConfig"]


class TrainingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """AdamW with warm-up and cosine decay over the summed prefix losses.

    Crops, flips and the like are for images; shift, speed, gain and noise for signals. Each kind passes over what is
    for the other; turns are for both.

    Attributes:
        epochs: passes over the train split.
        batch_size: images per step.
        learning_rate: peak learning rate of AdamW.
        weight_decay: of matrices only; norms, biases and positions have none.
        warmup_epochs: linear warm-up; may be a fraction.
        clip_norm: gradients are scaled down to this norm.
        ema_decay: the result is the exponential moving average of the weights with this decay per
            step; 0 for the weights of the last step.
        label_smoothing: of every prefix's cross-entropy.
        crop_padding: random crops from the image padded by this many pixels; 0 for none.
        crop_area: random crops, scaled to the whole image, have this share of its area at least, sides up to 4:3;
            1 for none.
        rotation_degrees: images are turned by up to so much either way; of signals every sensor with three axes
            (channels such as ``acc_x``, ``acc_y``, ``acc_z``), all of them alike, about a line drawn at random.
        horizontal_flip: flip half of the images.
        colour_jitter: brightness, contrast and saturation change by up to this share.
        rand_augment_magnitude: two random operations of RandAugment per image, of this strength out
            of 30; 0 for none. Needs torchvision.
        erasing_probability: share of images in which a random rectangle is erased.
        time_shift: signals begin up to this share of their window earlier or later.
        speed_change: signals are played up to this share faster or slower, so higher or lower.
        gain_db: signals are louder or softer by up to this.
        noise_db: white noise up to so far below the signal's own level is added to half of the signals; 0 for none.
        mixup_alpha, cutmix_alpha: parameter of the Beta distribution that mixes pairs of images; 0
            for none. With both, either is chosen for each batch.
        mix_probability: share of batches that are mixed.
        prefix_weights: one loss weight per prefix, scaled to sum to 1; ``None`` for equal ones.
        earlier_gradient: share of a prefix's gradient that reaches the branches before its last one:
            1 trains every prefix jointly, 0 is boosting (each branch fits what the ones before it left).
        prefix_temperature_power: the logits of the first k branches are divided by k to this power in
            the loss: 0 for a plain sum, 1 for the mean, as in an ensemble.
        branch_weight: share of the loss that is the mean cross-entropy of the branches, each alone, as in an
            ensemble; the rest is that of the prefixes.
        distillation_weight: share of the loss of every prefix but the last that is taken against the
            prediction of all branches rather than against the labels.
        distillation_temperature: softens both sides of that comparison.
        teacher_weight: share of the targets that is the prediction of another, trained network (all its branches) to
            the same augmented images; the rest are the labels.
        teacher_temperature: the teacher's logits are divided by it.
        subset_probability: share of images for which the branches after the first add up in random
            order, so that every subset with the first branch is trained.
        stochastic_depth: share of images for which attention or MLP of a branch's last block is skipped;
            proportionally less in the blocks before it.
        backbone_rate: learning rate of a pretrained backbone, as a share of ``learning_rate``.
        feature_copies: the backbone stays as it is, and what it makes of so many augmented copies of every image is
            computed once, before the first epoch; 0 where it learns too.
        seed: of weights, order and augmentation.
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
    rand_augment_magnitude: int = 0
    erasing_probability: float = 0.0
    time_shift: float = 0.0
    speed_change: float = 0.0
    gain_db: float = 0.0
    noise_db: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    mix_probability: float = 1.0
    prefix_weights: tuple[float, ...] | None = None
    earlier_gradient: float = 1.0
    prefix_temperature_power: float = 0.0
    branch_weight: float = 0.0
    distillation_weight: float = 0.0
    distillation_temperature: float = 1.0
    teacher_weight: float = 0.0
    teacher_temperature: float = 1.0
    subset_probability: float = 0.0
    stochastic_depth: float = 0.0
    backbone_rate: float = 0.1
    feature_copies: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "learning_rate": math.isfinite(self.learning_rate) and self.learning_rate > 0,
            "weight_decay": math.isfinite(self.weight_decay) and self.weight_decay >= 0,
            "warmup_epochs": 0 <= self.warmup_epochs <= self.epochs,
            "clip_norm": math.isfinite(self.clip_norm) and self.clip_norm > 0,
            "ema_decay": 0 <= self.ema_decay < 1,
            "label_smoothing": 0 <= self.label_smoothing < 1,
            "crop_padding": self.crop_padding >= 0,
            "crop_area": 0 < self.crop_area <= 1,
            "rotation_degrees": 0 <= self.rotation_degrees <= 180,
            "colour_jitter": 0 <= self.colour_jitter < 1,
            "rand_augment_magnitude": 0 <= self.rand_augment_magnitude <= 30,
            "erasing_probability": 0 <= self.erasing_probability <= 1,
            "time_shift": 0 <= self.time_shift <= 1,
            "speed_change": 0 <= self.speed_change < 1,
            "gain_db": 0 <= self.gain_db <= 60,
            "noise_db": -60 <= self.noise_db <= 0,
            "mixup_alpha": math.isfinite(self.mixup_alpha) and self.mixup_alpha >= 0,
            "cutmix_alpha": math.isfinite(self.cutmix_alpha) and self.cutmix_alpha >= 0,
            "mix_probability": 0 <= self.mix_probability <= 1,
            "earlier_gradient": 0 <= self.earlier_gradient <= 1,
            "prefix_temperature_power": 0 <= self.prefix_temperature_power <= 1,
            "branch_weight": 0 <= self.branch_weight <= 1,
            "distillation_weight": 0 <= self.distillation_weight <= 1,
            "distillation_temperature": math.isfinite(self.distillation_temperature)
            and self.distillation_temperature > 0,
            "teacher_weight": 0 <= self.teacher_weight <= 1,
            "teacher_temperature": math.isfinite(self.teacher_temperature) and self.teacher_temperature > 0,
            "subset_probability": 0 <= self.subset_probability <= 1,
            "stochastic_depth": 0 <= self.stochastic_depth < 1,
            "backbone_rate": 0 <= self.backbone_rate <= 1,
            "feature_copies": 0 <= self.feature_copies <= 64,
            "seed": 0 <= self.seed < 2**32,
        }
        for name, fine in checks.items():
            if not fine:
                raise ValueError(f"invalid {name} {getattr(self, name)}; see 'paraedge train --help'")
        if self.prefix_weights is not None and (
            not all(math.isfinite(weight) and weight >= 0 for weight in self.prefix_weights)
            or self.prefix_weights[-1:] == (0.0,)
            or not self.prefix_weights
        ):
            raise ValueError(
                f"invalid prefix_weights {self.prefix_weights}: "
                "finite, not negative, and the last (the full model) above 0"
            )

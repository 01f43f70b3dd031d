"""Extension by held-out classes: Fashion-MNIST without its last two, then two branches for all ten.

    .venv/bin/python benchmarks/extension.py build/extension --data-dir data

Prints the accuracy of every prefix on old and new classes, and whether the old branches kept every bit.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from paraedge.data import ImageDataset, LabelledImages, load_dataset
from paraedge.model import Checkpoint, ParaFormerConfig
from paraedge.model.records import CheckpointConfig
from paraedge.training import TrainingConfig, extend, train
from paraedge.training.batches import normalise
from paraedge.training.extension import extension_training

OLD_CLASSES = 8


def without_new_classes(data: ImageDataset) -> ImageDataset:
    splits = []
    for split in (data.train, data.test):
        chosen = split.labels < OLD_CLASSES
        splits.append(LabelledImages(split.images[chosen], split.labels[chosen]))
    return ImageDataset(f"{data.name}, {OLD_CLASSES} classes", *splits, data.class_names[:OLD_CLASSES], data.license)


def logits(checkpoint: Checkpoint, images: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return checkpoint.model.branch_logits(normalise(torch.from_numpy(images), checkpoint.config.model))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    data = load_dataset("fashion-mnist", arguments.data_dir)
    old = without_new_classes(data)
    mean, std = old.channel_statistics()
    shape = ParaFormerConfig(
        image_size=28, in_channels=1, num_classes=OLD_CLASSES, embed_dim=48, num_heads=3, mlp_ratio=3.0,
        num_branches=2, stem_width=16, branch_width=(24, 32), branch_residual_blocks=1, mean=mean, std=std,
    )  # fmt: skip
    base = train(
        old,
        CheckpointConfig(
            name="extension", description=old.name, license=old.license, dataset=old.name, labels=old.class_names,
            model=shape,
        ),
        TrainingConfig(
            epochs=arguments.epochs, label_smoothing=0.1, branch_weight=0.5, prefix_temperature_power=1.0,
            ema_decay=0.99, seed=arguments.seed,
        ),
        arguments.folder / "base",
    )  # fmt: skip
    config = extension_training(base, 2, epochs=arguments.epochs, seed=arguments.seed)
    extended = extend(base, data, arguments.folder / "extended", branches=2, config=config)

    right = extended.evaluation.branch_logits.cumsum(axis=0).argmax(axis=2) == data.test.labels
    is_new = data.test.labels >= OLD_CLASSES
    before, after = (logits(checkpoint, data.test.images[:1000]) for checkpoint in (base, extended))
    print(
        json.dumps(
            {
                "base_on_old_classes": list(base.training.prefix_accuracy),
                "old_classes": right[:, ~is_new].mean(axis=1).round(4).tolist(),
                "new_classes": right[:, is_new].mean(axis=1).round(4).tolist(),
                "all_classes": right.mean(axis=1).round(4).tolist(),
                "old_branches_keep_every_bit": torch.equal(after[:2, :, :OLD_CLASSES], before),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()

"""Train a recipe's branches with the teacher of ``baselines.py``, and write an ordinary checkpoint folder.

    .venv/bin/python benchmarks/taught.py --recipe cifar10-taught --teacher wide-resnet.safetensors --data-dir data \\
        --out taught

``paraedge train --teacher`` takes a ParaFormer; this is the same with another architecture. Called again after
a run that was cut off, it goes on from the last epoch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
from baselines import load_teacher
from msgspec.structs import replace

from paraedge.data import load_dataset
from paraedge.model import ParaFormerConfig
from paraedge.model.records import CheckpointConfig
from paraedge.training import TrainingProgress, load_recipe, train


def report(progress: TrainingProgress) -> None:
    """A line for every epoch."""
    if progress.step + 1 == progress.steps_per_epoch:
        print(f"epoch {progress.epoch + 1}, loss {progress.loss:.4f}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="cifar10-taught", help="Name or .json file. [cifar10-taught]")
    parser.add_argument("--teacher", type=Path, help="Weights of a wide-resnet; without, the labels alone teach.")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="Checkpoint folder to write.")
    parser.add_argument("--epochs", type=int, help="Other than the recipe's.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--holdout", type=int, help="Leave so many training images out, and test on them.")
    parser.add_argument("--workers", type=int, default=0, help="Processes that make batches.")
    parser.add_argument("--save-interval", type=float, default=60.0, help="Seconds between saved states. [60]")
    parser.add_argument("--compile", action="store_true", help="torch.compile the layers; pays on a GPU.")
    options = parser.parse_args(arguments)
    recipe = load_recipe(options.recipe)
    data = load_dataset(recipe.dataset, options.data_dir)
    if options.holdout:
        data = data.holdout(options.holdout, seed=0)
    mean, std = data.channel_statistics()
    height, _, channels = data.image_shape
    network = ParaFormerConfig(
        image_size=height,
        in_channels=channels,
        num_classes=len(data.class_names),
        mean=mean,
        std=std,
        **msgspec.structs.asdict(recipe.network),
    )
    checkpoint_config = CheckpointConfig(
        name=recipe.dataset,
        description=f"ParaFormer trained on {data.name}",
        license=data.license,
        dataset=recipe.dataset,
        labels=data.class_names,
        model=network,
    )
    epochs = options.epochs or recipe.training.epochs
    warmup = min(recipe.training.warmup_epochs, epochs / 10)
    checkpoint = train(
        data,
        checkpoint_config,
        replace(recipe.training, epochs=epochs, warmup_epochs=warmup, seed=options.seed),
        options.out,
        teacher=load_teacher(options.teacher, recipe.dataset) if options.teacher else None,
        compile_parts=options.compile,
        num_workers=options.workers,
        save_interval_s=options.save_interval,
        on_progress=report,
    )
    alone = checkpoint.evaluation.branch_logits.argmax(axis=2) == checkpoint.evaluation.labels  # (N, images)
    for name, values in (("prefixes", checkpoint.training.prefix_accuracy), ("alone", alone.mean(axis=1))):
        print(f"{name}: {' '.join(f'{100 * value:.2f}' for value in values)}")


if __name__ == "__main__":
    main()

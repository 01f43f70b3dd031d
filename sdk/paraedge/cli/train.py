"""``paraedge train``: from a data set to a checkpoint folder."""

from __future__ import annotations

from pathlib import Path

import click

from paraedge.cli.output import as_percent, console, json_option, print_json, progress_bar, table


@click.command()
@click.option("--dataset", default="fashion-mnist", show_default=True, help="digits, fashion-mnist, cifar10 or folder.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where its files are. [default: $PARAEDGE_DATA]")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Checkpoint folder to write.")
@click.option("--init", help="Start from the weights of a packaged model or checkpoint folder, and its shape.")
@click.option("--name", help="Name of the model. [default: name of the data set]")
@click.option("--license", "license_text", help="Licence of the weights. [default: that of the data set]")
@click.option("--embed-dim", default=64, show_default=True, help="Token width D.")
@click.option("--num-heads", default=4, show_default=True, help="Attention heads; divides --embed-dim.")
@click.option("--mlp-ratio", default=2.0, show_default=True, help="MLP width over D.")
@click.option("--num-branches", default=8, show_default=True, help="Branches side by side.")
@click.option("--branch-depth", default=2, show_default=True, help="Blocks per branch.")
@click.option("--stem-stride", type=int, help="Pixels per token side. [default: 2 up to 16 pixels, else 4]")
@click.option("--epochs", default=20, show_default=True)
@click.option("--batch-size", default=128, show_default=True)
@click.option("--learning-rate", default=2e-3, show_default=True)
@click.option("--weight-decay", default=0.05, show_default=True)
@click.option("--label-smoothing", default=0.0, show_default=True)
@click.option("--crop-padding", default=2, show_default=True, help="Random crops, in pixels; 0 for none.")
@click.option("--flip/--no-flip", default=None, help="Mirror half the images. [default: not for digits]")
@click.option("--seed", default=0, show_default=True)
@click.option("--image-size", default=32, show_default=True, help="For --dataset folder: scale pictures to this.")
@click.option("--grey", is_flag=True, help="For --dataset folder: one channel instead of three.")
@click.option("--device", help="torch device. [default: the GPU, else the CPU]")
@json_option
def train(
    dataset: str,
    data_dir: Path | None,
    out: Path,
    init: str | None,
    name: str | None,
    license_text: str | None,
    embed_dim: int,
    num_heads: int,
    mlp_ratio: float,
    num_branches: int,
    branch_depth: int,
    stem_stride: int | None,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    label_smoothing: float,
    crop_padding: int,
    flip: bool | None,
    seed: int,
    image_size: int,
    grey: bool,
    device: str | None,
    as_json: bool,
) -> None:
    """Train a ParaFormer by progressive approximation.

    Every prefix of branches is trained in one pass. After each epoch the state goes to OUT.resume;
    the same command continues from there.

    \b
    Example:
      paraedge train --dataset fashion-mnist --data-dir data --out my-model
      paraedge train --dataset folder --data-dir pictures --out my-model --epochs 30
    """
    from paraedge.data import FolderOptions, load_dataset
    from paraedge_runtime.errors import InputError

    data = load_dataset(dataset, data_dir, FolderOptions(image_size=image_size, channels=1 if grey else 3, seed=seed))
    height, width, channels = data.image_shape
    if height != width:
        raise InputError(f"{data.name} has images of {height}×{width}; a ParaFormer takes square ones")

    from paraedge.model import Checkpoint, ParaFormerConfig, load_checkpoint
    from paraedge.model.records import CheckpointConfig
    from paraedge.packaged import resolve_checkpoint
    from paraedge.training import TrainingConfig, TrainingProgress
    from paraedge.training import train as run_training

    start: Checkpoint | None = load_checkpoint(resolve_checkpoint(init)) if init is not None else None
    mean, std = data.channel_statistics()
    try:
        checkpoint_config = CheckpointConfig(
            name=name or data.name,
            description=f"ParaFormer trained on {data.name}",
            license=license_text or data.license,
            dataset=data.name,
            labels=data.class_names,
            model=start.config.model
            if start is not None
            else ParaFormerConfig(
                image_size=height,
                in_channels=channels,
                num_classes=len(data.class_names),
                embed_dim=embed_dim,
                num_heads=num_heads,
                mlp_ratio=mlp_ratio,
                num_branches=num_branches,
                branch_depth=branch_depth,
                stem_stride=stem_stride or (2 if height <= 16 else 4),
                mean=mean,
                std=std,
            ),
        )
        config = TrainingConfig(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup_epochs=min(1.0, epochs / 10),
            label_smoothing=label_smoothing,
            crop_padding=crop_padding,
            horizontal_flip=(dataset != "digits") if flip is None else flip,
            seed=seed,
        )
    except ValueError as error:
        raise InputError(str(error)) from error

    with progress_bar("loss {task.fields[loss]}", "{task.fields[accuracy]}") as bar:
        task = bar.add_task(f"training on {data.name}", total=None, loss="…", accuracy="")

        def show(progress: TrainingProgress) -> None:
            prefixes = progress.prefix_accuracy
            bar.update(
                task,
                total=epochs * progress.steps_per_epoch,
                completed=progress.epoch * progress.steps_per_epoch + progress.step + 1,
                description=f"epoch {progress.epoch + 1}/{epochs}",
                loss=f"{progress.loss:.3f}",
                accuracy="prefix accuracy " + " ".join(f"{100 * accuracy:.1f}" for accuracy in prefixes),
            )

        checkpoint = run_training(data, checkpoint_config, config, out, init=start, device=device, on_progress=show)

    record = checkpoint.training
    if as_json:
        print_json(
            {
                "checkpoint": str(out),
                "prefix_accuracy": list(record.prefix_accuracy),
                "num_test_samples": record.num_test_samples,
                "train_seconds": record.train_seconds,
            }
        )
        return
    rows = table(">branches", ">test accuracy", title=f"{out}: {record.num_test_samples} test images")
    for index, accuracy in enumerate(record.prefix_accuracy):
        rows.add_row(str(index + 1), as_percent(accuracy))
    console().print(rows)

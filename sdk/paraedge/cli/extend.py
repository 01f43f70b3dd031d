"""``paraedge extend``: more branches for a trained model, whose old ones stay as they are."""

from __future__ import annotations

from pathlib import Path

import click

from paraedge.cli._threads import FreeCores
from paraedge.cli.options import LABELS
from paraedge.cli.output import json_option
from paraedge.cli.training import check_labels, check_log, is_first_process, print_trained, training_progress


@click.command()
@click.argument("model")
@click.option("--branches", type=click.IntRange(min=1), default=1, show_default=True, help="How many to add.")
@click.option("--dataset", default="folder", show_default=True, help="digits, fashion-mnist, cifar10, folder or npz.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where its files are. [default: $PARAEDGE_DATA]")
@click.option("--labels", type=LABELS, help="For --dataset npz: names of the classes 0, 1, 2, …: cat,dog,bird.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Checkpoint folder to write.")
@click.option("--branch-depth", type=int, help="Blocks of each new branch. [default: as the last old one]")
@click.option("--branch-width", type=int, help="Channels of its own convolutions, likewise.")
@click.option("--epochs", default=20, show_default=True)
@click.option("--batch-size", type=int, help="[default: as the model was trained]")
@click.option("--learning-rate", type=float, help="[default: as the model was trained]")
@click.option("--seed", default=0, show_default=True)
@click.option("--device", help="torch device. [default: the GPU, else the CPU]")
@click.option("--compile", "compile_parts", is_flag=True, help="Compile the network: for long runs on a GPU.")
@click.option("--workers", type=click.IntRange(min=0), default=0, help="Processes that make batches. [default: none]")
@click.option("--log", type=click.Path(path_type=Path), help="File that gets one JSON line per epoch.")
@json_option
def extend(
    model: str,
    branches: int,
    dataset: str,
    data_dir: Path | None,
    labels: tuple[str, ...] | None,
    out: Path,
    branch_depth: int | None,
    branch_width: int | None,
    epochs: int,
    batch_size: int | None,
    learning_rate: float | None,
    seed: int,
    device: str | None,
    compile_parts: bool,
    workers: int,
    log: Path | None,
    as_json: bool,
) -> None:
    """Add branches to a trained model; the old ones stay as they are.

    MODEL is a packaged model's name or a checkpoint folder. Stem and old branches keep every bit, and the
    old prefixes their predictions. Classes of the data that MODEL does not know become new labels, which
    only the new branches learn; give images of the old classes too. 'paraedge update' then makes a file of
    the parts that are new.

    \b
    Example:
      paraedge extend fashion-mnist --branches 2 --data-dir photos --out bigger
      paraedge export --model bigger --target android --out bigger.paraedge
      paraedge update old.paraedge bigger.paraedge --out new-parts.zip
    """
    free_cores = FreeCores()
    check_log(log, out)
    check_labels(labels, dataset)
    from paraedge.data import FolderOptions, load_dataset
    from paraedge.model import load_checkpoint
    from paraedge.packaged import resolve_checkpoint
    from paraedge.training.extension import extend as run_extension
    from paraedge.training.extension import extension_training
    from paraedge.training.parallel import processes

    base = load_checkpoint(resolve_checkpoint(model))
    shape = base.config.model
    options = FolderOptions(
        image_size=shape.image_size, resize=shape.resize, channels=shape.in_channels, class_names=labels
    )
    data = load_dataset(dataset, data_dir, options)
    given = {"batch_size": batch_size, "learning_rate": learning_rate}
    config = extension_training(
        base, branches, epochs=epochs, seed=seed, **{name: value for name, value in given.items() if value is not None}
    )
    free_cores.use(device, tell=is_first_process())
    with processes(device) as own_device, training_progress(data.name, epochs, log) as show:
        checkpoint = run_extension(
            base,
            data,
            out,
            branches=branches,
            config=config,
            loader=None if dataset == data.name else dataset,
            depth=branch_depth,
            width=branch_width,
            device=own_device,
            compile_parts=compile_parts,
            num_workers=workers,
            on_progress=show,
        )
    print_trained(checkpoint, out, as_json)

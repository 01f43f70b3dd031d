"""``paraedge extend``: more branches for a trained model, whose old ones stay as they are."""

from __future__ import annotations

from pathlib import Path

import click

from paraedge.cli._threads import FreeCores
from paraedge.cli.options import DATASET, LABELS, data_dir_option
from paraedge.cli.output import json_option
from paraedge.cli.training import (
    check_labels,
    check_log,
    is_first_process,
    print_trained,
    tell_left_out,
    training_progress,
)


@click.command()
@click.argument("model")
@click.option("--branches", type=click.IntRange(min=1), default=1, show_default=True, help="Number of branches to add.")
@click.option("--dataset", type=DATASET, default="folder", show_default=True, help="Data set to train on.")
@data_dir_option
@click.option("--labels", type=LABELS, help="Class names for --dataset npz, in order: cat,dog,bird.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Checkpoint folder to write.")
@click.option("--branch-depth", type=int, help="Blocks per new branch. [default: as in the last old branch]")
@click.option(
    "--branch-width", type=int, help="Channels of a new branch's convolutions. [default: as in the last old branch]"
)
@click.option("--epochs", default=20, show_default=True, help="Passes over the training images.")
@click.option("--batch-size", type=int, help="Images per step. [default: as for the model]")
@click.option("--learning-rate", type=float, help="Peak learning rate. [default: as for the model]")
@click.option("--seed", default=0, show_default=True, help="Seed of weights, order and augmentation.")
@click.option("--device", help="torch device, such as cuda:0 or cpu. [default: a GPU if there is one]")
@click.option("--compile", "compile_parts", is_flag=True, help="Compile the network; worthwhile for long GPU runs.")
@click.option("--workers", type=click.IntRange(min=0), default=0, help="Data loading processes. [default: none]")
@click.option("--log", type=click.Path(path_type=Path), help="Write one JSON line per epoch to this file.")
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
    """Add branches to a trained model.

    MODEL is a packaged model or a checkpoint folder. Its stem and branches stay exactly as they are;
    only the new branches are trained. Classes that MODEL does not know become new labels. Include images
    of the old classes too, or the new branches forget them. Send the new parts to devices with
    'paraedge update'.

    \b
    Example:
      paraedge extend fashion-mnist --data-dir photos --out bigger
      paraedge export --model bigger --target android --out bigger.paraedge
      paraedge update old.paraedge bigger.paraedge --out new-parts.zip
    """
    free_cores = FreeCores()
    check_log(log, out)
    check_labels(labels, dataset)
    from paraedge.data import load_dataset
    from paraedge.data.datasets import options_for
    from paraedge.model import load_checkpoint
    from paraedge.packaged import resolve_checkpoint
    from paraedge.training.extension import extend as run_extension
    from paraedge.training.extension import extension_training
    from paraedge.training.parallel import processes

    base = load_checkpoint(resolve_checkpoint(model))
    data = load_dataset(dataset, data_dir, options_for(base.config.model.input_spec, labels))
    tell_left_out(dataset, data_dir)
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

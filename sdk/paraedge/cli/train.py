"""``paraedge train``: from a data set to a checkpoint folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from paraedge.cli._threads import FreeCores
from paraedge.cli.options import DATASET, LABELS, Names, data_dir_option
from paraedge.cli.output import json_option
from paraedge.cli.training import (
    check_labels,
    check_log,
    is_first_process,
    print_trained,
    tell_left_out,
    training_progress,
)

if TYPE_CHECKING:
    from paraedge.training.recipes import Recipe


@click.command()
@click.option(
    "--recipe",
    help="Name of a recipe (network and settings), or a .json file. [default: by the data]",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting of the recipe, such as num_branches=4. May be repeated.",
)
@click.option("--dataset", type=DATASET, help="Data set to train on. [default: the recipe's]")
@data_dir_option
@click.option("--labels", type=LABELS, help="Class names for --dataset npz, in order: cat,dog,bird.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Checkpoint folder to write.")
@click.option("--epochs", type=int, help="Passes over the training images. [default: the recipe's]")
@click.option("--seed", type=int, help="Seed of weights, order and augmentation. [default: the recipe's]")
@click.option(
    "--backbone", type=Names("backbone", ("efficientnet-lite0",)), help="Pretrained network to use as the stem."
)
@click.option("--init", help="Packaged model or checkpoint folder whose weights and shape to start from.")
@click.option("--teacher", help="Packaged model or checkpoint folder to distill from.")
@click.option("--name", help="Model name. [default: the data set's name]")
@click.option("--license", "license_text", help="Licence of the weights. [default: the data set's licence]")
@click.option(
    "--image-size",
    type=click.IntRange(min=1),
    help="Image side in pixels, for --dataset folder. [default: 32; 224 with a backbone]",
)
@click.option("--grey", is_flag=True, help="Read grey images, for --dataset folder.")
@click.option("--holdout", type=click.IntRange(min=1), help="Hold out this many training images, and test on them.")
@click.option("--device", help="torch device, such as cuda:0 or cpu. [default: a GPU if there is one]")
@click.option(
    "--parallel",
    type=click.Choice(["data", "branches"]),
    default="data",
    show_default=True,
    help="What to divide among torchrun processes.",
)
@click.option("--compile", "compile_parts", is_flag=True, help="Compile the network; worthwhile for long GPU runs.")
@click.option("--workers", type=click.IntRange(min=0), default=0, help="Data loading processes. [default: none]")
@click.option(
    "--log", type=click.Path(dir_okay=False, path_type=Path), help="Write one JSON line per epoch to this file."
)
@json_option
def train(
    recipe: str | None,
    settings: tuple[str, ...],
    dataset: str | None,
    data_dir: Path | None,
    labels: tuple[str, ...] | None,
    out: Path,
    epochs: int | None,
    seed: int | None,
    backbone: str | None,
    init: str | None,
    teacher: str | None,
    name: str | None,
    license_text: str | None,
    image_size: int | None,
    grey: bool,
    holdout: int | None,
    device: str | None,
    parallel: Literal["data", "branches"],
    compile_parts: bool,
    workers: int,
    log: Path | None,
    as_json: bool,
) -> None:
    """Train a model on a data set or on your own files.

    Files of your own are images, .wav recordings or .csv windows of a sensor, in one folder per class.

    A recipe is a network with its training settings. --set changes a setting; an unknown KEY prints the
    list of settings. Every prefix of branches is trained to be a working model (progressive
    approximation). The state is saved to OUT.resume after each epoch; run the same command again to
    continue.

    \b
    Example:
      paraedge train --recipe fashion-mnist --data-dir data --out my-model
      paraedge train --dataset folder --data-dir photos --out my-model
      paraedge train --recipe cifar10 --data-dir data --out my-model \\
          --set num_branches=2 --set branch_width=80,120
      paraedge train --backbone efficientnet-lite0 --dataset folder \\
          --data-dir photographs --out my-model
      paraedge train --dataset folder --data-dir recordings --out keywords
      paraedge train --dataset npz --data-dir mine.npz --out my-model
      torchrun --nproc-per-node 2 --no-python -- \\
          paraedge train --recipe cifar10 --data-dir data --out my-model
    """
    free_cores = FreeCores()
    check_log(log, out)
    from paraedge.data import FolderOptions, SignalDataset, load_dataset
    from paraedge.data.datasets import usual_recipe
    from paraedge.model import load_checkpoint
    from paraedge.model.records import CheckpointConfig
    from paraedge.packaged import resolve_checkpoint
    from paraedge.training import train as run_training
    from paraedge.training.parallel import processes
    from paraedge.training.recipes import network_config
    from paraedge_converters.request import check_name, fitting_name
    from paraedge_runtime.errors import InputError

    if name is not None:
        check_name(name)
    options = {"epochs": epochs, "seed": seed, "backbone": backbone}
    if recipe is None:
        usual = None if dataset is None else usual_recipe(dataset, data_dir)
        recipe = _photograph_recipe(device) if backbone is not None else usual or "plain"
    chosen = _chosen(recipe, dataset, options, settings, has_teacher=teacher is not None)
    start = load_checkpoint(resolve_checkpoint(init)) if init is not None else None
    if start is not None and (unused := [key for key in _keys(settings) if key in chosen.network.__struct_fields__]):
        raise InputError(f"--init decides the shape of the network; leave out --set {unused[0]}")
    check_labels(labels, chosen.dataset)
    folder = FolderOptions(
        image_size=image_size or (32 if chosen.network.backbone is None else 224),
        channels=1 if grey else 3,
        class_names=labels,
    )
    data = load_dataset(chosen.dataset, data_dir, folder)
    tell_left_out(chosen.dataset, data_dir)
    for option, is_given in (("backbone", backbone), ("image-size", image_size), ("grey", grey)):
        if is_given and isinstance(data, SignalDataset):
            raise InputError(f"--{option} is for images, {data.name} has none; leave it out")
    if holdout is not None:
        data = data.holdout(holdout, seed=0)
    network = start.config.model if start is not None else network_config(chosen.network, data, folder.resize)
    try:
        checkpoint_config = CheckpointConfig(
            name=name or fitting_name(data.name),
            description=f"ParaFormer trained on {data.name}",
            license=license_text or data.license,
            dataset=data.name,
            loader=None if chosen.dataset == data.name else chosen.dataset,
            labels=data.class_names,
            model=network,
        )
    except ValueError as error:
        raise InputError(str(error)) from error

    free_cores.use(device, tell=is_first_process())
    with processes(device) as own_device, training_progress(data.name, chosen.training.epochs, log) as show:
        checkpoint = run_training(
            data,
            checkpoint_config,
            chosen.training,
            out,
            init=start,
            teacher=load_checkpoint(resolve_checkpoint(teacher)) if teacher is not None else None,
            device=own_device,
            parallel=parallel,
            compile_parts=compile_parts,
            num_workers=workers,
            on_progress=show,
            on_features=show.features,
        )
    print_trained(checkpoint, out, as_json)


def _chosen(
    name: str, dataset: str | None, options: Mapping[str, object], settings: tuple[str, ...], *, has_teacher: bool
) -> Recipe:
    """The recipe of that name with what the options and ``--set`` change."""
    from msgspec.structs import replace

    from paraedge.training.recipes import load_recipe, with_settings

    recipe = load_recipe(name)
    given = [f"{key}={value}" for key, value in options.items() if value is not None]
    if dataset == "digits" and recipe.dataset != "digits":
        given.append("horizontal_flip=false")  # a mirrored digit is none
    if has_teacher and not recipe.training.teacher_weight:
        given.append("teacher_weight=0.5")
    return replace(with_settings(recipe, [*given, *settings]), dataset=dataset or recipe.dataset)


def _keys(settings: tuple[str, ...]) -> list[str]:
    return [setting.partition("=")[0] for setting in settings]


def _photograph_recipe(device: str | None) -> str:
    """The recipe for ``--backbone``: on a CPU the pretrained network stays as it is."""
    import torch

    on_gpu = torch.cuda.is_available() if device is None else not device.startswith("cpu")
    return "photographs" if on_gpu else "photographs-frozen"

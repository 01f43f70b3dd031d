"""``paraedge train``: from a data set to a checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource

from paraedge.cli._threads import FreeCores
from paraedge.cli.options import DATASET, LABELS, Names, data_dir_option
from paraedge.cli.output import json_option
from paraedge.cli.training import check_labels, check_log, is_first_process, print_trained, training_progress

if TYPE_CHECKING:
    from paraedge.data import FolderOptions, ImageDataset, SignalDataset


@click.command()
@click.option("--recipe", help="Name of a recipe (network and settings), or a .json file. Other options override it.")
@click.option("--dataset", type=DATASET, default="fashion-mnist", show_default=True, help="Data set to train on.")
@data_dir_option
@click.option("--labels", type=LABELS, help="Class names for --dataset npz, in order: cat,dog,bird.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Checkpoint folder to write.")
@click.option(
    "--backbone", type=Names("backbone", ("efficientnet-lite0",)), help="Pretrained network to use as the stem."
)
@click.option("--backbone-stage", type=int, help="Last backbone stage in the stem. [default: the recipe's]")
@click.option("--init", help="Packaged model or checkpoint folder whose weights and shape to start from.")
@click.option("--teacher", help="Packaged model or checkpoint folder to distill from.")
@click.option(
    "--teacher-weight", default=0.0, help="Weight of the teacher's outputs in the targets. [default: the recipe's; 0.5]"
)
@click.option("--name", help="Model name. [default: the data set's name]")
@click.option("--license", "license_text", help="Licence of the weights. [default: the data set's licence]")
@click.option("--embed-dim", default=64, show_default=True, help="Token width D.")
@click.option("--num-heads", default=4, show_default=True, help="Attention heads; must divide --embed-dim.")
@click.option("--mlp-ratio", default=2.0, show_default=True, help="Width of the MLP, as a multiple of D.")
@click.option("--num-branches", default=8, show_default=True, help="Number of branches.")
@click.option("--branch-depth", default=2, show_default=True, help="Transformer blocks per branch.")
@click.option(
    "--stem-stride", type=int, help="Side of a token in pixels. [default: 2 for images up to 16 pixels, else 4]"
)
@click.option("--epochs", default=20, show_default=True)
@click.option("--batch-size", default=128, show_default=True)
@click.option("--learning-rate", default=2e-3, show_default=True)
@click.option("--weight-decay", default=0.05, show_default=True)
@click.option("--label-smoothing", default=0.0, show_default=True)
@click.option("--crop-padding", default=2, show_default=True, help="Random crops, in pixels; 0 for none.")
@click.option("--flip/--no-flip", default=None, help="Mirror half of the images. [default: flip, except for digits]")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--image-size", type=int, help="Image side in pixels, for --dataset folder. [default: 32; 224 with --backbone]"
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
@click.option("--save-interval", default=0.0, help="Seconds between saves of OUT.resume. [default: each epoch]")
@click.option(
    "--log", type=click.Path(dir_okay=False, path_type=Path), help="Write one JSON line per epoch to this file."
)
@json_option
@click.pass_context
def train(
    ctx: click.Context,
    recipe: str | None,
    dataset: str,
    data_dir: Path | None,
    labels: tuple[str, ...] | None,
    out: Path,
    backbone: str | None,
    backbone_stage: int | None,
    init: str | None,
    teacher: str | None,
    teacher_weight: float,
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
    image_size: int | None,
    grey: bool,
    holdout: int | None,
    device: str | None,
    parallel: Literal["data", "branches"],
    compile_parts: bool,
    workers: int,
    save_interval: float,
    log: Path | None,
    as_json: bool,
) -> None:
    """Train a model on a data set, or on images, .wav recordings or .csv windows of your own.

    The loss includes every prefix of branches (progressive approximation), so each prefix is a working
    model. The state is saved to OUT.resume after each epoch; run the same command again to continue.

    \b
    Example:
      paraedge train --dataset fashion-mnist --data-dir data --out my-model
      paraedge train --dataset folder --data-dir photos --out my-model
      paraedge train --backbone efficientnet-lite0 --dataset folder \\
          --data-dir photographs --out my-model
      paraedge train --dataset folder --data-dir recordings --out keywords
      paraedge train --dataset npz --data-dir mine.npz --out my-model
      paraedge train --recipe cifar10 --data-dir data --out my-model --compile
      torchrun --nproc-per-node 2 --no-python -- \\
          paraedge train --recipe cifar10 --data-dir data --out my-model
    """
    import msgspec

    from paraedge.data import FolderOptions, SignalDataset, load_dataset
    from paraedge.data.datasets import usual_recipe
    from paraedge_converters.request import check_name, fitting_name
    from paraedge_runtime.errors import InputError

    free_cores = FreeCores()
    check_log(log, out)
    if name is not None:
        check_name(name)
    network: dict[str, Any] = {
        "embed_dim": embed_dim,
        "num_heads": num_heads,
        "mlp_ratio": mlp_ratio,
        "num_branches": num_branches,
        "branch_depth": branch_depth,
        "stem_stride": stem_stride,
        "backbone": backbone,
        "backbone_stage": backbone_stage,
    }
    settings: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "label_smoothing": label_smoothing,
        "crop_padding": crop_padding,
        "seed": seed,
        "teacher_weight": teacher_weight,
    }
    if backbone is not None and recipe is None:
        recipe = _photograph_recipe(device)
    elif recipe is None:
        recipe = usual_recipe(dataset, data_dir)
    if recipe is not None:
        from paraedge.training.recipes import load_recipe

        chosen = load_recipe(recipe)
        given = {name for name in ctx.params if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT}
        dataset = dataset if "dataset" in given else chosen.dataset
        network = {**msgspec.to_builtins(chosen.network), **{k: v for k, v in network.items() if k in given}}
        settings = {**msgspec.structs.asdict(chosen.training), **{k: v for k, v in settings.items() if k in given}}
        settings["warmup_epochs"] = min(settings["warmup_epochs"], settings["epochs"] / 10)
    else:
        settings["warmup_epochs"] = min(1.0, epochs / 10)
    if teacher is not None and settings["teacher_weight"] == 0.0:
        settings["teacher_weight"] = 0.5
    if flip is not None:
        settings["horizontal_flip"] = flip
    elif recipe is None:
        settings["horizontal_flip"] = dataset != "digits"

    check_labels(labels, dataset)
    size = image_size or (32 if network.get("backbone") is None else 224)
    options = FolderOptions(image_size=size, channels=1 if grey else 3, class_names=labels)
    data = load_dataset(dataset, data_dir, options)
    if holdout is not None:
        data = data.holdout(holdout, seed=0)
    takes = _signal(data, network, ctx) if isinstance(data, SignalDataset) else _image(data, network, options, grey)

    from paraedge.model import Checkpoint, ParaFormerConfig, load_checkpoint
    from paraedge.model.records import CheckpointConfig
    from paraedge.packaged import resolve_checkpoint
    from paraedge.training import TrainingConfig
    from paraedge.training import train as run_training
    from paraedge.training.parallel import processes

    start: Checkpoint | None = load_checkpoint(resolve_checkpoint(init)) if init is not None else None
    wise = load_checkpoint(resolve_checkpoint(teacher)) if teacher is not None else None
    try:
        checkpoint_config = CheckpointConfig(
            name=name or fitting_name(data.name),
            description=f"ParaFormer trained on {data.name}",
            license=license_text or data.license,
            dataset=data.name,
            loader=None if dataset == data.name else dataset,
            labels=data.class_names,
            model=start.config.model
            if start is not None
            else ParaFormerConfig(num_classes=len(data.class_names), **{**network, **takes}),
        )
        config = TrainingConfig(**settings)
    except ValueError as error:
        raise InputError(str(error)) from error

    free_cores.use(device, tell=is_first_process())
    with processes(device) as own_device, training_progress(data.name, config.epochs, log) as show:
        checkpoint = run_training(
            data,
            checkpoint_config,
            config,
            out,
            init=start,
            teacher=wise,
            device=own_device,
            parallel=parallel,
            compile_parts=compile_parts,
            num_workers=workers,
            save_interval_s=save_interval,
            on_progress=show,
            on_features=show.features,
        )
    print_trained(checkpoint, out, as_json)


def _image(data: ImageDataset, network: dict[str, Any], options: FolderOptions, grey: bool) -> dict[str, Any]:
    """What the images decide of a ``ParaFormerConfig``."""
    from paraedge.model.stages import STAGES
    from paraedge_runtime.errors import InputError

    height, width, channels = data.image_shape
    backbone = network.get("backbone")
    if backbone is not None and channels != 3:
        raise InputError(
            f"--backbone {backbone} reads images in colour, those of {data.name} are grey; "
            + ("leave out --grey" if grey else "leave out --backbone, or give images with three channels")
        )
    if height != width:
        raise InputError(f"{data.name} has images of {height}×{width}; a ParaFormer needs square images")
    if network.pop("mel_bands", None) is not None:
        raise InputError(f"the recipe is for sound, {data.name} has images; leave out --recipe, or name another")
    known = STAGES.get(backbone or "")
    mean, std = (known.mean, known.std) if known is not None else data.channel_statistics()
    return {
        "image_size": height,
        "in_channels": channels,
        "stem_stride": network["stem_stride"] or (2 if height <= 16 else 4),
        "resize": options.resize,
        "mean": mean,
        "std": std,
    }


def _signal(data: SignalDataset, network: dict[str, Any], ctx: click.Context) -> dict[str, Any]:
    """What the signals decide of a ``ParaFormerConfig``."""
    from paraedge.model.signals import Signal, log_mel
    from paraedge_runtime.errors import InputError

    for name in ("backbone", "image_size", "grey", "flip"):
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise InputError(f"--{name.replace('_', '-')} is for images, {data.name} has none; leave it out")
    channels, length = data.sample_shape
    bands = network.pop("mel_bands", None)
    mean, std = data.channel_statistics()
    return {
        "signal": Signal(
            length=length,
            rate_hz=data.rate_hz,
            channel_names=data.channel_names,
            log_mel=None if bands is None else log_mel(bands, data.rate_hz),
        ),
        "in_channels": channels,
        "stem_stride": network["stem_stride"] or 4,
        "mean": mean,
        "std": std,
    }


def _photograph_recipe(device: str | None) -> str:
    """The recipe for ``--backbone``: on a CPU the pretrained network stays as it is."""
    import torch

    on_gpu = torch.cuda.is_available() if device is None else not device.startswith("cpu")
    return "photographs" if on_gpu else "photographs-frozen"

"""``paraedge evaluate``: accuracy of every prefix of branches, on a test set."""

from __future__ import annotations

import os
from pathlib import Path

import click

from paraedge.cli._devices import outputs_on
from paraedge.cli._images import need_classified_images
from paraedge.cli.output import as_percent, console, json_option, print_json, progress_bar, table


@click.command()
@click.argument("model", default="fashion-mnist")
@click.option("--dataset", help="digits, fashion-mnist, cifar10, folder or npz. [default: what it was trained on]")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where its files are. [default: $PARAEDGE_DATA]")
@click.option("--limit", type=click.IntRange(min=1), help="Only so many images, the classes in turn.")
@click.option("--profile", type=click.Path(path_type=Path), help="Run the bundle on this device: a device.json.")
@click.option("--plot", type=click.Path(path_type=Path), help="PNG of the curve. [default: NAME-prefix-accuracy.png]")
@click.option("--no-plot", is_flag=True, help="Draw nothing.")
@json_option
def evaluate(
    model: str,
    dataset: str | None,
    data_dir: Path | None,
    limit: int | None,
    profile: Path | None,
    plot: Path | None,
    no_plot: bool,
    as_json: bool,
) -> None:
    """Accuracy of every prefix of branches, on a test set.

    MODEL is a packaged model, a checkpoint folder (run in torch), or a bundle (run in its engine, here or
    on the device of --profile, over ssh or adb).
    For a checkpoint without --data-dir and PARAEDGE_DATA, the accuracy is taken from the logits kept
    with it, and the output says so.

    \b
    Example:
      paraedge evaluate fashion-mnist --no-plot
      paraedge evaluate fashion-mnist-linux-all.paraedge --data-dir data --limit 1000
      paraedge evaluate fashion-mnist-android-all.paraedge --data-dir data --limit 1000 --profile phone.json
    """
    from paraedge.data import DATA_DIR_VARIABLE
    from paraedge_runtime.errors import InputError
    from paraedge_runtime.storage import looks_like_bundle

    path = Path(model)
    if looks_like_bundle(path):
        name, source, count, accuracy = _evaluate_bundle(path, dataset, data_dir, limit, profile)
    elif profile is not None:
        raise InputError(f"{model} is no bundle; devices run bundles: export one, or leave out --profile")
    else:
        stored = dataset is None and data_dir is None and not os.environ.get(DATA_DIR_VARIABLE) and limit is None
        name, source, count, accuracy = _evaluate_checkpoint(model, dataset, data_dir, limit, stored)

    target = None
    if not no_plot:
        from paraedge_measure.plots.prefix_accuracy import plot_prefix_accuracy

        target = plot if plot is not None else Path(f"{name}-prefix-accuracy.png")
        plot_prefix_accuracy(accuracy, target, title=f"{name}: {count} test images")
    if as_json:
        print_json(
            {
                "model": model,
                "source": source,
                "num_samples": count,
                "prefix_accuracy": list(accuracy),
                "plot": None if target is None else str(target),
            }
        )
        return
    rows = table(">branches", ">accuracy", ">gain")
    for index, value in enumerate(accuracy):
        gain = "" if index == 0 else f"{100 * (value - accuracy[index - 1]):+.2f}"
        rows.add_row(str(index + 1), as_percent(value), gain)
    console().print(rows)
    console().print(f"\n{count} test images, {source}")
    if target is not None:
        console().print(f"curve: {target}")


_Result = tuple[str, str, int, tuple[float, ...]]


def _evaluate_checkpoint(
    model: str, dataset: str | None, data_dir: Path | None, limit: int | None, stored: bool
) -> _Result:
    with progress_bar() as bar:
        task = bar.add_task("loading torch", total=None)
        from paraedge.data.bundles import load_for_labels
        from paraedge.data.datasets import check_old_split
        from paraedge.model import load_checkpoint
        from paraedge.packaged import resolve_checkpoint
        from paraedge.training import evaluate_model

        checkpoint = load_checkpoint(resolve_checkpoint(model))
        config = checkpoint.config
        if stored:
            evaluation = checkpoint.evaluation
            source = f"from the logits kept with the checkpoint ({config.dataset} test split)"
        else:
            chosen = dataset or config.loader or config.dataset
            check_old_split(config.dataset, config.loader, checkpoint.training.seed, chosen, data_dir)
            data = load_for_labels(
                chosen,
                data_dir,
                spec=checkpoint.config.model.input_spec,
                labels=config.labels,
                owner="the model",
            )
            images = data.test if limit is None else data.test.balanced_sample(limit, seed=0)
            bar.update(task, description=f"running on {data.name}", total=len(images))
            evaluation = evaluate_model(checkpoint.model, images, on_batch=lambda count: bar.advance(task, count))
            source = f"run in torch on {data.name}"
    return config.name, source, len(evaluation.labels), evaluation.prefix_accuracy()


def _evaluate_bundle(
    path: Path, dataset: str | None, data_dir: Path | None, limit: int | None, profile: Path | None
) -> _Result:
    from paraedge.data.bundles import load_for_bundle
    from paraedge_runtime.bundle import Bundle

    bundle = Bundle.open(path)
    need_classified_images(bundle, "paraedge compare", "runs every prefix on its golden inputs")
    data = load_for_bundle(bundle.manifest, dataset, data_dir)
    images = data.test if limit is None else data.test.balanced_sample(limit, seed=0)
    outputs, ran = outputs_on(profile, bundle, images.images, what=f"running on {data.name}")
    correct = outputs.cumsum(axis=1).argmax(axis=2) == images.labels[:, None]  # (M, k)
    accuracy = tuple(round(float(value), 6) for value in correct.mean(axis=0))
    return bundle.manifest.name, f"run {ran} on {data.name}", len(images), accuracy

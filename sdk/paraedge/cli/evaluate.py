"""``paraedge evaluate``: accuracy of every prefix of branches, on a test set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from paraedge.cli._devices import outputs_on, profile_option
from paraedge.cli._labelled import need_classifier
from paraedge.cli.options import DATASET, data_dir_option, trusted_keys_option
from paraedge.cli.output import as_percent, console, json_option, print_json, progress_bar, table, working

if TYPE_CHECKING:
    from paraedge_runtime.bundle import Bundle


@click.command()
@click.argument("model", default="fashion-mnist")
@click.option("--dataset", type=DATASET, help="Data set. [default: the one the model was trained on]")
@data_dir_option
@click.option("--limit", type=click.IntRange(min=1), help="Use at most this many images, balanced over the classes.")
@profile_option
@click.option("--plot", type=click.Path(path_type=Path), help="Write the curve to this PNG file.")
@trusted_keys_option
@json_option
def evaluate(
    model: str,
    dataset: str | None,
    data_dir: Path | None,
    limit: int | None,
    profile: Path | None,
    plot: Path | None,
    trusted_keys: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Measure the accuracy of every prefix of branches.

    MODEL is a packaged model or a checkpoint folder (run in torch), or a bundle (run in its engine, here or on
    the device of --profile). A checkpoint contains the logits of its test set: without --data-dir and
    PARAEDGE_DATA the accuracy is computed from those, and the output says so.

    \b
    Example:
      paraedge evaluate fashion-mnist --plot accuracy.png
      paraedge evaluate fashion-mnist-linux-all.paraedge --data-dir data
      paraedge evaluate android.paraedge --data-dir data --profile phone.json
    """
    from paraedge.data import DATA_DIR_VARIABLE
    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.storage import looks_like_bundle

    if plot is not None:
        from paraedge_measure.plots.figures import check_plot

        check_plot(plot)  # says early what is wrong
    path = Path(model)
    if looks_like_bundle(path):
        name, kind, source, count, accuracy = _evaluate_bundle(
            Bundle.open(path, trusted_keys=trusted_keys), dataset, data_dir, limit, profile
        )
    elif profile is not None:
        raise click.UsageError(
            f"--profile runs a bundle on a device, and {model} is not a bundle; name one: paraedge evaluate "
            "BUNDLE --profile DEVICE.JSON"
        )
    elif trusted_keys is not None:
        raise click.UsageError(f"--key is for signed bundles, and {model} is not a bundle")
    else:
        stored = dataset is None and data_dir is None and not os.environ.get(DATA_DIR_VARIABLE) and limit is None
        name, kind, source, count, accuracy = _evaluate_checkpoint(model, dataset, data_dir, limit, stored)

    if plot is not None:
        from paraedge_measure.plots.prefix_accuracy import plot_prefix_accuracy

        plot_prefix_accuracy(accuracy, plot, title=f"{name}: {count} test {kind}")
    if as_json:
        print_json(
            {
                "model": model,
                "source": source,
                "num_samples": count,
                "prefix_accuracy": list(accuracy),
                "plot": None if plot is None else str(plot),
            }
        )
        return
    rows = table(">branches", ">accuracy", ">gain")
    for index, value in enumerate(accuracy):
        gain = "" if index == 0 else f"{100 * (value - accuracy[index - 1]):+.2f}"
        rows.add_row(str(index + 1), as_percent(value), gain)
    console().print(rows)
    console().print(f"\n{count} test {kind}, {source}")
    if plot is not None:
        console().print(f"plot: {plot}")


_Result = tuple[str, str, str, int, tuple[float, ...]]  # name, kind of input, where it ran, count, accuracy


def _evaluate_checkpoint(
    model: str, dataset: str | None, data_dir: Path | None, limit: int | None, stored: bool
) -> _Result:
    from paraedge.packaged import resolve_checkpoint

    folder = resolve_checkpoint(model)
    with progress_bar() as bar:
        task = bar.add_task("loading torch", total=None)
        from paraedge.data.bundles import load_for_labels
        from paraedge.data.datasets import check_old_split
        from paraedge.model import load_checkpoint
        from paraedge.training import evaluate_model

        checkpoint = load_checkpoint(folder)
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
    kind = "images" if config.model.signal is None else "signals"
    return config.name, kind, source, len(evaluation.labels), evaluation.prefix_accuracy()


def _evaluate_bundle(
    bundle: Bundle, dataset: str | None, data_dir: Path | None, limit: int | None, profile: Path | None
) -> _Result:
    import numpy as np

    from paraedge.data.bundles import load_for_bundle
    from paraedge_runtime.errors import EngineError
    from paraedge_runtime.session import Session
    from paraedge_runtime.trial import try_bundle

    manifest = bundle.manifest
    need_classifier(bundle, "paraedge compare", "runs every prefix on its golden inputs")
    data = load_for_bundle(manifest, dataset, data_dir)
    images = data.test if limit is None else data.test.balanced_sample(limit, seed=0)
    if profile is not None:
        outputs, where = outputs_on(profile, bundle, images.inputs)
        right = outputs.cumsum(axis=1).argmax(axis=2) == images.labels[:, None]  # (M, k)
        shares = tuple(round(float(value), 6) for value in right.mean(axis=0))
        return manifest.name, data.kind, f"run in {where} on {data.name}", len(images), shares
    correct = np.zeros(len(manifest.branches), dtype=np.int64)
    with working(f"loading {manifest.engine}"):
        try_bundle(bundle)
        opened = Session.open(bundle)
    with opened as session, progress_bar() as bar:
        pairs = zip(images.inputs, images.labels, strict=True)
        for image, label in bar.track(pairs, total=len(images), description=f"running on {data.name}"):
            prediction = session.run(image)
            if prediction.branches_dropped:
                drop = prediction.branches_dropped[0]
                raise EngineError(f"branch {drop.index} was dropped: {drop.reason}; accuracy needs every branch")
            correct += prediction.prefix_outputs.argmax(axis=1) == label
        source = f"run in {session.engine.description} on {data.name}"
    accuracy = tuple(round(float(value), 6) for value in correct / len(images))
    return manifest.name, data.kind, source, len(images), accuracy

"""``paraedge compare``: bundles side by side, by size, accuracy and latency here."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from paraedge.cli.options import trusted_keys_option
from paraedge.cli.output import as_percent, console, json_option, print_json, progress_bar, size_text, table
from paraedge.cli.summary import snr_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from paraedge_measure.comparing import ComparedBundle
    from paraedge_runtime.bundle import Bundle

    Inputs = NDArray[np.uint8] | NDArray[np.float32]


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--dataset", help="As for evaluate. [default: the one the first bundle is named after]")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where its files are. [default: $PARAEDGE_DATA]")
@click.option("--limit", type=click.IntRange(min=1), default=10_000, show_default=True, help="Only so many inputs.")
@click.option("--rounds", type=click.IntRange(min=1), default=30, show_default=True, help="Of which times are medians.")
@click.option("--threads", type=int, help="Threads that run branches. [default: one per branch, up to the cores]")
@click.option("--png", type=click.Path(path_type=Path), help="Draw accuracy, or error, against bytes and against ms.")
@trusted_keys_option
@json_option
def compare(
    bundles: tuple[Path, ...],
    dataset: str | None,
    data_dir: Path | None,
    limit: int,
    rounds: int,
    threads: int | None,
    png: Path | None,
    trusted_keys: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Compare bundles: size, accuracy of every prefix, latency here.

    Accuracy is measured on the test images that ship with the packaged model, or on those of --dataset in
    --data-dir. Bundles that read tensors, or whose output is a vector, run the first one's golden inputs.
    Every bundle's predictions are compared with the first one's: labels by how many are the same, vectors
    by their relative error and SNR. Times are medians of requests that take turns; they hold for this
    machine, and for the load that is on it now.

    \b
    Example:
      paraedge compare fp32.paraedge int8.paraedge
      paraedge compare fp32.paraedge int8.paraedge --data-dir data --png sizes.png
    """
    from paraedge.cli._chatter import captured_chatter
    from paraedge_measure.comparing import compare_bundles, display_names
    from paraedge_measure.plots.figures import check_plot
    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.trial import try_bundle

    if png is not None:
        check_plot(png)
    opened = [Bundle.open(path, trusted_keys=trusted_keys) for path in bundles]
    inputs, labels, source = _inputs_at_hand(opened[0], dataset, data_dir, limit)
    with progress_bar() as bar, captured_chatter():
        task = bar.add_task("loading and running", total=None)
        for bundle in opened:
            try_bundle(bundle)
        compared = compare_bundles(
            opened,
            inputs,
            labels,
            threads=threads,
            rounds=rounds,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    names = display_names([one.path for one in compared])
    if png is not None:
        from paraedge_measure.plots.comparison import plot_comparison

        plot_comparison(dict(zip(names, compared, strict=True)), png, title=f"{len(inputs)} {source}")
    if as_json:
        print_json(
            {
                "inputs": source,
                "num_samples": len(inputs),
                "rounds": rounds,
                "bundles": [asdict(one) for one in compared],
                "png": None if png is None else str(png),
            }
        )
        return
    costs = table("~bundle", "engine", "quantization", ">size", ">÷ first", ">ms")
    quality = table("~bundle", *(_OF_VECTORS if labels is None else _OF_LABELS))
    for name, one in zip(names, compared, strict=True):
        costs.add_row(
            name,
            one.engine,
            one.quantization,
            size_text(one.size_bytes),
            f"{one.size_bytes / compared[0].size_bytes:.3f}",
            f"{one.prefix_ms[-1]:.2f}",
        )
        quality.add_row(name, *_quality(one))
    console().print(costs)
    console().print()
    console().print(quality)
    nearness = "SNR" if labels is None else "label"
    console().print(
        f"\n{len(inputs)} {source}; {nearness} and time of all branches, median of {rounds} requests in turns"
    )
    if png is not None:
        console().print(f"plot: {png}")


_OF_LABELS = ("~accuracy by branches, %", ">same label")
_OF_VECTORS = ("~relative error by branches, %", ">SNR")


def _quality(one: ComparedBundle) -> tuple[str, str]:
    """What every prefix is worth, and how near all branches are to those of the first bundle."""
    if one.prefix_accuracy is not None and one.agreement is not None:
        return " ".join(f"{100 * value:.1f}" for value in one.prefix_accuracy), as_percent(one.agreement)
    errors, snr_db = one.prefix_relative_error or (), one.prefix_snr_db or ()
    return " ".join(f"{100 * value:.2g}" for value in errors), snr_text(snr_db[-1])


def _inputs_at_hand(
    bundle: Bundle, dataset: str | None, data_dir: Path | None, count: int
) -> tuple[Inputs, NDArray[np.int64] | None, str]:
    """Up to ``count`` inputs that a bundle reads, their class indexes where it has labels, and where they are from."""
    from paraedge.data.bundles import images_at_hand
    from paraedge_runtime.errors import InputError

    if bundle.manifest.classifies_images:
        images, source = images_at_hand(bundle, dataset, data_dir, count)
        return images.images, images.labels, source
    if dataset is not None or data_dir is not None:
        raise InputError(
            f"{bundle.path} does not tell classes of images, and data sets hold nothing else; leave out --dataset "
            "and --data-dir to compare on its golden inputs"
        )
    golden = bundle.golden()
    labels = None if golden.labels is None else golden.labels[:count]
    return golden.inputs[:count], labels, "golden inputs of the bundle"

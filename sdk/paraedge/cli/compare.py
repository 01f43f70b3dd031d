"""``paraedge compare``: bundles side by side, by size, accuracy and latency here."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from paraedge.cli.output import as_percent, console, json_option, print_json, progress_bar, size_text, table, working


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--dataset", help="As for evaluate. [default: the one the first bundle is named after]")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where its files are. [default: $PARAEDGE_DATA]")
@click.option("--limit", type=click.IntRange(min=1), default=10_000, show_default=True, help="Only so many images.")
@click.option("--rounds", type=click.IntRange(min=1), default=30, show_default=True, help="Of which times are medians.")
@click.option("--threads", type=int, help="Threads that run branches. [default: one per branch, up to the cores]")
@click.option("--png", type=click.Path(path_type=Path), help="Draw accuracy against bytes and against milliseconds.")
@json_option
def compare(
    bundles: tuple[Path, ...],
    dataset: str | None,
    data_dir: Path | None,
    limit: int,
    rounds: int,
    threads: int | None,
    png: Path | None,
    as_json: bool,
) -> None:
    """Compare bundles: size, accuracy of every prefix, latency here.

    Accuracy is measured on the test images that ship with the packaged model, or on those of --dataset in
    --data-dir. Every bundle's predictions are compared with the first one's. Times are medians of requests
    that take turns; they hold for this machine, and for the load that is on it now.

    \b
    Example:
      paraedge compare fp32.paraedge int8.paraedge
      paraedge compare fp32.paraedge int8.paraedge --data-dir data --png sizes.png
    """
    from paraedge.data.bundles import images_at_hand
    from paraedge_measure.comparing import compare_bundles, display_names
    from paraedge_measure.plots.figures import check_plot
    from paraedge_runtime.bundle import Bundle

    if png is not None:
        check_plot(png)
    opened = [Bundle.open(path) for path in bundles]
    images, source = images_at_hand(opened[0], dataset, data_dir, limit)
    with working("loading engines"), progress_bar() as bar:
        task = bar.add_task("running", total=None)
        compared = compare_bundles(
            opened,
            images.images,
            images.labels,
            threads=threads,
            rounds=rounds,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    names = display_names([one.path for one in compared])
    if png is not None:
        from paraedge_measure.plots.comparison import plot_comparison

        plot_comparison(dict(zip(names, compared, strict=True)), png, title=f"{len(images)} {source}")
    if as_json:
        print_json(
            {
                "images": source,
                "num_samples": len(images),
                "rounds": rounds,
                "bundles": [asdict(one) for one in compared],
                "png": None if png is None else str(png),
            }
        )
        return
    first = compared[0]
    rows = table(
        "bundle", "engine", "quantization", ">size", ">÷ first", ">accuracy by branches, %", ">same label", ">ms"
    )
    for name, one in zip(names, compared, strict=True):
        rows.add_row(
            name,
            one.engine,
            one.quantization,
            size_text(one.size_bytes),
            f"{one.size_bytes / first.size_bytes:.3f}",
            " ".join(f"{100 * value:.1f}" for value in one.prefix_accuracy),
            as_percent(one.agreement),
            f"{one.prefix_ms[-1]:.2f}",
        )
    console().print(rows)
    console().print(f"\n{len(images)} {source}; label and time of all branches, median of {rounds} requests in turns")
    if png is not None:
        console().print(f"plot: {png}")

"""``paraedge compare``: bundles side by side, by size, accuracy and latency here."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from paraedge.cli.options import DATASET, data_dir_option, threads_option, trusted_keys_option
from paraedge.cli.output import as_percent, console, echo, json_option, print_json, progress_bar, size_text, table
from paraedge.cli.summary import snr_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from paraedge_measure.comparing import ComparedBundle
    from paraedge_runtime.bundle import Bundle

    Inputs = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True)
class _Limit:
    """How much worse than the first bundle another one may be: points of accuracy, or a share of its p95."""

    metric: Literal["accuracy", "p95"]
    amount: float


class _LimitType(click.ParamType):  # type: ignore[type-arg]
    """``accuracy:0.5`` in points, ``p95:10%`` of the first bundle's time."""

    name = "limit"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> _Limit:
        if isinstance(value, _Limit):
            return value
        found = re.fullmatch(r"(accuracy):(\d+(?:\.\d+)?)|(p95):(\d+(?:\.\d+)?)%", value)
        if found is None:
            self.fail(f"{value!r} is not a limit; give accuracy:POINTS or p95:PERCENT%, such as p95:10%", param, ctx)
        if found[1]:
            return _Limit("accuracy", float(found[2]))
        return _Limit("p95", float(found[4]))


_LIMIT = _LimitType()


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--dataset", type=DATASET, help="Data set. [default: the one named like the first bundle]")
@data_dir_option
@click.option(
    "--limit", type=click.IntRange(min=1), default=10_000, show_default=True, help="Use at most this many inputs."
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="Requests per bundle and prefix for the times.",
)
@threads_option
@click.option(
    "--fail-on",
    "limits",
    type=_LIMIT,
    multiple=True,
    metavar="LIMIT",
    help="Exit with status 1 if a bundle is worse than the first by more: accuracy:0.5 (points), p95:10%.",
)
@click.option("--plot", type=click.Path(path_type=Path), help="Write accuracy against size and time to this PNG file.")
@trusted_keys_option
@json_option
def compare(
    bundles: tuple[Path, ...],
    dataset: str | None,
    data_dir: Path | None,
    limit: int,
    rounds: int,
    threads: int | None,
    limits: tuple[_Limit, ...],
    plot: Path | None,
    trusted_keys: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Compare bundles by size, accuracy and latency.

    The first bundle is the reference for the others: labels are compared by agreement, vectors by
    relative error and SNR. Accuracy is measured on the test images of the packaged model, or on
    --data-dir. Bundles that read tensors, or whose output is a vector, run the golden inputs of the first.
    Times are medians of requests in random order; they hold for this machine and its present load.

    \b
    Example:
      paraedge compare fp32.paraedge int8.paraedge
      paraedge compare fp32.paraedge int8.paraedge --plot sizes.png
      paraedge compare old.paraedge new.paraedge --fail-on accuracy:0.5 \\
          --fail-on p95:10%
    """
    from paraedge.cli._chatter import captured_chatter
    from paraedge_measure.comparing import compare_bundles, display_names
    from paraedge_measure.plots.figures import check_plot
    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.trial import try_bundle

    if plot is not None:
        check_plot(plot)
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
    worse = [text for limit in limits for text in _broken(limit, names, compared)]
    if plot is not None:
        from paraedge_measure.plots.comparison import plot_comparison

        plot_comparison(dict(zip(names, compared, strict=True)), plot, title=f"{len(inputs)} {source}")
    if as_json:
        print_json(
            {
                "inputs": source,
                "num_samples": len(inputs),
                "rounds": rounds,
                "bundles": [asdict(one) for one in compared],
                "plot": None if plot is None else str(plot),
                "failed": worse,
            }
        )
        _stop_if(worse)
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
    if plot is not None:
        console().print(f"plot: {plot}")
    _stop_if(worse)


def _broken(limit: _Limit, names: list[str], compared: list[ComparedBundle]) -> list[str]:
    """What to say of each bundle that is worse than the first by more than ``limit``."""
    from paraedge_runtime.errors import InputError

    first = compared[0]
    texts = []
    for name, one in zip(names[1:], compared[1:], strict=True):
        if limit.metric == "p95":
            percent = 100 * (one.prefix_p95_ms[-1] / first.prefix_p95_ms[-1] - 1)
            if percent > limit.amount:
                times = f"{one.prefix_p95_ms[-1]:.2f} ms, {first.prefix_p95_ms[-1]:.2f} ms in {names[0]}"
                texts.append(f"{name}: p95 is {percent:.1f} % higher ({times}); the limit is {limit.amount:g} %")
            continue
        if first.prefix_accuracy is None or one.prefix_accuracy is None:
            raise InputError(f"{first.path} has no accuracy: its output is a vector; remove --fail-on accuracy")
        for count, (had, has) in enumerate(zip(first.prefix_accuracy, one.prefix_accuracy, strict=False), start=1):
            points = round(100 * (had - has), 4)
            if points > limit.amount:
                branches = f"{count} branch{'es' if count > 1 else ''}"
                texts.append(
                    f"{name}: accuracy with {branches} is {points:.2f} points lower ({as_percent(has)}, "
                    f"{as_percent(had)} in {names[0]}); the limit is {limit.amount:g}"
                )
    return texts


def _stop_if(worse: list[str]) -> None:
    """Exit with status 1 if a limit was exceeded."""
    for text in worse:
        echo(f"Failed: {text}", err=True)
    if worse:
        sys.exit(1)


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
    """Up to ``count`` inputs that a bundle reads, their class indices where it has labels, and where they are from."""
    from paraedge.data.bundles import inputs_at_hand
    from paraedge_runtime.errors import InputError

    if bundle.manifest.classifies_images or bundle.manifest.classifies_signals:
        labelled, source = inputs_at_hand(bundle, dataset, data_dir, count)
        return labelled.inputs, labelled.labels, source
    if dataset is not None or data_dir is not None:
        raise InputError(
            f"{bundle.path} classifies neither images nor signals, so no data set fits it; leave out --dataset and "
            "--data-dir to compare on its golden inputs"
        )
    golden = bundle.golden()
    labels = None if golden.labels is None else golden.labels[:count]
    return golden.inputs[:count], labels, "golden inputs of the bundle"

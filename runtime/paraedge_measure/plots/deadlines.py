"""The plot of ``paraedge bench``: accuracy and misses against the deadline, a panel for each kind of weather."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paraedge_measure.deadlines.cells import Cell
from paraedge_measure.deadlines.oracles import ORACLE_DYNAMIC
from paraedge_measure.deadlines.policies import ALERT, ALL, ANYTIME, DROP, EARLY_STOP
from paraedge_measure.deadlines.records import Record
from paraedge_measure.deadlines.statistics import wilson_interval
from paraedge_measure.deadlines.summary import best_static
from paraedge_measure.plots.figures import png_figure

__all__ = ["plot_deadlines"]

BEST_STATIC = "best static k"
# Policy -> colour, marker; drawn in this order, side by side.
STYLES = {
    "static-1": ("#9aa5b1", "v"),
    BEST_STATIC: ("#52606d", "^"),
    ALL: ("#8d6e63", "D"),
    ALERT: ("#e07a1f", "s"),
    ANYTIME: ("#1f6f8b", "o"),
    EARLY_STOP: ("#5fb49c", "P"),
    DROP: ("#b5179e", "X"),
    ORACLE_DYNAMIC: ("#111111", "_"),
}

Group = dict[Cell, dict[str, list[Record]]]


def plot_deadlines(cells: Group, path: Path, *, title: str) -> None:
    """Write a PNG.

    A column for each pattern of arrivals, two rows for each interference: accuracy with a miss counted
    wrong, and the rate of misses with its 95 % interval. Of cells that differ in nothing else the one with
    the most requests is shown.
    """
    shown: dict[tuple[str, str, float], Cell] = {}
    for cell in sorted(cells, key=lambda cell: cell.requests):
        shown[cell.arrivals, cell.interference, cell.deadline] = cell
    arrivals = list(dict.fromkeys(cell.arrivals for cell in cells))
    interference = list(dict.fromkeys(cell.interference for cell in cells))
    deadlines = sorted({cell.deadline for cell in cells})
    with png_figure(path, 1.5 + 3.4 * len(arrivals), 1.4 + 4.6 * len(interference)) as figure:
        axes = figure.subplots(2 * len(interference), len(arrivals), squeeze=False, sharex=True, sharey="row")
        for row, disturbance in enumerate(interference):
            for column, arrival in enumerate(arrivals):
                upper, lower = axes[2 * row][column], axes[2 * row + 1][column]
                for position, deadline in enumerate(deadlines):
                    if (arrival, disturbance, deadline) in shown:
                        _draw(upper, lower, position, cells[shown[arrival, disturbance, deadline]])
                upper.set_title(f"{arrival} arrivals, interference: {disturbance}", fontsize="medium")
                lower.set_yscale("symlog", linthresh=0.1, linscale=0.5)
                lower.set_ylim(0, 120)
                lower.set_yticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
                lower.axhline(1.0, color="#b0b0b0", linewidth=0.8, zorder=0)
                for axis in (upper, lower):
                    axis.grid(axis="y", alpha=0.3)
                    for position in range(1, len(deadlines)):
                        axis.axvline(position - 0.5, color="#d8d8d8", linewidth=0.8, zorder=0)
                    axis.set_xlim(-0.5, len(deadlines) - 0.5)
                    axis.set_xticks(range(len(deadlines)), [f"{deadline:g}" for deadline in deadlines])
            _spread_accuracy(axes[2 * row])
            axes[2 * row][0].set_ylabel("accuracy, %\n(a miss is wrong)")
            axes[2 * row + 1][0].set_ylabel("missed, %")
        for axis in axes[-1]:
            axis.set_xlabel("deadline ÷ full model, unloaded")
        handles: dict[str, Any] = {}
        for axis in axes.flat:
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        ordered = [name for name in STYLES if name in handles]
        figure.legend([handles[name] for name in ordered], ordered, loc="outside lower center", ncols=2)
        figure.suptitle(title)


def _spread_accuracy(row: Any) -> None:
    """A logit axis for fractions: between 90 and 99 % is as much room as between 10 and 50 %."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    seen = [value for axis in row for line in axis.lines for value in line.get_ydata() if 0 < value < 1]
    low, high = (max(0.005, 0.6 * min(seen)), min(0.999, 1 - 0.5 * (1 - max(seen)))) if seen else (0.01, 0.999)
    for axis in row:
        axis.set_yscale("logit")
        axis.set_ylim(low, high)
        axis.yaxis.set_major_locator(FixedLocator([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99]))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))


def _draw(upper: Any, lower: Any, position: int, policies: dict[str, list[Record]]) -> None:
    """One cell: a point with its interval for each policy, side by side around ``position``."""
    static = best_static(policies)
    for number, (name, (colour, marker)) in enumerate(STYLES.items()):
        records = policies.get(static or "" if name == BEST_STATIC else name)
        if not records:
            continue
        x = position + 0.11 * (number - (len(STYLES) - 1) / 2)
        total = sum(record.requests for record in records)
        for axis, count, scale in (
            (upper, sum(record.correct for record in records), 1),
            (lower, sum(record.misses for record in records), 100),
        ):
            low, high = wilson_interval(count, total)
            rate = count / total
            axis.errorbar(
                x, scale * rate, [[scale * (rate - low)], [scale * (high - rate)]],
                color=colour, marker=marker, markersize=5, linestyle="none", linewidth=1, label=name, clip_on=False,
            )  # fmt: skip

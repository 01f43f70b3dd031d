"""Plots (matplotlib): accuracy against the number of branches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paraedge_runtime.atomic import new_file
from paraedge_runtime.errors import InputError

__all__ = ["plot_prefix_accuracy"]


def plot_prefix_accuracy(accuracy: Sequence[float], path: Path, *, title: str) -> None:
    """Write a PNG of accuracy (fractions) after 1, 2, … branches."""
    try:
        from matplotlib.figure import Figure  # not pyplot: no global state, no screen
        from matplotlib.ticker import MaxNLocator
    except ModuleNotFoundError as error:
        raise InputError(f"plots need {error.name}; pip install 'paraedge[train]', or pass --no-plot") from error
    if path.suffix.lower() != ".png":
        raise InputError(f"the plot is a PNG, {path} has another suffix; name it {path.with_suffix('.png')}")
    figure = Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    counts = range(1, len(accuracy) + 1)
    percents = [100 * value for value in accuracy]
    axes.plot(counts, percents, marker="o", color="#1f6f8b")
    for count, percent in zip(counts, percents, strict=True):
        axes.annotate(f"{percent:.2f}", (count, percent), textcoords="offset points", xytext=(0, 8), ha="center")
    axes.set_xlabel("branches used")
    axes.set_ylabel("accuracy, %")
    axes.set_title(title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.2)
    axes.grid(alpha=0.3)
    with new_file(path) as building:
        figure.savefig(building, format="png")

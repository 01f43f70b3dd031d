"""The plot of ``paraedge evaluate``: accuracy against the number of branches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paraedge_measure.plots.figures import png_figure

__all__ = ["plot_prefix_accuracy"]


def plot_prefix_accuracy(accuracy: Sequence[float], path: Path, *, title: str) -> None:
    """Write a PNG of accuracy (fractions) after 1, 2, … branches."""
    with png_figure(path, 6.4, 4.0) as figure:
        from matplotlib.patheffects import withStroke
        from matplotlib.ticker import MaxNLocator

        axes = figure.add_subplot()
        counts = range(1, len(accuracy) + 1)
        percents = [100 * value for value in accuracy]
        axes.plot(counts, percents, marker="o", color="#1f6f8b")
        for count, percent in zip(counts, percents, strict=True):
            axes.annotate(
                f"{percent:.2f}",
                (count, percent),
                textcoords="offset points",
                xytext=(0, 8),
                ha="center",
                path_effects=[withStroke(linewidth=4, foreground="white")],  # readable where the curve crosses it
            )
        axes.set_xlabel("branches used")
        axes.set_ylabel("accuracy, %")
        axes.set_title(title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(y=0.2)
        axes.grid(alpha=0.3)

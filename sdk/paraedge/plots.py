"""Plots (matplotlib) as PNG files: accuracy against the number of branches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from paraedge_runtime.atomic import new_file
from paraedge_runtime.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_plot", "plot_prefix_accuracy", "png_figure"]


def check_plot(path: Path) -> None:
    """Before the work whose result is to be drawn.

    Raises:
        InputError: matplotlib is not installed, or ``path`` does not end in ``.png``.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(f"plots need {error.name}; pip install 'paraedge[train]', or draw none") from error
    if path.suffix.lower() != ".png":
        raise InputError(f"the plot is a PNG, {path} has another suffix; name it {path.with_suffix('.png')}")


@contextlib.contextmanager
def png_figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure of so many inches that is written to ``path`` when the block ends.

    Raises:
        InputError: as ``check_plot``, or it cannot be written.
    """
    check_plot(path)
    from matplotlib.figure import Figure  # not pyplot: no global state, no screen

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    yield figure
    try:
        with new_file(path) as building:
            figure.savefig(building, format="png")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another place") from error


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

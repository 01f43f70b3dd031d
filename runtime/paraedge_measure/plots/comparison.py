"""The plot of ``paraedge compare``: accuracy, or a vector's relative error, against bytes and against milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from paraedge_measure.comparing import ComparedBundle
from paraedge_measure.plots.figures import png_figure

__all__ = ["plot_comparison"]


def plot_comparison(compared: Mapping[str, ComparedBundle], path: Path, *, title: str) -> None:
    """Write a PNG: a line for each bundle, along which the points are the first 1, 2, … branches."""
    with png_figure(path, 11.0, 4.6 + 0.22 * len(compared)) as figure:
        from matplotlib import colormaps
        from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

        by_bytes, by_ms = figure.subplots(1, 2, sharey=True)
        colours = colormaps["tab10"]
        for number, (name, one) in enumerate(compared.items()):
            percents = [100 * value for value in one.prefix_accuracy or one.prefix_relative_error or ()]
            style = {"marker": "os^vDP*X"[number % 8], "color": colours(number % 10), "alpha": 0.85}
            by_bytes.plot([count / 1e6 for count in one.prefix_bytes], percents, label=name, **style)
            by_ms.plot(one.prefix_ms, percents, **style)
        by_bytes.set_xlabel("stem and branches, MB")
        by_ms.set_xlabel("request here, median ms")
        with_labels = all(one.prefix_accuracy is not None for one in compared.values())
        by_bytes.set_ylabel("accuracy, %" if with_labels else "relative error beside the first bundle, %")
        for axes in (by_bytes, by_ms):
            axes.set_xscale("log")
            low, high = axes.get_xlim()
            axes.xaxis.set_major_locator(
                LogLocator(subs=(1, 2, 5)) if high > 10 * low else MaxNLocator(6, steps=(1, 2, 5, 10))
            )
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.grid(alpha=0.3, which="both")
        figure.legend(loc="outside lower center", ncols=2)
        figure.suptitle(title)

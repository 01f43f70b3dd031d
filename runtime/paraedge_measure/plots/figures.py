"""Figures (matplotlib, imported when one is made) that become PNG files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from paraedge_runtime.atomic import check_replaceable, new_file
from paraedge_runtime.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_matplotlib", "check_plot", "png_figure"]

_MARK = b"Software\0paraedge"  # the entry of a PNG that names its maker


def check_matplotlib() -> None:
    """Before the work whose result is to be drawn.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(f"plots need {error.name}; pip install 'paraedge[train]', or leave the plot out") from error


def check_plot(path: Path) -> None:
    """Before the work whose result is to be drawn.

    Raises:
        InputError: matplotlib is not installed, ``path`` does not end in ``.png``, or something else than a plot of
            paraedge stands there.
    """
    check_matplotlib()
    if path.suffix.lower() != ".png":
        better = path.with_suffix(".png") if path.name else "plot.png"
        raise InputError(f"{path} does not end in .png; plots are PNG files, name it {better}")
    try:
        check_replaceable(path, _MARK, "a plot")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another path") from error


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
    _show_names_as_they_are(figure)
    try:
        with new_file(path) as building:
            figure.savefig(building, format="png", metadata={"Software": "paraedge"})
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another path") from error


def _show_names_as_they_are(figure: Figure) -> None:
    """matplotlib takes what stands between dollars for a formula: it would change a path, or refuse it."""
    from matplotlib.legend import Legend

    titles = [*figure.texts, *(axes.title for axes in figure.axes)]
    for text in titles + [text for legend in figure.findobj(Legend) for text in legend.get_texts()]:
        text.set_parse_math(False)

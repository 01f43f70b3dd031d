"""Draws docs/images/concept-*.png: branches, prefixes, a deadline, an early stop; one picture each."""

from __future__ import annotations

from pathlib import Path

from draw_idea import BRANCH, INK, LATE, STEM, SUM, arrow, box, deadline, threads
from matplotlib.axes import Axes
from matplotlib.figure import Figure

IMAGES = Path(__file__).parent / "images"


def blank(width: float, height: float, x: float, y: float) -> tuple[Figure, Axes]:
    """A figure of so many inches with one empty panel from (0, 0) to (x, y)."""
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(0, x)
    axes.set_ylim(0, y)
    return figure, axes


def network(axes: Axes, x: float, used: int, label: str = "") -> None:
    """Stem, four branches and their sum, from ``x`` on; branches after the first ``used`` are left out."""
    box(axes, x, 1.75, 0.9, 0.7, "stem", STEM)
    for index, y in enumerate((3.7, 2.6, 1.5, 0.4)):
        box(
            axes, x + 1.5, y - 0.28, 1.2, 0.6, f"branch {index}", BRANCH if index < used else LATE, dashed=index >= used
        )
        if index < used:
            arrow(axes, (x + 0.95, 2.1), (x + 1.45, y))
            arrow(axes, (x + 2.75, y), (x + 3.2, 2.1))
    box(axes, x + 3.25, 1.8, 0.5, 0.6, "+", SUM)
    if label:
        axes.text(x + 2.1, 4.3, label, ha="center", fontsize=10, color=INK)


def branches() -> Figure:
    """One network."""
    figure, axes = blank(5.6, 3.2, 5.6, 4.4)
    axes.text(0.0, 2.1, "image", fontsize=10, va="center", color=INK)
    arrow(axes, (0.6, 2.1), (0.85, 2.1))
    network(axes, 0.9, 4)
    arrow(axes, (4.7, 2.1), (4.95, 2.1))
    axes.text(5.0, 2.1, "label", fontsize=10, va="center", color=INK)
    return figure


def prefixes() -> Figure:
    """The same network with one, two, three and four branches."""
    figure, axes = blank(5.6, 6.0, 8.4, 9.6)
    axes.set_ylim(0, 9.6)
    for count, (x, y) in enumerate(((0.1, 5.0), (4.4, 5.0), (0.1, 0.0), (4.4, 0.0)), start=1):
        inset = axes.inset_axes((x / 8.4, y / 9.6, 4.0 / 8.4, 4.6 / 9.6))
        inset.set_axis_off()
        inset.set_xlim(0, 4.0)
        inset.set_ylim(0, 4.6)
        network(inset, 0.1, count, "the whole model" if count == 4 else f"{count} branch{'es' if count > 1 else ''}")
    return figure


def anytime() -> Figure:
    """Two threads against a deadline: what would not end in time is not started."""
    figure, axes = blank(5.6, 3.0, 10.4, 5.2)
    threads(axes)
    box(axes, 1.4, 3.2, 1.3, 0.7, "stem", STEM)
    box(axes, 2.85, 3.2, 2.3, 0.7, "branch 0", BRANCH)
    box(axes, 2.85, 1.9, 2.3, 0.7, "branch 1", BRANCH)
    box(axes, 5.3, 1.9, 2.3, 0.7, "branch 2", BRANCH)
    box(axes, 5.3, 3.2, 3.6, 0.7, "branch 3:          \nnot started          ", LATE, dashed=True)
    deadline(axes, 8.0)
    axes.annotate(
        "prediction:\nbranches 0, 1, 2", (7.7, 2.0), (8.35, 1.75), fontsize=9, color=SUM, va="center",
        arrowprops={"arrowstyle": "-|>", "color": SUM},
    )  # fmt: skip
    return figure


def early_stop() -> Figure:
    """One confident branch is enough."""
    figure, axes = blank(5.6, 3.0, 10.4, 5.2)
    threads(axes)
    box(axes, 1.4, 3.2, 1.3, 0.7, "stem", STEM)
    box(axes, 2.85, 3.2, 2.3, 0.7, "branch 0", BRANCH)
    box(axes, 2.85, 1.9, 3.2, 0.7, "branch 1:\nnot waited for", LATE, dashed=True)
    box(axes, 5.3, 3.2, 2.3, 0.7, "branch 2:\nnot started", LATE, dashed=True)
    deadline(axes, 8.0)
    axes.annotate(
        "confident enough:\nprediction", (5.2, 3.95), (5.2, 4.8), fontsize=9, color=SUM, ha="center", va="center",
        arrowprops={"arrowstyle": "-|>", "color": SUM},
    )  # fmt: skip
    return figure


def main() -> None:
    """Draw all four."""
    for name, draw in {
        "branches": branches,
        "prefixes": prefixes,
        "anytime": anytime,
        "early-stop": early_stop,
    }.items():
        draw().savefig(IMAGES / f"concept-{name}.png")


if __name__ == "__main__":
    main()

"""Draws docs/images/idea.png: an ordinary network beside a ParaFormer, and what the device does with it."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

INK, STEM, BRANCH, LATE, SUM, DEADLINE = "#22333b", "#8d99ae", "#2a9d8f", "#b8860b", "#264653", "#c1121f"


def box(
    axes: Axes, x: float, y: float, width: float, height: float, text: str, colour: str, dashed: bool = False
) -> None:
    """A rounded box with text in its middle."""
    axes.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle="round,pad=0.02,rounding_size=0.08",
            facecolor="white" if dashed else colour, edgecolor=colour, linestyle="--" if dashed else "-", linewidth=1.6,
        )
    )  # fmt: skip
    axes.text(
        x + width / 2, y + height / 2, text, ha="center", va="center", color=colour if dashed else "white", fontsize=9
    )


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A thin arrow."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color=INK, linewidth=0.9))


def threads(axes: Axes) -> None:
    """Two threads and the axis of time, for boxes between 1.4 and 9.7."""
    for y, text in ((3.55, "thread 0"), (2.25, "thread 1")):
        axes.text(0.0, y, text, fontsize=9, va="center", color=INK)
        axes.plot([1.3, 9.7], [y - 0.5, y - 0.5], color="#dddddd", linewidth=0.8)
    axes.annotate("", (9.7, 0.95), (1.3, 0.95), arrowprops={"arrowstyle": "-|>", "color": INK})
    axes.text(9.7, 0.5, "time", ha="right", fontsize=9, color=INK)


def deadline(axes: Axes, x: float) -> None:
    """The line that a prediction must not cross."""
    axes.plot([x, x], [0.75, 4.4], color=DEADLINE, linewidth=2)
    axes.text(x, 4.55, "deadline", ha="center", fontsize=9.5, color=DEADLINE, weight="bold")


def main() -> None:
    """Draw one half above the other, so that a phone shows the text in a readable size, and save."""
    figure = Figure(figsize=(5.4, 7.4), dpi=130, layout="constrained")
    network, timeline = figure.subplots(2, 1)
    for axes in (network, timeline):
        axes.set_axis_off()

    network.set_title("one network: stem,\nbranches side by side, sum", fontsize=11, color=INK)
    network.set_xlim(0, 6.2)
    network.set_ylim(0, 5)
    network.text(0.05, 2.5, "image", fontsize=9, va="center", color=INK)
    arrow(network, (0.75, 2.5), (1.05, 2.5))
    box(network, 1.1, 2.15, 0.9, 0.7, "stem", STEM)
    for index, y in enumerate((4.1, 3.0, 1.9, 0.8)):
        used = index < 3
        box(network, 2.75, y - 0.32, 1.35, 0.64, f"branch {index}", BRANCH if used else LATE, dashed=not used)
        arrow(network, (2.05, 2.5), (2.7, y))
        if used:
            arrow(network, (4.15, y), (4.85, 2.55))
    box(network, 4.9, 2.15, 0.5, 0.7, "+", SUM)
    arrow(network, (5.45, 2.5), (5.75, 2.5))
    network.text(5.78, 2.5, "label", fontsize=9, va="center", color=INK)
    network.text(3.42, 0.12, "left out: the prediction is still valid", fontsize=8.5, ha="center", color=LATE)

    timeline.set_title(
        "on two cores: a valid prediction after\nevery branch, returned by the deadline", fontsize=11, color=INK
    )
    timeline.set_xlim(0, 10)
    timeline.set_ylim(0, 5)
    threads(timeline)
    box(timeline, 1.4, 3.2, 1.3, 0.7, "stem", STEM)
    box(timeline, 2.85, 3.2, 2.3, 0.7, "branch 0", BRANCH)
    box(timeline, 2.85, 1.9, 2.3, 0.7, "branch 1", BRANCH)
    box(timeline, 5.3, 3.2, 2.3, 0.7, "branch 2", BRANCH)
    box(timeline, 5.3, 1.9, 3.4, 0.7, "branch 3:       \nnot started       ", LATE, dashed=True)
    for x, text in ((5.22, "2 branches"), (7.67, "3 branches")):
        timeline.plot([x, x], [1.1, 4.15], color=SUM, linewidth=1, linestyle=":")
        timeline.text(x - 0.05, 1.15, text, ha="right", fontsize=8.5, color=SUM)
    deadline(timeline, 8.05)

    out = Path(__file__).parent / "images" / "idea.png"
    figure.savefig(out)


if __name__ == "__main__":
    main()

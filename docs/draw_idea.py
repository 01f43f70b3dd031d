"""Draws docs/images/idea.png: an ordinary network beside a ParaFormer, and what the device does with it."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

INK, STEM, BRANCH, LATE, SUM = "#22333b", "#8d99ae", "#2a9d8f", "#b8860b", "#264653"


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


def main() -> None:
    """Draw both halves and save."""
    figure = Figure(figsize=(10.4, 4.3), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.25])
    for axes in (left, right):
        axes.set_axis_off()

    left.set_title("one network for the device:\nstem, branches side by side, sum", fontsize=11, color=INK)
    left.set_xlim(0, 6.2)
    left.set_ylim(0, 5)
    left.text(0.05, 2.5, "image", fontsize=9, va="center", color=INK)
    arrow(left, (0.75, 2.5), (1.05, 2.5))
    box(left, 1.1, 2.15, 0.9, 0.7, "stem", STEM)
    for position, y in enumerate((4.1, 3.0, 1.9, 0.8)):
        used = position < 3
        box(left, 2.75, y - 0.32, 1.35, 0.64, f"branch {position}", BRANCH if used else LATE, dashed=not used)
        arrow(left, (2.05, 2.5), (2.7, y))
        if used:
            arrow(left, (4.15, y), (4.85, 2.55))
    box(left, 4.9, 2.15, 0.5, 0.7, "+", SUM)
    arrow(left, (5.45, 2.5), (5.75, 2.5))
    left.text(5.78, 2.5, "label", fontsize=9, va="center", color=INK)
    left.text(3.42, 0.12, "left out: the answer stands", fontsize=8.5, ha="center", color="#a67c00")

    right.set_title("on two cores: one join per answer,\nand a valid answer after every branch", fontsize=11, color=INK)
    right.set_xlim(0, 10)
    right.set_ylim(0, 5)
    for y, text in ((3.55, "thread 0"), (2.25, "thread 1")):
        right.text(0.0, y, text, fontsize=9, va="center", color=INK)
        right.plot([1.3, 9.7], [y - 0.5, y - 0.5], color="#dddddd", linewidth=0.8)
    box(right, 1.4, 3.2, 1.3, 0.7, "stem", STEM)
    box(right, 2.85, 3.2, 2.3, 0.7, "branch 0", BRANCH)
    box(right, 2.85, 1.9, 2.3, 0.7, "branch 1", BRANCH)
    box(right, 5.3, 3.2, 2.3, 0.7, "branch 2", BRANCH)
    box(right, 5.3, 1.9, 2.3, 0.7, "branch 3", LATE, dashed=True)
    for x, text in ((5.22, "2 branches"), (7.67, "3 branches")):
        right.plot([x, x], [1.1, 4.3], color=SUM, linewidth=1, linestyle=":")
        right.text(x, 4.42, text, ha="center", fontsize=8.5, color=SUM)
    right.annotate("", (9.7, 0.95), (1.3, 0.95), arrowprops={"arrowstyle": "-|>", "color": INK})
    right.text(9.7, 0.55, "time", ha="right", fontsize=9, color=INK)
    right.text(6.45, 1.45, "dropped", ha="center", fontsize=8.5, color="#a67c00")

    out = Path(__file__).parent / "images" / "idea.png"
    figure.savefig(out)


if __name__ == "__main__":
    main()

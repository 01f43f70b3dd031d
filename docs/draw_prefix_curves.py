"""Draws docs/images/prefix-curves.png: accuracy against multiply-adds, of prefixes and of each branch alone."""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

HERE = Path(__file__).parent
COLOURS = (
    "#1f6f8b",
    "#7fb2c4",
    "#3a8f5c",
    "#c44536",
    "#8a5a9e",
    "#b8860b",
    "#7a7a7a",
    "#d67ab1",
    "#202020",
    "#5ad1b8",
)


def draw(axes: Axes, dataset: str, runs: list[dict[str, object]]) -> None:
    """One panel: a line per model, the mean of its seeds, with their spread; crosses for branches alone."""
    models = list(dict.fromkeys(str(run["model"]) for run in runs))
    for model, colour in zip(models, COLOURS[: len(models)], strict=True):
        seeds = [run for run in runs if run["model"] == model]
        stem, branches = seeds[0]["stem_macs_m"], seeds[0]["branch_macs_m"]
        prefixes = [[100 * value for value in run["prefix_accuracy"]] for run in seeds]
        costs = [stem + cost for cost in accumulate(branches)]
        means = [sum(values) / len(seeds) for values in zip(*prefixes, strict=True)]
        note = f", {len(seeds)} seeds" if len(seeds) > 1 else ""
        single = len(costs) == 1  # a point of its own stays on top of the lines
        style = {"marker": "D", "markersize": 6, "zorder": 3} if single else {"marker": "o", "markersize": 4}
        axes.plot(costs, means, color=colour, label=f"{model}{note}", **style)
        axes.fill_between(
            costs,
            [min(values) for values in zip(*prefixes, strict=True)],
            [max(values) for values in zip(*prefixes, strict=True)],
            color=colour,
            alpha=0.2,
        )
        if model == models[0]:
            alone = zip(*(run["branch_accuracy"] for run in seeds), strict=True)
            axes.scatter(
                [stem + cost for cost in branches],
                [100 * sum(values) / len(seeds) for values in alone],
                marker="x",
                color=colour,
                label="each of its branches alone",
            )
    axes.set_title(dataset, fontsize=11)
    axes.set_xlabel("stem and branches so far, million multiply-adds")
    axes.set_ylabel("test accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=10, loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False)


def main() -> None:
    """Draw one panel per data set and save."""
    lines = (HERE / "measured" / "prefix_curves.jsonl").read_text().splitlines()
    runs = [json.loads(line) for line in lines]
    figure = Figure(figsize=(6.4, 19.0), dpi=120, layout="constrained")
    datasets = list(dict.fromkeys(run["dataset"] for run in runs))
    for axes, dataset in zip(figure.subplots(len(datasets), 1), datasets, strict=True):
        draw(axes, dataset, [run for run in runs if run["dataset"] == dataset])
    figure.savefig(HERE / "images" / "prefix-curves.png")


if __name__ == "__main__":
    main()

"""The whole way in one go: export the packaged model, then classify real images branch by branch.

    python demos/quickstart.py            (or: make demo)

Uses nothing but what any user can import. Shows a few Fashion-MNIST test images in the terminal
with the prediction after 1, 2, … branches, and writes build/quickstart.png.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

import paraedge
from paraedge_runtime import Bundle, Prediction, Session

OUT = Path("build")
SHOWN = 8
console = Console(markup=False, emoji=False)


def export_packaged_model() -> Bundle:
    """All eight branches for a Raspberry Pi's engine, proven against torch on 256 real images."""
    with Progress(TextColumn("{task.description}", markup=False), BarColumn(), console=console) as bar:
        task = bar.add_task("exporting the packaged model", total=None)
        return paraedge.export(
            "fashion-mnist",
            target="raspberry-pi",
            out=OUT / "fashion-mnist.paraedge",
            on_progress=lambda progress: bar.update(task, total=progress.total, completed=progress.step),
        )


def image_text(image: np.ndarray) -> Text:
    """A grey image (28, 28) as half blocks: two pixel rows per line."""
    text = Text()
    for upper, lower in zip(image[0::2], image[1::2], strict=True):
        for top, bottom in zip(upper, lower, strict=True):
            text.append("▀", style=f"rgb({top},{top},{top}) on rgb({bottom},{bottom},{bottom})")
        text.append("\n")
    return text


def prediction_text(prediction: Prediction, bundle: Bundle, truth: int) -> Text:
    """The prediction after each branch with its calibrated confidence, wrong ones in red; 28 columns wide."""
    labels, rules = bundle.manifest.labels, bundle.manifest.stop_rules or ()
    temperatures = [rule.temperature for rule in rules] or [1.0] * len(prediction.prefix_outputs)
    text = Text("branches, label, confidence\n", style="dim")
    for count, (output, temperature) in enumerate(zip(prediction.prefix_outputs, temperatures, strict=True), start=1):
        logits = output / temperature
        best = int(logits.argmax())
        probability = float(1 / np.exp(logits - logits[best]).sum())
        style = "green" if best == truth else "red"
        text.append(f"{count}  ")
        text.append(f"{labels[best]:<18}{100 * probability:4.0f} %\n", style=style)
    text.append(f"{prediction.elapsed_ms:.2f} ms")
    return text


def draw(images: np.ndarray, predictions: list[Prediction], truths: np.ndarray, labels: tuple[str, ...]) -> Path:
    """Images with their predictions above, and when each branch ran in which thread below."""
    figure = Figure(figsize=(12, 5.2), dpi=110, layout="constrained")
    grid = figure.subplots(2, SHOWN, height_ratios=[1.15, 1])
    parts = sorted(
        {run.part for prediction in predictions for run in prediction.timeline}, key=lambda part: (part != "stem", part)
    )
    for column, (image, prediction, truth) in enumerate(zip(images, predictions, truths, strict=True)):
        top, bottom = grid[0][column], grid[1][column]
        top.imshow(image[:, :, 0], cmap="gray")
        top.set_axis_off()
        right = prediction.label_index == truth
        top.set_title(
            f"{prediction.label}\n{100 * prediction.confidence:.0f} %",
            color="#1b7837" if right else "#b2182b",
            fontsize=10,
        )
        for run in prediction.timeline:
            colour = "#777777" if run.part == "stem" else f"C{run.thread}"
            bottom.barh(parts.index(run.part), run.end_ms - run.start_ms, left=run.start_ms, color=colour)
        bottom.set_yticks(range(len(parts)), parts)
        bottom.invert_yaxis()
        bottom.tick_params(labelsize=7)
        bottom.set_xlabel("ms", fontsize=8)
        if column:
            bottom.set_yticks([])
    figure.suptitle(f"Real test images, predicted by {predictions[0].engine}; one colour per thread")
    path = OUT / "quickstart.png"
    figure.savefig(path)
    return path


def main() -> None:
    """Export, run, show."""
    OUT.mkdir(exist_ok=True)
    bundle = export_packaged_model()
    labels = bundle.manifest.labels
    golden = bundle.golden()
    with Session.open(bundle) as session:
        session.run(golden.inputs[0])  # the first request pays for set-up
        predictions = [session.run(image) for image in golden.inputs]

    panels = []
    for image, prediction, truth in list(zip(golden.inputs, predictions, golden.labels, strict=True))[:SHOWN]:
        body = Text.assemble(image_text(image[:, :, 0]), prediction_text(prediction, bundle, int(truth)))
        panels.append(Panel(body, title=Text(labels[truth]), width=32))
    console.print(Columns(panels))
    path = draw(golden.inputs[:SHOWN], predictions[:SHOWN], golden.labels[:SHOWN], labels)

    right = sum(prediction.label_index == truth for prediction, truth in zip(predictions, golden.labels, strict=True))
    middle_ms = statistics.median(prediction.elapsed_ms for prediction in predictions)
    console.print(
        f"{right} of {len(predictions)} real images right, median {middle_ms:.2f} ms, {predictions[0].engine}"
    )
    console.print(f"bundle: {bundle.path} ({bundle.size_bytes / 1e6:.1f} MB), plot: {path}")


if __name__ == "__main__":
    main()

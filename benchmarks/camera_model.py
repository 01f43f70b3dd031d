"""The camera model `waste` in 8 bits: accuracy of each prefix in every engine, latency beside EfficientNet-Lite0.

    .venv/bin/python benchmarks/folds.py trashnet.npz folds
    .venv/bin/python benchmarks/camera_model.py accuracy folds/0 [ENGINE:RECIPE ...]
    .venv/bin/python benchmarks/camera_model.py latency --quantize int8-static --runs 300

``accuracy`` runs the 508 photographs of the packaged fold; a busy machine gives the same numbers. ``latency`` needs a
quiet one: it is LiteRT, two threads, and all variants take turns, one run of each a round. EfficientNet-Lite0 goes
through the same converter and quantization recipe as one program, which the engine itself shares out between two
threads; its classifier is untrained, which changes no time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from paraedge.data import FolderOptions, LabelledImages, load_dataset
from paraedge.exporting import export
from paraedge.model import Checkpoint, load_checkpoint
from paraedge.model.backbones import backbone_stages, load_pretrained
from paraedge.packaged import resolve_checkpoint
from paraedge_converters.backends import converter_for
from paraedge_converters.recipes import part_recipe
from paraedge_converters.split import quantizable
from paraedge_runtime import Session
from paraedge_runtime.errors import ParityError
from paraedge_runtime.inputs import normalise

ENGINES = ("litert", "onnxruntime", "executorch")
CELLS = tuple(f"{engine}:{recipe}" for engine in ENGINES for recipe in ("fp32", "int8-static", "int8-dynamic"))
THREADS = 2
LITE0 = f"EfficientNet-Lite0, the engine's own {THREADS} threads"


class Lite0(nn.Module):
    """All of EfficientNet-Lite0: (1, 3, 224, 224) -> (1, classes)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stages = backbone_stages("efficientnet-lite0", 1, 7)
        load_pretrained("efficientnet-lite0", 1, self.stages)
        self.head = nn.Sequential(nn.Conv2d(320, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6())
        self.classifier = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(1, 3, 224, 224) -> (1, classes)."""
        y: Tensor = self.classifier(self.head(self.stages(x)).mean((2, 3)))
        return y


def accuracy(checkpoint: Checkpoint, test: LabelledImages, cells: list[str]) -> None:
    """A line for each cell: accuracy of every prefix, and how far below float the worst one is."""
    floats = np.array(checkpoint.evaluation.prefix_accuracy())
    print(f"torch, fp32: {np.round(100 * floats, 2)} %")
    for cell in cells:
        engine, recipe = cell.split(":")
        with tempfile.TemporaryDirectory() as folder:
            try:
                bundle = export(checkpoint, target="linux", engine=engine, quantize=recipe, out=Path(folder, "b"))
            except ParityError as error:
                print(f"{cell}: refused: {error}", flush=True)
                continue
            with Session.open(bundle, threads=1) as session:
                labels = [session.run(image).prefix_outputs.argmax(axis=1) for image in test.images]
            size_mb = bundle.size_bytes / 1e6
        own = (np.stack(labels) == test.labels[:, None]).mean(axis=0)
        drop = 100 * (floats - own).max()
        print(f"{cell}: {np.round(100 * own, 2)} %, at most {drop:.2f} points lost, {size_mb:.2f} MB", flush=True)


def one_program(module: nn.Module, recipe: str, inputs: Tensor) -> Callable[[np.ndarray], object]:
    """The module as one LiteRT program that the engine shares out between its own threads."""
    from ai_edge_litert.interpreter import Interpreter

    plain = part_recipe(recipe, "branch_00")
    lowered = converter_for("litert").lower(
        module if recipe == "fp32" else quantizable(module),
        inputs[:1],
        recipe=plain,
        calibration=inputs,
        allow_undelegated=False,
    )
    interpreter = Interpreter(model_content=lowered.program, num_threads=THREADS)
    interpreter.allocate_tensors()
    source, result = (
        details()[0]["index"] for details in (interpreter.get_input_details, interpreter.get_output_details)
    )

    def run(x: np.ndarray) -> object:
        interpreter.set_tensor(source, x)
        interpreter.invoke()
        return interpreter.get_tensor(result)

    return run


def latency(checkpoint: Checkpoint, recipe: str, runs: int) -> None:
    """Medians and quartiles of each variant, and of its ratio to EfficientNet-Lite0 in the same round."""
    inputs = normalise(checkpoint.samples.images[:32], checkpoint.model.input_spec)
    samples = torch.from_numpy(inputs)
    branch = nn.Sequential(checkpoint.model.stem, checkpoint.model.branches[0])
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(checkpoint, target="linux", engine="litert", quantize=recipe, out=Path(folder, "b"))
        with (
            Session.open(bundle, threads=THREADS) as everything,
            Session.open(bundle, threads=1, branches=1) as first,
        ):
            variants: dict[str, Callable[[np.ndarray], object]] = {
                LITE0: one_program(Lite0(checkpoint.model.num_outputs).eval(), recipe, samples),
                f"all branches, {THREADS} threads of the session": everything.run,
                "branch 1 alone, one thread": first.run,
                f"branch 1 alone as one program, the engine's own {THREADS} threads": one_program(
                    branch, recipe, samples
                ),
            }
            times = _times_ms(variants, inputs, runs)
    base = np.array(times[LITE0])
    for name, values in times.items():
        low, _, high = statistics.quantiles(values, n=4)
        ratio = statistics.median(np.array(values) / base)
        print(f"{name}: median {statistics.median(values):.2f} ms ({low:.2f} to {high:.2f}), {ratio:.2f} of Lite0")


def _times_ms(
    variants: dict[str, Callable[[np.ndarray], object]], inputs: np.ndarray, runs: int
) -> dict[str, list[float]]:
    """Milliseconds of each run; all variants take turns, each round in another order."""
    names, times = list(variants), {name: list[float]() for name in variants}
    for number in range(runs + 5):
        x = inputs[number % len(inputs)][None]
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            variants[name](x)
            if number >= 5:  # the first ones pay for set-up
                times[name].append(1000 * (time.perf_counter() - start))
    return times


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("accuracy", "latency"))
    parser.add_argument(
        "fold", nargs="?", type=Path, help="folds/0 of benchmarks/folds.py, with folders train and test"
    )
    parser.add_argument("cells", nargs="*", metavar="ENGINE:RECIPE", help="[default: three recipes on each engine]")
    parser.add_argument("--quantize", default="int8-static", help="recipe of the latencies")
    parser.add_argument("--runs", type=int, default=300, help="rounds of the latencies")
    given = parser.parse_args()
    checkpoint = load_checkpoint(resolve_checkpoint("waste"))
    if given.what == "latency":
        latency(checkpoint, given.quantize, given.runs)
        return
    if given.fold is None:
        parser.error("accuracy needs the folder of the fold")
    data = load_dataset("folder", given.fold, FolderOptions(image_size=224, resize="crop"))
    accuracy(checkpoint, data.test, given.cells or list(CELLS))


if __name__ == "__main__":
    main()

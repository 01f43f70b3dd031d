"""Training on several GPUs: branches or images shared out, beside FairScale's pipeline on an equally large ViT.

    pip install fairscale
    .venv/bin/torchrun --nproc-per-node 2 benchmarks/several_gpus.py
    .venv/bin/torchrun --nproc-per-node 2 benchmarks/several_gpus.py --cpu --batch 8 --steps 1 --rounds 1  # to try it

Images per second of whole training steps (forward, loss, backward, AdamW), the variants in turns, medians of the
rounds. A ViT is a ParaFormer of one branch, so both are made of the same blocks behind the same stem. FairScale's
pipeline is one process: every GPU has a share of the layers, and a batch goes through in micro-batches. What is one
process's is measured in the first one, while the others sleep.

Letters in shape comments: B images, N branches, C classes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from msgspec.structs import replace
from torch import Tensor, nn

from paraedge.model.config import ParaFormerConfig
from paraedge.model.paraformer import Branch, ParaFormer
from paraedge.training import TrainingConfig
from paraedge.training.batches import normalise
from paraedge.training.parallel import BranchParallel, DataParallel, OneProcess, processes
from paraedge.training.step import TrainingStep

# The paper's: 224 pixels in patches of 16, eight branches of two blocks, D = 192.
_PAPER = ParaFormerConfig(
    image_size=224,
    in_channels=3,
    num_classes=10,
    stem_stride=16,
    stem_width=64,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
SHAPES = {"paper": _PAPER, "wide": replace(_PAPER, embed_dim=768, num_heads=12)}
CONFIG = TrainingConfig(branch_weight=0.5, prefix_temperature_power=1.0)
ALONE = ("branches", "branches, CUDA graph", "vit", "vit, CUDA graph", *(f"vit, pipeline of {n}" for n in (1, 4, 8)))
SHARED = {
    "branches, images shared": DataParallel,
    "branches, branches shared": BranchParallel,
    "branches, branches shared, CUDA graph": BranchParallel,
    "vit, images shared": DataParallel,
}
Step = Callable[[Tensor, Tensor, float], None]


def vit_shape(shape: ParaFormerConfig) -> ParaFormerConfig:
    """One branch of as many blocks as all branches have together."""
    return replace(shape, num_branches=1, branch_depth=sum(shape.branch_depths))


class _Head(nn.Module):
    """The end of a branch: CLS row (B, 1, D) -> (B, C)."""

    def __init__(self, branch: Branch) -> None:
        super().__init__()
        self.norm, self.classifier = branch.norm, branch.classifier

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.norm(x)).flatten(1)
        return logits


class _Autocast(nn.Module):
    """A layer in bfloat16: the pipeline's threads do not inherit autocast."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
            out: Tensor = self.layer(x)
        return out


class PipelineStep:
    """A step of the ViT in FairScale's pipeline; the layers are shared out by their measured time."""

    def __init__(self, shape: ParaFormerConfig, devices: list[torch.device], chunks: int, batch: int) -> None:
        from fairscale.nn import Pipe
        from fairscale.nn.pipe.balance import balance_by_time

        model = ParaFormer(shape)
        branch = model.branches[0]
        assert isinstance(branch, Branch)
        layers = nn.Sequential(*(_Autocast(layer) for layer in [model.stem, *branch.blocks, _Head(branch)]))
        sample = torch.zeros(max(batch // chunks, 1), shape.in_channels, shape.image_size, shape.image_size)
        balance = balance_by_time(len(devices), layers, sample.to(devices[0]), device=devices[0])
        self.pipe = Pipe(layers, balance, devices=devices, chunks=chunks, checkpoint="never")
        self.shape, self.devices = shape, devices
        is_cuda = devices[0].type == "cuda"
        self.optimizer = torch.optim.AdamW(self.pipe.parameters(), lr=1e-3, fused=is_cuda)

    def __call__(self, images: Tensor, targets: Tensor, learning_rate: float) -> None:
        """One step on uint8 images (B, H, W, channels) and targets (B, C), from the CPU."""
        logits = self.pipe(normalise(images.to(self.devices[0]), self.shape))
        loss = F.cross_entropy(logits.float(), targets.to(logits.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.pipe.parameters(), CONFIG.clip_norm)
        self.optimizer.step()


def build(variant: str, shape: ParaFormerConfig, device: torch.device, world_size: int, batch: int) -> Step:
    """One variant's step, from the same seed."""
    torch.manual_seed(0)
    network, _, how = variant.partition(", ")
    if network == "vit":
        shape = vit_shape(shape)
    if how.startswith("pipeline"):
        devices = [torch.device("cuda", i) if device.type == "cuda" else device for i in range(world_size)]
        return PipelineStep(shape, devices, int(how.split()[-1]), batch)
    step = TrainingStep(ParaFormer(shape), CONFIG, device, parallel=SHARED.get(variant, OneProcess))
    step.start_epoch(0)
    step.parallel.is_recordable = how.endswith("CUDA graph")
    return step


def images_per_second(step: Step, images: Tensor, targets: Tensor, steps: int) -> float:
    """Of ``steps`` steps; the images of this process, (B, H, W, channels)."""
    started = time.perf_counter()
    for _ in range(steps):
        step(images, targets, 1e-3)
    if torch.cuda.is_available():
        for device in range(torch.cuda.device_count()):
            torch.cuda.synchronize(device)
    return len(images) * steps / (time.perf_counter() - started)


def measure(options: argparse.Namespace, device: torch.device) -> None:
    """Every variant in turns; the first process prints."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    asleep = dist.new_group(backend="gloo")  # waiting in NCCL would keep the GPU busy
    shape = SHAPES[options.shape]
    size = (options.batch, shape.image_size, shape.image_size, shape.in_channels)
    images = torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    targets = F.one_hot(torch.arange(options.batch) % shape.num_classes, shape.num_classes).float()
    steps: dict[str, Step] = {}
    found: dict[str, list[float]] = {variant: [] for variant in (*ALONE, *SHARED)}
    for number in range(options.rounds + 1):  # the first only warms up, and records the graphs
        for variant, rates in found.items():
            if variant in SHARED or rank == 0:
                if variant not in steps:
                    steps[variant] = build(variant, shape, device, world_size, options.batch)
                part = slice(rank, None, world_size) if SHARED.get(variant) is DataParallel else slice(None)
                own, labels = images[part], targets[part]
                if device.type == "cuda":
                    own, labels = own.contiguous().pin_memory(), labels.contiguous().pin_memory()
                own_rate = images_per_second(steps[variant], own, labels, options.steps if number else 5)
                rate = own_rate * options.batch / len(own)
                if number:
                    rates.append(rate)
                if rank == 0:
                    print(f"{variant:38s} {rate:8.0f}", file=sys.stderr, flush=True)
            dist.barrier(group=asleep)
    if rank == 0:
        hardware = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
        for variant, rates in found.items():
            row = {"shape": options.shape, "variant": variant, "processes": world_size, "hardware": hardware}
            row |= {"batch": options.batch, "images_per_s": round(statistics.median(rates), 1)}
            print(json.dumps({**row, "rounds": [round(rate, 1) for rate in rates]}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="paper")
    parser.add_argument("--batch", type=int, default=512, help="Images of a step, over all processes.")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpu", action="store_true", help="To try it without GPUs.")
    options = parser.parse_args()
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        parser.error("start it with torchrun --nproc-per-node and at least 2 processes")
    if not (options.cpu or torch.cuda.is_available()):
        parser.error("torch has no GPU here; --cpu tries it without")
    with processes("cpu" if options.cpu else None) as name:
        assert name is not None  # there are several processes
        measure(options, torch.device(name))


if __name__ == "__main__":
    main()

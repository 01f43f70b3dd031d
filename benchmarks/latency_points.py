"""Latency of cifar10's prefixes on the native core beside ViTs of several depths on ExecuTorch's own threads.

    make test-native   # builds build/native/paraedge-bench
    .venv/bin/python benchmarks/latency_points.py build/latency

The ViTs are untrained: only their shapes matter here. Prefix and ViT take turns within a run of paraedge-bench.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

import torch
from msgspec.structs import replace

from paraedge.exporting import export
from paraedge.model import ParaFormer, load_checkpoint
from paraedge.packaged import resolve_checkpoint
from paraedge_converters import ModelDescription, convert

DEPTHS = (1, 2, 4, 8, 14)


def vit_bundle(depth: int, out: Path) -> None:
    """``cifar10-vit`` of ``experiments.py`` with so many blocks, from random weights."""
    packaged = load_checkpoint(resolve_checkpoint("cifar10"))
    torch.manual_seed(0)
    shape = replace(packaged.config.model, num_branches=1, branch_width=128, branch_depth=depth)
    model = ParaFormer(shape).eval()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.bfloat16())
    samples = packaged.samples
    description = ModelDescription(
        name=f"vit-{depth}",
        description="untrained, for measurements",
        license="Apache-2.0",
        labels=packaged.config.labels,
        samples=samples.images[:64],
        sample_labels=samples.labels[:64],
    )
    convert(model, description, out, target="linux", engine="executorch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bench", type=Path, default=Path("build/native/paraedge-bench"))
    parser.add_argument("--requests", type=int, default=300)
    arguments = parser.parse_args()
    if not arguments.bench.exists():
        parser.error(f"{arguments.bench} does not exist; 'make test-native' builds it")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    cifar10 = arguments.folder / "cifar10.paraedge"
    if not cifar10.exists():
        export("cifar10", out=cifar10, target="linux", engine="executorch")
    print("prefix  ViT blocks  parallel, ms  intra-op, ms  ViT intra-op, ms   p99: parallel, ViT")
    for depth in DEPTHS:
        vit = arguments.folder / f"vit-{depth}.paraedge"
        if not vit.exists():
            vit_bundle(depth, vit)
        for prefix in range(1, 5):
            command = [arguments.bench, cifar10, "--branches", prefix, "--threads", 2, "--against", vit, "--json"]
            command += ["--requests", arguments.requests, "--only", "parallel,intra-op"]
            done = subprocess.run([str(item) for item in command], capture_output=True, text=True, check=True)
            found = json.loads(done.stdout)["variants"]
            ours, split, other = found["parallel"], found["intra-op"], found["against"]
            print(
                f"{prefix:6d}  {depth:10d}  {ours['request_ms']:12.2f}  {split['request_ms']:12.2f}  "
                f"{other['request_ms']:16.2f}   {ours['request_p99_ms']:.2f} {other['request_p99_ms']:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

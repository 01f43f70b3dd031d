"""Bundles of untrained ParaFormers, for measurements in which only the shapes matter.

    .venv/bin/python benchmarks/untrained.py build/bench

Each has one branch; ``branch_threads.py`` gives it more. The 12-block ViT is a ParaFormer of one
branch of depth 12, so its last block is folded too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from paraedge.model import ParaFormer, ParaFormerConfig, load_checkpoint
from paraedge.packaged import DEFAULT_MODEL, resolve_checkpoint
from paraedge_converters import ModelDescription, convert

# name -> embed_dim, num_heads, image size (tokens: (size / 4)² + 1), depth of a branch
MODELS = {
    "d192-t65": (192, 3, 32, 2),
    "d192-t197": (192, 3, 56, 2),
    "d384-t197": (384, 6, 56, 2),
    "vit12-d192-t65": (192, 3, 32, 12),
    "vit12-d192-t197": (192, 3, 56, 12),
}


def one_branch_bundle(name: str, engine: str, out: Path) -> Path:
    """The stem and one branch of an untrained model, made as any other bundle, parity gate included."""
    embed_dim, num_heads, image_size, depth = MODELS[name]
    samples = load_checkpoint(resolve_checkpoint(DEFAULT_MODEL)).samples
    real = samples.images[:64, :, :, 0]
    images = np.stack([np.asarray(Image.fromarray(image).resize((image_size, image_size))) for image in real])
    torch.manual_seed(0)
    model = ParaFormer(
        ParaFormerConfig(
            image_size=image_size,
            in_channels=1,
            num_classes=10,
            embed_dim=embed_dim,
            num_heads=num_heads,
            num_branches=1,
            branch_depth=depth,
            mean=(0.5,),
            std=(0.5,),
        )
    ).eval()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.bfloat16())  # packs to half the size on its way to a device
    description = ModelDescription(
        name=name,
        description="untrained, for measurements",
        license="Apache-2.0",
        labels=tuple(str(label) for label in range(10)),
        samples=images[..., None],
        sample_labels=samples.labels[:64],
    )
    convert(model, description, out, target="linux", engine=engine)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--engine", default="executorch")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        print(one_branch_bundle(name, arguments.engine, arguments.folder / f"{name}-{arguments.engine}.paraedge"))


if __name__ == "__main__":
    main()

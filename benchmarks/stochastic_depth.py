"""Stochastic depth: while a network trains, attention and MLP of its blocks are left out at random.

Letters in shape comments: B images, T tokens, D ``embed_dim``.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from paraedge.model.paraformer import Branch, ParaFormer

__all__ = ["add_stochastic_depth"]


def add_stochastic_depth(model: ParaFormer, rate: float, generator: torch.Generator) -> None:
    """Let ``model`` skip residual paths in training mode, each image by itself.

    The share that is skipped grows linearly with depth, to ``rate`` in the last block of a branch; what is not
    skipped is divided by its probability, so that the mean stays (arXiv 1603.09382, section 3, linear decay;
    scaled in training rather than in evaluation). In evaluation mode nothing changes.

    Args:
        model: hooks are put on its blocks.
        rate: of the last blocks, from 0 to below 1.
        generator: draws what is skipped, on the model's device.
    """
    for branch in model.branches:
        assert isinstance(branch, Branch)
        for number, block in enumerate(branch.blocks, start=1):
            hook = partial(_skip, rate * number / len(branch.blocks), generator)
            for path in (block.proj, block.mlp):
                assert isinstance(path, nn.Module)
                path.register_forward_hook(hook)


def _skip(rate: float, generator: torch.Generator, path: nn.Module, inputs: object, output: Tensor) -> Tensor:
    """What a residual path (B, T, D) adds: nothing for some of the images."""
    if not path.training:
        return output
    kept = torch.empty(len(output), 1, 1, device=output.device).bernoulli_(1.0 - rate, generator=generator)
    return output * (kept / (1.0 - rate)).to(output.dtype)

"""Training in several processes, started by torchrun: each has a share of the images, or of the branches.

Letters in shape comments: N branches, B images, C classes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Literal

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from paraedge.model.paraformer import ParaFormer
from paraedge_runtime.errors import InputError

__all__ = [
    "PARALLEL",
    "BranchParallel",
    "DataParallel",
    "OneProcess",
    "processes",
]


@contextlib.contextmanager
def processes(device: str | None) -> Iterator[str | None]:
    """Join the processes that torchrun started, if it did; yields the device of this one.

    Args:
        device: torch device; the GPU of this process's number, if there are GPUs, when ``None``.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if device is None and torch.cuda.is_available():
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device is not None and device.startswith("cuda") else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


class OneProcess:
    """How one process does all of a step; the others below say what they do differently.

    Attributes:
        rank: number of this process, below ``world_size``.
        image_share: which images of every batch this process sees: those at ``rank``, ``rank + world_size``, …
        own_state: whether the state to resume from is another in every process.
        is_recordable: whether a step can be recorded as a CUDA graph, with what the processes exchange in it.
    """

    own_state = False

    def __init__(self, model: ParaFormer) -> None:
        self.model = model
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world_size = dist.get_world_size() if dist.is_initialized() else 1
        self.image_share = (0, 1)
        self.is_recordable = self.world_size == 1

    @property
    def writes_state(self) -> bool:
        """Whether this process writes a state to resume from."""
        return self.rank == 0 or self.own_state

    def branch_logits(self, images: Tensor) -> Tensor:
        """What every branch predicts: (B, in_channels, H, W) -> (N, B, C)."""
        return self.model.branch_logits(images)

    def share_gradients(self) -> None:
        """After ``backward``: gradients become those of the whole batch and the whole network."""

    def gradient_norm(self) -> Tensor:
        """Of the whole network's gradient."""
        return _norm(self.model.parameters())

    def mean(self, value: Tensor) -> Tensor:
        """Of a number that every process has its own of."""
        return value

    def first_says(self, value: int) -> int:
        """What the first process says, where each has a state of its own and all must do alike."""
        return value

    def assemble(self, model: ParaFormer) -> None:
        """Give ``model`` in every process what other processes have learned."""


class DataParallel(OneProcess):
    """Every process has the whole network and its share of the images (PyTorch's DistributedDataParallel)."""

    def __init__(self, model: ParaFormer) -> None:
        super().__init__(model)
        self.image_share = (self.rank, self.world_size)
        _use_global_batchnorm(model)
        self._parallel = DistributedDataParallel(_BranchLogits(model), broadcast_buffers=False)

    def branch_logits(self, images: Tensor) -> Tensor:
        """Of this process's images."""
        logits: Tensor = self._parallel(images)
        return logits

    def mean(self, value: Tensor) -> Tensor:
        """Over the processes, which saw equally many images."""
        value = value.clone().float()
        dist.all_reduce(value)
        return value / self.world_size


class BranchParallel(OneProcess):
    """Branch i lives in process i modulo their number; all see all images, and compute the stem.

    A step exchanges the branches' logits once, and the gradients of stem and classifier once. It computes
    what one process would, but for the order of additions.
    """

    own_state = True

    def __init__(self, model: ParaFormer) -> None:
        super().__init__(model)
        self.is_recordable = dist.get_backend() == "nccl"
        count = len(model.branches)
        if count < self.world_size:
            raise InputError(
                f"{count} branch(es) cannot be divided among {self.world_size} processes; start at most {count}"
            )
        self._own = range(self.rank, count, self.world_size)
        self._shared = [*model.stem.parameters(), *(p for name, p in model.named_parameters() if "classifier" in name)]
        known = {id(parameter) for parameter in self._shared}
        self._private = [p for i in self._own for p in model.branches[i].parameters() if id(p) not in known]

    def branch_logits(self, images: Tensor) -> Tensor:
        """Of all branches; gradients flow into this process's own."""
        tokens = self.model.stem(images)
        own = torch.stack([self.model.branches[index](tokens) for index in self._own])  # (n, B, C)
        places = -(-len(self.model.branches) // self.world_size)
        padded = own.new_zeros(places, *own.shape[1:])
        padded[: len(own)] = own.detach()
        gathered = [torch.empty_like(padded) for _ in range(self.world_size)]
        dist.all_gather(gathered, padded)
        rows = [
            gathered[index % self.world_size][index // self.world_size] for index in range(len(self.model.branches))
        ]
        for place, index in enumerate(self._own):
            rows[index] = own[place]
        return torch.stack(rows)

    def share_gradients(self) -> None:
        """Stem and classifier learn from all branches: the sum of what each process found."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._shared]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        sizes = [parameter.numel() for parameter in self._shared]
        for parameter, summed in zip(self._shared, torch.split(flat, sizes), strict=True):
            parameter.grad = summed.reshape(parameter.shape)

    def gradient_norm(self) -> Tensor:
        """From the shared parameters, which are the same everywhere, and everyone's branches."""
        squared = _norm(self._private).square()
        dist.all_reduce(squared)
        return (squared + _norm(self._shared).square()).sqrt()

    def first_says(self, value: int) -> int:
        """By a broadcast."""
        said = torch.tensor(value, device=self._shared[0].device)
        dist.broadcast(said, src=0)
        return int(said)

    def assemble(self, model: ParaFormer) -> None:
        """Every branch from the process that it lives in."""
        for index, branch in enumerate(model.branches):
            for tensor in branch.state_dict().values():
                dist.broadcast(tensor, src=index % self.world_size)


# What --parallel names.
PARALLEL: dict[Literal["data", "branches"], type[OneProcess]] = {"data": DataParallel, "branches": BranchParallel}


def _norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    return nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])


class _BranchLogits(nn.Module):
    """``branch_logits`` as the ``forward`` that DistributedDataParallel wraps."""

    def __init__(self, model: ParaFormer) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.branch_logits(images)


class _GlobalBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the images of all processes. Torch's own, SyncBatchNorm, refuses CPUs, where tests run."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input.float()
        count = x.numel() // x.shape[1] * dist.get_world_size()
        sums: Tensor = dist_nn.all_reduce(torch.stack([x.sum(dim=(0, 2, 3)), x.square().sum(dim=(0, 2, 3))]))  # type: ignore[no-untyped-call]
        mean, square = sums / count  # (width,) each
        variance = square - mean.square()
        with torch.no_grad():
            momentum = self.momentum or 0.0
            self.running_mean.lerp_(mean, momentum)  # type: ignore[union-attr]
            self.running_var.lerp_(variance * count / (count - 1), momentum)  # type: ignore[union-attr]
        scale: Tensor = self.weight * (variance + self.eps).rsqrt()
        y = x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]
        normed: Tensor = y.to(input.dtype)
        return normed


def _use_global_batchnorm(module: nn.Module) -> None:
    """In place, with the same parameters and buffers."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            norm = _GlobalBatchNorm2d(child.num_features, eps=child.eps, momentum=child.momentum)
            norm.weight, norm.bias = child.weight, child.bias
            norm.running_mean, norm.running_var = child.running_mean, child.running_var
            setattr(module, name, norm)
        else:
            _use_global_batchnorm(child)

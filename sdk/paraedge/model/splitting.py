"""A network that was not built for it, as branches: ``branches_from`` cuts it, ``distill`` teaches the result.

Letters in shape comments: B inputs, T tokens, D width of a token, C outputs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paraedge_runtime._arguments import as_instance, as_instances, as_whole, shown
from paraedge_runtime.errors import InputError
from paraedge_runtime.manifest import ImageInput, InputSpec, TensorInput

__all__ = ["SplitNetwork", "branches_from", "distill"]


class SplitNetwork(nn.Module):
    """A stem, and branches that each read its output: a ``BranchModel``.

    Attributes:
        stem: input -> what every branch reads.
        branches: each returns (B, ``num_outputs``), a term of the sum.
        input_spec: shape and normalisation of one input.
        num_outputs: C.
    """

    def __init__(self, stem: nn.Module, branches: Iterable[nn.Module], input_spec: InputSpec, num_outputs: int) -> None:
        super().__init__()
        self.stem = stem
        self.branches = nn.ModuleList(branches)
        self.input_spec = input_spec
        self.num_outputs = num_outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, …) -> (B, C)."""
        return self.branch_outputs(x).sum(0)

    def branch_outputs(self, x: Tensor) -> Tensor:
        """Outputs of the N branches: (B, …) -> (N, B, C); ``training.prefix_sums`` adds them up to prefixes."""
        tokens = self.stem(x)
        return torch.stack([branch(tokens) for branch in self.branches])


def branches_from(
    stem: nn.Module,
    blocks: Sequence[nn.Module],
    *,
    input_spec: InputSpec,
    head: nn.Module | None = None,
    exits: Sequence[nn.Module] | None = None,
    stem_blocks: int | None = None,
    num_branches: int | None = None,
) -> SplitNetwork:
    """Cut an ordinary network into a stem and branches. The network is copied and not changed.

    A network **with one head**, such as a ViT: the first ``stem_blocks`` blocks stay in the stem. The other blocks
    are divided equally into branches, each with a copy of the head. These blocks used to run one after another and
    now run side by side, so train the result with :func:`distill` before you use it.

    A network **with exits**: ``blocks`` run one after another, and each has an exit that gives a prediction. Branch k
    is a copy of blocks 0 to k and exit k, with the outputs divided by the number of exits. So every prefix is the
    mean of its exits (up to a factor that changes no label), without any training. A block is computed again for each
    later exit: put expensive layers into the stem.

    Args:
        stem: the layers before the blocks: (B, …) -> (B, T, D), or whatever the first block reads.
        blocks: run one after another, such as ``vit.blocks``.
        input_spec: shape and normalisation of one input.
        head: the layers after the last block, -> (B, C): norm, pooling and classifier.
        exits: one exit per block, in place of ``head``; ``nn.Identity`` for a block without one.
        stem_blocks: with ``head``, the number of blocks in the stem; ``None`` for a third of them.
        num_branches: with ``head``, the number of branches; ``None`` for one per remaining block.

    Raises:
        InputError: both or neither of ``head`` and ``exits``, or numbers that do not fit the blocks.
    """
    stem, blocks = as_instance("stem", stem, nn.Module), as_instances("blocks", blocks, nn.Module)
    if not isinstance(input_spec, ImageInput | TensorInput):
        raise InputError(f"input_spec must be an ImageInput or a TensorInput, got {shown(input_spec)}")
    if (head is None) == (exits is None):
        raise InputError("give either head (the layers after the last block) or exits (one per block)")
    if exits is not None:
        if stem_blocks is not None or num_branches is not None:
            raise InputError(
                "stem_blocks and num_branches need head; with exits, each exit ends a branch: leave them out"
            )
        network = _from_exits(stem, blocks, as_instances("exits", exits, nn.Module))
    else:
        network = _from_blocks(stem, blocks, as_instance("head", head, nn.Module), stem_blocks, num_branches)
    parts_stem, branches = network
    outputs = _num_outputs(parts_stem, branches, input_spec)
    return SplitNetwork(parts_stem, branches, input_spec, outputs)


def _from_exits(
    stem: nn.Module, blocks: Sequence[nn.Module], exits: Sequence[nn.Module]
) -> tuple[nn.Module, list[nn.Module]]:
    if len(exits) != len(blocks):
        raise InputError(f"{len(exits)} exits for {len(blocks)} blocks; give one for each, nn.Identity() for none")
    ends = [position for position, one in enumerate(exits) if not isinstance(one, nn.Identity)]
    if not ends:
        raise InputError("every exit is an nn.Identity; at least one must return a prediction")
    ways = [[*list(blocks)[: end + 1], exits[end]] for end in ends]
    return copy.deepcopy(stem), [_Share(_copies(way), 1 / len(ends)) for way in ways]


def _from_blocks(
    stem: nn.Module,
    blocks: Sequence[nn.Module],
    head: nn.Module,
    stem_blocks: int | None,
    num_branches: int | None,
) -> tuple[nn.Module, list[nn.Module]]:
    first = len(blocks) // 3 if stem_blocks is None else as_whole("stem_blocks", stem_blocks, least=0)
    left = list(blocks)[first:]
    if not left:
        raise InputError(f"stem_blocks must be below {len(blocks)} (the number of blocks), got {first}")
    count = len(left) if num_branches is None else as_whole("num_branches", num_branches)
    if len(left) % count:
        raise InputError(
            f"{len(left)} blocks cannot be divided evenly among {count} branches; change num_branches or stem_blocks "
            f"(now {first})"
        )
    depth = len(left) // count
    shares = [left[position * depth : (position + 1) * depth] for position in range(count)]
    return _copies([stem, *list(blocks)[:first]]), [_Share(_copies([*share, head]), 1 / count) for share in shares]


def _copies(modules: Sequence[nn.Module]) -> nn.Sequential:
    return nn.Sequential(*[copy.deepcopy(module) for module in modules])


class _Share(nn.Module):
    """A branch whose outputs are a share of the sum."""

    def __init__(self, body: nn.Module, share: float) -> None:
        super().__init__()
        self.body = body
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.body(x) * self.share
        return outputs


def _num_outputs(stem: nn.Module, branches: Sequence[nn.Module], input_spec: InputSpec) -> int:
    """C, as the parts compute it."""
    example = torch.zeros(tuple(input_spec.shape))
    widths = []
    for position, branch in enumerate(branches):
        modes = [(module, module.training) for part in (stem, branch) for module in part.modules()]
        try:
            with torch.no_grad():
                outputs = branch.eval()(stem.eval()(example))
        except Exception as error:  # whatever the code of a network raises
            problem = " ".join(str(error).split())
            raise InputError(
                f"branch {position} fails on the stem's output for an input of {tuple(input_spec.shape)}: {problem}"
            ) from error
        finally:
            for module, mode in modes:
                module.training = mode
        if not isinstance(outputs, Tensor) or outputs.ndim != 2 or outputs.shape[0] != 1:
            found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise InputError(f"branch {position} must return (1, outputs), got {found}; pool and classify in its head")
        widths.append(outputs.shape[1])
    if len(set(widths)) != 1:
        raise InputError(f"the branches have {widths} outputs; their outputs are added, so all need the same number")
    return int(widths[0])


def distill(
    model: SplitNetwork,
    teacher: nn.Module,
    batches: Iterable[Tensor],
    *,
    learning_rate: float = 3e-4,
    temperature: float = 2.0,
    on_step: Callable[[int, float], Any] = lambda step, loss: None,
) -> None:
    """Train every prefix of branches, and every branch alone, to predict what the original network predicts.

    The loss is the divergence from the teacher's softened prediction: half of it for every branch alone (times the
    number of branches), half for every prefix (scaled to the whole sum). No labels are needed. Each batch is one step
    of AdamW.

    Args:
        model: from :func:`branches_from`. Trained in place, on its device, and left in eval mode.
        teacher: the original network, (B, …) -> (B, C); it is not changed.
        batches: normalised inputs (B, …), one batch per step.
        learning_rate: peak learning rate; it decays with the inverse square root of the step.
        temperature: temperature that softens both predictions.
        on_step: called with the number of each step and its loss.

    Raises:
        InputError: there were no batches.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    count = len(model.branches)
    places = torch.arange(1, count + 1)
    step = -1
    model.train()
    for step, inputs in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate / (1 + step / 100) ** 0.5
        with torch.no_grad():
            target = (teacher(inputs) / temperature).softmax(-1)  # (B, C)
        outputs = model.branch_outputs(inputs)  # (N, B, C)
        scale = (count / places).to(outputs)[:, None, None]
        alone = _divergence(outputs * count, target, temperature)
        loss = (alone + _divergence(outputs.cumsum(0) * scale, target, temperature)) / 2
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        on_step(step, float(loss.detach()))
    model.eval()
    if step < 0:
        raise InputError("there are no batches; pass an iterable of input tensors")


def _divergence(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Mean Kullback-Leibler divergence from the target: (N, B, C) and (B, C) -> one number."""
    softened = F.log_softmax(logits / temperature, -1)
    divergence = F.kl_div(softened, target.expand_as(softened), reduction="none").sum(-1).mean()
    return divergence * temperature**2

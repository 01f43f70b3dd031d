"""Split a branch model into the parts that are lowered one by one, with BatchNorm folded away."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.flop_counter import FlopCounterMode

from paraedge_converters.copying import Untouched, copy_module, keeps_what_it_computes
from paraedge_converters.protocol import BranchModel
from paraedge_converters.widening import has_half_precision, widened
from paraedge_runtime._arguments import shown
from paraedge_runtime.errors import InputError, UnsupportedModel
from paraedge_runtime.manifest import ImageInput, TensorInput

__all__ = ["Part", "SubsetModel", "check_contract", "count_macs", "fold_batchnorm", "quantizable", "split_model"]


@dataclass(frozen=True, eq=False)
class Part:
    """A piece of the model that becomes one program.

    Attributes:
        name: ``stem``, ``branch_NN`` (NN being the branch's position in the model) or ``fused``.
        module: in eval mode, BatchNorm folded.
        example: an input, batch 1.
        output_shape: what the module makes of ``example``.
        parameters: numbers it holds.
    """

    name: str
    module: nn.Module
    example: Tensor
    output_shape: tuple[int, ...]
    parameters: int


class SubsetModel(nn.Module):
    """Stem and chosen branches as one ordinary network: (1, …) -> (1, num_outputs)."""

    def __init__(self, stem: nn.Module, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stem = stem
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """(1, …) -> (1, num_outputs)."""
        tokens = self.stem(x)
        total: Tensor = self.branches[0](tokens)
        for branch in list(self.branches)[1:]:
            total = total + branch(tokens)
        return total


def fold_batchnorm(module: nn.Module, name: str = "the module") -> nn.Module:
    """A copy in eval mode whose convolutions have absorbed the BatchNorm that follows them.

    Sees ``Conv2d`` and ``BatchNorm2d`` next to each other in an ``nn.Sequential``; others stay.
    """
    folded = copy_module(module, name)
    for sequence in [child for child in folded.modules() if isinstance(child, nn.Sequential)]:
        children = list(sequence)
        for position in range(len(children) - 1):
            conv, norm = children[position], children[position + 1]
            # Not classes derived from them, which may do more: timm's BatchNormAct2d ends in an activation.
            if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.running_var is not None:
                sequence[position] = fuse_conv_bn_eval(conv, norm)
                sequence[position + 1] = nn.Identity()
    return folded


def quantizable(module: nn.Module) -> nn.Module:
    """A copy in which every module that offers a ``quantizable()`` form of itself has it.

    Quantizers see the weights of ``nn.Linear`` and ``nn.Conv2d`` only. A module that keeps a weight
    elsewhere may offer an equal module which does not.
    """
    offer = getattr(module, "quantizable", None)
    if offer is not None:
        form: nn.Module = offer()
        return form.eval()
    copied = copy_module(module, "a part")
    for name, child in list(copied.named_modules()):
        if callable(offer := getattr(child, "quantizable", None)):
            parent, _, last = name.rpartition(".")
            setattr(copied.get_submodule(parent), last, offer().eval())
    return copied


def check_contract(model: Any) -> None:
    """Refuse an object that lacks a member of the ``BranchModel`` protocol, or has no branches.

    Raises:
        UnsupportedModel: names what is missing.
        InputError: ``input_spec`` is none.
    """
    missing = [name for name in ("stem", "branches", "input_spec", "num_outputs") if not hasattr(model, name)]
    if missing:
        raise UnsupportedModel(f"{type(model).__name__} has no {', '.join(missing)}; see the BranchModel protocol")
    if not len(model.branches):
        raise UnsupportedModel(f"{type(model).__name__} has no branches; give it at least one")
    for name, part in [
        ("stem", model.stem),
        *((f"branches[{index}]", one) for index, one in enumerate(model.branches)),
    ]:
        if not isinstance(part, nn.Module):
            raise UnsupportedModel(f"{name} must be an nn.Module, got {shown(part)}; nn.Identity() passes its input on")
    if not isinstance(model.input_spec, ImageInput | TensorInput):
        raise InputError(f"input_spec must be an ImageInput or a TensorInput, got {shown(model.input_spec)}")


def split_model(model: BranchModel, branches: Sequence[int], *, fused: bool = False) -> list[Part]:
    """The stem and the chosen branches as parts, made of copies: the model is not changed.

    Args:
        model: to split.
        branches: indexes.
        fused: add them all as one more part, ``fused``.

    Raises:
        UnsupportedModel: the network does not keep the ``BranchModel`` contract; the message says how.
    """
    stem = _part("stem", model.stem, torch.zeros(tuple(model.input_spec.shape)))
    tokens = torch.zeros(stem.output_shape)
    parts = [stem]
    for index in branches:
        part = _part(f"branch_{index:02d}", model.branches[index], tokens)
        if part.output_shape != (1, model.num_outputs):
            raise UnsupportedModel(
                f"branch {index} returns {part.output_shape}; a branch of this model must return "
                f"(1, {model.num_outputs}), its share of the sum"
            )
        if part.parameters == 0:
            raise UnsupportedModel(f"{part.name} has no parameters; every branch needs trained parameters")
        parts.append(part)
    if fused:
        whole = SubsetModel(stem.module, [part.module for part in parts[1:]]).eval()
        parts.append(Part("fused", whole, stem.example, (1, model.num_outputs), _num_parameters(whole)))
    return parts


def count_macs(part: Part) -> int:
    """Multiply-adds of a part for one input, matrix products and convolutions.

    Kept with the lowered part: torch's counter takes seconds to be imported.
    """
    with _products_apart(), FlopCounterMode(display=False) as counter:
        part.module(part.example)
    return int(counter.get_total_flops()) // 2


@contextlib.contextmanager
def _products_apart() -> Iterator[None]:
    """Attention in single products: the counter knows none of the operators that torch has for the whole of it.

    With gradients: without them the counter fails where a module reads a parameter that was expanded.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _part(name: str, module: nn.Module, example: Tensor) -> Part:
    if isinstance(module, torch.jit.ScriptModule):
        raise UnsupportedModel(f"{name} is TorchScript, which paraedge does not export; pass the original nn.Module")
    half = has_half_precision(module)  # folding would round its weights once more
    folded = copy_module(module, name) if half else fold_batchnorm(module, name)
    try:
        with torch.no_grad():
            output = folded(example)  # the first call: a module may make tables in it
            if half:
                folded = widened(folded, example)
            elif keeps_what_it_computes(folded, example):
                folded = Untouched(folded).eval()
    except Exception as error:  # whatever the code of a network raises
        raise UnsupportedModel(f"{name} fails on an input of {tuple(example.shape)}: {error}") from error
    if not isinstance(output, Tensor) or output.dtype != torch.float32 or output.ndim == 0 or output.shape[0] != 1:
        found = f"{tuple(output.shape)} {output.dtype}" if isinstance(output, Tensor) else type(output).__name__
        raise UnsupportedModel(f"{name} returns {found}; a part must return one float32 tensor, batch first")
    return Part(name, folded, example.clone(), tuple(output.shape), _num_parameters(folded))


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())

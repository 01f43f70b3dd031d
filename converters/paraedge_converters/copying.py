"""Copies of a caller's modules to work on: in eval mode, with plain weights, and nothing left from earlier calls."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from paraedge_runtime.errors import UnsupportedModel

__all__ = ["Untouched", "copy_module", "keeps_what_it_computes"]


def copy_module(module: nn.Module, name: str) -> nn.Module:
    """A deep copy in eval mode that shares nothing with the module; the module is not changed.

    Weights that each forward computes anew (weight norm, spectral norm, other parametrizations, pruning)
    are plain parameters of the copy.

    Args:
        module: of a caller.
        name: of the part, for the message.

    Raises:
        UnsupportedModel: it holds something that cannot be copied.
    """
    # torch copies no tensor that is a result: what a forward left in the module, or a weight that is computed.
    memo: dict[int, Any] = {
        id(tensor): tensor.detach().clone()
        for tensor in _tensors_inside(module)
        if not tensor.is_leaf or tensor.is_inference()
    }
    try:
        copied = copy.deepcopy(module, memo).eval()
        with torch.no_grad():
            _make_weights_plain(copied)
    except Exception as error:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise UnsupportedModel(
            f"{name} cannot be copied: {text}; remove everything from the module that is neither a weight nor a setting"
        ) from error
    return copied


def keeps_what_it_computes(module: nn.Module, example: Tensor) -> bool:
    """Whether a forward of the module assigns to attributes, as one that keeps an attention map does."""
    before = _attributes(module)
    module(example)
    return any(
        value.keys() != vars(child).keys() or any(value[key] is not now for key, now in vars(child).items())
        for child, value in before
    )


class Untouched(nn.Module):
    """Another module, as a function: what its forward assigned to attributes is taken back at once.

    Exporters refuse a forward that leaves tensors in the module.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """As the module."""
        before = _attributes(self.module)
        try:
            result: Tensor = self.module(x)
        finally:
            for child, value in before:
                vars(child).clear()
                vars(child).update(value)
        return result


def _attributes(module: nn.Module) -> list[tuple[nn.Module, dict[str, Any]]]:
    return [(child, dict(vars(child))) for child in module.modules()]


def _tensors_inside(module: nn.Module) -> Iterator[Tensor]:
    """Every tensor that can be reached from a module, however deep in lists, dicts and objects."""
    seen: set[int] = set()
    waiting: list[Any] = [module]
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, (type, ModuleType, FunctionType)):
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, (list, tuple, set, frozenset)):
            waiting += value
        elif hasattr(value, "__dict__"):
            waiting += vars(value).values()


def _make_weights_plain(module: nn.Module) -> None:
    for child in list(module.modules()):
        if parametrize.is_parametrized(child):
            # Not by torch's remove_parametrizations: it changes the class, which the caller's module shares.
            values = {name: getattr(child, name).clone() for name in child.parametrizations}  # type: ignore[union-attr]
            del child.parametrizations
            child.__class__ = parametrize.type_before_parametrizations(child)
            for name, value in values.items():
                child.register_parameter(name, nn.Parameter(value))
        for hook in list(child._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(child, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(child, hook.name)
            elif isinstance(hook, prune.BasePruningMethod):
                prune.remove(child, hook._tensor_name)  # type: ignore[no-untyped-call]

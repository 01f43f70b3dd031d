"""Ordinary networks in 8 bits: 27 of those that an engineer brings along, exported and proven on every engine.

    .venv/bin/python benchmarks/ordinary_networks.py [ENGINE:RECIPE ...] [--only NAME]

A row for each network: in each cell the SNR of the worst prefix against torch, and how many of 64 images keep their
label with all branches; or what refused it. Weights are random, and so are the images, smooth as photographs are; a
busy machine gives the same numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import paraedge
from paraedge_runtime.errors import ParaEdgeError

ENGINES = ("executorch", "litert", "onnxruntime")
CELLS = tuple(f"{engine}:{recipe}" for engine in ENGINES for recipe in ("int8-dynamic", "int8-static"))
WIDTH, HEADS, CLASSES, SIDE = 32, 4, 6, 32


class Apply(nn.Module):
    """A function of a tensor, as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, any shape out."""
        return self.function(x)


class Residual(nn.Module):
    """``x + body(x)``."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return x + self.body(x)


class Parallel(nn.Module):
    """The outputs of several modules, one after another in dimension 1."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, …) -> (B, the sum of all channels, …)."""
        return torch.cat([part(x) for part in self.parts], 1)


class Gate(nn.Module):
    """``x`` times what a module makes of it: squeeze-and-excite and its like."""

    def __init__(self, *gate: nn.Module) -> None:
        super().__init__()
        self.gate = nn.Sequential(*gate)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return x * self.gate(x)


class Tokens(nn.Module):
    """(B, 3, 32, 32) -> (B, 65, WIDTH): patches, a class token, positions."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.randn(1, 65, WIDTH) / 5)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return torch.cat([self.cls.expand(len(x), -1, -1), tokens], 1) + self.positions


class Attention(nn.Module):
    """Attention as timm writes it; ``how`` mixes queries, keys and values."""

    def __init__(self, how: Callable[[Tensor, Tensor, Tensor], Tensor] = F.scaled_dot_product_attention) -> None:
        super().__init__()
        self.qkv, self.proj, self.how = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), how

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, WIDTH), same shape."""
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(self.how(q, k, v).transpose(1, 2).reshape(batch, length, WIDTH))


class MultiHead(nn.Module):
    """``nn.MultiheadAttention`` of tokens with themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, WIDTH), same shape."""
        return self.attention(x, x, x, need_weights=False)[0]


class Recurrent(nn.Module):
    """The last step of a recurrent layer over (B, T, WIDTH)."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.layer = kind(WIDTH, WIDTH, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, WIDTH)."""
        return self.layer(x)[0][:, -1]


class UNet(nn.Module):
    """Down, up by ``mode``, and a skip beside it."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.down, self.mode = conv(16, 32, stride=2), mode
        self.joined = conv(48, 24)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 16, 16, 16) -> (B, 24, 16, 16)."""
        options = {} if self.mode == "nearest" else {"align_corners": False}
        return self.joined(torch.cat([x, F.interpolate(self.down(x), scale_factor=2, mode=self.mode, **options)], 1))


def conv(inputs: int, outputs: int, size: int = 3, *, stride: int = 1, act: nn.Module | None = None, **options: int):
    """Convolution, batch norm with statistics of its own, activation."""
    norm = nn.BatchNorm2d(outputs)
    norm.running_mean.normal_(0, 0.1)
    norm.running_var.uniform_(0.5, 2)
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False, **options)
    return nn.Sequential(layer, norm, nn.ReLU() if act is None else act)


def pooled(channels: int, *body: nn.Module) -> nn.Module:
    """A branch that ends in global average pooling and a classifier."""
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


def first_token(*body: nn.Module) -> nn.Module:
    """A branch that reads the class token."""
    return nn.Sequential(*body, nn.LayerNorm(WIDTH), Apply(lambda x: x[:, 0]), nn.Linear(WIDTH, CLASSES, bias=False))


def block(attention: nn.Module, norm: Callable[[int], nn.Module] = nn.LayerNorm, act: type[nn.Module] = nn.GELU):
    """A pre-norm Transformer block."""
    mlp = nn.Sequential(norm(WIDTH), nn.Linear(WIDTH, 64), act(), nn.Linear(64, WIDTH))
    return nn.Sequential(Residual(norm(WIDTH), attention), Residual(mlp))


def image_stem() -> nn.Module:
    """(B, 3, 32, 32) -> (B, 16, 16, 16)."""
    return conv(3, 16, stride=2)


def mobile() -> nn.Module:
    """An inverted residual of MobileNetV2."""
    act = nn.ReLU6
    return Residual(conv(16, 48, 1, act=act()), conv(48, 48, groups=48, act=act()), conv(48, 16, 1, act=nn.Identity()))


def squeeze(act: nn.Module) -> nn.Module:
    """Squeeze-and-excite."""
    return Gate(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 4, 1), nn.ReLU(), nn.Conv2d(4, 16, 1), act)


def cosine(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention by cosines."""
    return (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * 10).softmax(-1) @ v


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention without a softmax."""
    q, k = F.elu(q) + 1, F.elu(k) + 1
    return q @ (k.transpose(-2, -1) @ v) / (q @ k.sum(-2, keepdim=True).transpose(-2, -1))


def shuffled(x: Tensor) -> Tensor:
    """Channel shuffle of ShuffleNet."""
    return x.reshape(1, 2, 8, 16, 16).transpose(1, 2).reshape(1, 16, 16, 16)


# Name -> stem, and one branch; a network has two of them.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "resnet": (image_stem, lambda: pooled(16, Residual(conv(16, 16), conv(16, 16)), nn.ReLU())),
    "vgg, flattened": (
        image_stem,
        lambda: nn.Sequential(
            conv(16, 16), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1024, 32), nn.ReLU(), nn.Linear(32, CLASSES)
        ),
    ),
    "mobilenet v2": (image_stem, lambda: pooled(16, mobile(), mobile())),
    "mobilenet v3": (
        lambda: conv(3, 16, stride=2, act=nn.Hardswish()),
        lambda: pooled(16, conv(16, 16, 5, groups=16, act=nn.Hardswish()), squeeze(nn.Hardsigmoid())),
    ),
    "efficientnet": (
        lambda: conv(3, 16, stride=2, act=nn.SiLU()),
        lambda: pooled(16, conv(16, 16, groups=16, act=nn.SiLU()), squeeze(nn.Sigmoid())),
    ),
    "densenet, inception": (
        image_stem,
        lambda: pooled(48, Parallel(conv(16, 16, 1), conv(16, 16), nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(16, 16)))),
    ),
    "shufflenet": (image_stem, lambda: pooled(16, conv(16, 16, 1, groups=2), Apply(shuffled), conv(16, 16))),
    "resnext": (image_stem, lambda: pooled(32, conv(16, 32, groups=4), conv(32, 32, groups=8))),
    "convnext": (
        lambda: nn.Conv2d(3, 16, 4, 4),
        lambda: pooled(
            16,
            Residual(
                nn.Conv2d(16, 16, 7, padding=3, groups=16),
                Apply(lambda x: x.permute(0, 2, 3, 1)),
                nn.LayerNorm(16),
                nn.Linear(16, 64),
                nn.GELU(),
                nn.Linear(64, 16),
                Apply(lambda x: x.permute(0, 3, 1, 2)),
            ),
        ),
    ),
    "dilated": (image_stem, lambda: pooled(16, nn.Conv2d(16, 16, 3, padding=2, dilation=2), nn.ReLU(), conv(16, 16))),
    "transposed convolution": (
        image_stem,
        lambda: pooled(12, nn.ConvTranspose2d(16, 12, 2, 2), nn.ReLU(), nn.Conv2d(12, 12, 3)),
    ),
    "u-net, nearest": (image_stem, lambda: pooled(24, UNet("nearest"))),
    "u-net, bilinear": (image_stem, lambda: pooled(24, UNet("bilinear"))),
    "u-net, bicubic": (image_stem, lambda: pooled(24, UNet("bicubic"))),
    "group norm": (
        image_stem,
        lambda: pooled(16, Residual(nn.Conv2d(16, 16, 3, 1, 1), nn.GroupNorm(4, 16), nn.ReLU())),
    ),
    "prelu, leaky": (
        lambda: conv(3, 16, stride=2, act=nn.PReLU(16)),
        lambda: pooled(16, conv(16, 16, act=nn.LeakyReLU(0.1)), conv(16, 16, act=nn.ELU())),
    ),
    "vit, multi-head": (Tokens, lambda: first_token(block(MultiHead()))),
    "vit, timm": (Tokens, lambda: first_token(block(Attention()))),
    "vit, rms and silu": (Tokens, lambda: first_token(block(Attention(), nn.RMSNorm, nn.SiLU))),
    "vit, cosine": (Tokens, lambda: first_token(block(Attention(cosine)))),
    "vit, linear attention": (Tokens, lambda: first_token(block(Attention(linear_attention)))),
    "encoder layer, post-norm": (
        Tokens,
        lambda: first_token(nn.TransformerEncoderLayer(WIDTH, HEADS, 64, batch_first=True)),
    ),
    "mlp-mixer": (
        Tokens,
        lambda: first_token(
            Residual(
                nn.LayerNorm(WIDTH),
                Apply(lambda x: x.transpose(1, 2)),
                nn.Linear(65, 48),
                nn.GELU(),
                nn.Linear(48, 65),
                Apply(lambda x: x.transpose(1, 2)),
            )
        ),
    ),
    "lstm": (Tokens, lambda: nn.Sequential(Recurrent(nn.LSTM), nn.Linear(WIDTH, CLASSES))),
    "gru": (Tokens, lambda: nn.Sequential(Recurrent(nn.GRU), nn.Linear(WIDTH, CLASSES))),
    "1-D convolutions": (
        lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 16, 9, 4), nn.ReLU()),
        lambda: nn.Sequential(
            nn.Conv1d(16, 16, 5, 2, dilation=2), nn.BatchNorm1d(16), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
            nn.Linear(16, CLASSES),
        ),
    ),
    "3-D convolutions": (
        lambda: nn.Sequential(Apply(lambda x: x.reshape(1, 3, 4, 8, 32)), nn.Conv3d(3, 8, 3, 1, 1), nn.ReLU()),
        lambda: nn.Sequential(nn.Conv3d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2880, CLASSES)),
    ),
}  # fmt: skip


class Network(nn.Module):
    """A ``BranchModel`` of a stem and two branches."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        stem, branch = NETWORKS[name]
        self.stem, self.branches = stem(), nn.ModuleList([branch(), branch()])
        self.input_spec = paraedge.ImageInput(name="image", shape=(1, 3, SIDE, SIDE), mean=(0.5,) * 3, std=(0.25,) * 3)
        self.num_outputs = CLASSES


def smooth_images(count: int) -> np.ndarray:
    """(count, SIDE, SIDE, 3) of one seed."""
    small = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(1)) * 255
    large = F.interpolate(small, (SIDE, SIDE), mode="bilinear")
    return large.permute(0, 2, 3, 1).round().to(torch.uint8).numpy()


def cell(name: str, engine: str, recipe: str) -> str:
    """SNR of the worst prefix and labels kept by all branches, or what refused the network."""
    images, network = smooth_images(64), Network(name).eval()
    description = paraedge.ModelDescription(
        name="ordinary", description=name, license="CC0", samples=images, vector="share"
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            bundle = paraedge.convert(
                network, description, Path(folder, "b"), target="linux", engine=engine, quantize=recipe
            )
        except ParaEdgeError as error:
            return f"{type(error).__name__}: {error}"
        snr_db = min(prefix.snr_db for prefix in bundle.card.parity.prefixes)
        with paraedge.Session.open(bundle) as session:
            kept = sum(session.run(image).output.argmax() == label(network, image) for image in images)
    return f"{snr_db:.1f}, {kept}"


def label(network: Network, image: np.ndarray) -> int:
    """The largest output of all branches in torch, for one image (SIDE, SIDE, 3)."""
    with torch.inference_mode():
        x = (torch.from_numpy(image).permute(2, 0, 1)[None] / 255 - 0.5) / 0.25
        tokens = network.stem(x)
        return int(sum(branch(tokens) for branch in network.branches).argmax())


def row(name: str, cells: list[str], limit_s: float) -> list[str]:
    """A network's cells, made in a process of its own, which ends after ``limit_s``."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_cells, args=(name, cells, sender), daemon=False)
    process.start()
    sender.close()
    found: list[str] = []
    end = time.monotonic() + limit_s
    with contextlib.suppress(EOFError):
        while len(found) < len(cells) and receiver.poll(max(0.0, end - time.monotonic())):
            found.append(receiver.recv())
    stopped = "not within the limit" if process.is_alive() else "ended"
    process.kill()
    process.join()
    return found + [stopped] * (len(cells) - len(found))


def _send_cells(name: str, cells: list[str], sender: Connection) -> None:
    for one in cells:
        sender.send(cell(name, *one.split(":")))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", nargs="*", metavar="ENGINE:RECIPE", help="[default: both int8 recipes on each engine]")
    parser.add_argument("--only", action="append", choices=NETWORKS, help="one network; may be repeated")
    parser.add_argument("--limit", type=float, default=240, metavar="SECONDS", help="of a network [default: 240]")
    given = parser.parse_args()
    cells = given.cells or list(CELLS)
    print("| network |", " | ".join(cells), "|")
    print("|---|" + "---|" * len(cells))
    for name in given.only or NETWORKS:
        print(f"| {name} |", " | ".join(row(name, cells, given.limit)), "|", flush=True)


if __name__ == "__main__":
    main()

"""The ParaFormer network: a convolutional stem, then branches side by side, Transformers whose logits add up.

Letters in shape comments: B images, T tokens (the first is CLS), D ``embed_dim``, h ``num_heads``,
d = D / h, C ``num_classes``, N ``num_branches``.

Attention is written out (two ``bmm`` and a softmax over B·h matrices) rather than called through
``scaled_dot_product_attention``: on ExecuTorch the latter leaves its safe-softmax outside the
delegate and costs 20 to 49 % of a branch. Training on a GPU does call it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paraedge.model.backbones import backbone_stages, load_pretrained
from paraedge.model.config import ParaFormerConfig
from paraedge.model.frontend import front_end
from paraedge_runtime.manifest import InputSpec

__all__ = ["Block", "Branch", "CLSBlock", "ParaFormer", "ResidualBlock", "Tokens"]


def _mlp(embed_dim: int, mlp_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(embed_dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, embed_dim))


class Block(nn.Module):
    """A pre-norm Transformer block over all tokens: (B, T, D) -> (B, T, D)."""

    def __init__(self, config: ParaFormerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.norm1 = nn.LayerNorm(config.embed_dim)
        self.query = nn.Linear(config.embed_dim, config.embed_dim)
        self.key = nn.Linear(config.embed_dim, config.embed_dim, bias=False)  # a key bias shifts all scores alike
        self.value = nn.Linear(config.embed_dim, config.embed_dim)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)
        self.norm2 = nn.LayerNorm(config.embed_dim)
        self.mlp = _mlp(config.embed_dim, config.mlp_dim)

    def _split_heads(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        x = x.reshape(batch, tokens, self.num_heads, dim // self.num_heads).transpose(1, 2)
        return x.reshape(batch * self.num_heads, tokens, dim // self.num_heads)  # (B·h, T, d)

    def attend(self, y: Tensor) -> Tensor:
        """Self-attention of normalised tokens, before the output projection: (B, T, D) -> (B, T, D)."""
        batch, tokens, dim = y.shape
        if self.training and y.is_cuda:
            # The same function in one kernel, whose speed does not suffer from an odd T.
            query, key, value = (
                layer(y).reshape(batch, tokens, self.num_heads, -1).transpose(1, 2)  # (B, h, T, d)
                for layer in (self.query, self.key, self.value)
            )
            return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, tokens, dim)
        query = self._split_heads(self.query(y) * (dim // self.num_heads) ** -0.5)
        key, value = self._split_heads(self.key(y)), self._split_heads(self.value(y))
        scores = torch.bmm(query, key.transpose(1, 2)).softmax(dim=-1)  # (B·h, T, T)
        mixed = torch.bmm(scores, value).reshape(batch, self.num_heads, tokens, dim // self.num_heads)
        return mixed.transpose(1, 2).reshape(batch, tokens, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.proj(self.attend(self.norm1(x)))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class CLSBlock(nn.Module):
    """The last block of a branch, computing the CLS row only: (B, T, D) -> (B, 1, D).

    Nobody reads the other rows, so there is one query, and keys and values fold into it. Per head,
    with y = norm1(x), q the CLS query and W_k, W_v that head's rows of the key and value matrices::

        u = W_kᵀ q / √d          a = softmax(u yᵀ)          o = W_v (yᵀ a) + b_v

    which is exact (a bias on the keys would shift every score alike, and the softmax sums to one)
    and replaces 2·T·D² multiply-adds by 2·D² + 2·T·D·h.
    """

    def __init__(self, config: ParaFormerConfig) -> None:
        super().__init__()
        heads, dim = config.num_heads, config.embed_dim
        self.num_heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key_weight = nn.Parameter(torch.empty(heads, dim // heads, dim))  # (h, d, D)
        self.value_weight = nn.Parameter(torch.empty(heads, dim, dim // heads))  # (h, D, d)
        self.value_bias = nn.Parameter(torch.zeros(dim))
        for weight in (self.key_weight, self.value_weight):
            nn.init.uniform_(weight, -(dim**-0.5), dim**-0.5)  # as nn.Linear does
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = _mlp(dim, config.mlp_dim)

    def attend(self, y: Tensor) -> Tensor:
        """CLS attention over normalised tokens, before the output projection: (B, T, D) -> (B, 1, D)."""
        batch, _, dim = y.shape
        heads, head_dim = self.num_heads, dim // self.num_heads
        query = self.query(y[:, :1]) * head_dim**-0.5  # (B, 1, D); a slice is delegated, an index is not
        query = query.reshape(batch, heads, head_dim).transpose(0, 1)  # (h, B, d)
        folded = torch.bmm(query, self.key_weight).transpose(0, 1)  # (B, h, D)
        scores = torch.bmm(folded, y.transpose(1, 2)).softmax(dim=-1)  # (B, h, T)
        pooled = torch.bmm(scores, y).transpose(0, 1)  # (h, B, D)
        value = torch.bmm(pooled, self.value_weight).transpose(0, 1)  # (B, h, d)
        return value.reshape(batch, 1, dim) + self.value_bias

    def quantizable(self) -> LinearCLSBlock:
        """The same function with every weight in a linear layer."""
        return LinearCLSBlock(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, 1, D)."""
        cls = x[:, :1] + self.proj(self.attend(self.norm1(x)))  # (B, 1, D)
        return cls + self.mlp(self.norm2(cls))  # type: ignore[no-any-return]


class LinearCLSBlock(nn.Module):
    """A ``CLSBlock`` in the form that quantizers see into, for one input: (1, T, D) -> (1, 1, D).

    The key and value matrices of all heads are one linear layer each. A row per head goes through
    it, in which a mask leaves that head's d columns only: h·D² multiply-adds instead of D², next to
    nothing beside T·D².
    """

    mask: Tensor
    ones: Tensor

    def __init__(self, block: CLSBlock) -> None:
        super().__init__()
        heads, head_dim, dim = block.key_weight.shape
        self.norm1, self.query, self.proj = block.norm1, block.query, block.proj
        self.norm2, self.mlp = block.norm2, block.mlp
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.value_bias = block.value_bias
        with torch.no_grad():
            self.key.weight.copy_(block.key_weight.reshape(dim, dim).t())  # row h·d + i: what query i of head h asks
            self.value.weight.copy_(block.value_weight.transpose(1, 2).reshape(dim, dim))
        mask = torch.eye(heads).repeat_interleave(head_dim, dim=1)[None]  # (1, h, D)
        self.register_buffer("mask", mask)
        self.register_buffer("ones", torch.ones(1, 1, heads))
        self.scale = head_dim**-0.5

    def attend(self, y: Tensor) -> Tensor:
        """CLS attention over normalised tokens, before the output projection: (1, T, D) -> (1, 1, D)."""
        folded = self.key(self.query(y[:, :1]) * (self.mask * self.scale))  # (1, h, D)
        scores = torch.bmm(folded, y.transpose(1, 2)).softmax(dim=-1)  # (1, h, T)
        value = self.value(torch.bmm(scores, y)) * self.mask  # (1, h, D)
        return torch.bmm(self.ones, value) + self.value_bias  # the sum over heads, as a product: it is delegated

    def forward(self, x: Tensor) -> Tensor:
        """(1, T, D) -> (1, 1, D)."""
        cls = x[:, :1] + self.proj(self.attend(self.norm1(x)))  # (1, 1, D)
        return cls + self.mlp(self.norm2(cls))  # type: ignore[no-any-return]


def _conv_norm(width_in: int, width: int, rows: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(width_in, width, kernel_size=(rows, 3), stride=stride, padding=(rows // 2, 1), bias=False)
    return [conv, nn.BatchNorm2d(width)]


class ResidualBlock(nn.Module):
    """Two convolutions beside a skip connection: (B, width, H, W) -> (B, width, H, W)."""

    def __init__(self, width: int, rows: int = 3) -> None:
        super().__init__()
        self.convs = nn.Sequential(*_conv_norm(width, width, rows), nn.ReLU(), *_conv_norm(width, width, rows))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> (B, width, H, W)."""
        return F.relu(x + self.convs(x))


def _stages(config: ParaFormerConfig, width_in: int, widths: Sequence[int], residual_blocks: int) -> list[nn.Module]:
    """Stages of convolutions, each halving the side. Every BatchNorm follows a convolution it folds into at export."""
    rows = config.kernel_rows
    layers: list[nn.Module] = []
    for width in widths:
        layers += [*_conv_norm(width_in, width, rows, stride=2), nn.ReLU(), *_conv_norm(width, width, rows), nn.ReLU()]
        layers += [ResidualBlock(width, rows) for _ in range(residual_blocks)]
        width_in = width
    return layers


class Tokens(nn.Module):
    """Stages, a 1×1 convolution, positions with the CLS token: (B, width_in, side, side) -> tokens (B, T, D)."""

    def __init__(self, config: ParaFormerConfig, width_in: int, widths: Sequence[int], residual_blocks: int) -> None:
        super().__init__()
        stages = _stages(config, width_in, widths, residual_blocks)
        self.convs = nn.Sequential(*stages, nn.Conv2d((width_in, *widths)[-1], config.embed_dim, kernel_size=1))
        # The CLS token is the first position's row: token plus position would be one constant anyway.
        self.positions = nn.Parameter(torch.randn(1, config.num_positions, config.embed_dim) * 0.02)
        self._without = config.num_tokens - config.num_positions

    def forward(self, x: Tensor) -> Tensor:
        """(B, width_in, side, side) -> (B, T, D)."""
        cells = self.convs(x).flatten(2).transpose(1, 2)  # (B, T-1, D)
        positions = F.pad(self.positions, (0, 0, 0, self._without)) if self._without else self.positions  # (1, T, D)
        return F.pad(cells, (0, 0, 1, 0)) + positions  # (B, T, D)


class Branch(nn.Module):
    """Blocks, the branch's own final norm, and the shared classifier: what the stem made -> logits (B, C).

    With ``branch_width`` it starts with convolutions of its own on the stem's feature map (B, stem_channels,
    side, side), behind a pretrained stem perhaps with more stages of the backbone before these; without, the stem
    has made tokens (B, T, D). The classifier has no bias: a bias would be added once per branch, and which branches
    run is decided on the device. Each branch's norm carries its own. To classes that its classifier does not know a
    branch adds 0.
    """

    def __init__(self, config: ParaFormerConfig, index: int, classifier: nn.Linear) -> None:
        super().__init__()
        self.backbone: nn.Module = nn.Identity()
        if config.backbone is not None and config.branch_stages[index] > (config.backbone_stage or 0):
            first = (config.backbone_stage or 0) + 1
            self.backbone = backbone_stages(config.backbone, first, config.branch_stages[index])
        self.tokens: nn.Module = nn.Identity()
        if config.branch_width is not None:
            widths = config.branch_convolutions[index]
            self.tokens = Tokens(config, config.branch_inputs[index], widths, config.branch_residual_blocks)
        depth = config.branch_depths[index]
        self.blocks = nn.Sequential(*(Block(config) for _ in range(depth - 1)), CLSBlock(config))
        self.norm = nn.LayerNorm(config.embed_dim)
        self.classifier = classifier  # one matrix, shared by all branches that know the same classes
        self.num_unknown = config.num_classes - classifier.out_features

    def from_features(self, x: Tensor) -> Tensor:
        """What is behind the branch's own stages of the backbone: their output -> (B, C)."""
        cls = self.norm(self.blocks(self.tokens(x)))  # (B, 1, D)
        logits: Tensor = self.classifier(cls).flatten(1)
        return F.pad(logits, (0, self.num_unknown)) if self.num_unknown else logits

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D), or (B, stem_channels, side, side) with ``branch_width`` -> (B, C)."""
        return self.from_features(self.backbone(x))


def _stem(config: ParaFormerConfig) -> nn.Module:
    if config.backbone is not None:
        return backbone_stages(config.backbone, 1, config.backbone_stage or 0)
    widths = [config.stem_channels >> later for later in reversed(range(config.stem_stages))]
    channels = config.map_shape[0]
    convs: list[nn.Module]
    if config.branch_width is None:
        convs = [Tokens(config, channels, widths, config.stem_residual_blocks)]
    else:
        convs = _stages(config, channels, widths, config.stem_residual_blocks)
    if config.signal is not None:
        convs.insert(0, front_end(config.signal))
    return convs[0] if config.branch_width is None and len(convs) == 1 else nn.Sequential(*convs)


class ParaFormer(nn.Module):
    """A ParaFormer: every branch reads the stem's output, and the branches' logits add up.

    Every prefix of branches is a working model: ``prefix_logits(images)[k]`` is the prediction of the
    first k + 1 branches. Implements the ``BranchModel`` protocol of the converters.
    """

    stem: nn.Module
    branches: nn.ModuleList

    def __init__(self, config: ParaFormerConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = _stem(config)
        classifiers = {
            known: nn.Linear(config.embed_dim, known, bias=False) for known in dict.fromkeys(config.known_classes)
        }
        self.branches = nn.ModuleList(
            Branch(config, index, classifiers[known]) for index, known in enumerate(config.known_classes)
        )

    def own_branches(self) -> list[Branch]:
        """``branches``, known to be of this kind."""
        return [branch for branch in self.branches if isinstance(branch, Branch)]

    def pretrained_parts(self) -> list[nn.Sequential]:
        """The backbone's stages in stem and branches; empty without a backbone."""
        if self.config.backbone is None:
            return []
        parts = [self.stem, *(branch.backbone for branch in self.own_branches())]
        return [part for part in parts if isinstance(part, nn.Sequential)]

    def load_pretrained(self) -> None:
        """Load the backbone's published weights.

        Raises:
            InputError: the weights are not installed.
        """
        if self.config.backbone is not None:
            for part in self.pretrained_parts():
                first = 1 if part is self.stem else (self.config.backbone_stage or 0) + 1
                load_pretrained(self.config.backbone, first, part)

    @property
    def num_outputs(self) -> int:
        """C, the length of the logits."""
        return self.config.num_classes

    @property
    def input_spec(self) -> InputSpec:
        """One input on the device, normalised: (1, in_channels, H, W), or (1, in_channels, T) of a signal."""
        return self.config.input_spec

    def branch_logits(self, images: Tensor) -> Tensor:
        """Logits of each branch: images (B, in_channels, H, W) -> (N, B, C)."""
        tokens = self.stem(images)
        return torch.stack([branch(tokens) for branch in self.branches])

    def feature_logits(self, features: list[Tensor]) -> Tensor:
        """Logits of each branch from precomputed features: N × (B, c, h, w) -> (N, B, C)."""
        pairs = zip(self.own_branches(), features, strict=True)
        return torch.stack([branch.from_features(x) for branch, x in pairs])

    def prefix_logits(self, images: Tensor) -> Tensor:
        """The prediction of every prefix of branches: images (B, in_channels, H, W) -> (N, B, C)."""
        return self.branch_logits(images).cumsum(dim=0)

    def forward(self, images: Tensor) -> Tensor:
        """All branches: images (B, in_channels, H, W) -> logits (B, C)."""
        return self.branch_logits(images).sum(dim=0)

"""Blocks as networks of other people have them: attention, position and norm in the forms that ViTs are written in."""

import torch
import torch.nn.functional as F
from torch import nn

D, HEADS, TOKENS = 32, 4, 17


class Block(nn.Module):
    """(B, T, D) -> (B, T, D): pre-norm, or post-norm."""

    def __init__(self, attention, post_norm=False):
        super().__init__()
        self.norm1, self.norm2, self.attention, self.post_norm = nn.LayerNorm(D), nn.LayerNorm(D), attention, post_norm
        self.mlp = nn.Sequential(nn.Linear(D, 64), nn.GELU(), nn.Linear(64, D))

    def forward(self, x):
        if self.post_norm:
            x = self.norm1(x + self.attention(x))
            return self.norm2(x + self.mlp(x))
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class MultiHead(nn.Module):
    """``nn.MultiheadAttention`` of a sequence with itself."""

    def __init__(self, need_weights=False):
        super().__init__()
        self.attention, self.need_weights = nn.MultiheadAttention(D, HEADS, batch_first=True), need_weights

    def forward(self, x):
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


class Timm(nn.Module):
    """Attention as timm writes it, and ``mix`` for what others do with the same projections."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.scale = (D // HEADS) ** -0.5

    def forward(self, x):
        q, k, v = self.qkv(x).reshape(1, TOKENS, 3, HEADS, D // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(self.mix(q, k, v).transpose(1, 2).reshape(1, TOKENS, D))

    def mix(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v)


class Unfused(Timm):
    def mix(self, q, k, v):
        return F.dropout((q * self.scale @ k.transpose(-2, -1)).softmax(-1), 0.1, self.training) @ v


class Causal(Timm):
    def mix(self, q, k, v):
        future = torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1)
        return (q @ k.transpose(-2, -1) * self.scale).masked_fill(future, float("-inf")).softmax(-1) @ v


class Masked(Timm):
    def mix(self, q, k, v):
        near = (torch.arange(TOKENS)[:, None] - torch.arange(TOKENS)).abs() < 5
        causal = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=near) + causal


class Einsum(Timm):
    def mix(self, q, k, v):
        weights = (torch.einsum("bhqd,bhkd->bhqk", q, k) * self.scale).softmax(-1)
        return torch.einsum("bhqk,bhkd->bhqd", weights, v)


class RelativePositions(Timm):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(2 * TOKENS - 1, HEADS))
        self.register_buffer("index", torch.arange(TOKENS)[:, None] - torch.arange(TOKENS) + TOKENS - 1)

    def mix(self, q, k, v):
        bias = self.table[self.index.view(-1)].view(TOKENS, TOKENS, HEADS).permute(2, 0, 1)[None]
        return (q @ k.transpose(-2, -1) * self.scale + bias).softmax(-1) @ v


class Rotary(Timm):
    """Halves rotated for queries, even and odd entries for keys."""

    def mix(self, q, k, v):
        frequencies = 10000 ** (-torch.arange(0, D // HEADS, 2) / (D // HEADS))
        angles = torch.arange(TOKENS, dtype=torch.float32)[:, None] * frequencies
        cos, sin = torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()
        first, second = q.chunk(2, -1)
        q = q * cos + torch.cat([-second, first], -1) * sin
        even, odd = k[..., ::2], k[..., 1::2]
        turned = [even * angles.cos() - odd * angles.sin(), even * angles.sin() + odd * angles.cos()]
        return F.scaled_dot_product_attention(q, torch.stack(turned, -1).flatten(-2), v)


class Cosine(Timm):
    def mix(self, q, k, v):
        return (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * 10).softmax(-1) @ v


class Linear(Timm):
    """Attention without a softmax."""

    def mix(self, q, k, v):
        q, k = F.elu(q) + 1, F.elu(k) + 1
        return q @ (k.transpose(-2, -1) @ v) * (1 / (q @ k.sum(-2, keepdim=True).transpose(-2, -1) + 1e-6))


class Grouped(nn.Module):
    """Grouped queries: two heads of keys and values for four of queries; the copies made in one of three ways."""

    def __init__(self, how):
        super().__init__()
        self.q, self.kv, self.out, self.how = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, D), how

    def forward(self, x):
        q = self.q(x).view(1, TOKENS, HEADS, -1).transpose(1, 2)
        k, v = (part.view(1, TOKENS, 2, -1).transpose(1, 2) for part in self.kv(x).chunk(2, -1))
        if self.how == "expand":
            k, v = (t[:, :, None].expand(1, 2, 2, TOKENS, D // HEADS).reshape(1, HEADS, TOKENS, -1) for t in (k, v))
        elif self.how == "repeat":
            k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        mixed = F.scaled_dot_product_attention(q, k, v, enable_gqa=self.how == "flag")
        return self.out(mixed.transpose(1, 2).flatten(2))


class ScaledRms(nn.Module):
    """RMS norm and a scale for each channel."""

    def __init__(self):
        super().__init__()
        self.norm, self.attention, self.gamma = nn.RMSNorm(D), Timm(), nn.Parameter(torch.full((D,), 0.1))

    def forward(self, x):
        return x + self.gamma * self.attention(self.norm(x))


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide, self.out = nn.Linear(D, 128), nn.Linear(64, D)

    def forward(self, x):
        value, gate = self.wide(x).chunk(2, -1)
        return self.out(F.silu(gate) * value)


class Recurrent(nn.Module):
    """Not attention, but in its place: a recurrent layer over the tokens."""

    def __init__(self, kind, **options):
        super().__init__()
        self.layer = kind(D, D // (2 if options.get("bidirectional") else 1), batch_first=True, **options)

    def forward(self, x):
        return self.layer(x)[0]


class AttentionPool(nn.Module):
    """(B, T, D) -> (B, D): one learned query."""

    def __init__(self):
        super().__init__()
        self.query, self.attention = nn.Parameter(torch.randn(1, 1, D)), nn.MultiheadAttention(D, 4, batch_first=True)

    def forward(self, x):
        return self.attention(self.query.expand(x.shape[0], -1, -1), x, x, need_weights=False)[0][:, 0]


class Tokens(nn.Module):
    """(B, 3, 16, 16) -> (B, T, D): patches, registers, a class token, positions interpolated from another grid."""

    def __init__(self, registers=0):
        super().__init__()
        self.patches, self.cls = nn.Conv2d(3, D, 4, 4), nn.Parameter(torch.randn(1, 1, D))
        self.registers, self.positions = (
            nn.Parameter(torch.randn(1, registers, D)),
            nn.Parameter(torch.randn(1, D, 8, 8)),
        )

    def forward(self, x):
        positions = F.interpolate(self.positions, (4, 4), mode="bicubic")
        tokens = (self.patches(x) + positions).flatten(2).transpose(1, 2)
        return torch.cat([token.expand(x.shape[0], -1, -1) for token in (self.cls, self.registers)] + [tokens], 1)


def convolutions(norm):
    """(B, 3, 16, 16) -> (B, D, 2, 2)."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), norm(16), nn.GELU(approximate="tanh"), nn.Conv2d(16, D, 3, 2, 1),
        norm(D), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(D, D, 3, 1, 1, groups=D),
    )  # fmt: skip


def encoder(**options):
    return nn.TransformerEncoder(
        nn.TransformerEncoderLayer(D, HEADS, 64, 0.1, batch_first=True, **options), 1, enable_nested_tensor=False
    )


ATTENTIONS = {
    "multi-head": lambda: MultiHead(),
    "multi-head, weights": lambda: MultiHead(need_weights=True),
    "multi-head, frozen": lambda: MultiHead().requires_grad_(False),
    "encoder, post-norm": lambda: encoder(),
    "encoder, frozen": lambda: encoder(norm_first=True, activation="gelu").requires_grad_(False),
    "timm": Timm,
    "unfused": Unfused,
    "causal": Causal,
    "masked": Masked,
    "einsum": Einsum,
    "relative positions": RelativePositions,
    "rotary": Rotary,
    "cosine": Cosine,
    "linear": Linear,
    "grouped, flag": lambda: Grouped("flag"),
    "grouped, expand": lambda: Grouped("expand"),
    "grouped, repeat": lambda: Grouped("repeat"),
    "rms": ScaledRms,
    "gated": Gated,
    "gru": lambda: Recurrent(nn.GRU),
    "lstm, both ways": lambda: Recurrent(nn.LSTM, bidirectional=True),
    "rnn": lambda: Recurrent(nn.RNN),
}

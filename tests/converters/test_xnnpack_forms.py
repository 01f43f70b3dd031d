"""Operators that XNNPACK does not take are written in those that it takes, with the same numbers; the rest is named."""

import functools
import inspect

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.blocks import ATTENTIONS, TOKENS, AttentionPool, Block, D, Timm, Tokens, convolutions
from torch import nn

from paraedge_converters.backends import converter_for, lowering_with
from paraedge_converters.backends._xnnpack_forms import in_xnnpack_forms
from paraedge_runtime.engines import open_engine
from paraedge_runtime.errors import ConversionError
from paraedge_runtime.manifest import PartEntry
from paraedge_runtime.similarity import compare

X = torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(0))
W = torch.randn(16, 12, generator=torch.Generator().manual_seed(1))
UPPER = torch.ones(8, 8, dtype=torch.bool).triu(1)

# Of x (1, 8, 16): one operator each, as people write it.
OPERATORS = {
    "expand": lambda x: torch.cat([W[None, :1, :1].expand(x.shape[0], 8, -1), x], 2),
    "expand_as": lambda x: x / x.abs().amax(-1, keepdim=True).expand_as(x),
    "repeat": lambda x: x.repeat(1, 2, 3),
    "tile": lambda x: x.tile(1, 1, 2),
    "repeat_interleave": lambda x: x.repeat_interleave(3, 1),
    "squeeze": lambda x: x.unsqueeze(1).squeeze(1),
    "matmul 2-D": lambda x: x @ W,
    "matmul 1-D": lambda x: x @ W[:, 0],
    "matmul 4-D": lambda x: x.view(1, 8, 4, 4) @ x.view(1, 8, 4, 4).transpose(-1, -2),
    "matmul broadcast": lambda x: x.view(1, 8, 4, 4) @ x.view(1, 8, 4, 4)[:, :1],
    "einsum": lambda x: torch.einsum("btd,dk->btk", x, W),
    "softmax over another dimension": lambda x: x.softmax(1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "mean over tokens": lambda x: x.mean(1),
    "mean of all": lambda x: x.mean().reshape(1, 1),
    "sum": lambda x: x.sum(1),
    "amax": lambda x: x.amax(1),
    "amin": lambda x: x.amin(-1),
    "max": lambda x: x.max(1)[0],
    "var": lambda x: x.var(-1),
    "std": lambda x: x.std(1, unbiased=False),
    "normalize": lambda x: F.normalize(x, dim=-1),
    "norm": lambda x: x.norm(dim=-1),
    "cosine_similarity": lambda x: F.cosine_similarity(x[:, :4], x[:, 4:], -1),
    "logsumexp": lambda x: x.logsumexp(1),
    "group_norm": lambda x: F.group_norm(x, 4, W[:8, 0], W[:8, 1]),
    "instance_norm": F.instance_norm,
    "rms_norm": lambda x: F.rms_norm(x, (16,), W[:, 0]),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x[None], (4, 4)),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x[None], 1),
    "adaptive_avg_pool2d, overlapping": lambda x: F.adaptive_avg_pool2d(x[None], (3, 5)),
    "avg_pool2d, padding counts": lambda x: F.avg_pool2d(x[None], 3, 2, 1),
    "avg_pool2d, padding does not": lambda x: F.avg_pool2d(x[None], 3, 2, 1, count_include_pad=False),
    "avg_pool2d, ceil_mode that changes nothing": lambda x: F.avg_pool2d(x[None], 2, ceil_mode=True),
    "avg_pool2d, ceil_mode": lambda x: F.avg_pool2d(x[None], 3, 2, ceil_mode=True),
    "avg_pool2d, ceil_mode, padded": lambda x: F.avg_pool2d(x[None], (3, 4), (2, 3), (1, 2), ceil_mode=True),
    "avg_pool2d, ceil_mode, padding does not": lambda x: F.avg_pool2d(x[None], 3, 2, 1, True, False),
    "avg_pool2d, a divisor": lambda x: F.avg_pool2d(x[None], 2, divisor_override=3),
    "max_pool2d, ceil_mode": lambda x: F.max_pool2d(x[None], (3, 4), (2, 3), (1, 2), ceil_mode=True),
    "adaptive_max_pool1d": lambda x: F.adaptive_max_pool1d(x, 5),
    "adaptive_max_pool2d, overlapping": lambda x: F.adaptive_max_pool2d(x[None], (3, 5)),
    "local_response_norm": lambda x: F.local_response_norm(x[None].abs(), 3),
    "pad, reflect": lambda x: F.pad(x[None], (3, 1, 0, 2), mode="reflect"),
    "pad, replicate": lambda x: F.pad(x, (2, 5), mode="replicate"),
    "pad, circular": lambda x: F.pad(x[None], (3, 1, 2, 0), mode="circular"),
    "pad, constant": lambda x: F.pad(x, (2, 5), value=0.5),
    "max_pool2d, a long stride": lambda x: F.max_pool2d(x[None], 2, 3),
    "lp_pool2d": lambda x: F.lp_pool2d(x[None], 2, 2),
    "max_pool1d": lambda x: F.max_pool1d(x, 3, 2, 1),
    "integers": lambda x: x / torch.arange(1, 17) + torch.arange(8).view(8, 1) * x,
    "cat of one": lambda x: torch.cat([x], 1),
    "sign": lambda x: x * x.sign(),
    "upsample nearest to any size": lambda x: F.interpolate(x[None], size=(5, 23)),
    "upsample nearest-exact": lambda x: F.interpolate(x[None], size=(5, 23), mode="nearest-exact"),
    "upsample linear": lambda x: F.interpolate(x, scale_factor=2.5, mode="linear"),
    "upsample linear, corners": lambda x: F.interpolate(x, size=7, mode="linear", align_corners=True),
    "upsample bicubic": lambda x: F.interpolate(x[None], size=(13, 9), mode="bicubic"),
    "upsample bicubic, corners": lambda x: F.interpolate(x[None], size=(13, 9), mode="bicubic", align_corners=True),
    "upsample nearest": lambda x: F.interpolate(x[None], scale_factor=(2, 3)),
    "unfold": lambda x: F.unfold(x[None], (2, 3), padding=(0, 1), stride=(2, 3)),
    "fold": lambda x: F.fold(x.reshape(1, 8, 16), (5, 6), (2, 2), padding=(0, 1), stride=(1, 2)),
    "windows": lambda x: x.unfold(1, 4, 3),
    "windows of the last dimension": lambda x: x.unfold(-1, 5, 2),
    "select": lambda x: x[:, -1],
    "every second": lambda x: torch.cat([x[:, 0::2], x[:, 1::2]], 1),
    "every third, the last group short": lambda x: x[:, 1::3, ::2],
    "unbind": lambda x: sum(x.view(1, 8, 2, 8).unbind(2)),
    "split": lambda x: x.split([3, 13], -1)[1] + x.split(13, -1)[0],
    "chunk": lambda x: F.glu(x, -1),
    "roll": lambda x: torch.roll(x.view(1, 2, 4, 16), (-1, 1), (1, 2)),
    "flip": lambda x: x.flip(1),
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "elu": F.elu,
    "celu": lambda x: F.celu(x, 0.7),
    "selu": F.selu,
    "prelu": lambda x: F.prelu(x, W[:8, 0]),
    "softplus": F.softplus,
    "mish": F.mish,
    "hardsigmoid": F.hardsigmoid,
    "log_sigmoid": F.logsigmoid,
    "rrelu": F.rrelu,
    "cumsum": lambda x: x.cumsum(1),
    "cdist": lambda x: torch.cdist(x, W.T[None, :5] @ W @ W.T[:12]),
    "bilinear": lambda x: F.bilinear(x[:, 0], x[:, 1], W.reshape(3, 8, 8).repeat(1, 2, 2)),
    "fractional power": lambda x: (x * x + 0.1) ** 0.75,
    "power of a tensor": lambda x: (x * x + 0.1) ** W[:, 0].abs(),
    "new_zeros": lambda x: torch.cat([x.new_zeros(1, 8, 2), x, torch.ones_like(x), torch.full_like(x, 0.3)], 2),
    "assigned slices": lambda x: _assigned(x),
    "cube": lambda x: x**3,
    "inverse square root": lambda x: (x * x + 1) ** -0.5,
    "reciprocal": lambda x: 1 / (x * x + 1),
    "one minus": lambda x: 1 - x,
    "an integer": lambda x: x / 3 + 2,
    "lerp": lambda x: torch.lerp(x, x * x, 0.3),
    "addcmul": lambda x: torch.addcmul(x, x, x, value=2),
    "expm1": torch.expm1,
    "log1p": lambda x: torch.log1p(x * x),
    "clamp to a tensor": lambda x: x.clamp(min=x.mean(1, keepdim=True)),
    "masked_fill": lambda x: (x @ x.transpose(1, 2)).masked_fill(UPPER, float("-inf")).softmax(-1),
    "where": lambda x: torch.where(UPPER, torch.tensor(float("-inf")), x @ x.transpose(1, 2)).softmax(-1),
}


def _assigned(x):
    y = x.clone()
    y[:, 0] = 0
    y[:, 2:4] += 1.5
    y[:, :, 3] = x[:, :, 0]
    return y


# What the forms are made of. The operators and attentions below have every one of these, and are lowered.
TAKEN = {
    "_softmax.default", "_unsafe_view.default", "abs.default", "add.Tensor", "avg_pool2d.default", "bmm.default",
    "cat.default", "clamp.default", "clamp_min.default", "clone.default", "constant_pad_nd.default", "conv2d.default",
    "conv_transpose2d.input",
    "div.Tensor", "exp.default", "gelu.default", "glu.default", "layer_norm.default", "linear.default", "log.default",
    "max_pool2d.default", "maximum.default", "mean.dim", "mul.Tensor", "neg.default", "permute.default", "relu.default",
    "rsqrt.default", "sigmoid.default", "silu.default", "slice.Tensor", "sqrt.default", "stack.default", "sub.Tensor",
    "tanh.default", "transpose.int", "view.default",
}  # fmt: skip
LOWERED_OPERATORS = [
    "logsumexp", "softmax over another dimension", "cosine_similarity", "mish", "matmul 2-D", "adaptive_avg_pool2d",
    "chunk", "every third, the last group short", "gelu tanh", "inverse square root", "clamp to a tensor", "normalize",
    "masked_fill", "repeat", "amax", "unfold", "fold",
]  # fmt: skip
LOWERED_ATTENTIONS = ["multi-head, frozen", "relative positions", "rotary", "grouped, expand", "gated", "rms"]


class Applied(nn.Module):
    """Some of ``OPERATORS`` after a layer, side by side."""

    def __init__(self, names):
        super().__init__()
        self.linear, self.names = nn.Linear(16, 16), names

    def forward(self, x):
        y = self.linear(x)
        return torch.cat([OPERATORS[name](y).flatten(1) for name in self.names], 1)


def seeded(make):
    torch.manual_seed(3)
    return make().eval()


def rewritten(module, x):
    """What the module's forms compute, and of which operators they are."""
    with lowering_with("ExecuTorch"), torch.no_grad():
        forms = in_xnnpack_forms(module, x)
        called = [node for node in forms.graph.nodes if node.op == "call_function"]
        return forms(x), {str(node.target).removeprefix("aten.") for node in called}


@pytest.mark.parametrize("name", OPERATORS)
def test_a_form_computes_what_the_operator_does(name):
    module = seeded(functools.partial(Applied, [name]))
    output, operators = rewritten(module, X)
    with torch.no_grad():
        torch.testing.assert_close(output, module(X), rtol=2e-5, atol=2e-6)
    assert operators <= TAKEN


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_as_people_write_it_takes_such_forms(name):
    module = seeded(lambda: Block(ATTENTIONS[name](), post_norm=name < "m"))
    x = torch.randn(1, TOKENS, D, generator=torch.Generator().manual_seed(4))
    output, operators = rewritten(module, x)
    with torch.no_grad():
        torch.testing.assert_close(output, module(x), rtol=2e-5, atol=5e-6)
    assert operators <= TAKEN


def lowered(module, example, recipe="fp32", count=4, engine="executorch"):
    """How near the engine is to torch, and the operators."""
    samples = torch.randn(count, *example.shape[1:], generator=torch.Generator().manual_seed(2))
    part = converter_for(engine).lower(module, example, recipe=recipe, calibration=samples, allow_undelegated=False)
    with torch.no_grad():
        wanted = torch.cat([module(sample[None]) for sample in samples]).numpy()
    entry = PartEntry(
        file="part", size_bytes=len(part.program), sha256="0" * 64, input_shape=tuple(example.shape),
        output_shape=(1, *wanted.shape[1:]), macs=0,
    )  # fmt: skip
    loaded = open_engine(engine).load("part", part.program, entry)
    got = np.concatenate([loaded.run(sample[None].numpy()) for sample in samples])
    loaded.close()
    return compare(wanted, got).snr_db, part.operators


class Skip(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return x + self.body(x)


def operators_lowered():
    return Applied(LOWERED_OPERATORS)


def attentions_lowered():
    """Without norms in between the delegate is one, and made in a third of the time."""
    attentions = [Skip(ATTENTIONS[name]()) for name in LOWERED_ATTENTIONS]
    return nn.Sequential(*attentions, Block(Timm(), post_norm=True), AttentionPool(), nn.Linear(D, 5, bias=False))


def test_what_forms_are_made_of_is_all_lowered_below():
    _, first = rewritten(seeded(operators_lowered), X)
    _, second = rewritten(seeded(attentions_lowered), torch.zeros(1, TOKENS, D))
    assert first | second == TAKEN


def test_forms_are_delegated():
    snr_db, operators = lowered(seeded(operators_lowered), X)
    assert set(operators) == {"XnnpackBackend"}
    assert snr_db > 100


def test_attention_is_delegated_but_for_layer_norm():
    snr_db, operators = lowered(seeded(attentions_lowered), torch.zeros(1, TOKENS, D))
    assert set(operators) == {"XnnpackBackend", "aten::native_layer_norm.out"}
    assert snr_db > 100


class Stems(nn.Module):
    def __init__(self):
        super().__init__()
        norms = (nn.BatchNorm2d, functools.partial(nn.GroupNorm, 4), nn.InstanceNorm2d)
        self.convolutions = nn.ModuleList(convolutions(norm) for norm in norms)
        self.tokens = nn.ModuleList([Tokens(), Tokens(registers=3)])

    def forward(self, x):
        maps = [stem(x) for stem in self.convolutions]
        pooled = [F.adaptive_avg_pool2d(m, 1).flatten(1) + m.mean((2, 3)) + m.amax((2, 3)) + m.mean() for m in maps]
        return torch.cat([*pooled, *(tokens(x).flatten(1) for tokens in self.tokens)], 1)


def test_stems_are_delegated():
    snr_db, operators = lowered(seeded(Stems), torch.zeros(1, 3, 16, 16))
    assert set(operators) == {"XnnpackBackend"}
    assert snr_db > 100


def test_integers_and_half_precision_take_the_same_forms():
    for recipe in ("int8-dynamic", "fp16"):
        snr_db, operators = lowered(seeded(lambda: Block(Timm())), torch.zeros(1, TOKENS, D), recipe)
        assert "aten::expand_copy.out" not in operators
        assert snr_db > 25


class Pooled(nn.Module):
    """What the quantizer would find by its module, and stop at: the forms are other operators."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.steps, self.head = nn.GRU(8, 8, batch_first=True), nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.steps(self.body(x)[:, None])[0][:, -1])


@pytest.mark.parametrize("recipe", ["int8-dynamic", "int8-static"])
def test_pools_and_recurrent_layers_are_quantized(recipe):
    snr_db, operators = lowered(seeded(Pooled), torch.zeros(1, 3, 12, 12), recipe, count=16)
    assert set(operators) == {"XnnpackBackend"}
    assert snr_db > 25


def test_litert_takes_the_forms_of_what_its_converter_refuses_or_makes_graphs_of():
    names = ["local_response_norm", "adaptive_max_pool2d, overlapping", "avg_pool2d, ceil_mode, padded"]
    snr_db, _ = lowered(seeded(lambda: Applied(names)), X, engine="litert")
    assert snr_db > 100


class Undelegated(nn.Module):
    def forward(self, x):
        return torch.topk(x, 3, dim=1)[0]


class Unknown(nn.Module):
    def forward(self, x):
        return torch.fft.fft(torch.fft.fft(x)).real


class Chooses(nn.Module):
    def forward(self, x):
        return x if x.mean() > 0 else -x


class Nested(nn.Module):
    def __init__(self, last=Undelegated):
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(6, 6), last())

    def forward(self, x):
        return self.blocks(x)


def place_of(module, code):
    line = inspect.getsourcelines(module)[1] + 2
    return rf" \(blocks\.1, .*test_xnnpack_forms\.py:{line}: return {code}\)"


def test_what_is_left_is_named_with_module_line_and_what_to_write_instead():
    expected = (
        rf"does not support aten\.topk\.default ×1{place_of(Undelegated, 'torch.topk.*')}: "
        "leave the choice to the program that reads the output; "
        "or accept slower portable kernels with --allow-undelegated"
    )
    with pytest.raises(ConversionError, match=expected):
        lowered(Nested().eval(), torch.randn(1, 6))


def test_what_executorch_does_not_know_is_named_likewise():
    expected = rf"ExecuTorch has no aten\._fft\w+{place_of(Unknown, '.*')}: write it as a product"
    with pytest.raises(ConversionError, match=expected):
        lowered(Nested(Unknown).eval(), torch.randn(1, 6))


@pytest.mark.parametrize("engine", ["executorch", "litert", "onnxruntime"])
def test_what_no_program_can_do_is_named_on_every_engine(engine):
    expected = rf"failed{place_of(Chooses, 'x if x.mean.*')}: which way it goes depends on the input's values"
    with pytest.raises(ConversionError, match=expected):
        converter_for(engine).lower(
            Nested(Chooses).eval(), torch.randn(1, 6), recipe="fp32", calibration=torch.zeros(0, 6),
            allow_undelegated=False,
        )  # fmt: skip

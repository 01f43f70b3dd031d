"""The parity gate names the part that is off and lets nothing through that is not near."""

import numpy as np
import pytest

from paraedge_converters.parity import Reference, check_parity
from paraedge_converters.recipes import RECIPES, finer_recipes
from paraedge_runtime.errors import EngineError, ParityError
from paraedge_runtime.tolerances import least_agreement

RNG = np.random.default_rng(3)
N = 40
INPUTS = RNG.normal(size=(N, 1, 4, 4)).astype(np.float32)
TOKENS = RNG.normal(size=(N, 5, 2)).astype(np.float32)
OUTPUTS = RNG.normal(size=(N, 2, 3)).astype(np.float32)
REFERENCE = Reference(INPUTS, TOKENS, OUTPUTS)


class Replay:
    """Returns recorded outputs, looked up by input, after ``change``."""

    def __init__(self, inputs, outputs, change=lambda y: y):
        self._table = {x.tobytes(): y for x, y in zip(inputs, outputs, strict=True)}
        self._change = change

    def run(self, x):
        return self._change(self._table[x[0].tobytes()].copy())[None]

    def close(self):
        pass


def gate(stem=lambda y: y, first=lambda y: y, second=lambda y: y, fused=None):
    parts = {
        "stem": Replay(INPUTS, TOKENS, stem),
        "branch_00": Replay(TOKENS, OUTPUTS[:, 0], first),
        "branch_04": Replay(TOKENS, OUTPUTS[:, 1], second),
    }
    if fused is not None:
        parts["fused"] = Replay(INPUTS, OUTPUTS.sum(axis=1, dtype=np.float32), fused)
    return check_parity(REFERENCE, parts, RECIPES["fp32"].tolerance)


def test_equal_outputs_pass_and_are_reported():
    parity, parts, _ = gate(fused=lambda y: y)
    assert list(parts) == ["stem", "branch_00", "branch_04"]
    assert all(similarity.snr_db is None for similarity in parts.values())
    assert [prefix.top1_agreement for prefix in parity.prefixes] == [1.0, 1.0]
    assert parity.num_samples == N


def test_rounding_passes():
    _, parts, _ = gate(first=lambda y: y * np.float32(1 + 1e-6))
    assert 115 < parts["branch_00"].snr_db < 125


def raise_engine_error(y):
    raise EngineError("no such operator")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first": lambda y: y * np.nan}, "branch_00: the engine's output has 120 values that are not finite"),
        ({"second": lambda y: y * 0}, "branch_04: the engine's output is all zero"),
        ({"stem": lambda y: y * 0}, "KeyError"),
        ({"second": lambda y: y * np.float32(1.001)}, r"branch_04: SNR against torch is 60\.\d+ dB"),
        ({"first": lambda y: -y}, "branch_00: SNR against torch is -6"),
        ({"first": raise_engine_error}, "a lowered part fails: no such operator"),
        ({"fused": lambda y: y + 1}, "the fused model: SNR"),
    ],
    ids=["nan", "zero", "stem off", "scaled", "sign", "raises", "fused"],
)
def test_what_is_off_is_named(changes, message):
    if message == "KeyError":  # the recorded branches do not know the wrong tokens: a real engine would go on
        with pytest.raises(KeyError):
            gate(**changes)
        return
    with pytest.raises(ParityError, match=message):
        gate(**changes)


def test_labels_must_agree_even_where_the_noise_is_small():
    outputs = OUTPUTS.copy()
    outputs[0, 0] = [1.0, 1.0 + 1e-7, -1.0]  # a near tie that rounding may turn over
    reference = Reference(INPUTS, TOKENS, outputs)

    def turn(y):
        return np.array([1.0 + 2e-7, 1.0, -1.0], dtype=np.float32) if abs(y[0] - y[1]) < 1e-6 else y

    parts = {
        "stem": Replay(INPUTS, TOKENS),
        "branch_00": Replay(TOKENS, outputs[:, 0], turn),
        "branch_04": Replay(TOKENS, outputs[:, 1]),
    }
    with pytest.raises(ParityError, match=r"the first branch gives the same label on 97\.50 %"):
        check_parity(reference, parts, RECIPES["fp32"].tolerance)


@pytest.mark.parametrize(
    ("share", "count", "changed"),
    [
        (1.0, 256, 0),  # where all must agree, chance excuses nothing
        (1.0, 1, 0),
        (0.99, 256, 5),
        (0.98, 256, 9),
        (0.95, 256, 19),
        (0.99, 1, 0),
        (0.99, 10_000, 117),
    ],
)
def test_so_many_labels_may_change_by_chance(share, count, changed):
    """The first count refused is the first that less than 5 of 100 draws of the inputs would reach."""
    assert least_agreement(share, count) == (count - changed) / count
    rng = np.random.default_rng(0)
    draws = rng.binomial(count, 1 - share, 200_000)
    assert (draws > changed).mean() <= 0.051
    assert changed == 0 or (draws >= changed).mean() > 0.049


@pytest.mark.parametrize(("turned", "passes"), [(5, True), (6, False)])
def test_the_gate_lets_through_what_256_inputs_cannot_tell_from_enough(turned, passes):
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(256, 1, 4, 4)).astype(np.float32)
    tokens = rng.normal(size=(256, 5, 2)).astype(np.float32)
    outputs = rng.normal(scale=10, size=(256, 1, 3)).astype(np.float32)
    close = rng.permutation(256)[:turned]
    outputs[close, 0] = [1.0, 1.01, -1.0]
    changed = {tokens[number].tobytes() for number in close}

    class Turning(Replay):
        def run(self, x):
            y = super().run(x)
            return y[:, [1, 0, 2]] if x[0].tobytes() in changed else y

    parts = {"stem": Replay(inputs, tokens), "branch_00": Turning(tokens, outputs[:, 0])}
    reference = Reference(inputs, tokens, outputs)
    if passes:
        parity, _, _ = check_parity(reference, parts, RECIPES["int8-dynamic"].tolerance)
        assert parity.prefixes[0].top1_agreement == parity.thresholds.min_top1_agreement == 251 / 256
        return
    with pytest.raises(
        ParityError, match=r"on 97\.66 % of the inputs, below 98\.05 % \(the limit for 99 % on 256 inputs\)"
    ):
        check_parity(reference, parts, RECIPES["int8-dynamic"].tolerance)


@pytest.mark.parametrize(
    ("name", "converter", "finer"),
    [
        ("fp32", "litert", ()),
        ("fp16", "litert", ("fp16+fp32-stem",)),
        ("fp16+fp32-stem", "litert", ()),
        ("int8-dynamic", "executorch", ("int8-dynamic+fp32-stem", "fp16", "fp16+fp32-stem")),
        ("int8-static", "tflite-micro", ("int8-static+fp32-stem",)),
        ("int8-weight+fp32-stem", "onnxruntime", ("fp16", "fp16+fp32-stem")),
    ],
)
def test_finer_recipes_are_those_that_the_converter_has(name, converter, finer):
    assert finer_recipes(name, converter) == finer

"""The parity gate names the part that is off and lets nothing through that is not near."""

import numpy as np
import pytest

from paraedge_converters.parity import Reference, check_parity
from paraedge_converters.recipes import RECIPES
from paraedge_runtime.errors import EngineError, ParityError

RNG = np.random.default_rng(3)
N = 40
INPUTS = RNG.normal(size=(N, 1, 4, 4)).astype(np.float32)
TOKENS = RNG.normal(size=(N, 5, 2)).astype(np.float32)
OUTPUTS = RNG.normal(size=(N, 2, 3)).astype(np.float32)
REFERENCE = Reference(INPUTS, TOKENS, OUTPUTS)


class Replay:
    """Answers with recorded outputs, looked up by input, after ``change``."""

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
        ({"first": raise_engine_error}, "does not run: no such operator"),
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
    with pytest.raises(ParityError, match=r"first 1 branch\(es\) together gives the same label on 97\.50 %"):
        check_parity(reference, parts, RECIPES["fp32"].tolerance)

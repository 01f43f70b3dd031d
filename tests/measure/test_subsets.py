"""Choices of branches beside the first ones: on the logits that come with the packaged models, and by each rule."""

import numpy as np
import pytest

from paraedge.model.arrays import read_evaluation
from paraedge.model.records import CheckpointConfig, read_json
from paraedge.packaged import resolve_checkpoint
from paraedge_measure.evaluation import Evaluation
from paraedge_measure.subsets import worthwhile
from paraedge_runtime import InputError


def packaged(name):
    folder = resolve_checkpoint(name)
    return read_evaluation(folder, read_json(folder / "config.json", CheckpointConfig).model)


def prefixes_of(evaluation):
    return [tuple(range(count)) for count in range(1, len(evaluation.branch_logits) + 1)]


@pytest.mark.parametrize(
    ("model", "branch_ms", "expected"),
    [
        # Branches of 14, 14, 29 and 102 M multiply-adds; the largest is more accurate alone than the others together.
        ("cifar10", (14, 14, 29, 102), {(3,), (1, 3), (0, 1, 3)}),
        # If they cost the same, it is the first to run.
        ("cifar10", (9, 9, 9, 9), {(3,), (1, 3), (0, 1, 3)}),
        # By what they cost, nothing is better than the first ones, whatever differs by chance.
        ("fashion-mnist", (20, 29, 39, 52, 66, 99, 139, 186), set()),
        # Here that would be the last but one.
        ("fashion-mnist", (9, 9, 9, 9, 9, 9, 9, 9), {(6,)}),
        ("fashion-mnist", (9.2, 9, 9.1, 9, 9, 9, 8.9, 9), {(6,)}),
    ],
)
def test_packaged_models(model, branch_ms, expected):
    evaluation = packaged(model)
    found = worthwhile(evaluation, lambda positions: sum(branch_ms[place] for place in positions))
    prefixes = prefixes_of(evaluation)
    assert set(found) - set(prefixes) == expected
    # Half of the images chose; the accuracy is on the others, of prefixes too.
    judging = Evaluation(evaluation.branch_logits[:, 1::2], evaluation.labels[1::2])
    assert [found[prefix] for prefix in prefixes] == list(judging.prefix_accuracy())
    for positions in expected:
        assert found[positions] == judging.prefix_accuracy(positions)[-1]


def of(*shares):
    """Branches that get this share of 400 images right, the first ones; in a sum the better branch decides."""
    logits = np.zeros((len(shares), 400, 2), dtype=np.float32)
    for branch, share in enumerate(shares):
        right = np.arange(400) < share * 400
        logits[branch, right, 1] = logits[branch, ~right, 0] = 1 + share
    return Evaluation(logits, np.ones(400, dtype=np.int64))


@pytest.mark.parametrize(
    ("shares", "branch_ms", "expected"),
    [
        pytest.param((0.7, 0.9), (1.0, 1.0), {(1,)}, id="better in the same time"),
        pytest.param((0.7, 0.9), (1.0, 3.0), {(1,)}, id="slower than the first, but as good as both"),
        pytest.param((0.7, 0.9), (0.1, 3.0), set(), id="as good as both, and hardly faster"),
        pytest.param((0.7, 0.9), (1.0, 0.97), {(1,)}, id="better and faster"),
        pytest.param((0.9, 0.7), (1.0, 0.97), set(), id="worse, and faster by less than is known"),
        pytest.param((0.9, 0.7), (1.0, 0.5), {(1,)}, id="worse and much faster: no prefix is there"),
        pytest.param((0.9, 0.905), (1.0, 1.0), set(), id="better by one of 200"),
    ],
)
def test_rules(shares, branch_ms, expected):
    evaluation = of(*shares)
    found = worthwhile(evaluation, lambda positions: sum(branch_ms[place] for place in positions))
    assert set(found) - set(prefixes_of(evaluation)) == expected


def test_what_flattered_itself_by_chance_is_not_listed():
    """Of many branches that guess, the luckiest on the images that choose is as good as any on the others."""
    rng = np.random.default_rng(0)
    evaluation = Evaluation(rng.normal(size=(12, 2000, 10)).astype(np.float32), rng.integers(0, 10, 2000))
    assert list(worthwhile(evaluation, lambda positions: float(len(positions)))) == prefixes_of(evaluation)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images(count):
    with pytest.raises(InputError, match=rf"at least 2 labelled images, got {count}"):
        worthwhile(Evaluation(np.zeros((2, count, 3), np.float32), np.zeros(count, np.int64)), len)

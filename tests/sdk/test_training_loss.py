"""Tests of paraedge.training.loss: prefixes of branches, and the loss of all of them against a plain loop."""

import pytest
import torch
import torch.nn.functional as F

from paraedge.training import prefix_sums, prefix_weights, progressive_loss
from paraedge.training.loss import branch_loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(
    "weights",
    [
        pytest.param(None, id="equal"),
        pytest.param((1.0, 2.0, 3.0), id="rising"),
        pytest.param((0.0, 0.0, 5.0), id="last-only"),
    ],
)
def test_loss_equals_a_plain_loop_over_prefixes(weights, smoothing):
    torch.manual_seed(0)
    logits = torch.randn(3, 7, 5) * 3
    labels = torch.randint(0, 5, (7,))
    shares = [value / sum(weights or (1, 1, 1)) for value in weights or (1, 1, 1)]
    expected = sum(
        share * F.cross_entropy(logits[index], labels, label_smoothing=smoothing) for index, share in enumerate(shares)
    )
    loss = progressive_loss(logits, labels, prefix_weights(3, weights), label_smoothing=smoothing)
    assert loss.shape == ()
    torch.testing.assert_close(loss, expected)


def test_gradient_of_the_loss_equals_that_of_a_plain_loop():
    torch.manual_seed(0)
    contributions = torch.randn(4, 6, 3, requires_grad=True)
    labels = torch.randint(0, 3, (6,))
    weights = prefix_weights(4, (4.0, 3.0, 2.0, 1.0))
    (fast,) = torch.autograd.grad(progressive_loss(contributions.cumsum(0), labels, weights), contributions)
    loop = sum(weight * F.cross_entropy(contributions[: k + 1].sum(0), labels) for k, weight in enumerate(weights))
    (slow,) = torch.autograd.grad(loop, contributions)
    torch.testing.assert_close(fast, slow)


def test_logits_in_bfloat16_are_summed_in_float32():
    torch.manual_seed(0)
    logits = torch.randn(2, 8, 10).bfloat16()
    labels = torch.arange(8)
    loss = progressive_loss(logits, labels, prefix_weights(2, None))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, progressive_loss(logits.float(), labels, prefix_weights(2, None)))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        pytest.param(None, (0.25, 0.25, 0.25, 0.25), id="none-is-equal"),
        pytest.param((1.0, 1.0, 1.0, 1.0), (0.25, 0.25, 0.25, 0.25), id="ones"),
        pytest.param((1.0, 2.0, 3.0, 4.0), (0.1, 0.2, 0.3, 0.4), id="rising"),
        pytest.param((0.0, 0.0, 0.0, 0.01), (0.0, 0.0, 0.0, 1.0), id="last-only"),
    ],
)
def test_prefix_weights_sum_to_1(weights, expected):
    torch.testing.assert_close(prefix_weights(4, weights), torch.tensor(expected))


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0, 1.0), ()], ids=["too-few", "too-many", "none"])
def test_prefix_weights_of_another_number_of_branches_are_refused(weights):
    with pytest.raises(ValueError, match=f"prefix_weights has {len(weights)} values, the model has 2 branches"):
        prefix_weights(2, weights)


def test_prefix_sums_are_sums():
    branches = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    sums = prefix_sums(branches)
    for count in range(1, 5):
        torch.testing.assert_close(sums[count - 1], branches[:count].sum(dim=0))


def test_class_indexes_and_their_one_hot_targets_give_the_same_loss():
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 6, 4), torch.randint(0, 4, (6,))
    by_index, by_share = (
        progressive_loss(logits, targets, prefix_weights(3, None), label_smoothing=0.1)
        for targets in (labels, F.one_hot(labels, 4).float())
    )
    torch.testing.assert_close(by_index, by_share)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_prefixes_are_divided_by_their_number_of_branches_to_the_power(power):
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 7, 5), torch.randint(0, 5, (7,))
    divided = logits / torch.tensor([1.0, 2.0, 3.0])[:, None, None] ** power
    weights = prefix_weights(3, None)
    torch.testing.assert_close(
        progressive_loss(logits, labels, weights, temperature_power=power),
        progressive_loss(divided, labels, weights),
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_branch_loss_is_the_mean_of_the_branches_each_alone(smoothing):
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 7, 5), torch.randint(0, 5, (7,))
    expected = sum(F.cross_entropy(branch, labels, label_smoothing=smoothing) for branch in logits) / 3
    torch.testing.assert_close(branch_loss(logits, labels, smoothing), expected)
    torch.testing.assert_close(branch_loss(logits, F.one_hot(labels, 5).float(), smoothing), expected)

"""Tests of paraedge.training.loss: the loss of all prefixes against a plain loop."""

import pytest
import torch
import torch.nn.functional as F

from paraedge.training import prefix_weights, progressive_loss


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
    loss = progressive_loss(logits, labels, prefix_weights(3, weights), smoothing)
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

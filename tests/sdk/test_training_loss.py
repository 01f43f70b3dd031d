"""Tests of paraedge.training.loss: prefixes of branches, and the loss of all of them against a plain loop."""

import pytest
import torch
import torch.nn.functional as F

from paraedge.training import prefix_sums, prefix_weights, progressive_loss
from paraedge.training.loss import branch_loss, shuffle_branches


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(
    "weights",
    [
        pytest.param(None, id="equal"),
        pytest.param((1.0, 2.0, 3.0), id="rising"),
        pytest.param((0.0, 0.0, 5.0), id="last-only"),
    ],
)
def test_loss_equals_a_plain_loop_over_prefixes(make, weights, smoothing):
    torch.manual_seed(0)
    logits = torch.randn(3, 7, 5) * 3
    labels = torch.randint(0, 5, (7,))
    shares = [value / sum(weights or (1, 1, 1)) for value in weights or (1, 1, 1)]
    expected = sum(
        share * F.cross_entropy(logits[index], labels, label_smoothing=smoothing) for index, share in enumerate(shares)
    )
    loss = progressive_loss(logits, labels, prefix_weights(3, weights), make.training(label_smoothing=smoothing))
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


def test_class_indexes_and_their_one_hot_targets_give_the_same_loss(make):
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 6, 4), torch.randint(0, 4, (6,))
    config = make.training(label_smoothing=0.1, distillation_weight=0.3, distillation_temperature=2.0)
    by_index, by_share = (
        progressive_loss(logits, targets, prefix_weights(3, None), config)
        for targets in (labels, F.one_hot(labels, 4).float())
    )
    torch.testing.assert_close(by_index, by_share)


@pytest.mark.parametrize("earlier_gradient", [0.0, 0.3, 1.0], ids=["boosting", "between", "joint"])
def test_prefix_sums_are_sums_and_send_earlier_branches_their_share_of_the_gradient(earlier_gradient):
    torch.manual_seed(0)
    branches = torch.randn(4, 5, 3, requires_grad=True)
    sums = prefix_sums(branches, earlier_gradient)
    torch.testing.assert_close(sums, branches.cumsum(0))
    for prefix in range(4):
        (gradient,) = torch.autograd.grad(sums[prefix].sum(), branches, retain_graph=True)
        expected = [earlier_gradient] * prefix + [1.0] + [0.0] * (3 - prefix)
        torch.testing.assert_close(gradient.mean(dim=(1, 2)), torch.tensor(expected))


def test_boosting_leaves_a_branch_alone_that_later_prefixes_use(make):
    """Branch 0 learns from its own answer only: another branch 2 changes nothing for it."""
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (6,))
    gradients = []
    for scale in (1.0, 5.0):
        torch.manual_seed(1)
        branches = torch.randn(3, 6, 3)
        branches[2] *= scale
        branches.requires_grad_()
        loss = progressive_loss(prefix_sums(branches, 0.0), labels, prefix_weights(3, None))
        gradients.append(torch.autograd.grad(loss, branches)[0])
    assert torch.equal(gradients[0][:2], gradients[1][:2])
    assert not torch.equal(gradients[0][2], gradients[1][2])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_shuffled_branches_are_the_same_ones_per_image_with_the_first_in_front(share):
    num_branches, batch = 4, 400
    branches = torch.arange(num_branches * batch, dtype=torch.float32).reshape(num_branches, batch, 1)
    shuffled = shuffle_branches(branches, share, torch.Generator().manual_seed(0))
    assert torch.equal(shuffled[0], branches[0])
    assert torch.equal(shuffled.sort(dim=0).values, branches)
    moved = (shuffled != branches).any(dim=0).float().mean()
    assert abs(float(moved) - share * 5 / 6) < 0.08  # one of the 6 orders of 3 branches is the given one
    if share:
        orders = {tuple((column // batch).long().tolist()) for column in shuffled[:, :, 0].T}
        assert len(orders) == 6


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_prefixes_are_divided_by_their_number_of_branches_to_the_power(make, power):
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 7, 5), torch.randint(0, 5, (7,))
    divided = logits / torch.tensor([1.0, 2.0, 3.0])[:, None, None] ** power
    weights = prefix_weights(3, None)
    torch.testing.assert_close(
        progressive_loss(logits, labels, weights, make.training(prefix_temperature_power=power)),
        progressive_loss(divided, labels, weights),
    )


@pytest.mark.parametrize(("weight", "temperature"), [(0.5, 1.0), (1.0, 3.0)])
def test_distillation_pulls_prefixes_to_the_answer_of_all_branches_and_leaves_that_alone(make, weight, temperature):
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 7, 5, requires_grad=True), torch.randint(0, 5, (7,))
    config = make.training(distillation_weight=weight, distillation_temperature=temperature)
    weights = prefix_weights(3, (1.0, 2.0, 3.0))
    expected = 0.0
    teacher = logits[-1].detach()
    for index, share in enumerate(weights):
        hard = F.cross_entropy(logits[index], labels)
        soft = F.cross_entropy(logits[index] / temperature, (teacher / temperature).softmax(1)) * temperature**2
        expected = expected + share * (hard if index == 2 else (1 - weight) * hard + weight * soft)
    loss = progressive_loss(logits, labels, weights, config)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, logits)
    (plain,) = torch.autograd.grad(0.5 * F.cross_entropy(logits[-1], labels), logits)
    torch.testing.assert_close(gradient[-1], plain[-1])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_branch_loss_is_the_mean_of_the_branches_each_alone(smoothing):
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 7, 5), torch.randint(0, 5, (7,))
    expected = sum(F.cross_entropy(branch, labels, label_smoothing=smoothing) for branch in logits) / 3
    torch.testing.assert_close(branch_loss(logits, labels, smoothing), expected)
    torch.testing.assert_close(branch_loss(logits, F.one_hot(labels, 5).float(), smoothing), expected)

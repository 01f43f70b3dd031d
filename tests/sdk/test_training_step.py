"""Tests of paraedge.training.step: a step on the CPU against torch written out; on a GPU, its graph against that."""

import copy

import pytest
import torch
import torch.nn.functional as F

from paraedge.model import ParaFormer
from paraedge.training.batches import normalise
from paraedge.training.step import TrainingStep, _parameter_groups
from paraedge.training.teacher import Teacher


@pytest.fixture
def batch(digits):
    return torch.from_numpy(digits.train.images[:32]), torch.eye(10)[torch.from_numpy(digits.train.labels[:32])]


def _step(make, device="cpu", **changes):
    torch.manual_seed(0)
    step = TrainingStep(ParaFormer(make.model()), make.training(**changes), torch.device(device))
    step.start_epoch(0)
    return step


def _parameters(model):
    return torch.cat([parameter.detach().cpu().flatten() for parameter in model.parameters()])


def test_step_is_adamw_on_the_mean_of_the_prefix_losses(make, batch):
    images, targets = batch
    step = _step(make, weight_decay=0.0, clip_norm=1e9)
    plain = copy.deepcopy(step.model).train()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3, weight_decay=0.0)
    losses = []
    for _ in range(3):
        step(images, targets, 1e-3)
        prefixes = plain.prefix_logits(normalise(images, plain.config))
        loss = torch.stack([F.cross_entropy(prefix, targets) for prefix in prefixes]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    torch.testing.assert_close(_parameters(step.model), _parameters(plain), atol=1e-5, rtol=1e-4)
    assert step.loss == pytest.approx(sum(losses) / 3, rel=1e-5)
    assert len(step.prefix_accuracy) == 2
    assert all(0 <= accuracy <= 1 for accuracy in step.prefix_accuracy)


def test_branch_weight_mixes_the_loss_of_the_prefixes_with_that_of_the_branches_alone(make, batch):
    images, targets = batch
    losses = {}
    for weight in (0.0, 0.25, 1.0):
        step = _step(make, branch_weight=weight, label_smoothing=0.1)
        step(images, targets, 0.0)
        losses[weight] = step.loss
    branches = _step(make).model.train().branch_logits(normalise(images, step.model.config))
    alone = torch.stack([F.cross_entropy(branch, targets, label_smoothing=0.1) for branch in branches]).mean()
    assert losses[1.0] == pytest.approx(alone.item(), rel=1e-5)
    assert losses[0.25] == pytest.approx(0.75 * losses[0.0] + 0.25 * losses[1.0], rel=1e-5)


def test_a_teachers_answer_is_its_share_of_the_targets(make, batch):
    images, targets = batch
    plain = _step(make)
    network = copy.deepcopy(plain.model).eval()
    teacher = Teacher(network, mean=(0.3,), std=(0.7,))  # it wants its images otherwise than the pupil
    with torch.no_grad():
        prediction = network(normalise(images, teacher)).softmax(dim=1)
    expected = _step(make)
    expected(images, torch.lerp(targets, prediction, 0.25), 0.0)
    model = _step(make).model
    config = make.training(teacher_weight=0.25)
    step = TrainingStep(model, config, torch.device("cpu"), teacher=teacher)
    step.start_epoch(0)
    step(images, targets, 1e-2)
    assert step.loss == pytest.approx(expected.loss, rel=1e-5)
    untaught = _step(make)
    untaught(images, targets, 0.0)
    assert abs(step.loss - untaught.loss) > 1e-4
    torch.testing.assert_close(_parameters(network), _parameters(plain.model))  # the teacher learns nothing


def test_moving_average_follows_weights_and_running_statistics(make, batch):
    step = _step(make, ema_decay=0.75)
    expected = {name: tensor.clone() for name, tensor in step.model.state_dict().items() if tensor.is_floating_point()}
    for _ in range(4):
        step(*batch, 1e-2)
        state = step.model.state_dict()
        expected = {name: 0.75 * tensor + 0.25 * state[name] for name, tensor in expected.items()}
    assert step.trained is step.average
    average = step.average.state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(average[name], tensor, msg=name)


@pytest.mark.parametrize(("decay", "num_steps", "expected"), [(0.999, 20, 0.5), (0.999, 5, 0.0), (0.75, 400, 0.75)])
def test_a_short_training_averages_over_a_tenth_of_its_steps(make, batch, decay, num_steps, expected):
    step = _step(make, ema_decay=decay)
    before = _parameters(step.model)
    step.expect_steps(num_steps)
    step(*batch, 1e-2)
    torch.testing.assert_close(_parameters(step.average), torch.lerp(_parameters(step.model), before, expected))


def test_without_a_moving_average_the_last_weights_are_kept(make):
    step = _step(make)
    assert step.trained is step.model


def test_positions_of_the_branches_have_no_weight_decay(make):
    model = ParaFormer(make.model(stem_stride=4, branch_width=4))
    free = {id(parameter) for parameter in _parameter_groups(model, make.training(weight_decay=0.1))[1]["params"]}
    positions = [parameter for name, parameter in model.named_parameters() if name.endswith("positions")]
    assert len(positions) == 2
    assert all(id(parameter) in free for parameter in positions)


def test_norms_biases_and_positions_have_no_weight_decay(trained, make):
    model = trained.checkpoint.model
    decayed, free = _parameter_groups(model, make.training(weight_decay=0.1))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert len(decayed["params"]) + len(free["params"]) == len(names)
    assert "stem.positions" in {names[id(parameter)] for parameter in free["params"]}
    assert all(parameter.ndim == 1 or names[id(parameter)] == "stem.positions" for parameter in free["params"])
    assert {"branches.0.classifier.weight", "branches.1.blocks.1.key_weight"} <= {
        names[id(parameter)] for parameter in decayed["params"]
    }


def test_means_start_again_with_every_epoch(make, batch):
    step = _step(make)
    step(*batch, 0.0)
    first = step.loss
    step(*batch, 0.0)
    step.start_epoch(1)
    step(*batch, 0.0)
    assert step.loss == pytest.approx(first, rel=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("changes", [{}, {"branch_weight": 0.5}])
def test_graph_computes_what_the_kernels_one_by_one_compute(make, batch, monkeypatch, changes):
    results = []
    for before in (3, 10**9):
        monkeypatch.setattr("paraedge.training.step._STEPS_BEFORE_GRAPH", before)
        step = _step(make, "cuda", ema_decay=0.9, **changes)
        for size in (32, 32, 32, 32, 20, 32):  # one of another size goes without the graph
            step(batch[0][:size], batch[1][:size], 1e-3)
        results.append((step.loss, _parameters(step.trained)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-4)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-4, rtol=1e-3)

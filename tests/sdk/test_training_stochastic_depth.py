"""Tests of paraedge.training.stochastic_depth: how much is skipped where, and nothing outside training."""

import copy

import pytest
import torch

from paraedge.model import ParaFormer
from paraedge.training.batches import normalise
from paraedge.training.step import TrainingStep
from paraedge.training.stochastic_depth import add_stochastic_depth

IMAGES = 4000


def _model(make, rate):
    torch.manual_seed(0)
    plain = ParaFormer(make.model(branch_depth=(3, 1)))
    model = copy.deepcopy(plain)
    generator = torch.Generator().manual_seed(0)
    add_stochastic_depth(model, rate, generator)
    return plain, model, generator


@pytest.mark.parametrize(("branch", "block", "share"), [(0, 0, 0.1), (0, 1, 0.2), (0, 2, 0.3), (1, 0, 0.3)])
@pytest.mark.parametrize("path", ["proj", "mlp"])
def test_a_paths_share_of_images_is_skipped_and_the_mean_stays(make, branch, block, share, path):
    plain, model, _ = _model(make, 0.3)
    tokens = torch.randn(IMAGES, 1, plain.config.embed_dim, generator=torch.Generator().manual_seed(1))
    whole = getattr(plain.branches[branch].blocks[block], path)(tokens)
    found = getattr(model.train().branches[branch].blocks[block], path)(tokens)
    skipped = (found == 0).all(dim=(1, 2))
    assert skipped.float().mean().item() == pytest.approx(share, abs=4 * (share * (1 - share) / IMAGES) ** 0.5)
    torch.testing.assert_close(found[~skipped], whole[~skipped] / (1 - share))


def test_nothing_is_skipped_in_evaluation_nor_drawn(make, digits):
    plain, model, generator = _model(make, 0.5)
    images = normalise(torch.from_numpy(digits.test.images[:32]), plain.config)
    before = generator.get_state()
    torch.testing.assert_close(model.eval().prefix_logits(images), plain.eval().prefix_logits(images), rtol=0, atol=0)
    assert torch.equal(generator.get_state(), before)
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_a_step_learns_with_it_and_the_average_stays_whole(make, digits):
    images, labels = torch.from_numpy(digits.train.images[:64]), torch.from_numpy(digits.train.labels[:64])
    losses = []
    for rate in (0.0, 0.9):
        torch.manual_seed(0)
        config = make.training(stochastic_depth=rate, ema_decay=0.5)
        step = TrainingStep(ParaFormer(make.model()), config, torch.device("cpu"))
        step.start_epoch(0)
        for _ in range(3):
            step(images, torch.eye(10)[labels], 1e-3)
        losses.append(step.loss)
        inputs = normalise(images, step.trained.config)
        assert torch.equal(step.trained.train()(inputs), step.trained(inputs))  # it has no hooks
    assert abs(losses[1] - losses[0]) > 1e-5

"""Tests of benchmarks/stochastic_depth.py: how much is skipped where, and nothing outside training."""

import copy
import importlib
from pathlib import Path

import pytest
import torch

from paraedge.data import load_dataset
from paraedge.model import ParaFormer, ParaFormerConfig
from paraedge.training.batches import normalise

IMAGES = 4000
SHAPE = ParaFormerConfig(
    image_size=8, in_channels=1, num_classes=10, embed_dim=16, num_heads=2, mlp_ratio=2.0, num_branches=2,
    branch_depth=(3, 1), stem_stride=2, mean=(0.3,), std=(0.4,),
)  # fmt: skip


@pytest.fixture
def experiments(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("experiments")


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def _model(experiments, rate):
    torch.manual_seed(0)
    plain = ParaFormer(SHAPE)
    model = copy.deepcopy(plain)
    generator = torch.Generator().manual_seed(0)
    experiments.add_stochastic_depth(model, rate, generator)
    return plain, model, generator


@pytest.mark.parametrize(("branch", "block", "share"), [(0, 0, 0.1), (0, 1, 0.2), (0, 2, 0.3), (1, 0, 0.3)])
@pytest.mark.parametrize("path", ["proj", "mlp"])
def test_a_paths_share_of_images_is_skipped_and_the_mean_stays(experiments, branch, block, share, path):
    plain, model, _ = _model(experiments, 0.3)
    tokens = torch.randn(IMAGES, 1, plain.config.embed_dim, generator=torch.Generator().manual_seed(1))
    whole = getattr(plain.branches[branch].blocks[block], path)(tokens)
    found = getattr(model.train().branches[branch].blocks[block], path)(tokens)
    skipped = (found == 0).all(dim=(1, 2))
    assert skipped.float().mean().item() == pytest.approx(share, abs=4 * (share * (1 - share) / IMAGES) ** 0.5)
    torch.testing.assert_close(found[~skipped], whole[~skipped] / (1 - share))


def test_nothing_is_skipped_in_evaluation_nor_drawn(experiments, digits):
    plain, model, generator = _model(experiments, 0.5)
    images = normalise(torch.from_numpy(digits.test.images[:32]), plain.config)
    before = generator.get_state()
    torch.testing.assert_close(model.eval().prefix_logits(images), plain.eval().prefix_logits(images), rtol=0, atol=0)
    assert torch.equal(generator.get_state(), before)
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_a_step_learns_with_it_and_the_average_stays_whole(experiments, digits):
    images, labels = torch.from_numpy(digits.train.images[:64]), torch.from_numpy(digits.train.labels[:64])
    losses = []
    for rate in (0.0, 0.9):
        torch.manual_seed(0)
        config = experiments.Experiment(stochastic_depth=rate, ema_decay=0.5)
        step = experiments.ExperimentStep(ParaFormer(SHAPE), config, torch.device("cpu"))
        step.start_epoch(0)
        for _ in range(3):
            step(images, torch.eye(10)[labels], 1e-3)
        losses.append(step.loss)
        inputs = normalise(images, step.trained.config)
        assert torch.equal(step.trained.train()(inputs), step.trained(inputs))  # it has no hooks
    assert abs(losses[1] - losses[0]) > 1e-5

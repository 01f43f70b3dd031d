"""Tests of the networks that a ParaFormer is compared with: what is special about them, and what they cost."""

import importlib
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHARES = (0.25, 0.5, 1.0)


@pytest.fixture
def baselines(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("baselines")


@pytest.mark.parametrize("training", [True, False])
def test_a_nested_block_at_full_width_is_the_plain_block(baselines, training):
    block = baselines.NestedBlock(baselines.shape(1, branch_width=8)).train(training)
    x = torch.randn(2, 65, 128)
    torch.testing.assert_close(block(x, 1.0), baselines.Block.forward(block, x))


@pytest.mark.parametrize("share", SHARES)
def test_a_nested_block_at_a_share_is_the_narrow_block_of_its_first_weights(baselines, share):
    config = baselines.shape(1, branch_width=8)
    block, x = baselines.NestedBlock(config).eval(), torch.randn(2, 65, 128)
    heads, hidden = round(config.num_heads * share), round(config.mlp_dim * share)
    kept = torch.zeros(config.embed_dim)
    kept[: config.embed_dim // config.num_heads * heads] = 1.0
    plain = baselines.Block(config).eval()
    plain.load_state_dict(block.state_dict())
    with torch.no_grad():  # a head that no output reads, and a hidden value that none reads, are not there
        plain.proj.weight *= kept
        plain.mlp[2].weight[:, hidden:] = 0.0
    torch.testing.assert_close(block(x, share), plain(x))


def test_every_prediction_costs_its_own_width_and_is_the_one_among_all(baselines):
    model = baselines.NestedViT(8, 2, SHARES).eval()
    images = torch.randn(2, 3, 32, 32)
    costs = baselines.million_macs(model)
    whole = baselines.million_macs(baselines.ExitViT(8, (2,)))
    assert costs == sorted(costs)
    assert costs[-1] == pytest.approx(whole[0])
    for number, logits in enumerate(model.predictions(images)):
        torch.testing.assert_close(model.prediction(images, number), logits)


def test_every_width_learns(baselines):
    model = baselines.NestedViT(8, 1, SHARES)
    sum(logits.square().sum() for logits in model.predictions(torch.randn(4, 3, 32, 32))).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize("name", ["msdnet", "vit-exits", "nested-width"])
def test_a_prediction_alone_is_the_one_among_all(baselines, name):
    torch.manual_seed(0)
    model = baselines.BASELINES[name][0]().eval()
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        for number, logits in enumerate(model.predictions(images)):
            torch.testing.assert_close(model.prediction(images, number), logits)

"""Tests of the benchmarks that train a teacher and let it teach: its network, its file, its pupils. On real images."""

import importlib
import json
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from msgspec.structs import replace

from paraedge.model import load_checkpoint
from paraedge.packaged import resolve_checkpoint
from paraedge.training import RECIPES
from paraedge.training.batches import normalise

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def baselines(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("baselines")


@pytest.fixture
def data_dir(tmp_path):
    with np.load(resolve_checkpoint("cifar10") / "samples.npz") as samples:
        images, labels = samples["images"], samples["labels"]
    split = {"x_train": images[:200], "y_train": labels[:200], "x_test": images[200:], "y_test": labels[200:]}
    np.savez(tmp_path / "cifar10.npz", **split)
    return tmp_path


@pytest.mark.parametrize(
    ("depth", "factor", "millions"), [(40, 4, 8.9), (16, 8, 11.0), (28, 10, 36.5)], ids=["40-4", "16-8", "28-10"]
)
def test_wide_resnet_has_the_parameters_that_its_paper_counts(baselines, depth, factor, millions):
    with torch.device("meta"):
        network = importlib.import_module("wide_resnet").WideResNet(depth, factor, 10)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize("depth", [4, 12, 29])
def test_wide_resnet_refuses_a_depth_that_makes_no_whole_blocks(baselines, depth):
    with pytest.raises(ValueError, match=f"depth cannot be {depth}; 4 more than a multiple of 6"):
        importlib.import_module("wide_resnet").WideResNet(depth, 1, 10)


def test_a_taught_baseline_has_the_settings_of_a_taught_pupil(baselines):
    command = ["train", "msdnet", "--data-dir", ".", "--out", "x"]
    plain = baselines.settings("msdnet", baselines.parser().parse_args(command))
    taught = baselines.settings("msdnet", baselines.parser().parse_args([*command, "--teacher", "weights"]))
    assert plain == replace(RECIPES["cifar10"].training, branch_weight=1.0)
    assert taught == replace(RECIPES["cifar10-taught"].training, branch_weight=1.0)


def test_a_teacher_is_trained_kept_tested_and_teaches(baselines, data_dir, monkeypatch, capsys):
    """The whole way, with a small wide residual network, one epoch each."""
    wide_resnet = importlib.import_module("wide_resnet")
    settings = replace(baselines.BASELINES["wide-resnet"][1], rand_augment_magnitude=0, batch_size=100)
    small = (lambda: baselines.OnePrediction(wide_resnet.WideResNet(10, 1, 10)), settings)
    monkeypatch.setitem(baselines.BASELINES, "wide-resnet", small)
    weights = data_dir / "wide.safetensors"
    options = ["--data-dir", str(data_dir), "--epochs", "1"]

    baselines.main(["train", "wide-resnet", "--out", str(data_dir / "wide"), "--holdout", "50", *options])
    record = json.loads((data_dir / "wide.json").read_text())
    assert record["tested_on"] == "cifar10 (50 train images held out)"
    assert record["settings"]["learning_rate"] == 0.4
    kept = baselines.load_teacher(weights, "cifar10")
    assert all(torch.equal(tensor, tensor.half().float()) for tensor in kept.network.state_dict().values())

    capsys.readouterr()
    baselines.main(["test", "wide-resnet", str(weights), "--data-dir", str(data_dir)])
    (prediction,) = json.loads(capsys.readouterr().out)
    with np.load(data_dir / "cifar10.npz") as data:
        images, labels = torch.from_numpy(data["x_test"]), data["y_test"]
    with torch.no_grad():
        logits = kept.network.eval()(normalise(images, kept))
    assert prediction["accuracy"] == pytest.approx((logits.argmax(dim=1).numpy() == labels).mean())

    recipe = replace(
        RECIPES["cifar10-taught"],
        network=replace(RECIPES["cifar10-taught"].network, embed_dim=16, branch_width=8, stem_width=8),
    )
    (data_dir / "small.json").write_bytes(msgspec.json.encode(recipe))
    experiments = importlib.import_module("experiments")
    out = data_dir / "pupil"
    monkeypatch.setattr(sys, "argv", ["experiments.py"])
    experiments.main(
        [
            str(data_dir / "small.json"),
            "--teacher",
            str(weights),
            "--seed",
            "3",
            "--out",
            str(out),
            *options,
        ]
    )
    pupil = load_checkpoint(out)
    assert (pupil.config.name, pupil.training.seed, pupil.training.settings["teacher_weight"]) == ("cifar10", 3, 1.0)
    assert "prefixes: " in capsys.readouterr().out


def test_sgd_step_is_torchs_nesterov(baselines, data_dir):
    """Two steps on the CPU, against the optimizer written out."""
    wide_resnet = importlib.import_module("wide_resnet")
    torch.manual_seed(0)
    model = baselines.OnePrediction(wide_resnet.WideResNet(10, 1, 10))
    config = replace(
        baselines.BASELINES["wide-resnet"][1], ema_decay=0.0, weight_decay=0.0, clip_norm=1e9, rand_augment_magnitude=0
    )
    step = baselines.SGDStep(model, config, torch.device("cpu"))
    step.start_epoch(0)
    with np.load(data_dir / "cifar10.npz") as data:
        images, targets = torch.from_numpy(data["x_train"][:32]), torch.eye(10)[data["y_train"][:32]]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    gradients = []
    for _ in range(2):
        step(images, targets, 0.01)
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for start, first, second, now in zip(before, *gradients, model.parameters(), strict=True):
        moved = 1.9 * first + (second + 0.9 * (0.9 * first + second))  # momentum 0.9, looked ahead
        torch.testing.assert_close(now.detach(), start - 0.01 * moved, atol=1e-5, rtol=1e-4)

"""Tests of training in two processes: torchrun on the CPU gives the losses and the network of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from paraedge.model import load_checkpoint
from paraedge.training.recipes import RECIPES


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Nothing random but the order of the images, so that shares of a batch, 1,400 images in all, add up to it."""
    fields = msgspec.to_builtins(RECIPES["fashion-mnist"])
    fields["dataset"] = "digits"
    fields["network"] = {
        "embed_dim": 16, "num_heads": 2, "mlp_ratio": 2.0, "num_branches": 3, "branch_depth": (1, 2, 1),
        "stem_stride": 4, "branch_width": (4, 6, 8),
    }  # fmt: skip
    fields["training"].update(
        epochs=2, warmup_epochs=0.2, batch_size=100, crop_padding=0, horizontal_flip=False, erasing_probability=0.0,
        mixup_alpha=0.0, cutmix_alpha=0.0, ema_decay=0.9, branch_weight=0.3, label_smoothing=0.05,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("parallel")
    (folder / "small.json").write_text(json.dumps(fields))
    return folder


def _train(folder, out, *options, processes=1):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]
    train = [
        "paraedge",
        "train",
        "--recipe",
        "small.json",
        "--holdout",
        "37",
        "--device",
        "cpu",
        "--out",
        out,
        "--log",
        f"{out}.jsonl",
    ]
    variables = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [str(word) for word in [*command, "--no-python", "--", *train, *options]],
        cwd=folder, capture_output=True, text=True, timeout=250, env={**variables, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(recipe):
    done = _train(recipe, "alone")
    assert done.returncode == 0, done.stderr
    return load_checkpoint(recipe / "alone")


def _curve(folder, name):
    return [json.loads(line)["loss"] for line in (folder / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("parallel", ["data", "branches"])
def test_two_processes_give_the_curve_and_the_network_of_one(recipe, alone, parallel):
    done = _train(recipe, parallel, "--parallel", parallel, processes=2)
    assert done.returncode == 0, done.stderr
    together = load_checkpoint(recipe / parallel)
    assert done.stdout.count("test accuracy") == 1  # the first process alone reports
    np.testing.assert_allclose(_curve(recipe, parallel), _curve(recipe, "alone"), rtol=2e-4)
    assert len(_curve(recipe, parallel)) == 2
    state, expected = together.model.state_dict(), alone.model.state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, atol=4e-3, rtol=4e-3, msg=name)
    assert together.training.hardware.endswith(", 2 processes")
    assert not list(recipe.glob("*.resume*"))
    assert any(isinstance(module, nn.BatchNorm2d) for module in together.model.modules())


def test_more_processes_than_branches_are_refused(recipe):
    fields = json.loads((recipe / "small.json").read_text())
    fields["network"].update(num_branches=1, branch_depth=1, branch_width=4)
    (recipe / "one.json").write_text(json.dumps(fields))
    done = _train(recipe, "refused", "--recipe", "one.json", "--parallel", "branches", processes=2)
    assert done.returncode != 0
    assert "1 branch(es) cannot be divided among 2 processes; start at most 1" in done.stderr
    assert not (recipe / "refused").exists()

"""The models that ship with paraedge: each is what its training record says, and small enough."""

import itertools

import numpy as np
import pytest
import safetensors.torch
import torch

from paraedge.model import load_checkpoint
from paraedge.packaged import PACKAGED_MODELS, resolve_checkpoint
from paraedge.training import evaluate_model
from paraedge_runtime.errors import InputError


def test_every_packaged_model_is_complete_and_carries_its_licence():
    for name in PACKAGED_MODELS:
        folder = resolve_checkpoint(name)
        assert {path.name for path in folder.iterdir()} >= {
            "config.json", "model.safetensors", "training.json", "samples.npz", "evaluation.npz", "LICENSE.data.md"
        }  # fmt: skip
        assert (folder / "model.safetensors").stat().st_size <= 15_000_000


@pytest.mark.parametrize("name", PACKAGED_MODELS)
def test_weights_are_float16(name):
    state = safetensors.torch.load_file(resolve_checkpoint(name) / "model.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}


@pytest.fixture(scope="module", params=PACKAGED_MODELS)
def packaged(request):
    return load_checkpoint(resolve_checkpoint(request.param))


# The first branch, all of them, and what each of branches 2, 3, 4 adds.
_AT_LEAST = {"fashion-mnist": (0.92, 0.94, 0.0), "cifar10": (0.93, 0.95, 0.004), "waste": (0.93, 0.94, -0.004)}
_TESTED = {"fashion-mnist": 10_000, "cifar10": 10_000, "waste": 508}
# How far logits of the kept images are from those of the test images: as float16 is from float32, or JPEG from pixels.
_NEAR = {"fashion-mnist": 0.02, "cifar10": 0.02, "waste": 2.0}

# How the commands begin. A network of another architecture taught cifar10.
_MADE_BY = {
    "fashion-mnist": "paraedge train --recipe fashion-mnist ",
    "cifar10": "taught.py --recipe cifar10-taught --teacher wide-resnet.safetensors ",
    "waste": "paraedge train --recipe mixed-long.json --dataset folder --data-dir folds/0 ",  # now the recipe 'waste'
}


def test_accuracy_of_the_prefixes(packaged):
    accuracy = packaged.evaluation.prefix_accuracy()
    assert packaged.config.model.num_branches == len(accuracy) >= 4
    assert len(packaged.evaluation.labels) == _TESTED[packaged.config.name]
    first, last, gain = _AT_LEAST[packaged.config.name]
    assert accuracy[0] >= first
    assert accuracy[-1] >= last
    assert all(later >= earlier + gain for earlier, later in itertools.pairwise(accuracy[:4]))
    assert all(later >= earlier - 0.0015 for earlier, later in itertools.pairwise(accuracy[3:]))


def test_the_training_record_is_true(packaged):
    """The kept logits are the model's own: torch gives them again for the packaged test images."""
    checkpoint, record = packaged, packaged.training
    np.testing.assert_allclose(record.prefix_accuracy, checkpoint.evaluation.prefix_accuracy(), atol=2e-4)
    assert record.command.startswith(_MADE_BY[checkpoint.config.name])
    assert len(checkpoint.samples) == 256
    evaluation = evaluate_model(checkpoint.model, checkpoint.samples)
    logits = evaluation.branch_logits.transpose(1, 0, 2).reshape(256, -1)
    kept = checkpoint.evaluation.branch_logits.transpose(1, 0, 2).reshape(len(checkpoint.evaluation.labels), -1)
    furthest = max(np.abs(kept - sample).max(axis=1).min() for sample in logits)
    assert furthest < _NEAR[checkpoint.config.name]  # each is one of the test images
    right = evaluation.prefix_accuracy()
    np.testing.assert_allclose(right, record.prefix_accuracy, atol=0.05)


def test_an_unknown_model_is_refused_with_the_names():
    with pytest.raises(
        InputError, match=r"neither a packaged model \(fashion-mnist, .*waste\) nor a checkpoint folder"
    ):
        resolve_checkpoint("imagenet")


def test_the_colour_model_exports_and_knows_its_own_images(tmp_path):
    from paraedge import Session, export

    samples = load_checkpoint(resolve_checkpoint("cifar10")).samples
    bundle = export("cifar10", target="linux", branches=1, out=tmp_path / "one.paraedge")
    with Session.open(bundle, threads=1) as session:
        predictions = [session.run(image).label for image in samples.images[:50]]
    labels = bundle.manifest.labels
    right = sum(predicted == labels[label] for predicted, label in zip(predictions, samples.labels[:50], strict=True))
    assert right >= 42

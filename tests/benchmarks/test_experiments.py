"""Tests of benchmarks/experiments.py: rules of training that no shipped model uses, and their recipes."""

import importlib
import itertools
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from paraedge.data import ImageDataset, LabelledImages, load_dataset
from paraedge.model import ParaFormer, ParaFormerConfig
from paraedge.model.records import CheckpointConfig
from paraedge.packaged import resolve_checkpoint
from paraedge.training import RECIPES, TrainingConfig, prefix_weights, progressive_loss, train
from paraedge.training.step import TrainingStep
from paraedge_converters.split import count_macs, split_model
from paraedge_runtime.errors import InputError

SHAPE = ParaFormerConfig(
    image_size=8, in_channels=1, num_classes=10, embed_dim=16, num_heads=2, mlp_ratio=2.0, num_branches=3,
    branch_depth=2, stem_stride=2, mean=(0.3,), std=(0.4,),
)  # fmt: skip
CHECKPOINT = CheckpointConfig(
    name="digits-tiny", description="a test", license="CC BY 4.0", dataset="digits",
    labels=tuple(str(label) for label in range(10)), model=SHAPE,
)  # fmt: skip
TEACHERS = {"cifar10-double"}  # teaches what is shipped, and is not small itself


@pytest.fixture(scope="module")
def experiments():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        yield importlib.import_module("experiments")


@pytest.fixture(scope="module")
def few_digits():
    digits = load_dataset("digits")
    splits = (LabelledImages(split.images[:100], split.labels[:100]) for split in (digits.train, digits.test))
    return ImageDataset("digits", *splits, digits.class_names, digits.license)


@pytest.fixture
def photographs():
    """200 of the packaged CIFAR-10 test images with their classes."""
    with np.load(resolve_checkpoint("cifar10") / "samples.npz") as archive:
        return torch.from_numpy(archive["images"][:200]), torch.from_numpy(archive["labels"][:200].astype(np.int64))


def _has_torchvision():
    try:
        from torchvision.transforms import v2  # noqa: F401
    except (ImportError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize("earlier_gradient", [0.0, 0.3, 1.0], ids=["boosting", "between", "joint"])
def test_prefix_sums_are_sums_and_send_earlier_branches_their_share_of_the_gradient(experiments, earlier_gradient):
    torch.manual_seed(0)
    branches = torch.randn(4, 5, 3, requires_grad=True)
    sums = experiments.prefix_sums(branches, earlier_gradient)
    torch.testing.assert_close(sums, branches.cumsum(0))
    for prefix in range(4):
        (gradient,) = torch.autograd.grad(sums[prefix].sum(), branches, retain_graph=True)
        expected = [earlier_gradient] * prefix + [1.0] + [0.0] * (3 - prefix)
        torch.testing.assert_close(gradient.mean(dim=(1, 2)), torch.tensor(expected))


def test_boosting_leaves_a_branch_alone_that_later_prefixes_use(experiments):
    """Branch 0 learns from its own output only: another branch 2 changes nothing for it."""
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (6,))
    gradients = []
    for scale in (1.0, 5.0):
        torch.manual_seed(1)
        branches = torch.randn(3, 6, 3)
        branches[2] *= scale
        branches.requires_grad_()
        loss = progressive_loss(experiments.prefix_sums(branches, 0.0), labels, prefix_weights(3, None))
        gradients.append(torch.autograd.grad(loss, branches)[0])
    assert torch.equal(gradients[0][:2], gradients[1][:2])
    assert not torch.equal(gradients[0][2], gradients[1][2])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_shuffled_branches_are_the_same_ones_per_image_with_the_first_in_front(experiments, share):
    num_branches, batch = 4, 400
    branches = torch.arange(num_branches * batch, dtype=torch.float32).reshape(num_branches, batch, 1)
    shuffled = experiments.shuffle_branches(branches, share, torch.Generator().manual_seed(0))
    assert torch.equal(shuffled[0], branches[0])
    assert torch.equal(shuffled.sort(dim=0).values, branches)
    moved = (shuffled != branches).any(dim=0).float().mean()
    assert abs(float(moved) - share * 5 / 6) < 0.08  # one of the 6 orders of 3 branches is the given one
    if share:
        orders = {tuple((column // batch).long().tolist()) for column in shuffled[:, :, 0].T}
        assert len(orders) == 6


@pytest.mark.parametrize(("weight", "temperature"), [(0.5, 1.0), (1.0, 3.0)])
def test_distillation_pulls_prefixes_to_the_answer_of_all_branches_and_leaves_that_alone(
    experiments, weight, temperature
):
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 7, 5, requires_grad=True), torch.randint(0, 5, (7,))
    config = experiments.Experiment(distillation_weight=weight, distillation_temperature=temperature)
    weights = prefix_weights(3, (1.0, 2.0, 3.0))
    expected = 0.0
    teacher = logits[-1].detach()
    for index, share in enumerate(weights):
        hard = F.cross_entropy(logits[index], labels)
        soft = F.cross_entropy(logits[index] / temperature, (teacher / temperature).softmax(1)) * temperature**2
        expected = expected + share * (hard if index == 2 else (1 - weight) * hard + weight * soft)
    loss = (experiments.prefix_losses(logits, labels, config) * weights).sum()
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, logits)
    (plain,) = torch.autograd.grad(0.5 * F.cross_entropy(logits[-1], labels), logits)
    torch.testing.assert_close(gradient[-1], plain[-1])


@pytest.mark.skipif(not _has_torchvision(), reason="torchvision is not installed for this build of torch")
@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
def test_rand_augment_changes_most_images_and_keeps_their_form(experiments, photographs, channels):
    images = photographs[0][..., :channels]
    changed = experiments.ExperimentStep.augment(
        images, experiments.Experiment(rand_augment_magnitude=9), torch.Generator().manual_seed(0)
    )
    assert changed.shape == images.shape
    assert changed.dtype == torch.uint8
    assert float((changed != images).flatten(1).any(dim=1).float().mean()) > 0.5


def test_rand_augment_without_torchvision_is_refused_at_once(experiments, monkeypatch):
    experiments._rand_augment.cache_clear()
    monkeypatch.setitem(sys.modules, "torchvision.transforms", None)
    settings = experiments.Experiment(rand_augment_magnitude=9)
    with pytest.raises(InputError, match=r"RandAugment needs torchvision, made for torch .*magnitude to 0"):
        experiments.ExperimentStep(ParaFormer(SHAPE), settings, torch.device("cpu"))


def test_without_a_rule_of_its_own_a_step_is_the_shipped_one(experiments, few_digits):
    images, labels = (torch.from_numpy(array[:32]) for array in (few_digits.train.images, few_digits.train.labels))
    losses = []
    for kind, config in (
        (TrainingStep, TrainingConfig(branch_weight=0.3, prefix_temperature_power=1.0, label_smoothing=0.1)),
        (experiments.ExperimentStep, experiments.Experiment(
            branch_weight=0.3, prefix_temperature_power=1.0, label_smoothing=0.1
        )),
    ):  # fmt: skip
        torch.manual_seed(0)
        step = kind(ParaFormer(SHAPE), config, torch.device("cpu"))
        step.start_epoch(0)
        for _ in range(3):
            step(images, torch.eye(10)[labels], 1e-3)
        losses.append(step.loss)
    assert losses[0] == losses[1]


class _Interrupted(Exception):
    pass


def test_every_random_choice_survives_an_interruption(experiments, few_digits, tmp_path):
    config = experiments.Experiment(
        epochs=3, batch_size=32, crop_padding=1, ema_decay=0.9, erasing_probability=0.5, earlier_gradient=0.5,
        subset_probability=0.5, stochastic_depth=0.5, distillation_weight=0.5, prefix_temperature_power=0.5,
    )  # fmt: skip

    def run(name, on_progress=lambda progress: None):
        return train(
            few_digits, CHECKPOINT, config, tmp_path / name, device="cpu", step_type=experiments.ExperimentStep,
            on_progress=on_progress,
        )  # fmt: skip

    def interrupt(progress):
        if progress.epoch == 1:
            raise _Interrupted

    whole = run("whole")
    with pytest.raises(_Interrupted):
        run("parts", interrupt)
    parts = run("parts")
    assert all(map(torch.equal, whole.model.state_dict().values(), parts.model.state_dict().values()))
    assert whole.training.settings["earlier_gradient"] == 0.5


@pytest.mark.parametrize(
    "changes",
    [
        {"rand_augment_magnitude": 31}, {"earlier_gradient": 1.5}, {"distillation_weight": 2.0},
        {"distillation_temperature": 0.0}, {"subset_probability": float("nan")}, {"stochastic_depth": 1.0},
        {"epochs": 0},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_settings_are_refused_by_name(experiments, changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"invalid {name} "):
        experiments.Experiment(**changes)


def _network(recipe):
    fields = {name: value for name, value in msgspec.structs.asdict(recipe.network).items() if name != "mel_bands"}
    size, channels = {"fashion-mnist": (28, 1), "cifar10": (32, 3)}[recipe.dataset]
    return ParaFormerConfig(
        image_size=size, in_channels=channels, num_classes=10, mean=(0.5,) * channels, std=(0.25,) * channels,
        **fields,
    )  # fmt: skip


def _macs(recipe):
    model = ParaFormer(_network(recipe)).eval()
    return sum(count_macs(part) for part in split_model(model, tuple(range(len(model.branches)))))


def test_every_experiment_fits_its_data_and_is_small_but_for_a_teacher(experiments):
    for name, recipe in experiments.EXPERIMENTS.items():
        assert name.startswith(recipe.dataset)
        model = ParaFormer(_network(recipe))
        prefix_weights(recipe.network.num_branches, recipe.training.prefix_weights)
        assert name in TEACHERS or 2 * sum(parameter.numel() for parameter in model.parameters()) <= 15_000_000
    every = [*RECIPES.items(), *experiments.EXPERIMENTS.items()]
    assert len({name for name, _ in every}) == len(every) == len({recipe.description for _, recipe in every})
    for (_, one), (_, other) in itertools.combinations(every, 2):
        assert msgspec.structs.replace(one, description="") != msgspec.structs.replace(other, description="")
    assert experiments.find("cifar10") == RECIPES["cifar10"]


@pytest.mark.parametrize(
    ("name", "members"), [("cifar10-vit", 1), ("cifar10-wide", 1), ("cifar10-wider", 1), ("cifar10-small", 8)]
)
def test_networks_to_compare_with_cost_no_less_than_the_branches(experiments, name, members):
    """They cost what the network of two blocks costs, which came first."""
    cost = members * _macs(experiments.EXPERIMENTS[name])
    assert cost == pytest.approx(_macs(experiments.EXPERIMENTS["cifar10-two-blocks"]), rel=0.03)
    assert cost >= _macs(RECIPES["cifar10"])

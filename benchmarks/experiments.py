"""Recipes of experiments, and the rules of training that only they have; each gives an ordinary checkpoint folder.

    .venv/bin/python benchmarks/experiments.py cifar10-boosting --data-dir data --out boosting
    .venv/bin/python benchmarks/experiments.py cifar10-taught --teacher wide-resnet.safetensors --data-dir data \\
        --out taught

What shipped models were made with is in ``paraedge.training``. ``paraedge train --teacher`` takes a ParaFormer; this
takes the wide residual network of ``baselines.py``. Called again after a run that was cut off, it goes on from the last
epoch. Letters in shape comments: N branches, B images of H×W pixels with c channels, C classes.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec.structs import replace
from stochastic_depth import add_stochastic_depth
from torch import Tensor

from paraedge.data import load_dataset
from paraedge.model import ParaFormer
from paraedge.model.records import CheckpointConfig
from paraedge.training import RECIPES, Recipe, TrainingConfig, TrainingProgress, load_recipe, train, with_settings
from paraedge.training.augment import augment, erase
from paraedge.training.config import Range, check_ranges
from paraedge.training.loss import branch_loss, cross_entropies
from paraedge.training.recipes import network_config
from paraedge.training.step import TrainingStep
from paraedge_runtime.errors import InputError

# RandAugment draws its operations once for so many images; one by one costs ten times the time.
_RAND_AUGMENT_GROUP = 16


class Experiment(TrainingConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings that no shipped model was trained with.

    Attributes:
        rand_augment_magnitude: two random operations of RandAugment per image, of this strength out
            of 30; 0 for none. Needs torchvision.
        earlier_gradient: share of a prefix's gradient that reaches the branches before its last one:
            1 trains every prefix jointly, 0 is boosting (each branch fits what the ones before it left).
        distillation_weight: share of the loss of every prefix but the last that is taken against the
            prediction of all branches rather than against the labels.
        distillation_temperature: softens both sides of that comparison.
        subset_probability: share of images for which the branches after the first add up in random
            order, so that every subset with the first branch is trained.
        stochastic_depth: share of images for which attention or MLP of a branch's last block is skipped;
            proportionally less in the blocks before it.
    """

    rand_augment_magnitude: int = 0
    earlier_gradient: float = 1.0
    distillation_weight: float = 0.0
    distillation_temperature: float = 1.0
    subset_probability: float = 0.0
    stochastic_depth: float = 0.0

    def __post_init__(self) -> None:
        TrainingConfig.__post_init__(self)
        check_ranges(self, _RANGES)


_RANGES = {
    "rand_augment_magnitude": Range(high=30),
    "earlier_gradient": Range(high=1),
    "distillation_weight": Range(high=1),
    "distillation_temperature": Range(open_low=True),
    "subset_probability": Range(high=1),
    "stochastic_depth": Range(high=1, open_high=True),
}

_ONE_STEM: dict[str, object] = {
    "num_branches": 8,
    "branch_depth": 2,
    "branch_width": None,
    "branch_residual_blocks": 0,
}
_PLAIN_SUM: dict[str, object] = {"branch_weight": 0.0, "prefix_temperature_power": 0.0}


def _variant(recipe: Recipe, description: str, network: dict[str, object], training: dict[str, object]) -> Recipe:
    return replace(
        recipe,
        description=description,
        network=replace(recipe.network, **network),
        training=Experiment(**{**msgspec.structs.asdict(recipe.training), **training}),
    )


EXPERIMENTS: dict[str, Recipe] = {
    "fashion-mnist-four": _variant(
        RECIPES["fashion-mnist"],
        "Fashion-MNIST, 4 larger branches, each two blocks deep",
        {"embed_dim": 96, "num_heads": 3, "num_branches": 4, "branch_depth": 2, "branch_width": (32, 48, 80, 128)},
        {},
    ),
    "fashion-mnist-one-stem": _variant(
        RECIPES["fashion-mnist"],
        "Fashion-MNIST, 8 equal branches on one stem, a plain sum: accurate, but flat",
        {**_ONE_STEM, "embed_dim": 128, "num_heads": 4, "mlp_ratio": 2.0, "stem_width": 96},
        {**_PLAIN_SUM, "epochs": 60, "warmup_epochs": 4.0, "erasing_probability": 0.5, "mix_probability": 0.5},
    ),
    "cifar10-two-blocks": _variant(
        RECIPES["cifar10"],
        "CIFAR-10; branches of two blocks behind narrower convolutions, each larger than the one before",
        {"branch_depth": 2, "branch_width": (48, 80, 128, 208)},
        {},
    ),
    "cifar10-wider": _variant(
        RECIPES["cifar10"],
        "CIFAR-10; wider convolutions, each branch larger than the one before",
        {"branch_width": (88, 112, 152, 224)},
        {},
    ),
    "cifar10-equal": _variant(RECIPES["cifar10"], "CIFAR-10; branches of one size", {"branch_width": 128}, {}),
    "cifar10-boosting": _variant(
        RECIPES["cifar10"], "CIFAR-10; a prefix's loss teaches its last branch only", {}, {"earlier_gradient": 0.0}
    ),
    "cifar10-sum": _variant(RECIPES["cifar10"], "CIFAR-10; the loss of every prefix of a plain sum", {}, _PLAIN_SUM),
    "cifar10-last": _variant(
        RECIPES["cifar10"],
        "CIFAR-10; only the sum of all branches is trained",
        {},
        {**_PLAIN_SUM, "prefix_weights": (0.0, 0.0, 0.0, 1.0)},
    ),
    "cifar10-one-stem": _variant(
        RECIPES["cifar10"],
        "CIFAR-10, 8 equal branches on one stem, a plain sum: accurate, but flat",
        {**_ONE_STEM, "embed_dim": 192, "num_heads": 3, "stem_width": 128},
        {**_PLAIN_SUM, "epochs": 150, "rand_augment_magnitude": 9},
    ),
    "cifar10-double": _variant(
        RECIPES["cifar10"],
        "CIFAR-10; cifar10-two-blocks, everything twice as wide, to teach cifar10-taught",
        {
            "embed_dim": 256,
            "num_heads": 8,
            "branch_depth": 2,
            "stem_width": 96,
            "branch_width": (96, 160, 256, 416),
        },
        {"epochs": 60},
    ),
    "cifar10-deeper-taught": _variant(
        RECIPES["cifar10"],
        "CIFAR-10; cifar10-taught with twice as many residual blocks, narrower ones, and twice as many steps",
        {"branch_residual_blocks": 2, "branch_width": (64, 64, 96, 184)},
        {"epochs": 300, "batch_size": 250, "teacher_weight": 1.0, "label_smoothing": 0.0, "mix_probability": 1.0},
    ),
    "fashion-mnist-taught": _variant(
        RECIPES["fashion-mnist"],
        "Fashion-MNIST; a teacher's predictions are the targets (--teacher), every batch is mixed, for long",
        {},
        {"epochs": 300, "teacher_weight": 1.0, "label_smoothing": 0.0, "mix_probability": 1.0},
    ),
    "fashion-mnist-deeper-taught": _variant(
        RECIPES["fashion-mnist"],
        "Fashion-MNIST; fashion-mnist-taught with twice as many residual blocks, wider ones",
        {"branch_residual_blocks": 2, "branch_width": (48, 56, 64, 72, 88, 104, 128, 152)},
        {"epochs": 240, "teacher_weight": 1.0, "label_smoothing": 0.0, "mix_probability": 1.0},
    ),
    # One branch is an ordinary network. Both cost about as many multiply-adds as the four branches.
    "cifar10-vit": _variant(
        RECIPES["cifar10"],
        "CIFAR-10; one deep branch, to compare with",
        {"num_branches": 1, "branch_width": 128, "branch_depth": 14},
        {},
    ),
    "cifar10-wide": _variant(
        RECIPES["cifar10"],
        "CIFAR-10; one branch of wide convolutions, to compare with",
        {"num_branches": 1, "branch_depth": 2, "branch_width": 304},
        {},
    ),
    # Eight of them, each with a seed of its own, are an ensemble that costs as many.
    "cifar10-small": _variant(
        RECIPES["cifar10"],
        "CIFAR-10; one small branch, for ensembles to compare with",
        {"num_branches": 1, "branch_depth": 2, "branch_width": 72, "stem_width": 32, "stem_residual_blocks": 0},
        {},
    ),
}


def find(name: str) -> Recipe:
    """An experiment, a recipe of ``paraedge train``, or a JSON file of one."""
    return EXPERIMENTS[name] if name in EXPERIMENTS else load_recipe(name)


class ExperimentStep(TrainingStep):
    """A step with the rules of :class:`Experiment`, if its settings are one."""

    def __init__(self, model: ParaFormer, config: TrainingConfig, device: torch.device, **options: Any) -> None:
        super().__init__(model, config, device, **options)
        self.rules = config if isinstance(config, Experiment) else Experiment(**msgspec.structs.asdict(config))
        # Two: how much depth is drawn differs where branches are shared.
        self.generators = self._order, self._depth = torch.Generator(device), torch.Generator(device)
        if self.rules.rand_augment_magnitude:
            _rand_augment(self.rules.rand_augment_magnitude)  # fails now rather than in the first batch
        if self.rules.stochastic_depth:
            add_stochastic_depth(model, self.rules.stochastic_depth, self._depth)

    @staticmethod
    def augment(images: Tensor, config: TrainingConfig, generator: torch.Generator) -> Tensor:
        """What shipped models have, and RandAugment before erasing: uint8 (B, H, W, c) -> the same."""
        magnitude = config.rand_augment_magnitude if isinstance(config, Experiment) else 0
        if not magnitude:
            return augment(images, config, generator)
        images = augment(images, replace(config, erasing_probability=0.0), generator)
        images = rand_augment(images, magnitude, generator)
        return erase(images, config.erasing_probability, generator) if config.erasing_probability else images

    def start_epoch(self, epoch: int) -> None:
        """This epoch's random numbers, too."""
        super().start_epoch(epoch)
        share, shares = self.parallel.image_share
        self._order.manual_seed((self.config.seed * 1_000_003 + epoch) * shares + share)
        self._depth.manual_seed((self.config.seed * 1_000_003 + epoch) * 1_009 + self.parallel.rank)

    def compute_loss(self, branch_logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Loss, and logits of every prefix (N, B, C), of what every branch predicts (N, B, C) and targets (B, C)."""
        rules = self.rules
        if rules.subset_probability:
            branch_logits = shuffle_branches(branch_logits, rules.subset_probability, self._order)
        prefix_logits = prefix_sums(branch_logits, rules.earlier_gradient)
        loss = (prefix_losses(prefix_logits, targets, rules) * self._weights).sum()
        if rules.branch_weight:
            alone = branch_loss(branch_logits[self._num_frozen :], targets, rules.label_smoothing)
            loss = torch.lerp(loss, alone, rules.branch_weight)
        return loss, prefix_logits


def prefix_losses(prefix_logits: Tensor, targets: Tensor, config: Experiment) -> Tensor:
    """Of every prefix (N,): the cross-entropy with the targets, partly that with the prediction of all branches.

    Distillation as in arXiv 1503.02531, with the model as its own teacher as in arXiv 1905.08094.
    """
    logits = prefix_logits.float()
    if config.prefix_temperature_power:
        counts = torch.arange(1, len(logits) + 1, device=logits.device, dtype=torch.float32)
        logits = logits / (counts**config.prefix_temperature_power)[:, None, None]
    losses = cross_entropies(logits, targets, config.label_smoothing)  # (N,)
    if not config.distillation_weight or len(logits) == 1:
        return losses
    temperature = config.distillation_temperature
    teacher = (logits[-1].detach() / temperature).softmax(dim=1)  # (B, C)
    student = (logits[:-1] / temperature).log_softmax(dim=2)  # (N-1, B, C)
    # T² keeps the size of the gradient; the teacher's entropy moves no weight, so it is left out.
    distilled = -(teacher * student).sum(dim=2).mean(dim=1) * temperature**2
    return torch.cat([torch.lerp(losses[:-1], distilled, config.distillation_weight), losses[-1:]])


def prefix_sums(branch_logits: Tensor, earlier_gradient: float) -> Tensor:
    """Entry k is the sum of the first k + 1 branches: (N, B, C) -> (N, B, C).

    Of the gradient that arrives at entry k, branch k gets all and the branches before it
    ``earlier_gradient``: with 1 they learn together; with 0 each fits what the ones before it left,
    as in gradient boosting.
    """
    if earlier_gradient == 1.0:
        return branch_logits.cumsum(dim=0)
    before = branch_logits.detach().cumsum(dim=0) - branch_logits.detach()  # (N, B, C), without branch k
    if earlier_gradient > 0.0:
        moving = branch_logits.cumsum(dim=0) - branch_logits
        before = before + earlier_gradient * (moving - moving.detach())
    return before + branch_logits


def shuffle_branches(branch_logits: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """The branches after the first in random order for a ``share`` of the images: (N, B, C) -> (N, B, C).

    Prefix sums of the result are those of random subsets, so that any of them is trained to predict.
    """
    num_branches, batch, classes = branch_logits.shape
    device = branch_logits.device
    order = torch.rand(num_branches, batch, generator=generator, device=device) + 1.0
    chosen = torch.rand(batch, generator=generator, device=device) < share
    order = torch.where(chosen, order, torch.arange(num_branches, device=device)[:, None] + 1.0)
    order[0] = 0.0  # the first branch stays the first
    return branch_logits.gather(0, order.argsort(dim=0)[..., None].expand(-1, -1, classes))


def rand_augment(images: Tensor, magnitude: int, generator: torch.Generator) -> Tensor:
    """torchvision's RandAugment: uint8 (B, H, W, c) -> the same."""
    transform = _rand_augment(magnitude)
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        groups = [transform(group) for group in torch.split(images.permute(0, 3, 1, 2), _RAND_AUGMENT_GROUP)]
    return torch.cat(groups).permute(0, 2, 3, 1)


@functools.cache
def _rand_augment(magnitude: int) -> Callable[[Tensor], Tensor]:
    try:
        from torchvision.transforms import v2
    except (ImportError, RuntimeError) as error:  # RuntimeError: made for another build of torch
        raise InputError(
            f"RandAugment needs torchvision, made for torch {torch.__version__} ({str(error).splitlines()[0]}); "
            "install it from where torch came from, or set rand_augment_magnitude to 0"
        ) from error
    return v2.RandAugment(num_ops=2, magnitude=magnitude)


def report(progress: TrainingProgress) -> None:
    """A line for every epoch."""
    if progress.step + 1 == progress.steps_per_epoch:
        print(f"epoch {progress.epoch + 1}, loss {progress.loss:.4f}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    from baselines import load_teacher  # which takes RandAugment from here

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="Name or .json file: " + ", ".join([*RECIPES, *EXPERIMENTS]))
    parser.add_argument("--teacher", type=Path, help="Weights of a wide-resnet; without, the labels alone teach.")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="Checkpoint folder to write.")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="As of paraedge train.")
    parser.add_argument("--epochs", type=int, help="Other than the recipe's.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--holdout", type=int, help="Leave so many training images out, and test on them.")
    parser.add_argument("--workers", type=int, default=0, help="Processes that make batches.")
    parser.add_argument("--save-interval", type=float, default=60.0, help="Seconds between saved states. [60]")
    parser.add_argument("--compile", action="store_true", help="torch.compile the layers; pays on a GPU.")
    options = parser.parse_args(arguments)
    recipe = find(options.recipe)
    epochs = options.epochs or recipe.training.epochs
    recipe = with_settings(recipe, [f"epochs={epochs}", f"seed={options.seed}", *options.set])
    data = load_dataset(recipe.dataset, options.data_dir)
    if options.holdout:
        data = data.holdout(options.holdout, seed=0)
    checkpoint_config = CheckpointConfig(
        name=recipe.dataset,
        description=f"ParaFormer trained on {data.name}",
        license=data.license,
        dataset=recipe.dataset,
        labels=data.class_names,
        model=network_config(recipe.network, data),
    )
    checkpoint = train(
        data,
        checkpoint_config,
        recipe.training,
        options.out,
        teacher=load_teacher(options.teacher, recipe.dataset) if options.teacher else None,
        compile_parts=options.compile,
        num_workers=options.workers,
        save_interval_s=options.save_interval,
        step_type=ExperimentStep,
        on_progress=report,
    )
    alone = checkpoint.evaluation.branch_logits.argmax(axis=2) == checkpoint.evaluation.labels  # (N, images)
    for name, values in (("prefixes", checkpoint.training.prefix_accuracy), ("alone", alone.mean(axis=1))):
        print(f"{name}: {' '.join(f'{100 * value:.2f}' for value in values)}")


if __name__ == "__main__":
    main()

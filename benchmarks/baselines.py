"""Networks to compare a ParaFormer with, trained in the same harness: exits, nested widths, MSDNet, the paper's recipe.

    .venv/bin/python benchmarks/baselines.py macs
    .venv/bin/python benchmarks/baselines.py train vit-exits --data-dir data --out vit-exits
    .venv/bin/python benchmarks/baselines.py train wide-resnet --holdout 5000 --data-dir data --out wide-resnet
    .venv/bin/python benchmarks/baselines.py test wide-resnet wide-resnet.safetensors --data-dir data
    .venv/bin/python benchmarks/baselines.py train msdnet --teacher wide-resnet.safetensors --data-dir data --out msdnet

Every network predicts at several costs, but for ``wide-resnet`` and ``wide-resnet-grey``, which are there to teach
(CIFAR-10 and Fashion-MNIST). ``train`` prints the accuracy of every prediction, keeps the record as JSON and the
weights in float16; called again after a run that was cut off, it goes on from the last epoch.

Letters in shape comments: B images, T tokens, D width, N predictions, C classes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import safetensors.torch
import torch
import torch.nn.functional as F
from experiments import Experiment, ExperimentStep
from msgspec.structs import replace
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from wide_resnet import WideBlock, WideResNet

from paraedge.data import LabelledImages, load_dataset
from paraedge.model.config import ParaFormerConfig
from paraedge.model.paraformer import Block, ParaFormer, Tokens
from paraedge.training import RECIPES, Teacher, TrainingConfig
from paraedge.training.batches import TrainingBatches, normalise, training_batches
from paraedge.training.evaluate import evaluate_model
from paraedge.training.loop import learning_rate
from paraedge.training.step import TrainingStep

NUM_CLASSES = 10
IMAGES: dict[str, dict[str, Any]] = {
    "cifar10": {
        "image_size": 32,
        "in_channels": 3,
        "mean": (0.4914, 0.4822, 0.4465),
        "std": (0.2470, 0.2435, 0.2616),
    },
    "fashion-mnist": {"image_size": 28, "in_channels": 1, "mean": (0.2860,), "std": (0.3530,)},
}
TEACHERS = {"cifar10": "wide-resnet", "fashion-mnist": "wide-resnet-grey"}


def shape(num_predictions: int, dataset: str = "cifar10", **network: object) -> ParaFormerConfig:
    """The network shape of the recipe ``cifar10`` but for what is given; ``num_branches`` counts the predictions."""
    fields = {
        name: value for name, value in msgspec.structs.asdict(RECIPES["cifar10"].network).items() if name != "mel_bands"
    }
    fields.update(network, num_branches=num_predictions)
    return ParaFormerConfig(num_classes=NUM_CLASSES, **IMAGES[dataset], **fields)


class Baseline(nn.Module):
    """A network with several predictions, with the names that the harness knows from a ParaFormer."""

    config: ParaFormerConfig
    dataset = "cifar10"

    def predictions(self, images: Tensor) -> Iterator[Tensor]:
        """(B, 3, 32, 32) -> (B, C), one after the other."""
        raise NotImplementedError

    def prediction(self, images: Tensor, number: int) -> Tensor:
        """(B, 3, 32, 32) -> (B, C): the prediction of that number alone, with the work that it takes and no more."""
        *_, logits = itertools.islice(self.predictions(images), number + 1)
        return logits

    def pretrained_parts(self) -> list[nn.Sequential]:
        """None: all of it is trained here."""
        return []

    def branch_logits(self, images: Tensor) -> Tensor:
        """(B, 3, 32, 32) -> (N, B, C): predictions, each whole; other than those of branches they do not add up."""
        return torch.stack(list(self.predictions(images)))


class OnePrediction(Baseline):
    """An ordinary network: one prediction, after all of it."""

    def __init__(self, network: nn.Module, dataset: str = "cifar10") -> None:
        super().__init__()
        self.dataset = dataset
        self.config = shape(1, dataset, branch_width=128)  # of it only the predictions and the images count here
        self.network = network.to(memory_format=torch.channels_last)

    def predictions(self, images: Tensor) -> Iterator[Tensor]:
        """(B, 3, 32, 32) -> (B, C), once."""
        yield self.network(images)


def _convolutions(config: ParaFormerConfig) -> nn.Sequential:
    """Stem and first branch of such a ParaFormer without the blocks: (B, 3, 32, 32) -> (B, T, D)."""
    thin = ParaFormer(replace(config, num_branches=1, branch_depth=1))
    tokens = thin.branches[0].tokens
    assert isinstance(tokens, Tokens)
    return nn.Sequential(thin.stem, tokens)


def _head(config: ParaFormerConfig) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(config.embed_dim), nn.Linear(config.embed_dim, NUM_CLASSES))


class ExitViT(Baseline):
    """A ViT behind the convolutions of ``cifar10`` that predicts after some of its blocks, each exit trained alike."""

    def __init__(self, width: int, exits: tuple[int, ...]) -> None:
        super().__init__()
        self.config = shape(len(exits), branch_width=width)
        self.stem = _convolutions(self.config)
        self.blocks = nn.ModuleList(Block(self.config) for _ in range(exits[-1]))
        self.after = exits
        self.heads = nn.ModuleList(_head(self.config) for _ in exits)

    def predictions(self, images: Tensor) -> Iterator[Tensor]:
        """(B, 3, 32, 32) -> (B, C), one after the other."""
        x = self.stem(images)
        heads = iter(self.heads)
        for done, block in enumerate(self.blocks, start=1):
            x = block(x)
            if done in self.after:
                yield next(heads)(x[:, 0])


class NestedBlock(Block):
    """A block that works at a share of its width: its first heads, and the first hidden values of its MLP."""

    def forward(self, x: Tensor, share: float = 1.0) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        batch, tokens, dim = x.shape
        heads = round(self.num_heads * share)
        width = dim // self.num_heads * heads  # of these heads together
        y = self.norm1(x)
        query, key, value = (
            F.linear(y, layer.weight[:width], None if layer.bias is None else layer.bias[:width])
            .reshape(batch, tokens, heads, -1)
            .transpose(1, 2)  # (B, heads, T, d)
            for layer in (self.query, self.key, self.value)
        )
        if self.training:
            mixed = F.scaled_dot_product_attention(query, key, value)
        else:  # the same in the products that million_macs counts
            mixed = (query @ key.transpose(2, 3) * query.shape[3] ** -0.5).softmax(dim=3) @ value
        mixed = mixed.transpose(1, 2).reshape(batch, tokens, width)
        x = x + F.linear(mixed, self.proj.weight[:, :width], self.proj.bias)
        first, activation, second = self.mlp
        hidden = round(first.out_features * share)
        y = activation(F.linear(self.norm2(x), first.weight[:hidden], first.bias[:hidden]))
        return x + F.linear(y, second.weight[:, :hidden], second.bias)


class NestedViT(Baseline):
    """A ViT behind the convolutions of ``cifar10`` whose width is chosen after training.

    The rule of MatFormer (arXiv 2310.07707) and SortedNet (arXiv 2309.00255): a narrower network is the first rows of
    the wider one's matrices. Where they draw one width for each step, here every step trains all of them.
    """

    def __init__(self, width: int, depth: int, shares: tuple[float, ...]) -> None:
        super().__init__()
        self.config = shape(len(shares), branch_width=width)
        self.stem = _convolutions(self.config)
        self.blocks = nn.ModuleList(NestedBlock(self.config) for _ in range(depth))
        self.heads = nn.ModuleList(_head(self.config) for _ in shares)
        self.shares = shares

    def predictions(self, images: Tensor) -> Iterator[Tensor]:
        """(B, 3, 32, 32) -> (B, C), one after the other: none is on the way to the next but for the convolutions."""
        x = self.stem(images)
        for number in range(len(self.shares)):
            yield self._at(x, number)

    def prediction(self, images: Tensor, number: int) -> Tensor:
        """(B, 3, 32, 32) -> (B, C): at one width."""
        return self._at(self.stem(images), number)

    def _at(self, x: Tensor, number: int) -> Tensor:
        for block in self.blocks:
            x = block(x, self.shares[number])
        return self.heads[number](x[:, 0])  # type: ignore[no-any-return]


class ScaleLayer(nn.Module):
    """One layer of MSDNet: at every scale new channels from that scale and the finer one, behind those there were."""

    def __init__(self, widths: list[int], growths: list[int], finer: int | None) -> None:
        super().__init__()
        self.own = nn.ModuleList()
        self.down = nn.ModuleList()
        inputs = [finer, *widths] if finer is not None else [None, *widths]
        for (above, width), growth in zip(itertools.pairwise(inputs), growths, strict=True):
            self.own.append(_bottleneck(width, growth if above is None else growth // 2, 1))
            self.down.append(_bottleneck(above, growth - growth // 2, 2) if above is not None else nn.Identity())

    def forward(self, maps: list[Tensor], finer: Tensor | None) -> list[Tensor]:
        """One map (B, width, H, W) per scale, and a finer one that is not carried on -> the same, wider."""
        found = []
        for above, x, own, down in zip([finer, *maps[:-1]], maps, self.own, self.down, strict=True):
            new = [own(x)] if above is None else [own(x), down(above)]
            found.append(torch.cat([x, *new], dim=1))
        return found


def _conv(width_in: int, width: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(width_in, width, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())


def _bottleneck(width_in: int, width: int, stride: int) -> nn.Sequential:
    inner = min(width_in, 4 * width)
    return nn.Sequential(_conv(width_in, inner, 1, 1), _conv(inner, width, 3, stride))


class MSDNet(Baseline):
    """A multi-scale dense network (arXiv 1703.09844), three scales; the finest is given up after each third."""

    def __init__(self, growth: int, layers: int, exits: tuple[int, ...]) -> None:
        super().__init__()
        self.config = shape(len(exits), branch_width=128)  # of it only the predictions count here
        widths = [growth * 3, growth * 6, growth * 12]
        self.first = nn.ModuleList(
            _conv(width_in, width, 3, 1 if scale == 0 else 2)
            for scale, (width_in, width) in enumerate(itertools.pairwise([3, *widths]))
        )
        self.layers = nn.ModuleList()
        self.narrow = nn.ModuleDict()
        self.heads = nn.ModuleList()
        self.after = exits
        dropped = 0
        finer: int | None = None
        for number in range(layers):
            finer = None
            if number in (layers // 3, 2 * layers // 3):
                dropped += 1
                finer, widths = widths[0], widths[1:]  # read once more by the layer that does without
            growths = [growth * 2**scale for scale in range(dropped, 3)]
            self.layers.append(ScaleLayer(widths, growths, finer))
            widths = [width + new for width, new in zip(widths, growths, strict=True)]
            if number + 1 in (layers // 3, 2 * layers // 3):
                narrow = [width // 2 for width in widths]
                self.narrow[str(number)] = nn.ModuleList(
                    _conv(width, less, 1, 1) for width, less in zip(widths, narrow, strict=True)
                )
                widths = narrow
            if number + 1 in exits:
                self.heads.append(
                    nn.Sequential(
                        _conv(widths[-1], 128, 3, 2),
                        _conv(128, 128, 3, 2),
                        nn.AdaptiveAvgPool2d(1),
                        nn.Flatten(),
                        nn.Linear(128, NUM_CLASSES),
                    )
                )

    def predictions(self, images: Tensor) -> Iterator[Tensor]:
        """(B, 3, 32, 32) -> (B, C), one after the other."""
        maps: list[Tensor] = []
        x = images
        for first in self.first:
            x = first(x)
            maps.append(x)
        heads = iter(self.heads)
        for number, layer in enumerate(self.layers):
            finer = None
            if len(layer.own) < len(maps):
                finer, maps = maps[0], maps[1:]
            maps = layer(maps, finer)
            if str(number) in self.narrow:
                maps = [narrow(x) for narrow, x in zip(self.narrow[str(number)], maps, strict=True)]
            if number + 1 in self.after:
                yield next(heads)(maps[-1])


class PaperBlock(nn.Module):
    """A block as the paper's authors published it: the skip connections carry the normalised tokens."""

    def __init__(self, config: ParaFormerConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.num_heads = config.num_heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Sequential(nn.Linear(dim, dim), nn.Dropout(0.1))
        self.mlp = nn.Sequential(
            nn.Linear(dim, config.mlp_dim), nn.GELU(), nn.Dropout(0.1), nn.Linear(config.mlp_dim, dim), nn.Dropout(0.1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = self.norm1(x)
        batch, tokens, dim = x.shape
        query, key, value = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, tokens, dim)
        x = self.norm2(x + self.proj(mixed))
        return x + self.mlp(x)  # type: ignore[no-any-return]


class PaperParaFormer(Baseline):
    """The paper's network (arXiv 2510.15425 and its authors' code): token sequences are added, one head for all.

    Theirs resizes to 224 pixels and cuts patches of 16; here it is 32 pixels and patches of 4, 65 tokens.
    """

    def __init__(self, embed_dim: int = 192, num_branches: int = 8, depth: int = 2) -> None:
        super().__init__()
        self.config = shape(
            num_branches,
            embed_dim=embed_dim,
            num_heads=3,
            mlp_ratio=4.0,
            branch_width=None,
            branch_residual_blocks=0,
            branch_depth=depth,
        )
        dim = self.config.embed_dim
        self.patches = nn.Conv2d(3, dim, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, dim))
        self.positions = nn.Parameter(torch.randn(1, self.config.num_tokens, dim))
        self.dropout = nn.Dropout(0.1)
        self.branches = nn.ModuleList(
            nn.Sequential(*(PaperBlock(self.config) for _ in range(depth))) for _ in range(num_branches)
        )
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, NUM_CLASSES))

    def predictions(self, images: Tensor) -> Iterator[Tensor]:
        """(B, 3, 32, 32) -> (B, C), one after the other."""
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = self.dropout(torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.positions)
        total = torch.zeros_like(x)
        for branch in self.branches:
            total = total + branch(x)
            yield self.head(total[:, 0])


class PaperStep(TrainingStep):
    """The paper's rule: an Adam step for every prefix of branches on every batch, and one more for all of them.

    The authors' script makes the last one in a second pass over the data.
    """

    def _compute(self, images: Tensor, targets: Tensor) -> None:
        normalise(images, self.model.config)
        num_prefixes = self.model.config.num_branches
        for prefix in [*range(1, num_prefixes + 1), num_prefixes]:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=self._is_cuda, cache_enabled=False):
                *_, logits = itertools.islice(self.model.predictions(images), prefix)
            loss = F.cross_entropy(logits.float(), targets)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            trained = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
            nn.utils.clip_grad_norm_(trained, self.config.clip_norm)
            self.optimizer.step()
        with torch.no_grad():
            self._loss += loss
            self._correct += (logits.argmax(dim=1) == targets.argmax(dim=1)).sum()


class SGDStep(TrainingStep):
    """SGD with Nesterov's momentum in place of AdamW: what wide residual networks are best trained with."""

    def __init__(self, model: Baseline, config: TrainingConfig, device: torch.device, **options: Any) -> None:
        super().__init__(model, config, device, **options)  # type: ignore[arg-type]
        groups = self.optimizer.param_groups
        self.optimizer = torch.optim.SGD(
            [{key: group[key] for key in ("params", "weight_decay", "rate_share")} for group in groups],
            lr=groups[0]["lr"],
            momentum=0.9,
            nesterov=True,
            fused=self._is_cuda,
        )


_EXITS = replace(RECIPES["cifar10"].training, branch_weight=1.0)  # the mean cross-entropy of all predictions
_PAPER = Experiment(
    epochs=300,
    batch_size=500,
    learning_rate=1e-4,
    weight_decay=0.0,
    warmup_epochs=0.0,
    crop_padding=4,
    rand_augment_magnitude=14,
)
_WIDE = replace(
    Experiment(**msgspec.structs.asdict(RECIPES["cifar10"].training)),
    epochs=240,
    learning_rate=0.4,
    weight_decay=5e-4,
    clip_norm=5.0,
    label_smoothing=0.0,  # a smoothed teacher says less of what else the image could be (arXiv 1906.02629)
    rand_augment_magnitude=9,
    branch_weight=0.0,
)
_WIDE_GREY = replace(_WIDE, epochs=90, crop_padding=2, rand_augment_magnitude=0, mix_probability=0.25)
BASELINES: dict[str, tuple[Callable[[], Baseline], TrainingConfig]] = {
    "wide-resnet": (lambda: OnePrediction(WideResNet(28, 6, NUM_CLASSES)), _WIDE),
    "wide-resnet-grey": (lambda: OnePrediction(WideResNet(28, 6, NUM_CLASSES, 1), "fashion-mnist"), _WIDE_GREY),
    "vit-exits": (lambda: ExitViT(128, (1, 5, 13)), _EXITS),
    "vit-exits-thin": (lambda: ExitViT(48, (1, 3, 7, 15)), _EXITS),
    "nested-width": (lambda: NestedViT(128, 13, (0.25, 0.5, 1.0)), _EXITS),
    "msdnet": (lambda: MSDNet(8, 18, (3, 6, 9, 12, 15, 18)), _EXITS),
    "paper": (PaperParaFormer, _PAPER),
    "paper-equal": (lambda: PaperParaFormer(embed_dim=126), _PAPER),  # as many multiply-adds as cifar10-two-blocks
}


def million_macs(model: Baseline) -> list[float]:
    """Multiply-adds of each prediction, in millions."""
    side = model.config.image_size
    found = []
    for number in range(model.config.num_branches):
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            model.eval().prediction(torch.zeros(1, model.config.in_channels, side, side), number)
        found.append(round(counter.get_total_flops() / 2e6, 1))
    return found


def load_teacher(path: Path, dataset: str) -> Teacher:
    """The wide residual network of that data set, whose weights ``train`` kept.

    Raises:
        RuntimeError: the weights are those of another network.
    """
    model = BASELINES[TEACHERS[dataset]][0]()
    load_weights(model, path)
    assert isinstance(model, OnePrediction)
    return Teacher(model.network, model.config.mean, model.config.std)


def load_weights(model: Baseline, path: Path) -> None:
    """What ``train`` kept, back in float32."""
    state = {name: tensor.float() for name, tensor in safetensors.torch.load_file(path).items()}
    counters = {name: tensor for name, tensor in model.state_dict().items() if name.endswith("num_batches_tracked")}
    model.load_state_dict({**counters, **state})


def save_weights(model: nn.Module, path: Path) -> None:
    """In float16, without BatchNorm's step counters."""
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    safetensors.torch.save_file({name: tensor.half().contiguous() for name, tensor in state.items()}, path)


def settings(name: str, options: argparse.Namespace) -> TrainingConfig:
    """Those of the network; with a teacher, those of ``cifar10-taught`` where it differs from ``cifar10``."""
    _, config = BASELINES[name]
    if options.teacher:
        plain, taught = (msgspec.structs.asdict(RECIPES[recipe].training) for recipe in ("cifar10", "cifar10-taught"))
        config = replace(config, **{field: value for field, value in taught.items() if value != plain[field]})
    epochs = options.epochs or config.epochs
    return replace(config, seed=options.seed, epochs=epochs, warmup_epochs=min(config.warmup_epochs, epochs / 10))


def train(options: argparse.Namespace) -> None:
    """Train one baseline, from the last saved epoch if there is one, and write down every prediction's accuracy."""
    make, own = BASELINES[options.name]
    config = settings(options.name, options)
    torch.manual_seed(config.seed)
    model = make()
    data = load_dataset(model.dataset, options.data_dir)
    if options.holdout:
        data = data.holdout(options.holdout, seed=0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher = load_teacher(options.teacher, model.dataset) if options.teacher else None
    kind = {id(_PAPER): PaperStep, id(_WIDE): SGDStep, id(_WIDE_GREY): SGDStep}.get(id(own), TrainingStep)
    step = kind(model, config, device, teacher=teacher)  # type: ignore[arg-type]
    state_file = options.out.with_suffix(".resume")
    first_epoch = 0
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        step.model.load_state_dict(state["model"])
        step.optimizer.load_state_dict(state["optimizer"])
        if step.average is not None:
            step.average.load_state_dict(state["average"])
        first_epoch = state["epochs"]
    if options.compile:
        for part in model.modules():
            if isinstance(part, Block | PaperBlock | WideBlock):
                part.compile(dynamic=False)
        if teacher is not None:
            teacher.network.compile(dynamic=False)
    images, labels = torch.from_numpy(data.train.images), torch.from_numpy(data.train.labels)
    split = TrainingBatches(
        images[: options.images], labels[: options.images], NUM_CLASSES, config, augment=ExperimentStep.augment
    )
    batches = training_batches(split, first_epoch, num_workers=options.workers, pin_memory=device.type == "cuda")
    started = saved = time.monotonic()
    for epoch in range(first_epoch, config.epochs):
        step.start_epoch(epoch)
        for number in range(split.steps_per_epoch):
            done = epoch + number / split.steps_per_epoch
            step(*next(batches), config.learning_rate if own is _PAPER else learning_rate(config, done))
        print(
            f"{time.monotonic() - started:.1f} s: epoch {epoch + 1} of {config.epochs}, loss {step.loss:.3f}",
            flush=True,
        )
        is_last_now = time.monotonic() - started > options.seconds
        if is_last_now or epoch + 1 == config.epochs or time.monotonic() - saved > 60:
            average = None if step.average is None else step.average.state_dict()
            kept = {"model": step.model.state_dict(), "optimizer": step.optimizer.state_dict(), "average": average}
            torch.save({**kept, "epochs": epoch + 1}, state_file)
            saved = time.monotonic()
        if is_last_now:
            break
    save_weights(step.trained, options.out.with_suffix(".safetensors"))
    record = {
        "name": options.name,
        "seed": config.seed,
        "epochs": epoch + 1,
        "of": config.epochs,
        "seconds": round(time.monotonic() - started),
        "tested_on": data.name,
        "settings": msgspec.to_builtins(config),
        "predictions": tested(options.name, options.out.with_suffix(".safetensors"), data.test, device),
    }
    options.out.with_suffix(".json").write_text(json.dumps(record) + "\n")
    print(json.dumps(record))


def tested(name: str, weights: Path, data: LabelledImages, device: torch.device) -> list[dict[str, float]]:
    """Cost and accuracy of every prediction, of the weights as they are kept."""
    model = BASELINES[name][0]()
    load_weights(model, weights)
    macs = million_macs(model)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # float32 throughout
        predictions = evaluate_model(model.to(device), data).branch_logits  # type: ignore[arg-type]  # (N, images, C)
    accuracy = (predictions.argmax(axis=2) == data.labels).mean(axis=1)
    return [{"million_macs": cost, "accuracy": float(right)} for cost, right in zip(macs, accuracy, strict=True)]


def test(options: argparse.Namespace) -> None:
    """Every prediction of a trained baseline on the test split."""
    data = load_dataset(BASELINES[options.name][0]().dataset, options.data_dir)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(json.dumps(tested(options.name, options.weights, data.test, device)))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("macs", help="Multiply-adds of every prediction of every network.")
    command.set_defaults(
        run=lambda options: [print(name, million_macs(make())) for name, (make, _) in BASELINES.items()]
    )
    command = commands.add_parser("train", help="Train one and test every prediction.")
    command.set_defaults(run=train)
    command.add_argument("name", choices=BASELINES)
    command.add_argument("--data-dir", type=Path, required=True)
    command.add_argument("--out", type=Path, required=True, help="Name of the record, without suffix.")
    command.add_argument("--epochs", type=int, help="Other than the recipe's.")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--workers", type=int, default=0, help="Processes that make batches.")
    command.add_argument("--images", type=int, help="Only the first so many, to try it.")
    command.add_argument("--holdout", type=int, help="Leave so many training images out, and test on them.")
    command.add_argument("--teacher", type=Path, help="Weights of a wide-resnet, whose predictions become targets.")
    command.add_argument(
        "--seconds", type=float, default=float("inf"), help="Stop after an epoch; called again, it goes on."
    )
    command.add_argument("--compile", action="store_true", help="torch.compile the layers; pays on a GPU.")
    command = commands.add_parser("test", help="Test every prediction of kept weights.")
    command.set_defaults(run=test)
    command.add_argument("name", choices=BASELINES)
    command.add_argument("weights", type=Path)
    command.add_argument("--data-dir", type=Path, required=True)
    return parser


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    options.run(options)


if __name__ == "__main__":
    main()

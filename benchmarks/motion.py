"""Windows of a phone's or a watch's motion with whole people held out, and a convolutional network to compare with.

    python benchmarks/motion.py windows motion.npz motion
    paraedge train --recipe motion --dataset npz --data-dir motion/watch-0.npz --out watch-0     # and 1 to 4
    python benchmarks/folds.py --report watch-0 watch-1 watch-2 watch-3 watch-4
    python benchmarks/motion.py baseline motion/watch-*.npz

``motion.npz`` has recordings of sp-sw-har (Matey-Sanz, Casteleyn, Granell 2023, CC BY 4.0), one after another: people
sit, stand up, walk, turn, walk back, turn and sit down. Every recording is resampled to 50 samples per second and cut
into windows of 1.28 s, one every 0.32 s, none left out. A window's label is what takes most of it, so one at a border
is right by half at best. The 23 people are in five folds: all windows of a person are in one.

Letters in shape comments: B windows, C channels, T samples, K classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from own_network import trained
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from paraedge.data import load_dataset
from paraedge.model.config import ParaFormerConfig
from paraedge.model.signals import Signal
from paraedge.training import load_recipe
from paraedge.training.evaluate import evaluate_model

NUM_FOLDS = 5
RATE_HZ = 50
LENGTH, STEP = 64, 16  # samples
DEVICES = {"phone": "sp", "watch": "sw"}
WIDTHS = (20, 36, 48)  # of the convolutional network: about as many multiply-adds as all branches of the recipe


def cut(samples: np.ndarray, time_s: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One recording, (M, C), as windows (B, T, C) float32 and what takes most of each, (B,)."""
    grid = np.arange(int(time_s[-1] * RATE_HZ) + 1) / RATE_HZ
    even = np.stack([np.interp(grid, time_s, channel) for channel in samples.T], axis=1).astype(np.float32)
    at = labels[np.minimum(np.searchsorted(time_s, grid), len(labels) - 1)]
    starts = range(0, len(grid) - LENGTH + 1, STEP)
    windows = np.stack([even[start : start + LENGTH] for start in starts])
    return windows, np.array([np.bincount(at[start : start + LENGTH]).argmax() for start in starts])


def write(source: Path, out: Path) -> None:
    """For each device and fold one ``.npz`` that ``paraedge train --dataset npz`` reads."""
    with np.load(source) as arrays:
        data = {name: arrays[name] for name in arrays.files}
    out.mkdir(parents=True, exist_ok=True)
    people = np.random.default_rng(0).permutation(np.unique(data["person"]))
    for name, code in DEVICES.items():
        windows, labels, person = [], [], []
        for number in np.flatnonzero(data["device"] == code):
            part = slice(data["offsets"][number], data["offsets"][number + 1])
            found, label = cut(data["samples"][part], data["time_ms"][part] / 1000.0, data["labels"][part])
            windows.append(found)
            labels.append(label)
            person.append(np.full(len(found), data["person"][number]))
        x, y, groups = (np.concatenate(values) for values in (windows, labels, person))
        for fold in range(NUM_FOLDS):
            held = np.isin(groups, people[fold::NUM_FOLDS])
            np.savez(
                out / f"{name}-{fold}.npz",
                **{f"{array}_train": values[~held] for array, values in (("x", x), ("y", y), ("groups", groups))},
                **{f"{array}_test": values[held] for array, values in (("x", x), ("y", y), ("groups", groups))},
                rate_hz=RATE_HZ,
                channel_names=data["axes"],
                class_names=np.array([text.lower() for text in data["label_names"]]),
            )
        print(f"{name}: {len(x)} windows of {len(people)} people, by class {np.bincount(y)}")


class ConvNet(nn.Module):
    """Stages of two convolutions over time, their mean, one matrix. Has the names that training knows."""

    def __init__(self, config: ParaFormerConfig, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        width_in = config.in_channels
        for width in widths:
            for channels, stride in ((width_in, 2), (width, 1)):
                conv = nn.Conv1d(channels, width, kernel_size=3, stride=stride, padding=1, bias=False)
                layers += [conv, nn.BatchNorm1d(width), nn.ReLU()]
            width_in = width
        self.convs = nn.Sequential(*layers)
        self.classifier = nn.Linear(width_in, config.num_classes)

    def pretrained_parts(self) -> list[nn.Sequential]:
        """None: all of it is trained here."""
        return []

    def branch_logits(self, signals: Tensor) -> Tensor:
        """(B, C, T) -> (1, B, K)."""
        logits: Tensor = self.classifier(self.convs(signals).mean(dim=2))
        return logits[None]


def baseline(folds: list[Path], seed: int) -> None:
    """Train and test the convolutional network on every fold with the settings of the recipe."""
    accuracy = []
    for path in folds:
        data = load_dataset("npz", path)
        config = load_recipe("motion").training
        mean, std = data.channel_statistics()
        channels, length = data.sample_shape
        shape = ParaFormerConfig(
            signal=Signal(length=length, rate_hz=data.rate_hz, channel_names=data.channel_names),
            in_channels=channels,
            num_classes=len(data.class_names),
            num_branches=1,
            mean=mean,
            std=std,
        )
        torch.manual_seed(seed)
        model = ConvNet(shape, WIDTHS)
        logits = evaluate_model(trained(model, data, config), data.test).branch_logits[0]
        accuracy.append(100 * (logits.argmax(axis=1) == data.test.labels).mean())
        print(f"{path.stem}: {accuracy[-1]:.2f} %", flush=True)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.eval().branch_logits(torch.zeros(1, *data.sample_shape))
    deviation = np.std(accuracy, ddof=1) if len(accuracy) > 1 else 0.0
    print(f"{counter.get_total_flops() // 2:,} MACs; mean {np.mean(accuracy):.2f} %, deviation {deviation:.2f}")


def main() -> None:
    """Write windows, or train and test the convolutional network on them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("windows", help="Folds as .npz files.")
    command.add_argument("source", type=Path)
    command.add_argument("out", type=Path)
    command.set_defaults(run=lambda given: write(given.source, given.out))
    command = commands.add_parser("baseline", help="The convolutional network on these folds.")
    command.add_argument("folds", type=Path, nargs="+")
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(run=lambda given: baseline(given.folds, given.seed))
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()

"""Spoken digits by speakers who trained nothing: the recipe ``sound`` beside a small convolutional network.

    .venv/bin/python benchmarks/spoken_digits.py macs
    .venv/bin/python benchmarks/spoken_digits.py train sound --data spoken_digits.npz --speaker 0 --log folds.jsonl
    .venv/bin/python benchmarks/spoken_digits.py train convolutions --data spoken_digits.npz --speaker 0 \\
        --log folds.jsonl
    .venv/bin/python benchmarks/spoken_digits.py table folds.jsonl

The file holds the Free Spoken Digit Dataset: ``pcm`` (int16), ``offsets``, ``labels``, ``speakers``, ``recording``.
``--speaker`` is held out, whole, and the other five train. Both networks see the same batches of the same log-mel, for
as many epochs, and cost as many multiply-adds. ``train`` adds a line to the log; ``--out`` keeps the checkpoint.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec.structs import asdict, replace
from own_network import trained
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from paraedge.data import LabelledSignals, SignalDataset
from paraedge.model import ParaFormer, ParaFormerConfig, Signal
from paraedge.model.frontend import front_end
from paraedge.model.records import CheckpointConfig
from paraedge.model.signals import log_mel
from paraedge.training import RECIPES, train
from paraedge.training.config import TrainingConfig
from paraedge.training.evaluate import evaluate_model
from paraedge_runtime.sound import fitted

RATE_HZ, LENGTH = 8000.0, 8000
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WIDTHS = (22, 36, 60, 108)


def read(path: Path, held_out: int, recordings: int) -> SignalDataset:
    """All of the speaker ``held_out`` to test, the first ``recordings`` of each digit of the others to train."""
    file = np.load(path)
    pcm, offsets, speakers = file["pcm"].astype(np.float32) / 32768, file["offsets"], file["speakers"].astype(np.int64)
    clips = np.stack([fitted(pcm[start:end], LENGTH) for start, end in itertools.pairwise(offsets.tolist())])
    everything = LabelledSignals(clips[:, None], file["labels"].astype(np.int64), speakers)
    kept = everything.take(np.flatnonzero((file["recording"] < recordings) | (speakers == held_out)))
    rest, test = kept.without_groups((held_out,))
    return SignalDataset(
        f"spoken digits without speaker {held_out}", rest, test, NAMES, "CC BY-SA 4.0", RATE_HZ, ("mono",)
    )


def shape(data: SignalDataset | None = None) -> ParaFormerConfig:
    """The network of the recipe ``sound`` for these clips."""
    network = asdict(RECIPES["sound"].network)
    bands = network.pop("mel_bands")
    signal = Signal(length=LENGTH, rate_hz=RATE_HZ, channel_names=("mono",), log_mel=log_mel(bands, RATE_HZ))
    mean, std = ((0.0,), (1.0,)) if data is None else data.channel_statistics()
    return ParaFormerConfig(signal=signal, in_channels=1, num_classes=len(NAMES), mean=mean, std=std, **network)


class Convolutions(ParaFormer):
    """The usual network for keywords: stages of two convolutions on the log-mel, a mean over the map, one layer."""

    def __init__(self, config: ParaFormerConfig) -> None:
        nn.Module.__init__(self)
        self.config = replace(config, num_branches=1, branch_width=None, stem_width=None)
        assert config.signal is not None
        layers: list[nn.Module] = [front_end(config.signal)]
        for width_in, width in zip((1, *WIDTHS), WIDTHS, strict=False):
            for inputs, stride in ((width_in, 2), (width, 1)):
                conv = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
                layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
        self.stem = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.branches = nn.ModuleList([nn.Linear(WIDTHS[-1], config.num_classes)])

    def own_branches(self) -> list[Any]:
        """None has pretrained stages."""
        return []


NETWORKS = {"sound": ParaFormer, "convolutions": Convolutions}


def million_macs(model: ParaFormer) -> list[float]:
    """Multiply-adds of the first 1, 2, … branches for one clip, the log-mel included."""
    costs = []
    with torch.no_grad():
        for count in range(1, len(model.branches) + 1):
            with FlopCounterMode(display=False) as counter:
                x = model.eval().stem(torch.zeros(1, 1, LENGTH))
                for branch in model.branches[:count]:
                    branch(x)
            costs.append(round(counter.get_total_flops() / 2e6, 2))
    return costs


def learn(model: ParaFormer, data: SignalDataset, config: TrainingConfig) -> tuple[float, ...]:
    """Train by the harness of ``paraedge train``; the accuracy of every prefix on the test split."""
    return evaluate_model(trained(model, data, config), data.test).prefix_accuracy()


def train_one(options: argparse.Namespace) -> None:
    """One network without one speaker, a line in the log."""
    data = read(options.data, options.speaker, options.recordings)
    settings = replace(RECIPES["sound"].training, epochs=options.epochs, seed=options.seed)
    started = time.monotonic()
    if options.out is None:
        torch.manual_seed(options.seed)
        accuracy = learn(NETWORKS[options.network](shape(data)), data, settings)
    else:
        config = CheckpointConfig(
            name="spoken-digits", description="Spoken digits, English", license=data.license, dataset=data.name,
            labels=NAMES, model=shape(data),
        )  # fmt: skip
        accuracy = train(data, config, settings, options.out, device="cpu").training.prefix_accuracy
    record = {
        "network": options.network,
        "speaker": options.speaker,
        "seed": options.seed,
        "epochs": options.epochs,
        "train_clips": len(data.train),
        "test_clips": len(data.test),
        "prefix_accuracy": accuracy,
        "train_s": round(time.monotonic() - started, 1),
    }
    print(json.dumps(record))
    with options.log.open("a") as log:
        log.write(json.dumps(record) + "\n")


def table(options: argparse.Namespace) -> None:
    """Mean and spread over the speakers."""
    records = [json.loads(line) for line in options.log.read_text().splitlines()]
    for network in NETWORKS:
        folds = sorted((record for record in records if record["network"] == network), key=lambda r: r["speaker"])
        for number, values in enumerate(zip(*(fold["prefix_accuracy"] for fold in folds), strict=True), start=1):
            each = " ".join(f"{100 * value:.1f}" for value in values)
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            print(f"{network}, {number}: {100 * statistics.mean(values):.1f} ± {100 * spread:.1f} % (speakers: {each})")


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("macs", help="Multiply-adds of every prefix.")
    command.set_defaults(
        run=lambda options: [print(name, million_macs(make(shape()))) for name, make in NETWORKS.items()]
    )
    command = commands.add_parser("train", help="Train one network without one speaker.")
    command.add_argument("network", choices=NETWORKS)
    command.add_argument("--data", type=Path, required=True)
    command.add_argument("--speaker", type=int, required=True, help="Held out, 0 to 5.")
    command.add_argument("--recordings", type=int, default=50, help="Of each digit of each speaker, to train. [50]")
    command.add_argument("--epochs", type=int, default=RECIPES["sound"].training.epochs)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--log", type=Path, required=True)
    command.add_argument("--out", type=Path, help="Checkpoint folder to write, of the network 'sound'.")
    command.set_defaults(run=train_one)
    command = commands.add_parser("table", help="Means of a log.")
    command.add_argument("log", type=Path)
    command.set_defaults(run=table)
    options = parser.parse_args(arguments)
    options.run(options)


if __name__ == "__main__":
    main()

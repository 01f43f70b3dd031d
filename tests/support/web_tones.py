"""A bundle that hears, of which every value is known: two tones, told apart by filters that are written down here."""

import numpy as np
import torch
from torch import nn

from paraedge_converters.description import ModelDescription
from paraedge_runtime.manifest import TensorInput

RATE_HZ = 8000
LENGTH = 4000
TONES_HZ = {"low": 400.0, "high": 2000.0}
_TAPS = 80  # whole periods of both


class ToneBranches(nn.Module):
    """(1, 1, 4000) samples -> "silence", "low" or "high", by how strong each tone is."""

    def __init__(self):
        super().__init__()
        self.input_spec = TensorInput(
            name="sound",
            shape=(1, 1, LENGTH),
            axes=("channel", "time"),
            normalized_axis=None,
            mean=(0.0,),
            std=(1.0,),
            rate_hz=RATE_HZ,
        )
        self.num_outputs = 3
        time = torch.arange(_TAPS) / RATE_HZ
        waves = [
            wave(2 * torch.pi * hertz * time) * 2 / _TAPS
            for hertz in TONES_HZ.values()
            for wave in (torch.sin, torch.cos)
        ]
        filters = nn.Conv2d(1, 8, (1, _TAPS), stride=(1, 20), bias=False)
        filters.weight.data = torch.stack([sign * wave for wave in waves for sign in (1, -1)])[:, None, None]
        # Of a sine and its opposite, after ReLU, the mean is how strong the tone is.
        self.stem = nn.Sequential(
            nn.Unflatten(2, (1, LENGTH)),
            filters,
            nn.ReLU(),
            nn.AvgPool2d((1, (LENGTH - _TAPS) // 20 + 1)),
            nn.Flatten(),
        )
        self.branches = nn.ModuleList(nn.Linear(8, 3) for _ in range(2))
        for branch in self.branches:
            branch.weight.data = 20 * torch.tensor([[0.0] * 8, [1.0] * 4 + [0.0] * 4, [0.0] * 4 + [1.0] * 4])
            branch.bias.data = torch.tensor([1.0, 0.0, 0.0])


def tone(hertz, seconds, rate_hz=RATE_HZ, seed=0):
    """(T,) float32 with a little noise; 0 hertz: noise alone."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    noise = np.random.default_rng(seed).normal(size=len(time))
    return (0.5 * np.sin(2 * np.pi * hertz * time) + 0.01 * noise).astype(np.float32)


def description() -> ModelDescription:
    """What ``convert`` needs to know of it."""
    hertz = [0.0, *TONES_HZ.values()] * 12
    samples = np.stack([tone(one, LENGTH / RATE_HZ, seed=seed)[None] for seed, one in enumerate(hertz)])
    return ModelDescription(
        name="tones",
        description="tells two tones apart",
        license="Apache-2.0",
        samples=samples,
        labels=("silence", *TONES_HZ),
        sample_labels=np.arange(len(samples)) % 3,
    )

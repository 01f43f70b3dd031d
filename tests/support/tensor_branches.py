"""Branch models that read no image: sound, motion, and one whose output is an embedding."""

import numpy as np
import torch
from torch import nn

from paraedge_converters.description import ModelDescription
from paraedge_runtime.manifest import TensorInput


class SoundBranches(nn.Module):
    """(1, 1, 16000) samples of sound -> 5 labels; convolutions over time, written as images of height 1."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.stem = nn.Sequential(
            nn.Unflatten(2, (1, 16000)), nn.Conv2d(1, 8, (1, 64), stride=(1, 32)), nn.ReLU(), nn.AvgPool2d((1, 8))
        )
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, (1, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 60, 5, bias=False))
            for _ in range(2)
        )
        self.num_outputs = 5
        self.input_spec = TensorInput(
            name="sound", shape=(1, 1, 16000), axes=("channel", "time"), normalized_axis=None, mean=(0.01,), std=(0.2,)
        )


class _Motion(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        torch.manual_seed(2)
        self.input_spec = TensorInput(
            name="motion",
            shape=(1, 6, 128),
            axes=("sensor", "time"),
            normalized_axis="sensor",
            mean=(0.0, 0.0, 9.8, 0.0, 0.0, 0.0),
            std=(3.0, 3.0, 3.0, 0.5, 0.5, 0.5),
        )
        self.stem = nn.Sequential(nn.Flatten(), nn.Linear(6 * 128, 64), nn.ReLU())
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, outputs, bias=False)) for _ in range(3)
        )
        self.num_outputs = outputs


class MotionBranches(_Motion):
    """(1, 6, 128) of three accelerations and three rates of turn -> 4 labels."""

    def __init__(self):
        super().__init__(4)


class EmbeddingBranches(_Motion):
    """The same input -> an embedding of 384 numbers."""

    def __init__(self):
        super().__init__(384)


def recordings(spec: TensorInput, count: int = 40) -> np.ndarray:
    """Tones of many frequencies with noise, (count, ...) float32, before they are normalised."""
    rng = np.random.default_rng(5)
    channels, length = spec.shape[1:]
    time = np.arange(length) / length
    frequency, phase = rng.uniform(1, 60, (count, channels, 1)), rng.uniform(0, 6, (count, channels, 1))
    tone = np.sin(2 * np.pi * frequency * time + phase) + 0.1 * rng.normal(size=(count, channels, length))
    mean, std = (np.resize(values, channels)[:, None] for values in (spec.mean, spec.std))
    return (tone * std + mean).astype(np.float32)


def describe(model, **changes) -> ModelDescription:
    """What ``convert`` needs to know of one of these models, with changes."""
    samples = recordings(model.input_spec)
    fields = {"name": "sensor", "description": "of a sensor", "license": "MIT", "samples": samples}
    if model.num_outputs == 384:
        fields["vector"] = "embedding"
    else:
        fields["labels"] = tuple(f"class {index}" for index in range(model.num_outputs))
        fields["sample_labels"] = np.arange(len(samples)) % model.num_outputs
    return ModelDescription(**{**fields, **changes})

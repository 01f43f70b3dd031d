"""Random changes of batches of signals: how a sensor is held, when they begin, how fast they are, how loud, and noise.

Letters in shape comments: B signals of C channels and T samples. They may be on a GPU; random numbers are drawn on the
CPU, the same for both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from paraedge.training.config import TrainingConfig

__all__ = ["augment_signals", "sensor_axes"]

# Noise is drawn down to so much below the loudest that is allowed.
_NOISE_RANGE_DB = 30.0


def sensor_axes(channel_names: tuple[str, ...]) -> tuple[tuple[int, int, int], ...]:
    """Which channels are the axes of one sensor: names that differ in a last ``x``, ``y``, ``z`` and nothing else."""
    at = {name.lower(): index for index, name in enumerate(channel_names)}
    stems = [name.removesuffix("x") for name in at if name.endswith("x")]
    triples = [[at.get(stem + axis) for axis in "xyz"] for stem in stems]
    return tuple((x, y, z) for x, y, z in triples if x is not None and y is not None and z is not None)


def augment_signals(
    signals: Tensor,
    config: TrainingConfig,
    generator: torch.Generator,
    axes: tuple[tuple[int, int, int], ...] = (),
) -> Tensor:
    """What one signal alone decides: float32 (B, C, T) -> the same shape. ``axes`` are channels that turn together."""
    if config.rotation_degrees and axes:
        signals = _rotate(signals, axes, config.rotation_degrees, generator)
    if config.time_shift or config.speed_change:
        signals = _shift(signals, config.time_shift, config.speed_change, generator)
    if config.gain_db:
        gain = config.gain_db * (2 * _draw(signals, generator) - 1)
        signals = signals * 10 ** (gain / 20)
    if config.noise_db:
        signals = _add_noise(signals, config.noise_db, generator)
    return signals


def _draw(signals: Tensor, generator: torch.Generator) -> Tensor:
    """One number from 0 to 1 for each signal, (B, 1, 1)."""
    return torch.rand(len(signals), 1, 1, generator=generator).to(signals.device)


def _rotate(
    signals: Tensor, axes: tuple[tuple[int, int, int], ...], degrees: float, generator: torch.Generator
) -> Tensor:
    """Every device turned about a line of its own (Rodrigues' formula), all its sensors alike."""
    line = torch.randn(len(signals), 3, generator=generator)
    x, y, z = (line / line.norm(dim=1, keepdim=True)).unbind(dim=1)
    nought = torch.zeros_like(x)
    cross = torch.stack([nought, -z, y, z, nought, -x, -y, x, nought], dim=1).reshape(-1, 3, 3)
    angle = torch.deg2rad((2 * torch.rand(len(signals), 1, 1, generator=generator) - 1) * degrees)
    turn = torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)  # (B, 3, 3)
    turn, result = turn.to(signals.device), signals.clone()
    for channels in axes:
        result[:, list(channels)] = turn @ signals[:, list(channels)]
    return result


def _shift(signals: Tensor, share: float, speed_change: float, generator: torch.Generator) -> Tensor:
    """Each sample from where it was before, between two samples of them; 0 where there was none."""
    count, channels, length = signals.shape
    shift = (2 * _draw(signals, generator) - 1) * share * length
    speed = (1 + speed_change) ** (2 * _draw(signals, generator) - 1)
    middle = (length - 1) / 2
    position = (torch.arange(length, device=signals.device) - middle) * speed + middle + shift  # (B, 1, T)
    before = position.floor()
    between = position - before
    result = torch.zeros_like(signals)
    for index, weight in ((before, 1 - between), (before + 1, between)):
        inside = (index >= 0) & (index < length)
        chosen = index.clamp(0, length - 1).long().expand(count, channels, length)
        result += signals.gather(2, chosen) * (weight * inside)
    return result


def _add_noise(signals: Tensor, loudest_db: float, generator: torch.Generator) -> Tensor:
    level = loudest_db - _NOISE_RANGE_DB * _draw(signals, generator)
    chosen = _draw(signals, generator) < 0.5
    noise = torch.randn(signals.shape, generator=generator).to(signals.device)
    return signals + noise * signals.std(dim=2, keepdim=True) * 10 ** (level / 20) * chosen

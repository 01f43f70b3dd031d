"""From a signal to the map that convolutions read; log-mel as fixed convolutions, so that a device needs no library.

Letters in shape comments: B signals of C channels and T samples; F frequencies, M mel bands.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from paraedge.model.signals import LogMel, Signal

__all__ = ["LogMelMap", "Row", "front_end", "mel_bands"]

_LOWEST_HZ = 20.0
# The power, beside that of white noise of standard deviation 1, which is as good as silence: 60 dB less.
_SILENCE = 1e-6


def front_end(signal: Signal) -> nn.Module:
    """What the stem of a signal begins with: (B, C, T) -> (B, *signal.map_shape)."""
    return Row() if signal.log_mel is None else LogMelMap(signal.log_mel, signal.rate_hz)


class Row(nn.Module):
    """The samples themselves as a map of one row: (B, C, T) -> (B, C, 1, T)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, 1, T)."""
        return x.unsqueeze(2)


class LogMelMap(nn.Module):
    """Log-mel of one channel: (B, 1, T) -> (B, 1, M, frames), 0 for silence, about 1 for noise of standard deviation 1.

    A frame's spectrum is two rows of products for each frequency, with cosine and sine under the window: one
    convolution with fixed weights. Their squares go through the mel matrix, a 1×1 convolution, and then::

        log(1 + power / silence) / log(1 / silence)
    """

    spectrum: Tensor
    bands: Tensor

    def __init__(self, log_mel: LogMel, rate_hz: float) -> None:
        super().__init__()
        self.hop = log_mel.hop
        mel = mel_bands(log_mel, rate_hz)  # (M, F)
        used = np.flatnonzero(mel.any(axis=0))  # neither 0 Hz nor what lies above the last band
        sample = np.arange(log_mel.window)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * sample / log_mel.window)
        window /= math.sqrt((window**2).sum())  # white noise of standard deviation 1 has power 1 at each frequency
        angle = 2 * np.pi * used[:, None] * sample / log_mel.window
        spectrum = np.concatenate([np.cos(angle), np.sin(angle)]) * window  # (2F, window)
        bands = np.concatenate([mel[:, used], mel[:, used]], axis=1) / _SILENCE  # (M, 2F)
        # Made of the configuration, so not kept with the weights.
        for name, values in (("spectrum", spectrum[:, None, None, :]), ("bands", bands[:, :, None, None])):
            self.register_buffer(name, torch.from_numpy(values.astype(np.float32)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, T) -> (B, 1, M, frames)."""
        waves = nn.functional.conv2d(x.unsqueeze(2), self.spectrum, stride=(1, self.hop))  # (B, 2F, 1, frames)
        power = nn.functional.conv2d(waves * waves, self.bands)  # (B, M, 1, frames)
        return torch.log(power + 1.0).transpose(1, 2) * (-1.0 / math.log(_SILENCE))


def mel_bands(log_mel: LogMel, rate_hz: float) -> NDArray[np.float64]:
    """The mel matrix (M, window // 2 + 1): triangles with their tops evenly spaced on the mel scale.

    Each row sums to 1, a mean of powers. A band that is narrower than the step between two frequencies takes the one
    next to its top.
    """
    frequencies = np.arange(log_mel.window // 2 + 1) * rate_hz / log_mel.window
    ends = 2595.0 * np.log10(1.0 + np.array([_LOWEST_HZ, rate_hz / 2]) / 700.0)
    points = 700.0 * (10.0 ** (np.linspace(ends[0], ends[1], log_mel.num_bands + 2) / 2595.0) - 1.0)
    low, top, high = points[:-2, None], points[1:-1, None], points[2:, None]
    rising, falling = (frequencies - low) / (top - low), (high - frequencies) / (high - top)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    narrow = weights.sum(axis=1) == 0
    weights[narrow, np.abs(frequencies - top).argmin(axis=1)[narrow]] = 1.0
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))

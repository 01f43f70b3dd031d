"""What a model of samples over time reads, sound or motion, and the map that its stem makes of them."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec

from paraedge_runtime.manifest import Name, RateHz

__all__ = ["LogMel", "Signal", "log_mel"]


class LogMel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A log-mel spectrogram: power in decibels, in bands that are evenly spaced on the mel scale.

    Attributes:
        num_bands: from 20 Hz to half the sampling rate.
        window: samples of a frame, under a Hann window.
        hop: samples from one frame to the next.
    """

    num_bands: Annotated[int, msgspec.Meta(ge=4, le=256)]
    window: Annotated[int, msgspec.Meta(ge=16, le=4096)]
    hop: Annotated[int, msgspec.Meta(ge=1, le=4096)]


def log_mel(num_bands: int, rate_hz: float) -> LogMel:
    """Frames of 32 ms, one every 16 ms."""
    hop = max(1, round(rate_hz * 0.016))
    return LogMel(num_bands=num_bands, window=2 * hop, hop=hop)


class Signal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A window of samples over time.

    Attributes:
        length: number of samples T per channel.
        rate_hz: samples per second.
        channel_names: one per channel.
        log_mel: spectrogram for sound with one channel; ``None``: the convolutions read the samples.
    """

    length: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
    rate_hz: RateHz
    channel_names: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=1024)]
    log_mel: LogMel | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.rate_hz) or self.rate_hz <= 0:
            raise ValueError(f"rate_hz must be above 0, got {self.rate_hz}")
        if len(set(self.channel_names)) != len(self.channel_names):
            raise ValueError(f"channel_names must be unique, got {', '.join(self.channel_names)}")
        if self.log_mel is None:
            return
        if len(self.channel_names) != 1:
            raise ValueError(f"log_mel needs exactly one channel, got {len(self.channel_names)}")
        if self.length < self.log_mel.window:
            raise ValueError(f"length {self.length} is shorter than the window of log_mel, {self.log_mel.window}")

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """Shape (c, H, W) that the convolutions read: bands by frames, or the channels in a single row."""
        if self.log_mel is None:
            return (len(self.channel_names), 1, self.length)
        return (1, self.log_mel.num_bands, (self.length - self.log_mel.window) // self.log_mel.hop + 1)

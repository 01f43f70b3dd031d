"""A folder of recordings as a data set: which files, how long their window is, and one sampling rate for all."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paraedge.data.readers import class_files
from paraedge.data.signals import LabelledSignals
from paraedge_runtime.errors import InputError
from paraedge_runtime.inputs import IMAGE_SUFFIXES, visible_files
from paraedge_runtime.sound import SOUND_SUFFIXES, convert_hint, fitted, read_wav

__all__ = ["holds_sound", "read_sound_folders", "window_length"]

_MAX_BYTES = 8 << 30  # of all recordings, in memory
_WINDOW_S = (0.5, 10.0)


def holds_sound(folder: Path) -> bool:
    """Whether the data set in a folder is of recordings.

    Raises:
        InputError: it has images too.
    """
    if not visible_files(folder, SOUND_SUFFIXES):
        return False
    if images := visible_files(folder, IMAGE_SUFFIXES):
        raise InputError(f"{folder} has both .wav files and images, such as {images[0]}; move one kind elsewhere")
    return True


def read_sound_folders(
    roots: list[Path], class_names: tuple[str, ...], length: int | None, rate_hz: float | None
) -> tuple[list[LabelledSignals], float]:
    """The recordings in sub-folders that are named after their classes, of each root, and samples per second.

    Args:
        roots: one, or the train and the test split.
        class_names: in their order.
        length: of the window, in samples; by :func:`window_length` of the first root when ``None``.
        rate_hz: of all files; that of the first one when ``None``.

    Raises:
        InputError: a class folder has no recording, one cannot be read, or has another sampling rate.
    """
    clips: list[list[tuple[NDArray[np.float32], int]]] = []
    first: Path | None = None
    total_bytes = 0
    for root in roots:
        clips.append([])
        for path, label in class_files(root, class_names, SOUND_SUFFIXES, ".wav files"):
            samples, found_hz = read_wav(path)
            rate_hz, first = (found_hz, path) if rate_hz is None else (rate_hz, first)
            if found_hz != rate_hz:
                others = "the model reads" if first is None else f"{first} has"
                raise InputError(
                    f"{path} has {found_hz} samples a second, {others} {rate_hz:g}; {convert_hint(rate_hz)}"
                )
            total_bytes += samples.nbytes
            if total_bytes > _MAX_BYTES:
                raise InputError(f"{root} has more than {_MAX_BYTES >> 30} GiB of sound; use fewer recordings")
            clips[-1].append((samples, label))
    assert rate_hz is not None  # no root is empty
    window = length or window_length([len(samples) for samples, _ in clips[0]], rate_hz)
    splits = [
        LabelledSignals(
            np.stack([fitted(samples, window) for samples, _ in split])[:, None],
            np.asarray([label for _, label in split], dtype=np.int64),
        )
        for split in clips
    ]
    return splits, float(rate_hz)


def window_length(lengths: list[int], rate_hz: float) -> int:
    """Samples of the window for clips of these lengths: that which 95 of 100 clips do not exceed, rounded up to a
    tenth of a second; half a second at least, 10 s at most."""
    enough_s = float(np.quantile(lengths, 0.95, method="inverted_cdf")) / rate_hz
    shortest, longest = _WINDOW_S
    return round(min(max(math.ceil(10 * enough_s - 1e-9) / 10, shortest), longest) * rate_hz)

"""Windows of motion and other sensors: class folders of ``.csv`` files, one window each, or an ``.npz`` of them all.

Letters in shape comments: N windows of T samples of C channels.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paraedge.data.readers import class_files
from paraedge.data.signals import LabelledSignals
from paraedge_runtime._npz import missing_arrays, read_arrays
from paraedge_runtime.errors import InputError
from paraedge_runtime.inputs import IMAGE_SUFFIXES, visible_files
from paraedge_runtime.sensor_windows import WindowShape, read_channel_names, read_rate_hz, read_window

__all__ = ["CSV_SUFFIXES", "Windows", "holds_windows", "is_window_npz", "read_window_folders", "read_window_npz"]

CSV_SUFFIXES = frozenset({".csv"})
_MAX_ARRAY_BYTES = 8 << 30  # as of images
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


class Windows(NamedTuple):
    """Windows of one split, and what they have in common."""

    signals: LabelledSignals
    shape: WindowShape


def holds_windows(folder: Path) -> bool:
    """Whether the data set in a folder is of windows: ``.csv`` files, and no images they may be notes to."""
    return bool(visible_files(folder, CSV_SUFFIXES)) and not visible_files(folder, IMAGE_SUFFIXES)


def read_window_folders(
    roots: list[Path], class_names: tuple[str, ...], wanted: WindowShape | None = None
) -> tuple[list[LabelledSignals], WindowShape]:
    """``.csv`` files in sub-folders that are named after their classes, of each root; each file is one window.

    All have the shape ``wanted``, that of a model, or else that of the first.

    Raises:
        InputError: a class folder has no ``.csv``, one cannot be read, or is another window.
    """
    shape, reader = wanted, "the model"
    rates: list[float] = []
    splits: list[LabelledSignals] = []
    for root in roots:
        windows: list[NDArray[np.float32]] = []
        labels: list[int] = []
        for path, label in class_files(root, class_names, CSV_SUFFIXES, ".csv files"):
            window = read_window(path)
            if shape is None:
                shape, reader = window.shape, path.name
            try:
                windows.append(window.fitted(shape, reader))
            except InputError as error:
                raise InputError(f"{path}: {error}") from None
            labels.append(label)
            rates.append(window.rate_hz)
        signals = np.ascontiguousarray(np.stack(windows).transpose(0, 2, 1))  # (N, C, T)
        splits.append(LabelledSignals(signals, np.asarray(labels, dtype=np.int64)))
    assert shape is not None  # no root is empty
    return splits, wanted or shape._replace(rate_hz=float(f"{np.median(rates):.4g}"))


def is_window_npz(path: Path) -> bool:
    """Whether an ``.npz`` holds windows rather than images: it has ``rate_hz`` or ``channel_names``.

    Raises:
        InputError: it is no ``.npz``.
    """
    _, there = read_arrays(path, (), _MAX_ARRAY_BYTES)
    return bool({"rate_hz", "channel_names"} & set(there))


def read_window_npz(path: Path, wanted: WindowShape | None = None) -> tuple[Windows, Windows]:
    """Train and test split of an ``.npz`` with ``x_train`` and ``x_test`` (N, T, C), ``y_train`` and ``y_test`` (N,),
    ``rate_hz`` and ``channel_names`` (C,).

    ``groups_train`` and ``groups_test`` (N,), if they are there, say who each window is from.

    Raises:
        InputError: it is no such file, holds values that are not finite, or windows of another shape than ``wanted``.
    """
    names = (*_ARRAYS, "rate_hz", "channel_names", "groups_train", "groups_test")
    try:
        arrays, there = read_arrays(path, names, _MAX_ARRAY_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; copy or download it again") from error
    if problem := missing_arrays(names[:6], arrays, there):
        raise InputError(f"{path} {problem}")

    try:
        rate_hz = read_rate_hz(arrays["rate_hz"])
        num_channels = (0, *arrays["x_train"].shape)[-1]
        splits = [_labelled(arrays, split, num_channels) for split in ("train", "test")]
        channel_names = read_channel_names(arrays["channel_names"], num_channels)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    shape = WindowShape(splits[0].signals.shape[2], rate_hz, channel_names)
    if wanted is None:
        return Windows(splits[0], shape), Windows(splits[1], shape)
    try:
        order = shape.order(wanted, "the model")
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    train, test = (
        Windows(replace(split, signals=np.ascontiguousarray(split.signals[:, order])), wanted) for split in splits
    )
    return train, test


def _labelled(arrays: dict[str, NDArray[Any]], split: str, num_channels: int) -> LabelledSignals:
    x, labels, groups = (arrays.get(f"{name}_{split}") for name in ("x", "y", "groups"))
    assert x is not None
    assert labels is not None
    if x.ndim != 3 or x.dtype.kind != "f" or x.shape[2] != num_channels:
        raise ValueError(
            f"x_{split} must be float32 of shape (N, samples, {num_channels} channels), "
            f"got {x.dtype} of shape {x.shape}"
        )
    for name, values in (("y", labels), ("groups", groups)):
        if values is not None and (values.dtype.kind not in "iu" or values.size != len(x)):
            raise ValueError(
                f"{name}_{split} must be {len(x)} integers, one per window, got {values.dtype} of shape {values.shape}"
            )
    with np.errstate(over="ignore"):
        signals = np.ascontiguousarray(x.transpose(0, 2, 1), dtype=np.float32)
    if not np.isfinite(signals).all():
        wrong = int(np.flatnonzero(~np.isfinite(signals).all(axis=(1, 2)))[0])
        raise ValueError(f"x_{split}[{wrong}] has non-finite values; remove or fix it")
    known = None if groups is None else groups.ravel().astype(np.int64)
    return LabelledSignals(signals, labels.ravel().astype(np.int64), known)

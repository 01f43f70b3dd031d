"""Reads what a sensor recorded: a ``.csv`` with a header, a column of time and a column per channel, or an ``.npz``.

Letters in shape comments: T samples one after another, C channels.
"""

from __future__ import annotations

import csv
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime._npz import missing_arrays, read_arrays
from paraedge_runtime._reading import read_bounded
from paraedge_runtime.errors import InputError

__all__ = ["WINDOW_SUFFIXES", "Window", "WindowShape", "read_channel_names", "read_rate_hz", "read_window"]

WINDOW_SUFFIXES = frozenset({".csv", ".npz"})

_MAX_BYTES = 64 << 20
_UNITS_PER_SECOND = {
    "time_s": 1.0,
    "time_ms": 1000.0,
    "timestamp": 1000.0,
}  # columns of time; the last is Edge Impulse's
_UNEVEN = 0.5  # a step may differ from the mean one by this share: times in whole milliseconds do, a lost sample more
_SAME_RATE = 0.05  # what a phone calls 100 samples per second is 102 to 105
_MAX_CHANNELS = 1024
_CHANNEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")  # what a manifest takes
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")


class WindowShape(NamedTuple):
    """What windows that belong together have in common: samples T, samples per second, a name per channel."""

    length: int
    rate_hz: float
    channel_names: tuple[str, ...]

    def order(self, wanted: WindowShape, reader: str) -> list[int]:
        """Where the channels that are wanted stand among these, in their order.

        Args:
            wanted: rates are the same within 5 %, as those of one kind of sensor are.
            reader: who wants it, for the message.

        Raises:
            InputError: channels, rate or length are others; the message says what to do.
        """
        if set(self.channel_names) != set(wanted.channel_names):
            raise InputError(
                f"the channels are {_some(self.channel_names)}, {reader} reads {_some(wanted.channel_names)}; "
                "rename, add or remove columns"
            )
        if abs(self.rate_hz - wanted.rate_hz) > _SAME_RATE * max(self.rate_hz, wanted.rate_hz):
            raise InputError(
                f"the rate is {self.rate_hz:.4g} samples per second, {reader} reads {wanted.rate_hz:.4g}; resample it"
            )
        if self.length != wanted.length:
            raise InputError(
                f"the window has {self.length} samples, {reader} reads {wanted.length} "
                f"({wanted.length / wanted.rate_hz:.4g} s); cut windows of {wanted.length} samples"
            )
        return [self.channel_names.index(name) for name in wanted.channel_names]


@dataclass(frozen=True, eq=False)
class Window:
    """Even samples of some channels.

    Attributes:
        values: (T, C) float32, finite.
        rate_hz: samples per second.
        channel_names: one for each channel.
    """

    values: NDArray[np.float32]
    rate_hz: float
    channel_names: tuple[str, ...]

    @property
    def shape(self) -> WindowShape:
        """Without the values."""
        return WindowShape(len(self.values), self.rate_hz, self.channel_names)

    def fitted(self, wanted: WindowShape, reader: str) -> NDArray[np.float32]:
        """The values with the channels in the order that is wanted, (T, C).

        Raises:
            InputError: as :meth:`WindowShape.order`.
        """
        return np.ascontiguousarray(self.values[:, self.shape.order(wanted, reader)])


def _some(names: tuple[str, ...]) -> str:
    """Names in a message, not more than fit."""
    return ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:10])} and {len(names) - 10} more"


def read_window(path: str | os.PathLike[str]) -> Window:
    """A window in a file.

    ``.csv``: its first line names the columns. ``time_s`` (seconds) or ``time_ms`` or ``timestamp`` (both
    milliseconds) is the time of each row, in even steps; every other column is a channel. ``.npz``: the arrays ``x``
    (T, C), ``rate_hz`` and ``channel_names``.

    Raises:
        InputError: it does not exist, has another suffix or more than 64 MiB, or breaks one of these rules.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".csv":
            return _from_csv(read_bounded(path, _MAX_BYTES))
        if path.suffix.lower() == ".npz":
            return _from_npz(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; copy it again") from error
    except _Malformed as error:
        raise InputError(f"{path}: {error}") from None
    raise InputError(f"{path} is not a window of samples; give a .csv or .npz file")


class _Malformed(ValueError):
    """What is wrong and what to do."""


def _from_csv(content: bytes) -> Window:
    try:
        lines = content.decode("utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise _Malformed(
            f"it is not UTF-8 text ({error.reason} at byte {error.start}); save it as CSV in UTF-8"
        ) from None
    if not lines:
        raise _Malformed("it is empty; it must have a header and rows of numbers")
    columns = [name.strip() for name in _cells(lines[0])]
    if len(columns) == 1 and (other := next((mark for mark in ";\t" if mark in lines[0]), None)):
        found = "semicolons" if other == ";" else "tabs"
        raise _Malformed(
            f"its columns are separated by {found}; separate them by commas, and write numbers with a point"
        )
    times = [name for name in columns if name in _UNITS_PER_SECOND]
    channels = [name for name in columns if name not in _UNITS_PER_SECOND]
    if not columns or not all(columns) or len(set(columns)) != len(columns) or any(map(_NUMBER.fullmatch, columns)):
        raise _Malformed(
            f"its first line is {lines[0][:80]!r}; it must name every column, each differently, separated by commas"
        )
    if len(times) != 1:
        found = ", ".join(times) or f"none among {_some(tuple(columns))}"[:200]
        raise _Malformed(f"one column must be the time: time_s, or time_ms or timestamp in milliseconds; found {found}")
    if not channels:
        raise _Malformed(f"it has only the column {times[0]}; add a column for each channel")
    _check_names(tuple(channels))
    table = _numbers(lines, columns)
    position = columns.index(times[0])
    rate_hz = _rate_hz(table[:, position] / _UNITS_PER_SECOND[times[0]])
    return Window(_as_float32(np.delete(table, position, axis=1), channels, 2), rate_hz, tuple(channels))


def _cells(line: str) -> list[str]:
    """What stands between the commas of a line; nothing if that is no CSV."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:  # a cell of more than 128 KiB
        return []


def _numbers(lines: list[str], columns: list[str]) -> NDArray[np.float64]:
    """The rows below the header, (T, columns)."""
    if len(lines) < 3:
        raise _Malformed(f"it must have at least 2 rows of numbers, got {len(lines) - 1}")
    try:
        if any(not line.strip() for line in lines):
            raise ValueError("a line is empty")
        table: NDArray[np.float64] = np.loadtxt(lines[1:], delimiter=",", ndmin=2, comments=None, quotechar='"')
        if table.shape[1] != len(columns):
            raise ValueError(f"{table.shape[1]} columns, the header names {len(columns)}")
    except ValueError as error:
        raise _Malformed(_first_problem(lines, columns) or f"its rows are not numbers: {error}") from None
    return table


def _first_problem(lines: list[str], columns: list[str]) -> str | None:
    """Where the first row is that is no row of numbers."""
    for number, line in enumerate(lines[1:], 2):
        row = _cells(line)
        if len(row) != len(columns):
            return f"line {number} has {len(row)} value(s), the header names {len(columns)} columns"
        for name, cell in zip(columns, row, strict=True):
            if not _NUMBER.fullmatch(cell):
                hint = "; labels are the names of folders" if name in ("label", "class", "activity") else ""
                return f"line {number}, column {name} is {cell[:40]!r}, not a number{hint}"
    return None


def _rate_hz(seconds: NDArray[np.float64]) -> float:
    """Samples per second of rows at these times, (T,)."""
    if bad := np.flatnonzero(~np.isfinite(seconds)).tolist():
        raise _Malformed(f"line {bad[0] + 2}, the time is not finite")
    steps = np.diff(seconds)
    mean = (seconds[-1] - seconds[0]) / len(steps)
    if mean <= 0:
        raise _Malformed("its time does not increase from row to row; sort the rows")
    worst = int(np.abs(steps - mean).argmax())
    if abs(steps[worst] - mean) > _UNEVEN * mean + 1e-9:
        raise _Malformed(
            f"its time is irregular: from line {worst + 2} to {worst + 3} it moves by {steps[worst] * 1000:.6g} ms, "
            f"by {mean * 1000:.6g} ms on average; resample it to even steps"
        )
    return float(1.0 / mean)


def _as_float32(table: NDArray[Any], channels: list[str], first_line: int | None = None) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        values = table.astype(np.float32)
    if not np.isfinite(values).all():
        row, column = (int(index) for index in np.argwhere(~np.isfinite(values))[0])
        where = f"row {row}" if first_line is None else f"line {row + first_line}"
        raise _Malformed(
            f"{where}, channel {channels[column]} is {table[row, column]}; every value must be a finite float32"
        )
    return np.ascontiguousarray(values)


def _from_npz(path: Path) -> Window:
    needed = ("x", "rate_hz", "channel_names")
    arrays, there = read_arrays(path, needed, _MAX_BYTES)
    if problem := missing_arrays(needed, arrays, there):
        raise _Malformed(f"it {problem}")
    x = arrays["x"]
    if x.ndim != 2 or x.dtype.kind not in "fiu" or min(x.shape) < 1:
        raise _Malformed(f"x must be numbers of shape (samples, channels), got {x.dtype} of shape {x.shape}")
    names = read_channel_names(arrays["channel_names"], x.shape[1])
    return Window(_as_float32(x, list(names)), read_rate_hz(arrays["rate_hz"]), names)


def read_channel_names(array: NDArray[Any], count: int) -> tuple[str, ...]:
    """The array ``channel_names`` of an ``.npz`` as different texts, one for each of ``count`` channels.

    Raises:
        ValueError: it is something else; the text says what to do.
    """
    names = tuple(str(name).strip() for name in array.ravel())
    if array.dtype.kind != "U" or len(names) != count or len(set(names)) != count or not all(names):
        raise _Malformed(
            f"channel_names must be {count} different strings, one for each column of x (samples, channels), "
            f"got {array.dtype} of shape {array.shape}"
        )
    _check_names(names)
    return names


def _check_names(names: tuple[str, ...]) -> None:
    """Refuse what no manifest takes."""
    if len(names) > _MAX_CHANNELS:
        raise _Malformed(f"it has {len(names)} channels, more than the {_MAX_CHANNELS} allowed")
    if bad := next((name for name in names if not _CHANNEL_NAME.fullmatch(name)), None):
        raise _Malformed(f"the channel {bad[:100]!r} must be named with letters, digits, '_', '.', '+' and '-' alone")


def read_rate_hz(array: NDArray[Any]) -> float:
    """The array ``rate_hz`` of an ``.npz`` as a number above 0.

    Raises:
        ValueError: it is something else; the text says what to do.
    """
    if array.size != 1 or array.dtype.kind not in "fiu" or not 0 < float(array.ravel()[0]) < float("inf"):
        raise _Malformed(f"rate_hz must be one number of samples per second, got {array.tolist()!r:.40}")
    return float(array.ravel()[0])

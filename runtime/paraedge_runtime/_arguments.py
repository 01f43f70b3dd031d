"""What callers pass to public functions, as what these work with; what cannot be meant is one ``InputError``."""

from __future__ import annotations

import errno
import math
import operator
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.errors import InputError

__all__ = [
    "as_any_path",
    "as_array",
    "as_callable",
    "as_choice",
    "as_flag",
    "as_instance",
    "as_instances",
    "as_list",
    "as_number",
    "as_path",
    "as_whole",
    "choose_branches",
    "shown",
    "unknown_text",
]

_T = TypeVar("_T")
_MOST = 2**53  # as in JSON: nothing is counted beyond


def shown(value: object) -> str:
    """What was passed, for a message: on one line, and no longer than can be read."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # whatever another class raises, and numbers of too many digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 120 else f"{text[:119]}…"


def as_path(name: str, value: object) -> Path:
    """A path of text or ``os.PathLike`` that a file can have.

    Raises:
        InputError: anything else.
    """
    path = as_any_path(name, value)
    if not _is_possible(path):
        raise InputError(f"{name} is {shown(value)}; no file can have that name")
    return path


def as_any_path(name: str, value: object) -> Path:
    """The same for whoever asks the system about it and takes its errors.

    Raises:
        InputError: neither text nor ``os.PathLike``.
    """
    if not isinstance(value, str | os.PathLike) or isinstance(os.fspath(value), bytes):
        raise InputError(f"{name} must be a path, got {shown(value)}")
    return Path(cast("str | os.PathLike[str]", value))


def _is_possible(path: Path) -> bool:
    """Whether the system can be asked about it: for other names pathlib's questions raise."""
    try:
        os.lstat(path)
    except ValueError:  # a zero; no encoding
        return False
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    return True


def as_choice(name: str, value: object, choices: Collection[str]) -> str:
    """One of these texts.

    Raises:
        InputError: anything else; the message has the choices.
    """
    if not isinstance(value, str) or value not in choices:
        raise InputError(unknown_text(name, value, choices))
    return value


def unknown_text(name: str, value: object, choices: Collection[str]) -> str:
    """What to say of a ``value`` that is none of the ``choices``: the nearest one, if any is near, and all of them."""
    import difflib

    near = difflib.get_close_matches(value, choices, n=1, cutoff=0.7) if isinstance(value, str) else []
    meant = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {name} {shown(value)}; {meant}choose one of {', '.join(choices)}"


def as_instance(name: str, value: object, kind: type[_T]) -> _T:
    """An object of a class.

    Raises:
        InputError: of another.
    """
    if not isinstance(value, kind):
        raise InputError(f"{name} must be a {kind.__name__}, got {shown(value)}")
    return value


def as_instances(name: str, values: object, kind: type[_T]) -> tuple[_T, ...]:
    """Objects of a class, from any iterable.

    Raises:
        InputError: no iterable, or one with another object in it.
    """
    if not isinstance(values, Iterable):
        raise InputError(f"{name} must be a list of {kind.__name__}, got {shown(values)}")
    return tuple(as_instance(f"one of {name}", value, kind) for value in values)


def as_flag(name: str, value: object) -> bool:
    """True or false, of numpy too.

    Raises:
        InputError: anything else.
    """
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def as_callable(name: str, value: object) -> None:
    """Something to call back.

    Raises:
        InputError: anything else.
    """
    if not callable(value):
        raise InputError(f"{name} must be a function or left out, got {shown(value)}")


def as_array(field: str, given: Any) -> NDArray[Any]:
    """Numbers in a numpy array, a torch tensor or nested lists, as an array.

    Raises:
        InputError: they are no array.
    """
    if hasattr(given, "detach"):
        given = given.detach().cpu()
    try:
        return np.ascontiguousarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{field} cannot be read as one array: {error}; pass (n, …) in numpy") from None


def as_list(name: str, values: object) -> list[Any]:
    """A list of any iterable but a text.

    Raises:
        InputError: anything else.
    """
    if not isinstance(values, Iterable) or isinstance(values, str | bytes):
        raise InputError(f"{name} must be a list, got {shown(values)}")
    return list(values)


def as_whole(name: str, value: object, least: int = 1) -> int:
    """A whole number, of numpy too; no ``bool``.

    Raises:
        InputError: anything else, or below ``least``.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(cast("Any", value))
    except TypeError:
        number = None
    if number is not None and number > _MOST:
        raise InputError(f"{name} must be at most {_MOST}, got {shown(value)}")
    if number is None or number < least:
        raise InputError(f"{name} must be an integer of at least {least}, got {shown(value)}")
    return number


def as_number(name: str, value: object, *, finite: bool = True) -> float:
    """A number, of numpy too; no ``bool``.

    Raises:
        InputError: anything else.
    """
    try:
        is_other = isinstance(value, str | bytes | bytearray | bool)
        number = None if is_other else float(cast("Any", value))
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or (finite and not math.isfinite(number)):
        raise InputError(f"{name} must be a number, got {shown(value)}")
    return number


def _index(value: object) -> int:
    if isinstance(value, bool):
        raise TypeError
    return operator.index(cast("Any", value))


def choose_branches(branches: int | Sequence[int] | None, available: tuple[int, ...]) -> tuple[int, ...]:
    """The first so many of ``available``, or those with the given indexes; all for ``None``.

    Raises:
        InputError: a count or an index that is not there, or indexes unordered or repeated.
    """
    if branches is None:
        return available
    if isinstance(branches, bool):
        raise InputError(f"branches must be a count or a sequence of indices, got {branches}")
    try:
        if isinstance(branches, Iterable):
            chosen = tuple(_index(index) for index in branches)
        else:
            count = operator.index(branches)
            if not 1 <= count <= len(available):
                raise InputError(f"{count} branches requested, {len(available)} available: {list(available)}")
            return available[:count]
    except TypeError:
        raise InputError(f"branches must be a count or a sequence of indices, got {shown(branches)}") from None
    unknown = [index for index in chosen if index not in available]
    if unknown:
        raise InputError(f"there is no branch {unknown[0]}; choose from {list(available)}")
    if not chosen or list(chosen) != sorted(set(chosen)):
        raise InputError(f"invalid branches {list(chosen)}: give one or more unique indices in ascending order")
    return chosen

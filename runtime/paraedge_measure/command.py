"""How ``python -m paraedge_measure`` is asked in another process: its arguments, and its reply read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from paraedge_measure._plain_line import plain_line
from paraedge_runtime import errors
from paraedge_runtime.errors import DeviceError

if TYPE_CHECKING:
    from paraedge_measure.profiling import SeriesLength

__all__ = ["MODULE", "measure_arguments", "read_reply"]

MODULE = ("-m", "paraedge_measure")

_T = TypeVar("_T")


def measure_arguments(path: str, engine: str | None, threads: Sequence[int], length: SeriesLength) -> list[str]:
    """What follows the module to measure the bundle at ``path``; no ``threads`` are the default ones."""
    arguments = ["measure", path, "--min-runs", str(length.min_runs), "--min-s", str(length.min_s)]
    arguments += ["--sustained-s", str(length.sustained_s)] if length.sustained_s else []
    arguments += ["--engine", engine] if engine else []
    return arguments + (["--threads", *map(str, threads)] if threads else [])


class _Reply(msgspec.Struct, frozen=True):
    result: Any = None
    error: str | None = None
    message: str = ""


def read_reply(stdout: str, stderr: str, code: int, kind: type[_T]) -> _T:
    """What ``python -m paraedge_measure`` printed in another process, or its error raised here.

    Raises:
        ParaEdgeError: of the same type and message as there.
        DeviceError: it printed no reply at all, or one that is no ``kind``.
    """
    try:
        reply = msgspec.json.decode(stdout.strip().splitlines()[-1], type=_Reply)
    except (msgspec.MsgspecError, UnicodeError, IndexError, RecursionError):
        last = plain_line(" | ".join(stderr.strip().splitlines()[-3:]), 400) or "it printed nothing"
        raise DeviceError(
            f"measuring failed with exit code {code}: {last}; install this version of paraedge there"
        ) from None
    if reply.error is not None:
        known = reply.error in errors.__all__
        raise (getattr(errors, reply.error) if known else DeviceError)(plain_line(reply.message, 2000))
    try:
        return msgspec.convert(reply.result, kind)
    except msgspec.ValidationError as error:
        raise DeviceError(
            f"the device sent an invalid reply: {plain_line(str(error))}; install this version of paraedge there"
        ) from error

"""What is measured: a cell is one arrival pattern, one interference and one deadline; a grid is all of their pairs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import msgspec

from paraedge_measure.deadlines.arrivals import arrival_pattern
from paraedge_measure.deadlines.interference import INTERFERENCES, InterferenceSettings
from paraedge_runtime._arguments import as_list, as_number, as_whole, shown
from paraedge_runtime.errors import InputError

__all__ = ["Cell", "grid"]

_HOGGED = ("compute", "memory", "square")
_MOST_REQUESTS = 10_000_000  # of a cell, whose times are kept in memory
_MOST_HOGS = 256  # processes, each of some megabytes


class Cell(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One combination of settings. Fields that do not apply are 0, so that equal measurements have equal cells.

    Attributes:
        arrivals: name of the arrival pattern.
        interference: name of the interference.
        deadline: deadline after arrival, as a multiple of the full model's unloaded median time.
        requests: number of requests per policy.
        load: requests that arrive during one full model's time; 0 for a closed loop.
        hogs: number of competing processes.
        square_period_s: period of the square wave.
        quota: CPU time allowed, as a fraction of the cores; with 'throttle' the lowest speed, as a fraction of full
            speed.
        throttle_period_s: period of 'throttle'.
    """

    arrivals: str
    interference: str
    deadline: float
    requests: int
    load: float
    hogs: int
    square_period_s: float
    quota: float
    throttle_period_s: float = 0.0

    @property
    def label(self) -> str:
        """``periodic, square, deadline 0.7``."""
        return f"{self.arrivals}, {self.interference}, deadline {self.deadline:g}"

    @property
    def interference_settings(self) -> InterferenceSettings:
        """As ``open_interference`` takes them."""
        return InterferenceSettings(self.hogs, self.square_period_s, self.quota, self.throttle_period_s)


def grid(
    *,
    deadlines: Sequence[float],
    arrivals: Sequence[str],
    interference: Sequence[str],
    requests: int,
    load: float | None,
    hogs: int,
    square_period_s: float,
    quota: float,
    throttle_period_s: float = 120.0,
) -> list[Cell]:
    """Return every combination; deadlines vary fastest. ``load`` replaces each pattern's own.

    Raises:
        InputError: a name is unknown, or a number is invalid; the message names it.
    """

    def require(fine: bool, problem: str) -> None:
        if not fine:
            raise InputError(problem)

    deadlines = [as_number("a deadline", deadline, finite=False) for deadline in as_list("deadlines", deadlines)]
    arrivals, interference = as_list("arrivals", arrivals), as_list("interference", interference)
    requests, hogs = as_whole("--requests", requests), as_whole("--hogs", hogs)
    load = None if load is None else as_number("load", load, finite=False)
    square_period_s, quota, throttle_period_s = (
        as_number("square_period_s", square_period_s, finite=False),
        as_number("quota", quota, finite=False),
        as_number("throttle_period_s", throttle_period_s, finite=False),
    )
    require(bool(deadlines and arrivals and interference), "name at least one deadline, arrivals and interference")
    for deadline in deadlines:
        require(
            math.isfinite(deadline) and deadline > 0,
            f"invalid deadline {deadline}: give a multiple of the full model's time above 0, such as 0.7",
        )
    require(requests <= _MOST_REQUESTS, f"--requests must be at most {_MOST_REQUESTS}, got {requests}")
    require(load is None or (math.isfinite(load) and load > 0), f"--load must be above 0, got {load}")
    require(hogs <= _MOST_HOGS, f"--hogs must be at most {_MOST_HOGS}, got {hogs}")
    require(0 < square_period_s <= 3600, f"--square-period-s must be above 0 and at most 3600, got {square_period_s}")
    require(
        0 < throttle_period_s <= 3600,
        f"--throttle-period-s must be above 0 and at most 3600, got {throttle_period_s}",
    )
    require(0 < quota <= 1, f"--quota must be above 0 and at most 1 (all of the CPU time), got {quota}")
    for name in interference:
        require(
            isinstance(name, str) and name in INTERFERENCES,
            f"unknown interference {shown(name)}; choose from {', '.join(INTERFERENCES)}",
        )
    cells = []
    for arrival, disturbance, deadline in itertools.product(arrivals, interference, deadlines):
        pattern = arrival_pattern(arrival)
        cells.append(
            Cell(
                arrivals=arrival,
                interference=disturbance,
                deadline=deadline,
                requests=requests,
                load=0.0 if pattern.closed else pattern.load if load is None else load,
                hogs=hogs if disturbance in _HOGGED else 0,
                square_period_s=square_period_s if disturbance == "square" else 0.0,
                quota=quota if disturbance in ("quota", "throttle") else 0.0,
                throttle_period_s=throttle_period_s if disturbance == "throttle" else 0.0,
            )
        )
    return list(dict.fromkeys(cells))

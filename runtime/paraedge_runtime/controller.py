"""Predicts how long a part will take, and learns from how long it took. Knows no engine, thread or clock.

``log(time) = base of the part + contention + slowdown + residual``. ``docs/anytime.md`` explains it;
``runtime/native/src/controller.cpp`` is the same in C++, and a test demands the same numbers of both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from paraedge_runtime.errors import InputError

__all__ = ["REQUESTS_TO_LEARN", "Controller"]

REQUESTS_TO_LEARN = 20
_FAST, _SLOW = 0.3, 0.03  # gains of the two filters
_LARGEST_STEP = 1.0  # one outlier moves a filter no further than a factor of e would
_MISS_RATE, _TAIL_STEP = 0.1, 0.05  # adaptive conformal inference (Gibbs & Candès 2021): rate aimed at, step
_FIRST_TAIL, _LARGEST_TAIL = 0.25, 3.0
# The same for how late a caller returns. Without waits it falls as well, so waiting is tried again.
_LATE_RATE, _LATE_STEP = 0.01, 0.5
_LEAST_LATE, _LARGEST_LATE = math.log(0.02), math.log(1000.0)


class Controller:
    """The latency model of one session. Parts are numbered: 0 is the stem, branches follow.

    Args:
        macs: multiply-adds of each branch: one that has not run yet is guessed from those that have.
        part_ms: median of each part by itself, the stem's first; empty to learn them.
        contention: factor of a branch's time when 1, 2, … branches run at once.

    Raises:
        InputError: ``part_ms`` is not of these branches, or a value is no time and no factor.
    """

    def __init__(self, macs: Sequence[float], part_ms: Sequence[float] = (), contention: Sequence[float] = ()) -> None:
        if part_ms and len(part_ms) != len(macs) + 1:
            raise InputError(f"latency has {len(part_ms)} parts, a stem and {len(macs)} branches are loaded")
        for value in (*part_ms, *contention):
            if not 0 < value < math.inf:
                raise InputError(f"latency holds {value}, not a time or factor")
        self._macs = [max(float(value), 1.0) for value in macs]
        self._contention = [math.log(factor) for factor in contention]
        self._base = [math.log(ms) for ms in part_ms] or [math.nan] * (len(macs) + 1)
        self._seen = [REQUESTS_TO_LEARN if part_ms else 0] * (len(macs) + 1)
        self._fast = self._slow = 0.0
        self._tail = _FIRST_TAIL
        self._late = _LEAST_LATE  # logarithm of the 0.99 quantile, ms

    @property
    def requests_to_learn(self) -> int:
        """Requests until the base of the stem is known; 0 when it is."""
        return REQUESTS_TO_LEARN - self._seen[0]

    def predicted_ms(self, part: int, busy: int) -> float:
        """The time a branch will probably (0.9) not exceed; NaN when nothing is known yet.

        Args:
            part: number of the branch, 1 for the first.
            busy: branches running, itself included.
        """
        slowdown = max(self._fast, self._slow)
        return math.exp(self._base_of(part) + self._contention_of(busy) + slowdown + self._tail)

    def observe(self, part: int, busy: int, ms: float) -> None:
        """A part took so long."""
        log_ms = self._log(part, busy, ms)
        seen = self._seen[part]
        if seen < REQUESTS_TO_LEARN:  # the mean of what was seen; what slows the device down is in it
            self._base[part] = log_ms if seen == 0 else self._base[part] + (log_ms - self._base[part]) / (seen + 1)
            self._seen[part] += 1
            return
        residual = log_ms - self._base[part]
        if part > 0:
            exceeded = residual > max(self._fast, self._slow) + self._tail
            step = _TAIL_STEP * ((1 - _MISS_RATE) if exceeded else -_MISS_RATE)
            self._tail = min(max(self._tail + step, 0.0), _LARGEST_TAIL)
        self._follow(residual)

    def outlasted(self, part: int, busy: int, ms: float) -> None:
        """A part has not ended after so long: a lower bound (right-censored) of its time."""
        log_ms = self._log(part, busy, ms)
        if self._seen[part] < REQUESTS_TO_LEARN:
            if log_ms > self._base_of(part):
                self._base[part] = log_ms
                self._seen[part] = max(self._seen[part], 1)
            return
        residual = log_ms - self._base[part]
        slowdown = max(self._fast, self._slow)
        if residual <= slowdown:
            return
        if part > 0 and residual > slowdown + self._tail:
            self._tail = min(self._tail + _TAIL_STEP * (1 - _MISS_RATE), _LARGEST_TAIL)
        self._follow(residual)

    def returned(self, late_ms: float) -> None:
        """A caller that had waited returned so late: after what it waited for had ended, or its time had come."""
        exceeded = math.log(max(late_ms, 1e-6)) > self._late
        step = _LATE_STEP * ((1 - _LATE_RATE) if exceeded else -_LATE_RATE)
        self._late = min(max(self._late + step, _LEAST_LATE), _LARGEST_LATE)

    def did_not_wait(self) -> None:
        """A request ended without a wait."""
        self._late = max(self._late - _LATE_STEP * _LATE_RATE, _LEAST_LATE)

    def margin_ms(self, least_ms: float) -> float:
        """How late a caller that waits will return, in all but one request of a hundred; at least ``least_ms``."""
        return max(least_ms, math.exp(self._late))

    @property
    def mandatory_ms(self) -> float:
        """What an answer takes at least, probably (0.9): stem and first branch; NaN when nothing is known yet."""
        return self.predicted_ms(0, 1) + self.predicted_ms(1, 1)

    def _log(self, part: int, busy: int, ms: float) -> float:
        return math.log(max(ms, 1e-6)) - self._contention_of(1 if part == 0 else busy)

    def _base_of(self, part: int) -> float:
        if self._seen[part] > 0 or part == 0:
            return self._base[part]
        macs = self._macs
        guesses = [
            self._base[other] + math.log(macs[part - 1] / macs[other - 1])
            for other in range(1, len(self._base))
            if self._seen[other]
        ]
        return sum(guesses) / len(guesses) if guesses else math.nan

    def _contention_of(self, busy: int) -> float:
        if not self._contention or busy < 1:
            return 0.0
        return self._contention[min(busy, len(self._contention)) - 1]

    def _follow(self, residual: float) -> None:
        self._fast += _FAST * min(max(residual - self._fast, -_LARGEST_STEP), _LARGEST_STEP)
        self._slow += _SLOW * min(max(residual - self._slow, -_LARGEST_STEP), _LARGEST_STEP)

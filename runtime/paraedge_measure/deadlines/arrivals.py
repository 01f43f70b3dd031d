"""When requests arrive: patterns fixed before the run, so that a slow prediction never delays the next request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime._arguments import shown
from paraedge_runtime.errors import InputError

__all__ = ["ARRIVALS", "ArrivalPattern", "arrival_pattern"]

# Bursty: half of the time calm, half of it a burst, each lasting DWELL mean gaps on average. The rates
# average to 1, so nine requests of ten come in a burst.
CALM_RATE, BURST_RATE, DWELL = 0.2, 1.8, 20.0

Times = NDArray[np.float64]


@dataclass(frozen=True)
class ArrivalPattern:
    """A pattern of arrivals.

    Attributes:
        description: one line of help.
        load: work that arrives by default, in full models per time that a full model takes; 0 when the
            next request comes with the prediction of the last.
        draw: (random numbers, how many, mean gap, deadline) -> ascending arrival times, all in seconds.
    """

    description: str
    load: float
    draw: Callable[[np.random.Generator, int, float, float], Times]

    @property
    def closed(self) -> bool:
        """Whether a request arrives when the one before it has returned."""
        return self.load == 0

    def times(self, count: int, *, full_s: float, deadline_s: float, load: float | None, seed: int) -> Times:
        """(count,) arrival times in seconds from the first, which is 0; all 0 for a closed pattern.

        Args:
            count: how many.
            full_s: what the full model takes on the unloaded machine.
            deadline_s: from arrival to deadline.
            load: instead of the pattern's own.
            seed: the same seed gives the same times.
        """
        if self.closed or count == 0:
            return np.zeros(count)
        rng = np.random.default_rng([seed, 1])
        times = self.draw(rng, count, full_s / (self.load if load is None else load), deadline_s)
        times -= times[0]
        return times


def _periodic(rng: np.random.Generator, count: int, gap_s: float, deadline_s: float) -> Times:
    # Never before the deadline of the frame before: a miss is then the deadline's doing, not the queue's.
    return max(gap_s, deadline_s) * np.arange(count, dtype=np.float64)


def _poisson(rng: np.random.Generator, count: int, gap_s: float, deadline_s: float) -> Times:
    return np.cumsum(rng.exponential(gap_s, count), dtype=np.float64)


def _bursty(rng: np.random.Generator, count: int, gap_s: float, deadline_s: float) -> Times:
    """A Markov-modulated Poisson process of two states: unit-rate arrivals, with the clock of each state."""
    wanted = rng.exponential(1.0, count).cumsum()  # arrivals counted in expected arrivals
    burst = bool(rng.integers(2))
    clock, expected = [0.0], [0.0]
    while expected[-1] < wanted[-1]:
        stay = rng.exponential(DWELL)
        clock.append(clock[-1] + stay)
        expected.append(expected[-1] + stay * (BURST_RATE if burst else CALM_RATE))
        burst = not burst
    times: Times = gap_s * np.interp(wanted, expected, clock)
    return times


ARRIVALS = {
    "closed": ArrivalPattern("the next request comes with the prediction of the last", 0.0, _periodic),
    "periodic": ArrivalPattern("one per full-model time, or per deadline where that is longer", 1.0, _periodic),
    "poisson": ArrivalPattern("independent, at half of what the full model could serve", 0.5, _poisson),
    "bursty": ArrivalPattern("Poisson with two rates, 0.2 and 1.8 of the mean, in turns", 0.5, _bursty),
}


def arrival_pattern(name: str) -> ArrivalPattern:
    """A pattern by name.

    Raises:
        InputError: unknown name.
    """
    if not isinstance(name, str) or name not in ARRIVALS:
        raise InputError(f"unknown arrivals {shown(name)}; choose from {', '.join(ARRIVALS)}")
    return ARRIVALS[name]

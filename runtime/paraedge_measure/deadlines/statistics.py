"""Intervals: Wilson's for a rate, and a block bootstrap for a mean of paired differences."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["PERCENTILES", "bootstrap_interval", "percentiles", "wilson_interval"]

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}
LEAST_BLOCKS = 8


def wilson_interval(count: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of the rate ``count / total``; two-sided 95 % as it stands.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """
    if total == 0:
        return (0.0, 1.0)
    rate = count / total
    denominator = 1 + z * z / total
    centre = rate + z * z / (2 * total)
    half = z * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    # At 0 and at total an end is 0 or 1 exactly; rounding must not say otherwise.
    low = 0.0 if count == 0 else (centre - half) / denominator
    high = 1.0 if count == total else (centre + half) / denominator
    return (low, high)


def bootstrap_interval(
    values: NDArray[np.float64], block: int, *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """95 % percentile interval of the mean of ``values`` (N,), resampled in blocks of ``block`` neighbours.

    Neighbours in time share the weather; blocks keep them together (H. R. Künsch, 1989, without overlap:
    here every block was measured as one). ``None`` for fewer than LEAST_BLOCKS, which say too little.
    """
    starts = range(0, len(values), block)
    if len(starts) < LEAST_BLOCKS:
        return None
    sums = np.array([values[start : start + block].sum() for start in starts])
    sizes = np.array([len(values[start : start + block]) for start in starts])
    drawn = np.random.default_rng(seed).integers(0, len(sums), (resamples, len(sums)))
    low, high = np.percentile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), [2.5, 97.5])
    return (float(low), float(high))


def percentiles(values: NDArray[np.float64]) -> dict[str, float] | None:
    """``p50``, ``p90``, ``p99`` and ``p99.9``; ``None`` of nothing."""
    if not len(values):
        return None
    return {name: float(np.percentile(values, percent)) for name, percent in PERCENTILES.items()}

"""Arrival patterns: ascending from 0, at the rate that was asked for, the same for the same seed."""

import numpy as np
import pytest

from paraedge_measure.deadlines.arrivals import ARRIVALS, arrival_pattern
from paraedge_runtime.errors import InputError

OPEN = [name for name, pattern in ARRIVALS.items() if not pattern.closed]


def times(name, count=20_000, full_s=0.002, deadline_s=0.001, load=None, seed=0):
    return arrival_pattern(name).times(count, full_s=full_s, deadline_s=deadline_s, load=load, seed=seed)


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize("load", [None, 0.3, 1.2])
def test_the_mean_gap_is_that_of_the_load(name, load):
    gap_s = times(name, load=load)[-1] / 19_999
    assert gap_s == pytest.approx(0.002 / (load or ARRIVALS[name].load), rel=0.05)


@pytest.mark.parametrize("name", ARRIVALS)
@pytest.mark.parametrize("count", [0, 1, 2, 777])
def test_times_begin_at_zero_and_ascend(name, count):
    found = times(name, count)
    assert found.shape == (count,)
    assert (np.diff(found, prepend=0.0) >= 0).all()
    assert (found[:1] == 0).all()


@pytest.mark.parametrize("name", ["poisson", "bursty"])
def test_the_seed_decides(name):
    assert np.array_equal(times(name, seed=3), times(name, seed=3))
    assert not np.array_equal(times(name, seed=3), times(name, seed=4))


@pytest.mark.parametrize(
    ("full_s", "deadline_s", "load", "gap_s"),
    [
        (0.002, 0.0014, None, 0.002),  # once in a full model's time
        (0.002, 0.003, None, 0.003),  # never before the deadline
        (0.002, 0.0014, 0.5, 0.004),
    ],
)
def test_periodic_gaps(full_s, deadline_s, load, gap_s):
    found = times("periodic", 5, full_s, deadline_s, load)
    np.testing.assert_allclose(found, gap_s * np.arange(5))


def test_closed_has_no_times():
    assert not times("closed", 100).any()


def counts_in_windows(found, width_s):
    return np.bincount((found / width_s).astype(int))


def test_bursts_are_burstier_than_poisson():
    """Variance ÷ mean of the counts in windows of ten mean gaps: 1 for a Poisson process."""
    dispersion = {}
    for name in ("poisson", "bursty"):
        counts = counts_in_windows(times(name), 0.04)
        dispersion[name] = counts.var() / counts.mean()
    assert dispersion["poisson"] == pytest.approx(1.0, abs=0.15)
    assert dispersion["bursty"] > 3


def test_unknown_arrivals_list_the_known_ones():
    with pytest.raises(InputError, match="unknown arrivals 'rain'; choose from closed, periodic, poisson, bursty"):
        arrival_pattern("rain")

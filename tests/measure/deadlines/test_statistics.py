"""Wilson bounds, bootstrap intervals and percentiles against textbook values."""

import numpy as np
import pytest

from paraedge_measure.deadlines.statistics import bootstrap_interval, percentiles, wilson_interval


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        # R. G. Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # none missed: z² / (n + z²)
        (0, 1000, 0.0, 0.003827),
        (0, 24576, 0.0, 0.000156),
        (20, 20, 0.8389, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval(count, total, low, high):
    assert wilson_interval(count, total) == pytest.approx((low, high), abs=5e-5)


def test_bootstrap_of_a_constant_is_the_constant():
    assert bootstrap_interval(np.full(80, 0.25), 10) == (0.25, 0.25)


def test_bootstrap_keeps_neighbours_together():
    paired = np.tile([1.0, -1.0], 200)  # every two cancel
    assert bootstrap_interval(paired, 2) == (0.0, 0.0)
    low, high = bootstrap_interval(paired, 1)
    assert low < -0.05 < 0.05 < high


def test_bootstrap_covers_the_mean_as_the_normal_approximation_does():
    values = np.random.default_rng(0).normal(0.3, 1.0, 4000)
    low, high = bootstrap_interval(values, 10)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half / 5)


def test_too_few_blocks_have_no_interval():
    assert bootstrap_interval(np.ones(70), 10) is None


def test_the_last_block_may_be_short():
    values = np.concatenate([np.zeros(80), [1.0]])
    low, high = bootstrap_interval(values, 10)
    assert 0 == low < high < 0.2


def test_percentiles():
    assert percentiles(np.arange(1001.0)) == pytest.approx({"p50": 500, "p90": 900, "p99": 990, "p99.9": 999})
    assert percentiles(np.array([])) is None

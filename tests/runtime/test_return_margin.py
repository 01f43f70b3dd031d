"""The margin before a deadline: it grows until answers are in time, shrinks slowly, and ignores outages."""

import numpy as np
import pytest

from paraedge_runtime.return_margin import ReturnMargin


@pytest.mark.parametrize("median_us", [30, 80, 200])
def test_all_but_half_a_percent_are_in_time_whatever_returning_takes(median_us):
    rng = np.random.default_rng(1)
    margin, late = ReturnMargin(), 0
    took_s = median_us * 1e-6 * rng.lognormal(0, 0.15, 50_000)
    for number, needed_s in enumerate(took_s):
        now_s = 100.0 - margin.seconds + needed_s
        late += number >= 10_000 and now_s > 100.0
        margin.returned(100.0, now_s)
    assert late / 40_000 <= 0.006


def test_it_shrinks_when_returning_is_quick():
    margin = ReturnMargin()
    before = margin.seconds
    for _ in range(500):
        margin.returned(100.0, 100.0 - margin.seconds + 1e-6)
    assert margin.seconds < before


def test_an_outage_changes_nothing():
    margin = ReturnMargin()
    before = margin.seconds
    margin.returned(100.0, 100.5)
    assert margin.seconds == before

"""The latency model of the core: what its numbers must mean, whatever happens to it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paraedge_runtime import InputError
from paraedge_runtime.core import load_core
from paraedge_runtime.latency import REQUESTS_TO_LEARN

times_ms = st.floats(1e-3, 1e3)


def Controller(macs, part_ms=(), contention=()):
    return load_core().Controller.make([float(value) for value in macs], list(part_ms), list(contention))


@st.composite
def histories(draw):
    branches = draw(st.integers(1, 5))
    macs = draw(st.lists(st.integers(0, 10**9), min_size=branches, max_size=branches))
    known = st.lists(times_ms, min_size=branches + 1, max_size=branches + 1)
    part_ms = draw(st.one_of(st.just([]), known))
    contention = draw(st.lists(st.floats(0.5, 3), max_size=3))
    step = st.tuples(
        st.sampled_from(["observe", "outlasted", "dropped", "returned", "did_not_wait"]),
        st.integers(0, branches),
        st.integers(1, 4),
        times_ms,
    )
    return macs, part_ms, contention, draw(st.lists(step, max_size=120))


@given(histories())
@settings(deadline=None, max_examples=200, derandomize=True, database=None)
def test_predictions_stay_times_whatever_happens(history):
    macs, part_ms, contention, steps = history
    controller = Controller(macs, part_ms, contention)
    seen = bool(part_ms)
    for what, part, busy, ms in steps:
        told = {"returned": (ms,), "did_not_wait": (), "dropped": (part,)}.get(what, (part, busy, ms))
        getattr(controller, what)(*told)
        seen = seen or (what in ("observe", "outlasted") and part > 0)
        assert 0 <= controller.requests_to_learn <= REQUESTS_TO_LEARN
        assert 0.05 <= controller.margin_ms(0.05) <= 1000
        for branch in range(1, len(macs) + 1):
            for others in (1, 2, 5):
                predicted_ms = controller.predicted_ms(branch, others)
                assert math.isnan(predicted_ms) or 0 < predicted_ms < math.inf
                assert seen or math.isnan(predicted_ms)


@pytest.mark.parametrize(("known", "most"), [(False, 250), (True, 9_000)])
def test_a_branch_that_is_dropped_again_and_again_is_tried_once_more(known, most):
    """One stall while the device is learned, or before it was: nothing but a new try can correct the estimate."""
    controller = Controller([1, 1], [0.1, 0.2, 300.0] if known else ())
    if not known:
        for request in range(REQUESTS_TO_LEARN):
            controller.observe(0, 1, 0.1)
            controller.observe(1, 1, 0.2)
            if request == 3:
                controller.outlasted(2, 1, 300.0)
    drops = 0
    while controller.predicted_ms(2, 1) > 1.0:
        controller.observe(0, 1, 0.1)
        controller.observe(1, 1, 0.2)
        controller.dropped(2)
        drops += 1
    assert 20 <= drops <= most
    controller.observe(2, 1, 0.2)
    if not known:
        assert controller.predicted_ms(2, 1) < 1.0


def test_a_try_that_fails_again_puts_the_branch_back():
    controller = Controller([1, 1], [1.0, 1.0, 8.0])
    before = controller.predicted_ms(2, 1)
    for _ in range(2500):
        controller.dropped(2)
    assert controller.predicted_ms(2, 1) < 2.0
    controller.outlasted(2, 1, 2.0)
    assert controller.predicted_ms(2, 1) == pytest.approx(before)


def test_nothing_is_predicted_before_a_branch_was_seen_then_others_by_their_macs():
    controller = Controller([100, 200])
    controller.observe(0, 1, 9.0)  # a stem says nothing about branches
    assert math.isnan(controller.predicted_ms(1, 1))
    controller.observe(1, 1, 1.0)
    assert controller.predicted_ms(2, 1) == pytest.approx(2 * controller.predicted_ms(1, 1))


def test_it_has_learned_after_twenty_requests():
    controller = Controller([1])
    for request in range(REQUESTS_TO_LEARN):
        assert controller.requests_to_learn == REQUESTS_TO_LEARN - request
        controller.observe(0, 1, 1.0)
        controller.observe(1, 1, 2.0)
    assert controller.requests_to_learn == 0
    assert 2.0 <= controller.predicted_ms(1, 1) <= 3.0


@pytest.mark.parametrize("spread", [0.05, 0.2, 0.5])
def test_about_nine_in_ten_stay_below_the_prediction_whatever_the_spread(spread):
    """Adaptive conformal inference: the long-run rate is right without knowing the distribution."""
    rng = np.random.default_rng(1)
    controller = Controller([1], [1.0, 1.0])
    exceeded = 0
    for ms in rng.lognormal(0, spread, 20_000):
        exceeded += ms > controller.predicted_ms(1, 1)
        controller.observe(1, 1, ms)
    assert 0.07 <= exceeded / 20_000 <= 0.13


@pytest.mark.parametrize("slowdown", [2, 3, 8])
def test_a_slowdown_is_followed_up_fast_and_down_slowly(slowdown):
    controller = Controller([1], [1.0, 1.0])
    before = controller.predicted_ms(1, 1)
    up = down = 0
    while controller.predicted_ms(1, 1) < slowdown:
        controller.observe(1, 1, slowdown)
        up += 1
    while controller.predicted_ms(1, 1) > 1.2 * before:
        controller.observe(1, 1, 1.0)
        down += 1
    assert up <= 10
    assert up <= down <= 120


def test_a_lower_bound_raises_the_prediction_or_says_nothing():
    controller = Controller([1], [1.0, 1.0])
    before = controller.predicted_ms(1, 1)
    controller.outlasted(1, 1, 0.5)
    assert controller.predicted_ms(1, 1) == before
    controller.outlasted(1, 1, 4.0)
    assert controller.predicted_ms(1, 1) > before


def test_three_returns_of_a_thousand_are_later_than_the_margin_whatever_the_spread():
    for spread in (0.1, 1.0, 2.0):
        controller = Controller([1])
        rng = np.random.default_rng(1)
        later = 0
        for number in range(60_000):
            late_ms = 0.2 * math.exp(spread * rng.normal())
            later += number >= 6000 and late_ms > controller.margin_ms(0.0)
            controller.returned(late_ms)
        assert later / 54_000 == pytest.approx(0.003, abs=0.0006)


def test_the_margin_is_never_below_what_is_asked_for_and_falls_when_nobody_waits():
    controller = Controller([1])
    assert controller.margin_ms(0.05) == 0.05
    for _ in range(50):
        controller.returned(8.0)
    high = controller.margin_ms(0.05)
    assert 8.0 <= high < 16.0
    for _ in range(4000):
        controller.did_not_wait()
    assert controller.margin_ms(0.05) == pytest.approx(0.05)


def test_a_part_only_ever_seen_unfinished_is_not_taken_for_quick():
    controller = Controller([1, 1])
    for _ in range(3):
        controller.observe(1, 1, 1.0)
        controller.outlasted(2, 1, 5.0)
    assert controller.predicted_ms(2, 1) > 5.0


@pytest.mark.parametrize(
    ("part_ms", "contention", "problem"),
    [
        ([1, 1, 1], [], "latency has 3 parts, a stem and 1 branches are loaded"),
        ([1], [], "latency has 1 parts"),
        ([1, 0], [], "latency holds 0; give times and factors above 0"),
        ([1, math.nan], [], "latency holds nan"),
        ([1, math.inf], [], "latency holds inf"),
        ([1, 1], [-1], "latency holds -1"),
    ],
)
def test_latencies_that_cannot_be_are_refused(part_ms, contention, problem):
    with pytest.raises(InputError, match=problem):
        Controller([1], part_ms, contention)

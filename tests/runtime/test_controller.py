"""The latency model: the same numbers in Python and in C++, whatever happens to them, and what they must mean."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paraedge_runtime import InputError
from paraedge_runtime.controller import REQUESTS_TO_LEARN, Controller
from paraedge_runtime.engines.executorch_native import load_native

times_ms = st.floats(1e-3, 1e3)


@st.composite
def histories(draw):
    branches = draw(st.integers(1, 5))
    macs = draw(st.lists(st.integers(0, 10**9), min_size=branches, max_size=branches))
    known = st.lists(times_ms, min_size=branches + 1, max_size=branches + 1)
    part_ms = draw(st.one_of(st.just([]), known))
    contention = draw(st.lists(st.floats(0.5, 3), max_size=3))
    step = st.tuples(
        st.sampled_from(["observe", "outlasted", "returned", "did_not_wait"]),
        st.integers(0, branches),
        st.integers(1, 4),
        times_ms,
    )
    return macs, part_ms, contention, draw(st.lists(step, max_size=120))


@given(histories())
@settings(deadline=None, max_examples=200, derandomize=True, database=None)
def test_python_and_the_native_core_predict_the_same(history):
    macs, part_ms, contention, steps = history
    python = Controller(macs, part_ms, contention)
    native = load_native().Controller.make([float(value) for value in macs], part_ms, contention)
    for what, part, busy, ms in steps:
        told = {"returned": (ms,), "did_not_wait": ()}.get(what, (part, busy, ms))
        for controller in (python, native):
            getattr(controller, what)(*told)
        assert python.requests_to_learn == native.requests_to_learn
        assert python.margin_ms(0.05) == pytest.approx(native.margin_ms(0.05), rel=1e-9)
        assert python.mandatory_ms == pytest.approx(native.mandatory_ms, rel=1e-9, nan_ok=True)
        for branch in range(1, len(macs) + 1):
            for others in (1, 2, 5):
                expected = native.predicted_ms(branch, others)
                assert python.predicted_ms(branch, others) == pytest.approx(expected, rel=1e-9, nan_ok=True)


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


def test_one_return_of_a_hundred_is_later_than_the_margin_whatever_the_spread():
    for spread in (0.1, 1.0, 2.0):
        controller = Controller([1])
        rng = np.random.default_rng(1)
        later = 0
        for number in range(20_000):
            late_ms = 0.2 * math.exp(spread * rng.normal())
            later += number >= 2000 and late_ms > controller.margin_ms(0.0)
            controller.returned(late_ms)
        assert later / 18_000 == pytest.approx(0.01, abs=0.002)


def test_the_margin_is_never_below_what_is_asked_for_and_falls_when_nobody_waits():
    controller = Controller([1])
    assert controller.margin_ms(0.05) == 0.05
    for _ in range(50):
        controller.returned(8.0)
    high = controller.margin_ms(0.05)
    assert 8.0 <= high < 16.0
    for _ in range(1200):
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
        ([1, 0], [], "latency holds 0, not a time or factor"),
        ([1, math.nan], [], "latency holds nan"),
        ([1, math.inf], [], "latency holds inf"),
        ([1, 1], [-1], "latency holds -1"),
    ],
)
def test_latencies_that_cannot_be_are_refused(part_ms, contention, problem):
    with pytest.raises(InputError, match=problem):
        Controller([1], part_ms, contention)
    with pytest.raises(InputError, match=problem.split("holds")[0]):
        load_native().Controller.make([1.0], part_ms, contention)

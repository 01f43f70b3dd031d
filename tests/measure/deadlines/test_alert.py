"""The Kalman filter and the choice of stages of ALERT-Any, against numbers worked out by hand."""

import pytest

from paraedge_measure.deadlines.alert import SlowdownFilter, choose_stages


def test_the_filter_against_a_trace_computed_by_hand():
    """y, Q, K, mu and s2 as the paper's formulas give them for slowdowns of 1.5, then 1.0."""
    belief = SlowdownFilter()
    assert (belief.mu, belief.variance) == (1.0, 0.1)
    belief.observe(1.5)  # y .5; Q .1; K .15 / .151 = .9933775
    assert belief.mu == pytest.approx(1.4966887, abs=1e-6)
    assert belief.variance == pytest.approx(0.1006623, abs=1e-6)
    belief.observe(1.0)  # y -.4966887; Q .3 · .1 + .7 · (.9933775 · .5)² = .2026898; K .2033564 / .2043564
    assert belief.mu == pytest.approx(1.0024305, abs=1e-6)
    assert belief.variance == pytest.approx(0.2031824, abs=1e-6)


def test_a_steady_slowdown_is_found():
    belief = SlowdownFilter()
    for _ in range(20):
        belief.observe(2.0)
    assert belief.mu == pytest.approx(2.0, abs=1e-6)
    assert belief.variance == pytest.approx(0.101, abs=1e-3)


@pytest.mark.parametrize(
    ("stage_s", "left_s", "probability"), [(1.0, 1.0, 0.5), (1.0, 1.316228, 0.841345), (2.0, 1.5, 0.214598)]
)
def test_probability_is_the_normal_tail(stage_s, left_s, probability):
    assert SlowdownFilter().in_time(stage_s, left_s) == pytest.approx(probability, abs=1e-5)


@pytest.mark.parametrize(
    ("stage_s", "accuracy", "left_s", "chosen"),
    [
        # P = .9431, .2146: one stage .754, two .583 + .193 = .776
        ((1.0, 2.0), (0.8, 0.9), 1.5, 2),
        # two: .583 + .150 = .733
        ((1.0, 2.0), (0.8, 0.7), 1.5, 1),
        ((1.0, 2.0, 3.0), (0.90, 0.95, 0.93), 60.0, 2),  # ample time: the most accurate
        ((1.0, 2.0, 3.0), (0.90, 0.95, 0.95), 60.0, 2),  # the fewest of equals
        ((1.0, 1e9), (0.8, 0.9), 1.5, 2),  # even a hopeless stage loses nothing: the first still has a prediction
        ((1.0,), (0.8,), 0.001, 1),
    ],
)
def test_choose_stages(stage_s, accuracy, left_s, chosen):
    assert choose_stages(SlowdownFilter(), stage_s, accuracy, left_s) == chosen

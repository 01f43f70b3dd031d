"""Replays of durations made by hand, where the right result is known or can be had by trying everything."""

import itertools

import numpy as np
import pytest

from paraedge_measure.deadlines.oracles import Durations, Trace, replay_dynamic, replay_static
from paraedge_runtime.prediction import PartRun

ACCURACY = (0.8, 0.9, 0.95)


def constant(stem_s=1.0, branch_s=(1.0, 1.0), return_s=0.0):
    return Trace([0.0], [Durations(stem_s, branch_s, return_s)])


def test_durations_of_a_timeline():
    timeline = (
        PartRun("stem", 0, 0.0, 2.0),
        PartRun("branch_00", 0, 2.5, 5.0),  # 0.5 after the stem: 3
        PartRun("branch_01", 1, 3.0, 7.0),  # 1 after the stem: 5
        PartRun("branch_02", 2, 6.0, 9.0),  # taken over by another thread, 1 after branch_00 ended: 4
    )
    durations = Durations.of(timeline, wall_s=0.0095)
    assert durations.stem_s == pytest.approx(0.002)
    assert durations.branch_s == pytest.approx((0.003, 0.005, 0.004))
    assert durations.return_s == pytest.approx(0.0005)


@pytest.mark.parametrize(
    ("threads", "ends"), [(1, [2.0, 5.0, 6.0, 8.0]), (2, [2.0, 3.0, 4.0, 5.0]), (4, [2.0, 2.0, 3.0, 4.0])]
)
def test_completions_take_branches_in_order(threads, ends):
    assert Durations(1.0, (1.0, 3.0, 1.0, 2.0), 0.5).completions(threads) == ends


@pytest.mark.parametrize(("time_s", "stem_s"), [(0.0, 1), (0.9, 1), (1.1, 3), (2.4, 3), (3.5, 9), (99.0, 9)])
def test_the_run_that_began_nearest_counts(time_s, stem_s):
    trace = Trace([0.0, 2.0, 3.0], [Durations(stem, (1.0,), 0.0) for stem in (1, 3, 9)])
    assert trace.at(time_s).stem_s == stem_s


@pytest.mark.parametrize(
    ("count", "arrivals", "deadline", "threads", "expected"),
    [
        (1, [0], 3, 1, [1]),
        (2, [0], 3, 1, [2]),  # exactly at the deadline is in time
        (2, [0], 2.9, 1, [1]),
        (2, [0], 1.9, 1, [0]),
        (2, [0], 2.0, 2, [2]),
        (1, [0, 1], 3, 1, [1, 1]),  # the second waits until 2
        (1, [0, 1], 2.9, 1, [1, 0]),
        (1, [0, 10], 3, 1, [1, 1]),
        (1, [0, 0, 0], 2, 1, [1, 0, 0]),
    ],
)
def test_static(count, arrivals, deadline, threads, expected):
    assert replay_static(count, constant(), arrivals, deadline, threads).tolist() == expected


def test_a_late_branch_occupies_its_thread_in_the_next_request():
    trace = constant(1.0, (1.0, 6.0, 1.0))
    # Branch 0 ends at 2, branch 2 at 3, branch 1 on the second thread at 7. The second request has its tokens
    # at 4.9 and branch 0 at 5.9; branch 1 follows there, and branch 2, on the thread that is late, ends at 8.
    assert replay_static(3, trace, [0, 3.9], 3.9, 2).tolist() == [2, 1]
    # Left alone, the second request is as good as the first.
    assert replay_static(3, trace, [0, 10], 3.9, 2).tolist() == [2, 2]


def test_a_request_that_is_past_its_deadline_is_skipped_and_costs_nothing():
    trace = Trace([0.0, 5.0], [Durations(9.0, (1.0,), 0.0), Durations(0.5, (0.5,), 0.0)])
    # The first one stalls until 10; 1 and 2 are past then, 9 is not.
    assert replay_static(1, trace, [0, 1, 2, 9], 3, 1).tolist() == [0, 0, 0, 1]


def test_the_return_counts():
    assert replay_static(2, constant(return_s=0.5), [0], 3.4, 1).tolist() == [1]
    assert replay_dynamic(ACCURACY[:2], constant(return_s=0.5), [0], 3.4, 1).tolist() == [1]
    assert replay_dynamic(ACCURACY[:2], constant(return_s=0.5), [0], 3.5, 1).tolist() == [2]


@pytest.mark.parametrize(
    ("arrivals", "deadline", "chosen"),
    [
        ([0], 3, [2]),
        ([0], 2.5, [1]),
        ([0], 1.5, [0]),
        ([0, 1.5], 3, [1, 1]),  # two branches for the first would cost the second its prediction
        ([0, 10], 3, [2, 2]),
        ([0, 2.5], 3, [2, 1]),
    ],
)
def test_dynamic(arrivals, deadline, chosen):
    assert replay_dynamic(ACCURACY[:2], constant(), arrivals, deadline, 1).tolist() == chosen


def test_dynamic_leaves_a_request_unanswered_for_the_sake_of_others():
    slow_first = Trace([0.0, 1.0], [Durations(9.0, (1.0,), 0.0), Durations(0.5, (0.5,), 0.0)])
    arrivals = [0, 0.8, 0.9, 1.0, 1.1]
    assert replay_static(1, slow_first, arrivals, 10, 1).tolist() == [1, 0, 0, 0, 0]
    assert replay_dynamic(ACCURACY[:1], slow_first, arrivals, 10, 1).tolist() == [0, 1, 1, 1, 1]


def test_dynamic_prefers_the_more_accurate_prefix_to_the_longer():
    assert replay_dynamic((0.8, 0.7), constant(), [0], 60, 1).tolist() == [1]


def best_value(accuracy, trace, arrivals, deadline_s, threads):
    """By trying every choice."""
    best = 0.0
    for choice in itertools.product(range(len(accuracy) + 1), repeat=len(arrivals)):
        free, value = 0.0, 0.0
        for count, arrival in zip(choice, arrivals, strict=True):
            start = max(free, arrival)
            if count == 0:
                continue
            durations = trace.at(start)
            free = start + durations.completions(threads)[count - 1] + durations.return_s
            if free > arrival + deadline_s:
                break
            value += accuracy[count - 1]
        else:
            best = max(best, value)
    return best


@pytest.mark.parametrize("seed", range(20))
def test_dynamic_is_the_best_of_all_choices(seed):
    rng = np.random.default_rng(seed)
    threads = 1 + seed % 2
    arrivals = np.sort(rng.uniform(0, 6, 5)).tolist()
    starts = np.arange(0, 12, 0.5).tolist()
    trace = Trace(starts, [Durations(rng.uniform(0.1, 0.6), tuple(rng.uniform(0.2, 1.0, 3)), 0.05) for _ in starts])
    counts = replay_dynamic(ACCURACY, trace, arrivals, 2.0, threads)
    value = sum(ACCURACY[count - 1] for count in counts if count)
    assert value == pytest.approx(best_value(ACCURACY, trace, arrivals, 2.0, threads))


def test_a_closed_loop_has_no_queue():
    trace = Trace([0.0, 4.0], [Durations(1.0, (1.0, 1.0), 0.0), Durations(1.0, (3.0, 1.0), 0.0)])
    # At 0: both, done at 3; at 3: the slow run, one branch at 7 is too late.
    assert replay_dynamic(ACCURACY[:2], trace, [0, 0], 3.5, 1, closed=True).tolist() == [2, 0]
    assert replay_static(1, trace, [0, 0, 0], 3.5, 1, closed=True).tolist() == [1, 1, 0]


def test_a_long_burst_is_replayed_in_no_time():
    """A thousand requests that wait for each other: choices multiply, the states that are kept do not."""
    arrivals = (0.7e-3 * np.arange(1000)).tolist()
    trace = constant(0.3e-3, (0.2e-3,) * 8, 0.05e-3)
    counts = replay_dynamic([0.8 + 0.01 * k for k in range(8)], trace, arrivals, 5e-3, 2)
    assert (counts > 0).all()

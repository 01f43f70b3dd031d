"""Budgets: a prediction at the deadline with what has ended, late branches never mixed in, streams, asyncio.

Branches of the fake engine are held with gates, so that it is known which of them is late; deadlines of
fractions of a second only have to be longer than a computer's hiccups are.
"""

import asyncio
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np
import pytest
from support.bundles import fake_bundle, image
from support.fake_engine import GATES, PARTS, RUNNING, Gate

from paraedge_runtime import BranchState, EngineError, InputError, Latency, RequestDropped, Session
from paraedge_runtime.manifest import StopRule

PATIENCE_S = 30
SOON_MS = 150  # a deadline that the fake parts meet easily, unless they are held


@pytest.fixture
def held():
    """Gates by name, opened in the end."""

    def make(*names):
        GATES.update({name: Gate() for name in names})
        return [GATES[name] for name in names]

    yield make
    for gate in GATES.values():
        gate.release.set()


@pytest.fixture
def bundle(tmp_path, fake_engine):
    return fake_bundle(tmp_path / "b.paraedge", [{"add": 10.0**place} for place in range(4)], stop_rules=None)


@pytest.fixture
def gated(tmp_path, fake_engine, held):
    """Branch 2 of four waits for its gate."""
    (gate,) = held("late")
    behaviours = [{"add": 1.0}, {"add": 10.0}, {"add": 100.0, "event": "late"}, {"add": 1000.0}]
    return fake_bundle(tmp_path / "g.paraedge", behaviours), gate


def _states(prediction):
    return [run.state for run in prediction.branches]


# The deadline ----------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_an_ample_budget_changes_nothing(bundle, threads):
    with Session.open(bundle, threads=threads) as session:
        whole = session.run(image(90))
        prediction = session.run(image(90), budget_ms=20_000)
    assert prediction.branches_used == (0, 1, 2, 3)
    assert prediction.deadline_met
    assert np.array_equal(prediction.output, whole.output)


@pytest.mark.parametrize("threads", [2, 3])
def test_a_late_branch_is_left_out_and_never_reaches_a_later_answer(gated, threads):
    bundle, gate = gated
    with Session.open(bundle, threads=threads) as session:
        first = session.run(image(90), budget_ms=SOON_MS, policy="all")
        assert gate.entered.is_set()
        assert first.branches_used == (0, 1, 3) if threads > 2 else first.branches_used[:2] == (0, 1)
        assert _states(first)[2] == BranchState.LATE
        assert "it had not finished at the deadline" in first.explain()
        # The worker is still inside: the branch is not run twice at once (the fake engine would fail).
        second = session.run(image(10), budget_ms=SOON_MS, policy="all")
        assert 2 not in second.branches_used
        gate.release.set()
        third = session.run(image(10))
        assert third.branches_used == (0, 1, 2, 3)
        assert np.array_equal(third.branch_outputs[2], session.run(image(10)).branch_outputs[2])


def test_a_deadline_that_is_over_leaves_the_first_branch_and_says_so(bundle):
    with Session.open(bundle, threads=2) as session:
        prediction = session.run(image(), deadline_s=time.monotonic() - 1)
    assert prediction.branches_used == (0,)
    assert not prediction.deadline_met


def test_the_first_branch_is_waited_for_however_late_it_is(tmp_path, fake_engine, held):
    (gate,) = held("first")
    bundle = fake_bundle(tmp_path / "f.paraedge", [{"add": 1.0, "event": "first"}])
    with Session.open(bundle, threads=1) as session:
        threading.Timer(0.05, gate.release.set).start()
        prediction = session.run(image(), budget_ms=1)
    assert prediction.branches_used == (0,)
    assert not prediction.deadline_met


def test_a_failed_first_branch_is_no_reason_to_give_up_at_the_deadline(tmp_path, fake_engine):
    bundle = fake_bundle(tmp_path / "f.paraedge", [{"fail": "no memory"}, {"add": 1.0}])
    with Session.open(bundle, threads=2) as session:
        assert session.run(image(), budget_ms=20_000, policy="all").branches_used == (1,)
        assert session.run(image(), budget_ms=1e-3).branches_used == (1,)  # late, but a prediction


def test_when_every_branch_fails_the_budget_is_not_waited_for(tmp_path, fake_engine):
    bundle = fake_bundle(tmp_path / "f.paraedge", [{"fail": "no memory"}] * 3)
    with Session.open(bundle, threads=2) as session:
        with pytest.raises(EngineError, match=r"every branch failed: .*no memory"):
            session.run(image(), budget_ms=1e9, policy="all")
        with pytest.raises(EngineError, match="every branch failed"):
            session.run(image(), budget_ms=1e9)


def test_closing_waits_for_a_late_branch(gated):
    bundle, gate = gated
    session = Session.open(bundle, threads=2)
    session.run(image(), budget_ms=SOON_MS, policy="all")
    threading.Timer(0.05, gate.release.set).start()
    session.close()
    assert not any(RUNNING.values())
    assert all(part.closed for part in PARTS)


# What is known of the device -------------------------------------------------------------------


def test_with_nothing_known_only_the_first_branch_runs_then_it_is_learned(bundle):
    with Session.open(bundle, threads=2) as session:
        first = session.run(image(), budget_ms=20_000)
        assert first.branches[0].state == BranchState.USED
        assert first.requests_to_learn == 19
        assert "still being learned, for 19 more request(s)" in first.explain()
        for request in range(19):
            prediction = session.run(image(), budget_ms=20_000)
            assert prediction.branches_used == (0, 1, 2, 3)
            assert prediction.requests_to_learn == 18 - request
        assert "learned" not in prediction.explain()


def test_what_will_not_fit_is_not_started(tmp_path, fake_engine):
    behaviours = [{"add": 1.0}, {"add": 10.0, "sleep_s": 0.3}, {"add": 100.0}]
    with Session.open(fake_bundle(tmp_path / "s.paraedge", behaviours), threads=1) as session:
        for _ in range(20):
            if session.run(image()).requests_to_learn == 0:
                break
        runs = len(PARTS[2].threads)
        prediction = session.run(image(), budget_ms=200)
        assert prediction.branches_used == (0, 2)
        assert _states(prediction)[1] == BranchState.WOULD_NOT_FIT
        assert prediction.branches[1].predicted_ms > 200 > prediction.branches[1].left_ms
        assert "predicted to miss the deadline" in prediction.explain()
        assert len(PARTS[2].threads) == runs


@pytest.mark.parametrize(
    ("after_s", "used"),
    [
        pytest.param((), (0, 1, 2, 3), id="nobody waits"),
        pytest.param((590.0,), (0, 1, 2, 3), id="it can wait"),
        pytest.param((10.0, 590.0), (0, 2, 3), id="the next cannot"),
        pytest.param((590.0, 10.0), (0, 2, 3), id="the one after the next cannot"),
        pytest.param((-1.0, 1e-9, 590.0), (0, 1, 2, 3), id="some are lost already"),
    ],
)
def test_requests_that_wait_have_their_first_answer_before_this_one_has_all_branches(bundle, after_s, used):
    with Session.open(bundle, threads=2, latency=_latency()) as session:
        now_s = time.monotonic()
        waiting_s = [now_s + other_s for other_s in after_s]
        prediction = session.run(image(), deadline_s=now_s + 600, waiting_s=waiting_s)
        assert prediction.branches_used == used
        assert prediction.deadline_met
        alone = session.run(image(), waiting_s=waiting_s)  # without a deadline of its own
        assert alone.branches_used == used


def test_with_hardly_any_hope_for_the_next_one_only_the_first_branch_is_waited_for(bundle):
    with Session.open(bundle, threads=2, latency=_latency(slow="branch_00")) as session:
        now_s = time.monotonic()
        prediction = session.run(image(), deadline_s=now_s + 600, waiting_s=[now_s + 20])
        assert prediction.branches_used == (0,)
        assert prediction.deadline_met
        assert session.run(image(), deadline_s=now_s + 600).branches_used == (0, 1, 2, 3)


@pytest.mark.parametrize(("gap_s", "used"), [(1.0, (0,)), (3e5, (0, 1))])
def test_requests_that_may_come_have_time_for_a_first_prediction(fake_engine, tmp_path, gap_s, used):
    """Twelve requests come so soon after one another, or so late; the next one is as any other."""
    path = fake_bundle(tmp_path / "b.paraedge", [{"add": 1.0}, {"add": 2.0}])
    with Session.open(path, threads=2, latency=Latency((1e6, 1e6, 1e6))) as session:
        now_s = time.monotonic()
        session.run(image(), deadline_s=now_s + 1e6)  # whoever has less left when it begins has waited
        for number in range(12):
            session.run(image(), deadline_s=now_s + 2000 + number * gap_s)
        assert session.run(image(), deadline_s=now_s + 2000 + (13 if gap_s == 1.0 else 0)).branches_used == used


@pytest.mark.parametrize("other_s", [math.nan, None, "soon", True, 10**400])
def test_a_request_that_waits_has_a_point_in_time(bundle, other_s):
    with Session.open(bundle, threads=2) as session:
        for options in ({}, {"budget_ms": 1000}):
            with pytest.raises(InputError, match=r"waiting_s must be times of time.monotonic"):
                session.run(image(), waiting_s=[other_s], **options)
            with pytest.raises(InputError, match="waiting_s must be a sequence of deadlines, got None"):
                session.run(image(), waiting_s=None, **options)
        assert session.run(image()).branches_used == (0, 1, 2, 3)


def test_a_closed_session_says_so_to_requests_that_wait_too(bundle):
    session = Session.open(bundle, threads=2)
    session.close()
    with pytest.raises(EngineError, match="is closed; open a new one"):
        session.run(image(), waiting_s=[time.monotonic() + 60])


# Requests that would be late ---------------------------------------------------------------------


def test_a_request_that_would_be_late_is_dropped_if_it_may_be(bundle):
    late = {"budget_ms": 20_000, "on_overload": "drop"}
    problem = (
        r"was dropped: its first prediction takes [56]\d{4}\.\d\d ms, 1\d{4}\.\d\d ms are left before its deadline"
    )
    with Session.open(bundle, threads=2, latency=_latency("branch_00")) as session:
        for call in (
            lambda: session.run(image(), **late),
            lambda: list(session.stream(image(), **late)),
            lambda: asyncio.run(session.arun(image(), **late)),
            lambda: session.run([image()], **late),
        ):
            with pytest.raises(RequestDropped, match=problem):
                call()
        assert session.run(image(), on_overload="drop").branches_used == (0, 1, 2, 3)
        assert session.run(image(), budget_ms=20_000).branches_used[0] == 0


def test_a_request_whose_deadline_passes_in_the_queue_is_dropped_there(tmp_path, fake_engine):
    GATES["stem"] = Gate()
    held = fake_bundle(tmp_path / "held.paraedge", [{"add": 0.1}], stem={"event": "stem"})
    with Session.open(held) as session, ThreadPoolExecutor() as callers:
        first = callers.submit(session.run, image())
        GATES["stem"].entered.wait()
        with pytest.raises(RequestDropped, match=r"its deadline passed \d"):
            session.run(image(), budget_ms=10, on_overload="drop")
        GATES["stem"].release.set()
        assert first.result().branches_used == (0,)


# The order without a deadline ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "branch_ms", "order"),
    [
        pytest.param({}, None, [2, 0, 3, 1], id="most multiply-adds first"),
        pytest.param({}, (3.0, 9.0, 1.0, 3.0), [1, 0, 3, 2], id="longest first, where the latency is known"),
        pytest.param({"branches": 2}, None, [0, 1], id="of those asked for"),
        pytest.param({"budget_ms": 20_000, "policy": "all"}, None, [0, 1, 2, 3], id="in order under a deadline"),
        pytest.param({"early_stop": True}, None, [0, 1, 2, 3], id="in order where one may be enough"),
    ],
)
def test_branches_of_unequal_size_begin_with_the_largest_unless_some_may_be_left_out(
    tmp_path, fake_engine, options, branch_ms, order
):
    behaviours = [{"add": 0.01, "macs": macs} for macs in (300, 100, 900, 300)]
    latency = branch_ms and Latency((1.0, *branch_ms))
    with Session.open(fake_bundle(tmp_path / "u.paraedge", behaviours), threads=1, latency=latency) as session:
        prediction = session.run(image(), **options)
    assert [run.part for run in prediction.timeline[1:]] == [f"branch_{index:02d}" for index in order]
    assert prediction.branches_used == tuple(range(len(order)))


# A latency that was measured before --------------------------------------------------------------


def _latency(slow="branch_01"):
    """Of four branches, of which one takes a minute."""
    parts = ("stem", *(f"branch_{index:02d}" for index in range(4)))
    return Latency(tuple(60_000.0 if part == slow else 0.1 for part in parts), (1.0, 1.0))


def test_a_latency_counts_from_the_first_request(bundle):
    with Session.open(bundle, threads=2, latency=_latency()) as session:
        prediction = session.run(image(), budget_ms=20_000)
    assert prediction.requests_to_learn == 0
    assert prediction.branches_used == (0, 2, 3)
    assert prediction.branches[1].predicted_ms > 30_000


def test_a_latency_of_ages_leaves_the_mandatory_parts(bundle):
    """Longer than a clock can count: deadlines and the order of a queue are computed from it."""
    with Session.open(bundle, threads=2, latency=Latency((1e300,) * 5)) as session:
        prediction = session.run(image(), budget_ms=20_000, waiting_s=(time.monotonic() + 30,))
        assert prediction.branches_used == (0,)
        with pytest.raises(RequestDropped, match="its first prediction takes"):
            session.run(image(), budget_ms=20_000, on_overload="drop")


@pytest.mark.parametrize(
    ("latency", "problem"),
    [
        (Latency((1.0, 1.0)), "latency has 2 parts, a stem and 4 branches are loaded"),
        (Latency((1.0, 1.0, 1.0, 0.0, 1.0)), r"latency holds 0; give times and factors above 0"),
        (Latency((1.0,) * 5, (1.0, math.nan)), "latency holds nan; give times and factors above 0"),
    ],
)
def test_a_latency_that_cannot_be_is_refused(bundle, latency, problem):
    with pytest.raises(InputError, match=problem):
        Session.open(bundle, threads=2, latency=latency)


# Wrong options ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"budget_ms": 0}, "budget_ms must be finite and above 0, got 0"),
        ({"budget_ms": -3.5}, "budget_ms must be finite and above 0, got -3.5"),
        ({"budget_ms": math.nan}, "budget_ms must be finite and above 0, got nan"),
        ({"budget_ms": math.inf}, "budget_ms must be finite and above 0, got inf"),
        ({"budget_ms": "12"}, "budget_ms must be finite and above 0, got '12'"),
        ({"budget_ms": True}, "budget_ms must be finite and above 0, got True"),
        ({"budget_ms": 10**400}, "budget_ms must be finite and above 0, got 1000"),
        ({"deadline_s": math.nan}, "deadline_s must be a time of time.monotonic.., got nan"),
        ({"deadline_s": "noon"}, "deadline_s must be a time .*, got 'noon'"),
        ({"budget_ms": 5, "deadline_s": 1.0}, "pass budget_ms or deadline_s, not both"),
        ({"policy": "hope"}, "unknown policy 'hope'; choose one of anytime, all"),
        ({"on_overload": "hope"}, "unknown on_overload 'hope'; choose one of run, drop"),
        ({"early_stop": True}, "early_stop needs thresholds calibrated at export"),
        ({"branches": 9, "budget_ms": 5}, "9 branches requested"),
    ],
)
def test_options_that_cannot_be_are_refused_and_the_session_goes_on(bundle, options, problem):
    with Session.open(bundle, threads=2) as session:
        for call in (session.run, session.stream):
            with pytest.raises(InputError, match=problem):
                call(image(), **options)
        with pytest.raises(InputError, match=problem):
            asyncio.run(session.arun(image(), **options))
        assert session.run(image()).branches_used == (0, 1, 2, 3)


# Streams ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_stream_gives_ever_larger_answers_and_ends_with_the_whole(bundle, threads):
    with Session.open(bundle, threads=threads) as session:
        whole = session.run(image(90))
        predictions = list(session.stream(image(90)))
    sizes = [len(prediction.branches_used) for prediction in predictions]
    assert sizes == sorted(set(sizes))
    assert predictions[-1].branches_used == (0, 1, 2, 3)
    assert np.array_equal(predictions[-1].output, whole.output)
    for prediction in predictions:
        assert np.array_equal(prediction.branch_outputs, whole.branch_outputs[list(prediction.branches_used)])


def test_a_stream_gives_an_answer_while_branches_are_still_held(gated):
    bundle, gate = gated
    with Session.open(bundle, threads=2) as session:
        stream = session.stream(image(90))
        assert next(stream).branches_used[0] == 0  # branch 2 cannot have ended
        gate.release.set()
        assert [prediction.branches_used for prediction in stream][-1] == (0, 1, 2, 3)


def test_whoever_stops_reading_stops_the_request(gated):
    bundle, gate = gated
    with Session.open(bundle, threads=1) as session:
        stream = session.stream(image())
        next(stream)
        assert gate.entered.wait(PATIENCE_S)
        gate.release.set()
        stream.close()
        assert session.run(image()).branches_used == (0, 1, 2, 3)


def test_an_error_is_raised_where_the_stream_is_read(tmp_path, fake_engine):
    with Session.open(fake_bundle(tmp_path / "f.paraedge", [{"fail": "no memory"}])) as session:
        stream = session.stream(image())
        with pytest.raises(EngineError, match="no memory"):
            next(stream)
        with pytest.raises(InputError, match="or a numpy array"):
            next(session.stream(b"image"))


# asyncio ---------------------------------------------------------------------------------------


def test_the_loop_goes_on_while_a_request_runs(gated):
    bundle, gate = gated

    async def both(session):
        pending = asyncio.create_task(session.arun(image()))
        while not gate.entered.is_set():  # only a loop that goes on gets anywhere here
            await asyncio.sleep(0)
        assert not pending.done()
        gate.release.set()
        return await pending

    with Session.open(bundle, threads=2) as session:
        assert asyncio.run(both(session)).branches_used == (0, 1, 2, 3)


# Stress ----------------------------------------------------------------------------------------


def test_random_deadlines_prefixes_and_streams_never_give_a_wrong_sum(bundle):
    rng = np.random.default_rng(5)
    for threads in (1, 2, 3):
        with Session.open(bundle, threads=threads) as session:
            wanted = {value: session.run(image(value)).branch_outputs for value in (10, 90, 250)}
            cut = 0
            for _ in range(400):
                value = int(rng.choice(list(wanted)))
                options = {"policy": str(rng.choice(["anytime", "all"])), "branches": int(rng.integers(1, 5))}
                if rng.random() < 0.9:
                    options["budget_ms"] = rng.uniform(1e-3, 0.5)
                call = session.run if rng.random() < 0.8 else lambda *a, **k: list(session.stream(*a, **k))[-1]
                prediction = call(image(value), **options)
                rows = wanted[value][list(prediction.branches_used)]
                assert prediction.branches_used[0] == 0
                assert np.array_equal(prediction.branch_outputs, rows)
                assert np.array_equal(prediction.output, rows.cumsum(axis=0, dtype=np.float32)[-1])
                cut += len(prediction.branches_used) < options["branches"]
            assert cut > 0


def test_a_stream_ends_however_late_its_thread_does(bundle, monkeypatch):
    class Slow(SimpleQueue):
        def put(self, prediction):
            super().put(prediction)
            time.sleep(0.05)  # the reader is back before this thread goes on

    monkeypatch.setattr("paraedge_runtime.session.SimpleQueue", Slow)
    with Session.open(bundle, threads=1) as session:
        *_, last = session.stream(image(10))
    assert last.branches_used == (0, 1, 2, 3)


# Early stop ------------------------------------------------------------------------------------


def _rules(*thresholds):
    """For four branches; the last is never asked."""
    return tuple(StopRule(temperature=1.0, threshold=threshold) for threshold in (*thresholds, None))


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize(
    ("thresholds", "used"),
    [
        pytest.param((1e-3, None, None), (0,), id="the first is enough"),
        pytest.param((None, 1e-3, None), (0, 1), id="the second is enough"),
        pytest.param((1.0, 1.0, 1e-3), (0, 1, 2), id="none before the third is sure"),
    ],
)
@pytest.mark.parametrize("hurried", [False, True])
def test_early_stop_answers_with_the_first_prefix_that_is_sure_enough(
    tmp_path, fake_engine, threads, thresholds, used, hurried
):
    behaviours = [{"add": 0.1 * 10.0**place} for place in range(4)]
    bundle = fake_bundle(tmp_path / "e.paraedge", behaviours, stop_rules=_rules(*thresholds))
    options = {"budget_ms": 20_000, "policy": "all"} if hurried else {}
    with Session.open(bundle, threads=threads) as session:
        whole = session.run(image(90))
        assert whole.branches_used == (0, 1, 2, 3)  # never by itself
        prediction = session.run(image(90), early_stop=True, **options)
        assert prediction.branches_used == used
        assert np.array_equal(prediction.output, whole.prefix_outputs[len(used) - 1])
        assert all(run.state == BranchState.NOT_NEEDED for run in prediction.branches[len(used) :])
        assert "confident enough without it" in prediction.explain()


def test_early_stop_is_refused_where_no_prefix_has_a_threshold(tmp_path, fake_engine):
    bundle = fake_bundle(tmp_path / "e.paraedge", [{"add": 1.0}] * 4, stop_rules=_rules(None, None, None))
    with (
        Session.open(bundle) as session,
        pytest.raises(InputError, match=r"early_stop needs thresholds .* the bundle has none"),
    ):
        session.run(image(), early_stop=True)


def test_early_stop_is_for_the_branches_it_was_calibrated_for(tmp_path, fake_engine):
    bundle = fake_bundle(tmp_path / "e.paraedge", [{"add": 1.0}] * 4, stop_rules=_rules(0.5, 0.5, 0.5))
    with Session.open(bundle, branches=3) as session, pytest.raises(InputError, match="early_stop needs thresholds"):
        session.run(image(), early_stop=True)


def test_early_stop_is_the_same_in_c_and_in_python(bundles):
    """Real branches, real images: both cores stop at the same prefix with the same sum."""
    predictions = []
    for engine in ("executorch", "litert"):
        images = bundles[engine].golden().inputs
        with Session.open(bundles[engine], threads=1) as session:
            predictions.append([session.run(image, early_stop=True) for image in images])
    for native, python in zip(*predictions, strict=True):
        assert native.branches_used == python.branches_used
        np.testing.assert_allclose(native.output, python.output, atol=1e-4)
    assert min(len(prediction.branches_used) for prediction in predictions[0]) < 8

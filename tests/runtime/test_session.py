"""The session: the right sum whatever the threads, failing branches dropped and named, nothing left behind.

Threads are staged with gates of the fake engine; nothing here waits for a length of time to be right.
"""

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from support.bundles import EMBEDDING, INPUT_SHAPE, NUM_LABELS, fake_bundle, image, replace_file
from support.fake_engine import GATES, PARTS, RUNNING, FakeEngine, FakePart, Gate, register

from paraedge_runtime import (
    Bundle,
    DroppedBranch,
    EngineError,
    EngineUnavailable,
    InputError,
    IntegrityError,
    Session,
)
from paraedge_runtime._arguments import choose_branches
from paraedge_runtime.cores import available_cores

PATIENCE_S = 30  # for events that come at once unless something is broken
TESTS = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.usefixtures("fake_engine")


def _threads_of_this_process():
    """The core's threads are no Python threads until they call Python."""
    return len(os.listdir("/proc/self/task"))


@pytest.fixture
def gates():
    """A maker of gates by name; all are opened in the end, so that a failing test does not hang."""

    def make(*names):
        GATES.update({name: Gate() for name in names})
        return [GATES[name] for name in names]

    yield make
    for gate in GATES.values():
        gate.release.set()


@pytest.fixture
def callers():
    """Threads that call while the test's own thread watches."""
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture
def tiny_switch_interval():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture
def bundle(tmp_path):
    """Branch i adds 10^i."""
    return fake_bundle(tmp_path / "b.paraedge", [{"add": 10.0**place} for place in range(4)])


def _expected(session, image, indexes, behaviours=None):
    """What the fake parts compute, added up in float32 in the order of ``indexes``."""
    spec = session.bundle.manifest.input
    mean = (float(image[0, 0, 0]) / 255 - spec.mean[0]) / spec.std[0]  # images here are of one colour
    stem = np.float32(mean) * np.arange(4, dtype=np.float32)  # the stem's tokens, the same five times
    ramp = np.arange(NUM_LABELS, dtype=np.float32)
    total = np.zeros(NUM_LABELS, np.float32)
    for index in indexes:
        add = 10.0**index if behaviours is None else behaviours[index]["add"]
        total += (float(stem.mean()) + add) * ramp
    return total


# The prediction --------------------------------------------------------------------------------


def test_the_answer_is_the_sum_and_says_how_it_was_made(bundle):
    with Session.open(bundle, threads=2) as session:
        prediction = session.run(image(90))
    np.testing.assert_allclose(prediction.output, _expected(session, image(90), range(4)), rtol=1e-5)
    assert prediction.output.dtype == np.float32
    assert prediction.output.shape == (NUM_LABELS,)
    assert prediction.label_index == 2
    assert prediction.label == "cat"
    assert prediction.branches_used == (0, 1, 2, 3)
    assert prediction.branches_dropped == ()
    assert prediction.branch_outputs.shape == (4, NUM_LABELS)
    assert np.array_equal(prediction.prefix_outputs[-1], prediction.output)
    assert prediction.engine == "fake 1.0"


@pytest.mark.parametrize("temperature", [None, 1.5])
def test_confidence_is_the_softmax_of_the_best_label_calibrated_where_a_temperature_is_known(tmp_path, temperature):
    changes = {} if temperature else {"stop_rules": None}
    small = fake_bundle(tmp_path / "b", [{"add": 0.25}, {"add": -0.75}], **changes)
    with Session.open(small) as session:
        for count in (1, 2):
            prediction = session.run(image(128), branches=count)
            weights = np.exp(prediction.output.astype(np.float64) / (temperature or 1.0))
            best = prediction.output.argmax()
            assert prediction.label_index == best
            assert prediction.label == small.manifest.labels[best]
            assert prediction.confidence == pytest.approx(weights[best] / weights.sum(), rel=1e-6)
            assert prediction.is_calibrated == (temperature is not None)
            np.testing.assert_allclose(prediction.probabilities, weights / weights.sum(), rtol=1e-12)
        other = session.run(image(128), branches=[1])
        assert not other.is_calibrated  # no temperature was fitted for branch 1 alone
        assert other.probabilities.max() == pytest.approx(other.confidence, rel=1e-6)


@pytest.mark.parametrize("add", [1e4, 1e30, -1e30])
def test_confidence_of_large_logits_is_finite(tmp_path, add):
    with Session.open(fake_bundle(tmp_path / "b", [{"add": add}])) as session:
        assert session.run(image()).confidence == 1.0


def test_a_tie_goes_to_the_first_label(tmp_path):
    zeros = np.zeros(INPUT_SHAPE, np.float32)
    with Session.open(fake_bundle(tmp_path / "b", [{}, {}])) as session:
        prediction = session.run(zeros)
    assert prediction.label_index == 0
    assert prediction.confidence == pytest.approx(1 / 3)


def test_image_and_normalised_array_give_the_same(bundle):
    with Session.open(bundle) as session:
        as_image = session.run(image(37))
        normalised = np.full(INPUT_SHAPE, (np.float32(37 / 255) - 0.5) / 0.25, np.float32)
        np.testing.assert_allclose(as_image.output, session.run(normalised).output, rtol=1e-6)
        assert np.array_equal(as_image.output, session.run(image(37)[:, :, 0]).output)


def test_the_answer_is_the_callers_own(bundle):
    """Neither a later prediction nor the caller's scribbling changes an earlier one."""
    with Session.open(bundle, threads=2) as session:
        first = session.run(image(10))
        kept = first.output.copy()
        second = session.run(image(200))
        second.output[:] = 0
        second.branch_outputs[:] = 0
        assert np.array_equal(first.output, kept)
        assert np.array_equal(session.run(image(10)).output, kept)


def test_the_timeline_has_every_part_once_stem_first(bundle):
    with Session.open(bundle, threads=3) as session:
        prediction = session.run(image(), branches=3)
    assert prediction.timeline[0].part == "stem"
    assert sorted(run.part for run in prediction.timeline) == ["branch_00", "branch_01", "branch_02", "stem"]
    assert [run.start_ms for run in prediction.timeline] == sorted(run.start_ms for run in prediction.timeline)
    assert all(0 <= run.start_ms <= run.end_ms <= prediction.elapsed_ms for run in prediction.timeline)
    assert all(run.start_ms >= prediction.timeline[0].end_ms for run in prediction.timeline[1:])
    assert {run.thread for run in prediction.timeline} <= {0, 1, 2}
    assert prediction.timeline[0].thread == 0


ORDER_MATTERS = [{"add": 3e7}, {"add": 1.0}, {"add": -3e7}, {"add": 0.1}, {"add": 1e-3}, {"add": 7.0}]


@pytest.mark.parametrize("threads", range(1, 9))
def test_the_number_of_threads_never_changes_a_bit(tmp_path, threads):
    """The sum is made in branch order; in another order these numbers give another sum."""
    ordered = fake_bundle(tmp_path / "b", ORDER_MATTERS)
    with Session.open(ordered, threads=threads) as session:
        for value in (0, 90, 255):
            prediction = session.run(image(value))
            in_order = np.zeros(NUM_LABELS, np.float32)
            for row in prediction.branch_outputs:
                in_order += row
            assert np.array_equal(prediction.output, in_order)
            assert not np.array_equal(prediction.output, prediction.branch_outputs[::-1].cumsum(axis=0)[-1])
            np.testing.assert_array_equal(prediction.output, _expected(session, image(value), range(6), ORDER_MATTERS))
    assert session.threads == min(threads, len(ORDER_MATTERS))


# Threads ---------------------------------------------------------------------------------------


def test_two_threads_are_in_two_branches_at_once(tmp_path, gates, callers):
    first, second = gates("first", "second")
    gated = fake_bundle(tmp_path / "b", [{"add": 1.0, "event": "first"}, {"add": 2.0, "event": "second"}])
    with Session.open(gated, threads=2) as session:
        pending = callers.submit(session.run, image())
        assert first.entered.wait(PATIENCE_S)
        assert second.entered.wait(PATIENCE_S)  # and nobody has left the first
        first.release.set()
        second.release.set()
        prediction = pending.result(PATIENCE_S)
    assert prediction.branches_used == (0, 1)
    assert {run.thread for run in prediction.timeline if run.part != "stem"} == {0, 1}
    one, other = prediction.timeline[1:]
    assert other.start_ms <= one.end_ms


def test_a_slow_branch_holds_up_none_of_the_others(tmp_path, gates, callers):
    slow, last = gates("slow", "last")
    behaviours = [{"add": 1.0, "event": "slow"}, *([{"add": 1.0}] * 6), {"add": 1.0, "event": "last"}]
    with Session.open(fake_bundle(tmp_path / "b", behaviours), threads=2) as session:
        pending = callers.submit(session.run, image())
        assert last.entered.wait(PATIENCE_S)
        last.release.set()
        slow.release.set()
        assert pending.result(PATIENCE_S).branches_used == tuple(range(8))


def test_one_thread_runs_the_branches_in_order_in_the_callers_thread(bundle):
    before = threading.enumerate()
    with Session.open(bundle, threads=1) as session:
        assert threading.enumerate() == before
        prediction = session.run(image())
    assert [run.part for run in prediction.timeline] == ["stem", "branch_00", "branch_01", "branch_02", "branch_03"]
    assert {run.thread for run in prediction.timeline} == {0}
    assert {ident for part in PARTS for ident in part.threads} == {threading.get_ident()}


def test_the_stem_runs_in_the_callers_thread(bundle, callers):
    with Session.open(bundle, threads=3) as session:
        caller = callers.submit(lambda: (session.run(image()), threading.get_ident())).result(PATIENCE_S)[1]
    assert PARTS[0].threads == [caller]


def test_threads_are_by_default_one_per_branch_up_to_the_cores(tmp_path):
    for count in (1, 2, 40):
        with Session.open(fake_bundle(tmp_path / "b", [{}] * count, total_branches=40)) as session:
            assert session.threads == min(count, available_cores())
        with Session.open(fake_bundle(tmp_path / "b", [{}] * count, total_branches=40), branches=1) as session:
            assert session.threads == 1


def test_available_cores_are_those_of_this_process():
    assert available_cores() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("threads", [5, 32, 100_000, np.int64(7)])
def test_there_are_never_more_threads_than_branches(bundle, threads):
    before = _threads_of_this_process()
    with Session.open(bundle, threads=threads) as session:
        assert session.threads == 4
        assert _threads_of_this_process() <= before + 4
        assert session.run(image()).branches_used == (0, 1, 2, 3)


def test_a_sequential_engine_uses_one_thread_and_says_so(bundle, monkeypatch):
    register(monkeypatch, "SequentialFakeEngine")
    before = threading.enumerate()
    with Session.open(bundle, threads=4) as session:
        assert session.threads == 1
        assert threading.enumerate() == before
        prediction = session.run(image())
    assert prediction.engine == "fake 1.0 (one after another)"
    assert {run.thread for run in prediction.timeline} == {0}


def test_threads_are_gone_after_close(bundle):
    before = _threads_of_this_process()
    session = Session.open(bundle, threads=4)
    session.run(image())
    assert _threads_of_this_process() > before
    session.close()
    assert _threads_of_this_process() == before


# What fails ------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        pytest.param({"fail": "no\n  memory"}, "fake failed while running branch_01: no memory; ", id="failing"),
        pytest.param({"fail": ""}, "fake failed while running branch_01: ValueError; ", id="failing silently"),
        pytest.param({"nan": True}, "its output is not finite", id="NaN"),
        pytest.param({"add": "text"}, "fake failed while running branch_01: ", id="of another type"),
    ],
)
def test_a_spoilt_branch_is_dropped_and_named_and_the_others_stand(tmp_path, threads, spoilt, reason):
    spoilt_bundle = fake_bundle(tmp_path / "b", [{"add": 1.0}, spoilt, {"add": 100.0}])
    with Session.open(spoilt_bundle, threads=threads) as session:
        for _ in range(3):  # it stays usable
            prediction = session.run(image(90))
            assert prediction.branches_used == (0, 2)
            (dropped,) = prediction.branches_dropped
            assert dropped.index == 1
            assert dropped.reason.startswith(reason)
            assert prediction.branch_outputs.shape == (2, NUM_LABELS)
            np.testing.assert_allclose(prediction.output, _expected(session, image(90), (0, 2)), rtol=1e-5)
            assert "branch_01" in [run.part for run in prediction.timeline]


def test_a_defect_of_our_own_costs_one_branch_only(bundle, monkeypatch):
    """An exception that no engine mapped."""
    run = FakePart._run

    def defective(part, x):
        if part.name == "branch_02":
            raise LookupError("a defect")
        return run(part, x)

    monkeypatch.setattr(FakePart, "_run", defective)
    with Session.open(bundle, threads=2) as session:
        prediction = session.run(image())
    assert prediction.branches_dropped == (DroppedBranch(2, "LookupError: a defect"),)
    assert prediction.branches_used == (0, 1, 3)


@pytest.mark.parametrize("threads", [1, 2])
def test_all_branches_failing_is_an_error_with_every_cause(tmp_path, threads):
    behaviours = [{"fail": "no memory"}, {"nan": True}, {"fail": "no luck"}]
    with Session.open(fake_bundle(tmp_path / "b", behaviours), threads=threads) as session:
        with pytest.raises(EngineError, match="every branch failed") as caught:
            session.run(image())
        for cause in ("no memory", "no luck", "not finite", "'paraedge verify'"):
            assert cause in str(caught.value)
        with pytest.raises(EngineError, match="no memory"):
            session.run(image(), branches=1)


@pytest.mark.parametrize(
    ("stem", "problem"),
    [({"fail": "no stem"}, "fake failed while running stem: no stem"), ({"nan": True}, "stem's output is not finite")],
    ids=["failing", "NaN"],
)
def test_a_spoilt_stem_is_an_error_and_no_branch_runs(tmp_path, stem, problem):
    with Session.open(fake_bundle(tmp_path / "b", stem=stem), threads=2) as session:
        for _ in range(2):
            with pytest.raises(EngineError, match=problem):
                session.run(image())
    assert all(part.threads == [] for part in PARTS[1:])


@pytest.mark.parametrize("given", [None, 3, b"x.paraedge"])
def test_what_is_no_path_is_no_bundle(given):
    with pytest.raises(InputError, match=r"the bundle must be a path or an open Bundle, got "):
        Session.open(given)


def test_a_bad_input_is_refused_and_the_session_goes_on(bundle):
    with Session.open(bundle, threads=2) as session:
        with pytest.raises(
            InputError, match="input 'image' must be a path, a PIL image, a torch tensor or a numpy array"
        ):
            session.run([1, 2, 3])
        with pytest.raises(InputError, match="or a numpy array, got NoneType"):
            session.run(None)
        with pytest.raises(InputError, match=r"uint8 of shape \(9, 8, 2\)"):
            session.run(np.zeros((9, 8, 2), np.uint8))
        assert session.run(image()).branches_used == (0, 1, 2, 3)


@pytest.mark.parametrize("threads", [1, 3])
def test_ctrl_c_in_the_callers_thread_leaks_into_no_later_answer(bundle, monkeypatch, threads):
    caller, run = threading.get_ident(), FakePart._run
    interrupts = []

    def interrupted(part, x):
        if part.name != "stem" and threading.get_ident() == caller and len(interrupts) < 5:
            interrupts.append(part.name)
            raise KeyboardInterrupt
        return run(part, x)

    with Session.open(bundle, threads=threads) as session:
        expected = [session.run(image(value)) for value in (10, 250)]
        monkeypatch.setattr(FakePart, "_run", interrupted)
        for _ in range(200):  # until the caller's thread was the one to take a branch
            if len(interrupts) == 5:
                break
            with suppress(KeyboardInterrupt):
                session.run(image(10))
        assert len(interrupts) == 5
        for value, wanted in zip((10, 250), expected, strict=True):
            prediction = session.run(image(value))
            assert prediction.branches_used == (0, 1, 2, 3)
            assert prediction.branches_dropped == ()
            assert np.array_equal(prediction.output, wanted.output)
            assert len(prediction.timeline) == 5


@pytest.mark.parametrize("hurried", [False, True])
def test_ctrl_c_while_the_caller_waits_ends_the_request_and_nothing_else(tmp_path, monkeypatch, hurried):
    """The signal comes while the caller waits for a worker that is still in its branch."""
    main = threading.main_thread()
    gate, entered = Gate(), threading.Event()
    run = FakePart._run

    def held(part, x):
        if part.name != "stem" and not gate.release.is_set():
            if threading.get_ident() != main.ident:
                entered.set()
                assert gate.release.wait(PATIENCE_S)
            else:
                assert entered.wait(PATIENCE_S)
        return run(part, x)

    bundle = fake_bundle(tmp_path / "b", [{"add": 1.0}, {"add": 2.0}])
    with Session.open(bundle, threads=2) as session:
        wanted = session.run(image())
        monkeypatch.setattr(FakePart, "_run", held)

        def poke():
            assert entered.wait(PATIENCE_S)
            time.sleep(0.1)  # the caller is on its way into the wait; earlier it is as good a moment
            signal.pthread_kill(main.ident, signal.SIGINT)

        poker = threading.Thread(target=poke, daemon=True)
        poker.start()
        with pytest.raises(KeyboardInterrupt):
            # The worker is held: without the signal this would not return.
            session.run(image(), **({"budget_ms": 1e6, "policy": "all"} if hurried else {}))
        assert any(RUNNING.values())
        gate.release.set()
        poker.join()
        for _ in range(20):
            prediction = session.run(image())
            assert prediction.branches_used == (0, 1)
            assert np.array_equal(prediction.output, wanted.output)


def test_a_sum_that_overflows_is_an_error(tmp_path):
    bundle = fake_bundle(tmp_path / "b", [{"add": 1.5e38}] * 4)
    with Session.open(bundle) as session, pytest.raises(EngineError, match="sum of the branches is not finite"):
        session.run(image())


def test_versions_compare_as_numbers(tmp_path):
    bundle = fake_bundle(tmp_path / "b", engine_min_version={"fake": "1.0.0"})
    Session.open(bundle).close()  # 1.0 is installed


# Choosing branches -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("branches", "chosen"),
    [
        (None, (0, 2, 5)),
        (1, (0,)),
        (2, (0, 2)),
        (3, (0, 2, 5)),
        ([2], (2,)),
        ([0, 5], (0, 5)),
        (np.int64(2), (0, 2)),
        (np.array([0, 5]), (0, 5)),
        ((0, 2, 5), (0, 2, 5)),
        (range(0, 3, 2), (0, 2)),
    ],
)
def test_choose_branches(branches, chosen):
    assert choose_branches(branches, (0, 2, 5)) == chosen


@pytest.mark.parametrize(
    ("branches", "problem"),
    [
        (0, r"0 branches requested, 3 available: \[0, 2, 5\]"),
        (-1, "-1 branches requested"),
        (4, "4 branches requested"),
        ([1], r"no branch 1; choose from \[0, 2, 5\]"),
        ([0, 3], "no branch 3"),
        ([-1], "no branch -1"),
        ([], r"invalid branches \[\]: give one or more"),
        ([2, 0], r"invalid branches \[2, 0\]: .* ascending order"),
        ([2, 2], "unique indices in ascending order"),
        ("05", "branches must be a count or a sequence of indices"),
        ([None], "branches must be a count or a sequence of indices"),
        (2.0, "branches must be a count or a sequence of indices"),
        ([0.0], "branches must be a count or a sequence of indices"),
        ([True], "branches must be a count or a sequence of indices"),
        (True, "branches must be .*, got True"),
    ],
)
def test_choose_branches_refuses(branches, problem):
    with pytest.raises(InputError, match=problem):
        choose_branches(branches, (0, 2, 5))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_run_takes_the_first_branches(bundle, count):
    with Session.open(bundle, threads=2) as session:
        prediction = session.run(image(90), branches=count)
        everything = session.run(image(90))
    assert prediction.branches_used == tuple(range(count))
    assert np.array_equal(prediction.output, everything.prefix_outputs[count - 1])
    assert len(prediction.timeline) == 1 + count


@pytest.mark.parametrize("chosen", [(0, 2), (1,), (1, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize("threads", [1, 3])
def test_run_takes_the_branches_that_are_named(bundle, chosen, threads):
    with Session.open(bundle, threads=threads) as session:
        whole = session.run(image())
        for options in ({}, {"budget_ms": 1e6, "policy": "all"}):
            prediction = session.run(image(), branches=list(chosen), **options)
            assert prediction.branches_used == chosen
            assert [run.index for run in prediction.branches] == list(chosen)
            np.testing.assert_array_equal(prediction.branch_outputs, whole.branch_outputs[list(chosen)])


@pytest.mark.parametrize("count", [0, 5, -1])
def test_run_refuses_a_count_that_is_not_there(bundle, count):
    with Session.open(bundle) as session, pytest.raises(InputError, match="branches requested, 4 available"):
        session.run(image(), branches=count)


def test_open_loads_the_chosen_branches_only(bundle):
    with Session.open(bundle, branches=[0, 2]) as session:
        assert session.branches == (0, 2)
        assert [part.name for part in PARTS] == ["stem", "branch_00", "branch_02"]
        prediction = session.run(image(90))
        assert prediction.branches_used == (0, 2)
        np.testing.assert_allclose(prediction.output, _expected(session, image(90), (0, 2)), rtol=1e-5)
        assert session.run(image(), branches=1).branches_used == (0,)
        with pytest.raises(InputError, match=r"3 branches requested, 2 available: \[0, 2\]"):
            session.run(image(), branches=3)


def test_branches_keep_their_numbers_in_a_subset(tmp_path, bundle):
    with Session.open(bundle.subset([1, 3], tmp_path / "s.paraedge")) as session:
        prediction = session.run(image(90))
    assert prediction.branches_used == (1, 3)
    assert [part.name for part in PARTS] == ["stem", "branch_01", "branch_03"]
    np.testing.assert_allclose(prediction.output, _expected(session, image(90), (1, 3)), rtol=1e-5)


# Opening ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["bundle", "path", "text", "zip"])
def test_open_takes_a_bundle_or_its_path(tmp_path, bundle, how):
    given = {"bundle": bundle, "path": bundle.path, "text": str(bundle.path)}.get(how)
    with Session.open(given or bundle.pack(tmp_path / "b.zip")) as session:
        assert session.bundle.manifest == bundle.manifest
        assert session.run(image()).branches_used == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"branches": [9]}, r"no branch 9; choose from \[0, 1, 2, 3\]"),
        ({"branches": 5}, "5 branches requested"),
        ({"branches": []}, "give one or more"),
        ({"threads": 0}, "threads must be an integer of at least 1, got 0"),
        ({"threads": "2"}, "threads must be an integer of at least 1, got '2'"),
        ({"threads": -2}, "threads must be an integer .*, got -2"),
        ({"engine": "tensorrt"}, "unknown engine 'tensorrt'; choose one of executorch, fake, litert, onnxruntime"),
        ({"engine": "onnxruntime"}, r"'onnxruntime' runs \.onnx files, .*b\.paraedge was made for 'fake'; export it"),
        ({"engine": "litert"}, r"runs \.tflite files"),
        ({"engine": "executorch"}, r"runs \.pte files"),
    ],
)
def test_open_refuses_what_cannot_be(bundle, options, problem):
    before = threading.enumerate()
    with pytest.raises(InputError, match=problem):
        Session.open(bundle, **options)
    assert PARTS == []
    assert threading.enumerate() == before


def test_a_bundle_for_an_unknown_engine_lists_the_known_ones(tmp_path):
    with pytest.raises(InputError, match="unknown engine 'quantum'; choose one of"):
        Session.open(fake_bundle(tmp_path / "b", engine="quantum"))


@pytest.mark.parametrize(
    ("installed", "needed"),
    [("1.0", "1.0"), ("1.0.1", "1.0"), ("1.10", "1.9"), ("2.0.0a0+cpu", "1.99.99"), ("10", "9")],
)
def test_an_engine_new_enough_is_used(tmp_path, monkeypatch, installed, needed):
    monkeypatch.setattr(FakeEngine, "version", installed)
    with Session.open(fake_bundle(tmp_path / "b", engine_min_version={"fake": needed})) as session:
        assert session.run(image()).branches_used == (0, 1, 2)


@pytest.mark.parametrize(
    ("installed", "needed"), [("0.9.7", "1.0"), ("1.9", "1.10"), ("1.0.0", "1.0.1"), ("2.0", "2.0.0.1"), ("9.9", "10")]
)
def test_an_engine_too_old_is_refused(tmp_path, monkeypatch, installed, needed):
    monkeypatch.setattr(FakeEngine, "version", installed)
    old = fake_bundle(tmp_path / "b", engine_min_version={"fake": needed})
    with pytest.raises(EngineUnavailable) as caught:
        Session.open(old)
    for words in (f"needs fake {needed} or newer", f"{installed} is installed", f"pip install 'fake>={needed}'"):
        assert words in str(caught.value)
    assert PARTS == []


def test_the_old_fake_engine_is_refused(bundle, monkeypatch):
    register(monkeypatch, "OldFakeEngine")
    with pytest.raises(EngineUnavailable, match=r"needs fake 1\.0 or newer, 0\.9\.7 is installed"):
        Session.open(bundle)


def test_a_package_the_bundle_does_not_know_is_refused(tmp_path):
    other = fake_bundle(tmp_path / "b", engine_min_version={"fake-gpu": "1.0", "fake-npu": "2.0"})
    with pytest.raises(EngineUnavailable, match=r"needs fake-gpu or fake-npu, and fake 1\.0 is installed"):
        Session.open(other)


def test_when_a_part_does_not_load_the_loaded_ones_are_closed(bundle):
    replace_file(bundle.path, "branch_01.fake", b"no program")
    before = threading.enumerate()
    with pytest.raises(EngineError, match=r"fake failed while loading branch_01\.fake: .*'paraedge verify'"):
        Session.open(bundle.path)
    assert [(part.name, part.closed) for part in PARTS] == [("stem", True), ("branch_00", True)]
    assert threading.enumerate() == before


def test_ctrl_c_while_loading_closes_the_loaded_parts(bundle, monkeypatch):
    load = FakeEngine.load

    def interrupted(engine, name, program, entry):
        if name == "branch_02":
            raise KeyboardInterrupt
        return load(engine, name, program, entry)

    monkeypatch.setattr(FakeEngine, "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Session.open(bundle)
    assert [part.closed for part in PARTS] == [True, True, True]


def test_a_part_damaged_after_the_bundle_was_opened_reaches_no_engine(bundle):
    with Session.open(bundle) as session:
        before = session.run(image()).output
    (bundle.path / "branch_01.fake").write_bytes(b'{"add": 99.9}'[: bundle.manifest.branches[1].size_bytes])
    with Session.open(bundle) as session:  # what was hashed is what runs
        assert np.array_equal(session.run(image()).output, before)
    with pytest.raises(IntegrityError, match=r"branch_01\.fake"):
        Session.open(bundle.path)


# Closing ---------------------------------------------------------------------------------------


def test_close_frees_every_part_and_may_be_called_again(bundle):
    session = Session.open(bundle, threads=2)
    session.run(image())
    session.close()
    session.close()
    assert all(part.closed for part in PARTS)
    assert len(PARTS) == 5


def test_a_closed_session_says_so(bundle):
    with Session.open(bundle, threads=2) as session:
        pass
    for _ in range(2):
        with pytest.raises(EngineError, match=r"the session on .*b\.paraedge is closed; open a new one"):
            session.run(image())


def test_an_error_in_the_block_passes_and_closes(bundle):
    with pytest.raises(ZeroDivisionError), Session.open(bundle):
        _ = 1 / 0
    assert all(part.closed for part in PARTS)


def test_close_waits_for_a_call_in_progress(tmp_path, gates, callers):
    (gate,) = gates("gate")
    session = Session.open(fake_bundle(tmp_path / "b", [{"add": 1.0, "event": "gate"}, {"add": 2.0}]), threads=2)
    pending = callers.submit(session.run, image())
    assert gate.entered.wait(PATIENCE_S)
    closing = threading.Event()
    closed = callers.submit(lambda: (closing.set(), session.close()))
    assert closing.wait(PATIENCE_S)
    assert not any(part.closed for part in PARTS)
    assert not closed.done()
    gate.release.set()
    closed.result(PATIENCE_S)
    assert pending.result(PATIENCE_S).branches_used == (0, 1)  # the fake engine fails a part closed while it ran
    assert all(part.closed for part in PARTS)


def test_calls_that_wait_when_the_session_closes_are_told(tmp_path, gates, callers):
    """Whoever comes after ``close`` gets an error, nobody a wrong prediction or a closed part."""
    (gate,) = gates("gate")
    session = Session.open(fake_bundle(tmp_path / "b", [{"add": 1.0, "event": "gate"}, {"add": 2.0}]), threads=2)
    first = callers.submit(session.run, image())
    assert gate.entered.wait(PATIENCE_S)
    others = [callers.submit(session.run, image()) for _ in range(3)]
    closed = callers.submit(session.close)
    others += [callers.submit(session.run, image()) for _ in range(3)]
    gate.release.set()
    assert first.result(PATIENCE_S).branches_used == (0, 1)
    closed.result(PATIENCE_S)
    for other in others:
        error = other.exception(PATIENCE_S)
        if error is None:
            assert other.result().branches_dropped == ()
        else:
            assert isinstance(error, EngineError)
            assert "is closed" in str(error)


def test_a_bundle_may_be_opened_again_after_close(bundle):
    outputs = []
    for threads in (1, 2, 3):
        with Session.open(bundle, threads=threads) as session:
            outputs.append(session.run(image()).output)
    assert np.array_equal(outputs[0], outputs[1])
    assert np.array_equal(outputs[0], outputs[2])


def test_a_session_dropped_without_close_does_not_hang_the_interpreter(tmp_path, bundle):
    script = tmp_path / "dropped.py"
    script.write_text(
        "import sys\n"
        "from paraedge_runtime import Session\n"
        "from paraedge_runtime.engines import ENGINES, EngineInfo\n"
        "from support.bundles import image\n"
        "ENGINES['fake'] = EngineInfo('support.fake_engine:FakeEngine', '.fake', ('fake',), 'fake')\n"
        "kept = Session.open(sys.argv[1], threads=3)\n"
        "kept.run(image())\n"
        "Session.open(sys.argv[1], threads=3).run(image())\n"
        "print('the end')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), str(bundle.path)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "the end\n", "")


# Several callers -------------------------------------------------------------------------------


def test_two_sessions_on_one_bundle_run_at_once(tmp_path, gates, callers):
    (gate,) = gates("gate")
    shared = Bundle.open(fake_bundle(tmp_path / "b", [{"add": 1.0, "event": "gate"}, {"add": 2.0}]).path)
    with Session.open(shared, threads=2) as one, Session.open(shared, threads=2) as other:
        waiting = []
        for session, value in ((one, 10), (other, 200)):
            gate.entered.clear()
            waiting.append(callers.submit(session.run, image(value)))
            assert gate.entered.wait(PATIENCE_S)  # the second one, while the first is still inside
        gate.release.set()
        outputs = [pending.result(PATIENCE_S).output for pending in waiting]
        assert np.array_equal(outputs[0], one.run(image(10)).output)
        assert np.array_equal(outputs[1], one.run(image(200)).output)
        assert not np.array_equal(*outputs)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.usefixtures("tiny_switch_interval")
def test_eight_callers_of_one_session_get_their_own_answers(bundle, callers, threads):
    """The fake engine fails a part that two threads are in; a dropped branch would tell."""
    values = [30 * caller for caller in range(8)]
    with Session.open(bundle, threads=threads) as session:
        wanted = {value: session.run(image(value)).output for value in values}
        together = threading.Barrier(8)

        def call(value):
            together.wait(PATIENCE_S)
            return [session.run(image(value)) for _ in range(15)]

        for value, predictions in zip(values, callers.map(call, values, timeout=2 * PATIENCE_S), strict=True):
            for prediction in predictions:
                assert prediction.branches_dropped == ()
                assert np.array_equal(prediction.output, wanted[value])


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_switch_interval")
def test_stress(tmp_path, callers):
    """Some 2000 runs from six threads on two sessions, one with a failing branch, in all sizes."""
    whole = fake_bundle(tmp_path / "whole", ORDER_MATTERS)
    failing = fake_bundle(tmp_path / "failing", [*ORDER_MATTERS[:2], {"fail": "broken"}, *ORDER_MATTERS[3:]])
    with Session.open(whole, threads=3) as good, Session.open(failing, threads=2) as bad:
        wanted = {
            (session, value, count): session.run(image(value), branches=count)
            for session in (good, bad)
            for value in (0, 77, 255)
            for count in (1, 4, 6)
        }
        requests = list(wanted)
        together = threading.Barrier(6)

        def call(caller):
            together.wait(PATIENCE_S)
            for number in range(340):
                session, value, count = request = requests[(number * 5 + caller * 3) % len(requests)]
                prediction = session.run(image(value), branches=count)
                assert np.array_equal(prediction.output, wanted[request].output)
                assert prediction.branches_used == wanted[request].branches_used
                assert prediction.branches_dropped == wanted[request].branches_dropped
                assert len(prediction.timeline) == 1 + count
            return caller

        assert list(callers.map(call, range(6), timeout=120)) == list(range(6))


def test_a_prediction_that_is_not_sure_enough_is_unknown(tmp_path):
    bundle = fake_bundle(tmp_path / "b.paraedge")
    with Session.open(bundle) as session:
        sure = session.run(image())
        at_most = sure.confidence
        assert 0 < at_most < 0.99
        assert (sure.is_unknown, sure.label) == (False, bundle.manifest.labels[sure.label_index])
        for prediction in (
            session.run(image(), min_confidence=0.99),
            session.run([image()], min_confidence=0.99)[0],
            asyncio.run(session.arun(image(), min_confidence=0.99)),
            list(session.stream(image(), min_confidence=0.99))[-1],
        ):
            assert (prediction.is_unknown, prediction.label) == (True, None)
            assert (prediction.label_index, prediction.confidence) == (sure.label_index, sure.confidence)
            assert prediction.to_dict()["label"] is None
            assert pickle.loads(pickle.dumps(prediction)).is_unknown
            np.testing.assert_array_equal(prediction.output, sure.output)
        assert not session.run(image(), min_confidence=at_most).is_unknown  # "below" it, not at it
        for wrong in (0, 1.01, -1, "0.5", True, float("nan")):
            with pytest.raises(InputError, match=r"min_confidence must be above 0 and at most 1, got "):
                session.run(image(), min_confidence=wrong)


def test_min_confidence_is_for_labels(tmp_path):
    embedding = fake_bundle(tmp_path / "e.paraedge", output=EMBEDDING)
    with (
        Session.open(embedding) as session,
        pytest.raises(InputError, match="min_confidence is for bundles with labels"),
    ):
        session.run(image(), min_confidence=0.5)

"""Without the native core a session gives the same predictions, one branch after another, and says so."""

import inspect

import numpy as np
import pytest
from support.bundles import fake_bundle, image
from support.fake_engine import FakePart

from paraedge_runtime import BranchState, EngineError, Session
from paraedge_runtime.core import core_problem
from paraedge_runtime.sequential import SequentialSession
from paraedge_runtime.session import _Request

pytestmark = pytest.mark.usefixtures("fake_engine")


@pytest.fixture
def bundle(tmp_path):
    return fake_bundle(tmp_path / "b.paraedge", [{"add": 10.0**place} for place in range(4)])


@pytest.fixture
def no_core(monkeypatch):
    monkeypatch.setattr(
        "paraedge_runtime.session.core_problem", lambda: "the native core was not built; install a wheel"
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"branches": 2},
        {"branches": [0, 3]},
        {"budget_ms": 60_000},
        {"budget_ms": 60_000, "policy": "all"},
        {"early_stop": True},
        {"branches": 2, "early_stop": True},
    ],
    ids=str,
)
def test_requests_give_what_the_core_gives(bundle, options, monkeypatch):
    with Session.open(bundle, threads=1) as session:
        right = session.run(image(90), **options)
    monkeypatch.setattr("paraedge_runtime.session.core_problem", lambda: "the native core was not built")
    with Session.open(bundle, threads=4) as session:
        prediction = session.run(image(90), **options)
    assert prediction.branches_used == right.branches_used
    np.testing.assert_array_equal(prediction.output, right.output)
    np.testing.assert_array_equal(prediction.branch_outputs, right.branch_outputs)
    assert (prediction.label, prediction.deadline_met) == (right.label, right.deadline_met)
    assert prediction.confidence == pytest.approx(right.confidence, abs=1e-6)
    assert {run.thread for run in prediction.timeline} == {0}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda output: None,
        lambda output: output.tolist(),
        lambda output: output.astype(np.float64),
        lambda output: output.astype(np.int32),
        lambda output: output.reshape(-1),
        lambda output: output[..., :-1],
        lambda output: output[:0],
        lambda output: output * np.float32(np.nan),
        lambda output: output.undefined,
    ],
    ids=["None", "list", "float64", "int32", "flat", "short", "empty", "nan", "raises"],
)
def test_what_a_part_returns_is_checked_as_in_the_core(bundle, spoil, monkeypatch):
    run, spoilt = FakePart.run, []
    monkeypatch.setattr(FakePart, "run", lambda part, x: (spoil if part.name in spoilt else np.asarray)(run(part, x)))
    found = []
    for problem in (core_problem(), "the native core was not built"):
        monkeypatch.setattr("paraedge_runtime.session.core_problem", lambda problem=problem: problem)
        with Session.open(bundle, threads=1) as session:
            spoilt[:] = ["branch_01"]
            prediction = session.run(image(90))
            spoilt[:] = ["stem"]
            with pytest.raises(EngineError) as refused:
                session.run(image(90))
        found.append((prediction.branches_used, prediction.branches_dropped, str(refused.value)))
    assert found[0] == found[1]
    assert found[0][0] == (0, 2, 3)


def test_it_takes_the_arguments_that_the_core_takes():
    parameters = list(inspect.signature(SequentialSession.run).parameters)
    assert parameters == ["self", "data", *_Request._fields]


def test_it_has_one_thread_and_says_why(bundle, no_core):
    with Session.open(bundle, threads=4) as session:
        assert session.threads == 1
        assert "one after another: the native core was not built" in session.run(image()).explain()


def test_a_budget_is_looked_at_between_branches(bundle, no_core):
    with Session.open(bundle) as session:
        prediction = session.run(image(), budget_ms=1e-6)
    assert prediction.branches_used == (0,)
    assert [run.state for run in prediction.branches[1:]] == [BranchState.LATE] * 3
    assert not prediction.deadline_met


def test_a_stream_gives_a_prediction_after_each_branch(bundle, no_core):
    with Session.open(bundle) as session:
        predictions = list(session.stream(image(90)))
    assert [prediction.branches_used for prediction in predictions] == [(0,), (0, 1), (0, 1, 2), (0, 1, 2, 3)]


def test_branches_that_fail_are_dropped_and_named(tmp_path, no_core):
    bundle = fake_bundle(tmp_path / "b.paraedge", [{"fail": "no such kernel"}, {"add": 1.0}, {"nan": True}])
    with Session.open(bundle) as session:
        prediction = session.run(image())
    assert prediction.branches_used == (1,)
    assert "no such kernel" in prediction.explain()
    bundle = fake_bundle(tmp_path / "bad.paraedge", [{"fail": "no such kernel"}])
    with Session.open(bundle) as session, pytest.raises(EngineError, match="no such kernel"):
        session.run(image())

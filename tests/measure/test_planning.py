"""Planning: the documented formula on numbers a person can add up, the choice, and plans that are refused."""

import re

import numpy as np
import pytest
from msgspec.structs import replace
from support.bundles import fake_bundle
from support.devices import DEVICE, MEASUREMENT, latency, with_measurement

from paraedge_measure.evaluation import Evaluation
from paraedge_measure.planning import (
    Plan,
    Wish,
    belong_together,
    candidate_plans,
    choose_plan,
    pareto_plans,
    predict_request_ms,
    read_plan,
    write_plan,
)
from paraedge_runtime import InputError, PlanError, ProfileError
from paraedge_runtime.card import Accuracy


def measured(branches, contention, request_ms, stem_ms=1.0):
    """A measurement with these medians; p95 is 1.3 times p50, as in ``latency``."""
    parts = {"stem": latency(stem_ms), **{f"branch_{n:02d}": latency(ms) for n, ms in enumerate(branches)}}
    return replace(
        MEASUREMENT, parts=parts, request=latency(request_ms), contention=contention, threads=len(contention)
    )


@pytest.mark.parametrize(
    ("branches", "contention", "request_ms", "positions", "expected"),
    [
        pytest.param([2.0], (1.0,), 3.0, [0], 3.0, id="stem and a branch"),
        pytest.param([2.0, 3.0, 4.0], (1.0,), 10.0, [0, 1], 6.0, id="one after another"),
        pytest.param([2.0, 2.0], (1.0, 1.0), 3.0, [0, 1], 3.0, id="side by side"),
        pytest.param([2.0, 2.0], (1.0, 1.5), 4.0, [0, 1], 4.0, id="side by side, slowed"),
        pytest.param([2.0, 2.0], (1.0, 1.5), 4.0, [0], 3.0, id="alone, not slowed"),
        pytest.param([1.0, 3.0], (1.0, 1.5), 4.5, [0, 1], 1.0 + 1.5 + 2.0, id="slowed only while both run"),
        pytest.param([2.0, 1.0, 1.0], (1.0, 1.0), 3.0, [0, 1, 2], 3.0, id="the third goes where it is free first"),
        pytest.param([1.0, 1.0, 1.0], (1.0, 1.0), 3.0, [0, 1, 2], 3.0, id="three on two"),
        pytest.param([2.0, 2.0, 2.0], (1.0, 1.0, 1.0), 3.0, [0, 1], 3.0, id="more threads than branches"),
        pytest.param([2.0, 2.0], (1.0,), 6.0, [0], 3.5, id="what is beyond is shared by the branches"),
        pytest.param([2.0, 2.0], (1.0,), 4.0, [0, 1], 5.0, id="never less than its parts"),
        pytest.param([2.0, 3.0, 4.0], (1.0,), 10.0, [2], 5.0, id="another than the first"),
        pytest.param([2.0, 3.0, 4.0], (1.0, 1.0), 6.0, [0, 2], 5.0, id="the first and the last, side by side"),
        pytest.param([1.0, 1.0, 2.0], (1.0, 1.0), 3.0, [0, 1, 2], 3.0, id="the largest first"),
        pytest.param([2.0, 3.0, 4.0], (1.0,), 13.0, [0, 2], 9.0, id="its share of what is beyond"),
    ],
)
def test_prediction(branches, contention, request_ms, positions, expected):
    p50_ms, p95_ms = predict_request_ms(measured(branches, contention, request_ms), positions)
    assert p50_ms == pytest.approx(expected)
    assert p95_ms == pytest.approx(1.3 * expected)


def test_the_whole_request_is_predicted_as_it_was_measured():
    measurement = measured([1.0, 2.0, 3.0], (1.0, 1.2), 6.5)
    assert predict_request_ms(measurement, range(3)) == pytest.approx((6.5, 1.3 * 6.5))


@pytest.mark.parametrize("positions", [[], [2], [0, 1, 2], [-1]])
def test_branches_that_were_not_measured(positions):
    with pytest.raises(InputError, match=rf"positions are {re.escape(str(positions))}; the measurement has 2 branches"):
        predict_request_ms(measured([1.0, 1.0], (1.0,), 3.0), positions)


def plan(p95_ms, accuracy, size_bytes=100, threads=1, branches=(0,)):
    return Plan(
        device="pi-5",
        bundle_name="tiny-1.0",
        bundle_sha256="5f" * 32,
        branches=branches,
        engine="litert",
        target="linux",
        recipe="fp32",
        threads=threads,
        p50_ms=p95_ms / 2,
        p95_ms=p95_ms,
        accuracy=accuracy,
        size_bytes=size_bytes,
        memory_bytes=None,
        valid=True,
    )


PLANS = [plan(1.0, 0.80, 100), plan(2.0, 0.85, 200), plan(4.0, 0.90, 400), plan(3.0, 0.90, 500, threads=2)]


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (Wish(budget_ms=10.0), PLANS[3]),  # as accurate as the third, and faster
        (Wish(budget_ms=10.0, max_bytes=450), PLANS[2]),
        (Wish(budget_ms=2.5), PLANS[1]),
        (Wish(budget_ms=2.0), PLANS[1]),
        (Wish(budget_ms=1.0), PLANS[0]),
        (Wish(budget_ms=10.0, max_bytes=199, min_accuracy=0.8), PLANS[0]),
    ],
)
def test_the_most_accurate_that_fits_is_chosen(wish, expected):
    assert choose_plan(PLANS, wish) == expected


@pytest.mark.parametrize(
    ("wish", "problem"),
    [
        (Wish(budget_ms=0.9), r"p95 within 0\.9 ms; the nearest is branch 0 with litert.* p95 1\.00 ms"),
        (Wish(budget_ms=2.0, min_accuracy=0.9), r"p95 within 2 ms, accuracy of at least 0\.9; .* p95 2\.00 ms"),
        (Wish(budget_ms=9.0, min_accuracy=0.95, max_bytes=450), r"at most 450 bytes; the nearest is .* p95 4\.00"),
    ],
)
def test_nothing_fits_and_the_nearest_is_named(wish, problem):
    with pytest.raises(PlanError, match=problem):
        choose_plan(PLANS, wish)


def test_nothing_at_all():
    with pytest.raises(PlanError, match="no bundle has been profiled; profile one first"):
        choose_plan([], Wish(budget_ms=1.0))


def test_pareto_keeps_what_nothing_else_beats():
    dominated = plan(3.5, 0.85, 300)
    equal = plan(2.0, 0.85, 200, threads=4)  # the same for more threads
    assert pareto_plans([dominated, *PLANS, equal]) == (PLANS[0], PLANS[1], PLANS[3], PLANS[2])


def test_candidates_are_every_prefix_of_every_measurement(tmp_path):
    bundle = fake_bundle(tmp_path / "b.paraedge", [{"add": 1.0}, {"add": 2.0}])
    one = replace(measured([2.0, 2.0], (1.0,), 5.0), bundle_sha256=bundle.sha256)
    two = replace(measured([2.0, 2.0], (1.0, 1.0), 3.0), bundle_sha256=bundle.sha256)
    device = replace(DEVICE, measurements=(MEASUREMENT, one, two))
    plans = candidate_plans(device, bundle)
    assert [(p.branches, p.threads, p.p50_ms, p.accuracy) for p in plans] == [
        ((0,), 1, 3.0, 0.5),
        ((0, 1), 1, 5.0, 0.51),
        ((0,), 2, 3.0, 0.5),
        ((0, 1), 2, 3.0, 0.51),
    ]
    branch_bytes = bundle.manifest.branches[1].size_bytes
    assert plans[1].size_bytes - plans[0].size_bytes == branch_bytes


@pytest.fixture
def evaluation():
    """400 images and 8 branches: the first gets 60 % right, every other one 90 %, and where they differ they win."""
    logits = np.zeros((8, 400, 3), dtype=np.float32)
    for branch in range(8):
        right = np.arange(400) < (240 if branch == 0 else 360)
        logits[branch, right, 1] = logits[branch, ~right, 2] = 1 + (branch > 0)
    return Evaluation(logits, np.ones(400, dtype=np.int64))


def bundle_of(evaluation, path, branches, **changes):
    """A bundle with three branches of the evaluation's model, which says how accurate they are."""
    any_three = fake_bundle(path.with_suffix(".any"))
    entries = tuple(
        replace(any_three.manifest.branches[position], index=index) for position, index in enumerate(branches)
    )
    names = ["stem", *(f"branch_{index:02d}" for index in branches)]
    fields = {
        "accuracy": Accuracy(dataset="d", num_samples=400, prefix_accuracy=evaluation.prefix_accuracy(branches)),
        "branches": entries,
        "parts": dict.fromkeys(names, any_three.card.parts["stem"]),
    }
    return fake_bundle(path, **{**fields, **changes})


def test_with_logits_other_branches_than_the_first_are_candidates(tmp_path, evaluation):
    bundle = bundle_of(evaluation, tmp_path / "b.paraedge", (0, 3, 7))
    assert belong_together(bundle, evaluation)
    # A measurement lists the branches of the bundle in order, whatever their numbers in the model.
    one = replace(measured([2.0, 2.0, 3.0], (1.0,), 8.0), bundle_sha256=bundle.sha256)
    plans = candidate_plans(replace(DEVICE, measurements=(one,)), bundle, evaluation)
    assert [(p.branches, p.p50_ms, p.accuracy) for p in plans] == [
        ((0,), 3.0, 0.6),
        ((0, 3), 5.0, 0.9),
        ((0, 3, 7), 8.0, 0.9),
        ((3,), 3.0, 0.9),
    ]
    by_place = [branch.size_bytes for branch in bundle.manifest.branches]
    assert plans[3].size_bytes - plans[0].size_bytes == by_place[1] - by_place[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"total_branches": 9},
        {"accuracy": Accuracy(dataset="d", num_samples=400, prefix_accuracy=(0.6, 0.9, 0.91))},
        {"accuracy": Accuracy(dataset="d", num_samples=401, prefix_accuracy=(0.6, 0.9, 0.9))},
    ],
    ids=str,
)
def test_logits_of_another_model_are_refused(tmp_path, evaluation, changes):
    bundle = bundle_of(evaluation, tmp_path / "b.paraedge", (0, 1, 2), **changes)
    assert not belong_together(bundle, evaluation)
    with pytest.raises(InputError, match=r"b\.paraedge was not exported from this model: .* name its own checkpoint"):
        candidate_plans(DEVICE, bundle, evaluation)


def test_a_bundle_that_was_not_measured_or_does_not_know_its_accuracy(tmp_path):
    with pytest.raises(ProfileError, match=r"b\.paraedge was not measured on pi-5; run 'paraedge profile'"):
        candidate_plans(DEVICE, fake_bundle(tmp_path / "b.paraedge"))
    with pytest.raises(InputError, match=r"c\.paraedge has no accuracy"):
        candidate_plans(DEVICE, fake_bundle(tmp_path / "c.paraedge", accuracy=None))


def test_an_engine_of_another_version_of_paraedge(tmp_path):
    bundle = fake_bundle(tmp_path / "b.paraedge")
    device = with_measurement(bundle_sha256=bundle.sha256, engine="warp")
    with pytest.raises(ProfileError, match=r"pi-5 names the engine 'warp', which is none of executorch, .*; update"):
        candidate_plans(device, bundle)


def test_a_plan_that_cannot_be_written(tmp_path):
    (tmp_path / "plan.json").mkdir()
    (tmp_path / "list.json").write_text('{"precious": 1}')
    for name in ("plan.json", "list.json"):
        with pytest.raises(PlanError, match=rf"{name} exists and is not a plan that paraedge wrote; choose"):
            write_plan(PLANS[0], tmp_path / name)
    with pytest.raises(PlanError, match=r"x cannot be written: .*; choose another path"):
        write_plan(PLANS[0], tmp_path / "list.json" / "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.json", "plan.json"]
    assert (tmp_path / "list.json").read_text() == '{"precious": 1}'


def test_a_plan_is_written_and_read(tmp_path):
    for plan in PLANS[:2]:
        write_plan(plan, tmp_path / "plan.json")
        assert read_plan(tmp_path / "plan.json") == plan


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "truncated"),
        (b"{}", "missing required field `device`"),
        (b'{"format": "paraedge-plan/2"}', "paraedge-plan/2"),
        (b'{"colour": 1}', "unknown field `colour`"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path, raw, problem):
    path = tmp_path / "plan.json"
    path.write_bytes(raw)
    with pytest.raises(PlanError, match=rf"plan\.json.*{problem}"):
        read_plan(path)


def test_a_plan_that_is_not_there(tmp_path):
    with pytest.raises(PlanError, match=r"make it: paraedge plan --profile device\.json --budget-ms 10 --out"):
        read_plan(tmp_path / "plan.json")

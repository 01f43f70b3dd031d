"""Planning: the documented formula on numbers a person can add up, the choice, and plans that are refused."""

import pytest
from msgspec.structs import replace
from support.bundles import fake_bundle
from support.devices import DEVICE, MEASUREMENT, latency

from paraedge_runtime import InputError, PlanError, ProfileError
from paraedge_runtime.planning import (
    Plan,
    Wish,
    candidates,
    choose,
    pareto,
    predict_request_ms,
    read_plan,
    write_plan,
)


def measured(branches, contention, request_ms, stem_ms=1.0):
    """A measurement with these medians; p95 is 1.3 times p50, as in ``latency``."""
    parts = {"stem": latency(stem_ms), **{f"branch_{n:02d}": latency(ms) for n, ms in enumerate(branches)}}
    return replace(
        MEASUREMENT, parts=parts, request=latency(request_ms), contention=contention, threads=len(contention)
    )


@pytest.mark.parametrize(
    ("branches", "contention", "request_ms", "count", "expected"),
    [
        pytest.param([2.0], (1.0,), 3.0, 1, 3.0, id="stem and a branch"),
        pytest.param([2.0, 3.0, 4.0], (1.0,), 10.0, 2, 6.0, id="one after another"),
        pytest.param([2.0, 2.0], (1.0, 1.0), 3.0, 2, 3.0, id="side by side"),
        pytest.param([2.0, 2.0], (1.0, 1.5), 4.0, 2, 4.0, id="side by side, slowed"),
        pytest.param([2.0, 2.0], (1.0, 1.5), 4.0, 1, 3.0, id="alone, not slowed"),
        pytest.param([1.0, 3.0], (1.0, 1.5), 4.5, 2, 1.0 + 1.5 + 2.0, id="slowed only while both run"),
        pytest.param([2.0, 1.0, 1.0], (1.0, 1.0), 3.0, 3, 3.0, id="the third goes where it is free first"),
        pytest.param([1.0, 1.0, 1.0], (1.0, 1.0), 3.0, 3, 3.0, id="three on two"),
        pytest.param([2.0, 2.0, 2.0], (1.0, 1.0, 1.0), 3.0, 2, 3.0, id="more threads than branches"),
        pytest.param([2.0, 2.0], (1.0,), 6.0, 1, 3.5, id="what is beyond is shared by the branches"),
        pytest.param([2.0, 2.0], (1.0,), 4.0, 2, 5.0, id="never less than its parts"),
    ],
)
def test_prediction(branches, contention, request_ms, count, expected):
    p50_ms, p95_ms = predict_request_ms(measured(branches, contention, request_ms), count)
    assert p50_ms == pytest.approx(expected)
    assert p95_ms == pytest.approx(1.3 * expected)


def test_the_whole_request_is_predicted_as_it_was_measured():
    measurement = measured([1.0, 2.0, 3.0], (1.0, 1.2), 6.5)
    assert predict_request_ms(measurement, 3) == pytest.approx((6.5, 1.3 * 6.5))


@pytest.mark.parametrize("count", [0, 3, -1])
def test_branches_that_were_not_measured(count):
    with pytest.raises(InputError, match=rf"branches is {count}; the measurement has 2"):
        predict_request_ms(measured([1.0, 1.0], (1.0,), 3.0), count)


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
    assert choose(PLANS, wish) == expected


@pytest.mark.parametrize(
    ("wish", "problem"),
    [
        (Wish(budget_ms=0.9), r"p95 within 0\.9 ms; the nearest is 1 branch.* p95 1\.00 ms"),
        (Wish(budget_ms=2.0, min_accuracy=0.9), r"p95 within 2 ms, accuracy of at least 0\.9; .* p95 2\.00 ms"),
        (Wish(budget_ms=9.0, min_accuracy=0.95, max_bytes=450), r"at most 450 bytes; the nearest is .* p95 4\.00"),
    ],
)
def test_nothing_fits_and_the_nearest_is_named(wish, problem):
    with pytest.raises(PlanError, match=problem):
        choose(PLANS, wish)


def test_nothing_at_all():
    with pytest.raises(PlanError, match="profile a bundle first"):
        choose([], Wish(budget_ms=1.0))


def test_pareto_keeps_what_nothing_else_beats():
    dominated = plan(3.5, 0.85, 300)
    equal = plan(2.0, 0.85, 200, threads=4)  # the same for more threads
    assert pareto([dominated, *PLANS, equal]) == (PLANS[0], PLANS[1], PLANS[3], PLANS[2])


def test_candidates_are_every_prefix_of_every_measurement(tmp_path):
    bundle = fake_bundle(tmp_path / "b.paraedge", [{"add": 1.0}, {"add": 2.0}])
    one = replace(measured([2.0, 2.0], (1.0,), 5.0), bundle_sha256=bundle.sha256)
    two = replace(measured([2.0, 2.0], (1.0, 1.0), 3.0), bundle_sha256=bundle.sha256)
    device = replace(DEVICE, measurements=(MEASUREMENT, one, two))
    plans = candidates(device, [bundle])
    assert [(p.branches, p.threads, p.p50_ms, p.accuracy) for p in plans] == [
        ((0,), 1, 3.0, 0.5),
        ((0, 1), 1, 5.0, 0.51),
        ((0,), 2, 3.0, 0.5),
        ((0, 1), 2, 3.0, 0.51),
    ]
    branch_bytes = bundle.manifest.branches[1].size_bytes
    assert plans[1].size_bytes - plans[0].size_bytes == branch_bytes


def test_a_bundle_that_was_not_measured_or_does_not_know_its_accuracy(tmp_path):
    with pytest.raises(ProfileError, match=r"b\.paraedge was not measured on pi-5; run 'paraedge profile'"):
        candidates(DEVICE, [fake_bundle(tmp_path / "b.paraedge")])
    with pytest.raises(InputError, match=r"c\.paraedge does not know its accuracy"):
        candidates(DEVICE, [fake_bundle(tmp_path / "c.paraedge", accuracy=None)])


def test_a_plan_is_written_and_read(tmp_path):
    write_plan(PLANS[0], tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == PLANS[0]


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
    with pytest.raises(PlanError, match="make it with 'paraedge plan --out"):
        read_plan(tmp_path / "plan.json")

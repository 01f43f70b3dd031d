"""Policies by name: which there are, and what each starts."""

import time

import numpy as np
import pytest
from support.bundles import fake_bundle, image

from paraedge_measure.deadlines.policies import Known, make_policy, policy_names, select_policies
from paraedge_runtime import Session
from paraedge_runtime.errors import InputError

KNOWN = Known(stage_s=(0.001, 0.002, 0.003), return_s=0.0001, accuracy=(0.7, 0.8, 0.9))
FAR_S = 60.0


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (("all",), ("all",)),
        (("anytime", "alert-any", "anytime"), ("alert-any", "anytime")),
        (("static",), ("static-1", "static-2")),
        (("all", "static"), ("static-1", "static-2", "all")),
        (
            policy_names(3),
            ("static-1", "static-2", "all", "alert-any", "anytime", "anytime-early-stop", "anytime-drop"),
        ),
        ((), ()),
    ],
)
def test_select_policies(chosen, names):
    assert select_policies(chosen, 3) == names


@pytest.mark.parametrize("name", ["static-3", "static-0", "alert", "", "oracle-dynamic"])
def test_an_unknown_policy_lists_the_known_ones(name):
    with pytest.raises(
        InputError, match=f"unknown policy '{name}'; choose from static, static-1, static-2, all, alert"
    ):
        select_policies([name], 3)


@pytest.mark.usefixtures("fake_engine")
@pytest.mark.parametrize(
    ("name", "used"),
    [("static-1", 1), ("static-2", 2), ("all", 3), ("alert-any", 3), ("anytime", 3), ("anytime-drop", 3)],
)
def test_with_ample_time_every_policy_runs_what_it_wants(tmp_path, name, used):
    bundle = fake_bundle(tmp_path / "b")
    opened = []

    def open_session():
        opened.append(Session.open(bundle, threads=2))
        return opened[-1]

    with Session.open(bundle, threads=2) as shared:
        policy = make_policy(name, KNOWN, shared, open_session)
        for _ in range(30):  # a controller that has seen nothing starts with few
            prediction = policy(image(), time.monotonic() + FAR_S, ())
        assert prediction.branches_used == tuple(range(used))
        assert np.array_equal(prediction.output, shared.run(image(), branches=used).output)
    assert len(opened) == name.startswith("anytime")  # a session of its own, for what it learns
    for session in opened:
        session.close()


@pytest.mark.usefixtures("fake_engine")
@pytest.mark.parametrize(("name", "is_dropped"), [("anytime", False), ("anytime-drop", True)])
def test_a_request_whose_deadline_has_passed_is_dropped_or_late(tmp_path, name, is_dropped):
    with Session.open(fake_bundle(tmp_path / "b")) as session:
        prediction = make_policy(name, KNOWN, session, lambda: session)(image(), time.monotonic() - 1.0, ())
    assert (prediction is None) == is_dropped


@pytest.mark.usefixtures("fake_engine")
def test_alert_any_runs_fewer_when_more_are_no_better(tmp_path):
    with Session.open(fake_bundle(tmp_path / "b"), threads=1) as shared:
        policy = make_policy("alert-any", Known((0.001, 0.002, 0.003), 0.0, (0.9, 0.8, 0.7)), shared, lambda: shared)
        assert policy(image(), time.monotonic() + FAR_S, ()).branches_used == (0,)


@pytest.mark.usefixtures("fake_engine")
@pytest.mark.parametrize(("name", "used"), [("static-2", 2), ("anytime", 1)])
def test_ours_alone_looks_at_the_requests_that_wait(tmp_path, name, used):
    bundle = fake_bundle(tmp_path / "b", [{"add": 1.0}, {"add": 2.0, "sleep_s": 0.1}])
    with Session.open(bundle, threads=1) as session:
        policy = make_policy(name, KNOWN, session, lambda: session)
        for _ in range(22):
            policy(image(), time.monotonic() + FAR_S, ())
        now_s = time.monotonic()
        prediction = policy(image(), now_s + FAR_S, [now_s + 0.08])
        assert len(prediction.branches_used) == used

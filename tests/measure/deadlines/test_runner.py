"""Cells measured on the fake engine. Deadlines are so long that nothing depends on how fast the machine is."""

import threading

import numpy as np
import pytest
from support.bundles import fake_bundle

from paraedge_measure.deadlines.cells import grid
from paraedge_measure.deadlines.runner import ORACLES, Bench
from paraedge_measure.deadlines.summary import by_cell, summarise
from paraedge_runtime import Session
from paraedge_runtime.errors import EngineError, InputError

POLICIES = ("static-1", "static-2", "all", "alert-any", "anytime")
# The first branch names class 0 for dark images and 2 for others; two or three together name 2 for all.
BEHAVIOURS = [{"add": 0.0}, {"add": 6.0}, {"add": 6.0}]


@pytest.fixture
def bundle(tmp_path, fake_engine):
    return fake_bundle(tmp_path / "b", BEHAVIOURS, accuracy=None)


@pytest.fixture
def painted():
    rng = np.random.default_rng(0)
    images = np.full((20, 8, 8, 1), 200, dtype=np.uint8)
    images[:8] = 10
    images += rng.integers(0, 10, images.shape, dtype=np.uint8)
    return images, np.full(20, 2)


def cells(deadline=2000.0, arrivals=("closed",), interference=("none",), requests=50):
    return grid(
        deadlines=[deadline], arrivals=arrivals, interference=interference, requests=requests, load=None, hogs=1,
        square_period_s=0.02, quota=0.5,
    )  # fmt: skip


def test_prefix_accuracy_is_that_of_the_session(bundle, painted):
    with Bench(bundle, *painted, source="painted", threads=2) as bench, Session.open(bundle) as session:
        right = [
            session.run(image).prefix_outputs.argmax(axis=1) == label for image, label in zip(*painted, strict=True)
        ]
        assert bench.header.prefix_accuracy == tuple(np.mean(right, axis=0)) == (0.6, 1.0, 1.0)
        assert bench.known.accuracy == (0.6, 1.0, 1.0)  # the bundle has none of its own
        assert bench.header.images == "20 images, painted"
        assert 0 < bench.known.stage_s[0] <= bench.known.stage_s[2]


@pytest.mark.parametrize("arrivals", ["closed", "poisson", "bursty"])
@pytest.mark.parametrize("interference", ["none", "square"])
def test_with_ample_time_nothing_is_missed_and_accuracy_is_that_of_the_prefix(bundle, painted, arrivals, interference):
    (cell,) = cells(arrivals=[arrivals], interference=[interference], requests=60)  # every image three times
    heard = []
    with Bench(bundle, *painted, source="painted", threads=2, block=16) as bench:
        records = bench.run_cell(cell, POLICIES, 0, on_progress=heard.append)
    found = {record.policy: record for record in records}
    assert list(found) == [*POLICIES, *ORACLES]
    assert sum(heard) == 60 * (len(POLICIES) + 1)
    for name, record in found.items():
        assert (record.requests, record.misses, record.skipped) == (60, 0, 0), name
        assert record.cell == cell
        assert not record.missed.any()
    branches = {"static-1": 1, "static-2": 2, "all": 3, "alert-any": 2, "oracle-static": 2, "oracle-dynamic": 2,
                "oracle-first": 1}  # fmt: skip
    assert {name: found[name].branches for name in branches} == branches
    assert {name: found[name].correct for name in branches} == {
        name: 36 if count == 1 else 60 for name, count in branches.items()
    }
    assert found["static-1"].overshoot_ms["p99.9"] == 0
    assert found["static-1"].cpu_ms > 0
    assert found["oracle-static"].cpu_ms is None
    assert len({record.run for record in records}) == 1


def test_with_no_time_everything_is_missed(bundle, painted):
    with Bench(bundle, *painted, source="painted", threads=1, block=16) as bench:
        records = bench.run_cell(cells(deadline=1e-6)[0], POLICIES, 0)
    for record in records:
        assert (record.misses, record.correct) == (50, 0), record.policy
        assert record.missed.all()


def test_every_policy_gets_the_same_requests_and_a_seed_others(bundle, painted):
    """Which requests are right tells which image each was: static-1 errs on the dark ones."""
    with Bench(bundle, *painted, source="painted", threads=1, block=16) as bench:
        right = {
            seed: {record.policy: record.right for record in bench.run_cell(cells()[0], ("static-1", "all"), seed)}
            for seed in (0, 1)
        }
        again = bench.run_cell(cells()[0], ("static-1",), 0, oracles=False)
    assert np.array_equal(right[0]["static-1"], right[0]["oracle-first"])
    assert np.array_equal(right[0]["static-1"], again[0].right)
    assert [record.policy for record in again] == ["static-1"]
    assert not np.array_equal(right[0]["static-1"], right[1]["static-1"])


def test_summary_of_a_cell(bundle, painted):
    (cell,) = cells(requests=160)
    with Bench(bundle, *painted, source="painted", threads=1, block=16) as bench:
        records = bench.run_cell(cell, POLICIES, 0) + bench.run_cell(cell, POLICIES, 1)
    summary = summarise(cell, by_cell(records)[cell], 16)
    assert summary.best_static == "static-2"
    assert summary.fits == 1.0
    assert set(summary.misses_where_it_fits) == {*POLICIES, *ORACLES}
    assert set(summary.misses_where_it_fits.values()) == {0.0}
    assert summary.cpu_of_all["all"] == 1.0
    assert summary.gap_closed == {}  # both oracles are right everywhere
    compared = {entry.against: entry for entry in summary.comparisons}
    assert set(compared) == {"alert-any", "static-2", "all", "oracle-dynamic"}
    for entry in compared.values():
        low, high = entry.interval
        assert low <= entry.difference <= high
        assert entry.in_turns


def test_what_was_measured_apart_is_said_so(bundle, painted):
    (cell,) = cells(requests=32)
    with Bench(bundle, *painted, source="painted", threads=1, block=16) as bench:
        records = [
            *bench.run_cell(cell, ("anytime",), 0, oracles=False),
            *bench.run_cell(cell, ("alert-any", "all"), 0),
        ]
    assert not any(entry.in_turns for entry in summarise(cell, by_cell(records)[cell], 16).comparisons)


def test_the_expected_time_grows_with_the_work(bundle, painted):
    with Bench(bundle, *painted, source="painted", threads=1) as bench:
        (short,), (long,) = cells(deadline=1.0, requests=640), cells(deadline=1.0, requests=6400)
        assert bench.expected_s(long, 2) == pytest.approx(10 * bench.expected_s(short, 2), rel=0.1)
        assert bench.expected_s(short, 4) == pytest.approx(2 * bench.expected_s(short, 2))


def test_no_thread_and_no_process_is_left(bundle, painted):
    before = threading.active_count()
    with Bench(bundle, *painted, source="painted", threads=2, block=16) as bench:
        bench.run_cell(cells(interference=("square",))[0], ("all", "anytime"), 0)
    assert threading.active_count() == before


def test_an_early_stop_without_thresholds_is_refused(tmp_path, fake_engine, painted):
    with Bench(fake_bundle(tmp_path / "b", stop_rules=None), *painted, source="painted") as bench:
        bench.check("anytime")
        with pytest.raises(InputError, match="early_stop needs thresholds"):
            bench.check("anytime-early-stop")


@pytest.mark.parametrize(
    ("images", "labels", "problem"),
    [
        (np.zeros((0, 8, 8, 1), np.uint8), np.zeros(0, int), "painted has no images"),
        (np.zeros((3, 8, 8, 1), np.uint8), np.zeros(2, int), r"3 images have labels of shape \(2,\)"),
        (np.zeros((3, 8, 8, 1), np.uint8), np.zeros((3, 3), int), "every image needs one"),
        (np.zeros((3, 8, 8, 1), np.uint8), np.array([0, 3, 1]), "labels run from 0 to 3, the bundle has 3 outputs"),
        (np.zeros((3, 8, 8, 1), np.uint8), np.array([0, -1, 1]), "labels run from -1 to 1"),
        (np.zeros((3, 9, 9, 1), np.uint8), np.zeros(3, int), "resize it first"),
    ],
)
def test_images_that_do_not_fit_are_refused(bundle, images, labels, problem):
    before = threading.active_count()
    with pytest.raises(InputError, match=problem):
        Bench(bundle, images, labels, source="painted")
    assert threading.active_count() == before


def test_a_block_of_nothing_is_refused(bundle, painted):
    with pytest.raises(InputError, match="--block must be at least 1, got 0"):
        Bench(bundle, *painted, source="painted", block=0)


def test_a_branch_that_fails_is_refused(tmp_path, fake_engine, painted):
    broken = fake_bundle(tmp_path / "broken", [{"add": 1.0}, {"fail": "gone"}])
    with pytest.raises(EngineError, match=r"branch 1 was dropped: .*accuracy needs every branch"):
        Bench(broken, *painted, source="painted")

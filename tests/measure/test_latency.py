"""What a session begins with, from a device's profile: of this bundle and machine, or a foreign one if allowed."""

import pytest
from msgspec.structs import replace
from support.bundles import fake_bundle, image
from support.devices import HARDWARE, MEASUREMENT, latency

from paraedge_measure import Device, known_latency, read_hardware, write_device
from paraedge_runtime import InputError, Latency, ProfileError, Session


@pytest.fixture
def bundle(tmp_path, fake_engine):
    return fake_bundle(tmp_path / "b.paraedge", [{"add": 10.0**position} for position in range(4)], stop_rules=None)


def _profile(bundle, threads=2, hardware=None, **changes):
    """Of this machine; branch 1 takes a minute."""
    parts = {name: latency(60_000.0 if name == "branch_01" else 0.1) for name in bundle.manifest.parts()}
    measurement = replace(
        MEASUREMENT,
        bundle_sha256=bundle.sha256,
        engine="fake",
        threads=threads,
        contention=(1.0, 1.25, 1.5, 2.0)[:threads],
        parts=parts,
        **changes,
    )
    return Device(name="here", hardware=hardware or read_hardware(), measurements=(measurement,))


def test_no_profile_is_no_latency(bundle):
    assert known_latency(None, bundle) is None


def test_it_is_what_was_measured_of_these_parts_and_counts_from_the_first_request(bundle, tmp_path):
    write_device(_profile(bundle), tmp_path / "device.json")
    for profile in (_profile(bundle), tmp_path / "device.json"):
        known = known_latency(profile, bundle, threads=2)
        assert known == Latency((0.1, 0.1, 60_000.0, 0.1, 0.1), (1.0, 1.25))
        with Session.open(bundle, threads=2, latency=known) as session:
            prediction = session.run(image(), budget_ms=20_000)
        assert prediction.requests_to_learn == 0
        assert prediction.branches_used == (0, 2, 3)


@pytest.mark.parametrize(
    ("branches", "part_ms"),
    [(2, (0.1, 0.1, 60_000.0)), ((1, 3), (0.1, 60_000.0, 0.1)), ((3,), (0.1, 0.1))],
)
def test_it_is_of_the_branches_that_the_session_loads(bundle, branches, part_ms):
    threads = 1 if branches == (3,) else 2  # never more than branches
    known = known_latency(_profile(bundle, threads), bundle, threads=2, branches=branches)
    assert known.part_ms == part_ms
    with Session.open(bundle, threads=2, branches=branches, latency=known) as session:
        assert session.run(image()).requests_to_learn == 0


def test_without_a_number_of_threads_it_is_that_of_the_session(bundle):
    with Session.open(bundle) as session:
        threads = session.threads
    assert len(known_latency(_profile(bundle, threads=threads), bundle).contention) == threads


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param({"hardware": HARDWARE}, "was measured on another device", id="another device"),
        pytest.param({"threads": 1}, r"no measurement of bundle .* with fake on 2 thread\(s\)", id="other threads"),
    ],
)
def test_a_foreign_profile_is_refused_unless_it_is_allowed(bundle, changes, problem):
    profile = _profile(bundle, **changes)
    with pytest.raises(ProfileError, match=problem):
        known_latency(profile, bundle, threads=2)
    known = known_latency(profile, bundle, threads=2, allow_foreign=True)
    with Session.open(bundle, threads=2, latency=known) as session:
        assert session.run(image(), budget_ms=20_000).branches_used == (0, 2, 3)


def test_a_profile_of_another_bundle_is_refused(bundle, tmp_path, fake_engine):
    other = fake_bundle(tmp_path / "o.paraedge", [{"add": 5.0}] * 4)
    with pytest.raises(ProfileError, match="no measurement of bundle"):
        known_latency(_profile(bundle), other, threads=2)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"threads": 0}, "threads must be an integer of at least 1, got 0"),
        ({"branches": 9}, "9 branches requested"),
        ({"engine": "tvm"}, "unknown engine 'tvm'"),
    ],
)
def test_options_are_refused_as_by_the_session(bundle, options, problem):
    with pytest.raises(InputError, match=problem):
        known_latency(_profile(bundle), bundle, **options)

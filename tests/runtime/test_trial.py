"""A bundle's first run in a process of its own: what kills the child does not kill us."""

import shutil
import sys

import pytest
from support.bundles import fake_bundle
from support.deadly import in_children

from paraedge_runtime import Bundle, EngineError, IntegrityError
from paraedge_runtime.trial import try_bundle
from paraedge_runtime.verification import verify_bundle

DEEDS = {
    "os.kill(os.getpid(), signal.SIGSEGV)": "ended its process by SIGSEGV",
    "os.abort()": "ended its process by SIGABRT",
    "os.kill(os.getpid(), signal.SIGILL)": "ended its process by SIGILL",
    "os._exit(3)": "ended its process with status 3",
    "os._exit(0)": "ended its process with status 0",
    "raise SystemExit": "ended its process with status 0",
    "os.kill(os.getpid(), signal.SIGRTMIN + 5)": r"ended its process by signal \d+",
}


@pytest.fixture
def bundle(tmp_path):
    return fake_bundle(tmp_path / "b.paraedge")


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize(("deed", "end"), DEEDS.items())
def test_a_program_that_kills_its_process_is_an_integrity_error(tmp_path, monkeypatch, bundle, deed, end, packed):
    if packed:
        bundle = Bundle.open(bundle.pack(tmp_path / "b.zip"))
    in_children(tmp_path / "site", monkeypatch, deed)
    with pytest.raises(IntegrityError, match=rf"b\.(paraedge|zip): its first run {end}; .*; export the bundle again"):
        try_bundle(bundle)


def test_verify_survives_it(tmp_path, monkeypatch, bundle, fake_engine):
    in_children(tmp_path / "site", monkeypatch, "os.abort()")
    with pytest.raises(IntegrityError, match="its first run ended its process by SIGABRT"):
        verify_bundle(bundle)
    assert fake_engine.PARTS == []  # nothing was loaded here


def test_a_program_that_hangs_is_ended(tmp_path, monkeypatch, bundle):
    in_children(tmp_path / "site", monkeypatch, "time.sleep(1000)")
    with pytest.raises(IntegrityError, match="its first run did not end within 2 s"):
        try_bundle(bundle, timeout_s=2.0)


@pytest.mark.parametrize("deed", ["raise ValueError('broken')", "print('chatter'); raise MemoryError"])
def test_an_error_is_for_whoever_opens_the_bundle(tmp_path, monkeypatch, bundle, deed, capfd):
    in_children(tmp_path / "site", monkeypatch, deed)
    try_bundle(bundle)
    try_bundle(bundle, engine="unheard-of")
    assert capfd.readouterr() == ("", "")


def _gone(path):
    shutil.rmtree(path)


def _another(path):
    fake_bundle(path, [{}])


def _damaged(path):
    (path / "stem.fake").write_bytes(b"[]")


@pytest.mark.parametrize("change", [_gone, _another, _damaged])
def test_a_bundle_that_was_changed_since_is_not_taken_for_tried(bundle, change):
    change(bundle.path)
    with pytest.raises(
        IntegrityError, match=r"b\.paraedge was changed since it was opened, and not tried; open it again"
    ):
        try_bundle(bundle)


def test_without_python_nothing_is_tried_and_that_is_said(tmp_path, monkeypatch, bundle):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(EngineError, match=r"cannot be tried in a process of its own: No such file.*python' Python"):
        try_bundle(bundle)


def test_a_python_that_does_not_find_paraedge_is_no_fault_of_the_bundle(tmp_path, monkeypatch, bundle):
    alone = tmp_path / "python"
    alone.write_text(f'#!/bin/sh\nexec {sys.executable} -E -S "$@"\n')
    alone.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(alone))
    with pytest.raises(
        EngineError, match=r"cannot be tried in a process of its own: it ended with status 1; check that .* works"
    ):
        try_bundle(bundle)

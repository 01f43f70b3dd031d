"""A bundle's first run in a process of its own: what kills the child does not kill us."""

import json
import shutil
import subprocess
import sys

import pytest
from support.bundles import fake_bundle
from support.deadly import in_children

from paraedge_runtime import Bundle, EngineError, EngineUnavailable, IntegrityError
from paraedge_runtime.trial import remember_bundle, remember_part, try_bundle, try_engine, try_part
from paraedge_runtime.update import apply_update, write_update
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


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """What is remembered here is forgotten at the end."""
    monkeypatch.setenv("PARAEDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def started(monkeypatch):
    """The kinds of children that were started."""
    kinds, run = [], subprocess.run

    def noted(command, **options):
        kinds.append(command[4])
        return run(command, **options)

    monkeypatch.setattr("subprocess.run", noted)
    return kinds


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
    with pytest.raises(IntegrityError, match="its first run did not finish within 2 s"):
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
    with pytest.raises(EngineError, match=r"cannot be tried in a separate process: No such file.*python' Python"):
        try_bundle(bundle)


def test_a_python_that_does_not_find_paraedge_is_no_fault_of_the_bundle(tmp_path, monkeypatch, bundle):
    alone = tmp_path / "python"
    alone.write_text(f'#!/bin/sh\nexec {sys.executable} -E -S "$@"\n')
    alone.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(alone))
    with pytest.raises(
        EngineError, match=r"cannot be tried in a separate process: it ended with status 1; check that .* works"
    ):
        try_bundle(bundle)


# Programs that run, and are remembered ----------------------------------------------------------

# Answers zeros, and notes each run.
RUNS = """import numpy
        def run(self, x):
            with open({notes!r}, "a") as file:
                file.write(name + "\\n")
            return numpy.zeros(entry.output_shape, numpy.float32)
        return type("Part", (), {{"run": run, "close": lambda self: None}})()"""


@pytest.fixture
def notes(tmp_path, monkeypatch):
    in_children(tmp_path / "site", monkeypatch, RUNS.format(notes=str(tmp_path / "notes")))
    return tmp_path / "notes"


def test_every_golden_input_runs_once_on_a_machine(tmp_path, bundle, notes, started):
    for _ in range(3):
        try_bundle(bundle)
    packed = Bundle.open(bundle.pack(tmp_path / "b.zip"))
    try_bundle(packed)  # the same bundle
    assert started == ["bundle"]
    assert notes.read_text().splitlines().count("stem") == len(bundle.golden().inputs)


def test_a_part_runs_once_on_a_machine(bundle, notes, started):
    entry = bundle.manifest.stem
    for _ in range(2):
        try_part("fake", "stem", bundle.program(entry), entry)
    assert started == ["part"]
    assert notes.read_text() == "stem\n"


def test_what_ran_in_this_process_needs_no_other(bundle, started):
    remember_bundle(bundle)
    try_bundle(bundle)
    remember_part("fake", bundle.manifest.stem)
    try_part("fake", "stem", bundle.program(bundle.manifest.stem), bundle.manifest.stem)
    assert started == []
    try_bundle(bundle, engine="another")
    assert started == ["bundle"]


@pytest.mark.parametrize("what", ["version", "machine"])
def test_another_version_or_machine_tries_again(bundle, notes, started, monkeypatch, what):
    try_bundle(bundle)
    if what == "version":
        monkeypatch.setattr("importlib.metadata.version", lambda name: "99")
    else:
        monkeypatch.setattr("platform.node", lambda: "another")
    try_bundle(bundle)
    assert started == ["bundle", "bundle"]


def _writable_by_all(cache, monkeypatch):
    (cache / "trials").chmod(0o777)


def _writable_beside(cache, monkeypatch):
    cache.chmod(0o777)


def _of_another_user(cache, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 4711)
    monkeypatch.setattr("paraedge_runtime.cache_folder._TRUSTED_UIDS", ())


@pytest.mark.parametrize("make_foreign", [_writable_by_all, _writable_beside, _of_another_user])
def test_what_others_may_have_written_is_not_believed(cache, bundle, notes, started, monkeypatch, make_foreign):
    try_bundle(bundle)
    make_foreign(cache, monkeypatch)
    for _ in range(2):
        try_bundle(bundle)
    assert started == ["bundle"] * 3


@pytest.mark.parametrize("deed", ["raise ValueError('broken')", "os.abort()"])
def test_what_did_not_run_is_not_remembered(tmp_path, monkeypatch, bundle, started, deed):
    in_children(tmp_path / "site", monkeypatch, deed)
    for _ in range(2):
        try:
            try_bundle(bundle)
        except IntegrityError:
            assert deed == "os.abort()"
    assert started == ["bundle", "bundle"]


@pytest.mark.parametrize(("deed", "end"), list(DEEDS.items())[:1])
def test_a_part_that_kills_its_process_is_an_integrity_error(tmp_path, monkeypatch, bundle, deed, end):
    in_children(tmp_path / "site", monkeypatch, deed)
    entry = bundle.manifest.stem
    with pytest.raises(IntegrityError, match=rf"stem: its first run {end}; the program is damaged or hostile"):
        try_part("fake", "stem", bundle.program(entry), entry)


def test_a_killing_update_leaves_the_old_bundle(tmp_path, monkeypatch, bundle):
    new = fake_bundle(tmp_path / "new.paraedge", [{"add": 7.0}])
    write_update(bundle, new, tmp_path / "u.zip")
    in_children(tmp_path / "site", monkeypatch, "os.abort()")
    with pytest.raises(IntegrityError, match=r"^\S*b\.paraedge: its first run ended its process by SIGABRT"):
        apply_update(bundle, tmp_path / "u.zip", bundle.path)
    assert Bundle.open(bundle.path).sha256 == bundle.sha256
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


# Engines ----------------------------------------------------------------------------------------


@pytest.fixture
def litert_that(tmp_path, monkeypatch):
    """Children import another ``ai_edge_litert``: one that does this when it is imported."""

    def make(source):
        package = tmp_path / "site" / "ai_edge_litert"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "interpreter.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))

    return make


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "'litert' ended its process by SIGILL when it was"),
        ("import os; os._exit(74)", "'litert' did not report its version; install it again"),
        ("raise ImportError('libfoo.so.1')", "ai-edge-litert is installed but cannot be loaded: libfoo"),
    ],
)
def test_an_engine_that_ends_its_process_is_unavailable(litert_that, source, problem):
    litert_that(source)
    with pytest.raises(EngineUnavailable, match=problem):
        try_engine("litert")


def test_an_engine_tells_what_it_is(litert_that):
    litert_that("class Interpreter: ...\nprint('INFO: chatter')")
    found = try_engine("litert")
    assert found.distribution == "ai-edge-litert"
    assert found.parallel


def test_a_child_leaves_no_core_file_and_ends_without_its_parent(tmp_path, monkeypatch, bundle):
    seen = tmp_path / "seen"
    limits = "resource.getrlimit(resource.RLIMIT_CORE)[0], signal.alarm(0)"
    in_children(tmp_path / "site", monkeypatch, f"import resource; open({str(seen)!r}, 'w').write(str([{limits}]))")
    try_bundle(bundle)
    core_bytes, left_s = json.loads(seen.read_text())
    assert core_bytes == 0
    assert 0 < left_s <= 301

"""Fixtures: the packaged model, its bundles for every engine (made once), a cache of their own."""

import contextlib
import fcntl
import os
import signal
import tempfile
from pathlib import Path

import pytest

# Exports of the suite start cold and leave the user's cache alone: in a folder of their own, or in the one that .ci/run
# empties for all of its steps. Set before anything reads it, so that processes started by tests inherit it;
# pytest-xdist's workers share the one of the process that started them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="paraedge-test-cache-")
    os.environ["PARAEDGE_CACHE"] = os.environ.get("PARAEDGE_TEST_CACHE") or _CACHE.name
else:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker per core: torch's threads would wait for one another
os.environ.pop("PARAEDGE_DATA", None)
# A shell's job in the background ignores Ctrl-C, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

ENGINE_NAMES = ("executorch", "litert", "onnxruntime")


def pytest_collection_modifyitems(items):
    """What needs a bundle of every branch, or of sensors, waits for its export; 'make test-quick' leaves it out."""
    for item in items:
        if {"bundles", "sensors"} & set(item.fixturenames):
            item.add_marker("export")


@pytest.fixture(scope="session")
def checkpoint():
    from paraedge.model import load_checkpoint
    from paraedge.packaged import DEFAULT_MODEL, resolve_checkpoint

    return load_checkpoint(resolve_checkpoint(DEFAULT_MODEL))


@contextlib.contextmanager
def _outside_time_limit():
    """pytest-timeout's alarm waits: what a test is the first to need is set-up, and not its own work."""
    left_s, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left_s)


class _Bundles:
    """Full bundles of the packaged model by engine, exported when first asked for."""

    def __init__(self, folder, checkpoint):
        self._folder = folder
        self._checkpoint = checkpoint
        self._made = {}

    def __getitem__(self, engine):
        from paraedge.exporting import export

        if engine not in self._made:
            out = self._folder / f"{engine}.paraedge"
            # The second test process to come here finds every part in the cache.
            place = Path(os.environ["PARAEDGE_CACHE"]) / f"{engine}.lock"
            with _outside_time_limit(), place.open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._made[engine] = export(self._checkpoint, target="linux", engine=engine, out=out)
        return self._made[engine]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory, checkpoint):
    return _Bundles(tmp_path_factory.mktemp("bundles"), checkpoint)


@pytest.fixture(params=ENGINE_NAMES)
def engine_name(request):
    return request.param


@pytest.fixture
def fake_engine(monkeypatch):
    from support import fake_engine as module

    module.GATES.clear()
    module.RUNNING.clear()
    module.register(monkeypatch)
    return module

"""A disk that fills up under everything that writes: one clear line, what stood there stays, nothing is left over.

On a tmpfs of a few MB where root may mount one. Everywhere, and without root, the system's limit on the size of a file
stands in for it: it stops a file at any byte, but not the making of files and folders, and its message is another.
"""

import contextlib
import os
import resource
import shutil
import subprocess
from types import SimpleNamespace

import pytest
import torch
from fuzz.seeds import HEADER, record, tiny_checkpoint
from support.bundles import fake_bundle, tree
from support.devices import DEVICE
from support.keys import private_key

from paraedge import web
from paraedge.model import load_checkpoint, save_checkpoint
from paraedge.signing import make_keys, sign_bundle
from paraedge.training.resume import ResumeFile, RunState
from paraedge_converters.cache import CachedPart, PartCache
from paraedge_measure.deadlines.records import RecordFile
from paraedge_measure.device import write_device
from paraedge_measure.planning import Plan, write_plan
from paraedge_runtime import Bundle, InputError, ParaEdgeError
from paraedge_runtime.update import apply_update, write_update

OLD, NEW = [{"add": 1.0}, {"add": 2.0}], [{"add": 1.0}, {"add": 2.0}, {"add": 3.0, "pad": "x" * 20_000}]
PLAN = Plan(
    device="pi", bundle_name="fake", bundle_sha256="0" * 64, branches=(0, 1), engine="litert", target="raspberry-pi",
    recipe="fp32", threads=2, p50_ms=1.0, p95_ms=1.5, accuracy=0.9, size_bytes=1000, memory_bytes=2000, valid=True,
)  # fmt: skip


class Made:
    """What the operations work with, on a disk that has room."""

    def __init__(self, folder):
        self.old = fake_bundle(folder / "old.paraedge", OLD)
        self.new = fake_bundle(folder / "new.paraedge", NEW)
        self.update = folder / "u.zip"
        write_update(self.old, self.new, self.update)
        self.for_web = fake_bundle(folder / "web.paraedge", NEW, engine="litert", name="mine")
        self.key = private_key(folder / "keys", "release")
        self.model = tiny_checkpoint(folder / "model")
        self.checkpoint = load_checkpoint(self.model)


def _cache(made, out):
    """A cache that cannot be written is no error: the export goes on, and says so."""
    cache = PartCache(out.parent)
    cache.put("x", CachedPart(b"program" * 5000, {}, 1))
    if cache.problem:
        raise ParaEdgeError(cache.problem)


def _resume(made, out):
    """What 'paraedge train' saves after an epoch."""
    model = made.checkpoint.model
    step = SimpleNamespace(model=model, optimizer=torch.optim.SGD(model.parameters()), average=None)
    ResumeFile(out, [1]).save(step, RunState(1, 1.0, 1.0))


def _old_bundle(made, out):
    shutil.copytree(made.old.path, out)


def _old_text(made, out):
    out.write_text("{}")


# Operation -> what stands there before, what it does; both with what was made and where it goes.
OPERATIONS = {
    "subset": (_old_bundle, lambda made, out: made.new.subset(3, out)),
    "subset, nothing there": (None, lambda made, out: made.new.subset(3, out)),
    "apply": (_old_bundle, lambda made, out: apply_update(Bundle.open(out), made.update, out)),
    "pack": (lambda made, out: made.old.pack(out), lambda made, out: made.new.pack(out)),
    "update": (
        lambda made, out: write_update(made.new, made.old, out),
        lambda made, out: write_update(made.old, made.new, out),
    ),
    "sign a folder": (_old_bundle, lambda made, out: sign_bundle(out, [made.key])),
    "sign a zip": (lambda made, out: made.old.pack(out), lambda made, out: sign_bundle(out, [made.key])),
    "keygen": (None, lambda made, out: make_keys(out, None)),
    "checkpoint": (
        lambda made, out: shutil.copytree(made.model, out),
        lambda made, out: save_checkpoint(made.checkpoint, out, dtype=torch.float32),
    ),
    "resume": (_old_text, _resume),
    "device.json": (_old_text, lambda made, out: write_device(DEVICE, out)),
    "plan.json": (_old_text, lambda made, out: write_plan(PLAN, out)),
    "web": (None, lambda made, out: web.make_site(out, [made.for_web.path])),
    "cache": (lambda made, out: (out.parent / "parts").mkdir(), _cache),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Made(tmp_path_factory.mktemp("made"))


@pytest.fixture(autouse=True)
def no_engine_for_the_web(monkeypatch):
    monkeypatch.setattr(web, "_copy_engine", lambda package, engine, folder, on_progress: folder.mkdir(parents=True))


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs", str(folder)]
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a tmpfs, and not everywhere")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def _stand(made, disk, before):
    for entry in disk.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    if before is not None:
        before(made, disk / "x")
    return tree(disk)


def _free_bytes(disk):
    status = os.statvfs(disk)
    return status.f_bavail * status.f_frsize


@contextlib.contextmanager
def _only(disk, free_bytes):
    """All but so much of the disk is taken."""
    filler = disk / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    try:
        if _free_bytes(disk) > free_bytes:
            os.posix_fallocate(descriptor, 0, _free_bytes(disk) - free_bytes)
        yield
    finally:
        os.close(descriptor)
        filler.unlink()


@contextlib.contextmanager
def _files_up_to(size_bytes):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _fails(made, disk, operation, problem):
    before = tree(disk)
    with pytest.raises(ParaEdgeError) as caught:
        operation(made, disk / "x")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert tree(disk) == before


@pytest.mark.parametrize(("before", "operation"), OPERATIONS.values(), ids=OPERATIONS)
def test_a_full_disk(made, small_disk, before, operation):
    _stand(made, small_disk, before)
    operation(made, small_disk / "x")
    wanted = tree(small_disk)
    needed = sum(len(data) for data in wanted.values() if isinstance(data, bytes))  # at least, beside what is there
    for share in (0.0, 0.3, 0.6, 0.9):
        _stand(made, small_disk, before)
        with _only(small_disk, int(share * needed)):
            _fails(made, small_disk, operation, "No space left on device")
    operation(made, small_disk / "x")
    assert set(tree(small_disk)) == set(wanted)


@pytest.mark.parametrize(("before", "operation"), OPERATIONS.values(), ids=OPERATIONS)
def test_a_file_that_may_grow_no_further(made, tmp_path, before, operation):
    _stand(made, tmp_path, before)
    operation(made, tmp_path / "x")
    wanted = tree(tmp_path)
    largest = max(len(data) for data in wanted.values() if isinstance(data, bytes))
    for size_bytes in (0, largest // 3, largest - 1):
        _stand(made, tmp_path, before)
        with _files_up_to(size_bytes):
            _fails(made, tmp_path, operation, "File too large")
    operation(made, tmp_path / "x")
    assert set(tree(tmp_path)) == set(wanted)


def test_records_before_a_full_disk_stay(tmp_path):
    path = tmp_path / "bench.jsonl"
    RecordFile(path, HEADER).append([record()])
    whole = path.read_bytes()
    opened = RecordFile(path, HEADER)
    with (
        _files_up_to(len(whole) + 100),
        pytest.raises(InputError, match="cannot be written: File too large"),
    ):
        opened.append([record("static-1")])
    again = RecordFile(path, HEADER)
    assert [found.policy for found in again.records] == ["all"]
    assert path.read_bytes() == whole

"""A disk that fills up under everything that writes: one clear line, what stood there stays, nothing is left over.

On a tmpfs of a few MB where root may mount one. Everywhere, and without root, the system's limit on the size of a file
stands in for it: it stops a file at any byte, but not the making of files and folders, and its message is another.
"""

import contextlib
import os
import resource
import shutil
import subprocess
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fuzz.seeds import CORPUS, HEADER, record, tiny_checkpoint
from msgspec import structs
from support.bundles import fake_bundle, tree
from support.conv_branches import ConvBranches
from support.devices import DEVICE
from support.keys import private_key

from paraedge import web
from paraedge.model import load_checkpoint, save_checkpoint
from paraedge.signing import make_keys, sign_bundle
from paraedge.training.resume import ResumeFile, RunState
from paraedge_converters.cache import CachedPart, PartCache
from paraedge_converters.description import ModelDescription
from paraedge_converters.pipeline import convert
from paraedge_demo.records import Recorder, read_recording
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
        self.cache = PartCache(folder / "cache")
        self.export(folder / "exported.paraedge")  # its parts are in the cache

    def export(self, out, engine="onnxruntime", quantize="fp32"):
        """A small model of three branches."""
        numbers = np.random.default_rng(0)
        description = ModelDescription(
            name="mine",
            description="three branches",
            license="MIT",
            labels=tuple("abcdefghij"),
            samples=numbers.integers(0, 256, (48, 28, 28, 1), dtype=np.uint8),
            sample_labels=numbers.integers(0, 10, 48),
        )
        convert(ConvBranches(), description, out, target="linux", engine=engine, quantize=quantize, cache=self.cache)


def _cache(made, out):
    """A cache that cannot be written is no error: the export goes on, and says so."""
    cache = PartCache(out.parent)
    cache.put("x", CachedPart(b"program" * 5000, {}, macs=1))
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


def _old_plan(made, out):
    out.write_text('{"format": "paraedge-plan/1"}')


# Operation -> what stands there before, what it does; both with what was made and where it goes.
OPERATIONS = {
    "subset": (_old_bundle, lambda made, out: made.new.subset(3, out)),
    "subset, nothing there": (None, lambda made, out: made.new.subset(3, out)),
    "export": (_old_bundle, lambda made, out: made.export(out)),
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
    "plan.json": (_old_plan, lambda made, out: write_plan(PLAN, out)),
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


@pytest.mark.parametrize("engine", ["litert", "onnxruntime"])  # ExecuTorch's parts are made in memory
def test_an_export_whose_temporary_files_find_no_room(made, small_disk, tmp_path, monkeypatch, engine):
    _stand(made, small_disk, None)
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with (
        _only(small_disk, 0),
        pytest.raises(InputError, match=r"a temporary file cannot be written in .*; free some of it, or set TMPDIR"),
    ):
        made.export(tmp_path / "x.paraedge", engine, "int8-dynamic")
    assert tree(small_disk) == tree(tmp_path) == {}


@pytest.mark.parametrize("room", [0, 700, 5000])
def test_a_recording_that_finds_no_room_says_so_once_and_keeps_whole_lines(tmp_path, room):
    seed = tmp_path / "seed.jsonl"
    seed.write_bytes((CORPUS / "recording" / "seed-demo").read_bytes()[1:])
    header, frame = read_recording(seed)
    said = []
    board = SimpleNamespace(header=header, last=None, listen=lambda note: None, say=said.append)
    with _files_up_to(room):
        recorder = Recorder(tmp_path / "out.jsonl", board)
        for number in range(1, 1001):  # more than wait in the queue
            board.last = structs.replace(frame, number=number)
            recorder._note()
        recorder.close()
    assert said == [f"{tmp_path / 'out.jsonl'} is not written any further: File too large"]
    assert (tmp_path / "out.jsonl").stat().st_size == room
    if room:
        assert [one.number for one in list(read_recording(tmp_path / "out.jsonl"))[1:]] == list(
            range(1, (tmp_path / "out.jsonl").read_bytes().count(b"\n"))
        )

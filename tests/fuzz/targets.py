"""What is fuzzed in Python: for every reader of files from outside, a function that reads any bytes.

An error of paraedge's tree is fine, and both readers of bundles must agree. Anything else is a finding. ``run.py`` lets
atheris choose the bytes; ``test_corpus.py`` takes those of ``corpus/``. Where a reader takes several files, the first
byte says which of them the others are: the seeds (``seeds.py``) show how.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from support.bundles import MOTION, fake_bundle, hash_line, replace_file, tree, write_manifest

from paraedge_runtime import Bundle, BundleError, InputError, IntegrityError, ManifestError, ParaEdgeError
from paraedge_runtime.archive import write_zip
from paraedge_runtime.core import load_core
from paraedge_runtime.signature import check_signature, read_trusted_keys
from paraedge_runtime.update import apply_update, write_update

Target = Callable[[bytes], None]

OLD = [{"add": 1.0}, {"add": 2.0}]
NEW = [*OLD, {"add": 3.0}]
BUNDLE_FILES = (
    "manifest.json",
    "card.json",
    "golden/inputs.npy",
    "golden/branch_outputs.npy",
    "stem.fake",
    "manifest.sha256",
)
UPDATE_FILES = ("update.json", "manifest.json", "card.json", "branch_02.fake", "manifest.sha256")
PROGRAM_ENGINES = ("executorch", "litert", "onnxruntime")  # as in native/fuzz/program.cpp
CHECKPOINT_FILES = ("config.json", "training.json", "model.safetensors", "samples.npz", "evaluation.npz")
RELEASE_KEY = "RWSqmeO2r707AZ1Y/Pv55/qY1fy2o9q6RwrOe5eofa6TOVId14k2nExb"  # of support.keys


def _both_readers(path: Path) -> None:
    """Open a bundle in Python and in C, whose verdicts must be one."""
    try:
        bundle = Bundle.open(path)
    except BundleError as refused:
        try:
            load_core().check_bundle(str(path))
        except BundleError:
            return
        raise AssertionError("C takes what Python refuses") from refused
    load_core().check_bundle(str(path))
    for look in (lambda: bundle.card, bundle.golden):
        with contextlib.suppress(BundleError):
            look()


def bundle(folder: Path) -> Target:
    """A file of a bundle folder; the manifest agrees with the others."""
    path = fake_bundle(folder / "b.paraedge", NEW).path
    good = tree(path)

    def read(data: bytes) -> None:
        name = BUNDLE_FILES[data[0] % len(BUNDLE_FILES)]
        if name == "manifest.json":
            write_manifest(path, data[1:])
        elif name == "manifest.sha256":
            (path / name).write_bytes(data[1:])
        else:
            replace_file(path, name, data[1:])
        _both_readers(path)
        for changed in {name, "manifest.json", "manifest.sha256"}:
            (path / changed).write_bytes(good[changed])

    return read


def archive(folder: Path) -> Target:
    """A packed bundle."""
    path = folder / "b.zip"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        _both_readers(path)

    return read


def signature(folder: Path) -> Target:
    """The signature of a manifest ``{}``, a key, or a key's file: Python and C take the same."""
    path, key_file = folder / "b.paraedge", folder / "release.pub"
    path.mkdir()
    write_manifest(path, b"{}")

    def verdict(keys: str, data: bytes) -> str:
        try:
            check_signature(path, b"{}", data, read_trusted_keys(keys))
        except (InputError, IntegrityError) as error:
            return type(error).__name__
        return "ManifestError"  # what comes next

    def verdict_of_core(keys: str, data: bytes) -> str:
        (path / "manifest.json.minisig").write_bytes(data)
        os.environ["PARAEDGE_TRUSTED_KEYS"] = keys
        try:
            load_core().check_bundle(str(path))
        except (InputError, IntegrityError, ManifestError) as error:
            return type(error).__name__
        finally:
            del os.environ["PARAEDGE_TRUSTED_KEYS"]
        return "accepted"

    def read(data: bytes) -> None:
        kind, rest = data[0] % 3, data[1:]
        keys = RELEASE_KEY
        if kind == 1:
            keys = os.fsdecode(rest.replace(b"\0", b""))
        elif kind == 2:
            key_file.write_bytes(rest)
            keys = str(key_file)
        signed = rest if kind == 0 else b""
        if len(signed) <= 4096:
            found, of_core = verdict(keys, signed), verdict_of_core(keys, signed)
            assert found == of_core, f"Python: {found}, C: {of_core}"

    return read


def update(folder: Path) -> Target:
    """An update, or a file of one, that is applied."""
    old = fake_bundle(folder / "old.paraedge", OLD)
    path = folder / "u.zip"
    write_update(old, fake_bundle(folder / "new.paraedge", NEW), path)
    good = files_of_zip(path)

    def read(data: bytes) -> None:
        kind = data[0] % (len(UPDATE_FILES) + 1)
        if kind == len(UPDATE_FILES):
            path.write_bytes(data[1:])
        else:
            path.unlink(missing_ok=True)
            files = {**good, UPDATE_FILES[kind]: data[1:]}
            if UPDATE_FILES[kind] == "manifest.json":
                files["manifest.sha256"] = hash_line(data[1:])
            write_zip(files, path)
        with contextlib.suppress(ParaEdgeError):
            apply_update(old, path, folder / "out.paraedge")

    return read


def device(folder: Path) -> Target:
    """``device.json``."""
    from paraedge_measure.device import read_device

    return _file(folder / "device.json", read_device)


def plan(folder: Path) -> Target:
    """``plan.json``."""
    from paraedge_measure.planning import read_plan

    return _file(folder / "plan.json", read_plan)


def recording(folder: Path) -> Target:
    """Lines that ``paraedge bench`` goes on with, or a recording of the demo."""
    from fuzz.seeds import HEADER

    from paraedge_demo.records import read_recording
    from paraedge_measure.deadlines.records import RecordFile

    def bench(path: Path) -> None:
        for record in RecordFile(path, HEADER).records:
            assert len(record.missed) == len(record.right) == record.requests

    return _files(folder, bench, lambda path: list(read_recording(path)))


def checkpoint(folder: Path) -> Target:
    """A file of a checkpoint folder."""
    from fuzz.seeds import tiny_checkpoint

    from paraedge.model import load_checkpoint

    path = tiny_checkpoint(folder / "model")
    good = tree(path)

    def read(data: bytes) -> None:
        name = CHECKPOINT_FILES[data[0] % len(CHECKPOINT_FILES)]
        (path / name).write_bytes(data[1:])
        with contextlib.suppress(ParaEdgeError):
            load_checkpoint(path)
        (path / name).write_bytes(good[name])

    return read


def data(folder: Path) -> Target:
    """The data sets' files: npz, idx, idx with gzip, a batch of CIFAR; a tensor for a bundle; windows of sensors."""
    from paraedge.data.readers import read_cifar_batch, read_class_names, read_idx, read_npz
    from paraedge_runtime.inputs import read_tensor
    from paraedge_runtime.sensor_windows import read_window

    def csv(path: Path) -> None:
        read_window(path.replace(path.with_suffix(".csv")))

    def window(path: Path) -> None:
        read_window(path.replace(path.with_suffix(".npz")))

    def npz(path: Path) -> None:
        read_class_names(path)
        read_npz(path)

    def gzipped(path: Path) -> None:
        read_idx(path.replace(path.with_suffix(".gz")))

    tensor = partial(read_tensor, spec=MOTION)
    return _files(folder, npz, read_idx, gzipped, read_cifar_batch, tensor, csv, window)


def image(folder: Path) -> Target:
    """An image, as a session and as a data set read it."""
    from paraedge_runtime.inputs import image_array, read_image
    from paraedge_runtime.manifest import ImageInput

    spec = ImageInput(name="image", shape=(1, 3, 6, 8), mean=(0.5,) * 3, std=(0.25,) * 3)

    def both(path: Path) -> None:
        read_image(path, spec)
        image_array(path, 8, 8, 1, "crop")

    return _file(folder / "image", both)


def _file(path: Path, look: Callable[[Path], object]) -> Target:
    """One file, one reader."""

    def read(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(ParaEdgeError):
            look(path)

    return read


def _files(folder: Path, *looks: Callable[[Path], object]) -> Target:
    """One file, and the reader that its first byte says."""
    path = folder / "file"

    def read(data: bytes) -> None:
        path.write_bytes(data[1:])
        with contextlib.suppress(ParaEdgeError):
            looks[data[0] % len(looks)](path)

    return read


def files_of_zip(path: Path) -> dict[str, bytes]:
    """Everything in a zip, by name."""
    with zipfile.ZipFile(path) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def program(_folder: Path) -> Target:
    """A program, after a byte that says whose: passed, or refused by name."""

    def read(data: bytes) -> None:
        with contextlib.suppress(IntegrityError):
            load_core().check_program(PROGRAM_ENGINES[data[0] % len(PROGRAM_ENGINES)], "x", data[1:])

    return read


TARGETS: dict[str, Callable[[Path], Target]] = {
    target.__name__: target
    for target in (bundle, archive, signature, program, update, device, plan, recording, checkpoint, data, image)
}

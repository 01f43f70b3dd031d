"""The bundle: what travels to the device. A strict reader and an atomic writer.

The format is specified in ``docs/bundle-format.md``. Nothing of a bundle is used before all of it
has been checked: the manifest against itself, then every file's presence, size and hash.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from paraedge_runtime.atomic import new_folder
from paraedge_runtime.errors import BundleError, InputError, IntegrityError
from paraedge_runtime.manifest import (
    MANIFEST_NAME,
    FileEntry,
    Golden,
    Manifest,
    decode_manifest,
    encode_manifest,
    is_manifest,
)
from paraedge_runtime.storage import Storage, open_storage, write_zip

__all__ = ["Bundle", "GoldenData", "check_place", "file_entry", "golden_entry", "write_bundle"]

_IMAGES, _OUTPUTS = "golden/images.npy", "golden/branch_outputs.npy"


class GoldenData:
    """Real images with the answers expected of every branch.

    Attributes:
        images: (n, H, W, C) uint8.
        branch_outputs: (n, k, C) float32, branches in the manifest's order.
        labels: (n,) class indexes.
    """

    def __init__(
        self, images: NDArray[np.uint8], branch_outputs: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> None:
        self.images = images
        self.branch_outputs = branch_outputs
        self.labels = labels

    def files(self) -> dict[str, bytes]:
        """The two files under ``golden/``."""
        return {
            _IMAGES: _npy_bytes(self.images),
            _OUTPUTS: _npy_bytes(self.branch_outputs),
        }


class Bundle:
    """A verified bundle: immutable, cheap to keep, free to share between sessions and threads.

    Attributes:
        path: folder or zip it was opened from.
        manifest: everything it says about itself.
        manifest_bytes: ``manifest.json`` as it stands in the bundle.
    """

    def __init__(self, storage: Storage, manifest_bytes: bytes) -> None:
        self._storage = storage
        self.path = storage.path
        self.manifest = decode_manifest(manifest_bytes)
        self.manifest_bytes = manifest_bytes

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open a bundle folder, or the zip that ``paraedge pack`` makes, and check all of it.

        Raises:
            ManifestError: ``manifest.json`` is malformed or contradicts itself.
            IntegrityError: a file is missing, unlisted, a link, or has the wrong size or hash.
        """
        storage = open_storage(Path(path))
        names = storage.names()
        if MANIFEST_NAME not in names:
            raise IntegrityError(f"{path} has no {MANIFEST_NAME}; it is not a bundle, or was copied in part")
        bundle = cls(storage, storage.read(MANIFEST_NAME, None))
        entries = bundle.manifest.files()
        unlisted = names - {entry.file for entry in entries.values()} - {MANIFEST_NAME}
        if unlisted:
            raise IntegrityError(f"{path}: {sorted(unlisted)[0]} is not listed in {MANIFEST_NAME}; remove it")
        for entry in entries.values():
            bundle.read(entry)
        return bundle

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}, branches={list(self.manifest.branch_indexes)})"

    @property
    def sha256(self) -> str:
        """Names the whole content: the hash of ``manifest.json``, which holds the hash of every other file."""
        return hashlib.sha256(self.manifest_bytes).hexdigest()

    @property
    def size_bytes(self) -> int:
        """Size of all files of the bundle, the manifest included."""
        listed = sum(entry.size_bytes for entry in self.manifest.files().values())
        return listed + len(self.manifest_bytes)

    def read(self, entry: FileEntry) -> bytes:
        """The bytes of one file, checked against its size and hash every time.

        An engine is given these bytes, never the path: what was checked is what runs.
        """
        data = self._storage.read(entry.file, entry.size_bytes)
        digest = hashlib.sha256(data).hexdigest()
        if digest != entry.sha256:
            raise IntegrityError(
                f"{self.path}: {entry.file} has SHA-256 {digest[:12]}…, {MANIFEST_NAME} says "
                f"{entry.sha256[:12]}…; it was damaged or changed, copy it again"
            )
        return data

    def golden(self) -> GoldenData:
        """The golden images and answers.

        Raises:
            IntegrityError: the arrays do not have the shapes that the manifest implies.
        """
        manifest = self.manifest
        _, channels, height, width = manifest.input.shape
        count = len(manifest.golden.labels)
        images = self._read_npy(manifest.golden.images, np.dtype(np.uint8), (count, height, width, channels))
        outputs = self._read_npy(
            manifest.golden.branch_outputs,
            np.dtype(np.float32),
            (count, len(manifest.branches), manifest.num_outputs),
        )
        return GoldenData(images, outputs, np.asarray(manifest.golden.labels, dtype=np.int64))

    def _read_npy(self, entry: FileEntry, dtype: np.dtype, shape: tuple[int, ...]) -> NDArray:  # type: ignore[type-arg]
        stream = io.BytesIO(self.read(entry))
        try:
            version = np.lib.format.read_magic(stream)
            if version != (1, 0):
                raise ValueError(f"version {version} of the format")
            # The header first: reading the array at once would allocate whatever it claims.
            found_shape, fortran_order, found_dtype = np.lib.format.read_array_header_1_0(stream)
        except Exception as error:  # numpy parses the header as Python: tokenizer, recursion, index errors too
            raise IntegrityError(f"{self.path}: {entry.file} is not an array: {error}") from error
        data = stream.read()
        expected_bytes = math.prod(shape) * dtype.itemsize
        if found_shape != shape or found_dtype != dtype or fortran_order or len(data) != expected_bytes:
            raise IntegrityError(
                f"{self.path}: {entry.file} holds {found_shape} {found_dtype} in {len(data)} bytes, "
                f"the manifest needs {shape} {dtype}"
            )
        return np.frombuffer(data, dtype=dtype).reshape(shape)

    def subset(self, branches: Iterable[int], target: str | os.PathLike[str]) -> Bundle:
        """Write a smaller bundle with some of this one's branches; no engine and no torch needed.

        The parts are the same bytes. Accuracy is carried over where it is known: for the first
        branches of this bundle, in order; for another choice it is ``null``. ``early_stop`` is kept
        with all branches only: its promise is against all of them. A fused model is left out, since
        it holds other branches.

        Args:
            branches: indexes as in ``manifest.branch_indexes``.
            target: folder to write; see :func:`write_bundle`.
        """
        manifest = self.manifest
        chosen = tuple(branches)
        unknown = [index for index in chosen if index not in manifest.branch_indexes]
        if unknown or not chosen or list(chosen) != sorted(set(chosen)):
            raise InputError(
                f"branches {list(chosen)} cannot be taken from {self.path}, which has "
                f"{list(manifest.branch_indexes)}; name some of these, each once, in order"
            )
        if self.path.resolve() in (Path(target).resolve(), *Path(target).resolve().parents):
            raise InputError(f"{target} is the bundle itself, or inside it; choose another name with --out")
        places = [manifest.branch_indexes.index(index) for index in chosen]
        is_prefix = places == list(range(len(places)))
        count = len(places)
        accuracy = None
        if is_prefix and manifest.accuracy is not None:
            accuracy = replace(manifest.accuracy, prefix_accuracy=manifest.accuracy.prefix_accuracy[:count])
        golden = self.golden()
        golden_files = GoldenData(
            golden.images, np.ascontiguousarray(golden.branch_outputs[:, places]), golden.labels
        ).files()
        smaller = replace(
            manifest,
            branches=tuple(manifest.branches[place] for place in places),
            fused=None,
            accuracy=accuracy,
            early_stop=manifest.early_stop if count == len(manifest.branches) else None,
            golden=golden_entry(golden_files, manifest.golden.labels),
        )
        parity = replace(
            manifest.parity,
            parts={name: manifest.parity.parts[name] for name in smaller.parts()},
            prefixes=manifest.parity.prefixes[:count] if is_prefix else (),
        )
        parts = {entry.file: self.read(entry) for entry in smaller.parts().values()}
        return write_bundle(replace(smaller, parity=parity), {**parts, **golden_files}, target)

    def pack(self, target: str | os.PathLike[str]) -> Path:
        """Write this bundle as one uncompressed zip, which every reader takes as it takes the folder."""
        path = Path(target)
        if path.is_dir():
            raise BundleError(f"{path} is a folder; name the file to write with --out")
        if path.exists() and not zipfile.is_zipfile(path):
            raise BundleError(f"{path} exists and is no zip; choose another name with --out")
        files = {entry.file: self.read(entry) for entry in self.manifest.files().values()}
        write_zip({MANIFEST_NAME: self.manifest_bytes, **files}, path)
        return path


def file_entry(name: str, data: bytes) -> FileEntry:
    """The entry that describes ``data`` stored as ``name``."""
    return FileEntry(file=name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def golden_entry(files: Mapping[str, bytes], labels: tuple[int, ...]) -> Golden:
    """The manifest's ``golden`` block for :meth:`GoldenData.files`."""
    images, outputs = (file_entry(name, files[name]) for name in (_IMAGES, _OUTPUTS))
    return Golden(images=images, branch_outputs=outputs, labels=labels)


def check_place(target: str | os.PathLike[str]) -> None:
    """Ask before the long work that makes a bundle whether it may stand there.

    Raises:
        BundleError: something stands there that is no bundle folder.
    """
    path = Path(target)
    if path.is_symlink() or (path.exists() and not _is_bundle_folder(path)):
        raise BundleError(f"{path} exists and is not a bundle folder; choose another name with --out")


def write_bundle(manifest: Manifest, files: Mapping[str, bytes], target: str | os.PathLike[str]) -> Bundle:
    """Write a bundle folder, whole or not at all, and open it with the strict reader.

    A bundle that stands at ``target`` is replaced; anything else there is left alone.

    Args:
        manifest: what it says about itself.
        files: path inside the bundle -> bytes, for every file that the manifest lists.
        target: folder to write.

    Raises:
        BundleError: ``target`` exists and is no bundle folder, or the reader refuses the result.
        InputError: it cannot be written there; what stood there stays.
    """
    path = Path(target)
    check_place(path)
    listed = {entry.file for entry in manifest.files().values()}
    if set(files) != listed:
        raise BundleError(f"the manifest lists {sorted(listed)}, the files given are {sorted(files)}")
    decode_manifest(encode_manifest(manifest))  # no path in it leaves the folder
    try:
        with new_folder(path) as building:
            for name, data in files.items():
                file = building / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
            (building / MANIFEST_NAME).write_bytes(encode_manifest(manifest))
            Bundle.open(building)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another place") from error
    return Bundle.open(path)


def _is_bundle_folder(path: Path) -> bool:
    """Whether a folder may be replaced: its manifest says that it is a bundle, of whatever version."""
    try:
        return (path / MANIFEST_NAME).is_file() and is_manifest((path / MANIFEST_NAME).read_bytes())
    except OSError:
        return False


def _npy_bytes(array: NDArray) -> bytes:  # type: ignore[type-arg]
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()

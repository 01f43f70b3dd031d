"""Readers of the standard public files: ``.npz``, MNIST's idx, CIFAR's pickles, folders of pictures.

None of them executes what it reads: ``.npz`` without pickles, and CIFAR's pickles through an
unpickler that can build arrays and nothing else.
"""

from __future__ import annotations

import gzip
import io
import math
import pickle
import struct
import unicodedata
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paraedge.data.images import LabelledImages
from paraedge_runtime.errors import InputError
from paraedge_runtime.inputs import PICTURE_SUFFIXES, Resize, display_name, is_hidden, picture_array, visible_files

__all__ = ["class_folders", "read_cifar_batch", "read_class_folder", "read_class_names", "read_idx", "read_npz"]

# RuntimeError: a zip method that python has not; TypeError: a lone .npy under this name.
_NPZ_ERRORS = (ValueError, TypeError, OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile)


def read_npz(path: Path) -> tuple[LabelledImages, LabelledImages]:
    """Train and test split of an ``.npz`` with ``x_train``, ``y_train``, ``x_test``, ``y_test``.

    Images may be (N, H, W) or (N, H, W, C), uint8.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            missing = [name for name in ("x_train", "y_train", "x_test", "y_test") if name not in archive]
            if missing:
                raise InputError(f"{path} has no array {', '.join(missing)}; it holds {', '.join(archive)}")
            train = _labelled(archive["x_train"], archive["y_train"], path)
            test = _labelled(archive["x_test"], archive["y_test"], path)
    except _NPZ_ERRORS as error:
        raise InputError(f"{path} cannot be read: {error}; copy or download it again") from error
    return train, test


def read_class_names(path: Path) -> tuple[str, ...] | None:
    """The array ``class_names`` of an ``.npz``, one text per class index; ``None`` where there is none.

    Raises:
        InputError: it is no list of different texts, or the file cannot be read.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if "class_names" not in archive:
                return None
            names = archive["class_names"]
    except _NPZ_ERRORS as error:
        raise InputError(
            f"{path} cannot be read: {error}; save class_names as numpy.array([...], dtype=str)"
        ) from error
    texts = tuple(str(name) for name in names.ravel())
    if names.dtype.kind != "U" or names.ndim != 1 or not all(texts) or len(set(texts)) != len(texts):
        raise InputError(
            f"{path}: class_names is {names.dtype} of shape {names.shape}; a list of different texts is needed, "
            "saved as numpy.array([...], dtype=str)"
        )
    return texts


def _labelled(images: NDArray[Any], labels: NDArray[Any], path: Path) -> LabelledImages:
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or labels.dtype.kind not in "iu":
        raise InputError(
            f"{path}: images are {images.dtype} and labels {labels.dtype}; uint8 images and integer labels are needed"
        )
    return LabelledImages(np.ascontiguousarray(images), labels.ravel().astype(np.int64))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An idx file of unsigned bytes, gzipped or not (the format of MNIST and Fashion-MNIST)."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zero, kind, rank = struct.unpack_from(">HBB", raw)
        shape = struct.unpack_from(f">{rank}I", raw, 4)
        if zero != 0 or kind != 0x08 or len(raw) != 4 + 4 * rank + math.prod(shape):
            raise ValueError(f"header says type {kind:#x} and shape {shape}, the file has {len(raw)} bytes")
        return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * rank).reshape(shape).copy()  # torch wants it writable
    except (OSError, EOFError, struct.error, zlib.error, ValueError) as error:
        raise InputError(f"{path} is not an idx file of bytes: {error}; download it again") from error


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays of bytes. Any other name in the pickle is refused, not looked up."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _reconstruct_array
        if module == "numpy" and name == "ndarray":
            return np.ndarray
        if module == "numpy" and name == "dtype":
            return _byte_dtype
        if module == "_codecs" and name == "encode":
            return _latin1_encode
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")


def _reconstruct_array(kind: type, shape: tuple[int, ...], code: bytes) -> NDArray[Any]:
    if kind is not np.ndarray:
        raise pickle.UnpicklingError(f"it builds a {kind}")
    return np.ndarray.__new__(np.ndarray, shape, dtype=code.decode() if isinstance(code, bytes) else code)


def _byte_dtype(code: str | bytes, *flags: object) -> np.dtype[np.uint8]:
    # The one shared object, which ignores the state a pickle gives it: a copy would take any
    # fields, object pointers made of the file's bytes included.
    if code not in ("u1", b"u1"):
        raise pickle.UnpicklingError(f"it builds an array of {code!r}")
    return np.dtype(np.uint8)


def _latin1_encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {encoding}")
    return text.encode("latin1")


def read_cifar_batch(path: Path) -> LabelledImages:
    """One of CIFAR-10's python batches: ``data`` (N, 3072) uint8 planes and ``labels``."""
    try:
        batch = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        planes, labels = batch[b"data"], batch[b"labels"]
        images = np.asarray(planes, dtype=np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return LabelledImages(np.ascontiguousarray(images), np.asarray(labels, dtype=np.int64))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; unpack the archive again") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise InputError(f"{path} is not a CIFAR-10 batch: {error}; download it again") from error


def class_folders(root: Path) -> dict[str, list[Path]]:
    """The sub-folders of pictures, by the name of their class, sorted; what is hidden is no class.

    The name is in Unicode's composed form (NFC): a folder typed on a Mac names the same class as one typed
    elsewhere, and two that differ in nothing else are one class.

    Raises:
        InputError: a name is not UTF-8.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(root.iterdir()):
        if is_hidden(path.name) or not path.is_dir():
            continue
        if display_name(path.name) != path.name:
            raise InputError(f"the class folder {display_name(path)} has a name that is not UTF-8; rename it")
        found.setdefault(unicodedata.normalize("NFC", path.name), []).append(path)
    return dict(sorted(found.items()))


def read_class_folder(
    root: Path, class_names: tuple[str, ...], image_size: int, channels: int, resize: Resize = "crop"
) -> LabelledImages:
    """Pictures in sub-folders that are named after their classes, as ``image_size`` squares."""
    folders = class_folders(root)
    images, labels = [], []
    for label, name in enumerate(class_names):
        for folder in folders.get(name, []):
            for path in visible_files(folder, PICTURE_SUFFIXES):
                images.append(picture_array(path, image_size, image_size, channels, resize))
                labels.append(label)
    if not images:
        raise InputError(f"{root} has no pictures in its class folders ({', '.join(class_names)})")
    return LabelledImages(np.stack(images), np.asarray(labels, dtype=np.int64))

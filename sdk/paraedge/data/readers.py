"""Readers of the standard public files: ``.npz``, MNIST's idx, CIFAR's pickles, folders of images.

None of them executes what it reads: ``.npz`` without pickles, and CIFAR's pickles through an
unpickler that can build arrays of bytes and nothing else.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import pickle
import pickletools
import struct
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paraedge.data.images import LabelledImages
from paraedge_runtime._npz import missing_arrays, read_arrays
from paraedge_runtime._reading import read_bounded
from paraedge_runtime.errors import InputError
from paraedge_runtime.inputs import IMAGE_SUFFIXES, Resize, display_name, image_array, is_hidden, visible_files

__all__ = [
    "class_files",
    "class_folders",
    "counted",
    "left_out",
    "read_cifar_batch",
    "read_class_folder",
    "read_class_names",
    "read_idx",
    "read_npz",
]

# A batch of CIFAR-10 has 31 MB.
_MAX_BATCH_BYTES = 256 << 20
_MAX_ARRAY_BYTES = 8 << 30  # of a data set, in memory
_MOST_NAMED = 5  # suffixes of files that are left out
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def read_npz(path: Path) -> tuple[LabelledImages, LabelledImages]:
    """Train and test split of an ``.npz`` with ``x_train``, ``y_train``, ``x_test``, ``y_test``.

    Images may be (N, H, W) or (N, H, W, C), uint8.
    """
    arrays, there = _read_npz(path, _ARRAYS)
    if problem := missing_arrays(_ARRAYS, arrays, there):
        raise InputError(f"{path} {problem}")
    return (
        _labelled(arrays["x_train"], arrays["y_train"], path),
        _labelled(arrays["x_test"], arrays["y_test"], path),
    )


def _read_npz(path: Path, names: tuple[str, ...]) -> tuple[dict[str, NDArray[Any]], list[str]]:
    try:
        return read_arrays(path, names, _MAX_ARRAY_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; copy or download it again") from error


def read_class_names(path: Path) -> tuple[str, ...] | None:
    """The array ``class_names`` of an ``.npz``, one text per class index; ``None`` where there is none.

    Names are in Unicode's composed form (NFC), as those of class folders are.

    Raises:
        InputError: it is no list of different texts, or the file cannot be read.
    """
    try:
        names = _read_npz(path, ("class_names",))[0].get("class_names")
    except InputError as error:
        if "Python objects" not in str(error):
            raise
        raise InputError(
            f"{path} cannot be read: class_names are Python objects; save them as numpy.array([...], dtype=str)"
        ) from error
    if names is None:
        return None
    texts = tuple(unicodedata.normalize("NFC", str(name)) for name in names.ravel())
    if names.dtype.kind != "U" or names.ndim != 1 or not all(texts) or len(set(texts)) != len(texts):
        raise InputError(
            f"{path}: class_names must be different strings, saved as numpy.array([...], dtype=str), "
            f"got {names.dtype} of shape {names.shape}"
        )
    return texts


def _labelled(images: NDArray[Any], labels: NDArray[Any], path: Path) -> LabelledImages:
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or labels.dtype.kind not in "iu":
        raise InputError(f"{path}: images must be uint8 and labels integers, got {images.dtype} and {labels.dtype}")
    return LabelledImages(np.ascontiguousarray(images), labels.ravel().astype(np.int64))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An idx file of unsigned bytes, gzipped or not (the format of MNIST and Fashion-MNIST)."""
    try:
        if not path.is_file() and path.exists():
            raise ValueError("it is not a plain file")
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            zero, kind, rank = struct.unpack(">HBB", file.read(4))
            shape = struct.unpack(f">{rank}I", file.read(4 * rank))
            size_bytes = math.prod(shape)
            if size_bytes > _MAX_ARRAY_BYTES:
                raise ValueError(f"header says shape {shape}, more than the {_MAX_ARRAY_BYTES} bytes allowed")
            raw = _read_up_to(file.read, size_bytes + 1)
        if zero != 0 or kind != 0x08 or len(raw) != size_bytes:
            raise ValueError(f"header says type {kind:#x} and shape {shape}, which are not the bytes that follow")
        return np.frombuffer(raw, dtype=np.uint8).reshape(shape).copy()  # torch wants it writable
    except (OSError, EOFError, struct.error, zlib.error, ValueError, MemoryError) as error:
        raise InputError(f"{path} is not an idx file of bytes: {error}; download it again") from error


def _read_up_to(read: Callable[[int], bytes], most_bytes: int) -> bytes:
    """Piece by piece: in one, memory would be taken for what the header claims."""
    pieces = []
    while most_bytes > 0 and (piece := read(min(most_bytes, 1 << 20))):
        pieces.append(piece)
        most_bytes -= len(piece)
    return b"".join(pieces)


class _ArrayUnpickler(pickle.Unpickler):
    """Takes the steps that make a numpy array of bytes as records of our own, which build and change nothing.

    Any other name in the pickle is refused, not looked up. No object of numpy is within its reach.
    """

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _Name(_begin_array)
        if (module, name) in _NAMES:
            return _Name(_NAMES[module, name])
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")


class _Name:
    """A name in the pickle: it can be called once its arguments are right, and nothing else."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    def __call__(self, *arguments: Any) -> Any:
        return self.make(*arguments)

    def __setstate__(self, state: object) -> None:  # else a pickle could set attributes
        raise pickle.UnpicklingError("it changes a name")


class _ByteType:
    """Stands for ``numpy.dtype("u1")``, whatever state the pickle gives it."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Byte order and fields, which bytes have not."""


class _Array:
    """An array of bytes, once its state was there."""

    __slots__ = ("pixels",)

    def __init__(self) -> None:
        self.pixels: NDArray[np.uint8] | None = None

    def __setstate__(self, state: tuple[object, tuple[int, ...], object, bool, bytes]) -> None:
        _, shape, kind, is_fortran, data = state
        if not isinstance(kind, _ByteType) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("it builds an array of something else than bytes")
        self.pixels = np.frombuffer(data, np.uint8).reshape(shape, order="F" if is_fortran else "C")


# After these the memo may keep what is on top of the stack for a second use.
_SHARED = frozenset({
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES",
})  # fmt: skip
# What numpy's arrays, lists, dictionaries, texts and numbers are pickled to, in protocols 0 to 5, and no more.
_OPCODES = _SHARED | {
    "PROTO", "FRAME", "STOP", "MARK", "BUILD", "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2",
    "LONG", "LONG1", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "APPEND", "APPENDS",
    "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET",
    "LONG_BINGET",
}  # fmt: skip
_PUT, _GET = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), ("GET", "BINGET", "LONG_BINGET")


def _check_opcodes(content: bytes) -> None:
    """Refuse before anything is built what costs more than the file is long.

    Five bytes may name place two thousand million of the memo, and a tuple of one tuple twice, again and again, takes
    for ever to hash.
    """
    shared: set[int] = set()
    memoized, on_top = 0, ""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name not in _OPCODES:
            raise pickle.UnpicklingError(f"it uses {opcode.name}")
        if opcode.name in _PUT:
            place = memoized if opcode.name == "MEMOIZE" else int(argument or 0)
            if not 0 <= place <= len(content):
                raise pickle.UnpicklingError(f"it has place {place} of the memo")
            (shared.add if on_top in _SHARED else shared.discard)(place)
            memoized += 1
        else:
            on_top = opcode.name
        if opcode.name in _GET and argument not in shared:
            raise pickle.UnpicklingError("it uses a list, tuple or dictionary twice")


def _begin_array(kind: object, *_: object) -> _Array:
    if not isinstance(kind, _Name) or kind.make is not _refuse_array:
        raise pickle.UnpicklingError(f"it builds a {type(kind).__name__}")
    return _Array()


def _refuse_array(*_: object) -> None:
    raise pickle.UnpicklingError("it builds an array by itself")


def _begin_type(code: str | bytes, *_: object) -> _ByteType:
    if code not in ("u1", b"u1"):
        raise pickle.UnpicklingError(f"it builds an array of {code!r}")
    return _ByteType()


def _latin1_encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {encoding}")
    return text.encode("latin1")


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _refuse_array,
    ("numpy", "dtype"): _begin_type,
    ("_codecs", "encode"): _latin1_encode,
}


def read_cifar_batch(path: Path) -> LabelledImages:
    """One of CIFAR-10's python batches: ``data`` (N, 3072) uint8 planes and ``labels``."""
    try:
        content = read_bounded(path, _MAX_BATCH_BYTES)
        _check_opcodes(content)
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        planes, labels = batch[b"data"], batch[b"labels"]
        if not isinstance(planes, _Array) or planes.pixels is None:
            raise ValueError("its data is not an array")
        if not isinstance(labels, list) or not all(isinstance(label, int) for label in labels):
            raise ValueError("its labels are not a list of numbers")  # lists of one list unfold to terabytes
        images = planes.pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return LabelledImages(np.ascontiguousarray(images), np.asarray(labels, dtype=np.int64))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; unpack the archive again") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise InputError(f"{path} is not a CIFAR-10 batch: {error}; download it again") from error


def class_folders(root: Path) -> dict[str, list[Path]]:
    """The sub-folders of images, by the name of their class, sorted; what is hidden is no class.

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


def _check_inside(path: Path, root: Path) -> None:
    """Images and recordings become a part of bundles: a link in a folder of somebody else's takes none from elsewhere.

    Raises:
        InputError: ``path`` leads out of ``root``.
    """
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise InputError(f"{path} is a link to outside of {root}; copy the files there, or name their folder")


def class_files(
    root: Path, class_names: tuple[str, ...], suffixes: frozenset[str], what: str
) -> Iterator[tuple[Path, int]]:
    """The files in sub-folders that are named after their classes, each with the index of its class.

    Args:
        root: the folder above them.
        class_names: in their order; a class without a folder has no files.
        suffixes: of the files.
        what: how messages call these files.

    Raises:
        InputError: no file is there, a class folder has none, or one is a link to outside of ``root``.
    """
    folders = class_folders(root)
    found = {
        name: [path for folder in folders[name] for path in visible_files(folder, suffixes)]
        for name in class_names
        if name in folders
    }
    if not any(found.values()):
        others = sum((left_out(folder, suffixes) for name in found for folder in folders[name]), Counter[str]())
        only = f", only {counted(others)}; convert them" if others else ""
        raise InputError(f"{root} has no {what} in its class folders ({', '.join(class_names)}){only}")
    for name, paths in found.items():
        if not paths:
            others = left_out(root / name, suffixes)
            only = f", only {counted(others)}; convert them" if others else "; put some there"
            raise InputError(f"{root / name} has no {what}{only}, or remove that folder")
        for path in paths:
            _check_inside(path, root)
            yield path, class_names.index(name)


def left_out(root: Path, suffixes: frozenset[str]) -> Counter[str]:
    """How many files below ``root`` no reader takes, by suffix; what is hidden is not counted."""
    return Counter(
        path.suffix.lower()
        for path in root.rglob("*")
        if path.suffix.lower() not in suffixes
        and not any(is_hidden(name) for name in path.relative_to(root).parts)
        and path.is_file()
    )


def counted(files: Counter[str]) -> str:
    """``12 .heic, 1 .txt``, the most frequent first."""
    shown = [
        f"{count} {display_name(suffix) or 'without a suffix'}" for suffix, count in files.most_common(_MOST_NAMED)
    ]
    return ", ".join([*shown, *(["…"] if len(files) > _MOST_NAMED else [])])


def read_class_folder(
    root: Path,
    class_names: tuple[str, ...],
    image_size: int | tuple[int, int],
    channels: int,
    resize: Resize = "crop",
) -> LabelledImages:
    """Images in sub-folders that are named after their classes, as squares of ``image_size`` or as (height, width).

    Raises:
        InputError: a class folder has no image, one cannot be read, or all take more than 8 GiB.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for path, label in class_files(root, class_names, IMAGE_SUFFIXES, "images"):
        if (len(images) + 1) * height * width * channels > _MAX_ARRAY_BYTES:
            raise InputError(
                f"{root} has more than {_MAX_ARRAY_BYTES >> 30} GiB of images of {height}×{width}×{channels}; use "
                "smaller or fewer images"
            )
        images.append(image_array(path, height, width, channels, resize))
        labels.append(label)
    return LabelledImages(np.stack(images), np.asarray(labels, dtype=np.int64))

"""The arrays of a checkpoint folder, ``samples.npz`` and ``evaluation.npz``. Needs no torch, and no pickles.

Small images and signals are kept as they are. Images of 64 pixels a side and more are photographs, kept as JPEG: the
array ``jpeg`` is all files one after another, file i from ``offsets[i]`` to ``offsets[i + 1]``.
"""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paraedge.data.images import LabelledImages
from paraedge.data.signals import LabelledSignals
from paraedge.model.config import ParaFormerConfig
from paraedge_measure.evaluation import Evaluation
from paraedge_runtime._jpeg import has_one_scan
from paraedge_runtime._npz import read_arrays
from paraedge_runtime.errors import InputError

__all__ = ["read_evaluation", "read_samples", "sample_arrays"]

_JPEG_FROM = 64  # pixels a side
_JPEG_QUALITY = 90
_MAX_ARRAY_BYTES = 1 << 30


def read_samples(folder: Path, shape: ParaFormerConfig) -> LabelledImages | LabelledSignals:
    """The real inputs kept with a checkpoint.

    Raises:
        InputError: ``samples.npz`` is missing, malformed, or does not fit ``shape``.
    """
    path, size = folder / "samples.npz", shape.sample_shape
    if shape.signal is not None:
        arrays = _read_npz(path, signals=("f", (None, *size)), labels=("iu", (None,)))
        signals = arrays["signals"].astype(np.float32)
        return LabelledSignals(signals, _checked(path, arrays["labels"], len(signals), shape.num_classes))
    if _keeps_jpeg(size):
        arrays = _read_npz(path, jpeg=("u1", (None,)), offsets=("iu", (None,)), labels=("iu", (None,)))
        images = _decoded(path, arrays["jpeg"], arrays["offsets"].tolist(), size)
    else:
        arrays = _read_npz(path, images=("u1", (None, *size)), labels=("iu", (None,)))
        images = arrays["images"]
    return LabelledImages(images, _checked(path, arrays["labels"], len(images), shape.num_classes))


def sample_arrays(samples: LabelledImages | LabelledSignals) -> dict[str, NDArray[Any]]:
    """What ``samples.npz`` holds of these inputs."""
    if isinstance(samples, LabelledSignals):
        return {"signals": samples.signals, "labels": samples.labels}
    if not _keeps_jpeg(samples.images.shape[1:]):
        return {"images": samples.images, "labels": samples.labels}
    from PIL import Image

    files = []
    for image in samples.images:
        file = io.BytesIO()
        Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0]).save(file, "JPEG", quality=_JPEG_QUALITY)
        files.append(file.getvalue())
    return {
        "jpeg": np.frombuffer(b"".join(files), dtype=np.uint8),
        "offsets": np.cumsum([0, *map(len, files)], dtype=np.int64),
        "labels": samples.labels,
    }


def _keeps_jpeg(size: tuple[int, ...]) -> bool:
    height, width, channels = size
    return min(height, width) >= _JPEG_FROM and channels in (1, 3)


def _decoded(path: Path, files: NDArray[np.uint8], offsets: list[int], size: tuple[int, ...]) -> NDArray[np.uint8]:
    """The images (N, H, W, C) of JPEG files, each of exactly that size."""
    from PIL import Image

    height, width, channels = size
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(files) or offsets != sorted(offsets):
        raise InputError(
            f"{path}: offsets do not match its {len(files)} bytes of JPEG; copy the checkpoint folder again"
        )
    images = np.empty((len(offsets) - 1, *size), dtype=np.uint8)
    for number, (start, end) in enumerate(itertools.pairwise(offsets)):
        try:
            stream = io.BytesIO(files[start:end].tobytes())
            if not has_one_scan(stream):  # others keep the decoder busy, and are not written here
                raise ValueError("it is a JPEG of several scans")
            stream.seek(0)
            with Image.open(stream, formats=["JPEG"]) as image:
                if image.size != (width, height):
                    raise ValueError(f"it is {image.width}×{image.height}, not {width}×{height}")
                images[number] = np.asarray(image.convert("RGB" if channels == 3 else "L")).reshape(size)
        except Exception as error:  # Pillow raises many kinds for a damaged image
            raise InputError(
                f"{path}: image {number} cannot be read ({error}); copy the checkpoint folder again"
            ) from error
    return images


def read_evaluation(folder: Path, shape: ParaFormerConfig) -> Evaluation:
    """Every branch's logits on the whole test set, as kept with a checkpoint.

    Raises:
        InputError: ``evaluation.npz`` is missing, malformed, or does not fit ``shape``.
    """
    size = (shape.num_branches, None, shape.num_classes)
    arrays = _read_npz(folder / "evaluation.npz", branch_logits=("f", size), labels=("iu", (None,)))
    logits = arrays["branch_logits"].astype(np.float32)
    labels = _checked(folder / "evaluation.npz", arrays["labels"], logits.shape[1], shape.num_classes)
    return Evaluation(logits, labels)


def _checked(path: Path, labels: NDArray[Any], count: int, num_classes: int) -> NDArray[np.int64]:
    if len(labels) != count or not count or labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(
            f"{path}: labels must be {count} class indices below {num_classes}, at least one; "
            "copy the checkpoint folder again"
        )
    return labels.astype(np.int64)


def _read_npz(path: Path, **wanted: tuple[str, tuple[int | None, ...]]) -> dict[str, NDArray[Any]]:
    """Arrays by name, each of one of the given kinds (``f``, ``iu``, or ``u1`` for uint8) and of a shape
    whose ``None`` may be anything."""
    try:
        arrays, _ = read_arrays(path, wanted, _MAX_ARRAY_BYTES)
    except FileNotFoundError:
        raise InputError(f"{path} is missing; the checkpoint folder is incomplete, train or copy it again") from None
    if missing := [name for name in wanted if name not in arrays]:
        raise InputError(f"{path} has no array {missing[0]}; copy the checkpoint folder again")
    for name, (kinds, shape) in wanted.items():
        array = arrays[name]
        right_kind = array.dtype == np.uint8 if kinds == "u1" else array.dtype.kind in kinds
        fits = array.ndim == len(shape) and all(
            size in (None, found) for size, found in zip(shape, array.shape, strict=True)
        )
        if not (right_kind and fits):
            text = ", ".join("any" if size is None else str(size) for size in shape)
            raise InputError(
                f"{path}: {name} is {array.shape} {array.dtype}, config.json says ({text}) "
                f"{'uint8' if kinds == 'u1' else 'floats' if kinds == 'f' else 'integers'}; copy the checkpoint "
                "folder again"
            )
    return arrays

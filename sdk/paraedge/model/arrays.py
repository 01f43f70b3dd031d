"""The arrays of a checkpoint folder, ``samples.npz`` and ``evaluation.npz``. Needs no torch, and no pickles."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paraedge.data.images import LabelledImages
from paraedge.model.config import ParaFormerConfig
from paraedge_measure.evaluation import Evaluation
from paraedge_runtime.errors import InputError

__all__ = ["read_evaluation", "read_samples"]


def read_samples(folder: Path, shape: ParaFormerConfig) -> LabelledImages:
    """The real images kept with a checkpoint.

    Raises:
        InputError: ``samples.npz`` is missing, malformed, or does not fit ``shape``.
    """
    size = (None, shape.image_size, shape.image_size, shape.in_channels)
    arrays = _read_npz(folder / "samples.npz", images=("u1", size), labels=("iu", (None,)))
    labels = _checked(folder / "samples.npz", arrays["labels"], len(arrays["images"]), shape.num_classes)
    return LabelledImages(arrays["images"], labels)


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
            f"{path}: labels must be {count} class indexes below {num_classes}, at least one; "
            "copy the checkpoint folder again"
        )
    return labels.astype(np.int64)


def _read_npz(path: Path, **wanted: tuple[str, tuple[int | None, ...]]) -> dict[str, NDArray[Any]]:
    """Arrays by name, each of one of the given kinds (``f``, ``iu``, or ``u1`` for uint8) and of a shape
    whose ``None`` may be anything."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            missing = [name for name in wanted if name not in archive]
            if missing:
                raise InputError(f"{path} has no array {missing[0]}; copy the checkpoint folder again")
            arrays = {name: archive[name] for name in wanted}
    except FileNotFoundError:
        raise InputError(f"{path} is missing; the checkpoint folder is incomplete, train or copy it again") from None
    # Many kinds: RuntimeError for a zip method that python has not, TypeError for a lone .npy, …
    except (ValueError, TypeError, KeyError, OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}); copy the checkpoint folder again") from error
    for name, (kinds, shape) in wanted.items():
        array = arrays[name]
        right_kind = array.dtype == np.uint8 if kinds == "u1" else array.dtype.kind in kinds
        fits = array.ndim == len(shape) and all(
            size in (None, found) for size, found in zip(shape, array.shape, strict=True)
        )
        if not (right_kind and fits):
            text = ", ".join("any" if size is None else str(size) for size in shape)
            raise InputError(
                f"{path}: {name} is {array.shape} {array.dtype}, config.json asks for ({text}) "
                f"{'uint8' if kinds == 'u1' else 'floats' if kinds == 'f' else 'integers'}; they do not belong together"
            )
    return arrays

"""The checkpoint folder: weights, configuration, training record, and the real images export needs.

::

    NAME/
      config.json         network, input normalisation, class names, where the images came from
      model.safetensors   weights (float32 or float16)
      training.json       how it was trained and how accurate each prefix is
      samples.npz         a few hundred real test images: calibration, parity, golden outputs
      evaluation.npz      every branch's logits on the whole test set, so the accuracy of any
                          subset of branches is known without the data set

Nothing in it is executed when it is read: no pickles.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray

from paraedge.data.images import LabelledImages
from paraedge.model.paraformer import ParaFormer
from paraedge.model.records import CheckpointConfig, TrainingRecord, is_checkpoint_config, read_json
from paraedge_runtime.atomic import new_folder
from paraedge_runtime.errors import InputError

__all__ = ["Checkpoint", "Evaluation", "check_target", "load_checkpoint", "save_checkpoint"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Every branch's logits on the test set: ``branch_logits`` (num_branches, M, C), ``labels`` (M,)."""

    branch_logits: NDArray[np.float32]
    labels: NDArray[np.int64]

    def prefix_accuracy(self, branches: tuple[int, ...] | None = None) -> tuple[float, ...]:
        """Accuracy of the first 1, 2, … of ``branches`` (all, when not given) on the test set."""
        chosen = self.branch_logits if branches is None else self.branch_logits[list(branches)]
        correct = chosen.cumsum(axis=0).argmax(axis=2) == self.labels  # (k, M)
        return tuple(round(float(accuracy), 6) for accuracy in correct.mean(axis=1))


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained model with everything export needs. ``model`` is in float32 and eval mode."""

    config: CheckpointConfig
    model: ParaFormer
    training: TrainingRecord
    samples: LabelledImages
    evaluation: Evaluation


def _write_npz(path: Path, **arrays: NDArray[Any]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def check_target(path: str | os.PathLike[str]) -> Path:
    """Where a checkpoint may be written: nothing is there, or another checkpoint, which is replaced.

    Raises:
        InputError: something else is there.
    """
    target = Path(path)
    if target.is_symlink():
        raise InputError(f"{target} is a symbolic link; name the folder itself with --out")
    blocked = [parent for parent in target.parents if parent.exists() and not parent.is_dir()]
    if blocked:
        raise InputError(f"{blocked[0]} is not a folder; choose another --out")
    if target.exists() and not is_checkpoint_config(target / "config.json"):
        raise InputError(f"{target} exists and is not a checkpoint folder; choose another --out")
    return target


def save_checkpoint(checkpoint: Checkpoint, path: str | os.PathLike[str], *, dtype: torch.dtype) -> None:
    """Write a checkpoint folder, whole or not at all; one that stands there already is replaced.

    Raises:
        InputError: ``path`` exists and is not a checkpoint folder.
    """
    with new_folder(check_target(path)) as building:
        state = {name: tensor.to(dtype).contiguous() for name, tensor in _own_tensors(checkpoint.model).items()}
        weights = safetensors.torch.save(state, metadata={"format": "pt"})  # save_file would make it private
        (building / "model.safetensors").write_bytes(weights)
        for name, record in (("config.json", checkpoint.config), ("training.json", checkpoint.training)):
            (building / name).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
        _write_npz(building / "samples.npz", images=checkpoint.samples.images, labels=checkpoint.samples.labels)
        _write_npz(
            building / "evaluation.npz",
            branch_logits=checkpoint.evaluation.branch_logits.astype(np.float16),
            labels=checkpoint.evaluation.labels.astype(np.int32),
        )


def _own_tensors(model: ParaFormer) -> dict[str, torch.Tensor]:
    """The state dict with shared classifiers once, and without BatchNorm's step counters."""
    classifiers: dict[int, str] = {}  # memory -> the first name it has
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
        and (not name.endswith(".classifier.weight") or classifiers.setdefault(tensor.data_ptr(), name) == name)
    }


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint folder.

    Raises:
        InputError: the folder is missing, incomplete or malformed; the message names the file.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder} is not a checkpoint folder (no config.json); make one with "
            "'paraedge train', or name the packaged model: fashion-mnist"
        )
    config = read_json(folder / "config.json", CheckpointConfig)
    training = read_json(folder / "training.json", TrainingRecord)
    model = ParaFormer(config.model)
    _load_weights(model, folder / "model.safetensors")
    shape = config.model
    samples = _read_npz(
        folder / "samples.npz",
        images=("u1", (None, shape.image_size, shape.image_size, shape.in_channels)),
        labels=("iu", (None,)),
    )
    evaluation = _read_npz(
        folder / "evaluation.npz",
        branch_logits=("f", (shape.num_branches, None, shape.num_classes)),
        labels=("iu", (None,)),
    )
    for name, labels, count in (
        ("samples.npz", samples["labels"], len(samples["images"])),
        ("evaluation.npz", evaluation["labels"], evaluation["branch_logits"].shape[1]),
    ):
        if len(labels) != count or not count or labels.min() < 0 or labels.max() >= shape.num_classes:
            raise InputError(
                f"{folder / name}: labels must be {count} class indexes below {shape.num_classes}, at least one; "
                "copy the checkpoint folder again"
            )
    return Checkpoint(
        config=config,
        model=model.eval(),
        training=training,
        samples=LabelledImages(samples["images"], samples["labels"].astype(np.int64)),
        evaluation=Evaluation(evaluation["branch_logits"].astype(np.float32), evaluation["labels"].astype(np.int64)),
    )


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


def _load_weights(model: ParaFormer, path: Path) -> None:
    try:
        state = safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing; the checkpoint folder is incomplete, train or copy it again") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}; copy the checkpoint folder again") from error
    expected = _own_tensors(model)
    wrong = sorted(set(state) ^ set(expected)) or [
        f"{name} {tuple(state[name].shape)}, not {tuple(expected[name].shape)}"
        for name in expected
        if state[name].shape != expected[name].shape
    ]
    if wrong:
        raise InputError(f"{path} does not fit config.json: {', '.join(wrong[:4])}; they belong to different models")
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False)

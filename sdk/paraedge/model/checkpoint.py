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
from paraedge.model.records import CheckpointConfig, TrainingRecord, read_json
from paraedge_runtime.atomic import new_folder
from paraedge_runtime.errors import InputError

__all__ = ["Checkpoint", "Evaluation", "load_checkpoint", "save_checkpoint"]


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
        np.savez_compressed(file, allow_pickle=False, **arrays)


def save_checkpoint(checkpoint: Checkpoint, path: str | os.PathLike[str], *, dtype: torch.dtype) -> None:
    """Write a checkpoint folder, whole or not at all; one that stands there already is replaced.

    Raises:
        InputError: ``path`` exists and is not a checkpoint folder.
    """
    target = Path(path)
    if target.exists() and not (target / "config.json").is_file():
        raise InputError(f"{target} exists and is not a checkpoint folder; choose another --out")
    with new_folder(target) as building:
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
    """The state dict with the shared classifier once, and without BatchNorm's step counters."""
    state = model.state_dict()
    return {
        name: tensor
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
        and (not name.endswith(".classifier.weight") or name.startswith("branches.0."))
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
    samples = _read_npz(folder / "samples.npz", "images", "labels")
    evaluation = _read_npz(folder / "evaluation.npz", "branch_logits", "labels")
    shape = (config.model.num_branches, len(evaluation["labels"]), config.model.num_classes)
    if evaluation["branch_logits"].shape != shape:
        raise InputError(
            f"{folder / 'evaluation.npz'}: branch_logits is {evaluation['branch_logits'].shape}, "
            f"config.json says {shape}; train again"
        )
    return Checkpoint(
        config=config,
        model=model.eval(),
        training=training,
        samples=LabelledImages(samples["images"], samples["labels"].astype(np.int64)),
        evaluation=Evaluation(evaluation["branch_logits"].astype(np.float32), evaluation["labels"].astype(np.int64)),
    )


def _read_npz(path: Path, *names: str) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except FileNotFoundError:
        raise InputError(f"{path} is missing; the checkpoint folder is incomplete, train or copy it again") from None
    # RuntimeError: a zip method that python has not; TypeError: a lone .npy under this name.
    except (ValueError, TypeError, KeyError, OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read: {error}; copy the checkpoint folder again") from error


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

"""The checkpoint folder: weights, configuration, training record, and the real images export needs.

::

    NAME/
      config.json         network, input normalisation, class names, where the images came from
      model.safetensors   weights (float32 or float16)
      training.json       how it was trained and how accurate each prefix is
      samples.npz         a few hundred real test inputs: calibration, parity, golden outputs
      evaluation.npz      every branch's logits on the whole test set, so the accuracy of any
                          subset of branches is known without the data set

Nothing in it is executed when it is read: no pickles.
"""

from __future__ import annotations

import os
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
from paraedge.data.signals import LabelledSignals
from paraedge.model.arrays import read_evaluation, read_samples, sample_arrays
from paraedge.model.config import ParaFormerConfig
from paraedge.model.paraformer import ParaFormer
from paraedge.model.records import CheckpointConfig, TrainingRecord, is_checkpoint_config, read_json
from paraedge_converters.request import check_name
from paraedge_measure.evaluation import Evaluation
from paraedge_runtime._arguments import as_path
from paraedge_runtime.atomic import new_folder
from paraedge_runtime.errors import InputError
from paraedge_runtime.manifest import LabelsOutput, Text

__all__ = ["Checkpoint", "check_exportable", "check_target", "load_checkpoint", "save_checkpoint"]


_FILES = ("config.json", "model.safetensors", "training.json", "samples.npz", "evaluation.npz")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained model with everything export needs. ``model`` is in float32 and eval mode."""

    config: CheckpointConfig
    model: ParaFormer
    training: TrainingRecord
    samples: LabelledImages | LabelledSignals
    evaluation: Evaluation


def _write_npz(path: Path, **arrays: NDArray[Any]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def check_target(path: str | os.PathLike[str]) -> Path:
    """Where a checkpoint may be written: nothing is there, or another checkpoint and nothing else, which is replaced.

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
    if target.exists() and (others := [path.name for path in target.iterdir() if path.name not in _FILES]):
        raise InputError(
            f"{target} holds {min(others)!r} beside a checkpoint, so it is not replaced; move that away and run "
            "the same command again; it continues where it stopped"
        )
    return target


def check_exportable(config: CheckpointConfig) -> None:
    """Before the training, what an export would refuse after it.

    Raises:
        InputError: no bundle can have the name, a text is longer than a bundle's may be, or cannot be written.
    """
    check_name(config.name)
    try:
        msgspec.json.encode(config)
        for text in (config.description, config.license, config.dataset):
            msgspec.convert(text, Text)
        msgspec.convert({"kind": "labels", "labels": config.labels}, LabelsOutput)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise InputError(f"the description of {config.name} cannot be exported: {error}") from None


def save_checkpoint(checkpoint: Checkpoint, path: str | os.PathLike[str], *, dtype: torch.dtype) -> None:
    """Write a checkpoint folder, completely or not at all. An existing one is replaced.

    Raises:
        InputError: ``path`` exists and is not a checkpoint folder, or it cannot be written; an existing folder is
        kept.
    """
    target = check_target(path)
    try:
        with new_folder(target) as building:
            _write_files(checkpoint, building, dtype)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror or error}; choose another path") from error


def _write_files(checkpoint: Checkpoint, building: Path, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype).contiguous() for name, tensor in _own_tensors(checkpoint.model).items()}
    weights = safetensors.torch.save(state, metadata={"format": "pt"})  # save_file would make it private
    (building / "model.safetensors").write_bytes(weights)
    for name, record in (("config.json", checkpoint.config), ("training.json", checkpoint.training)):
        (building / name).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
    _write_npz(building / "samples.npz", **sample_arrays(checkpoint.samples))
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
    folder = as_path("the checkpoint", path)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder} is not a checkpoint folder (no config.json); make one with "
            "'paraedge train', or name the packaged model: fashion-mnist"
        )
    config = read_json(folder / "config.json", CheckpointConfig)
    training = read_json(folder / "training.json", TrainingRecord)
    weights = folder / "model.safetensors"
    _check_size(config.model, weights)
    model = ParaFormer(config.model)
    _load_weights(model, weights)
    return Checkpoint(
        config=config,
        model=model.eval(),
        training=training,
        samples=read_samples(folder, config.model),
        evaluation=read_evaluation(folder, config.model),
    )


def _check_size(config: ParaFormerConfig, path: Path) -> None:
    """Before memory is taken: a damaged config.json may ask for any, and the weights are there to compare with."""
    if not path.is_file():  # safetensors would wait for a pipe
        return
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            num_tensors, size_bytes = len(file.keys()), path.stat().st_size
    except (safetensors.SafetensorError, OSError):
        return  # what is wrong with them is said when they are read
    largest = config.embed_dim * max(config.mlp_dim, config.num_positions)  # numbers of the largest weights
    blocks = sum(config.branch_depths) + config.stem_residual_blocks + config.branch_residual_blocks
    if blocks > num_tensors or 2 * max(largest, config.stem_channels) > size_bytes:
        raise InputError(
            f"{path} does not match config.json: {num_tensors} tensors in {size_bytes} bytes, for {blocks} blocks and "
            f"a matrix of {largest} numbers; they belong to different models"
        )


def _load_weights(model: ParaFormer, path: Path) -> None:
    if path.exists() and not path.is_file():  # safetensors would wait for a pipe
        raise InputError(f"{path} is not a plain file; copy the checkpoint folder again")
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
        raise InputError(f"{path} does not match config.json: {', '.join(wrong[:4])}; they belong to different models")
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False)

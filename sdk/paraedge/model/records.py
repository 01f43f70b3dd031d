"""The JSON records of a checkpoint folder, ``config.json`` and ``training.json``. Needs no torch."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from paraedge.model.config import ParaFormerConfig
from paraedge_runtime._reading import read_bounded
from paraedge_runtime.errors import InputError

__all__ = ["CheckpointConfig", "TrainingRecord", "is_checkpoint_config", "read_json"]

_T = TypeVar("_T")
_MAX_RECORD_BYTES = 16 << 20


class CheckpointConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contents of ``config.json``.

    Attributes:
        name: short name, used for the bundles made from it.
        description: one sentence for people.
        license: licence of the weights and sample images.
        dataset: what it was trained and tested on.
        loader: value of ``--dataset`` that reads the data, if ``dataset`` is not such a name, as with ``folder`` or
            ``npz``.
        labels: one name per class, normalised to Unicode NFC.
        model: shape of the network, and how its input is normalised.
    """

    format: Literal["paraedge-checkpoint/1"] = "paraedge-checkpoint/1"
    architecture: Literal["paraformer"] = "paraformer"
    name: str
    description: str
    license: str
    dataset: str
    loader: str | None = None
    labels: tuple[str, ...]
    model: ParaFormerConfig

    def __post_init__(self) -> None:
        if len(self.labels) != self.model.num_classes:
            raise ValueError(f"labels has {len(self.labels)} names, model.num_classes is {self.model.num_classes}")
        composed = tuple(unicodedata.normalize("NFC", label) for label in self.labels)
        msgspec.structs.force_setattr(self, "labels", composed)


class TrainingRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``training.json``: enough to do it again, and what came out.

    ``previous`` is the record of the checkpoint it started from, where there was one.
    """

    command: str
    seed: int
    epochs: int
    settings: dict[str, Any]
    hardware: str
    torch_version: str
    train_seconds: float
    final_train_loss: float
    num_test_samples: int
    prefix_accuracy: tuple[float, ...]
    previous: TrainingRecord | None = None


def is_checkpoint_config(path: Path) -> bool:
    """Whether a file calls itself a checkpoint's ``config.json``, of whatever version."""
    try:
        return msgspec.json.decode(read_bounded(path, _MAX_RECORD_BYTES), type=_FormatOnly).format.startswith(
            "paraedge-checkpoint/"
        )
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


class _FormatOnly(msgspec.Struct):
    format: str


def read_json(path: Path, kind: type[_T]) -> _T:
    """Read one of the records.

    Raises:
        InputError: the file is missing or malformed.
    """
    try:
        return msgspec.json.decode(read_bounded(path, _MAX_RECORD_BYTES), type=kind)
    except FileNotFoundError:
        raise InputError(f"{path} is missing; the checkpoint folder is incomplete, train or copy it again") from None
    except (msgspec.MsgspecError, ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path}: {error}; the file was changed or made by another version") from error

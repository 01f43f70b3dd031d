"""What a bundle says about its model, and the real inputs that prove it right: :class:`ModelDescription`."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from paraedge_converters.early_stop import DEFAULT_MAX_ACCURACY_DROP
from paraedge_converters.protocol import BranchModel
from paraedge_runtime.errors import InputError
from paraedge_runtime.manifest import Accuracy, EarlyStop, Text

__all__ = ["EvaluationSet", "ModelDescription", "check_description"]


@dataclass(frozen=True, eq=False, kw_only=True)
class EvaluationSet:
    """Inputs that trained nothing, on which the parts that were just made are measured.

    Attributes:
        samples: (M, H, W, C) uint8.
        labels: (M,) class indexes.
        dataset: what they are, for people.
        max_accuracy_drop: what early stop may cost; see :func:`calibrate_early_stop`.
    """

    samples: NDArray[np.uint8]
    labels: NDArray[np.int64]
    dataset: str
    max_accuracy_drop: float = DEFAULT_MAX_ACCURACY_DROP


@dataclass(frozen=True, eq=False, kw_only=True)
class ModelDescription:
    """What a bundle says about its model, and the real inputs that prove it right.

    Attributes:
        name: short, used for file names: letters, digits, ``.``, ``-``, ``_``, ``+``.
        description: one sentence.
        license: of the weights and the samples.
        labels: one name per output.
        samples: (n, H, W, C) uint8, real ones; parity needs them, a few become golden.
        sample_labels: (n,) class indexes.
        accuracy: of every prefix of the chosen branches in float32, if known.
        early_stop: from :func:`calibrate_early_stop` on the chosen branches in float32, if wanted.
        test_set: if given, accuracy and early stop are measured on the exported parts themselves. A
            quantized bundle is another model than the one in float32, and has none without it.
    """

    name: str
    description: str
    license: str
    labels: tuple[str, ...]
    samples: NDArray[np.uint8]
    sample_labels: NDArray[np.int64]
    accuracy: Accuracy | None = None
    early_stop: EarlyStop | None = None
    test_set: EvaluationSet | None = None


def check_description(model: BranchModel, description: ModelDescription, num_chosen: int) -> None:
    """Refuse a description that does not fit the model, before anything slow begins.

    Raises:
        InputError: names the field.
    """
    for field in ("description", "license", "labels"):
        value = getattr(description, field)
        try:
            msgspec.convert(value, tuple[Text, ...] if field == "labels" else Text)
        except msgspec.ValidationError as error:
            raise InputError(f"{field} of the model cannot be {str(value)[:80]!r}: {error}") from None
    if len(description.labels) != model.num_outputs:
        raise InputError(f"{len(description.labels)} labels for a model of {model.num_outputs} outputs")
    _check_samples(model, description)
    if description.early_stop is not None and len(description.early_stop.prefixes) != num_chosen:
        raise InputError(
            f"early_stop has {len(description.early_stop.prefixes)} prefixes for {num_chosen} branches; "
            "calibrate it on the branches that are exported"
        )


def _check_samples(model: BranchModel, description: ModelDescription) -> None:
    _, channels, height, width = model.input_spec.shape
    samples = description.samples
    if samples.dtype != np.uint8 or samples.shape[1:] != (height, width, channels) or not len(samples):
        raise InputError(
            f"samples for the parity gate are {samples.shape} {samples.dtype}; "
            f"(n, {height}, {width}, {channels}) uint8 real images are needed"
        )
    labels = description.sample_labels
    if labels.shape != (len(samples),) or labels.min() < 0 or labels.max() >= model.num_outputs:
        raise InputError(f"sample_labels must be one class index below {model.num_outputs} per sample")
    if samples.min() == samples.max():
        raise InputError("all samples for the parity gate are one flat colour; real images are needed")

"""What a bundle says about its model, and the real inputs that prove it right: :class:`ModelDescription`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from paraedge_converters.early_stop import DEFAULT_MAX_ACCURACY_DROP, Calibration
from paraedge_converters.protocol import BranchModel
from paraedge_runtime.card import Accuracy
from paraedge_runtime.errors import InputError
from paraedge_runtime.manifest import ImageInput, LabelsOutput, Text, VectorOutput

__all__ = ["EvaluationSet", "ModelDescription", "check_description"]

ModelVersion = Annotated[int, msgspec.Meta(ge=1, le=1 << 53)]
Samples = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True, eq=False, kw_only=True)
class EvaluationSet:
    """Held-out inputs for measuring the exported parts.

    Attributes:
        samples: (M, …), in the same form as in :class:`ModelDescription`.
        labels: (M,) class indices.
        dataset: a name for the inputs, shown to users.
        max_accuracy_drop: accuracy that early stop may lose; see :func:`calibrate_early_stop`.
    """

    samples: Samples
    labels: NDArray[np.int64]
    dataset: str
    max_accuracy_drop: float = DEFAULT_MAX_ACCURACY_DROP


@dataclass(frozen=True, eq=False, kw_only=True)
class ModelDescription:
    """Name, labels and licence of a model, and real inputs to verify it.

    A model with a vector output (a regression, an embedding) has ``vector`` instead of ``labels``; ``sample_labels``,
    ``accuracy``, ``early_stop`` and ``test_set`` must then be ``None``.

    Lists and torch tensors are accepted in place of arrays and tuples.

    Attributes:
        name: a short name, used in file names: letters, digits, ``.``, ``-``, ``_``, ``+``.
        description: one sentence.
        license: licence of the weights and the samples.
        samples: real inputs for the comparison with torch; a few become the golden inputs. (n, H, W, C) uint8 for an
            image input; (n, …) float32, not normalised, for a tensor input.
        labels: one name per output.
        vector: name of a vector output, such as ``embedding``.
        sample_labels: (n,) class indices.
        accuracy: accuracy of every prefix of the chosen branches in float32, if known.
        early_stop: result of :func:`calibrate_early_stop` for the chosen branches in float32, if wanted.
        test_set: inputs on which accuracy and early stop of the exported parts are measured. Without it a quantized
            bundle has neither, because the float32 accuracy does not apply to it.
        version: version of the model, a whole number that increases.
    """

    name: str
    description: str
    license: str
    samples: Samples
    labels: tuple[str, ...] | None = None
    vector: str | None = None
    sample_labels: NDArray[np.int64] | None = None
    accuracy: Accuracy | None = None
    early_stop: Calibration | None = None
    test_set: EvaluationSet | None = None
    version: int = 1

    def output(self, num_outputs: int) -> LabelsOutput | VectorOutput:
        """The manifest's ``output``."""
        if self.labels is not None:
            return LabelsOutput(labels=self.labels)
        assert self.vector is not None  # check_description
        return VectorOutput(name=self.vector, size=int(num_outputs))


def check_description(model: BranchModel, description: ModelDescription, num_chosen: int) -> None:
    """Refuse a description that does not fit the model.

    Raises:
        InputError: names the field.
    """
    _check_texts(model, description)
    _check_samples("samples", description.samples, model)
    if description.samples.min() == description.samples.max():
        raise InputError("all samples for the parity gate have the same value; pass real inputs")
    if description.labels is None:
        for field in ("sample_labels", "accuracy", "early_stop", "test_set"):
            if getattr(description, field) is not None:
                raise InputError(f"{field} requires labels, and the description has none; leave it out, or set labels")
        return
    _check_labels("sample_labels", description.sample_labels, len(description.samples), model.num_outputs)
    if (test_set := description.test_set) is not None:
        _check_samples("test_set.samples", test_set.samples, model)
        _check_labels("test_set.labels", test_set.labels, len(test_set.samples), model.num_outputs)
    if description.early_stop is not None and len(description.early_stop.stop_rules) != num_chosen:
        raise InputError(
            f"early_stop has {len(description.early_stop.stop_rules)} prefixes for {num_chosen} branches; "
            "calibrate it on the exported branches"
        )


def _check_texts(model: BranchModel, description: ModelDescription) -> None:
    if (description.labels is None) == (description.vector is None):
        raise InputError("the output is either labels or a vector; set exactly one of the two")
    if description.labels is not None and len(description.labels) != model.num_outputs:
        raise InputError(
            f"labels has {len(description.labels)} names, the model has {model.num_outputs} outputs; "
            "give one name per output, or vector= and what it is"
        )
    try:  # what the manifest and the card would refuse after the work
        msgspec.convert(msgspec.to_builtins(description.output(model.num_outputs)), LabelsOutput | VectorOutput)
        msgspec.convert(description.description, Text)
        msgspec.convert(description.license, Text)
        msgspec.convert(description.version, ModelVersion)
    except msgspec.ValidationError as error:
        raise InputError(f"the description of {description.name} cannot be written: {error}") from None


def _check_samples(field: str, samples: Samples, model: BranchModel) -> None:
    spec = model.input_spec
    dtype: type[np.generic] = np.float32
    shape: tuple[int, ...] = spec.shape[1:]
    what = "real inputs before normalisation"
    if isinstance(spec, ImageInput):
        _, channels, height, width = spec.shape
        dtype, shape, what = np.uint8, (height, width, channels), "real images"
    if samples.dtype != dtype or samples.shape[1:] != shape or not len(samples):
        needed = ", ".join(["n", *map(str, shape)])
        raise InputError(
            f"{field} must be {what}, ({needed}) {np.dtype(dtype).name}, got {samples.shape} {samples.dtype}"
        )
    if not np.isfinite(samples).all():
        raise InputError(f"{field} have {int((~np.isfinite(samples)).sum())} values that are not finite")


def _check_labels(field: str, labels: NDArray[np.int64] | None, count: int, num_outputs: int) -> None:
    if labels is None:
        raise InputError(
            f"{field} is missing: a model with labels needs one class index below {num_outputs} per sample"
        )
    if labels.shape != (count,) or labels.min() < 0 or labels.max() >= num_outputs:
        raise InputError(f"{field} must be one class index below {num_outputs} per sample")

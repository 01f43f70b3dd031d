"""What a caller may write in a description, a list of labels or a tensor of samples, as texts and numpy arrays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from paraedge_converters.description import EvaluationSet, ModelDescription
from paraedge_runtime._arguments import as_array, shown
from paraedge_runtime.errors import InputError

__all__ = ["plain_description"]


def plain_description(description: ModelDescription) -> ModelDescription:
    """The same description with labels as a tuple of texts, samples as an array, class indices as int64.

    Raises:
        InputError: a field is of a kind that cannot be meant; the message names it.
    """
    if not isinstance(description, ModelDescription):
        raise InputError(f"the description must be a ModelDescription, got {type(description).__name__}")
    for field in ("name", "description", "license"):
        if not isinstance(getattr(description, field), str):
            raise InputError(f"{field} must be a string, got {shown(getattr(description, field))}")
    test_set = description.test_set
    if test_set is not None:
        if not isinstance(test_set, EvaluationSet):
            raise InputError(f"test_set must be an EvaluationSet, got {type(test_set).__name__}")
        test_set = replace(
            test_set,
            samples=as_array("test_set.samples", test_set.samples),
            labels=_indexes("test_set.labels", test_set.labels),
        )
    version: Any = description.version
    return replace(
        description,
        labels=None if description.labels is None else _texts("labels", description.labels),
        samples=as_array("samples", description.samples),
        sample_labels=None
        if description.sample_labels is None
        else _indexes("sample_labels", description.sample_labels),
        test_set=test_set,
        version=int(version) if isinstance(version, np.integer) else version,
    )


def _texts(field: str, given: Any) -> tuple[str, ...]:
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise InputError(f"{field} must be a list of names, got {shown(given)}")
    names = tuple(given)
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"{field} must be strings, got {shown(name)} ({type(name).__name__})")
    return tuple([str(name) for name in names])  # numpy's texts too


def _indexes(field: str, given: Any) -> NDArray[np.int64]:
    indexes = as_array(field, given)
    if indexes.dtype.kind not in "iu":
        raise InputError(f"{field} must be integers, one class index per sample, got {indexes.dtype}")
    return cast("NDArray[np.int64]", indexes.astype(np.int64))

"""A description may hold lists, torch tensors and numpy scalars; what cannot be meant is one line."""

import dataclasses

import numpy as np
import pytest
import torch
from support.conv_branches import ConvBranches

from paraedge_converters import EvaluationSet, ModelDescription, convert
from paraedge_converters._given import plain_description
from paraedge_runtime import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 28, 28, 1), dtype=np.uint8)
CLASSES = np.arange(8)
PLAIN = ModelDescription(
    name="mine",
    description="d",
    license="l",
    labels=tuple("abcdefghij"),
    samples=IMAGES,
    sample_labels=CLASSES,
    test_set=EvaluationSet(samples=IMAGES, labels=CLASSES, dataset="few"),
)

FORMS = {
    "lists": {"labels": list("abcdefghij"), "samples": list(IMAGES), "sample_labels": CLASSES.tolist()},
    "torch": {"samples": torch.from_numpy(IMAGES), "sample_labels": torch.from_numpy(CLASSES)},
    "numpy": {"labels": np.array(list("abcdefghij")), "sample_labels": list(CLASSES), "version": np.int64(1)},
    "small numbers": {"sample_labels": CLASSES.astype(np.uint8)},
    "test set": {
        "test_set": EvaluationSet(samples=list(IMAGES), labels=CLASSES.astype(np.int32).tolist(), dataset="few")
    },
}


def same(one, other):
    assert type(one.labels) is tuple
    assert one.labels == other.labels
    assert [type(name) for name in one.labels] == [str] * len(one.labels)
    assert (type(one.version), one.version) == (int, other.version)
    for got, wanted in (
        (one.samples, other.samples),
        (one.sample_labels, other.sample_labels),
        (one.test_set.samples, other.test_set.samples),
        (one.test_set.labels, other.test_set.labels),
    ):
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("changes", FORMS.values(), ids=FORMS)
def test_every_form_means_the_same(changes):
    same(plain_description(dataclasses.replace(PLAIN, **changes)), PLAIN)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": None}, "name must be a string, got None"),
        ({"description": None}, "description must be a string, got None"),
        ({"license": None}, "license must be a string, got None"),
        ({"labels": tuple(range(10))}, "labels has 0, a int; each must be a text"),
        ({"labels": "abcdefghij"}, "labels must be a list of names, got 'abcdefghij'"),
        ({"labels": 10}, "labels must be a list of names, got 10"),
        ({"labels": tuple("abcdefghia")}, r"labels\[9\] is 'a', the same as labels\[0\]"),
        ({"labels": ("", *"bcdefghij")}, r"labels\[0\] is empty, and every output needs a name"),
        ({"samples": None}, r"samples are \(1,\) object"),
        ({"samples": [IMAGES[0], IMAGES[1][:5]]}, "samples cannot be read as one array"),
        ({"sample_labels": CLASSES / 2}, "sample_labels must be integers, one class index per sample, got float64"),
        ({"sample_labels": list("abcdefgh")}, "sample_labels must be integers, one class index per sample, got <U1"),
        ({"test_set": IMAGES}, "test_set must be an EvaluationSet, got ndarray"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        convert(ConvBranches(), dataclasses.replace(PLAIN, **changes), tmp_path / "b", target="linux")
    assert list(tmp_path.iterdir()) == []


def test_no_description_at_all_is_refused(tmp_path):
    with pytest.raises(InputError, match="the description must be a ModelDescription, got NoneType"):
        convert(ConvBranches(), None, tmp_path / "b", target="linux")


def test_a_model_is_exported_from_lists_and_numpy_numbers(tmp_path):
    description = dataclasses.replace(PLAIN, test_set=None, **FORMS["lists"])
    bundle = convert(ConvBranches(), description, tmp_path / "b.paraedge", target="linux", branches=np.int64(2))
    assert bundle.manifest.labels == PLAIN.labels
    assert bundle.manifest.branch_indexes == (0, 1)
    bundle = convert(ConvBranches(), description, tmp_path / "c.paraedge", target="linux", branches=np.array([0, 2]))
    assert bundle.manifest.branch_indexes == (0, 2)

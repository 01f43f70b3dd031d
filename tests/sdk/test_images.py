"""Tests of paraedge.data.images: what counts as labelled images, balanced samples, channel statistics."""

import numpy as np
import pytest

from paraedge.data import ImageDataset, LabelledImages
from paraedge_runtime.errors import InputError


def _images(*shape, dtype=np.uint8):
    return np.zeros(shape, dtype=dtype)


def _labels(*values, dtype=np.int64):
    return np.asarray(values, dtype=dtype)


def _split(labels, shape=(4, 4, 1)):
    return LabelledImages(_images(len(labels), *shape), _labels(*labels))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        pytest.param(
            _images(2, 4, 4, 1, dtype=np.float32),
            _labels(0, 1),
            r"images must be \(N, H, W, C\) uint8, got \(2, 4, 4, 1\) float32; convert",
            id="float-images",
        ),
        pytest.param(_images(2, 4, 4, 1, dtype=np.int8), _labels(0, 1), "int8; convert", id="signed-images"),
        pytest.param(_images(2, 4, 4), _labels(0, 1), r"got \(2, 4, 4\) uint8", id="no-channel-axis"),
        pytest.param(_images(2, 1, 4, 4, 1), _labels(0, 1), r"got \(2, 1, 4, 4, 1\)", id="five-axes"),
        pytest.param(
            _images(2, 4, 4, 1),
            _labels(0, 1, 2),
            r"labels must be \(2,\) int64, one per image, got \(3,\) int64",
            id="too-many-labels",
        ),
        pytest.param(_images(2, 4, 4, 1), _labels(0), r"got \(1,\) int64", id="too-few-labels"),
        pytest.param(_images(2, 4, 4, 1), _labels(0, 1, dtype=np.int32), r"got \(2,\) int32", id="int32-labels"),
        pytest.param(_images(2, 4, 4, 1), _labels(0, 1, dtype=np.float64), "float64", id="float-labels"),
        pytest.param(_images(2, 4, 4, 1), _labels([0, 1], [1, 0]), r"got \(2, 2\)", id="one-hot-labels"),
    ],
)
def test_labelled_images_refuse_what_is_not_uint8_images_with_one_label_each(images, labels, message):
    with pytest.raises(InputError, match=message):
        LabelledImages(images, labels)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        pytest.param(
            _split([0, 1]),
            _split([0, 1], (4, 5, 1)),
            r"toy: train images are \(4, 4, 1\), test images \(4, 5, 1\)",
            id="shapes-differ",
        ),
        pytest.param(_split([]), _split([0, 1]), "toy: the train split has no images", id="no-train"),
        pytest.param(_split([0, 1]), _split([]), "toy: the test split has no images", id="no-test"),
        pytest.param(
            _split([0, 2]),
            _split([0, 1]),
            "train labels run from 0 to 2, but there are 2 class names",
            id="label-too-large",
        ),
        pytest.param(_split([0, 1]), _split([-1, 1]), "test labels run from -1 to 1", id="negative-label"),
    ],
)
def test_data_set_refuses_splits_that_do_not_fit(train, test, message):
    with pytest.raises(InputError, match=message):
        ImageDataset("toy", train, test, ("cat", "dog"), "none")


def test_image_shape_is_height_width_channels():
    data = ImageDataset("toy", _split([0, 1], (4, 6, 3)), _split([0], (4, 6, 3)), ("cat", "dog"), "none")
    assert data.image_shape == (4, 6, 3)


@pytest.mark.parametrize("size", [1, 7, 10, 25, 100])
def test_balanced_sample_takes_the_classes_in_turn(digits, size):
    sample = digits.train.balanced_sample(size, seed=3)
    assert len(sample) == size
    # Every class has more than ten images, so the labels go round.
    assert sample.labels.tolist() == [index % 10 for index in range(size)]


def test_balanced_sample_goes_on_without_the_classes_that_are_used_up():
    data = LabelledImages(np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1), _labels(0, 0, 0, 0, 1, 2))
    sample = data.balanced_sample(6, seed=0)
    assert sample.labels.tolist() == [0, 1, 2, 0, 0, 0]
    assert sorted(sample.images.ravel().tolist()) == [0, 1, 2, 3, 4, 5]


def test_balanced_sample_is_the_same_for_the_same_seed_and_another_for_another(digits):
    first, again, other = (digits.train.balanced_sample(50, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.images, other.images)


def test_balanced_sample_keeps_images_with_their_labels_and_never_repeats_one():
    count = 240
    numbers = np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1)
    labels = np.random.default_rng(0).integers(0, 7, count)
    sample = LabelledImages(numbers, labels).balanced_sample(100, seed=5)
    chosen = sample.images.ravel()
    assert len(set(chosen.tolist())) == 100
    assert np.array_equal(sample.labels, labels[chosen])


def test_balanced_sample_larger_than_the_data_is_all_of_it(few_digits):
    sample = few_digits.test.balanced_sample(10_000, seed=0)
    assert len(sample) == len(few_digits.test)


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 7, 3)], ids=["grey", "colour"])
def test_channel_statistics_equal_numpy_in_float64(shape):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, *shape), dtype=np.uint8)
    images[..., 0] //= 3  # channels that differ
    split = LabelledImages(images, np.zeros(40, dtype=np.int64))
    mean, std = ImageDataset("toy", split, _split([0], shape), ("a", "b"), "none").channel_statistics()
    scaled = images.astype(np.float64) / 255.0
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 1, 2)), atol=1e-6, rtol=0)
    np.testing.assert_allclose(std, scaled.std(axis=(0, 1, 2)), atol=1e-6, rtol=0)


def test_channel_statistics_of_digits_equal_numpy_and_ignore_the_test_split(digits):
    mean, std = digits.channel_statistics()
    scaled = digits.train.images.astype(np.float64) / 255.0
    assert mean == pytest.approx((scaled.mean(),), abs=1e-6)
    assert std == pytest.approx((scaled.std(),), abs=1e-6)


def test_channel_statistics_of_a_constant_image_can_be_divided_by():
    mean, std = ImageDataset("toy", _split([0, 1]), _split([0]), ("a", "b"), "none").channel_statistics()
    assert (mean, std) == ((0.0,), (1e-3,))


def test_held_out_images_are_balanced_and_leave_the_train_split(digits):
    held = digits.holdout(200, seed=0)
    assert (len(held.train), len(held.test)) == (len(digits.train) - 200, 200)
    assert np.bincount(held.test.labels).tolist() == [20] * 10
    known = sorted(image.tobytes() for image in digits.train.images)
    parts = [*held.train.images, *held.test.images]
    assert sorted(image.tobytes() for image in parts) == known
    assert held.class_names == digits.class_names
    assert "200 train images held out" in held.name
    again = digits.holdout(200, seed=0)
    assert np.array_equal(again.test.images, held.test.images)


@pytest.mark.parametrize("count", [-1, 0, 1437, 5000])
def test_holding_out_nothing_or_everything_is_refused(digits, count):
    with pytest.raises(InputError, match=f"cannot hold out {count} of the 1437 train images of digits"):
        digits.holdout(count, seed=0)

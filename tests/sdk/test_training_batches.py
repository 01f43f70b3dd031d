"""Tests of paraedge.training.batches: what they hold depends on the seed and their number and on nothing else."""

import msgspec
import numpy as np
import pytest
import torch

from paraedge.training.batches import TrainingBatches, normalise, training_batches


def _numbered(count, height=4, width=6, channels=1):
    """Images whose pixels are all different within an image, and labels that name the image."""
    pixels = torch.arange(1, height * width * channels + 1, dtype=torch.uint8).reshape(height, width, channels)
    images = pixels.repeat(count, 1, 1, 1)
    images[:, 0, 0, 0] = torch.arange(100, 100 + count, dtype=torch.uint8)
    return images, torch.arange(count)


def _epoch(images, labels, config, epoch=0):
    batches = _batches(images, labels, config, epoch)
    return torch.cat([batch for batch, _ in batches]), torch.cat([target for _, target in batches])


def _batches(images, labels, config, epoch):
    """The batches of one epoch, with class indices again instead of one-hot targets."""
    config = msgspec.structs.replace(config, epochs=epoch + 1)
    batches = training_batches(TrainingBatches(images, labels, int(labels.max()) + 1, config), epoch)
    return [(batch, target.argmax(dim=1)) for batch, target in batches]


@pytest.fixture
def augmented(make):
    return make.training(batch_size=16, crop_padding=2, horizontal_flip=True, seed=4)


def test_same_seed_and_epoch_give_the_same_batches(augmented):
    images, labels = _numbered(50)
    first = _batches(images, labels, augmented, 3)
    torch.manual_seed(99)  # the global generator has no part in it
    again = _batches(images, labels, augmented, 3)
    assert len(first) == len(again) == 4
    for (batch, target), (other_batch, other_target) in zip(first, again, strict=True):
        assert torch.equal(batch, other_batch)
        assert torch.equal(target, other_target)


def test_another_epoch_or_seed_gives_another_order(make):
    images, labels = _numbered(50)
    config, other = make.training(seed=0), make.training(seed=1)
    orders = [
        _epoch(images, labels, *choice)[1].tolist() for choice in ((config, 0), (config, 1), (other, 0), (other, 1))
    ]
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize(("count", "sizes"), [(48, [16, 16, 16]), (50, [16, 16, 16, 2]), (5, [5])])
def test_every_image_comes_once_per_epoch(make, count, sizes):
    images, labels = _numbered(count)
    config = make.training(batch_size=16)
    assert [len(batch) for batch, _ in _batches(images, labels, config, 0)] == sizes
    for epoch in range(3):
        _, targets = _epoch(images, labels, config, epoch)
        assert sorted(targets.tolist()) == list(range(count))


def test_without_crops_and_flips_the_pixels_are_the_original_ones(make, digits):
    images, labels = torch.from_numpy(digits.test.images), torch.arange(len(digits.test))
    batch, targets = _epoch(images, labels, make.training())
    assert batch.dtype == torch.uint8
    assert torch.equal(batch, images[targets])


def test_a_batch_is_the_same_whichever_was_made_before_it(augmented):
    images, labels = _numbered(50)
    split = TrainingBatches(images, labels, 50, msgspec.structs.replace(augmented, epochs=3))
    in_turn = list(training_batches(split, 0))
    for number in torch.randperm(len(split), generator=torch.Generator().manual_seed(0)).tolist():
        assert all(map(torch.equal, split[number], in_turn[number]))


@pytest.mark.parametrize("epochs_done", [0, 2])
def test_worker_processes_make_the_same_batches(make, digits, epochs_done):
    config = make.training(
        epochs=4, batch_size=512, crop_padding=1, erasing_probability=0.5, mixup_alpha=0.4, cutmix_alpha=1.0
    )
    split = TrainingBatches(torch.from_numpy(digits.train.images), torch.from_numpy(digits.train.labels), 10, config)
    assert len(split) == 4 * split.steps_per_epoch == 12
    alone = list(training_batches(split, epochs_done))
    helped = list(training_batches(split, epochs_done, num_workers=2))
    assert len(alone) == len(helped) == 12 - 3 * epochs_done
    for first, second in zip(alone, helped, strict=True):
        assert all(map(torch.equal, first, second))
        assert first[0].dtype == torch.uint8
        torch.testing.assert_close(first[1].sum(dim=1), torch.ones(len(first[1])))


def test_the_images_themselves_are_left_alone(augmented):
    images, labels = _numbered(40)
    before = images.clone()
    _epoch(images, labels, augmented)
    assert torch.equal(images, before)


def test_normalise_is_x_over_255_minus_mean_over_std_with_channels_first(make):
    config = make.model(in_channels=3, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    result = normalise(torch.from_numpy(images), config)
    expected = (images.astype(np.float64) / 255 - config.mean) / config.std
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-6)


@pytest.mark.parametrize(("count", "parts"), [(48, 2), (50, 4), (17, 3), (5, 2)])
def test_shares_of_a_batch_are_equally_large_and_hold_every_image(make, count, parts):
    images, labels = _numbered(count)
    config = make.training(batch_size=16, epochs=1)
    whole = TrainingBatches(images, labels, count, config)
    shares = [TrainingBatches(images, labels, count, config, (part, parts)) for part in range(parts)]
    for number in range(len(whole)):
        expected = whole[number][1].argmax(dim=1)
        found = [share[number][1].argmax(dim=1) for share in shares]
        assert len({len(part) for part in found}) == 1
        assert {int(label) for part in found for label in part} == set(expected.tolist())
        together = torch.stack(found, dim=1).flatten()
        assert torch.equal(together[: len(expected)], expected)

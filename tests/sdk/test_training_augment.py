"""Tests of paraedge.training.augment: what each random change does to real images, and that its seed decides."""

import numpy as np
import pytest
import torch

from paraedge.training.augment import augment, mix


def _numbered(count, height=4, width=6, channels=1):
    """Images whose pixels are all different within an image; the first names the image."""
    pixels = torch.arange(1, height * width * channels + 1, dtype=torch.uint8).reshape(height, width, channels)
    images = pixels.repeat(count, 1, 1, 1)
    images[:, 0, 0, 0] = torch.arange(100, 100 + count, dtype=torch.uint8)
    return images


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def photographs():
    """200 of the packaged CIFAR-10 test images with their classes."""
    from paraedge.packaged import resolve_checkpoint

    with np.load(resolve_checkpoint("cifar10") / "samples.npz") as archive:
        return torch.from_numpy(archive["images"][:200]), torch.from_numpy(archive["labels"][:200].astype(np.int64))


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
@pytest.mark.parametrize("padding", [1, 2, 3])
def test_every_crop_is_a_window_of_the_padded_image(make, padding, channels):
    images = _numbered(120, channels=channels)
    crops = augment(images, make.training(crop_padding=padding), _generator())
    padded = np.pad(images.numpy(), ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    offsets = set()
    for index, crop in enumerate(crops.numpy()):
        windows = [
            (row, column)
            for row in range(2 * padding + 1)
            for column in range(2 * padding + 1)
            if np.array_equal(crop, padded[index, row : row + 4, column : column + 6])
        ]
        assert windows, f"image {index} was not only shifted"
        offsets.update(windows)
    # Every shift is possible, in both directions, and rows are not tied to columns.
    assert {row for row, _ in offsets} == {column for _, column in offsets} == set(range(2 * padding + 1))
    assert len(offsets) > 2 * padding + 1


def test_flip_mirrors_the_width_of_about_half_of_the_images(make):
    images = _numbered(150, channels=3)
    flipped = augment(images, make.training(horizontal_flip=True), _generator())
    kept = (flipped == images).flatten(1).all(dim=1)
    mirrored = (flipped == images.flip(2)).flatten(1).all(dim=1)
    assert (kept ^ mirrored).all()
    assert 50 < int(mirrored.sum()) < 100


@pytest.mark.parametrize("probability", [0.25, 1.0])
def test_erasing_replaces_one_rectangle_in_a_share_of_the_images(make, photographs, probability):
    images, _ = photographs
    erased = augment(images, make.training(erasing_probability=probability), _generator())
    changed = (erased != images).any(dim=3).numpy()  # (B, H, W)
    touched = changed.any(axis=(1, 2))
    assert abs(touched.mean() - probability) < 0.1
    for mask in changed[touched]:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert 0.01 < area / mask.size < 0.3
        assert mask.sum() > 0.9 * area, "the rectangle is full of random pixels"


@pytest.mark.parametrize(("name", "other"), [("mixup_alpha", "cutmix_alpha"), ("cutmix_alpha", "mixup_alpha")])
def test_mixed_images_and_their_targets_have_the_same_shares(make, photographs, name, other):
    images, labels = photographs
    config = make.training(**{name: 1.0, other: 0.0})
    for seed in range(20):
        mixed, targets = mix(images, labels, 10, config, _generator(seed))
        assert mixed.dtype == torch.uint8
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(len(labels)))
        one, two = torch.eye(10)[labels], torch.eye(10)[labels.roll(1)]
        differs = labels != labels.roll(1)
        share = float(targets[differs][0] @ one[differs][0])
        torch.testing.assert_close(targets, share * one + (1 - share) * two)
        before = images.roll(1, 0)
        if name == "mixup_alpha":
            expected = share * images.float() + (1 - share) * before.float()
            torch.testing.assert_close(mixed.float(), expected, atol=0.51, rtol=0)
        else:
            foreign = ((mixed == before) & (mixed != images)).any(dim=3).any(dim=0)  # where some image shows another
            assert float(foreign.float().mean()) == pytest.approx(1 - share, abs=1e-6)
            own = torch.where(foreign[..., None], before, images)
            assert torch.equal(mixed, own)


def test_mixing_happens_in_the_asked_share_of_batches(make, photographs):
    images, labels = photographs
    config = make.training(mixup_alpha=1.0, cutmix_alpha=1.0, mix_probability=0.3)
    mixed = sum(
        not torch.equal(mix(images[:8], labels[:8], 10, config, _generator(seed))[0], images[:8]) for seed in range(300)
    )
    assert 60 < mixed < 120


def test_without_any_setting_nothing_changes(make, photographs):
    images, labels = photographs
    config = make.training()
    assert torch.equal(augment(images, config, _generator()), images)
    mixed, targets = mix(images, labels, 10, config, _generator())
    assert torch.equal(mixed, images)
    assert torch.equal(targets, torch.eye(10)[labels])


def test_the_generator_alone_decides_and_the_images_are_left_alone(make, photographs):
    images, labels = photographs
    before = images.clone()
    config = make.training(
        crop_padding=2,
        horizontal_flip=True,
        erasing_probability=0.5,
        mixup_alpha=0.4,
        cutmix_alpha=1.0,
    )

    def once(seed):
        generator = _generator(seed)
        return mix(augment(images, config, generator), labels, 10, config, generator)

    first = once(3)
    torch.manual_seed(99)  # the global generator has no part in it
    state = torch.random.get_rng_state()
    again, other = once(3), once(4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])
    assert torch.equal(images, before)

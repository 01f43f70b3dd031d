"""Tests of extension: new branches learn, old ones keep every bit, and only new parts are new in a bundle."""

import numpy as np
import pytest
import torch

from paraedge import export
from paraedge.data import ImageDataset, LabelledImages
from paraedge.model import ParaFormer, load_checkpoint
from paraedge.model.extension import copy_old_parts, extended_config
from paraedge.packaged import resolve_checkpoint
from paraedge.training import TrainingConfig, extend
from paraedge.training.batches import normalise
from paraedge.training.extension import extension_training
from paraedge_runtime import Bundle, Session
from paraedge_runtime.errors import InputError

OLD_CLASSES = 8


def _only(data, classes):
    splits = []
    for split in (data.train, data.test):
        chosen = split.labels < classes
        splits.append(LabelledImages(split.images[chosen], split.labels[chosen]))
    return ImageDataset(data.name, *splits, data.class_names[:classes], data.license)


@pytest.fixture(scope="module")
def base(digits, make, train_once, tmp_path_factory):
    """Digits 0 to 7, learned by two branches with convolutions of their own."""
    return train_once(
        _only(digits, OLD_CLASSES),
        make.checkpoint(num_classes=OLD_CLASSES, stem_stride=4, branch_width=(8, 12), branch_depth=(1, 2)),
        make.training(epochs=15, learning_rate=5e-3, branch_weight=0.5, ema_decay=0.9),
        tmp_path_factory.mktemp("base") / "digits",
    )


@pytest.fixture(scope="module")
def extended(base, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("extended") / "digits"
    extend(base, digits, folder, branches=2, config=extension_training(base, 2, epochs=15), device="cpu")
    return load_checkpoint(folder)


def _logits(checkpoint, images):
    with torch.inference_mode():
        return checkpoint.model.branch_logits(normalise(torch.from_numpy(images), checkpoint.config.model))


def test_old_branches_keep_every_bit_and_add_nothing_to_new_classes(base, extended, digits):
    before, after = (_logits(checkpoint, digits.test.images[:50]) for checkpoint in (base, extended))
    assert torch.equal(after[:2, :, :OLD_CLASSES], before)
    assert torch.equal(after[:2, :, OLD_CLASSES:], torch.zeros(2, 50, 2))
    assert after.shape == (4, 50, 10)
    own, state = extended.model.state_dict(), base.model.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items())


def test_new_branches_learn_the_new_classes(base, extended, digits):
    prefixes = _logits(extended, digits.test.images).cumsum(0).argmax(2).numpy() == digits.test.labels
    new = digits.test.labels >= OLD_CLASSES
    assert base.evaluation.prefix_accuracy()[-1] > 0.85
    assert prefixes[1, new].mean() < 0.1
    assert prefixes[3, new].mean() > 0.85
    assert prefixes[3].mean() > 0.85
    assert extended.config.labels == digits.class_names
    assert extended.training.previous == base.training
    assert extended.training.prefix_accuracy == extended.evaluation.prefix_accuracy()


def test_a_bundle_of_the_old_branches_answers_bit_by_bit_as_before(base, extended, digits, tmp_path):
    old, new = (
        export(checkpoint, target="linux", branches=2, out=tmp_path / name)
        for checkpoint, name in ((base, "old.paraedge"), (extended, "new.paraedge"))
    )
    with Session.open(old, threads=1) as before, Session.open(new, threads=1) as after:
        for image in digits.test.images[:20]:
            first, second = before.run(image), after.run(image)
            assert first.label == second.label
            np.testing.assert_array_equal(second.branch_outputs[:, :OLD_CLASSES], first.branch_outputs)
    assert new.manifest.stem.sha256 == old.manifest.stem.sha256


@pytest.fixture(scope="module")
def more_data(base, digits, tmp_path_factory):
    """New branches on the classes that the base knows."""
    return extend(
        base,
        _only(digits, OLD_CLASSES),
        tmp_path_factory.mktemp("more") / "digits",
        branches=1,
        width=16,
        depth=2,
        config=extension_training(base, 1, epochs=2),
        device="cpu",
    )


def test_new_data_changes_no_old_part_of_a_bundle(base, more_data, tmp_path):
    assert more_data.config.model.branch_width == (8, 12, 16)
    assert more_data.config.model.branch_classes is None
    old, new = (
        export(checkpoint, target="linux", out=tmp_path / name)
        for checkpoint, name in ((base, "old.paraedge"), (more_data, "new.paraedge"))
    )
    parts = new.manifest.parts()
    assert {name: part.sha256 for name, part in old.manifest.parts().items()}.items() <= {
        name: part.sha256 for name, part in parts.items()
    }.items()
    assert set(parts) - set(old.manifest.parts()) == {"branch_02"}
    assert isinstance(Bundle.open(new.path), Bundle)


def test_an_extended_model_can_be_extended_again(extended, digits, tmp_path):
    classes = (*digits.class_names, "ten")
    data = digits.with_class_names(classes)
    third = extend(
        extended, data, tmp_path / "third", branches=1, config=extension_training(extended, 1, epochs=1), device="cpu"
    )
    assert third.config.model.branch_classes == (8, 8, 10, 10, 11)
    assert torch.equal(_logits(third, digits.test.images[:9])[:4, :, :10], _logits(extended, digits.test.images[:9]))
    assert load_checkpoint(tmp_path / "third").config == third.config


def test_training_settings_are_those_of_the_base_but_for_the_changes(base):
    config = extension_training(base, 3, epochs=5, seed=4)
    assert config.prefix_weights == (0.0, 0.0, 1.0, 1.0, 1.0)
    assert (config.epochs, config.seed, config.branch_weight, config.ema_decay) == (5, 4, 0.5, 0.9)
    assert isinstance(config, TrainingConfig)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"branches": 0}, "branches must be at least 1"),
        ({"branches": 1, "depth": -1}, "branch_depth must be at least 1"),
        ({"branches": 1, "width": -1}, "branch_width must be at least 1"),
    ],
)
def test_branches_that_cannot_be_are_refused(base, digits, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        extend(base, digits, tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_a_width_for_branches_without_convolutions_is_refused(trained, digits, tmp_path):
    with pytest.raises(InputError, match="width 8 is for branches with convolutions of their own"):
        extend(trained.checkpoint, digits, tmp_path / "x", branches=1, width=8)


@pytest.mark.parametrize(
    ("old", "new"), [({"embed_dim": 16}, {"embed_dim": 32}), ({"num_branches": 3}, {"num_branches": 2})]
)
def test_parts_of_another_network_are_not_copied(make, old, new):
    with pytest.raises(ValueError, match="of the one it extends"):
        copy_old_parts(ParaFormer(make.model(**old)), ParaFormer(make.model(**new)))


def test_new_branches_are_as_the_last_old_one_unless_told_otherwise(make):
    config = extended_config(make.model(branch_depth=3), 2, 10)
    assert (config.num_branches, config.branch_depths, config.branch_width) == (4, (3, 3, 3, 3), None)
    assert config.known_classes == (10, 10, 10, 10)
    staged = extended_config(load_checkpoint(resolve_checkpoint("waste")).config.model, 1, 6)
    assert (staged.num_branches, staged.branch_stage) == (5, (4, 4, 5, 5, 5))

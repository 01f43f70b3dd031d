"""Fixtures of the SDK's tests: scikit-learn's digits as real images, and networks that train in a second."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from paraedge.data import ImageDataset, LabelledImages, load_dataset
from paraedge.model import ParaFormerConfig
from paraedge.model.records import CheckpointConfig
from paraedge.training import TrainingConfig, train


@contextlib.contextmanager
def _one_thread():
    """These networks are too small to share out, and threads that wait for a busy core cost minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def one_thread():
    with _one_thread():
        yield


@pytest.fixture(scope="session")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="session")
def few_digits(digits):
    return ImageDataset(
        name="digits",
        train=LabelledImages(digits.train.images[:100], digits.train.labels[:100]),
        test=LabelledImages(digits.test.images[:60], digits.test.labels[:60]),
        class_names=digits.class_names,
        license=digits.license,
    )


def _model_config(**changes):
    settings = {
        "image_size": 8,
        "in_channels": 1,
        "num_classes": 10,
        "embed_dim": 16,
        "num_heads": 2,
        "mlp_ratio": 2.0,
        "num_branches": 2,
        "branch_depth": 2,
        "stem_stride": 2,
        "mean": (0.3,),
        "std": (0.4,),
    }
    return ParaFormerConfig(**{**settings, **changes})


def _checkpoint_config(**changes):
    model = _model_config(**changes)
    return CheckpointConfig(
        name="digits-tiny",
        description="a test",
        license="CC BY 4.0",
        dataset="digits",
        labels=tuple(str(label) for label in range(model.num_classes)),
        model=model,
    )


def _training_config(**changes):
    settings = {"epochs": 1, "batch_size": 32, "crop_padding": 0, "horizontal_flip": False, "warmup_epochs": 0.5}
    return TrainingConfig(**{**settings, **changes})


@pytest.fixture(scope="session")
def make():
    """Valid settings, with changes: ``make.model(embed_dim=32)``, ``make.checkpoint(...)``, ``make.training(...)``."""
    return SimpleNamespace(model=_model_config, checkpoint=_checkpoint_config, training=_training_config)


@pytest.fixture(scope="session")
def train_once():
    """``train`` for fixtures that outlive a test, and so the autouse fixture above."""

    def call(*arguments, **options):
        with _one_thread():
            return train(*arguments, device="cpu", **options)

    return call


@pytest.fixture(scope="session")
def trained(few_digits, make, train_once, tmp_path_factory):
    """A checkpoint as training returned it, in float32, and the folder it was saved in."""
    folder = tmp_path_factory.mktemp("trained") / "digits"
    checkpoint = train_once(few_digits, make.checkpoint(), make.training(), folder, dtype=torch.float32)
    return SimpleNamespace(checkpoint=checkpoint, folder=folder)

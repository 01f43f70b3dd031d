"""Models of one's own images: ``train``, ``evaluate`` and ``export`` find the data set again."""

import json
import shutil

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from paraedge.cli.evaluate import evaluate
from paraedge.cli.export import export
from paraedge.cli.extend import extend
from paraedge.cli.train import train
from paraedge_runtime import Bundle, InputError

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
SMALL = [
    "--epochs", "6", "--set", "batch_size=16", "--set", "embed_dim=16", "--set", "num_heads=2",
    "--set", "num_branches=2", "--image-size", "16",
]  # fmt: skip


def _colours(count):
    """(3 * count, 16, 16, 3) images, and their classes."""
    rng = np.random.default_rng(1)
    means = np.repeat(np.array(list(COLOURS.values())), count, axis=0)[:, None, None]
    images = np.clip(rng.normal(means, 40, (3 * count, 16, 16, 3)), 0, 255).astype(np.uint8)
    return images, np.repeat(np.arange(3), count)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of images called as no data set is, the same images as ``.npz``, and a model of each."""
    folder = tmp_path_factory.mktemp("own")
    images, labels = _colours(30)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / "mnist" / list(COLOURS)[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "mnist" / list(COLOURS)[label] / f"{number}.png")
    order = np.random.default_rng(0).permutation(90)
    images, labels = images[order], labels[order]
    split = {"x_train": images[:60], "y_train": labels[:60], "x_test": images[60:], "y_test": labels[60:]}
    np.savez(folder / "mine.npz", **split)
    np.savez(folder / "named.npz", **split, class_names=np.array(list(COLOURS)))
    invoke(train, "--dataset", "folder", "--data-dir", folder / "mnist", "--seed", 7, "--out", folder / "F", *SMALL)
    invoke(
        train, "--dataset", "npz", "--data-dir", folder / "mine.npz", "--labels", "red, green,blue",
        "--out", folder / "N", *SMALL,
    )  # fmt: skip
    return folder


def invoke(command, *arguments):
    done = CliRunner().invoke(command, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def refuse(command, *arguments):
    done = CliRunner().invoke(command, [*map(str, arguments)])
    assert isinstance(done.exception, InputError), done.output
    return str(done.exception)


@pytest.mark.parametrize(
    ("model", "loader", "dataset"), [("F", "folder", "mnist"), ("N", "npz", "mine")], ids=["folder", "npz"]
)
def test_the_checkpoint_remembers_how_its_data_set_is_read(place, model, loader, dataset):
    config = json.loads((place / model / "config.json").read_text())
    assert (config["loader"], config["dataset"]) == (loader, dataset)
    assert config["labels"] == (["blue", "green", "red"] if model == "F" else ["red", "green", "blue"])


@pytest.mark.parametrize(("model", "data", "count"), [("F", "mnist", 18), ("N", "mine.npz", 30)], ids=["folder", "npz"])
def test_evaluate_needs_no_more_than_the_place(place, model, data, count):
    options = [place / model, "--data-dir", place / data, "--json"]
    document = json.loads(invoke(evaluate, *options))
    stored = json.loads(invoke(evaluate, place / model, "--json"))
    assert document["num_samples"] == count
    assert document["prefix_accuracy"] == pytest.approx(stored["prefix_accuracy"], abs=1.5 / count)


@pytest.mark.parametrize(("model", "data", "count"), [("F", "mnist", 18), ("N", "mine.npz", 30)], ids=["folder", "npz"])
def test_export_measures_the_parts_on_own_images(place, tmp_path, model, data, count):
    out = tmp_path / "b.paraedge"
    invoke(export, "--target", "linux", "--model", place / model, "--data-dir", place / data, "--quantize", "fp16",
           "--out", out)  # fmt: skip
    card = Bundle.open(out).card
    assert card.accuracy.dataset == f"{'mnist' if model == 'F' else 'mine'} test split, fp16 in onnxruntime"
    assert card.accuracy.num_samples == count
    assert card.accuracy.prefix_accuracy[-1] > 0.9
    assert card.early_stop is not None


def test_auto_works_for_a_model_of_own_images(place, tmp_path):
    out = tmp_path / "b.paraedge"
    text = invoke(export, "--target", "linux", "--model", place / "F", "--data-dir", place / "mnist",
                  "--quantize", "auto", "--out", out)  # fmt: skip
    assert "tried" in text
    assert Bundle.open(out).card.accuracy.num_samples == 18


def test_another_data_set_may_be_named(place, tmp_path):
    out = tmp_path / "b.paraedge"
    # Its classes are in another order than the model's.
    invoke(export, "--target", "linux", "--model", place / "F", "--dataset", "npz", "--data-dir", place / "named.npz",
           "--out", out)  # fmt: skip
    accuracy = Bundle.open(out).card.accuracy
    assert accuracy.dataset == "named test split, fp32 in onnxruntime"
    assert accuracy.prefix_accuracy[-1] > 0.9


def test_what_does_not_belong_to_the_model_is_refused(place, tmp_path):
    options = ["--target", "linux", "--out", tmp_path / "b.paraedge", "--model", place / "F"]
    assert "digits has images of 8×8×1, the model reads 16×16×3" in refuse(export, *options, "--dataset", "digits")
    assert "'folder' needs --data-dir" in refuse(export, *options, "--quantize", "auto")


def test_a_checkpoint_from_before_says_what_to_pass(place, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    for path in (place / "F").iterdir():
        (old / path.name).write_bytes(path.read_bytes())
    config = msgspec.json.decode((old / "config.json").read_bytes())
    del config["loader"]
    (old / "config.json").write_bytes(msgspec.json.encode(config))
    options = ["--target", "linux", "--out", tmp_path / "b.paraedge", "--model", old, "--data-dir", place / "mnist"]
    assert "name the data set with --dataset digits, fashion-mnist, cifar10, folder, npz" in refuse(export, *options)
    # Trained with --seed 7, which in those days was the seed of the split, too.
    options += ["--dataset", "folder", "--branches", 1]
    for command, arguments in (
        (export, options),
        (evaluate, [old, "--dataset", "folder", "--data-dir", place / "mnist"]),
    ):
        message = refuse(command, *arguments)
        assert (
            "split mnist by --seed 7: its test split here would include training images; put your own split" in message
        )
    for split in ("train", "test"):
        shutil.copytree(place / "mnist", tmp_path / "split" / split)
    invoke(export, *options, "--data-dir", tmp_path / "split")
    record = msgspec.json.decode((old / "training.json").read_bytes())
    (old / "training.json").write_bytes(msgspec.json.encode({**record, "seed": 0}))
    invoke(export, *options)


def test_labels_are_for_files_that_have_none(place, tmp_path):
    for command, options in ((train, []), (extend, [place / "F"])):
        message = refuse(command, *options, "--dataset", "folder", "--labels", "a,b", "--out", tmp_path / "x")
        assert "--labels is for --dataset npz; the data set 'folder' names its classes" in message

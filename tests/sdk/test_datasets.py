"""Tests of paraedge.data.datasets: every name from its standard files, and what is said when they are not there."""

import gzip
import os
import pickle
import struct
import unicodedata

import click
import numpy as np
import pytest
from PIL import Image

from paraedge.cli.options import LABELS
from paraedge.data import DATASETS, FolderOptions, load_dataset
from paraedge_runtime.errors import InputError

RNG = np.random.default_rng(0)
MNIST_FILES = {"train": 30, "t10k": 12}


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch):
    monkeypatch.delenv("PARAEDGE_DATA", raising=False)


def _write_idx(path, array):
    content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def _fashion_mnist(folder, suffix=".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for prefix, count in MNIST_FILES.items():
        images = RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        _write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", images)
        _write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", labels)
        written[prefix] = images, labels
    return written


def _cifar10(folder):
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for name in [*(f"data_batch_{index}" for index in range(1, 6)), "test_batch"]:
        planes = RNG.integers(0, 256, (4, 3072), dtype=np.uint8)
        labels = RNG.integers(0, 10, 4).tolist()
        (folder / name).write_bytes(pickle.dumps({b"data": planes, b"labels": labels}, protocol=2))
        written[name] = planes.reshape(4, 3, 32, 32).transpose(0, 2, 3, 1), labels
    return written


def _npz(path, shape):
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        "x_train": RNG.integers(0, 256, (20, *shape), dtype=np.uint8),
        "y_train": np.arange(20) % 10,
        "x_test": RNG.integers(0, 256, (10, *shape), dtype=np.uint8),
        "y_test": np.arange(10),
    }
    np.savez_compressed(path, **arrays)
    return arrays


def _images(folder, classes, count=3):
    for index, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.fromarray(np.full((10, 10, 3), 10 * index + number, np.uint8)).save(folder / name / f"{number}.png")


# --- digits ---------------------------------------------------------------------------------------


def test_digits_are_real_split_without_overlap_and_the_same_every_time(digits):
    again = load_dataset("digits")
    assert digits.image_shape == (8, 8, 1)
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    assert digits.class_names == tuple("0123456789")
    assert int(digits.train.images.max()) == 255
    assert np.array_equal(digits.test.images, again.test.images)
    assert np.array_equal(digits.train.labels, again.train.labels)
    from sklearn.datasets import load_digits

    everything = np.concatenate([digits.train.images, digits.test.images])[..., 0]
    bunch = load_digits()
    assert sorted(map(bytes, everything)) == sorted(
        bytes(image) for image in np.rint(bunch.images * 255 / 16).astype(np.uint8)
    )


# --- Fashion-MNIST --------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "fashion_mnist", "fashion-mnist", "FashionMNIST/raw"])
@pytest.mark.parametrize("suffix", [".gz", ""], ids=["gzipped", "unpacked"])
def test_fashion_mnist_from_its_idx_files(tmp_path, below, suffix):
    written = _fashion_mnist(tmp_path / below, suffix)
    data = load_dataset("fashion-mnist", tmp_path)
    assert data.image_shape == (28, 28, 1)
    assert data.class_names[0] == "T-shirt/top"
    assert len(data.class_names) == 10
    assert data.license.startswith("MIT")
    for split, prefix in ((data.train, "train"), (data.test, "t10k")):
        images, labels = written[prefix]
        assert np.array_equal(split.images[..., 0], images)
        assert np.array_equal(split.labels, labels)
        assert split.images.flags.writeable


@pytest.mark.parametrize("name", ["fashion_mnist.npz", "fashion-mnist.npz", "fashion_mnist/fashion_mnist.npz"])
def test_fashion_mnist_from_one_npz(tmp_path, name):
    arrays = _npz(tmp_path / name, (28, 28))
    data = load_dataset("fashion-mnist", str(tmp_path))
    assert np.array_equal(data.train.images[..., 0], arrays["x_train"])
    assert np.array_equal(data.test.labels, arrays["y_test"])


@pytest.mark.parametrize("missing", ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
def test_fashion_mnist_with_one_file_missing_names_it(tmp_path, missing):
    _fashion_mnist(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(InputError, match=f"Fashion-MNIST was not found in .*{missing} is missing"):
        load_dataset("fashion-mnist", tmp_path)


def test_fashion_mnist_whose_labels_are_of_another_split_is_refused(tmp_path):
    _fashion_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").replace(tmp_path / "train-labels-idx1-ubyte.gz")
    _write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.zeros(12, np.uint8))
    with pytest.raises(InputError, match=r"labels must be \(30,\)"):
        load_dataset("fashion-mnist", tmp_path)


def test_label_beyond_the_classes_is_refused(tmp_path):
    _fashion_mnist(tmp_path)
    _write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.full(12, 10, np.uint8))
    with pytest.raises(InputError, match="fashion-mnist: test labels run from 10 to 10, but there are 10 class names"):
        load_dataset("fashion-mnist", tmp_path)


# --- CIFAR-10 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "cifar-10-batches-py", "cifar10", "cifar-10"])
def test_cifar10_from_its_batches(tmp_path, below):
    written = _cifar10(tmp_path / below)
    data = load_dataset("cifar10", tmp_path)
    assert data.image_shape == (32, 32, 3)
    assert data.class_names[:2] == ("airplane", "automobile")
    assert len(data.train) == 20
    for index in range(5):
        images, labels = written[f"data_batch_{index + 1}"]
        assert np.array_equal(data.train.images[4 * index : 4 * index + 4], images)
        assert data.train.labels[4 * index : 4 * index + 4].tolist() == labels
    assert np.array_equal(data.test.images, written["test_batch"][0])


@pytest.mark.parametrize("name", ["cifar10.npz", "cifar-10.npz"])
def test_cifar10_from_one_npz(tmp_path, name):
    arrays = _npz(tmp_path / name, (32, 32, 3))
    data = load_dataset("cifar10", tmp_path)
    assert np.array_equal(data.test.images, arrays["x_test"])


@pytest.mark.parametrize("missing", ["data_batch_3", "test_batch"])
def test_cifar10_with_one_batch_missing_names_it(tmp_path, missing):
    _cifar10(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(InputError, match=f"{missing} is missing"):
        load_dataset("cifar10", tmp_path)


# --- what is said when there is nothing -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "source"),
    [
        pytest.param("fashion-mnist", "https://github.com/zalandoresearch/fashion-mnist", id="fashion-mnist"),
        pytest.param("cifar10", "https://www.cs.toronto.edu/~kriz/cifar.html", id="cifar10"),
    ],
)
@pytest.mark.parametrize("given", [False, True], ids=["no-folder", "empty-folder"])
def test_absent_files_are_explained(tmp_path, name, source, given):
    with pytest.raises(InputError) as caught:
        load_dataset(name, tmp_path if given else None)
    message = str(caught.value)
    for part in ("was not found", source, "--data-dir", "PARAEDGE_DATA", ".npz"):
        assert part in message
    assert (str(tmp_path) in message) == given


def test_unknown_name_lists_the_valid_ones():
    with pytest.raises(InputError, match="unknown data set 'mnist'; choose one of " + ", ".join(DATASETS)):
        load_dataset("mnist")


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "folder"])
def test_data_folder_that_does_not_exist_is_named(tmp_path, name):
    with pytest.raises(InputError, match=r"absent does not exist; set --data-dir or PARAEDGE_DATA"):
        load_dataset(name, tmp_path / "absent")


def test_environment_variable_says_where_the_files_are(tmp_path, monkeypatch):
    _fashion_mnist(tmp_path)
    monkeypatch.setenv("PARAEDGE_DATA", str(tmp_path))
    assert len(load_dataset("fashion-mnist").train) == 30


def test_argument_beats_the_environment_variable(tmp_path, monkeypatch):
    _fashion_mnist(tmp_path / "here")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("PARAEDGE_DATA", str(tmp_path / "elsewhere"))
    assert len(load_dataset("fashion-mnist", tmp_path / "here").train) == 30


# --- a folder of one's own ------------------------------------------------------------------------


def test_folder_without_a_split_is_split_by_chance_and_always_the_same(tmp_path):
    _images(tmp_path, ["zebra", "ant", "fox"], count=5)
    options = FolderOptions(image_size=8, test_fraction=0.4)
    data, again = (load_dataset("folder", tmp_path, options) for _ in range(2))
    assert data.name == tmp_path.name
    assert data.class_names == ("ant", "fox", "zebra")
    assert (len(data.train), len(data.test)) == (9, 6)
    # Every image once: its value tells class and number, in the order that they were written.
    values = np.concatenate([data.train.images[:, 0, 0, 0], data.test.images[:, 0, 0, 0]])
    labels = np.concatenate([data.train.labels, data.test.labels])
    assert sorted(values.tolist()) == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 20, 21, 22, 23, 24]
    assert [data.class_names[label] for label in labels] == [("zebra", "ant", "fox")[value // 10] for value in values]
    assert sorted(values[: len(data.train)].tolist()) != values[: len(data.train)].tolist()
    assert np.array_equal(data.test.images, again.test.images)


def test_folder_with_train_and_test_keeps_that_split(tmp_path):
    _images(tmp_path / "train", ["b", "a"], count=4)
    _images(tmp_path / "test", ["b", "a"], count=2)
    data = load_dataset("folder", tmp_path, FolderOptions(image_size=8, channels=1))
    assert data.class_names == ("a", "b")
    assert data.image_shape == (8, 8, 1)
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    assert data.test.labels.tolist() == [0] * 2 + [1] * 2


def test_folder_uses_colour_squares_of_32_pixels_by_default(tmp_path):
    _images(tmp_path, ["a", "b"])
    assert load_dataset("folder", tmp_path).image_shape == (32, 32, 3)


def test_hidden_folders_are_no_classes(tmp_path):
    _images(tmp_path, ["a", "b", ".thumbnails"])
    assert load_dataset("folder", tmp_path).class_names == ("a", "b")


def test_what_systems_leave_is_no_class_and_no_image(tmp_path):
    for split in ("train", "test"):
        _images(tmp_path / split, ["a", "b"], count=2)
        _images(tmp_path / split, ["__MACOSX", "System Volume Information", "@eaDir", ".Trashes"])
        for name in ("._0.png", ".DS_Store", "Thumbs.db"):
            (tmp_path / split / "a" / name).write_bytes(b"\0\5\26\7")
    data = load_dataset("folder", tmp_path)
    assert data.class_names == ("a", "b")
    assert (len(data.train), len(data.test)) == (4, 4)


@pytest.mark.parametrize("forms", [("NFC",), ("NFD",), ("NFC", "NFD")])
def test_a_class_is_the_same_in_whatever_form_unicode_writes_it(tmp_path, forms):
    for number, form in enumerate(forms):
        _images(tmp_path, [unicodedata.normalize(form, "caf\u00e9")], count=3 + number)
    _images(tmp_path, ["tea"], count=3)
    data = load_dataset("folder", tmp_path, FolderOptions(image_size=8))
    assert data.class_names == ("caf\u00e9", "tea")
    labels = np.concatenate([data.train.labels, data.test.labels])
    assert np.bincount(labels).tolist() == [3 if len(forms) == 1 else 7, 3]


def test_forms_of_unicode_may_differ_between_train_and_test(tmp_path):
    _images(tmp_path / "train", [unicodedata.normalize("NFC", "café"), "tea"], count=2)
    _images(tmp_path / "test", [unicodedata.normalize("NFD", "café"), "tea"], count=2)
    assert load_dataset("folder", tmp_path).test.labels.tolist() == [0, 0, 1, 1]


def test_a_class_whose_name_is_not_utf8_is_refused(tmp_path):
    _images(tmp_path, ["a", "b"])
    (tmp_path / os.fsdecode(b"latin-\xe9")).mkdir()
    with pytest.raises(InputError, match="latin-� has a name that is not UTF-8; rename it"):
        load_dataset("folder", tmp_path)


def test_a_folder_whose_name_is_not_utf8_is_called_by_what_can_be_shown(tmp_path):
    folder = tmp_path / os.fsdecode(b"latin-\xe9")
    _images(folder, ["a", "b"], count=2)
    assert load_dataset("folder", folder).name == "latin-�"


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        pytest.param([], r"must have at least 2 class folders, got 0", id="none"),
        pytest.param(["only"], r"must have at least 2 class folders, got 1", id="one"),
        pytest.param([".hidden", "only"], r"has 1 class folder\(s\)", id="one-and-a-hidden-one"),
        pytest.param(["train/only", "test/only"], r"train has 1 class folder\(s\)", id="one-in-a-split"),
    ],
)
def test_folder_with_fewer_than_two_classes_is_refused(tmp_path, classes, message):
    _images(tmp_path, classes)
    with pytest.raises(InputError, match=message):
        load_dataset("folder", tmp_path)


def test_folder_needs_a_folder():
    with pytest.raises(InputError, match="needs --data-dir, a folder with one sub-folder of images, recordings or"):
        load_dataset("folder")


def test_a_class_without_images_is_refused(tmp_path):
    _images(tmp_path, ["a"], count=1)
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError, match="b has no images; put some there, or remove that folder"):
        load_dataset("folder", tmp_path)


@pytest.mark.parametrize("names", [("train", "val"), ("train", "cats"), ("cats", "dogs", "test")])
def test_a_half_named_split_is_not_taken_for_classes(tmp_path, names):
    for name in names:
        (tmp_path / name / "cats").mkdir(parents=True)
    with pytest.raises(InputError, match="name the two folders train and test"):
        load_dataset("folder", tmp_path)


def test_a_class_that_only_the_test_split_has_is_refused(tmp_path):
    for name in ("train/cats", "train/dogs", "test/cats", "test/emus"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(InputError, match=r"test has classes that .*train lacks: emus"):
        load_dataset("folder", tmp_path)


def test_a_file_in_place_of_a_folder_says_which_data_set_it_would_be(tmp_path):
    _npz(tmp_path / "mine.npz", (8, 8))
    with pytest.raises(
        InputError, match=r"mine\.npz is a file, and the data set 'folder' is a folder; use --dataset npz"
    ):
        load_dataset("folder", tmp_path / "mine.npz")


# --- an .npz of one's own -------------------------------------------------------------------------

TEN = tuple("abcdefghij")


def _named_npz(path, names, shape=(8, 8)):
    arrays = _npz(path, shape)
    np.savez(path, **arrays, class_names=np.array(names))
    return arrays


def test_npz_has_its_class_names_inside(tmp_path):
    arrays = _named_npz(tmp_path / "mine.npz", TEN)
    data = load_dataset("npz", tmp_path / "mine.npz")
    assert (data.name, data.class_names, data.image_shape) == ("mine", TEN, (8, 8, 1))
    assert np.array_equal(data.train.images[..., 0], arrays["x_train"])
    assert data.test.labels.tolist() == arrays["y_test"].tolist()


def test_npz_without_class_names_takes_those_that_are_given(tmp_path):
    _npz(tmp_path / "mine.npz", (8, 8, 3))
    data = load_dataset("npz", tmp_path / "mine.npz", FolderOptions(class_names=TEN))
    assert (data.class_names, data.image_shape) == (TEN, (8, 8, 3))


def test_names_typed_composed_and_decomposed_are_one_class(tmp_path):
    decomposed, composed = "cafe\u0301", "caf\u00e9"
    _named_npz(tmp_path / "mine.npz", (*TEN[:9], decomposed))
    assert load_dataset("npz", tmp_path / "mine.npz").class_names == (*TEN[:9], composed)
    assert LABELS.convert(f"{decomposed}, b", None, None) == (composed, "b")
    _named_npz(tmp_path / "twice.npz", (*TEN[:8], decomposed, composed))
    with pytest.raises(InputError, match="class_names must be different strings"):
        load_dataset("npz", tmp_path / "twice.npz")
    with pytest.raises(click.BadParameter, match="not a list of unique names"):
        LABELS.convert(f"{decomposed},{composed}", None, None)


def test_npz_may_be_named_by_the_environment_variable(tmp_path, monkeypatch):
    _named_npz(tmp_path / "mine.npz", TEN)
    monkeypatch.setenv("PARAEDGE_DATA", str(tmp_path / "mine.npz"))
    assert load_dataset("npz").class_names == TEN


@pytest.mark.parametrize(
    ("inside", "given", "message"),
    [
        (
            None,
            None,
            r"mine\.npz does not name its 10 classes; save them in it as the array class_names, or pass --labels",
        ),
        (None, TEN[:3], "labels run from 0 to 9, but there are 3 class names"),
        (TEN, ("x", "y"), "mine.npz has the class 'a', which is not among x, y"),
        (["a"] * 10, None, "class_names must be different strings"),
        (list(range(10)), None, "got int64 of shape"),
        (np.array(TEN, dtype=object), None, r"mine\.npz cannot be read: .*; save them as numpy\.array"),
    ],
)
def test_npz_whose_classes_have_no_usable_names_is_refused(tmp_path, inside, given, message):
    if inside is None:
        _npz(tmp_path / "mine.npz", (8, 8))
    else:
        _named_npz(tmp_path / "mine.npz", inside)
    with pytest.raises(InputError, match=message):
        load_dataset("npz", tmp_path / "mine.npz", FolderOptions(class_names=given))


@pytest.mark.parametrize("given", [None, ".", "gone.npz"])
def test_npz_that_is_no_file_says_what_is_needed(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"'npz' needs a file as --data-dir, such as mine\.npz, with the arrays x_train"
    ):
        load_dataset("npz", given)


def test_another_data_set_under_a_public_one_s_name_is_refused(tmp_path):
    """MNIST saved as fashion_mnist.npz must not learn the names of clothes."""
    _named_npz(tmp_path / "fashion_mnist.npz", [str(digit) for digit in range(10)], (28, 28))
    with pytest.raises(InputError, match=r"has the classes 0, 1, .*: another data set; use --dataset npz"):
        load_dataset("fashion-mnist", tmp_path)

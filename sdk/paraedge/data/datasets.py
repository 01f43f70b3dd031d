"""The data sets that ``--dataset`` names, and where their files are looked for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from paraedge.data.images import ImageDataset, LabelledImages
from paraedge.data.labelled import Labelled
from paraedge.data.motion import CSV_SUFFIXES, holds_windows, is_window_npz, read_window_folders, read_window_npz
from paraedge.data.readers import (
    class_folders,
    counted,
    left_out,
    read_cifar_batch,
    read_class_folder,
    read_class_names,
    read_idx,
    read_npz,
)
from paraedge.data.signals import SignalDataset
from paraedge.data.sound import holds_sound, read_sound_folders
from paraedge_runtime._arguments import as_choice, as_instance, as_path
from paraedge_runtime.errors import InputError
from paraedge_runtime.inputs import IMAGE_SUFFIXES, Resize, display_name
from paraedge_runtime.manifest import ImageInput, InputSpec
from paraedge_runtime.sensor_windows import WindowShape
from paraedge_runtime.sound import SOUND_SUFFIXES

__all__ = [
    "DATASETS",
    "DATA_DIR_VARIABLE",
    "FolderOptions",
    "check_old_split",
    "files_left_out",
    "load_dataset",
    "options_for",
    "usual_recipe",
]

L = TypeVar("L", bound=Labelled)

DATA_DIR_VARIABLE = "PARAEDGE_DATA"

_FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_OWN_WINDOWS = "unknown (your own windows)"
_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class FolderOptions:
    """How to read a folder of images or recordings as a data set.

    Attributes:
        image_size: for ``folder``: side of the square images in pixels, or (height, width).
        resize: for ``folder``: see :class:`paraedge_runtime.manifest.ImageInput`.
        channels: for ``folder``: 1 (grey) or 3 (colour).
        test_fraction: for ``folder`` without a split: fraction of the images in the test split.
        length, rate_hz: for signals: samples per window, and per second; ``None`` as in the data.
        channel_names: for signals: the channels to read, in this order; ``None`` as in the data.
        class_names: for ``npz``: one name per class index, if the file has none.
    """

    image_size: int | tuple[int, int] = 32
    resize: Resize = "crop"
    channels: int = 3
    test_fraction: float = 0.2
    length: int | None = None
    rate_hz: float | None = None
    channel_names: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None


def options_for(spec: InputSpec, class_names: tuple[str, ...] | None) -> FolderOptions:
    """How files become what a model or bundle reads."""
    if isinstance(spec, ImageInput):
        _, channels, height, width = spec.shape
        return FolderOptions((height, width), spec.resize, channels, class_names=class_names)
    return FolderOptions(
        length=spec.shape[-1], rate_hz=spec.rate_hz, channel_names=spec.channel_names, class_names=class_names
    )


def check_old_split(trained_on: str, loader: str | None, seed: int, dataset: str, data_dir: Path | None) -> None:
    """Refuse to test an old checkpoint on images that may have trained it.

    Before checkpoints had a ``loader``, the seed split a folder of images; now the split is always that of seed 0.

    Raises:
        InputError: with what to do.
    """
    if dataset != "folder" or loader is not None or trained_on in DATASETS or seed == 0:
        return
    folder = Path(data_dir or os.environ.get(DATA_DIR_VARIABLE) or ".")
    if not all((folder / split).is_dir() for split in ("train", "test")):
        raise InputError(
            f"the model was trained by an older version, which split {trained_on} by --seed {seed}: its test split "
            "here would include training images; put your own split into the folders train and test, or train again"
        )


def load_dataset(
    name: str, data_dir: str | os.PathLike[str] | None = None, folder_options: FolderOptions | None = None
) -> ImageDataset | SignalDataset:
    """Load a data set by name.

    Args:
        name: one of :data:`DATASETS`.
        data_dir: folder with the files, or the ``.npz`` file; ``None`` for the environment variable
            ``PARAEDGE_DATA``.
        folder_options: for ``folder`` and ``npz`` only.

    Raises:
        InputError: the name is unknown, or files are damaged or missing (the message says where to get them).
    """
    as_choice("data set", name, DATASETS)
    options = (
        FolderOptions() if folder_options is None else as_instance("folder_options", folder_options, FolderOptions)
    )
    chosen = data_dir if data_dir is not None else os.environ.get(DATA_DIR_VARIABLE) or None
    folder = None if chosen is None else as_path("data_dir", chosen)
    if folder is not None and name != "npz" and not folder.is_dir():
        if folder.is_file():
            hint = "use --dataset npz" if folder.suffix == ".npz" else "name the folder that it is in"
            raise InputError(f"{folder} is a file, and the data set {name!r} is a folder; {hint}")
        raise InputError(f"the data folder {folder} does not exist; set --data-dir or {DATA_DIR_VARIABLE}")
    return DATASETS[name](folder, options)


def _digits(folder: Path | None, options: FolderOptions) -> ImageDataset:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise InputError("the data set 'digits' comes with scikit-learn; pip install 'paraedge[train]'") from None
    digits = load_digits()
    images = np.rint(digits.images * (255.0 / 16.0)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    test, train = order[:360], order[360:]
    return ImageDataset(
        name="digits",
        train=LabelledImages(images[train], labels[train]),
        test=LabelledImages(images[test], labels[test]),
        class_names=tuple(str(digit) for digit in range(10)),
        license="CC BY 4.0 (UCI Optical Recognition of Handwritten Digits)",
    )


def _fashion_mnist(folder: Path | None, options: FolderOptions) -> ImageDataset:
    help_text = (
        "Fashion-MNIST was not found{where}. Put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, "
        "t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz from "
        "https://github.com/zalandoresearch/fashion-mnist (or one fashion_mnist.npz) into a folder and pass "
        "it as --data-dir or " + DATA_DIR_VARIABLE
    )
    base = _first_folder(folder, help_text, "fashion_mnist", "fashion-mnist", "FashionMNIST/raw")
    archive = _first_file(base, "fashion_mnist.npz", "fashion-mnist.npz")
    if archive is not None:
        train, test = _read_archive(archive, _FASHION_MNIST_CLASSES)
    else:
        splits = []
        for prefix in ("train", "t10k"):
            parts = []
            for part in ("images-idx3-ubyte", "labels-idx1-ubyte"):
                path = _first_file(base, f"{prefix}-{part}.gz", f"{prefix}-{part}")
                if path is None:
                    raise InputError(help_text.format(where=f" in {base} ({prefix}-{part}.gz is missing)"))
                parts.append(read_idx(path))
            splits.append(LabelledImages(parts[0][..., None], parts[1].astype(np.int64)))
        train, test = splits
    return ImageDataset("fashion-mnist", train, test, _FASHION_MNIST_CLASSES, "MIT (Zalando SE)")


def _cifar10(folder: Path | None, options: FolderOptions) -> ImageDataset:
    help_text = (
        "CIFAR-10 was not found{where}. Unpack cifar-10-python.tar.gz from "
        "https://www.cs.toronto.edu/~kriz/cifar.html (or put one cifar10.npz) into a folder and pass it as "
        "--data-dir or " + DATA_DIR_VARIABLE
    )
    base = _first_folder(folder, help_text, "cifar-10-batches-py", "cifar10", "cifar-10")
    archive = _first_file(base, "cifar10.npz", "cifar-10.npz")
    if archive is not None:
        train, test = _read_archive(archive, _CIFAR10_CLASSES)
    elif _first_file(base, "data_batch_1") is not None:
        batches = [read_cifar_batch(base / f"data_batch_{index}") for index in range(1, 6)]
        train = LabelledImages(
            np.concatenate([batch.images for batch in batches]), np.concatenate([batch.labels for batch in batches])
        )
        test = read_cifar_batch(base / "test_batch")
    else:
        raise InputError(help_text.format(where=f" in {base}"))
    return ImageDataset(
        "cifar10", train, test, _CIFAR10_CLASSES, "no licence stated by its authors; cite Krizhevsky 2009"
    )


def files_left_out(dataset: str, data_dir: Path | None) -> str:
    """One line on the files of a data folder that :func:`load_dataset` does not read; empty where it reads all."""
    folder = data_dir or Path(os.environ.get(DATA_DIR_VARIABLE) or "")
    if dataset != "folder" or not folder.is_dir():
        return ""
    is_sound = holds_sound(folder)
    kind = SOUND_SUFFIXES if is_sound else CSV_SUFFIXES if holds_windows(folder) else IMAGE_SUFFIXES
    # Notes beside the class folders are in nobody's way.
    roots = [path for split in ("train", "test") if (path := folder / split).is_dir()] or [folder]
    others = sum(
        (left_out(path, kind) for root in roots for paths in class_folders(root).values() for path in paths),
        Counter[str](),
    )
    if not others:
        return ""
    return f"Left out: {counted(others)}; files that are read end in {', '.join(sorted(kind))}"


def usual_recipe(dataset: str, data_dir: Path | None) -> str | None:
    """The training recipe for data of a kind that has one: ``sound`` for a folder of recordings, ``motion`` for
    windows."""
    folder = data_dir or os.environ.get(DATA_DIR_VARIABLE) or ""
    if dataset == "npz" and folder and Path(folder).is_file() and is_window_npz(Path(folder)):
        return "motion"
    if dataset != "folder" or not folder or not Path(folder).is_dir():
        return None
    if holds_sound(Path(folder)):
        return "sound"
    return "motion" if holds_windows(Path(folder)) else None


def _folder(folder: Path | None, options: FolderOptions) -> ImageDataset | SignalDataset:
    """One sub-folder per class; ``train/`` and ``test/`` above them if the split is given."""
    if folder is None:
        raise InputError(
            "the data set 'folder' needs --data-dir, a folder with one sub-folder of images, recordings or windows "
            "per class"
        )
    is_sound = holds_sound(folder)
    is_motion = not is_sound and holds_windows(folder)
    what = "recordings" if is_sound else "windows" if is_motion else "images"
    roots = {name: folder / name for name in ("train", "test")}
    split_given = all(path.is_dir() for path in roots.values())
    class_root = roots["train"] if split_given else folder
    names = tuple(class_folders(class_root))
    splits = [name for name in names if name.lower() in ("train", "test", "val", "valid", "validation")]
    if splits:
        raise InputError(
            f"{class_root} has the folders {', '.join(names)}; to split the {what} yourself, name the two "
            "folders train and test, else put only class folders there"
        )
    if len(names) < 2:
        raise InputError(
            f"{class_root} must have at least 2 class folders, got {len(names)}; "
            f"put the {what} of each class into a sub-folder named after it"
        )
    if split_given:
        only_test = sorted(set(class_folders(roots["test"])) - set(names))
        if only_test:
            raise InputError(f"{roots['test']} has classes that {roots['train']} lacks: {', '.join(only_test)}")
    if is_sound:
        return _recordings(folder, list(roots.values()) if split_given else [folder], names, options)
    if is_motion:
        return _windows(folder, list(roots.values()) if split_given else [folder], names, options)
    if options.channels not in (1, 3):
        raise InputError(f"the model reads {options.channels} channels, image files have 1 or 3; use --dataset npz")
    if split_given:
        train, test = (
            read_class_folder(roots[split], names, options.image_size, options.channels, options.resize)
            for split in ("train", "test")
        )
    else:
        everything = read_class_folder(folder, names, options.image_size, options.channels, options.resize)
        train, test = _split(everything, options.test_fraction)
    return ImageDataset(
        display_name(folder.resolve().name) or "images", train, test, names, "unknown (your own images)"
    )


def _recordings(folder: Path, roots: list[Path], names: tuple[str, ...], options: FolderOptions) -> SignalDataset:
    """Folders of ``.wav`` files; without ``train`` and ``test`` one speaker may be on both sides."""
    if options.channel_names is not None and len(options.channel_names) > 1:
        raise InputError(
            f"{folder} has recordings, the model reads {', '.join(options.channel_names)}; name a folder of .csv files"
        )
    splits, rate_hz = read_sound_folders(roots, names, options.length, options.rate_hz)
    train, test = splits if len(splits) == 2 else _split(splits[0], options.test_fraction)
    name = display_name(folder.resolve().name) or "recordings"
    return SignalDataset(name, train, test, names, "unknown (your own recordings)", rate_hz, ("mono",))


def _windows(folder: Path, roots: list[Path], names: tuple[str, ...], options: FolderOptions) -> SignalDataset:
    """Folders of ``.csv`` files; without ``train`` and ``test`` one person may be on both sides."""
    splits, shape = read_window_folders(roots, names, _wanted(options))
    train, test = splits if len(splits) == 2 else _split(splits[0], options.test_fraction)
    name = display_name(folder.resolve().name) or "windows"
    return SignalDataset(name, train, test, names, _OWN_WINDOWS, shape.rate_hz, shape.channel_names)


def _wanted(options: FolderOptions) -> WindowShape | None:
    """What windows must be, if a model says so."""
    if options.length is None or options.rate_hz is None or options.channel_names is None:
        return None
    return WindowShape(options.length, options.rate_hz, options.channel_names)


def _split(everything: L, test_fraction: float) -> tuple[L, L]:
    """Train and test. The same inputs are the same split whatever the seed is: whoever tests a model later must not
    meet what trained it. One that is added or removed changes the split; folders train and test do not."""
    order = np.random.default_rng(0).permutation(len(everything))
    count = max(1, round(len(order) * test_fraction))
    return everything.take(order[count:]), everything.take(order[:count])


def _npz(path: Path | None, options: FolderOptions) -> ImageDataset | SignalDataset:
    """One file with the arrays of both splits; ``class_names`` in it, or by option."""
    if path is None or not path.is_file():
        given = "" if path is None else f", and {path} is none"
        raise InputError(
            "the data set 'npz' needs a file as --data-dir, such as mine.npz, with the arrays x_train, y_train, "
            f"x_test and y_test{given}"
        )
    if is_window_npz(path):
        (train, shape), (test, _) = read_window_npz(path, _wanted(options))
        names = _npz_class_names(path, options, train.labels, test.labels)
        return SignalDataset(path.stem, train, test, names, _OWN_WINDOWS, shape.rate_hz, shape.channel_names)
    images = read_npz(path)
    names = _npz_class_names(path, options, *(split.labels for split in images))
    return ImageDataset(path.stem, *images, names, "unknown (your own images)")


def _npz_class_names(path: Path, options: FolderOptions, *labels: NDArray[np.int64]) -> tuple[str, ...]:
    """Those in the file, or by option."""
    inside = read_class_names(path)
    names = inside or options.class_names
    if names is None:
        count = int(max(split.max(initial=-1) for split in labels)) + 1
        if count < 2:
            raise InputError(f"{path} must have at least 2 classes, got {count}; add inputs of another class")
        raise InputError(
            f"{path} does not name its {count} classes; save them in it as the array class_names, or pass --labels"
        )
    if inside and options.class_names and (unknown := [name for name in inside if name not in options.class_names]):
        raise InputError(
            f"{path} has the class {unknown[0]!r}, which is not among {', '.join(options.class_names)}; "
            "leave --labels out, or change the array class_names"
        )
    return names


def _read_archive(path: Path, class_names: tuple[str, ...]) -> tuple[LabelledImages, LabelledImages]:
    """A public data set as one ``.npz``; if it names its classes, they must be those."""
    inside = read_class_names(path)
    if inside not in (None, class_names):
        raise InputError(f"{path} has the classes {', '.join(inside or ())}: another data set; use --dataset npz")
    return read_npz(path)


def _first_folder(folder: Path | None, help_text: str, *names: str) -> Path:
    """``folder`` itself or the first of its sub-folders ``names`` that exists."""
    if folder is None:
        raise InputError(help_text.format(where=""))
    return next((folder / name for name in names if (folder / name).is_dir()), folder)


def _first_file(folder: Path, *names: str) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


DATASETS: dict[str, Callable[[Path | None, FolderOptions], ImageDataset | SignalDataset]] = {
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
    "cifar10": _cifar10,
    "folder": _folder,
    "npz": _npz,
}

"""The test images that belong to a model or bundle: by data set, or those that ship with the packaged models."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from paraedge.data.datasets import DATA_DIR_VARIABLE, DATASETS, FolderOptions, load_dataset
from paraedge.data.images import ImageDataset, LabelledImages
from paraedge.model.arrays import read_samples
from paraedge.model.records import CheckpointConfig, read_json
from paraedge.packaged import packaged_folder
from paraedge_runtime.bundle import Bundle
from paraedge_runtime.errors import InputError
from paraedge_runtime.manifest import ImageInput, Manifest

__all__ = ["images_at_hand", "load_for_bundle", "load_for_labels"]


def load_for_labels(
    dataset: str, data_dir: Path | None, *, spec: ImageInput, labels: tuple[str, ...], owner: str
) -> ImageDataset:
    """The data set ``dataset`` for a model that tells ``labels`` apart, its class indexes those of the labels.

    Args:
        dataset: a key of ``DATASETS``.
        data_dir: where its files are.
        spec: what the model reads.
        labels: of the model, in its order.
        owner: what the model is called in a message.

    Raises:
        InputError: no such data set, no files, other images, or classes that the model does not know.
    """
    _, channels, height, width = spec.shape
    image_shape = (height, width, channels)
    options = FolderOptions(image_size=height, resize=spec.resize, channels=channels, class_names=labels)
    data = load_dataset(dataset, data_dir, options)
    if data.image_shape != image_shape:
        raise InputError(
            f"{data.name} has images of {'×'.join(map(str, data.image_shape))}, {owner} reads "
            f"{'×'.join(map(str, image_shape))}; name its own data set with --dataset and --data-dir"
        )
    if not set(data.class_names) <= set(labels):
        raise InputError(f"{data.name} has the classes {data.class_names}, {owner} knows {labels}")
    return data if data.class_names == labels else data.with_class_names(labels)


def load_for_bundle(manifest: Manifest, dataset: str | None, data_dir: Path | None) -> ImageDataset:
    """The data set ``dataset``, or the one that a bundle is named after, if its classes are the bundle's.

    Raises:
        InputError: no such data set, no files, or other classes.
    """
    spec = manifest.input
    if not isinstance(spec, ImageInput) or not manifest.labels:
        raise InputError(f"{manifest.name} does not classify images; there is no data set for it")
    chosen = dataset or manifest.name
    if chosen not in DATASETS:
        raise InputError(f"say which data set the bundle is for: --dataset {', '.join(DATASETS)}")
    return load_for_labels(chosen, data_dir, spec=spec, labels=manifest.labels, owner="the bundle")


def images_at_hand(
    bundle: Bundle, dataset: str | None, data_dir: Path | None, count: int
) -> tuple[LabelledImages, str]:
    """Up to ``count`` labelled test images for a bundle, the classes in turn, and where they are from.

    From the data set when one is named or its folder is known; else those that ship with the packaged
    model of this name; else the bundle's own golden images, which are few.

    Raises:
        InputError: as ``load_for_bundle``.
    """
    manifest = bundle.manifest
    if dataset is not None or data_dir is not None or os.environ.get(DATA_DIR_VARIABLE):
        data = load_for_bundle(manifest, dataset, data_dir)
        return data.test.balanced_sample(count, seed=0), f"{data.name} test split"
    if (folder := packaged_folder(manifest.name)) is not None:
        images = read_samples(folder, read_json(folder / "config.json", CheckpointConfig).model)
        if images.images.shape[1:] == (*manifest.input.shape[2:], manifest.input.shape[1]):
            return images.balanced_sample(count, seed=0), "test images that ship with the packaged model"
    golden = bundle.golden()
    if golden.labels is None or golden.inputs.dtype != np.uint8:
        raise InputError(f"{bundle.path} does not classify images; this needs a bundle that does")
    return LabelledImages(golden.inputs.astype(np.uint8), golden.labels), "golden images of the bundle"

"""The test inputs that belong to a model or bundle: by data set, or those that ship with the packaged models."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from paraedge.data.datasets import DATA_DIR_VARIABLE, DATASETS, load_dataset, options_for
from paraedge.data.images import ImageDataset, LabelledImages
from paraedge.data.signals import LabelledSignals, SignalDataset
from paraedge.model.arrays import read_samples
from paraedge.model.records import CheckpointConfig, read_json
from paraedge.packaged import packaged_folder
from paraedge_runtime.bundle import Bundle
from paraedge_runtime.errors import InputError
from paraedge_runtime.manifest import ImageInput, InputSpec, Manifest

__all__ = ["inputs_at_hand", "load_for_bundle", "load_for_labels"]


def load_for_labels(
    dataset: str, data_dir: Path | None, *, spec: InputSpec, labels: tuple[str, ...], owner: str
) -> ImageDataset | SignalDataset:
    """The data set ``dataset`` for a model that tells ``labels`` apart, its class indices those of the labels.

    Args:
        dataset: a key of ``DATASETS``.
        data_dir: where its files are.
        spec: what the model reads.
        labels: of the model, in its order.
        owner: what the model is called in a message.

    Raises:
        InputError: no such data set, no files, other inputs, or classes that the model does not know.
    """
    data = load_dataset(dataset, data_dir, options_for(spec, labels))
    shape = _sample_shape(spec)
    if isinstance(data, ImageDataset) != isinstance(spec, ImageInput) or data.sample_shape != shape:
        raise InputError(
            f"{data.name} has {data.kind} of {'×'.join(map(str, data.sample_shape))}, {owner} reads "
            f"{'×'.join(map(str, shape))}; name its own data set with --dataset and --data-dir"
        )
    if not set(data.class_names) <= set(labels):
        raise InputError(
            f"{data.name} has the classes {', '.join(data.class_names)}, {owner} has {', '.join(labels)}; "
            "name its own data set with --dataset and --data-dir"
        )
    if isinstance(data, SignalDataset) and not isinstance(spec, ImageInput) and data.rate_hz != spec.rate_hz:
        raise InputError(
            f"{data.name} has {data.rate_hz:g} samples a second, {owner} reads {spec.rate_hz:g}; resample the data"
        )
    return data if data.class_names == labels else data.with_class_names(labels)


def _sample_shape(spec: InputSpec) -> tuple[int, ...]:
    """Of one input as a data set has it."""
    return (*spec.shape[2:], spec.shape[1]) if isinstance(spec, ImageInput) else spec.shape[1:]


def load_for_bundle(manifest: Manifest, dataset: str | None, data_dir: Path | None) -> ImageDataset | SignalDataset:
    """The data set ``dataset``, or the one that a bundle is named after, if its classes are the bundle's.

    Raises:
        InputError: no such data set, no files, or other classes.
    """
    if not (manifest.classifies_images or manifest.classifies_signals):
        raise InputError(f"{manifest.name} classifies neither images nor signals; there is no data set for it")
    chosen = dataset or manifest.name
    if chosen not in DATASETS:
        raise InputError(f"the data set of {manifest.name} is unknown; name it with --dataset: {', '.join(DATASETS)}")
    return load_for_labels(chosen, data_dir, spec=manifest.input, labels=manifest.labels, owner="the bundle")


def inputs_at_hand(
    bundle: Bundle, dataset: str | None, data_dir: Path | None, count: int
) -> tuple[LabelledImages | LabelledSignals, str]:
    """Up to ``count`` labelled test inputs for a bundle, the classes in turn, and where they are from.

    From the data set when one is named or its folder is known; else those that ship with the packaged
    model of this name; else the bundle's own golden inputs, which are few.

    Raises:
        InputError: as ``load_for_bundle``.
    """
    manifest = bundle.manifest
    if dataset is not None or data_dir is not None or os.environ.get(DATA_DIR_VARIABLE):
        data = load_for_bundle(manifest, dataset, data_dir)
        return data.test.balanced_sample(count, seed=0), f"{data.name} test split"
    if (folder := packaged_folder(manifest.name)) is not None:
        samples = read_samples(folder, read_json(folder / "config.json", CheckpointConfig).model)
        if samples.inputs.shape[1:] == _sample_shape(manifest.input):
            return samples.balanced_sample(count, seed=0), "test images that ship with the packaged model"
    golden = bundle.golden()
    if golden.labels is None or not (manifest.classifies_images or manifest.classifies_signals):
        raise InputError(f"{bundle.path} classifies neither images nor signals; this needs a bundle that does")
    if golden.inputs.dtype == np.uint8:
        return LabelledImages(golden.inputs.astype(np.uint8), golden.labels), "golden images of the bundle"
    return LabelledSignals(golden.inputs.astype(np.float32), golden.labels), "golden signals of the bundle"

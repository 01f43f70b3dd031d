"""Data sets of images and signals, by the names of ``--dataset``, and readers of their files."""

from paraedge.data.datasets import DATA_DIR_VARIABLE, DATASETS, FolderOptions, load_dataset
from paraedge.data.images import ImageDataset, LabelledImages
from paraedge.data.signals import LabelledSignals, SignalDataset

__all__ = [
    "DATASETS",
    "DATA_DIR_VARIABLE",
    "FolderOptions",
    "ImageDataset",
    "LabelledImages",
    "LabelledSignals",
    "SignalDataset",
    "load_dataset",
]

"""Five folds of a set of labelled images, as folders that ``paraedge train --dataset folder`` reads.

    python benchmarks/folds.py trashnet.npz folds
    paraedge train --recipe waste --data-dir folds/0 --out waste-0        # and 1 to 4
    python benchmarks/folds.py --report waste-0 waste-1 waste-2 waste-3 waste-4

The ``.npz`` has the arrays ``data`` (JPEG files one after another), ``offsets``, ``labels``, ``label_names`` and
perhaps ``names``. Every fold has the same share of every class; each image is tested once.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

NUM_FOLDS = 5


def fold_of_each(labels: np.ndarray) -> np.ndarray:
    """The fold in which each image is tested, (N,)."""
    folds = np.empty(len(labels), dtype=np.int64)
    rng = np.random.default_rng(0)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        folds[members] = np.arange(len(members)) % NUM_FOLDS
    return folds


def write(source: Path, out: Path) -> None:
    """One folder of images, and for every fold links to them."""
    with np.load(source) as arrays:
        data, offsets, labels = arrays["data"], arrays["offsets"], arrays["labels"]
        classes = arrays["label_names"]
        names = arrays["names"] if "names" in arrays else [f"{index:05d}.jpg" for index in range(len(labels))]
    pool = (out / "images").resolve()
    pool.mkdir(parents=True)
    for start, end, name in zip(offsets[:-1], offsets[1:], names, strict=True):
        (pool / str(name)).write_bytes(data[start:end].tobytes())
    tested = fold_of_each(labels)
    for fold in range(NUM_FOLDS):
        for name, label, own in zip(names, labels, tested, strict=True):
            folder = out / str(fold) / ("test" if own == fold else "train") / str(classes[label])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / str(name)).hardlink_to(pool / str(name))


def report(checkpoints: list[Path]) -> None:
    """Accuracy of prefixes and single branches, by fold and together; the confusion of all branches."""
    prefixes, alone, confusion = [], [], None
    for path in checkpoints:
        with np.load(path / "evaluation.npz") as arrays:
            logits, labels = arrays["branch_logits"].astype(np.float32), arrays["labels"]
        right = logits.cumsum(axis=0).argmax(axis=2) == labels
        prefixes.append(100 * right.mean(axis=1))
        alone.append(100 * (logits.argmax(axis=2) == labels).mean(axis=1))
        table = np.zeros((logits.shape[2],) * 2, dtype=int)
        np.add.at(table, (labels, logits.sum(axis=0).argmax(axis=1)), 1)
        confusion = table if confusion is None else confusion + table
        record = json.loads((path / "training.json").read_text())
        print(f"{path.name}: {np.round(prefixes[-1], 2)}, alone {np.round(alone[-1], 2)}, {record['train_seconds']} s")
    for title, values in (("prefixes", np.array(prefixes)), ("alone", np.array(alone))):
        print(f"{title}: mean {np.round(values.mean(axis=0), 2)}, deviation {np.round(values.std(axis=0, ddof=1), 2)}")
    print(confusion)


def main() -> None:
    """Write folds, or report what they gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "paths", nargs="+", type=Path, help="the .npz and the folder to write, or with --report checkpoints"
    )
    parser.add_argument("--report", action="store_true")
    given = parser.parse_args()
    if given.report:
        report(given.paths)
    else:
        write(*given.paths)


if __name__ == "__main__":
    main()

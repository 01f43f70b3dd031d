"""Accuracy of networks that were trained apart, added up: the mean over every choice of k, from the logits kept.

    .venv/bin/python benchmarks/experiments.py cifar10-small --seed 0 --data-dir data --out small0   # and so on
.venv/bin/python benchmarks/ensemble.py small0 small1 small2 small3
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np

from paraedge.model import load_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", type=Path, help="Folders with models of one data set.")
    evaluations = [load_checkpoint(folder).evaluation for folder in parser.parse_args().checkpoints]
    labels = evaluations[0].labels
    logits = np.stack([evaluation.branch_logits.sum(axis=0) for evaluation in evaluations]).astype(np.float32)
    print("members  accuracy, mean   best choice (chosen on these images)")
    for count in range(1, len(logits) + 1):
        found = [
            float((logits[list(members)].sum(axis=0).argmax(axis=1) == labels).mean())
            for members in itertools.combinations(range(len(logits)), count)
        ]
        print(f"{count:7d} {100 * np.mean(found):12.2f} %  {100 * max(found):12.2f} %")


if __name__ == "__main__":
    main()

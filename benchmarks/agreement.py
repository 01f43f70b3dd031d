"""Do the three engines agree with torch and with one another on 1,000 held-out images, or on recordings?

    .venv/bin/python benchmarks/agreement.py --data-dir DATA      (Fashion-MNIST, see paraedge evaluate)
    .venv/bin/python benchmarks/agreement.py --model mine --data-dir recordings --inputs 300

For bundles exported with --branches 2, 0,3,5 and all, those that the model has; for prefixes 1, 2, 4 and 8.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import paraedge
from paraedge.cli._chatter import captured_chatter
from paraedge.data import load_dataset
from paraedge.packaged import resolve_checkpoint
from paraedge.training.batches import normalise
from paraedge_runtime import Session
from paraedge_runtime.similarity import compare, top1_agreement

ENGINES = ("executorch", "litert", "onnxruntime")
CHOICES: dict[str, int | tuple[int, ...] | None] = {"2": 2, "0,3,5": (0, 3, 5), "all": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--model", default="fashion-mnist")
    parser.add_argument("--inputs", type=int, default=1000)
    arguments = parser.parse_args()
    console = Console(markup=False, emoji=False)
    checkpoint = paraedge.load_checkpoint(resolve_checkpoint(arguments.model))
    test = load_dataset(checkpoint.config.loader or checkpoint.config.dataset, arguments.data_dir).test
    # Held out of the parity gate too: nothing that travels with the checkpoint.
    packaged = {value.tobytes() for value in checkpoint.samples.inputs}
    sample = test.balanced_sample(min(arguments.inputs + len(packaged), len(test)), seed=1)
    held_out = [place for place, value in enumerate(sample.inputs) if value.tobytes() not in packaged]
    inputs = sample.inputs[held_out[: arguments.inputs]]
    with torch.inference_mode():
        logits = checkpoint.model.branch_logits(normalise(torch.from_numpy(inputs), checkpoint.config.model)).numpy()

    rows = Table(title=f"{len(inputs)} held-out test inputs, against torch", title_justify="left", box=None)
    for column in ("bundle", "prefix", "engine", "SNR dB", "largest error", "same label", "same label as the others"):
        rows.add_column(column)
    for choice, branches in CHOICES.items():
        if isinstance(branches, tuple) and max(branches) >= len(logits):
            continue
        predictions: dict[str, np.ndarray] = {}
        chosen: list[int] = []
        for engine in ENGINES:
            with tempfile.TemporaryDirectory() as folder, captured_chatter():
                bundle = paraedge.export(
                    checkpoint, target="linux", engine=engine, branches=branches, out=f"{folder}/b.paraedge"
                )
                chosen = list(bundle.manifest.branch_indexes)
                with Session.open(bundle, threads=2) as session:
                    predictions[engine] = np.stack([session.run(value).prefix_outputs for value in inputs], axis=1)
        wanted = logits[chosen].cumsum(axis=0, dtype=np.float32)
        for count in [count for count in (1, 2, 3, 4, 8) if count <= len(chosen) and (count != 3 or len(chosen) == 3)]:
            labels = {engine: predictions[engine][count - 1].argmax(axis=1) for engine in ENGINES}
            for engine in ENGINES:
                similarity = compare(wanted[count - 1], predictions[engine][count - 1])
                others = min(float((labels[engine] == labels[other]).mean()) for other in ENGINES)
                with_torch = top1_agreement(wanted[count - 1], predictions[engine][count - 1])
                rows.add_row(
                    choice,
                    str(count),
                    engine,
                    str(similarity.snr_db),
                    f"{similarity.max_abs_error:.1e}",
                    f"{100 * with_torch:.2f} %",
                    f"{100 * others:.2f} %",
                )
    console.print(rows)


if __name__ == "__main__":
    main()

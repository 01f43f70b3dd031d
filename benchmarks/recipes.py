"""What each recipe costs on the packaged models: bytes, accuracy and labels kept on the whole test set, in the engine.

    .venv/bin/python benchmarks/recipes.py --data-dir data --out recipes.jsonl
    .venv/bin/python benchmarks/recipes.py --data-dir data --out recipes.jsonl cifar10:litert:int8-static+fp32-stem
    .venv/bin/python benchmarks/recipes.py --out recipes.jsonl --table

A line of JSON for each cell, which is not measured again; ``--table`` prints them as docs/lab/recipes.md has them.
Nothing here is timed: a busy machine gives the same numbers.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from paraedge.data import load_dataset
from paraedge.exporting import export
from paraedge.model import load_checkpoint
from paraedge.packaged import PACKAGED_MODELS, resolve_checkpoint
from paraedge_converters.recipes import RECIPES
from paraedge_runtime import Session
from paraedge_runtime.engines import ENGINES
from paraedge_runtime.errors import ParityError


def measure(model: str, engine: str, recipe: str, data_dir: Path) -> dict[str, Any]:
    """One cell: the bundle of all branches, and every test image through it."""
    checkpoint = load_checkpoint(resolve_checkpoint(model))
    test = load_dataset(checkpoint.config.dataset, data_dir).test
    reference = checkpoint.evaluation.branch_logits.cumsum(axis=0).argmax(axis=2)  # (k, M), float32 in torch
    cell: dict[str, Any] = {"model": model, "engine": engine, "recipe": recipe}
    with tempfile.TemporaryDirectory() as folder:
        try:
            bundle = export(checkpoint, target="linux", engine=engine, quantize=recipe, out=Path(folder, "b"))
        except ParityError as error:
            return {**cell, "refused": str(error)}
        parity = bundle.card.parity  # read while the folder is there
        with Session.open(bundle, threads=1) as session:
            predictions = [session.run(image).prefix_outputs.argmax(axis=1) for image in test.images]
    labels = np.stack(predictions, axis=1)  # (k, M)
    accuracy, full = (labels == test.labels).mean(axis=1), (reference == test.labels).mean(axis=1)
    return {
        **cell,
        "size_bytes": bundle.size_bytes,
        "part_bytes": [entry.size_bytes for entry in bundle.manifest.parts().values()],
        "accuracy": [round(float(value), 4) for value in accuracy],
        "drop": round(float((full - accuracy).max()), 4),
        "kept": round(float((labels == reference).mean(axis=1).min()), 4),
        "kept_by_gate": min(prefix.top1_agreement for prefix in parity.prefixes),
    }


def print_table(cells: list[dict[str, Any]]) -> None:
    """Markdown, one table for each model."""
    for model in PACKAGED_MODELS:
        mine = [cell for cell in cells if cell["model"] == model]
        whole = {cell["engine"]: cell["size_bytes"] for cell in mine if cell["recipe"] == "fp32"}
        print(f"\n{model}\n")
        print("| engine | recipe | bytes | ÷ fp32 | accuracy by branches, % | largest drop, points | labels kept |")
        print("|---|---|---|---|---|---|---|")
        order = {name: place for place, name in enumerate(RECIPES)}
        for cell in sorted(mine, key=lambda cell: (cell["engine"], order[cell["recipe"].split("+")[0]])):
            row = f"| `{cell['engine']}` | `{cell['recipe']}` |"
            if "refused" in cell:
                print(f"{row} – | – | refused: {cell['refused']} | | |")
                continue
            accuracy = " ".join(f"{100 * value:.2f}" for value in cell["accuracy"])
            ratio = f"{cell['size_bytes'] / whole[cell['engine']]:.3f}" if cell["engine"] in whole else ""
            print(
                f"{row} {cell['size_bytes']:,} | {ratio} | {accuracy} | "
                f"{100 * cell['drop']:.2f} | {100 * cell['kept']:.2f} % |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", nargs="*", help="MODEL:ENGINE:RECIPE [all]")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="print what is in --out, measure nothing")
    arguments = parser.parse_args()
    cells = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    if arguments.table:
        print_table(cells)
        return
    everything = [
        f"{model}:{engine}:{recipe}"
        for model in PACKAGED_MODELS
        for engine in ENGINES
        for recipe in RECIPES
        if engine not in RECIPES[recipe].refused
    ]
    known = {f"{cell['model']}:{cell['engine']}:{cell['recipe']}" for cell in cells}
    for name in arguments.cells or everything:
        if name not in known:
            cell = measure(*name.split(":"), data_dir=arguments.data_dir)
            with arguments.out.open("a") as file:
                file.write(json.dumps(cell) + "\n")
            print(cell, flush=True)


if __name__ == "__main__":
    main()

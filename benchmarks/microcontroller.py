"""What a bundle for microcontrollers takes in TensorFlow Lite Micro, and how often it is right there.

    .venv/bin/python benchmarks/microcontroller.py
    .venv/bin/python benchmarks/microcontroller.py --data-dir data --quantize int8-static
    .venv/bin/python benchmarks/microcontroller.py --model cifar10 --quantize int8-static+fp32-stem
    .venv/bin/python benchmarks/microcontroller.py --model watch-0 --data-dir motion/watch-0.npz

Runs each part in the interpreter of the package tflite-micro, on this machine. *Arena* is the working memory that the
interpreter has allocated when a part has run; pointers are twice as long here as on a board. Nothing here is timed.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tflite_micro import runtime

from paraedge.cli._chatter import captured_chatter
from paraedge.data import load_dataset
from paraedge.exporting import export
from paraedge.model import load_checkpoint
from paraedge.packaged import resolve_checkpoint
from paraedge_runtime.inputs import normalise

ENOUGH = 64 * 2**20  # bytes of arena, of which a part takes what it needs


def run(interpreter: Any, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """One input through a part."""
    interpreter.set_input(x, 0)
    interpreter.invoke()
    output: NDArray[np.float32] = interpreter.get_output(0)
    return output


def arena_bytes(interpreter: Any) -> int:
    """What the interpreter says it has allocated."""
    with captured_chatter() as chatter:
        interpreter.print_allocations()
    (total,) = re.findall(r"Arena allocation total (\d+) bytes", chatter.tail(50))
    return int(total)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fashion-mnist")
    parser.add_argument("--quantize", default="int8-static")
    parser.add_argument("--branches", type=int, help="the first so many [all]")
    parser.add_argument("--data-dir", type=Path, help="run the test set too")
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(resolve_checkpoint(arguments.model))
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(
            checkpoint,
            target="microcontroller",
            quantize=arguments.quantize,
            branches=arguments.branches,
            out=Path(folder, "b"),
        )
        programs = {name: (bundle.path / entry.file).read_bytes() for name, entry in bundle.manifest.parts().items()}
    stem, *branches = (runtime.Interpreter.from_bytes(program, arena_size=ENOUGH) for program in programs.values())
    spec = checkpoint.model.input_spec

    def prediction(image: NDArray[Any]) -> NDArray[np.float32]:
        tokens = run(stem, normalise(image[None], spec))
        return np.stack([run(branch, tokens)[0] for branch in branches])  # (k, C)

    prediction(checkpoint.samples.inputs[0])
    for (name, program), interpreter in zip(programs.items(), (stem, *branches), strict=True):
        print(f"{name}: program {len(program):,} bytes, arena {arena_bytes(interpreter):,} bytes", flush=True)
    if arguments.data_dir is None:
        return
    test = load_dataset(checkpoint.config.loader or checkpoint.config.dataset, arguments.data_dir).test
    logits = np.stack([prediction(image) for image in test.inputs], axis=1)  # (k, M, C)
    labels = logits.cumsum(axis=0, dtype=np.float32).argmax(axis=2)
    chosen = list(bundle.manifest.branch_indexes)
    reference = checkpoint.evaluation.branch_logits[chosen].cumsum(axis=0).argmax(axis=2)
    accuracy, full = (labels == test.labels).mean(axis=1), (reference == test.labels).mean(axis=1)
    print("accuracy, %:", *(f"{100 * value:.2f}" for value in accuracy))
    print(f"largest drop: {100 * (full - accuracy).max():.2f} points")
    print(f"labels of float32 in torch: {100 * (labels == reference).mean(axis=1).min():.2f} %")


if __name__ == "__main__":
    main()

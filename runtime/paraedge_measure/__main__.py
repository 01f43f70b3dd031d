"""``python -m paraedge_measure``: the side of ``paraedge profile`` that runs on the device."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from paraedge_measure.hardware import read_hardware
from paraedge_measure.outputs import EncodedOutputs, branch_outputs
from paraedge_measure.profiling import USUAL, SeriesLength, profile_bundle
from paraedge_measure.silence import engines_silent
from paraedge_measure.testbed import measure_cold_start
from paraedge_runtime import Bundle
from paraedge_runtime.errors import BundleError, ParaEdgeError
from paraedge_runtime.trial import try_bundle

__all__ = ["main"]

_PROGRESS_EVERY_S = 0.2


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one JSON document on stdout, and lines ``progress DONE_S TOTAL_S WHAT`` on stderr."""
    options = _parser().parse_args(arguments)
    with os.fdopen(os.dup(1), "w") as output, os.fdopen(os.dup(2), "w", buffering=1) as progress:
        shown_s = 0.0

        def show(done_s: float, total_s: float, what: str) -> None:
            nonlocal shown_s
            if time.perf_counter() - shown_s >= _PROGRESS_EVERY_S:
                progress.write(f"progress {done_s:.2f} {total_s:.2f} {what}\n")
                shown_s = time.perf_counter()

        document: dict[str, Any]
        try:
            with engines_silent():
                document = {"result": msgspec.to_builtins(options.call(options, show))}
        except ParaEdgeError as error:
            document = {"error": type(error).__name__, "message": str(error)}
        output.write(json.dumps(document) + "\n")
    return 1 if "error" in document else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m paraedge_measure", description=main.__doc__)
    commands = parser.add_subparsers(required=True)
    hardware = commands.add_parser("hardware", help="what this machine is")
    hardware.set_defaults(call=lambda options, show: read_hardware())
    check = commands.add_parser("check", help="hash of each bundle that is here and whole, else null")
    check.set_defaults(call=lambda options, show: [_hash_if_whole(path) for path in options.bundles])
    check.add_argument("bundles", nargs="+", type=Path)
    cold = commands.add_parser("cold", help="open a bundle and run one request")
    cold.set_defaults(
        call=lambda options, show: measure_cold_start(Bundle.open(options.bundle), options.engine, options.threads)
    )
    cold.add_argument("bundle", type=Path)
    cold.add_argument("--engine", required=True)
    cold.add_argument("--threads", type=int, required=True)
    outputs = commands.add_parser("outputs", help="run the inputs of a .npy file")
    outputs.set_defaults(
        call=lambda options, show: EncodedOutputs.of(
            branch_outputs(Bundle.open(options.bundle), np.load(options.inputs, allow_pickle=False), on_progress=show)
        )
    )
    outputs.add_argument("bundle", type=Path)
    outputs.add_argument("inputs", type=Path)
    measure = commands.add_parser("measure", help="measure one bundle with one engine")
    measure.set_defaults(
        call=lambda options, show: profile_bundle(
            length=SeriesLength(options.min_runs, options.min_s, options.sustained_s),
            bundle=_tried(options.bundle, options.engine),
            engine=options.engine,
            threads=options.threads,
            on_progress=show,
        )
    )
    measure.add_argument("bundle", type=Path)
    measure.add_argument("--engine")
    measure.add_argument("--threads", type=int, nargs="+")
    measure.add_argument("--min-runs", type=int, default=USUAL.min_runs)
    measure.add_argument("--min-s", type=float, default=USUAL.min_s)
    measure.add_argument("--sustained-s", type=float, default=USUAL.sustained_s)
    return parser


def _tried(path: Path, engine: str | None) -> Bundle:
    """The bundle, after its first run in a process of its own: what kills that one is told by name."""
    bundle = Bundle.open(path)
    try_bundle(bundle, engine=engine)
    return bundle


def _hash_if_whole(path: Path) -> str | None:
    try:
        return Bundle.open(path).sha256
    except BundleError:
        return None


if __name__ == "__main__":
    sys.exit(main())

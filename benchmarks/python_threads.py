"""The Python session: two threads against one for each engine, and what Python adds to a native call.

    .venv/bin/python benchmarks/untrained.py build/bench --only d192-t65 --engine litert
    .venv/bin/python benchmarks/python_threads.py

Variants take turns in blocks of ten requests; branches only (stem excluded), medians. "Python adds" is what the
caller waits beyond ``Session::run`` in C++.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from branch_threads import with_copies
from rich.console import Console
from rich.table import Table

from paraedge_runtime import Session

ENGINES = ("litert", "onnxruntime", "executorch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    parser.add_argument("--model", default="d192-t65")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--json", type=Path, default=Path("build/python_threads.json"))
    arguments = parser.parse_args()
    if not list(arguments.folder.glob(f"{arguments.model}-*.paraedge")):
        parser.error(f"{arguments.folder} has no bundles; make them: benchmarks/untrained.py {arguments.folder}")
    table = Table(box=None)
    for name in ("engine", "branches", "1 thread, ms", "2 threads, ms", "ratio", "Python adds, µs"):
        table.add_column(name)
    document: list[dict[str, object]] = []
    for engine in ENGINES:
        source = arguments.folder / f"{arguments.model}-{engine}.paraedge"
        if not source.is_dir():
            continue
        for count in (2, 8):
            with tempfile.TemporaryDirectory() as scratch:
                bundle = with_copies(source, count, Path(scratch, "copies.paraedge"))
                sessions = {threads: Session.open(bundle, threads=threads) for threads in (1, 2)}
            x = np.random.default_rng(0).normal(size=sessions[1].bundle.manifest.input.shape).astype(np.float32)
            times: dict[int, list[float]] = {1: [], 2: []}
            added_us: list[float] = []
            for _ in range(arguments.requests // 10):
                for threads, session in sessions.items():
                    for request in range(13):
                        prediction = None  # to free the last one is not part of the next call
                        begin = time.perf_counter()
                        prediction = session.run(x)
                        elapsed_ms = (time.perf_counter() - begin) * 1e3
                        if request >= 3:
                            stem = next(run for run in prediction.timeline if run.part == "stem")
                            times[threads].append(prediction.elapsed_ms - stem.end_ms)
                            inside_us = prediction._raw.call_us
                            added_us.append(elapsed_ms * 1e3 - inside_us)
            one, two = (statistics.median(times[threads]) for threads in (1, 2))
            row = {
                "engine": sessions[1].engine.description,
                "branches": count,
                "one_thread_ms": round(one, 3),
                "two_threads_ms": round(two, 3),
                "ratio": round(two / one, 3),
                "python_adds_us": round(statistics.median(added_us), 1),
            }
            document.append(row)
            table.add_row(*map(str, row.values()))
            for session in sessions.values():
                session.close()
    Console(markup=False, emoji=False, width=120).print(table)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()

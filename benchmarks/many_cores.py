"""Where the time goes when k branches run on k cores: waking the workers, or every branch slowing down the others.

    .venv/bin/python benchmarks/untrained.py build/bench --only d192-t65 d192-t197 --engine litert
    .venv/bin/python benchmarks/many_cores.py build/bench/*-litert.paraedge

For each k, in turns: a session with k copies of one branch on k threads, and k processes with one branch and one thread
each, all at once, which share nothing of ours. What slows a branch down in the second is the machine; what the first
takes beyond it is ours or the engine's.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from branch_threads import with_copies

from paraedge_runtime import Bundle, Session

WARM = 20


def branch_ms(session: Session, image: np.ndarray, requests: int) -> dict[str, float]:
    """Medians over requests, in ms: a branch's run, the last start after the first, first start to last end."""
    runs, starts, spans = [], [], []
    for number in range(WARM + requests):
        branches = session.run(image).branches
        if number < WARM:
            continue
        begin = min(branch.start_ms for branch in branches)
        runs.append(statistics.median(branch.end_ms - branch.start_ms for branch in branches))
        starts.append(max(branch.start_ms for branch in branches) - begin)
        spans.append(max(branch.end_ms for branch in branches) - begin)
    return {
        "run": statistics.median(runs),
        "last_start": statistics.median(starts),
        "all": statistics.median(spans),
    }


def one_process(pipe: Connection, path: Path, image: np.ndarray, requests: int) -> None:
    """One branch on one thread, again and again, whenever it is told to."""
    with Session.open(path, branches=1, threads=1) as session:
        pipe.send(None)
        while pipe.recv():
            runs = []
            for _ in range(WARM + requests):
                (branch,) = session.run(image).branches
                runs.append(branch.end_ms - branch.start_ms)
            pipe.send(statistics.median(runs[WARM:]))


def separate_ms(pipes: list[Connection], count: int) -> float:
    for pipe in pipes[:count]:
        pipe.send(True)
    medians: list[float] = [pipe.recv() for pipe in pipes[:count]]
    return statistics.median(medians)


def measure(source: Path, counts: list[int], rounds: int, requests: int) -> None:
    context = multiprocessing.get_context("spawn")
    image = Bundle.open(source).golden().inputs[0]
    with tempfile.TemporaryDirectory() as scratch:
        path = with_copies(source, max(counts), Path(scratch, "copies"))
        ends = [context.Pipe() for _ in range(max(counts))]
        for _, theirs in ends:
            context.Process(target=one_process, args=(theirs, path, image, requests), daemon=True).start()
            theirs.close()  # a process that ends unasked is an error here, not a wait without end
        pipes = [ours for ours, _ in ends]
        for pipe in pipes:
            pipe.recv()
        bundle = Bundle.open(path)
        sessions = {count: Session.open(bundle, branches=count, threads=count) for count in counts}
        found: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
        for _ in range(rounds):
            for count, session in sessions.items():
                found[count].append({**branch_ms(session, image, requests), "separate": separate_ms(pipes, count)})
        for session in sessions.values():
            session.close()
    for count, rows in found.items():
        medians = {name: round(statistics.median(row[name] for row in rows), 3) for name in rows[0]}
        print(json.dumps({"bundle": source.name, "branches": count, **medians}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=50)
    arguments = parser.parse_args()
    for bundle in arguments.bundles:
        measure(bundle, arguments.counts, arguments.rounds, arguments.requests)


if __name__ == "__main__":
    main()

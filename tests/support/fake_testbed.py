"""A stand-in for ``paraedge-testbed`` where C++ is not built: the same lines, answered by this Python's session."""

import sys
from pathlib import Path

_SCRIPT = """#!{python}
import json, sys, time
import numpy as np
from paraedge_runtime import Bundle, Session
bundle = Bundle.open(sys.argv[1])
start = time.perf_counter()
sessions = {{int(threads): Session.open(bundle, threads=int(threads)) for threads in sys.argv[2].split(",")}}
load_ms = (time.perf_counter() - start) * 1e3
image = bundle.golden().inputs[0]
def answer(what):
    print(json.dumps(what), flush=True)
def run(threads, branches, count):
    predictions = [sessions[threads].run(image, branches=branches) for _ in range(count)]
    return [
        [p.elapsed_ms, p.timeline[0].end_ms - p.timeline[0].start_ms,
         [[int(run.part[-2:]), run.thread, run.start_ms, run.end_ms] for run in p.timeline[1:]]]
        for p in predictions
    ]
answer({{"load_ms": load_ms, "cores": 2, "executorch": "1.5.1"}})
for line in sys.stdin:
    word, *numbers = line.split()
    if word == "outputs":
        threads, first, count, file = *map(int, numbers[:3]), numbers[3]
        shape = bundle.golden().inputs.shape[1:]
        images = np.fromfile(file, np.uint8).reshape(-1, *shape)[first : first + count]
        answer([sessions[threads].run(image).branch_outputs.tolist() for image in images])
    elif word == "run":
        answer(run(*map(int, numbers)))
    elif word == "jitter":
        answer({{"p50": 0.1, "p99": 0.2, "p999": 9.0}})
    elif word == "wakeup":
        answer({{"p50": 60.0, "p99": 900.0}})
    elif word == "usage":
        answer({{"cpu_s": time.process_time(), "memory_bytes": 50_000_000}})
    else:
        sys.exit(f"Error: unknown command '{{line}}'")
"""
_BROKEN = """#!/bin/sh
echo 'CANNOT LINK EXECUTABLE "tools/paraedge-testbed": library "libexecutorch.so" not found' >&2
exit 1
"""


def install(folder: Path, *, broken: bool = False) -> Path:
    """Write the program into ``folder``; a broken one ends as Android's linker does."""
    folder.mkdir(parents=True)
    program = folder / "paraedge-testbed"
    program.write_text(_BROKEN if broken else _SCRIPT.format(python=sys.executable))
    program.chmod(0o644)  # what a download leaves; it is made executable over there
    return folder

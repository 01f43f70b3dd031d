"""Memory that a native session adds to the engine's own: anonymous memory (RssAnon), each case a process of its own.

    .venv/bin/python benchmarks/untrained.py build/bench --only d192-t65
    .venv/bin/python benchmarks/memory.py

``engine``: the same programs, each loaded into ExecuTorch by itself and run once, one after another on one
thread. ``session``: a paraedge session with as many threads as the machine has cores, after 20 requests. The
program's files are mapped or read in both cases alike; what is left is paraedge's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from branch_threads import with_copies

from paraedge_runtime import Bundle

CHILD = """
import sys
import numpy as np
from paraedge_runtime import Bundle, Session
from paraedge_runtime.engines import open_engine
from paraedge_runtime.cores import available_cores

def anonymous_kb():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

case, path = sys.argv[1:]
bundle, engine = Bundle.open(path), open_engine("executorch")
x = np.zeros(bundle.manifest.input.shape, np.float32)
programs = {name: bundle.read(entry) for name, entry in bundle.manifest.parts().items()}
before = anonymous_kb()
if case == "engine":
    parts = [engine.load(name, programs[name], entry) for name, entry in bundle.manifest.parts().items()]
    for _ in range(20):
        tokens = parts[0].run(x)
        outputs = [part.run(tokens) for part in parts[1:]]
else:
    del programs
    before = anonymous_kb()
    session = Session.open(bundle, threads=available_cores())
    for _ in range(20):
        session.run(x)
print(anonymous_kb() - before)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, nargs="?", default=Path("build/bench/d192-t65-executorch.paraedge"))
    parser.add_argument("--branches", type=int, default=8)
    arguments = parser.parse_args()
    if not arguments.source.is_dir():
        folder = arguments.source.parent
        parser.error(f"{arguments.source} does not exist; make it: benchmarks/untrained.py {folder}")
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Bundle.open(with_copies(arguments.source, arguments.branches, Path(scratch, "copies.paraedge")))
        program_kb = sum(entry.size_bytes for entry in bundle.manifest.parts().values()) // 1024
        kb = {
            case: int(
                subprocess.run(
                    [sys.executable, "-c", CHILD, case, bundle.path], capture_output=True, check=True, text=True
                ).stdout
            )
            for case in ("engine", "session")
        }
    # The session keeps the programs' bytes that Python read; the engine's process had them before.
    document = {"programs_kb": program_kb, **{f"{case}_kb": value for case, value in kb.items()}}
    document["session_beyond_engine_kb"] = kb["session"] - program_kb - kb["engine"]
    print(json.dumps(document))


if __name__ == "__main__":
    main()

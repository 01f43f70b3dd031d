"""The demo at 15 frames a second for minutes: memory, what it adds to inference, misses, CPU time of the page's server.

    paraedge export --target raspberry-pi --out pi.paraedge
    .venv/bin/python benchmarks/demo_soak.py pi.paraedge --minutes 10 --budget-ms 20
    .venv/bin/python benchmarks/demo_soak.py pi.paraedge --minutes 2 --budget-ms 20 --load

The demo's own threads run in this process. A page is a process that reads everything that the server says, as a
browser does. Memory is anonymous memory (RssAnon), its growth from the end of the first tenth, at least ten
seconds, to the end; of both the median of ten readings.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from paraedge_demo.app import LiveOptions, live_app
from paraedge_demo.server import PageServer, listen
from paraedge_runtime.cores import available_cores

READ_EVERY_S = 0.5
READINGS = 10
PAGE = """
import sys
from websockets.sync.client import connect

with connect(sys.argv[1], max_size=1 << 20) as client:
    print(len(client.recv()), flush=True)
    for message in client:
        pass
"""


def anonymous_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * len(values))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--fps", type=float, default=15.0)
    parser.add_argument("--budget-ms", type=float, default=20.0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--load", action="store_true", help="a hog competes for half of the cores")
    parser.add_argument("--pages", type=int, default=1, help="pages that are open; 0 for the loop by itself")
    arguments = parser.parse_args()

    app = live_app(
        LiveOptions(
            arguments.bundle,
            fps=arguments.fps,
            budget_ms=arguments.budget_ms,
            threads=arguments.threads,
            load=arguments.load,
        )
    )
    overhead_ms: list[float] = []
    inference_ms: list[float] = []

    def note() -> None:
        record = app.board.last
        if record is not None and record.number > len(overhead_ms):
            overhead_ms.append(record.overhead_ms)
            inference_ms.append(record.inference_ms)

    app.board.listen(note)
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    page = PageServer(app, listening, None)
    server = threading.Thread(target=page.run, daemon=True)
    sys.setswitchinterval(0.0005)  # as paraedge-demo does
    with ExitStack() as stack:
        stack.enter_context(app)
        server.start()
        stack.callback(server.join)
        stack.callback(page.stop)
        for _ in range(arguments.pages):
            command = [sys.executable, "-c", PAGE, f"ws://127.0.0.1:{port}/socket"]
            reader = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            stack.callback(reader.kill)
            reader.stdout.readline()  # type: ignore[union-attr]
        clock = time.pthread_getcpuclockid(server.ident)  # type: ignore[arg-type]
        began_s, cpu_s = time.monotonic(), time.clock_gettime(clock)
        seconds = 60 * arguments.minutes
        settled_s = max(seconds / 10, min(10.0, seconds / 2))
        memory_kb: list[int] = []
        while (passed_s := time.monotonic() - began_s) < seconds and not app.stop.wait(READ_EVERY_S):
            if passed_s >= settled_s:
                memory_kb.append(anonymous_kb())
        cpu_share = (time.clock_gettime(clock) - cpu_s) / (time.monotonic() - began_s)
        summary = app.board.look().summary
    first, last = (statistics.median(part) for part in (memory_kb[:READINGS], memory_kb[-READINGS:]))
    document = {
        "minutes": round(passed_s / 60, 2),
        "cores": available_cores(),
        "load": arguments.load,
        "pages": arguments.pages,
        "budget_ms": arguments.budget_ms,
        "frames": summary.frames,
        "dropped_frames": summary.dropped_frames,
        "misses": summary.misses,
        "miss_percent": round(100 * summary.misses / summary.frames, 3),
        "right_percent": round(100 * (summary.accuracy or 0), 2),
        "inference_p50_ms": round(statistics.median(inference_ms), 3),
        "overhead_p50_ms": round(statistics.median(overhead_ms), 3),
        "overhead_p95_ms": round(p95(overhead_ms), 3),
        "page_server_percent_of_core": round(100 * cpu_share, 2),
        "memory_growth_kb": round(last - first),
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()

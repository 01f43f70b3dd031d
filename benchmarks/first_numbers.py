"""Start-up, export, threads and size: the figures of docs/lab/performance.md, variants interleaved, medians.

    .venv/bin/python benchmarks/first_numbers.py [--only NAME ...] [--json build/first_numbers.json]

Machines are shared and noisy: ratios are steadier than times.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from paraedge_runtime.cores import available_cores

ROOT = Path(__file__).parents[1]
PARAEDGE = str(Path(sys.executable).parent / "paraedge")
ENGINES = ("executorch", "litert", "onnxruntime")
console = Console(markup=False, emoji=False)


def wall_s(command: list[str], **environment: str) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **environment})
    return time.perf_counter() - started


def start_up() -> dict[str, Any]:
    """``paraedge --help`` and one command's help, against a Python that does nothing."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "paraedge --help": [PARAEDGE, "--help"],
        "paraedge export --help": [PARAEDGE, "export", "--help"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(21):
        for name, command in commands.items():
            times[name].append(wall_s(command))
    return {name: round(statistics.median(values), 3) for name, values in times.items()}


def export() -> dict[str, Any]:
    """All eight branches of the packaged model for each engine: cold once, then warm three times."""
    result = {}
    for engine in ENGINES:
        with tempfile.TemporaryDirectory() as folder:
            command = [PARAEDGE, "export", "--target", "linux", "--engine", engine, "--out", f"{folder}/b.paraedge"]
            cold = wall_s(command, PARAEDGE_CACHE=folder)
            warm = [wall_s(command, PARAEDGE_CACHE=folder) for _ in range(3)]
            size_bytes = sum(path.stat().st_size for path in Path(folder, "b.paraedge").rglob("*") if path.is_file())
        result[engine] = {
            "cold_s": round(cold, 1),
            "warm_s": round(statistics.median(warm), 2),
            "size_bytes": size_bytes,
        }
    return result


def threads() -> dict[str, Any]:
    """One and two threads on the same bundle, turn about, 400 requests each, for 2 and 8 branches."""
    import paraedge
    from paraedge_runtime import Session

    result = {}
    for engine in ENGINES:
        with tempfile.TemporaryDirectory() as folder:
            bundle = paraedge.export(target="linux", engine=engine, out=f"{folder}/b.paraedge")
            images = bundle.golden().inputs
            sessions = {count: Session.open(bundle, threads=count) for count in (1, 2)}
            for branches in (2, 8):
                times: dict[int, list[float]] = {1: [], 2: []}
                for request in range(420):
                    for count, session in sessions.items():
                        prediction = session.run(images[request % len(images)], branches=branches)
                        if request >= 20:
                            times[count].append(prediction.elapsed_ms)
                one, two = (statistics.median(times[count]) for count in (1, 2))
                result[f"{engine}, {branches} branches"] = {
                    "1 thread, ms": round(one, 3),
                    "2 threads, ms": round(two, 3),
                    "ratio": round(two / one, 3),
                }
            for session in sessions.values():
                session.close()
    return result


def device_size() -> dict[str, Any]:
    """What ``pip install paraedge[litert]`` puts on a device, pip itself not counted."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = f"{folder}/bin/python"

        def installed_bytes() -> int:
            return sum(
                path.stat().st_size for path in Path(folder).rglob("*") if path.is_file() and not path.is_symlink()
            )

        before = installed_bytes()
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-compile", f"{ROOT}[litert]"], check=True)
        size = installed_bytes() - before
        listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True).stdout
        code = (
            "import re, pathlib, paraedge_runtime.engines.litert as e; e.LiteRTEngine(); "
            "print(re.search(r'VmHWM:\\s+(\\d+)', pathlib.Path('/proc/self/status').read_text())[1])"
        )
        resident = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    packages = {row["name"]: row["version"] for row in json.loads(listed)}
    return {
        "size_MB": round(size / 1e6, 1),
        "runtime_with_engine_loaded_MB": round(int(resident) * 1024 / 1e6, 1),
        "packages": len(packages) - 2,
        "torch": packages.get("torch", "not installed"),
    }


MEASUREMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "start_up": start_up,
    "export": export,
    "threads": threads,
    "device_size": device_size,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(MEASUREMENTS), default=list(MEASUREMENTS))
    parser.add_argument("--json", type=Path, default=Path("build/first_numbers.json"))
    arguments = parser.parse_args()
    document: dict[str, Any] = {
        "machine": f"{platform.machine()}, {available_cores()} cores, Python {platform.python_version()}",
        "load_at_start": os.getloadavg()[0],
    }
    for name in arguments.only:
        with console.status(Text(f"measuring {name}")):
            document[name] = MEASUREMENTS[name]()
        rows = Table(title=name, title_justify="left", box=None)
        rows.add_column("what")
        rows.add_column("measured")
        for key, value in document[name].items():
            rows.add_row(
                key, ", ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
            )
        console.print(rows)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    console.print(f"written to {arguments.json}")


if __name__ == "__main__":
    main()

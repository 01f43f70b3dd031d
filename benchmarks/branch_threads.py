"""k branches on k threads of the native core, beside ExecuTorch's own threads and a 12-block ViT.

    .venv/bin/python benchmarks/untrained.py build/bench
    .venv/bin/python benchmarks/branch_threads.py measure --bench build/native/paraedge-bench
    .venv/bin/python benchmarks/branch_threads.py show

``measure`` needs the standard library only and the built ``paraedge-bench``: it runs on a device. Every
line of its output is one run of paraedge-bench, whose variants take turns.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

MODELS = {"d192-t65": "vit12-d192-t65", "d192-t197": "vit12-d192-t197", "d384-t197": None}
PLACEMENTS = ("none", "avoid-caller", "pinned")


def with_copies(bundle: Path, count: int, out: Path) -> Path:
    """A bundle folder with ``count`` copies of the one branch of ``bundle``: as fast as other branches would be."""
    shutil.copytree(bundle, out)
    manifest = json.loads((bundle / "manifest.json").read_text())
    (branch,) = manifest["branches"]
    suffix = Path(branch["file"]).suffix
    manifest["branches"] = []
    for index in range(count):
        file = f"branch_{index:02d}{suffix}"
        manifest["branches"].append({**branch, "index": index, "file": file})
        if index > 0:
            shutil.copyfile(bundle / branch["file"], out / file)
    manifest["total_branches"] = count
    manifest["stop_rules"] = None  # the card still speaks of the one branch; the programs do not read it
    text = json.dumps(manifest, indent=2)
    (out / "manifest.json").write_text(text)
    (out / "manifest.sha256").write_text(f"{hashlib.sha256(text.encode()).hexdigest()}  manifest.json\n")
    return out


def run(bench: Path, bundle: Path, *options: str | Path | int) -> dict[str, object]:
    command = [str(item) for item in (bench, bundle, "--json", *options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def measure(arguments: argparse.Namespace) -> None:
    if not arguments.bench.exists():
        raise SystemExit(f"{arguments.bench} does not exist; 'make test-native' builds it")
    if not any((arguments.folder / f"{model}-executorch.paraedge").is_dir() for model in MODELS):
        raise SystemExit(f"{arguments.folder} has no bundles; make them: benchmarks/untrained.py {arguments.folder}")
    cores = len(os.sched_getaffinity(0))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, arguments.out.open("w") as out:

        def record(what: str, model: str, count: int, placement: str, *options: str | Path | int) -> None:
            bundle = copies[model]
            found = run(
                arguments.bench, bundle, "--branches", count, "--requests", arguments.requests,
                "--placement", placement, *options,
            )  # fmt: skip
            line = {"what": what, "model": model, "placement": placement, "processor": _processor(), **found}
            out.write(json.dumps(line) + "\n")
            out.flush()
            print(what, model, placement, count, {k: v["branches_ms"] for k, v in found["variants"].items()})  # type: ignore[attr-defined]

        copies = {}
        for model, vit in MODELS.items():
            source = arguments.folder / f"{model}-executorch.paraedge"
            if not source.is_dir():
                continue
            copies[model] = with_copies(source, 16, Path(scratch, model))
            against = arguments.folder / f"{vit}-executorch.paraedge"
            compared = ("--against", against) if against.is_dir() else ()
            for count in (1, 2, 4, 8, 16):
                if count <= cores:
                    record("k on k", model, count, "avoid-caller", "--threads", count, *compared)
            if cores == 2:
                record("8 on 2", model, 8, "avoid-caller", "--threads", 2)
            for placement in PLACEMENTS:
                threads = min(8, cores)
                record("placement", model, threads, placement, "--threads", threads, "--only", "one-branch,parallel")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def show(arguments: argparse.Namespace) -> None:
    """Tables and the plot of docs/lab/performance.md from what ``measure`` wrote."""
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, emoji=False, width=140)
    lines = [json.loads(line) for path in arguments.files for line in path.read_text().splitlines()]
    for cores in sorted({line["cores"] for line in lines}):
        here = [line for line in lines if line["cores"] == cores]
        table = Table(title=f"{cores} cores, {here[0]['processor']}; branches only, medians, ms", title_justify="left")
        columns = ("one-branch", "sequential", "parallel", "intra-op", "against")
        for name in (
            "run",
            "model",
            "branches",
            "threads",
            "placement",
            *columns,
            "parallel ÷ one",
            "÷ seq.",
            "÷ intra",
        ):
            table.add_column(name)
        for line in here:
            ms = {name: line["variants"].get(name, {}).get("branches_ms") for name in columns}
            ratios = [
                f"{ms['parallel'] / ms[other]:.3f}" if ms[other] else ""
                for other in ("one-branch", "sequential", "intra-op")
            ]
            table.add_row(
                line["what"], line["model"], str(line["branches"]), str(line["threads"]), line["placement"],
                *(f"{ms[name]:.3f}" if ms[name] else "" for name in columns), *ratios,
            )  # fmt: skip
        console.print(table)
    if arguments.plot:
        _plot(lines, arguments.plot)


def _plot(lines: list[dict], path: Path) -> None:  # type: ignore[type-arg]
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = [line for line in lines if line["what"] == "k on k" and "against" in line["variants"]]
    most = max(line["cores"] for line in lines)
    models = [model for model in MODELS if any(line["model"] == model and line["cores"] == most for line in lines)]
    figure, axes = pyplot.subplots(len(models), 1, figsize=(5.6, 4 * len(models)), squeeze=False)
    curves = {
        "parallel": "k branches on k threads (paraedge)",
        "intra-op": "k branches, ExecuTorch's own k threads",
        "against": "12-block ViT, ExecuTorch's own k threads",
    }
    for axis, model in zip(axes[:, 0], models, strict=True):
        here = [line for line in lines if line["model"] == model and line["cores"] == most]
        threads = [line["threads"] for line in here]
        for name, label in curves.items():
            axis.plot(threads, [line["variants"][name]["branches_ms"] for line in here], marker="o", label=label)
        axis.axhline(
            here[0]["variants"]["one-branch"]["branches_ms"], color="grey", linestyle=":", label="one branch alone"
        )
        axis.set_xscale("log", base=2)
        axis.set_xticks(threads, [str(number) for number in threads])
        axis.set_xlabel("k: branches and threads")
        axis.set_ylabel("milliseconds, stem excluded (median)")
        axis.set_ylim(bottom=0)
        axis.set_title(f"{model}, {most} cores")
    axes[0][0].legend(fontsize="small")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--bench", type=Path, default=Path("build/native/paraedge-bench"))
    measuring.add_argument("--folder", type=Path, default=Path("build/bench"))
    measuring.add_argument("--requests", type=int, default=300)
    measuring.add_argument("--out", type=Path, default=Path("build/branch_threads.jsonl"))
    measuring.set_defaults(do=measure)
    showing = commands.add_parser("show")
    showing.add_argument("files", type=Path, nargs="*", default=[Path("build/branch_threads.jsonl")])
    showing.add_argument("--plot", type=Path)
    showing.set_defaults(do=show)
    arguments = parser.parse_args()
    arguments.do(arguments)


if __name__ == "__main__":
    main()

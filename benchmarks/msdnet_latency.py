"""MSDNet's predictions beside cifar10's prefixes at equal milliseconds, both on ONNX Runtime, on 1, 2, 4 and 8 cores.

    .venv/bin/python benchmarks/msdnet_latency.py export build/msdnet
    .venv/bin/python benchmarks/msdnet_latency.py measure build/msdnet --cores 1 2 4 8

MSDNet up to an exit is one program, the least that a chain of its blocks could take, on ONNX Runtime's own threads, one
for each core: its layers follow one another, so its blocks cannot run side by side. cifar10 runs its branches on as
many threads, with the native core. Each number of cores is a process of its own that may use no others; the variants
take turns, one request each a round, after a rest in which ONNX Runtime's threads stop spinning. Weights are random
where only the time counts. ``measure`` needs neither torch nor a compiler.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

EXITS, BRANCHES = 6, 4
REST_S, WARM = 0.02, 20


def export_all(folder: Path) -> None:
    """``exit-K.onnx`` and ``cifar10.paraedge``."""
    import torch
    from baselines import BASELINES

    from paraedge.exporting import export

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = BASELINES["msdnet"][0]().eval()

    class UpTo(torch.nn.Module):
        def __init__(self, count: int) -> None:
            super().__init__()
            self.network, self.count = network, count

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            for number, prediction in enumerate(self.network.predictions(images)):
                if number + 1 == self.count:
                    return prediction
            raise AssertionError

    for count in range(1, EXITS + 1):
        program = torch.onnx.export(UpTo(count), (torch.zeros(1, 3, 32, 32),), dynamo=True, verbose=False)
        program.save(str(folder / f"exit-{count}.onnx"))
    export("cifar10", target="linux", out=folder / "cifar10.paraedge")


def measure(folder: Path, cores: int, requests: int) -> dict[str, Any]:
    """Medians in ms, in a process that may use so many cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    import onnxruntime

    from paraedge_runtime import Bundle, Session

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    variants: dict[str, Callable[[], object]] = {}
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    for count in range(1, EXITS + 1):
        one = onnxruntime.InferenceSession(str(folder / f"exit-{count}.onnx"), options, ["CPUExecutionProvider"])
        feed = {one.get_inputs()[0].name: x}
        variants[f"msdnet-{count}"] = lambda one=one, feed=feed: one.run(None, feed)
    bundle = Bundle.open(folder / "cifar10.paraedge")
    image = bundle.golden().inputs[0]
    with Session.open(bundle, threads=cores) as session:
        for count in range(1, BRANCHES + 1):
            variants[f"branches-{count}"] = lambda count=count: session.run(image, branches=count)
        found: dict[str, list[float]] = {name: [] for name in variants}
        for number in range(WARM + requests):
            for name, run in variants.items():
                run()
                time.sleep(REST_S if number >= WARM else 0.0)
                start_s = time.perf_counter()
                run()
                if number >= WARM:
                    found[name].append((time.perf_counter() - start_s) * 1e3)
    return {"cores": cores, **{name: round(statistics.median(times), 3) for name, times in found.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("export", "measure"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--requests", type=int, default=150)
    arguments = parser.parse_args()
    if arguments.what == "export":
        export_all(arguments.folder)
        return
    context = multiprocessing.get_context("spawn")
    for cores in arguments.cores:
        with context.Pool(1) as pool:
            print(json.dumps(pool.apply(measure, (arguments.folder, cores, arguments.requests))), flush=True)


if __name__ == "__main__":
    main()

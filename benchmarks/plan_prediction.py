"""How far ``paraedge plan`` is off: some branches predicted from the whole bundle's profile, against their own profile.

    .venv/bin/paraedge export --target linux --out build/all.paraedge
    .venv/bin/python benchmarks/plan_prediction.py build/all.paraedge

The first branches, and as many of the last. Also what stem, list scheduling and contention alone explain of
the whole request, before the rest of it is added. Rows measured while other programs took more than a tenth
of the processor are marked.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from paraedge_measure.device import PartLatency
from paraedge_measure.planning import predict_request_ms
from paraedge_measure.profiling import profile_bundle
from paraedge_runtime import Bundle
from paraedge_runtime.cores import available_cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+")
    arguments = parser.parse_args()
    table = Table(box=None)
    for name in ("engine", "branches", "threads", "predicted p50 / p95", "measured p50 / p95", "off", "valid"):
        table.add_column(name)

    def add(name: str, branches: str, threads: int, predicted: tuple[float, float], own: PartLatency, ok: bool) -> None:
        measured = (own.p50_ms, own.p95_ms)
        off = " / ".join(f"{100 * (one / other - 1):+.0f} %" for one, other in zip(predicted, measured, strict=True))
        times = [f"{p50:.3f} / {p95:.3f} ms" for p50, p95 in (predicted, measured)]
        table.add_row(name, branches, str(threads), *times, off, "yes" if ok else "NO")

    for path in arguments.bundles:
        bundle = Bundle.open(path)
        count = len(bundle.manifest.branches)
        whole = {one.threads: one for one in profile_bundle(bundle)}
        for threads, one in whole.items():
            nothing_beyond = replace(one.request, p50_ms=0.0)
            p50_ms, _ = predict_request_ms(replace(one, request=nothing_beyond), range(count))
            p95_ms = p50_ms * one.request.p95_ms / one.request.p50_ms
            add(one.engine, f"{count}, parts only", threads, (p50_ms, p95_ms), one.request, one.valid)
        with tempfile.TemporaryDirectory() as folder:
            sizes = sorted({1, count // 4, count // 2, 3 * count // 4} - {0, count})
            for places in [range(size) for size in sizes] + [range(count - size, count) for size in sizes]:
                indexes = bundle.manifest.branch_indexes[places.start : places.stop]
                part = bundle.subset(indexes, Path(folder) / "part.paraedge")
                for one in profile_bundle(part, threads=sorted({1, min(len(places), available_cores())})):
                    if one.threads in whole:
                        predicted = predict_request_ms(whole[one.threads], places)
                        valid = one.valid and whole[one.threads].valid
                        add(one.engine, ",".join(map(str, indexes)), one.threads, predicted, one.request, valid)
    Console(markup=False, emoji=False, width=140).print(table)


if __name__ == "__main__":
    main()

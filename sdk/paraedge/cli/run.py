"""``paraedge run``: run a bundle on images or tensors."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paraedge.cli.options import BRANCHES, Branches
from paraedge.cli.output import console, json_option, print_json, progress_bar, table, working
from paraedge.cli.packaged_bundle import packaged_bundle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.prediction import Prediction


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[BUNDLE] [INPUTS]...")
@click.option("--branches", type=BRANCHES, default="all", help="2: the first two. 0,3,5: those. [default: all]")
@click.option("--threads", type=int, help="Threads that run branches. [default: one per branch, up to the cores]")
@click.option("--engine", help="Another engine that can run the same files. [default: the bundle's]")
@click.option("--budget-ms", type=float, help="Target time of each prediction, in milliseconds.")
@click.option("--profile", type=click.Path(path_type=Path), help="The device.json that 'paraedge profile' made here.")
@click.option("--allow-foreign-profile", is_flag=True, help="Take the profile of another device or bundle.")
@click.option("--early-stop", is_flag=True, help="Stop when the prediction is sure enough, as calibrated at export.")
@click.option("--explain", is_flag=True, help="Show why each branch ran or was dropped.")
@json_option
def run(
    paths: tuple[Path, ...],
    branches: Branches,
    threads: int | None,
    engine: str | None,
    budget_ms: float | None,
    profile: Path | None,
    allow_foreign_profile: bool,
    early_stop: bool,
    explain: bool,
    as_json: bool,
) -> None:
    """Run a bundle on images, or on tensors in .npy files.

    INPUTS are files or folders; without any, the bundle's own golden inputs are used. Without
    BUNDLE, the packaged Fashion-MNIST model is exported for this machine first (needs torch).

    \b
    Example:
      paraedge run
      paraedge run fashion-mnist-linux-all.paraedge shirt.png --threads 2
      paraedge run fashion-mnist-linux-all.paraedge --budget-ms 5 --explain
    """
    from paraedge_measure.latency import known_latency
    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.errors import InputError
    from paraedge_runtime.inputs import find_pictures
    from paraedge_runtime.session import Session
    from paraedge_runtime.storage import looks_like_bundle

    if paths and looks_like_bundle(paths[0]):
        bundle, files = Bundle.open(paths[0]), list(paths[1:])
    else:
        if paths and not paths[0].exists():
            raise InputError(f"{paths[0]} does not exist")
        files = find_pictures(list(paths))
        bundle = Bundle.open(packaged_bundle(engine))
    inputs = _inputs(bundle, files)

    results: list[tuple[str, int | None, Prediction]] = []
    with working(f"loading {bundle.manifest.engine}"):
        opened = Session.open(
            bundle,
            engine=engine,
            threads=threads,
            branches=branches,
            latency=known_latency(
                profile,
                bundle,
                engine=engine,
                threads=threads,
                branches=branches,
                allow_foreign=allow_foreign_profile,
            ),
        )
    with opened as session, progress_bar() as bar:
        bar.disable = len(inputs) < 500
        for name, value, label in bar.track(inputs, description="running"):
            prediction = session.run(_read(value, bundle), budget_ms=budget_ms, early_stop=early_stop)
            results.append((name, label, prediction))
        description, used_threads = session.engine.description, session.threads
    if as_json:
        print_json([_document(bundle, name, label, prediction) for name, label, prediction in results])
    else:
        _print(bundle, results, f"{description}, {used_threads} thread(s)", explain)


def _inputs(bundle: Bundle, files: list[Path]) -> list[tuple[str, NDArray[Any] | Path, int | None]]:
    """Name, value or file, and label of each input; the bundle's golden ones without files."""
    from paraedge_runtime.inputs import find_inputs

    if files:
        return [(str(path), path, None) for path in find_inputs(files, bundle.manifest.input)]
    golden = bundle.golden()
    labels = [None] * len(golden.inputs) if golden.labels is None else [int(label) for label in golden.labels]
    return [
        (f"golden {_kind(bundle)} {number}", value, label)
        for number, (value, label) in enumerate(zip(golden.inputs, labels, strict=True))
    ]


def _kind(bundle: Bundle) -> str:
    from paraedge_runtime.manifest import TensorInput

    return "tensor" if isinstance(bundle.manifest.input, TensorInput) else "image"


def _read(value: NDArray[Any] | Path, bundle: Bundle) -> NDArray[Any]:
    from paraedge_runtime.inputs import read_picture, read_tensor
    from paraedge_runtime.manifest import TensorInput

    if not isinstance(value, Path):
        return value
    spec = bundle.manifest.input
    return read_tensor(value, spec) if isinstance(spec, TensorInput) else read_picture(value, spec)


def _document(bundle: Bundle, name: str, label: int | None, prediction: Prediction) -> dict[str, Any]:
    labels = bundle.manifest.labels
    return {
        "input": name,
        "label": prediction.label if labels else None,
        "label_index": prediction.label_index if labels else None,
        "true_label": None if label is None else labels[label],
        "confidence": round(prediction.confidence, 6) if labels else None,
        "is_calibrated": prediction.is_calibrated,
        "output": [round(float(value), 6) for value in prediction.output],
        "branches_used": list(prediction.branches_used),
        "branches_dropped": [{"index": drop.index, "reason": drop.reason} for drop in prediction.branches_dropped],
        "elapsed_ms": round(prediction.elapsed_ms, 3),
        "deadline_met": prediction.deadline_met,
        "requests_to_learn": prediction.requests_to_learn,
        "engine": prediction.engine,
        "timeline": [
            {
                "part": part.part,
                "thread": part.thread,
                "start_ms": round(part.start_ms, 3),
                "end_ms": round(part.end_ms, 3),
            }
            for part in prediction.timeline
        ],
    }


def _print(bundle: Bundle, results: list[tuple[str, int | None, Prediction]], engine: str, explain: bool) -> None:
    if explain:
        for name, _, prediction in results:
            console().print(f"{name}: {_result(prediction, bundle)}\n{prediction.explain()}\n")
    labels = bundle.manifest.labels
    columns = ("label", ">confidence") if labels else ("output", ">norm")
    rows = table(_kind(bundle), *columns, "branches", ">ms", "")
    for name, label, prediction in results:
        note = _dropped(prediction)
        if label is not None and labels and label != prediction.label_index:
            note = "; ".join(filter(None, [f"is {labels[label]}", note]))
        rows.add_row(
            name,
            _result(prediction, bundle),
            f"{100 * prediction.confidence:.1f} %" if labels else f"{float((prediction.output**2).sum()) ** 0.5:.4g}",
            " ".join(str(index) for index in prediction.branches_used),
            f"{prediction.elapsed_ms:.2f}",
            note,
        )
    console().print(rows)
    known = [prediction.label_index == label for _, label, prediction in results if label is not None]
    middle_ms = statistics.median(prediction.elapsed_ms for _, _, prediction in results)
    right = f", {sum(known)} of {len(known)} right" if known else ""
    late = sum(not prediction.deadline_met for _, _, prediction in results)
    missed = f", {late} after the deadline" if late else ""
    console().print(
        f"\n{len(results)} {_kind(bundle)}(s){right}{missed}, median {middle_ms:.2f} ms, {engine}",
    )


def _result(prediction: Prediction, bundle: Bundle) -> str:
    """The label, or the first numbers of a vector."""
    if bundle.manifest.labels:
        return prediction.label
    return " ".join(f"{value:.4g}" for value in prediction.output[:3]) + (" …" if prediction.output.size > 3 else "")


def _dropped(prediction: Prediction) -> str:
    """What was dropped, in short: a reason of its own for a failure, one for all that is as it should be."""
    from paraedge_runtime.prediction import BranchState

    failed = (BranchState.FAILED, BranchState.NOT_FINITE)
    notes = [f"dropped {run.index}: {run.reason}" for run in prediction.branches if run.state in failed]
    for state, word in (
        (BranchState.WOULD_NOT_FIT, "would not fit"),
        (BranchState.LATE, "late"),
        (BranchState.NOT_NEEDED, "not needed"),
    ):
        indexes = [str(run.index) for run in prediction.branches if run.state == state]
        if indexes:
            notes.append(f"{word}: {' '.join(indexes)}")
    return "; ".join(notes)

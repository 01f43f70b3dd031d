"""``paraedge run``: classify images with a bundle."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paraedge.cli.options import BRANCHES, Branches
from paraedge.cli.output import console, json_option, print_json, progress_bar, table, working
from paraedge.cli.packaged_bundle import packaged_bundle

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.prediction import Prediction


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[BUNDLE] [PICTURES]...")
@click.option("--branches", type=BRANCHES, default="all", help="2: the first two. 0,3,5: those. [default: all]")
@click.option("--threads", type=int, help="Threads that run branches. [default: one per branch, up to the cores]")
@click.option("--engine", help="Another engine that can run the same files. [default: the bundle's]")
@click.option("--budget-ms", type=float, help="Answer each picture within so many milliseconds.")
@click.option("--device", type=click.Path(path_type=Path), help="What 'paraedge profile' measured here.")
@click.option("--allow-foreign-profile", is_flag=True, help="Take the profile of another device or bundle.")
@click.option("--early-stop", is_flag=True, help="Stop when the answer is sure enough, as calibrated at export.")
@click.option("--explain", is_flag=True, help="Tell of every branch why it ran or was dropped.")
@json_option
def run(
    paths: tuple[Path, ...],
    branches: Branches,
    threads: int | None,
    engine: str | None,
    budget_ms: float | None,
    device: Path | None,
    allow_foreign_profile: bool,
    early_stop: bool,
    explain: bool,
    as_json: bool,
) -> None:
    """Classify images with a bundle.

    PICTURES are files or folders; without any, the bundle's own golden images are used. Without
    BUNDLE, the packaged Fashion-MNIST model is exported for this machine first (needs torch).

    \b
    Example:
      paraedge run
      paraedge run fashion-mnist-linux-all.paraedge shirt.png --threads 2
      paraedge run fashion-mnist-linux-all.paraedge --budget-ms 5 --explain
    """
    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.errors import InputError
    from paraedge_runtime.inputs import find_pictures, read_picture
    from paraedge_runtime.session import Session
    from paraedge_runtime.storage import looks_like_bundle

    if paths and looks_like_bundle(paths[0]):
        bundle = Bundle.open(paths[0])
        pictures = find_pictures(list(paths[1:]))
    else:
        if paths and not paths[0].exists():
            raise InputError(f"{paths[0]} does not exist")
        pictures = find_pictures(list(paths))
        bundle = Bundle.open(packaged_bundle(engine))

    spec = bundle.manifest.input
    images: list[tuple[str, NDArray[np.uint8] | Path, int | None]]
    if pictures:
        images = [(str(path), path, None) for path in pictures]
    else:
        golden = bundle.golden()
        if golden.labels is None or golden.inputs.dtype != "uint8":
            raise InputError(f"{bundle.path} does not tell classes of images; run it with paraedge.Session")
        images = [
            (f"golden image {number}", image, int(label))
            for number, (image, label) in enumerate(zip(golden.inputs, golden.labels, strict=True))
        ]

    results: list[tuple[str, int | None, Prediction]] = []
    with working(f"loading {bundle.manifest.engine}"):
        opened = Session.open(
            bundle,
            engine=engine,
            threads=threads,
            branches=branches,
            device=device,
            allow_foreign_profile=allow_foreign_profile,
        )
    with opened as session, progress_bar() as bar:
        bar.disable = len(images) < 500
        for name, image, label in bar.track(images, description="classifying"):
            pixels = read_picture(image, spec) if isinstance(image, Path) else image
            prediction = session.run(pixels, budget_ms=budget_ms, early_stop=early_stop)
            results.append((name, label, prediction))
        description, used_threads = session.engine.description, session.threads
    if as_json:
        print_json([_document(bundle, name, label, prediction) for name, label, prediction in results])
    else:
        _print(bundle, results, f"{description}, {used_threads} thread(s)", explain)


def _document(bundle: Bundle, name: str, label: int | None, prediction: Prediction) -> dict[str, Any]:
    labels = bundle.manifest.labels
    return {
        "image": name,
        "label": prediction.label,
        "label_index": prediction.label_index,
        "true_label": None if label is None else labels[label],
        "confidence": round(prediction.confidence, 6),
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
            console().print(f"{name}: {prediction.label}\n{prediction.explain()}\n", markup=False)
    labels = bundle.manifest.labels
    rows = table("image", "label", ">confidence", "branches", ">ms", "")
    for name, label, prediction in results:
        note = _dropped(prediction)
        if label is not None and label != prediction.label_index:
            note = "; ".join(filter(None, [f"is {labels[label]}", note]))
        rows.add_row(
            name,
            prediction.label,
            f"{100 * prediction.confidence:.1f} %",
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
    console().print(f"\n{len(results)} image(s){right}{missed}, median {middle_ms:.2f} ms, {engine}", markup=False)


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

"""``paraedge run``: run a bundle on images or tensors, and print each result as it comes."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paraedge.cli.options import BRANCHES, Branches, trusted_keys_option
from paraedge.cli.output import console, print_json, working
from paraedge.cli.packaged_bundle import packaged_bundle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.prediction import Prediction
    from paraedge_runtime.session import Session


_UNKNOWN = "unknown"


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[BUNDLE] [INPUTS]...")
@click.option("--branches", type=BRANCHES, default="all", help="2: the first two. 0,3,5: those. [default: all]")
@click.option("--threads", type=int, help="Threads that run branches. [default: one per branch, up to the cores]")
@click.option("--engine", help="Another engine that can run the same files. [default: the bundle's]")
@click.option("--budget-ms", type=float, help="Target time of each prediction, in milliseconds.")
@click.option("--profile", type=click.Path(path_type=Path), help="The device.json that 'paraedge profile' made here.")
@click.option("--allow-foreign-profile", is_flag=True, help="Take the profile of another device or bundle.")
@click.option("--early-stop", is_flag=True, help="Stop when the prediction is sure enough, as calibrated at export.")
@click.option("--min-confidence", type=float, help="Call a prediction that is less sure unknown: above 0, at most 1.")
@click.option("--top-k", type=int, help="Show so many of the most probable labels of each.")
@trusted_keys_option
@click.option("--explain", is_flag=True, help="Show why each branch ran or was dropped.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per image instead of text.")
def run(
    paths: tuple[Path, ...],
    branches: Branches,
    threads: int | None,
    engine: str | None,
    budget_ms: float | None,
    profile: Path | None,
    allow_foreign_profile: bool,
    early_stop: bool,
    min_confidence: float | None,
    top_k: int | None,
    trusted_keys: tuple[str, ...] | None,
    explain: bool,
    as_json: bool,
) -> None:
    """Run a bundle on images, or on tensors in .npy files.

    INPUTS are files or folders; without any, the bundle's own golden inputs are used. Without
    BUNDLE, the packaged Fashion-MNIST model is exported for this machine first (needs torch).

    Each result is printed when it is there. A file that cannot be read is named and skipped, and the
    exit status is 1. With --json a line is one JSON document; that of a skipped file has "error".

    \b
    Example:
      paraedge run
      paraedge run fashion-mnist-linux-all.paraedge shirt.png --threads 2
      paraedge run fashion-mnist-linux-all.paraedge --budget-ms 5 --explain
      paraedge run fashion-mnist-linux-all.paraedge --min-confidence 0.8 --top-k 3
    """
    from paraedge_measure.latency import known_latency
    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.errors import InputError, ParaEdgeError
    from paraedge_runtime.inputs import find_images
    from paraedge_runtime.session import Session
    from paraedge_runtime.storage import looks_like_bundle

    if paths and looks_like_bundle(paths[0]):
        bundle, files = Bundle.open(paths[0], trusted_keys=trusted_keys), list(paths[1:])
    else:
        if paths and not paths[0].exists():
            raise InputError(f"{paths[0]} does not exist")
        files = find_images(list(paths))
        bundle = Bundle.open(packaged_bundle(engine), trusted_keys=trusted_keys)
    _check_labels_wanted(bundle, min_confidence, top_k)
    inputs = _inputs(bundle, files)

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
    with opened as session:
        names = [name for name, _, _ in inputs]
        report = _JsonLines(bundle, top_k) if as_json else _TextLines(bundle, session, names, explain, top_k)
        try:
            for name, value, label in inputs:
                try:
                    image = _read(value, bundle)
                except InputError as error:
                    report.skip(name, str(error))
                    continue
                prediction = session.run(
                    image, budget_ms=budget_ms, early_stop=early_stop, min_confidence=min_confidence
                )
                report.show(name, label, prediction)
        finally:  # after Ctrl-C too
            report.finish()
    if report.skipped:
        raise ParaEdgeError(
            f"{report.skipped} of {len(inputs)} file(s) could not be read and were skipped; replace or remove them"
        )


def _check_labels_wanted(bundle: Bundle, min_confidence: float | None, top_k: int | None) -> None:
    """What the first image would be refused for."""
    from paraedge_runtime.errors import InputError

    labels = bundle.manifest.labels
    if not labels and not (min_confidence is top_k is None):
        raise InputError(
            f"the output of {bundle.manifest.name} is a vector without labels; leave out --min-confidence and --top-k"
        )
    if min_confidence is not None and not 0 < min_confidence <= 1:
        raise InputError(f"--min-confidence is {min_confidence}; a number above 0 and at most 1 is needed")
    if top_k is not None and not 1 <= top_k <= len(labels):
        raise InputError(f"--top-k is {top_k}; a number from 1 to {len(labels)}, the number of labels, is needed")


def _inputs(bundle: Bundle, files: list[Path]) -> list[tuple[str, NDArray[Any] | Path, int | None]]:
    """Name, value or file, and label of each input; the bundle's golden ones without files."""
    from paraedge_runtime.inputs import check_image_input, find_inputs
    from paraedge_runtime.manifest import ImageInput

    if files:
        if isinstance(bundle.manifest.input, ImageInput):
            check_image_input(bundle.manifest.input)  # what would be said of every image is said once
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
    from paraedge_runtime.inputs import read_input

    return read_input(value, bundle.manifest.input) if isinstance(value, Path) else value


class _JsonLines:
    """One line of JSON per input."""

    def __init__(self, bundle: Bundle, top_k: int | None) -> None:
        self.skipped = 0
        self._labels = bundle.manifest.labels
        self._top_k = top_k

    def show(self, name: str, label: int | None, prediction: Prediction) -> None:
        true_label = None if label is None else self._labels[label]
        document = {"input": name, "true_label": true_label, **prediction.to_dict()}
        if self._top_k is not None:
            document["top_k"] = [{"label": text, "probability": value} for text, value in prediction.top_k(self._top_k)]
        print_json(document, indent=None)

    def skip(self, name: str, problem: str) -> None:
        self.skipped += 1
        print_json({"input": name, "error": problem}, indent=None)
        _warn_skipped(problem)

    def finish(self) -> None:
        """Every line stands for itself."""


class _TextLines:
    """One line of text per input, in columns whose widths are known before the first; then a summary."""

    def __init__(self, bundle: Bundle, session: Session, names: list[str], explain: bool, top_k: int | None) -> None:
        self.skipped = 0
        self._bundle = bundle
        self._engine = f"{session.engine.description}, {session.threads} thread(s)"
        self._explain = explain
        self._top_k = top_k
        self._unknown = 0
        self._elapsed_ms: list[float] = []
        self._late = 0
        self._is_right: list[bool] = []
        self._uncalibrated = 0
        result = max([len(_UNKNOWN), *map(len, bundle.manifest.labels)]) if bundle.manifest.labels else 32
        branches = max(len("branches"), len(" ".join(map(str, session.branches))))
        self._widths = (min(max(map(len, [_kind(bundle), *names])), 40), min(result, 32), 10, branches, 8)

    def show(self, name: str, label: int | None, prediction: Prediction) -> None:
        labels = self._bundle.manifest.labels
        if not self._elapsed_ms:
            what = ("label", "confidence") if labels else ("output", "norm")
            self._line(_kind(self._bundle), *what, "branches", "ms", "")
        note = _dropped(prediction)
        self._unknown += prediction.is_unknown
        if label is not None and labels:
            is_right = prediction.label_index == label and not prediction.is_unknown
            if not prediction.is_unknown:
                self._is_right.append(is_right)
            if not is_right:
                note = "; ".join(filter(None, [f"is {labels[label]}", note]))
        self._line(
            name,
            _result(prediction, self._bundle),
            f"{100 * prediction.confidence:.1f} %" if labels else f"{float((prediction.output**2).sum()) ** 0.5:.4g}",
            " ".join(map(str, prediction.branches_used)),
            f"{prediction.elapsed_ms:.2f}",
            note,
        )
        if self._top_k is not None:
            probable = [f"{text} {100 * value:.1f} %" for text, value in prediction.top_k(self._top_k)]
            console().print(f"  {', '.join(probable)}")
        if self._explain:
            console().print("".join(f"  {line}\n" for line in prediction.explain().splitlines()))
        self._elapsed_ms.append(prediction.elapsed_ms)
        self._late += not prediction.deadline_met
        self._uncalibrated += bool(labels) and not prediction.is_calibrated

    def skip(self, name: str, problem: str) -> None:
        self.skipped += 1
        _warn_skipped(problem)

    def finish(self) -> None:
        """What was seen until now, if anything."""
        if not self._elapsed_ms:
            return
        right = f", {sum(self._is_right)} of {len(self._is_right)} right" if self._is_right else ""
        unknown = f", {self._unknown} unknown" if self._unknown else ""
        missed = f", {self._late} after the deadline" if self._late else ""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        middle_ms = statistics.median(self._elapsed_ms)
        counted = f"{len(self._elapsed_ms)} {_kind(self._bundle)}(s){right}{unknown}{missed}{skipped}"
        console().print(f"\n{counted}, median {middle_ms:.2f} ms, {self._engine}")
        if self._uncalibrated:
            console().print(f"{self._uncalibrated} confidence(s) not calibrated: no temperature for the branches used")

    def _line(self, name: str, result: str, number: str, branches: str, milliseconds: str, note: str) -> None:
        first, second, third, fourth, fifth = self._widths
        line = f"{name:<{first}}  {result:<{second}}  {number:>{third}}  {branches:<{fourth}}  {milliseconds:>{fifth}}"
        console().print(f"{line}  {note}".rstrip())


def _result(prediction: Prediction, bundle: Bundle) -> str:
    """The label, if it is known, or the first numbers of a vector."""
    if bundle.manifest.labels:
        return prediction.label or _UNKNOWN
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


def _warn_skipped(problem: str) -> None:
    from paraedge_runtime.inputs import display_name

    click.echo(f"Skipped: {display_name(problem)}", err=True)

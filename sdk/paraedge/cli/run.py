"""``paraedge run``: run a bundle on images, sound or tensors, and print each result as it comes."""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paraedge.cli.options import BRANCHES, Branches, engine_option, threads_option, trusted_keys_option
from paraedge.cli.output import console, echo, indexes_text, print_json, working
from paraedge.cli.packaged_bundle import packaged_bundle
from paraedge_runtime._console import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import JustifyMethod

    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.manifest import InputSpec
    from paraedge_runtime.prediction import Prediction
    from paraedge_runtime.session import Session


_UNKNOWN = "unknown"
_STDIN = Path("-")
_MOST_STDIN_BYTES = 256 << 20
_FIRST_BYTES = {b"RIFF": ".wav", b"PK\x03\x04": ".npz", b"\x93NUMPY": ".npy"}


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, allow_dash=True), metavar="[BUNDLE] [INPUTS]...")
@click.option(
    "--branches",
    type=BRANCHES,
    default="all",
    help="Branches to run: a count (2), indices (0,3,5) or all.  [default: all]",
)
@threads_option
@engine_option
@click.option("--budget-ms", type=float, help="Time limit of each prediction, in milliseconds.")
@click.option(
    "--profile", type=click.Path(path_type=Path), help="The device.json of this device, from 'paraedge profile'."
)
@click.option("--allow-foreign-profile", is_flag=True, help="Accept the profile of another device or bundle.")
@click.option(
    "--early-stop", is_flag=True, help="Stop when the prediction is confident enough, as calibrated at export."
)
@click.option(
    "--min-confidence", type=float, help="Show a prediction with a lower confidence as unknown; above 0, at most 1."
)
@click.option("--top-k", type=int, metavar="K", help="Show the K most probable labels of each input.")
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
    """Run a bundle on images, sound or other tensors.

    INPUTS are files or folders, or - for one file on standard input: images, .wav recordings, tensors in
    .npy files, or sensor windows in .csv or .npz files. Default: the golden inputs in the bundle. Without
    BUNDLE, the packaged Fashion-MNIST model is exported first (needs torch).

    Results are printed as they come. A file that cannot be read is reported and skipped, and the exit
    status is 2. With --json each line is one JSON document; that of a skipped file has the key "error".

    \b
    Example:
      paraedge run
      paraedge run fashion-mnist-linux-all.paraedge shirt.png --threads 2
      paraedge run fashion-mnist-linux-all.paraedge --budget-ms 5 --explain
      paraedge run fashion-mnist-linux-all.paraedge --min-confidence 0.8 --top-k 3
      paraedge run motion.paraedge window.csv
      paraedge run keywords-linux-all.paraedge yes.wav
      cat shirt.png | paraedge run fashion-mnist-linux-all.paraedge -
    """
    from paraedge_measure.latency import known_latency
    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.errors import InputError
    from paraedge_runtime.inputs import find_images
    from paraedge_runtime.session import Session
    from paraedge_runtime.storage import looks_like_bundle
    from paraedge_runtime.trial import try_bundle

    if paths and looks_like_bundle(paths[0]):
        bundle, files = Bundle.open(paths[0], trusted_keys=trusted_keys), list(paths[1:])
    else:
        if paths and paths[0] != _STDIN and not paths[0].exists():
            raise InputError(f"{paths[0]} does not exist; give a bundle, or input files for the packaged model")
        files = [*find_images([path for path in paths if path != _STDIN]), *(path for path in paths if path == _STDIN)]
        bundle = Bundle.open(packaged_bundle(engine), trusted_keys=trusted_keys)
    _check_labels_wanted(bundle, min_confidence, top_k)
    inputs = _inputs(bundle, files)

    with working(f"loading {bundle.manifest.engine}"):
        try_bundle(bundle, engine=engine)
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
                    if len(inputs) == 1 and not as_json:
                        raise
                    report.skip(name, str(error))
                    continue
                prediction = session.run(
                    image, budget_ms=budget_ms, early_stop=early_stop, min_confidence=min_confidence
                )
                report.show(name, label, prediction)
        finally:  # after Ctrl-C too
            report.finish()
    if report.skipped:
        raise InputError(
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
        raise InputError(f"--min-confidence must be above 0 and at most 1, got {min_confidence}")
    if top_k is not None and not 1 <= top_k <= len(labels):
        raise InputError(f"--top-k must be from 1 to {len(labels)} (the number of labels), got {top_k}")


def _inputs(bundle: Bundle, files: list[Path]) -> list[tuple[str, NDArray[Any] | Path, int | None]]:
    """Name, value or file, and label of each input; the bundle's golden ones without files."""
    from paraedge_runtime.errors import InputError
    from paraedge_runtime.inputs import check_image_input, find_inputs
    from paraedge_runtime.manifest import ImageInput

    if files:
        if isinstance(bundle.manifest.input, ImageInput):
            check_image_input(bundle.manifest.input)  # what would be said of every image is said once
        named = find_inputs([path for path in files if path != _STDIN], bundle.manifest.input)
        piped = [path for path in files if path == _STDIN]
        if len(piped) > 1:
            raise InputError("- was given more than once; the standard input holds one file")
        return [(str(path), path, None) for path in [*named, *piped]]
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

    if not isinstance(value, Path):
        return value
    return read_input(value, bundle.manifest.input) if value != _STDIN else _read_stdin(bundle)


def _read_stdin(bundle: Bundle) -> NDArray[Any]:
    """The one file that is piped in, of a bounded size, as the bundle reads it."""
    from paraedge_runtime.errors import InputError
    from paraedge_runtime.inputs import read_input

    content = sys.stdin.buffer.read(_MOST_STDIN_BYTES + 1)
    if len(content) > _MOST_STDIN_BYTES:
        raise InputError(f"the standard input has more than {_MOST_STDIN_BYTES >> 20} MiB; name the file instead")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "input").with_suffix(_suffix(content, bundle.manifest.input))
        path.write_bytes(content)
        try:
            return read_input(path, bundle.manifest.input)
        except InputError as error:
            raise InputError(str(error).replace(str(path), "the standard input")) from None


def _suffix(content: bytes, spec: InputSpec) -> str:
    """Of a file without a name: readers of tensors go by it. CSV is text, and has no first bytes of its own."""
    from paraedge_runtime.manifest import ImageInput
    from paraedge_runtime.sound import hears

    if isinstance(spec, ImageInput):
        return ""
    other = ".npy" if hears(spec) or spec.channel_names is None else ".csv"
    return next((suffix for start, suffix in _FIRST_BYTES.items() if content.startswith(start)), other)


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
        self._widths = _widths(bundle, names)

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
            indexes_text(prediction.branches_used),
            f"{prediction.elapsed_ms:.2f}",
            note,
        )
        if self._top_k is not None:
            probable = [f"{text} {100 * value:.1f} %" for text, value in prediction.top_k(self._top_k)]
            console().print(f"  {', '.join(probable)}")
        if self._explain:
            console().print("\n".join(f"  {line}" for line in prediction.explain().splitlines()))
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

    def _line(self, *cells: str) -> None:
        """One row; its widths are known before the others."""
        from rich.table import Table

        row = Table.grid(padding=(0, 2))
        for width, justify in zip(self._widths, _JUSTIFY, strict=True):
            row.add_column(width=width, justify=justify, overflow="fold")
        row.add_column(overflow="fold")  # the note
        row.add_row(*map(printable, cells))  # one line, whatever a label says
        console().print(row)


_NOTE_WIDTH = len("would not fit: 1-7")
_JUSTIFY: tuple[JustifyMethod, ...] = ("left", "left", "right", "left", "right")


def _widths(bundle: Bundle, names: list[str]) -> tuple[int, ...]:
    """Of the columns before the note, to which a terminal leaves ``_NOTE_WIDTH``."""
    labels = bundle.manifest.labels
    name = max(len(printable(text)) for text in [_kind(bundle), *names])  # as they are shown
    result = max(len(printable(text)) for text in [_UNKNOWN, *labels]) if labels else 32
    confidence, used, milliseconds, gaps = 10, 8, 7, 10
    if console().is_terminal:
        result = min(result, 24)
        room = console().width - _NOTE_WIDTH - result - confidence - used - milliseconds - gaps
        name = max(12, min(name, room))
    return name, result, confidence, used, milliseconds


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
        (BranchState.WOULD_NOT_FIT, "would miss the deadline"),
        (BranchState.LATE, "late"),
        (BranchState.NOT_NEEDED, "not needed"),
    ):
        if indexes := [run.index for run in prediction.branches if run.state == state]:
            notes.append(f"{word}: {indexes_text(indexes)}")
    return "; ".join(notes)


def _warn_skipped(problem: str) -> None:
    echo(f"Skipped: {problem}", err=True)

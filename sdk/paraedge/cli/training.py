"""What the commands that train share: the log, the progress bar, the result."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from paraedge.cli.output import as_percent, console, echo, print_json, print_next, print_progress, progress_bar, table
from paraedge_runtime.errors import InputError

if TYPE_CHECKING:
    from paraedge.model import Checkpoint
    from paraedge.training import TrainingProgress

__all__ = ["check_labels", "check_log", "is_first_process", "print_trained", "tell_left_out", "training_progress"]


def is_first_process() -> bool:
    """Whether this process is the one that reports and writes; torchrun numbers them in ``RANK``."""
    return os.environ.get("RANK", "0") == "0"


def tell_left_out(dataset: str, data_dir: Path | None) -> None:
    """A line on stderr about files of the folder that train nothing, such as ``.heic``."""
    from paraedge.data.datasets import files_left_out

    if is_first_process() and (line := files_left_out(dataset, data_dir)):
        echo(line, err=True)


def check_log(log: Path | None, out: Path) -> None:
    """Before the first epoch, which would else be lost.

    Raises:
        InputError: there is no folder to write the log in, it is the one of the checkpoint, or lines of the log would
            be added to something else: to a file that training writes, or to one that is there and is no log.
    """
    if log is None:
        return
    real, checkpoint = (Path(os.path.realpath(path)) for path in (log, out))
    written = {checkpoint, *checkpoint.parent.glob(f"{glob.escape(out.name)}.resume*")}
    if real in written or real == checkpoint.with_name(f"{out.name}.resume"):
        raise InputError(f"--log is {log}, a file that the training writes; choose another file")
    if log.is_file() and not _begins_like_a_log(log):
        raise InputError(f"--log is {log}, which exists and is not a training log; choose another file")
    if checkpoint in real.parents:
        raise InputError(
            f"--log is {log}, inside --out, a folder that holds a checkpoint and nothing else; name a file beside it"
        )
    if not log.parent.is_dir():
        raise InputError(f"--log is {log}, but there is no folder {log.parent}; make it first")


def _begins_like_a_log(path: Path) -> bool:
    """Whether a file is empty or begins with a JSON object."""
    with path.open("rb") as file:
        return file.read(1) in (b"", b"{")


def check_labels(labels: tuple[str, ...] | None, dataset: str) -> None:
    """Refuse names of classes for a data set that has its own.

    Raises:
        InputError: with what to leave out.
    """
    if labels is not None and dataset != "npz":
        raise InputError(f"--labels is for --dataset npz; the data set {dataset!r} names its classes, leave it out")


@dataclass(frozen=True)
class Shown:
    """What ``train`` calls: itself is an ``on_progress``, ``features`` an ``on_features``."""

    progress: Callable[[TrainingProgress], None] = lambda progress: None
    features: Callable[[int, int], None] = lambda done, total: None

    def __call__(self, progress: TrainingProgress) -> None:
        """After some steps."""
        self.progress(progress)


@contextlib.contextmanager
def training_progress(dataset: str, epochs: int, log: Path | None) -> Iterator[Shown]:
    """A progress bar and a line after each epoch; in ``log`` one of JSON."""
    if not is_first_process():
        yield Shown()
        return
    with progress_bar("{task.fields[loss]}") as bar:
        task = bar.add_task(f"training on {dataset}", total=None, loss="")

        def show(progress: TrainingProgress) -> None:
            epoch, loss = f"epoch {progress.epoch + 1}/{epochs}", f"loss {progress.loss:.3f}"
            if progress.step + 1 == progress.steps_per_epoch:
                if log is not None:
                    _add_line(log, progress)
                accuracy = " ".join(f"{100 * value:.1f}" for value in progress.prefix_accuracy)
                print_progress(f"{epoch}  {loss}  prefix accuracy {accuracy} %")
            bar.update(
                task,
                total=epochs * progress.steps_per_epoch,
                completed=progress.epoch * progress.steps_per_epoch + progress.step + 1,
                description=epoch,
                loss=loss,
            )

        def show_features(done: int, total: int) -> None:
            bar.update(task, total=total, completed=done, description="images through the backbone")

        yield Shown(show, show_features)


def _add_line(log: Path, progress: TrainingProgress) -> None:
    import msgspec

    try:
        with log.open("ab") as file:
            file.write(msgspec.json.encode(progress) + b"\n")
    except OSError as error:
        raise InputError(f"{log} cannot be written: {error.strerror}; choose another --log") from error


def print_trained(checkpoint: Checkpoint, out: Path, as_json: bool) -> None:
    """The accuracy of every prefix on the test split, and what to do with the model."""
    if not is_first_process():
        return
    record = checkpoint.training
    if as_json:
        print_json(
            {
                "checkpoint": str(out),
                "prefix_accuracy": list(record.prefix_accuracy),
                "num_test_samples": record.num_test_samples,
                "train_seconds": record.train_seconds,
            }
        )
        return
    kind = "images" if checkpoint.config.model.signal is None else "signals"
    console().print(f"{out}: {record.num_test_samples} test {kind}")
    rows = table(">branches", ">test accuracy")
    for index, accuracy in enumerate(record.prefix_accuracy):
        rows.add_row(str(index + 1), as_percent(accuracy))
    console().print(rows)
    print_next("paraedge", "export", "--target", "linux", "--model", out)

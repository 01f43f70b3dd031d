"""Several bundles of one task, measured side by side: size, accuracy of every prefix, agreement, latency here."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime import Bundle, Session
from paraedge_runtime.errors import EngineError, InputError
from paraedge_runtime.similarity import top1_agreement

__all__ = ["ComparedBundle", "compare_bundles", "display_names"]


@dataclass(frozen=True)
class ComparedBundle:
    """One of the bundles. A prefix is the first k of its branches; tuples have a value for each.

    Attributes:
        path: where it is.
        name: of its model.
        engine: what runs it.
        quantization: recipe by which its numbers are written.
        size_bytes: of all its files.
        prefix_bytes: of the stem's program and those of the branches.
        prefix_accuracy: fractions.
        prefix_ms: medians of a request here.
        agreement: share of the images on which all its branches together give the label that all branches of
            the first bundle give.
    """

    path: str
    name: str
    engine: str
    quantization: str
    size_bytes: int
    prefix_bytes: tuple[int, ...]
    prefix_accuracy: tuple[float, ...]
    prefix_ms: tuple[float, ...]
    agreement: float


def compare_bundles(
    bundles: Sequence[Bundle],
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    threads: int | None = None,
    rounds: int = 30,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[ComparedBundle]:
    """Run every image through every bundle, then take turns for the times.

    A round of times asks every bundle for every prefix once, in random order: what slows the machine down
    slows them all, and no bundle keeps its caches warm.

    Args:
        bundles: of models with the same input and the same labels.
        images: (M, H, W, C) uint8, at least one.
        labels: (M,) class indexes.
        threads: as ``Session.open`` takes them.
        rounds: of which each time is the median.
        on_progress: called with requests done and in all.

    Raises:
        InputError: a bundle is of another task than the first or has no labels, or there is nothing to compare.
        EngineError: a branch failed.
        EngineUnavailable: an engine is not installed.
    """
    _check(bundles, images, labels, rounds)
    steps = len(bundles) * len(images) + rounds * sum(len(bundle.manifest.branches) for bundle in bundles)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        on_progress(done, steps)

    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(Session.open(bundle, threads=threads)) for bundle in bundles]
        outputs = []  # of every bundle, (M, k, C)
        for session in sessions:
            logits = []
            for image in images:
                prediction = session.run(image)
                if prediction.branches_dropped:
                    drop = prediction.branches_dropped[0]
                    raise EngineError(
                        f"{session.bundle.path}: branch {drop.index} was dropped: {drop.reason}; "
                        "accuracy would mean nothing"
                    )
                logits.append(prediction.prefix_outputs)
                advance()
            outputs.append(np.stack(logits))
        times_ms = _take_turns(sessions, images, rounds, advance)

    compared = []
    for bundle, output, times in zip(bundles, outputs, times_ms, strict=True):
        manifest = bundle.manifest
        correct = output.argmax(axis=2) == labels[:, None]
        branch_bytes = np.cumsum([entry.size_bytes for entry in manifest.branches])
        compared.append(
            ComparedBundle(
                path=str(bundle.path),
                name=manifest.name,
                engine=manifest.engine,
                quantization=manifest.quantization,
                size_bytes=bundle.size_bytes,
                prefix_bytes=tuple(int(count) for count in manifest.stem.size_bytes + branch_bytes),
                prefix_accuracy=tuple(round(float(value), 6) for value in correct.mean(axis=0)),
                prefix_ms=tuple(round(float(value), 4) for value in np.median(times, axis=0)),
                agreement=round(top1_agreement(outputs[0][:, -1], output[:, -1]), 6),
            )
        )
    return compared


def _check(bundles: Sequence[Bundle], images: NDArray[np.uint8], labels: NDArray[np.int64], rounds: int) -> None:
    if not bundles or not len(images) or rounds < 1:
        raise InputError(
            f"{len(bundles)} bundles, {len(images)} images, {rounds} rounds; at least one of each is needed"
        )
    if labels.shape != (len(images),):
        raise InputError(f"{len(images)} images have labels of shape {labels.shape}; every image needs one")
    first = bundles[0].manifest
    if not first.labels:
        raise InputError(
            f"{bundles[0].path} makes a vector and no labels; 'paraedge inspect' shows how near to torch it is"
        )
    for bundle in bundles[1:]:
        manifest = bundle.manifest
        if manifest.labels != first.labels or manifest.input.shape != first.input.shape:
            raise InputError(
                f"{bundle.path} knows the classes {manifest.labels} in inputs of {manifest.input.shape}, "
                f"{bundles[0].path} {first.labels} in {first.input.shape}; compare bundles of one task"
            )


def _take_turns(
    sessions: Sequence[Session], images: NDArray[np.uint8], rounds: int, advance: Callable[[], None]
) -> list[list[list[float]]]:
    """For every session ``rounds`` lists of the milliseconds that its prefixes took."""
    times_ms = [[[0.0] * len(session.branches) for _ in range(rounds)] for session in sessions]
    turns = [(number, count) for number, session in enumerate(sessions) for count in range(len(session.branches))]
    order = random.Random(0)
    for one in range(rounds):
        order.shuffle(turns)
        image = images[one % len(images)]
        for number, count in turns:
            times_ms[number][one][count] = sessions[number].run(image, branches=count + 1).elapsed_ms
            advance()
    return times_ms


def display_names(paths: Sequence[str]) -> list[str]:
    """Short and different: the file names without ``.paraedge``, or whole paths where those are the same."""
    short = [Path(path).name.removesuffix(".paraedge") for path in paths]
    return short if len(set(short)) == len(short) else list(paths)

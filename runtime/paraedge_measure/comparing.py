"""Several bundles of one task, measured side by side: size, latency here, accuracy of every prefix and agreement of
labels, or how near every prefix is to the first bundle's vector."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime import Bundle, Session
from paraedge_runtime._arguments import as_callable, as_instance, as_instances, as_whole
from paraedge_runtime.errors import EngineError, InputError
from paraedge_runtime.manifest import ImageInput, LabelsOutput, Manifest
from paraedge_runtime.similarity import compare, relative_error, top1_agreement

__all__ = ["ComparedBundle", "compare_bundles", "display_names"]


@dataclass(frozen=True)
class ComparedBundle:
    """Results of one bundle. Tuples have one value for each prefix, which is the first k branches.

    Attributes:
        path: path of the bundle.
        name: name of the model.
        engine: engine that ran it.
        quantization: quantization recipe.
        size_bytes: size of all files.
        prefix_bytes: size of the programs of the stem and the prefix.
        prefix_ms: median time of a request.
        prefix_p95_ms: 95th percentile of the time of a request.
        prefix_accuracy: accuracy, as a fraction; ``None`` if the output is a vector.
        agreement: fraction of the inputs with the same label as the first bundle, with all branches; ``None`` if the
            output is a vector.
        prefix_relative_error: error of each prefix relative to all branches of the first bundle; ``None`` if the
            output is labels. See ``paraedge_runtime.similarity.relative_error``.
        prefix_snr_db: signal-to-noise ratio of the same vectors, ``None`` for identical ones; ``None`` altogether if
            the output is labels.
    """

    path: str
    name: str
    engine: str
    quantization: str
    size_bytes: int
    prefix_bytes: tuple[int, ...]
    prefix_ms: tuple[float, ...]
    prefix_p95_ms: tuple[float, ...]
    prefix_accuracy: tuple[float, ...] | None
    agreement: float | None
    prefix_relative_error: tuple[float, ...] | None
    prefix_snr_db: tuple[float | None, ...] | None


def compare_bundles(
    bundles: Sequence[Bundle],
    inputs: NDArray[np.uint8] | NDArray[np.float32],
    labels: NDArray[np.int64] | None,
    *,
    threads: int | None = None,
    rounds: int = 30,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[ComparedBundle]:
    """Run every input through every bundle, then measure latency with the bundles in turns.

    In each round every prefix of every bundle runs once, in random order. So a slow phase of the machine affects all
    of them, and no bundle has warm caches.

    Args:
        bundles: of models with the same input and the same output: labels or a vector.
        inputs: at least one; images (M, H, W, C) uint8, or tensors (M, ...) float32 as a sensor gives them.
        labels: (M,) class indices; ``None`` where the output is a vector.
        threads: as in ``Session.open``.
        rounds: number of rounds; times are medians over them.
        on_progress: called with the number of finished requests and the total.

    Raises:
        InputError: the bundles have different tasks, the labels do not fit, or there is nothing to compare.
        EngineError: a branch failed.
        EngineUnavailable: an engine is not installed.
    """
    as_callable("on_progress", on_progress)
    _check(bundles, inputs, labels, rounds)
    steps = len(bundles) * len(inputs) + rounds * sum(len(bundle.manifest.branches) for bundle in bundles)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        on_progress(done, steps)

    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(Session.open(bundle, threads=threads)) for bundle in bundles]
        outputs = [_prefix_outputs(session, inputs, advance) for session in sessions]
        times_ms = _take_turns(sessions, inputs, rounds, advance)
    return [
        _compared(bundle, output, np.array(times), outputs[0][:, -1], labels)
        for bundle, output, times in zip(bundles, outputs, times_ms, strict=True)
    ]


def _prefix_outputs(
    session: Session, inputs: NDArray[np.uint8] | NDArray[np.float32], advance: Callable[[], None]
) -> NDArray[np.float32]:
    """What every prefix gives for every input: (M, k, C)."""
    outputs = []
    for value in inputs:
        prediction = session.run(value)
        if prediction.branches_dropped:
            drop = prediction.branches_dropped[0]
            raise EngineError(
                f"{session.bundle.path}: branch {drop.index} was dropped: {drop.reason}; "
                "a comparison needs every branch"
            )
        outputs.append(prediction.prefix_outputs)
        advance()
    return np.stack(outputs)


def _compared(
    bundle: Bundle,
    outputs: NDArray[np.float32],
    times_ms: NDArray[np.float64],
    reference: NDArray[np.float32],
    labels: NDArray[np.int64] | None,
) -> ComparedBundle:
    """``outputs`` (M, k, C) of a bundle beside the truth, or beside the ``reference`` (M, C) where there is none;
    ``times_ms`` (rounds, k)."""
    manifest = bundle.manifest
    prefixes = [outputs[:, k] for k in range(outputs.shape[1])]
    branch_bytes = np.cumsum([entry.size_bytes for entry in manifest.branches])
    return ComparedBundle(
        path=str(bundle.path),
        name=manifest.name,
        engine=manifest.engine,
        quantization=manifest.quantization,
        size_bytes=bundle.size_bytes,
        prefix_bytes=tuple(int(count) for count in manifest.stem.size_bytes + branch_bytes),
        prefix_ms=tuple(round(float(value), 4) for value in np.median(times_ms, axis=0)),
        prefix_p95_ms=tuple(round(float(value), 4) for value in np.percentile(times_ms, 95, axis=0)),
        prefix_accuracy=None
        if labels is None
        else tuple(round(float((prefix.argmax(axis=1) == labels).mean()), 6) for prefix in prefixes),
        agreement=None if labels is None else round(top1_agreement(reference, prefixes[-1]), 6),
        prefix_relative_error=None
        if labels is not None
        else tuple(relative_error(reference, prefix) for prefix in prefixes),
        prefix_snr_db=None if labels is not None else tuple(compare(reference, prefix).snr_db for prefix in prefixes),
    )


def _check(
    bundles: Sequence[Bundle],
    inputs: NDArray[np.uint8] | NDArray[np.float32],
    labels: NDArray[np.int64] | None,
    rounds: int,
) -> None:
    as_instances("bundles", bundles, Bundle)
    as_instance("inputs", inputs, np.ndarray)
    if labels is not None:
        as_instance("labels", labels, np.ndarray)
    as_whole("rounds", rounds, least=0)
    if not bundles or not inputs.ndim or not len(inputs) or rounds < 1:
        raise InputError(
            f"a comparison needs at least one bundle, input and round, got {len(bundles)}, {len(inputs)} and {rounds}"
        )
    first = bundles[0].manifest
    for bundle in bundles[1:]:
        manifest = bundle.manifest
        if manifest.output != first.output or (manifest.input.shape, type(manifest.input)) != (
            first.input.shape,
            type(first.input),
        ):
            raise InputError(
                f"{bundle.path} {_task(manifest)}, {bundles[0].path} {_task(first)}; compare bundles of one task"
            )
    if labels is None and first.labels:
        raise InputError(f"labels is None, but {bundles[0].path} has classes; give a class index for every input")
    if labels is not None and not first.labels:
        raise InputError(f"labels were given, and {bundles[0].path} {_task(first)}; give None instead")
    if labels is not None and labels.shape != (len(inputs),):
        raise InputError(f"{len(inputs)} inputs have labels of shape {labels.shape}; every input needs one")


def _task(manifest: Manifest) -> str:
    output = manifest.output
    if isinstance(output, LabelsOutput):
        found = f"knows the classes {output.labels}"
    else:
        found = f"finds {output.size} × {output.name}"
    kind = "images" if isinstance(manifest.input, ImageInput) else "tensors"
    return f"{found} in {kind} of {manifest.input.shape}"


def _take_turns(
    sessions: Sequence[Session],
    inputs: NDArray[np.uint8] | NDArray[np.float32],
    rounds: int,
    advance: Callable[[], None],
) -> list[list[list[float]]]:
    """For every session ``rounds`` lists of the milliseconds that its prefixes took."""
    times_ms = [[[0.0] * len(session.branches) for _ in range(rounds)] for session in sessions]
    turns = [(number, count) for number, session in enumerate(sessions) for count in range(len(session.branches))]
    order = random.Random(0)
    for one in range(rounds):
        order.shuffle(turns)
        value = inputs[one % len(inputs)]
        for number, count in turns:
            times_ms[number][one][count] = sessions[number].run(value, branches=count + 1).elapsed_ms
            advance()
    return times_ms


def display_names(paths: Sequence[str]) -> list[str]:
    """Short and different: the file names without ``.paraedge``, or whole paths where those are the same."""
    short = [Path(path).name.removesuffix(".paraedge") for path in paths]
    return short if len(set(short)) == len(short) else list(paths)

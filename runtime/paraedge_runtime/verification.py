"""Does a bundle compute its golden outputs on this device? Runs the real session on real inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.bundle import Bundle
from paraedge_runtime.card import PrefixParity, Similarity
from paraedge_runtime.errors import EngineError
from paraedge_runtime.manifest import LabelsOutput
from paraedge_runtime.session import Session
from paraedge_runtime.similarity import (
    common_factor,
    compare,
    compare_prefix,
    prefix_name,
    prefix_shortfall,
    snr_at_least,
)
from paraedge_runtime.tolerances import tolerance_of
from paraedge_runtime.trial import try_bundle

__all__ = ["VerificationReport", "compare_golden", "verify_bundle"]


@dataclass(frozen=True)
class VerificationReport:
    """What was compared on this device, against the limits of the bundle's quantization recipe.

    Attributes:
        engine: which implementation ran.
        num_samples: golden inputs.
        branches: how near each branch's output is, by index.
        prefixes: how near the first 1, 2, … branches together are: labels, or the error of a vector.
        problems: one sentence for each thing that is wrong; empty when the bundle is fine here.
    """

    engine: str
    num_samples: int
    branches: dict[int, Similarity]
    prefixes: tuple[PrefixParity, ...]
    problems: tuple[str, ...]


def verify_bundle(bundle: Bundle, *, engine: str | None = None, threads: int | None = None) -> VerificationReport:
    """Run the golden inputs and compare every branch and every prefix.

    The thresholds are those of the quantization recipe in this version of paraedge; the card's are a record. Golden
    inputs are chosen, not drawn, so nothing is allowed for chance.

    The first run happens in a process of its own (:func:`paraedge_runtime.trial.try_bundle`).

    Raises:
        IntegrityError: a program kills the process that runs it.
        EngineUnavailable, EngineError, BundleError: it cannot be run here at all.
    """
    golden = bundle.golden()
    try_bundle(bundle, engine=engine)
    manifest = bundle.manifest
    outputs = np.zeros_like(golden.branch_outputs)
    dropped: dict[int, str] = {}
    with Session.open(bundle, engine=engine, threads=threads) as session:
        for number, value in enumerate(golden.inputs):
            prediction = session.run(value)
            for drop in prediction.branches_dropped:
                dropped.setdefault(drop.index, drop.reason)
            places = [manifest.branch_indexes.index(index) for index in prediction.branches_used]
            outputs[number, places] = prediction.branch_outputs
        description = session.engine.description
    if len(dropped) == len(manifest.branches):
        raise EngineError(f"every branch failed: {'; '.join(sorted(set(dropped.values())))}")

    return compare_golden(bundle, outputs, engine=description, dropped=dropped)


def compare_golden(
    bundle: Bundle, outputs: NDArray[np.float32], *, engine: str, dropped: Mapping[int, str] | None = None
) -> VerificationReport:
    """Judge what the branches made of the golden inputs, wherever they ran.

    Args:
        bundle: whose inputs they were.
        outputs: (golden inputs, branches, outputs); zeros where a branch was dropped.
        engine: which implementation ran, for the report.
        dropped: branches that gave nothing for some input, by index, and why.
    """
    golden, manifest, dropped = bundle.golden(), bundle.manifest, dropped or {}
    has_labels = isinstance(manifest.output, LabelsOutput)
    tolerance = tolerance_of(manifest.quantization)
    thresholds = tolerance.thresholds(has_labels=has_labels)
    problems = [f"branch {index} was dropped: {reason}" for index, reason in sorted(dropped.items())]
    minimum, most_off = thresholds.min_snr_db, tolerance.max_scale_error
    branches: dict[int, Similarity] = {}
    for place, index in enumerate(manifest.branch_indexes):
        expected, found = golden.branch_outputs[:, place], outputs[:, place]
        branches[index] = compare(expected, found)
        if index in dropped:
            continue
        scale = common_factor(expected, found)
        if not snr_at_least(branches[index], minimum):
            problems.append(f"branch {index}: SNR {branches[index].snr_db} dB, below {minimum} dB")
        elif abs(scale - 1) > most_off:
            allowed = f"{1 - most_off:g} to {1 + most_off:g} is allowed"
            problems.append(f"branch {index}: its output is {scale:.4f} times the golden one, {allowed}")
    wanted = golden.branch_outputs.cumsum(axis=1, dtype=np.float32)
    got = outputs.cumsum(axis=1, dtype=np.float32)
    prefixes: list[PrefixParity] = []
    for place in range(len(manifest.branches)):
        prefixes.append(compare_prefix(wanted[:, place], got[:, place], has_labels=has_labels))
        if problem := prefix_shortfall(prefixes[-1], thresholds):
            problems.append(f"{prefix_name(place + 1)} {problem}")
    return VerificationReport(
        engine=engine,
        num_samples=len(golden.inputs),
        branches=branches,
        prefixes=tuple(prefixes),
        problems=tuple(problems),
    )

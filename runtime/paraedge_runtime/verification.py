"""Does a bundle give its golden answers on this device? Runs the real session on real images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paraedge_runtime.bundle import Bundle
from paraedge_runtime.errors import EngineError
from paraedge_runtime.manifest import Similarity
from paraedge_runtime.session import Session
from paraedge_runtime.similarity import compare, snr_at_least, top1_agreement

__all__ = ["VerificationReport", "verify_bundle"]


@dataclass(frozen=True)
class VerificationReport:
    """What was compared on this device, against the thresholds that the bundle had to meet when made.

    Attributes:
        engine: which implementation ran.
        num_samples: golden images.
        branches: how near each branch's output is, by index.
        prefixes: how near the answer of the first 1, 2, … branches is.
        agreement: top-1 agreement of each of those answers.
        problems: one sentence for each thing that is wrong; empty when the bundle is fine here.
    """

    engine: str
    num_samples: int
    branches: dict[int, Similarity]
    prefixes: tuple[Similarity, ...]
    agreement: tuple[float, ...]
    problems: tuple[str, ...]


def verify_bundle(bundle: Bundle, *, engine: str | None = None, threads: int | None = None) -> VerificationReport:
    """Run the golden images and compare every branch and every prefix.

    Raises:
        EngineUnavailable, EngineError, ManifestError: it cannot be run here at all.
    """
    golden = bundle.golden()
    manifest = bundle.manifest
    outputs = np.zeros_like(golden.branch_outputs)
    dropped: dict[int, str] = {}
    with Session.open(bundle, engine=engine, threads=threads) as session:
        for number, image in enumerate(golden.images):
            prediction = session.run(image)
            for drop in prediction.branches_dropped:
                dropped.setdefault(drop.index, drop.reason)
            places = [manifest.branch_indexes.index(index) for index in prediction.branches_used]
            outputs[number, places] = prediction.branch_outputs
        description = session.engine.description
    if len(dropped) == len(manifest.branches):
        raise EngineError(f"every branch failed: {'; '.join(sorted(set(dropped.values())))}")

    problems = [f"branch {index} was dropped: {reason}" for index, reason in sorted(dropped.items())]
    minimum = manifest.parity.min_snr_db
    branches: dict[int, Similarity] = {}
    for place, index in enumerate(manifest.branch_indexes):
        branches[index] = compare(golden.branch_outputs[:, place], outputs[:, place])
        if index not in dropped and not snr_at_least(branches[index], minimum):
            problems.append(f"branch {index}: SNR {branches[index].snr_db} dB, below {minimum} dB")
    wanted = golden.branch_outputs.cumsum(axis=1, dtype=np.float32)
    got = outputs.cumsum(axis=1, dtype=np.float32)
    prefixes, agreement = [], []
    for count in range(1, len(manifest.branches) + 1):
        prefixes.append(compare(wanted[:, count - 1], got[:, count - 1]))
        agreement.append(top1_agreement(wanted[:, count - 1], got[:, count - 1]))
        if agreement[-1] < manifest.parity.min_top1_agreement:
            problems.append(
                f"the first {count} branch(es) agree on {100 * agreement[-1]:.1f} % of the labels, "
                f"below {100 * manifest.parity.min_top1_agreement:.1f} %"
            )
    return VerificationReport(
        engine=description,
        num_samples=len(golden.images),
        branches=branches,
        prefixes=tuple(prefixes),
        agreement=tuple(agreement),
        problems=tuple(problems),
    )

"""How near outputs are to a reference: signal-to-noise ratio, cosine, largest error; top-1 agreement of labels,
relative error of vectors."""

from __future__ import annotations

import math
import sys

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.card import PrefixParity, Similarity, Thresholds

# JSON has no infinity.
NO_SNR_DB = -999.0

__all__ = [
    "NO_SNR_DB",
    "common_factor",
    "compare",
    "compare_prefix",
    "prefix_name",
    "prefix_shortfall",
    "relative_error",
    "snr_at_least",
    "top1_agreement",
]


def compare(reference: NDArray[np.float32], output: NDArray[np.float32]) -> Similarity:
    """Compare equally shaped arrays as wholes, in float64.

    ``snr_db`` is ``10 log10(Σ reference² / Σ (reference - output)²)``: ``None`` when they are equal bit
    for bit, and ``NO_SNR_DB`` when the reference is all zero or a value is not finite.
    """
    wanted, got = reference.astype(np.float64).ravel(), output.astype(np.float64).ravel()
    if not (np.isfinite(wanted).all() and np.isfinite(got).all()):
        return Similarity(snr_db=NO_SNR_DB, cosine=0.0, max_abs_error=sys.float_info.max)
    error = wanted - got
    noise, signal = float(error @ error), float(wanted @ wanted)
    norm = math.sqrt(signal * float(got @ got))
    if noise == 0.0:
        snr_db = None
    elif signal == 0.0:
        snr_db = NO_SNR_DB
    else:
        snr_db = round(10.0 * math.log10(signal / noise), 2)
    return Similarity(
        snr_db=snr_db,
        cosine=round(float(wanted @ got) / norm, 9) if norm else 0.0,
        max_abs_error=float(np.abs(error).max(initial=0.0)),
    )


def snr_at_least(similarity: Similarity, min_snr_db: float) -> bool:
    """Whether the noise is small enough; equal arrays have none. NaN never is."""
    return similarity.snr_db is None or similarity.snr_db >= min_snr_db


def common_factor(reference: NDArray[np.float32], output: NDArray[np.float32]) -> float:
    """The factor that brings ``reference`` nearest to ``output``: rounding leaves it at 1, a wrong scale does not."""
    wanted, got = reference.astype(np.float64).ravel(), output.astype(np.float64).ravel()
    energy = float(wanted @ wanted)
    return float(wanted @ got) / energy if energy else 1.0


def top1_agreement(reference: NDArray[np.float32], output: NDArray[np.float32]) -> float:
    """Fraction of rows (n, C) whose largest logit is at the same position."""
    return float((reference.argmax(axis=-1) == output.argmax(axis=-1)).mean())


def relative_error(reference: NDArray[np.float32], output: NDArray[np.float32]) -> float:
    """Norm of the worst row's error, beside the root mean square of the reference's norms; rows are (n, C).

    0 when they are equal bit for bit; the largest float when a value is not finite, or the reference is all zero.
    """
    wanted, got = reference.astype(np.float64), output.astype(np.float64)
    if not (np.isfinite(wanted).all() and np.isfinite(got).all()):
        return sys.float_info.max
    worst = math.sqrt(float(((wanted - got) ** 2).sum(axis=-1).max()))
    usual = math.sqrt(float((wanted**2).sum(axis=-1).mean()))
    if worst == 0.0:
        return 0.0
    return worst / usual if usual else sys.float_info.max


def compare_prefix(reference: NDArray[np.float32], output: NDArray[np.float32], *, has_labels: bool) -> PrefixParity:
    """Compare the sums of a prefix, (n, C): logits of labels, or vectors."""
    similarity = compare(reference, output)
    return PrefixParity(
        snr_db=similarity.snr_db,
        cosine=similarity.cosine,
        max_abs_error=similarity.max_abs_error,
        top1_agreement=top1_agreement(reference, output) if has_labels else None,
        relative_error=None if has_labels else relative_error(reference, output),
    )


def prefix_name(count: int) -> str:
    """The prefix of ``count`` branches as the subject of a message."""
    return "the first branch" if count == 1 else f"the sum of the first {count} branches"


def prefix_shortfall(prefix: PrefixParity, thresholds: Thresholds) -> str | None:
    """Which threshold a prefix misses, beside that of the SNR, as a sentence without a subject."""
    agreement, least = prefix.top1_agreement, thresholds.min_top1_agreement
    if agreement is not None and least is not None and not agreement >= least:
        return f"gives the same label on {100 * agreement:.2f} % of the inputs, below {100 * least:.2f} %"
    error, most = prefix.relative_error, thresholds.max_relative_error
    if error is not None and most is not None and not error <= most:
        return f"has a relative error of {error:.3g}, at most {most:.3g} is allowed"
    return None

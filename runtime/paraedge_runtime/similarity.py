"""How near outputs are to a reference: signal-to-noise ratio, cosine, largest error, top-1 agreement."""

from __future__ import annotations

import math
import sys

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.manifest import Similarity

# JSON has no infinity.
NO_SNR_DB = -999.0

__all__ = ["NO_SNR_DB", "compare", "snr_at_least", "top1_agreement"]


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


def top1_agreement(reference: NDArray[np.float32], output: NDArray[np.float32]) -> float:
    """Fraction of rows (n, C) whose largest logit is at the same place."""
    return float((reference.argmax(axis=-1) == output.argmax(axis=-1)).mean())

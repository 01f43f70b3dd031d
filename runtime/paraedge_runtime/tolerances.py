"""How near to torch each quantization recipe must come: the gate of an export, and of ``verify`` on the device.

``verify`` takes the numbers from here and not from the bundle, which could ask for as little as it likes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from paraedge_runtime.card import Thresholds
from paraedge_runtime.manifest import FLOAT_STEM

__all__ = ["FLOAT_STEM", "TOLERANCES", "Tolerance", "least_agreement", "tolerance_of"]

# A share that is kept is refused by chance in at most so many of all draws of the gate's inputs.
_REFUSED_BY_CHANCE = 0.05


@dataclass(frozen=True)
class Tolerance:
    """The limits of a recipe.

    Attributes:
        min_snr_db: what every part and every prefix must reach against torch in float32.
        max_scale_error: how far a part or a prefix may be from torch by a common factor: 0.05 is from 0.95 to 1.05.
            ``verify`` asks it of branches.
        min_top1_agreement: share of real inputs on which every prefix must keep torch's label. The gate draws few
            inputs, and refuses what they show to be below it; see :func:`least_agreement`.
        max_relative_error: of the worst sample and every prefix, where the output is a vector and has no labels.
    """

    min_snr_db: float
    max_scale_error: float
    min_top1_agreement: float
    max_relative_error: float

    def thresholds(self, *, has_labels: bool, num_inputs: int | None = None) -> Thresholds:
        """Those for labels or for a vector.

        Args:
            has_labels: whether the outputs are logits.
            num_inputs: of a random draw, whose chance is allowed for. ``None`` for inputs that were chosen, as the
                golden ones are, among those that keep their labels: chance excuses nothing there.
        """
        share = self.min_top1_agreement
        least = share if num_inputs is None else least_agreement(share, num_inputs)
        return Thresholds(
            min_snr_db=self.min_snr_db,
            min_top1_agreement=least if has_labels else None,
            max_relative_error=None if has_labels else self.max_relative_error,
        )


# The labels are the gate. The floors of SNR only tell a wrong part from a coarse one: they hold for a
# branch that learned to say little too, whose rounding is large beside what it says. Rounding errors have no
# direction, so even then the scale stays: over all packaged models it was off by 0.009 with 8 bits, 0.07 with 4.
TOLERANCES: dict[str, Tolerance] = {
    # What is left is the order of additions and the engines' own exp, erf and rsqrt.
    "fp32": Tolerance(min_snr_db=100.0, max_scale_error=1e-4, min_top1_agreement=1.0, max_relative_error=1e-4),
    "fp16": Tolerance(min_snr_db=40.0, max_scale_error=0.01, min_top1_agreement=0.99, max_relative_error=0.03),
    "int8-dynamic": Tolerance(min_snr_db=10.0, max_scale_error=0.05, min_top1_agreement=0.99, max_relative_error=0.2),
    # Measured ranges may cut off the largest values.
    "int8-static": Tolerance(min_snr_db=10.0, max_scale_error=0.1, min_top1_agreement=0.98, max_relative_error=0.25),
    "int8-weight": Tolerance(min_snr_db=20.0, max_scale_error=0.05, min_top1_agreement=0.99, max_relative_error=0.2),
    "int4-weight": Tolerance(min_snr_db=3.0, max_scale_error=0.1, min_top1_agreement=0.95, max_relative_error=0.6),
}


def tolerance_of(quantization: str) -> Tolerance:
    """The limits for a manifest's ``quantization``, which no reader takes if it is not among these."""
    return TOLERANCES[quantization.removesuffix(FLOAT_STEM)]


def least_agreement(share: float, count: int) -> float:
    """The lowest agreement on ``count`` inputs that does not show that less than ``share`` of all inputs agree.

    Of 256 inputs a model that keeps 0.99 of all labels changes 3 or more half the time, 6 or more in 4.5 of 100
    draws: 5 are let through, 6 are not. Where every label must be kept, one that changes is one too many.
    """
    probable, changed = 1.0, 0  # of at least so many changed labels
    while changed < count:
        probable -= _binomial(changed, count, 1.0 - share)
        if probable <= _REFUSED_BY_CHANCE + 1e-12:
            break
        changed += 1
    return (count - changed) / count


def _binomial(successes: int, count: int, probability: float) -> float:
    """The chance of exactly so many successes."""
    if probability <= 0.0:
        return float(successes == 0)
    ways = math.lgamma(count + 1) - math.lgamma(successes + 1) - math.lgamma(count - successes + 1)
    return math.exp(ways + successes * math.log(probability) + (count - successes) * math.log1p(-probability))

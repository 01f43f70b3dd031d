"""How near to torch each quantization recipe must come: the gate of an export, and of ``verify`` on the device.

``verify`` takes the numbers from here and not from the bundle, which could ask for as little as it likes.
"""

from __future__ import annotations

from dataclasses import dataclass

from paraedge_runtime.card import Thresholds
from paraedge_runtime.errors import ManifestError
from paraedge_runtime.manifest import MANIFEST_NAME

__all__ = ["FLOAT_STEM", "TOLERANCES", "Tolerance", "tolerance_of"]

FLOAT_STEM = "+fp32-stem"


@dataclass(frozen=True)
class Tolerance:
    """The limits of a recipe.

    Attributes:
        min_snr_db: what every part and every prefix must reach against torch in float32.
        max_scale_error: how far a part or a prefix may be from torch by a common factor: 0.05 is from 0.95 to 1.05.
        min_top1_agreement: share of real inputs on which every prefix must keep torch's label.
        max_relative_error: of the worst sample and every prefix, where the output is a vector and has no labels.
    """

    min_snr_db: float
    max_scale_error: float
    min_top1_agreement: float
    max_relative_error: float

    def thresholds(self, *, has_labels: bool) -> Thresholds:
        """Those that a card records, for labels or for a vector."""
        return Thresholds(
            min_snr_db=self.min_snr_db,
            min_top1_agreement=self.min_top1_agreement if has_labels else None,
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
    """The limits for a manifest's ``quantization``.

    Raises:
        ManifestError: this version knows no such recipe.
    """
    try:
        return TOLERANCES[quantization.removesuffix(FLOAT_STEM)]
    except KeyError:
        raise ManifestError(
            f"{MANIFEST_NAME}: field 'quantization' is {quantization!r}; how near to torch that must be is known for "
            f"{', '.join(TOLERANCES)} only, update paraedge on this device"
        ) from None

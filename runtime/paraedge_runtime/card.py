"""``card.json``: what people, ``inspect``, ``verify`` and ``compare`` need of a bundle, as typed records.

A device runs a bundle without reading it. The format is specified in ``docs/bundle-format.md``.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from paraedge_runtime.errors import ManifestError
from paraedge_runtime.manifest import (
    CARD_NAME,
    Count,
    Fraction,
    LabelsOutput,
    Manifest,
    PositiveFraction,
    Record,
    Sha256,
    Text,
    decode_record,
)

__all__ = [
    "Accuracy",
    "Card",
    "EarlyStop",
    "Golden",
    "HeldOut",
    "Parity",
    "PartCard",
    "PrefixParity",
    "Similarity",
    "Thresholds",
    "decode_card",
]

NumSamples = Annotated[int, msgspec.Meta(ge=1)]
RelativeError = Annotated[float, msgspec.Meta(ge=0)]


class Similarity(Record, frozen=True, kw_only=True):
    """How near two sets of outputs are. ``snr_db`` is ``null`` when they are equal bit for bit."""

    snr_db: float | None
    cosine: float
    max_abs_error: float


class PrefixParity(Similarity, frozen=True, kw_only=True):
    """The sum of the first branches, against the original model.

    ``top1_agreement`` is there where the output is labels, ``relative_error`` where it is a vector; the
    other one is ``null``. Of a relative error see :func:`paraedge_runtime.similarity.relative_error`.
    """

    top1_agreement: Fraction | None
    relative_error: RelativeError | None


class Thresholds(Record, frozen=True, kw_only=True):
    """What every part (SNR) and every prefix (both) had to reach; ``null`` as in ``PrefixParity``."""

    min_snr_db: float
    min_top1_agreement: Fraction | None
    max_relative_error: RelativeError | None


class Parity(Record, frozen=True, kw_only=True):
    """What was compared before this bundle was allowed to exist.

    ``prefixes`` holds the first 1, 2, … branches together, and is empty where this choice of branches was
    made later, by ``subset``: then every part was compared, and no sum of them.
    """

    reference: Text
    num_samples: NumSamples
    thresholds: Thresholds
    prefixes: tuple[PrefixParity, ...]
    verdict: Literal["passed"]


class PartCard(Record, frozen=True, kw_only=True, omit_defaults=True):
    """Of a part: the numbers it holds, its operators by name (a delegate is one operator of its name), and
    how near its output is to the original's on real inputs.

    ``proof`` is what ran it for that: the engine, or a reference model of the device. A part that was exported and
    never run has no similarity; the same part for the CPU stood in for it where the others were compared."""

    parameters: Count
    operators: dict[str, Count]
    similarity: Similarity | None
    proof: Literal["engine", "reference model", "never run"] = "engine"


class Accuracy(Record, frozen=True, kw_only=True):
    """Accuracy of the first 1, 2, … branches of this bundle, and on what."""

    dataset: Text
    num_samples: NumSamples
    prefix_accuracy: tuple[Fraction, ...]


class HeldOut(Record, frozen=True, kw_only=True):
    """What stopping did on images that decided nothing: accuracy of all branches, accuracy with
    stopping, and how many branches a prediction took on average when every prefix was looked at."""

    num_samples: NumSamples
    accuracy_full: Fraction
    accuracy_stopped: Fraction
    mean_branches: Annotated[float, msgspec.Meta(ge=1)]


class EarlyStop(Record, frozen=True, kw_only=True):
    """Where the manifest's ``stop_rules`` come from; what they promise is in ``docs/early-stop.md``.

    Stopping at any prefix that reaches its threshold loses at most ``max_accuracy_drop`` of accuracy
    against all branches of this bundle, with probability ``risk_confidence`` over the draw of the
    ``num_samples`` images of ``dataset`` that decided the thresholds.
    """

    dataset: Text
    num_samples: Count
    max_accuracy_drop: PositiveFraction
    risk_confidence: PositiveFraction
    held_out: HeldOut


class Golden(Record, frozen=True, kw_only=True):
    """Files of real inputs, and of what every branch computes from them, (n, k, C) float32.

    Inputs are (n, H, W, C) uint8 images, or (n, ...) float32 tensors before they are normalised. ``labels``
    has one class index per input, and is ``null`` where the output is a vector.
    """

    inputs: Text
    outputs: Text
    labels: tuple[Count, ...] | None


class Card(Record, frozen=True, kw_only=True):
    """The whole of ``card.json``. ``parts`` maps ``stem`` and ``branch_NN``."""

    description: Text
    license: Text
    parts: dict[str, PartCard]
    parity: Parity
    accuracy: Accuracy | None
    early_stop: EarlyStop | None
    golden: Golden
    tool_versions: dict[str, str]
    checkpoint_sha256: Sha256


def decode_card(raw: bytes, manifest: Manifest) -> Card:
    """Parse ``card.json`` and check it against the manifest.

    Raises:
        ManifestError: it is malformed, or speaks of another bundle; the message names the field.
    """
    card = decode_record(raw, Card, CARD_NAME)
    has_labels = isinstance(manifest.output, LabelsOutput)
    count = len(manifest.branches)
    _check_parity(card.parity, count, has_labels)
    names = list(manifest.parts())
    _require(set(card.parts) == set(names), "parts", f"speaks of {sorted(card.parts)}, the bundle has {names}")
    for name, part in card.parts.items():
        fine = (part.similarity is None) == (part.proof == "never run")
        _require(fine, f"parts.{name}.similarity", f"and the proof {part.proof!r} do not fit")
    if card.accuracy is not None:
        _require(has_labels, "accuracy", "is not null, but the output is a vector")
        given = len(card.accuracy.prefix_accuracy)
        _require(given == count, "accuracy.prefix_accuracy", f"has {given} values for {count} branches")
    rules = manifest.stop_rules
    # Of a prefix of calibrated branches the temperatures are kept, without thresholds.
    fine = all(rule.threshold is None for rule in rules or ()) if card.early_stop is None else rules is not None
    _require(fine, "early_stop", "and the thresholds of the manifest's 'stop_rules' must both be null, or neither")
    if card.early_stop is not None:
        mean = card.early_stop.held_out.mean_branches
        _require(mean <= count, "early_stop.held_out.mean_branches", f"is {mean}, there are {count} branches")
    _check_golden(card.golden, manifest, has_labels)
    return card


def _require(fine: bool, field: str, problem: str) -> None:
    if not fine:
        raise ManifestError(f"{CARD_NAME}: field '{field}' {problem}; export the bundle again")


def _check_parity(parity: Parity, count: int, has_labels: bool) -> None:
    compared = len(parity.prefixes)
    _require(compared in (0, count), "parity.prefixes", f"has {compared} values for {count} branches")
    thresholds = parity.thresholds
    records = {"thresholds": (thresholds.min_top1_agreement, thresholds.max_relative_error)}
    records |= {f"prefixes[{n}]": (one.top1_agreement, one.relative_error) for n, one in enumerate(parity.prefixes)}
    needed = 0 if has_labels else 1
    names = ("top-1 agreement", "relative error")
    kind = "labels" if has_labels else "a vector"
    for field, values in records.items():
        fine = values[needed] is not None and values[1 - needed] is None
        problem = f"must have a {names[needed]} and null as {names[1 - needed]}: the output is {kind}"
        _require(fine, f"parity.{field}", problem)


def _check_golden(golden: Golden, manifest: Manifest, has_labels: bool) -> None:
    listed = [entry.file for entry in manifest.files]
    for field, name in (("inputs", golden.inputs), ("outputs", golden.outputs)):
        _require(name in listed, f"golden.{field}", f"is {name!r}, not one of the manifest's 'files' {listed}")
    labels = golden.labels
    if not has_labels:
        _require(labels is None, "golden.labels", "is not null, but the output is a vector")
        return
    _require(bool(labels), "golden.labels", "has no class index")
    largest, known = max(labels or (0,)), manifest.num_outputs
    _require(largest < known, "golden.labels", f"goes up to {largest}, there are {known} labels")

"""``manifest.json``: typed records, and every rule that can be checked without opening another file.

The format is specified in ``docs/bundle-format.md``.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import PurePosixPath
from typing import Annotated, Literal

import msgspec

from paraedge_runtime.errors import ManifestError

__all__ = [
    "FORMAT",
    "MANIFEST_NAME",
    "Accuracy",
    "BranchEntry",
    "EarlyStop",
    "FileEntry",
    "Golden",
    "HeldOut",
    "InputSpec",
    "Manifest",
    "Parity",
    "PartEntry",
    "PrefixParity",
    "Similarity",
    "StopRule",
    "decode_manifest",
    "encode_manifest",
    "is_manifest",
]

FORMAT = "paraedge-bundle/1"
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 20
_FORMAT_PATTERN = re.compile(r"paraedge-bundle/([0-9]{1,6})")

# A dimension and a rank that no model for a small device exceeds: sizes stay far from overflow.
Dimension = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
Shape = Annotated[tuple[Dimension, ...], msgspec.Meta(min_length=1, max_length=6)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}\Z")]
Version = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6}){0,3}\Z")]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
PositiveFraction = Annotated[float, msgspec.Meta(gt=0, le=1)]


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class InputSpec(_Record, frozen=True, kw_only=True):
    """What the stem reads: one image as (1, C, H, W) float32, ``(x / 255 - mean) / std`` per channel."""

    name: Name
    shape: Annotated[tuple[Dimension, ...], msgspec.Meta(min_length=4, max_length=4)]
    dtype: Literal["float32"]
    layout: Literal["NCHW"]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class FileEntry(_Record, frozen=True, kw_only=True):
    """A file of the bundle: its path inside the bundle, its exact size, its hash."""

    file: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    size_bytes: Count
    sha256: Sha256


class PartEntry(FileEntry, frozen=True, kw_only=True):
    """A program: its file, what goes in and comes out (float32), and what it costs.

    ``operators`` counts the program's operators by name; a delegate is one operator of its name.
    """

    input_shape: Shape
    output_shape: Shape
    parameters: Count
    macs: Count
    operators: dict[str, Count]


class BranchEntry(PartEntry, frozen=True, kw_only=True):
    """A branch; ``index`` is its place in the model it was taken from."""

    index: Annotated[int, msgspec.Meta(ge=0, le=9999)]


class Similarity(_Record, frozen=True, kw_only=True):
    """How near two sets of outputs are. ``snr_db`` is ``null`` when they are equal bit for bit."""

    snr_db: float | None
    cosine: float
    max_abs_error: float


class PrefixParity(Similarity, frozen=True, kw_only=True):
    """The answer of the first branches together, against the original model."""

    top1_agreement: Fraction


class Parity(_Record, frozen=True, kw_only=True):
    """What was compared before this bundle was allowed to exist.

    ``parts`` maps ``stem`` and ``branch_NN`` to how near each one's output is on real inputs;
    ``prefixes`` holds the answers of the first 1, 2, … branches, and is empty where this choice of
    branches was made later, by ``subset``: then every part was compared, and no sum of them.
    """

    reference: Text
    num_samples: Annotated[int, msgspec.Meta(ge=1)]
    min_snr_db: float
    min_top1_agreement: Fraction
    parts: dict[str, Similarity]
    prefixes: tuple[PrefixParity, ...]
    verdict: Literal["passed"]


class Accuracy(_Record, frozen=True, kw_only=True):
    """Accuracy of the first 1, 2, … branches of this bundle, and on what."""

    dataset: Text
    num_samples: Annotated[int, msgspec.Meta(ge=1)]
    prefix_accuracy: tuple[Fraction, ...]


class StopRule(_Record, frozen=True, kw_only=True):
    """When the answer of a prefix is enough: the softmax of its logits divided by ``temperature``, for
    the likeliest label, is at least ``threshold``. ``null``: never."""

    temperature: Annotated[float, msgspec.Meta(gt=0)]
    threshold: PositiveFraction | None


class HeldOut(_Record, frozen=True, kw_only=True):
    """What stopping did on images that decided nothing: accuracy of all branches, accuracy with
    stopping, and how many branches an answer took on average when every prefix was looked at."""

    num_samples: Annotated[int, msgspec.Meta(ge=1)]
    accuracy_full: Fraction
    accuracy_stopped: Fraction
    mean_branches: Annotated[float, msgspec.Meta(ge=1)]


class EarlyStop(_Record, frozen=True, kw_only=True):
    """Calibrated early stop; what it promises is in ``docs/early-stop.md``.

    Stopping at any prefix that reaches its threshold loses at most ``max_accuracy_drop`` of accuracy
    against all branches of this bundle, with probability ``risk_confidence`` over the draw of the
    ``num_samples`` images of ``dataset`` that decided the thresholds. ``prefixes`` has one rule for
    the first 1, 2, … branches; the last, all of them, has nothing to stop.
    """

    dataset: Text
    num_samples: Count
    max_accuracy_drop: PositiveFraction
    risk_confidence: PositiveFraction
    prefixes: tuple[StopRule, ...]
    held_out: HeldOut


class Golden(_Record, frozen=True, kw_only=True):
    """Real images (n, H, W, C) uint8, and what every branch must answer to them, (n, k, C) float32."""

    images: FileEntry
    branch_outputs: FileEntry
    labels: tuple[Count, ...]


class Manifest(_Record, frozen=True, kw_only=True):
    """The whole of ``manifest.json``.

    ``engine_min_version`` maps each package that can run the parts to the oldest version that is
    known to: one engine may come in several packages, each with a numbering of its own.
    """

    format: Literal["paraedge-bundle/1"]
    name: Name
    description: Text
    license: Text
    labels: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1, max_length=100_000)]
    input: InputSpec
    stem: PartEntry
    branches: Annotated[tuple[BranchEntry, ...], msgspec.Meta(min_length=1, max_length=1000)]
    total_branches: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    fused: PartEntry | None
    engine: Name
    engine_min_version: Annotated[dict[str, Version], msgspec.Meta(min_length=1)]
    target: Name
    recipe: Name
    accuracy: Accuracy | None
    early_stop: EarlyStop | None
    parity: Parity
    golden: Golden
    tool_versions: dict[str, str]
    checkpoint_sha256: Sha256

    @property
    def num_outputs(self) -> int:
        """Length C of the answer."""
        return len(self.labels)

    @property
    def branch_indexes(self) -> tuple[int, ...]:
        """Places of the branches in the model they were taken from."""
        return tuple(branch.index for branch in self.branches)

    def parts(self) -> dict[str, PartEntry]:
        """``stem``, ``branch_NN`` … -> entry, in order."""
        return {"stem": self.stem, **{f"branch_{branch.index:02d}": branch for branch in self.branches}}

    def files(self) -> dict[str, FileEntry]:
        """Field name -> entry of every file the bundle holds beside the manifest."""
        entries: dict[str, FileEntry] = {"stem": self.stem}
        entries.update({f"branches[{place}]": branch for place, branch in enumerate(self.branches)})
        if self.fused is not None:
            entries["fused"] = self.fused
        entries["golden.images"] = self.golden.images
        entries["golden.branch_outputs"] = self.golden.branch_outputs
        return entries


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of ``manifest.json``: indented JSON, fields in their declared order."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode_manifest(raw: bytes) -> Manifest:
    """Parse and check ``manifest.json``.

    Raises:
        ManifestError: not JSON, an unknown or missing field, a wrong type, a newer format, or
            fields that contradict each other. The message names the field.
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"{MANIFEST_NAME} has {len(raw)} bytes, more than the {MAX_MANIFEST_BYTES} allowed")
    try:
        version = msgspec.json.decode(raw, type=_FormatOnly).format
        known = _FORMAT_PATTERN.fullmatch(version)
        if known and int(known[1]) > 1:
            raise ManifestError(
                f"{MANIFEST_NAME}: field 'format' is {version!r}, newer than {FORMAT!r}; update paraedge on this device"
            )
        manifest = msgspec.json.decode(raw, type=Manifest)
        json.loads(raw, object_pairs_hook=_once)  # msgspec would take the last of two fields of one name
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(f"{MANIFEST_NAME}: {error}; export the bundle again") from error
    _check(manifest)
    return manifest


class _FormatOnly(msgspec.Struct):
    format: str


def is_manifest(raw: bytes) -> bool:
    """Whether these bytes call themselves a bundle's manifest, of whatever version."""
    try:
        return _FORMAT_PATTERN.fullmatch(msgspec.json.decode(raw, type=_FormatOnly).format) is not None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ManifestError(f"{MANIFEST_NAME}: field '{repeated}' is there twice; export the bundle again")
    return document


def _check(manifest: Manifest) -> None:
    """Rules between fields; msgspec has checked each field by itself."""

    def require(fine: bool, field: str, problem: str) -> None:
        if not fine:
            raise ManifestError(f"{MANIFEST_NAME}: field '{field}' {problem}; export the bundle again")

    channels = manifest.input.shape[1]
    require(manifest.input.shape[0] == 1, "input.shape", f"is {manifest.input.shape}, its first dimension must be 1")
    for field, values in (("mean", manifest.input.mean), ("std", manifest.input.std)):
        require(len(values) == channels, f"input.{field}", f"has {len(values)} values for {channels} channels")
        require(all(map(math.isfinite, values)), f"input.{field}", f"is {values}, which is not finite")
    require(all(value > 0 for value in manifest.input.std), "input.std", f"is {manifest.input.std}, not above 0")

    require(
        manifest.stem.input_shape == manifest.input.shape,
        "stem.input_shape",
        f"is {manifest.stem.input_shape}, input.shape is {manifest.input.shape}",
    )
    answer = (1, manifest.num_outputs)
    previous = -1
    for place, branch in enumerate(manifest.branches):
        field = f"branches[{place}]"
        require(
            branch.index > previous, f"{field}.index", f"is {branch.index} after {previous}: duplicate or unordered"
        )
        require(
            branch.index < manifest.total_branches,
            f"{field}.index",
            f"is {branch.index}, total_branches is {manifest.total_branches}",
        )
        require(
            branch.input_shape == manifest.stem.output_shape,
            f"{field}.input_shape",
            f"is {branch.input_shape}, the stem makes {manifest.stem.output_shape}",
        )
        require(
            branch.output_shape == answer,
            f"{field}.output_shape",
            f"is {branch.output_shape}, {manifest.num_outputs} labels need {answer}",
        )
        previous = branch.index
    if manifest.fused is not None:
        shapes = (manifest.fused.input_shape, manifest.fused.output_shape)
        require(shapes == (manifest.input.shape, answer), "fused", f"maps {shapes[0]} to {shapes[1]}")

    paths: set[str] = {MANIFEST_NAME}
    for field, entry in manifest.files().items():
        require(_is_plain_path(entry.file), f"{field}.file", f"is {entry.file!r}, not a plain path inside the bundle")
        # Compared without case: some devices' file systems do not tell A from a.
        require(entry.file.lower() not in paths, f"{field}.file", f"is {entry.file!r}, which another entry uses too")
        paths.add(entry.file.lower())

    count = len(manifest.branches)
    if manifest.accuracy is not None:
        given = len(manifest.accuracy.prefix_accuracy)
        require(given == count, "accuracy.prefix_accuracy", f"has {given} values for {count} branches")
    if manifest.early_stop is not None:
        rules, mean = manifest.early_stop.prefixes, manifest.early_stop.held_out.mean_branches
        require(len(rules) == count, "early_stop.prefixes", f"has {len(rules)} values for {count} branches")
        require(rules[-1].threshold is None, "early_stop.prefixes", "has a threshold for all branches, not null")
        require(mean <= count, "early_stop.held_out.mean_branches", f"is {mean}, there are {count} branches")
    compared = len(manifest.parity.prefixes)
    require(compared in (0, count), "parity.prefixes", f"has {compared} values for {count} branches")
    require(
        set(manifest.parity.parts) == set(manifest.parts()),
        "parity.parts",
        f"speaks of {sorted(manifest.parity.parts)}, the bundle has {sorted(manifest.parts())}",
    )
    require(len(manifest.golden.labels) > 0, "golden.labels", "is empty")
    require(
        max(manifest.golden.labels) < manifest.num_outputs,
        "golden.labels",
        f"goes up to {max(manifest.golden.labels)}, there are {manifest.num_outputs} labels",
    )


_PLAIN_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*(/[A-Za-z0-9][A-Za-z0-9._+-]*)*")


def _is_plain_path(path: str) -> bool:
    """Relative, forward slashes, no dots that climb, no drive letters, nothing hidden."""
    return _PLAIN_PATH.fullmatch(path) is not None and ".." not in PurePosixPath(path).parts

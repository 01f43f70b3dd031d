"""``manifest.json``: what a device needs of a bundle, as typed records, and every rule that needs no other file.

The format is specified in ``docs/bundle-format.md``; ``card.py`` has what people need.
"""

from __future__ import annotations

import functools
import json
import math
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, TypeVar

import msgspec

from paraedge_runtime.errors import InputError, ManifestError

__all__ = [
    "CARD_NAME",
    "FLOAT_STEM",
    "FORMAT",
    "MANIFEST_HASH_NAME",
    "MANIFEST_NAME",
    "MAX_BUNDLE_BYTES",
    "MAX_MANIFEST_BYTES",
    "MAX_SIGNATURE_BYTES",
    "RECIPE_NAMES",
    "SIGNATURE_NAME",
    "UPDATE_NAME",
    "BranchEntry",
    "Count",
    "FileEntry",
    "Fraction",
    "ImageInput",
    "InputSpec",
    "LabelsOutput",
    "Manifest",
    "PartEntry",
    "PositiveFraction",
    "Record",
    "Sha256",
    "Signature",
    "StopRule",
    "TensorInput",
    "Text",
    "VectorOutput",
    "decode_manifest",
    "decode_record",
    "encode_record",
    "is_manifest",
    "is_plain_path",
]

FORMAT = "paraedge-bundle/2"
MANIFEST_NAME = "manifest.json"
MANIFEST_HASH_NAME = "manifest.sha256"
UPDATE_NAME = "update.json"  # of an update, which has a manifest too
CARD_NAME = "card.json"
SIGNATURE_NAME = "manifest.json.minisig"
MAX_MANIFEST_BYTES = 1 << 20  # of the card too
MAX_SIGNATURE_BYTES = 4096
MAX_BUNDLE_BYTES = 1 << 31  # of all files together; each program is held in memory
# The quantization recipes, the plain one first; each of the others also with a stem that stays as trained.
RECIPE_NAMES = ("fp32", "fp16", "int8-dynamic", "int8-static", "int8-weight", "int4-weight")
FLOAT_STEM = "+fp32-stem"
_QUANTIZATIONS = frozenset([*RECIPE_NAMES, *(f"{name}{FLOAT_STEM}" for name in RECIPE_NAMES[1:])])
_FORMAT_NUMBER = 2
_FORMAT_PATTERN = re.compile(r"paraedge-bundle/([0-9]{1,6})")

# A dimension, a rank and a number of elements that no model for a small device exceeds: sizes never overflow.
_MAX_ELEMENTS = 1 << 28
Dimension = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
Shape = Annotated[tuple[Dimension, ...], msgspec.Meta(min_length=1, max_length=6)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}\Z")]
AxisName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,31}\Z")]
RateHz = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
PackageVersion = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6}){0,3}\Z")]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
PositiveFraction = Annotated[float, msgspec.Meta(gt=0, le=1)]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A JSON object with exactly these fields."""


R = TypeVar("R", bound=Record)


class _SpecError(InputError):
    """An input or output that no manifest could hold. Raised where one is made, so by the JSON decoder too."""

    def __init__(self, kind: str, field: str, problem: str) -> None:
        super().__init__(f"{kind}: {field} {problem}")
        self.field = f"{'output' if kind == 'LabelsOutput' else 'input'}.{field}"
        self.problem = problem


class ImageInput(Record, frozen=True, kw_only=True, tag_field="kind", tag="image", omit_defaults=True):
    """An image input. The caller passes uint8 (H, W, C); the stem reads ``shape`` (1, C, H, W) float32, which is
    ``(x / 255 - mean) / std`` per channel.

    ``resize`` says how an image of another size becomes H×W: ``stretch`` scales the whole image, ``crop`` scales the
    largest centred part with the right proportions. Both are bilinear.

    Raises:
        InputError: a field that no manifest could hold; lists will do for tuples.
    """

    name: Name
    shape: Annotated[tuple[Dimension, ...], msgspec.Meta(min_length=4, max_length=4)]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Literal["stretch", "crop"] = "stretch"

    def __post_init__(self) -> None:
        _check_input(self)

    def scale_and_shift(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Scale and shift per channel: the stem reads ``x * scale - shift``."""
        scale = tuple(1.0 / (255.0 * std) for std in self.std)
        return scale, tuple(mean / std for mean, std in zip(self.mean, self.std, strict=True))


class TensorInput(Record, frozen=True, kw_only=True, tag_field="kind", tag="tensor", omit_defaults=True):
    """A float32 tensor input. The caller passes ``shape[1:]`` in the sensor's units; the stem reads ``shape``
    (1, ...), which is ``(x - mean) / std``.

    ``axes`` names the axes after the batch axis. ``mean`` and ``std`` have one value per position along
    ``normalized_axis``, or a single value if that is ``null``. ``rate_hz`` is in samples per second along the
    axis ``time``; ``channel_names`` has one name for each position along the axis ``channel``.

    Raises:
        InputError: a field that no manifest could hold; lists will do for tuples.
    """

    name: Name
    shape: Annotated[tuple[Dimension, ...], msgspec.Meta(min_length=2, max_length=6)]
    axes: tuple[AxisName, ...]
    normalized_axis: AxisName | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rate_hz: RateHz | None = None
    channel_names: tuple[Name, ...] | None = None

    def __post_init__(self) -> None:
        _check_input(self)

    def scale_and_shift(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Scale and shift per position along ``normalized_axis``: the stem reads ``x * scale - shift``."""
        scale = tuple(1.0 / std for std in self.std)
        return scale, tuple(mean / std for mean, std in zip(self.mean, self.std, strict=True))


InputSpec = ImageInput | TensorInput


class LabelsOutput(Record, frozen=True, kw_only=True, tag_field="kind", tag="labels"):
    """Logits, one for each label.

    Raises:
        InputError: a label is empty, or there twice: nobody could tell the two apart.
    """

    labels: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1, max_length=100_000)]

    def __post_init__(self) -> None:
        first: dict[str, int] = {}
        for position, label in enumerate(self.labels):
            field = f"labels[{position}]"
            if not label:
                raise _SpecError("LabelsOutput", field, "is empty, and every output needs a name")
            if first.setdefault(label, position) != position:
                problem = (
                    f"is {label[:100]!r}, the same as labels[{first[label]}]; every output needs a name of its own"
                )
                raise _SpecError("LabelsOutput", field, problem)


class VectorOutput(Record, frozen=True, kw_only=True, tag_field="kind", tag="vector"):
    """Numbers that are no logits: a regression or an embedding."""

    name: Name
    size: Dimension


class FileEntry(Record, frozen=True, kw_only=True):
    """A file of the bundle: its path inside the bundle, its exact size, its hash."""

    file: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    size_bytes: Count
    sha256: Sha256


class PartEntry(FileEntry, frozen=True, kw_only=True, omit_defaults=True):
    """A program: its file, what goes in and comes out (float32), its multiply-adds for one input.

    ``delegate`` is whose program it is, such as ``coreml``; without one it is the engine's own, for the CPU."""

    input_shape: Shape
    output_shape: Shape
    macs: Count
    delegate: Name | None = None


class BranchEntry(PartEntry, frozen=True, kw_only=True, omit_defaults=True):
    """A branch; ``index`` is its position in the model it was taken from."""

    index: Annotated[int, msgspec.Meta(ge=0, le=9999)]


class StopRule(Record, frozen=True, kw_only=True):
    """How sure a prefix is: the softmax of its logits divided by ``temperature``, for the likeliest label.
    From ``threshold`` on its prediction is enough; ``null``: never."""

    temperature: Annotated[float, msgspec.Meta(gt=0)]
    threshold: PositiveFraction | None


class Signature(Record, frozen=True, kw_only=True):
    """Where the signature of ``manifest.json`` is, and of what kind it is."""

    algorithm: Literal["ed25519"]
    file: Literal["manifest.json.minisig"]


class Manifest(Record, frozen=True, kw_only=True):
    """The whole of ``manifest.json``.

    ``version`` is the model's and grows. ``engine_min_version`` maps each package that can run the parts
    to the oldest version that is known to: one engine may come in several packages, each with a numbering
    of its own. ``quantization`` is the recipe's name. ``stop_rules`` has one rule for the first 1, 2, ...
    branches; the last, all of them, has nothing to stop. ``files`` lists what is neither part, fused model
    nor card.
    """

    format: Literal["paraedge-bundle/2"]
    name: Name
    version: Annotated[int, msgspec.Meta(ge=1, le=1 << 53)]
    engine: Name
    engine_min_version: Annotated[dict[str, PackageVersion], msgspec.Meta(min_length=1)]
    target: Name
    quantization: Name
    input: ImageInput | TensorInput
    output: LabelsOutput | VectorOutput
    stem: PartEntry
    branches: Annotated[tuple[BranchEntry, ...], msgspec.Meta(min_length=1, max_length=1000)]
    total_branches: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    fused: FileEntry | None
    stop_rules: tuple[StopRule, ...] | None
    card: FileEntry
    files: Annotated[tuple[FileEntry, ...], msgspec.Meta(max_length=1000)]
    signature: Signature | None

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs; empty where the output is a vector."""
        return self.output.labels if isinstance(self.output, LabelsOutput) else ()

    @property
    def has_early_stop(self) -> bool:
        """Whether a request may stop early: a prefix of calibrated branches has temperatures, and no thresholds."""
        rules = self.stop_rules
        return rules is not None and (len(rules) == 1 or any(rule.threshold is not None for rule in rules))

    @property
    def classifies_images(self) -> bool:
        """Whether images come in and labels go out."""
        return isinstance(self.input, ImageInput) and isinstance(self.output, LabelsOutput)

    @property
    def classifies_signals(self) -> bool:
        """Whether samples over time come in, sound or motion, and labels go out."""
        spec = self.input
        return isinstance(spec, TensorInput) and spec.rate_hz is not None and isinstance(self.output, LabelsOutput)

    @property
    def num_outputs(self) -> int:
        """Length C of what a prefix computes: logits, or a vector."""
        return len(self.output.labels) if isinstance(self.output, LabelsOutput) else self.output.size

    @property
    def branch_indexes(self) -> tuple[int, ...]:
        """Positions of the branches in the model they were taken from."""
        return tuple(branch.index for branch in self.branches)

    def parts(self) -> dict[str, PartEntry]:
        """``stem``, ``branch_NN`` … -> entry, in order."""
        return {"stem": self.stem, **{f"branch_{branch.index:02d}": branch for branch in self.branches}}

    def entries(self) -> dict[str, FileEntry]:
        """Field name -> entry of every file the bundle holds beside the manifest, its hash and its signature."""
        entries: dict[str, FileEntry] = {"stem": self.stem}
        entries.update({f"branches[{position}]": branch for position, branch in enumerate(self.branches)})
        if self.fused is not None:
            entries["fused"] = self.fused
        entries["card"] = self.card
        entries.update({f"files[{position}]": entry for position, entry in enumerate(self.files)})
        return entries


def encode_record(record: Record) -> bytes:
    """The bytes of ``manifest.json`` or ``card.json``: indented JSON, fields in their declared order."""
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def decode_record(raw: bytes, kind: type[R], file: str) -> R:
    """Parse a strict JSON document.

    Raises:
        ManifestError: too long, not JSON, an unknown, missing or repeated field, a wrong type.
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"{file} has {len(raw)} bytes, more than the {MAX_MANIFEST_BYTES} allowed")
    try:
        record = msgspec.json.decode(raw, type=kind)
        _refuse_repeated_fields(raw, file)
    except _SpecError as error:
        raise ManifestError(f"{file}: field '{error.field}' {error.problem}; export the bundle again") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(f"{file}: {error}; export the bundle again") from error
    return record


def decode_manifest(raw: bytes) -> Manifest:
    """Parse and check ``manifest.json``.

    Raises:
        ManifestError: not JSON, an unknown or missing field, a wrong type, another format, or
            fields that contradict each other. The message names the field.
    """
    if len(raw) <= MAX_MANIFEST_BYTES and (found := _format_of(raw)):
        _refuse_other_format(found)
    manifest = decode_record(raw, Manifest, MANIFEST_NAME)
    _check(manifest)
    return manifest


def is_manifest(raw: bytes) -> bool:
    """Whether these bytes call themselves a bundle's manifest, of whatever format."""
    found = _format_of(raw)
    return found is not None and _FORMAT_PATTERN.fullmatch(found) is not None


def is_plain_path(path: str) -> bool:
    """Relative, forward slashes, letters, digits and ``._+-``, at most 200; nothing climbs and nothing is hidden."""
    return len(path) <= 200 and _PLAIN_PATH.fullmatch(path) is not None


_PLAIN_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*(/[A-Za-z0-9][A-Za-z0-9._+-]*)*")


class _FormatOnly(msgspec.Struct):
    format: str


def _format_of(raw: bytes) -> str | None:
    try:
        return msgspec.json.decode(raw, type=_FormatOnly).format
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _refuse_other_format(found: str) -> None:
    """Tell another age of the format apart before its fields are read."""
    known = _FORMAT_PATTERN.fullmatch(found)
    if known and int(known[1]) != _FORMAT_NUMBER:
        newer = int(known[1]) > _FORMAT_NUMBER
        problem, hint = ("newer", "update paraedge on this device") if newer else ("older", "export the bundle again")
        raise ManifestError(f"{MANIFEST_NAME}: field 'format' is {found!r}, {problem} than {FORMAT!r}; {hint}")


def _refuse_repeated_fields(raw: bytes, file: str) -> None:
    """msgspec would take the last of two fields of one name. Numbers are not looked at."""

    def once(pairs: list[tuple[str, object]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ManifestError(f"{file}: field {name!r} is there twice; export the bundle again")
            seen.add(name)

    json.loads(raw, object_pairs_hook=once, parse_int=len, parse_float=len)


def _require(fine: bool, field: str, problem: str) -> None:
    if not fine:
        raise ManifestError(f"{MANIFEST_NAME}: field '{field}' {problem}; export the bundle again")


def _check(manifest: Manifest) -> None:
    """Rules between fields; msgspec has checked each field by itself."""
    if manifest.quantization not in _QUANTIZATIONS:  # it decides how near to torch 'verify' wants the bundle
        raise ManifestError(
            f"{MANIFEST_NAME}: field 'quantization' is {manifest.quantization!r}, not one of {', '.join(RECIPE_NAMES)} "
            f"(all but fp32 also with {FLOAT_STEM}); update paraedge on this device, or export the bundle again"
        )
    _check_parts(manifest)
    _check_files(manifest)
    _check_stop_rules(manifest)


def _check_input(spec: ImageInput | TensorInput) -> None:
    """Each field by itself, which msgspec looks at in JSON only, then the rules between them."""
    kind = type(spec)
    for field, wanted in _field_types(kind).items():
        try:
            value = msgspec.convert(getattr(spec, field), wanted)
        except msgspec.ValidationError as error:
            hint = (
                "; use (1, channels, height, width), or a TensorInput" if (kind, field) == (ImageInput, "shape") else ""
            )
            raise _SpecError(kind.__name__, field, f"is {getattr(spec, field)!r}: {error}{hint}") from None
        msgspec.structs.force_setattr(spec, field, value)
    for fine, field, problem in _input_checks(spec):
        if not fine:
            raise _SpecError(kind.__name__, field, problem)


@functools.cache
def _field_types(kind: type[Record]) -> dict[str, object]:
    return {field.name: field.type for field in msgspec.structs.fields(kind)}


def _input_checks(spec: ImageInput | TensorInput) -> Iterator[tuple[bool, str, str]]:
    """Whether it is fine, the field, the problem; each check relies on those before it."""
    yield spec.shape[0] == 1, "shape", f"is {spec.shape}, its first dimension must be 1"
    if isinstance(spec, ImageInput):
        count, along = spec.shape[1], "channels"
    else:
        dimensions, axis = spec.shape[1:], spec.normalized_axis
        yield len(spec.axes) == len(dimensions), "axes", f"has {len(spec.axes)} names for {spec.shape}"
        yield len(set(spec.axes)) == len(spec.axes), "axes", f"is {spec.axes}, a name is there twice"
        yield axis is None or axis in spec.axes, "normalized_axis", f"is {axis!r}, not one of {spec.axes}"
        yield spec.rate_hz is None or "time" in spec.axes, "rate_hz", f"needs an axis 'time', there are {spec.axes}"
        if (names := spec.channel_names) is not None:
            channels = dimensions[spec.axes.index("channel")] if "channel" in spec.axes else 0
            yield len(names) == channels, "channel_names", f"has {len(names)} names, the axis 'channel' has {channels}"
            yield len(set(names)) == len(names), "channel_names", f"is {names}, a name is there twice"
        count, along = (1, "everything") if axis is None else (dimensions[spec.axes.index(axis)], f"axis {axis!r}")
    for field, values in (("mean", spec.mean), ("std", spec.std)):
        yield len(values) == count, field, f"has {len(values)} values, {along} needs {count}"
        yield all(map(math.isfinite, values)), field, f"is {values}, which is not finite"
    yield all(value > 0 for value in spec.std), "std", f"is {spec.std}, not above 0"
    scale, shift = spec.scale_and_shift()
    yield _fit_float32(scale), "std", f"is {spec.std}, too small for float32"
    yield _fit_float32(shift), "mean", f"is {spec.mean}, too large beside std for float32"


def _fit_float32(values: Sequence[float]) -> bool:
    """Whether all are finite numbers after rounding to float32."""
    try:
        return all(math.isfinite(value) and struct.pack("<f", value) for value in values)
    except OverflowError:
        return False


def _check_parts(manifest: Manifest) -> None:
    for field, entry in (("stem", manifest.stem), *((f"branches[{n}]", b) for n, b in enumerate(manifest.branches))):
        for kind, shape in (("input", entry.input_shape), ("output", entry.output_shape)):
            fine = math.prod(shape) <= _MAX_ELEMENTS
            _require(fine, f"{field}.{kind}_shape", f"is {shape}, more than {_MAX_ELEMENTS} elements")
    _require(
        manifest.stem.input_shape == manifest.input.shape,
        "stem.input_shape",
        f"is {manifest.stem.input_shape}, input.shape is {manifest.input.shape}",
    )
    output_shape = (1, manifest.num_outputs)
    previous = -1
    for position, branch in enumerate(manifest.branches):
        field = f"branches[{position}]"
        _require(
            branch.index > previous, f"{field}.index", f"is {branch.index} after {previous}: duplicate or unordered"
        )
        _require(
            branch.index < manifest.total_branches,
            f"{field}.index",
            f"is {branch.index}, total_branches is {manifest.total_branches}",
        )
        _require(
            branch.input_shape == manifest.stem.output_shape,
            f"{field}.input_shape",
            f"is {branch.input_shape}, the stem makes {manifest.stem.output_shape}",
        )
        _require(
            branch.output_shape == output_shape,
            f"{field}.output_shape",
            f"is {branch.output_shape}, {manifest.num_outputs} outputs need {output_shape}",
        )
        previous = branch.index


def _check_files(manifest: Manifest) -> None:
    _require(manifest.card.file == CARD_NAME, "card.file", f"is {manifest.card.file!r}, not {CARD_NAME!r}")
    fine = manifest.card.size_bytes <= MAX_MANIFEST_BYTES
    _require(fine, "card.size_bytes", f"is {manifest.card.size_bytes}, more than {MAX_MANIFEST_BYTES}")
    # Compared without case: some file systems do not tell A from a.
    taken = {MANIFEST_NAME, MANIFEST_HASH_NAME, SIGNATURE_NAME}
    folders: set[str] = set()
    entries = manifest.entries()
    for field, entry in entries.items():
        _require(is_plain_path(entry.file), f"{field}.file", f"is {entry.file!r}, not a plain path inside the bundle")
        path = entry.file.lower()
        above = {path[:end] for end, letter in enumerate(path) if letter == "/"}
        fine = path not in taken | folders and not above & taken
        _require(fine, f"{field}.file", f"is {entry.file!r}, which another entry uses too")
        taken.add(path)
        folders |= above
    total = sum(entry.size_bytes for entry in entries.values())
    _require(total <= MAX_BUNDLE_BYTES, "size_bytes", f"adds up to {total}, more than {MAX_BUNDLE_BYTES}")


def _check_stop_rules(manifest: Manifest) -> None:
    rules, count = manifest.stop_rules, len(manifest.branches)
    if rules is None:
        return
    _require(isinstance(manifest.output, LabelsOutput), "stop_rules", "is not null, but the output is a vector")
    _require(len(rules) == count, "stop_rules", f"has {len(rules)} values for {count} branches")
    _require(rules[-1].threshold is None, "stop_rules", "has a threshold for all branches, not null")

"""The bundle: what travels to the device. A strict reader and an atomic writer.

The format is specified in ``docs/bundle-format.md``. Nothing of a bundle is used before all of it has been
checked: the manifest against its hash and itself, then every file's presence, size and hash.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from paraedge_runtime._arguments import as_any_path, as_path, choose_branches, shown
from paraedge_runtime._manifest_hash import hash_line, read_manifest
from paraedge_runtime._reading import open_file
from paraedge_runtime.archive import write_zip
from paraedge_runtime.atomic import new_folder
from paraedge_runtime.card import Card, Golden, decode_card
from paraedge_runtime.errors import BundleError, InputError, IntegrityError, ManifestError
from paraedge_runtime.manifest import (
    CARD_NAME,
    MANIFEST_HASH_NAME,
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    MAX_SIGNATURE_BYTES,
    SIGNATURE_NAME,
    UPDATE_NAME,
    FileEntry,
    ImageInput,
    Manifest,
    PartEntry,
    StopRule,
    decode_manifest,
    encode_record,
    is_manifest,
)
from paraedge_runtime.signature import PublicKey, TrustedKeys, check_signature, read_trusted_keys
from paraedge_runtime.storage import Storage, open_storage, storage_identity

__all__ = [
    "Bundle",
    "GoldenData",
    "card_entry",
    "check_destination",
    "check_outside",
    "file_entry",
    "listed_names",
    "manifest_files",
    "write_bundle",
    "write_files",
]

# Of a bundle that is being opened: far more than meet one reading, and an end where they never stop.
_MAX_REPLACEMENTS = 50
_INPUTS, _OUTPUTS = "golden/inputs.npy", "golden/branch_outputs.npy"


class GoldenData:
    """Real inputs, and what every branch must compute from them.

    Attributes:
        inputs: (n, H, W, C) uint8 images, or (n, ...) float32 tensors before they are normalised.
        branch_outputs: (n, k, C) float32, branches in the manifest's order.
        labels: (n,) class indices; ``None`` where the output is a vector.
    """

    def __init__(
        self,
        inputs: NDArray[np.uint8] | NDArray[np.float32],
        branch_outputs: NDArray[np.float32],
        labels: NDArray[np.int64] | None,
    ) -> None:
        self.inputs = inputs
        self.branch_outputs = branch_outputs
        self.labels = labels

    def files(self) -> dict[str, bytes]:
        """The two files under ``golden/``."""
        return {_INPUTS: _npy_bytes(self.inputs), _OUTPUTS: _npy_bytes(self.branch_outputs)}

    def record(self) -> Golden:
        """The card's ``golden``."""
        labels = None if self.labels is None else tuple(int(label) for label in self.labels)
        return Golden(inputs=_INPUTS, outputs=_OUTPUTS, labels=labels)


class Bundle:
    """A verified bundle: immutable, cheap to share between sessions and threads.

    The programs are kept in memory from the moment their hashes are checked, so what was checked is what runs.

    Attributes:
        path: the folder or zip that was opened.
        manifest: what a device needs to know.
        manifest_bytes: ``manifest.json`` as it stands in the bundle.
        signature_bytes: the signature file; ``None`` if the bundle is not signed.
        signed_by: name of the trusted key that signed it; ``None`` if no trusted key was named.
    """

    def __init__(self, storage: Storage, keys: Sequence[PublicKey] = ()) -> None:
        self._storage = storage
        self.path = storage.path
        names = storage.names()
        if MANIFEST_NAME not in names:
            raise IntegrityError(f"{self.path} has no {MANIFEST_NAME}; it is not a bundle, or was copied in part")
        self.manifest_bytes = read_manifest(storage, names)
        self.signature_bytes = (
            storage.read_unhashed(SIGNATURE_NAME, MAX_SIGNATURE_BYTES) if SIGNATURE_NAME in names else None
        )
        # Before anything of it is parsed.
        signature = self.signature_bytes or b""
        self.signed_by = check_signature(self.path, self.manifest_bytes, signature, keys) if keys else None
        with _naming(self.path):
            self.manifest = decode_manifest(self.manifest_bytes)
        listed = listed_names(self.manifest)
        if UPDATE_NAME in names - listed:
            command = shlex.join(["paraedge", "apply", str(self.path), "OLD", "--out", "NEW"])
            raise IntegrityError(f"{self.path} is an update, not a bundle; apply it to the old bundle: {command}")
        if unlisted := [name for name in names - listed if not storage.is_litter(name)]:
            raise IntegrityError(f"{self.path}: {min(unlisted)} is not listed in {MANIFEST_NAME}; remove it")
        if missing := listed - names:
            raise IntegrityError(f"{self.path}: {min(missing)} is missing; copy the whole bundle again")
        self._programs: dict[str, bytes] = {}
        for entry in self.manifest.entries().values():
            data = self.read(entry)
            if isinstance(entry, PartEntry):
                self._programs[entry.file] = data

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, trusted_keys: TrustedKeys | None = None) -> Bundle:
        """Open a bundle (a folder, or a zip from ``paraedge pack``) and check all of it.

        If the bundle is replaced while it is read, it is read again: you get the old or the new one, never a mixture.

        Args:
            path: the folder or zip.
            trusted_keys: require a signature by one of these keys: a public key, its file, a folder of keys, or a
                list of these. ``None`` uses the environment variable ``PARAEDGE_TRUSTED_KEYS``; if that is not set,
                no signature is required.

        Raises:
            ManifestError: ``manifest.json`` is malformed or contradicts itself.
            IntegrityError: a file is missing, unlisted, a link, unreadable, or has the wrong size or hash; or no
                trusted key signed the bundle.
            InputError: a trusted key cannot be read.
        """
        return cls._open(path, read_trusted_keys(trusted_keys))

    @classmethod
    def open_untrusted(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open a bundle without checking its signature, for tools that create and sign bundles."""
        return cls._open(path, ())

    @classmethod
    def _open(cls, path: str | os.PathLike[str], keys: Sequence[PublicKey]) -> Bundle:
        where = as_any_path("the bundle", path)
        for _ in range(_MAX_REPLACEMENTS):
            identity = storage_identity(where)
            try:
                return cls(open_storage(where), keys)
            except IntegrityError:
                if storage_identity(where) == identity:
                    raise
        return cls(open_storage(where), keys)

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}, branches={list(self.manifest.branch_indexes)})"

    @property
    def sha256(self) -> str:
        """SHA-256 of ``manifest.json``, which contains the hash of every other file; it identifies the whole bundle."""
        return hashlib.sha256(self.manifest_bytes).hexdigest()

    @property
    def size_bytes(self) -> int:
        """Size of all files of the bundle, the manifest included."""
        listed = sum(entry.size_bytes for entry in self.manifest.entries().values())
        return listed + sum(map(len, manifest_files(self.manifest_bytes, self.signature_bytes).values()))

    @cached_property
    def card(self) -> Card:
        """What ``card.json`` says: for people, ``verify`` and ``compare``.

        Raises:
            ManifestError: it is malformed or contradicts the manifest.
            IntegrityError: it was changed since the bundle was opened.
        """
        with _naming(self.path):
            return decode_card(self.read(self.manifest.card), self.manifest)

    def program(self, part: PartEntry) -> bytes:
        """The program of the stem or of a branch, as it was when the bundle was opened."""
        return self._programs[part.file]

    def read(self, entry: FileEntry) -> bytes:
        """The bytes of one listed file. Programs come from memory; other files are read and checked again."""
        if entry.file in self._programs:
            return self._programs[entry.file]
        data = self._storage.read(entry.file, entry.size_bytes)
        digest = hashlib.sha256(data).hexdigest()
        if digest != entry.sha256:
            raise IntegrityError(
                f"{self.path}: {entry.file} has SHA-256 {digest[:12]}…, {MANIFEST_NAME} says "
                f"{entry.sha256[:12]}…; it was damaged or changed, copy it again"
            )
        return data

    def files(self) -> dict[str, bytes]:
        """Path inside the bundle -> content, for every file, the manifest first."""
        files = manifest_files(self.manifest_bytes, self.signature_bytes)
        return files | {entry.file: self.read(entry) for entry in self.manifest.entries().values()}

    def golden(self) -> GoldenData:
        """The golden inputs and outputs.

        Raises:
            IntegrityError: the arrays do not have the shapes that the manifest implies.
            ManifestError: the card cannot be read.
        """
        manifest, golden = self.manifest, self.card.golden
        spec = manifest.input
        is_image = isinstance(spec, ImageInput)
        shape = (*spec.shape[2:], spec.shape[1]) if is_image else spec.shape[1:]
        inputs = self._read_npy(golden.inputs, np.dtype(np.uint8 if is_image else np.float32), shape)
        output_shape = (len(manifest.branches), manifest.num_outputs)
        outputs = self._read_npy(golden.outputs, np.dtype(np.float32), output_shape)
        labels = None if golden.labels is None else np.asarray(golden.labels, dtype=np.int64)
        if len(outputs) != len(inputs) or (labels is not None and len(labels) != len(inputs)):
            counts = f"{len(inputs)} inputs, {len(outputs)} outputs" + (
                "" if labels is None else f", {len(labels)} labels"
            )
            raise IntegrityError(f"{self.path}: the golden data has {counts}; export the bundle again")
        return GoldenData(inputs, outputs, labels)

    def _read_npy(self, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> NDArray:  # type: ignore[type-arg]
        """(n, *shape), n at least 1, finite."""
        stream = io.BytesIO(self.read(next(entry for entry in self.manifest.files if entry.file == name)))
        try:
            version = np.lib.format.read_magic(stream)
            if version != (1, 0):
                raise ValueError(f"version {version} of the format")
            # The header first: reading the array at once would allocate whatever it claims.
            found_shape, fortran_order, found_dtype = np.lib.format.read_array_header_1_0(stream)
        except Exception as error:  # numpy parses the header as Python: tokenizer, recursion, index errors too
            raise IntegrityError(f"{self.path}: {name} is not an array: {error}") from error
        data = stream.read()
        count = found_shape[0] if found_shape else 0
        right = found_shape[1:] == shape and found_dtype == dtype and not fortran_order
        if not right or count < 1 or len(data) != count * math.prod(shape) * dtype.itemsize:
            raise IntegrityError(
                f"{self.path}: {name} holds {found_shape} {found_dtype} in {len(data)} bytes, "
                f"the manifest needs {('n', *shape)} {dtype}"
            )
        array = np.frombuffer(data, dtype=dtype).reshape(found_shape)
        if not np.isfinite(array).all():
            raise IntegrityError(f"{self.path}: {name} has non-finite values; export the bundle again")
        return array

    def subset(self, branches: int | Sequence[int], out: str | os.PathLike[str]) -> Bundle:
        """Write a smaller bundle with some of this bundle's branches. Needs neither an engine nor torch.

        The parts are copied byte for byte. Accuracy and temperatures are kept for a prefix of this bundle's branches;
        for any other choice they are unknown (``null``). Early-stop thresholds are kept only with all branches,
        because they were calibrated against all of them. A fused model and a signature are left out: they belong to
        the whole bundle.

        Args:
            branches: a count (the first ones), or indexes as in ``manifest.branch_indexes``.
            out: folder to write; see :func:`write_bundle`.

        Raises:
            InputError: a branch does not exist, or ``out`` is not a path or cannot be written.
            BundleError: as :func:`write_bundle`.
        """
        manifest, out = self.manifest, as_path("out", out)
        try:
            chosen = choose_branches(() if branches is None else branches, manifest.branch_indexes)
        except InputError:
            raise InputError(
                f"invalid branches {shown(branches)}: {self.path} has {list(manifest.branch_indexes)}; give unique "
                "indices in ascending order, or a count"
            ) from None
        if os.path.realpath(self.path) == os.path.realpath(out):
            raise InputError(f"{out} is the bundle itself, or inside it; choose another name with --out")
        check_outside(self, out)
        positions = [manifest.branch_indexes.index(index) for index in chosen]
        kept_branches = tuple(manifest.branches[position] for position in positions)
        golden = self.golden()
        golden.branch_outputs = np.ascontiguousarray(golden.branch_outputs[:, positions])
        old_golden = (self.card.golden.inputs, self.card.golden.outputs)
        kept_files = {entry.file: self.read(entry) for entry in manifest.files if entry.file not in old_golden}
        files = {**golden.files(), **kept_files}
        card = replace(
            _card_of_subset(self.card, positions, [f"branch_{index:02d}" for index in chosen]), golden=golden.record()
        )
        smaller = replace(
            manifest,
            branches=kept_branches,
            fused=None,
            stop_rules=_rules_of_subset(manifest.stop_rules, positions),
            card=card_entry(card),
            files=tuple(file_entry(name, data) for name, data in files.items()),
            signature=None,
        )
        programs = {entry.file: self.program(entry) for entry in (manifest.stem, *kept_branches)}
        return write_bundle(smaller, card, {**programs, **files}, out)

    def pack(self, out: str | os.PathLike[str]) -> Path:
        """Write this bundle as a single uncompressed zip, which can be opened like the folder.

        A packed bundle at ``out`` is replaced.

        Raises:
            InputError: ``out`` is not a path, is inside the bundle, or cannot be written.
            BundleError: ``out`` exists and is not a packed bundle.
        """
        path = as_path("out", out)
        check_outside(self, path)
        if path.is_dir():
            raise BundleError(f"{path} is a folder; name the file to write with --out")
        if os.path.lexists(path):
            _check_signature_kept(_packed_bundle(path), self.signature_bytes is not None)
        write_zip(self.files(), path)
        return path


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """A ``ManifestError`` in the block says of which bundle it is."""
    try:
        yield
    except ManifestError as error:
        raise ManifestError(f"{path}: {error}") from error


def _rules_of_subset(rules: tuple[StopRule, ...] | None, positions: list[int]) -> tuple[StopRule, ...] | None:
    """A prefix keeps its temperatures; only all branches keep their thresholds."""
    if rules is None or len(positions) == len(rules):
        return rules
    if positions != list(range(len(positions))):
        return None
    return tuple([replace(rule, threshold=None) for rule in rules[: len(positions)]])


def _card_of_subset(card: Card, positions: list[int], names: list[str]) -> Card:
    """The card of some branches: ``positions`` among the old ones, ``names`` of the new."""
    count, old_count = len(positions), len(card.parts) - 1
    is_prefix = positions == list(range(count))
    accuracy = None
    if is_prefix and card.accuracy is not None:
        accuracy = replace(card.accuracy, prefix_accuracy=card.accuracy.prefix_accuracy[:count])
    return replace(
        card,
        parts={name: card.parts[name] for name in ("stem", *names)},
        parity=replace(card.parity, prefixes=card.parity.prefixes[:count] if is_prefix else ()),
        accuracy=accuracy,
        early_stop=card.early_stop if count == old_count else None,
    )


def file_entry(name: str, data: bytes) -> FileEntry:
    """The entry that describes ``data`` stored as ``name``."""
    return FileEntry(file=name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def card_entry(card: Card) -> FileEntry:
    """The manifest's ``card``."""
    return file_entry(CARD_NAME, encode_record(card))


def manifest_files(manifest: bytes, signature: bytes | None = None) -> dict[str, bytes]:
    """``manifest.json``, its hash, and its signature if it has one."""
    files = {MANIFEST_NAME: manifest, MANIFEST_HASH_NAME: hash_line(manifest)}
    return files if signature is None else {**files, SIGNATURE_NAME: signature}


def listed_names(manifest: Manifest) -> set[str]:
    """Paths of all files that a bundle of this manifest has, the manifest and its hash included."""
    names = {MANIFEST_NAME, MANIFEST_HASH_NAME, *(entry.file for entry in manifest.entries().values())}
    return names if manifest.signature is None else names | {SIGNATURE_NAME}


def check_outside(bundle: Bundle, out: str | os.PathLike[str]) -> None:
    """Refuse to write into a bundle's own folder, which holds what its manifest lists and nothing else.

    Raises:
        InputError: ``out`` is inside it.
    """
    if Path(os.path.realpath(bundle.path)) in Path(os.path.realpath(out)).parents:
        raise InputError(f"{out} is the bundle itself, or inside it; choose another name with --out")


def check_destination(out: str | os.PathLike[str], *, is_signed: bool = False) -> None:
    """Check, before a long export, that a bundle may be written to a path.

    Args:
        out: folder to write.
        is_signed: the new bundle will be.

    Raises:
        BundleError: the path exists and is not a complete bundle folder with nothing else in it; or it is a signed
            bundle, the new one will not be signed, and ``PARAEDGE_TRUSTED_KEYS`` requires signatures here.
    """
    path = Path(out)
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not _has_manifest(path):
        raise BundleError(f"{path} exists and is not a bundle folder; choose another name with --out")
    try:
        old = Bundle.open_untrusted(path)
    except BundleError as error:
        raise BundleError(
            f"{path} exists and is not a whole bundle, so it is not replaced; choose another name with --out, "
            f"or remove it: {error}"
        ) from error
    _check_signature_kept(old, is_signed)


def _check_signature_kept(old: Bundle, is_signed: bool) -> None:
    """Refuse to put an unsigned bundle in place of a signed one where only signed ones are opened."""
    if old.signature_bytes is not None and not is_signed and read_trusted_keys(None):
        raise BundleError(
            f"{old.path} is signed, the new bundle is not, and PARAEDGE_TRUSTED_KEYS requires a signature; choose "
            "another name with --out and sign that bundle, or unset the variable"
        )


def write_bundle(manifest: Manifest, card: Card, files: Mapping[str, bytes], out: str | os.PathLike[str]) -> Bundle:
    """Write a bundle folder, whole or not at all, and open it with the strict reader.

    A whole bundle that stands at ``out`` is replaced; anything else there is left alone.

    Args:
        manifest: what a device needs; its ``card`` is :func:`card_entry` of the card.
        card: what people need.
        files: path inside the bundle -> bytes, for every other file that the manifest lists.
        out: folder to write.

    Raises:
        BundleError: something stands at ``out`` that is not a complete bundle, or the reader refuses the result.
        InputError: it cannot be written there; what stood there stays.
    """
    return write_files({**manifest_files(encode_record(manifest)), CARD_NAME: encode_record(card), **files}, out)


def write_files(
    files: Mapping[str, bytes],
    out: str | os.PathLike[str],
    *,
    trusted_keys: TrustedKeys | None = None,
    check: Callable[[Bundle], None] = lambda bundle: None,
) -> Bundle:
    """Write the files of a bundle, :func:`manifest_files` and ``card.json`` among them; see :func:`write_bundle`.

    Args:
        files: path inside the bundle -> bytes.
        out: folder to write.
        trusted_keys: write it only if one of these keys signed it; whoever made it is trusted when ``None``.
        check: called with the new bundle before it stands at ``out``; its error leaves there what stood there.
    """
    keys = () if trusted_keys is None else read_trusted_keys(trusted_keys)
    path = Path(out)
    check_destination(path, is_signed=SIGNATURE_NAME in files)
    manifest = decode_manifest(files[MANIFEST_NAME])  # no path in it leaves the folder
    listed = listed_names(manifest)
    if set(files) != listed:
        raise BundleError(f"the manifest lists {sorted(listed)}, the files given are {sorted(files)}")
    try:
        with new_folder(path) as building:
            for name, data in files.items():
                file = building / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
            try:
                bundle = Bundle._open(building, keys)
                _ = bundle.card  # read for its checks
            except BundleError as error:  # where it was built is gone when somebody reads this
                raise type(error)(str(error).replace(str(building), str(path))) from error
            check(bundle)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another path") from error
    return Bundle._open(path, keys)


def _has_manifest(path: Path) -> bool:
    """Whether a folder's ``manifest.json`` says that it is a bundle, of whatever format."""
    try:
        with open_file(path / MANIFEST_NAME) as file:
            return is_manifest(file.read(MAX_MANIFEST_BYTES + 1))
    except OSError:
        return False


def _packed_bundle(path: Path) -> Bundle:
    """The bundle in a zip that may be replaced: the reader takes it, so nothing else is in it."""
    problem = f"{path} exists and is not a packed bundle; choose another name with --out"
    if path.is_symlink():
        raise BundleError(problem)
    try:
        return Bundle.open_untrusted(path)
    except BundleError as error:
        raise BundleError(problem) from error


def _npy_bytes(array: NDArray) -> bytes:  # type: ignore[type-arg]
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()

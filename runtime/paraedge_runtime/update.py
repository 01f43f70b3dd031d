"""An update: one file that turns a bundle into another, and holds only what the old one has not.

It is a zip like a packed bundle: ``update.json``, which names the bundle it was made for, the new bundle's manifest,
its hash, its signature if it has one, and those of its files whose hash is not among the old one's. What is missing is
taken from the old bundle, by hash.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from paraedge_runtime._manifest_hash import read_manifest
from paraedge_runtime.archive import write_zip
from paraedge_runtime.bundle import Bundle, check_outside, listed_names, manifest_files, write_files
from paraedge_runtime.errors import BundleError, InputError, IntegrityError, ParaEdgeError
from paraedge_runtime.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    MAX_SIGNATURE_BYTES,
    SIGNATURE_NAME,
    UPDATE_NAME,
    Manifest,
    Record,
    Sha256,
    decode_manifest,
    decode_record,
    encode_record,
)
from paraedge_runtime.signature import PublicKey, TrustedKeys, check_signature, read_trusted_keys
from paraedge_runtime.storage import Storage, ZipStorage, open_storage
from paraedge_runtime.trial import try_bundle

__all__ = ["apply_update", "check_version", "write_update"]


class _UpdateRecord(Record, frozen=True, kw_only=True):
    """The whole of ``update.json``."""

    format: Literal["paraedge-update/1"]
    base_sha256: Sha256  # ``Bundle.sha256`` of the bundle that it is for


@dataclass(frozen=True)
class _Update:
    storage: Storage
    names: set[str]
    record: _UpdateRecord
    manifest: Manifest
    manifest_bytes: bytes
    signature_bytes: bytes | None


def write_update(old: Bundle, new: Bundle, out: str | os.PathLike[str]) -> list[str]:
    """Write the file that turns ``old`` into ``new``, and no other bundle.

    Args:
        old: what the device has.
        new: what it shall have.
        out: file to write; an update that stands there is replaced.

    Returns:
        The new bundle's files that travel, the manifest left out.

    Raises:
        BundleError: ``out`` is something else than an update.
        InputError: ``out`` is inside one of the bundles, nothing changed, or the new bundle has a file of a name that
            updates need.
    """
    path = Path(out)
    for bundle in (old, new):
        check_outside(bundle, path)
    if os.path.lexists(path) and not _is_update(path):
        raise BundleError(f"{path} exists and is not an update; choose another name with --out")
    if old.manifest_bytes == new.manifest_bytes:
        raise InputError(f"{old.path} and {new.path} are the same bundle; there is nothing to update")
    files = new.files()
    if UPDATE_NAME in files:
        raise InputError(f"{new.path} has a file {UPDATE_NAME}, a name reserved for updates; send the whole bundle")
    present = {entry.sha256 for entry in old.manifest.entries().values()}
    changed = [entry.file for entry in new.manifest.entries().values() if entry.sha256 not in present]
    record = _UpdateRecord(format="paraedge-update/1", base_sha256=old.sha256)
    always = {UPDATE_NAME: encode_record(record), **manifest_files(new.manifest_bytes, new.signature_bytes)}
    write_zip({**always, **{name: files[name] for name in changed}}, path)
    return changed


def apply_update(
    old: Bundle,
    update: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    allow_downgrade: bool = False,
    trusted_keys: TrustedKeys | None = None,
) -> Bundle:
    """Write the new bundle from the old one and the update, whole or not at all, and check all of it.

    Where its engine is installed, it runs in a process of its own first (:func:`paraedge_runtime.trial.try_bundle`).

    Args:
        old: the bundle that the update was made for; a folder or a zip of it.
        update: file of :func:`write_update`.
        out: folder to write; see :func:`paraedge_runtime.bundle.write_bundle`. May be the old bundle's.
        allow_downgrade: take an update to a lower ``version`` too.
        trusted_keys: take it only if one of these keys signed the new bundle; see :meth:`Bundle.open`.

    Raises:
        IntegrityError: the update is damaged, was made for another bundle, is signed by no trusted key, or a program in
            it kills the process that runs it.
        InputError: ``out`` is inside the old bundle; or the update leads to a lower ``version`` than the old bundle's,
            or than that of the same model at ``out``.
    """
    keys = read_trusted_keys(trusted_keys)
    check_outside(old, out)
    found = _read_update(Path(update), keys)
    if found.record.base_sha256 != old.sha256:
        raise IntegrityError(
            f"{update} was made for the bundle {found.record.base_sha256[:12]}…, {old.path} is {old.sha256[:12]}…; "
            "make one from this bundle with 'paraedge update OLD NEW'"
        )
    check_version(update, old.manifest, found.manifest, allow_downgrade=allow_downgrade)
    if (replaced := _model_at(out, found.manifest.name)) is not None:
        check_version(update, replaced, found.manifest, allow_downgrade=allow_downgrade)
    files = manifest_files(found.manifest_bytes, found.signature_bytes)
    present = {entry.sha256: entry for entry in old.manifest.entries().values()}
    for entry in found.manifest.entries().values():
        if entry.file in found.names:
            files[entry.file] = found.storage.read(entry.file, entry.size_bytes)
        elif entry.sha256 in present:
            files[entry.file] = old.read(present[entry.sha256])
        else:
            raise IntegrityError(f"{update}: {entry.file} is neither in it nor in {old.path}; make the update again")
    return write_files(
        files,
        out,
        trusted_keys=[key.text for key in keys] if keys else None,
        check=lambda bundle: try_bundle(bundle, called=out),
    )


def check_version(source: str | os.PathLike[str], old: Manifest, new: Manifest, *, allow_downgrade: bool) -> None:
    """Refuse to replace a bundle by an older one, which may have been sent again.

    Args:
        source: of the new one, for the message.
        old: what a device has.
        new: what it is offered.
        allow_downgrade: take a lower ``version`` too.

    Raises:
        InputError: the new ``version`` is lower.
    """
    if new.version < old.version and not allow_downgrade:
        raise InputError(
            f"{source} is a downgrade from version {old.version} to {new.version}; pass --allow-downgrade to accept it"
        )


def _model_at(out: str | os.PathLike[str], name: str) -> Manifest | None:
    """The manifest of the bundle at ``out``, if one of this model is there."""
    try:
        manifest = Bundle.open_untrusted(out).manifest
    except ParaEdgeError:  # nothing, or nothing that is replaced without a question
        return None
    return manifest if manifest.name == name else None


def _read_update(path: Path, keys: Sequence[PublicKey] = ()) -> _Update:
    """What an update says; the files it carries are not read.

    Raises:
        IntegrityError, ManifestError: it is no update, holds something else beside one, or none of ``keys`` signed it.
    """
    problem = (
        f"{path} is not an update, or was copied in part; make one with 'paraedge update OLD NEW --out NAME.zip'"
        if path.exists()
        else f"{path} does not exist; make an update with 'paraedge update OLD NEW --out NAME.zip'"
    )
    try:
        storage = open_storage(path)
        names = storage.names()
    except IntegrityError as error:
        raise IntegrityError(problem) from error
    if not isinstance(storage, ZipStorage) or not {UPDATE_NAME, MANIFEST_NAME} <= names:
        raise IntegrityError(problem)
    signature_bytes = storage.read_unhashed(SIGNATURE_NAME, MAX_SIGNATURE_BYTES) if SIGNATURE_NAME in names else None
    manifest_bytes = read_manifest(storage, names)
    if keys:
        check_signature(path, manifest_bytes, signature_bytes or b"", keys)
    record = decode_record(storage.read_unhashed(UPDATE_NAME, MAX_MANIFEST_BYTES), _UpdateRecord, UPDATE_NAME)
    manifest = decode_manifest(manifest_bytes)
    listed = listed_names(manifest)
    if unlisted := names - listed - {UPDATE_NAME}:
        raise IntegrityError(f"{path}: {min(unlisted)} is not listed in {MANIFEST_NAME}; make it again")
    if SIGNATURE_NAME in listed and signature_bytes is None:
        raise IntegrityError(f"{path}: {SIGNATURE_NAME} is missing; make it again")
    if UPDATE_NAME in listed:
        raise IntegrityError(f"{path}: {UPDATE_NAME} is listed in {MANIFEST_NAME}; make it again")
    return _Update(storage, names, record, manifest, manifest_bytes, signature_bytes)


def _is_update(path: Path) -> bool:
    """Whether a file may be replaced: it is an update, and nothing else is in it."""
    try:
        _read_update(path)
    except BundleError:
        return False
    return not path.is_symlink()

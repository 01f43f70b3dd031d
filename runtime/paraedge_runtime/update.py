"""An update: one file that turns a bundle into another, and holds only what the old one has not.

It is a zip like a packed bundle: the new bundle's manifest, its signature if it has one, and those of its
files whose hash is not among the old one's. What is missing is taken from the old bundle, by hash.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from paraedge_runtime.archive import write_zip
from paraedge_runtime.bundle import Bundle, listed_names, write_files
from paraedge_runtime.errors import BundleError, InputError, IntegrityError
from paraedge_runtime.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    MAX_SIGNATURE_BYTES,
    SIGNATURE_NAME,
    decode_manifest,
)
from paraedge_runtime.storage import ZipStorage, open_storage

__all__ = ["apply_update", "write_update"]


def write_update(old: Bundle, new: Bundle, out: str | os.PathLike[str]) -> list[str]:
    """Write the file that turns ``old`` into ``new``.

    Args:
        old: what the device has.
        new: what it shall have.
        out: zip to write; one that stands there is replaced.

    Returns:
        The new bundle's files that travel, the manifest left out.

    Raises:
        BundleError: ``out`` is something else than a zip.
        InputError: nothing changed.
    """
    path = Path(out)
    if path.exists() and not zipfile.is_zipfile(path):
        raise BundleError(f"{path} exists and is no zip; choose another name with --out")
    if old.manifest_bytes == new.manifest_bytes:
        raise InputError(f"{old.path} and {new.path} are the same bundle; there is nothing to update")
    present = {entry.sha256 for entry in old.manifest.entries().values()}
    changed = [entry.file for entry in new.manifest.entries().values() if entry.sha256 not in present]
    files = new.files()
    always = [name for name in (MANIFEST_NAME, SIGNATURE_NAME) if name in files]
    write_zip({name: files[name] for name in [*always, *changed]}, path)
    return changed


def apply_update(old: Bundle, update: str | os.PathLike[str], out: str | os.PathLike[str]) -> Bundle:
    """Write the new bundle from the old one and the update, whole or not at all, and check all of it.

    Args:
        old: the bundle that the update was made from, or any other that holds the same parts.
        update: file of :func:`write_update`.
        out: folder to write; see :func:`paraedge_runtime.bundle.write_bundle`. May be the old bundle's.

    Raises:
        IntegrityError: the update is damaged, or needs a part that ``old`` has not.
    """
    storage = open_storage(Path(update))
    names = storage.names()
    if not isinstance(storage, ZipStorage) or MANIFEST_NAME not in names:
        raise IntegrityError(
            f"{update} is no update, or was copied in part; make one with 'paraedge update OLD NEW --out NAME.zip'"
        )
    files = {MANIFEST_NAME: storage.read_unhashed(MANIFEST_NAME, MAX_MANIFEST_BYTES)}
    manifest = decode_manifest(files[MANIFEST_NAME])
    if unlisted := names - listed_names(manifest):
        raise IntegrityError(f"{update}: {min(unlisted)} is not listed in {MANIFEST_NAME}; make it again")
    if manifest.signature is not None:
        files[SIGNATURE_NAME] = storage.read_unhashed(SIGNATURE_NAME, MAX_SIGNATURE_BYTES)
    present = {entry.sha256: entry for entry in old.manifest.entries().values()}
    for entry in manifest.entries().values():
        if entry.file in names:
            files[entry.file] = storage.read(entry.file, entry.size_bytes)
        elif entry.sha256 in present:
            files[entry.file] = old.read(present[entry.sha256])
        else:
            raise IntegrityError(
                f"{update} needs {entry.file}, which is not in {old.path}: it was made for another bundle"
            )
    return write_files(files, out)

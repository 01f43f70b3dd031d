"""An update: one file that turns a bundle into another, and holds only what the old one has not.

It is a zip like a packed bundle: the new bundle's manifest, and those of its files whose hash is not
among the old one's. What is missing is taken from the old bundle, by hash.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from paraedge_runtime.bundle import Bundle, write_bundle
from paraedge_runtime.errors import BundleError, InputError, IntegrityError
from paraedge_runtime.manifest import MANIFEST_NAME, decode_manifest
from paraedge_runtime.storage import ZipStorage, write_zip

__all__ = ["apply_update", "write_update"]


def write_update(old: Bundle, new: Bundle, target: str | os.PathLike[str]) -> list[str]:
    """Write the file that turns ``old`` into ``new``.

    Args:
        old: what the device has.
        new: what it shall have.
        target: zip to write; one that stands there is replaced.

    Returns:
        The new bundle's files that travel, the manifest left out.

    Raises:
        BundleError: ``target`` is something else than a zip.
        InputError: nothing changed.
    """
    path = Path(target)
    if path.exists() and not zipfile.is_zipfile(path):
        raise BundleError(f"{path} exists and is no zip; choose another name with --out")
    if old.manifest_bytes == new.manifest_bytes:
        raise InputError(f"{old.path} and {new.path} are the same bundle; there is nothing to update")
    present = {entry.sha256 for entry in old.manifest.files().values()}
    changed = [entry for entry in new.manifest.files().values() if entry.sha256 not in present]
    write_zip({MANIFEST_NAME: new.manifest_bytes, **{entry.file: new.read(entry) for entry in changed}}, path)
    return [entry.file for entry in changed]


def apply_update(old: Bundle, update: str | os.PathLike[str], target: str | os.PathLike[str]) -> Bundle:
    """Write the new bundle from the old one and the update, whole or not at all, and check all of it.

    Args:
        old: the bundle that the update was made from, or any other that holds the same parts.
        update: file of :func:`write_update`.
        target: folder to write; see :func:`paraedge_runtime.bundle.write_bundle`. May be the old bundle's.

    Raises:
        IntegrityError: the update is damaged, or needs a part that ``old`` has not.
    """
    storage = ZipStorage(Path(update))
    names = storage.names()
    if MANIFEST_NAME not in names:
        raise IntegrityError(f"{update} has no {MANIFEST_NAME}; it is no update, or was copied in part")
    manifest = decode_manifest(storage.read(MANIFEST_NAME, None))
    unlisted = names - {entry.file for entry in manifest.files().values()} - {MANIFEST_NAME}
    if unlisted:
        raise IntegrityError(f"{update}: {sorted(unlisted)[0]} is not listed in {MANIFEST_NAME}; make it again")
    present = {entry.sha256: entry for entry in old.manifest.files().values()}
    files: dict[str, bytes] = {}
    for entry in manifest.files().values():
        if entry.file in names:
            files[entry.file] = storage.read(entry.file, entry.size_bytes)
        elif entry.sha256 in present:
            files[entry.file] = old.read(present[entry.sha256])
        else:
            raise IntegrityError(
                f"{update} needs {entry.file}, which is not in {old.path}: it was made for another bundle"
            )
    return write_bundle(manifest, files, target)

"""``manifest.sha256``: the hash of ``manifest.json``, as ``sha256sum`` writes it, so that damage to it is found too."""

from __future__ import annotations

import hashlib
import re

from paraedge_runtime.errors import IntegrityError
from paraedge_runtime.manifest import MANIFEST_HASH_NAME, MANIFEST_NAME, MAX_MANIFEST_BYTES
from paraedge_runtime.storage import Storage

__all__ = ["hash_line", "read_manifest"]

_LINE = re.compile(rb"([0-9a-f]{64})  manifest\.json\n")
_LINE_BYTES = 80


def hash_line(manifest: bytes) -> bytes:
    """The bytes of ``manifest.sha256``; ``sha256sum -c`` takes them.

    Args:
        manifest: those of ``manifest.json``.
    """
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST_NAME}\n".encode()


def read_manifest(storage: Storage, names: set[str]) -> bytes:
    """The bytes of ``manifest.json``, which have the hash that ``manifest.sha256`` says; not parsed yet.

    Args:
        storage: of a bundle or an update.
        names: of the files in it, ``manifest.json`` among them.

    Raises:
        IntegrityError: they have another hash, or the hash is missing or malformed.
    """
    path = storage.path
    if MANIFEST_HASH_NAME not in names:
        raise IntegrityError(
            f"{path}: {MANIFEST_HASH_NAME} is missing; copy all of it again, or export the bundle again"
        )
    manifest = storage.read_unhashed(MANIFEST_NAME, MAX_MANIFEST_BYTES)
    line = storage.read_unhashed(MANIFEST_HASH_NAME, _LINE_BYTES)
    found = _LINE.fullmatch(line)
    if found is None:
        raise IntegrityError(
            f"{path}: {MANIFEST_HASH_NAME} is not the line that 'sha256sum {MANIFEST_NAME}' writes; copy it again"
        )
    if line != hash_line(manifest):
        digest, wanted = hash_line(manifest)[:12].decode(), found[1][:12].decode()
        raise IntegrityError(
            f"{path}: {MANIFEST_NAME} has SHA-256 {digest}…, {MANIFEST_HASH_NAME} says {wanted}…; it was damaged or "
            "changed, copy it again"
        )
    return manifest

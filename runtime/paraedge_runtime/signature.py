"""Who signed a manifest: minisign's signature files, checked against trusted keys.

The format is specified in ``docs/bundle-format.md``; ``native/core/signature.cpp`` takes and refuses the same files.
A signature file is one or more blocks of four lines, one for each signer::

    untrusted comment: ...      nobody reads it
    base64: "ED", the key's id, Ed25519 of the BLAKE2b-512 of the manifest
    trusted comment: ...        fields between tabs; expires:SECONDS ends the signature at that time
    base64: Ed25519 of the first signature and the trusted comment
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from paraedge_runtime._arguments import as_path
from paraedge_runtime._reading import open_file
from paraedge_runtime.errors import EngineUnavailable, InputError, IntegrityError
from paraedge_runtime.manifest import MANIFEST_NAME, SIGNATURE_NAME

__all__ = [
    "TRUSTED_KEYS_VARIABLE",
    "PublicKey",
    "TrustedKeys",
    "check_signature",
    "claimed_signers",
    "read_public_key",
    "read_trusted_keys",
]

TRUSTED_KEYS_VARIABLE = "PARAEDGE_TRUSTED_KEYS"
# A public key, its file, or a folder of such files (*.pub); or several of these.
TrustedKeys = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_MAX_KEYS = 100
_MAX_KEY_FILE_BYTES = 4096
_TEXT = rb"[^\x00-\x08\x0a-\x1f\x7f]*"  # no control characters; tabs are fine
_KEY = re.compile(r"RW[A-Za-z0-9+/]{54}")
_KEY_FILE = re.compile(rb"untrusted comment: %b\n([A-Za-z0-9+/]{56})\n" % _TEXT)
_BLOCK = re.compile(
    rb"untrusted comment: %b\n([A-Za-z0-9+/]{99}=)\ntrusted comment: (%b)\n([A-Za-z0-9+/]{86}==)\n" % (_TEXT, _TEXT)
)
_EXPIRES = b"expires:"


class PublicKey(NamedTuple):
    """A key that checks signatures: its id (8 bytes) and its 32 bytes."""

    id: bytes
    key: bytes

    @property
    def name(self) -> str:
        """The id as minisign prints it."""
        return _key_name(self.id)

    @property
    def text(self) -> str:
        """The key as minisign prints it: 56 letters."""
        return base64.b64encode(b"Ed" + self.id + self.key).decode()


class _Block(NamedTuple):
    """What one signer wrote; ``comment`` is the trusted one."""

    key_id: bytes
    signature: bytes
    comment: bytes
    global_signature: bytes
    expires_s: int | None


def _key_name(key_id: bytes) -> str:
    """A key's id as minisign prints it."""
    return key_id[::-1].hex().upper()


def read_trusted_keys(given: TrustedKeys | None) -> tuple[PublicKey, ...]:
    """The keys that are named; those of the environment variable ``PARAEDGE_TRUSTED_KEYS`` for ``None``.

    Returns:
        At least one key; none where ``given`` is ``None`` and the variable is not set.

    Raises:
        InputError: a key is malformed or cannot be read, or none is there.
    """
    if given is None:
        value = os.environ.get(TRUSTED_KEYS_VARIABLE)
        if value is None:
            return ()
        if not value:
            raise InputError(
                f"{TRUSTED_KEYS_VARIABLE} is empty; name a public key, its file or a folder of them, or unset it"
            )
        given = value
    keys: list[PublicKey] = []
    for one in [given] if isinstance(given, str | os.PathLike) else given:
        text = os.fspath(one)
        if not isinstance(text, str) or not text or "\0" in text:
            raise InputError(f"a trusted key is {text!r}; name a public key, its file, or a folder of them")
        if len(text) == 56 and text.startswith("RW"):
            keys.append(_decoded_key(text, repr(text)))
        else:
            path = as_path("a trusted key", text)
            keys += map(read_public_key, _key_files(path)) if path.is_dir() else [read_public_key(path)]
        if len(keys) > _MAX_KEYS:
            raise InputError(f"there are more than {_MAX_KEYS} trusted keys")
    if not keys:
        raise InputError("no trusted key is named; name a public key, its file, or a folder of them")
    return tuple(keys)


def read_public_key(path: Path) -> PublicKey:
    """The key in a file of ``paraedge keygen`` or minisign.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    try:
        with open_file(path) as file:
            data = file.read(_MAX_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"the key {path} cannot be read: {error.strerror}") from error
    found = _KEY_FILE.fullmatch(data) if len(data) <= _MAX_KEY_FILE_BYTES else None
    return _decoded_key(found[1].decode() if found else "", str(path))


def _key_files(folder: Path) -> list[Path]:
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".pub")
    except OSError as error:
        raise InputError(f"the keys in {folder} cannot be read: {error.strerror}") from error
    if not files:
        raise InputError(f"the folder {folder} has no key (*.pub); put the public keys that you trust there")
    if len(files) > _MAX_KEYS:
        raise InputError(f"{folder} has more than {_MAX_KEYS} keys")
    return files


def _decoded_key(text: str, source: str) -> PublicKey:
    data = _decoded(text.encode()) if _KEY.fullmatch(text) else b""
    if data[:2] != b"Ed":
        raise InputError(f"{source} is not a public key; make one with 'paraedge keygen' or minisign")
    return PublicKey(data[2:10], data[10:])


def _decoded(text: bytes) -> bytes:
    """Base64 in its one right spelling; empty for anything else."""
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""
    return data if base64.b64encode(data) == text else b""


def check_signature(path: Path, manifest: bytes, signature: bytes, keys: Sequence[PublicKey]) -> str:
    """Check that a trusted key signed a manifest, and that every signature of a trusted key is right.

    Args:
        path: of the bundle, for messages.
        manifest: the bytes of ``manifest.json``.
        signature: those of ``manifest.json.minisig``; empty if there is no such file.
        keys: at least one.

    Returns:
        The name of the key that signed it; the first if there are several.

    Raises:
        IntegrityError: it is not signed, by no trusted key, not any more, or was changed since.
        EngineUnavailable: nothing is installed that can check it.
    """
    trusted_names = ", ".join(key.name for key in keys)
    if not signature:
        raise IntegrityError(
            f"{path} is not signed, and trusted keys are set ({trusted_names}); sign it with 'paraedge sign'"
        )
    digest = hashlib.blake2b(manifest).digest()
    blocks = _read_blocks(path, signature)
    signer, expired = "", ""
    for block in blocks:
        named = [key for key in keys if key.id == block.key_id]
        if not named:
            continue
        name = _key_name(block.key_id)
        if not any(_fits(block, digest, key) for key in named):
            raise IntegrityError(
                f"{path}: the signature of key {name} does not match {MANIFEST_NAME}; one of the two was changed, copy "
                "the bundle again"
            )
        if block.expires_s is not None and block.expires_s <= time.time():
            expired = f"{path}: the signature of key {name} ended on {_date(block.expires_s)}"
        else:
            signer = signer or name
    if signer:
        return signer
    if expired:
        raise IntegrityError(f"{expired}; take a newer bundle, or sign this one again")
    signers = ", ".join(_key_name(block.key_id) for block in blocks)
    raise IntegrityError(
        f"{path} is signed by {signers}, which is not among the trusted keys ({trusted_names}); sign it with one of "
        "them, or trust that key"
    )


def claimed_signers(path: Path, signature: bytes) -> str:
    """Who says to have signed, and until when, which nobody has checked: for people.

    Raises:
        IntegrityError: it is no signature.
    """
    return ", ".join(
        f"{_key_name(block.key_id)}{'' if block.expires_s is None else _until(block.expires_s)}"
        for block in _read_blocks(path, signature)
    )


def _until(expires_s: int) -> str:
    return f" ({'ended on' if expires_s <= time.time() else 'until'} {_date(expires_s)})"


def _read_blocks(path: Path, data: bytes) -> list[_Block]:
    blocks, place = [], 0
    problem = (
        f"{path}: {SIGNATURE_NAME} is damaged or not in minisign's format; sign the bundle again with 'paraedge sign'"
    )
    while place < len(data):
        found = _BLOCK.match(data, place)
        first = _decoded(found[1]) if found else b""
        second = _decoded(found[3]) if found else b""
        if found is None or first[:2] != b"ED" or not second:
            raise IntegrityError(problem)
        expiries = [field.removeprefix(_EXPIRES) for field in found[2].split(b"\t") if field.startswith(_EXPIRES)]
        if len(expiries) > 1 or not all(re.fullmatch(rb"[0-9]{1,12}", expiry) for expiry in expiries):
            raise IntegrityError(problem)
        blocks.append(_Block(first[2:10], first[10:], found[2], second, int(expiries[0]) if expiries else None))
        place = found.end()
    return blocks


def _fits(block: _Block, digest: bytes, key: PublicKey) -> bool:
    """Whether the key signed the manifest, and the signature with its comment."""
    return _ed25519_check(block.signature, key.key, digest) and _ed25519_check(
        block.global_signature, key.key, block.signature + block.comment
    )


def _ed25519_check(signature: bytes, key: bytes, message: bytes) -> bool:
    """By the native core, which every wheel has; by cryptography where it is missing."""
    try:
        from paraedge_runtime import _native
    except ImportError:
        return _ed25519_check_without_core(signature, key, message)
    return _native.ed25519_check(signature, key, message)


def _ed25519_check_without_core(signature: bytes, key: bytes, message: bytes) -> bool:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ModuleNotFoundError as error:
        raise EngineUnavailable(
            "checking signatures needs paraedge's native core or the package cryptography; pip install 'paraedge[sign]'"
        ) from error
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _date(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
    except (OverflowError, ValueError, OSError):
        return str(seconds)

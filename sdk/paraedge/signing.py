"""Private keys and what they sign: bundles that a device with trusted keys opens.

Keys and signatures are minisign's files, so that ``minisign`` reads and checks them too. A device needs none of this:
``paraedge_runtime.signature`` checks.
"""

from __future__ import annotations

import base64
import hashlib
import os
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from paraedge_runtime._reading import open_file
from paraedge_runtime.archive import write_zip
from paraedge_runtime.atomic import new_file
from paraedge_runtime.bundle import Bundle, manifest_files, write_files
from paraedge_runtime.errors import EngineUnavailable, InputError
from paraedge_runtime.manifest import MANIFEST_NAME, MAX_SIGNATURE_BYTES, Signature, encode_record
from paraedge_runtime.signature import PublicKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["PrivateKey", "make_keys", "read_private_key", "sign_bundle", "sign_manifest"]

# The file of a private key: algorithms of the signature, the password and the checksum; salt, work and memory of the
# password's derivation; then id, seed, public key and checksum, which the password encrypts.
_KEY_FIELDS = struct.Struct("<2s2s2s32sQQ104s")
_SECRET_FIELDS = struct.Struct("8s32s32s32s")
_ALGORITHM, _NO_PASSWORD, _SCRYPT, _CHECKSUM = b"Ed", b"\0\0", b"Sc", b"B2"
_MAX_KEY_FILE_BYTES = 4096
# What minisign derives a key from a password with: one GiB of memory, some seconds.
_WORK, _MEMORY_BYTES = 1 << 25, 1 << 30
_SCRYPT_BLOCK = 8


@dataclass(frozen=True)
class PrivateKey:
    """What signs. Keep it off devices, and out of logs: its text is its name."""

    id: bytes
    seed: bytes
    public: PublicKey

    def __repr__(self) -> str:
        return f"PrivateKey({self.public.name})"

    def sign(self, message: bytes) -> bytes:
        """An Ed25519 signature, 64 bytes."""
        return _ed25519_key(self.seed).sign(message)


def make_keys(name: Path, password: str | None) -> PublicKey:
    """Make a pair of keys: ``NAME.key``, which only its owner may read, and ``NAME.pub`` for devices.

    Args:
        name: their path without ending.
        password: encrypts ``NAME.key``; it is written as it is when ``None``.

    Raises:
        InputError: one of the files exists already, or cannot be written.
        EngineUnavailable: cryptography is not installed.
    """
    if password == "":
        raise InputError("the password is empty; enter one, or use --no-password")
    if not name.name:
        raise InputError(f"invalid name {str(name)!r} for the keys; give one such as 'release'")
    private = _private_key(os.urandom(8), os.urandom(32))
    key, public = Path(f"{name}.key"), Path(f"{name}.pub")
    made = False  # the public half
    for path in (key, public):
        if os.path.lexists(path):
            raise InputError(f"{path} exists, and a key is never overwritten; choose another name")
    if not key.parent.is_dir():
        raise InputError(f"{key} cannot be written: there is no folder {key.parent}; make it, or choose another path")
    try:
        # The public half gets its name first: where a private key stands, nothing is missing.
        with new_file(key, mode=0o600, replaces=False) as key_building:
            key_building.write_text(_key_file(private, password))
            with new_file(public, replaces=False) as public_building:
                public_building.write_text(
                    f"untrusted comment: minisign public key {private.public.name}\n{private.public.text}\n"
                )
            made = True
    except OSError as error:
        if made and not os.path.lexists(key):
            public.unlink(missing_ok=True)  # of no private key, it would be in the way of the next
        raise InputError(f"{key} and {public} cannot be written: {error.strerror}; choose another path") from error
    return private.public


def read_private_key(path: Path, ask_password: Callable[[], str]) -> PrivateKey:
    """The key in a file of ``paraedge keygen`` or minisign.

    Args:
        path: ``NAME.key``.
        ask_password: called if the key is encrypted.

    Raises:
        InputError: it cannot be read, is no private key, or the password is wrong.
        EngineUnavailable: cryptography is not installed.
    """
    try:
        with open_file(path) as file:
            lines = file.read(_MAX_KEY_FILE_BYTES).split(b"\n")
        data = base64.b64decode(lines[1], validate=True) if len(lines) == 3 and not lines[2] else b""
    except OSError as error:
        raise InputError(f"the key {path} cannot be read: {error.strerror}; give the path of a .key file") from error
    except ValueError:
        data = b""
    problem = f"{path} is not a private key, or is damaged; create one with 'paraedge keygen' or minisign"
    if len(data) != _KEY_FIELDS.size or not lines[0].startswith(b"untrusted comment: "):
        raise InputError(problem)
    algorithm, derivation, checksum, salt, work, memory_bytes, secret = _KEY_FIELDS.unpack(data)
    if algorithm != _ALGORITHM or checksum != _CHECKSUM or derivation not in (_SCRYPT, _NO_PASSWORD):
        raise InputError(problem)
    if derivation == _SCRYPT:
        problem = f"the password of {path} is wrong, or the file is damaged; try again, or restore the file"
        secret = _xor(secret, _derived(path, ask_password(), salt, work, memory_bytes))
    key_id, seed, public, found = _SECRET_FIELDS.unpack(secret)
    private = _private_key(key_id, seed)
    if public != private.public.key or (derivation == _SCRYPT and found != _checksum(private)):
        raise InputError(problem)
    return private


def sign_bundle(path: Path, keys: Sequence[PrivateKey], expires: datetime | None = None) -> Bundle:
    """Sign a bundle where it stands, folder or zip, in place of the signatures that it has.

    Args:
        path: of the bundle; all of it is checked first.
        keys: every one signs; a device needs to trust one of them.
        expires: when the signatures end (a point in time with its zone); never when ``None``.

    Returns:
        The signed bundle, opened with the public halves of the keys.

    Raises:
        BundleError: it is damaged.
        InputError: no key is given, one is given twice, ``expires`` has passed, or it cannot be written there.
        EngineUnavailable: cryptography is not installed.
    """
    now_s = int(time.time())
    expires_s = None if expires is None else int(expires.timestamp())
    if not keys or len({key.public for key in keys}) != len(keys):
        raise InputError(f"give at least one key, and each once; got {len(keys)}")
    if expires_s is not None and expires_s <= now_s:
        raise InputError(f"{expires:%Y-%m-%d} is not in the future (UTC); give a later day")
    path = Path(os.path.realpath(path))  # behind a link, the bundle itself
    bundle = Bundle.open_untrusted(path)
    manifest_bytes = bundle.manifest_bytes
    if bundle.manifest.signature is None:
        record = Signature(algorithm="ed25519", file="manifest.json.minisig")
        manifest_bytes = encode_record(replace(bundle.manifest, signature=record))
    signature = sign_manifest(manifest_bytes, keys, now_s, expires_s)
    if len(signature) > MAX_SIGNATURE_BYTES:
        raise InputError(f"{len(keys)} signatures do not fit into {MAX_SIGNATURE_BYTES} bytes; sign with fewer keys")
    files = {**bundle.files(), **manifest_files(manifest_bytes, signature)}
    trusted_keys = [key.public.text for key in keys]
    if path.is_dir():
        return write_files(files, path, trusted_keys=trusted_keys)
    write_zip(files, path)
    return Bundle.open(path, trusted_keys=trusted_keys)


def sign_manifest(manifest: bytes, keys: Sequence[PrivateKey], now_s: int, expires_s: int | None = None) -> bytes:
    """The bytes of ``manifest.json.minisig``: what ``minisign -S`` would write for each key.

    Args:
        manifest: the bytes of ``manifest.json``.
        keys: in the order of their signatures.
        now_s: seconds since 1970.
        expires_s: when the signatures end.
    """
    digest = hashlib.blake2b(manifest).digest()
    comment = f"timestamp:{now_s}\tfile:{MANIFEST_NAME}\thashed"
    if expires_s is not None:
        comment += f"\texpires:{expires_s}"
    text = ""
    for key in keys:
        signature = key.sign(digest)
        everything = key.sign(signature + comment.encode())
        text += (
            "untrusted comment: signature from minisign secret key\n"
            f"{_base64(b'ED' + key.id + signature)}\n"
            f"trusted comment: {comment}\n"
            f"{_base64(everything)}\n"
        )
    return text.encode()


def _private_key(key_id: bytes, seed: bytes) -> PrivateKey:
    return PrivateKey(key_id, seed, PublicKey(key_id, _ed25519_key(seed).public_key().public_bytes_raw()))


def _ed25519_key(seed: bytes) -> Ed25519PrivateKey:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ModuleNotFoundError as error:
        raise EngineUnavailable(
            "signing needs the package cryptography, which is not installed; pip install 'paraedge[sign]'"
        ) from error
    return Ed25519PrivateKey.from_private_bytes(seed)


def _key_file(key: PrivateKey, password: str | None) -> str:
    if password is None:  # as minisign -W writes it: nothing is derived, nothing compared
        secret = _SECRET_FIELDS.pack(key.id, key.seed, key.public.key, bytes(32))
        data = _KEY_FIELDS.pack(_ALGORITHM, _NO_PASSWORD, _CHECKSUM, bytes(32), 0, 0, secret)
        return f"untrusted comment: minisign secret key\n{_base64(data)}\n"
    salt = os.urandom(32)
    secret = _SECRET_FIELDS.pack(key.id, key.seed, key.public.key, _checksum(key))
    secret = _xor(secret, _derived(Path("the key"), password, salt, _WORK, _MEMORY_BYTES))
    data = _KEY_FIELDS.pack(_ALGORITHM, _SCRYPT, _CHECKSUM, salt, _WORK, _MEMORY_BYTES, secret)
    return f"untrusted comment: minisign encrypted secret key\n{_base64(data)}\n"


def _checksum(key: PrivateKey) -> bytes:
    return hashlib.blake2b(_ALGORITHM + key.id + key.seed + key.public.key, digest_size=32).digest()


def _derived(path: Path, password: str, salt: bytes, work: int, memory_bytes: int) -> bytes:
    """The bytes that encrypt the secret fields: scrypt with parameters chosen as libsodium chooses them."""
    work = max(work, 1 << 15)
    is_small = work < memory_bytes // 32
    most = work // (4 * _SCRYPT_BLOCK) if is_small else memory_bytes // (128 * _SCRYPT_BLOCK)
    cost = 1 << max(1, most.bit_length() - 1)
    parallel = 1 if is_small else min(work // 4 // cost, 0x3FFFFFFF) // _SCRYPT_BLOCK
    if 128 * _SCRYPT_BLOCK * cost > _MEMORY_BYTES or not 1 <= parallel <= 16:
        raise InputError(f"{path} asks for {memory_bytes} bytes of memory, more than minisign does; it is damaged")
    try:
        return hashlib.scrypt(
            password.encode(),
            salt=salt,
            n=cost,
            r=_SCRYPT_BLOCK,
            p=parallel,
            maxmem=_MEMORY_BYTES + (1 << 24),
            dklen=_SECRET_FIELDS.size,
        )
    except (ValueError, MemoryError) as error:
        raise InputError(f"a password needs {memory_bytes >> 20} MiB of free memory: {error}") from error


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

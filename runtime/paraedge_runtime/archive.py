"""A bundle as one file: a zip of stored entries and nothing else. A strict reader, and the writer.

The rules are those of ``docs/bundle-format.md`` and of ``native/src/archive.cpp``, which takes and refuses the
same files. ``zipfile`` is more tolerant than that, and not the same in every Python.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from paraedge_runtime.atomic import new_file
from paraedge_runtime.errors import InputError, IntegrityError
from paraedge_runtime.manifest import MANIFEST_NAME, is_plain_path

__all__ = ["MAX_FILES", "ArchiveEntry", "read_archive", "write_zip"]

# Files and folders in a bundle: more than 1000 branches and 1000 other files need.
MAX_FILES = 4096
# A zip entry's time stamp, fixed: the same bundle packs to the same bytes.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)

_END = struct.Struct("<4s4H2IH")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL_BYTES = 30
_COMMON_IN_LOCAL, _COMMON_IN_CENTRAL = slice(4, 30), slice(6, 32)  # the same fields in the same order
_UTF8_NAME = 0x800  # says nothing of a name in ASCII
_NEWEST_VERSION = 20
_FILE_TYPES, _FOLDER_TYPES = (0, 0x8000), (0, 0x4000)
_LINK_TYPE = 0xA000


class ArchiveEntry(NamedTuple):
    """Where a file's bytes are in the archive."""

    offset: int
    size_bytes: int
    crc32: int


def read_archive(path: Path, file: BinaryIO) -> dict[str, ArchiveEntry]:
    """The files of a stored zip by name; their bytes are not read.

    Entries follow each other without a gap, in the order of the directory, which follows them; each is said
    twice in the same words. Nothing is compressed, encrypted, hidden, or there twice.

    Args:
        path: for messages.
        file: the zip, open.

    Raises:
        IntegrityError: the file is anything else.
        OSError: it cannot be read.
    """
    size = os.fstat(file.fileno()).st_size
    count, directory_offset, directory = _read_directory(path, file, size)
    files: dict[str, ArchiveEntry] = {}
    taken: set[str] = set()
    position = expected_offset = 0
    for _ in range(count):
        fields = directory[position : position + _CENTRAL.size]
        if len(fields) < _CENTRAL.size or fields[:4] != b"PK\1\2":
            raise IntegrityError(f"{path}: the zip's directory is damaged; copy the file again")
        (_, _, version, flags, method, _, _, crc32, packed_bytes, size_bytes) = _CENTRAL.unpack(fields)[:10]
        (name_bytes, extra_bytes, comment_bytes, disk, _, attributes, offset) = _CENTRAL.unpack(fields)[10:]
        position += _CENTRAL.size
        raw_name = directory[position : position + name_bytes]
        position += name_bytes
        name = raw_name.decode("latin-1")
        is_folder = name.endswith("/")
        plain = name.removesuffix("/")

        def require(fine: bool, problem: str, name: str = name) -> None:
            if not fine:
                raise IntegrityError(f"{path}: {name!a} {problem}; pack the bundle again with 'paraedge pack'")

        require(len(raw_name) == name_bytes and is_plain_path(plain), "is not a plain path inside the bundle")
        require(plain.lower() not in taken, "is in the zip twice")
        taken.add(plain.lower())
        kind = attributes >> 16 & 0xF000
        require(kind != _LINK_TYPE, "is a symbolic link")
        require(kind in (_FOLDER_TYPES if is_folder else _FILE_TYPES), "is not a plain file")
        require(method == 0 and not flags & 1, "is compressed or encrypted")
        require(flags in (0, _UTF8_NAME) and version <= _NEWEST_VERSION, "needs a newer reader of zips")
        require(extra_bytes == comment_bytes == disk == 0, "has an extra field or a comment")
        require(packed_bytes == size_bytes, f"claims {size_bytes} bytes in {packed_bytes}")
        require(not is_folder or size_bytes == crc32 == 0, "is a folder with bytes in it")
        require(offset == expected_offset, "does not follow the entry before it")
        expected_offset = offset + _LOCAL_BYTES + name_bytes + size_bytes
        require(expected_offset <= directory_offset, f"claims {size_bytes} bytes of a {size} byte zip")
        file.seek(offset)
        local = file.read(_LOCAL_BYTES + name_bytes)
        same = local[_COMMON_IN_LOCAL] == fields[_COMMON_IN_CENTRAL] and local[_LOCAL_BYTES:] == raw_name
        require(local[:4] == b"PK\3\4" and same, "is not what the zip's directory says")
        if not is_folder:
            files[name] = ArchiveEntry(offset + _LOCAL_BYTES + name_bytes, size_bytes, crc32)
    if position != len(directory) or expected_offset != directory_offset:
        raise IntegrityError(f"{path}: the zip has bytes that belong to no file; pack the bundle again")
    return files


def _read_directory(path: Path, file: BinaryIO, size: int) -> tuple[int, int, bytes]:
    """Number of entries, offset of the directory, its bytes."""
    file.seek(max(0, size - _END.size))
    end = file.read(_END.size)
    problem = f"{path} is neither a bundle folder nor a zip made by 'paraedge pack'"
    if len(end) < _END.size or end[:4] != b"PK\5\6":
        raise IntegrityError(f"{problem}; copy it again")
    _, disk, directory_disk, on_disk, count, directory_bytes, offset, comment_bytes = _END.unpack(end)
    one_disk = disk == directory_disk == 0 and on_disk == count
    if not one_disk or comment_bytes or offset + directory_bytes + _END.size != size:
        raise IntegrityError(f"{problem}: its last record is damaged; copy it again")
    if count > MAX_FILES:
        raise IntegrityError(f"{path} holds {count} files, more than {MAX_FILES}; it is not a bundle")
    if directory_bytes > count * (_CENTRAL.size + 201):
        raise IntegrityError(f"{path}: the zip's directory is damaged; copy the file again")
    file.seek(offset)
    return count, offset, file.read(directory_bytes)


def write_zip(files: Mapping[str, bytes], out: Path) -> None:
    """One uncompressed zip of ``files``, the manifest first; same files, same bytes.

    Raises:
        InputError: it cannot be written; what stood there stays.
    """
    try:
        with new_file(out) as building, zipfile.ZipFile(building, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(files, key=lambda name: (name != MANIFEST_NAME, name)):
                entry = zipfile.ZipInfo(name, _ZIP_TIME)
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, files[name])
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}; choose another path") from error

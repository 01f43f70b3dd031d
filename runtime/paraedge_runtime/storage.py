"""Where a bundle's bytes are: a folder, or one uncompressed zip. Both refuse to be led elsewhere."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path
from typing import Protocol

from paraedge_runtime.atomic import new_file
from paraedge_runtime.errors import InputError, IntegrityError
from paraedge_runtime.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES

__all__ = ["FolderStorage", "Storage", "ZipStorage", "looks_like_bundle", "open_storage", "write_zip"]

# Files beside the listed ones; the list is short so that nothing unlisted hides in a bundle.
MAX_FILES = 4096
# A zip entry's time stamp, fixed: the same folder packs to the same bytes.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


class Storage(Protocol):
    """Reads files of a bundle by their path inside it."""

    path: Path

    def names(self) -> set[str]:
        """Paths of all files, the manifest included."""

    def read(self, name: str, size_bytes: int | None) -> bytes:
        """The bytes of one file, which must have exactly ``size_bytes`` (the manifest: at most its cap)."""


def open_storage(path: Path) -> Storage:
    """The storage at ``path``.

    Raises:
        IntegrityError: nothing is there, or it is neither a bundle folder nor a bundle zip.
    """
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error.strerror}") from error
    if path.is_dir():
        return FolderStorage(path)
    if not path.exists():
        raise IntegrityError(f"{path} does not exist; make a bundle with 'paraedge export --out {path}'")
    if not path.is_file():
        raise IntegrityError(f"{path} is neither a folder nor a file")
    return ZipStorage(path)


def looks_like_bundle(path: Path) -> bool:
    """Whether a path is meant as a bundle: by its name, or because a manifest is in it."""
    return path.suffix in (".paraedge", ".zip") or (path / MANIFEST_NAME).is_file()


class FolderStorage:
    """A bundle as a folder of files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> set[str]:
        """Paths of all files. Links are refused wherever they point: a bundle is self-contained."""
        found: set[str] = set()
        for folder, folders, files in os.walk(self.path):
            for name in [*folders, *files]:
                entry = Path(folder, name)
                relative = entry.relative_to(self.path).as_posix()
                mode = entry.lstat().st_mode
                if stat.S_ISLNK(mode):
                    raise IntegrityError(f"{self.path}: {relative} is a symbolic link; a bundle holds plain files only")
                if name in files and not stat.S_ISREG(mode):
                    raise IntegrityError(f"{self.path}: {relative} is not a plain file")
            found.update(Path(folder, name).relative_to(self.path).as_posix() for name in files)
            if len(found) > MAX_FILES:
                raise IntegrityError(f"{self.path} holds more than {MAX_FILES} files; it is not a bundle")
        return found

    def read(self, name: str, size_bytes: int | None) -> bytes:
        """The bytes of one file, never through a symbolic link."""
        try:
            with open(self.path / name, "rb", opener=_open_no_link) as file:
                _check_size(self.path, name, os.fstat(file.fileno()).st_size, size_bytes)
                return file.read()
        except FileNotFoundError:
            raise IntegrityError(f"{self.path}: {name} is missing; copy the whole bundle again") from None
        except OSError as error:
            raise IntegrityError(f"{self.path}: {name} cannot be read: {error.strerror}") from error


class ZipStorage:
    """A bundle as one zip, every entry stored as it is: nothing to inflate, so no bombs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
            raise IntegrityError(
                f"{path} is neither a bundle folder nor a zip made by 'paraedge pack': {error}"
            ) from error
        total_bytes = path.stat().st_size
        if len(entries) > MAX_FILES:
            raise IntegrityError(f"{path} holds {len(entries)} files, more than {MAX_FILES}; it is not a bundle")
        seen: set[str] = set()
        for entry in entries:
            name = entry.filename
            if name.lower() in seen:
                raise IntegrityError(f"{path}: {name} is in the zip twice")
            seen.add(name.lower())
            if not name or name.startswith(("/", "\\")) or "\\" in name or ":" in name or ".." in name.split("/"):
                raise IntegrityError(f"{path}: {name!r} would leave the bundle's folder")
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise IntegrityError(f"{path}: {name} is a symbolic link; a bundle holds plain files only")
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 0x1:
                raise IntegrityError(f"{path}: {name} is compressed or encrypted; pack it with 'paraedge pack'")
            if entry.file_size != entry.compress_size or entry.file_size > total_bytes:
                raise IntegrityError(f"{path}: {name} claims {entry.file_size} bytes of a {total_bytes} byte zip")

    def names(self) -> set[str]:
        """Paths of all files."""
        with zipfile.ZipFile(self.path) as archive:
            return {entry.filename for entry in archive.infolist() if not entry.is_dir()}

    def read(self, name: str, size_bytes: int | None) -> bytes:
        """The bytes of one file."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                _check_size(self.path, name, archive.getinfo(name).file_size, size_bytes)
                return archive.read(name)
        except KeyError:
            raise IntegrityError(f"{self.path}: {name} is missing; pack the bundle again") from None
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
            raise IntegrityError(f"{self.path}: {name} cannot be read: {error}") from error


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))


def _check_size(path: Path, name: str, actual: int, expected: int | None) -> None:
    if expected is None:
        if actual > MAX_MANIFEST_BYTES:
            raise IntegrityError(f"{path}: {name} has {actual} bytes, more than the {MAX_MANIFEST_BYTES} allowed")
    elif actual != expected:
        raise IntegrityError(f"{path}: {name} has {actual} bytes, {MANIFEST_NAME} says {expected}; copy it again")


def write_zip(files: dict[str, bytes], target: Path) -> None:
    """One uncompressed zip of ``files``, the manifest first; same files, same bytes.

    Raises:
        InputError: it cannot be written; what stood there stays.
    """
    try:
        with new_file(target) as building, zipfile.ZipFile(building, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(files, key=lambda name: (name != MANIFEST_NAME, name)):
                entry = zipfile.ZipInfo(name, _ZIP_TIME)
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, files[name])
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror}; choose another place") from error

"""Where a bundle's bytes are: a folder, or one uncompressed zip. Both refuse to be led elsewhere."""

from __future__ import annotations

import os
import shlex
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

from paraedge_runtime.archive import MAX_FILES, read_archive
from paraedge_runtime.errors import IntegrityError
from paraedge_runtime.manifest import MANIFEST_NAME, is_plain_path

__all__ = ["FolderStorage", "Storage", "ZipStorage", "looks_like_bundle", "open_storage", "storage_identity"]

# What systems put into every folder that a file manager shows: no part of the bundle, and no damage to it.
_LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")


class Storage(ABC):
    """Reads files of a bundle by their path inside it. Every failure is an ``IntegrityError``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def names(self) -> set[str]:
        """Paths of all files, the manifest included."""

    def is_litter(self, name: str) -> bool:
        """Whether a file that no manifest lists may lie there all the same."""
        return False

    @abstractmethod
    def _opened(self, name: str) -> AbstractContextManager[tuple[BinaryIO, int]]:
        """The file at its first byte, and how many bytes it has."""

    def read(self, name: str, size_bytes: int) -> bytes:
        """The bytes of one file, which must have exactly ``size_bytes``; the caller compares its hash."""
        return self._read(name, size_bytes, exactly=True)

    def read_unhashed(self, name: str, most_bytes: int) -> bytes:
        """The bytes of a short file whose size and hash nobody knows: the manifest, its signature."""
        return self._read(name, most_bytes, exactly=False)

    def _read(self, name: str, most_bytes: int, *, exactly: bool) -> bytes:
        try:
            with self._opened(name) as (file, size_bytes):
                if size_bytes > most_bytes or (exactly and size_bytes != most_bytes):
                    wanted = f"{MANIFEST_NAME} says {most_bytes}" if exactly else f"more than the {most_bytes} allowed"
                    raise IntegrityError(f"{self.path}: {name} has {size_bytes} bytes, {wanted}; copy it again")
                data = file.read(size_bytes)
        except (FileNotFoundError, KeyError):
            raise IntegrityError(f"{self.path}: {name} is missing; copy the whole bundle again") from None
        except OSError as error:
            raise IntegrityError(f"{self.path}: {name} cannot be read: {error.strerror}") from error
        except MemoryError as error:
            raise IntegrityError(f"{self.path}: {name} does not fit into free memory") from error
        if len(data) != size_bytes:
            raise IntegrityError(f"{self.path}: {name} became shorter while it was read; copy it again")
        return data


class FolderStorage(Storage):
    """A bundle as a folder of files."""

    def names(self) -> set[str]:
        """Paths of all files. Links are refused wherever they point: a bundle is self-contained."""
        found: set[str] = set()
        count = 0
        pending = [""]
        try:
            while pending:
                folder = pending.pop()
                with os.scandir(self.path / folder) as entries:
                    for entry in entries:
                        count += 1
                        name = folder + entry.name
                        if count > MAX_FILES:
                            raise IntegrityError(f"{self.path} holds more than {MAX_FILES} files; it is not a bundle")
                        is_file = entry.is_file(follow_symlinks=False)
                        if not is_plain_path(name) and not (is_file and self.is_litter(name)):
                            raise IntegrityError(f"{self.path}: {name!r} is not listed in {MANIFEST_NAME}; remove it")
                        if entry.is_symlink():
                            raise IntegrityError(
                                f"{self.path}: {name} is a symbolic link; a bundle holds plain files only"
                            )
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(f"{name}/")
                        elif is_file:
                            found.add(name)
                        else:
                            raise IntegrityError(f"{self.path}: {name} is not a plain file; remove it")
        except OSError as error:
            raise IntegrityError(f"{self.path} cannot be read: {error.strerror}") from error
        return found

    def is_litter(self, name: str) -> bool:
        """``._x`` of macOS, and the like."""
        last = name.rpartition("/")[2]
        return last.startswith("._") or last in _LITTER

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[BinaryIO, int]]:
        """Never through a symbolic link."""
        with open(self.path / name, "rb", opener=_open_no_link) as file:
            yield file, os.fstat(file.fileno()).st_size


class ZipStorage(Storage):
    """A bundle as one zip, every entry stored as it is: nothing to inflate, so no bombs."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            with path.open("rb") as file:
                self._files = read_archive(path, file)
        except OSError as error:
            raise IntegrityError(f"{path} cannot be read: {error.strerror}") from error

    def names(self) -> set[str]:
        """Paths of all files."""
        return set(self._files)

    def read_unhashed(self, name: str, most_bytes: int) -> bytes:
        """Compared with the zip's own checksum, for want of a hash."""
        data = super().read_unhashed(name, most_bytes)
        if zlib.crc32(data) != self._files[name].crc32:
            raise IntegrityError(f"{self.path}: {name} is damaged; copy the file again")
        return data

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[BinaryIO, int]]:
        entry = self._files[name]
        with self.path.open("rb") as file:
            file.seek(entry.offset)
            yield file, entry.size_bytes


def open_storage(path: Path) -> Storage:
    """The storage at ``path``.

    Raises:
        IntegrityError: nothing is there, or it is neither a bundle folder nor a bundle zip.
    """
    try:
        path.stat()
    except FileNotFoundError:
        command = shlex.join(["paraedge", "export", "--target", "linux", "--out", str(path)])
        raise IntegrityError(f"{path} does not exist; make a bundle: {command}") from None
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise IntegrityError(f"{str(path)!r} cannot be read: {error}") from error
    if path.is_dir():
        return FolderStorage(path)
    if not path.is_file():
        raise IntegrityError(f"{path} is neither a folder nor a file")
    return ZipStorage(path)


def storage_identity(path: Path) -> tuple[int, ...] | None:
    """Changes when what stands at ``path`` is replaced; ``None`` when nothing does. Inodes alone are used again."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def looks_like_bundle(path: Path) -> bool:
    """Whether a path is meant as a bundle: by its name, or because a manifest is in it."""
    return path.suffix in (".paraedge", ".zip") or (path / MANIFEST_NAME).is_file()


def _open_no_link(path: str, flags: int) -> int:
    # Nor would a pipe be waited for that was put there since.
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))

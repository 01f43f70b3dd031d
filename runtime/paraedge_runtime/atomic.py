"""Files and folders that appear whole or not at all: build beside the target, sync, then one rename.

What a killed process or a power cut leaves is a hidden neighbour of the target, which the next call removes. A
neighbour that is still being built is locked by its process, and left alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from paraedge_runtime.errors import InputError

_flock: Callable[[int, int], object] | None = None
with contextlib.suppress(ImportError):  # no POSIX system: nothing is locked there, and nothing cleaned up
    import fcntl

    _flock = fcntl.flock

__all__ = ["check_replaceable", "check_writable", "new_file", "new_folder", "scratch_folder"]

_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
_AT_FDCWD = -100
_HEAD_BYTES = 4096
# What a file system answers that cannot exchange two names, or that has no locks or syncs of a folder.
_NOT_SUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EBADF)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``target`` when the block ends without an error.

    What stood at ``target`` is replaced only then, in one step where the system has one (Linux); after an error
    it stands as it was. The temporary folder is a neighbour, so that the rename never crosses file systems.
    """
    with scratch_folder(target) as building:
        yield building
        _sync_tree(building)
        if target.is_dir() and not target.is_symlink():
            _exchange(building, target)  # the old one is removed in the end
        else:
            building.rename(target)
        _sync(target.parent)


@contextlib.contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that is gone when the block ends."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _clean_up(target)
    building, lock = _build_beside(target, folder=True)
    try:
        yield building
    finally:
        os.close(lock)
        shutil.rmtree(building, ignore_errors=True)


@contextlib.contextmanager
def new_file(target: Path, *, mode: int = 0o666, replaces: bool = True) -> Iterator[Path]:
    """Yield a path to write; it becomes ``target`` when the block ends without an error.

    Args:
        target: what stands there is replaced only then.
        mode: of the file, from its first moment on; the umask takes its part.
        replaces: ``FileExistsError`` if something stands at ``target`` when the block ends, unless this is set.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _clean_up(target)
    building, lock = _build_beside(target, folder=False, mode=mode)
    try:
        yield building
        _sync(building)
        if replaces:
            building.replace(target)
        else:
            _appear(building, target)
        _sync(target.parent)
    finally:
        os.close(lock)
        building.unlink(missing_ok=True)


def check_replaceable(target: Path, mark: bytes, what: str) -> None:
    """Ask before a file is written whether what stands there may go: one of ours, or nothing.

    Args:
        target: file to write.
        mark: is near the beginning of each file of this kind.
        what: the kind, for the message: ``a plan``.

    Raises:
        InputError: something else stands there, a link among them.
    """
    if not os.path.lexists(target):
        return
    head = b""
    if target.is_file() and not target.is_symlink():
        with target.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    if mark not in head:
        raise InputError(f"{target} exists and is not {what} that paraedge wrote; choose another name")


def check_writable(target: Path) -> None:
    """Ask before long work whether :func:`new_folder` and :func:`new_file` can write ``target``; leaves nothing.

    Raises:
        OSError: they cannot.
    """
    made: list[Path] = []
    try:
        for folder in reversed([target, *target.parents][1:]):
            if not folder.exists():
                folder.mkdir()
                made.append(folder)
        probe = _neighbour(target)
        probe.mkdir()
        made.append(probe)
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _neighbour(target: Path) -> Path:
    """A hidden name beside ``target`` that nothing has."""
    if not target.name:  # ".", "/"
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    return target.with_name(f".{target.name}.new.{secrets.token_hex(8)}")


def _appear(building: Path, target: Path) -> None:
    """Give a file its name if nothing has it; ``FileExistsError`` otherwise."""
    if _rename(building, target, _RENAME_NOREPLACE):
        return
    try:
        os.link(building, target)
    except FileExistsError:
        raise
    except OSError as error:  # no links on this file system
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        building.rename(target)


def _build_beside(target: Path, *, folder: bool, mode: int = 0o666) -> tuple[Path, int]:
    """A new neighbour, and the descriptor that locks it until it is closed."""
    while True:
        building = _neighbour(target)
        if folder:
            building.mkdir()  # with the modes that the umask allows, and no chmod: some file systems refuse it
        else:
            building.touch(mode, exist_ok=False)
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(building, os.O_RDONLY)
            _lock(lock, wait=True)
            if building.exists():  # and was not taken for litter by another process before it was locked
                return building, lock
            os.close(lock)


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Lock a file or folder against other processes; whether it is locked now."""
    if _flock is None:
        return False
    try:
        _flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # held by another, or no locks on this file system
        return False
    return True


def _clean_up(target: Path) -> None:
    """Remove what processes that ended in the middle have left beside ``target``; give back a target they moved."""
    litter = re.compile(re.escape(f".{target.name}.") + r"(new|old)\.[0-9a-f]{16}")
    try:
        names = os.listdir(target.parent)
    except PermissionError:  # a folder may be writable and not readable
        return
    for name in names:
        found = litter.fullmatch(name)
        if found is None:
            continue
        path = target.with_name(name)
        with contextlib.suppress(OSError):  # another process was faster
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
            try:
                if not _lock(descriptor, wait=False):
                    continue
                if found[1] == "old" and not target.exists():
                    path.rename(target)
                elif path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
            finally:
                os.close(descriptor)


def _exchange(building: Path, target: Path) -> None:
    """Give two folders each other's names, so that ``target`` is there at every moment.

    Where the system cannot, ``target`` is moved away first: a process killed just then leaves it under a hidden
    name, and the next call moves it back.
    """
    if not _rename(building, target, _RENAME_EXCHANGE):
        _exchange_in_steps(building, target)


def _rename(building: Path, target: Path, flag: int) -> bool:
    """Linux's ``renameat2``; whether system and file system have it."""
    libc = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    rename = getattr(libc, "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(building), _AT_FDCWD, os.fsencode(target), flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_SUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(target))


def _exchange_in_steps(building: Path, target: Path) -> None:
    retired = target.with_name(f".{target.name}.old.{secrets.token_hex(8)}")
    lock = os.open(target, os.O_RDONLY)
    try:
        _lock(lock, wait=True)
        target.rename(retired)
        try:
            building.rename(target)
        except BaseException:
            retired.rename(target)
            raise
        _sync(target.parent)  # before the old one goes
        retired.rename(building)
    finally:
        os.close(lock)


def _sync_tree(folder: Path) -> None:
    """Have all of a folder on the disk, files before the folders that name them."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync(Path(place, name))
        _sync(Path(place))


def _sync(path: Path) -> None:
    if os.name != "posix":  # folders cannot be opened there
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder may be writable and not readable
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    finally:
        os.close(descriptor)

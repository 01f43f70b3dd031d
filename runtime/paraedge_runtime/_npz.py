"""Arrays of an ``.npz``: never a pickle, and never more memory than the file and its reader have agreed on."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.errors import InputError

__all__ = ["missing_arrays", "read_arrays"]

_MOST_LISTED = 200  # characters of the names of all arrays
_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_arrays(path: Path, names: Iterable[str], most_bytes: int) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Those of the arrays that are there, and the names of all.

    Args:
        path: of the ``.npz``.
        names: of the arrays to read.
        most_bytes: that one of them may have.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is no ``.npz``, is damaged, or holds too much.
    """
    try:
        if not path.is_file() and path.exists():
            raise ValueError("it is not a plain file")
        if path.is_file() and not path.stat().st_size:
            raise ValueError("it is empty")
        with zipfile.ZipFile(path) as archive:
            there = [name.removesuffix(".npy") for name in archive.namelist()]
            found = {}
            for name in names:
                if name in there:
                    entry = archive.getinfo(f"{name}.npy")
                    with archive.open(entry) as stream:
                        found[name] = _read_array(stream, name, entry.file_size, most_bytes)
    except FileNotFoundError:
        raise
    # zipfile, zlib and numpy, which parses an array's header as Python, raise nearly anything for a damaged file.
    except Exception as error:
        text = str(error) or type(error).__name__
        raise InputError(f"{path} cannot be read: {text}; copy or download it again") from error
    return found, there


def missing_arrays(names: Iterable[str], found: Collection[str], there: Iterable[str]) -> str:
    """What a message says of the arrays that a file should have and has not; empty if it has them all."""
    missing = ", ".join(name for name in names if name not in found)
    return missing and f"has no array {missing}; it holds {', '.join(there)[:_MOST_LISTED] or 'none'}"


def _read_array(stream: IO[bytes], name: str, size_bytes: int, most_bytes: int) -> NDArray[Any]:
    """The header first: numpy would allocate whatever it claims."""
    if size_bytes > most_bytes:
        raise ValueError(f"{name} has {size_bytes} bytes, more than the {most_bytes} allowed")
    version = np.lib.format.read_magic(stream)
    if version not in _READ_HEADER:
        raise ValueError(f"{name} is of version {version} of the format")
    shape, _, dtype = _READ_HEADER[version](stream)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which are never loaded; save numbers or texts")
    claimed = stream.tell() + dtype.itemsize * int(np.prod(shape, dtype=object))
    if min(shape, default=0) < 0 or claimed != size_bytes:
        raise ValueError(f"{name} is {dtype} of shape {shape}, which does not match its {size_bytes} bytes")
    stream.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array

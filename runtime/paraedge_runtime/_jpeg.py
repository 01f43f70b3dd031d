"""How the scans of a JPEG lie, told before Pillow opens it: what would keep it busy for minutes is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["has_one_scan"]

# Markers of a JPEG: frames that are one scan or several, frames that are several, the first scan, and those that stand
# alone.
_SEQUENTIAL, _PROGRESSIVE, _SCAN = (b"\xc0", b"\xc1", b"\xc9"), (b"\xc2", b"\xc6", b"\xca", b"\xce"), b"\xda"
_WITHOUT_LENGTH = tuple(bytes([marker]) for marker in (0x01, *range(0xD0, 0xD9)))
_MAX_SEGMENTS = 2000
_MAX_SEARCHED_BYTES = 1 << 16  # between segments, where Pillow goes byte by byte
_MAX_SCANS = 100  # each goes over all pixels, and need not have more than 70 bytes
_CHUNK_BYTES = 1 << 20


def has_one_scan(file: BinaryIO) -> bool:
    """Whether a JPEG's only scan has all its channels, so that it is decoded block by block.

    Progressive ones have several scans; so may others, whose first scan lists fewer channels than the frame. Pillow
    does not tell. A file that this does not understand is taken for one of several scans.

    Raises:
        ValueError: it has too many scans or segments, or too much between them.
    """
    channels, is_understood = b"", True
    for marker, is_clean in _segments(file):
        is_understood = is_understood and is_clean and marker not in _PROGRESSIVE
        if marker in _SEQUENTIAL:
            channels = file.read(6)[5:]
        elif marker == _SCAN:
            if is_understood and file.read(1) == channels != b"":
                return True
            break
    if _num_scans(file) > _MAX_SCANS:
        raise ValueError(f"it has more than {_MAX_SCANS} scans")
    return False


def _segments(file: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    """The marker of each segment that has a length, the file at its first byte; whether only markers stood before it.

    Pillow and its decoder pass over what is no marker.
    """
    file.seek(2)  # behind the file's first marker
    is_clean, num_searched = True, 0
    for _ in range(_MAX_SEGMENTS):
        before, byte = b"", b""
        while not (before == b"\xff" and byte not in (b"\xff", b"\x00")):
            before, byte = byte, file.read(1)
            if not byte:
                return
            is_clean = is_clean and (byte == b"\xff" or (before == b"\xff" and byte != b"\x00"))
            num_searched += 1
            if num_searched > _MAX_SEARCHED_BYTES:
                raise ValueError("it has too many bytes between its segments")
        if byte in _WITHOUT_LENGTH:
            continue
        length = int.from_bytes(file.read(2))
        begin = file.tell()
        if length < 2:
            is_clean = False
            continue
        yield byte, is_clean
        file.seek(begin + length - 2)
    raise ValueError(f"it has more than {_MAX_SEGMENTS} segments")


def _num_scans(file: BinaryIO) -> int:
    """Scans of the whole file; between them, in compressed data, no byte of a marker follows 0xff."""
    file.seek(0)
    count, last = 0, b""
    while chunk := file.read(_CHUNK_BYTES):
        count += (last + chunk).count(b"\xff" + _SCAN)
        last = chunk[-1:]
    return count

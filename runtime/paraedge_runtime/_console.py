"""The terminal's edge: what is shown there says nothing to the terminal itself, and reaches every terminal.

Labels, names, paths, messages of devices and engines come from outside. ``ESC`` and its kin move the cursor, change
titles and clear screens; marks of direction turn text around. Both are shown as what they are: ``\\x1b``, ``\\u202e``.
"""

from __future__ import annotations

import io
import os
import re
import sys
import warnings

__all__ = ["open_missing_streams", "printable", "replace_unprintable", "silence_decoders"]

# Control characters, marks of direction, ends of lines, invisible tags; Python's stand-ins for bytes that are no UTF-8.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
_HIDDEN_IN_LINES = re.compile(_HIDDEN.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))


def printable(text: str, *, lines: bool = False) -> str:
    """Text from outside as a terminal or a page may show it.

    Args:
        text: whatever it says.
        lines: leave ends of lines and tabs as they are.
    """
    return (_HIDDEN_IN_LINES if lines else _HIDDEN).sub(_shown, text)


def _shown(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xD800 <= code <= 0xDFFF:
        return "�"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def silence_decoders() -> None:
    """Of an image that can be read nothing else is said: a file can make Pillow warn of each of 65,000 tags."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def open_missing_streams() -> None:
    """Put nothing in place of standard streams that the caller has closed: what is written there goes nowhere."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.dup(number), "w", encoding="utf-8", errors="replace"))


def replace_unprintable() -> None:
    """Print ``?`` for what a stream cannot show: a file's name may be any bytes, a terminal may know few characters.

    For entry points only.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")

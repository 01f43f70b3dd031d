"""Text that another machine or a file said, fit for a terminal and for one line of a message."""

from __future__ import annotations

__all__ = ["plain_line"]


def plain_line(text: str, most: int = 300) -> str:
    """What is left of ``text`` without control characters, directions and line ends; at most so many letters."""
    return "".join(letter for letter in text[: 2 * most] if letter.isprintable())[:most]

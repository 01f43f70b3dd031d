"""What there is to see now: the last frame, the figures, messages. Written by the loop, read by every view.

Texts from outside (labels, names, messages) are made printable here, before a page, a terminal or a recording has them.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from paraedge_demo.measures import WINDOW, Measures, Summary
from paraedge_demo.messages import BranchBar, FrameRecord, Header
from paraedge_runtime._console import printable

__all__ = ["Board", "View"]

MESSAGES_KEPT = 5


class View(NamedTuple):
    """One look at the board.

    Attributes:
        record: the last frame; ``None`` before the first.
        preview: its image, (h, w, 1 or 3) uint8; ``None`` in a replay.
        summary: rolling figures.
        messages: the last ones, newest last.
    """

    record: FrameRecord | None
    preview: NDArray[np.uint8] | None
    summary: Summary
    messages: tuple[str, ...]


class Board:
    """Safe for all threads. ``publish`` never waits for a reader: whoever looks sees the newest only.

    Attributes:
        header: of the bundle that is loaded.
    """

    def __init__(self, header: Header) -> None:
        self._lock = threading.Lock()
        self._measures = Measures()
        self._record: FrameRecord | None = None
        self._preview: NDArray[np.uint8] | None = None
        self._recent: deque[FrameRecord] = deque(maxlen=WINDOW)
        self._messages: deque[str] = deque(maxlen=MESSAGES_KEPT)
        self._listeners: list[Callable[[], None]] = []
        self.header = header

    @property
    def header(self) -> Header:  # noqa: D102
        return self._header

    @header.setter
    def header(self, header: Header) -> None:
        self._header = replace(
            header,
            bundle=printable(header.bundle),
            engine=printable(header.engine),
            source=printable(header.source),
            labels=tuple(map(printable, header.labels)),
        )

    def publish(self, record: FrameRecord, preview: NDArray[np.uint8] | None = None) -> None:
        """A frame has its prediction."""
        truth, label = (None if text is None else printable(text) for text in (record.truth, record.label))
        bars = tuple(bar if bar.reason.isprintable() else _printable_bar(bar) for bar in record.branches)
        record = replace(record, name=printable(record.name), label=label, truth=truth, branches=bars)
        with self._lock:
            self._measures.add(record)
            self._recent.append(record)
            self._record, self._preview = record, preview
        self._tell()

    def say(self, message: str) -> None:
        """Something that a person should know; a file's name in it may be any bytes."""
        message = printable(message)
        with self._lock:
            if not self._messages or self._messages[-1] != message:
                self._messages.append(message)
        self._tell()

    def look(self) -> View:
        """Everything of now."""
        with self._lock:
            return View(self._record, self._preview, self._measures.summary(), tuple(self._messages))

    @property
    def last(self) -> FrameRecord | None:
        """The last frame's record."""
        return self._record

    def recent(self) -> list[FrameRecord]:
        """The last frames, oldest first."""
        with self._lock:
            return list(self._recent)

    def listen(self, listener: Callable[[], None]) -> None:
        """Call this after every change, in the thread that made it; it must return at once."""
        with self._lock:
            self._listeners.append(listener)

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            with contextlib.suppress(RuntimeError):  # its event loop has closed
                listener()


def _printable_bar(bar: BranchBar) -> BranchBar:
    return replace(bar, reason=printable(bar.reason))

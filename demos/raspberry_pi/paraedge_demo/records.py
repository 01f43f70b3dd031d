"""Recordings: JSON lines, a header and then the frames without their images; written beside the loop, played back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Full, Queue

import msgspec

from paraedge_demo.board import Board
from paraedge_demo.messages import FORMAT, FrameRecord, Header
from paraedge_runtime._reading import open_file
from paraedge_runtime.errors import InputError

__all__ = ["Recorder", "Replay", "read_header", "read_recording"]

WAITING_LINES = 256
_MAX_LINE_BYTES = 16 << 20
LONGEST_PAUSE_S = 5.0  # between two frames of a replay


class Recorder:
    """Writes the board's header and every frame. A disk that is too slow loses frames, never holds up the loop.

    Raises:
        InputError: the file exists, or cannot be written.
    """

    def __init__(self, path: Path, board: Board) -> None:
        try:
            self._file = path.open("xb")
        except FileExistsError:
            raise InputError(f"{path} exists; choose another name with --record") from None
        except OSError as error:
            raise InputError(
                f"{path} cannot be written: {error.strerror}; choose another path with --record"
            ) from error
        self._board = board
        self._lines: Queue[FrameRecord | Header | None] = Queue(WAITING_LINES)
        self._header = board.header
        self._last = 0
        self.lost = 0
        self._lines.put(board.header)
        self._thread = threading.Thread(target=self._write, name="demo-recorder", daemon=True)
        self._thread.start()
        board.listen(self._note)

    def _note(self) -> None:
        record = self._board.last
        if record is None or record.number == self._last:
            return
        self._last = record.number
        try:
            if self._board.header is not self._header:
                self._header = self._board.header
                self._lines.put_nowait(self._header)
            self._lines.put_nowait(record)
        except Full:
            self.lost += 1

    def _write(self) -> None:
        line: FrameRecord | Header | None = None
        try:
            with self._file:
                while (line := self._lines.get()) is not None:
                    self._file.write(msgspec.json.encode(line) + b"\n")
                    if self._lines.empty():
                        self._file.flush()
        except OSError as error:
            self._board.say(f"{self._file.name} is not written any further: {error.strerror}")
            while line is not None:  # until it is closed: nobody waits for a place in the queue
                line = self._lines.get()

    def close(self) -> None:
        """Write what waits, and end the thread."""
        if self._thread.is_alive():
            self._lines.put(None)
        self._thread.join()


def read_recording(path: Path) -> Iterator[Header | FrameRecord]:
    """The lines of a recording, header first. A last line that was cut off is left out.

    Raises:
        InputError: it cannot be read, or is no recording.
    """
    decoder = msgspec.json.Decoder(Header | FrameRecord)
    try:
        with open_file(path) as file:
            for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE_BYTES), b""), start=1):
                if len(line) == _MAX_LINE_BYTES:
                    raise InputError(f"{path}, line {number}: too long for a line of a recording")
                try:
                    found = decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    if number > 1 and not line.endswith(b"\n"):
                        return
                    raise InputError(f"{path}, line {number}: not a line of a recording: {error}") from None
                if number == 1 and (not isinstance(found, Header) or found.format != FORMAT):
                    raise InputError(f"{path} is not a recording ({FORMAT}); make one with --record")
                yield found
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; make one with --record") from error


def read_header(path: Path) -> Header:
    """The first line of a recording.

    Raises:
        InputError: there is none.
    """
    with contextlib.closing(read_recording(path)) as lines:  # type: ignore[type-var]
        header = next(lines, None)
    if not isinstance(header, Header):
        raise InputError(f"{path} is empty; make a recording with --record")
    return header


class Replay:
    """Publishes a recording at the speed it was made; runs in a thread of its own.

    Args:
        stop: ends it; set at the end if ``ends``.
        ends: whether the demo ends with the recording; otherwise the last frame stays.
        limit: frames to publish; 0 for all.
    """

    def __init__(self, path: Path, board: Board, stop: threading.Event, ends: bool, limit: int = 0) -> None:
        self._path = path
        self._board = board
        self._stop = stop
        self._ends = ends
        self._limit = limit

    def run(self) -> None:
        """Play it once."""
        played, before_s = 0, None
        for line in read_recording(self._path):
            if isinstance(line, Header):
                self._board.header = line
                continue
            if before_s is not None:
                self._stop.wait(min(max(line.at_s - before_s, 0.0), LONGEST_PAUSE_S))
            if self._stop.is_set():
                return
            before_s = line.at_s
            self._board.publish(line)
            played += 1
            if played == self._limit:
                break
        self._board.say("the recording has ended")
        if self._ends:
            self._stop.set()

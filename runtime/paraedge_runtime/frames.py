"""A place for one frame between a camera and a session: the newest wins, what it replaces is counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Frame", "LatestFrame"]

T = TypeVar("T")


class Frame(NamedTuple, Generic[T]):
    """An image and the time it arrived.

    Attributes:
        image: the object passed to ``put``.
        arrived_s: arrival time, of ``time.monotonic()``. Count deadlines from here.
    """

    image: T
    arrived_s: float


class LatestFrame(Generic[T]):
    """Holds the newest frame for one reader that may be slower than the camera.

        frames = LatestFrame()
        # the camera's thread        # the reader's
        frames.put(image)            for frame in frames:
        …                                session.run(frame.image, deadline_s=frame.arrived_s + 0.05)
        frames.close()

    Attributes:
        dropped: number of frames that were replaced before they were read.
    """

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._frame: Frame[T] | None = None
        self._closed = False
        self.dropped = 0

    def put(self, image: T) -> None:
        """Store a frame and replace the one that is still unread. Never blocks; does nothing after ``close``."""
        with self._change:
            if self._closed:
                return
            self.dropped += self._frame is not None
            self._frame = Frame(image, time.monotonic())
            self._change.notify()

    def close(self) -> None:
        """End the stream: the reader gets the last unread frame, then stops."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def __iter__(self) -> Iterator[Frame[T]]:
        """The newest frame, again and again; waits for one, and ends when the camera has closed."""
        while True:
            with self._change:
                while self._frame is None and not self._closed:
                    self._change.wait()
                if self._frame is None:
                    return
                frame, self._frame = self._frame, None
            yield frame

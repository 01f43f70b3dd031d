"""Leaves a source's images where the loop finds the newest; a source that is cut off is tried again."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import replace

from paraedge_demo.shots import Shot, SourceOptions
from paraedge_demo.sources import Source
from paraedge_runtime.bundle import Bundle
from paraedge_runtime.errors import ParaEdgeError
from paraedge_runtime.frames import LatestFrame

__all__ = ["Feed"]

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0


class Feed:
    """Runs in a thread of its own: ``run`` until ``stop`` is set.

    Attributes:
        frames: where the newest shot is.
    """

    def __init__(self, source: Source, options: SourceOptions, fps: float, stop: threading.Event) -> None:
        self._source = source
        self._options = options
        self._period_s = 1 / fps
        self._stop = stop
        self._bundle = options.bundle
        self._wait_s = FIRST_WAIT_S
        self.frames: LatestFrame[Shot] = LatestFrame()

    def use(self, bundle: Bundle) -> None:
        """Another bundle was loaded: images must fit that one from now on."""
        self._bundle = bundle

    def run(self) -> None:
        """Feed until stopped; every failure of a source is told, then waited out, longer each time."""
        try:
            while not self._stop.is_set():
                try:
                    self._film()
                    continue  # with another bundle, or to the end
                except ParaEdgeError as error:
                    problem = str(error)
                except Exception as error:  # camera libraries raise anything
                    problem = f"{type(error).__name__}: {error}"
                self._options.tell(f"{problem} (trying again in {self._wait_s:g} s)")
                self._stop.wait(self._wait_s)
                self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
        finally:
            self.frames.close()

    def _film(self) -> None:
        bundle = self._bundle
        next_s = time.monotonic()
        with contextlib.closing(self._source.shots(replace(self._options, bundle=bundle))) as shots:
            for shot in shots:
                if self._source.paced:
                    self._stop.wait(max(0.0, next_s - time.monotonic()))
                    next_s = max(next_s + self._period_s, time.monotonic())
                if self._stop.is_set() or self._bundle is not bundle:
                    return
                self.frames.put(shot)
                self._wait_s = FIRST_WAIT_S

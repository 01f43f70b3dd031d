"""A bounded CPU hog: half of the cores, in processes of their own that end with this one, however it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

from paraedge_measure import InterferenceSettings, open_interference
from paraedge_runtime.cores import available_cores

__all__ = ["Load"]

WORD_EVERY_S = 60.0  # a hog that hears nothing for ten minutes ends by itself


class Load:
    """Switched on and off; call ``keep`` now and then while it is on."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._align: Callable[[float], None] | None = None
        self._told_s = 0.0

    def switch(self, on: bool) -> None:
        """Start or end the hogs; does nothing when they are as wanted.

        Raises:
            DeviceError: they did not start.
        """
        if on == (self._align is not None):
            return
        if on:
            settings = InterferenceSettings(hogs=max(1, available_cores() // 2), square_period_s=1.0, quota=1.0)
            self._align = self._stack.enter_context(open_interference("compute", settings))
            self._told_s = time.monotonic()
        else:
            self._align = None
            self._stack.close()

    def keep(self) -> None:
        """Tell the hogs that they are still wanted.

        Raises:
            DeviceError: one was ended from outside.
        """
        now_s = time.monotonic()
        if self._align is not None and now_s - self._told_s > WORD_EVERY_S:
            self._align(now_s)
            self._told_s = now_s

"""A browser measures by itself, on the page of ``paraedge web``; nothing here reaches it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paraedge_measure.device import Browser, Hardware, Measurement
from paraedge_measure.outputs import Inputs
from paraedge_measure.profiling import Progress, SeriesLength
from paraedge_runtime import Bundle
from paraedge_runtime.errors import DeviceError, InputError

__all__ = ["BrowserConnection"]


class BrowserConnection:
    """Refuses everything with the way that there is."""

    notice = None

    def __init__(self, connection: Browser) -> None:
        pass

    def hardware(self) -> Hardware:
        """Nothing: the page knows."""
        raise _unreachable()

    def measure(
        self, bundle: Bundle, *, engine: str | None, threads: Sequence[int], length: SeriesLength, on_progress: Progress
    ) -> tuple[Measurement, ...]:
        """Nothing: the page measures."""
        raise _unreachable()

    def branch_outputs(self, bundle: Bundle, inputs: Inputs, *, on_progress: Progress) -> NDArray[np.float32]:
        """Nothing: only pages run there."""
        raise _unreachable()

    def clean(self) -> tuple[str, ...]:
        """Nothing: what a page keeps is the browser's."""
        raise InputError("nothing is sent to a browser; it removes what pages keep with the data of the site")


def _unreachable() -> DeviceError:
    return DeviceError(
        "a browser cannot be reached from here; open the page that 'paraedge web' makes on that device, press "
        "'Measure this device' and take its device.json"
    )

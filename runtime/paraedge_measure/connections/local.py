"""Measures this machine, in another process of this Python."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from paraedge_measure.command import MODULE, measure_arguments, read_reply
from paraedge_measure.connections.processes import run_process
from paraedge_measure.device import Hardware, Local, Measurement
from paraedge_measure.outputs import Inputs, branch_outputs
from paraedge_measure.profiling import Progress, SeriesLength
from paraedge_runtime import Bundle
from paraedge_runtime.errors import InputError

__all__ = ["LocalConnection"]

_T = TypeVar("_T")


class LocalConnection:
    """Another process of this Python: what this one has loaded meanwhile shall not be measured."""

    notice = None

    def __init__(self, connection: Local) -> None:
        pass

    def hardware(self) -> Hardware:
        """Read the hardware of this machine."""
        return self._ask(["hardware"], Hardware)

    def measure(
        self, bundle: Bundle, *, engine: str | None, threads: Sequence[int], length: SeriesLength, on_progress: Progress
    ) -> tuple[Measurement, ...]:
        """Measure it in that process."""
        arguments = measure_arguments(str(bundle.path.absolute()), engine, threads, length)
        return self._ask(arguments, tuple[Measurement, ...], on_progress)

    def branch_outputs(self, bundle: Bundle, inputs: Inputs, *, on_progress: Progress) -> NDArray[np.float32]:
        """Run them in this process: nothing is measured."""
        return branch_outputs(bundle, inputs, on_progress=on_progress)

    def clean(self) -> tuple[str, ...]:
        """Refused: bundles are read where they are."""
        raise InputError("nothing is sent to this machine; name the device.json of one that is reached by ssh or adb")

    @staticmethod
    def _ask(arguments: list[str], kind: type[_T], on_progress: Progress | None = None) -> _T:
        return read_reply(*run_process([sys.executable, *MODULE, *arguments], on_progress=on_progress), kind)

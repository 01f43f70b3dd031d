"""Where a device is measured: on this machine, over ssh, over adb; a browser measures by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from paraedge_measure.connections.adb import AdbConnection
from paraedge_measure.connections.browser import BrowserConnection
from paraedge_measure.connections.local import LocalConnection
from paraedge_measure.connections.ssh import SshConnection
from paraedge_measure.device import Adb, Browser, Device, Hardware, Local, Measurement, Ssh
from paraedge_measure.outputs import Inputs
from paraedge_measure.profiling import Progress, SeriesLength
from paraedge_runtime import Bundle
from paraedge_runtime._arguments import as_instance

__all__ = ["Connection", "connect"]


class Connection(Protocol):
    """A device that reports its hardware and measures bundles."""

    @property
    def notice(self) -> str | None:
        """What to tell a person about how it measured: without Python, where Python was looked for."""

    def hardware(self) -> Hardware:
        """Read the device's hardware.

        Raises:
            DeviceError: the device cannot be reached, or cannot measure; the message has the next step.
        """

    def measure(
        self, bundle: Bundle, *, engine: str | None, threads: Sequence[int], length: SeriesLength, on_progress: Progress
    ) -> tuple[Measurement, ...]:
        """Run :func:`paraedge_measure.profiling.profile_bundle` on the device; no ``threads`` means its default.

        Raises:
            ParaEdgeError: what it raised over there.
            DeviceError: the connection failed.
        """

    def branch_outputs(self, bundle: Bundle, inputs: Inputs, *, on_progress: Progress) -> NDArray[np.float32]:
        """Run :func:`paraedge_measure.outputs.branch_outputs` on the device: inputs (M, ...) -> (M, k, C).

        Raises:
            ParaEdgeError: what it raised over there.
            DeviceError: the connection failed, or the reply is invalid.
        """

    def clean(self) -> tuple[str, ...]:
        """Remove what this package ever sent to the device: the names of what was there.

        Raises:
            InputError: nothing is sent to this device.
            DeviceError: the connection failed, or the device does not let it.
        """


def connect(device: Device) -> Connection:
    """Return the connection to ``device``. The device is contacted on first use."""
    return _CONNECTIONS[type(as_instance("device", device, Device).connection)](device.connection)


_CONNECTIONS: dict[type[Local | Ssh | Adb | Browser], Callable[[Any], Connection]] = {
    Local: LocalConnection,
    Ssh: SshConnection,
    Adb: AdbConnection,
    Browser: BrowserConnection,
}

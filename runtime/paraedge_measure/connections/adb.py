"""Reaches a device by the adb client: an Android phone, or a board that runs adb's daemon."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paraedge_measure._plain_line import plain_line
from paraedge_measure.connections.native import NativeDevice
from paraedge_measure.connections.processes import last_line, run_process
from paraedge_measure.connections.shell import advice, reason
from paraedge_measure.device import Adb, Hardware, Measurement
from paraedge_measure.outputs import Inputs
from paraedge_measure.profiling import Progress, SeriesLength
from paraedge_runtime import Bundle
from paraedge_runtime.errors import DeviceError

__all__ = ["AdbConnection"]

_ADVICE = {
    "unauthorized": "unlock it and allow debugging by this computer",
    "authorizing": "wait until it has answered, then try again",
    "offline": "unplug it and plug it in again, or 'adb reconnect'",
    "permissions": "Debian's package android-sdk-platform-tools-common lets users reach it; then plug it in again",
}
_MAX_STATE_S = 60.0  # the client's own answers; it may start its server first
_MAX_LISTED = 8  # devices in a message


class AdbConnection:
    """A device that needs no Python; see :class:`~paraedge_measure.connections.native.NativeDevice`."""

    notice = None

    def __init__(self, connection: Adb) -> None:
        self._to = connection

    @functools.cached_property
    def _device(self) -> NativeDevice:
        shell = _AdbShell(_only_serial() if self._to.serial is None else self._to.serial)
        return NativeDevice(shell, self._to.folder, self._to.tools, found=f"{shell.name} is reached over adb")

    def hardware(self) -> Hardware:
        """Read the device's hardware."""
        return self._device.hardware()

    def measure(
        self, bundle: Bundle, *, engine: str | None, threads: Sequence[int], length: SeriesLength, on_progress: Progress
    ) -> tuple[Measurement, ...]:
        """Send what is missing, and measure there."""
        return self._device.measure(bundle, engine=engine, threads=threads, length=length, on_progress=on_progress)

    def branch_outputs(self, bundle: Bundle, inputs: Inputs, *, on_progress: Progress) -> NDArray[np.float32]:
        """Send what is missing and the inputs, run them there, and remove them."""
        return self._device.branch_outputs(bundle, inputs, on_progress=on_progress)

    def clean(self) -> tuple[str, ...]:
        """Remove what was sent."""
        return self._device.clean()


class _AdbShell:
    """The shell of the device with this serial."""

    def __init__(self, serial: str) -> None:
        self.name = serial

    def check(self) -> None:
        _check_state(self.name)

    def run(self, script: str) -> str:
        return self._adb("shell", script)

    def command(self, script: str) -> list[str]:
        return ["adb", "-s", self.name, "shell", "-T", script]

    def copy(self, folder: Path, path: str) -> None:
        self._adb("push", str(folder.absolute()), path)

    def _adb(self, *arguments: str) -> str:
        stdout, stderr, code = run_process(["adb", "-s", self.name, *arguments])
        if code != 0:
            _check_state(self.name)  # a device that is gone has a better reason
            said = reason(stderr or stdout)
            raise DeviceError(
                f"adb {arguments[0]} to {self.name} failed: {said}; {advice(said, 'try the same by hand')}"
            )
        return stdout


def _check_state(serial: str) -> None:
    """Raises ``DeviceError`` with what to do where the device is not there, or does not listen."""
    stdout, stderr, code = run_process(["adb", "-s", serial, "get-state"], max_silence_s=_MAX_STATE_S)
    if code == 0 and stdout.strip() == "device":
        return
    lines = [*stderr.splitlines(), *stdout.splitlines()]
    said = plain_line(next((line.strip() for line in lines if "error" in line), stdout.strip() or last_line(stderr)))
    step = next((step for word, step in _ADVICE.items() if word in said), None)
    if step is None and "not found" in said:
        others = _listed(_attached())
        step = f"attached: {others}; is one of these 'connection.serial'?" if others else None
    step = step or "'adb devices' lists what is there; switch on USB debugging on the device"
    raise DeviceError(f"{serial} cannot be reached: {said}; {step}")


def _only_serial() -> str:
    attached = _attached()
    if not attached:
        raise DeviceError(
            "no device is attached; turn on USB debugging, plug it in, and check that 'adb devices' lists it"
        )
    if len(attached) > 1:
        raise DeviceError(
            f"{len(attached)} devices are attached: {_listed(attached)}; name one as 'connection.serial' in the "
            "device file"
        )
    (serial,) = attached
    return serial


def _attached() -> dict[str, str]:
    """Serial -> state, as ``adb devices`` lists them.

    Raises:
        DeviceError: it says something else.
    """
    stdout, stderr, code = run_process(["adb", "devices"], max_silence_s=_MAX_STATE_S)
    _, header, rows = stdout.partition("List of devices attached")
    if code != 0 or not header:
        raise DeviceError(f"adb devices failed: {last_line(stderr or stdout)}; try the same by hand")
    return dict(row.rstrip("\r").split("\t", 1) for row in rows.splitlines() if "\t" in row)


def _listed(attached: dict[str, str]) -> str:
    """For a message: ``0A1B2C (device), emulator-5554 (offline)``."""
    shown = [f"{plain_line(serial, 60)} ({plain_line(state, 30)})" for serial, state in attached.items()]
    more = [f"and {len(shown) - _MAX_LISTED} more"] if len(shown) > _MAX_LISTED else []
    return ", ".join(shown[:_MAX_LISTED] + more)

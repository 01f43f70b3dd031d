"""Reaches a device by the OpenSSH client: paraedge measures there, or, without Python, a small program."""

from __future__ import annotations

import io
import shlex
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from paraedge_measure.command import MODULE, measure_arguments, read_reply
from paraedge_measure.connections.native import NativeDevice
from paraedge_measure.connections.processes import last_line, run_process
from paraedge_measure.connections.shell import advice, reason
from paraedge_measure.connections.storage import Storage
from paraedge_measure.device import DEFAULT_PYTHON, Hardware, Measurement, Ssh
from paraedge_measure.outputs import EncodedOutputs, Inputs, checked_outputs, chunks
from paraedge_measure.profiling import Progress, SeriesLength
from paraedge_runtime import Bundle
from paraedge_runtime.errors import DeviceError

__all__ = ["SshConnection"]

_T = TypeVar("_T")

_UNREACHABLE = 255  # ssh's own exit code


class SshConnection:
    """A device with paraedge, or one that needs no Python, which is known once it was asked."""

    def __init__(self, connection: Ssh) -> None:
        self._to = connection
        self._shell = _SshShell(connection)
        self.notice: str | None = None
        self._device: _PythonDevice | NativeDevice = _PythonDevice(connection, self._shell)
        if connection.tools is not None:
            self._device = self._native(f"{connection.host} is measured without Python")

    def hardware(self) -> Hardware:
        """Read the device's hardware."""
        return self._either(lambda device: device.hardware())

    def measure(
        self, bundle: Bundle, *, engine: str | None, threads: Sequence[int], length: SeriesLength, on_progress: Progress
    ) -> tuple[Measurement, ...]:
        """Send what is missing, and measure there."""
        return self._either(
            lambda device: device.measure(
                bundle, engine=engine, threads=threads, length=length, on_progress=on_progress
            )
        )

    def branch_outputs(self, bundle: Bundle, inputs: Inputs, *, on_progress: Progress) -> NDArray[np.float32]:
        """Send what is missing and the inputs, run them there, and remove them."""
        return self._either(lambda device: device.branch_outputs(bundle, inputs, on_progress=on_progress))

    def clean(self) -> tuple[str, ...]:
        """Remove what was sent."""
        return Storage(self._shell, self._to.folder).clean()

    def _either(self, call: Callable[[_PythonDevice | NativeDevice], _T]) -> _T:
        """With paraedge there, or, where the default Python is missing or has no paraedge, without."""
        try:
            return call(self._device)
        except _NoParaedgeError as error:
            if self._to.python != DEFAULT_PYTHON:  # the one that was named is to be found
                raise
            self._device = self._native(error.found, f"{error.step}, or ")
            self.notice = f"measured without Python, by paraedge-testbed: {error.found}"
        return call(self._device)

    def _native(self, found: str, otherwise: str = "") -> NativeDevice:
        return NativeDevice(self._shell, self._to.folder, self._to.tools, found=found, otherwise=otherwise)


class _PythonDevice:
    """A device whose Python has paraedge: ``python -m paraedge_measure`` there."""

    def __init__(self, connection: Ssh, shell: _SshShell) -> None:
        self._to = connection
        self._shell = shell
        self._storage = Storage(shell, connection.folder)

    def hardware(self) -> Hardware:
        return self._ask(["hardware"], Hardware)

    def measure(
        self, bundle: Bundle, *, engine: str | None, threads: Sequence[int], length: SeriesLength, on_progress: Progress
    ) -> tuple[Measurement, ...]:
        path = self._sent(bundle, on_progress)
        return self._ask(measure_arguments(path, engine, threads, length), tuple[Measurement, ...], on_progress)

    def branch_outputs(self, bundle: Bundle, inputs: Inputs, *, on_progress: Progress) -> NDArray[np.float32]:
        """Of a part of the inputs at a time: a reply is bounded."""
        path = self._sent(bundle, on_progress)
        file = f"{self._storage.new_inputs_path()}.npy"
        found = []
        try:
            for chunk in chunks(bundle, len(inputs)):
                part = inputs[chunk.start : chunk.stop]
                on_progress(chunk.start, len(inputs), "running")
                self._shell.run(f"cat > {shlex.quote(file)}", stdin=_npy(part))
                encoded = self._ask(["outputs", path, file], EncodedOutputs)
                found.append(checked_outputs(encoded.decode(), bundle, len(part)))
        finally:
            self._storage.remove(file)
        return np.concatenate(found)

    def _sent(self, bundle: Bundle, on_progress: Progress) -> str:
        """The bundle's path over there, where it is sent unless it is there and whole."""
        path = self._storage.bundle_path(bundle)
        for damaged in (False, True):
            if self._is_whole(path, bundle):
                return path
            on_progress(0.0, 1.0, f"sending {bundle.manifest.name}")
            self._storage.send_bundle(bundle, anew=damaged)
        if not self._is_whole(path, bundle):
            raise DeviceError(f"{path} on {self._to.host} differs from what was sent; check the free space there")
        return path

    def _is_whole(self, path: str, bundle: Bundle) -> bool:
        return self._ask(["check", path], list[str | None]) == [bundle.sha256]

    def _ask(self, arguments: list[str], kind: type[_T], on_progress: Progress | None = None) -> _T:
        to = self._to
        stdout, stderr, code = self._shell.call(shlex.join([to.python, *MODULE, *arguments]), on_progress=on_progress)
        if code in (126, 127) and not stdout:
            raise _NoParaedgeError(
                f"{to.host} has no {to.python}: {last_line(stderr)}",
                "install Python 3.11 or newer there, or write its path into 'connection.python'",
            )
        if "No module named" in stderr and not stdout:
            raise _NoParaedgeError(
                f"{to.python} on {to.host} has no paraedge that can measure: {last_line(stderr)}",
                f"run: ssh {to.host} \"{to.python} -m pip install --upgrade 'paraedge[litert]'\" (or another engine)",
            )
        return read_reply(stdout, stderr, code, kind)


class _NoParaedgeError(DeviceError):
    """The device answers, and has no paraedge for the Python that was named."""

    def __init__(self, found: str, step: str) -> None:
        super().__init__(f"{found}; {step}")
        self.found, self.step = found, step


class _SshShell:
    """The OpenSSH client, which knows its configuration, agents and jump hosts better than any library."""

    def __init__(self, connection: Ssh) -> None:
        self._to = connection
        self.name = connection.host

    def check(self) -> None:
        self.run("true")

    def run(self, script: str, *, stdin: bytes | None = None) -> str:
        stdout, stderr, code = self.call(_in_sh(script), stdin=stdin)
        if code != 0:
            said = reason(stderr)
            raise DeviceError(
                f"{self.name} failed with exit code {code}: {said}; {advice(said, 'try the same with ssh by hand')}"
            )
        return stdout

    def command(self, script: str) -> list[str]:
        return self._command(_in_sh(script))

    def copy(self, folder: Path, path: str) -> None:
        there = shlex.quote(path)
        self.run(f"mkdir {there} && tar -xf - -C {there}", stdin=_tar(folder))

    def call(
        self, script: str, *, stdin: bytes | None = None, on_progress: Progress | None = None
    ) -> tuple[str, str, int]:
        """What the script said, and its exit code.

        Raises:
            DeviceError: the device cannot be reached.
        """
        stdout, stderr, code = run_process(self._command(script), stdin=stdin, on_progress=on_progress)
        if code == _UNREACHABLE:
            raise DeviceError(f"{self.name} cannot be reached: {last_line(stderr)}; {_ssh_advice(stderr, self._to)}")
        return stdout, stderr, code

    def _command(self, script: str) -> list[str]:
        to = self._to
        command = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15"]
        command += ["-l", to.user] if to.user else []
        command += ["-p", str(to.port)] if to.port else []
        command += ["-o", "IdentitiesOnly=yes", "-i", to.identity_file] if to.identity_file else []
        return [*command, "--", to.host, script]


def _in_sh(script: str) -> str:
    """Whatever shell a login starts there."""
    return shlex.join(["exec", "sh", "-c", script])


def _ssh_advice(stderr: str, to: Ssh) -> str:
    if "Host key verification failed" in stderr:
        return f"run 'ssh {to.host}' once, compare the key it shows and accept it"
    if "Permission denied" in stderr or "Too many authentication failures" in stderr:
        return f"put your public key there with 'ssh-copy-id {to.host}', or name the right 'connection.identity_file'"
    return "check that it is on and runs an ssh server, and that 'connection.host' and 'connection.port' are right"


def _tar(folder: Path) -> bytes:
    """The files below a folder, and nothing of who owns them here."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.size = path.stat().st_size
            with path.open("rb") as file:
                archive.addfile(entry, file)
    return stream.getvalue()


def _npy(inputs: Inputs) -> bytes:
    stream = io.BytesIO()
    np.save(stream, inputs, allow_pickle=False)
    return stream.getvalue()

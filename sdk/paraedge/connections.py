"""Where a device is measured: on this machine, over ssh, over adb. The measuring itself is the runtime's."""

from __future__ import annotations

import io
import shlex
import sys
import tarfile
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from paraedge.adb import AdbConnection
from paraedge.processes import last_line, run_process
from paraedge_runtime.bundle import Bundle
from paraedge_runtime.device import Adb, Device, Hardware, Local, Measurement, Ssh
from paraedge_runtime.errors import DeviceError
from paraedge_runtime.profiling import Progress, StopRule
from paraedge_runtime.testbed import read_answer

__all__ = ["Connection", "connect"]

_T = TypeVar("_T")

_MODULE = ["-m", "paraedge_runtime.profiling"]


class Connection(Protocol):
    """A device that can be asked what it is, and to measure a bundle."""

    def hardware(self) -> Hardware:
        """What the device is.

        Raises:
            DeviceError: it cannot be reached, or cannot measure; the message has the next step.
        """

    def measure(
        self, bundle: Bundle, *, engine: str | None, threads: Sequence[int], rule: StopRule, on_progress: Progress
    ) -> tuple[Measurement, ...]:
        """:func:`paraedge_runtime.profiling.profile_bundle` over there; no ``threads`` are the default ones.

        Raises:
            ParaEdgeError: what it raised over there.
            DeviceError: the connection failed.
        """


def connect(device: Device) -> Connection:
    """The connection that ``device`` names. Nothing is reached before it is used."""
    return _CONNECTIONS[type(device.connection)](device.connection)


class _LocalConnection:
    """Another process of this Python: what this one has loaded meanwhile shall not be measured."""

    def __init__(self, connection: Local) -> None:
        pass

    def hardware(self) -> Hardware:
        return self._ask(["hardware"], Hardware)

    def measure(
        self, bundle: Bundle, *, engine: str | None, threads: Sequence[int], rule: StopRule, on_progress: Progress
    ) -> tuple[Measurement, ...]:
        arguments = _measure_arguments(str(bundle.path.absolute()), engine, threads, rule)
        return self._ask(arguments, tuple[Measurement, ...], on_progress)

    @staticmethod
    def _ask(arguments: list[str], kind: type[_T], on_progress: Progress | None = None) -> _T:
        return read_answer(*run_process([sys.executable, *_MODULE, *arguments], on_progress=on_progress), kind)


class _SshConnection:
    """The OpenSSH client, which knows its configuration, agents and jump hosts better than any library."""

    def __init__(self, connection: Ssh) -> None:
        self._to = connection

    def hardware(self) -> Hardware:
        return self._ask(["hardware"], Hardware)

    def measure(
        self, bundle: Bundle, *, engine: str | None, threads: Sequence[int], rule: StopRule, on_progress: Progress
    ) -> tuple[Measurement, ...]:
        path = f"{self._to.folder}/{bundle.manifest.name}-{bundle.sha256[:12]}.paraedge"
        if self._ask(["check", path], list[str | None]) != [bundle.sha256]:
            on_progress(0.0, 1.0, f"sending {bundle.manifest.name}")
            self._send(bundle, path)
            if self._ask(["check", path], list[str | None]) != [bundle.sha256]:
                raise DeviceError(f"{path} on {self._to.host} is not what was sent; is there space left?")
        return self._ask(_measure_arguments(path, engine, threads, rule), tuple[Measurement, ...], on_progress)

    def _send(self, bundle: Bundle, path: str) -> None:
        """The bundle's files appear over there whole or not at all, like everywhere."""
        place, new = shlex.quote(path), shlex.quote(f"{path}.new")
        script = f"rm -rf {new} && mkdir -p {new} && tar -xf - -C {new} && rm -rf {place} && mv {new} {place}"
        self._ssh(script, stdin=_tar(bundle))

    def _ask(self, arguments: list[str], kind: type[_T], on_progress: Progress | None = None) -> _T:
        script = shlex.join([self._to.python, *_MODULE, *arguments])
        return read_answer(*self._ssh(script, on_progress=on_progress), kind)

    def _ssh(
        self, script: str, *, stdin: bytes | None = None, on_progress: Progress | None = None
    ) -> tuple[str, str, int]:
        to = self._to
        command = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15"]
        command += ["-l", to.user] if to.user else []
        command += ["-p", str(to.port)] if to.port else []
        command += ["-o", "IdentitiesOnly=yes", "-i", to.identity_file] if to.identity_file else []
        stdout, stderr, code = run_process([*command, "--", to.host, script], stdin=stdin, on_progress=on_progress)
        if code == 255:
            raise DeviceError(f"{to.host} cannot be reached: {last_line(stderr)}; {_ssh_advice(stderr, to)}")
        if code in (126, 127) and not stdout:
            raise DeviceError(
                f"{to.host} has no {to.python}: {last_line(stderr)}; install Python 3.11 or newer there, "
                "or write its path into 'connection.python'"
            )
        if "No module named" in stderr and not stdout:
            raise DeviceError(
                f"{to.python} on {to.host} has no paraedge that can measure: {last_line(stderr)}; "
                f"run: ssh {to.host} \"{to.python} -m pip install --upgrade 'paraedge[litert]'\" (or another engine)"
            )
        if code != 0 and not stdout:
            raise DeviceError(
                f"{to.host} failed with exit code {code}: {last_line(stderr)}; try the same with ssh by hand"
            )
        return stdout, stderr, code


def _ssh_advice(stderr: str, to: Ssh) -> str:
    if "Host key verification failed" in stderr:
        return f"run 'ssh {to.host}' once, compare the key it shows and accept it"
    if "Permission denied" in stderr or "Too many authentication failures" in stderr:
        return f"put your public key there with 'ssh-copy-id {to.host}', or name the right 'connection.identity_file'"
    return "is it on, in this network, and an ssh server on this port? 'connection.host' and '.port' say where"


_CONNECTIONS: dict[type[Local | Ssh | Adb], Callable[[Any], Connection]] = {
    Local: _LocalConnection,
    Ssh: _SshConnection,
    Adb: AdbConnection,
}


def _measure_arguments(path: str, engine: str | None, threads: Sequence[int], rule: StopRule) -> list[str]:
    arguments = ["measure", path, "--min-runs", str(rule.min_runs), "--min-seconds", str(rule.min_seconds)]
    arguments += ["--engine", engine] if engine else []
    return arguments + (["--threads", *map(str, threads)] if threads else [])


def _tar(bundle: Bundle) -> bytes:
    """The bundle's files, each checked as it is read."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in bundle.files().items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()

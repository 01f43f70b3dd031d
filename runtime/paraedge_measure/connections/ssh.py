"""Measures a device over ssh: sends the bundle, runs ``python -m paraedge_measure`` there."""

from __future__ import annotations

import io
import secrets
import shlex
import tarfile
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from paraedge_measure.command import MODULE, measure_arguments, read_reply
from paraedge_measure.connections.processes import last_line, run_process
from paraedge_measure.device import Hardware, Measurement, Ssh
from paraedge_measure.outputs import EncodedOutputs, Inputs, checked_outputs, chunks
from paraedge_measure.profiling import Progress, SeriesLength
from paraedge_runtime import Bundle
from paraedge_runtime.errors import DeviceError

__all__ = ["SshConnection"]

_T = TypeVar("_T")


class SshConnection:
    """The OpenSSH client, which knows its configuration, agents and jump hosts better than any library."""

    def __init__(self, connection: Ssh) -> None:
        self._to = connection

    def hardware(self) -> Hardware:
        """Read the device's hardware."""
        return self._ask(["hardware"], Hardware)

    def measure(
        self, bundle: Bundle, *, engine: str | None, threads: Sequence[int], length: SeriesLength, on_progress: Progress
    ) -> tuple[Measurement, ...]:
        """Send the bundle unless it is there, and measure it there."""
        path = self._sent(bundle, on_progress)
        return self._ask(measure_arguments(path, engine, threads, length), tuple[Measurement, ...], on_progress)

    def branch_outputs(self, bundle: Bundle, inputs: Inputs, *, on_progress: Progress) -> NDArray[np.float32]:
        """Send bundle and inputs, a part of them at a time, and run them there."""
        path = self._sent(bundle, on_progress)
        file = f"{self._to.folder}/inputs-{secrets.token_hex(6)}.npy"
        found = []
        try:
            for chunk in chunks(bundle, len(inputs)):
                part = inputs[chunk.start : chunk.stop]
                on_progress(chunk.start, len(inputs), "running")
                self._write(file, _npy(part))
                encoded = self._ask(["outputs", path, file], EncodedOutputs)
                found.append(checked_outputs(encoded.decode(), bundle, len(part)))
        finally:
            self._ssh(f"rm -f {shlex.quote(file)}")
        return np.concatenate(found)

    def _sent(self, bundle: Bundle, on_progress: Progress) -> str:
        """The bundle's path over there, where it is sent unless it is there."""
        path = f"{self._to.folder}/{bundle.manifest.name}-{bundle.sha256[:12]}.paraedge"
        if self._ask(["check", path], list[str | None]) != [bundle.sha256]:
            on_progress(0.0, 1.0, f"sending {bundle.manifest.name}")
            self._send(bundle, path)
            if self._ask(["check", path], list[str | None]) != [bundle.sha256]:
                raise DeviceError(f"{path} on {self._to.host} differs from what was sent; check the free space there")
        return path

    def _write(self, path: str, content: bytes) -> None:
        _, stderr, code = self._ssh(f"cat > {shlex.quote(path)} && echo written", stdin=content)
        if code != 0:
            raise DeviceError(
                f"{path} on {self._to.host} cannot be written: {last_line(stderr)}; check the free space there"
            )

    def _send(self, bundle: Bundle, path: str) -> None:
        """The bundle's files appear over there whole or not at all, like everywhere."""
        place, new = shlex.quote(path), shlex.quote(f"{path}.new")
        script = f"rm -rf {new} && mkdir -p {new} && tar -xf - -C {new} && rm -rf {place} && mv {new} {place}"
        self._ssh(script, stdin=_tar(bundle))

    def _ask(self, arguments: list[str], kind: type[_T], on_progress: Progress | None = None) -> _T:
        script = shlex.join([self._to.python, *MODULE, *arguments])
        return read_reply(*self._ssh(script, on_progress=on_progress), kind)

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
    return "check that it is on and runs an ssh server, and that 'connection.host' and 'connection.port' are right"


def _tar(bundle: Bundle) -> bytes:
    """The bundle's files, each checked as it is read."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in bundle.files().items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def _npy(inputs: Inputs) -> bytes:
    stream = io.BytesIO()
    np.save(stream, inputs, allow_pickle=False)
    return stream.getvalue()

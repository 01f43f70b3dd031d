"""A real sshd on a loopback port, with keys of its own, and an ``ssh`` on the path that knows it."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SSHD = "/usr/sbin/sshd"
MISSING = "needs Debian's openssh-server and openssh-client; 'make test' as root installs them"


@dataclass(frozen=True)
class SshServer:
    port: int
    identity_file: Path
    other_identity_file: Path  # a key that the server does not take
    path: str  # a PATH whose ssh reads a configuration with this server's host key


@contextlib.contextmanager
def ssh_server(folder: Path, environment: dict[str, str]) -> Iterator[SshServer]:
    """Start sshd for the length of the block; logins get ``environment``."""
    if not Path(SSHD).exists() or shutil.which("ssh") is None:
        pytest.skip(MISSING)
    folder.chmod(0o700)
    for name in ("host_key", "user_key", "other_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    port = _free_port()
    variables = " ".join(f'{name}="{value}"' for name, value in environment.items())
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host_key\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\nStrictModes no\nSetEnv {variables}\n"
    )
    kind, key, *_ = (folder / "host_key.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    (folder / "ssh_config").write_text(f"UserKnownHostsFile {folder}/known_hosts\nGlobalKnownHostsFile none\n")
    commands = folder / "bin"
    commands.mkdir()
    (commands / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
    (commands / "ssh").chmod(0o755)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # a system that never started its own has none
    with (folder / "sshd.log").open("wb") as log:
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stdout=log, stderr=log)
    try:
        _wait_until_open(port, server, folder / "sshd.log")
        path = f"{commands}{os.pathsep}{os.environ['PATH']}"
        yield SshServer(port, folder / "user_key", folder / "other_key", path)
    finally:
        server.terminate()
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_open(port: int, server: subprocess.Popen, log: Path) -> None:
    for _ in range(100):
        assert server.poll() is None, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"sshd does not listen: {log.read_text()}")

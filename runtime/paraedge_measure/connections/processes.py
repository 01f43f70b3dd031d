"""Runs the programs that reach devices, ssh and adb, and passes their progress lines on."""

from __future__ import annotations

import re
import subprocess
import threading

from paraedge_measure.profiling import Progress
from paraedge_runtime.errors import DeviceError

__all__ = ["last_line", "run_process"]

_PROGRESS = re.compile(r"progress (\d+\.?\d*) (\d+\.?\d*) (.*)")
_PACKAGES = {"ssh": "openssh-client", "adb": "adb"}


def run_process(
    command: list[str], *, stdin: bytes | None = None, on_progress: Progress | None = None
) -> tuple[str, str, int]:
    """Run a program to its end: stdout, stderr without the progress lines, exit code.

    Raises:
        DeviceError: it cannot be started.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        hint = f"apt install {_PACKAGES[command[0]]}" if command[0] in _PACKAGES else "check that it can be run"
        raise DeviceError(f"{command[0]} cannot be started: {error.strerror}; {hint}") from error
    said: list[str] = []

    def listen() -> None:
        assert process.stderr is not None
        for raw in process.stderr:
            line = raw.decode(errors="replace").rstrip("\r\n")
            step = _PROGRESS.fullmatch(line)
            if step is not None and on_progress is not None:
                on_progress(float(step[1]), float(step[2]), step[3])
            else:
                said.append(line)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        assert process.stdout is not None
        if stdin is not None and process.stdin is not None:
            try:
                with process.stdin:
                    process.stdin.write(stdin)
            except BrokenPipeError:  # it ended early; its exit code and stderr say why
                pass
        stdout = process.stdout.read().decode(errors="replace")
        code = process.wait()
    finally:
        process.kill()  # only what an error or Ctrl-C has left running
        process.wait()
    listener.join()
    process.stdout.close()
    if process.stderr is not None:
        process.stderr.close()
    return stdout, "\n".join(said), code


def last_line(stderr: str) -> str:
    """The last thing that a program said, on one line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"

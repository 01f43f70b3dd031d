"""Runs the programs that reach devices, ssh and adb, and passes their progress lines on.

A device may say anything, for ever, or nothing at all: what it says is bounded in bytes and in time, and has no control
characters when it reaches a person.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from paraedge_measure._plain_line import plain_line
from paraedge_measure.profiling import Progress
from paraedge_runtime.errors import DeviceError

__all__ = ["MAX_SILENCE_S", "ended_when_silent", "last_line", "run_process"]

MAX_SILENCE_S = 600.0  # longer than any step of a measurement takes
_MAX_OUTPUT_BYTES = 16 << 20
_MAX_LINE_BYTES = 1 << 16
_MAX_LINES = 200  # of errors, the last ones
_CHUNK_BYTES = 1 << 16

_PROGRESS = re.compile(r"progress (\d+\.?\d*) (\d+\.?\d*) (.*)")
_PACKAGES = {"ssh": "openssh-client", "adb": "adb"}


def run_process(
    command: list[str],
    *,
    stdin: bytes | None = None,
    on_progress: Progress | None = None,
    max_silence_s: float | None = None,
) -> tuple[str, str, int]:
    """Run a program to its end: stdout, the last lines of stderr without those of progress, exit code.

    Raises:
        DeviceError: it cannot be started, says more than 16 MiB on stdout or stderr, or nothing for
            ``max_silence_s``, ten minutes by default.
    """
    max_silence_s = MAX_SILENCE_S if max_silence_s is None else max_silence_s
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
    said: deque[str] = deque(maxlen=_MAX_LINES)
    too_much = DeviceError(f"{command[0]} sent more than {_MAX_OUTPUT_BYTES} bytes; do not trust that device")
    stderr_bytes = 0

    def listen() -> None:
        nonlocal stderr_bytes
        assert process.stderr is not None
        while raw := process.stderr.readline(_MAX_LINE_BYTES):
            watch.touch()
            stderr_bytes += len(raw)
            if stderr_bytes > _MAX_OUTPUT_BYTES:
                process.kill()
                return
            line = plain_line(raw.decode(errors="replace").rstrip("\r\n"), _MAX_LINE_BYTES)
            step = _PROGRESS.fullmatch(line)
            if step is not None and on_progress is not None:
                on_progress(float(step[1]), float(step[2]), step[3])
            else:
                said.append(line)

    listener = threading.Thread(target=listen, daemon=True)
    stdout = bytearray()
    try:
        with ended_when_silent(process, max_silence_s) as watch:
            listener.start()
            assert process.stdout is not None
            if stdin is not None and process.stdin is not None:
                try:
                    with process.stdin:
                        for place in range(0, len(stdin), _CHUNK_BYTES):
                            process.stdin.write(stdin[place : place + _CHUNK_BYTES])
                            watch.touch()
                except BrokenPipeError:  # it ended early; its exit code and stderr say why
                    pass
            while piece := process.stdout.read1(_CHUNK_BYTES):  # type: ignore[attr-defined]  # it is buffered
                watch.touch()
                stdout += piece
                if len(stdout) > _MAX_OUTPUT_BYTES:
                    raise too_much
            code = process.wait()
    finally:
        process.kill()  # only what an error or Ctrl-C has left running
        process.wait()
        listener.join()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
    if stderr_bytes > _MAX_OUTPUT_BYTES:
        raise too_much
    if watch.ended:
        raise DeviceError(
            f"{command[0]} sent no output for {max_silence_s:g} s: {said[-1] if said else 'no message'}; "
            "check that the device is awake"
        )
    return stdout.decode(errors="replace"), "\n".join(said), code


class _Watch:
    def __init__(self) -> None:
        self.ended = False
        self.touch()

    def touch(self) -> None:
        self.last_s = time.monotonic()


@contextmanager
def ended_when_silent(process: subprocess.Popen[bytes], max_silence_s: float) -> Iterator[_Watch]:
    """Kill a process that nobody has heard of for so long: whoever hears it calls ``touch``."""
    watch, done = _Watch(), threading.Event()

    def look() -> None:
        while not done.wait(max(watch.last_s + max_silence_s - time.monotonic(), 0.01)):
            if time.monotonic() - watch.last_s >= max_silence_s:
                watch.ended = True
                process.kill()
                return

    looker = threading.Thread(target=look, daemon=True)
    looker.start()
    try:
        yield watch
    finally:
        done.set()
        looker.join()


def last_line(stderr: str) -> str:
    """The last thing that a program said, on one line."""
    lines = [line for raw in stderr.splitlines() if (line := plain_line(raw).strip())]
    return lines[-1] if lines else "it said nothing"

"""Measures a device without Python: a small program runs the requests there, this side makes the profile."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from paraedge_measure._plain_line import plain_line
from paraedge_measure.connections.processes import MAX_SILENCE_S, ended_when_silent
from paraedge_measure.connections.shell import CLEAN_UP, Shell, advice, reason
from paraedge_measure.connections.storage import Storage
from paraedge_measure.device import Hardware, Measurement, TimerJitter, WakeUp
from paraedge_measure.hardware import read_hardware
from paraedge_measure.outputs import Inputs, checked_outputs
from paraedge_measure.profiling import Progress, SeriesLength, profile_on
from paraedge_measure.testbed import ColdStart, RequestTimes
from paraedge_runtime import Bundle, PartRun
from paraedge_runtime.cache_folder import own_folder
from paraedge_runtime.errors import DeviceError, InputError

__all__ = ["NativeDevice"]

_T = TypeVar("_T")

_PROGRAM = "paraedge-testbed"
# As 'uname -m' names what 'make phone-tools' builds for; the second is a 32-bit shell on such a processor.
_MACHINES = ("aarch64", "armv8l")
# What hardware.py reads, as a shell finds it; what a device does not let the shell read is left out.
_SYSTEM_FILES = (
    "/proc/cpuinfo /proc/meminfo /proc/stat /proc/device-tree/model /sys/devices/system/cpu/present "
    "/sys/devices/system/cpu/cpu*/cpu_capacity /sys/devices/system/cpu/cpu*/cpufreq/cpuinfo_max_freq "
    "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor /sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq "
    "/sys/class/thermal/thermal_zone*/type /sys/class/thermal/thermal_zone*/temp "
    "/sys/class/thermal/cooling_device*/type /sys/class/thermal/cooling_device*/cur_state "
    "/sys/class/hwmon/hwmon*/name /sys/class/hwmon/hwmon*/temp*_input /sys/class/hwmon/hwmon*/in0_lcrit_alarm "
    "/sys/devices/platform/soc*/soc*:firmware/get_throttled"
)
_MARK = "@@paraedge "
# Their names when they come back; each * stands for a number, or the address of a Raspberry Pi's soc. Nothing else that
# a device says becomes a file.
_SYSTEM_NAMES = re.compile(
    "|".join(
        re.escape(name).replace(r"soc\*", "soc(?:@[0-9a-f]{1,16})?").replace(r"\*", "[0-9]{1,4}")
        for name in [*_SYSTEM_FILES.split(), "/etc/os-release", "/machine", "/kernel"]
    )
)
_MAX_LINE_BYTES = 16 << 20
_MAX_STDERR_BYTES = 4096
_INPUTS_A_LINE = 8  # of outputs: a line of 100 branches with 1,000 classes stays below the limit
_SYSTEM_SCRIPT = (
    f'for file in {_SYSTEM_FILES}; do if [ -r "$file" ]; then echo; echo "{_MARK}$file"; cat "$file"; fi; done '
    "2>/dev/null; "
    f'echo; echo "{_MARK}/etc/os-release"; '
    'if release=$(getprop ro.build.version.release 2>/dev/null); then echo "PRETTY_NAME=Android $release"; '
    "elif [ -r /etc/os-release ]; then cat /etc/os-release; fi; "
    f'echo; echo "{_MARK}/machine"; uname -m; echo; echo "{_MARK}/kernel"; uname -sr'
)


class NativeDevice:
    """A device with a shell, and ``paraedge-testbed`` on it.

    Args:
        shell: the device's.
        folder: where the program and bundles are kept over there.
        tools: a folder of this machine with the program and its libraries; ``None`` for that of 'make phone-tools'.
        found: why the program is used, for messages: ``board has no python3``.
        otherwise: what else can be done there, for messages.
    """

    def __init__(self, shell: Shell, folder: str, tools: str | None, *, found: str, otherwise: str = "") -> None:
        self.shell = shell
        self.storage = Storage(shell, folder)
        self._tools = tools
        self._found, self._otherwise = found, otherwise

    def hardware(self) -> Hardware:
        """Read the device's hardware."""
        self.shell.check()
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            self.read_system(root)
            found = read_hardware(root, machine=_text(root / "machine"), kernel=_text(root / "kernel"))
        try:
            return msgspec.convert(msgspec.to_builtins(found), Hardware)
        except msgspec.ValidationError as error:
            raise DeviceError(
                f"{self.shell.name} sent an invalid description of itself: {plain_line(str(error))}"
            ) from error

    def measure(
        self, bundle: Bundle, *, engine: str | None, threads: Sequence[int], length: SeriesLength, on_progress: Progress
    ) -> tuple[Measurement, ...]:
        """Send what is missing, and measure there."""
        self._need_executorch(engine or bundle.manifest.engine)
        cores = self.hardware().cores
        command = self._sent(bundle, on_progress)
        with tempfile.TemporaryDirectory() as scratch:
            bed = _NativeTestBed(self, command, bundle.manifest.branch_indexes, cores, Path(scratch))
            with closing(bed):
                return profile_on(bed, bundle, threads=threads or None, length=length, on_progress=on_progress)

    def branch_outputs(self, bundle: Bundle, inputs: Inputs, *, on_progress: Progress) -> NDArray[np.float32]:
        """Send what is missing and the inputs, run them there, and remove them."""
        self._need_executorch(bundle.manifest.engine)
        self.shell.check()
        command = self._sent(bundle, on_progress)
        path = self.storage.new_inputs_path()
        found = []
        try:
            with tempfile.TemporaryDirectory() as scratch:
                Path(scratch, "inputs").mkdir()
                Path(scratch, "inputs", "all").write_bytes(np.ascontiguousarray(inputs).tobytes())
                on_progress(0.0, 1.0, f"sending {len(inputs)} inputs")
                self.storage.send(Path(scratch, "inputs"), path)
            with closing(self.start(command, [1])) as program:
                for first in range(0, len(inputs), _INPUTS_A_LINE):
                    count = min(_INPUTS_A_LINE, len(inputs) - first)
                    on_progress(first, len(inputs), "running")
                    rows = program.ask(f"outputs 1 {first} {count} {path}/all", list[list[list[float]]])
                    found.append(checked_outputs(_array(rows), bundle, count))
        finally:
            self.storage.remove(path)
        return np.concatenate(found)

    def clean(self) -> tuple[str, ...]:
        """Remove what was sent."""
        self.shell.check()
        return self.storage.clean()

    def read_system(self, folder: Path) -> None:
        """Write what the device's /proc and /sys say now into ``folder``.

        Raises:
            DeviceError: it names a file that nobody asked for.
        """
        for piece in self.shell.run(_SYSTEM_SCRIPT).split(f"\n{_MARK}")[1:]:
            name, _, text = piece.partition("\n")
            name = name.rstrip("\r")
            if _SYSTEM_NAMES.fullmatch(name) is None:
                raise DeviceError(
                    f"{self.shell.name} sent a file that was not requested, {plain_line(name, 80)!r}; do not "
                    "trust that device"
                )
            place = folder / name.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")

    def start(self, command: tuple[str, str], threads: Sequence[int]) -> _Testbed:
        """``paraedge-testbed`` on the device; ``command`` is the folder that it is in, and the bundle."""
        tools, bundle = map(shlex.quote, command)
        program = f"LD_LIBRARY_PATH={tools} exec {tools}/{_PROGRAM} {bundle} {','.join(map(str, threads))}"
        return _Testbed(self.shell, program)

    def _sent(self, bundle: Bundle, on_progress: Progress) -> tuple[str, str]:
        """The folder of the program and the bundle over there."""
        on_progress(0.0, 1.0, f"sending {_PROGRAM} and {bundle.manifest.name}")
        return self._send_tools(), self.storage.send_bundle(bundle)

    def _send_tools(self) -> str:
        """The folder with the program and its libraries; its name over there has the hash of what is in it."""
        tools = Path(self._tools) if self._tools is not None else own_folder("phone-tools")
        machine = plain_line(self.shell.run("uname -m").strip(), 40)
        if not (tools / _PROGRAM).is_file():
            where = f"'connection.tools' is {self._tools!r}: no folder with" if self._tools else f"{tools} has no"
            raise DeviceError(
                f"{self._found} ({machine}), but {where} {_PROGRAM}; {self._otherwise}'make phone-tools' in a checkout "
                "of paraedge builds it for 64-bit Arm, and the documentation (Phones) explains how for others"
            )
        if self._tools is None and machine not in _MACHINES:
            raise DeviceError(
                f"{self._found} ({machine}), but what 'make phone-tools' builds runs on 64-bit Arm only (aarch64); "
                f"{self._otherwise}build {_PROGRAM} for {machine} and name its folder as 'connection.tools'"
            )
        return self.storage.send(tools, f"{self.storage.folder}/tools-{_folder_hash(tools)[:12]}")

    def _need_executorch(self, engine: str) -> None:
        if engine != "executorch":
            raise InputError(
                f"{self._found}, so only executorch bundles can be measured there, not {engine}; {self._otherwise}"
                "export one with --engine executorch"
            )


# What the program says, as tools/paraedge_testbed.cpp prints it.
_Number = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
_BranchTimes = tuple[
    Annotated[int, msgspec.Meta(ge=0, le=9999)], Annotated[int, msgspec.Meta(ge=0, le=9999)], _Number, _Number
]
_Request = tuple[_Number, _Number, list[_BranchTimes]]


class _Hello(msgspec.Struct, frozen=True):
    executorch: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z.+-]{1,60}\Z")]
    load_ms: _Number


class _Usage(msgspec.Struct, frozen=True):
    cpu_s: _Number
    memory_bytes: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class _Testbed:
    """One process of the program, asked a line at a time."""

    def __init__(self, shell: Shell, script: str) -> None:
        self._shell = shell
        self._stderr = b""  # the last of it
        self._process = subprocess.Popen(
            shell.command(script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            self.hello = self._read(_Hello)
        except BaseException:
            self.close()
            raise

    def ask(self, line: str, kind: type[_T]) -> _T:
        """Send a line; the reply, of this type."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # reading says why
            pass
        return self._read(kind)

    def close(self) -> None:
        self._end()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def _end(self) -> None:
        """End the client. Closing its input first ends the program over there too, which may keep stderr open."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # what was not sent
            self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._listener.join()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        while piece := self._process.stderr.read1(_MAX_STDERR_BYTES):  # type: ignore[attr-defined]  # it is buffered
            self._stderr = (self._stderr + piece)[-_MAX_STDERR_BYTES:]

    def _read(self, kind: type[_T]) -> _T:
        assert self._process.stdout is not None
        with ended_when_silent(self._process, MAX_SILENCE_S) as watch:
            line = self._process.stdout.readline(_MAX_LINE_BYTES)
        try:
            return msgspec.json.decode(line, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        self._end()
        said = plain_line(line.decode(errors="replace")).strip() or reason(self._stderr.decode(errors="replace"))
        if watch.ended:
            said = f"it said nothing for {MAX_SILENCE_S:g} s"
        else:
            self._shell.check()  # was it unplugged?
        step = advice(said, f"check that it is built for this device, with its libraries beside it; {CLEAN_UP}")
        raise DeviceError(f"{_PROGRAM} on {self._shell.name} ended: {said}; {step}")


class _NativeTestBed:
    """A device that ``paraedge-testbed`` runs on."""

    engine = "executorch"
    parallel = True

    def __init__(
        self,
        device: NativeDevice,
        command: tuple[str, str],
        branches: tuple[int, ...],
        cores: int,
        scratch: Path,
    ) -> None:
        self.cores, self.core_numbers = cores, frozenset(range(cores))
        self.engine_version = ""
        self._device, self._command, self._branches = device, command, branches
        self._scratch = scratch
        self._program: _Testbed | None = None

    def open(self, threads: Sequence[int]) -> None:
        self._program = self._device.start(self._command, threads)
        self.engine_version = self._program.hello.executorch

    def run(self, threads: int, branches: int, count: int) -> list[RequestTimes]:
        assert self._program is not None
        return self._requests(self._program, threads, branches, count)

    def cold_start(self, threads: int) -> ColdStart:
        program = self._device.start(self._command, [threads])
        try:
            (first,) = self._requests(program, threads, len(self._branches), 1)
            return ColdStart(
                load_ms=program.hello.load_ms,
                request_ms=first.elapsed_ms,
                parts_ms={run.part: run.end_ms - run.start_ms for run in first.timeline},
                memory_bytes=program.ask("usage", _Usage).memory_bytes or None,
            )
        finally:
            program.close()

    def timer_jitter(self) -> TimerJitter:
        return self._ask("jitter", TimerJitter)

    def wakeup(self) -> WakeUp:
        return self._ask("wakeup", WakeUp)

    def cpu_s(self) -> float:
        return self._ask("usage", _Usage).cpu_s

    def system(self) -> Path:
        self._device.read_system(self._scratch)
        return self._scratch

    def close(self) -> None:
        if self._program is not None:
            self._program.close()

    def _ask(self, line: str, kind: type[_T]) -> _T:
        assert self._program is not None
        return self._program.ask(line, kind)

    def _requests(self, program: _Testbed, threads: int, branches: int, count: int) -> list[RequestTimes]:
        """The times of ``count`` requests of the first ``branches``."""
        requests = program.ask(f"run {threads} {branches} {count}", list[_Request])
        indexes = list(self._branches[:branches])
        if len(requests) != count or any(sorted(run[0] for run in runs) != indexes for _, _, runs in requests):
            raise DeviceError(f"{_PROGRAM} did not run the requested branches and requests; install this version there")
        return [_times(*request) for request in requests]


def _times(elapsed_ms: float, stem_ms: float, branches: list[_BranchTimes]) -> RequestTimes:
    runs = [PartRun(f"branch_{index:02d}", thread, start, end) for index, thread, start, end in branches]
    return RequestTimes(elapsed_ms, (PartRun("stem", 0, 0.0, stem_ms), *runs))


def _array(rows: list[list[list[float]]]) -> NDArray[np.float32]:
    """Rows that may have any lengths: of none of the right shape if they differ."""
    try:
        return np.asarray(rows, np.float32)
    except ValueError:
        return np.empty((0, 0, 0), np.float32)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def _folder_hash(folder: Path) -> str:
    """Of the names and contents of the files below it."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()

"""Measures a device over adb: a small program runs the requests there, this side makes the profile."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
import secrets
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
from paraedge_measure.connections.processes import MAX_SILENCE_S, ended_when_silent, last_line, run_process
from paraedge_measure.device import Adb, Hardware, Measurement, TimerJitter, WakeUp
from paraedge_measure.hardware import read_hardware
from paraedge_measure.outputs import Inputs, checked_outputs
from paraedge_measure.profiling import Progress, SeriesLength, profile_on
from paraedge_measure.testbed import ColdStart, RequestTimes
from paraedge_runtime import Bundle, PartRun
from paraedge_runtime.cache_folder import own_folder
from paraedge_runtime.errors import DeviceError, InputError

__all__ = ["AdbConnection"]

_T = TypeVar("_T")

_PROGRAM = "paraedge-testbed"
_ADVICE = {
    "unauthorized": "unlock it and allow debugging by this computer",
    "authorizing": "wait until it has answered, then try again",
    "offline": "unplug it and plug it in again, or 'adb reconnect'",
    "permissions": "Debian's package android-sdk-platform-tools-common lets users reach it; then plug it in again",
}
_MAX_STATE_S = 60.0  # the client's own answers; it may start its server first
_MAX_LISTED = 8  # devices in a message
# What hardware.py reads, as a shell finds it; what a device does not let the shell read is left out.
_SYSTEM_FILES = (
    "/proc/cpuinfo /proc/meminfo /proc/stat /proc/device-tree/model /sys/devices/system/cpu/present "
    "/sys/devices/system/cpu/cpu*/cpu_capacity /sys/devices/system/cpu/cpu*/cpufreq/cpuinfo_max_freq "
    "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor /sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq "
    "/sys/class/thermal/thermal_zone*/type /sys/class/thermal/thermal_zone*/temp "
    "/sys/class/thermal/cooling_device*/type /sys/class/thermal/cooling_device*/cur_state"
)
_MARK = "@@paraedge "
# Their names when they come back; each * stands for a number. Nothing else that a device says becomes a file.
_SYSTEM_NAMES = re.compile(
    "|".join(
        re.escape(name).replace(r"\*", "[0-9]{1,4}")
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
    'release=$(getprop ro.build.version.release 2>/dev/null) && echo "PRETTY_NAME=Android $release"; '
    f'echo; echo "{_MARK}/machine"; uname -m; echo; echo "{_MARK}/kernel"; uname -sr'
)


class AdbConnection:
    """The adb client, and ``paraedge-testbed`` on the device."""

    def __init__(self, connection: Adb) -> None:
        self._to = connection

    @functools.cached_property
    def _serial(self) -> str:
        """The one that was named, or else that of the only device that is attached."""
        return _only_serial() if self._to.serial is None else self._to.serial

    def hardware(self) -> Hardware:
        """Read the device's hardware."""
        _check_state(self._serial)
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            self.read_system(root)
            found = read_hardware(root, machine=_text(root / "machine"), kernel=_text(root / "kernel"))
        try:
            return msgspec.convert(msgspec.to_builtins(found), Hardware)
        except msgspec.ValidationError as error:
            raise DeviceError(
                f"{self._serial} sent an invalid description of itself: {plain_line(str(error))}"
            ) from error

    def measure(
        self, bundle: Bundle, *, engine: str | None, threads: Sequence[int], length: SeriesLength, on_progress: Progress
    ) -> tuple[Measurement, ...]:
        """Push what is missing, and measure there."""
        _need_executorch(engine or bundle.manifest.engine)
        cores = self.hardware().cores
        on_progress(0.0, 1.0, f"sending {bundle.manifest.name}")
        command = (self._push_tools(), self._push_bundle(bundle))
        with tempfile.TemporaryDirectory() as scratch:
            bed = _AdbTestBed(self, command, bundle.manifest.branch_indexes, cores, Path(scratch))
            with closing(bed):
                return profile_on(bed, bundle, threads=threads or None, length=length, on_progress=on_progress)

    def branch_outputs(self, bundle: Bundle, inputs: Inputs, *, on_progress: Progress) -> NDArray[np.float32]:
        """Push what is missing and the inputs, run them there, and remove them."""
        _need_executorch(bundle.manifest.engine)
        _check_state(self._serial)
        on_progress(0.0, 1.0, f"sending {bundle.manifest.name} and {len(inputs)} inputs")
        command = (self._push_tools(), self._push_bundle(bundle))
        path = f"{self._to.folder}/inputs-{secrets.token_hex(6)}"
        found = []
        try:
            with tempfile.TemporaryDirectory() as scratch:
                Path(scratch, "inputs").mkdir()
                Path(scratch, "inputs", "all").write_bytes(np.ascontiguousarray(inputs).tobytes())
                self._push(Path(scratch, "inputs"), path)
            with closing(self.start(command, [1])) as program:
                for first in range(0, len(inputs), _INPUTS_A_LINE):
                    count = min(_INPUTS_A_LINE, len(inputs) - first)
                    on_progress(first, len(inputs), "running")
                    rows = program.ask(f"outputs 1 {first} {count} {path}/all", list[list[list[float]]])
                    found.append(checked_outputs(_array(rows), bundle, count))
        finally:
            self._remove(path)
        return np.concatenate(found)

    def read_system(self, folder: Path) -> None:
        """Write what the device's /proc and /sys say now into ``folder``.

        Raises:
            DeviceError: it names a file that nobody asked for.
        """
        for piece in self._shell(_SYSTEM_SCRIPT).split(f"\n{_MARK}")[1:]:
            name, _, text = piece.partition("\n")
            name = name.rstrip("\r")
            if _SYSTEM_NAMES.fullmatch(name) is None:
                raise DeviceError(
                    f"{self._serial} sent a file that was not requested, {plain_line(name, 80)!r}; do not "
                    "trust that device"
                )
            place = folder / name.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")

    def start(self, command: tuple[str, str], threads: Sequence[int]) -> _Testbed:
        """``paraedge-testbed`` on the device; ``command`` is the folder that it is in, and the bundle."""
        tools, bundle = map(shlex.quote, command)
        program = f"LD_LIBRARY_PATH={tools} exec {tools}/{_PROGRAM} {bundle} {','.join(map(str, threads))}"
        return _Testbed(["adb", "-s", self._serial, "shell", "-T", program], self._serial)

    def _push_tools(self) -> str:
        """The folder with the program and its libraries; its name over there has the hash of what is in it."""
        chosen = self._to.tools
        tools = Path(chosen) if chosen is not None else own_folder("phone-tools")
        if not (tools / _PROGRAM).is_file():
            where = f"'connection.tools' is {chosen!r}: no folder with" if chosen is not None else f"{tools} has no"
            raise DeviceError(
                f"{self._serial} responds, but {where} {_PROGRAM}; 'make phone-tools' in a checkout of paraedge "
                "builds it for 64-bit Arm, and the documentation (Phones) explains how for others"
            )
        return self._push(tools, f"{self._to.folder}/tools-{_folder_hash(tools)[:12]}")

    def _push_bundle(self, bundle: Bundle) -> str:
        """The bundle; the program checks each of its files when it opens them."""
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch, "bundle")
            folder.mkdir()
            for name, data in bundle.files().items():
                place = folder / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
            return self._push(folder, f"{self._to.folder}/{bundle.manifest.name}-{bundle.sha256[:12]}.paraedge")

    def _push(self, folder: Path, path: str) -> str:
        """Unless it is there, the folder appears over there as ``path``, whole or not at all."""
        there = shlex.quote(path)
        if self._shell(f"if [ -d {there} ]; then echo yes; fi").strip() == "yes":
            return path
        sent = f"{path}.{secrets.token_hex(6)}.new"  # another process may send the same now
        new, nested = shlex.quote(sent), shlex.quote(f"{path}/{sent.rpartition('/')[2]}")
        self._shell(f"mkdir -p {shlex.quote(self._to.folder)}")
        try:
            self._adb("push", str(folder.absolute()), sent)
            self._shell(f"chmod -R 755 {new} && mv {new} {there} && rm -rf {nested}")  # mv moves into what came first
        except BaseException:  # Ctrl-C too: half of it would take the room that it needs
            self._remove(sent)
            raise
        return path

    def _remove(self, path: str) -> None:
        """As far as the device lets it: where it does not, another error is on its way."""
        with contextlib.suppress(DeviceError):
            self._shell(f"rm -rf {shlex.quote(path)}")

    def _shell(self, script: str) -> str:
        return self._adb("shell", script)

    def _adb(self, *arguments: str) -> str:
        stdout, stderr, code = run_process(["adb", "-s", self._serial, *arguments])
        if code != 0:
            _check_state(self._serial)  # a device that is gone has a better reason
            said = last_line(stderr or stdout)
            is_full = "No space left" in said
            advice = "try the same by hand"
            if is_full:
                advice = f"'adb shell rm -r {self._to.folder}' removes what paraedge keeps there"
            raise DeviceError(f"adb {arguments[0]} to {self._serial} failed: {said}; {advice}")
        return stdout


def _check_state(serial: str) -> None:
    """Raises ``DeviceError`` with what to do where the device is not there, or does not listen."""
    stdout, stderr, code = run_process(["adb", "-s", serial, "get-state"], max_silence_s=_MAX_STATE_S)
    if code == 0 and stdout.strip() == "device":
        return
    lines = [*stderr.splitlines(), *stdout.splitlines()]
    said = plain_line(next((line.strip() for line in lines if "error" in line), stdout.strip() or last_line(stderr)))
    advice = next((advice for word, advice in _ADVICE.items() if word in said), None)
    if advice is None and "not found" in said:
        others = _listed(_attached())
        advice = f"attached: {others}; is one of these 'connection.serial'?" if others else None
    advice = advice or "'adb devices' lists what is there; switch on USB debugging on the device"
    raise DeviceError(f"{serial} cannot be reached: {said}; {advice}")


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

    def __init__(self, command: list[str], serial: str) -> None:
        self._serial = serial
        self._stderr = b""  # the last of it
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
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
        """End adb. Closing its input first ends the program over there too, which may hold the other end of stderr."""
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
        said = plain_line(line.decode(errors="replace")).strip() or last_line(self._stderr.decode(errors="replace"))
        if watch.ended:
            said = f"it said nothing for {MAX_SILENCE_S:g} s"
        else:
            _check_state(self._serial)  # was it unplugged?
        raise DeviceError(
            f"{_PROGRAM} on {self._serial} ended: {said}; check that it is built for this device, with its libraries "
            "beside it"
        )


class _AdbTestBed:
    """A device that ``paraedge-testbed`` runs on."""

    engine = "executorch"
    parallel = True

    def __init__(
        self,
        connection: AdbConnection,
        command: tuple[str, str],
        branches: tuple[int, ...],
        cores: int,
        scratch: Path,
    ) -> None:
        self.cores, self.core_numbers = cores, frozenset(range(cores))
        self.engine_version = ""
        self._connection, self._command, self._branches = connection, command, branches
        self._scratch = scratch
        self._program: _Testbed | None = None

    def open(self, threads: Sequence[int]) -> None:
        self._program = self._connection.start(self._command, threads)
        self.engine_version = self._program.hello.executorch

    def run(self, threads: int, branches: int, count: int) -> list[RequestTimes]:
        assert self._program is not None
        return self._requests(self._program, threads, branches, count)

    def cold_start(self, threads: int) -> ColdStart:
        program = self._connection.start(self._command, [threads])
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
        self._connection.read_system(self._scratch)
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


def _need_executorch(engine: str) -> None:
    if engine != "executorch":
        raise InputError(f"over adb only executorch bundles can be measured, not {engine}; export one")


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

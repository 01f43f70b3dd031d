"""What else the machine does while it is measured: nothing, hogs in processes of their own, less CPU time or clock.

Every interference is a context manager: it has begun when the block begins, and nothing of it is left when
the block ends, by an error or Ctrl-C included.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from paraedge_measure.hardware import cpu_control_group
from paraedge_runtime._arguments import as_instance, shown
from paraedge_runtime.cores import available_cores
from paraedge_runtime.errors import DeviceError, InputError

__all__ = ["INTERFERENCES", "Align", "InterferenceSettings", "open_interference", "throttle_means", "throttle_share"]

HOG = Path(__file__).with_name("hog.py")
QUOTA_PERIOD_US = 100_000  # the kernel's own default, and that of containers
# Of 'throttle': short beside a request, so that it is slowed down and not stopped, as by a lower clock.
_THROTTLE_QUOTA_PERIOD_US, _LEAST_QUOTA_US = 5_000, 1_000
_THROTTLE_STEPS = 8  # of a period: four down, four up
_HOG_PERIOD_S, _HOGS_PER_CORE = 0.01, 3
_CPUFREQ = Path("/sys/devices/system/cpu/cpufreq")

Align = Callable[[float], None]


@dataclass(frozen=True)
class InterferenceSettings:
    """How strong an interference is.

    Attributes:
        hogs: processes that compete for the cores.
        square_period_s: period of the square wave, busy in its first half.
        quota: fraction of the cores that this process may use; with 'throttle' the lowest.
        throttle_period_s: period of 'throttle', from full speed to the lowest and back.
    """

    hogs: int
    square_period_s: float
    quota: float
    throttle_period_s: float = 120.0


def _none(settings: InterferenceSettings) -> AbstractContextManager[Align]:
    return contextlib.nullcontext(lambda origin_s: None)


@contextlib.contextmanager
def _hogs(kind: str, count: int, period_s: float) -> Iterator[Align]:
    with contextlib.ExitStack() as stack:
        pipes = [stack.enter_context(_hog(kind, period_s)) for _ in range(count)]

        def align(origin_s: float) -> None:
            for pipe in pipes:
                try:
                    pipe.write(f"{origin_s!r}\n")
                    pipe.flush()
                except BrokenPipeError:
                    raise DeviceError(f"a {kind} hog was ended from outside; run the cell again") from None

        yield align


@contextlib.contextmanager
def _hog(kind: str, period_s: float) -> Iterator[IO[str]]:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(HOG), kind, repr(period_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for us; the hog ends with its standard input
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise DeviceError(f"the {kind} hog did not start: exit status {process.wait()}")
        yield process.stdin
    finally:
        process.kill()
        process.wait()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()


SetShare = Callable[[float], None]
"""Called with the share of its speed that the processor shall have from now on."""


@contextlib.contextmanager
def _quota(settings: InterferenceSettings) -> Iterator[Align]:
    with _limited_group("quota", QUOTA_PERIOD_US) as set_share:
        set_share(settings.quota)
        yield lambda origin_s: None


@contextlib.contextmanager
def _limited_group(name: str, period_us: int) -> Iterator[SetShare]:
    """This process in a control group of its own, below the one it was started in.

    With version 2 a group has either processes or children with limits, so the controller is switched on
    for the children only once this process is one of them.
    """
    pid = str(os.getpid())
    try:
        version, home = cpu_control_group()
        leaf = home / f"paraedge-bench-{pid}"
        with contextlib.ExitStack() as undo:
            leaf.mkdir()
            undo.callback(leaf.rmdir)
            (leaf / "cgroup.procs").write_text(pid)
            undo.callback((home / "cgroup.procs").write_text, pid)
            if version == 2 and "cpu" not in (home / "cgroup.subtree_control").read_text().split():
                (home / "cgroup.subtree_control").write_text("+cpu")
                undo.callback((home / "cgroup.subtree_control").write_text, "-cpu")

            def set_share(share: float) -> None:
                quota_us = max(round(share * available_cores() * period_us), _LEAST_QUOTA_US)
                if version == 2:
                    (leaf / "cpu.max").write_text(f"{quota_us} {period_us}")
                else:
                    (leaf / "cpu.cfs_period_us").write_text(str(period_us))
                    (leaf / "cpu.cfs_quota_us").write_text(str(quota_us))

            set_share(1.0)  # that it may not is known now
            ready = undo.pop_all()
    except OSError as error:
        raise InputError(
            f"interference {name!r} needs a control group that this user may change, and there is none ({error}); "
            f"run as root or under 'systemd-run --user --scope -p Delegate=yes', or leave {name!r} out"
        ) from error
    with ready:
        yield set_share


# Throttling: a processor that is slowed down and up again ------------------------------------------


@contextlib.contextmanager
def _lower_clock() -> Iterator[SetShare]:
    """cpufreq's highest clock of every core, for those who may write it; afterwards it is what it was."""
    try:
        policies = sorted(_CPUFREQ.glob("policy[0-9]*"))
        if not policies:
            raise FileNotFoundError(f"there is no policy in {_CPUFREQ}")
        with contextlib.ExitStack() as undo:
            limits = []
            for policy in policies:
                path, now = policy / "scaling_max_freq", (policy / "scaling_max_freq").read_text()
                path.write_text(now)
                undo.callback(path.write_text, now)
                limits.append((path, int(now), int((policy / "cpuinfo_min_freq").read_text())))
            ready = undo.pop_all()
    except (OSError, ValueError) as error:
        raise InputError(f"this machine does not let you set its clock ({error})") from error

    def set_share(share: float) -> None:
        for path, highest_khz, lowest_khz in limits:
            path.write_text(str(max(round(share * highest_khz), lowest_khz)))

    with ready:
        yield set_share


@contextlib.contextmanager
def _taken_time() -> Iterator[SetShare]:
    """A stand-in where neither clock nor quota may be set: hogs on every core that take the rest of its time.

    Three to a core get three quarters of it while they work, so a quarter is the least that is left.
    """
    with contextlib.ExitStack() as stack:
        count = _HOGS_PER_CORE * available_cores()
        pipes = [stack.enter_context(_hog("compute", _HOG_PERIOD_S)) for _ in range(count)]

        def set_share(share: float) -> None:
            busy = min((1.0 - share) * (_HOGS_PER_CORE + 1) / _HOGS_PER_CORE, 1.0)
            for pipe in pipes:
                pipe.write(f"{time.monotonic()!r} {busy!r}\n")
                pipe.flush()

        set_share(1.0)
        yield set_share


_THROTTLES: dict[str, Callable[[], AbstractContextManager[SetShare]]] = {
    "the highest clock (cpufreq)": _lower_clock,
    "CPU time (control group)": lambda: _limited_group("throttle", _THROTTLE_QUOTA_PERIOD_US),
    "hogs that take CPU time, a stand-in": _taken_time,
}


def _open_throttle(stack: contextlib.ExitStack) -> tuple[str, SetShare]:
    for means, opened in _THROTTLES.items():
        with contextlib.suppress(InputError):
            return means, stack.enter_context(opened())
    raise DeviceError("no process can be started here that takes CPU time")


def throttle_means() -> str:
    """What 'throttle' lowers on this machine, in words."""
    with contextlib.ExitStack() as stack:
        return _open_throttle(stack)[0]


def throttle_share(elapsed_s: float, period_s: float, least: float) -> float:
    """The share of its speed that the processor has: from 1 in four equal steps to the least and back."""
    step = int(elapsed_s / period_s * _THROTTLE_STEPS) % _THROTTLE_STEPS
    depth = 1.0 - abs(step / (_THROTTLE_STEPS / 2) - 1.0)  # 0, 1/4, 1/2, 3/4, 1, 3/4, ...
    return 1.0 - (1.0 - least) * depth


@contextlib.contextmanager
def _throttle(settings: InterferenceSettings) -> Iterator[Align]:
    """Steps from the block's begin on, by the clock on the wall: all policies meet them in their turns."""
    with contextlib.ExitStack() as stack:
        _, set_share = _open_throttle(stack)
        done, failed = threading.Event(), list[OSError]()
        step_s, started_s = settings.throttle_period_s / _THROTTLE_STEPS, time.monotonic()

        def step_on() -> None:
            number = 0
            while not done.wait(max(started_s + number * step_s - time.monotonic(), 0.0)):
                try:
                    set_share(throttle_share((number + 0.5) * step_s, settings.throttle_period_s, settings.quota))
                except OSError as error:
                    failed.append(error)
                    return
                number += 1

        def align(origin_s: float) -> None:
            if failed:
                raise DeviceError(f"the processor could not be slowed down any more: {failed[0]}; run the cell again")

        thread = threading.Thread(target=step_on, daemon=True)
        thread.start()
        try:
            yield align
        finally:
            done.set()
            thread.join()


INTERFERENCES: dict[str, Callable[[InterferenceSettings], AbstractContextManager[Align]]] = {
    "none": _none,
    "compute": lambda settings: _hogs("compute", settings.hogs, 0.0),
    "memory": lambda settings: _hogs("memory", settings.hogs, 0.0),
    "square": lambda settings: _hogs("compute", settings.hogs, settings.square_period_s),
    "quota": _quota,
    "throttle": _throttle,
}


def open_interference(name: str, settings: InterferenceSettings) -> AbstractContextManager[Align]:
    """Create an interference by name. It runs during the ``with`` block.

    The block gets a function: call it with a time of ``time.monotonic()`` at which the square wave has a rising edge.
    Other kinds of interference ignore the call.

    Raises:
        InputError: the name is unknown; in the ``with`` block, this user may not set the quota.
        DeviceError: in the ``with`` block, a hog did not start.
    """
    as_instance("settings", settings, InterferenceSettings)
    if not isinstance(name, str) or name not in INTERFERENCES:
        raise InputError(f"unknown interference {shown(name)}; choose from {', '.join(INTERFERENCES)}")
    return INTERFERENCES[name](settings)

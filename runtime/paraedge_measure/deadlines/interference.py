"""What else the machine does while it is measured: nothing, hogs in processes of their own, or a CPU quota.

Every interference is a context manager: it has begun when the block begins, and nothing of it is left when
the block ends, by an error or Ctrl-C included.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from paraedge_measure.hardware import cpu_control_group
from paraedge_runtime._arguments import as_instance, shown
from paraedge_runtime.cores import available_cores
from paraedge_runtime.errors import DeviceError, InputError

__all__ = ["INTERFERENCES", "Align", "InterferenceSettings", "open_interference"]

HOG = Path(__file__).with_name("hog.py")
QUOTA_PERIOD_US = 100_000  # the kernel's own default, and that of containers

Align = Callable[[float], None]


@dataclass(frozen=True)
class InterferenceSettings:
    """How strong an interference is.

    Attributes:
        hogs: processes that compete for the cores.
        square_period_s: of the on/off square wave: busy for its first half.
        quota: of the cores that this process may use.
    """

    hogs: int
    square_period_s: float
    quota: float


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


@contextlib.contextmanager
def _quota(settings: InterferenceSettings) -> Iterator[Align]:
    """This process in a control group of its own, below the one it was started in.

    With version 2 a group has either processes or children with limits, so the controller is switched on
    for the children only once this process is one of them.
    """
    budget_us = round(settings.quota * available_cores() * QUOTA_PERIOD_US)
    pid = str(os.getpid())
    try:
        version, home = cpu_control_group()
        leaf = home / f"paraedge-bench-{pid}"
        with contextlib.ExitStack() as undo:
            leaf.mkdir()
            undo.callback(leaf.rmdir)
            (leaf / "cgroup.procs").write_text(pid)
            undo.callback((home / "cgroup.procs").write_text, pid)
            if version == 2:
                if "cpu" not in (home / "cgroup.subtree_control").read_text().split():
                    (home / "cgroup.subtree_control").write_text("+cpu")
                    undo.callback((home / "cgroup.subtree_control").write_text, "-cpu")
                (leaf / "cpu.max").write_text(f"{budget_us} {QUOTA_PERIOD_US}")
            else:
                (leaf / "cpu.cfs_period_us").write_text(str(QUOTA_PERIOD_US))
                (leaf / "cpu.cfs_quota_us").write_text(str(budget_us))
            ready = undo.pop_all()
    except OSError as error:
        raise InputError(
            f"interference 'quota' needs a control group that this user may change, and there is none ({error}); "
            "run as root or under 'systemd-run --user --scope -p Delegate=yes', or leave 'quota' out"
        ) from error
    with ready:
        yield lambda origin_s: None


INTERFERENCES: dict[str, Callable[[InterferenceSettings], AbstractContextManager[Align]]] = {
    "none": _none,
    "compute": lambda settings: _hogs("compute", settings.hogs, 0.0),
    "memory": lambda settings: _hogs("memory", settings.hogs, 0.0),
    "square": lambda settings: _hogs("compute", settings.hogs, settings.square_period_s),
    "quota": _quota,
}


def open_interference(name: str, settings: InterferenceSettings) -> AbstractContextManager[Align]:
    """An interference by name; it begins with the ``with`` block.

    What the block gets is called with a time (``time.monotonic()`` seconds) at which the square wave
    shall have a rising edge; others take no notice.

    Raises:
        InputError: unknown name; within ``with``, a quota that this user may not set.
        DeviceError: within ``with``, a hog did not start.
    """
    as_instance("settings", settings, InterferenceSettings)
    if not isinstance(name, str) or name not in INTERFERENCES:
        raise InputError(f"unknown interference {shown(name)}; choose from {', '.join(INTERFERENCES)}")
    return INTERFERENCES[name](settings)

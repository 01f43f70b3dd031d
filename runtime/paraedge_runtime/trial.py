"""A program's first run, in a process of its own: a damaged one with a right hash may kill whoever loads it.

What the check of programs refuses is not run at all. What came through is remembered in the user's cache folder by its
hash, the engine's version and the machine, and not tried there again.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from paraedge_runtime.bundle import Bundle
from paraedge_runtime.cache_folder import own_folder
from paraedge_runtime.engines import ENGINES, check_delegates, engine_info, open_engine
from paraedge_runtime.engines.base import check_program
from paraedge_runtime.errors import EngineError, EngineUnavailable, InputError, IntegrityError, ParaEdgeError
from paraedge_runtime.manifest import CARD_NAME, PartEntry
from paraedge_runtime.session import Session

__all__ = ["EngineFound", "remember_bundle", "remember_part", "try_bundle", "try_engine", "try_part"]

# The child's exit statuses. Python itself ends with 0, 1 or 2, and so may a program that ends its process.
_DONE = 74  # everything ran
_NOT_THERE = 75  # what stands there is not the bundle that was opened
_REFUSED = 76  # an error that whoever opens it in this process gets as well
_NO_START = 1  # Python found no module to run, or failed in it before the first run
_TIMEOUT_S = 300.0
# Memory that was never written is zero in a young process, and anything in one that has run for long. With this, glibc
# fills it with a pattern: what a program reads beyond its own shows here.
_FOUND_MEMORY = {"MALLOC_PERTURB_": "165"}
_HINT = "a program in it is damaged or hostile; export the bundle again"


class EngineFound(msgspec.Struct, frozen=True):
    """An engine that was opened in a process of its own; see ``Engine``."""

    distribution: str
    description: str
    parallel: bool


class _EngineReply(msgspec.Struct, frozen=True):
    found: EngineFound | None = None
    problem: str = ""


def try_bundle(
    bundle: Bundle,
    *,
    engine: str | None = None,
    called: str | os.PathLike[str] | None = None,
    timeout_s: float = _TIMEOUT_S,
) -> None:
    """Load all parts of a bundle and run its golden inputs, in a child process; once on this machine.

    An error there is no matter: whoever opens the bundle afterwards gets the same one. What counts is whether the
    process lives.

    Args:
        bundle: a folder or zip that is still there; what the child runs has the same hashes.
        engine: another one than the manifest's.
        called: what messages call the bundle, where it is not its path.
        timeout_s: until the child is taken for hanging, its start included.

    Raises:
        IntegrityError: a program is not sound, killed or ended its process, or did not come back; or the bundle was
            changed since.
        EngineUnavailable: a part is for a delegate that this machine lacks.
        EngineError: no child process can be started, or it cannot run paraedge.
    """
    chosen = bundle.manifest.engine if engine is None else engine
    key = _key("bundle", bundle.sha256, chosen)
    if _is_remembered(key):
        return
    name = str(bundle.path if called is None else called)
    check_delegates(chosen, bundle.manifest.parts().values())
    _check_programs(bundle, chosen, name)
    status, _ = _in_child(name, ["bundle", str(bundle.path.absolute()), bundle.sha256, chosen], timeout_s)
    if status == _NOT_THERE:
        raise IntegrityError(f"{name} was changed since it was opened, and not tried; open it again")
    if status == _DONE:
        _remember(key)
    elif status != _REFUSED:
        raise IntegrityError(f"{name}: its first run {_end(status)}; {_HINT}")


def _check_programs(bundle: Bundle, engine: str, called: str) -> None:
    """Refuse what is not sound, or has other operators than the card says, which the manifest has the hash of."""
    known = ENGINES.get(engine)
    for name, entry in bundle.manifest.parts().items():
        if known is None or not entry.file.endswith(known.suffix):
            continue  # the session says which engine runs such files
        found, listed = check_program(engine, entry.file, bundle.program(entry)), bundle.card.parts[name].operators
        differing = sorted(kind for kind in found | listed if found.get(kind, 0) != listed.get(kind, 0))
        if found and differing:
            first = differing[0]
            raise IntegrityError(
                f"{called}: {entry.file} has the operator {first!r} {_times(found.get(first, 0))}, "
                f"{CARD_NAME} says {_times(listed.get(first, 0))}; export the bundle again"
            )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def try_part(engine: str, name: str, program: bytes, entry: PartEntry, *, timeout_s: float = _TIMEOUT_S) -> None:
    """Load one program and run it on zeros, in a child process; once on this machine.

    Args:
        engine: that runs it.
        name: ``stem`` or ``branch_NN``.
        program: its bytes.
        entry: what the manifest would say about it.
        timeout_s: until the child is taken for hanging.

    Raises:
        IntegrityError: it is not sound, killed or ended its process, or did not come back.
        EngineError: no child process can be started, or it cannot run paraedge.
    """
    key = _key("part", entry.sha256, engine)
    if _is_remembered(key):
        return
    check_program(engine, entry.file, program)
    arguments = ["part", engine, name, msgspec.json.encode(entry).decode()]
    status, _ = _in_child(name, arguments, timeout_s, program)
    if status == _DONE:
        _remember(key)
    elif status != _REFUSED:
        raise IntegrityError(f"{name}: its first run {_end(status)}; the program is damaged or hostile")


def try_engine(name: str, *, timeout_s: float = _TIMEOUT_S) -> EngineFound:
    """Open an engine in a child process: some builds of engines end the process that loads them on some processors.

    Raises:
        InputError: there is no engine of that name.
        EngineUnavailable: it is not installed, cannot be loaded, or ends its process.
        EngineError: no child process can be started, or it cannot run paraedge.
    """
    engine_info(name)
    status, output = _in_child(f"the engine {name!r}", ["engine", name], timeout_s)
    if status != _DONE:
        raise EngineUnavailable(
            f"the engine {name!r} {_end(status)} when it was opened; install a build of it for this processor"
        )
    try:
        reply = msgspec.json.decode(output.splitlines()[-1], type=_EngineReply)
    except (IndexError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise EngineUnavailable(f"the engine {name!r} did not report its version; install it again") from None
    if reply.found is None:
        raise EngineUnavailable(reply.problem)
    return reply.found


def remember_bundle(bundle: Bundle) -> None:
    """Note that a bundle ran in this process."""
    _remember(_key("bundle", bundle.sha256, bundle.manifest.engine))


def remember_part(engine: str, entry: PartEntry) -> None:
    """Note that a program ran in this process."""
    _remember(_key("part", entry.sha256, engine))


def _key(kind: str, sha256: str, engine: str) -> str:
    """What is remembered: these bytes, on this machine, in this version of the engine and of paraedge."""
    versions = {}
    known = ENGINES.get(engine)  # the child refuses one that nobody knows
    for distribution in ("paraedge", *(known.distributions if known else ())):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[distribution] = importlib.metadata.version(distribution)
    where = [platform.node(), platform.machine(), sys.version]
    return hashlib.sha256(json.dumps([kind, sha256, engine, versions, where]).encode()).hexdigest()


def _is_remembered(key: str) -> bool:
    try:
        return (own_folder("trials") / key).exists()
    except (InputError, OSError):
        return False


def _remember(key: str) -> None:
    """Where the cache can be written; elsewhere it is tried again each time."""
    with contextlib.suppress(InputError, OSError):
        (own_folder("trials") / key).touch()


def _in_child(what: str, arguments: list[str], timeout_s: float, given: bytes = b"") -> tuple[int, bytes]:
    """Exit status and output of this module in a process of its own."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "paraedge_runtime.trial", *arguments],
            input=given,
            stdout=subprocess.PIPE if arguments[0] == "engine" else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            env=os.environ | _FOUND_MEMORY,
        )
    except subprocess.TimeoutExpired:
        raise IntegrityError(f"{what}: its first run did not finish within {timeout_s:g} s; {_HINT}") from None
    except OSError as error:
        raise EngineError(
            f"{what} cannot be tried in a separate process: {error.strerror}; is {sys.executable!r} Python?"
        ) from error
    if done.returncode == _NO_START:
        raise EngineError(
            f"{what} cannot be tried in a separate process: it ended with status 1; check that "
            f"{shlex.join([sys.executable, '-P', '-c', 'import paraedge_runtime'])} works, else export it again"
        )
    return done.returncode, done.stdout or b""


def _end(status: int) -> str:
    """What an exit status says of a process that did not end as it should."""
    if status >= 0:
        return f"ended its process with status {status}"
    try:
        return f"ended its process by {signal.Signals(-status).name}"
    except ValueError:
        return f"ended its process by signal {-status}"


# In the child -----------------------------------------------------------------------------------


def _run_bundle(path: str, sha256: str, engine: str) -> int:
    try:
        bundle = Bundle.open_untrusted(path)  # of the manifest that the parent has checked, or not at all
    except ParaEdgeError:
        return _NOT_THERE
    if bundle.sha256 != sha256:
        return _NOT_THERE
    with Session.open(bundle, engine=engine) as session:
        for value in bundle.golden().inputs:
            session.run(value)
    return _DONE


def _run_part(engine: str, name: str, entry: str) -> int:
    described = msgspec.json.decode(entry, type=PartEntry)
    part = open_engine(engine).load(name, sys.stdin.buffer.read(), described)
    part.run(np.zeros(described.input_shape, dtype=np.float32))
    part.close()
    return _DONE


def _show_engine(name: str) -> int:
    try:
        engine = open_engine(name)
    except ParaEdgeError as error:
        reply = _EngineReply(problem=str(error))
    else:
        reply = _EngineReply(EngineFound(engine.distribution, engine.description, engine.parallel))
    sys.stdout.write(msgspec.json.encode(reply).decode() + "\n")
    sys.stdout.flush()
    return _DONE


def _be_expendable() -> None:
    """End in time even without a parent, leave no core file, and be the first to go when memory runs out."""
    if hasattr(signal, "alarm"):
        signal.alarm(math.ceil(_TIMEOUT_S) + 1)
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _main(kind: str, *arguments: str) -> None:
    _be_expendable()
    deeds: dict[str, Callable[..., int]] = {"bundle": _run_bundle, "part": _run_part, "engine": _show_engine}
    try:
        status = deeds[kind](*arguments)
    except Exception:
        status = _REFUSED
    sys.exit(status)


if __name__ == "__main__":
    _main(*sys.argv[1:])

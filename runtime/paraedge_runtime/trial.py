"""A bundle's first run, in a process of its own: a damaged program with a right hash may kill whoever loads it."""

from __future__ import annotations

import contextlib
import shlex
import signal
import subprocess
import sys

from paraedge_runtime.bundle import Bundle
from paraedge_runtime.errors import EngineError, IntegrityError, ParaEdgeError
from paraedge_runtime.session import Session

__all__ = ["try_bundle"]

# The child's exit statuses. Python itself ends with 0, 1 or 2, and so may a program that ends its process.
_DONE = 74  # the first run came to its end
_NOT_THERE = 75  # what stands there is not the bundle that was opened
_NO_START = 1  # Python found no module to run, or failed in it before the first run


def try_bundle(bundle: Bundle, *, engine: str | None = None, timeout_s: float = 300.0) -> None:
    """Load all parts of a bundle and run its first golden input, in a child process.

    An error there is no matter: whoever opens the bundle afterwards gets the same one. What counts is whether the
    process lives.

    Args:
        bundle: a folder or zip that is still there; what the child runs has the same hashes.
        engine: another one than the manifest's.
        timeout_s: until the child is taken for hanging, its start included.

    Raises:
        IntegrityError: a program killed or ended its process, or did not come back; or the bundle was changed since.
        EngineError: no child process can be started, or it cannot run paraedge.
    """
    arguments = [str(bundle.path.absolute()), bundle.sha256, engine or ""]
    hint = "a program in it is damaged or hostile; export the bundle again"
    try:
        status = subprocess.run(
            [sys.executable, "-P", "-m", "paraedge_runtime.trial", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
        ).returncode
    except subprocess.TimeoutExpired:
        raise IntegrityError(f"{bundle.path}: its first run did not end within {timeout_s:g} s; {hint}") from None
    except OSError as error:
        raise EngineError(
            f"{bundle.path} cannot be tried in a process of its own: {error.strerror}; is {sys.executable!r} Python?"
        ) from error
    if status == _NOT_THERE:
        raise IntegrityError(f"{bundle.path} was changed since it was opened, and not tried; open it again")
    if status == _NO_START:
        raise EngineError(
            f"{bundle.path} cannot be tried in a process of its own: it ended with status 1; check that "
            f"{shlex.join([sys.executable, '-P', '-c', 'import paraedge_runtime'])} works, else export it again"
        )
    if status != _DONE:
        raise IntegrityError(f"{bundle.path}: its first run {_end(status)}; {hint}")


def _end(status: int) -> str:
    """What an exit status says of a process that did not end as it should."""
    if status >= 0:
        return f"ended its process with status {status}"
    try:
        return f"ended its process by {signal.Signals(-status).name}"
    except ValueError:
        return f"ended its process by signal {-status}"


def _run(path: str, sha256: str, engine: str) -> None:
    """In the child."""
    try:
        bundle = Bundle.open_untrusted(path)  # of the manifest that the parent has checked, or not at all
    except ParaEdgeError:
        sys.exit(_NOT_THERE)
    if bundle.sha256 != sha256:
        sys.exit(_NOT_THERE)
    with contextlib.suppress(Exception), Session.open(bundle, engine=engine or None) as session:
        session.run(bundle.golden().inputs[0])
    sys.exit(_DONE)


if __name__ == "__main__":
    _run(*sys.argv[1:])

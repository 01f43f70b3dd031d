"""Keeps the session as it is wanted: another number of threads, another bundle on disk, load on or off."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from paraedge_demo.controls import Controls
from paraedge_demo.load import Load
from paraedge_runtime.bundle import Bundle
from paraedge_runtime.errors import DeviceError, ParaEdgeError
from paraedge_runtime.latency import REQUESTS_TO_LEARN
from paraedge_runtime.session import Session
from paraedge_runtime.trial import try_bundle

__all__ = ["Keeper", "open_session"]

LOOK_EVERY_S = 0.5

_Signature = tuple[tuple[str, int, int, int], ...]


def open_session(bundle: Bundle, threads: int) -> Session:
    """A session that has learned the speed of this device on the bundle's own images."""
    session = Session.open(bundle, threads=threads)
    try:
        images = bundle.golden().inputs
        for number in range(2 * REQUESTS_TO_LEARN):  # an engine may fail now and then
            if session.run(images[number % len(images)]).requests_to_learn == 0:
                break
        return session
    except BaseException:
        session.close()
        raise


class Keeper:
    """Runs in a thread of its own: ``run`` until ``stop`` is set.

    A new session is opened, its bundle verified, before the old one is closed; the loop goes on meanwhile.

    Args:
        session: opened already, on ``path``.
        path: of the bundle that is looked at.
        reopen: opens what stands there now, in place of the bundle it gets; a ``ParaEdgeError`` refuses it.
        on_bundle: called with the session whenever another bundle was loaded.
        tell: takes a message for people.
    """

    def __init__(
        self,
        session: Session,
        path: Path,
        reopen: Callable[[Bundle], Bundle],
        controls: Controls,
        stop: threading.Event,
        on_bundle: Callable[[Session], None],
        tell: Callable[[str], None],
    ) -> None:
        self._session = session
        self._path = path
        self._reopen = reopen
        self._controls = controls
        self._stop = stop
        self._on_bundle = on_bundle
        self._tell = tell
        self._in_use = threading.Lock()
        self._seen = _signature(path)
        self._opened_for = controls.settings.threads
        self._load = Load()

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """The session of now; it is not closed before the block ends."""
        with self._in_use:
            yield self._session

    def run(self) -> None:
        """Look after everything until stopped, then close it."""
        try:
            while not self._stop.is_set():
                self._controls.news.clear()
                self._look_after_load()
                self._look_after_session()
                self._controls.news.wait(LOOK_EVERY_S)
        finally:
            self._load.switch(False)
            with self._in_use:
                self._session.close()

    def _look_after_load(self) -> None:
        try:
            self._load.switch(self._controls.settings.load)
            self._load.keep()
        except DeviceError as error:
            self._tell(str(error))
            self._controls.change({"load": False})
            self._load.switch(False)

    def _look_after_session(self) -> None:
        threads = self._controls.settings.threads
        bundle = self._session.bundle
        signature = _signature(self._path)
        if signature != self._seen:
            self._seen = signature
            try:
                found = self._reopen(bundle)
            except ParaEdgeError as error:
                self._tell(f"the bundle on disk is refused, the one in memory stays: {error}")
            else:
                bundle = found if found.sha256 != bundle.sha256 else bundle
        if bundle is self._session.bundle and threads == self._opened_for:
            return
        self._opened_for = threads
        try:
            if bundle is not self._session.bundle:
                try_bundle(bundle)  # it may kill the process that loads it
            session = open_session(bundle, threads)
        except ParaEdgeError as error:
            self._tell(f"the session stays as it was: {error}")
            return
        with self._in_use:
            old, self._session = self._session, session
        old.close()
        if bundle is not old.bundle:
            self._on_bundle(session)
            self._tell(f"loaded another bundle: {bundle.manifest.name}, {len(bundle.manifest.branches)} branches")


def _signature(path: Path) -> _Signature:
    """Changes whenever a file of the bundle does; empty while there is none."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    found = []
    for file in files:
        with contextlib.suppress(OSError):  # it is being replaced just now
            status = file.stat()
            found.append((str(file), status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)

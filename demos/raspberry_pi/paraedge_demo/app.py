"""Puts the demo together: the threads that run the model or play a recording, and their orderly end."""

from __future__ import annotations

import math
import statistics
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from paraedge_demo.board import Board
from paraedge_demo.controls import BUDGET_RANGE_MS, Controls, Settings
from paraedge_demo.feed import Feed
from paraedge_demo.keeper import Keeper, open_session
from paraedge_demo.loop import Loop
from paraedge_demo.messages import FORMAT, Header
from paraedge_demo.records import Recorder, Replay, read_header
from paraedge_demo.shots import SourceOptions
from paraedge_demo.sources import open_source
from paraedge_measure.silence import engines_silent
from paraedge_runtime.bundle import Bundle
from paraedge_runtime.cores import available_cores
from paraedge_runtime.errors import InputError
from paraedge_runtime.session import Session
from paraedge_runtime.signature import TrustedKeys
from paraedge_runtime.trial import try_bundle
from paraedge_runtime.update import check_version

__all__ = ["App", "LiveOptions", "live_app", "replay_app"]

PATIENCE_S = 10.0  # a thread inside an engine cannot be cut short
SMALLEST_DEFAULT_MS = 5.0  # below, it is the scheduler of the operating system that a person would watch


@dataclass(frozen=True)
class LiveOptions:
    """What ``live_app`` runs.

    Attributes:
        bundle: its path.
        source: a key of ``SOURCES``.
        folder: of images, or of recordings for the source ``wav-folder``.
        camera: number, for the source ``camera``.
        fps: images per second, for a source without a speed of its own.
        budget_ms: twice what all branches take here when ``None``.
        threads: one per branch, up to the cores, when ``None``.
        policy, count, load: see ``Settings``.
        frames: predictions after which to stop; 0 for no end.
        record: file to write predictions to.
        trusted_keys: open only bundles that one of them signed; see ``Bundle.open``.
        allow_downgrade: load a bundle of a lower version too, when the one on disk changes.
        min_confidence: a prediction that is less sure is unknown; see ``Session.run``.
    """

    bundle: Path
    source: str = "packaged"
    folder: Path | None = None
    camera: int = 0
    fps: float = 15.0
    budget_ms: float | None = None
    threads: int | None = None
    policy: str = "anytime"
    count: int = 1
    load: bool = False
    frames: int = 0
    record: Path | None = None
    trusted_keys: TrustedKeys | None = None
    allow_downgrade: bool = False
    min_confidence: float | None = None


class App:
    """Runs its workers in threads of their own within a ``with`` block.

    Attributes:
        board: what there is to see.
        controls: what may be changed; ``None`` in a replay.
        stop: set it to end the demo; set by itself at an end or after a failure.
    """

    def __init__(self, board: Board, controls: Controls | None, stop: threading.Event) -> None:
        self.board = board
        self.controls = controls
        self.stop = stop
        self._workers: dict[str, Callable[[], None]] = {}
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []
        self._closing = ExitStack()

    def add(self, name: str, work: Callable[[], None]) -> None:
        """A worker: it returns soon after ``stop`` is set. What it raises ends the demo."""
        self._workers[name] = work

    def at_end(self, close: Callable[[], None]) -> None:
        """Call this when all workers have ended."""
        self._closing.callback(close)

    def __enter__(self) -> App:
        for name, work in self._workers.items():
            thread = threading.Thread(target=self._guarded, args=(work,), name=f"demo-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._failures.append(error)
            self.stop.set()

    def __exit__(self, *error: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        self._closing.close()
        if self._failures:
            raise self._failures[0]


def live_app(options: LiveOptions) -> App:
    """Images from a source, classified by a bundle.

    Raises:
        BundleError: the bundle is damaged or not trusted.
        EngineError: its engine is missing, or refuses it.
        InputError: an option cannot be.
    """
    if not (math.isfinite(options.fps) and options.fps > 0):
        raise InputError(f"fps must be above 0, got {options.fps}; 15 is the default")
    if options.min_confidence is not None and not 0 < options.min_confidence <= 1:
        raise InputError(f"min_confidence must be above 0 and at most 1, got {options.min_confidence}")
    bundle = Bundle.open(options.bundle, trusted_keys=options.trusted_keys)
    count = len(bundle.manifest.branches)
    cores = available_cores()
    threads = min(count, cores) if options.threads is None else options.threads
    first_ms = BUDGET_RANGE_MS[1] if options.budget_ms is None else options.budget_ms
    settings = Settings(first_ms, threads, options.policy, options.count, options.load)
    max_threads = max(cores, threads)
    controls = Controls(settings, max_threads=max_threads, max_count=count)
    stop = threading.Event()
    tell: list[str] = []
    source_options = SourceOptions(bundle, tell.append, options.folder, options.camera)
    source = open_source(options.source, source_options)
    with engines_silent():
        try_bundle(bundle)  # it may kill the process that loads it
        session = open_session(bundle, settings.threads)
    if options.budget_ms is None:
        controls.change({"budget_ms": _easy_budget_ms(session)})
    board = Board(_header(session, options.source, max_threads))
    app = App(board, controls, stop)
    if options.record is not None:
        app.at_end(Recorder(options.record, board).close)
    feed = Feed(source, SourceOptions(bundle, board.say, options.folder, options.camera), options.fps, stop)

    def use(session: Session) -> None:
        board.header = _header(session, options.source, max_threads)
        controls.fit(len(session.branches))
        feed.use(session.bundle)

    def reopen(current: Bundle) -> Bundle:
        found = Bundle.open(options.bundle, trusted_keys=options.trusted_keys)
        check_version(options.bundle, current.manifest, found.manifest, allow_downgrade=options.allow_downgrade)
        return found

    keeper = Keeper(session, options.bundle, reopen, controls, stop, use, board.say)
    app.add("keeper", keeper.run)
    app.add("loop", Loop(feed.frames, keeper, controls, board, stop, options.frames, options.min_confidence).run)
    app.add("feed", feed.run)
    return app


def replay_app(path: Path, ends: bool, frames: int = 0) -> App:
    """A recording, played back.

    Args:
        ends: whether the demo ends with it.
        frames: frames after which to stop; 0 for all.

    Raises:
        InputError: it is no recording.
    """
    board, stop = Board(read_header(path)), threading.Event()
    app = App(board, None, stop)
    app.add("replay", Replay(path, board, stop, ends, frames).run)
    return app


def _easy_budget_ms(session: Session) -> float:
    """All branches end well before it, and a smaller one soon leaves some out."""
    images = session.bundle.golden().inputs[:16]
    middle_ms: float = statistics.median(session.run(image).elapsed_ms for image in images)
    return min(max(round(2 * middle_ms), SMALLEST_DEFAULT_MS), BUDGET_RANGE_MS[1])


def _header(session: Session, source: str, max_threads: int) -> Header:
    manifest = session.bundle.manifest
    return Header(
        format=FORMAT,
        bundle=manifest.name,
        engine=session.engine.description,
        branches=session.branches,
        labels=manifest.labels,
        source=source,
        max_threads=max_threads if session.engine.parallel else 1,
    )

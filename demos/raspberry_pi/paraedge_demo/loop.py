"""The loop: the newest frame, a prediction within the budget, a record of it on the board."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from paraedge_demo.board import Board
from paraedge_demo.controls import Controls, Settings
from paraedge_demo.keeper import Keeper
from paraedge_demo.messages import FrameRecord, branch_bars, return_ms
from paraedge_demo.shots import Shot
from paraedge_runtime.errors import ParaEdgeError
from paraedge_runtime.frames import Frame, LatestFrame
from paraedge_runtime.prediction import Prediction
from paraedge_runtime.session import Session

__all__ = ["Loop"]

# Policy -> how a session is asked; every prediction is there at the deadline, or says that it is not.
_ASK: dict[str, Callable[[Session, int], dict[str, Any]]] = {
    "anytime": lambda session, count: {},
    "all": lambda session, count: {"policy": "all"},
    "static": lambda session, count: {"policy": "all", "branches": min(count, len(session.branches))},
}


class Loop:
    """Runs in a thread of its own: ``run`` until ``frames`` is closed, ``stop`` is set or enough frames are done.

    Args:
        frames: where the newest shot is.
        keeper: of the session.
        controls: what is wanted of it.
        board: where records go.
        stop: ends the demo; set after ``limit`` frames.
        limit: frames to process; 0 for no end.
        min_confidence: see ``Session.run``.
    """

    def __init__(
        self,
        frames: LatestFrame[Shot],
        keeper: Keeper,
        controls: Controls,
        board: Board,
        stop: threading.Event,
        limit: int = 0,
        min_confidence: float | None = None,
    ) -> None:
        self._frames = frames
        self._keeper = keeper
        self._controls = controls
        self._board = board
        self._stop = stop
        self._limit = limit
        self._min_confidence = min_confidence
        self._number = 0
        self._began_s = time.monotonic()

    def run(self) -> None:
        """Process frames. One that fails is reported, and the next one is tried."""
        for frame in self._frames:
            if self._stop.is_set():
                return
            settings = self._controls.settings
            try:
                with self._keeper.session() as session:
                    deadline_s = frame.arrived_s + settings.budget_ms / 1e3
                    prediction = session.run(
                        frame.image.image,
                        deadline_s=deadline_s,
                        min_confidence=self._min_confidence,
                        **_ASK[settings.policy](session, settings.count),
                    )
                    threads, indexes = session.threads, session.branches
            except ParaEdgeError as error:  # an image for the bundle before this one, branches that fail
                if self._stop.is_set():
                    return
                self._board.say(f"a frame failed: {error}")
                continue
            latency_ms = (time.monotonic() - frame.arrived_s) * 1e3
            record = self._record(frame, settings, prediction, threads, indexes, latency_ms)
            self._board.publish(record, frame.image.preview)
            if self._number == self._limit:
                self._stop.set()

    def _record(
        self,
        frame: Frame[Shot],
        settings: Settings,
        prediction: Prediction,
        threads: int,
        indexes: tuple[int, ...],
        latency_ms: float,
    ) -> FrameRecord:
        self._number += 1
        bars = branch_bars(prediction, indexes)
        label, confidence = prediction.label, round(prediction.confidence, 4)
        now_s = time.monotonic()  # last: what was done until here is overhead
        return FrameRecord(
            number=self._number,
            at_s=round(now_s - self._began_s, 4),
            name=frame.image.name,
            label=label,
            confidence=confidence,
            truth=frame.image.truth,
            latency_ms=round(latency_ms, 3),
            inference_ms=round(prediction.elapsed_ms, 3),
            overhead_ms=round((now_s - frame.arrived_s) * 1e3 - prediction.elapsed_ms, 3),
            stem_ms=round(prediction.timeline[0].end_ms, 3),
            deadline_met=prediction.deadline_met,
            branches=bars,
            budget_ms=settings.budget_ms,
            threads=threads,
            policy=settings.policy,
            count=settings.count,
            load=settings.load,
            dropped_frames=self._frames.dropped,
            requests_to_learn=prediction.requests_to_learn,
            return_ms=return_ms(prediction),
        )

"""A session without the native core: branches one after another in the caller's thread, deadlines checked in between.

For a machine without a wheel of paraedge and without a C++ compiler. Nothing is predicted, no branch is interrupted.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.engines.base import Engine, LoadedPart, SessionOptions
from paraedge_runtime.errors import EngineError, InputError, ParaEdgeError, RequestDropped
from paraedge_runtime.inputs import check_input, stem_input
from paraedge_runtime.manifest import InputSpec, PartEntry
from paraedge_runtime.prediction import BranchRun, BranchState, RawPrediction, softmax_confidence

__all__ = ["SequentialSession"]

_STEM_NOT_FINITE = "the stem's output is not finite"
_ADVICE = "'paraedge verify' checks the bundle on this device"


class SequentialSession:
    """Has the methods of ``_native.Session``."""

    threads = 1
    mandatory_ms = math.nan

    def __init__(
        self, engine: Engine, parts: Sequence[tuple[str, bytes, PartEntry]], spec: InputSpec, options: SessionOptions
    ) -> None:
        self._spec, self._options = spec, options
        self._parts = dict[int, tuple[LoadedPart, tuple[int, ...]]]()  # with the shape of its output; -1: the stem
        self._lock, self._thread = threading.Lock(), 0  # one request at a time, in this thread
        try:
            for name, program, entry in parts:
                part = engine.load(name, program, entry)
                self._parts[getattr(entry, "index", -1)] = part, tuple(entry.output_shape)
        except BaseException:
            self.close()
            raise
        self._indexes = [index for index in self._parts if index >= 0]

    def run(
        self, data: NDArray[Any], first_branches: int = 0, branches: Sequence[int] | None = None,
        deadline_s: float = math.inf, leave_s: float = math.inf, all: bool = False, early_stop: bool = False,
        on_prediction: Callable[[RawPrediction], bool] | None = None, is_cancelled: Callable[[], bool] | None = None,
        drop: bool = False,
    ) -> RawPrediction:  # fmt: skip
        """Run the stem, then branches until the deadline; see ``Session.run``."""
        wanted = list(branches or self._indexes[: first_branches or None])
        if early_stop and wanted != self._indexes[: len(wanted)]:
            raise InputError("early stop is calibrated for the first branches; run those, or run without early stop")
        with self._turn():
            started_s = monotonic()
            if not self._parts:
                raise EngineError("the session is closed; open a new one")
            if drop and started_s >= deadline_s:
                raise RequestDropped(
                    f"the request was dropped: its deadline passed {(started_s - deadline_s) * 1e3:.2f} ms ago; "
                    "give it more time, or let requests run late instead of dropping them"
                )
            tokens, problem = self._output(-1, stem_input(check_input(data, self._spec), self._spec))
            if tokens is None or not np.isfinite(tokens).all():
                raise EngineError(f"{problem or _STEM_NOT_FINITE}; {_ADVICE}")
            times = started_s, (monotonic() - started_s) * 1e3, deadline_s
            runs, rows, is_enough = list[BranchRun](), list[NDArray[np.float32]](), False
            for index in wanted:
                if is_enough or (is_cancelled and is_cancelled()) or (rows and monotonic() >= min(deadline_s, leave_s)):
                    state = BranchState.NOT_NEEDED if is_enough else BranchState.LATE
                    runs.append(BranchRun(index, state, -1, 0.0, 0.0, math.nan, math.nan, ""))
                    continue
                runs.append(self._branch(index, tokens, rows, started_s))
                is_last = len(runs) == len(wanted)
                is_enough = early_stop and len(rows) == len(runs) and not is_last and self._is_confident(rows)
                if on_prediction and runs[-1].state == BranchState.USED and not is_enough and not is_last:
                    is_enough = not on_prediction(self._prediction(runs, rows, times))
            return self._prediction(runs, rows, times)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._thread == threading.get_ident():
            raise EngineError(
                "the session was called from a request of its own, which it would wait for; call it when that request "
                "has returned, or open a second session"
            )
        with self._lock:
            self._thread = threading.get_ident()
            try:
                yield
            finally:
                self._thread = 0

    def _output(self, index: int, x: NDArray[np.float32]) -> tuple[NDArray[np.float32] | None, str]:
        """What a part computes, or why it does not."""
        part, shape = self._parts[index]
        try:
            output = part.run(x)
        except Exception as error:
            return None, str(error) if isinstance(error, ParaEdgeError) else f"{type(error).__name__}: {error}"
        if isinstance(output, np.ndarray) and output.dtype == np.float32 and output.shape == shape:
            return output, ""
        return None, "the engine's output is not a float32 array of the manifest's output_shape"

    def _branch(self, index: int, tokens: NDArray[np.float32], rows: list[Any], started_s: float) -> BranchRun:
        """Run a branch, and add what it computes to ``rows``; one that fails does not fail the request."""
        start_ms = (monotonic() - started_s) * 1e3
        output, problem = self._output(index, tokens)
        state = BranchState.FAILED
        if output is not None:
            state = BranchState.USED if np.isfinite(output).all() else BranchState.NOT_FINITE
            rows += [output[0]] * (state == BranchState.USED)
        end_ms = (monotonic() - started_s) * 1e3
        return BranchRun(index, state, 0, start_ms, end_ms, math.nan, math.nan, problem)

    def _is_confident(self, rows: list[Any]) -> bool:
        rule = self._options.stop_rules[len(rows) - 1]
        return softmax_confidence(np.sum(rows, axis=0), rule.temperature) >= (rule.threshold or math.inf)

    def _prediction(self, runs: list[BranchRun], rows: list[Any], times: tuple[float, float, float]) -> RawPrediction:
        used = [run.index for run in runs if run.state == BranchState.USED]
        output = np.cumsum(rows, axis=0, dtype=np.float32)[-1] if rows else np.full(1, np.nan, np.float32)
        if not np.isfinite(output).all():
            causes = "; ".join(f"branch_{run.index:02d}: {run.reason}" for run in runs if run.problem or not rows)
            problem = "the sum of the branches is not finite" if rows else f"every branch failed: {causes}"
            raise EngineError(f"{problem}; {_ADVICE}")
        temperatures = self._options.temperatures if used == self._indexes[: len(used)] else ()
        is_calibrated = len(rows) <= len(temperatures)
        confidence = softmax_confidence(output, temperatures[len(rows) - 1] if is_calibrated else 1.0)
        (started_s, stem_ms, deadline_s), now_s = times, monotonic()
        return SimpleNamespace(
            output=output, branch_outputs=np.stack(rows), branches=tuple(runs), label_index=int(output.argmax()),
            confidence=confidence, is_calibrated=is_calibrated, stem_ms=stem_ms, requests_to_learn=0,
            elapsed_ms=(now_s - started_s) * 1e3, deadline_met=now_s <= deadline_s,
        )  # fmt: skip

    def settle(self, timeout_s: float) -> bool:
        """Wait for the request that runs."""
        is_idle = self._lock.acquire(timeout=timeout_s)
        if is_idle:
            self._lock.release()
        return is_idle

    def close(self) -> None:
        """Wait for the request that runs, and free the programs."""
        with self._turn():
            while self._parts:
                self._parts.popitem()[1][0].close()

"""Branches of a Python engine in parallel threads: what the native core does, for engines without one."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.engines.base import Answer, LoadedPart
from paraedge_runtime.errors import EngineError
from paraedge_runtime.manifest import BranchEntry, PartEntry
from paraedge_runtime.pool import WorkerPool
from paraedge_runtime.prediction import DroppedBranch, PartRun

__all__ = ["ThreadedEngine", "ThreadedRunner"]


class ThreadedEngine(ABC):
    """Base of engines whose parts are run by Python threads."""

    @abstractmethod
    def load(self, name: str, program: bytes, entry: PartEntry) -> LoadedPart:
        """Load a part with one thread of its own; see ``Engine.load``."""

    def open_runner(self, programs: Iterable[tuple[str, bytes, PartEntry]], threads: int) -> ThreadedRunner:
        """Load the stem and the branches, one after another: not every engine may load two at a time."""
        parts: list[LoadedPart] = []
        indexes: list[int] = []
        try:
            for name, program, entry in programs:
                parts.append(self.load(name, program, entry))
                if isinstance(entry, BranchEntry):
                    indexes.append(entry.index)
        except BaseException:
            for part in parts:
                part.close()
            raise
        return ThreadedRunner(parts[0], dict(zip(indexes, parts[1:], strict=True)), threads)


class ThreadedRunner:
    """A stem and its branches, and the threads that run them."""

    def __init__(self, stem: LoadedPart, branches: dict[int, LoadedPart], threads: int) -> None:
        self._stem = stem
        self._branches = branches
        self._pool = WorkerPool(threads)

    def run(self, x: NDArray[np.float32], count: int) -> Answer:
        """Run the stem, then the first ``count`` branches in parallel; see ``Runner.run``."""
        started = time.perf_counter()
        chosen = list(self._branches)[:count]
        timeline: list[PartRun] = []
        outputs: dict[int, NDArray[np.float32]] = {}
        reasons: dict[int, str] = {}

        def timed(name: str, part: LoadedPart, value: NDArray[np.float32], thread: int) -> NDArray[np.float32]:
            begin = time.perf_counter()
            try:
                return part.run(value)
            finally:
                end = time.perf_counter()
                timeline.append(PartRun(name, thread, (begin - started) * 1e3, (end - started) * 1e3))

        tokens = timed("stem", self._stem, x, 0)
        if not np.isfinite(tokens).all():
            raise EngineError("the stem's output is not finite; 'paraedge verify' checks the bundle on this device")

        def branch_task(index: int) -> Callable[[int], None]:
            def task(thread: int) -> None:
                try:
                    output = timed(f"branch_{index:02d}", self._branches[index], tokens, thread)
                except EngineError as error:
                    reasons[index] = str(error)
                except Exception as error:
                    # A defect of ours, not the engine's; still no reason to lose the other branches.
                    reasons[index] = f"{type(error).__name__}: {error}"
                else:
                    if np.isfinite(output).all():
                        outputs[index] = output[0]
                    else:
                        reasons[index] = "its output is not finite"

            return task

        self._pool.run([branch_task(index) for index in chosen])

        used = tuple(index for index in chosen if index in outputs)
        if not used:
            causes = "; ".join(sorted(set(reasons.values())))
            raise EngineError(f"every branch failed: {causes}; 'paraedge verify' checks the bundle on this device")
        branch_outputs = np.stack([outputs[index] for index in used])
        with np.errstate(over="ignore", invalid="ignore"):
            output = branch_outputs.cumsum(axis=0, dtype=np.float32)[-1]
        if not np.isfinite(output).all():
            raise EngineError(
                "the sum of the branches is not finite; 'paraedge verify' checks the bundle on this device"
            )
        label_index = int(output.argmax())
        exponentials = np.exp(output - output[label_index], dtype=np.float64)
        return Answer(
            output=output,
            label_index=label_index,
            confidence=float(1.0 / exponentials.sum()),
            branches_used=used,
            branches_dropped=tuple(DroppedBranch(index, reasons[index]) for index in chosen if index in reasons),
            branch_outputs=branch_outputs,
            elapsed_ms=(time.perf_counter() - started) * 1e3,
            timeline=tuple(sorted(timeline, key=lambda run: run.start_ms)),
        )

    def close(self) -> None:
        """End the threads, free the programs."""
        self._pool.close()
        for part in (self._stem, *self._branches.values()):
            part.close()

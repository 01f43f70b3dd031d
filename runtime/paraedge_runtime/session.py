"""A session: a bundle's parts loaded into an engine, and threads that run its branches in parallel."""

from __future__ import annotations

import operator
import os
import re
import threading
from collections.abc import Iterable, Sequence
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.bundle import Bundle
from paraedge_runtime.engines import Engine, Runner, engine_info, open_engine
from paraedge_runtime.errors import EngineError, EngineUnavailable, InputError
from paraedge_runtime.inputs import prepare_input
from paraedge_runtime.manifest import BranchEntry
from paraedge_runtime.placement import available_cores
from paraedge_runtime.prediction import Prediction

__all__ = ["Session", "choose_branches"]


class Session:
    """Runs one bundle. A ``Bundle`` may be shared by many sessions.

    Use one session per calling thread. Calls from several threads are safe and happen one after
    another; they gain nothing from each other. ``close`` waits for a call in progress.

        with Session.open("model.paraedge", threads=4) as session:
            prediction = session.run(picture)
    """

    def __init__(self, bundle: Bundle, engine: Engine, runner: Runner, branches: tuple[int, ...], threads: int):
        self.bundle = bundle
        self.engine = engine
        self.threads = threads
        self._runner: Runner | None = runner
        self._branches = branches
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        bundle: Bundle | str | os.PathLike[str],
        *,
        engine: str | None = None,
        threads: int | None = None,
        branches: int | Sequence[int] | None = None,
    ) -> Session:
        """Load a bundle into its engine.

        Args:
            bundle: an open bundle, or the path of one.
            engine: the bundle's own when ``None``; another one must be able to run its files.
            threads: threads that run branches, the caller's included; one per branch up to the
                number of cores when ``None``.
            branches: load the first so many, or those with these indexes; all when ``None``.

        Raises:
            BundleError: the bundle cannot be trusted.
            EngineUnavailable: the engine is not installed, or older than the bundle needs.
            EngineError: the engine refuses a part.
            InputError: ``engine``, ``threads`` or ``branches`` cannot be.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        manifest = opened.manifest
        name = engine or manifest.engine
        suffix = engine_info(name).suffix
        if not all(part.file.endswith(suffix) for part in manifest.parts().values()):
            raise InputError(
                f"engine {name!r} runs {suffix} files, {opened.path} was made for {manifest.engine!r}; "
                f"export it again with --engine {name}"
            )
        chosen = choose_branches(branches, manifest.branch_indexes)
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise InputError(f"threads is {threads!r}; a whole number of at least 1 is needed")
        loaded_engine = open_engine(name)
        _check_version(loaded_engine, manifest.engine_min_version)
        if not loaded_engine.parallel:
            threads = 1  # more would only wait for each other
        elif threads is None:
            threads = min(len(chosen), available_cores())

        programs = (  # read when the engine asks for the next one, so that few are in memory at a time
            (part_name, opened.read(entry), entry)
            for part_name, entry in manifest.parts().items()
            if not isinstance(entry, BranchEntry) or entry.index in chosen
        )
        runner = loaded_engine.open_runner(programs, threads)
        return cls(opened, loaded_engine, runner, chosen, threads)

    @property
    def branches(self) -> tuple[int, ...]:
        """Indexes of the branches that are loaded."""
        return self._branches

    def run(self, image: NDArray[np.uint8] | NDArray[np.float32], *, branches: int | None = None) -> Prediction:
        """Run the stem, then the branches in parallel, and add up their logits.

        A branch that fails, or answers with something that is not finite, is dropped and named in
        ``branches_dropped``; the answer stands on the others. The sum is made in branch order, so
        the number of threads never changes a bit of it.

        Args:
            image: a uint8 picture (H, W, C), or (H, W) for one channel; or float32 (1, C, H, W),
                normalised already.
            branches: run only the first so many of the loaded ones.

        Raises:
            InputError: ``image`` does not fit the bundle, or ``branches`` the session.
            EngineError: the stem failed, every branch failed, or the session is closed.
        """
        chosen = choose_branches(branches, self.branches)
        x = prepare_input(image, self.bundle.manifest.input)
        with self._lock:
            if self._runner is None:
                raise EngineError(f"the session on {self.bundle.path} is closed; open a new one")
            answer = self._runner.run(x, len(chosen))
        return Prediction(
            output=answer.output,
            label_index=answer.label_index,
            label=self.bundle.manifest.labels[answer.label_index],
            confidence=answer.confidence,
            branches_used=answer.branches_used,
            branches_dropped=answer.branches_dropped,
            branch_outputs=answer.branch_outputs,
            elapsed_ms=answer.elapsed_ms,
            timeline=answer.timeline,
            engine=self.engine.description,
        )

    def close(self) -> None:
        """Wait for a call in progress, end the threads, free the programs. Calling it again does nothing."""
        with self._lock:
            if self._runner is not None:
                self._runner.close()
            self._runner = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def choose_branches(branches: int | Sequence[int] | None, available: tuple[int, ...]) -> tuple[int, ...]:
    """The first so many of ``available``, or those with the given indexes; all for ``None``.

    Raises:
        InputError: a count or an index that is not there, or indexes unordered or repeated.
    """
    if branches is None:
        return available
    if isinstance(branches, bool):
        raise InputError(f"branches is {branches}; pass a count or a sequence of indexes")
    try:
        if isinstance(branches, Iterable):
            chosen = tuple(operator.index(index) for index in branches)
        else:
            count = operator.index(branches)
            if not 1 <= count <= len(available):
                raise InputError(f"{count} branches were asked for; there are {len(available)}: {list(available)}")
            return available[:count]
    except TypeError:
        raise InputError(f"branches is {branches!r}; pass a count or a sequence of indexes") from None
    unknown = [index for index in chosen if index not in available]
    if unknown:
        raise InputError(f"there is no branch {unknown[0]}; choose from {list(available)}")
    if not chosen or list(chosen) != sorted(set(chosen)):
        raise InputError(f"branches {list(chosen)} cannot be; name at least one, each once, in ascending order")
    return chosen


def _check_version(engine: Engine, minimum: dict[str, str]) -> None:
    if engine.distribution not in minimum:
        raise EngineUnavailable(
            f"this bundle needs {' or '.join(minimum)}, and {engine.distribution} {engine.version} is installed"
        )
    needed = minimum[engine.distribution]

    def numbers(version: str) -> list[int]:
        found = [int(number) for number in re.findall(r"\d+", version)[:4]]
        return found + [0] * (4 - len(found))

    if numbers(engine.version) < numbers(needed):
        raise EngineUnavailable(
            f"this bundle needs {engine.distribution} {needed} or newer, {engine.version} is installed; "
            f"pip install '{engine.distribution}>={needed}'"
        )

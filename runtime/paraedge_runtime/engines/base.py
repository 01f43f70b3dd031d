"""The engine protocol: load parts, run them, close them. Nothing above this line knows which engine runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.errors import EngineError, ManifestError, ParaEdgeError
from paraedge_runtime.manifest import InputSpec, PartEntry, StopRule
from paraedge_runtime.prediction import Answer

__all__ = [
    "Engine",
    "LoadedPart",
    "RunOptions",
    "Runner",
    "RunnerOptions",
    "check_shapes",
    "mapped_errors",
]

Array = NDArray[np.float32]
Picture = NDArray[np.uint8]


class LoadedPart(Protocol):
    """One program, loaded. Used by one thread at a time; different parts may run at the same time."""

    def run(self, x: Array) -> Array:
        """Compute the part. ``x`` is C-contiguous; the result belongs to the caller.

        Raises:
            EngineError: the engine refused or failed.
        """

    def close(self) -> None:
        """Free the program. Calling it again does nothing."""


class RunnerOptions(NamedTuple):
    """How a runner is opened.

    Attributes:
        threads: that run branches, the caller's included.
        input: how a picture is normalised.
        part_ms: median latency of each loaded part by itself, the stem's first; empty to learn it.
        contention: factor of a branch's time when 1, 2, … branches run at once; empty to learn it.
        stop_rules: one for each loaded branch; empty when nothing was calibrated.
    """

    threads: int
    input: InputSpec
    part_ms: tuple[float, ...] = ()
    contention: tuple[float, ...] = ()
    stop_rules: tuple[StopRule, ...] = ()


class RunOptions(NamedTuple):
    """One request.

    Attributes:
        branches: run the first so many.
        deadline_s: of ``time.monotonic()``; return then with the best sum there is.
        leave_s: the same, no later than that: other requests wait.
        admit_all: start branches that will probably not end in time, too.
        early_stop: answer with the first prefix whose confidence is enough; needs stop rules.
        on_answer: called in the caller's thread whenever the answer has grown; ``False``: that is enough.
    """

    branches: int
    deadline_s: float = math.inf
    leave_s: float = math.inf
    admit_all: bool = False
    early_stop: bool = False
    on_answer: Callable[[Answer], bool] | None = None


class Runner(Protocol):
    """A stem and its branches, loaded, with the threads that run them. Used by one thread at a time."""

    @property
    def mandatory_ms(self) -> float:
        """What an answer takes at least, probably (0.9): stem and first branch. NaN while nothing is known."""

    def run(self, image: Array | Picture, options: RunOptions) -> Answer:
        """Run the stem and the branches, and add up what the branches answer.

        The first branch always runs; with a deadline, the others as they fit. The sum is made in
        branch order, whatever order they end in. A branch that fails is dropped.

        Args:
            image: what ``check_input`` lets through.
            options: what to run, and until when.

        Raises:
            InputError: ``image`` does not fit the bundle.
            EngineError: the stem failed, or every branch.
        """

    def close(self) -> None:
        """Wait for late branches, end the threads, free the programs."""


class Engine(Protocol):
    """An inference engine as the session sees it.

    Attributes:
        name: key in the registry.
        distribution: the installed package that provides it.
        version: of that package.
        description: which implementation runs, for people.
        parallel: whether parts really run at the same time in several Python threads.
    """

    name: str
    distribution: str
    version: str
    description: str
    parallel: bool

    def load(self, name: str, program: bytes, entry: PartEntry) -> LoadedPart:
        """Load a part with one thread of its own.

        Raises:
            ManifestError: the program's input or output is not what the manifest says.
            EngineError: the engine refused the program.
        """

    def open_runner(self, programs: Iterable[tuple[str, bytes, PartEntry]], options: RunnerOptions) -> Runner:
        """Load the stem, which comes first, and branches.

        Args:
            programs: name, program and entry of each part.
            options: threads, and what is known beforehand.

        Raises:
            ManifestError, EngineError: as ``load`` does.
            InputError: the latencies are not of these parts.
        """


@contextmanager
def mapped_errors(engine: str, doing: str) -> Iterator[None]:
    """The one edge where an engine's exceptions become ours, whatever their type."""
    try:
        yield
    except ParaEdgeError:
        raise
    except MemoryError as error:
        raise EngineError(f"{engine} ran out of memory while {doing}; use fewer branches") from error
    except Exception as error:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise EngineError(f"{engine} failed while {doing}: {text}; 'paraedge verify' checks the bundle") from error


def check_shapes(
    name: str,
    entry: PartEntry,
    inputs: list[tuple[tuple[int, ...], str]],
    outputs: list[tuple[tuple[int, ...], str]],
) -> None:
    """Refuse a program whose inputs and outputs (shape, dtype) are not the manifest's one float32 each."""
    for kind, found, expected in (("input", inputs, entry.input_shape), ("output", outputs, entry.output_shape)):
        if found != [(tuple(expected), "float32")]:
            text = ", ".join(f"{list(shape)} {dtype}" for shape, dtype in found) or "none"
            raise ManifestError(
                f"{entry.file}: the program's {kind} is {text}, the manifest's '{name}.{kind}_shape' says "
                f"{list(expected)} float32; export the bundle again"
            )

"""The engine protocol: load parts, run them, close them. Nothing above this line knows which engine runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.errors import EngineError, ManifestError, ParaEdgeError
from paraedge_runtime.manifest import PartEntry
from paraedge_runtime.prediction import DroppedBranch, PartRun

__all__ = ["Answer", "Engine", "LoadedPart", "Runner", "check_shapes", "mapped_errors"]

Array = NDArray[np.float32]


class LoadedPart(Protocol):
    """One program, loaded. Used by one thread at a time; different parts may run at the same time."""

    def run(self, x: Array) -> Array:
        """Compute the part. ``x`` is C-contiguous; the result belongs to the caller.

        Raises:
            EngineError: the engine refused or failed.
        """

    def close(self) -> None:
        """Free the program. Calling it again does nothing."""


class Answer(NamedTuple):
    """What a runner found; the fields are those of ``Prediction``."""

    output: Array
    label_index: int
    confidence: float
    branches_used: tuple[int, ...]
    branches_dropped: tuple[DroppedBranch, ...]
    branch_outputs: Array
    elapsed_ms: float
    timeline: tuple[PartRun, ...]


class Runner(Protocol):
    """A stem and its branches, loaded, with the threads that run them. Used by one thread at a time."""

    def run(self, x: Array, count: int) -> Answer:
        """Run the stem and the first ``count`` branches, and add up what the branches answer.

        The sum is made in branch order, whatever order they end in. A branch that fails is dropped.

        Raises:
            EngineError: the stem failed, or every branch.
        """

    def close(self) -> None:
        """End the threads and free the programs."""


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

    def open_runner(self, programs: Iterable[tuple[str, bytes, PartEntry]], threads: int) -> Runner:
        """Load the stem, which comes first, and branches, to be run by ``threads`` threads.

        Args:
            programs: name, program and entry of each part.
            threads: that run branches, the caller's included.

        Raises:
            ManifestError, EngineError: as ``load`` does.
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

"""The engine protocol: load parts, run them, close them. Nothing above this line knows which engine runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.core import core_problem, load_core
from paraedge_runtime.errors import EngineError, ManifestError, ParaEdgeError
from paraedge_runtime.manifest import PartEntry, StopRule

__all__ = ["Engine", "LoadedPart", "SessionOptions", "check_program", "check_shapes", "mapped_error", "mapped_errors"]


class LoadedPart(Protocol):
    """One program, loaded. Used by one thread at a time; different parts may run at the same time."""

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the part. ``x`` is C-contiguous and read-only; the result is C-contiguous.

        Raises:
            EngineError: the engine refused or failed.
        """

    def close(self) -> None:
        """Free the program. Calling it again does nothing."""


class SessionOptions(NamedTuple):
    """What a session of the core is opened with.

    Attributes:
        threads: that run branches, the caller's included.
        part_ms: median latency of each loaded part by itself, the stem's first; empty to learn it.
        contention: factor of a branch's time when 1, 2, … branches run at once; empty to learn it.
        stop_rules: one for each loaded branch; empty when nothing was calibrated.
        temperatures: of the first prefixes of the loaded branches; empty when nothing was calibrated.
        has_labels: whether outputs are logits of labels.
    """

    threads: int
    part_ms: tuple[float, ...] = ()
    contention: tuple[float, ...] = ()
    stop_rules: tuple[StopRule, ...] = ()
    temperatures: tuple[float, ...] = ()
    has_labels: bool = True


class Engine(Protocol):
    """An inference engine as a session sees it.

    Attributes:
        name: key in the registry.
        distribution: the installed package that provides it.
        version: of that package.
        description: which implementation runs, for people.
        parallel: whether parts really run at the same time in several threads.
        native: name under which the core calls it without Python; ``None``: the core calls ``load`` and ``run``.
    """

    name: str
    distribution: str
    version: str
    description: str
    parallel: bool

    @property
    def native(self) -> str | None: ...  # noqa: D102

    def load(self, name: str, program: bytes, entry: PartEntry) -> LoadedPart:
        """Load a part with one thread of its own.

        Args:
            name: ``stem`` or ``branch_NN``.
            program: its bytes; they stay as they are until ``close``.
            entry: what the manifest says about it.

        Raises:
            ManifestError: the program's input or output is not what the manifest says.
            EngineError: the engine refused the program.
        """


@contextmanager
def mapped_errors(engine: str, doing: str) -> Iterator[None]:
    """The one edge where an engine's exceptions become ours, whatever their type."""
    try:
        yield
    except Exception as error:
        raise mapped_error(engine, doing, error) from error


def mapped_error(engine: str, doing: str, error: Exception) -> ParaEdgeError:
    """``error`` as one of ours; what is ours already stays as it is."""
    if isinstance(error, ParaEdgeError):
        return error
    if isinstance(error, MemoryError):
        return EngineError(f"{engine} ran out of memory while {doing}; use fewer branches")
    text = " ".join(str(error).split())[:300] or type(error).__name__
    return EngineError(f"{engine} failed while {doing}: {text}; 'paraedge verify' checks the bundle")


def check_program(engine: str, file: str, program: bytes) -> dict[str, int]:
    """Refuse what the engine would believe of a damaged or hostile program; the core knows how.

    Without the core nothing is checked here: the engine's own checks, and the trial in a child process, remain.

    Returns:
        How often each operator is in it, by the names of ``card.json``; nothing where nobody can tell.

    Raises:
        IntegrityError: a size, an index or an operator in the program is wrong.
    """
    if core_problem():
        return {}
    found: dict[str, int] = load_core().check_program(engine, file, program)
    return found


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

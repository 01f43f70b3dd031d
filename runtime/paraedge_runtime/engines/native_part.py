"""One part of an engine that the core calls without Python, by itself: what the parity gate runs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.engines.base import mapped_errors
from paraedge_runtime.manifest import PartEntry

__all__ = ["NativePart"]


class NativePart:
    """A ``LoadedPart``."""

    def __init__(self, engine: str, name: str, program: bytes, entry: PartEntry) -> None:
        from paraedge_runtime import _native

        with mapped_errors(engine, f"loading {entry.file}"):
            self._part = _native.Part(engine, _native.PartSource(name, program, entry))

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the part."""
        return self._part.run(x)

    def close(self) -> None:
        """Free the program."""
        self._part.close()

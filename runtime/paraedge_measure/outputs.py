"""What every branch of a bundle contributes for given inputs: what accuracy and agreement are counted from."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from paraedge_measure.profiling import Progress
from paraedge_runtime import Bundle, Session
from paraedge_runtime.errors import DeviceError, EngineError

__all__ = ["EncodedOutputs", "Inputs", "branch_outputs", "checked_outputs", "chunks"]

Inputs = NDArray[np.uint8] | NDArray[np.float32]

_MOST_VALUES = 1 << 20  # in one reply, whose size is bounded


class EncodedOutputs(msgspec.Struct, frozen=True):
    """Of a process that runs inputs: float32 (M, k, C), little-endian, as base64."""

    shape: tuple[int, int, int]
    values: str

    @classmethod
    def of(cls, outputs: NDArray[np.float32]) -> EncodedOutputs:
        """As text."""
        inputs, branches, size = outputs.shape
        return cls((inputs, branches, size), base64.b64encode(outputs.astype("<f4").tobytes()).decode())

    def decode(self) -> NDArray[np.float32]:
        """As an array.

        Raises:
            DeviceError: the text is no base64, or not of this shape.
        """
        try:
            return np.frombuffer(base64.b64decode(self.values, validate=True), "<f4").reshape(self.shape)
        except ValueError as error:
            raise DeviceError(
                f"the device returned invalid outputs: {error}; install this version of paraedge there"
            ) from None


def branch_outputs(
    bundle: Bundle,
    inputs: Inputs,
    *,
    threads: int | None = None,
    on_progress: Progress = lambda done, total, what: None,
) -> NDArray[np.float32]:
    """Run inputs (M, ...) one by one in this process: (M, k, C), in order of index.

    Raises:
        EngineError: a branch failed, so that the numbers would mean nothing.
    """
    outputs = []
    with Session.open(bundle, threads=threads) as session:
        for number, value in enumerate(inputs):
            prediction = session.run(value)
            if prediction.branches_dropped:
                drop = prediction.branches_dropped[0]
                raise EngineError(f"branch {drop.index} was dropped: {drop.reason}; accuracy needs every branch")
            outputs.append(prediction.branch_outputs)
            on_progress(number + 1, len(inputs), "running")
    return np.stack(outputs)


def chunks(bundle: Bundle, count: int) -> Iterator[range]:
    """``count`` inputs in runs that are short enough for one reply each."""
    size = max(1, _MOST_VALUES // (len(bundle.manifest.branches) * bundle.manifest.num_outputs))
    return (range(first, min(first + size, count)) for first in range(0, count, size))


def checked_outputs(outputs: NDArray[np.float32], bundle: Bundle, count: int) -> NDArray[np.float32]:
    """What a device sent, if it has the shape that it must have, and is finite.

    Raises:
        DeviceError: it has not, or is not.
    """
    wanted = (count, len(bundle.manifest.branches), bundle.manifest.num_outputs)
    if outputs.shape != wanted or not np.isfinite(outputs).all():
        raise DeviceError(f"the device sent outputs of shape {outputs.shape}, or not finite; expected {wanted}")
    return outputs

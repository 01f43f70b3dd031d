"""Runs inputs here, or on the device that a device.json names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from paraedge.cli.output import progress_bar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from paraedge_measure.outputs import Inputs
    from paraedge_runtime.bundle import Bundle

__all__ = ["outputs_on"]


def outputs_on(profile: Path | None, bundle: Bundle, inputs: Inputs, *, what: str) -> tuple[NDArray[np.float32], str]:
    """What every branch contributes for inputs (M, ...), (M, k, C), and where it ran, in words.

    Args:
        profile: a device.json; ``None``: this machine.
        bundle: what runs.
        inputs: as ``Session.run`` takes them.
        what: is shown while it runs.

    Raises:
        ParaEdgeError: as ``paraedge_measure.connections.Connection.branch_outputs``.
    """
    from paraedge_measure.connections import connect
    from paraedge_measure.device import Device, read_device

    device = Device(name="here") if profile is None else read_device(profile)
    with progress_bar() as bar:
        task = bar.add_task(what, total=len(inputs))

        def show(done: float, total: float, doing: str) -> None:
            bar.update(
                task, completed=round(len(inputs) * done / total), description=what if profile is None else doing
            )

        outputs = connect(device).branch_outputs(bundle, inputs, on_progress=show)
    engine = bundle.manifest.engine
    return outputs, f"in {engine}" if profile is None else f"in {engine} on device {device.name}"

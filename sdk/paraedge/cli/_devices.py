"""Runs inputs on the device that a device.json names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from paraedge.cli.output import progress_bar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from paraedge_measure.outputs import Inputs
    from paraedge_runtime.bundle import Bundle

__all__ = ["outputs_on", "profile_option"]

profile_option = click.option(
    "--profile",
    type=click.Path(path_type=Path),
    help="Run the bundle on the device in this device.json, over ssh or adb.",
)


def outputs_on(profile: Path, bundle: Bundle, inputs: Inputs) -> tuple[NDArray[np.float32], str]:
    """What every branch contributes for inputs (M, ...), (M, k, C), and where it ran, in words.

    Args:
        profile: a device.json.
        bundle: what runs.
        inputs: as ``Session.run`` takes them.

    Raises:
        ParaEdgeError: as ``paraedge_measure.connections.Connection.branch_outputs``.
    """
    from paraedge_measure.connections import connect
    from paraedge_measure.device import read_device

    device = read_device(profile)
    with progress_bar() as bar:
        task = bar.add_task("", total=100)  # percent

        def show(done: float, total: float, what: str) -> None:
            bar.update(task, completed=round(100 * done / total), description=f"{device.name}: {what}")

        outputs = connect(device).branch_outputs(bundle, inputs, on_progress=show)
    return outputs, f"{bundle.manifest.engine} on the device {device.name}"

"""Run paraedge bundles on the device. Needs numpy, msgspec and one engine; never torch.

from paraedge_runtime import Session

with Session.open("model.paraedge", threads=4) as session:
    prediction = session.run("image.png")    # or a PIL image, a torch tensor, uint8 (H, W, C)
    print(prediction.label, prediction.confidence, prediction.branches_used)

Importing this package imports nothing heavy: names come from their modules when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paraedge_runtime.errors import (
    BundleError,
    ConversionError,
    DeviceError,
    EngineError,
    EngineUnavailable,
    InputError,
    IntegrityError,
    ManifestError,
    ParaEdgeError,
    ParityError,
    PlanError,
    ProfileError,
    RequestDropped,
    UnsupportedModel,
)
from paraedge_runtime.lazy import lazy_names

if TYPE_CHECKING:
    from paraedge_runtime._version import __version__
    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.frames import Frame, LatestFrame
    from paraedge_runtime.latency import Latency
    from paraedge_runtime.prediction import BranchRun, BranchState, DroppedBranch, PartRun, Prediction
    from paraedge_runtime.session import Session

__all__ = [
    "BranchRun",
    "BranchState",
    "Bundle",
    "BundleError",
    "ConversionError",
    "DeviceError",
    "DroppedBranch",
    "EngineError",
    "EngineUnavailable",
    "Frame",
    "InputError",
    "IntegrityError",
    "Latency",
    "LatestFrame",
    "ManifestError",
    "ParaEdgeError",
    "ParityError",
    "PartRun",
    "PlanError",
    "Prediction",
    "ProfileError",
    "RequestDropped",
    "Session",
    "UnsupportedModel",
    "__version__",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "BranchRun": "paraedge_runtime.prediction",
        "BranchState": "paraedge_runtime.prediction",
        "Bundle": "paraedge_runtime.bundle",
        "DroppedBranch": "paraedge_runtime.prediction",
        "Frame": "paraedge_runtime.frames",
        "Latency": "paraedge_runtime.latency",
        "LatestFrame": "paraedge_runtime.frames",
        "PartRun": "paraedge_runtime.prediction",
        "Prediction": "paraedge_runtime.prediction",
        "Session": "paraedge_runtime.session",
        "__version__": "paraedge_runtime._version",
    },
)

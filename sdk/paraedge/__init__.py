"""paraedge: run parallel-branch Transformers on phones, Raspberry Pis and other small machines.

    import paraedge

    bundle = paraedge.export("fashion-mnist", target="android", branches=2)   # needs torch
    with paraedge.Session.open(bundle) as session:                            # needs one engine
        print(session.run("image.png").label)

Run a bundle with ``Session``, ``Bundle`` and ``Prediction``. Export a trained ParaFormer with ``export``, and any
other network with ``convert``; ``branches_from`` cuts an ordinary network into branches. Every error is a
``ParaEdgeError``, such as ``InputError``. Training is in ``paraedge.training``, measuring in ``paraedge_measure``.

Importing this package does not import torch; names that need it import it when they are first used.
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
    from paraedge.data import load_dataset
    from paraedge.exporting import export
    from paraedge.hub import pull, push
    from paraedge.model import ParaFormer, ParaFormerConfig, branches_from, load_checkpoint
    from paraedge_converters import BranchModel, EvaluationSet, ModelDescription, convert
    from paraedge_runtime import Bundle, LatestFrame, Prediction, Session, __version__
    from paraedge_runtime.manifest import ImageInput, TensorInput

__all__ = [
    "BranchModel",
    "Bundle",
    "BundleError",
    "ConversionError",
    "DeviceError",
    "EngineError",
    "EngineUnavailable",
    "EvaluationSet",
    "ImageInput",
    "InputError",
    "IntegrityError",
    "LatestFrame",
    "ManifestError",
    "ModelDescription",
    "ParaEdgeError",
    "ParaFormer",
    "ParaFormerConfig",
    "ParityError",
    "PlanError",
    "Prediction",
    "ProfileError",
    "RequestDropped",
    "Session",
    "TensorInput",
    "UnsupportedModel",
    "__version__",
    "branches_from",
    "convert",
    "export",
    "load_checkpoint",
    "load_dataset",
    "pull",
    "push",
]

_WITH_TORCH = {
    "BranchModel": "paraedge_converters",
    "EvaluationSet": "paraedge_converters",
    "ModelDescription": "paraedge_converters",
    "ParaFormer": "paraedge.model",
    "branches_from": "paraedge.model",
    "convert": "paraedge_converters",
    "export": "paraedge.exporting",
    "load_checkpoint": "paraedge.model",
}

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        **_WITH_TORCH,
        "Bundle": "paraedge_runtime",
        "ImageInput": "paraedge_runtime.manifest",
        "LatestFrame": "paraedge_runtime",
        "ParaFormerConfig": "paraedge.model",
        "Prediction": "paraedge_runtime",
        "Session": "paraedge_runtime",
        "TensorInput": "paraedge_runtime.manifest",
        "__version__": "paraedge_runtime",
        "load_dataset": "paraedge.data",
        "pull": "paraedge.hub",
        "push": "paraedge.hub",
    },
    with_torch=_WITH_TORCH,
)

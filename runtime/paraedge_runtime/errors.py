"""The one tree of errors. Everything paraedge raises on purpose is a ``ParaEdgeError``::

    ParaEdgeError
    ├── BundleError            a bundle cannot be trusted or read
    │   ├── ManifestError      manifest.json says something impossible
    │   └── IntegrityError     a file is missing, of the wrong size, hash or kind
    ├── EngineError            an engine failed while loading or running a part
    │   └── EngineUnavailable  the engine is not installed, or too old
    ├── InputError             what the caller passed cannot be used
    ├── RequestDropped         a request would miss its deadline, and its caller wants it dropped then
    ├── ConversionError        a model could not be turned into a bundle
    │   ├── ParityError        it was converted, and does not compute what torch computes
    │   └── UnsupportedModel   the network does not keep the BranchModel contract
    ├── DeviceError            a device could not be reached or measured
    │   └── ProfileError       device.json cannot be used: not there, malformed, of another device or bundle
    └── PlanError              no plan satisfies what was asked for

Messages name the value that was wrong and end with what to do next.
"""

from __future__ import annotations

__all__ = [
    "BundleError",
    "ConversionError",
    "DeviceError",
    "EngineError",
    "EngineUnavailable",
    "InputError",
    "IntegrityError",
    "ManifestError",
    "ParaEdgeError",
    "ParityError",
    "PlanError",
    "ProfileError",
    "RequestDropped",
    "UnsupportedModel",
]


class ParaEdgeError(Exception):
    """Base class of all errors that paraedge raises."""


class BundleError(ParaEdgeError):
    """A bundle is unreadable, damaged or not trusted."""


class ManifestError(BundleError):
    """``manifest.json`` is malformed or contradicts itself."""


class IntegrityError(BundleError):
    """A file of a bundle is missing, or has the wrong size, hash or kind."""


class EngineError(ParaEdgeError):
    """An engine failed while loading or running a part."""


class EngineUnavailable(EngineError):
    """The engine a bundle needs is not installed, or too old."""


class InputError(ParaEdgeError):
    """An argument, option or file from the caller is invalid."""


class RequestDropped(ParaEdgeError):
    """A request with ``on_overload="drop"`` would probably have had no prediction before its deadline."""


class ConversionError(ParaEdgeError):
    """A model could not be turned into a bundle."""


class ParityError(ConversionError):
    """A converted part does not compute what the original computes."""


class UnsupportedModel(ConversionError):
    """The network does not implement the ``BranchModel`` protocol."""


class DeviceError(ParaEdgeError):
    """A device could not be reached or measured."""


class ProfileError(DeviceError):
    """``device.json`` is missing or malformed, or belongs to another device or bundle."""


class PlanError(ParaEdgeError):
    """No plan meets the requirements."""

"""Lowered parts by content hash: the same part is never lowered twice on one machine."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import inspect
import json
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

from paraedge_converters.backends import Converter, LoweredPart
from paraedge_measure.cache_folder import CACHE_VARIABLE, cache_folder
from paraedge_runtime.atomic import new_file
from paraedge_runtime.errors import ConversionError, InputError

__all__ = ["CachedPart", "PartCache", "fingerprint", "graph_fingerprint", "tool_versions"]


@dataclass(frozen=True)
class CachedPart(LoweredPart):
    """A lowered part as it is kept: with the multiply-adds of its module for one input."""

    macs: int


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    operators: dict[str, int]
    macs: int


class PartCache:
    """A folder of lowered parts. Damaged entries are lowered again; deleting the folder is safe.

    A cache that cannot be read or written holds nothing, and is no reason to fail.

    Attributes:
        problem: why a part could not be kept; empty when all could.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.problem = ""
        try:
            self.folder = (folder or cache_folder()) / "parts"
        except InputError as error:
            self.folder, self.problem = Path(os.devnull, "parts"), str(error)

    def key(
        self,
        module: nn.Module,
        example: Tensor,
        engine: str,
        converter: Converter,
        *,
        recipe: str,
        calibration: Tensor,
        allow_undelegated: bool,
    ) -> str | None:
        """Content hash of a module lowered for ``engine``: of all that decides the program's bytes.

        That is what the module computes (the graph that torch traces, and every tensor in it, wherever
        the module has them from), the names of its classes, the quantization recipe and what it is
        calibrated on, the converter's source and the versions of its tools. ``None`` for a module that
        cannot be traced: it is not kept.
        """
        graph = graph_fingerprint(module, example)
        if graph is None:
            return None
        settings = {
            "engine": engine,
            "recipe": recipe,
            "calibration": fingerprint({"": calibration}),
            "allow_undelegated": allow_undelegated,
            "tools": tool_versions(converter),
            "converter": _source(converter),
            "graph": graph,
            # Some converters name tensors after them.
            "classes": [f"{name}:{type(child).__qualname__}" for name, child in module.named_modules()],
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def get(self, key: str) -> CachedPart | None:
        """A part lowered before, if it is there and whole."""
        try:
            raw = (self.folder / key).read_bytes()
            head, _, program = raw.partition(b"\n")
            header = msgspec.json.decode(head, type=_Header)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if hashlib.sha256(program).hexdigest() != header.sha256:
            return None
        return CachedPart(program, header.operators, header.macs)

    def put(self, key: str, lowered: CachedPart) -> None:
        """Keep a part, where the folder can be written."""
        header = _Header(hashlib.sha256(lowered.program).hexdigest(), lowered.operators, lowered.macs)
        try:
            with new_file(self.folder / key) as building:
                building.write_bytes(msgspec.json.encode(header) + b"\n" + lowered.program)
        except OSError as error:
            self.problem = self.problem or f"{self.folder}: {error.strerror or error}; set {CACHE_VARIABLE}"

    def discard(self, key: str) -> None:
        """Forget a part."""
        with contextlib.suppress(OSError):
            (self.folder / key).unlink(missing_ok=True)


def tool_versions(converter: Converter) -> dict[str, str]:
    """Installed version of every package that decides a program's bytes.

    Raises:
        ConversionError: one of them is not installed.
    """
    versions = {}
    for name in converter.TOOLS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise ConversionError(f"this export needs the package {name}; pip install 'paraedge[export]'") from None
    return versions


def fingerprint(state: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors, in order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name}|{str(tensor.dtype).removeprefix('torch.')}|{tuple(tensor.shape)}|".encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())  # numpy has no bfloat16
    return digest.hexdigest()


def graph_fingerprint(module: nn.Module, example: Tensor) -> str | None:
    """Hash of what a module computes: its operators with their arguments, and the tensors that they read.

    Whatever a forward reads is in it: parameters, buffers, plain attributes, functions and their globals.
    ``None`` when torch cannot trace the module.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            exported = torch.export.export(module, (example,))
    except Exception:  # the converter will say what is wrong with it
        return None
    tensors = {**exported.state_dict, **exported.constants}
    if not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        return None
    digest = hashlib.sha256(str(exported.graph_signature).encode())
    for name, graph_module in exported.graph_module.named_modules():
        if isinstance(graph_module, torch.fx.GraphModule):
            digest.update(f"{name}:{graph_module.graph}".encode())
    for node in exported.graph.nodes:
        if isinstance(value := node.meta.get("val"), Tensor):
            digest.update(f"{node.name}|{value.dtype}|{tuple(value.shape)};".encode())
    digest.update(fingerprint(tensors).encode())
    return digest.hexdigest()


def _source(converter: Converter) -> str:
    """Hash of a converter's source, and of another converter's that it imports as a module to build on."""
    own = sys.modules[str(getattr(converter, "__name__", ""))]
    others = [value for value in vars(own).values() if inspect.ismodule(value)]
    digest = hashlib.sha256()
    for module in [own, *(other for other in others if other.__name__.startswith("paraedge_converters."))]:
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()

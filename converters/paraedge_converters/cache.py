"""Lowered parts by content hash: the same part is never lowered twice on one machine."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import inspect
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from paraedge_converters.backends import Converter, LoweredPart
from paraedge_converters.copying import Untouched
from paraedge_runtime._reading import read_bounded
from paraedge_runtime.atomic import new_file
from paraedge_runtime.cache_folder import CACHE_VARIABLE, own_folder
from paraedge_runtime.errors import ConversionError, InputError

__all__ = ["CachedPart", "PartCache", "fingerprint", "graph_fingerprint", "tool_versions"]


# What pip installs for tools that the extra export has not. Arm's name older packages than the others, and need none.
_ARM_TOOLS = "--no-deps ethos-u-vela==5.1.0 tosa-tools==2026.5.0"
_NEEDED = {"coremltools": "'paraedge[coreml]'", "ethos-u-vela": _ARM_TOOLS, "tosa-tools": _ARM_TOOLS}
_MAX_ENTRY_BYTES = 1 << 31  # a bundle has no more


@dataclass(frozen=True)
class CachedPart(LoweredPart):
    """A lowered part as it is kept: with the multiply-adds of its module for one input."""

    macs: int = 0


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    operators: dict[str, int]
    macs: int
    reference_bytes: int = 0  # at the end of what follows the header


class PartCache:
    """A folder of lowered parts. Damaged entries are lowered again; deleting the folder is safe.

    A cache that cannot be read or written, or that others may write, holds nothing, and is no reason to fail.

    Attributes:
        problem: why a part could not be kept; empty when all could.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.problem = ""
        try:
            self.folder = own_folder("parts", folder)
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

        That is what the module computes (the functions of torch that it calls, and every tensor that they
        read, wherever the module has it from), the names of its classes, the quantization recipe and what
        it is calibrated on, the source of the converters and the versions of their tools. ``None`` for a module that
        does not run: it is not kept.
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
            raw = read_bounded(self.folder / key, _MAX_ENTRY_BYTES)
            head, _, program = raw.partition(b"\n")
            header = msgspec.json.decode(head, type=_Header)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if hashlib.sha256(program).hexdigest() != header.sha256:
            return None
        split = len(program) - header.reference_bytes
        if not 0 <= split <= len(program):
            return None
        return CachedPart(program[:split], header.operators, program[split:], header.macs)

    def put(self, key: str, lowered: CachedPart) -> None:
        """Keep a part, where the folder can be written."""
        kept = lowered.program + lowered.reference
        header = _Header(hashlib.sha256(kept).hexdigest(), lowered.operators, lowered.macs, len(lowered.reference))
        try:
            with new_file(self.folder / key) as building:
                building.write_bytes(msgspec.json.encode(header) + b"\n" + kept)
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
            needed = _NEEDED.get(name, "'paraedge[export]'")
            raise ConversionError(f"this export needs the package {name}; pip install {needed}") from None
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
    """Hash of what a module computes: the functions of torch that it calls, their arguments and the tensors they read.

    Whatever a forward reads is in it: parameters, buffers, plain attributes, functions and their globals.
    ``None`` when the module does not run.
    """
    inputs = torch.rand(example.shape, generator=torch.Generator().manual_seed(0)).to(example.dtype)
    log = _FunctionLog(inputs)
    try:
        with torch.no_grad():
            with log:
                output = Untouched(module)(inputs)
            log.add("output", output)
    except Exception:  # the converter will say what is wrong with it
        return None
    return log.hexdigest()


class _FunctionLog(TorchFunctionMode):
    """Hashes every function of torch that is called. A tensor is written as the call that made it, or else as its
    content: so is a weight, and so is what came by another way than torch's functions.

    Importing ``torch.export`` and tracing takes 2 s for eight small branches, this 50 ms.
    """

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()
        self._digest = hashlib.sha256()
        # By id, which is of one tensor as long as that lives.
        self._named: dict[int, tuple[Tensor, str]] = {
            id(inputs): (inputs, f"input|{inputs.dtype}|{tuple(inputs.shape)}")
        }

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.add(f"{getattr(func, '__module__', '')}.{getattr(func, '__qualname__', func)}", (args, kwargs or {}))
        result = func(*args, **(kwargs or {}))
        self.add("result", result, made=True)
        return result

    def add(self, what: str, values: Any, *, made: bool = False) -> None:
        """Hash ``values``, nested in any way; tensors that were ``made`` now get the next names."""
        leaves, structure = tree_flatten(values)
        names = [self._described(leaf, made) for leaf in leaves]
        self._digest.update(f"{what}|{structure}|{names};".encode())

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def _described(self, leaf: Any, made: bool) -> str:
        if isinstance(leaf, np.ndarray):
            leaf = torch.from_numpy(leaf.copy())
        if not isinstance(leaf, Tensor):
            return repr(leaf)
        if id(leaf) not in self._named:
            tensor = f"{len(self._named)}|{leaf.dtype}|{tuple(leaf.shape)}"
            self._named[id(leaf)] = (leaf, tensor if made else fingerprint({tensor: leaf}))
        return self._named[id(leaf)][1]


def _source(converter: Converter) -> str:
    """Hash of the source of what lowers: the converter's folder, for they share forms, checks and names.

    A cached part of an older paraedge is never taken for one of this version.
    """
    own = converter if inspect.ismodule(converter) else sys.modules[type(converter).__module__]
    which = "" if own is converter else repr(converter)  # a module may have several: Ethos-U's
    digest = hashlib.sha256(f"{own.__name__}|{which}|".encode())
    for file in sorted(Path(str(own.__file__)).parent.glob("*.py")):
        digest.update(f"{file.name}|".encode() + file.read_bytes())
    return digest.hexdigest()

"""Lowered parts by content hash: the same part is never lowered twice on one machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from torch import Tensor, nn

from paraedge_converters.cache_folder import CACHE_VARIABLE, cache_folder
from paraedge_converters.lowering import CachedPart, Converter
from paraedge_converters.split import Part
from paraedge_runtime.atomic import new_file
from paraedge_runtime.errors import ConversionError, InputError

__all__ = ["PartCache", "fingerprint", "tool_versions"]


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    operators: dict[str, int]
    macs: int


class PartCache:
    """A folder of lowered parts. Damaged entries are lowered again; deleting the folder is safe.

    The key covers all that decides the bytes: weights, structure and source of the module, its
    input shape, the recipe and what it was calibrated on, the converter's source and the versions
    of its tools. What no key can see, such as
    a helper function in another file, the parity gate does, which runs on cached parts too.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or cache_folder()) / "parts"

    def key(
        self,
        part: Part,
        engine: str,
        converter: Converter,
        *,
        recipe: str,
        calibration: Tensor,
        allow_undelegated: bool,
    ) -> str:
        """Content hash of a part lowered for ``engine``."""
        digest = hashlib.sha256()
        settings = {
            "engine": engine,
            "recipe": recipe,
            "calibration": fingerprint({"": calibration}),
            "allow_undelegated": allow_undelegated,
            "tools": tool_versions(converter),
            "input": list(part.example.shape),
            "converter": _source(converter),
        }
        digest.update(json.dumps(settings, sort_keys=True).encode())
        for text in _structure(part.module):
            digest.update(text.encode())
        digest.update(fingerprint(part.module.state_dict()).encode())
        return digest.hexdigest()

    def get(self, key: str) -> CachedPart | None:
        """A part lowered before, if it is there and whole."""
        try:
            raw = (self.folder / key).read_bytes()
            head, _, program = raw.partition(b"\n")
            header = msgspec.json.decode(head, type=_Header)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        except OSError as error:
            raise InputError(f"the cache {self.folder} cannot be read: {error}; set {CACHE_VARIABLE}") from error
        if hashlib.sha256(program).hexdigest() != header.sha256:
            return None
        return CachedPart(program, header.operators, header.macs)

    def put(self, key: str, lowered: CachedPart) -> None:
        """Keep a part."""
        header = _Header(hashlib.sha256(lowered.program).hexdigest(), lowered.operators, lowered.macs)
        try:
            with new_file(self.folder / key) as building:
                building.write_bytes(msgspec.json.encode(header) + b"\n" + lowered.program)
        except OSError as error:
            raise InputError(f"the cache {self.folder} cannot be written: {error}; set {CACHE_VARIABLE}") from error


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
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name}|{array.dtype}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _source(converter: Converter) -> str:
    """Hash of a converter's source, and of another converter's that it imports as a module to build on."""
    own = sys.modules[str(getattr(converter, "__name__", ""))]
    others = [value for value in vars(own).values() if inspect.ismodule(value)]
    digest = hashlib.sha256()
    for module in [own, *(other for other in others if other.__name__.startswith("paraedge_converters."))]:
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()


def _structure(module: nn.Module) -> Iterator[str]:
    """Classes and plain attributes of all modules inside, and the source files of classes outside torch."""
    sources: set[str] = set()
    for name, child in module.named_modules():
        kind = type(child)
        yield f"{name}:{kind.__module__}.{kind.__qualname__}:"
        for attribute, value in sorted(vars(child).items()):
            if isinstance(value, (bool, int, float, str, tuple)) or value is None:
                yield f"{attribute}={value!r};"
        if not kind.__module__.startswith("torch."):
            try:
                sources.add(inspect.getsourcefile(kind) or "")
            except TypeError:  # defined at a prompt
                sources.add("")
    for source in sorted(sources - {""}):
        yield hashlib.sha256(Path(source).read_bytes()).hexdigest() if Path(source).is_file() else "?"

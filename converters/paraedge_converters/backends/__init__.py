"""The contract of a converter (one module per backend), and the table of them."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import pkgutil
import re
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, cast

from torch import Tensor, nn

from paraedge_converters._temporary import no_room
from paraedge_converters.backends._source_location import source_location
from paraedge_runtime.errors import ConversionError, InputError, ParaEdgeError

__all__ = ["CONVERTERS", "Converter", "LoweredPart", "converter_for", "in_one_line", "lowering_with"]


@dataclass(frozen=True)
class LoweredPart:
    """A program, and how often each operator occurs in it.

    ``reference`` is what a reference model of the hardware runs in its place, where a delegate has such a model.
    """

    program: bytes
    operators: dict[str, int]
    reference: bytes = b""


class Converter(Protocol):
    """What each of ``executorch.py``, ``litert.py``, ``onnx.py`` and ``tflite_micro.py`` offers at module level, and
    ``ethos_u.py`` for each processor.

    The module imports its backend inside ``lower``: those imports take seconds, and an export whose
    parts are all in the cache needs none of them.

    Attributes:
        TOOLS: packages whose versions decide the program's bytes.
        RECIPES: the quantization recipes it can lower by -> how, in one line; ``recipes.py`` has why not the others.
    """

    TOOLS: tuple[str, ...]
    RECIPES: dict[str, str]

    def engine_min_version(self, recipe: str) -> dict[str, str]:
        """Package that can run the programs of a quantization recipe -> oldest version known to."""

    def lower(
        self, module: nn.Module, example: Tensor, *, recipe: str, calibration: Tensor, allow_undelegated: bool
    ) -> LoweredPart:
        """Lower a module in eval mode, batch 1, to a program of one float32 input and output.

        The same arguments give the same bytes. After lowering the converter checks its promise about
        the operators that are left.

        Args:
            module: what to lower.
            example: an input.
            recipe: a key of ``RECIPES``.
            calibration: (n, …) real inputs of this part; n may be 0 for ``fp32``.
            allow_undelegated: accept operators outside the engine's fast backend.

        Raises:
            ConversionError: the backend failed, or the promise is not kept.
        """


# Name -> module of a converter, imported when it is chosen. An engine's own has its name; a target may name another.
CONVERTERS = {
    "executorch": "paraedge_converters.backends.executorch",
    "litert": "paraedge_converters.backends.litert",
    "onnxruntime": "paraedge_converters.backends.onnx",
    "tflite-micro": "paraedge_converters.backends.tflite_micro",
}

# Those of delegates, which lower the parts that a delegate gets; one module may have a converter for each processor.
_OF_DELEGATES = {
    "coreml": "paraedge_converters.backends.coreml",
    "ethos-u55": "paraedge_converters.backends.ethos_u:U55",
    "ethos-u85": "paraedge_converters.backends.ethos_u:U85",
    "litert-gpu": "paraedge_converters.backends.litert_gpu",
    "vulkan": "paraedge_converters.backends.vulkan",
}


def converter_for(name: str) -> Converter:
    """Look a converter up.

    Raises:
        InputError: unknown name; the message lists the valid ones.
    """
    if name in _OF_DELEGATES:
        return cast(Converter, pkgutil.resolve_name(_OF_DELEGATES[name]))
    if name not in CONVERTERS:
        raise InputError(f"unknown converter {name!r}; choose one of {', '.join(sorted(CONVERTERS))}")
    return cast(Converter, importlib.import_module(CONVERTERS[name]))


_CONTROL_CODES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_MOST_LETTERS = 300


def in_one_line(text: str) -> str:
    """What a package says of its failure, without colours and without the dump of a graph that may follow."""
    first = next((part for part in re.split(r"\n\s*\n", _CONTROL_CODES.sub("", text).strip()) if part), "")
    plain = "".join(letter if letter.isprintable() else " " for letter in first)
    return textwrap.shorten(plain, _MOST_LETTERS, placeholder=" …")


# What an exporter's text has in it -> what is wrong and what to write instead.
_HINTS = {
    "guard on data-dependent": "which way it goes depends on the input's values, and a program has one way; "
    "compute both and add them by weights",
    "complex": "complex numbers are not taken; write them as pairs: a rotation is x * cos + y * sin",
    "stft": "write it as convolutions with the windowed sines",
}


@contextlib.contextmanager
def _masks_as_given() -> Iterator[None]:
    """``nn.TransformerEncoder`` looks at its mask's values for a hint, and no exporter follows it; the mask says it."""
    from torch.nn.modules import transformer

    detect = transformer._detect_is_causal_mask
    transformer._detect_is_causal_mask = lambda mask, is_causal=None, size=None: is_causal is True
    try:
        yield
    finally:
        transformer._detect_is_causal_mask = detect


@contextlib.contextmanager
def lowering_with(backend: str, needed: str = "'paraedge[export]'") -> Iterator[None]:
    """The one edge where a backend's exceptions become ``ConversionError``; ``needed`` is what pip installs for it."""
    with warnings.catch_warnings(), _masks_as_given():
        # What a backend's packages warn about concerns their own authors.
        warnings.simplefilter("ignore")
        try:
            yield
        except ParaEdgeError:
            raise
        except ModuleNotFoundError as error:
            raise ConversionError(
                f"lowering with {backend} needs the package {error.name}; pip install {needed}"
            ) from error
        except Exception as error:
            cause: BaseException = error  # exporters wrap what went wrong in how to report it
            while cause.__cause__ is not None and str(cause.__cause__):
                cause = cause.__cause__
            if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
                raise no_room(os.strerror(errno.ENOSPC)) from error
            text = in_one_line(str(cause)) or type(cause).__name__
            hint = next((hint for start, hint in _HINTS.items() if start in text), "")
            location = source_location(cause) or source_location(error)
            raise ConversionError(f"lowering with {backend} failed{location}: {hint or text}") from error

"""What a source gives, and what it may need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.bundle import Bundle
from paraedge_runtime.errors import InputError

__all__ = ["Shot", "SourceOptions", "wanted_folder"]


class Shot(NamedTuple):
    """One image, or one window of sound.

    Attributes:
        image: as the bundle reads it, (H, W, C) uint8, or (1, T) float32.
        preview: (h, w, 1 or 3) uint8, for people.
        name: what to call it.
        truth: its right label where that is known.
    """

    image: NDArray[np.uint8] | NDArray[np.float32]
    preview: NDArray[np.uint8]
    name: str
    truth: str | None


@dataclass(frozen=True)
class SourceOptions:
    """What a source may need.

    Attributes:
        bundle: that will run what is seen or heard.
        tell: takes a message for people.
        folder: of images or recordings.
        camera: number of the camera.
    """

    bundle: Bundle
    tell: Callable[[str], None]
    folder: Path | None = None
    camera: int = 0


def wanted_folder(options: SourceOptions, source: str) -> Path:
    """The folder that this source needs.

    Raises:
        InputError: none was named.
    """
    if options.folder is None:
        raise InputError(f"the source {source!r} needs a folder; add --folder FOLDER")
    return options.folder

"""From what a caller has (a picture, an array) to what the stem reads, refusing what does not fit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.errors import InputError
from paraedge_runtime.manifest import InputSpec

__all__ = [
    "PICTURE_SUFFIXES",
    "check_input",
    "find_pictures",
    "normalise",
    "picture_array",
    "read_picture",
    "scale_and_shift",
]

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".ppm", ".pgm"})


def scale_and_shift(spec: InputSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(C,) each: a picture's ``x`` is read as ``x * scale - shift``."""
    std = np.asarray(spec.std, dtype=np.float64)
    shift = np.asarray(spec.mean, dtype=np.float64) / std
    return (1.0 / (255.0 * std)).astype(np.float32), shift.astype(np.float32)


def normalise(images: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """uint8 (N, H, W, C) -> float32 (N, C, H, W), ``(x / 255 - mean) / std`` per channel."""
    scale, shift = scale_and_shift(spec)
    return np.ascontiguousarray((images * scale - shift).transpose(0, 3, 1, 2), dtype=np.float32)


def check_input(
    image: NDArray[np.uint8] | NDArray[np.float32], spec: InputSpec
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """The input as a runner takes it: (H, W, C) uint8, or (1, C, H, W) float32; C-contiguous.

    The dtype decides: uint8 is a picture, (H, W, C), or (H, W) for one channel; float32 is taken as
    it is and must be (1, C, H, W), normalised already.

    Raises:
        InputError: another type, shape or dtype, or values that are not finite.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(f"input '{spec.name}' must be a numpy array, got {type(image).__name__}")
    _, channels, height, width = spec.shape
    if image.dtype == np.uint8:
        if image.shape == (height, width) and channels == 1:
            image = image[:, :, None]
        if image.shape != (height, width, channels):
            raise InputError(
                f"input '{spec.name}' is a uint8 picture of shape {image.shape}; this bundle reads "
                f"({height}, {width}, {channels}), resize it first"
            )
    elif image.dtype == np.float32:
        if image.shape != spec.shape:
            raise InputError(
                f"input '{spec.name}' is float32 of shape {image.shape}; this bundle reads {spec.shape} "
                f"(or a uint8 picture of ({height}, {width}, {channels}))"
            )
        if not np.isfinite(image).all():
            raise InputError(f"input '{spec.name}' has {int((~np.isfinite(image)).sum())} values that are not finite")
    else:
        raise InputError(
            f"input '{spec.name}' has dtype {image.dtype}; pass uint8 (a picture) or float32 (normalised already)"
        )
    if image.flags.c_contiguous and image.dtype.isnative:
        return image
    return cast("NDArray[np.uint8] | NDArray[np.float32]", np.ascontiguousarray(image, image.dtype.type))


def read_picture(path: str | os.PathLike[str], spec: InputSpec) -> NDArray[np.uint8]:
    """A picture file as (H, W, C) uint8, scaled to what the bundle reads.

    Raises:
        InputError: it does not exist, is no picture, or Pillow is not installed.
    """
    _, channels, height, width = spec.shape
    if channels not in (1, 3):
        raise InputError(f"this bundle reads {channels} channels, a picture has 1 or 3; pass arrays to Session.run")
    return picture_array(path, height, width, channels)


def picture_array(path: str | os.PathLike[str], height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """A picture file, upright and scaled, as (height, width, channels) uint8; channels are 1 or 3.

    Raises:
        InputError: it does not exist, is no picture, or Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise InputError(f"reading {path} needs Pillow ({error}); pip install 'paraedge[cli]'") from error
    try:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture)
            if upright.mode.startswith("I;16"):  # convert() would clip these to white
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            if upright.mode == "P" and "transparency" in upright.info:
                upright = upright.convert("RGBA")  # as Pillow asks for
            converted = upright.convert("L" if channels == 1 else "RGB")
            resized = converted.resize((width, height), Image.Resampling.BILINEAR)
            return np.asarray(resized, dtype=np.uint8).reshape(height, width, channels)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except Exception as error:  # Pillow raises many kinds for a damaged picture
        raise InputError(f"{path} is not a picture that can be read: {error}; remove or replace it") from error


def find_pictures(paths: list[Path]) -> list[Path]:
    """The picture files among ``paths``: files as they are, folders searched, sorted by name.

    Raises:
        InputError: a path does not exist, or a folder holds no pictures.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                entry for entry in path.rglob("*") if entry.suffix.lower() in PICTURE_SUFFIXES and entry.is_file()
            )
            if not inside:
                raise InputError(f"{path} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"{path} does not exist")
    return found

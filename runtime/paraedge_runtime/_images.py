"""From an image file to an upright image without transparency, bounded in size. Needs Pillow."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paraedge_runtime._jpeg import has_one_scan

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["BACKGROUND", "MAX_FILE_BYTES", "MAX_JPEG_PIXELS", "MAX_PIXELS", "on_background", "upright_image"]

BACKGROUND = (255, 255, 255)  # what shows through transparent pixels
MAX_PIXELS = 50_000_000  # decoded: 200 MB
# Of a JPEG that is decoded block by block, as it lies in its file: at down to an eighth of its width and height.
MAX_JPEG_PIXELS = 256_000_000
# 50 million pixels of four bytes are less. Most decoders take up to a second for a megabyte of what they pass over.
MAX_FILE_BYTES = 1 << 28
# Pillow reads a PGM's or PPM's header byte by byte, comments and all: a long one takes minutes. So do comments in one
# that is written as text (P1 to P3).
_MAX_PNM_HEADER = 4096
_PNM_NUMBER = rb"(?:\s|#[^\r\n]*[\r\n])+[0-9]{1,9}"
_PNM_HEADER = re.compile(rb"(?:P4(?:%b){2}|P[56](?:%b){3})\s" % (_PNM_NUMBER, _PNM_NUMBER))
_DECODED_OVER_WANTED = 3  # scaling from three times the size down looks like scaling from the full size
# Beside JPEG; others start programs (EPS) or are containers of containers.
_FORMATS = ("PNG", "BMP", "DIB", "WEBP", "GIF", "PPM", "TIFF")
_WITH_ALPHA = ("LA", "PA", "RGBA", "RGBa")
_WIDE = {"F": "floating point numbers", "I": "32-bit numbers"}  # modes of Pillow
_WITH_TRANSPARENT_COLOUR = ("1", "L", "P", "RGB")


def upright_image(path: str | os.PathLike[str], side: int) -> Image.Image:
    """The first frame, turned as its EXIF entry says, on a white background.

    A JPEG is decoded at the smallest size that is at least three times ``side`` pixels a side. One of several
    scans is held to ``MAX_PIXELS`` all the same: its decoder keeps the coefficients of all pixels at whatever size it
    puts out.

    Raises:
        ValueError: more pixels or bytes than the limits above, or a file that keeps its decoder busy for minutes.
        Exception: whatever Pillow raises for a file that is no image, or damaged.
    """
    from PIL import ImageOps

    image, can_reduce = _opened(path)
    with image:
        _check_size(image, MAX_JPEG_PIXELS if can_reduce else MAX_PIXELS)
        image.draft(None, (_DECODED_OVER_WANTED * side,) * 2)
        _check_size(image, MAX_PIXELS)
        ImageOps.exif_transpose(image, in_place=True)
        return on_background(image)


def _opened(path: str | os.PathLike[str]) -> tuple[Image.Image, bool]:
    """As ``Image.open``, but for JPEGs without its limit, which is on the size in the file.

    Returns:
        The image, and whether it is decoded block by block.
    """
    from PIL import Image
    from PIL.JpegImagePlugin import JpegImageFile

    if Path(path).is_fifo():
        raise ValueError("it is a pipe")  # which would be waited for
    with Path(path).open("rb") as file:
        head, size_bytes = file.read(_MAX_PNM_HEADER), os.fstat(file.fileno()).st_size
    if size_bytes > MAX_FILE_BYTES:
        raise ValueError(f"it has {size_bytes:,} bytes, more than the {MAX_FILE_BYTES:,} allowed")
    if head.startswith(b"P") and not _PNM_HEADER.match(head):
        raise ValueError("it is not a binary PGM or PPM file, or its header is too long; save it as PNG")
    if head.startswith(b"\xff\xd8\xff"):
        with Path(path).open("rb") as file:
            can_reduce = has_one_scan(file)  # before Pillow looks at it
        return JpegImageFile(path), can_reduce
    return Image.open(path, formats=_FORMATS), False


def _check_size(image: Image.Image, most_pixels: int) -> None:
    pixels = image.width * image.height
    if pixels > most_pixels:
        raise ValueError(f"it has {pixels:,} pixels, more than the {most_pixels:,} allowed")


def on_background(image: Image.Image) -> Image.Image:
    """The image without its transparency, and without a second eight bits; itself where it has neither."""
    from PIL import Image

    if image.mode.startswith("I;16"):  # convert() would clip these to white
        values = np.asarray(image)
        grey = (values >> 8).astype(np.uint8)
        if (transparent := image.info.get("transparency")) is not None:
            grey[values == transparent] = BACKGROUND[0]
        return Image.fromarray(grey)
    if image.mode == "F" or (image.mode == "I" and np.any((values := np.asarray(image)) != values.astype(np.uint8))):
        raise ValueError(f"its pixels are {_WIDE[image.mode]}, whose range is unknown; save it with 8 or 16 bits")
    has_colour = image.mode in _WITH_TRANSPARENT_COLOUR and "transparency" in image.info
    if image.mode not in _WITH_ALPHA and not has_colour:
        image.load()  # whoever opened it closes its file
        return image
    layer = image.convert("RGBA")
    page = Image.new("RGB", image.size, BACKGROUND)
    page.paste(layer, mask=layer)
    return page

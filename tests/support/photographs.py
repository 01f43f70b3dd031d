"""A photograph as phones make them: 12 million pixels, lying on its side, and EXIF that says so."""

from pathlib import Path

import numpy as np
from PIL import Image

ORIENTATION = 0x0112
TURNED_RIGHT = 6  # the sensor's top is the picture's right


def write_phone_photograph(path: Path) -> Path:
    """Write a JPEG of 4000 x 3000 pixels, to be turned by a quarter: light, edges, texture and noise of one seed.

    Its colours are not subsampled, so that every decoder finds the same pixels.
    """
    rows, columns = np.mgrid[0:3000, 0:4000].astype(np.float32)
    numbers = np.random.default_rng(11)
    light = 90 + 80 * np.sin(rows / 700) * np.cos(columns / 900)
    edges = 60 * ((rows // 250 + columns // 370) % 2)
    texture = 20 * np.sin(columns / 3) * np.sin(rows / 5)
    noise = numbers.normal(0, 6, (3000, 4000)).astype(np.float32)
    layers = [light + edges + noise, 0.7 * light + texture + 60, 200 - 0.5 * light - edges + texture]
    image = Image.fromarray(np.clip(np.stack(layers, axis=2), 0, 255).astype(np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED_RIGHT
    image.save(path, quality=92, subsampling=0, exif=exif)
    return path

"""What a session takes beside the exact array: a path, a PIL image, a torch tensor, an array of another size.

Neither torch nor Pillow is imported to look at what a caller has; Pillow is where an image is read or scaled.
"""

from __future__ import annotations

import os
import sys
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.errors import InputError
from paraedge_runtime.inputs import Input, check_image_input, check_input, fitted_image, read_input
from paraedge_runtime.manifest import ImageInput, InputSpec

__all__ = ["as_input", "exact_shapes"]

_UINT8, _FLOAT32 = np.dtype(np.uint8), np.dtype(np.float32)


def exact_shapes(spec: InputSpec) -> dict[tuple[int, ...], np.dtype[Any]]:
    """Shapes of arrays that are taken as they are, each with its dtype."""
    if isinstance(spec, ImageInput):
        return {(*spec.shape[2:], spec.shape[1]): _UINT8, spec.shape: _FLOAT32}
    return {spec.shape[1:]: _FLOAT32}


def as_input(value: object, spec: InputSpec) -> Input:
    """What ``check_input`` returns, of anything that has an unambiguous meaning for the bundle.

    A path is read. For an image input, images of another size or with other channels are scaled and converted as
    files are: a PIL image, or uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) in numpy or torch. The channels may come
    first if there is one, or as many as the bundle reads: else (3, H, W) may be three grey images, too. Floats are
    taken in the exact shape only: whether theirs is a scale of 1 or 255 cannot be seen.

    Raises:
        InputError: another kind, shape or dtype; the message says what the bundle reads.
    """
    if isinstance(spec, ImageInput) and type(value) is np.ndarray and value.dtype is _UINT8:  # what cameras give
        return check_input(_scaled(value, spec), spec)
    if isinstance(value, str | os.PathLike):
        return read_input(value, spec)
    if hasattr(value, "detach") and hasattr(value, "cpu"):  # files have a detach of their own
        value = _array_of_tensor(value)
    if isinstance(spec, ImageInput):
        if _is_pil_image(value):
            return _fitted(value, spec)
        if isinstance(value, np.ndarray) and value.dtype == np.uint8:
            value = _scaled(value, spec)
    return check_input(cast("Input", value), spec)


def _array_of_tensor(tensor: Any) -> NDArray[Any]:
    try:
        return cast("NDArray[Any]", tensor.detach().cpu().numpy())
    except (TypeError, RuntimeError) as error:  # bfloat16, sparse, quantized
        raise InputError(f"a torch tensor of {tensor.dtype} cannot be read: {error}; pass uint8 or float32") from None


def _is_pil_image(value: object) -> bool:
    pillow = sys.modules.get("PIL.Image")  # whoever has such an image has imported it
    return pillow is not None and isinstance(value, pillow.Image)


def _fitted(image: Any, spec: ImageInput) -> NDArray[np.uint8]:
    check_image_input(spec)
    _, channels, height, width = spec.shape
    try:
        return fitted_image(image, height, width, channels, spec.resize)
    except Exception as error:  # it is decoded only now, and Pillow raises many kinds for a damaged image
        name = getattr(image, "filename", "") or f"of {image.width} x {image.height} pixels"
        raise InputError(f"the PIL image {name} cannot be read: {error}; replace it") from error


def _scaled(value: NDArray[np.uint8], spec: ImageInput) -> NDArray[np.uint8]:
    """A uint8 image as the bundle reads it; as it is where it is no image, which ``check_input`` refuses."""
    _, channels, height, width = spec.shape
    if value.shape == (height, width, channels):
        return value
    if value.ndim == 3 and value.shape[2] not in (1, 3, 4) and value.shape[0] in (1, 3, 4, channels):
        if value.shape[0] not in (1, channels):
            raise InputError(
                f"input '{spec.name}' is uint8 of shape {value.shape}: one image of {value.shape[0]} channels, or "
                f"{value.shape[0]} grey images; pass a list of images, or one as (H, W, {value.shape[0]})"
            )
        value = value.transpose(1, 2, 0)  # channels first, as torch has them
    is_image = value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (1, 3, 4))
    if not is_image or not value.size or value.shape == (height, width, channels) or channels not in (1, 3):
        return value
    if value.ndim == 2 and value.shape == (height, width) and channels == 1:
        return value
    check_image_input(spec)
    from PIL import Image

    plain = value[:, :, 0] if value.ndim == 3 and value.shape[2] == 1 else value
    return _fitted(Image.fromarray(np.ascontiguousarray(plain)), spec)

"""What a session takes beside the exact array: a path, a PIL image, a torch tensor, an array of another size.

Neither torch nor Pillow is imported to look at what a caller has; Pillow is where a picture is read or scaled.
"""

from __future__ import annotations

import os
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.errors import InputError
from paraedge_runtime.inputs import (
    Input,
    check_input,
    check_picture_input,
    fitted_picture,
    read_picture,
    read_tensor,
)
from paraedge_runtime.manifest import ImageInput, InputSpec, TensorInput

__all__ = ["as_input"]


def as_input(value: object, spec: InputSpec) -> Input:
    """What ``check_input`` returns, of anything that has an unambiguous meaning for the bundle.

    A path is read. For an image input, pictures of another size or with other channels are scaled and converted as
    files are: a PIL image, or uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), also with the channels first, in numpy
    or torch. Floats are taken in the exact shape only: whether theirs is a scale of 1 or 255 cannot be seen.

    Raises:
        InputError: another kind, shape or dtype; the message says what the bundle reads.
    """
    if isinstance(value, str | os.PathLike):
        return read_tensor(value, spec) if isinstance(spec, TensorInput) else read_picture(value, spec)
    package = type(value).__module__.partition(".")[0]
    if package == "torch" and hasattr(value, "detach"):
        value = _array_of_tensor(value)
    if isinstance(spec, ImageInput):
        _, channels, height, width = spec.shape
        if _is_pil_image(value):
            check_picture_input(spec)
            return fitted_picture(value, height, width, channels, spec.resize)
        if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.shape != (height, width, channels):
            value = _scaled(value, spec)
    return check_input(cast("Input", value), spec)


def _array_of_tensor(tensor: Any) -> NDArray[Any]:
    try:
        return cast("NDArray[Any]", tensor.detach().cpu().numpy())
    except (TypeError, RuntimeError) as error:  # bfloat16, sparse, quantized
        raise InputError(f"a torch tensor of {tensor.dtype} cannot be read: {error}; pass uint8 or float32") from None


def _is_pil_image(value: object) -> bool:
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(value).__mro__)


def _scaled(value: NDArray[np.uint8], spec: ImageInput) -> NDArray[np.uint8]:
    """A uint8 picture as the bundle reads it; as it is where it is no picture, which ``check_input`` refuses."""
    _, channels, height, width = spec.shape
    if value.ndim == 3 and value.shape[2] not in (1, 3, 4) and value.shape[0] in (1, 3, 4, channels):
        value = value.transpose(1, 2, 0)  # channels first, as torch has them
    is_picture = value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (1, 3, 4))
    if not is_picture or not value.size or value.shape == (height, width, channels) or channels not in (1, 3):
        return value
    if value.ndim == 2 and value.shape == (height, width) and channels == 1:
        return value
    check_picture_input(spec)
    from PIL import Image

    plain = value[:, :, 0] if value.ndim == 3 and value.shape[2] == 1 else value
    return fitted_picture(Image.fromarray(np.ascontiguousarray(plain)), height, width, channels, spec.resize)

"""From what a caller has (an image, a tensor, a file) to what the stem reads, refusing what does not fit."""

from __future__ import annotations

import io
import math
import os
import re
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime._images import on_background, upright_image
from paraedge_runtime._reading import read_bounded
from paraedge_runtime.errors import InputError
from paraedge_runtime.manifest import ImageInput, InputSpec, TensorInput
from paraedge_runtime.sensor_windows import WINDOW_SUFFIXES, WindowShape, read_window
from paraedge_runtime.sound import SOUND_SUFFIXES, hears, read_clip

__all__ = [
    "IMAGE_SUFFIXES",
    "Resize",
    "check_image_input",
    "check_input",
    "display_name",
    "find_images",
    "find_inputs",
    "fitted_image",
    "image_array",
    "is_hidden",
    "normalise",
    "read_image",
    "read_input",
    "read_tensor",
    "scale_and_shift",
    "stem_input",
    "visible_files",
]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"})

_TENSOR_SUFFIXES = WINDOW_SUFFIXES | {".npy"}

# What systems leave in folders, in small letters.
_LITTER = frozenset(
    {
        ".ds_store", "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir",
        "$recycle.bin", "system volume information",
    }
)  # fmt: skip

Input = NDArray[np.uint8] | NDArray[np.float32]
Resize = Literal["stretch", "crop"]  # of ImageInput


def scale_and_shift(spec: InputSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(C,) each, or one per place along the normalized axis: ``x`` is read as ``x * scale - shift``."""
    scale, shift = spec.scale_and_shift()
    return np.asarray(scale, dtype=np.float32), np.asarray(shift, dtype=np.float32)


def normalise(inputs: Input, spec: InputSpec) -> NDArray[np.float32]:
    """N checked inputs as the stem reads them.

    An image input: uint8 (N, H, W, C) -> float32 (N, C, H, W), ``(x / 255 - mean) / std`` per channel.
    A tensor input: float32 (N, ...) -> the same shape, ``(x - mean) / std`` along the normalized axis.
    """
    scale, shift = scale_and_shift(spec)
    if isinstance(spec, ImageInput):
        return np.ascontiguousarray((inputs * scale - shift).transpose(0, 3, 1, 2), dtype=np.float32)
    if spec.normalized_axis is not None:
        after = len(spec.axes) - 1 - spec.axes.index(spec.normalized_axis)
        scale, shift = (values.reshape(-1, *[1] * after) for values in (scale, shift))
    return np.ascontiguousarray(inputs * scale - shift, dtype=np.float32)


def stem_input(value: Input, spec: InputSpec) -> NDArray[np.float32]:
    """What ``check_input`` let through, as the stem reads it: float32 of ``spec.shape``."""
    if isinstance(spec, ImageInput) and value.dtype == np.float32:
        return cast("NDArray[np.float32]", value)
    return normalise(value[None], spec)


def check_input(value: Input, spec: InputSpec) -> Input:
    """The input as a session takes it, C-contiguous.

    An image input: (H, W, C) uint8, (H, W) will do for one channel; or (1, C, H, W) float32, which is
    taken as normalised already. A tensor input: float32 of ``spec.shape[1:]``, not normalised.

    Raises:
        InputError: another type, shape or dtype, or values that are not finite.
    """
    if not isinstance(value, np.ndarray):
        raise InputError(f"input '{spec.name}' must be {_kinds(spec)}, got {type(value).__name__}; {_reads(spec)}")
    value = cast("Input", np.asarray(value))  # a matrix has its own idea of slices
    if isinstance(spec, ImageInput):
        _, channels, height, width = spec.shape
        if value.dtype == np.uint8 and value.shape == (height, width) and channels == 1:
            value = value[:, :, None]
        accepted = [("uint8", (height, width, channels)), ("float32", spec.shape)]
    else:
        accepted = [("float32", spec.shape[1:])]
    if (str(value.dtype), value.shape) not in accepted:
        hint = _hint(value, spec)
        raise InputError(f"input '{spec.name}' is {value.dtype} of shape {value.shape}; {_reads(spec)}{hint}")
    if value.dtype == np.float32 and not np.isfinite(value).all():
        raise InputError(f"input '{spec.name}' has {int((~np.isfinite(value)).sum())} values that are not finite")
    return value if value.flags.c_contiguous else cast("Input", np.ascontiguousarray(value))


def _kinds(spec: InputSpec) -> str:
    also = "a PIL image, " if isinstance(spec, ImageInput) else ""
    return f"a path, {also}a torch tensor or a numpy array"


def _hint(value: NDArray[Any], spec: InputSpec) -> str:
    """What to do with an array that does not fit, where it can be known."""
    if not isinstance(spec, ImageInput) or value.dtype != np.uint8:
        return ""
    if value.ndim == 4:
        return "; pass several images as a list to run"
    if value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (1, 3, 4, spec.shape[1])):
        return "; resize it first"
    return "; an image has 1, 3 or 4 channels"


def _reads(spec: InputSpec) -> str:
    """What the bundle reads, for a refusal."""
    if isinstance(spec, TensorInput):
        axes = ", ".join(spec.axes)
        return f"this bundle reads float32 of shape {spec.shape[1:]}, axes ({axes}), before it is normalised"
    _, channels, height, width = spec.shape
    return (
        f"this bundle reads a uint8 image of shape ({height}, {width}, {channels}), "
        f"or float32 of shape {spec.shape}, normalised already"
    )


def read_input(path: str | os.PathLike[str], spec: InputSpec) -> Input:
    """A file as the bundle reads it: ``read_tensor``, ``read_clip`` or ``read_image``, by its kind of input.

    Raises:
        InputError: as these.
    """
    if not isinstance(spec, TensorInput):
        return read_image(path, spec)
    if Path(path).suffix.lower() in SOUND_SUFFIXES and hears(spec):
        return read_clip(path, spec)
    return read_tensor(path, spec)


def read_image(path: str | os.PathLike[str], spec: InputSpec) -> NDArray[np.uint8]:
    """An image file as (H, W, C) uint8, scaled or cropped to what the bundle reads.

    Raises:
        InputError: it does not exist, is no image, Pillow is not installed, or the bundle reads no image.
    """
    check_image_input(spec)
    assert isinstance(spec, ImageInput)
    if (suffix := Path(path).suffix.lower()) in _TENSOR_SUFFIXES:
        raise InputError(
            f"{path}: {suffix} files are for bundles that read a tensor, this one reads an image; name images"
        )
    _, channels, height, width = spec.shape
    return image_array(path, height, width, channels, spec.resize)


def check_image_input(spec: InputSpec) -> None:
    """Refuse what would be refused of every image.

    Raises:
        InputError: the bundle reads no image, or one with other channels than an image has; or Pillow is not
            installed.
    """
    if not isinstance(spec, ImageInput):
        raise InputError(f"this bundle does not read images; {_reads(spec)}: pass arrays to Session.run")
    if spec.shape[1] not in (1, 3):
        raise InputError(f"this bundle reads {spec.shape[1]} channels, an image has 1 or 3; pass arrays to Session.run")
    _need_pillow()


def _need_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise InputError(f"reading images needs Pillow ({error}); pip install 'paraedge[cli]'") from error


def image_array(
    path: str | os.PathLike[str], height: int, width: int, channels: int, resize: Resize = "stretch"
) -> NDArray[np.uint8]:
    """An image file, upright and scaled, as (height, width, channels) uint8; channels are 1 or 3.

    ``resize`` is that of :class:`paraedge_runtime.manifest.ImageInput`. Transparent pixels show white. A JPEG of
    one scan may have 256 million pixels and is decoded at a reduced size, any other image 50 million.

    Raises:
        InputError: it does not exist, is no image, has too many pixels, or Pillow is not installed.
    """
    _need_pillow()
    try:
        return _scaled(upright_image(path, max(height, width)), height, width, channels, resize)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except Exception as error:  # Pillow raises many kinds for a damaged image
        raise InputError(
            f"{path} is not an image that can be read: {_problem(path, error)}; remove or replace it"
        ) from error


def _problem(path: str | os.PathLike[str], error: Exception) -> str:
    """What Pillow says, but for a file of which it says only that it does not know it."""
    from PIL import UnidentifiedImageError

    if isinstance(error, SyntaxError):  # Pillow's for a header that ends early
        return "its header is damaged"
    if not isinstance(error, UnidentifiedImageError):
        return str(error)
    return "it is empty" if not Path(path).stat().st_size else "it is none of PNG, JPEG, BMP, WebP, GIF, PPM and TIFF"


def fitted_image(image: Any, height: int, width: int, channels: int, resize: Resize = "stretch") -> NDArray[np.uint8]:
    """A PIL image, upright, on white and scaled, as (height, width, channels) uint8; channels are 1 or 3.

    The one rule for files, PIL images and arrays of another size: bilinear, the whole image or its middle part.
    """
    from PIL import ImageOps

    return _scaled(on_background(ImageOps.exif_transpose(image)), height, width, channels, resize)


def _scaled(upright: Any, height: int, width: int, channels: int, resize: Resize) -> NDArray[np.uint8]:
    from PIL import Image

    mode = "L" if channels == 1 else "RGB"
    converted = upright if upright.mode == mode else upright.convert(mode)  # convert() would copy it
    if resize == "crop":
        scale = min(converted.width / width, converted.height / height)
        across, down = max(1, round(width * scale)), max(1, round(height * scale))
        left, top = (converted.width - across) // 2, (converted.height - down) // 2
        converted = converted.crop((left, top, left + across, top + down))
    resized = converted.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.uint8).reshape(height, width, channels)


def read_tensor(path: str | os.PathLike[str], spec: TensorInput) -> NDArray[np.float32]:
    """A file of one input as a bundle of tensors reads it: float32 of ``spec.shape[1:]``.

    ``.npy`` is that array. ``.csv`` and ``.npz`` are a window of samples, see
    :func:`paraedge_runtime.sensor_windows.read_window`; its channels, rate and length are those of the bundle.

    Raises:
        InputError: it does not exist, is no such array or window, or holds values that are not finite.
    """
    if Path(path).suffix.lower() in WINDOW_SUFFIXES:
        return _window_tensor(Path(path), spec)
    most_bytes = 4 * math.prod(spec.shape) + 4096  # the array and its header
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise InputError(f"{path} is not a plain file; save the input with numpy.save and name that")
        if not _begins_as_arrays(Path(path)):
            raise InputError(f"{path} is not a .npy file; this bundle reads {_kinds_of_file(spec)}")
        if Path(path).stat().st_size > most_bytes:
            raise InputError(f"{path} has {Path(path).stat().st_size} bytes, at most {most_bytes} fit; {_reads(spec)}")
        value = np.load(io.BytesIO(read_bounded(Path(path), most_bytes)), allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except InputError:
        raise
    except Exception as error:  # numpy parses the header as Python: tokenizer, recursion, index errors too
        problem = "it holds Python objects, which are never loaded" if "allow_pickle" in str(error) else str(error)
        raise InputError(
            f"{path} is not a .npy file that can be read: {problem}; save numbers with numpy.save"
        ) from error
    if not isinstance(value, np.ndarray):  # .npz
        raise InputError(f"{path} holds several arrays; save the one to run with numpy.save")
    try:
        return cast("NDArray[np.float32]", check_input(value, spec))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _begins_as_arrays(path: Path) -> bool:
    """Whether numpy would read it as ``.npy`` or ``.npz``; it takes all else for a pickle, and advises to load that."""
    with path.open("rb") as file:
        return file.read(4) in (b"\x93NUM", b"PK\x03\x04")


def _window_tensor(path: Path, spec: TensorInput) -> NDArray[np.float32]:
    if spec.rate_hz is None or spec.channel_names is None or sorted(spec.axes) != ["channel", "time"]:
        raise InputError(f"{path}: this bundle has no channel names or sample rate; save the input with numpy.save")
    window = read_window(path)
    wanted = WindowShape(spec.shape[1 + spec.axes.index("time")], spec.rate_hz, spec.channel_names)
    try:
        values = window.fitted(wanted, "this bundle")  # (T, C)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return np.ascontiguousarray(values if spec.axes[0] == "time" else values.T)


def find_inputs(paths: list[Path], spec: InputSpec) -> list[Path]:
    """The files among ``paths`` that a bundle can read: files as they are, folders searched, sorted by name.

    Raises:
        InputError: a path does not exist, or a folder holds none.
    """
    if isinstance(spec, ImageInput):
        return find_images(paths)
    if hears(spec):
        return _find(paths, SOUND_SUFFIXES | {".npy"}, _kinds_of_file(spec))
    return _find(paths, _TENSOR_SUFFIXES, _kinds_of_file(spec))


def _kinds_of_file(spec: TensorInput) -> str:
    return ".wav or .npy files" if hears(spec) else f"files ({', '.join(sorted(_TENSOR_SUFFIXES))})"


def find_images(paths: list[Path]) -> list[Path]:
    """The image files among ``paths``: files as they are, folders searched, sorted by name. Hidden files
    in folders are left out, and everywhere what systems leave behind, such as ``._a.png`` and ``Thumbs.db``.

    Raises:
        InputError: a path does not exist, or a folder holds no images.
    """
    return _find(paths, IMAGE_SUFFIXES, f"images ({', '.join(sorted(IMAGE_SUFFIXES))})")


def _find(paths: list[Path], suffixes: frozenset[str], what: str) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = visible_files(path, suffixes)
            if not inside:
                raise InputError(f"{path} contains no {what}; name a folder with some, or the files")
            found += inside
        elif not path.exists():
            raise InputError(f"{path} does not exist")
        elif not _is_litter(path.name):  # folder/* names these too
            found.append(path)
    if paths and not found:
        raise InputError(f"{paths[0]} is a system file, not an input; name {what}")
    return found


def visible_files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """Files in ``folder`` and below that end in one of ``suffixes``, sorted; nothing hidden or below what is."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes
        and not any(is_hidden(name) for name in path.relative_to(folder).parts)
        and path.is_file()
    )


def is_hidden(name: str) -> bool:
    """Whether the name of a file or folder begins with a dot, or is one that a system uses for itself."""
    return name.startswith(".") or _is_litter(name)


def _is_litter(name: str) -> bool:
    """``._a.png`` of macOS, which is no image, and the like."""
    return name.startswith("._") or name.lower() in _LITTER


def display_name(path: str | os.PathLike[str]) -> str:
    """A file's name, or text with one in it, as every encoder takes it: bytes that are not UTF-8 become ``�``."""
    return re.sub("[\ud800-\udfff]", "�", os.fspath(path))  # Python's stand-ins for such bytes

"""Where images come from: the bundle's own, a folder, a camera. Each a generator of shots that fit the bundle."""

from __future__ import annotations

import contextlib
import os
import shlex
import unicodedata
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime.bundle import Bundle
from paraedge_runtime.errors import DeviceError, InputError
from paraedge_runtime.inputs import display_name, find_images, read_image
from paraedge_runtime.manifest import InputSpec

__all__ = ["PREVIEW_SIZE", "SOURCES", "Shot", "Source", "SourceOptions", "open_source"]

PREVIEW_SIZE = 240  # pixels: the side of what is shown of a camera's image
CAMERA_SIZE = (640, 480)


class Shot(NamedTuple):
    """One image.

    Attributes:
        image: (H, W, C) uint8, as the bundle reads it.
        preview: (h, w, 1 or 3) uint8, for people.
        name: what to call it.
        truth: its right label where that is known.
    """

    image: NDArray[np.uint8]
    preview: NDArray[np.uint8]
    name: str
    truth: str | None


@dataclass(frozen=True)
class SourceOptions:
    """What a source may need.

    Attributes:
        bundle: that will run the images.
        tell: takes a message for people.
        folder: of images.
        camera: number of the camera.
    """

    bundle: Bundle
    tell: Callable[[str], None]
    folder: Path | None = None
    camera: int = 0


@dataclass(frozen=True)
class Source:
    """A row of ``SOURCES``.

    Attributes:
        shots: an endless generator; raises ``DeviceError`` or ``InputError`` when it is cut off.
        check: raises ``InputError`` for what no waiting will mend.
        paced: whether it has no speed of its own.
    """

    shots: Callable[[SourceOptions], Generator[Shot, None, None]]
    check: Callable[[SourceOptions], object]
    paced: bool


def _packaged(options: SourceOptions) -> Generator[Shot, None, None]:
    """The real held-out images that every bundle carries, again and again."""
    golden, names = options.bundle.golden(), options.bundle.manifest.labels
    images = golden.inputs.astype(np.uint8)
    labels = [None] * len(images) if golden.labels is None else [names[label] for label in golden.labels]
    while True:
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield Shot(image, image, f"image {number}", label)


def _folder(options: SourceOptions) -> Generator[Shot, None, None]:
    """A folder's images, again and again; those in a folder that is called like a label are of that label."""
    spec = options.bundle.manifest.input
    # However a folder's name is typed: composed or decomposed, it is the same label.
    labels = {unicodedata.normalize("NFC", label): label for label in options.bundle.manifest.labels}
    while True:
        readable = False
        for path in find_images([_wanted_folder(options)]):
            try:
                image = read_image(path, spec)
            except InputError as error:
                options.tell(str(error))
                continue
            readable = True
            truth = labels.get(unicodedata.normalize("NFC", path.parent.name))
            yield Shot(image, image, display_name(path.name), truth)
        if not readable:
            raise InputError(f"{options.folder} holds no readable image; put one there")


def _wanted_folder(options: SourceOptions) -> Path:
    if options.folder is None:
        raise InputError("the source 'folder' needs a folder; add --folder FOLDER")
    return options.folder


def _check_folder(options: SourceOptions) -> None:
    find_images([_wanted_folder(options)])


def _camera(options: SourceOptions) -> Generator[Shot, None, None]:
    """What the camera sees, its middle square, as fast as it comes."""
    spec = options.bundle.manifest.input
    with contextlib.closing(_open_camera()(options.camera)) as camera:
        for number, frame in enumerate(camera):
            square = _middle_square(frame)
            preview = _resized(square, PREVIEW_SIZE, PREVIEW_SIZE)
            yield Shot(_as_input(square, spec), preview, f"camera frame {number}", None)


def _open_camera() -> Callable[[int], Generator[NDArray[np.uint8], None, None]]:
    """picamera2 where it is installed, else OpenCV."""
    try:
        import picamera2  # noqa: F401
    except ImportError:
        os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # its warnings would be written across the terminal view
        try:
            import cv2  # noqa: F401
        except ImportError:
            raise InputError(
                "the source 'camera' needs picamera2 (on a Raspberry Pi: sudo apt install python3-picamera2, and a "
                "virtual environment that sees system packages) or OpenCV (pip install opencv-python-headless)"
            ) from None
        return _opencv_images
    return _picamera_images


def _picamera_images(number: int) -> Generator[NDArray[np.uint8], None, None]:
    from picamera2 import Picamera2

    with Picamera2(number) as camera:
        # The library names formats from the last byte to the first: this one is R, G, B in memory.
        camera.configure(camera.create_video_configuration(main={"size": CAMERA_SIZE, "format": "BGR888"}))
        camera.start()
        while True:
            yield camera.capture_array("main")


def _opencv_images(number: int) -> Generator[NDArray[np.uint8], None, None]:
    import cv2

    camera: Any = cv2.VideoCapture(number)
    try:
        if not camera.isOpened():
            raise DeviceError(f"camera {number} cannot be opened; plug it in, or choose another with --camera")
        camera.set(cv2.CAP_PROP_FRAME_WIDTH, CAMERA_SIZE[0])
        camera.set(cv2.CAP_PROP_FRAME_HEIGHT, CAMERA_SIZE[1])
        while True:
            works, frame = camera.read()
            if not works:
                raise DeviceError(f"camera {number} gives no images any more; is it still plugged in?")
            yield frame[:, :, ::-1]  # B, G, R
    finally:
        camera.release()


def _middle_square(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(frame[top : top + side, left : left + side])


def _resized(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def _as_input(square: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    from PIL import Image

    _, channels, height, width = spec.shape
    image = Image.fromarray(square).convert("L" if channels == 1 else "RGB")
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.uint8).reshape(height, width, channels)


SOURCES = {
    "packaged": Source(_packaged, check=lambda options: None, paced=True),
    "folder": Source(_folder, check=_check_folder, paced=True),
    "camera": Source(_camera, check=lambda options: _open_camera(), paced=False),
}


def open_source(name: str, options: SourceOptions) -> Source:
    """A source by name, checked.

    Raises:
        InputError: unknown name, no such folder, no library for cameras, or a bundle that reads no images.
    """
    if name not in SOURCES:
        raise InputError(f"unknown source {name!r}; choose one of {', '.join(SOURCES)}")
    manifest = options.bundle.manifest
    if not manifest.classifies_images:
        path = options.bundle.path
        raise InputError(
            f"{path} does not classify images, which the demo shows; "
            f"'paraedge run {shlex.quote(str(path))}' runs its golden inputs"
        )
    if name != "packaged" and manifest.input.shape[1] not in (1, 3):
        raise InputError(f"this bundle reads no images; the source {name!r} gives only images")
    SOURCES[name].check(options)
    return SOURCES[name]

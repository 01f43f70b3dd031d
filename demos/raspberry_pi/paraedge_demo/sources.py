"""Where images and sound come from: the bundle's own, a folder, a camera, a microphone. Each a generator of shots that
fit the bundle."""

from __future__ import annotations

import contextlib
import os
import shlex
import unicodedata
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paraedge_demo.hearing import find_recordings, microphone, need_microphone, recordings, waveform
from paraedge_demo.shots import Shot, SourceOptions, wanted_folder
from paraedge_runtime.errors import DeviceError, InputError
from paraedge_runtime.inputs import display_name, find_images, read_image
from paraedge_runtime.manifest import InputSpec
from paraedge_runtime.sound import hears

__all__ = ["PREVIEW_SIZE", "SOURCES", "Shot", "Source", "SourceOptions", "open_source"]

PREVIEW_SIZE = 240  # pixels: the side of what is shown of a camera's image
CAMERA_SIZE = (640, 480)


@dataclass(frozen=True)
class Source:
    """A row of ``SOURCES``.

    Attributes:
        shots: an endless generator; raises ``DeviceError`` or ``InputError`` when it is cut off.
        check: raises ``InputError`` for what no waiting will mend.
        paced: whether it has no speed of its own.
        sound: whether it gives sound, not images; ``None`` where it gives what the bundle reads.
    """

    shots: Callable[[SourceOptions], Generator[Shot, None, None]]
    check: Callable[[SourceOptions], object]
    paced: bool
    sound: bool | None


def _packaged(options: SourceOptions) -> Generator[Shot, None, None]:
    """The real held-out inputs that every bundle carries, again and again."""
    golden, names = options.bundle.golden(), options.bundle.manifest.labels
    labels = [None] * len(golden.inputs) if golden.labels is None else [names[label] for label in golden.labels]
    previews = golden.inputs if golden.inputs.dtype == np.uint8 else map(waveform, golden.inputs)
    kind = "image" if golden.inputs.dtype == np.uint8 else "signal"
    shots = [
        Shot(value, preview.astype(np.uint8), f"{kind} {number}", label)
        for number, (value, preview, label) in enumerate(zip(golden.inputs, previews, labels, strict=True))
    ]
    while True:
        yield from shots


def _folder(options: SourceOptions) -> Generator[Shot, None, None]:
    """A folder's images, again and again; those in a folder that is called like a label are of that label."""
    spec = options.bundle.manifest.input
    # However a folder's name is typed: composed or decomposed, it is the same label.
    labels = {unicodedata.normalize("NFC", label): label for label in options.bundle.manifest.labels}
    while True:
        readable = False
        for path in find_images([wanted_folder(options, "folder")]):
            try:
                image = read_image(path, spec)
            except InputError as error:
                options.tell(str(error))
                continue
            readable = True
            truth = labels.get(unicodedata.normalize("NFC", path.parent.name))
            yield Shot(image, image, display_name(path.name), truth)
        if not readable:
            raise InputError(f"{options.folder} contains no readable image; add one")


def _check_folder(options: SourceOptions) -> None:
    find_images([wanted_folder(options, "folder")])


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
                raise DeviceError(f"camera {number} returns no more images; check that it is plugged in")
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
    "packaged": Source(_packaged, check=lambda options: None, paced=True, sound=None),
    "folder": Source(_folder, check=_check_folder, paced=True, sound=False),
    "camera": Source(_camera, check=lambda options: _open_camera(), paced=False, sound=False),
    "wav-folder": Source(recordings, check=find_recordings, paced=True, sound=True),
    "microphone": Source(microphone, check=lambda options: need_microphone(), paced=False, sound=True),
}


def open_source(name: str, options: SourceOptions) -> Source:
    """A source by name, checked.

    Raises:
        InputError: unknown name, no such folder, no library for cameras or microphones, or a bundle that reads
            something else.
    """
    if name not in SOURCES:
        raise InputError(f"unknown source {name!r}; choose one of {', '.join(SOURCES)}")
    source, manifest, path = SOURCES[name], options.bundle.manifest, options.bundle.path
    if not (manifest.classifies_images or manifest.classifies_signals):
        raise InputError(
            f"{path} classifies neither images nor signals, which the demo shows; "
            f"'paraedge run {shlex.quote(str(path))}' runs its golden inputs"
        )
    sees = manifest.classifies_images and manifest.input.shape[1] in (1, 3)
    if source.sound is not None and not (hears(manifest.input) if source.sound else sees):
        kind = "sound" if source.sound else "images"
        raise InputError(f"this bundle reads no {kind}; the source {name!r} gives only {kind}")
    source.check(options)
    return source

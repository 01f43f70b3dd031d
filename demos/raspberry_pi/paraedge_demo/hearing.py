"""Sources of sound: a folder of recordings, a microphone. A window slides over what is heard, an eighth at a time."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paraedge_demo.shots import Shot, SourceOptions, wanted_folder
from paraedge_runtime.errors import DeviceError, InputError
from paraedge_runtime.inputs import display_name, visible_files
from paraedge_runtime.manifest import TensorInput
from paraedge_runtime.sound import SOUND_SUFFIXES, convert_hint, read_wav

__all__ = ["find_recordings", "microphone", "need_microphone", "recordings", "waveform"]

_STEPS = 8  # of the window
_PICTURE = (120, 240)  # height and width of what is shown


def recordings(options: SourceOptions) -> Generator[Shot, None, None]:
    """A folder's recordings, again and again; those in a folder that is called like a label are of that label."""
    spec = _heard(options)
    labels = {unicodedata.normalize("NFC", label): label for label in options.bundle.manifest.labels}
    while True:
        readable = False
        for path in find_recordings(options):
            try:
                samples, rate_hz = read_wav(path)
                if rate_hz != spec.rate_hz:
                    wanted = f"this bundle reads {spec.rate_hz:g}; {convert_hint(spec.rate_hz)}"
                    raise InputError(f"{path} has {rate_hz} samples a second, {wanted}")
            except InputError as error:
                options.tell(str(error))
                continue
            readable = True
            truth = labels.get(unicodedata.normalize("NFC", path.parent.name))
            for window in _windows(samples, spec.shape[2]):
                yield Shot(window, waveform(window), display_name(path.name), truth)
        if not readable:
            raise InputError(f"{options.folder} contains no readable recording; add one")


def find_recordings(options: SourceOptions) -> list[Path]:
    """The ``.wav`` files of the folder.

    Raises:
        InputError: no folder was named, it does not exist, or holds none.
    """
    folder = wanted_folder(options, "wav-folder")
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name one with .wav files")
    if not (found := visible_files(folder, SOUND_SUFFIXES)):
        raise InputError(f"{folder} contains no .wav files; name a folder with some")
    return found


def _windows(samples: NDArray[np.float32], length: int) -> Generator[NDArray[np.float32], None, None]:
    """(1, T) each; a clip that is no longer stands in the middle of one."""
    missing = max(length - len(samples), 0)
    samples = np.pad(samples, (missing // 2, missing - missing // 2))
    for start in range(0, len(samples) - length + 1, _step(length)):
        yield samples[None, start : start + length]


def microphone(options: SourceOptions) -> Generator[Shot, None, None]:
    """What the microphone hears, as it comes.

    Raises:
        DeviceError: there is none, or it gives nothing any more.
    """
    spec, sounddevice = _heard(options), need_microphone()
    assert spec.rate_hz is not None
    length, step = spec.shape[2], _step(spec.shape[2])
    window = np.zeros(length, dtype=np.float32)
    try:
        with sounddevice.InputStream(samplerate=spec.rate_hz, channels=1, dtype="float32", blocksize=step) as stream:
            for number in itertools.count(1):
                samples, _ = stream.read(step)
                window = np.concatenate([window[step:], samples[:, 0]])
                yield Shot(window[None], waveform(window[None]), f"{number * step / spec.rate_hz:.1f} s", None)
    except sounddevice.PortAudioError as error:
        raise DeviceError(
            f"cannot record from the microphone at {spec.rate_hz:g} samples a second: {error}; plug one in, or "
            "close what uses it"
        ) from error


def need_microphone() -> Any:
    """The library ``sounddevice``.

    Raises:
        InputError: it is not installed, or PortAudio below it.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: PortAudio was not found
        raise InputError(
            f"the source 'microphone' needs sounddevice and PortAudio ({error}); pip install 'paraedge[microphone]', "
            "on a Raspberry Pi also: sudo apt install libportaudio2"
        ) from None
    return sounddevice


def _step(length: int) -> int:
    return max(length // _STEPS, 1)


def _heard(options: SourceOptions) -> TensorInput:
    spec = options.bundle.manifest.input
    assert isinstance(spec, TensorInput)  # open_source has checked
    return spec


def waveform(window: NDArray[np.float32]) -> NDArray[np.uint8]:
    """An image (h, w, 1) of a window (C, T): each column from its lowest to its highest sample, channels in turn."""
    height, width = _PICTURE
    image = np.full((height, width, 1), 255, dtype=np.uint8)
    rows = height // len(window) if len(window) <= height else 1
    for number, channel in enumerate(window[:height]):
        most = max(float(np.abs(channel).max()), 1e-3)
        columns = np.array_split(channel, min(width, len(channel)))
        edges = np.linspace(0, width, len(columns) + 1).round().astype(int)
        middle = rows * number + rows / 2
        for column, (left, right) in zip(columns, itertools.pairwise(edges), strict=True):
            top = int(middle - column.max() / most * (rows / 2 - 1))
            bottom = int(middle - column.min() / most * (rows / 2 - 1))
            image[max(top, 0) : bottom + 1, left:right] = 40
    return image

"""Sound files as a bundle reads them: WAV of PCM samples, mixed to one channel, cut or filled to the window's length.

Training, ``paraedge run`` and the demo share these rules. Nothing is resampled: the result would depend on who does it.
"""

from __future__ import annotations

import io
import os
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paraedge_runtime._reading import read_bounded
from paraedge_runtime.errors import InputError
from paraedge_runtime.manifest import InputSpec, TensorInput

__all__ = ["MAX_CLIP_S", "SOUND_SUFFIXES", "convert_hint", "fitted", "hears", "read_clip", "read_wav"]

SOUND_SUFFIXES = frozenset({".wav"})
MAX_CLIP_S = 60
_MAX_RATE_HZ = 48_000
_USUAL_RATE_HZ = 16_000  # of speech
_MAX_CHANNELS = 8
_MAX_BYTES = MAX_CLIP_S * _MAX_RATE_HZ * _MAX_CHANNELS * 4 + 65_536  # and the header, with whatever stands in it


def hears(spec: InputSpec) -> bool:
    """Whether a bundle reads sound: one channel over time, of a known rate."""
    if not isinstance(spec, TensorInput) or spec.rate_hz is None:
        return False
    return spec.axes == ("channel", "time") and spec.shape[1] == 1


def read_clip(path: str | os.PathLike[str], spec: TensorInput) -> NDArray[np.float32]:
    """A WAV file as a bundle that hears reads it, (1, T) float32; see :func:`read_wav` and :func:`fitted`.

    Raises:
        InputError: as ``read_wav``, or another sampling rate.
    """
    samples, found_hz = read_wav(path)
    if found_hz != spec.rate_hz:
        raise InputError(
            f"{path} has {found_hz} samples a second, this bundle reads {spec.rate_hz:g}; {convert_hint(spec.rate_hz)}"
        )
    return fitted(samples, spec.shape[2])[None]


def read_wav(path: str | os.PathLike[str]) -> tuple[NDArray[np.float32], int]:
    """The samples (T,) float32 from -1 to 1, the mean of all channels, and how many there are a second.

    PCM of 8, 16, 24 or 32 bits, at most 48,000 samples a second, 8 channels and 60 seconds.

    Raises:
        InputError: it does not exist, is no such file, is empty, cut short or too long.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise InputError(f"{path} is not a plain file; name a .wav file")
        if Path(path).stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} has {Path(path).stat().st_size} bytes, more than {MAX_CLIP_S} s of sound; cut it")
        content = read_bounded(Path(path), _MAX_BYTES)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; replace it") from error
    if not content:
        raise InputError(f"{path} is empty; record it again, or remove it")
    try:
        with wave.open(io.BytesIO(_plain_pcm(content))) as file:
            channels, width, rate_hz, count = file.getparams()[:4]
            raw = file.readframes(min(count, (MAX_CLIP_S + 1) * _MAX_RATE_HZ))
            found = len(raw) // (channels * width)
            if problem := _beyond(channels, rate_hz, min(count, found)):
                raise InputError(f"{path} has {problem}")
    except (wave.Error, EOFError, ValueError, RuntimeError) as error:
        problem = str(error) or "its header is cut short"
        raise InputError(f"{path} is not a WAV file of PCM samples ({problem}); {convert_hint()}") from error
    if count == 0:
        raise InputError(f"{path} has no samples, as its header says; record it again, or remove it")
    if found < count:
        raise InputError(
            f"{path} is cut short: {len(raw)} bytes of the {count * channels * width} that its header names; copy it "
            f"again, or {convert_hint()}"
        )
    return _as_float(raw, width).reshape(count, channels).mean(axis=1, dtype=np.float32), rate_hz


_EXTENSIBLE = 0xFFFE
_PCM_GUID = bytes.fromhex("0100000000001000800000aa00389b71")
_FORMATS = {3: "floating point", 6: "A-law", 7: "mu-law", 17: "ADPCM", 85: "MP3"}
_MAX_CHUNKS = 100


def _plain_pcm(content: bytes) -> bytes:
    """A file whose header is in the extensible form, as ffmpeg writes for 24 bits, with the plain one.

    Python before 3.12 does not know that form.

    Raises:
        ValueError: the samples are not PCM.
    """
    place, chunks = 12, 0
    while (name := content[place : place + 4]) and name != b"fmt " and chunks < _MAX_CHUNKS:
        size = int.from_bytes(content[place + 4 : place + 8], "little")
        place, chunks = place + 8 + size + size % 2, chunks + 1
    start = place + 8
    kind = int.from_bytes(content[start : start + 2], "little")
    if content[:4] != b"RIFF" or name != b"fmt " or kind == 1:
        return content  # the wave module says what is wrong, if anything
    if kind == _EXTENSIBLE and content[start + 24 : start + 40] == _PCM_GUID:
        return content[:start] + b"\x01\x00" + content[start + 2 :]
    if kind == _EXTENSIBLE:
        kind = int.from_bytes(content[start + 24 : start + 26], "little")
    raise ValueError(f"its samples are {_FORMATS.get(kind, f'of format {kind}')}")


def fitted(samples: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """(T,) -> (length,): a shorter clip in the middle of silence, of a longer one the part with the most energy."""
    if len(samples) <= length:
        before = (length - len(samples)) // 2
        return np.pad(samples, (before, length - len(samples) - before))
    energy = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    start = int((energy[length:] - energy[:-length]).argmax())
    return samples[start : start + length]


def _beyond(channels: int, rate_hz: int, count: int) -> str:
    """What is beyond what is read, and what to do; nothing where all is fine."""
    if not 1 <= rate_hz <= _MAX_RATE_HZ:
        return f"{rate_hz} samples a second, not 1 to {_MAX_RATE_HZ}; {convert_hint(_USUAL_RATE_HZ)}"
    if channels > _MAX_CHANNELS:
        return f"{channels} channels, more than the {_MAX_CHANNELS} allowed; {convert_hint()}"
    if count > MAX_CLIP_S * rate_hz:
        return f"{count / rate_hz:.0f} s of sound, more than the {MAX_CLIP_S} s allowed; cut it"
    return ""


def _as_float(raw: bytes, width: int) -> NDArray[np.float32]:
    """PCM samples of ``width`` bytes, from -1 to 1."""
    samples: NDArray[np.float32]
    if width == 1:  # the only unsigned ones
        samples = (np.frombuffer(raw, np.uint8).astype(np.float32) - 128) / np.float32(128)
    elif width == 3:  # as the upper bytes of 32 bits
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        samples = wide.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
    else:
        samples = np.frombuffer(raw, f"<i{width}").astype(np.float32) / np.float32(2 ** (8 * width - 1))
    return samples


def convert_hint(rate_hz: float | None = None) -> str:
    """What to do with a file that is not read as it is."""
    rate = "" if rate_hz is None else f" -ar {rate_hz:g}"
    return f"convert it, such as with 'ffmpeg -i IN -ac 1{rate} -c:a pcm_s16le OUT.wav'"

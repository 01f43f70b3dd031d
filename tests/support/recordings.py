"""WAV files for tests: tones, written by the standard library."""

import wave

import numpy as np

RATE_HZ = 8000


def tone(hertz, seconds=0.6, rate_hz=RATE_HZ, seed=0):
    """(T,) float, with a little noise."""
    count = round(seconds * rate_hz)
    noise = np.random.default_rng(seed).normal(size=count)
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(count) / rate_hz) + 0.01 * noise


def write_wav(path, samples, rate_hz=RATE_HZ, width=2):
    """Samples (T,) or (T, channels) from -1 to 1, as PCM of ``width`` bytes."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    whole = np.rint(samples * (2 ** (8 * width - 1) - 1)).astype(np.int64)
    if width == 1:
        raw = (whole + 128).astype(np.uint8).tobytes()
    else:
        raw = whole.astype("<i8")[..., None].view(np.uint8)[..., :width].tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate_hz)
        file.writeframes(raw)
    return path


def write_tones(folder, count=12, **classes):
    """``count`` recordings of each class, a tone of about so many hertz each."""
    rng = np.random.default_rng(1)
    for name, hertz in classes.items():
        for number in range(count):
            clip = tone(hertz * rng.uniform(0.9, 1.1), rng.uniform(0.3, 0.6), seed=number)
            write_wav(folder / name / f"{number:02d}.wav", clip)
    return folder

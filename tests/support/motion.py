"""Windows as a phone in a pocket would give them, made of sines: still, walking, turning."""

from pathlib import Path

import numpy as np

CHANNELS = ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z")
CLASSES = ("still", "turning", "walking")
RATE_HZ = 50
LENGTH = 64


def motion_windows(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(count, LENGTH, 6) float32 in m/s² and rad/s, and their classes (count,), in turn."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    time = np.arange(LENGTH) / RATE_HZ
    step = np.sin(2 * np.pi * rng.uniform(1.5, 2.2, (count, 1)) * time + rng.uniform(0, 6, (count, 1)))
    x = rng.normal(size=(count, LENGTH, 6)) * [0.2, 0.2, 0.2, 0.05, 0.05, 0.05]
    x[..., 1] += 9.8
    walking, turning = labels == CLASSES.index("walking"), labels == CLASSES.index("turning")
    x[walking, :, 1] += 3 * step[walking]
    x[walking, :, 3] += 0.8 * step[walking]
    x[turning, :, 4] += rng.uniform(1.0, 2.0, (turning.sum(), 1)) * rng.choice([-1, 1], (turning.sum(), 1))
    return x.astype(np.float32), labels


def write_csv(path: Path, window: np.ndarray, rate_hz: float = RATE_HZ, channels: tuple[str, ...] = CHANNELS) -> None:
    """One window (T, C) with a column of time."""
    rows = [",".join(("time_ms", *channels))]
    for number, values in enumerate(window):
        rows.append(",".join([f"{number * 1000 / rate_hz:g}", *(f"{value:.4f}" for value in values)]))
    path.write_text("\n".join(rows) + "\n")


def write_folder(root: Path, count: int, seed: int = 0) -> None:
    """Class folders of ``.csv`` files."""
    for number, (window, label) in enumerate(zip(*motion_windows(count, seed), strict=True)):
        folder = root / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(folder / f"{number:03}.csv", window)


def write_npz(path: Path, num_train: int, num_test: int) -> None:
    """Both splits in one file, of two people each."""
    splits = {}
    for split, count, seed in (("train", num_train, 0), ("test", num_test, 1)):
        splits[f"x_{split}"], splits[f"y_{split}"] = motion_windows(count, seed)
        splits[f"groups_{split}"] = np.arange(count) % 2 + 2 * seed
    np.savez(path, **splits, rate_hz=RATE_HZ, channel_names=np.array(CHANNELS), class_names=np.array(CLASSES))

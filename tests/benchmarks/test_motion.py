"""Windows of the benchmark of motion: resampled, cut, labelled by what takes most of each, people held out whole."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from paraedge.data import load_dataset

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def motion(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("motion")


def test_a_recording_is_resampled_and_cut(motion):
    time_s = np.arange(300) / 100.0 + np.tile([0.0, 0.003], 150)  # uneven, 100 a second
    samples = np.stack([time_s, 2 * time_s], axis=1)
    windows, labels = motion.cut(samples, time_s, (np.arange(300) >= 150).astype(int))
    assert windows.shape == (6, motion.LENGTH, 2)
    starts = np.arange(6) * motion.STEP
    np.testing.assert_allclose(
        windows[:, :, 0], (starts[:, None] + np.arange(motion.LENGTH)) / motion.RATE_HZ, atol=1e-6
    )
    middle = (starts + motion.LENGTH / 2) / motion.RATE_HZ
    assert labels.tolist() == (middle > 1.5).astype(int).tolist()


def test_nobody_is_in_both_splits(motion, tmp_path):
    people, rows = 10, 200
    rng = np.random.default_rng(0)
    count = 2 * people
    np.savez(
        tmp_path / "motion.npz",
        samples=rng.normal(size=(count * rows, 3)).astype(np.float32),
        time_ms=np.tile(np.arange(rows) * 10, count),
        labels=rng.integers(0, 2, count * rows),
        label_names=np.array(["SEATED", "WALKING"]),
        offsets=np.arange(count + 1) * rows,
        person=np.repeat(np.arange(people), 2),
        device=np.tile(["sp", "sw"], people),
        axes=np.array(["acc_x", "acc_y", "acc_z"]),
    )
    motion.write(tmp_path / "motion.npz", tmp_path / "out")
    tested = []
    for fold in range(motion.NUM_FOLDS):
        data = load_dataset("npz", tmp_path / "out" / f"watch-{fold}.npz")
        assert not set(data.train.groups) & set(data.test.groups)
        tested += sorted(set(data.test.groups))
    assert sorted(tested) == list(range(people))
    assert (data.class_names, data.rate_hz) == (("seated", "walking"), 50.0)
    assert data.channel_names == ("acc_x", "acc_y", "acc_z")

"""Models of signals: log-mel against numpy, what a configuration refuses, training, export and what runs."""

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from paraedge.data import LabelledSignals, SignalDataset
from paraedge.exporting import export
from paraedge.model import LogMel, ParaFormer, ParaFormerConfig, Signal, load_checkpoint
from paraedge.model.frontend import LogMelMap, mel_bands
from paraedge.model.records import CheckpointConfig
from paraedge.training import TrainingConfig, train
from paraedge.training.augment_signals import augment_signals
from paraedge_runtime.errors import InputError
from paraedge_runtime.session import Session

RATE_HZ, LENGTH = 4000.0, 2000
LOG_MEL = LogMel(num_bands=16, window=128, hop=64)
SIGNAL = Signal(length=LENGTH, rate_hz=RATE_HZ, channel_names=("mono",), log_mel=LOG_MEL)
MOTION = Signal(length=64, rate_hz=100.0, channel_names=("x", "y", "z"))
CONFIG = ParaFormerConfig(
    in_channels=1, signal=SIGNAL, num_classes=2, embed_dim=16, num_heads=2, num_branches=2, branch_depth=1,
    stem_width=16, mean=(0.0,), std=(0.5,),
)  # fmt: skip


def tones(count, seed):
    """A low and a high tone in noise, labels 0 and 1, from two groups in turn."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    hertz = np.where(labels == 0, 400.0, 1200.0) * rng.uniform(0.9, 1.1, count)
    signals = np.sin(2 * np.pi * hertz[:, None] * np.arange(LENGTH) / RATE_HZ) * rng.uniform(0.2, 0.9, (count, 1))
    signals += 0.05 * rng.normal(size=signals.shape)
    groups = (np.arange(count) // 2 % 2).astype(np.int64)
    return LabelledSignals(signals[:, None].astype(np.float32), labels.astype(np.int64), groups)


def sweeps(count, seed):
    """Sounds that rise or fall, labels 0 and 1: what a stem without positions can tell apart."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 2).astype(np.int64)
    octaves = np.where(labels[:, None] == 0, 1.0, -1.0) * np.linspace(-1, 1, LENGTH) + rng.uniform(
        -0.3, 0.3, (count, 1)
    )
    signals = np.sin(np.cumsum(2 * np.pi * 500.0 * 2.0**octaves / RATE_HZ, axis=1)) * rng.uniform(0.2, 0.9, (count, 1))
    signals += 0.05 * rng.normal(size=signals.shape)
    return LabelledSignals(signals[:, None].astype(np.float32), labels)


def sweep_data(**other):
    fields = {"name": "sweeps", "train": sweeps(96, 0), "test": sweeps(40, 1), "class_names": ("up", "down")}
    return SignalDataset(**fields, license="none", rate_hz=RATE_HZ, channel_names=("mono",), **other)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweeps") / "sweeps"
    config = CheckpointConfig(
        name="sweeps", description="sweeps", license="none", dataset="sweeps", labels=("up", "down"), model=CONFIG
    )
    settings = TrainingConfig(epochs=8, batch_size=16, time_shift=0.1, speed_change=0.05, gain_db=6.0, noise_db=-20.0)
    train(sweep_data(), config, settings, out, device="cpu", dtype=torch.float32)
    return load_checkpoint(out)


def _log_mel(signals, log_mel, rate_hz):
    """In float64, by numpy's FFT: (B, T) -> (B, M, frames)."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(log_mel.window) / log_mel.window)
    frames = np.lib.stride_tricks.sliding_window_view(signals, log_mel.window, axis=1)[:, :: log_mel.hop]
    power = np.abs(np.fft.rfft(frames * window / np.sqrt((window**2).sum()))) ** 2  # (B, frames, F)
    return (np.log1p(power @ mel_bands(log_mel, rate_hz).T / 1e-6) / np.log(1e6)).transpose(0, 2, 1)


@pytest.mark.parametrize(
    ("rate_hz", "log_mel"),
    [
        (RATE_HZ, LOG_MEL),
        (8000.0, LogMel(num_bands=40, window=256, hop=128)),
        (16000.0, LogMel(num_bands=64, window=400, hop=160)),
    ],
)
def test_log_mel_is_that_of_numpy(rate_hz, log_mel):
    rng = np.random.default_rng(0)
    chirp = np.sin(2 * np.pi * np.linspace(50, rate_hz / 4, 8000) * np.arange(8000) / rate_hz)
    signals = np.stack([chirp, rng.normal(size=8000), 1e-3 * rng.normal(size=8000), np.zeros(8000)])
    found = LogMelMap(log_mel, rate_hz)(torch.from_numpy(signals.astype(np.float32))[:, None]).numpy()
    expected = _log_mel(signals.astype(np.float32).astype(np.float64), log_mel, rate_hz)
    assert found.shape == (4, 1, *expected.shape[1:])
    noise = ((found[:, 0] - expected) ** 2).sum()
    assert 10 * np.log10((expected**2).sum() / noise) > 110
    assert np.abs(found[3]).max() == 0  # silence
    assert expected[1].mean() == pytest.approx(0.97, abs=0.03)  # white noise of standard deviation 1


@pytest.mark.parametrize(("rate_hz", "bands", "window"), [(8000.0, 40, 256), (16000.0, 80, 512), (8000.0, 128, 256)])
def test_every_mel_band_hears_something(rate_hz, bands, window):
    mel = mel_bands(LogMel(num_bands=bands, window=window, hop=window // 2), rate_hz)
    assert mel.sum(axis=1) == pytest.approx(1)
    tops = (mel * np.arange(mel.shape[1])).sum(axis=1)
    assert (np.diff(tops) >= 0).all()


def test_a_model_of_motion_reads_the_samples_themselves():
    config = replace(CONFIG, signal=MOTION, in_channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert config.map_shape == (3, 1, 64)
    assert config.num_tokens == 17
    assert ParaFormer(config)(torch.zeros(2, 3, 64)).shape == (2, 2)
    spec = config.input_spec
    assert (spec.shape, spec.rate_hz, spec.channel_names) == ((1, 3, 64), 100.0, ("x", "y", "z"))


@pytest.mark.parametrize("change", [{}, {"branch_width": 16}, {"stem_stride": 8, "branch_width": (8, 16)}])
def test_tokens_are_the_cells_of_the_map(change):
    config = replace(CONFIG, **change)
    assert ParaFormer(config)(torch.zeros(2, 1, LENGTH)).shape == (2, 2)
    _, height, width = config.map_shape
    assert (height, width) == (16, 30)
    assert config.num_tokens == -(-height // config.stem_stride) * -(-width // config.stem_stride) + 1
    positions = [value.shape[1] for name, value in ParaFormer(config).named_parameters() if name.endswith("positions")]
    assert set(positions) == {1}  # of CLS: a word is the same later, and in a higher voice


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"image_size": 32}, "neither image_size nor backbone"),
        ({"in_channels": 2, "mean": (0.0,) * 2, "std": (1.0,) * 2}, "the number of channel_names, got 2"),
        ({"signal": None}, "image_size must be at least 1, got 0"),
    ],
)
def test_what_a_configuration_of_a_signal_refuses(change, problem):
    with pytest.raises(ValueError, match=problem):
        replace(CONFIG, **change)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"rate_hz": float("nan")}, "rate_hz must be above 0"),
        ({"channel_names": ("a", "a"), "log_mel": None}, "channel_names must be unique, got a, a"),
        ({"channel_names": ("left", "right")}, "log_mel needs exactly one channel, got 2"),
        ({"length": 100}, "length 100 is shorter than the window of log_mel, 128"),
    ],
)
def test_what_a_signal_refuses(change, problem):
    with pytest.raises(ValueError, match=problem):
        replace(SIGNAL, **change)


def test_whole_groups_are_held_out():
    rest, held = tones(40, 0).without_groups((1,))
    assert (set(rest.groups), set(held.groups), len(rest), len(held)) == ({0}, {1}, 20, 20)
    with pytest.raises(InputError, match=r"cannot hold out the groups \[7\]; choose from \[0, 1\]"):
        tones(40, 0).without_groups((7,))


def test_signals_that_are_no_numbers_are_refused():
    signals = tones(4, 0).signals.copy()
    signals[2, 0, 7] = np.nan
    with pytest.raises(InputError, match="signal 2 has non-finite values"):
        LabelledSignals(signals, np.zeros(4, np.int64))


def test_augmentation_shifts_plays_faster_and_is_the_same_for_the_same_numbers():
    signals = torch.from_numpy(tones(8, 0).signals)

    def changed(**settings):
        return augment_signals(signals, TrainingConfig(**settings), torch.Generator().manual_seed(0))

    assert torch.equal(changed(), signals)
    assert torch.equal(changed(time_shift=0.2, noise_db=-10), changed(time_shift=0.2, noise_db=-10))
    gain = changed(gain_db=6.0) / signals
    assert gain.amin() > 0.5
    assert gain.amax() < 2.0
    assert (changed(time_shift=0.5)[:, :, :500] == 0).all(dim=2).any()
    peak = changed(speed_change=0.2).squeeze(1).numpy()
    hertz = np.abs(np.fft.rfft(peak)).argmax(axis=1) * RATE_HZ / LENGTH
    before = np.abs(np.fft.rfft(signals.squeeze(1).numpy())).argmax(axis=1) * RATE_HZ / LENGTH
    assert 1.02 < np.abs(np.log(hertz / before)).max() / np.log(1.2) * 1.2 < 1.22


def test_training_learns_and_the_checkpoint_is_read_back(trained):
    assert trained.training.prefix_accuracy[-1] > 0.9
    assert trained.config.model == CONFIG
    assert trained.samples.inputs.shape == (40, 1, LENGTH)
    assert not [name for name in trained.model.state_dict() if "spectrum" in name]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"rate_hz": 8000.0}, "sweeps has 8000 samples a second, the model takes 4000"),
        ({"train": sweeps(4, 0).take(np.arange(4)), "class_names": ("a", "b", "c")}, "has 3 classes"),
    ],
)
def test_data_that_a_model_does_not_take_are_refused(trained, tmp_path, change, problem):
    from dataclasses import replace as changed

    with pytest.raises(InputError, match=problem):
        train(changed(sweep_data(), **change), trained.config, TrainingConfig(epochs=1), tmp_path / "out", device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "litert", "executorch"])
def test_every_engine_hears_what_torch_hears(trained, tmp_path, engine):
    bundle = export(trained, target="linux", engine=engine, out=tmp_path / "sweeps.paraedge", test_set=sweep_data())
    spec = bundle.manifest.input
    assert (spec.axes, spec.rate_hz, spec.channel_names) == (("channel", "time"), RATE_HZ, ("mono",))
    assert min(prefix.snr_db for prefix in bundle.card.parity.prefixes) > 100
    assert bundle.card.accuracy.num_samples == 40
    with Session.open(bundle, engine=engine, threads=1) as session:
        signals = sweeps(6, 2)
        assert [session.run(signal).label_index for signal in signals.signals] == [0, 1] * 3

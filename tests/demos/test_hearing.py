"""The demo's sources of sound: windows that slide over recordings and over what a microphone gives."""

import itertools
import sys
import types

import numpy as np
import pytest
from support.bundles import fake_bundle
from support.recordings import tone, write_wav

from paraedge_demo.hearing import waveform
from paraedge_demo.shots import SourceOptions
from paraedge_demo.sources import open_source
from paraedge_runtime.errors import DeviceError, InputError
from paraedge_runtime.manifest import LabelsOutput, TensorInput
from paraedge_runtime.session import Session

SOUND = TensorInput(
    name="signal", shape=(1, 1, 800), axes=("channel", "time"), normalized_axis="channel", mean=(0.0,), std=(0.1,),
    rate_hz=8000.0, channel_names=("mono",),
)  # fmt: skip


@pytest.fixture
def hearing(tmp_path, fake_engine):
    return fake_bundle(tmp_path / "hearing.paraedge", input=SOUND, output=LabelsOutput(labels=("yes", "no", "other")))


def _shots(source, bundle, count, folder=None, tell=pytest.fail):
    options = SourceOptions(bundle, tell, folder)
    return list(itertools.islice(open_source(source, options).shots(options), count))


class PortAudioError(Exception):
    """As that of sounddevice."""


@pytest.fixture
def sounddevice(monkeypatch):
    """A stand-in whose microphone counts, and is unplugged after ten blocks."""

    opened = []

    class InputStream:
        def __init__(self, **settings):
            opened.append(settings)
            self.given = 0

        def __enter__(self):
            return self

        def __exit__(self, *error):
            opened.append("closed")

        def read(self, count):
            if self.given == 10 * count:
                raise PortAudioError("Device unavailable [PaErrorCode -9985]")
            samples = np.arange(self.given, self.given + count, dtype=np.float32)[:, None]
            self.given += count
            return samples, False

    module = types.SimpleNamespace(InputStream=InputStream, PortAudioError=PortAudioError, opened=opened)
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


def test_a_window_slides_over_what_the_microphone_gives(hearing, sounddevice):
    shots = _shots("microphone", hearing, 9)
    assert sounddevice.opened[0] == {
        "samplerate": 8000.0, "channels": 1, "dtype": "float32", "blocksize": 100,
    }  # fmt: skip
    assert sounddevice.opened[-1] == "closed"
    assert [shot.image.shape for shot in shots] == [(1, 800)] * 9
    assert np.array_equal(shots[0].image[0], [*np.zeros(700), *range(100)])
    assert np.array_equal(shots[8].image[0], np.arange(100, 900))
    assert (shots[8].name, shots[8].truth) == ("0.1 s", None)


def test_a_microphone_that_is_unplugged_is_told(hearing, sounddevice):
    with pytest.raises(
        DeviceError,
        match=r"cannot record from the microphone at 8000 samples a second: Device unavailable .*; plug one in",
    ):
        _shots("microphone", hearing, 11)


@pytest.mark.parametrize(
    "problem", [ImportError("No module named 'sounddevice'"), OSError("PortAudio library not found")]
)
def test_without_the_library_the_message_says_what_to_install(hearing, monkeypatch, problem):
    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name == "sounddevice":
                raise problem

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(InputError, match=r"needs sounddevice and PortAudio .*pip install 'paraedge\[microphone\]'"):
        _shots("microphone", hearing, 1)


def test_recordings_pass_in_windows_with_the_label_of_their_folder(hearing, tmp_path):
    folder = tmp_path / "sounds"
    write_wav(folder / "no" / "short.wav", tone(440, 0.05))
    write_wav(folder / "yes" / "long.wav", tone(440, 0.15))
    shots = _shots("wav-folder", hearing, 7, folder)
    assert [(shot.name, shot.truth) for shot in shots] == [
        ("short.wav", "no"), *[("long.wav", "yes")] * 5, ("short.wav", "no"),
    ]  # fmt: skip
    assert all(shot.preview.shape == (120, 240, 1) for shot in shots)
    with Session.open(hearing, engine="fake", threads=1) as session:
        for shot in shots:
            assert session.run(shot.image, budget_ms=1000).deadline_met


def test_recordings_that_cannot_be_read_are_told_and_the_others_pass(hearing, tmp_path):
    folder, told = tmp_path / "sounds", []
    write_wav(folder / "a.wav", tone(440, 0.1, 44_100), 44_100)
    (folder / "b.wav").write_bytes(b"ID3")
    write_wav(folder / "c.wav", tone(440, 0.1))
    assert _shots("wav-folder", hearing, 1, folder, told.append)[0].name == "c.wav"
    assert ["44100 samples a second, this bundle reads 8000" in told[0], "b.wav is not a WAV" in told[1]] == [
        True,
        True,
    ]


def test_what_a_bundle_does_not_read_is_refused(hearing, tmp_path, fake_engine):
    for source in ("folder", "camera"):
        with pytest.raises(InputError, match=f"this bundle reads no images; the source '{source}' gives only images"):
            _shots(source, hearing, 1, tmp_path)
    seeing = fake_bundle(tmp_path / "seeing.paraedge")
    with pytest.raises(InputError, match="this bundle reads no sound; the source 'microphone' gives only sound"):
        _shots("microphone", seeing, 1)
    with pytest.raises(InputError, match=r"contains no \.wav files"):
        _shots("wav-folder", hearing, 1, tmp_path / "hearing.paraedge")
    with pytest.raises(InputError, match="the source 'wav-folder' needs a folder; add --folder FOLDER"):
        _shots("wav-folder", hearing, 1)


def test_the_bundle_s_own_signals_are_shown(hearing):
    shot = _shots("packaged", hearing, 1)[0]
    assert (shot.image.shape, shot.preview.shape, shot.name) == ((1, 800), (120, 240, 1), "signal 0")


@pytest.mark.parametrize("shape", [(1, 16000), (6, 128), (3, 1), (200, 10)])
def test_a_waveform_is_drawn_of_every_window(shape):
    picture = waveform(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    assert picture.shape == (120, 240, 1)
    assert set(np.unique(picture)) == {40, 255}
    assert (picture == 40).any(axis=0).all()

"""Folders of recordings: what becomes a data set, what is refused, and the commands on them."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from support.bundles import fake_bundle
from support.recordings import tone, write_tones, write_wav

from paraedge.cli.main import paraedge
from paraedge.data import FolderOptions, SignalDataset, load_dataset
from paraedge.data.datasets import usual_recipe
from paraedge.data.sound import window_length
from paraedge.model import load_checkpoint
from paraedge_runtime.errors import InputError
from paraedge_runtime.manifest import LabelsOutput, TensorInput

SOUND = TensorInput(
    name="signal", shape=(1, 1, 4800), axes=("channel", "time"), normalized_axis="channel", mean=(0.0,), std=(0.1,),
    rate_hz=8000.0, channel_names=("mono",),
)  # fmt: skip


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    return write_tones(tmp_path_factory.mktemp("data") / "tones", low=300, high=1500)


def test_a_folder_of_recordings_is_a_data_set(tones):
    data = load_dataset("folder", tones)
    assert isinstance(data, SignalDataset)
    assert (data.name, data.class_names, data.rate_hz, data.channel_names) == (
        "tones",
        ("high", "low"),
        8000,
        ("mono",),
    )
    assert (len(data.train), len(data.test), data.sample_shape) == (19, 5, (1, 4800))
    assert usual_recipe("folder", tones) == "sound"
    assert np.array_equal(load_dataset("folder", tones).test.signals, data.test.signals)


def test_a_split_that_is_given_is_kept(tmp_path):
    write_tones(tmp_path / "train", count=4, a=300, b=900)
    write_tones(tmp_path / "test", count=2, a=300, b=900)
    data = load_dataset("folder", tmp_path, FolderOptions(length=2000))
    assert (len(data.train), len(data.test), data.sample_shape) == (8, 4, (1, 2000))


@pytest.mark.parametrize(
    ("lengths", "rate_hz", "expected"),
    [
        ([100], 8000, 4000),  # half a second at least
        ([8000] * 19 + [80_000], 8000, 8000),  # one of twenty may be longer
        ([8000, 8001], 8000, 8800),
        ([16_000 * 50] * 3, 16_000, 160_000),  # ten seconds at most
        ([44_100], 44_100, 44_100),
    ],
)
def test_the_window_fits_most_clips(lengths, rate_hz, expected):
    assert window_length(lengths, rate_hz) == expected


def _other_rate(folder):
    write_wav(folder / "low" / "zz.wav", tone(300, rate_hz=16_000), 16_000)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_other_rate, r"zz\.wav has 16000 samples a second, .*00\.wav has 8000; convert it"),
        (lambda folder: (folder / "low" / "zz.wav").write_bytes(b"ID3"), r"zz\.wav is not a WAV file of PCM samples"),
        (lambda folder: (folder / "empty").mkdir(), r"empty has no \.wav files; put some there"),
        (lambda folder: (folder / "low" / "a.png").write_bytes(b""), r"has both \.wav files and images, such as"),
        (lambda folder: (folder / "high").rename(folder / "low" / "high"), "put the recordings of each class into"),
        (lambda folder: (folder / "train").mkdir(), "to split the recordings yourself"),
    ],
)
def test_what_a_folder_is_refused_for(tmp_path, change, problem):
    folder = write_tones(tmp_path / "tones", count=2, low=300, high=1500)
    change(folder)
    with pytest.raises(InputError, match=problem):
        load_dataset("folder", folder)


def test_recordings_are_no_data_for_a_model_of_motion(tones):
    with pytest.raises(InputError, match=r"has recordings, the model reads acc_x, acc_y; name a folder of \.csv files"):
        load_dataset("folder", tones, FolderOptions(length=64, rate_hz=50.0, channel_names=("acc_x", "acc_y")))


def _invoke(*arguments, code=0):
    result = CliRunner().invoke(paraedge, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def test_train_takes_a_folder_of_recordings_and_the_recipe_for_sound(tones, tmp_path):
    out = tmp_path / "keywords"
    (tones / "low" / "song.mp3").write_bytes(b"ID3")
    command = ["train", "--dataset", "folder", "--data-dir", tones, "--out", out, "--epochs", 1, "--device", "cpu"]
    assert "Left out: 1 .mp3; files that are read end in .wav" in _invoke(*command).output
    checkpoint = load_checkpoint(out)
    model = checkpoint.config.model
    assert (model.signal.length, model.signal.rate_hz, model.signal.log_mel.num_bands) == (4800, 8000, 40)
    assert (checkpoint.config.name, checkpoint.config.loader, model.num_branches) == ("tones", "folder", 4)
    assert checkpoint.training.settings["speed_change"] == 0.15
    shown = json.loads(_invoke("evaluate", out, "--data-dir", tones, "--json").output)
    assert (shown["num_samples"], shown["source"]) == (5, "run in torch on tones")


@pytest.mark.parametrize("option", ["--grey", "--image-size=32", "--backbone=efficientnet-lite0"])
def test_train_refuses_what_is_for_images(tones, tmp_path, option):
    with pytest.raises(InputError, match="is for images, tones has none; leave it out"):
        CliRunner().invoke(
            paraedge,
            ["train", "--dataset", "folder", "--data-dir", str(tones), "--out", str(tmp_path / "out"), option],
            catch_exceptions=False,
            standalone_mode=False,
        )


def test_a_recipe_for_sound_refuses_images(tmp_path):
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.fromarray(np.full((8, 8), 40 * number, np.uint8)).save(tmp_path / name / f"{number}.png")
    with pytest.raises(InputError, match="the recipe is for sound"):
        CliRunner().invoke(
            paraedge,
            ["train", "--recipe", "sound", "--data-dir", str(tmp_path), "--out", str(tmp_path / "out")],
            catch_exceptions=False,
            standalone_mode=False,
        )


@pytest.fixture
def hearing(tmp_path, fake_engine):
    return fake_bundle(tmp_path / "hearing.paraedge", input=SOUND, output=LabelsOutput(labels=("high", "low", "none")))


def test_run_takes_wav_files_folders_of_them_and_what_is_piped_in(hearing, tones):
    files = sorted((tones / "low").iterdir())[:2]
    lines = _invoke("run", hearing.path, *files, tones / "high", "--json").output.splitlines()
    assert [json.loads(line)["input"] for line in lines[:2]] == [str(path) for path in files]
    assert len(lines) == 2 + 12
    piped = CliRunner().invoke(paraedge, ["run", str(hearing.path), "-", "--json"], input=files[0].read_bytes())
    assert piped.exit_code == 0, piped.output
    assert json.loads(piped.stdout)["input"] == "-"


def test_run_skips_what_it_cannot_read(hearing, tones, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    wide = write_wav(tmp_path / "cd.wav", tone(300, rate_hz=44_100), 44_100)
    result = CliRunner().invoke(paraedge, ["run", str(hearing.path), str(broken), str(wide)])
    assert isinstance(result.exception, InputError)
    assert "Skipped: " in result.output
    assert "44100 samples a second, this bundle reads 8000" in result.output


def test_evaluate_runs_a_bundle_on_a_folder_of_recordings(hearing, tones):
    result = CliRunner().invoke(
        paraedge, ["evaluate", str(hearing.path), "--dataset", "folder", "--data-dir", str(tones), "--json"]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["num_samples"] == 5

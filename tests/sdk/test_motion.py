"""Windows of motion: folders of CSV and npz, the recipe, and the bundles that come of it, by command."""

import json
import platform
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from support.motion import CHANNELS, CLASSES, LENGTH, RATE_HZ, motion_windows, write_csv, write_folder, write_npz

from paraedge.cli.main import paraedge
from paraedge.data import SignalDataset, load_dataset
from paraedge.data.datasets import usual_recipe
from paraedge.exporting import export
from paraedge.model import load_checkpoint
from paraedge.training import TrainingConfig
from paraedge.training.augment_signals import augment_signals, sensor_axes
from paraedge.training.batches import TrainingBatches
from paraedge_runtime import Bundle, InputError, Session
from paraedge_runtime.inputs import normalise


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "motion"
    write_folder(root, 60)
    return root


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "motion.npz"
    write_npz(path, 96, 24)
    return path


def run(*arguments):
    done = CliRunner().invoke(paraedge, [str(argument) for argument in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def refusal(*arguments):
    done = CliRunner().invoke(paraedge, [str(argument) for argument in arguments])
    assert isinstance(done.exception, InputError), done.output
    assert "\n" not in str(done.exception)
    return str(done.exception)


@pytest.fixture(scope="module")
def trained(npz, tmp_path_factory):
    out = tmp_path_factory.mktemp("model") / "mine"
    options = ["--dataset", "npz", "--data-dir", npz, "--epochs", 60, "--set", "batch_size=8", "--device", "cpu"]
    run("train", *options, "--out", out)
    return out


@pytest.fixture(scope="module")
def bundle(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "motion.paraedge"
    return export(load_checkpoint(trained), target="linux", engine="onnxruntime", out=out)


# --- data -----------------------------------------------------------------------------------------


def test_a_folder_is_read(folder):
    data = load_dataset("folder", folder)
    assert isinstance(data, SignalDataset)
    assert data.class_names == CLASSES
    assert (len(data.train), len(data.test)) == (48, 12)
    assert (data.sample_shape, data.rate_hz, data.channel_names) == ((6, LENGTH), RATE_HZ, CHANNELS)
    x, labels = motion_windows(60)
    signals = np.concatenate([data.train.signals, data.test.signals])
    where = np.abs(signals - x[7].T).max(axis=(1, 2)) < 1e-4
    assert np.concatenate([data.train.labels, data.test.labels])[where].tolist() == [labels[7]]


def test_windows_have_a_recipe_of_their_own(folder, npz):
    assert usual_recipe("folder", folder) == usual_recipe("npz", npz) == "motion"


def test_people_are_held_out_by_folders(tmp_path):
    write_folder(tmp_path / "train", 6)
    write_folder(tmp_path / "test", 3, seed=1)
    data = load_dataset("folder", tmp_path)
    assert (len(data.train), len(data.test)) == (6, 3)
    np.testing.assert_allclose(data.test.signals[0], motion_windows(3, seed=1)[0][0].T, atol=1e-4)


def test_columns_may_stand_in_another_order(tmp_path):
    write_folder(tmp_path, 6)
    window = motion_windows(6)[0][0]
    write_csv(tmp_path / "walking" / "z.csv", window[:, ::-1], channels=CHANNELS[::-1])
    data = load_dataset("folder", tmp_path)
    signals = np.concatenate([data.train.signals, data.test.signals])
    assert (np.abs(signals - window.T).max(axis=(1, 2)) < 1e-4).sum() == 2


def replaced(old, new):
    return lambda path: path.write_text(path.read_text().replace(old, new, 1))


def written(*shape, **options):
    return lambda path: write_csv(path, np.ones(shape), **options)


def without_two_rows(path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:9] + lines[11:]))


FEW = "the channels are acc_x, acc_y, acc_z, {} reads acc_x"
FAST = "the rate is 100 samples per second, {} reads 50; resample it"
SHORT = r"the window has 63 samples, {} reads 64 \(1.28 s\); cut windows of 64 samples"
LONG = r"the window has 100 samples, {} reads 64 \(1.28 s\); cut windows of 64 samples"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(lambda path: path.write_text(""), "it is empty", id="empty"),
        pytest.param(replaced("\n20,", "\n20,1,"), r"line 3 has 8 value\(s\)", id="another-column"),
        pytest.param(replaced("\n20,", "\n20,up"), "line 3, column acc_x is 'up.*', not a number", id="text"),
        pytest.param(written(LENGTH, 3, channels=CHANNELS[:3]), FEW, id="channels"),
        pytest.param(written(63, 6), SHORT, id="short"),
        pytest.param(written(LENGTH, 6, rate_hz=100), FAST, id="rate"),
        pytest.param(without_two_rows, "its time is irregular: from line 9 to 10 it moves by 60 ms", id="lost-rows"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path, spoil, said):
    write_folder(tmp_path, 9)
    path = tmp_path / "walking" / "005.csv"
    spoil(path)
    with pytest.raises(InputError, match=rf"005\.csv: .*{said.format('000.csv')}"):
        load_dataset("folder", tmp_path)


def test_a_folder_with_one_class_or_an_empty_one_is_refused(tmp_path):
    write_folder(tmp_path, 3)
    (tmp_path / "running").mkdir()
    with pytest.raises(InputError, match=r"running has no \.csv files; put some there, or remove that folder"):
        load_dataset("folder", tmp_path)
    for name in ("running", "turning", "walking"):
        shutil.rmtree(tmp_path / name)
    with pytest.raises(InputError, match=r"must have at least 2 class folders, got 1"):
        load_dataset("folder", tmp_path)


def test_npz_is_read(npz):
    data = load_dataset("npz", npz)
    assert isinstance(data, SignalDataset)
    assert (data.sample_shape, data.rate_hz, data.channel_names) == ((6, LENGTH), RATE_HZ, CHANNELS)
    assert (data.class_names, len(data.train), len(data.test)) == (CLASSES, 96, 24)
    assert (set(data.train.groups), set(data.test.groups)) == ({0, 1}, {2, 3})
    np.testing.assert_array_equal(data.train.signals[0], motion_windows(96)[0][0].T)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rate_hz": None}, "it has no array rate_hz; it holds|has no array rate_hz"),
        ({"rate_hz": -50}, "rate_hz must be one number of samples per second, got -50"),
        ({"channel_names": np.array(CHANNELS[:5])}, "channel_names must be 6 different strings, one for each column"),
        ({"x_train": np.zeros((9, 64), np.float32)}, r"x_train must be .*, got float32 of shape \(9, 64\)"),
        (
            {"x_test": np.zeros((24, 64, 5), np.float32)},
            r"x_test must be .* 6 channels.*, got float32 of shape \(24, 64, 5\)",
        ),
        ({"x_test": np.full((24, 64, 6), np.inf, np.float32)}, r"x_test\[0\] has non-finite values"),
        ({"y_test": np.zeros(3, np.int64)}, r"y_test must be 24 integers, one per window, got int64 of shape"),
        ({"groups_test": np.zeros(24)}, r"groups_test must be 24 integers, .*got float64 of shape"),
        ({"y_test": np.full(24, 3)}, "test labels run from 3 to 3, but there are 3 class names"),
    ],
)
def test_npz_is_refused_by_name(npz, tmp_path, change, said):
    with np.load(npz) as arrays:
        content = {**arrays, **change}
    np.savez(tmp_path / "m.npz", **{name: values for name, values in content.items() if values is not None})
    with pytest.raises(InputError, match=said):
        load_dataset("npz", tmp_path / "m.npz")


def test_turned_sensors_keep_what_does_not_depend_on_how_they_are_held():
    assert sensor_axes(CHANNELS) == ((0, 1, 2), (3, 4, 5))
    assert sensor_axes(("gyroZ", "accX", "accY", "accZ", "gyroX", "gyroY")) == ((1, 2, 3), (4, 5, 0))
    assert sensor_axes(("x", "y", "z")) == ((0, 1, 2),)
    assert sensor_axes(("max", "may", "temperature")) == ()
    signals = torch.from_numpy(motion_windows(40)[0].transpose(0, 2, 1).copy())
    config = TrainingConfig(rotation_degrees=30.0)
    turned = augment_signals(signals, config, torch.Generator().manual_seed(0), sensor_axes(CHANNELS))
    for sensor in (slice(0, 3), slice(3, 6)):
        torch.testing.assert_close(turned[:, sensor].norm(dim=1), signals[:, sensor].norm(dim=1))
    still = signals[:, :3].mean(dim=2), turned[:, :3].mean(dim=2)
    degrees = torch.rad2deg(torch.nn.functional.cosine_similarity(*still).clamp(-1, 1).acos())
    assert 15 < degrees.max() <= 30
    dots = [(both[:, :3] * both[:, 3:]).sum(dim=1) for both in (signals, turned)]  # both sensors turned alike
    torch.testing.assert_close(*dots, atol=1e-4, rtol=1e-3)
    assert augment_signals(signals, config, torch.Generator()) is signals


def test_batches_are_of_turned_windows(npz):
    train = load_dataset("npz", npz).train
    signals, labels = torch.from_numpy(train.signals), torch.from_numpy(train.labels)
    config = TrainingConfig(batch_size=32, rotation_degrees=30.0)
    batches = [TrainingBatches(signals, labels, 3, config, channel_names=names)[0] for names in (CHANNELS, ())]
    (turned, targets), (plain, same_targets) = batches
    torch.testing.assert_close(targets, same_targets)
    torch.testing.assert_close(turned[:, :3].norm(dim=1), plain[:, :3].norm(dim=1))
    assert (turned - plain).abs().mean(dim=(1, 2)).gt(0.01).float().mean() > 0.9


# --- from training to a device --------------------------------------------------------------------


def test_training_learns(trained):
    checkpoint = load_checkpoint(trained)
    assert checkpoint.evaluation.prefix_accuracy()[-1] > 0.9
    signal = checkpoint.config.model.signal
    assert (signal.length, signal.rate_hz, signal.channel_names, signal.log_mel) == (LENGTH, RATE_HZ, CHANNELS, None)


def test_the_convolutions_are_one_row_high(trained):
    model = load_checkpoint(trained).model
    kernels = {module.kernel_size for module in model.modules() if isinstance(module, torch.nn.Conv2d)}
    assert kernels == {(1, 3), (1, 1)}
    assert sum(weights.numel() for weights in model.parameters()) < 60_000


def test_the_bundle_is_as_exact_as_one_of_pictures_and_says_what_it_reads(bundle):
    assert min(prefix.snr_db for prefix in bundle.card.parity.prefixes) > 100
    spec = bundle.manifest.input
    assert (spec.shape, spec.rate_hz, spec.channel_names) == ((1, 6, LENGTH), RATE_HZ, CHANNELS)
    text = run("inspect", bundle.path).stdout
    assert "50 samples a second" in text
    assert re.search(r"acc_x.*gyro_z", text, re.DOTALL)


def test_run_takes_csv_npz_and_npy_alike(bundle, folder, tmp_path):
    path = folder / "walking" / "002.csv"
    window = motion_windows(60)[0][2]
    np.save(tmp_path / "w.npy", np.round(window, 4).T.astype(np.float32))
    np.savez(tmp_path / "w.npz", x=np.round(window, 4), rate_hz=RATE_HZ, channel_names=np.array(CHANNELS))
    done = run("run", bundle.path, path, tmp_path / "w.npz", tmp_path / "w.npy", "--json")
    outputs = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["label"] for line in outputs] == ["walking"] * 3
    assert len({line["confidence"] for line in outputs}) == 1
    with Session.open(bundle, threads=1) as session:
        assert session.run(path).label == "walking"
    assert "walking" in run("run", bundle.path, folder / "walking").stdout
    for piped in (path, tmp_path / "w.npz", tmp_path / "w.npy"):
        done = CliRunner().invoke(paraedge, ["run", str(bundle.path), "-", "--json"], input=piped.read_bytes())
        assert json.loads(done.stdout)["output"] == outputs[0]["output"], piped


def not_a_number(path):
    np.savez(path, x=np.full((64, 6), np.nan), rate_hz=50, channel_names=np.array(CHANNELS))


@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        ("long.csv", written(100, 6), LONG),
        ("short.csv", written(63, 6), SHORT),
        ("fast.csv", written(64, 6, rate_hz=100), FAST),
        ("few.csv", written(64, 3, channels=CHANNELS[:3]), FEW),
        ("wide.npy", lambda path: np.save(path, np.ones((64, 6), np.float32)), r"is float32 of shape \(64, 6\)"),
        ("nan.npz", not_a_number, "row 0, channel acc_x is nan"),
    ],
)
def test_another_window_is_refused_by_name_with_what_to_do(bundle, tmp_path, name, write, said):
    write(tmp_path / name)
    done = CliRunner().invoke(paraedge, ["run", str(bundle.path), str(tmp_path / name)])
    assert isinstance(done.exception, InputError)
    assert re.search(rf"{re.escape(name)}: .*{said.format('this bundle')}", str(done.exception))


def test_evaluate_counts_what_a_session_predicts_of_folders_and_npz(bundle, folder, npz):
    for name, path in (("folder", folder), ("npz", npz)):
        document = json.loads(run("evaluate", bundle.path, "--dataset", name, "--data-dir", path, "--json").stdout)
        test = load_dataset(name, path).test
        with Session.open(bundle, threads=1) as session:
            found = [session.run(signal).label_index for signal in test.signals]
        assert document["num_samples"] == len(test)
        assert document["prefix_accuracy"][-1] == pytest.approx(np.mean(found == test.labels), abs=1e-6)


def test_evaluate_refuses_other_windows(bundle, tmp_path):
    write_folder(tmp_path, 6)
    for path in tmp_path.glob("*/*.csv"):
        write_csv(path, np.ones((32, 6)))
    said = refusal("evaluate", bundle.path, "--dataset", "folder", "--data-dir", tmp_path)
    assert "32" in said
    assert "64" in said


@pytest.mark.export
@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="tflite-micro is packaged for x86-64 Linux only"
)
def test_int8_runs_in_the_interpreter_for_microcontrollers(trained, npz, tmp_path):
    from tflite_micro import runtime

    out = tmp_path / "m.paraedge"
    run("export", "--model", trained, "--target", "microcontroller", "--quantize", "int8-static", "--out", out)
    made = Bundle.open(out)
    assert max(entry.size_bytes for entry in made.manifest.parts().values()) < 64_000
    stem, *branches = (
        runtime.Interpreter.from_bytes((made.path / entry.file).read_bytes(), arena_size=1 << 20)
        for entry in made.manifest.parts().values()
    )

    def output(part, x):
        part.set_input(x, 0)
        part.invoke()
        return part.get_output(0)

    test = load_dataset("npz", npz).test
    features = [output(stem, x[None]) for x in normalise(test.signals, made.manifest.input)]
    logits = np.stack([sum(output(branch, x)[0] for branch in branches) for x in features])
    assert (logits.argmax(axis=1) == test.labels).mean() > 0.9

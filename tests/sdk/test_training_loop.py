"""Tests of paraedge.training.loop: it learns, it can be interrupted, and it refuses what it cannot use."""

import math
import os
import pickle
import re

import msgspec
import numpy as np
import pytest
import torch

from paraedge.data import ImageDataset, LabelledImages
from paraedge.model import load_checkpoint
from paraedge.training import Teacher, TrainingConfig, evaluate_model, loop, step, train
from paraedge_runtime.errors import InputError

CHECKPOINT_FILES = ["config.json", "evaluation.npz", "model.safetensors", "samples.npz", "training.json"]


class _Interrupted(Exception):
    pass


def _interrupt_in_epoch(epoch):
    def on_progress(progress):
        if progress.epoch == epoch:
            raise _Interrupted

    return on_progress


def _same_weights(first, second):
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def run(digits, make, train_once, tmp_path_factory):
    """One real training run: its checkpoint, what it reported, and its folder."""
    mean, std = digits.channel_statistics()
    settings = make.checkpoint(embed_dim=32, num_heads=4, num_branches=4, branch_depth=1, mean=mean, std=std)
    folder = tmp_path_factory.mktemp("run") / "below" / "digits"
    reports = []
    checkpoint = train_once(
        digits,
        settings,
        make.training(epochs=4, batch_size=64, learning_rate=3e-3),
        folder,
        on_progress=reports.append,
    )
    return checkpoint, reports, folder


def test_training_lowers_the_loss_and_learns_the_digits(run):
    checkpoint, reports, _ = run
    losses = [report.loss for report in reports if report.step + 1 == report.steps_per_epoch]
    assert len(losses) == 4
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 2
    assert all(accuracy > 0.6 for accuracy in checkpoint.training.prefix_accuracy)
    assert checkpoint.training.prefix_accuracy[-1] > 0.9


def test_progress_reports_every_prefix(run):
    _, reports, _ = run
    assert {report.steps_per_epoch for report in reports} == {math.ceil(1437 / 64)}
    assert {report.epoch for report in reports} == {0, 1, 2, 3}
    assert [report.step for report in reports if report.epoch == 1] == [0, 10, 20, 22]
    for report in reports:
        assert len(report.prefix_accuracy) == 4
        assert all(0 <= accuracy <= 1 for accuracy in report.prefix_accuracy)
    rates = [report.learning_rate for report in reports]
    peak = rates.index(max(rates))
    assert 0 < peak < len(rates) / 2
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert max(rates) <= 3e-3


def test_checkpoint_folder_has_the_documented_files_and_nothing_stays_beside_it(run):
    _, _, folder = run
    assert sorted(path.name for path in folder.iterdir()) == CHECKPOINT_FILES
    assert [path.name for path in folder.parent.iterdir()] == ["digits"]


def test_what_is_returned_is_what_was_saved(run):
    checkpoint, _, folder = run
    loaded = load_checkpoint(folder)
    assert loaded.config == checkpoint.config
    assert loaded.training == checkpoint.training
    expected = checkpoint.model.state_dict()
    for name, tensor in loaded.model.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(tensor, expected[name]), name
    assert not checkpoint.model.training


def test_record_says_how_it_was_trained(run, digits):
    checkpoint, reports, _ = run
    record = checkpoint.training
    assert (record.epochs, record.seed, record.num_test_samples) == (4, 0, 360)
    assert msgspec.convert(record.settings, TrainingConfig).learning_rate == 3e-3
    assert record.torch_version == str(torch.__version__)
    assert "CPU, 1 threads" in record.hardware
    assert record.train_seconds > 0
    assert record.final_train_loss == pytest.approx(reports[-1].loss, abs=1e-6)
    assert record.prefix_accuracy == evaluate_model(checkpoint.model, digits.test).prefix_accuracy()


def test_samples_are_real_test_images_with_the_classes_in_turn(run, digits):
    checkpoint, _, _ = run
    assert len(checkpoint.samples) == 256
    assert checkpoint.samples.labels[:10].tolist() == list(range(10))
    known = {(image.tobytes(), label) for image, label in zip(digits.test.images, digits.test.labels, strict=True)}
    kept = zip(checkpoint.samples.images, checkpoint.samples.labels, strict=True)
    assert all((image.tobytes(), label) in known for image, label in kept)


def test_weights_are_rounded_before_they_are_evaluated(run):
    checkpoint, _, _ = run
    for name, tensor in checkpoint.model.state_dict().items():
        assert torch.equal(tensor, tensor.to(torch.float16).to(tensor.dtype)), name


def test_same_seed_gives_the_same_weights_and_another_seed_others(few_digits, make, tmp_path):
    first, again, other = (
        train(few_digits, make.checkpoint(), make.training(seed=seed), tmp_path / name, device="cpu").model
        for seed, name in ((0, "first"), (0, "again"), (1, "other"))
    )
    assert _same_weights(first, again)
    assert not _same_weights(first, other)


# --- interruption and resumption ------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [1, 2], ids=["second-epoch", "third-epoch"])
def test_interrupted_run_continues_to_the_same_bits(few_digits, make, tmp_path, epoch):
    config = make.training(epochs=3, crop_padding=1, horizontal_flip=True, label_smoothing=0.1)
    arguments = few_digits, make.checkpoint(), config
    whole = train(*arguments, tmp_path / "whole", device="cpu")
    out = tmp_path / "parts"
    with pytest.raises(_Interrupted):
        train(*arguments, out, device="cpu", on_progress=_interrupt_in_epoch(epoch))
    assert [path.name for path in tmp_path.iterdir() if path.name != "whole"] == ["parts.resume"]
    reports = []
    torch.manual_seed(12345)
    parts = train(*arguments, out, device="cpu", on_progress=reports.append)
    assert reports[0].epoch == epoch
    assert _same_weights(whole.model, parts.model)
    for name in ("model.safetensors", "samples.npz", "evaluation.npz"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert parts.training.final_train_loss == whole.training.final_train_loss
    assert parts.training.train_seconds > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts", "whole"]


def test_what_comes_to_lie_in_the_folder_while_it_trains_loses_nothing(few_digits, make, tmp_path):
    arguments = few_digits, make.checkpoint(), make.training(epochs=2), tmp_path / "out"
    whole = train(*arguments, device="cpu")
    with pytest.raises(
        InputError,
        match=r"out holds 'notes\.md' beside a checkpoint.*; move that away and run the same command again; it "
        "continues where it stopped$",
    ):
        train(*arguments, device="cpu", on_progress=lambda progress: (tmp_path / "out" / "notes.md").touch())
    (tmp_path / "out" / "notes.md").unlink()
    reports = []
    assert _same_weights(train(*arguments, device="cpu", on_progress=reports.append).model, whole.model)
    assert reports == []
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("workers", [0, 1])
def test_moving_average_and_every_random_choice_survive_an_interruption(few_digits, make, tmp_path, workers):
    config = make.training(
        epochs=3,
        crop_padding=1,
        horizontal_flip=True,
        ema_decay=0.9,
        erasing_probability=0.5,
        mixup_alpha=0.4,
        cutmix_alpha=1.0,
        branch_weight=0.5,
        prefix_temperature_power=0.5,
    )
    arguments = few_digits, make.checkpoint(num_branches=3), config
    whole = train(*arguments, tmp_path / "whole", device="cpu")
    with pytest.raises(_Interrupted):
        train(*arguments, tmp_path / "parts", device="cpu", on_progress=_interrupt_in_epoch(1))
    parts = train(*arguments, tmp_path / "parts", device="cpu", num_workers=workers)
    assert _same_weights(whole.model, parts.model)
    settings = msgspec.structs.replace(config, ema_decay=0.0)
    last = train(few_digits, arguments[1], settings, tmp_path / "last", device="cpu")
    assert not _same_weights(whole.model, last.model)


def test_state_is_saved_no_more_often_than_asked(few_digits, make, tmp_path):
    arguments = few_digits, make.checkpoint(), make.training(epochs=3), tmp_path / "out"
    with pytest.raises(_Interrupted):
        train(*arguments, device="cpu", save_interval_s=3600.0, on_progress=_interrupt_in_epoch(2))
    assert list(tmp_path.iterdir()) == []


def test_run_interrupted_after_its_last_epoch_only_saves(few_digits, make, tmp_path, monkeypatch):
    arguments = few_digits, make.checkpoint(), make.training(epochs=2), tmp_path / "out"

    def fail(*_):
        raise _Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate_model", fail)
        with pytest.raises(_Interrupted):
            train(*arguments, device="cpu")
    reports = []
    checkpoint = train(*arguments, device="cpu", on_progress=reports.append)
    assert reports == []
    assert math.isfinite(checkpoint.training.final_train_loss)


def test_out_with_a_slash_at_its_end_is_the_same_folder(few_digits, make, tmp_path):
    arguments = few_digits, make.checkpoint(), make.training(epochs=2)
    with pytest.raises(_Interrupted):
        train(*arguments, f"{tmp_path}/out/", device="cpu", on_progress=_interrupt_in_epoch(1))
    assert [path.name for path in tmp_path.iterdir()] == ["out.resume"]
    train(*arguments, f"{tmp_path}/out/", device="cpu")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == CHECKPOINT_FILES


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda make: (make.checkpoint(), make.training(epochs=3)), id="epochs"),
        pytest.param(lambda make: (make.checkpoint(), make.training(epochs=2, seed=1)), id="seed"),
        pytest.param(lambda make: (make.checkpoint(), make.training(epochs=2, learning_rate=1e-3)), id="learning-rate"),
        pytest.param(lambda make: (make.checkpoint(num_branches=3), make.training(epochs=2)), id="branches"),
        pytest.param(lambda make: (make.checkpoint(mean=(0.1,)), make.training(epochs=2)), id="normalisation"),
    ],
)
def test_state_of_a_run_with_other_settings_is_refused_and_kept(few_digits, make, tmp_path, change):
    out = tmp_path / "out"
    with pytest.raises(_Interrupted):
        train(few_digits, make.checkpoint(), make.training(epochs=2), out, on_progress=_interrupt_in_epoch(1))
    before = (tmp_path / "out.resume").read_bytes()
    with pytest.raises(InputError, match=r"out\.resume belongs to a run with other settings; use the same ones"):
        train(few_digits, *change(make), out)
    assert (tmp_path / "out.resume").read_bytes() == before
    assert not out.exists()


def _truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _keep_only(*names):
    def change(path):
        stored = torch.load(path, weights_only=True)
        torch.save({name: stored[name] for name in names}, path)

    return change


def _drop_a_tensor(path):
    stored = torch.load(path, weights_only=True)
    del stored["model"]["stem.positions"]
    torch.save(stored, path)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(b"not a state" * 20), id="text"),
        pytest.param(_truncate, id="truncated"),
        pytest.param(_keep_only("run"), id="settings-only"),
        pytest.param(_keep_only("model", "optimizer", "state"), id="no-settings"),
        pytest.param(_drop_a_tensor, id="tensor-missing"),
    ],
)
def test_damaged_state_is_refused_by_name(few_digits, make, tmp_path, damage):
    arguments = few_digits, make.checkpoint(), make.training(epochs=2), tmp_path / "out"
    with pytest.raises(_Interrupted):
        train(*arguments, on_progress=_interrupt_in_epoch(1))
    damage(tmp_path / "out.resume")
    with pytest.raises(InputError, match=r"out\.resume is damaged \(\w+\); delete it to start again"):
        train(*arguments)
    assert not (tmp_path / "out").exists()


class _Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch '{self.path}'",))


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda path, hostile: torch.save({"run": hostile}, path), id="saved-by-torch"),
        pytest.param(lambda path, hostile: path.write_bytes(pickle.dumps(hostile, protocol=2)), id="plain-pickle"),
    ],
)
def test_hostile_state_is_refused_and_not_executed(few_digits, make, tmp_path, write):
    mark = tmp_path / "executed"
    write(tmp_path / "out.resume", _Touch(mark))
    with pytest.raises(InputError, match=r"out\.resume is damaged"):
        train(few_digits, make.checkpoint(), make.training(), tmp_path / "out")
    assert not mark.exists()


# --- starting from a checkpoint -------------------------------------------------------------------


def test_run_starts_from_the_weights_of_a_checkpoint(trained, few_digits, make, tmp_path):
    first_losses = []
    for name, init in (("scratch", None), ("further", load_checkpoint(trained.folder))):
        reports = []
        config = make.training(learning_rate=1e-9)  # so that the weights stay where they are
        checkpoint = train(
            few_digits, make.checkpoint(), config, tmp_path / name, init=init, on_progress=reports.append
        )
        first_losses.append(reports[0].loss)
    assert first_losses[1] < first_losses[0]
    for (name, parameter), start in zip(
        checkpoint.model.named_parameters(), trained.checkpoint.model.parameters(), strict=True
    ):
        torch.testing.assert_close(parameter, start, atol=1e-3, rtol=1e-3, msg=name)
    assert checkpoint.training.previous == trained.checkpoint.training
    assert load_checkpoint(tmp_path / "further").training == checkpoint.training


def test_the_checkpoint_started_from_is_left_alone(trained, few_digits, make, tmp_path):
    before = {name: tensor.clone() for name, tensor in trained.checkpoint.model.state_dict().items()}
    train(few_digits, make.checkpoint(), make.training(), tmp_path / "out", init=trained.checkpoint)
    assert all(torch.equal(before[name], tensor) for name, tensor in trained.checkpoint.model.state_dict().items())


def test_checkpoint_of_another_shape_cannot_be_started_from(trained, few_digits, make, tmp_path):
    with pytest.raises(InputError, match="the checkpoint to start from has num_branches 2 instead of 3"):
        train(few_digits, make.checkpoint(num_branches=3), make.training(), tmp_path / "out", init=trained.checkpoint)
    assert list(tmp_path.iterdir()) == []


# --- a teacher ------------------------------------------------------------------------------------


def _network(pixels=64, classes=10):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(pixels, classes))


def test_a_teacher_of_another_architecture_teaches_what_it_answers(few_digits, make, tmp_path):
    """One that calls every image a seven makes a pupil that does."""
    network = _network()
    torch.nn.init.zeros_(network[1].weight)
    network[1].bias.data = 20.0 * torch.eye(10)[7]
    before = [parameter.clone() for parameter in network.parameters()]
    config = make.training(epochs=3, teacher_weight=1.0, ema_decay=0.0)
    pupil = train(few_digits, make.checkpoint(), config, tmp_path / "out", teacher=Teacher(network, (0.5,), (0.5,)))
    predicted = pupil.evaluation.branch_logits.sum(axis=0).argmax(axis=1)
    assert (predicted == 7).mean() > 0.9
    assert all(torch.equal(now, old) for now, old in zip(network.parameters(), before, strict=True))


def test_state_of_a_run_with_another_teacher_is_refused(few_digits, make, tmp_path):
    teachers = [Teacher(_network(), (0.5,), (0.5,)) for _ in range(2)]
    arguments = few_digits, make.checkpoint(), make.training(epochs=2, teacher_weight=0.5), tmp_path / "out"
    with pytest.raises(_Interrupted):
        train(*arguments, teacher=teachers[0], on_progress=_interrupt_in_epoch(1))
    with pytest.raises(InputError, match=r"out\.resume belongs to a run with other settings"):
        train(*arguments, teacher=teachers[1])
    assert train(*arguments, teacher=teachers[0]).training.epochs == 2


@pytest.mark.parametrize(
    ("network", "message"),
    [
        pytest.param(lambda: _network(classes=7), r"gives logits of shape \(1, 7\) for one image", id="classes"),
        pytest.param(lambda: _network(pixels=99), "cannot take an image", id="size"),
    ],
)
def test_a_teacher_of_other_data_is_refused(few_digits, make, tmp_path, network, message):
    teacher = Teacher(network(), (0.5,), (0.5,))
    with pytest.raises(InputError, match=rf"the teacher {message}.*8×8×1: give one trained on the same data"):
        train(few_digits, make.checkpoint(), make.training(teacher_weight=0.5), tmp_path / "out", teacher=teacher)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_other_classes_cannot_teach(trained, few_digits, make, tmp_path):
    names = tuple(f"digit {number}" for number in range(10))
    data = ImageDataset(few_digits.name, few_digits.train, few_digits.test, names, few_digits.license)
    settings = msgspec.structs.replace(make.checkpoint(), labels=names)
    with pytest.raises(InputError, match=r"the teacher knows the classes 0, 1, .*give one trained on the same data"):
        train(data, settings, make.training(teacher_weight=0.5), tmp_path / "out", teacher=trained.checkpoint)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_a_teacher_and_its_weight_come_together(trained, few_digits, make, tmp_path, weight):
    teacher = None if weight else trained.checkpoint
    with pytest.raises(InputError, match=rf"teacher_weight is {weight} and there is .* teacher; give both"):
        train(few_digits, make.checkpoint(), make.training(teacher_weight=weight), tmp_path / "out", teacher=teacher)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"image_size": 16}, "digits has images of 8×8×1, the model takes 16×16×1", id="size"),
        pytest.param(
            {"in_channels": 3, "mean": (0.1,) * 3, "std": (0.2,) * 3}, "8×8×1, the model takes 8×8×3", id="channels"
        ),
        pytest.param({"num_classes": 7}, "digits has 10 classes, the model has 7 outputs", id="classes"),
    ],
)
def test_data_that_does_not_fit_the_network_is_refused_before_anything_is_written(
    few_digits, make, tmp_path, changes, message
):
    with pytest.raises(InputError, match=message):
        train(few_digits, make.checkpoint(**changes), make.training(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_images_that_are_not_square_are_refused(few_digits, make, tmp_path):
    narrow = [
        LabelledImages(split.images[:, :, :6].copy(), split.labels) for split in (few_digits.train, few_digits.test)
    ]
    data = ImageDataset("narrow", *narrow, few_digits.class_names, "none")
    with pytest.raises(InputError, match="narrow has images of 8×6×1, the model takes 8×8×1"):
        train(data, make.checkpoint(), make.training(), tmp_path / "out")


def test_loss_weights_of_another_number_of_branches_are_refused(few_digits, make, tmp_path):
    config = make.training(prefix_weights=(1.0, 1.0, 1.0))
    with pytest.raises(InputError, match="prefix_weights has 3 values, the model has 2 branches"):
        train(few_digits, make.checkpoint(), config, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_loss_that_is_not_a_number_stops_the_run_without_a_checkpoint(few_digits, make, tmp_path, monkeypatch):
    monkeypatch.setattr(step, "progressive_loss", lambda logits, *_, **__: logits.sum() * math.nan)
    reports = []
    with pytest.raises(InputError, match=r"the loss became nan in epoch 1; lower learning_rate \(now 0\.002\)"):
        train(few_digits, make.checkpoint(), make.training(), tmp_path / "out", on_progress=reports.append)
    assert reports == []
    assert list(tmp_path.iterdir()) == []


def test_huge_learning_rate_stops_the_run_without_a_checkpoint(few_digits, make, tmp_path):
    config = make.training(epochs=3, learning_rate=1e30, warmup_epochs=0.0)
    with pytest.raises(InputError, match=re.escape("lower learning_rate (now 1e+30) and start again without")):
        train(few_digits, make.checkpoint(), config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folder_that_is_no_checkpoint_is_left_alone(few_digits, make, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="out exists and is not a checkpoint folder; choose another --out"):
        train(few_digits, make.checkpoint(), make.training(), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": math.inf},
        {"learning_rate": math.nan},
        {"weight_decay": -0.1},
        {"weight_decay": math.nan},
        {"warmup_epochs": -1.0},
        {"warmup_epochs": 2.0},
        {"warmup_epochs": math.nan},
        {"clip_norm": 0.0},
        {"clip_norm": math.inf},
        {"label_smoothing": 1.0},
        {"label_smoothing": -0.1},
        {"crop_padding": -1},
        {"ema_decay": 1.0},
        {"ema_decay": -0.1},
        {"erasing_probability": 1.1},
        {"mixup_alpha": -1.0},
        {"mixup_alpha": math.inf},
        {"cutmix_alpha": math.nan},
        {"mix_probability": -0.5},
        {"prefix_temperature_power": -1.0},
        {"branch_weight": 1.1},
        {"teacher_weight": math.nan},
        {"feature_copies": 65},
        {"seed": -1},
        {"prefix_weights": ()},
        {"prefix_weights": (1.0, 0.0)},
        {"prefix_weights": (-1.0, 1.0)},
        {"prefix_weights": (1.0, math.nan)},
    ],
    ids=str,
)
def test_impossible_settings_are_refused_by_name(make, changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"invalid {name} "):
        make.training(**changes)


@pytest.mark.parametrize("warmup", [0.0, 0.001, 0.5, 1.0, 4.0])
def test_learning_rate_never_exceeds_its_peak_and_reaches_it(make, warmup):
    config = make.training(epochs=4, warmup_epochs=warmup, learning_rate=1e-3)
    rates = [loop.learning_rate(config, epoch) for epoch in np.linspace(0, 4, 401)]
    assert max(rates) == pytest.approx(1e-3, rel=0.01)
    assert max(rates) <= 1e-3
    assert min(rates) >= 0
    if warmup < 4:
        assert rates[-1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("kind", ["folder", "file", "link", "below-a-file", "no-such-device"])
def test_what_cannot_be_is_refused_before_the_first_step(few_digits, make, tmp_path, kind):
    out, options = tmp_path / "out", {}
    if kind == "folder":
        out.mkdir()
    elif kind == "file":
        out.write_text("precious")
    elif kind == "link":
        out.symlink_to(tmp_path)
    elif kind == "below-a-file":
        out.write_text("precious")
        out = out / "inner"
    else:
        options["device"] = "nonsense"
    steps = []
    with pytest.raises(InputError, match=r"choose another --out|name the folder itself|torch has no device 'nonsense'"):
        train(few_digits, make.checkpoint(), make.training(epochs=1), out, on_progress=steps.append, **options)
    assert steps == []
    assert not (tmp_path / "out.resume").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "my images"}, "'my images' is not a valid bundle name; .*: 'my-images'"),
        ({"license": "x" * 5000}, "cannot be exported: "),
        ({"description": "x" * 5000}, "cannot be exported: "),
        ({"labels": ("\udce9", *"123456789")}, "cannot be exported: "),
        ({"labels": tuple("0123456780")}, r"labels\[9\] is '0', the same as labels\[0\]; every output needs a name"),
        ({"labels": ("x" * 5000, *"123456789")}, "cannot be exported: "),
    ],
)
def test_what_an_export_would_refuse_is_refused_before_the_training(few_digits, make, tmp_path, changes, message):
    config = msgspec.structs.replace(make.checkpoint(), **changes)
    with pytest.raises(InputError, match=message):
        train(few_digits, config, make.training(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []

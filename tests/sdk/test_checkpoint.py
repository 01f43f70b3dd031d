"""Tests of paraedge.model.checkpoint: what is saved comes back, and a damaged folder is refused by file."""

import io
import json
import os
import pickle
import shutil
import stat

import msgspec
import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from paraedge.model import Checkpoint, ParaFormer, load_checkpoint, save_checkpoint
from paraedge.model.arrays import _decoded
from paraedge.model.records import CheckpointConfig
from paraedge_runtime.errors import InputError

FILES = ("config.json", "evaluation.npz", "model.safetensors", "samples.npz", "training.json")


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of a good checkpoint folder, to damage."""
    return shutil.copytree(trained.folder, tmp_path / "model")


def _contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- round trips ----------------------------------------------------------------------------------


def test_float32_comes_back_bit_for_bit(trained, tmp_path):
    save_checkpoint(trained.checkpoint, tmp_path / "model", dtype=torch.float32)
    loaded = load_checkpoint(tmp_path / "model")
    for name, tensor in trained.checkpoint.model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(loaded.model.state_dict()[name], tensor), name


def test_float16_comes_back_as_float32_rounded_to_float16(trained, tmp_path):
    save_checkpoint(trained.checkpoint, tmp_path / "model", dtype=torch.float16)
    loaded = load_checkpoint(tmp_path / "model")
    rounded = 0
    for name, tensor in trained.checkpoint.model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        stored = loaded.model.state_dict()[name]
        assert stored.dtype == torch.float32, name
        assert torch.equal(stored, tensor.half().float()), name
        rounded += int((stored != tensor).sum())
    assert rounded > 1000
    weights = safetensors.torch.load_file(tmp_path / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}


def test_everything_else_comes_back(trained, tmp_path):
    checkpoint = trained.checkpoint
    save_checkpoint(checkpoint, tmp_path / "model", dtype=torch.float32)
    loaded = load_checkpoint(str(tmp_path / "model"))
    assert loaded.config == checkpoint.config
    assert loaded.training == checkpoint.training
    assert np.array_equal(loaded.samples.images, checkpoint.samples.images)
    assert np.array_equal(loaded.samples.labels, checkpoint.samples.labels)
    assert np.array_equal(loaded.evaluation.labels, checkpoint.evaluation.labels)
    assert loaded.evaluation.branch_logits.dtype == np.float32
    assert np.array_equal(
        loaded.evaluation.branch_logits, checkpoint.evaluation.branch_logits.astype(np.float16).astype(np.float32)
    )
    assert not loaded.model.training


def test_loaded_model_computes_the_same(trained, few_digits):
    loaded = load_checkpoint(trained.folder)
    x = torch.from_numpy(few_digits.test.images[:8]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        assert torch.equal(loaded.model.branch_logits(x), trained.checkpoint.model.branch_logits(x))


def test_saving_what_was_loaded_gives_the_same_files(trained, tmp_path):
    save_checkpoint(load_checkpoint(trained.folder), tmp_path / "model", dtype=torch.float32)
    assert _contents(tmp_path / "model") == _contents(trained.folder)


def test_shared_classifier_is_stored_once(trained):
    names = list(safetensors.torch.load_file(trained.folder / "model.safetensors"))
    assert [name for name in names if "classifier" in name] == ["branches.0.classifier.weight"]


def test_loaded_classifier_is_still_shared(trained):
    first, second = load_checkpoint(trained.folder).model.branches
    assert first.classifier.weight is second.classifier.weight


def test_json_files_are_for_people_too(trained):
    for name in ("config.json", "training.json"):
        text = (trained.folder / name).read_text()
        assert text.endswith("}\n")
        assert '\n  "' in text
    config = json.loads((trained.folder / "config.json").read_text())
    assert config["format"] == "paraedge-checkpoint/1"
    assert config["model"]["embed_dim"] == 16


# --- where it is written --------------------------------------------------------------------------


def test_files_have_the_permissions_that_the_umask_says(trained, tmp_path):
    umask = os.umask(0)
    os.umask(umask)
    save_checkpoint(trained.checkpoint, tmp_path / "model", dtype=torch.float32)
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o777 & ~umask
    for name in FILES:
        assert stat.S_IMODE((tmp_path / "model" / name).stat().st_mode) == 0o666 & ~umask, name


def test_exactly_the_documented_files_are_written_and_nothing_beside_them(trained, tmp_path):
    save_checkpoint(trained.checkpoint, tmp_path / "new" / "model", dtype=torch.float16)
    assert sorted(path.name for path in (tmp_path / "new" / "model").iterdir()) == list(FILES)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model"]


def test_what_lies_beside_a_checkpoint_is_not_lost(trained, folder):
    (folder / "lab-notes.md").write_text("precious")
    before = _contents(folder)
    with pytest.raises(InputError, match=r"holds 'lab-notes\.md' beside a checkpoint, so it is not replaced"):
        save_checkpoint(trained.checkpoint, folder, dtype=torch.float32)
    assert _contents(folder) == before


def test_checkpoint_replaces_a_checkpoint(trained, folder, make):
    other = make.checkpoint(embed_dim=32)
    model = ParaFormer(other.model).eval()
    old = trained.checkpoint
    save_checkpoint(Checkpoint(other, model, old.training, old.samples, old.evaluation), folder, dtype=torch.float32)
    assert sorted(_contents(folder)) == list(FILES)
    assert load_checkpoint(folder).config.model.embed_dim == 32
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("kind", ["folder", "empty-folder", "file", "another-tool-s-model"])
def test_anything_else_is_not_replaced(trained, tmp_path, kind):
    target = tmp_path / "thesis"
    if kind == "file":
        target.write_text("years of work")
    else:
        target.mkdir()
        if kind == "another-tool-s-model":
            (target / "config.json").write_text('{"model_type": "bert"}')
        if kind == "folder":
            (target / "text.tex").write_text("years of work")
    with pytest.raises(InputError, match="thesis exists and is not a checkpoint folder; choose another --out"):
        save_checkpoint(trained.checkpoint, target, dtype=torch.float32)
    if kind == "file":
        assert target.read_text() == "years of work"
    else:
        assert [path.name for path in target.iterdir()] == {
            "folder": ["text.tex"],
            "another-tool-s-model": ["config.json"],
            "empty-folder": [],
        }[kind]
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_failed_save_leaves_the_old_checkpoint(trained, folder, monkeypatch):
    before = _contents(folder)

    def fail(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(InputError, match="model cannot be written: no space left on device; choose another path"):
        save_checkpoint(trained.checkpoint, folder, dtype=torch.float16)
    assert _contents(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


# --- damage ---------------------------------------------------------------------------------------


def _cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _text(path):
    path.write_bytes(b"<html>404 Not Found</html>")


def _empty(path):
    path.write_bytes(b"")


def _into_a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    pattern = "no config.json" if name == "config.json" else f"{name} is missing; the checkpoint folder is incomplete"
    with pytest.raises(InputError, match=pattern):
        load_checkpoint(folder)


def _into_a_pipe(path):
    path.unlink()
    os.mkfifo(path)  # nobody writes to it


@pytest.mark.parametrize("damage", [_cut, _text, _empty, _into_a_folder, _into_a_pipe])
@pytest.mark.parametrize("name", FILES)
def test_damaged_file_is_named(folder, name, damage):
    damage(folder / name)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["samples.npz", "evaluation.npz"])
def test_npz_with_a_broken_stream_is_named(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[120:160] = b"\xff" * 40
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} cannot be read"):
        load_checkpoint(folder)


class _Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda path, hostile: path.write_bytes(pickle.dumps(hostile)), id="plain-pickle"),
        pytest.param(
            lambda path, hostile: np.savez(path, images=np.array([hostile], dtype=object), labels=np.zeros(1)),
            id="object-array",
        ),
    ],
)
def test_hostile_npz_is_refused_and_not_executed(folder, tmp_path, write):
    mark = tmp_path / "executed"
    write(folder / "samples.npz", _Touch(mark))
    with pytest.raises(InputError, match=r"samples\.npz cannot be read"):
        load_checkpoint(folder)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["absent", "file"])
def test_path_that_is_no_checkpoint_folder_is_refused_with_a_way_out(tmp_path, name):
    (tmp_path / "file").write_text("text")
    with pytest.raises(InputError, match=f"{name} is not a checkpoint folder .* 'paraedge train'.*fashion-mnist"):
        load_checkpoint(tmp_path / name)


def _edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        pytest.param("config.json", lambda c: c.update(extra=1), "unknown field `extra`", id="unknown-field"),
        pytest.param(
            "config.json", lambda c: c["model"].update(dropout=0.1), "unknown field `dropout`", id="unknown-model-field"
        ),
        pytest.param("config.json", lambda c: c.pop("license"), "missing required field `license`", id="field-missing"),
        pytest.param(
            "config.json",
            lambda c: c["labels"].pop(),
            "labels has 9 names, model.num_classes is 10",
            id="labels-do-not-fit",
        ),
        pytest.param(
            "config.json",
            lambda c: c["model"].update(num_heads=3),
            "not a multiple of num_heads",
            id="impossible-model",
        ),
        pytest.param(
            "config.json", lambda c: c.update(format="paraedge-checkpoint/2"), "Invalid enum value", id="newer-format"
        ),
        pytest.param(
            "config.json", lambda c: c.update(architecture="resnet"), "Invalid enum value", id="other-architecture"
        ),
        pytest.param("training.json", lambda c: c.update(extra=1), "unknown field `extra`", id="record-unknown-field"),
        pytest.param(
            "training.json", lambda c: c.update(prefix_accuracy="high"), "Expected `array`", id="record-wrong-type"
        ),
    ],
)
def test_json_that_says_something_else_is_refused_by_file_and_field(folder, name, change, message):
    _edit_json(folder / name, change)
    with pytest.raises(InputError, match=rf"{name}: .*{message}.*; the file was changed or made by another version"):
        load_checkpoint(folder)


def test_json_nested_beyond_the_parser_is_refused(folder):
    text = (folder / "training.json").read_text()
    deep = "[" * 100_000 + "]" * 100_000
    (folder / "training.json").write_text(text.replace('"settings": {', f'"settings": {{"deep": {deep},'))
    with pytest.raises(InputError, match=r"training\.json: "):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"embed_dim": 32}, r"\(.*\), not \(.*\)", id="wider"),
        pytest.param({"num_branches": 1}, r"branches\.1\.", id="fewer-branches"),
        pytest.param({"num_branches": 3}, r"branches\.2\.", id="more-branches"),
        pytest.param({"branch_depth": 1}, "blocks", id="shallower"),
        pytest.param({"stem_stride": 4}, "stem", id="other-stem"),
        pytest.param({"num_heads": 4}, "key_weight", id="other-heads"),
    ],
)
def test_weights_of_another_model_are_refused(folder, make, changes, message):
    config = make.checkpoint(**changes)
    (folder / "config.json").write_bytes(msgspec.json.encode(config))
    with pytest.raises(
        InputError, match=rf"model\.safetensors does not match config\.json: .*{message}.*; they belong to different"
    ):
        load_checkpoint(folder)


def test_evaluation_of_another_model_is_refused(folder):
    np.savez(folder / "evaluation.npz", branch_logits=np.zeros((3, 60, 10), np.float16), labels=np.zeros(60, np.int32))
    with pytest.raises(
        InputError,
        match=r"evaluation\.npz: branch_logits is \(3, 60, 10\) float16, config\.json says \(2, any, 10\) floats",
    ):
        load_checkpoint(folder)


@pytest.mark.parametrize(("name", "array"), [("samples.npz", "images"), ("evaluation.npz", "branch_logits")])
def test_npz_without_an_array_is_refused_by_both_names(folder, name, array):
    np.savez(folder / name, labels=np.zeros(4, np.int64))
    with pytest.raises(InputError, match=rf"{name} has no array {array}"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "arrays", "problem"),
    [
        ("evaluation.npz", {"labels": np.int64(3)}, r"labels is \(\) int64, config\.json says \(any\) integers"),
        ("evaluation.npz", {"labels": np.zeros((60, 2), np.int64)}, r"labels is \(60, 2\) int64"),
        ("evaluation.npz", {"labels": np.zeros(59, np.int64)}, "labels must be 60 class indices below 10"),
        ("evaluation.npz", {"labels": np.full(60, 10)}, "labels must be 60 class indices below 10"),
        ("evaluation.npz", {"branch_logits": np.full((2, 60, 10), "a")}, r"branch_logits is \(2, 60, 10\) <U1"),
        ("samples.npz", {"images": np.zeros((4, 8, 8, 1), np.float32)}, "float32, .* uint8"),
        ("samples.npz", {"images": np.zeros((4, 9, 8, 1), np.uint8)}, r"images is \(4, 9, 8, 1\)"),
        ("samples.npz", {"images": np.zeros((4, 8, 8, 1), np.uint8), "labels": np.full(4, 77)}, "below 10"),
        (
            "samples.npz",
            {"images": np.zeros((0, 8, 8, 1), np.uint8), "labels": np.zeros(0, np.int64)},
            "at least one",
        ),
    ],
)
def test_arrays_that_do_not_belong_are_refused_by_file_and_name(folder, name, arrays, problem):
    with np.load(folder / name) as archive:
        stored = dict(archive)
    if name == "evaluation.npz":
        stored["branch_logits"] = np.zeros((2, 60, 10), np.float16)
        stored["labels"] = np.zeros(60, np.int32)
    np.savez(folder / name, **{**stored, **arrays})
    with pytest.raises(InputError, match=rf"{name}: .*{problem}"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("image_size", 10**30, "image_size must be at most 16384"),
        ("num_branches", 10**30, "num_branches must be at most 1000"),
        ("mlp_ratio", 1e308, r"mlp_ratio must be at most 1000"),
        ("branch_depth", [2, 10**5], "branch_depth must be at most 1000, got 100000"),
        ("stem_residual_blocks", 10**30, "stem_residual_blocks must be at most 1000"),
        ("embed_dim", 60_000, "does not match config.json: .* they belong to different models"),
        ("image_size", 16_384, "does not match config.json: .* they belong to different models"),
        ("branch_depth", 1000, "does not match config.json: .* for 2000 blocks"),
        ("new_in_a_later_version", 1, "unknown field `new_in_a_later_version` .* made by another version"),
        ("num_classes", "ten", r"Expected `int`, got `str` - at `\$\.model\.num_classes`"),
        ("mean", None, r"Expected `array`, got `null` - at `\$\.model\.mean`"),
    ],
)
def test_a_config_of_another_version_or_beyond_reason_is_refused_in_one_line(folder, field, value, problem):
    path = folder / "config.json"
    document = json.loads(path.read_text())
    document["model"][field] = value
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=problem) as found:
        load_checkpoint(folder)
    assert "\n" not in str(found.value)


def test_configuration_with_labels_that_do_not_fit_cannot_be_made(make):
    with pytest.raises(ValueError, match=r"labels has 2 names, model\.num_classes is 10"):
        CheckpointConfig(name="a", description="b", license="c", dataset="d", labels=("x", "y"), model=make.model())


def test_prefix_accuracy_of_a_trained_model_is_that_of_its_record(trained):
    assert trained.checkpoint.evaluation.prefix_accuracy() == trained.checkpoint.training.prefix_accuracy


def test_labels_are_in_the_composed_form_of_unicode_however_they_are_given(make):
    labels = ("cafe\u0301", "tea", *"12345678")
    config = msgspec.structs.replace(make.checkpoint(), labels=labels)
    assert config.labels[0] == "caf\u00e9"
    assert msgspec.json.decode(msgspec.json.encode(config), type=type(config)).labels == config.labels


@pytest.mark.parametrize("progressive", [False, True])
def test_a_sample_that_would_keep_the_jpeg_decoder_busy_is_refused(tmp_path, progressive):
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "JPEG", progressive=progressive)
    files = np.frombuffer(stream.getvalue(), np.uint8)
    if not progressive:
        assert _decoded(tmp_path, files, [0, len(files)], (64, 64, 3)).shape == (1, 64, 64, 3)
        return
    with pytest.raises(
        InputError, match=r"image 0 cannot be read \(it is a JPEG of several scans\); copy the checkpoint"
    ):
        _decoded(tmp_path, files, [0, len(files)], (64, 64, 3))

"""Tests of paraedge.training.recipes: every recipe fits its data, a name or a file gives it, nonsense is refused."""

import msgspec
import numpy as np
import pytest

from paraedge.data import DATASETS, ImageDataset, LabelledImages
from paraedge.data.signals import LabelledSignals, SignalDataset
from paraedge.model import ParaFormer
from paraedge.model.records import CheckpointConfig, TrainingRecord, read_json
from paraedge.packaged import resolve_checkpoint
from paraedge.training import RECIPES, Recipe, TrainingConfig, load_recipe, prefix_weights, with_settings
from paraedge.training.recipes import network_config
from paraedge_runtime.errors import InputError

_IMAGES = {"fashion-mnist": (28, 1), "cifar10": (32, 3), "folder": (224, 3)}


def _network(recipe):
    """For two samples of such data, seen and unseen."""
    labels, names = np.array([0, 1]), tuple("abcdefghij")
    rng = np.random.default_rng(0)
    if recipe.network.mel_bands is not None:
        signals = LabelledSignals(rng.normal(size=(2, 1, 16_000)).astype(np.float32), labels)
        data = SignalDataset("sound", signals, signals, names, "none", rate_hz=16_000.0, channel_names=("mono",))
    else:
        size, channels = _IMAGES[recipe.dataset]
        images = LabelledImages(rng.integers(0, 256, (2, size, size, channels), dtype=np.uint8), labels)
        data = ImageDataset("images", images, images, names, "none")
    return network_config(recipe.network, data)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_fits_its_data_and_its_number_of_branches(name):
    recipe = load_recipe(name)
    assert recipe.dataset in DATASETS
    assert recipe.dataset == "folder" or name.startswith(recipe.dataset) or name == "plain"
    ParaFormer(_network(recipe))
    prefix_weights(recipe.network.num_branches, recipe.training.prefix_weights)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_network_small_enough_to_ship(name):
    parameters = sum(parameter.numel() for parameter in ParaFormer(_network(load_recipe(name))).parameters())
    assert 2 * parameters <= 15_000_000


def test_no_two_recipes_are_the_same():
    bare = {name: msgspec.structs.replace(recipe, description="") for name, recipe in RECIPES.items()}
    assert len(set(bare.values())) == len(RECIPES) == len({recipe.description for recipe in RECIPES.values()})


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_its_json_file(name, tmp_path):
    path = tmp_path / "mine.json"
    path.write_bytes(msgspec.json.encode(RECIPES[name]))
    assert load_recipe(path) == load_recipe(str(path)) == RECIPES[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda fields: fields.update(optimizer="adam"), "unknown field `optimizer`", id="unknown-field"),
        pytest.param(lambda fields: fields["training"].update(epochs=0), "invalid epochs 0", id="epochs"),
        pytest.param(lambda fields: fields["network"].pop("embed_dim"), "missing required field", id="missing"),
        pytest.param(lambda fields: fields.update(training=[]), "Expected `object`", id="list"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_by_name(tmp_path, change, message):
    fields = msgspec.to_builtins(RECIPES["cifar10"])
    change(fields)
    path = tmp_path / "mine.json"
    path.write_bytes(msgspec.json.encode(fields))
    with pytest.raises(InputError, match=rf"mine\.json cannot be read: .*{message}"):
        load_recipe(path)


def test_a_file_that_is_absent_or_damaged_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"none\.json cannot be read"):
        load_recipe(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"description": ')
    with pytest.raises(InputError, match=r"half\.json cannot be read"):
        load_recipe(tmp_path / "half.json")


def test_an_unknown_name_is_refused_with_the_names():
    with pytest.raises(
        InputError, match=r"unknown recipe 'imagenet'; choose one of plain, fashion-mnist, .*cifar10.*\.json"
    ):
        load_recipe("imagenet")


@pytest.mark.parametrize(("name", "recipe"), [("fashion-mnist", "fashion-mnist"), ("cifar10", "cifar10-taught")])
def test_packaged_model_was_trained_by_its_recipe(name, recipe):
    folder = resolve_checkpoint(name)
    record = read_json(folder / "training.json", TrainingRecord)
    assert f"--recipe {recipe} " in record.command
    known = {name: record.settings[name] for name in TrainingConfig.__struct_fields__ if name in record.settings}
    assert msgspec.convert(known, TrainingConfig) == RECIPES[recipe].training
    network = read_json(folder / "config.json", CheckpointConfig).model
    shape = {key: value for key, value in msgspec.to_builtins(RECIPES[recipe].network).items() if key != "mel_bands"}
    assert shape.items() <= msgspec.to_builtins(network).items()
    assert isinstance(RECIPES[recipe], Recipe)


def test_settings_change_the_network_and_how_it_is_trained():
    changed = with_settings(
        RECIPES["cifar10"],
        ["num_branches=2", "branch_width=16,32", "learning_rate=1e-3", "epochs=20", "horizontal_flip=false"],
    )
    assert changed.network == msgspec.structs.replace(RECIPES["cifar10"].network, num_branches=2, branch_width=(16, 32))
    assert changed.training == msgspec.structs.replace(
        RECIPES["cifar10"].training, learning_rate=1e-3, epochs=20, warmup_epochs=2.0, horizontal_flip=False
    )
    assert with_settings(RECIPES["cifar10"], ["epochs=20", "warmup_epochs=5"]).training.warmup_epochs == 5.0
    assert with_settings(RECIPES["cifar10"], ["branch_width=[8,8,8,8]"]).network.branch_width == (8, 8, 8, 8)
    assert with_settings(RECIPES["cifar10"], ["stem_width=null"]).network.stem_width is None
    assert with_settings(RECIPES["plain"], ["backbone=efficientnet-lite0"]).network.backbone == "efficientnet-lite0"
    assert with_settings(RECIPES["waste"], []) == RECIPES["waste"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("num_branch=4", "unknown setting 'num_branch'; did you mean 'num_branches'. choose one of embed_dim, "),
        ("batch-size=4", "unknown setting 'batch-size'; did you mean 'batch_size'. choose"),
        ("epochs", "'epochs' is not a setting; give KEY=VALUE, such as num_branches=4"),
        ("=4", "unknown setting ''; choose one of embed_dim"),
        ("epochs=many", "invalid epochs 'many': Expected `int`, got `str`"),
        ("epochs=2.5", "invalid epochs '2.5': Expected `int`, got `float`"),
        ("epochs=", "invalid epochs '': Expected `int`"),
        ("epochs=0", "invalid epochs 0; give at least 1$"),
        ("learning_rate=0", "invalid learning_rate 0.0; give above 0$"),
        ("ema_decay=1", "invalid ema_decay 1.0; give at least 0 and below 1$"),
        ("warmup_epochs=1000", "invalid warmup_epochs 1000.0; give at most epochs, 110"),
        ("branch_width=a,b", "invalid branch_width 'a,b'"),
        ("seed=99999999999", "invalid seed 99999999999; give at least 0 and at most 4294967295"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_is_one_line(setting, message):
    with pytest.raises(InputError, match=message) as caught:
        with_settings(RECIPES["cifar10"], [setting])
    assert "\n" not in str(caught.value)

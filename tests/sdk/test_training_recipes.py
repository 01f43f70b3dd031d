"""Tests of paraedge.training.recipes: every recipe fits its data, a name or a file gives it, nonsense is refused."""

import msgspec
import pytest

from paraedge.data import DATASETS
from paraedge.model import ParaFormer, ParaFormerConfig
from paraedge.model.records import CheckpointConfig, TrainingRecord, read_json
from paraedge.packaged import resolve_checkpoint
from paraedge.training import RECIPES, Recipe, TrainingConfig, load_recipe, prefix_weights
from paraedge_converters.split import count_macs, split_model
from paraedge_runtime.errors import InputError

_IMAGES = {"fashion-mnist": (28, 1), "cifar10": (32, 3), "folder": (224, 3)}
_TEACHERS = {"cifar10-double"}  # teach what is shipped, and are not shipped themselves


def _network(recipe):
    size, channels = _IMAGES[recipe.dataset]
    return ParaFormerConfig(
        image_size=size,
        in_channels=channels,
        num_classes=10,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        **msgspec.to_builtins(recipe.network),
    )


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_fits_its_data_and_its_number_of_branches(name):
    recipe = load_recipe(name)
    assert recipe.dataset in DATASETS
    assert recipe.dataset == "folder" or name.startswith(recipe.dataset)
    ParaFormer(_network(recipe))
    prefix_weights(recipe.network.num_branches, recipe.training.prefix_weights)


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in _TEACHERS])
def test_every_recipe_but_a_teachers_is_a_network_small_enough_to_ship(name):
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
    with pytest.raises(InputError, match=r"unknown recipe 'imagenet'; choose one of fashion-mnist, .*cifar10.*\.json"):
        load_recipe("imagenet")


def _macs(recipe):
    model = ParaFormer(_network(recipe)).eval()
    return sum(count_macs(part) for part in split_model(model, tuple(range(len(model.branches)))))


@pytest.mark.parametrize(
    ("name", "members"), [("cifar10-vit", 1), ("cifar10-wide", 1), ("cifar10-wider", 1), ("cifar10-small", 8)]
)
def test_networks_to_compare_with_cost_no_less_than_the_branches(name, members):
    """They cost what the network of two blocks costs, which came first."""
    cost = members * _macs(RECIPES[name])
    assert cost == pytest.approx(_macs(RECIPES["cifar10-two-blocks"]), rel=0.03)
    assert cost >= _macs(RECIPES["cifar10"])


@pytest.mark.parametrize(("name", "recipe"), [("fashion-mnist", "fashion-mnist"), ("cifar10", "cifar10-taught")])
def test_packaged_model_was_trained_by_its_recipe(name, recipe):
    folder = resolve_checkpoint(name)
    record = read_json(folder / "training.json", TrainingRecord)
    assert f"--recipe {recipe} " in record.command
    assert msgspec.convert(record.settings, TrainingConfig) == RECIPES[recipe].training
    network = read_json(folder / "config.json", CheckpointConfig).model
    assert msgspec.to_builtins(RECIPES[recipe].network).items() <= msgspec.to_builtins(network).items()
    assert isinstance(RECIPES[recipe], Recipe)

"""Tests of paraedge.model.config: which networks can be described, and what the others are told."""

import math

import msgspec
import pytest

from paraedge.model import ParaFormerConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(
            pytest.param({name: value}, f"{name} must be at least 1, got {value}", id=f"{name}={value}")
            for name in (
                "image_size",
                "in_channels",
                "num_classes",
                "embed_dim",
                "num_heads",
                "num_branches",
                "branch_depth",
                "branch_width",
            )
            for value in (0, -1)
        ),
        pytest.param({"mean": ()}, r"mean must be 1 finite values, one per channel, got \(\)", id="no-mean"),
        pytest.param({"mean": (0.1, 0.2)}, "mean must be 1 finite values", id="too-many-means"),
        pytest.param({"std": (0.1, 0.2)}, "std must be 1 finite values", id="too-many-stds"),
        pytest.param({"in_channels": 3, "mean": (0.1, 0.2, 0.3)}, "std must be 3 finite values", id="too-few-stds"),
        pytest.param({"mean": (math.nan,)}, "mean must be 1 finite", id="mean-nan"),
        pytest.param({"std": (math.inf,)}, "std must be 1 finite", id="std-infinite"),
        pytest.param({"std": (0.0,)}, "std must be above 0", id="std-zero"),
        pytest.param({"std": (-1.0,)}, "std must be above 0", id="std-negative"),
        pytest.param({"num_heads": 3}, "embed_dim 16 is not a multiple of num_heads 3; use embed_dim 15", id="heads"),
        pytest.param({"num_heads": 32}, "num_heads 32; use embed_dim 32", id="more-heads-than-width"),
        pytest.param({"mlp_ratio": 0.0}, "mlp_ratio must be finite and positive, got 0.0", id="mlp-zero"),
        pytest.param({"mlp_ratio": -2.0}, "mlp_ratio must be finite and positive", id="mlp-negative"),
        pytest.param({"mlp_ratio": 0.01}, "mlp_ratio must be finite and positive", id="mlp-of-no-unit"),
        pytest.param({"mlp_ratio": math.nan}, "mlp_ratio must be finite and positive", id="mlp-nan"),
        pytest.param({"mlp_ratio": math.inf}, "mlp_ratio must be finite and positive", id="mlp-infinite"),
        *(
            pytest.param({"stem_stride": value}, f"stem_stride must be a power of two .* got {value}", id=f"str{value}")
            for value in (-4, 0, 1, 3, 6, 12)
        ),
        pytest.param(
            {"image_size": 10, "stem_stride": 4}, "image_size 10 is not a multiple of stem_stride 4", id="size"
        ),
        pytest.param({"image_size": 8, "stem_stride": 16}, "image_size 8 is not a multiple", id="stride-beyond-image"),
        pytest.param(
            {"embed_dim": 6, "num_heads": 1, "stem_stride": 8},
            "embed_dim 6 is not a multiple of 4: the stem doubles its width",
            id="width-not-halved-often-enough",
        ),
        pytest.param({"stem_width": 7, "stem_stride": 4}, "stem_width 7 is not a multiple of 2", id="stem-width"),
        pytest.param({"stem_width": 0}, "stem_width 0 is not a multiple", id="no-stem-width"),
        pytest.param({"stem_residual_blocks": -1}, "stem_residual_blocks must be at least 0, got -1", id="blocks"),
        *(
            pytest.param({name: (2, 2, 2)}, f"{name} has 3 values, the model has 2 branches", id=f"three-{name}s")
            for name in ("branch_depth", "branch_width")
        ),
        pytest.param({"branch_depth": (2, 0)}, r"branch_depth must be at least 1, got \(2, 0\)", id="one-depth-0"),
        pytest.param({"branch_depth": ()}, "branch_depth has 0 values", id="no-depths"),
        pytest.param(
            {"branch_width": 8}, "stem_stride must be at least 4 with branch_width, got 2", id="stem-without-a-stage"
        ),
        *(
            pytest.param({"branch_classes": value}, r"branch_classes must be 2 values .*\(10\)", id=f"classes-{value}")
            for value in ((), (10,), (10, 8), (8, 9), (0, 10), (8, 12), (8, 10, 10))
        ),
        pytest.param({"branch_residual_blocks": 1}, "branch_residual_blocks 1 needs a branch_width", id="whose-blocks"),
        pytest.param(
            {"stem_stride": 4, "branch_width": 8, "branch_residual_blocks": -1},
            "branch_residual_blocks must be at least 0, got -1",
            id="branch-blocks",
        ),
    ],
)
def test_impossible_network_is_refused(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make.model(**changes)


@pytest.mark.parametrize(
    ("image_size", "stem_stride", "num_tokens"),
    [(8, 2, 17), (8, 4, 5), (8, 8, 2), (28, 4, 50), (32, 4, 65), (224, 16, 197)],
)
def test_num_tokens_is_one_per_cell_and_the_cls_token(make, image_size, stem_stride, num_tokens):
    assert make.model(image_size=image_size, stem_stride=stem_stride).num_tokens == num_tokens


@pytest.mark.parametrize(
    ("depth", "width", "depths", "widths"),
    [(2, None, (2, 2), (None, None)), ((1, 3), 8, (1, 3), (8, 8)), (1, (6, 12), (1, 1), (6, 12))],
)
def test_one_number_stands_for_every_branch(make, depth, width, depths, widths):
    config = make.model(stem_stride=4, branch_depth=depth, branch_width=width)
    assert (config.branch_depths, config.branch_widths) == (depths, widths)


@pytest.mark.parametrize(("ratio", "width"), [(4.0, 64), (2.0, 32), (1.5, 24), (0.1, 2)])
def test_mlp_dim_is_the_rounded_ratio(make, ratio, width):
    assert make.model(mlp_ratio=ratio).mlp_dim == width


@pytest.mark.parametrize(("stem_width", "channels"), [(None, 16), (24, 24)])
def test_stem_is_as_wide_as_the_tokens_unless_told(make, stem_width, channels):
    assert make.model(stem_width=stem_width).stem_channels == channels


def test_configuration_is_frozen_and_has_value_equality(make):
    config = make.model()
    assert config == make.model()
    assert hash(config) == hash(make.model())
    assert config != make.model(embed_dim=32)
    with pytest.raises(AttributeError, match="immutable"):
        config.embed_dim = 32


def test_round_trip_through_json(make):
    config = make.model(in_channels=3, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), mlp_ratio=2.5)
    assert msgspec.json.decode(msgspec.json.encode(config), type=ParaFormerConfig) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"dropout": 0.1}, "unknown field `dropout`", id="unknown-field"),
        pytest.param({"embed_dim": "16"}, r"Expected `int`, got `str` - at `\$.embed_dim`", id="text-for-a-number"),
        pytest.param({"embed_dim": 16.5}, "Expected `int`, got `float`", id="fraction"),
        pytest.param({"mean": None}, "Expected `array`, got `null`", id="null"),
        pytest.param({"stem_stride": 3}, "stem_stride must be a power of two", id="impossible-network"),
    ],
)
def test_json_that_is_not_a_configuration_is_refused(make, changes, message):
    fields = {**msgspec.to_builtins(make.model()), **changes}
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.json.decode(msgspec.json.encode(fields), type=ParaFormerConfig)


@pytest.mark.parametrize("name", ["image_size", "in_channels", "num_classes", "mean", "std"])
def test_json_without_a_needed_field_is_refused(make, name):
    fields = msgspec.to_builtins(make.model())
    del fields[name]
    problem = "image_size must be at least 1, got 0" if name == "image_size" else f"missing required field `{name}`"
    with pytest.raises(msgspec.ValidationError, match=problem):
        msgspec.json.decode(msgspec.json.encode(fields), type=ParaFormerConfig)

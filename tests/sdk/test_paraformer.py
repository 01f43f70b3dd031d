"""Tests of paraedge.model.paraformer: shapes, additive prefixes, and attention against torch's own."""

import pytest
import torch
import torch.nn.functional as F

from paraedge.model import ParaFormer
from paraedge.model.paraformer import Block, CLSBlock, ResidualBlock
from paraedge.training import prefix_weights, progressive_loss


def _model(config, seed=0):
    torch.manual_seed(seed)
    return ParaFormer(config).eval()


def _randomise(module, seed=0):
    """Every parameter away from its start, so that no bias or scale is left out by being 0 or 1."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)


@pytest.fixture
def images(digits):
    batch = torch.from_numpy(digits.test.images[:6]).permute(0, 3, 1, 2).float() / 255
    return (batch - 0.3) / 0.4


_CONFIGS = {
    "stride2-depth1": {"stem_stride": 2, "branch_depth": 1},
    "stride4-depth2": {"stem_stride": 4, "branch_depth": 2, "num_branches": 3},
    "stride8-depth3": {"stem_stride": 8, "branch_depth": 3},
    "one-head": {"num_heads": 1},
    "three-heads": {"embed_dim": 24, "num_heads": 3, "branch_depth": 2},
    "four-heads": {"embed_dim": 32, "num_heads": 4, "branch_depth": 3},
    "one-branch": {"num_branches": 1},
    "residual-stem": {"stem_stride": 4, "stem_width": 24, "stem_residual_blocks": 2},
    "unequal-depths": {"branch_depth": (1, 3)},
    "own-convolutions": {"stem_stride": 4, "stem_width": 6, "branch_width": (4, 10), "branch_residual_blocks": 1},
    "colour": {
        "image_size": 16,
        "in_channels": 3,
        "num_classes": 4,
        "stem_stride": 4,
        "mean": (0.4, 0.5, 0.6),
        "std": (0.2, 0.3, 0.4),
    },
}


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("changes", _CONFIGS.values(), ids=_CONFIGS)
def test_shapes(make, changes, batch):
    config = make.model(**changes)
    model = _model(config)
    x = torch.randn(batch, config.in_channels, config.image_size, config.image_size)
    with torch.no_grad():
        tokens = model.stem(x)
        side = config.image_size // 2**config.stem_stages
        assert tokens.shape == (
            (batch, config.num_tokens, config.embed_dim)
            if config.branch_width is None
            else (batch, config.stem_channels, side, side)
        )
        assert len(model.branches) == config.num_branches
        for branch in model.branches:
            assert branch(tokens).shape == (batch, config.num_classes)
        assert model.branch_logits(x).shape == (config.num_branches, batch, config.num_classes)
        assert model.prefix_logits(x).shape == (config.num_branches, batch, config.num_classes)
        assert model(x).shape == (batch, config.num_classes)
    assert model.num_outputs == config.num_classes
    assert model.input_spec.shape == (1, config.in_channels, config.image_size, config.image_size)
    assert (model.input_spec.mean, model.input_spec.std) == (config.mean, config.std)


@pytest.mark.parametrize("changes", _CONFIGS.values(), ids=_CONFIGS)
def test_prefix_k_is_the_sum_of_the_branches_up_to_k_run_by_hand(make, changes):
    config = make.model(**changes)
    model = _model(config)
    x = torch.randn(3, config.in_channels, config.image_size, config.image_size)
    with torch.no_grad():
        tokens = model.stem(x)
        outputs = [branch(tokens) for branch in model.branches]
        prefixes, branch_logits, full = model.prefix_logits(x), model.branch_logits(x), model(x)
    for index in range(config.num_branches):
        torch.testing.assert_close(branch_logits[index], outputs[index])
        torch.testing.assert_close(prefixes[index], sum(outputs[: index + 1]))
    torch.testing.assert_close(full, prefixes[-1])


def _reference_attention(y, block):
    """(B, T, D) -> (B, T, D) by torch's own attention."""
    heads = block.num_heads

    def split(x):
        return x.unflatten(2, (heads, -1)).transpose(1, 2)

    mixed = F.scaled_dot_product_attention(split(block.query(y)), split(block.key(y)), split(block.value(y)))
    return mixed.transpose(1, 2).flatten(2)


_ATTENTION = {"D16-h1-T5": (16, 1, 5), "D24-h3-T17": (24, 3, 17), "D32-h4-T2": (32, 4, 2), "D32-h32-T9": (32, 32, 9)}


@pytest.mark.parametrize(("dim", "heads", "tokens"), _ATTENTION.values(), ids=_ATTENTION)
def test_block_equals_torchs_own_attention(make, dim, heads, tokens):
    block = Block(make.model(embed_dim=dim, num_heads=heads)).double()
    _randomise(block)
    x = torch.randn(4, tokens, dim, dtype=torch.float64)
    with torch.no_grad():
        after_attention = x + block.proj(_reference_attention(block.norm1(x), block))
        expected = after_attention + block.mlp(block.norm2(after_attention))
        torch.testing.assert_close(block(x), expected, atol=1e-10, rtol=1e-10)


def _as_full_block(cls_block, config):
    """The full block that a CLS block is one row of.

    A Linear's weight is (out, in) with head i in the output rows i·d to (i+1)·d. ``key_weight`` is
    (h, d, D), those rows head by head; ``value_weight`` is (h, D, d), the same rows transposed.
    """
    block = Block(config).to(cls_block.key_weight.dtype)
    with torch.no_grad():
        block.key.weight.copy_(cls_block.key_weight.flatten(0, 1))
        block.value.weight.copy_(cls_block.value_weight.transpose(1, 2).flatten(0, 1))
        block.value.bias.copy_(cls_block.value_bias)
    for name in ("norm1", "query", "proj", "norm2", "mlp"):
        getattr(block, name).load_state_dict(getattr(cls_block, name).state_dict())
    return block


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [pytest.param(torch.float64, 1e-10, id="float64"), pytest.param(torch.float32, 1e-5, id="float32")],
)
@pytest.mark.parametrize(("dim", "heads", "tokens"), _ATTENTION.values(), ids=_ATTENTION)
def test_cls_block_equals_row_0_of_a_full_block_with_its_weights(make, dim, heads, tokens, dtype, tolerance):
    config = make.model(embed_dim=dim, num_heads=heads)
    cls_block = CLSBlock(config).to(dtype)
    _randomise(cls_block)
    x = torch.randn(4, tokens, dim, dtype=dtype)
    with torch.no_grad():
        expected = _as_full_block(cls_block, config)(x)[:, :1]
        torch.testing.assert_close(cls_block(x), expected, atol=tolerance, rtol=tolerance)


def test_cls_block_gives_the_gradients_of_the_full_block(make):
    config = make.model(embed_dim=24, num_heads=3)
    cls_block = CLSBlock(config).double()
    _randomise(cls_block)
    block = _as_full_block(cls_block, config)
    x = torch.randn(2, 6, 24, dtype=torch.float64)
    cls_block(x).square().sum().backward()
    block(x)[:, :1].square().sum().backward()
    torch.testing.assert_close(cls_block.key_weight.grad.flatten(0, 1), block.key.weight.grad)
    torch.testing.assert_close(cls_block.value_weight.grad.transpose(1, 2).flatten(0, 1), block.value.weight.grad)
    torch.testing.assert_close(cls_block.query.weight.grad, block.query.weight.grad)


def test_only_the_last_block_of_a_branch_is_a_cls_block(make):
    for depths in ((1, 1), (2, 3), (3, 1)):
        for depth, branch in zip(depths, _model(make.model(branch_depth=depths)).branches, strict=True):
            assert [type(block) for block in branch.blocks] == [Block] * (depth - 1) + [CLSBlock]


def test_classifier_is_one_parameter_without_bias(make):
    model = _model(make.model(num_branches=4))
    classifiers = {id(branch.classifier.weight) for branch in model.branches}
    assert len(classifiers) == 1
    assert all(branch.classifier.bias is None for branch in model.branches)
    assert [name for name, _ in model.named_parameters() if "classifier" in name] == ["branches.0.classifier.weight"]


@pytest.mark.parametrize("changes", [{}, {"stem_stride": 4, "branch_width": 8}], ids=["blocks", "own-convolutions"])
def test_branches_share_nothing_but_the_classifier(make, changes):
    first, second = _model(make.model(**changes)).branches
    shared = {id(parameter) for parameter in first.parameters()} & {id(parameter) for parameter in second.parameters()}
    assert shared == {id(first.classifier.weight)}


def test_images_do_not_influence_each_other(make, images):
    model = _model(make.model(branch_depth=3))
    _randomise(model)
    with torch.no_grad():
        together = model.branch_logits(images)
        alone = torch.cat([model.branch_logits(image[None]) for image in images], dim=1)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_cls_token_is_the_first_row_and_the_same_for_every_image(make, images):
    model = _model(make.model())
    with torch.no_grad():
        tokens = model.stem(images)
        cells = model.stem.convs(images)
    torch.testing.assert_close(tokens[:, 0], model.stem.positions[:, 0].expand(len(images), -1))
    # Cells follow row by row, each on its position.
    side = cells.shape[-1]
    for row, column in ((0, 0), (0, 1), (side - 1, 0), (side - 1, side - 1)):
        index = 1 + row * side + column
        torch.testing.assert_close(tokens[:, index], cells[:, :, row, column] + model.stem.positions[:, index])


@pytest.mark.parametrize("changes", _CONFIGS.values(), ids=_CONFIGS)
def test_progressive_loss_reaches_every_parameter(make, changes):
    config = make.model(**changes)
    model = _model(config).train()
    x = torch.randn(6, config.in_channels, config.image_size, config.image_size)
    weights = prefix_weights(config.num_branches, None)
    progressive_loss(model.prefix_logits(x), torch.arange(6) % config.num_classes, weights).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_same_seed_gives_the_same_weights_and_another_seed_others(make):
    first, again, other = (_model(make.model(), seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_number_of_parameters(make):
    config = make.model(embed_dim=16, num_heads=2, mlp_ratio=2.0, num_branches=3, branch_depth=2, stem_stride=4)
    dim, mlp = 16, 32
    block = 2 * dim + (dim * dim + dim) + dim * dim + (dim * dim + dim) + (dim * dim + dim) + 2 * dim
    block += dim * mlp + mlp + mlp * dim + dim
    stem = 9 * (1 * 8 + 8 * 8 + 8 * 16 + 16 * 16) + 2 * (8 + 8 + 16 + 16) + dim * dim + dim + config.num_tokens * dim
    expected = stem + 3 * (2 * block + 2 * dim) + 10 * dim
    assert sum(parameter.numel() for parameter in _model(config).parameters()) == expected


def test_number_of_parameters_of_a_residual_stem(make):
    config = make.model(embed_dim=16, stem_stride=4, stem_width=24, stem_residual_blocks=2)
    convs = 1 * 12 + (1 + 4) * 12 * 12 + 12 * 24 + (1 + 4) * 24 * 24  # down, then one plain and four residual
    norms = 2 * 6 * (12 + 24)
    expected = 9 * convs + norms + 24 * 16 + 16 + config.num_tokens * 16
    assert sum(parameter.numel() for parameter in _model(config).stem.parameters()) == expected


def test_residual_block_adds_its_input(images):
    block = ResidualBlock(1).eval()
    _randomise(block)
    with torch.no_grad():
        torch.testing.assert_close(block(images), F.relu(images + block.convs(images)))


def test_residual_stem_computes_the_same_with_batchnorm_folded_away(make, images):
    from paraedge_converters.split import fold_batchnorm

    stem = _model(make.model(stem_residual_blocks=1, stem_width=24)).stem
    _randomise(stem)
    folded = fold_batchnorm(stem)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(images), stem(images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("depth", [1, 2])
def test_parts_can_be_exported_and_compute_the_same(make, images, depth):
    model = _model(make.model(branch_depth=depth, embed_dim=24, num_heads=3))
    image = images[:1]
    with torch.no_grad():
        tokens = model.stem(image)
        stem = torch.export.export(model.stem, (image,)).module()
        branch = torch.export.export(model.branches[1], (tokens,)).module()
        torch.testing.assert_close(stem(image), tokens)
        torch.testing.assert_close(branch(tokens), model.branches[1](tokens))


def test_number_of_parameters_of_the_branches_own_convolutions(make):
    config = make.model(
        embed_dim=16, stem_stride=4, stem_width=6, branch_width=(4, 10), branch_residual_blocks=1, branch_depth=1
    )
    model, plain = _model(config), _model(make.model(embed_dim=16, branch_depth=1))
    blocks = sum(parameter.numel() for parameter in plain.branches[1].blocks.parameters())
    for width, branch in zip((4, 10), model.branches, strict=True):
        convs = 9 * (6 * width + 3 * width * width) + 2 * 4 * width  # down, plain, two residual; their norms
        tokens = convs + width * 16 + 16 + config.num_tokens * 16
        assert sum(parameter.numel() for parameter in branch.parameters()) == tokens + blocks + 2 * 16 + 10 * 16
    assert sum(parameter.numel() for parameter in model.stem.parameters()) == 9 * (6 + 6 * 6) + 2 * 2 * 6

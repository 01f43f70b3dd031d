"""Splitting a branch model: contract, names, costs, BatchNorm folding."""

import pytest
import torch
from support.blocks import HEADS, TOKENS, D, MultiHead, Timm
from support.conv_branches import ConvBranches
from torch import nn

from paraedge.model import ParaFormer, ParaFormerConfig
from paraedge_converters.split import (
    Part,
    SubsetModel,
    check_contract,
    count_macs,
    fold_batchnorm,
    quantizable,
    split_model,
)
from paraedge_runtime.errors import UnsupportedModel

CONFIG = ParaFormerConfig(
    image_size=16,
    in_channels=3,
    num_classes=5,
    embed_dim=24,
    num_heads=3,
    num_branches=4,
    mean=(0.5, 0.5, 0.5),
    std=(0.2, 0.2, 0.2),
)


def test_paraformer_splits_into_stem_and_chosen_branches():
    parts = split_model(ParaFormer(CONFIG), (0, 2, 3))
    assert [part.name for part in parts] == ["stem", "branch_00", "branch_02", "branch_03"]
    assert parts[0].output_shape == (1, 17, 24)
    assert all(tuple(part.example.shape) == (1, 17, 24) and part.output_shape == (1, 5) for part in parts[1:])
    assert not any(part.module.training for part in parts)


def test_costs_of_a_part_are_counted():
    model = ConvBranches(image_size=28, in_channels=1, num_branches=1)
    stem, branch = split_model(model, (0,))
    assert count_macs(stem) == 14 * 14 * 12 * 1 * 9
    assert count_macs(branch) == 14 * 14 * 12 * 12 * 9 + 12 * 10
    assert stem.parameters == 12 * 9 + 12  # BatchNorm is gone, the convolution has its bias
    assert branch.parameters == 12 * 12 * 9 + 12 + 12 * 10


class NormAndActivation(nn.BatchNorm2d):
    def forward(self, x):
        return torch.relu(super().forward(x))


class PaddedConvolution(nn.Conv2d):
    def forward(self, x):
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


@pytest.mark.parametrize(
    "layers",
    [(nn.Conv2d(1, 4, 3), NormAndActivation(4)), (PaddedConvolution(1, 4, 3), nn.BatchNorm2d(4))],
    ids=["batchnorm with an activation", "convolution with padding"],
)
def test_folding_leaves_derived_classes_as_they_are(layers):
    network = nn.Sequential(*layers).eval()
    x = torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(fold_batchnorm(network)(x), network(x))


class Asking(nn.Module):
    """(1, T, D) -> (1, 3, D): three learned queries ask the tokens."""

    def __init__(self):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 3, D))
        self.layer = nn.TransformerDecoderLayer(D, HEADS, 64, batch_first=True)

    def forward(self, x):
        return self.layer(self.queries.expand(len(x), -1, -1), x)


_ATTENTION = TOKENS * 4 * D * D + 2 * TOKENS * TOKENS * D
ATTENTION_MACS = {
    "timm": (Timm, _ATTENTION),
    "multi-head": (MultiHead, _ATTENTION),
    "multi-head, frozen": (lambda: MultiHead().requires_grad_(False), _ATTENTION),
    "decoder": (Asking, 3 * 4 * D * D + 2 * 9 * D + (6 + 2 * TOKENS) * D * D + 6 * TOKENS * D + 3 * 2 * D * 64),
}


@pytest.mark.parametrize(("make", "expected"), ATTENTION_MACS.values(), ids=ATTENTION_MACS)
def test_all_products_of_attention_are_counted(make, expected):
    module = make().eval()
    assert count_macs(Part("branch_00", module, torch.zeros(1, TOKENS, D), (1, 5), 1)) == expected


@pytest.mark.parametrize("model", [ConvBranches(), ParaFormer(CONFIG)], ids=["convolutional", "paraformer"])
def test_folding_is_exact_and_leaves_the_original_alone(model):
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = fold_batchnorm(model.stem)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    x = torch.rand(2, *model.input_spec.shape[1:])
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), model.stem(x), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.stem.modules())


def test_a_batchnorm_that_follows_no_convolution_stays():
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4))
    assert sum(isinstance(child, nn.BatchNorm2d) for child in fold_batchnorm(module)) == 2


def test_subset_model_adds_up():
    model = ParaFormer(CONFIG).eval()
    x = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        whole = SubsetModel(model.stem, [model.branches[0], model.branches[2]]).eval()(x)
        tokens = model.stem(x)
        torch.testing.assert_close(whole, model.branches[0](tokens) + model.branches[2](tokens))


class _WrongBranch(nn.Module):
    def __init__(self, result):
        super().__init__()
        self.result = result

    def forward(self, x):
        return self.result(x)


def _with_branch(result):
    model = ConvBranches(num_branches=1)
    model.branches = nn.ModuleList([_WrongBranch(result)])
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(2, 2), "Linear has no stem, branches, input_spec, num_outputs"),
        (_with_branch(lambda x: x.mean(dim=(2, 3))), r"branch 0 returns \(1, 12\).*\(1, 10\)"),
        (_with_branch(lambda x: (x, x)), "branch_00 returns tuple"),
        (_with_branch(lambda x: x.mean(dim=(2, 3))[:, :10].double()), "branch_00 returns .*float64"),
        (_with_branch(lambda x: x.reshape(7, 7)), "branch_00 fails on an input of"),
    ],
    ids=["no members", "wrong width", "two outputs", "float64", "raises"],
)
def test_a_broken_contract_is_named(model, message):
    def check_and_split():
        check_contract(model)
        split_model(model, (0,))

    with pytest.raises(UnsupportedModel, match=message):
        check_and_split()


def test_a_model_without_branches_is_refused():
    model = ConvBranches(num_branches=1)
    model.branches = nn.ModuleList()
    with pytest.raises(UnsupportedModel, match="has no branches"):
        check_contract(model)
    model.stem, model.branches = None, nn.ModuleList([nn.Linear(2, 2)])
    with pytest.raises(UnsupportedModel, match=r"stem must be an nn\.Module, got None; nn\.Identity\(\) passes"):
        check_contract(model)


def test_the_quantizable_form_is_the_same_function_with_all_weights_in_layers():
    torch.manual_seed(0)
    (_, part) = split_model(ParaFormer(CONFIG), (2,))
    before = {name: tensor.clone() for name, tensor in part.module.state_dict().items()}
    form = quantizable(part.module)
    x = torch.randn(part.example.shape)
    with torch.inference_mode():
        torch.testing.assert_close(form(x), part.module(x), rtol=0, atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in part.module.state_dict().items())
    matrices = {name for name, tensor in form.named_parameters() if tensor.ndim > 1}
    layers = {f"{name}.weight" for name, module in form.named_modules() if isinstance(module, nn.Linear)}
    assert matrices == layers


def test_the_quantizable_form_of_a_part_that_offers_itself():
    class Offers(nn.Linear):
        def quantizable(self):
            return nn.Linear(self.in_features, self.out_features)

    assert type(quantizable(Offers(3, 2))) is nn.Linear
    assert [type(module) for module in quantizable(nn.Sequential(Offers(3, 2), nn.ReLU()))] == [nn.Linear, nn.ReLU]

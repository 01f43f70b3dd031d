"""An ordinary network cut into branches: exits exactly, one head by distillation; the network stays as it was."""

import copy

import pytest
import torch
from torch import nn

from paraedge import InputError, branches_from
from paraedge.model import distill
from paraedge_converters.split import check_contract, split_model
from paraedge_runtime.manifest import ImageInput

SPEC = ImageInput(name="image", shape=(1, 1, 8, 8), mean=(0.5,), std=(0.25,))


def stage():
    return nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5))


def classifier(outputs=4):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, outputs))


def convolutional():
    torch.manual_seed(0)
    return nn.Conv2d(1, 6, 3, 2, 1), [stage() for _ in range(3)], [classifier(), nn.Identity(), classifier()]


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.classifier = nn.LayerNorm(16), nn.Linear(16, 4)

    def forward(self, tokens):
        return self.classifier(self.norm(tokens).mean(1))


class Embed(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 4, 4)

    def forward(self, x):
        return self.patches(x).flatten(2).transpose(1, 2)


def transformer(depth=6):
    torch.manual_seed(0)
    blocks = [nn.TransformerEncoderLayer(16, 2, 32, 0.1, batch_first=True, norm_first=True) for _ in range(depth)]
    return Embed(), blocks, Head()


def test_branches_of_a_network_with_exits_are_its_exits():
    stem, blocks, exits = convolutional()
    before = copy.deepcopy([stem, *blocks, *exits])
    model = branches_from(stem, blocks, exits=exits, input_spec=SPEC).eval()
    check_contract(model)
    assert len(split_model(model, (0, 1))) == 3  # the parts that an export lowers
    assert (len(model.branches), model.num_outputs) == (2, 4)
    network = nn.ModuleList([stem, *blocks, *exits]).eval()
    x = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        maps, wanted = stem(x), []
        for block, leave in zip(blocks, exits, strict=True):
            maps = block(maps)
            if not isinstance(leave, nn.Identity):
                wanted.append(leave(maps))
        outputs = model.branch_outputs(x)
        torch.testing.assert_close(outputs, torch.stack(wanted) / 2)
        torch.testing.assert_close(model(x), sum(wanted) / 2)
        for parameter in model.parameters():
            parameter.zero_()
    for module, copied in zip(network, before, strict=True):  # nothing is shared
        for own, then in zip(module.parameters(), copied.parameters(), strict=True):
            torch.testing.assert_close(own, then, rtol=0, atol=0)


def test_blocks_behind_the_stem_become_equal_branches():
    stem, blocks, head = transformer()
    model = branches_from(stem, blocks, head=head, stem_blocks=2, num_branches=2, input_spec=SPEC)
    check_contract(model)
    assert (len(model.branches), model.num_outputs) == (2, 4)
    assert model.training  # as the modules were
    x = torch.randn(3, 1, 8, 8)
    nn.ModuleList([stem, head, *blocks]).eval()
    with torch.no_grad():
        tokens = blocks[1](blocks[0](stem(x)))
        torch.testing.assert_close(model.eval().branches[1](model.stem(x)) * 2, head(blocks[5](blocks[4](tokens))))
    assert len(branches_from(stem, blocks, head=head, input_spec=SPEC).branches) == 4  # a third in the stem, one each


def test_distillation_brings_every_prefix_and_branch_nearer_to_the_network():
    stem, blocks, head = transformer()
    with torch.no_grad():
        head.classifier.weight.mul_(5)  # a network that is sure of something
    network = nn.Sequential(stem, *blocks, head).eval()
    model = branches_from(stem, blocks, head=head, stem_blocks=2, num_branches=2, input_spec=SPEC)
    weights = copy.deepcopy(network.state_dict())
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(256, 1, 8, 8, generator=generator)
    held_out = torch.randn(64, 1, 8, 8, generator=generator)

    def distances():
        """Of branch 0 and of both, from the network's probabilities."""
        with torch.no_grad():
            outputs, wanted = model.eval().branch_outputs(held_out), network(held_out).softmax(-1)
            sums = [outputs[0] * 2, outputs[1] * 2, outputs.sum(0)]
            return [float((one.softmax(-1) - wanted).abs().mean()) for one in sums]

    before, losses = distances(), []
    distill(model, network, inputs.split(32) * 12, learning_rate=2e-3, on_step=lambda step, loss: losses.append(loss))
    assert len(losses) == 96
    assert not model.training
    assert all(after < 0.7 * first for after, first in zip(distances(), before, strict=True))
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"head": None}, r"give either head \(the layers after the last block\) or exits"),
        ({"exits": [nn.Identity()]}, r"give either head \(the layers after the last block\) or exits"),
        ({"head": None, "exits": [classifier()]}, "1 exits for 6 blocks; give one for each"),
        ({"head": None, "exits": [nn.Identity()] * 6}, "every exit is an nn.Identity"),
        ({"head": None, "exits": [classifier()] * 6, "num_branches": 2}, "stem_blocks and num_branches need head"),
        ({"stem_blocks": 6}, r"stem_blocks must be below 6 \(the number of blocks\), got 6"),
        ({"stem_blocks": 1, "num_branches": 3}, "5 blocks cannot be divided evenly among 3 branches"),
        ({"num_branches": 0}, "num_branches must be an integer of at least 1, got 0"),
        ({"head": nn.Linear(16, 4)}, r"branch 0 must return \(1, outputs\), got \(1, 4, 4\)"),
        ({"head": nn.Linear(17, 4)}, r"branch 0 fails on the stem's output for an input of \(1, 1, 8, 8\)"),
    ],
)
def test_what_cannot_be_cut_is_refused(change, problem):
    stem, blocks, head = transformer()
    with pytest.raises(InputError, match=problem):
        branches_from(stem, blocks, **{"head": head, "input_spec": SPEC, **change})


def test_exits_of_different_lengths_are_refused():
    stem, blocks, _ = convolutional()
    with pytest.raises(InputError, match=r"the branches have \[4, 3, 4\] outputs"):
        branches_from(stem, blocks, exits=[classifier(), classifier(3), classifier()], input_spec=SPEC)


def test_distillation_without_batches_is_refused():
    stem, blocks, head = transformer(2)
    model = branches_from(stem, blocks, head=head, input_spec=SPEC)
    with pytest.raises(InputError, match="there are no batches"):
        distill(model, nn.Sequential(stem, *blocks, head), [])

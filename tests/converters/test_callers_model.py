"""The caller's model is exported whatever it keeps or wraps its weights in, and is not changed by it in any way."""

import dataclasses
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from msgspec import structs
from support.conv_branches import ConvBranch, ConvBranches
from torch import nn

from paraedge_converters.cache import PartCache
from paraedge_converters.copying import copy_module
from paraedge_converters.description import ModelDescription
from paraedge_converters.pipeline import convert
from paraedge_runtime import InputError, ParityError, UnsupportedModel
from paraedge_runtime.engines import open_engine
from paraedge_runtime.inputs import normalise


@pytest.fixture(scope="module")
def description(checkpoint):
    return ModelDescription(
        name="mine",
        description="three branches",
        license="MIT",
        labels=checkpoint.config.labels,
        samples=checkpoint.samples.images[:48],
        sample_labels=checkpoint.samples.labels[:48],
    )


def with_branches(make):
    model = ConvBranches()
    model.branches = nn.ModuleList(make() for _ in range(3))
    return model


class _Branch(ConvBranch):
    def __init__(self):
        super().__init__(12, 10)


class _KeepsAMap(_Branch):
    def forward(self, x):
        self.maps = {"last": [self.body(x)]}
        self.last = self.body(x)
        return self.head(self.last.mean(dim=(2, 3), keepdim=True).flatten(1))


class _MakesATable(_Branch):
    table = None

    def forward(self, x):
        if self.table is None:
            self.table = torch.linspace(0, 1, x[0].numel()).reshape(x.shape[1:])
        return super().forward(x * self.table)


class _OldWeightNorm(_Branch):
    def __init__(self):
        super().__init__()
        with pytest.warns(FutureWarning):
            torch.nn.utils.weight_norm(self.body[0])


class _WeightNorm(_Branch):
    def __init__(self):
        super().__init__()
        torch.nn.utils.parametrizations.weight_norm(self.body[0])


class _SpectralNorm(_Branch):
    def __init__(self):
        super().__init__()
        torch.nn.utils.parametrizations.spectral_norm(self.head)


class _Pruned(_Branch):
    def __init__(self):
        super().__init__()
        torch.nn.utils.prune.random_unstructured(self.body[0], "weight", 0.3)


class _BFloat16(nn.Module):
    dtype = torch.bfloat16

    def __init__(self):
        super().__init__()
        self.inner = _Branch().to(self.dtype)

    def forward(self, x):
        return self.inner(x.to(self.dtype)).float()


class _Float16(_BFloat16):
    dtype = torch.float16


def loss(model):
    tokens = model.stem(torch.rand(2, 1, 28, 28))
    return sum(branch(tokens) for branch in model.branches).square().sum()


@pytest.mark.parametrize(
    "make",
    [_KeepsAMap, _MakesATable, _OldWeightNorm, _WeightNorm, _SpectralNorm, _Pruned, _BFloat16, _Float16],
    ids=lambda make: make.__name__.lstrip("_"),
)
def test_it_is_exported_and_can_be_trained_on(make, description, tmp_path):
    model = with_branches(make)
    loss(model).backward()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    classes = [type(module) for module in model.modules()]
    bundle = convert(model, description, tmp_path / "b", target="linux", cache=PartCache(tmp_path / "cache"))
    assert [type(module) for module in model.modules()] == classes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    loss(model).backward()  # tensors left there by an inference would refuse
    assert bundle.card.parity.verdict == "passed"


def test_each_module_keeps_its_own_mode(description, tmp_path):
    model = ConvBranches().train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # frozen, as in fine-tuning
    before = [module.training for module in model.modules()]
    convert(model, description, tmp_path / "b", target="linux")
    assert [module.training for module in model.modules()] == before


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"std": (0.0,)}, r"ImageInput: std is \(0\.0,\), not above 0"),
        ({"mean": (0.5, 0.5)}, r"ImageInput: mean has 2 values, channels needs 1"),
        ({"mean": (float("nan"),)}, r"ImageInput: mean is \(nan,\), which is not finite"),
        (
            {"shape": (1, 28, 28)},
            r"ImageInput: shape is \(1, 28, 28\): Expected .* >= 4; use \(1, channels, height, width\)",
        ),
        ({"resize": "fit"}, r"ImageInput: resize is 'fit': Invalid enum value"),
        (None, r"input_spec must be an ImageInput or a TensorInput, got None"),
    ],
)
def test_an_input_that_no_bundle_could_hold_is_refused_first(change, problem, description, tmp_path):
    model = ConvBranches()

    def make_and_convert():
        model.input_spec = None if change is None else structs.replace(model.input_spec, **change)  # refused here
        convert(model, description, tmp_path / "b", target="linux")

    with pytest.raises(InputError, match=problem):
        make_and_convert()
    assert list(tmp_path.iterdir()) == []


def test_the_callers_logging_stays_as_it_is(description, tmp_path, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.WARNING)
    convert(ConvBranches(), description, tmp_path / "b", target="linux", quantize="int8-dynamic")
    assert (root.handlers, root.level) == ([], logging.WARNING)


def test_what_cannot_be_copied_is_named_with_the_next_step():
    module = nn.Linear(2, 2)
    module.log = (line for line in ["a generator"])
    with pytest.raises(
        UnsupportedModel, match=r"the stem cannot be copied: cannot pickle 'generator'.*; remove everything"
    ):
        copy_module(module, "the stem")


@pytest.mark.parametrize("how", ["-c", "-"], ids=["python -c", "stdin"])
def test_a_class_typed_at_a_prompt_is_exported(how, description, tmp_path):
    np.savez(tmp_path / "samples.npz", images=description.samples, labels=description.sample_labels)
    code = f"""
import numpy as np, torch
from support.conv_branches import ConvBranches
from paraedge_converters import ModelDescription, convert
class Typed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.out = torch.nn.Linear(12, 10, bias=False)
    def forward(self, x):
        return self.out(x.mean(dim=(2, 3), keepdim=True).flatten(1))
model = ConvBranches()
model.branches = torch.nn.ModuleList([Typed(), Typed()])
kept = np.load({str(tmp_path / "samples.npz")!r})
convert(model, ModelDescription(
    name="typed", description="", license="", labels=tuple("abcdefghij"), samples=kept["images"],
    sample_labels=kept["labels"],
), {str(tmp_path / "b.paraedge")!r}, target="linux")
"""
    done = subprocess.run(
        [sys.executable, how] + ([code] if how == "-c" else []),
        input=code if how == "-" else None, capture_output=True, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b.paraedge" / "manifest.json").is_file()


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(description, tmp_path):
    (tmp_path / "file").write_text("")
    cache = PartCache(tmp_path / "file")
    bundle = convert(ConvBranches(), description, tmp_path / "b", target="linux", branches=1, cache=cache)
    assert bundle.manifest.branch_indexes == (0,)
    assert "Not a directory" in cache.problem


@pytest.mark.parametrize("where", ["stem", "branch"])
def test_numbers_that_are_not_finite_in_torch_are_the_models_own(where, description, tmp_path):
    model = ConvBranches()
    norm = model.stem[1] if where == "stem" else model.branches[1].body[1]
    norm.running_var[2] = float("nan")
    problem = {
        "stem": "stem returns .* its '1.running_var' has 1",
        "branch": "branch_01 .* 'body.1.running_var' has 1",
    }
    with pytest.raises(UnsupportedModel, match=problem[where]):
        convert(model, description, tmp_path / "b", target="linux")


class _Scaled(_Branch):
    """What no state dict has: a buffer that is not saved, a function, a list."""

    def __init__(self, scale=1.0, function=F.relu, shifts=(1.0,)):
        super().__init__()
        self.register_buffer("scale", torch.tensor([[scale]]), persistent=False)
        self.function = function
        self.shifts = list(shifts)

    def forward(self, x):
        return self.function(super().forward(x) + self.shifts[0]) * self.scale


@pytest.mark.parametrize(
    "changes", [{"scale": 1.2}, {"function": F.gelu}, {"shifts": (0.5,)}], ids=["buffer", "function", "list"]
)
@pytest.mark.parametrize("quantize", ["fp32", "int8-static"])
def test_the_cache_tells_apart_what_a_state_dict_does_not(changes, quantize, description, tmp_path):
    cache = PartCache(tmp_path / "cache")
    description = dataclasses.replace(description, vector="scores", labels=None, sample_labels=None)
    convert(with_branches(_Scaled), description, tmp_path / "a", target="linux", quantize=quantize, cache=cache)
    model = with_branches(lambda: _Scaled(**changes)).eval()
    steps = []
    bundle = convert(
        model, description, tmp_path / "b", target="linux", quantize=quantize, cache=cache, on_progress=steps.append
    )
    assert [step.cached for step in steps if step.what != "parity"] == [True, False, False, False]
    engine = open_engine("onnxruntime")
    parts = [engine.load(name, bundle.program(part), part) for name, part in bundle.manifest.parts().items()]
    x = normalise(description.samples[:1], model.input_spec)
    tokens = parts[0].run(x)
    with torch.no_grad():
        wanted = sum(branch(model.stem(torch.from_numpy(x))) for branch in model.branches).numpy()
    got = sum(part.run(tokens) for part in parts[1:])
    assert np.vdot(got, wanted) / np.vdot(wanted, wanted) == pytest.approx(1, abs=0.03)


def test_a_wrong_scale_does_not_pass_a_quantized_gate(checkpoint, description, tmp_path, monkeypatch):
    """The labels are the same and the noise is as small as a recipe may make it."""
    from paraedge_runtime.engines.onnxruntime import OnnxRuntimeNative

    load = OnnxRuntimeNative.load

    def load_scaled(self, name, program, entry):
        part = load(self, name, program, entry)
        if name != "stem":
            run = part.run
            part.run = lambda x: run(x) * np.float32(0.833)
        return part

    monkeypatch.setattr(OnnxRuntimeNative, "load", load_scaled)
    with pytest.raises(ParityError, match=r"branch_00: the engine's output is 0\.83\d times torch's.*0\.95 to 1\.05"):
        convert(checkpoint.model, description, tmp_path / "b", target="linux", quantize="int8-dynamic", branches=1)

"""Every converter keeps its promise, or says by name what broke it; the same part gives the same bytes."""

import importlib
import logging
import os
import sys

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from paraedge.model import ParaFormer, ParaFormerConfig
from paraedge_converters.backends import CONVERTERS, converter_for
from paraedge_converters.recipes import RECIPES
from paraedge_converters.split import quantizable, split_model
from paraedge_converters.targets import TARGETS
from paraedge_runtime.engines import ENGINES, open_engine
from paraedge_runtime.errors import ConversionError, InputError
from paraedge_runtime.manifest import PartEntry
from paraedge_runtime.similarity import compare

CONFIG = ParaFormerConfig(
    image_size=8,
    in_channels=1,
    num_classes=4,
    embed_dim=16,
    num_heads=2,
    num_branches=1,
    stem_stride=2,
    mean=(0.5,),
    std=(0.5,),
)
# What may be in a ParaFormer's parts: anything else is a change of the graph that somebody should see.
ALLOWED_OPERATORS = {
    "executorch": {"XnnpackBackend", "aten::native_layer_norm.out"},
    "litert": {
        "ADD", "BATCH_MATMUL", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "GELU", "MEAN",
        "MUL", "PAD", "PADV2", "RESHAPE", "RSQRT", "SLICE", "SOFTMAX", "SQUARED_DIFFERENCE", "STRIDED_SLICE", "SUB",
        "SUM", "TRANSPOSE",
    },
    "onnxruntime": {
        "Add", "Concat", "Conv", "Gelu", "Gemm", "LayerNormalization", "MatMul", "Mul", "Pad", "Relu", "Reshape",
        "Slice", "Softmax", "Transpose",
    },
}  # fmt: skip
# The same in other operators than GELU, and for another engine than its name.
ALLOWED_OPERATORS["tflite-micro"] = ALLOWED_OPERATORS["litert"] - {"GELU"} | {"LOGISTIC", "MINIMUM"}
ENGINE_OF = {target.converter: target.engine for target in TARGETS.values() if target.converter}

# Recipes add these. An operator outside the lists is a change of the graph that somebody should see.
_INTEGERS = {"DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QuantizeLinear"}
ADDED_OPERATORS = {
    "executorch": {"fp16": {"aten::gelu.out", "dim_order_ops::_to_dim_order_copy.out"}},
    "litert": {
        "fp16": {"DEQUANTIZE"},
        "int8-static": {"DEQUANTIZE", "QUANTIZE"},
        "int8-weight": {"DEQUANTIZE"},
        "int4-weight": {"DEQUANTIZE"},
    },
    "tflite-micro": {"int8-static": {"DEQUANTIZE", "QUANTIZE"}},
    "onnxruntime": {
        "fp16": {"Cast"},
        "int8-dynamic": {"Cast", *_INTEGERS},
        "int8-static": _INTEGERS,
        "int8-weight": {"com.microsoft.MatMulNBits"},
        "int4-weight": {"com.microsoft.MatMulNBits"},
    },
}


def lower(converter, module, example, recipe="fp32", calibration=None, allow_undelegated=False):
    samples = torch.zeros(0) if calibration is None else calibration
    return converter.lower(module, example, recipe=recipe, calibration=samples, allow_undelegated=allow_undelegated)


def test_every_engine_has_a_converter():
    assert set(ENGINES) <= set(CONVERTERS)


def test_an_unknown_converter_is_refused_with_the_names():
    with pytest.raises(InputError, match="unknown converter 'tensorrt'; choose one of executorch, litert, onnxruntime"):
        converter_for("tensorrt")


@pytest.mark.parametrize(
    ("converter_name", "recipe"),
    [(name, recipe) for recipe in RECIPES for name in CONVERTERS if name not in RECIPES[recipe].refused],
)
def test_paraformer_parts_keep_the_promise_twice_the_same_and_run(converter_name, recipe):
    torch.manual_seed(0)
    converter, engine = converter_for(converter_name), open_engine(ENGINE_OF.get(converter_name, converter_name))
    allowed = ALLOWED_OPERATORS[converter_name] | ADDED_OPERATORS[converter_name].get(recipe, set())
    for part in split_model(ParaFormer(CONFIG), (0,)):
        x = torch.randn(16, *part.example.shape[1:])
        module = part.module if recipe == "fp32" else quantizable(part.module)
        first = lower(converter, module, part.example, recipe, x)
        if part.name == "stem":  # once is enough for recipes that take long to lower by
            assert lower(converter, module, part.example, recipe, x).program == first.program
        assert set(first.operators) <= allowed
        entry = PartEntry(
            file=part.name,
            size_bytes=len(first.program),
            sha256="0" * 64,
            input_shape=tuple(part.example.shape),
            output_shape=part.output_shape,
            macs=0,
        )
        loaded = engine.load(part.name, first.program, entry)
        with torch.inference_mode():
            wanted = part.module(x).numpy()
        got = np.concatenate([loaded.run(sample.numpy()) for sample in x[:, None]])
        if recipe == "fp32":
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
        snr_db = compare(wanted, got).snr_db
        least_db = RECIPES[recipe].tolerance.min_snr_db
        assert snr_db is None or snr_db > least_db  # None: the same bits, on some processors
        loaded.close()


def test_each_converter_has_a_recipe_or_a_reason():
    for converter, module in CONVERTERS.items():
        refused = {name for name, recipe in RECIPES.items() if converter in recipe.refused}
        assert refused | set(importlib.import_module(module).RECIPES) == set(RECIPES)
        assert not refused & set(importlib.import_module(module).RECIPES)


def test_logits_are_not_rounded_to_8_bits(engine_name):
    """A part whose last product were quantized could give 256 values at most."""
    torch.manual_seed(0)
    (_, part) = split_model(ParaFormer(CONFIG), (0,))
    x = torch.randn(400, *part.example.shape[1:])
    lowered = lower(converter_for(engine_name), quantizable(part.module), part.example, "int8-static", x[:32])
    entry = PartEntry(
        file=part.name, size_bytes=len(lowered.program), sha256="0" * 64, input_shape=tuple(part.example.shape),
        output_shape=part.output_shape, macs=0,
    )  # fmt: skip
    loaded = open_engine(engine_name).load(part.name, lowered.program, entry)
    assert len(np.unique([loaded.run(sample.numpy()) for sample in x[:, None]])) > 1000


def _wide_relu6():
    """Rounded before the ReLU6, a step would be a part of the range of the two wide channels, not of 0 to 6."""
    wide = nn.Conv2d(8, 16, 1)
    with torch.no_grad():
        wide.weight[:2] *= 200
    return nn.Sequential(wide, nn.ReLU6(), nn.Flatten(), nn.Linear(256, 4)), torch.randn(32, 8, 4, 4)


def _separable_image():
    """Rounded to the step of weights that read zeros, the other ones would be 0."""
    first, second = nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 8, (1, 2), (1, 2), groups=8)
    with torch.no_grad():
        first.weight[:, 0] = second.weight[..., 0] = 300
    layers = [first, nn.ReLU6(), second, nn.ReLU6(), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(32, 4)]
    x = torch.randn(32, 3, 4, 4)
    x[:, 0] = x[..., ::2] = 0
    return nn.Sequential(*layers), x


def _later_samples_are_larger():
    """Ranges that the first sample had most of would cut off the others."""
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(32, 8) * torch.arange(32)[:, None]


class _Normalized(nn.Module):
    def forward(self, x):
        return nn.functional.normalize(x, dim=-1)


def _normalized():
    """ONNX Runtime's symbolic shapes fail on the Expand in it."""
    return nn.Sequential(nn.Linear(8, 16), _Normalized(), nn.Linear(16, 4)), torch.randn(32, 8)


@pytest.mark.parametrize("make", [_wide_relu6, _separable_image, _later_samples_are_larger, _normalized])
def test_eight_bits_are_spent_where_they_count(make, engine_name):
    torch.manual_seed(0)
    module, x = make()
    module.eval()
    lowered = lower(converter_for(engine_name), module, x[:1], "int8-static", x)
    entry = PartEntry(
        file="x", size_bytes=0, sha256="0" * 64, input_shape=tuple(x[:1].shape), output_shape=(1, 4), macs=0,
    )  # fmt: skip
    loaded = open_engine(engine_name).load("x", lowered.program, entry)
    with torch.inference_mode():
        wanted = module(x).numpy()
    got = np.concatenate([loaded.run(sample.numpy()) for sample in x[:, None]])
    loaded.close()
    assert compare(wanted, got).snr_db > 25


def test_a_channel_without_weights_costs_onnx_no_fast_kernel():
    """The quantizer gives it another zero point than the others; with several, the depthwise kernel is the slow one."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    with torch.no_grad():
        module[0].weight[3] = 0
        module[0].bias[3] = 0
    x = torch.randn(4, 8, 9, 9)
    program = lower(converter_for("onnxruntime"), module, x[:1], "int8-static", x).program
    graph = onnx.load_from_string(program).graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    read = [node.input for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in tensors]
    weights = [(tensors[name], tensors[zero]) for name, _, zero in read if tensors[name].ndim == 4]
    assert [values.shape for values, _ in weights] == [(8, 1, 3, 3), (4, 8, 1, 1)]
    assert all(values.dtype == np.int8 and not zeros.any() for values, zeros in weights)


def test_integers_of_onnx_do_not_overflow_on_machines_without_vnni():
    """Weights and inputs at the ends of their ranges: signed weights would saturate in sums of two products."""
    linear = nn.Linear(64, 8)
    with torch.no_grad():
        linear.weight.copy_(torch.linspace(0.9, 1.0, 512).reshape(8, 64))
    x = torch.full((1, 64), 5.0)
    calibration = torch.stack([torch.full((64,), value) for value in (-5.0, 5.0)])
    for recipe in ("int8-dynamic", "int8-static"):
        # A product in front: the last one is left alone.
        module = nn.Sequential(linear, nn.Linear(8, 2)).eval()
        lowered = lower(converter_for("onnxruntime"), module, x, recipe, calibration)
        entry = PartEntry(
            file="x", size_bytes=0, sha256="0" * 64, input_shape=(1, 64), output_shape=(1, 2), macs=0,
        )  # fmt: skip
        with torch.inference_mode():
            wanted = module(x).numpy()
        got = open_engine("onnxruntime").load("x", lowered.program, entry).run(x.numpy())
        np.testing.assert_allclose(got, wanted, rtol=0.03)


def test_a_part_whose_one_product_stays_float_is_lowered_by_int8_static(engine_name):
    module, x = nn.Sequential(nn.Linear(6, 4), nn.ReLU()).eval(), torch.randn(8, 6)
    lowered = lower(converter_for(engine_name), module, x[:1], "int8-static", x)
    assert lowered.program


class _Undelegated(nn.Module):
    def forward(self, x):
        return torch.topk(torch.relu(x), 3, dim=1)[0]


def test_executorch_names_what_the_delegate_left_and_accepts_it_when_told():
    converter, x = converter_for("executorch"), torch.randn(1, 6)
    with pytest.raises(ConversionError, match=r"does not support aten\.topk\.default ×1.*--allow-undelegated"):
        lower(converter, _Undelegated().eval(), x)
    lowered = lower(converter, _Undelegated().eval(), x, allow_undelegated=True)
    assert lowered.operators["aten::topk.values"] == 1


class _DataDependent(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_a_module_that_cannot_be_exported_is_a_conversion_error(engine_name):
    with pytest.raises(ConversionError, match=r"lowering with .* failed"):
        lower(converter_for(engine_name), _DataDependent().eval(), torch.randn(1, 3))


def test_the_streams_and_the_logging_of_the_process_are_its_own(engine_name, capsys):
    """What a host application writes while a part is lowered reaches its own streams; a converter writes nothing."""
    converter, seen = converter_for(engine_name), []

    class Speaks(nn.Module):
        def forward(self, x):
            seen.append((sys.stdout, sys.stderr, os.fstat(1), os.fstat(2), logging.root.manager.disable))
            return torch.relu(x)

    before = (sys.stdout, sys.stderr, os.fstat(1), os.fstat(2), logging.root.manager.disable)
    lower(converter, Speaks().eval(), torch.randn(1, 3))
    assert seen
    assert all(one[:2] == before[:2] and one[4] == before[4] for one in seen)
    assert all(os.path.samestat(one[place], before[place]) for one in seen for place in (2, 3))
    assert capsys.readouterr().out == ""

"""Every converter keeps its promise, or says by name what broke it; the same part gives the same bytes."""

import pytest
import torch
from torch import nn

from paraedge.model import ParaFormer, ParaFormerConfig
from paraedge_converters.lowering import CONVERTERS, converter_for
from paraedge_converters.split import split_model
from paraedge_runtime.engines import ENGINES, open_engine
from paraedge_runtime.errors import ConversionError, InputError
from paraedge_runtime.manifest import PartEntry

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
    "executorch": {"XnnpackBackend", "aten.native_layer_norm.default"},
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


def test_every_engine_has_a_converter():
    assert set(CONVERTERS) == set(ENGINES)


def test_an_unknown_engine_is_refused_with_the_names():
    with pytest.raises(InputError, match="unknown engine 'tensorrt'; choose one of executorch, litert, onnxruntime"):
        converter_for("tensorrt")


def test_paraformer_parts_keep_the_promise_twice_the_same_and_run(engine_name):
    torch.manual_seed(0)
    converter, engine = converter_for(engine_name), open_engine(engine_name)
    for part in split_model(ParaFormer(CONFIG), (0,)):
        first = converter.lower(part.module, part.example, allow_undelegated=False)
        again = converter.lower(part.module, part.example, allow_undelegated=False)
        assert first.program == again.program
        assert set(first.operators) <= ALLOWED_OPERATORS[engine_name]
        x = torch.randn(part.example.shape)
        entry = PartEntry(
            file=part.name,
            size_bytes=len(first.program),
            sha256="0" * 64,
            input_shape=tuple(part.example.shape),
            output_shape=part.output_shape,
            parameters=part.parameters,
            macs=0,
            operators=first.operators,
        )
        loaded = engine.load(part.name, first.program, entry)
        with torch.inference_mode():
            wanted = part.module(x)
        torch.testing.assert_close(torch.from_numpy(loaded.run(x.numpy())), wanted, rtol=1e-4, atol=1e-4)
        loaded.close()


class _Undelegated(nn.Module):
    def forward(self, x):
        return torch.cumsum(torch.relu(x), dim=1)


def test_executorch_names_what_the_delegate_left_and_accepts_it_when_told():
    converter, x = converter_for("executorch"), torch.randn(1, 6)
    with pytest.raises(ConversionError, match=r"did not take aten\.cumsum\.default ×1.*--allow-undelegated"):
        converter.lower(_Undelegated().eval(), x, allow_undelegated=False)
    lowered = converter.lower(_Undelegated().eval(), x, allow_undelegated=True)
    assert lowered.operators["aten.cumsum.default"] == 1


class _DataDependent(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_a_module_that_cannot_be_exported_is_a_conversion_error_and_quiet(engine_name, capfd):
    with pytest.raises(ConversionError, match=r"lowering with .* failed"):
        converter_for(engine_name).lower(_DataDependent().eval(), torch.randn(1, 3), allow_undelegated=False)
    assert capfd.readouterr() == ("", "")

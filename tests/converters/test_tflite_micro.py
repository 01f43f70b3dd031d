"""Parts for microcontrollers run in TensorFlow Lite Micro's own interpreter, on real images, as they do in LiteRT."""

import platform
import sys

import flatbuffers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ai_edge_litert import schema_py_generated as schema
from torch import nn

from paraedge.exporting import export
from paraedge_converters.backends import litert, tflite_micro
from paraedge_converters.recipes import RECIPES
from paraedge_converters.split import split_model
from paraedge_runtime import Session
from paraedge_runtime.engines import open_engine
from paraedge_runtime.errors import ConversionError
from paraedge_runtime.inputs import normalise
from paraedge_runtime.manifest import PartEntry
from paraedge_runtime.similarity import compare

needs_interpreter = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="tflite-micro is packaged for x86-64 Linux only"
)


def interpreter(program):
    from tflite_micro import runtime

    return runtime.Interpreter.from_bytes(program, arena_size=1_000_000)


def run(part, x):
    part.set_input(x, 0)
    part.invoke()
    return part.get_output(0)


@needs_interpreter
@pytest.mark.parametrize(("recipe", "kept"), [("fp32", 1.0), ("int8-static", 0.99)])
def test_stem_and_branches_answer_as_in_litert(recipe, kept, checkpoint, tmp_path):
    bundle = export(checkpoint, target="microcontroller", branches=2, quantize=recipe, out=tmp_path / "b.paraedge")
    manifest = bundle.manifest
    assert (manifest.target, manifest.engine, manifest.quantization) == ("microcontroller", "litert", recipe)
    stem, *branches = (interpreter((bundle.path / entry.file).read_bytes()) for entry in manifest.parts().values())
    images = checkpoint.samples.images[:128]
    got = []
    for image in images:
        tokens = run(stem, normalise(image[None], manifest.input))
        got.append(np.concatenate([run(branch, tokens) for branch in branches]).cumsum(axis=0, dtype=np.float32))
    with Session.open(bundle) as session:
        wanted = np.stack([session.run(image).prefix_outputs for image in images])  # (n, 2, C)
    if recipe == "fp32":
        snr_db = compare(wanted, np.stack(got)).snr_db
        assert snr_db is None or snr_db > 120
    else:  # kernels may round a tie otherwise, a step of an 8-bit number here and there: both are as far from torch
        with torch.inference_mode():
            of_branches = checkpoint.model.branch_logits(torch.from_numpy(normalise(images, manifest.input)))
        right = of_branches[:2].cumsum(dim=0).movedim(0, 1).numpy()  # (n, 2, C)
        there, here = compare(right, np.stack(got)).snr_db, compare(right, wanted).snr_db
        assert there > here - 0.5
    assert ((wanted.argmax(axis=2) == np.stack(got).argmax(axis=2)).mean(axis=0) >= kept).all()


@needs_interpreter
def test_every_operator_in_the_list_is_one_that_the_interpreter_has(capfd):
    """A program of two operators: the interpreter names the first that it does not have."""
    never = "PLACEHOLDER_FOR_GREATER_OP_CODES"
    assert "GELU" not in tflite_micro.OPERATORS  # else nothing need be written out
    for name in ("GELU", *sorted(tflite_micro.OPERATORS)):
        with pytest.raises(RuntimeError, match="failed to allocate tensors"):
            interpreter(_program_of(name, never))
        wanted = name if name == "GELU" else never
        assert f"Didn't find op for builtin opcode '{wanted}'" in capfd.readouterr().err, name


def _program_of(*operators):
    tensor = schema.TensorT()
    tensor.shape, tensor.type, tensor.name = [1], schema.TensorType.FLOAT32, b"x"
    graph, model = schema.SubGraphT(), schema.ModelT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [tensor], [0], [0], []
    model.version, model.buffers, model.subgraphs, model.operatorCodes = 3, [schema.BufferT()], [graph], []
    for place, name in enumerate(operators):
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        operator.opcodeIndex, operator.inputs, operator.outputs = place, [0], [0]
        model.operatorCodes.append(code)
        graph.operators.append(operator)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@needs_interpreter
@pytest.mark.parametrize("recipe", [name for name, recipe in RECIPES.items() if "tflite-micro" in recipe.refused])
def test_a_recipe_that_is_refused_does_not_work_there(recipe, checkpoint, capfd):
    """It does not load, or, worse, it loads and computes something else."""
    (stem,) = split_model(checkpoint.model, ())
    images = torch.from_numpy(normalise(checkpoint.samples.images[:16], checkpoint.model.input_spec))
    lowered = litert.lower(stem.module, stem.example, recipe=recipe, calibration=images, allow_undelegated=False)
    assert set(lowered.operators) <= tflite_micro.OPERATORS
    if recipe != "int8-weight":
        with pytest.raises(RuntimeError, match="failed to allocate tensors"):
            interpreter(lowered.program)
        return
    there = interpreter(lowered.program)
    with torch.inference_mode():
        wanted = stem.module(images).numpy()
    assert compare(wanted, np.concatenate([run(there, image.numpy()) for image in images[:, None]])).snr_db < 3


class _Call(nn.Module):
    def forward(self, x):
        return F.gelu(x) + 0.0


@pytest.mark.parametrize("module", [nn.GELU(), nn.GELU(approximate="tanh"), _Call()], ids=["module", "tanh", "call"])
def test_gelu_is_written_out_as_the_same_function(module):
    x = torch.linspace(-12, 12, 24_000)[None]
    lowered = tflite_micro.lower(module.eval(), x, recipe="fp32", calibration=torch.zeros(0), allow_undelegated=False)
    assert {"LOGISTIC", "MINIMUM", "MUL"} <= set(lowered.operators) <= tflite_micro.OPERATORS
    entry = PartEntry(
        file="x", size_bytes=0, sha256="0" * 64, input_shape=tuple(x.shape), output_shape=tuple(x.shape),
        macs=0,
    )  # fmt: skip
    got = open_engine("litert").load("x", lowered.program, entry).run(x.numpy())
    np.testing.assert_allclose(got, module(x).numpy(), rtol=0, atol=6e-6)


class _Power(nn.Module):
    def forward(self, x):
        return torch.pow(x.abs() + 1, x) + torch.erf(x)


def test_what_the_interpreter_lacks_is_named():
    with pytest.raises(ConversionError, match=r"TensorFlow Lite Micro has no POW ×1; replace them"):
        tflite_micro.lower(
            _Power().eval(), torch.ones(1, 4), recipe="fp32", calibration=torch.zeros(0), allow_undelegated=False
        )

"""Programs that an engine would believe are refused before it gets them; those that converters make are not."""

import hashlib
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from support.bundles import hash_line
from support.damage import damaged, structure

from paraedge_runtime import Bundle, IntegrityError
from paraedge_runtime.core import load_core
from paraedge_runtime.trial import try_bundle

ROOT = Path(__file__).parents[2]


def check(engine, program):
    load_core().check_program(engine, "x.bin", program)


def programs(bundle):
    return {name: bundle.program(entry) for name, entry in bundle.manifest.parts().items()}


def refused(engine, program, problem):
    with pytest.raises(IntegrityError, match=rf"^x\.bin .*{problem}"):
        check(engine, program)


def test_what_converters_make_is_passed(bundles, engine_name):
    for program in programs(bundles[engine_name]).values():
        check(engine_name, program)


@pytest.mark.parametrize("engine", ["executorch", "litert", "onnxruntime"])
@pytest.mark.parametrize("program", [b"", b"\0", bytes(64), b"\xff" * 4096, b"ET12TFL3" * 8])
def test_what_is_no_program_is_refused_by_name(engine, program):
    refused(engine, program, "is damaged or hostile: .*; export the bundle again")


def test_other_engines_have_programs_of_their_own():
    check("fake", b"{}")


def test_the_card_has_the_operators_that_the_check_finds(bundles, engine_name):
    bundle = bundles[engine_name]
    for name, entry in bundle.manifest.parts().items():
        assert load_core().check_program(engine_name, entry.file, bundle.program(entry)) == (
            bundle.card.parts[name].operators
        )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda operators: operators.pop("CONV_2D"), "'CONV_2D' [0-9]+ times, card.json says 0 times"),
        (lambda operators: operators.update(ABS=1), "'ABS' 0 times, card.json says once"),
        (lambda operators: operators.update(CONV_2D=99), "'CONV_2D' [0-9]+ times, card.json says 99 times"),
    ],
)
def test_other_operators_than_the_card_lists_are_refused(tmp_path, monkeypatch, bundles, change, said):
    """Each may be in a bundle, but not in this one; no child process is started for it."""
    monkeypatch.setenv("PARAEDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "executable", "/nowhere")
    path = tmp_path / "b.paraedge"
    shutil.copytree(bundles["litert"].path, path)
    card, manifest = (json.loads((path / name).read_bytes()) for name in ("card.json", "manifest.json"))
    change(card["parts"]["branch_00"]["operators"])
    raw = json.dumps(card).encode()
    manifest["card"].update(size_bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest())
    changed = json.dumps(manifest).encode()
    for name, content in {"card.json": raw, "manifest.json": changed, "manifest.sha256": hash_line(changed)}.items():
        (path / name).write_bytes(content)
    with pytest.raises(IntegrityError, match=rf"branch_00\.tflite has the operator {said}; .*export the bundle again"):
        try_bundle(Bundle.open(path))


def test_an_unsound_program_is_not_even_tried(tmp_path, monkeypatch, bundles):
    """No child process is started for it."""
    bundle = bundles["litert"]
    monkeypatch.setenv("PARAEDGE_CACHE", str(tmp_path))
    monkeypatch.setattr(bundle, "_programs", dict.fromkeys(bundle._programs, bytes(100)))
    monkeypatch.setattr(sys, "executable", "/nowhere")
    with pytest.raises(IntegrityError, match=r"stem\.tflite is damaged or hostile"):
        try_bundle(bundle)


# ExecuTorch -------------------------------------------------------------------------------------


def _tensor(program, **wanted):
    """The first tensor that has what is wanted."""
    values = (entry["val"] for entry in program.plan["values"] if entry["val_type"] == "Tensor")
    return next(value for value in values if all((name in value) == there for name, there in wanted.items()))


def _node(program, kind):
    return next(node["xnode_union"] for node in program.graph["xnodes"] if node["xnode_union_type"] == kind)


def _constant(program):
    values = [value["xvalue_union"] for value in program.graph["xvalues"]]
    return next(value for value in values if value.get("constant_buffer_idx"))


EXECUTORCH = {
    "a tensor beyond its memory": (
        lambda p: _tensor(p, allocation_info=True)["sizes"].append(1 << 20),
        "impossible shape",
    ),
    "a larger tensor": (
        lambda p: _tensor(p, allocation_info=True)["sizes"].__setitem__(0, 999),
        "another size than its memory",
    ),
    "an offset beyond the memory": (
        lambda p: _tensor(p, allocation_info=True)["allocation_info"].update(memory_offset_high=1),
        "another size than its memory",
    ),
    "a memory that is not there": (
        lambda p: _tensor(p, allocation_info=True)["allocation_info"].update(memory_id=9),
        "another size than its memory",
    ),
    "a negative size": (lambda p: _tensor(p)["sizes"].__setitem__(0, -1), "impossible shape"),
    "an order twice": (lambda p: _tensor(p).update(dim_order=[0] * len(_tensor(p)["sizes"])), "impossible order"),
    "a type that is unknown": (lambda p: _tensor(p).update(scalar_type=99), "unknown type"),
    "much memory": (lambda p: p.plan["non_const_buffer_sizes"].append(1 << 40), "more than 4 GiB"),
    "an input that is not there": (lambda p: p.plan["inputs"].append(10_000), "names nothing"),
    "an argument that is not there": (
        lambda p: p.plan["chains"][0]["instructions"][0]["instr_args"]["args"].append(-1),
        "names nothing",
    ),
    "a jump": (
        lambda p: p.plan["chains"][0]["instructions"].append(
            {"instr_args_type": "JumpFalseCall", "instr_args": {"cond_value_index": 0}}
        ),
        "has the operator 'jump, move or free', which no bundle may have",
    ),
    "another operator": (
        lambda p: p.plan.update(operators=[{"name": "custom::shell", "overload": "out"}]),
        r"has the operator 'custom::shell\.out', which no bundle may have \(executorch\)",
    ),
    "another kind of value": (
        lambda p: (
            p.plan["operators"].append({"name": "aten::add", "overload": "out"})
            or p.plan["chains"][0]["instructions"].append(
                {
                    "instr_args_type": "KernelCall",
                    "instr_args": {"op_index": len(p.plan["operators"]) - 1, "args": [p.plan["inputs"][0]] * 4},
                }
            )
        ),
        "another kind of value than it reads",
    ),
    "another delegate": (
        lambda p: p.plan["delegates"][0].update(id="VulkanBackend"),
        "has the operator 'VulkanBackend'",
    ),
    "no delegate": (lambda p: p.plan.update(delegates=[]), "names nothing"),
    "less than the delegate reads": (
        lambda p: [step["instr_args"].update(args=[]) for step in p.plan["chains"][0]["instructions"]],
        "gets too little",
    ),
    "another file": (
        lambda p: _tensor(p).update(extra_tensor_info={"location": "EXTERNAL", "fully_qualified_name": "w"}),
        "is in another file",
    ),
    "a constant of XNNPACK that is too long": (
        lambda p: _constant(p)["dims"].__setitem__(0, 5000),
        "larger than its bytes|do not fit",
    ),
    "a constant that is not there": (lambda p: _constant(p).update(constant_buffer_idx=99), "names nothing"),
    "a name that is not there": (
        lambda p: p.graph["constant_data"][1].update(named_key="x"),
        "a constant in it is not there",
    ),
    "an output onto a constant": (
        lambda p: _node(p, "XNNStaticTranspose").update(output_id=_constant(p)["id_out"]),
        "reads or writes what is not there",
    ),
    "an input that nobody made": (
        lambda p: _node(p, "XNNConv2d").update(input1_id=_node(p, "XNNConv2d")["output_id"]),
        "reads or writes what is not there",
    ),
    "a larger kernel": (lambda p: _node(p, "XNNConv2d").update(kernel_height=30), "do not fit"),
    "other channels": (lambda p: _node(p, "XNNConv2d").update(group_output_channels=9999), "do not fit"),
    "another transposition": (lambda p: _node(p, "XNNStaticTranspose")["perm"].sort(), "do not fit"),
    "no step": (lambda p: _node(p, "XNNConv2d").update(subsampling_width=0), "do not fit"),
    "two values of one number": (lambda p: _constant(p).update(id_out=1), "have one number"),
}


@pytest.fixture(scope="module")
def stem_pte(bundles):
    return bundles["executorch"].program(bundles["executorch"].manifest.stem)


def test_a_program_of_executorch_taken_apart_and_put_together_is_passed(tmp_path, stem_pte):
    from support.pte import Program

    check("executorch", Program(tmp_path, stem_pte).bytes())


@pytest.mark.parametrize(("change", "problem"), EXECUTORCH.values(), ids=EXECUTORCH)
def test_an_unsound_program_of_executorch_is_refused(tmp_path, stem_pte, change, problem):
    from support.pte import Program

    program = Program(tmp_path, stem_pte)
    change(program)
    refused("executorch", program.bytes(), problem)


# LiteRT -----------------------------------------------------------------------------------------


def _constant_tensor(model):
    return next(
        t
        for t in model.subgraphs[0].tensors
        if model.buffers[t.buffer].data is not None and len(model.buffers[t.buffer].data) > 8
    )


_LOOP = "has the operator 'WHILE', which no bundle may have"
LITERT = {
    "another version": (lambda m: setattr(m, "version", 2), "another version"),
    "another graph": (lambda m: m.subgraphs.append(m.subgraphs[0]), "more than one graph"),
    "a constant that is longer": (lambda m: _constant_tensor(m).shape.__setitem__(0, 9999), "another size than"),
    "a buffer that is not there": (lambda m: setattr(m.subgraphs[0].tensors[0], "buffer", 9999), "names nothing"),
    "a type that is unknown": (lambda m: setattr(m.subgraphs[0].tensors[0], "type", 14), "unknown type"),
    "no such operator": (lambda m: setattr(m.subgraphs[0].operators[0], "opcodeIndex", 9), "names nothing"),
    "an input that is not there": (lambda m: setattr(m.subgraphs[0].operators[0], "inputs", [9999]), "names nothing"),
    "an input that nobody made": (
        lambda m: setattr(m.subgraphs[0].operators[0], "inputs", [*m.subgraphs[0].outputs]), "what is not there",
    ),
    "an output onto a constant": (
        lambda m: setattr(m.subgraphs[0].operators[0], "outputs", [m.subgraphs[0].tensors.index(_constant_tensor(m))]),
        "overwrites something",
    ),
    "an operator with less than it reads": (
        lambda m: setattr(m.operatorCodes[m.subgraphs[0].operators[0].opcodeIndex], "builtinCode", 65),
        "another number of inputs",
    ),
    "an output that nobody made": (lambda m: m.subgraphs[0].operators.clear(), "never computed"),
    "a loop": (lambda m: setattr(m.operatorCodes[0], "builtinCode", 119), _LOOP),
    "a number of no operator": (lambda m: setattr(m.operatorCodes[0], "builtinCode", 9999), "has the operator '9999'"),
    "a custom operator": (lambda m: setattr(m.operatorCodes[0], "customCode", b"FlexShell"), "not built in"),
    "another file": (lambda m: setattr(m.buffers[1], "offset", 1 << 20), "outside of their place"),
    "a description of nothing": (lambda m: setattr(m.signatureDefs[0], "subgraphIndex", 7), "names nothing"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "problem"), LITERT.values(), ids=LITERT)
def test_an_unsound_program_of_litert_is_refused(bundles, change, problem):
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    program = bundles["litert"].program(bundles["litert"].manifest.stem)
    model = schema.ModelT.InitFromPackedBuf(program, 0)
    for tensor in model.subgraphs[0].tensors:
        tensor.shape = list(tensor.shape)
    change(model)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    refused("litert", bytes(builder.Output()), problem)


# ONNX -------------------------------------------------------------------------------------------

ONNX = {
    "a loop": (lambda m: m.graph.node.add(op_type="Loop"), "has the operator 'Loop', which no bundle may have"),
    "an image's decoder": (lambda m: m.graph.node.add(op_type="ImageDecoder"), "has the operator 'ImageDecoder'"),
    "another maker's": (lambda m: m.graph.node.add(op_type="Shell", domain="evil"), r"has the operator 'evil\.Shell'"),
    "a graph inside": (
        lambda m: m.graph.node[0].attribute.add(name="body", g=onnx.GraphProto()),
        "settings of a kind that is not used",
    ),
    "a constant that is longer": (
        lambda m: m.graph.initializer[0].dims.__setitem__(0, 9999),
        "another size than its bytes",
    ),
    "a negative size": (lambda m: m.graph.initializer[0].dims.__setitem__(0, -1), "impossible shape"),
    "texts": (lambda m: m.graph.initializer[0].string_data.append(b"x"), "holds texts"),
    "functions": (lambda m: m.functions.add(name="f"), "functions or training"),
    "no graph": (lambda m: m.ClearField("graph"), "is not an ONNX program"),
}


@pytest.mark.parametrize(("change", "problem"), ONNX.values(), ids=ONNX)
def test_an_unsound_program_of_onnx_is_refused(bundles, change, problem):
    model = onnx.ModelProto.FromString(bundles["onnxruntime"].program(bundles["onnxruntime"].manifest.stem))
    change(model)
    refused("onnxruntime", model.SerializeToString(), problem)


# What the tables say ----------------------------------------------------------------------------


def test_the_schemas_are_those_of_the_installed_engines():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import program_schemas
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    assert program_schemas.OUT.read_text() == program_schemas.text(), "run scripts/program_schemas.py"


def test_what_tensorflow_lite_micro_runs_may_be_in_a_bundle():
    from paraedge_converters.backends.tflite_micro import OPERATORS

    listed = (ROOT / "runtime/native/programs/operators.cpp").read_text()
    assert [name for name in sorted(OPERATORS) if f'"{name}"' not in listed] == []


# A small campaign: tests/support/damage.py is the large one ---------------------------------------

_RUN_THOSE = """
import sys
from pathlib import Path
import numpy as np
from paraedge_runtime import Bundle, ParaEdgeError
from paraedge_runtime.engines import open_engine
bundle, engine = Bundle.open(sys.argv[1]), open_engine(sys.argv[2])
entry = bundle.manifest.branches[0]
for file in sorted(Path(sys.argv[3]).iterdir()):
    print(file.name, flush=True)
    try:
        part = engine.load("branch_00", file.read_bytes(), entry)
        part.run(np.ones(entry.input_shape, np.float32))
        part.close()
    except ParaEdgeError:
        pass
print("alive")
"""


def test_no_damaged_program_that_is_passed_ends_the_process(tmp_path, bundles, engine_name):
    bundle = bundles[engine_name]
    program = bundle.program(bundle.manifest.branches[0])
    onnx_heads = [*range(600), *range(len(program) - 2000, len(program) - 4)]
    places = onnx_heads if engine_name == "onnxruntime" else structure(program)
    num_refused = 0
    for number in range(300):
        made = damaged(program, places, random.Random(number))
        try:
            check(engine_name, made)
        except IntegrityError:
            num_refused += 1
        else:
            (tmp_path / f"{number:03d}").write_bytes(made)
    assert num_refused > 20
    arguments = [str(bundle.path), engine_name, str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", _RUN_THOSE, *arguments], capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "alive", [*done.stdout.splitlines()[-1:], done.stderr[-500:]]

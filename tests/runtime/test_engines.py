"""Engines: the registry, the one edge where their errors become ours, what each does with garbage.

ExecuTorch is not imported here: it costs seconds, and the tests of the converters run it.
"""

import ast
import importlib.util
import struct
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest

from paraedge_runtime import EngineError, EngineUnavailable, InputError, IntegrityError, ManifestError
from paraedge_runtime.engines import ENGINES, engine_info, open_engine
from paraedge_runtime.engines.base import check_shapes, mapped_errors
from paraedge_runtime.engines.executorch import load_native_executorch
from paraedge_runtime.engines.onnx_external_data import MESSAGES, refuse_external_data
from paraedge_runtime.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeNative
from paraedge_runtime.manifest import PartEntry

PYPROJECT = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())


def _entry(inputs=(1, 3), outputs=(1, 2), file="branch_00.bin"):
    return PartEntry(
        file=file,
        size_bytes=1,
        sha256="0" * 64,
        input_shape=inputs,
        output_shape=outputs,
        macs=0,
    )


# The registry ----------------------------------------------------------------------------------


def test_the_engines_of_the_design_are_there():
    assert set(ENGINES) == {"executorch", "litert", "onnxruntime"}


@pytest.mark.parametrize("name", ENGINES)
def test_an_entry_names_something_that_exists(name):
    """Read, not imported."""
    module, _, attribute = ENGINES[name].location.partition(":")
    source = Path(importlib.util.find_spec(module).origin).read_text()
    assert attribute in {
        node.name for node in ast.parse(source).body if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }


@pytest.mark.parametrize("name", ENGINES)
def test_an_entry_names_an_extra_and_packages_that_exist(name):
    info = ENGINES[name]
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert info.extra in extras
    required = " ".join(package for extra in extras.values() for package in extra)
    assert all(distribution in required for distribution in info.distributions)
    assert info.suffix.startswith(".")


def test_suffixes_tell_the_engines_apart():
    assert len({info.suffix for info in ENGINES.values()}) == len(ENGINES)


@pytest.mark.parametrize("look_up", [engine_info, open_engine])
@pytest.mark.parametrize("name", ["tensorrt", "", "ONNXRuntime", "paraedge_runtime.engines.litert"])
def test_an_unknown_name_lists_the_valid_ones(look_up, name):
    with pytest.raises(InputError) as caught:
        look_up(name)
    assert str(caught.value) == f"unknown engine {name!r}; choose one of executorch, litert, onnxruntime"


# Packages that are not there -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "absent", "words"),
    [
        ("onnxruntime", ["onnxruntime"], "pip install 'paraedge[onnxruntime]'"),
        ("litert", ["ai_edge_litert", "tflite_runtime"], "pip install 'paraedge[litert]'"),
        ("litert", ["ai_edge_litert", "tflite_runtime"], "'paraedge[tflite-runtime]' on 32-bit ARM"),
        ("executorch", ["torch", "paraedge_runtime._native"], "pip install 'paraedge[executorch]'"),
    ],
)
def test_an_engine_that_is_not_installed_says_what_to_install(monkeypatch, name, absent, words):
    load_native_executorch.cache_clear()
    for package in absent:
        for module in [module for module in sys.modules if module.startswith(f"{package}.")]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EngineUnavailable) as caught:
        open_engine(name)
    assert f"the engine '{name}' is not installed" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("package", "source", "name", "words"),
    [
        ("ai_edge_litert", "import absent_dependency", "litert", "ai-edge-litert is installed but needs absent_dep"),
        ("ai_edge_litert", "raise ImportError('libpthreadpool.so')", "litert", "cannot be loaded: libpthreadpool.so"),
        ("tflite_runtime", "import absent_dependency", "litert", "tflite-runtime is installed but needs absent_dep"),
        ("onnxruntime", "", "onnxruntime", "the package holds no library"),
    ],
)
def test_a_package_that_is_broken_says_what_it_lacks(tmp_path, monkeypatch, package, source, name, words):
    """A folder of our own stands in for the package."""
    folder = tmp_path / package
    folder.mkdir()
    (folder / "__init__.py").write_text("" if name == "litert" else source)
    (folder / "interpreter.py").write_text(source)
    for module in [module for module in sys.modules if module.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    if package == "tflite_runtime":
        monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
        for module in [module for module in sys.modules if module.startswith("ai_edge_litert.")]:
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with pytest.raises(EngineUnavailable) as caught:
            open_engine(name)
    finally:
        for module in [module for module in sys.modules if module.partition(".")[0] == package]:
            del sys.modules[module]
    assert words in str(caught.value)


# Errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("bad\n  model"), "x failed while running y: bad model; 'paraedge verify' checks the bundle"),
        (RuntimeError(""), "x failed while running y: RuntimeError; 'paraedge verify' checks the bundle"),
        (OSError("o" * 999), f"x failed while running y: {'o' * 300}; 'paraedge verify' checks the bundle"),
        (AssertionError("no"), "x failed while running y: no; 'paraedge verify' checks the bundle"),
        (MemoryError(), "x ran out of memory while running y; use fewer branches"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_engines_exception_becomes_ours(error, message):
    with pytest.raises(EngineError) as caught, mapped_errors("x", "running y"):
        raise error
    assert type(caught.value) is EngineError
    assert str(caught.value) == message
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [ManifestError("m"), EngineUnavailable("u"), InputError("i"), KeyboardInterrupt(), SystemExit(3)]
)
def test_our_own_errors_and_ctrl_c_pass_as_they_are(error):
    with pytest.raises(type(error)) as caught, mapped_errors("x", "running y"):
        raise error
    assert caught.value is error


def test_no_error_is_no_error():
    with mapped_errors("x", "running y"):
        pass


GOOD_IN, GOOD_OUT = [((1, 3), "float32")], [((1, 2), "float32")]


def test_shapes_that_fit_pass():
    check_shapes("branch_00", _entry(), GOOD_IN, GOOD_OUT)


@pytest.mark.parametrize(
    ("inputs", "outputs", "found"),
    [
        (
            [((1, 4), "float32")],
            GOOD_OUT,
            "input is [1, 4] float32, the manifest's 'branch_00.input_shape' says [1, 3]",
        ),
        ([((1, 3), "int8")], GOOD_OUT, "input is [1, 3] int8, the manifest's 'branch_00.input_shape' says [1, 3]"),
        ([((3,), "float32")], GOOD_OUT, "input is [3] float32,"),
        ([((), "float32")], GOOD_OUT, "input is [] float32,"),
        ([(("batch", 3), "float32")], GOOD_OUT, "input is ['batch', 3] float32,"),
        ([((-1, 3), "float32")], GOOD_OUT, "input is [-1, 3] float32,"),
        ([], GOOD_OUT, "input is none,"),
        (GOOD_IN * 2, GOOD_OUT, "input is [1, 3] float32, [1, 3] float32,"),
        (
            GOOD_IN,
            [((1, 3), "float32")],
            "output is [1, 3] float32, the manifest's 'branch_00.output_shape' says [1, 2]",
        ),
        (GOOD_IN, [((1, 2), "float64")], "output is [1, 2] float64,"),
        (GOOD_IN, [], "output is none,"),
        (GOOD_IN, GOOD_OUT * 2, "output is [1, 2] float32, [1, 2] float32,"),
    ],
)
def test_shapes_that_do_not_fit_are_named(inputs, outputs, found):
    with pytest.raises(ManifestError) as caught:
        check_shapes("branch_00", _entry(), inputs, outputs)
    assert f"branch_00.bin: the program's {found}" in str(caught.value)
    assert "float32; export the bundle again" in str(caught.value)


# Real engines ----------------------------------------------------------------------------------

GARBAGE = {
    "empty": b"",
    "text": b"this is no program",
    "zeros": bytes(1000),
    "half a .tflite": b"\x1c\0\0\0TFL3" + b"\x7f" * 200,
    "half an .onnx": b"\x08\x08\x12\x07pytorch" + b"\x7f" * 100,
}


@pytest.mark.parametrize("program", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("name", ["litert", "onnxruntime"])
def test_garbage_is_refused_before_the_engine_gets_it(name, program):
    engine = open_engine(name)
    with pytest.raises(IntegrityError, match=r"branch_00\.bin is damaged or hostile: .*; export the bundle again"):
        engine.load("branch_00", program, _entry())


@pytest.mark.parametrize("program", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_an_engine_error_without_the_core(program):
    with pytest.raises(EngineError, match=r"onnxruntime failed while loading branch_00\.bin: .*'paraedge verify'"):
        OnnxRuntimeEngine().load("branch_00", program, _entry())


@pytest.mark.parametrize("name", ["litert", "onnxruntime"])
def test_an_engine_describes_itself(name):
    engine = open_engine(name)
    assert engine.name == name
    assert engine.distribution in ENGINES[name].distributions
    assert engine.version[0].isdigit()
    assert engine.description.startswith(f"{engine.distribution} {engine.version}")
    assert engine.parallel is True


def _onnx(kind="FLOAT", inputs=(("x", (1, 3)),), shape=(1, 2), weight=((1, 4), (2, 5), (3, 6))):
    """x @ weight as an .onnx program; each further input is added to x."""
    helper, dtype = onnx.helper, getattr(onnx.TensorProto, kind)
    nodes, value = [], inputs[0][0]
    for number, (name, _) in enumerate(inputs[1:]):
        nodes.append(helper.make_node("Add", [value, name], [f"sum{number}"]))
        value = f"sum{number}"
    nodes.append(helper.make_node("MatMul", [value, "weight"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, dtype, size) for name, size in inputs],
        [helper.make_tensor_value_info("y", dtype, shape)],
        [helper.make_tensor("weight", dtype, (3, 2), [value for row in weight for value in row])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def test_onnxruntime_runs_a_program():
    part = open_engine("onnxruntime").load("branch_00", _onnx(), _entry())
    x = np.array([[1, 10, 100]], np.float32)
    first = part.run(x)
    assert first.dtype == np.float32
    assert first.tolist() == [[321, 654]]
    second = part.run(x * 2)
    assert first.tolist() == [[321, 654]]  # the result belongs to the caller
    assert second.tolist() == [[642, 1308]]
    part.close()
    part.close()
    with pytest.raises(EngineError, match="branch_00 is closed"):
        part.run(x)


# Weights from outside ---------------------------------------------------------------------------


def _outside(location="secret.bin", **fields):
    """A tensor whose bytes are in another file."""
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[3, 2], data_location="EXTERNAL")
    for key, value in {"location": location, "offset": 0, "length": 24, **fields}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _changed(change):
    model = onnx.ModelProto.FromString(_onnx())
    change(model)
    return model.SerializeToString()


def _graph(**fields):
    return onnx.GraphProto(name="inner", **fields)


def _node(**fields):
    return onnx.NodeProto(op_type="If", output=["z"], attribute=[onnx.AttributeProto(name="a", **fields)])


def _nested(depth):
    graph = _graph(initializer=[_outside()])
    for _ in range(depth):
        graph = _graph(node=[_node(g=graph)])
    return graph


_SPARSE = {"values": onnx.SparseTensorProto(values=_outside()), "indices": onnx.SparseTensorProto(indices=_outside())}
FROM_OUTSIDE = {
    "an initializer": lambda m: m.graph.initializer[0].CopyFrom(_outside()),
    "a file above": lambda m: m.graph.initializer[0].CopyFrom(_outside("../../etc/passwd")),
    "an address": lambda m: m.graph.initializer[0].CopyFrom(_outside("*/_ORT_MEM_ADDR_/*", offset=4096)),
    "a place without a name": lambda m: setattr(m.graph.initializer[0], "data_location", 1),
    "a name without a place": lambda m: m.graph.initializer[0].external_data.add(key="location", value="x"),
    "an attribute": lambda m: m.graph.node.append(_node(t=_outside())),
    "an attribute's list": lambda m: m.graph.node.append(_node(tensors=[onnx.TensorProto(), _outside()])),
    "a subgraph": lambda m: m.graph.node.append(_node(g=_nested(0))),
    "a subgraph's list": lambda m: m.graph.node.append(_node(graphs=[_graph(), _nested(0)])),
    "a subgraph far down": lambda m: m.graph.node.append(_node(g=_nested(20))),
    "sparse values": lambda m: m.graph.sparse_initializer.append(_SPARSE["values"]),
    "sparse indices": lambda m: m.graph.sparse_initializer.append(_SPARSE["indices"]),
    "a sparse attribute": lambda m: m.graph.node.append(_node(sparse_tensor=_SPARSE["values"])),
    "a sparse attribute's list": lambda m: m.graph.node.append(_node(sparse_tensors=[_SPARSE["indices"]])),
    "a function": lambda m: m.functions.append(onnx.FunctionProto(name="f", node=[_node(t=_outside())])),
    "a function's default": lambda m: m.functions.append(
        onnx.FunctionProto(name="f", attribute_proto=[onnx.AttributeProto(name="a", t=_outside())])
    ),
    "training": lambda m: m.training_info.append(onnx.TrainingInfoProto(initialization=_nested(0))),
}


@pytest.fixture(params=[OnnxRuntimeNative, OnnxRuntimeEngine], ids=["native", "Python package"])
def onnxruntime(request):
    return request.param()


@pytest.mark.parametrize("change", FROM_OUTSIDE.values(), ids=FROM_OUTSIDE)
def test_a_program_whose_weights_are_elsewhere_is_refused(onnxruntime, tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(bytes(24))
    problem = r"branch_00\.bin reads weights from another file; export the bundle again"
    with pytest.raises(IntegrityError, match=problem):
        onnxruntime.load("branch_00", _changed(change), _entry())


def _ort_format(path):
    """The program of ``_onnx`` in ONNX Runtime's own format, arranged so that it is a protobuf message, too.

    The format is a flatbuffer. Its first four bytes are the place of the root table, which is moved to where these
    bytes are two fields of a message: the second one hides the format's name, and a third one all that follows.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(_onnx(), options, providers=["CPUExecutionProvider"])
    raw = path.read_bytes()
    (old,), new, shift = struct.unpack_from("<I", raw), 0x10008, 0x10040
    fields = old - struct.unpack_from("<i", raw, old)[0]  # the table of where in the root table its fields are
    _, length, *places = struct.unpack_from(f"<{struct.unpack_from('<H', raw, fields)[0] // 2}H", raw, fields)
    root = bytearray(raw[old : old + length])
    struct.pack_into("<i", root, 0, new - fields - shift)
    for place in filter(None, places):
        target = old + place + struct.unpack_from("<I", raw, old + place)[0]
        struct.pack_into("<I", root, place, target + shift - new - place)
    hidden = len(raw) + shift - 16
    head = struct.pack("<I", new) + raw[4:8] + bytes(3) + _key(15, 2)
    head += bytes([hidden & 0x7F | 0x80, hidden >> 7 & 0x7F | 0x80, hidden >> 14 & 0x7F | 0x80, hidden >> 21])
    return (head.ljust(new, b"\0") + root).ljust(8 + shift, b"\0") + raw[8:]


# By the core's check of programs, or by the engine where there is no core.
_NO_PROGRAM = r"(branch_00\.bin is damaged or hostile|onnxruntime failed while loading branch_00\.bin)"


def test_another_format_that_passes_for_onnx_is_refused(onnxruntime, tmp_path):
    """Nothing looks into it for weights from outside."""
    program = _ort_format(tmp_path / "x.ort")
    refuse_external_data("x.ort", program)
    with pytest.raises((EngineError, IntegrityError), match=_NO_PROGRAM):
        onnxruntime.load("branch_00", program, _entry())


def _key(field, wire):
    return bytes([field << 3 | wire])


# A graph with an initializer whose data_location is said in ways that a library would not write.
UNUSUAL = {
    "more bits than the enum has": _key(14, 0) + b"\x81\x80\x80\x80\x10",
    "ten bytes": _key(14, 0) + b"\x81\x80\x80\x80\x80\x80\x80\x80\x80\x00",
    "a long key": b"\xf0\x80\x80\x80\x00\x01",
    "again": _key(14, 0) + b"\0" + _key(14, 0) + b"\1",
}


@pytest.mark.parametrize("location", UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_spellings_of_elsewhere_are_refused(onnxruntime, location):
    graph = _key(5, 2) + bytes([len(location)]) + location
    with pytest.raises(IntegrityError, match="reads weights from another file"):
        onnxruntime.load("branch_00", _onnx() + _key(7, 2) + bytes([len(graph)]) + graph, _entry())


@pytest.mark.parametrize(
    "end", [b"\x3b", b"\x3a\x7f", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x38", b"\x80" * 11]
)
def test_what_is_no_message_is_no_program(onnxruntime, end):
    with pytest.raises((EngineError, IntegrityError), match=rf"{_NO_PROGRAM}: it is not an ONNX program; "):
        onnxruntime.load("branch_00", _onnx() + end, _entry())


def test_a_place_that_is_the_program_itself_is_fine(onnxruntime):
    program = _changed(lambda m: setattr(m.graph.initializer[0], "data_location", 0))
    onnxruntime.load("branch_00", program, _entry()).close()


def test_every_way_of_onnx_to_a_tensor_is_known():
    """A newer onnx may have more of them."""
    found, pending = {}, [onnx.ModelProto.DESCRIPTOR]
    while pending:
        message = pending.pop()
        if message.name not in found:
            inner = [field for field in message.fields if field.message_type is not None]
            found[message.name] = {field.number: field.message_type.name for field in inner}
            pending += [field.message_type for field in inner]
    leading, before = {"TensorProto"}, set()
    while leading != before:
        before = set(leading)
        leading |= {name for name, fields in found.items() if leading & set(fields.values())}
    ways = {name: {n: kind for n, kind in found[name].items() if kind in leading} for name in leading}
    assert ways == MESSAGES


@pytest.mark.parametrize(
    ("changes", "entry", "found"),
    [
        ({}, {"inputs": (1, 4)}, "input is [1, 3] float32"),
        ({}, {"outputs": (1, 3)}, "output is [1, 2] float32"),
        ({"kind": "DOUBLE"}, {}, "input is [1, 3] float64"),
        ({"inputs": (("x", ("batch", 3)),), "shape": ("batch", 2)}, {}, "input is [-1, 3] float32"),
        ({"inputs": (("x", (1, 3)), ("z", (1, 3)))}, {}, "program has 2 inputs and 1 outputs, not one each"),
    ],
    ids=["other input", "other output", "double", "open batch", "two inputs"],
)
def test_onnxruntime_refuses_a_program_that_is_not_what_the_manifest_says(changes, entry, found):
    with pytest.raises(ManifestError) as caught:
        open_engine("onnxruntime").load("branch_00", _onnx(**changes), _entry(**entry))
    assert found in str(caught.value)


def test_onnxruntime_refuses_an_input_of_another_shape():
    part = open_engine("onnxruntime").load("branch_00", _onnx(), _entry())
    with pytest.raises(InputError, match="branch_00 reads 3 values, the input has 4"):
        part.run(np.zeros((1, 4), np.float32))

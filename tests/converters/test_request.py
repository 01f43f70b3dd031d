"""Everything that can be refused before the work is refused by the request, which needs no torch."""

import subprocess
import sys

import pytest

from paraedge_converters.request import bundle_name, parse_request
from paraedge_runtime.errors import BundleError, InputError

FINE = {"name": "mine", "num_branches": 8, "target": "linux"}


def test_a_request_is_complete(tmp_path):
    request = parse_request(**FINE, branches=2, quantize="small", out=tmp_path / "b")
    assert (request.branches, request.num_branches) == ((0, 1), 8)
    assert (request.engine, request.converter, request.quantize) == ("onnxruntime", "onnxruntime", "int8-dynamic")
    assert request.out == tmp_path / "b"
    assert list(tmp_path.iterdir()) == []
    ios = parse_request(name="mine", num_branches=2, target="ios", delegate="coreml", quantize="int8-dynamic+fp32-stem")
    assert [ios.delegate_of(part) for part in ("stem", "branch_00")] == ["coreml", None]
    assert str(ios.out) == "mine-ios-all-int8-dynamic+fp32-stem-coreml.paraedge"
    micro = parse_request(name="mine", num_branches=1, target="microcontroller", quantize="small", out=tmp_path / "b")
    assert (micro.engine, micro.converter, micro.quantize) == ("litert", "tflite-micro", "int8-static")


def test_the_stem_may_have_a_recipe_of_its_own(tmp_path):
    request = parse_request(**FINE, quantize="fp16+fp32-stem", out=tmp_path / "b")
    assert (request.recipe_of("stem"), request.recipe_of("branch_03")) == ("fp32", "fp16")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"name": "my images"}, "'my images' is not a valid bundle name; .*: 'my-images'"),
        ({"name": "Prüfbilder"}, "'Prüfbilder' is not a valid bundle name; .*: 'Prufbilder'"),
        ({"name": ""}, "'' is not a valid bundle name; .*: 'model'"),
        ({"target": "toaster"}, "unknown target 'toaster'; choose one of android"),
        ({"engine": "tvm"}, "unknown engine 'tvm'"),
        ({"quantize": "int7"}, "unknown quantization recipe 'int7'; choose one of fp32"),
        ({"quantize": "int8-weight", "engine": "executorch"}, "executorch does not support int8-weight"),
        ({"quantize": "fp16+fp32-stem", "fused": True}, "a fused model has no stem of its own"),
        ({"delegate": "tpu"}, "unknown delegate 'tpu'; choose one of coreml, ethos-u55, ethos-u85, gpu, vulkan"),
        ({"delegate": "coreml"}, "'coreml' is for the target ios; for linux choose gpu"),
        ({"delegate": "gpu"}, "'gpu' needs the engine litert, not onnxruntime"),
        ({"delegate": "gpu", "target": "web"}, "for the target android or linux or raspberry-pi; web has none"),
        (
            {"delegate": "gpu", "target": "android"},
            "needs the engine litert, not executorch .*; with executorch choose vulkan",
        ),
        (
            {"delegate": "coreml", "target": "ios", "quantize": "small"},
            "takes the stem in fp32 or fp16, not int8-dynamic; ",
        ),
        ({"delegate": "ethos-u85", "target": "microcontroller"}, "takes every part in int8-static, not fp32"),
        ({"delegate": "coreml", "target": "ios", "fused": True}, "a fused model is for the CPU alone"),
        ({"branches": 9}, "9 branches requested, 8 available"),
        ({"branches": (0, 8)}, "there is no branch 8"),
    ],
)
def test_it_is_refused(arguments, problem, tmp_path):
    with pytest.raises(InputError, match=problem):
        parse_request(**{**FINE, "out": tmp_path / "b", **arguments})


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/b cannot be written: Not a directory; choose another path"):
        parse_request(**FINE, out=tmp_path / "file" / "b")
    with pytest.raises(BundleError, match="exists and is not a bundle folder"):
        parse_request(**FINE, out=tmp_path)


@pytest.mark.parametrize(
    ("branches", "quantize", "name"),
    [
        (range(8), "fp32", "mine-linux-all.paraedge"),
        ((0, 1), "fp32", "mine-linux-2.paraedge"),
        ((0, 3, 5), "int8-dynamic", "mine-linux-0-3-5-int8-dynamic.paraedge"),
        ((3,), "fp32", "mine-linux-only-3.paraedge"),
    ],
)
def test_names_of_bundles(branches, quantize, name):
    assert bundle_name("mine", "linux", branches, 8, quantize) == name


def test_it_needs_no_torch():
    code = "import sys, paraedge_converters.request; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

"""The package as a whole: light to import, and public on purpose."""

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys

import pytest

import paraedge_runtime
from paraedge_runtime.engines import ENGINES

# Each of these costs a device seconds or is not on it.
HEAVY = ["torch", "executorch", "onnx", "onnxruntime", "ai_edge_litert", "tflite_runtime", "PIL", "rich", "click"]
ENGINE_MODULES = {info.location.partition(":")[0] for info in ENGINES.values()} | {
    "paraedge_runtime._native",
    "paraedge_runtime.engines.executorch_binding",
}
MODULES = sorted(
    {module.name for module in pkgutil.walk_packages(paraedge_runtime.__path__, "paraedge_runtime.")} - ENGINE_MODULES
)


@pytest.mark.parametrize("imported", [["paraedge_runtime"], MODULES], ids=["package", "all its modules"])
def test_import_loads_nothing_heavy(imported):
    script = f"import json, sys, {', '.join(imported)}\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout) == []


def test_all_is_sorted_and_every_name_is_there():
    assert paraedge_runtime.__all__ == sorted(paraedge_runtime.__all__)
    assert all(hasattr(paraedge_runtime, name) for name in paraedge_runtime.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_lists_its_public_names(name):
    """Nothing is public by accident: a class or function made here is in ``__all__``, or has an underscore."""
    module = importlib.import_module(name)
    assert module.__doc__
    made_here = {
        key
        for key, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == name and key[0] != "_"
    }
    assert made_here <= set(module.__all__)
    assert all(hasattr(module, key) for key in module.__all__)


def test_the_example_of_the_docstring_names_real_things():
    for name in ("Session.open", "session.run", "prediction.label", "prediction.confidence"):
        assert name in paraedge_runtime.__doc__
    assert all(hasattr(paraedge_runtime.Prediction, name) for name in ("label", "confidence", "branches_used"))


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'paraedge_runtime' has no attribute 'Sesion'"):
        _ = paraedge_runtime.Sesion

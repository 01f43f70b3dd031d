"""The package as a whole: as light to import as the runtime, and public on purpose."""

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys

import pytest

import paraedge_measure

# What a device does not have, or pays seconds for.
HEAVY = ["torch", "executorch", "onnxruntime", "ai_edge_litert", "tflite_runtime", "PIL", "rich", "click", "matplotlib"]
MODULES = sorted(module.name for module in pkgutil.walk_packages(paraedge_measure.__path__, "paraedge_measure."))


@pytest.mark.parametrize("imported", [["paraedge_measure"], MODULES], ids=["package", "all its modules"])
def test_import_loads_nothing_heavy(imported):
    script = f"import json, sys, {', '.join(imported)}\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout) == []


def test_the_runtime_imports_nothing_of_it():
    script = (
        "import importlib, json, pkgutil, sys, paraedge_runtime\n"
        "for module in pkgutil.walk_packages(paraedge_runtime.__path__, 'paraedge_runtime.'):\n"
        "    if not module.name.endswith(('_native', 'executorch_binding')):\n"
        "        importlib.import_module(module.name)\n"
        "print(json.dumps([name for name in sys.modules if name.startswith('paraedge_measure')]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == []


def test_every_name_of_the_facade_is_there():
    names = paraedge_measure.__all__
    assert all(hasattr(paraedge_measure, name) for name in names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", MODULES)
def test_every_module_lists_its_public_names(name):
    module = importlib.import_module(name)
    assert module.__doc__
    made_here = {
        key
        for key, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == name and key[0] != "_"
    }
    assert made_here <= set(module.__all__)
    assert all(hasattr(module, key) for key in module.__all__)

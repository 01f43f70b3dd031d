"""What is public is public on purpose, and importing it stays light."""

import ast
import json
import pkgutil
import pydoc
import re
import rlcompleter
import subprocess
import sys
from pathlib import Path

import pytest

import paraedge
import paraedge.model
import paraedge_converters
import paraedge_measure
import paraedge_runtime
from paraedge_runtime import errors

ROOTS = [paraedge, paraedge_converters, paraedge_measure, paraedge_runtime]


@pytest.mark.parametrize("package", ROOTS, ids=lambda package: package.__name__)
def test_all_is_exactly_what_is_there(package):
    for name in package.__all__:
        assert getattr(package, name) is not None
    submodules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    visible = {name for name in vars(package) if not name.startswith("_")} - submodules
    assert visible - {"annotations", "TYPE_CHECKING", "lazy_names"} <= set(package.__all__)


@pytest.mark.parametrize("package", ROOTS, ids=lambda package: package.__name__)
def test_an_unknown_name_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = package.no_such_name


@pytest.mark.parametrize("package", [*ROOTS, paraedge.model], ids=lambda package: package.__name__)
def test_dir_help_and_completion_show_every_public_name(package):
    assert set(package.__all__) <= set(dir(package))
    text = pydoc.plain(pydoc.render_doc(package))
    matches = rlcompleter.Completer({"package": package})
    for name in set(package.__all__) - {"__version__"}:
        assert name in text
        assert matches.complete(f"package.{name}", 0).startswith(f"package.{name}")


def test_the_front_door_has_what_a_first_program_needs():
    for name in (
        "Session",
        "Bundle",
        "Prediction",
        "export",
        "convert",
        "ModelDescription",
        "ImageInput",
        "load_dataset",
    ):
        assert name in paraedge.__all__
    assert set(errors.__all__) <= set(paraedge.__all__)
    assert re.fullmatch(r"\d+\.\d+\.\d+", paraedge.__version__)


def test_help_works_on_a_device_without_torch():
    script = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest)\n"
        "sys.modules['torch'] = None\n"
        "import pydoc, paraedge, paraedge_converters\n"
        "print(pydoc.plain(pydoc.render_doc(paraedge)), pydoc.plain(pydoc.render_doc(paraedge_converters)))\n"
        "print('listed:', 'Session' in dir(paraedge), 'export' in dir(paraedge))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "listed: True False"


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        (
            "import paraedge, paraedge_converters, paraedge_measure, paraedge_runtime",
            ["torch", "executorch", "PIL", "matplotlib"],
        ),
        ("import paraedge.cli.main", ["torch", "numpy", "rich", "msgspec", "PIL"]),
        ("import paraedge.cli.run, paraedge.cli.verify, paraedge.cli.inspect, paraedge.cli.subset", ["torch"]),
        ("import paraedge.cli.doctor, paraedge.cli.targets, paraedge.cli.pack", ["torch"]),
        ("import paraedge.cli.profile, paraedge.cli.plan, paraedge_measure.connections", ["torch", "matplotlib"]),
    ],
    ids=["packages", "command line", "device commands", "other commands", "profile"],
)
def test_imports_stay_light(statement, forbidden):
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(forbidden) & set(json.loads(done.stdout))


def test_every_file_says_in_its_first_line_what_it_is_for():
    repository = Path(__file__).parents[2]
    for folder in ("sdk", "converters", "runtime", "tests", "demos", "benchmarks"):
        for path in (repository / folder).rglob("*.py"):
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            assert docstring, f"{path} has no docstring"
            assert len(docstring.splitlines()[0]) > 15, path

"""What is public is public on purpose, and importing it stays light."""

import ast
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import paraedge
import paraedge_converters
import paraedge_measure
import paraedge_runtime

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

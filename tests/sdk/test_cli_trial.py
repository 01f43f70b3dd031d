"""No command loads a program that nobody has tried: a damaged one ends a process of its own, and that is said."""

import ast
import json
from pathlib import Path

import pytest
from support.bundles import fake_bundle
from support.deadly import in_children

from paraedge.cli.main import paraedge
from paraedge_runtime import IntegrityError
from paraedge_runtime.update import write_update

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "sdk/paraedge/cli").glob("*.py"), *(ROOT / "demos/raspberry_pi/paraedge_demo").glob("*.py")])
# What loads a bundle's programs in this process.
LOADERS = {"Session.open", "open_session", "Bench", "compare_bundles", "profile_bundle"}
# It is called with a session's bundle that was tried before (app.py), or after a trial of its own (keeper.py).
TRIED_BY_CALLER = {("keeper.py", "open_session")}


@pytest.fixture
def deadly(tmp_path, monkeypatch, fake_engine):
    """A bundle whose programs kill the processes that are started from here, and run in this one."""
    monkeypatch.setenv("PARAEDGE_CACHE", str(tmp_path / "cache"))
    in_children(tmp_path / "site", monkeypatch, "os.kill(os.getpid(), signal.SIGSEGV)")
    return fake_bundle(tmp_path / "deadly.paraedge")


def invoke(*arguments):
    paraedge.main([*map(str, arguments)], standalone_mode=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "{bundle}"],
        ["run", "{bundle}", "--branches", "1", "--threads", "1"],
        ["verify", "{bundle}"],
        ["compare", "{bundle}"],
        ["compare", "{bundle}", "{bundle}"],
        ["apply", "{update}", "{bundle}", "--out", "{folder}/new.paraedge"],
    ],
    ids=lambda arguments: " ".join(arguments).replace("{", "").replace("}", ""),
)
def test_a_command_survives_a_killing_program(deadly, tmp_path, fake_engine, arguments):
    new = fake_bundle(tmp_path / "other.paraedge", [{"add": 7.0}])
    write_update(deadly, new, tmp_path / "u.zip")
    names = {"bundle": deadly.path, "update": tmp_path / "u.zip", "folder": tmp_path}
    with pytest.raises(IntegrityError, match="its first run ended its process by SIGSEGV"):
        invoke(*(argument.format(**names) for argument in arguments))
    assert fake_engine.PARTS == []  # nothing was loaded here
    assert not (tmp_path / "new.paraedge").exists()


def test_profile_names_a_killing_program(deadly, tmp_path):
    with pytest.raises(IntegrityError, match="its first run ended its process by SIGSEGV"):
        invoke("profile", tmp_path / "device.json", deadly.path)


def test_doctor_survives_a_killing_engine(tmp_path, monkeypatch, capsys):
    """Public reports: engines' wheels that die with an illegal instruction on some boards."""
    package = tmp_path / "site" / "ai_edge_litert"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    invoke("doctor", "--json")
    litert = json.loads(capsys.readouterr().out)["engines"]["litert"]
    assert not litert["works"]
    assert litert["detail"].startswith("the engine 'litert' ended its process by SIGILL when it was opened; install a")


def untried(source, name="x.py"):
    """Calls that load programs without a trial before them in the same function."""
    found = []
    for function in [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]:
        calls = {}
        for node in ast.walk(function):
            if isinstance(node, ast.Call):
                calls.setdefault(ast.unparse(node.func), node.lineno)
        first = min((calls[name] for name in ("try_bundle", "verify_bundle") if name in calls), default=None)
        found += [
            f"{function.name}: {loader}"
            for loader in LOADERS & calls.keys()
            if (first is None or first > calls[loader]) and (name, function.name) not in TRIED_BY_CALLER
        ]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_command_tries_before_it_loads(path):
    assert untried(path.read_text(encoding="utf-8"), path.name) == []


def test_what_loads_untried_programs_is_found():
    assert untried("def run():\n    Session.open(bundle)") == ["run: Session.open"]
    assert untried("def run():\n    Session.open(bundle)\n    try_bundle(bundle)") == ["run: Session.open"]
    assert untried("def run():\n    try_bundle(bundle)\n    Session.open(bundle)") == []

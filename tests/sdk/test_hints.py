"""Hints are commands that work: those in the messages are parsed, and the ones with a path in them are run."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import unicodedata
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from paraedge.cli.main import COMMANDS, paraedge

ROOT = Path(__file__).parents[2]
PARAEDGE = [sys.executable, "-c", "import sys; sys.argv[0] = 'paraedge'; from paraedge.cli.main import main; main()"]
HINT = re.compile(rf"(?<![\w`])'?paraedge ((?:{'|'.join(COMMANDS)})\b[^';:()]*)")


def _texts(path):
    """The strings of a source file that are not docstrings; what is put into one stands as ``1``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            inner.update(id(part) for part in ast.walk(node) if isinstance(part, ast.Constant))
        if isinstance(node, ast.JoinedStr):
            inner.update(id(part) for part in ast.walk(node) if part is not node)
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "1" for part in node.values)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.value
        if isinstance(node, ast.List) and node.elts and getattr(node.elts[0], "value", None) == "paraedge":
            yield " ".join(str(part.value) if isinstance(part, ast.Constant) else "1" for part in node.elts)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print_next":
            given = [part for part in node.args if not isinstance(part, ast.Starred)]
            yield " ".join(str(part.value) if isinstance(part, ast.Constant) else "1" for part in given)


HINTS = sorted(
    {
        match[1].strip()
        for folder in ("sdk/paraedge", "converters", "runtime", "demos/raspberry_pi")
        for path in (ROOT / folder).rglob("*.py")
        for text in _texts(path)
        for match in HINT.finditer(text)
    }
)


# An option's help that names another option; click prints help and leaves.
MENTIONS = {"export --plan", "train --help"}


@pytest.mark.parametrize("hint", [hint for hint in HINTS if " " in hint and hint not in MENTIONS])
def test_a_hint_with_arguments_can_be_parsed(hint):
    name, *arguments = shlex.split(hint)
    command = paraedge.get_command(click.Context(paraedge), name)
    command.make_context(name, [argument.replace("…", "1") for argument in arguments])
    if name == "export":
        assert {"--target", "--plan"} & set(arguments), "an export needs one of them"


def test_hints_are_found():
    assert {"verify", "export --plan 1", "export --target linux --out 1", "run 1"} <= set(HINTS)


def run(*arguments, cwd):
    return subprocess.run(
        [*PARAEDGE, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ,
        stdin=subprocess.DEVNULL,
        timeout=280,
    )


def _follow(text, mark, cwd):
    """Run the command that stands after ``mark``, as somebody who copies it into a shell."""
    (line,) = [line for line in text.splitlines() if mark in line]
    name, *arguments = shlex.split(line.split(mark)[1])
    assert name == "paraedge"
    done = run(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["my first.paraedge", "it's.zip"])
def test_a_bundle_that_is_missing_is_made_by_the_hint(bundles, tmp_path, name):
    assert bundles["onnxruntime"]  # its parts are in the cache
    done = run("verify", name, cwd=tmp_path)
    assert done.returncode == 2
    text = _follow(done.stderr, "make a bundle: ", tmp_path)
    assert "verified" in run("verify", name, cwd=tmp_path).stdout
    assert "image(s)" in _follow(text, "Next: ", tmp_path)


def test_files_that_are_missing_are_made_by_the_hints(tmp_path, monkeypatch):
    """No plan; no device.json either, whose own hint says how to make one."""
    done = run("export", "--plan", "my plan.json", cwd=tmp_path)
    assert done.returncode == 2
    words = shlex.split(done.stderr.split("make it: ")[1])
    assert words == ["paraedge", "plan", "--profile", "device.json", "--budget-ms", "10", "--out", "my plan.json"]
    done = run(*words[1:], cwd=tmp_path)
    assert done.returncode == 2
    assert shlex.split(done.stderr.split("make it: ")[1]) == ["paraedge", "profile", "device.json"]


@pytest.mark.parametrize(
    ("folder", "name"), [("my images", "my-images"), ("Prüfbilder", "Prufbilder"), ("[final] cut", "final-cut")]
)
def test_a_folder_of_any_name_goes_from_training_to_running_by_the_hints(tmp_path, folder, name):
    rng = np.random.default_rng(0)
    for label, value in (("dark [x]", 60), (unicodedata.normalize("NFD", "café"), 180)):
        (tmp_path / folder / label).mkdir(parents=True)
        for number in range(12):
            pixels = np.clip(rng.normal(value, 30, (16, 16)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / label / f"{number}.png")
        (tmp_path / folder / label / "._0.png").write_bytes(b"\0\5\26\7")
    done = run(
        "train", "--dataset", "folder", "--data-dir", folder, "--out", "my model", "--epochs", 2,
        "--set", "embed_dim=16", "--set", "num_heads=2", "--set", "branch_depth=1", "--image-size", 16, "--grey",
        "--set", "num_branches=2", "--set", "batch_size=8",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "my model" / "config.json").read_text(encoding="utf-8"))
    assert (config["name"], config["dataset"]) == (name, folder)
    assert config["labels"] == ["café", "dark [x]"]
    exported = _follow(done.stdout, "Next: ", tmp_path)
    assert f"{name}-linux-all.paraedge" in exported
    assert "image(s)" in _follow(exported, "Next: ", tmp_path)
    shown = run("run", f"{name}-linux-all.paraedge", f"{folder}/dark [x]", cwd=tmp_path)
    assert f"{folder}/dark [x]/0.png" in shown.stdout


@pytest.mark.parametrize("name", ["my model", "größer", "", "-x"])
def test_a_name_that_no_bundle_can_have_is_refused_before_the_training(tmp_path, name):
    done = run("train", "--dataset", "digits", "--out", "x", f"--name={name}", cwd=tmp_path)
    assert done.returncode == 2
    assert "is not a valid bundle name" in done.stderr
    assert list(tmp_path.iterdir()) == []

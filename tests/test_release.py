"""What a release needs: one version everywhere, workflows for the Pythons that wheels are built for."""

import json
import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
VERSION = re.search(r"project\(paraedge VERSION ([0-9.]+)", (ROOT / "runtime/native/CMakeLists.txt").read_text())[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_one_version_everywhere():
    models = tomllib.loads((ROOT / "sdk/models/pyproject.toml").read_text())["project"]["version"]
    assert PYPROJECT["project"]["optional-dependencies"]["models"] == [f"paraedge-models=={models}"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == VERSION
    assert json.loads((ROOT / "runtime/web/package.json").read_text())["version"] == VERSION
    assert f'\\"{VERSION}\\"' in (ROOT / "Package.swift").read_text()
    assert f'versionName = "{VERSION}"' in (ROOT / "runtime/android/app/build.gradle.kts").read_text()
    assert models == VERSION
    assert f"\n## {VERSION} " in (ROOT / "CHANGELOG.md").read_text()


def test_workflows_run_what_the_makefile_has_on_every_python():
    ci = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    pythons = ci["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert [f"cp{version.replace('.', '')}-*" for version in pythons] == PYPROJECT["tool"]["cibuildwheel"]["build"]
    steps = [step.get("run", "") for job in ci["jobs"].values() for step in job["steps"]]
    targets = {match[1] for step in steps if (match := re.match(r"make ([\w-]+)", step))}
    targets |= set(ci["jobs"]["other-runtimes"]["strategy"]["matrix"]["what"])
    decides = re.search(r"for step in setup (.*); do", (ROOT / ".ci/run").read_text())[1].split()
    assert targets == set(decides)


def test_code_owners_own_what_is_there():
    for line in (ROOT / ".github/CODEOWNERS").read_text().splitlines():
        if line.startswith("/"):
            assert (ROOT / line.split()[0].strip("/")).exists(), line

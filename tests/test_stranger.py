"""A stranger with Python and the wheels, and no checkout, follows the first page word for word to a first prediction.

torch and the converters are those of this environment, which pip finds installed: a download of gigabytes says nothing
about the page. paraedge and its models come from the wheels, which pip finds as the page says.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_sample_image
from support.wheels import PIP, ROOT, DeviceEnvironment, packages_of_others, wheel_of_this_machine

pytestmark = [pytest.mark.environment, pytest.mark.slow]
FIRST = re.compile(r"\[start:first\] -->\n(.*?)<!-- --8<-- \[end:first\]", re.DOTALL)
WASTE = {"cardboard", "glass", "metal", "paper", "plastic", "trash"}


@pytest.fixture
def stranger(tmp_path):
    """A folder with the wheels in ``dist`` and an own photograph, and an environment without paraedge."""
    wheel = wheel_of_this_machine()
    home = tmp_path / "home"
    (home / "dist").mkdir(parents=True)
    for path in wheel.parent.glob("*.whl"):
        shutil.copy(path, home / "dist")
    environment = DeviceEnvironment(tmp_path / "environment")
    others = packages_of_others(tmp_path / "others")
    (environment.site_packages() / "others.pth").write_text(f"{others}\n")
    Image.fromarray(load_sample_image("flower.jpg")).save(home / "photo.jpg", quality=95)
    return home, environment


def _commands():
    """What the first page says to type: its ``sh`` and ``console`` blocks, in order."""
    (text,) = FIRST.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    blocks = re.findall(r"^```(sh|console)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [(kind, line) for kind, block in blocks for line in block.splitlines()]
    return [line.removeprefix("$ ") for kind, line in lines if kind == "sh" or line.startswith("$ ")]


@pytest.mark.timeout(600, func_only=True)  # the ten minutes
def test_a_stranger_gets_a_prediction_on_an_own_photograph(stranger):
    home, environment = stranger
    programs = environment.python.parent
    variables = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(home), "PIP_NO_INDEX": "1", "OMP_NUM_THREADS": "1"}
    commands = _commands()
    assert commands[0].startswith("pip install ")
    printed = ""
    for command in commands:
        if command.startswith("pip "):
            words = " ".join(map(str, [*PIP[:3], "--python", environment.python]))
            command = f"{words} {command.removeprefix('pip ')}"
        done = subprocess.run(command, shell=True, cwd=home, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        printed = done.stdout
    where = environment.run("import paraedge; print(paraedge.__file__)").strip()
    assert Path(where).is_relative_to(environment.site_packages()), "not from the wheel"
    (row,) = [line.split() for line in printed.splitlines() if line.startswith("photo.jpg ")]
    assert row[1] in WASTE
    assert 0 < float(row[2]) <= 100

"""What a person installs on a Pi: the script twice in a row, a device's environment, refusals."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTALL = ROOT / "demos" / "raspberry_pi" / "install.sh"


def install(home, *arguments, path=""):
    environment = {
        **os.environ,
        "PARAEDGE_DEMO_HOME": str(home),
        "PATH": f"{path}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PIP_QUIET": "1",
        "PIP_PROGRESS_BAR": "off",
    }
    environment.pop("PYTHONPATH", None)
    command = ["sh", INSTALL, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)


@pytest.mark.environment
def test_installed_twice_it_runs_without_torch(pi_bundle, tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--config-settings", "wheel.cmake=false", "-w", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    home = tmp_path / "a home"
    for _ in range(2):
        done = install(home, wheel)
        assert done.returncode == 0, done.stderr
        assert "next: " in done.stdout
    listed = subprocess.run(
        [home / "bin" / "python", "-m", "pip", "list", "--local", "--format=json"], capture_output=True, check=True
    )
    names = {package["name"] for package in json.loads(listed.stdout)}
    assert {"paraedge", "starlette", "uvicorn", "websockets"} <= names
    assert not names & {"torch", "onnx", "matplotlib"}
    command = [home / "bin" / "paraedge-demo", "--bundle", pi_bundle, "--headless", "--frames", "10"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("10 frames at ")


@pytest.mark.parametrize(
    ("program", "says", "message"),
    [
        ("getconf", "echo 32", "32-bit, and the engines are built for 64-bit only"),
        ("python3", "[ $1 = --version ] && echo Python 3.9.2", "install 3.11 or newer"),
    ],
)
def test_a_system_that_cannot_be_is_refused(tmp_path, program, says, message):
    stand_in = tmp_path / "bin" / program
    stand_in.parent.mkdir()
    stand_in.write_text(f"#!/bin/sh\n{says}\n")
    stand_in.chmod(0o755)
    done = install(tmp_path / "home", path=stand_in.parent)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(("argument", "message"), [("--fast", "unknown option"), ("nowhere.whl", "neither a wheel")])
def test_an_argument_that_cannot_be_is_refused(tmp_path, argument, message):
    done = install(tmp_path / "home", argument)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path):
    text = INSTALL.with_name("paraedge-demo.service").read_text()
    (tmp_path / "paraedge-demo.service").write_text(
        text.replace("/opt/paraedge-demo/bin/paraedge-demo", sys.executable)
    )
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "paraedge-demo.service"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_a_short_soak(pi_bundle):
    """The whole one takes ten minutes and a machine with nothing else to do; here only its form is looked at."""
    command = [
        sys.executable,
        ROOT / "benchmarks" / "demo_soak.py",
        pi_bundle,
        "--minutes",
        "0.12",
        "--budget-ms",
        "500",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["frames"] > 30
    assert document["misses"] == 0
    assert document["memory_growth_kb"] < 5000

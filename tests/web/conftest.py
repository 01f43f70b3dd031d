"""Node and Chromium for the browser runtime: what is missing skips these tests with a line that says so."""

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

import playwright
import pytest
from support.photographs import write_phone_photograph

WEB = Path(__file__).parents[2] / "runtime" / "web"
CHROMIUM = Path("/usr/bin/chromium")
MINI_BROWSER = Path("/usr/lib") / f"{platform.machine()}-linux-gnu" / "webkit2gtk-4.1" / "MiniBrowser"


def _node():
    """A node of version 20 or newer: the one in PATH, or that of Python's playwright (Debian 12 has 18)."""
    brought = Path(playwright.__file__).parent / "driver" / "node"
    for program in (shutil.which("node"), brought if brought.exists() else None):
        if program is not None:
            version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
            if version.startswith("v") and int(version[1:].split(".")[0]) >= 20:
                return str(program)
    return None


def _missing():
    if _node() is None or shutil.which("npm") is None:
        return "npm, or a node of version 20 or newer, is not installed: scripts/need_debian.sh nodejs npm"
    if not (WEB / "node_modules").is_dir():
        return "the npm packages are not installed: npm ci --prefix runtime/web"
    return None


@pytest.fixture(scope="session")
def node():
    """Runs a script of ``runtime/web`` with node; gives what it printed."""
    if missing := _missing():
        pytest.skip(missing)
    program = _node()

    def run(script, *arguments, given=None, timeout_s=120, **environment):
        done = subprocess.run(
            [program, script, *arguments],
            cwd=WEB,
            input=None if given is None else json.dumps(given),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={**os.environ, **environment},
        )
        assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    return run


@pytest.fixture(scope="session")
def driver(node):
    """Asks ``test/driver.js`` for one of its tasks."""
    return lambda task, given: json.loads(node("test/driver.js", task, given=given))


@pytest.fixture(scope="session")
def chromium():
    """The path of Chromium."""
    if not CHROMIUM.exists():
        pytest.skip("Chromium is not installed: scripts/need_debian.sh chromium")
    return str(CHROMIUM)


@pytest.fixture(scope="session")
def other_browsers():
    """Debian's Firefox and WebKitGTK: name -> the command that opens an address, PROFILE is an empty folder."""
    missing = [name for name in ("firefox-esr", "xvfb-run", "xauth") if shutil.which(name) is None]
    missing += [] if MINI_BROWSER.exists() else ["MiniBrowser"]
    if missing:
        packages = "firefox-esr libwebkit2gtk-4.1-0 xvfb xauth"
        pytest.skip(f"{', '.join(missing)} is not installed: scripts/need_debian.sh {packages}")
    return {
        "firefox": ["firefox-esr", "--headless", "--no-remote", "--profile", "PROFILE"],
        "webkit": ["xvfb-run", "--auto-servernum", str(MINI_BROWSER)],
    }


@pytest.fixture(scope="session")
def photograph(tmp_path_factory):
    """The path of a photograph of 12 million pixels that lies on its side."""
    return write_phone_photograph(tmp_path_factory.mktemp("photograph") / "photo.jpg")

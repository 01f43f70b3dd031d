"""Wheels of this checkout, and the environments of devices that they are installed into."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def wheel_of_this_machine() -> Path:
    """The wheel that 'make wheels' makes for this machine, beside that of paraedge-models.

    The first test process that asks builds both.
    """
    folder = Path(os.environ["PARAEDGE_CACHE"]) / "wheels"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not list(folder.glob("paraedge-*.whl")):
            command = [ROOT / "scripts" / "make_wheels.sh", Path(sys.executable).parent, folder, os.uname().machine]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = folder.glob("paraedge-*.whl")
    return wheel


def packages_of_others(folder: Path) -> Path:
    """A folder of links to every package of this environment but paraedge's own: a workstation's, not downloaded."""
    folder.mkdir()
    for site in (Path(path) for path in sys.path if path.endswith("site-packages")):
        for entry in site.iterdir():
            name = entry.name.lower()
            is_ours = name.startswith(("paraedge", "_paraedge", "__editable__", "_editable")) or name.endswith(".pth")
            if not is_ours and not os.path.lexists(folder / entry.name):
                (folder / entry.name).symlink_to(entry)
    return folder


class DeviceEnvironment:
    """A virtual environment with nothing in it, not even pip, and programs that see no compiler."""

    def __init__(self, folder: Path, *, programs: tuple[str, ...] = ()) -> None:
        self.python = folder / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        for program in programs:
            (folder / "bin" / program).symlink_to(str(shutil.which(program)))
        self._environment = {
            name: value for name, value in os.environ.items() if name not in ("CC", "CXX", "PYTHONPATH")
        }
        self._environment["PATH"] = str(folder / "bin")

    def install(self, *arguments: object) -> None:
        """``pip install`` with these arguments."""
        self.pip("install", "--quiet", "--progress-bar", "off", *arguments)

    def pip(self, *arguments: object) -> str:
        """What pip says about this environment."""
        return self._run([*PIP[:3], "--python", self.python, *PIP[3:], *arguments])

    def packages(self) -> set[str]:
        """The names of what is installed, in lower case."""
        return {package["name"].lower() for package in json.loads(self.pip("list", "--format", "json"))}

    def run(self, code: str, *arguments: object, timeout_s: float = 120) -> str:
        """What a program of Python prints."""
        return self._run([self.python, "-c", code, *arguments], timeout_s)

    def site_packages(self) -> Path:
        """Where packages are installed."""
        (folder,) = self.python.parents[1].glob("lib/python*/site-packages")
        return folder

    def _run(self, command: list[object], timeout_s: float | None = None) -> str:
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, env=self._environment, timeout=timeout_s
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout

"""What paraedge needs of a device that has a shell: it runs scripts of POSIX sh, and takes folders."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from paraedge_measure._plain_line import plain_line
from paraedge_measure.connections.processes import last_line

__all__ = ["CLEAN_UP", "Shell", "advice", "reason"]

CLEAN_UP = "'paraedge profile DEVICE.JSON --clean' removes what paraedge keeps there"
_OTHER_FOLDER = "name another folder of the device as 'connection.folder'"
# What systems say, and what to do about it.
_ADVICE = {
    "No space left": CLEAN_UP,
    "Disk quota exceeded": CLEAN_UP,
    "Read-only file system": _OTHER_FOLDER,
    "Permission denied": _OTHER_FOLDER,
    "Not a directory": _OTHER_FOLDER,
    "File exists": _OTHER_FOLDER,
}


class Shell(Protocol):
    """The shell of one device."""

    name: str
    """The device's, in messages."""

    def check(self) -> None:
        """Raise ``DeviceError``, with what to do, if the device cannot be reached."""

    def run(self, script: str) -> str:
        """What a script prints.

        Raises:
            DeviceError: the device cannot be reached, or the script failed.
        """

    def command(self, script: str) -> list[str]:
        """The command that runs a script there, with stdin and stdout of this side."""

    def copy(self, folder: Path, path: str) -> None:
        """Copy a folder there; ``path`` does not exist, the folder that it is in does.

        Raises:
            DeviceError: as :meth:`run`.
        """


def reason(said: str) -> str:
    """The line of a program's errors that says most: one that there is advice for, or else the last."""
    lines = [plain_line(line).strip() for line in said.splitlines()]
    return next((line for line in lines if any(words in line for words in _ADVICE)), None) or last_line(said)


def advice(said: str, otherwise: str) -> str:
    """What to do about the reason."""
    return next((step for words, step in _ADVICE.items() if words in said), otherwise)

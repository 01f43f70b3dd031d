"""What paraedge keeps on a device: folders that appear whole or not at all, are sent once, and removed on request."""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import tempfile
from pathlib import Path

from paraedge_measure._plain_line import plain_line
from paraedge_measure.connections.shell import Shell
from paraedge_runtime import Bundle
from paraedge_runtime.errors import DeviceError

__all__ = ["Storage"]

_HEX = "[0-9a-f]" * 12
_PART = f".{_HEX}.new"
_FOLDERS = (f"tools-{_HEX}", f"*-{_HEX}.paraedge", f"inputs-{_HEX}")
# Every name that is made here, as the shell matches it: nothing else in that folder is paraedge's.
_OWN = (*_FOLDERS, *(f"{name}{_PART}" for name in _FOLDERS), f"inputs-{_HEX}.npy")
_OWN_NAME = re.compile("|".join(name.replace(".", r"\.").replace("*", "[A-Za-z0-9_.+-]{1,200}") for name in _OWN))
# Left by a process that was killed. No bundle takes that long to send, and no data set to run.
_STALE = f"\\( -name '*{_PART}' -o -name 'inputs-{_HEX}*' \\) -mtime +6"


class Storage:
    """The folder of a device that bundles, programs and inputs are sent to."""

    def __init__(self, shell: Shell, folder: str) -> None:
        self._shell = shell
        self.folder = folder

    def bundle_path(self, bundle: Bundle) -> str:
        """Where a bundle is, once it was sent."""
        return f"{self.folder}/{bundle.manifest.name}-{bundle.sha256[:12]}.paraedge"

    def new_inputs_path(self) -> str:
        """A name for inputs, which nobody else uses."""
        return f"{self.folder}/inputs-{secrets.token_hex(6)}"

    def send_bundle(self, bundle: Bundle, *, anew: bool = False) -> str:
        """Its path over there; each of its files is checked as it is read. ``anew``: what is there is damaged."""
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch, "bundle")
            folder.mkdir()
            for name, data in bundle.files().items():
                place = folder / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
            return self.send(folder, self.bundle_path(bundle), anew=anew)

    def send(self, folder: Path, path: str, *, anew: bool = False) -> str:
        """Unless it is there, the folder appears over there as ``path``, whole or not at all."""
        there = shlex.quote(path)
        if not anew and self._shell.run(f"if [ -d {there} ]; then echo yes; fi").strip() == "yes":
            return path
        sent = f"{path}.{secrets.token_hex(6)}.new"  # another process may send the same now
        new, nested = shlex.quote(sent), shlex.quote(f"{path}/{sent.rpartition('/')[2]}")
        kept = shlex.quote(self.folder)
        self._shell.run(
            f"mkdir -p {kept} || exit 1; find {kept}/. -maxdepth 1 {_STALE} -exec rm -rf {{}} \\; 2>/dev/null; true"
        )
        try:
            self._shell.copy(folder, sent)
            gone = f"rm -rf {there} && " if anew else ""
            # mv moves into what came first
            self._shell.run(f"chmod -R 755 {new} && {gone}mv {new} {there} && rm -rf {nested}")
        except BaseException:  # Ctrl-C too: half of it would take the room that it needs
            self.remove(sent)
            raise
        return path

    def remove(self, path: str) -> None:
        """As far as the device lets it: where it does not, another error is on its way."""
        with contextlib.suppress(DeviceError):
            self._shell.run(f"rm -rf {shlex.quote(path)}")

    def clean(self) -> tuple[str, ...]:
        """Remove all that was ever sent, and the folder if nothing else is in it: the names of what was removed.

        Links among them are removed, and what they lead to stays.
        """
        kept = shlex.quote(self.folder)
        reply = self._shell.run(
            f"[ -d {kept} ] || exit 0; LC_ALL=C; export LC_ALL; (cd {kept} || exit 1; for file in {' '.join(_OWN)}; do "
            'if [ -e "$file" ] || [ -L "$file" ]; then rm -rf "./$file" || exit 1; echo "$file"; fi; done) || exit 1; '
            f"rmdir {kept} 2>/dev/null; true"
        )
        names = tuple(line.strip() for line in reply.splitlines() if line.strip())
        foreign = [name for name in names if _OWN_NAME.fullmatch(name) is None]
        if foreign:
            raise DeviceError(
                f"{self._shell.name} removed a file that is not paraedge's, {plain_line(foreign[0], 80)!r}; do not "
                "trust that device"
            )
        return names

"""A stand-in for ``ssh``: its device is a board without Python, played by this machine in a folder."""

import os
import shutil
import sys
from pathlib import Path

from support.fake_adb import MACHINE, write_uname

HOST = "board"
# All that the board has.
_PROGRAMS = ("cat", "chmod", "find", "mkdir", "mv", "rm", "rmdir", "sh", "tar", "touch")
_SCRIPT = """#!{python}
import os, pathlib, subprocess, sys
home = pathlib.Path({home!r})
arguments = sys.argv[1:]
split = arguments.index("--")
assert arguments[split + 1] == {host!r} and len(arguments) == split + 3, arguments
script = arguments[-1]
name = {name!r}
def unreachable():
    sys.stderr.write("client_loop: send disconnect: Broken pipe\\n")
    sys.exit(255)
if name == "unplugged" and (home / "gone").exists():
    sys.stderr.write("ssh: connect to host {host} port 22: No route to host\\n")
    sys.exit(255)
if name == "unplugged" and "paraedge-testbed" in script:
    (home / "gone").touch()
    unreachable()
if "tar -xf" in script:
    with (home.parent / "sent.log").open("a") as log:
        log.write(script.split(" && ")[0].rpartition("/")[2] + "\\n")
    if name == "full":
        subprocess.run(["sh", "-c", script.replace("tar -xf - -C", "false")], cwd=home)  # a folder without files
        sys.stderr.write("tar: stem.pte: Cannot write: No space left on device\\n"
                         "tar: Exiting with failure status due to previous errors\\n")
        sys.exit(2)
    if name == "shared":  # another process sends the same, and is done first
        data = sys.stdin.buffer.read()
        sent = script.partition("mkdir ")[2].split()[0]
        there = home / sent.rsplit(".", 2)[0]
        there.mkdir()
        subprocess.run(["tar", "-xf", "-", "-C", there], input=data, check=True)
        subprocess.run(["chmod", "-R", "755", there], check=True)
        sys.exit(subprocess.run(["sh", "-c", script], cwd=home, input=data).returncode)
sys.exit(subprocess.run(["sh", "-c", script], cwd=home, env={{**os.environ, "PATH": {board!r}}}).returncode)
"""


def install(folder: Path, state: str, machine: str = MACHINE) -> Path:
    """Write an executable ``ssh`` into ``folder``; ``folder/home`` is the board's home folder."""
    board = folder / "board"
    board.mkdir(exist_ok=True)
    for program in _PROGRAMS:
        if not (board / program).exists():
            (board / program).symlink_to(shutil.which(program))
    write_uname(board, machine)
    (folder / "home").mkdir(exist_ok=True)
    script = _SCRIPT.format(
        python=sys.executable, home=os.fspath(folder / "home"), host=HOST, name=state, board=str(board)
    )
    (folder / "ssh").write_text(script)
    (folder / "ssh").chmod(0o755)
    return folder

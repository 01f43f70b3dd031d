"""A stand-in for ``adb``, written by hand, since no phone was at hand: this machine plays the device, in a folder."""

import sys
from pathlib import Path

SERIAL = "0A1B2C"
MACHINE = "aarch64"
# State of the device -> what the real client answers to get-state: stdout, stderr, exit code.
STATES = {
    "device": ("device\n", "", 0),
    "offline": ("", "error: device offline\n", 1),
    "unauthorized": (
        "",
        "error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set\n"
        "Try 'adb kill-server' if that seems wrong.\n"
        "Otherwise check for a confirmation dialog on your device.\n",
        1,
    ),
    "recovery": ("recovery\n", "", 0),
    "shared": ("device\n", "", 0),  # another process sends the same, and is done first
    "full": ("device\n", "", 0),  # until something is sent
    "unplugged": ("device\n", "", 0),  # until the program has started
    "no permissions": ("", "error: insufficient permissions for device: missing udev rules?\n", 1),
    "others": ("", f"error: device '{SERIAL}' not found\n", 1),
    "none": ("", f"error: device '{SERIAL}' not found\n", 1),
    "two": ("device\n", "", 0),
}
# State of the device -> what ``adb devices`` lists, where that is not this one device.
LISTED = {
    "others": "1F2E3D\tdevice\nemulator-5554\toffline\nE\x1b[2JVIL\tunauthorized\n",
    "none": "",
    "unplugged": "",
    "two": f"{SERIAL}\tdevice\n1F2E3D\tunauthorized\n",
}
_SCRIPT = """#!{python}
import pathlib, shutil, subprocess, sys
gone = pathlib.Path(__file__).with_suffix(".gone")
arguments = sys.argv[1:]
if arguments == ["devices"]:
    sys.stdout.write({listed!r})
    sys.exit(0)
assert arguments[:2] == ["-s", {serial!r}], arguments
command, *rest = arguments[2:]
if command == "get-state" and not rest:
    stdout, stderr, code = {state!r}
    if gone.exists():
        stdout, stderr, code = "", "error: device '{serial}' not found\\n", 1
    sys.stdout.write(stdout)
    sys.stderr.write(stderr)
    sys.exit(code)
if command == "push" and {name!r} == "full":
    shutil.copytree(rest[0], rest[1])  # a part of it
    sys.stderr.write("adb: error: failed to copy to '" + rest[1] + "': remote write failed: No space left on device\\n")
    sys.exit(1)
if command == "push" and {name!r} == "shared":
    there = rest[1].rsplit(".", 2)[0]
    shutil.copytree(rest[0], there)
    subprocess.run(["chmod", "-R", "755", there], check=True)
if command == "push" and len(rest) == 2:
    shutil.copytree(rest[0], rest[1])
    print("1 file pushed")
    sys.exit(0)
assert command == "shell", arguments
if {name!r} == "unplugged" and rest[0] == "-T":
    gone.touch()
    sys.exit(255)
sys.exit(subprocess.run(["sh", "-c", rest[1] if rest[0] == "-T" else rest[0]]).returncode)
"""


def install(folder: Path, state: str, machine: str = MACHINE) -> Path:
    """Write an executable ``adb`` into ``folder``; a command that paraedge does not use is an error."""
    listed = "* daemon started successfully\nList of devices attached\n" + LISTED.get(state, f"{SERIAL}\t{state}\n")
    script = _SCRIPT.format(python=sys.executable, serial=SERIAL, state=STATES[state], name=state, listed=listed)
    (folder / "adb").write_text(script)
    (folder / "adb").chmod(0o755)
    write_uname(folder, machine)
    return folder


def write_uname(folder: Path, machine: str) -> None:
    """What a device of another processor says."""
    (folder / "uname").write_text(f'#!/bin/sh\n[ "$1" = -m ] && echo {machine} || echo Linux 5.15\n')
    (folder / "uname").chmod(0o755)

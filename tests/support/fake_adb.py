"""A stand-in for ``adb``: answers as the real client does, written by hand, since no phone was at hand."""

import json
import sys
from pathlib import Path

# State of the device -> arguments of adb -> stdout, stderr, exit code.
ANSWERS = {
    "device": {"-s 0A1B2C get-state": ("device\n", "", 0)},
    "offline": {"-s 0A1B2C get-state": ("", "error: device offline\n", 1)},
    "unauthorized": {
        "-s 0A1B2C get-state": (
            "",
            "error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set\n"
            "Try 'adb kill-server' if that seems wrong.\n"
            "Otherwise check for a confirmation dialog on your device.\n",
            1,
        )
    },
    "recovery": {"-s 0A1B2C get-state": ("recovery\n", "", 0)},
}


def install(folder: Path, state: str) -> Path:
    """Write an executable ``adb`` into ``folder``; anything that the list does not have is an error."""
    script = (
        f"#!{sys.executable}\nimport json, sys\n"
        f"stdout, stderr, code = json.loads({json.dumps(json.dumps(ANSWERS[state]))})[' '.join(sys.argv[1:])]\n"
        "sys.stdout.write(stdout)\nsys.stderr.write(stderr)\nsys.exit(code)\n"
    )
    (folder / "adb").write_text(script)
    (folder / "adb").chmod(0o755)
    return folder

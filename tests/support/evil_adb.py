"""A stand-in for ``adb`` whose device answers as an attacker would make it."""

import json
import sys
from pathlib import Path

_SCRIPT = """#!{python}
import sys, time
answers = {answers!r}
arguments = sys.argv[3:]
def say(text):
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.flush()
if arguments[0] == "get-state":
    if answers.get("asleep"):
        time.sleep(1000)
    if "state" in answers:
        sys.stderr.write(answers["state"])
        sys.exit(1)
    say("device\\n")
elif arguments[0] == "shell":
    script = arguments[-1]
    if "@@paraedge" in script:
        files = {files!r} | answers.get("files", {{}})
        for name, text in files.items():
            say("\\n@@paraedge " + name + "\\n" + text + "\\n")
        if answers.get("endless"):
            while True:
                say("x" * 1000000)
        if answers.get("silent"):
            time.sleep(1000)
    elif " exec " in script:
        if answers.get("noise"):
            sys.stderr.write("noise\\n" * 100000)
            sys.stderr.flush()
        say(answers.get("hello", '{{"executorch": "1.5.1", "load_ms": 1.0}}') + "\\n")
        for line in sys.stdin:
            answer = answers.get(line.split()[0], "[[1.0, 0.1, [[0, 0, 0.1, 0.2]]]]")
            if answer is None:
                time.sleep(1000)
            say(answer + "\\n")
    elif "rmdir" in script:
        say(answers["removed"])
    elif "[ -d" in script:
        say("yes\\n")
"""
# What an honest one says, in short.
FILES = {
    "/proc/cpuinfo": "processor : 0\nmodel name : A processor",
    "/proc/meminfo": "MemTotal: 4000000 kB",
    "/sys/devices/system/cpu/present": "0-3",
    "/etc/os-release": "PRETTY_NAME=Android 15",
    "/machine": "aarch64",
    "/kernel": "Linux 5.15",
}


def install(folder: Path, **answers: object) -> Path:
    """Write an executable ``adb`` into ``folder``; ``answers`` take the place of honest ones."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adb").write_text(
        _SCRIPT.format(python=sys.executable, answers=json.loads(json.dumps(answers)), files=FILES)
    )
    (folder / "adb").chmod(0o755)
    return folder

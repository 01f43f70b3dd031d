"""``paraedge-demo`` as it is started: in a pseudo-terminal, into a pipe, stopped by signals, and what it refuses."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.demo import PATIENCE_S, until


def run(*arguments):
    command = [sys.executable, "-m", "paraedge_demo", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)


def test_fifty_frames_into_a_pipe(pi_bundle, tmp_path):
    done = run("--bundle", pi_bundle, "--headless", "--frames", 50, "--fps", 100, "--record", tmp_path / "out.jsonl")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("50 frames at ")
    assert done.stderr == ""
    again = run("--replay", tmp_path / "out.jsonl", "--headless")
    assert again.returncode == 0, again.stderr
    assert again.stdout == "- the recording has ended\n" + done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_terminal_shows_picture_and_branches_until_a_signal(pi_bundle, number):
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "paraedge_demo", "--bundle", pi_bundle, "--headless"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "50"},
    )
    os.close(follower)
    seen = b""

    def read():
        nonlocal seen
        try:
            seen += os.read(leader, 65536)
        except OSError:  # its end is closed
            return True
        return False

    until(lambda: read() or ("▀" in seen.decode(errors="ignore") and b"branch 7" in seen), "nothing is shown")
    process.send_signal(number)
    until(read, "it does not end")
    os.close(leader)
    assert process.wait(PATIENCE_S) == 0
    text = seen.decode(errors="replace")
    assert "█" in text
    assert "│" in text
    assert "Traceback" not in text
    assert "frames dropped" in text[text.rindex("branch 7") :]  # the figures stay


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "paraedge export --target raspberry-pi"),
        (["--bundle", "nowhere.paraedge"], "does not exist"),
        (["--bundle", "BUNDLE", "--budget-ms", "-1"], "budget_ms"),
        (["--bundle", "BUNDLE", "--budget-ms", "nan"], "budget_ms"),
        (["--bundle", "BUNDLE", "--threads", "0"], "threads"),
        (["--bundle", "BUNDLE", "--source", "folder"], "--folder"),
        (["--bundle", "BUNDLE", "--policy", "best"], "anytime, all, static"),
        (["--bundle", "BUNDLE", "--host", "127.0.0.1", "--token", "short"], "at least 16"),
        (["--bundle", "BUNDLE", "--host", "203.0.113.1"], "cannot listen"),
        (["--replay", "nowhere.jsonl"], "cannot be read"),
    ],
)
def test_mistakes_are_said_in_one_line(pi_bundle, arguments, message):
    done = run(*[pi_bundle if argument == "BUNDLE" else argument for argument in arguments])
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1


def test_the_hog_ends_when_the_demo_is_killed(pi_bundle, start):
    demo = start("--bundle", pi_bundle, "--port", 0, "--load")

    def children():
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(demo.process.pid)], capture_output=True, text=True)
        return [int(pid) for pid in listed.stdout.split()]

    hogs = until(children, "no hog")
    demo.process.kill()
    until(lambda: not any(_lives(pid) for pid in hogs), "the hog outlives the demo")


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False

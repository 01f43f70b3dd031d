"""``paraedge-demo`` as it is started: in a pseudo-terminal, into a pipe, stopped by signals, and what it refuses."""

import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.demo import PATIENCE_S, until

from paraedge_demo.main import stopping_at_signals


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


@pytest.mark.parametrize(
    ("number", "columns", "lines", "has_image"),
    [
        (signal.SIGINT, 120, 50, True),
        (signal.SIGTERM, 80, 24, True),
        (signal.SIGTERM, 60, 24, False),
        (signal.SIGTERM, 80, 16, False),
    ],
)
def test_a_terminal_shows_image_and_branches_until_a_signal(pi_bundle, number, columns, lines, has_image):
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "paraedge_demo", "--bundle", pi_bundle, "--headless"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": str(lines)},
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

    # The last line of the screen that is there before the end: all of it fits.
    until(lambda: read() or (b"branch 7" in seen and b"latency p50" in seen), "nothing is shown")
    process.send_signal(number)
    until(read, "it does not end")
    os.close(leader)
    assert process.wait(PATIENCE_S) == 0
    text = seen.decode(errors="replace")
    assert ("▀" in text) == has_image
    assert "█" in text
    assert "│" in text
    assert "Traceback" not in text
    assert "frames dropped" in text[text.rindex("branch 7") :]  # the figures stay


@pytest.mark.timeout(60, func_only=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_inside_wait_is_no_deadlock(number):
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    stop = threading.Event()
    with stopping_at_signals(stop):
        with stop._cond:  # as in the moment in which wait() looks at its flag
            signal.raise_signal(number)
        assert stop.wait(PATIENCE_S)
    assert {each: signal.getsignal(each) for each in before} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bundle", "nowhere.paraedge"], "does not exist"),
        (["--bundle", "BUNDLE", "--budget-ms", "-1"], "budget_ms"),
        (["--bundle", "BUNDLE", "--budget-ms", "nan"], "budget_ms"),
        (["--bundle", "BUNDLE", "--threads", "0"], "threads"),
        (["--bundle", "BUNDLE", "--source", "folder"], "--folder"),
        (["--bundle", "BUNDLE", "--policy", "best"], "anytime, all, static"),
        (["--bundle", "BUNDLE", "--host", "127.0.0.1", "--token", "short"], "at least 16"),
        (["--bundle", "BUNDLE", "--host", "203.0.113.1"], "cannot listen"),
        (["--bundle", "BUNDLE", "--host", "127.0.0.1", "--token", "16 letters & more"], "letters, digits or any of"),
        (["--bundle", "BUNDLE", "--host", "no-such-host.invalid"], "choose another with --host"),
        (["--bundle", "BUNDLE", "--port", "TAKEN"], "Address already in use; choose another with --port"),
        (["--bundle", "BUNDLE", "--headless", "--fps", "nan"], "fps must be above 0, got nan"),
        (
            ["--bundle", "BUNDLE", "--headless", "--min-confidence", "nan"],
            "min_confidence must be above 0 and at most 1",
        ),
        (["--bundle", "BUNDLE", "--headless", "--record", "nowhere/out.jsonl"], "choose another path with --record"),
        (["--bundle", "BUNDLE", "--headless", "--record", "BUNDLE"], "choose another name with --record"),
        (["--replay", "nowhere.jsonl"], "cannot be read"),
        (["--replay", "nowhere.jsonl", "--bundle", "BUNDLE"], "leave --bundle and --record out"),
    ],
)
def test_mistakes_are_said_in_one_line(pi_bundle, arguments, message):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        places = {"BUNDLE": pi_bundle, "TAKEN": taken.getsockname()[1]}
        done = run(*[places.get(argument, argument) for argument in arguments])
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

"""``paraedge-demo`` as a process of its own, and patience."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

PATIENCE_S = 60


class Demo:
    """A running ``paraedge-demo``."""

    def __init__(self, arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "paraedge_demo", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.url = None
        if "--headless" not in arguments:
            line = self.process.stdout.readline()
            found = re.match(r"open (http://\S+)", line)
            assert found, line + self.process.stderr.read()
            self.url = found[1]

    @property
    def port(self):
        return int(re.search(r":(\d+)/", self.url)[1])

    def stop(self, number=signal.SIGTERM):
        """What it printed, after it ended as it should."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, err
        assert "Traceback" not in err, err
        return out


def until(condition, what):
    """Wait for something that comes soon unless it is broken."""
    end_s = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end_s, what
        threading.Event().wait(0.02)
    return found

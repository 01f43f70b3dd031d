"""Ends the interpreter in the middle of requests, again and again, and prints how each one ended.

    python -m support.exits HOW COUNT BUNDLE [ENGINE]

Each time is a fork that runs to the end of its main program, so the interpreter shuts down as it always does; only the
imports are not repeated. A child that has not ended after ``PATIENCE_S`` is killed and printed as a hang.
"""

import atexit
import importlib
import itertools
import os
import signal
import sys
import threading
import time

import numpy as np

from paraedge_runtime import Bundle, EngineError, Session
from paraedge_runtime.core import load_core
from paraedge_runtime.engines import ENGINES, EngineInfo
from paraedge_runtime.manifest import ImageInput

PATIENCE_S = 60
# onnxruntime may start threads when it is imported, which a fork does not have: every child imports it for itself.
PACKAGES = {"litert": "ai_edge_litert.interpreter"}


def image_for(bundle):
    spec = bundle.manifest.input
    assert isinstance(spec, ImageInput)
    _, channels, height, width = spec.shape
    return np.full((height, width, channels), 90, np.uint8)


def repeat(session, image, begun, **options):
    """Requests for ever; how they end after the main program is the session's business."""
    for number in itertools.count():
        session.run(image, **options)
        if number == 2:
            begun.set()


def in_daemons(session, image, count=2, **options):
    for _ in range(count):
        begun = threading.Event()
        threading.Thread(target=repeat, args=(session, image, begun), kwargs=options, daemon=True).start()
        assert begun.wait(PATIENCE_S)


def forgotten(session, image):
    """``close`` is never called."""
    session.run(image)
    return session


def late(session, image):
    """A branch is late, and still runs."""
    session.run(image)
    session.run(image, deadline_s=time.monotonic(), policy="all")
    return session


def dropped_late(session, image):
    """The same, and the session is garbage when the main program ends."""
    late(session, image)


def stream(session, image):
    """A stream is being read."""
    predictions = session.stream(image)
    next(predictions)
    return predictions


def daemons(session, image):
    """Daemon threads run requests in a loop."""
    in_daemons(session, image)
    return session


def hurried_daemons(session, image):
    """The same with deadlines, so that branches are late."""
    in_daemons(session, image, budget_ms=0.3, policy="all")
    return session


def closed_by_daemons(session, image):
    """Daemon threads open, run and close sessions of their own."""

    def use():
        for number in itertools.count():
            with Session.open(session.bundle, threads=2) as own:
                own.run(image)
            if number == 2:
                begun.set()

    for _ in range(2):
        begun = threading.Event()
        threading.Thread(target=use, daemon=True).start()
        assert begun.wait(PATIENCE_S)
    return session


def closed_after_the_end(session, image):
    """An exit function of the application closes the session when paraedge's own has run already."""
    TO_CLOSE.append(session)
    in_daemons(session, image)


def opened_in_a_thread(session, image):
    """The core is imported by a thread that is gone: nothing may take that one for the main thread."""
    daemons(session, image)
    AFTERWARDS.append(lambda: _expect_closed(session, image))


def _expect_closed(session, image):
    try:
        session.run(image)
    except EngineError as error:
        assert "closed" in str(error)  # noqa: PT017 - no test, but what a test starts
    else:
        raise AssertionError("a session ran after the end")


def hung(session, image):
    """A worker's branch does not end."""
    session.run(image, deadline_s=time.monotonic(), policy="all")
    return session


def hung_daemon(session, image):
    """The branch that a daemon thread's request is in does not end."""
    threading.Thread(target=lambda: session.run(image), daemon=True).start()
    time.sleep(0.05)  # it is on its way into the branch; earlier it is as good a moment
    return session


TO_CLOSE = []
AFTERWARDS = []
WAYS = {
    way.__name__: way
    for way in (
        forgotten, late, dropped_late, stream, daemons, hurried_daemons, closed_by_daemons, closed_after_the_end,
        opened_in_a_thread, hung, hung_daemon,
    )
}  # fmt: skip


def ended(pid):
    """A child's exit status, or 'hang'."""
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return str(os.waitstatus_to_exitcode(status))
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hang"


def play(how, path):
    """One child, up to the end of its main program."""
    atexit.register(lambda: [session.close() for session in TO_CLOSE])  # before the core's: runs after it
    atexit.register(lambda: [call() for call in AFTERWARDS])
    if how == "opened_in_a_thread":
        thread = threading.Thread(target=load_core)
        thread.start()
        thread.join()
    bundle = Bundle.open(path)
    return WAYS[how](Session.open(bundle, threads=2), image_for(bundle))


how, count, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
engine = sys.argv[4] if len(sys.argv) > 4 else "fake"
ENGINES["fake"] = EngineInfo("support.fake_engine:FakeEngine", ".fake", ("fake",), "fake")
if engine in PACKAGES:
    importlib.import_module(PACKAGES[engine])
for _ in range(count):
    child = os.fork()
    if child == 0:
        kept = play(how, path)
        break
    sys.stdout.write(f"{ended(child)}\n")
    sys.stdout.flush()

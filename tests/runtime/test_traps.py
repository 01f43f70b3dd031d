"""What must neither hang nor crash: the end of the interpreter in the middle of requests, Ctrl-C, fork, garbage, leaks.

PARAEDGE_TEST_EXITS is how often the interpreter is ended for each way and engine (2).
"""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from support.bundles import fake_bundle, image
from support.fake_engine import GATES, PARTS, RUNNING, FakeEngine, FakePart, Gate

from paraedge_runtime import DroppedBranch, EngineError, InputError, Session

PATIENCE_S = 30
TESTS = Path(__file__).resolve().parents[1]
EXITS = int(os.environ.get("PARAEDGE_TEST_EXITS", "2"))

pytestmark = pytest.mark.usefixtures("fake_engine")


@pytest.fixture
def gate():
    """The gate 'gate', opened in the end."""
    GATES["gate"] = Gate()
    yield GATES["gate"]
    GATES["gate"].release.set()


@pytest.fixture
def bundle(tmp_path):
    return fake_bundle(tmp_path / "b.paraedge", [{"add": 10.0**place} for place in range(4)])


@pytest.fixture
def gated(tmp_path, gate):
    """The second of two branches is held."""
    return fake_bundle(tmp_path / "g.paraedge", [{"add": 1.0}, {"add": 2.0, "event": "gate"}])


# JAX, which other tests of this process may have imported, warns of every fork.
FORKS = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def _threads():
    return len(os.listdir("/proc/self/task"))


def _eventually(condition):
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.005)


# The end of the interpreter ---------------------------------------------------------------------


def _exits(how, path, engine="fake", count=EXITS):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "support.exits", how, str(count), str(path), engine],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=100 * count + 60,
        check=False,
    )
    # LiteRT introduces itself on stderr.
    stderr = [line for line in done.stderr.splitlines() if "Created TensorFlow Lite XNNPACK delegate" not in line]
    assert (done.stdout.split(), stderr, done.returncode) == (["0"] * count, [], 0)


QUICK = (
    "forgotten", "late", "dropped_late", "stream", "daemons", "hurried_daemons", "closed_by_daemons",
    "closed_after_the_end", "opened_in_a_thread",
)  # fmt: skip


@pytest.mark.parametrize("how", QUICK)
@pytest.mark.parametrize("sleep_s", [0, 0.003])
def test_the_interpreter_ends_whatever_a_python_engine_is_doing(tmp_path, how, sleep_s):
    behaviours = [{"add": 1.0}, {"add": 2.0, "sleep_s": sleep_s}, {"add": 3.0, "sleep_s": sleep_s}]
    _exits(how, fake_bundle(tmp_path / "b.paraedge", behaviours).path)


@pytest.mark.parametrize("how", ["late", "hurried_daemons", "daemons"])
def test_the_interpreter_ends_whatever_an_engine_is_doing(bundles, engine_name, how):
    _exits(how, bundles[engine_name].path, engine_name)


@pytest.mark.parametrize("how", ["hung", "hung_daemon"])
def test_a_branch_that_does_not_end_does_not_keep_the_interpreter(tmp_path, how):
    behaviours = [{"add": 1.0}, {"add": 2.0, "sleep_s": 1000}, {"add": 2.0, "sleep_s": 3}]
    _exits(how, fake_bundle(tmp_path / "b.paraedge", behaviours).path, count=1)


# Branches that do not end ------------------------------------------------------------------------


def test_close_waits_no_longer_than_it_is_told(gated, gate):
    session = Session.open(gated, threads=2)
    session.run(image(), budget_ms=200, policy="all")
    assert gate.entered.wait(PATIENCE_S)  # by the worker that is late
    started_s = time.monotonic()
    with pytest.raises(
        EngineError, match=r"a branch of .*g\.paraedge did not finish within 0\.2 s; close the session again"
    ):
        session.close(timeout_s=0.2)
    assert time.monotonic() - started_s < PATIENCE_S / 2
    with pytest.raises(EngineError, match="this session is being closed"):
        session.run(image())
    gate.release.set()
    session.close(timeout_s=PATIENCE_S)
    assert all(part.closed for part in PARTS)
    session.close(timeout_s=0)


def test_close_in_time_ends_a_request_that_waits(gated, gate):
    """Its caller waits for the branch that is held; the branch itself goes on."""
    session, problems = Session.open(gated, threads=2), []

    def ask():
        try:
            session.run(image(), budget_ms=1e6, policy="all")
        except EngineError as error:
            problems.append(str(error))

    caller = threading.Thread(target=ask)
    caller.start()
    assert gate.entered.wait(PATIENCE_S)
    with pytest.raises(EngineError, match="did not finish within"):
        session.close(timeout_s=0.5)
    caller.join(PATIENCE_S)
    assert len(problems) == 1
    gate.release.set()
    session.close()


def test_an_idle_session_closes_at_once_whatever_the_timeout(bundle):
    session = Session.open(bundle, threads=2)
    session.run(image())
    session.close(timeout_s=0)
    assert all(part.closed for part in PARTS)


def test_a_session_that_was_given_up_may_be_forgotten(gated, gate):
    session = Session.open(gated, threads=2)
    session.run(image(), budget_ms=200, policy="all")
    assert gate.entered.wait(PATIENCE_S)
    with pytest.raises(EngineError):
        session.close(timeout_s=0)
    del session
    gc.collect()  # waits for nobody
    assert not any(part.closed for part in PARTS)


@pytest.mark.parametrize("timeout_s", [-1, float("nan"), float("inf"), "1", True])
def test_a_timeout_is_a_number_of_seconds(bundle, timeout_s):
    with Session.open(bundle) as session, pytest.raises(InputError, match=r"timeout_s must be finite and at least 0"):
        session.close(timeout_s=timeout_s)


# Ctrl-C -----------------------------------------------------------------------------------------


def _interrupted_when(event):
    """Sends Ctrl-C to the main thread soon after the event."""

    def poke():
        assert event.wait(PATIENCE_S)
        time.sleep(0.05)  # the main thread is on its way into the wait; earlier it is as good a moment
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=poke, daemon=True)
    thread.start()
    return thread


def test_ctrl_c_in_the_stem_ends_the_request_and_nothing_else(bundle, monkeypatch):
    entered, run = threading.Event(), FakePart._run

    def stem(part, x):
        if part.name == "stem" and not entered.is_set():
            entered.set()
            time.sleep(PATIENCE_S)
        return run(part, x)

    with Session.open(bundle, threads=2) as session:
        wanted = session.run(image())
        monkeypatch.setattr(FakePart, "_run", stem)
        poker = _interrupted_when(entered)
        with pytest.raises(KeyboardInterrupt):
            session.run(image())
        poker.join()
        assert np.array_equal(session.run(image()).output, wanted.output)


def test_a_signal_whose_handler_closes_the_session_does_not_wait_for_the_request_it_came_in(gated, gate):
    with Session.open(gated, threads=2) as session:
        before = signal.signal(signal.SIGUSR1, lambda *_: session.close())
        try:
            thread = threading.Thread(target=lambda: gate.entered.wait() and signal.raise_signal(signal.SIGUSR1))
            thread.start()
            with pytest.raises(EngineError, match="closed from a request of its own"):
                session.run(image())
            thread.join()
        finally:
            signal.signal(signal.SIGUSR1, before)
            gate.release.set()


def test_ctrl_c_while_the_next_request_waits_for_a_late_branch(gated, gate):
    """Branch 1 alone is asked for, and the worker that is late in it has to leave first."""
    with Session.open(gated, threads=2) as session:
        session.run(image(), deadline_s=time.monotonic(), policy="all")
        poker = _interrupted_when(gate.entered)
        with pytest.raises(KeyboardInterrupt):  # a first one, with the branch held by a worker or by the caller
            session.run(image(), budget_ms=1e6, policy="all")
        poker.join()
        poker = _interrupted_when(gate.entered)
        with pytest.raises(KeyboardInterrupt):
            session.run(image(), branches=[1])
        poker.join()
        gate.release.set()
        assert session.run(image()).branches_used == (0, 1)


def test_ctrl_c_while_a_stream_is_read_does_not_wait_for_its_branches(gated, gate):
    with Session.open(gated, threads=2) as session:
        poker = _interrupted_when(gate.entered)
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            for prediction in session.stream(image()):
                assert prediction.branches_used == (0,)
        poker.join()
        assert not gate.release.is_set()
        assert any(RUNNING.values())
        gate.release.set()
        assert session.run(image()).branches_used == (0, 1)


def test_whoever_stops_reading_waits_for_no_branch(gated, gate):
    with Session.open(gated, threads=2) as session:
        stream = session.stream(image())
        next(stream)
        assert gate.entered.wait(PATIENCE_S)
        stream.close()  # else it would wait for ever
        gate.release.set()
        assert session.run(image()).branches_used == (0, 1)


# Exceptions of a Python engine ------------------------------------------------------------------


class _Mute(Exception):
    def __str__(self):
        raise RuntimeError("not even a text")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(LookupError("a defect"), "LookupError: a defect", id="of no engine"),
        pytest.param(EngineError("a known one"), "a known one", id="ours"),
        pytest.param(MemoryError(), "MemoryError: ", id="memory"),
        pytest.param(StopIteration(3), "StopIteration: 3", id="StopIteration"),
        pytest.param(RecursionError("deep"), "RecursionError: deep", id="recursion"),
        pytest.param(ValueError("\udcff"), "ValueError: \\udcff", id="surrogate"),
        pytest.param(ValueError("a\0b"), "ValueError: a", id="zero"),
        pytest.param(ValueError("ü" * 5000), "ValueError: " + "ü" * 249 + "?", id="long"),
        pytest.param(_Mute(), "_Mute: ", id="without a text"),
    ],
)
def test_an_exception_costs_one_branch(bundle, monkeypatch, threads, error, reason):
    run = FakePart._run

    def failing(part, x):
        if part.name == "branch_02":
            raise error
        return run(part, x)

    monkeypatch.setattr(FakePart, "_run", failing)
    with Session.open(bundle, threads=threads) as session:
        for _ in range(3):
            prediction = session.run(image())
            assert prediction.branches_dropped == (DroppedBranch(2, reason),)
            assert prediction.branches_used == (0, 1, 3)


@pytest.mark.parametrize("has_core", [True, False])
@pytest.mark.parametrize("name", ["stem", "branch_00", "branch_03"])
@pytest.mark.parametrize("call", ["run", "close", "close in time"])
def test_a_part_that_calls_its_own_session_does_not_wait_for_itself(bundle, monkeypatch, call, name, has_core):
    run, refused = FakePart._run, []
    calls = {
        "run": lambda: session.run(image()),
        "close": lambda: session.close(),
        "close in time": lambda: session.close(timeout_s=PATIENCE_S if has_core else 0.01),
    }

    def calling(part, x):
        if part.name == name:
            with pytest.raises(EngineError) as error:
                calls[call]()
            refused.append(str(error.value))
        return run(part, x)

    monkeypatch.setattr(FakePart, "_run", calling)
    if not has_core:
        monkeypatch.setattr("paraedge_runtime.session.core_problem", lambda: "the native core was not built")
    began_s = time.monotonic()
    # A worker's close would race with that at the end of the block.
    with Session.open(bundle, threads=1 if call == "close in time" else 2) as session:
        if has_core and call == "close in time":
            with pytest.raises(EngineError, match="is being closed"):
                session.run(image())
        else:
            session.run(image())
    assert time.monotonic() - began_s < PATIENCE_S
    assert len(refused) == 1
    assert ("of its own" if call != "close in time" else "close the session again later") in refused[0]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_is_no_exception_belongs_to_the_thread_that_raised_it(bundle, monkeypatch, error):
    """In a worker it costs the branch; in the caller's thread it is the caller's. Later requests know nothing of it."""
    caller, run = threading.get_ident(), FakePart._run
    in_worker = threading.Event()
    mine = []

    def leaving(part, x):
        if part.name == "stem":
            return run(part, x)
        if threading.get_ident() == caller:
            if mine:
                raise error("mine")
            assert in_worker.wait(PATIENCE_S)
        else:
            in_worker.set()
            raise error("the worker's")
        return run(part, x)

    with Session.open(bundle, threads=2) as session:
        wanted = session.run(image())
        monkeypatch.setattr(FakePart, "_run", leaving)
        prediction = session.run(image())
        assert prediction.branches_dropped
        for dropped in prediction.branches_dropped:
            assert dropped.reason == f"{error.__name__}: the worker's"
        mine.append(True)
        with pytest.raises(error, match="mine"):
            session.run(image())
        monkeypatch.setattr(FakePart, "_run", run)
        assert np.array_equal(session.run(image()).output, wanted.output)


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_exception_in_load_is_the_callers_and_leaves_nothing(bundle, monkeypatch, error):
    load, before = FakeEngine.load, _threads()

    def failing(engine, name, program, entry):
        if name == "branch_02":
            raise error("no part")
        return load(engine, name, program, entry)

    monkeypatch.setattr(FakeEngine, "load", failing)
    with pytest.raises(error, match="no part"):
        Session.open(bundle, threads=2)
    assert [part.closed for part in PARTS] == [True, True, True]
    assert _threads() == before


@pytest.mark.parametrize("loaded", [None, 3, object()])
def test_what_is_no_part_is_refused_by_load(bundle, monkeypatch, loaded):
    monkeypatch.setattr(FakeEngine, "load", lambda *_: loaded)
    with pytest.raises(AttributeError, match="run"):
        Session.open(bundle)


def test_an_exception_in_close_is_reported_and_the_other_parts_are_closed(bundle, monkeypatch):
    unraisable, close = [], FakePart.close
    monkeypatch.setattr(sys, "unraisablehook", lambda found: unraisable.append(found.exc_value))

    def failing(part):
        close(part)
        if part.name == "branch_01":
            raise OSError("not closed")

    monkeypatch.setattr(FakePart, "close", failing)
    session = Session.open(bundle, threads=2)
    session.close()
    assert [str(error) for error in unraisable] == ["not closed"]
    assert all(part.closed for part in PARTS)


def test_a_session_freed_while_an_exception_passes_leaves_that_one_alone(bundle):
    with pytest.raises(TypeError, match="unsupported operand"):
        Session.open(bundle, threads=2) + 1
    assert all(part.closed for part in PARTS)


# Fork -------------------------------------------------------------------------------------------


def _in_child(body):
    """Runs ``body`` in a forked child; says whether that ended by itself without an exception."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            body()
            status = 0
        finally:
            os._exit(status)
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hang"


def _refused(call):
    with pytest.raises(EngineError, match=r"opened before a fork.*open a session in the child process"):
        call()


def _child_of(session, stream=None):
    import asyncio

    def use():
        _refused(lambda: session.run(image()))
        _refused(lambda: session.run(image(), budget_ms=10))
        _refused(lambda: list(session.stream(image())))
        _refused(lambda: asyncio.run(session.arun(image())))
        _refused(lambda: session._core.run(image()))  # the core's own word
        if stream is not None:
            _refused(lambda: next(stream))
        session.close()
        with Session.open(session.bundle, threads=2) as own:
            assert own.run(image(), branches=1).branches_used == (0,)

    return use


@FORKS
def test_a_child_is_refused_and_the_parent_goes_on(bundle):
    with Session.open(bundle, threads=3) as session:
        wanted = session.run(image()).output
        assert _in_child(_child_of(session)) == 0
        assert np.array_equal(session.run(image()).output, wanted)


@FORKS
def test_a_fork_in_the_middle_of_requests(gated, gate):
    """A stream is being read, another thread is inside a request, others enter and leave."""
    with Session.open(gated, threads=2) as session, Session.open(gated, threads=2) as busy:
        stream = session.stream(image())
        next(stream)
        ending = threading.Event()

        def call():
            while not ending.is_set():
                busy.run(image(), branches=1)

        callers = [threading.Thread(target=call) for _ in range(2)]
        for caller in callers:
            caller.start()
        for _ in range(5):
            assert _in_child(_child_of(session, stream)) == 0
            assert _in_child(_child_of(busy)) == 0
        ending.set()
        for caller in callers:
            caller.join(PATIENCE_S)
        gate.release.set()
        assert [prediction.branches_used for prediction in stream][-1] == (0, 1)


def test_a_child_ends_as_it_always_does(tmp_path):
    """With all of the interpreter's shutdown, while other threads of the parent were in requests at the fork."""
    script = tmp_path / "forks.py"
    script.write_text(
        "import os, sys\n"
        "sys.argv = ['exits', 'daemons', '0', sys.argv[1]]\n"
        "from support.exits import Session, ended, in_daemons\n"
        "from support.bundles import image\n"
        "session = Session.open(sys.argv[3], threads=2)\n"
        "in_daemons(session, image())\n"
        "for _ in range(20):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        break\n"
        "    print(ended(child), flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), str(fake_bundle(tmp_path / "b.paraedge").path)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=1300,
        check=False,
    )
    assert (done.stdout.split(), done.stderr, done.returncode) == (["0"] * 20, "", 0)


def _in_multiprocessing(queue):
    try:
        SESSIONS[0].run(image())
    except EngineError as error:
        queue.put(str(error))
    SESSIONS[0].close()


SESSIONS = []


@FORKS
def test_multiprocessing_with_fork(bundle):
    context = multiprocessing.get_context("fork")
    with Session.open(bundle, threads=2) as session:
        SESSIONS[:] = [session]
        queue = context.SimpleQueue()
        child = context.Process(target=_in_multiprocessing, args=(queue,))
        child.start()
        child.join(PATIENCE_S)
        SESSIONS.clear()
        assert child.exitcode == 0
        assert "opened before a fork" in queue.get()
        assert session.run(image()).branches_used == (0, 1, 2, 3)


# Garbage ----------------------------------------------------------------------------------------


def test_a_session_without_close_frees_its_threads_and_parts(bundle):
    before = _threads()
    session = Session.open(bundle, threads=4)
    session.run(image())
    gone = weakref.ref(session)
    del session
    assert gone() is None
    assert _threads() == before
    assert all(part.closed for part in PARTS)


@pytest.mark.parametrize("how", ["reference", "cycle"])
def test_a_late_branch_frees_the_session_whose_worker_it_is_on(gated, gate, monkeypatch, how):
    """The last reference goes, or the garbage collection comes, inside the worker."""
    before, run = _threads(), FakePart._run
    kept, freed = [], threading.Event()

    def freeing(part, x):
        result = run(part, x)
        if part.name == "branch_01":
            kept.clear()
            gc.collect()
            freed.set()
        return result

    session = Session.open(gated, threads=2)
    monkeypatch.setattr(FakePart, "_run", freeing)
    session.run(image(), budget_ms=50, policy="all")
    assert gate.entered.wait(PATIENCE_S)
    gc.disable()  # until the worker collects
    try:
        if how == "cycle":
            session.itself = session
        else:
            kept.append(session)
        gone = weakref.ref(session)
        del session
        gate.release.set()
        assert freed.wait(PATIENCE_S)
    finally:
        gc.enable()
    assert gone() is None
    _eventually(lambda: _threads() == before and all(part.closed for part in PARTS))


def test_a_late_branch_that_answers_while_its_session_is_collected(gated, gate):
    before = _threads()
    session = Session.open(gated, threads=2)
    session.run(image(), budget_ms=50, policy="all")
    assert gate.entered.wait(PATIENCE_S)
    threading.Timer(0.05, gate.release.set).start()
    del session  # waits for the branch
    assert not any(RUNNING.values())
    assert all(part.closed for part in PARTS)
    _eventually(lambda: _threads() <= before)  # the timer's


# Two sessions -----------------------------------------------------------------------------------


def test_sessions_that_share_an_engine_close_their_own_programs_only(bundle, monkeypatch):
    shared = FakeEngine()
    monkeypatch.setattr("paraedge_runtime.session.open_engine", lambda name: shared)
    sessions = [Session.open(bundle, threads=2) for _ in range(4)]
    wanted = sessions[0].run(image()).output
    for closed in (2, 0, 3):
        sessions[closed].close()
        assert sum(part.closed for part in PARTS) == 5 * sum(session._core is None for session in sessions)
        for session in sessions:
            if session._core is None:
                with pytest.raises(EngineError, match="is closed"):
                    session.run(image())
            else:
                prediction = session.run(image())
                assert prediction.branches_dropped == ()
                assert np.array_equal(prediction.output, wanted)
    sessions[1].close()
    assert all(part.closed for part in PARTS)


def test_sessions_open_run_and_close_in_several_threads(bundle):
    wanted = []
    with Session.open(bundle, threads=2) as session:
        wanted.append(session.run(image()).output)
    errors = []

    def use():
        try:
            for _ in range(25):
                with Session.open(bundle, threads=2) as own, Session.open(bundle, threads=3) as other:
                    for session in (own, other, own):
                        assert np.array_equal(session.run(image()).output, wanted[0])
        except BaseException as error:  # told where the test can see it
            errors.append(error)

    users = [threading.Thread(target=use) for _ in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join(PATIENCE_S)
    assert errors == []
    assert not any(user.is_alive() for user in users)


# A thousand sessions ----------------------------------------------------------------------------


def _resident_kib():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def test_a_thousand_sessions_leave_nothing(bundle):
    """Half are closed, half forgotten; some with a branch that is late. After a warm-up less than 4 KiB each remain."""

    def use(count):
        for number in range(count):
            session = Session.open(bundle, threads=1 + number % 3)
            session.run(image(), **({"deadline_s": time.monotonic(), "policy": "all"} if number % 3 else {}))
            if number % 2:
                session.close()
            del session
            PARTS.clear()
            RUNNING.clear()

    use(200)
    gc.collect()
    threads, descriptors, memory_kib = _threads(), len(os.listdir("/proc/self/fd")), _resident_kib()
    use(1000)
    gc.collect()
    assert _threads() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert _resident_kib() - memory_kib < 4 * 1000


@pytest.mark.parametrize("timeout_s", [1e12, 1e308, 10**300])
def test_a_timeout_may_be_longer_than_a_clock_counts(bundle, timeout_s):
    Session.open(bundle).close(timeout_s=timeout_s)

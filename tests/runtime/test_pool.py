"""The worker pool: every call of a worker is served, in its own thread; threads are gone at the end."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from paraedge_runtime.pool import WorkerPool

PATIENCE_S = 30  # for events that come at once unless something is broken


@pytest.fixture
def pool():
    """A maker of pools that are closed in the end."""
    made = []

    def make(work):
        made.append(WorkerPool(work))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("calls", [0, 1, 7, 500])
def test_every_call_is_served_once_by_the_worker_that_was_called(pool, workers, calls):
    ran = []
    one = pool(lambda number: ran.append((number, threading.get_ident())))
    for call in range(calls):
        one.wake(call % workers)
    one.close()
    assert sorted(number for number, _ in ran) == sorted(call % workers for call in range(calls))
    assert len(set(ran)) == min(calls, workers)  # one thread for each number


def test_workers_really_run_at_the_same_time(pool):
    """Each waits until all have begun: one after another would never end."""
    together = threading.Barrier(3)
    passed = []

    def work(number):
        together.wait(PATIENCE_S)
        passed.append(number)

    one = pool(work)
    for number in range(3):
        one.wake(number)
    one.close()
    assert sorted(passed) == [0, 1, 2]


def test_a_call_that_comes_while_the_worker_works_is_not_lost(pool):
    entered, release, done = threading.Event(), threading.Event(), []

    def work(number):
        entered.set()
        assert release.wait(PATIENCE_S)
        done.append(number)

    one = pool(work)
    one.wake(1)
    assert entered.wait(PATIENCE_S)
    one.wake(1)
    release.set()
    one.close()
    assert done == [1, 1]


def test_workers_are_named_daemons_started_once_and_gone_after_close():
    before = threading.enumerate()
    one = WorkerPool(lambda number: None)
    assert threading.enumerate() == before
    for number in (1, 2, 1):
        one.start(number)
    workers = [thread for thread in threading.enumerate() if thread not in before]
    assert [thread.name for thread in workers] == ["paraedge-worker-1", "paraedge-worker-2"]
    assert all(thread.daemon for thread in workers)
    assert one.native_ids() == [thread.native_id for thread in workers]
    one.wake(2)
    one.close()
    assert threading.enumerate() == before
    one.close()


def test_pools_do_not_disturb_each_other(pool):
    """Four pools at once, each called from a thread of its own, under a tiny switch interval."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    ran = [[], [], [], []]

    def use(mine):
        one = WorkerPool(mine.append)
        for call in range(200):
            one.wake(call % 3)
        one.close()

    try:
        with ThreadPoolExecutor(4) as callers:
            list(callers.map(use, ran, timeout=PATIENCE_S * 2))
    finally:
        sys.setswitchinterval(interval)
    for mine in ran:
        assert sorted(mine) == sorted(call % 3 for call in range(200))

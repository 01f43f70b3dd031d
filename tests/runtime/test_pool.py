"""The worker pool: every task once, truly in parallel, nothing left over, threads gone at the end."""

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

    def make(threads):
        made.append(WorkerPool(threads))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 1000])
def test_every_task_runs_exactly_once(pool, threads, count):
    ran = []
    pool(threads).run([lambda thread, number=number: ran.append((number, thread)) for number in range(count)])
    assert sorted(number for number, _ in ran) == list(range(count))
    assert {thread for _, thread in ran} <= set(range(threads))


def test_one_thread_is_the_callers_and_keeps_the_order(pool):
    ran = []
    pool(1).run([lambda thread, n=n: ran.append((n, thread, threading.get_ident())) for n in range(20)])
    assert ran == [(number, 0, threading.get_ident()) for number in range(20)]


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_tasks_really_run_at_the_same_time(pool, threads):
    """Each waits until all have begun: one after another would never end."""
    together = threading.Barrier(threads)
    numbers = []

    def task(thread):
        together.wait(PATIENCE_S)
        numbers.append((thread, threading.get_ident()))

    pool(threads).run([task] * threads)
    assert sorted(thread for thread, _ in numbers) == list(range(threads))
    assert len({ident for _, ident in numbers}) == threads
    assert (0, threading.get_ident()) in numbers


def test_run_returns_only_when_the_last_task_is_done(pool):
    entered, release, done = threading.Event(), threading.Event(), []

    def slow(thread):
        entered.set()
        assert release.wait(PATIENCE_S)
        done.append(thread)

    def quick(thread):
        assert entered.wait(PATIENCE_S)
        release.set()

    pool(2).run([slow, quick])
    assert len(done) == 1


def test_a_pool_runs_job_after_job(pool):
    one = pool(4)
    for job in range(200):
        ran = []
        one.run([lambda thread, value=value, ran=ran: ran.append(value) for value in range(job % 6)])
        assert sorted(ran) == list(range(job % 6))


def test_an_idle_worker_keeps_nothing_of_the_last_job(pool):
    """Or the arrays of the last request would stay in memory until the next."""

    class Request:
        alive = 0

        def __init__(self):
            Request.alive += 1

        def __del__(self):
            Request.alive -= 1
            if not Request.alive:
                gone.set()

    gone = threading.Event()
    one = pool(3)
    request = Request()
    one.run([lambda thread, request=request: None for _ in range(9)])
    del request
    assert gone.wait(PATIENCE_S)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_ctrl_c_in_a_task_of_the_caller_reaches_the_caller_and_no_later_job(pool, threads):
    one, ran = pool(threads), []
    entered, release = threading.Event(), threading.Event()

    def task(thread):
        if thread == 0:
            if threads > 1:
                assert entered.wait(PATIENCE_S)
            release.set()
            raise KeyboardInterrupt
        entered.set()
        assert release.wait(PATIENCE_S)
        ran.append("first job")

    with pytest.raises(KeyboardInterrupt):
        one.run([task] * 50)
    # Whoever was inside has come out, and nobody takes another of these tasks.
    after_interrupt = len(ran)
    if threads > 1:
        assert after_interrupt >= 1
    one.run([lambda thread: ran.append("second job")] * 7)
    assert ran[after_interrupt:] == ["second job"] * 7


def test_ctrl_c_while_others_work_is_passed_on_only_when_they_are_done(pool):
    one, finished = pool(3), []
    inside, raising = threading.Barrier(3), threading.Event()

    def task(thread):
        inside.wait(PATIENCE_S)
        if thread == 0:
            raising.set()
            raise KeyboardInterrupt
        assert raising.wait(PATIENCE_S)
        finished.append(thread)

    with pytest.raises(KeyboardInterrupt):
        one.run([task] * 3)
    assert sorted(finished) == [1, 2]


def test_workers_are_named_daemons_and_gone_after_close():
    before = threading.enumerate()
    one = WorkerPool(4)
    workers = [thread for thread in threading.enumerate() if thread not in before]
    assert [thread.name for thread in workers] == [f"paraedge-worker-{number}" for number in (1, 2, 3)]
    assert all(thread.daemon for thread in workers)
    one.run([lambda thread: None] * 9)
    one.close()
    assert threading.enumerate() == before
    one.close()


def test_one_thread_needs_no_worker():
    before = threading.enumerate()
    one = WorkerPool(1)
    assert threading.enumerate() == before
    one.close()


def test_pools_do_not_disturb_each_other(pool):
    """Four pools at once, each in a caller's thread of its own, under a tiny switch interval."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def use(one):
        for job in range(50):
            ran = []
            one.run([lambda thread, value=value, ran=ran: ran.append(value) for value in range(5)])
            assert sorted(ran) == list(range(5)), job

    try:
        with ThreadPoolExecutor(4) as callers:
            list(callers.map(use, [pool(3) for _ in range(4)], timeout=PATIENCE_S * 2))
    finally:
        sys.setswitchinterval(interval)

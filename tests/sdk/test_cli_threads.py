"""Threads that ``train`` gives torch: by what other programs leave free."""

import pytest

from paraedge.cli import _threads
from paraedge.cli._threads import FreeCores


@pytest.fixture
def machine(monkeypatch):
    """Makes a machine of so many cores, of which others keep some busy; a second passes."""

    def make(cores, others, quota=None):
        clock = iter([10.0, 11.0])
        busy = iter([100.0, 100.0 + others + 0.5])  # half a second of it is this process's own
        own = iter([1.0, 1.5])
        monkeypatch.setattr(_threads, "core_numbers", lambda: frozenset(range(cores)))
        monkeypatch.setattr(_threads, "read_busy_s", lambda numbers: next(busy))
        monkeypatch.setattr(_threads, "read_quota_cores", lambda: quota)
        monkeypatch.setattr(_threads.time, "perf_counter", lambda: next(clock))
        monkeypatch.setattr(_threads.time, "process_time", lambda: next(own))
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        return FreeCores()

    return make


@pytest.mark.parametrize(
    ("cores", "others", "quota", "threads"),
    [
        (2, 0.0, None, 2),
        (2, 0.4, None, 2),
        (2, 0.9, None, 1),
        (2, 2.0, None, 1),
        (8, 3.0, None, 5),
        (8, 0.0, 2.0, 2),
        (8, 7.0, 4.0, 1),
        (8, 0.0, 0.5, 1),
        (64, 0.0, None, 32),  # more than torch would take by itself
    ],
)
def test_threads_are_the_cores_that_nobody_else_keeps_busy(machine, cores, others, quota, threads):
    chosen, why = machine(cores, others, quota).choose(most=min(cores, 32))
    assert chosen == threads
    assert f"{cores} core(s)" in why
    assert f"{others:.1f} busy with other programs" in why
    assert ("a quota allows" in why) == (quota is not None)


def test_who_sets_the_number_gets_it(machine, monkeypatch):
    free = machine(8, 7.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert free.choose(most=6) == (6, "OMP_NUM_THREADS is 6")


def test_nothing_is_known_of_the_machine(machine, monkeypatch):
    monkeypatch.setattr(_threads, "read_busy_s", lambda numbers: None)
    free = FreeCores()
    monkeypatch.setattr(_threads, "read_quota_cores", lambda: None)
    monkeypatch.setattr(_threads, "core_numbers", lambda: frozenset(range(4)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    free._cores = frozenset(range(4))
    assert free.choose(most=4)[0] == 4

"""Worker threads that wait to be woken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

__all__ = ["WorkerPool"]


class WorkerPool:
    """Threads that call ``work(number)`` each time they are woken; no call is lost.

    Workers are daemons parked in a queue: they cost nothing while idle, and a program that forgets
    to close its session still ends. They start when they are first woken.

    Args:
        work: called in the worker's thread with its number; must not raise.
    """

    def __init__(self, work: Callable[[int], None]) -> None:
        self._work = work
        self._workers: dict[int, tuple[threading.Thread, SimpleQueue[bool]]] = {}

    def start(self, number: int) -> None:
        """Have this worker ready. Doing it again does nothing."""
        if number in self._workers:
            return
        queue: SimpleQueue[bool] = SimpleQueue()
        thread = threading.Thread(
            target=self._serve, args=(number, queue), name=f"paraedge-worker-{number}", daemon=True
        )
        self._workers[number] = (thread, queue)
        thread.start()

    def wake(self, number: int) -> None:
        """Have this worker call ``work`` once more."""
        self.start(number)
        self._workers[number][1].put(True)

    def native_ids(self) -> list[int | None]:
        """What the operating system calls the threads."""
        return [thread.native_id for thread, _ in self._workers.values()]

    def close(self) -> None:
        """Wait for work in progress and end the threads. Calling it again does nothing."""
        for _, queue in self._workers.values():
            queue.put(False)
        for thread, _ in self._workers.values():
            thread.join()
        self._workers = {}

    def _serve(self, number: int, queue: SimpleQueue[bool]) -> None:
        while queue.get():
            self._work(number)

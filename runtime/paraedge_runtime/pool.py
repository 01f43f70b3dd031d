"""Worker threads that wait for jobs; the caller's thread takes part in each of its own jobs."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from paraedge_runtime.placement import WorkerCores

__all__ = ["WorkerPool"]

Task = Callable[[int], None]


class _Job:
    """Tasks taken one by one, in order, by whoever is free."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._waiting = deque(tasks)  # popleft is atomic
        self._unfinished = len(tasks)
        self._count_lock = threading.Lock()
        self._all_done = threading.Lock()
        self._all_done.acquire()

    def work(self, thread: int) -> None:
        """Take tasks until none waits."""
        while True:
            try:
                task = self._waiting.popleft()
            except IndexError:
                return
            try:
                task(thread)
            finally:
                with self._count_lock:
                    self._unfinished -= 1
                    if self._unfinished == 0:
                        self._all_done.release()

    def abandon(self) -> None:
        """Drop the tasks that nobody has taken yet."""
        while True:
            try:
                self._waiting.popleft()
            except IndexError:
                return
            with self._count_lock:
                self._unfinished -= 1
                if self._unfinished == 0:
                    self._all_done.release()

    def join(self) -> None:
        """Wait until every task is done; only the caller's thread does, once.

        Ctrl-C cannot cut it short, since a worker may be inside a part: it is raised after the wait.
        """
        interrupted: BaseException | None = None
        while True:
            try:
                self._all_done.acquire()
                break
            except BaseException as error:
                interrupted = error
                self.abandon()
        if interrupted is not None:
            raise interrupted


class WorkerPool:
    """``threads - 1`` workers beside the caller. One job at a time; the session's lock sees to that.

    Workers are daemons parked in a queue: they cost nothing while idle, and a program that forgets
    to close its session still ends.
    """

    def __init__(self, threads: int) -> None:
        self._queues: list[SimpleQueue[_Job | None]] = [SimpleQueue() for _ in range(threads - 1)]
        self._workers = [
            threading.Thread(target=self._serve, args=(queue, number), name=f"paraedge-worker-{number}", daemon=True)
            for number, queue in enumerate(self._queues, start=1)
        ]
        self._cores = WorkerCores(threads)
        for worker in self._workers:
            worker.start()

    @staticmethod
    def _serve(queue: SimpleQueue[_Job | None], number: int) -> None:
        while (job := queue.get()) is not None:
            job.work(number)

    def run(self, tasks: Sequence[Task]) -> None:
        """Run every task once, in parallel, and return when all are done. Tasks must not raise.

        A task is called with the number of its thread, 0 for the caller's.
        """
        if not tasks:
            return
        job = _Job(tasks)
        try:
            self._cores.move_away([worker.native_id for worker in self._workers])
            for queue in self._queues[: len(tasks) - 1]:
                queue.put(job)
            job.work(0)
        except BaseException:  # Ctrl-C in this thread: nothing of this job may run into the next one
            job.abandon()
            raise
        finally:
            job.join()

    def close(self) -> None:
        """End the workers and wait for them."""
        for queue in self._queues:
            queue.put(None)
        for worker in self._workers:
            worker.join()
        self._queues, self._workers = [], []

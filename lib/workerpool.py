"""A pool of threads that work off a queue of tasks by priority.

A task is the tuple of arguments of L{BaseWorker.RunTask}. Tasks of one priority start in the order
in which they were added; lower priorities go first. A task that can not go on now raises
L{DeferTask} and is queued again behind the others, so that no thread is parked in it.

What goes wrong in a task is logged and ends the task, never the worker.
"""

from __future__ import annotations

import heapq
import logging
from typing import Any

from . import runtime


class DeferTask(Exception):  # noqa: N818 - not an error but a way to end for now
    """Raised by a task: put me back into the queue, behind the tasks of the same priority.

    @param priority: priority to be queued with from now on; None keeps the present one
    """

    def __init__(self, priority: int | None = None) -> None:
        super().__init__(priority)
        self.priority = priority


class BaseWorker:
    """One thread of a pool; subclasses say in L{RunTask} what a task is.

    @ivar pool: the pool
    @ivar worker_id: name of the thread: the pool's name and a running number
    """

    def __init__(self, pool: WorkerPool, worker_id: str) -> None:
        self.pool = pool
        self.worker_id = worker_id
        # Fields of the pool's bookkeeping, under its mutex.
        self._terminate = False
        self._busy = False
        self._ident: int | None = None
        self._thread: runtime.ThreadHandle | None = None

    def __repr__(self) -> str:
        return f"<{self.__class__.__name__} {self.worker_id}>"

    def ShouldTerminate(self) -> bool:
        """Is the pool shrinking? Long tasks may ask and end early."""
        with self.pool._mutex:
            return self._terminate

    def HasRunningTask(self) -> bool:
        """Is the worker executing a task?"""
        with self.pool._mutex:
            return self._busy

    def RunTask(self, *args: Any) -> None:
        """Execute one task, without any lock of the pool held.

        @param args: what was given to L{WorkerPool.AddTask}
        @raise DeferTask: the task shall be queued again
        """
        raise NotImplementedError(f"{self.__class__.__name__} does not implement RunTask")


class WorkerPool:
    """Worker threads and their queue.

    The rule of the fields: all, and those of the workers, are touched with C{_mutex} held only, and
    nobody keeps it while working. Two conditions belong to it: workers wait on C{_work} for a task
    or their end; L{Quiesce} and the L{AddTask} calls it holds up wait on C{_idle} for each other
    and for the workers.

    @param name: first part of the names of the threads (C{JobQueue1}, C{JobQueue2}, ...)
    @param num_workers: number of threads started at once
    @param worker_class: subclass of L{BaseWorker}
    """

    def __init__(
        self,
        name: str,
        num_workers: int,
        worker_class: type[BaseWorker],
        runtime: runtime.Runtime = runtime.DEFAULT,
    ) -> None:
        self.name = name
        self._rt = runtime
        self._worker_class = worker_class
        self._mutex = runtime.threads.Lock()
        self._work = runtime.threads.Condition(self._mutex)
        self._idle = runtime.threads.Condition(self._mutex)
        #: Heap of (priority, running number, arguments); the number keeps the order of adding.
        self._tasks: list[tuple[int, int, tuple[Any, ...]]] = []
        self._task_count = 0
        self._workers: list[BaseWorker] = []
        self._last_worker_number = 0
        #: Number of calls of Quiesce that are waiting.
        self._quiescing = 0
        self._stat_done = 0
        self._stat_failed = 0
        self._stat_deferred = 0
        self.Resize(num_workers)

    def __repr__(self) -> str:
        return f"<WorkerPool {self.name}>"

    # Tasks

    def AddTask(self, *args: Any, priority: int = 0) -> None:
        """Queue a task.

        Waits while the pool is quiescing, except in a worker of this pool: what a running task adds
        belongs to the work that is being waited for.

        @param args: arguments for L{BaseWorker.RunTask}
        @param priority: lower goes first
        """
        with self._mutex:
            if self._CurrentWorker() is None:
                while self._quiescing:
                    self._idle.wait()
            self._Push(args, priority)

    def HasTask(self, priority: int) -> bool:
        """Is a task queued that goes before new ones of this priority, or is of it?"""
        with self._mutex:
            return bool(self._tasks) and self._tasks[0][0] <= priority

    def _CurrentWorker(self) -> BaseWorker | None:
        ident = self._rt.threads.get_ident()
        return next((worker for worker in self._workers if worker._ident == ident), None)

    def _Push(self, args: tuple[Any, ...], priority: int) -> None:
        self._task_count += 1
        heapq.heappush(self._tasks, (priority, self._task_count, args))
        self._work.notify()

    def _IsIdle(self) -> bool:
        return not self._tasks and not any(worker._busy for worker in self._workers)

    def Quiesce(self) -> None:
        """Wait until no task is queued or running; other threads' new tasks wait meanwhile.

        Without any worker, queued tasks are waited for until somebody resizes the pool.

        @raise AssertionError: called by a task of this pool, which would wait for itself
        """
        with self._mutex:
            self._RefuseOwnWorkers("wait for all tasks")
            self._quiescing += 1
            try:
                while not self._IsIdle():
                    self._idle.wait()
            finally:
                self._quiescing -= 1
                self._idle.notify_all()

    # Threads

    def Resize(self, num_workers: int) -> None:
        """Change the number of threads.

        Growing starts threads. Shrinking is possible only to 0: tasks being executed are finished,
        queued ones are left alone until there are workers again.

        @raise NotImplementedError: shrinking to another number than 0
        @raise AssertionError: shrinking in a task of this pool, or a thread survived its end
        """
        with self._mutex:
            current = sum(not worker._terminate for worker in self._workers)
            if num_workers > 0:
                if num_workers < current:
                    raise NotImplementedError(
                        f"{self!r}: can not shrink from {current} to {num_workers} workers,"
                        " only to 0"
                    )
                self._StartWorkers(num_workers - current)
                return
            self._RefuseOwnWorkers("end all workers")
            # Also those that somebody else is ending: whoever asks for 0 waits for 0.
            ending = list(self._workers)
            for worker in ending:
                worker._terminate = True
            self._work.notify_all()
        self._Join(ending)

    def _StartWorkers(self, count: int) -> None:
        for _ in range(count):
            self._last_worker_number += 1
            worker = self._worker_class(self, f"{self.name}{self._last_worker_number}")
            worker._thread = self._rt.threads.start(
                self._RunWorker, (worker,), name=worker.worker_id
            )
            self._workers.append(worker)

    def _Join(self, workers: list[BaseWorker]) -> None:
        for worker in workers:
            if worker._thread is not None:
                worker._thread.join()
                if worker._thread.is_alive():
                    raise AssertionError(f"{worker!r} survived its end")
        with self._mutex:
            self._workers = [worker for worker in self._workers if worker not in workers]
            self._idle.notify_all()

    def _RefuseOwnWorkers(self, action: str) -> None:
        worker = self._CurrentWorker()
        if worker is not None:
            raise AssertionError(f"{worker!r} can not {action}: it would wait for itself")

    def TerminateWorkers(self) -> None:
        """End all threads; running tasks are finished, queued ones are dropped."""
        self.Resize(0)
        with self._mutex:
            if self._tasks:
                logging.info("%s: dropping %d queued tasks", self.name, len(self._tasks))
            self._tasks.clear()
            self._idle.notify_all()

    # What a worker thread does

    def _RunWorker(self, worker: BaseWorker) -> None:
        with self._mutex:
            worker._ident = self._rt.threads.get_ident()
        while True:
            task = self._NextTask(worker)
            if task is None:
                break
            self._RunTask(worker, *task)
        with self._mutex:
            # The identity may belong to another thread soon.
            worker._ident = None

    def _NextTask(self, worker: BaseWorker) -> tuple[int, tuple[Any, ...]] | None:
        """Wait for a task and mark the worker busy; None if the worker shall end."""
        with self._mutex:
            while not worker._terminate:
                if self._tasks:
                    priority, _, args = heapq.heappop(self._tasks)
                    worker._busy = True
                    return priority, args
                self._work.wait()
            return None

    def _RunTask(self, worker: BaseWorker, priority: int, args: tuple[Any, ...]) -> None:
        deferred: DeferTask | None = None
        failed = False
        try:
            worker.RunTask(*args)
        except DeferTask as err:
            deferred = err
        except (Exception, SystemExit):  # noqa: BLE001 - the boundary of a worker thread
            failed = True
            logging.exception("%s: a task failed", worker.worker_id)
        with self._mutex:
            worker._busy = False
            if deferred is not None:
                self._stat_deferred += 1
                self._Push(args, priority if deferred.priority is None else deferred.priority)
            else:
                self._stat_done += not failed
                self._stat_failed += failed
            if self._IsIdle():
                self._idle.notify_all()

    def GetStatistics(self) -> dict[str, int]:
        """Workers, busy ones, queued tasks; counts of tasks done, failed and deferred so far."""
        with self._mutex:
            return {
                "workers": len(self._workers),
                "running": sum(worker._busy for worker in self._workers),
                "queued": len(self._tasks),
                "done": self._stat_done,
                "failed": self._stat_failed,
                "deferred": self._stat_deferred,
            }

"""Who waits for changes of which job.

A waiting client is a callback in a list: a thousand of them cost no thread (JQ3), and a change
reaches them at once (JQ4).
"""

from __future__ import annotations

from collections.abc import Callable

from .. import runtime

#: Told of a change, in any thread; must return at once.
Listener = Callable[[], None]


class ChangeListeners:
    """Callbacks by job.

    The rule of the field: under a mutex of its own, which is not held while they are called.
    """

    def __init__(self, rt: runtime.Runtime) -> None:
        self._mutex = rt.threads.Lock()
        self._by_job: dict[int, list[Listener]] = {}

    def Add(self, job_id: int, fn: Listener) -> None:
        """Call this at every change of a job."""
        with self._mutex:
            self._by_job.setdefault(job_id, []).append(fn)

    def Remove(self, job_id: int, fn: Listener) -> None:
        """Undo L{Add}; a call may still be under way."""
        with self._mutex:
            listeners = self._by_job.get(job_id, [])
            if fn in listeners:
                listeners.remove(fn)
            if not listeners:
                self._by_job.pop(job_id, None)

    def Notify(self, job_id: int) -> None:
        """A job has changed."""
        with self._mutex:
            listeners = list(self._by_job.get(job_id, ()))
        for fn in listeners:
            fn()

    def Count(self) -> int:
        """How many callbacks there are."""
        with self._mutex:
            return sum(len(listeners) for listeners in self._by_job.values())

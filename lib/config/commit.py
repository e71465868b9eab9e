"""Group commit: whoever asks while a run is under way shares the next one.

A run is a slow action on behalf of all who joined before it began (a synced write, a round of calls
to nodes). The first who finds nobody running does it for everybody; so no thread is needed, a lone
caller waits for nothing, and a hundred callers cost two runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ..runtime import Condition

_R = TypeVar("_R")


class Batch(Generic[_R]):
    """One run, to come or done; all fields under the lock of its L{Batcher}."""

    def __init__(self) -> None:
        self.members = 0
        self.done = False
        self.result: _R | None = None
        self.error: Exception | None = None


class Batcher(Generic[_R]):
    """Runs an action, each time for all who joined since the last run began.

    Invariant: at most one run at a time; a batch begins once and its members all see its outcome.

    @param cond: condition of the caller's own mutex; members join under it
    @param action: the run; called without the mutex
    @param on_error: called with the mutex held when a run failed. Members that joined the batch
        after it fail with it: what they built on is gone.
    """

    def __init__(
        self,
        cond: Condition,
        action: Callable[[], _R],
        on_error: Callable[[], None] | None = None,
    ) -> None:
        self._cond = cond
        self._action = action
        self._on_error = on_error
        self._next: Batch[_R] = Batch()
        self._running: Batch[_R] | None = None
        self._runs = 0
        self._served = 0

    def Join(self) -> Batch[_R]:
        """Be a member of the next run. The caller holds the mutex, and calls L{Wait} without it."""
        self._next.members += 1
        return self._next

    def Wait(self, batch: Batch[_R]) -> _R:
        """Return what the run of this batch returned, or raise what it raised.

        Does the run, if nobody else does.
        """
        with self._cond:
            while not batch.done:
                if self._running is None:
                    self._running = batch
                    self._next = Batch()
                    break
                self._cond.wait()
        if not batch.done:
            self._Run(batch)
        if batch.error is not None:
            # The traceback of one exception must not grow with every member that raises it.
            raise batch.error.with_traceback(None)
        return batch.result  # type: ignore[return-value]

    def _Run(self, batch: Batch[_R]) -> None:
        error: Exception | None = None
        try:
            batch.result = self._action()
        except Exception as err:  # noqa: BLE001 - raised again by every member
            error = err
        except BaseException:
            self._Finish(batch, RuntimeError("The run was interrupted"))
            raise
        self._Finish(batch, error)

    def _Finish(self, batch: Batch[_R], error: Exception | None) -> None:
        with self._cond:
            batch.error = error
            batch.done = True
            self._running = None
            self._runs += 1
            self._served += batch.members
            if error is not None and self._on_error is not None:
                self._on_error()
                later, self._next = self._next, Batch()
                later.error = error
                later.done = True
            self._cond.notify_all()

    def GetStatistics(self) -> dict[str, int]:
        """Runs so far, and for how many members; the caller holds the mutex."""
        return {"runs": self._runs, "served": self._served}

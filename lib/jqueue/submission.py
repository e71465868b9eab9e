"""Jobs on their way into the queue: accepted or refused, each on its own, once they are safe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import errors, runtime
from . import store


class Submission:
    """Jobs on their way into the queue.

    @ivar results: for each job [True, id] or [False, error text]; valid when it is done
    """

    def __init__(self, count: int, rt: runtime.Runtime) -> None:
        self.results: list[list[Any]] = [[False, ""] for _ in range(count)]
        #: The error of each job that was refused.
        self.errors: list[errors.GenericError | None] = [None] * count
        self._done = store.Ticket(rt)

    def Refuse(self, index: int, err: errors.GenericError) -> None:
        """Job number index of the batch is not accepted."""
        self.results[index] = [False, errors.FormatError(err)]
        self.errors[index] = err

    def Finish(self) -> None:
        """All of them are safe, or refused."""
        self._done.Finish()

    def AddDoneCallback(self, fn: Callable[[], None]) -> None:
        """Call this, in any thread, when the fate of all jobs is known."""
        self._done.AddDoneCallback(fn)

    def Wait(self) -> list[list[Any]]:
        """The results, as soon as they are known."""
        self._done.Wait()
        return self.results

    def GetSingle(self) -> str:
        """Id of the only job.

        @raise errors.GenericError: why it was refused
        """
        err = self.errors[0]
        if err is not None:
            raise err
        job_id: str = self.results[0][1]
        return job_id

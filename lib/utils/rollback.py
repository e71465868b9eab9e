"""Undoing what was done, when a later step fails.

Steps are registered as they succeed, run in reverse on failure and forgotten on success::

    with Rollback(feedback_fn) as undo:
        MakeDisk()
        undo.Add("remove the disk", RemoveDisk)
        StartInstance()
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType


class Rollback:
    """Context manager that undoes its registered steps if the block ends in an exception.

    A step of undoing that fails is reported and does not keep the others from running.
    """

    def __init__(self, feedback_fn: Callable[[str], object] | None = None) -> None:
        """@param feedback_fn: told what is undone, and what could not be"""
        self._feedback = feedback_fn or (lambda _: None)
        self._steps: list[tuple[str, Callable[..., object], tuple[Any, ...]]] = []

    def Add(self, what: str, fn: Callable[..., object], *args: Any) -> None:
        """Register how to undo what was just done.

        @param what: the step in words, e.g. "remove the disk"
        """
        self._steps.append((what, fn, args))

    def Commit(self) -> None:
        """From here on there is no way back: forget all steps."""
        self._steps.clear()

    def __enter__(self) -> Rollback:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if exc is None:
            return
        while self._steps:
            what, fn, args = self._steps.pop()
            self._feedback(f"Undoing: {what}")
            try:
                fn(*args)
            except Exception as err:  # noqa: BLE001 - the first error is the one to report
                logging.exception("Could not undo: %s", what)
                self._feedback(f"Could not undo ({what}): {err}")

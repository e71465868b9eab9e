"""Small things around locks: a budget of time, a decorator, and the label of an owner."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ParamSpec, Protocol, TypeVar

from .. import runtime

P = ParamSpec("P")
R = TypeVar("R")

# A context variable is the thread's own: every thread starts without one, and it goes away with its
# thread, so that a reused thread identity never inherits the label of a dead thread.
_owner_label: ContextVar[str | None] = ContextVar("ganeti_lock_owner", default=None)


class _Synchronizable(Protocol):
    """What L{ssynchronized} needs of a lock; a plain mutex will do for exclusive use."""

    acquire: Callable[..., Any]
    release: Callable[..., Any]


def SetOwnerLabel(text: str | None) -> None:
    """Name the current thread's work (C{Job 12/OP_INSTANCE_CREATE}) in the lists of lock owners.

    Counts for locks acquired and queued for from now on; C{None} goes back to the thread's name.
    """
    _owner_label.set(text)


def GetOwnerLabel(rt: runtime.Runtime = runtime.DEFAULT) -> str:
    """The label of the current thread: the one set last, else the thread's name."""
    return _owner_label.get() or rt.threads.current_name()


def ssynchronized(
    lock: _Synchronizable | str, shared: int = 0
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator factory: run the function while holding a lock.

    @param lock: the lock, or the name of the attribute of the method's C{self} that holds it
    @param shared: true = shared, false = exclusive (the only mode of a plain mutex)
    """

    def _Decorate(fn: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(fn)
        def _Locked(*args: P.args, **kwargs: P.kwargs) -> R:
            real: Any = getattr(args[0], lock) if isinstance(lock, str) else lock
            if shared:
                real.acquire(shared=shared)
            else:
                real.acquire()
            try:
                return fn(*args, **kwargs)
            finally:
                real.release()

        return _Locked

    return _Decorate


class RunningTimeout:
    """The remaining time of one budget that spans several operations.

    The clock starts with the first question for the remaining time, not at construction.

    @param timeout: seconds; C{None} = no limit
    @param allow_negative: count below zero once the budget is used up, instead of staying at 0.0
    @raise ValueError: the budget is negative
    """

    __slots__ = ("_allow_negative", "_end", "_time_fn", "_timeout")

    def __init__(
        self,
        timeout: float | None,
        allow_negative: bool,
        _time_fn: Callable[[], float] = runtime.DEFAULT.clock.monotonic,
    ) -> None:
        if timeout is not None and timeout < 0.0:
            raise ValueError(f"Timeout must not be negative, got {timeout!r}")
        self._timeout = timeout
        self._allow_negative = allow_negative
        self._time_fn = _time_fn
        self._end: float | None = None

    def Remaining(self) -> float | None:
        """Seconds left, C{None} without a limit."""
        if self._timeout is None:
            return None
        if self._end is None:
            self._end = self._time_fn() + self._timeout
            return self._timeout
        left = self._end - self._time_fn()
        return left if self._allow_negative else max(0.0, left)

"""Condition variables with group notification only, in two makes with one contract.

L{PipeCondition} is the one of the 2.1 design: waiters sleep in poll(2) on the read end of a pipe,
and a notification closes the write end, which wakes all of them at once. Its reason is gone:
Python 2 implemented C{Condition.wait(timeout)} by polling in short steps, Python 3 waits in the
operating system. L{CountingCondition} is a plain condition plus the count of its waiters and is
what L{SharedLock<ganeti.locking.SharedLock>} waits on: it is the faster one in the common cases
(test/bench/bench_conditions.py, doc/decisions/0003-condition-variable.md) and needs no file
descriptors.

The common contract:

- all calls but C{_is_owned} need the mutex held; C{wait} and C{notifyAll} raise RuntimeError if it
  is not. "Held" means held by anybody: a plain mutex does not know its owner;
- C{wait(timeout=None)} gives the mutex back, sleeps until notified or until C{timeout} seconds are
  over, takes the mutex again and returns None either way: the caller looks for itself whether
  anything changed. As with any condition, waking up proves nothing;
- there is no notification of a single waiter.
"""

from __future__ import annotations

import math
import os
import select
from typing import Final, Protocol

from .. import runtime

#: poll(2) takes a C int of milliseconds.
_MAX_POLL_MS: Final = 2**31 - 1


class GroupCondition(Protocol):
    """The contract in the module's docstring."""

    def wait(self, timeout: float | None = None) -> None:
        """Sleep until notified or for that many seconds."""

    def notifyAll(self) -> None:
        """Wake everybody who waits now."""


class _BaseCondition:
    """The mutex of a condition and the checks on it."""

    __slots__ = ("_lock", "acquire", "release")

    def __init__(self, lock: runtime.Lock) -> None:
        # A recursive lock can be held several times over; releasing it once before sleeping would
        # keep it, and no notification could ever arrive.
        if hasattr(lock, "_release_save") or hasattr(lock, "_acquire_restore"):
            raise AssertionError("A condition needs a plain mutex, not a recursive lock")
        self._lock = lock
        self.acquire = lock.acquire
        self.release = lock.release

    def _is_owned(self) -> bool:
        """Is the mutex held (by anybody)?"""
        return self._lock.locked()

    def _CheckOwned(self) -> None:
        if not self._lock.locked():
            raise RuntimeError("A condition was used without holding its mutex")


class SingleNotifyPipeCondition(_BaseCondition):
    """A condition that can be notified exactly once.

    Any number of waits (also again after one that timed out), then one notification; after that
    neither a wait nor a second notification is possible (RuntimeError).

    Works on pipes and poll(2) directly and not through the runtime object: pipes are what this
    class is about. Only the clock comes from the runtime. The pipe exists while somebody waits. Its
    descriptors are close-on-exec; a process that was only forked holds a copy of the write end
    and so hides the notification until it ends, one more reason why this is not the default.
    """

    __slots__ = ("_monotonic", "_nwaiters", "_notified", "_read_fd", "_write_fd")

    def __init__(self, lock: runtime.Lock, rt: runtime.Runtime = runtime.DEFAULT) -> None:
        super().__init__(lock)
        self._monotonic = rt.clock.monotonic
        self._notified = False
        self._nwaiters = 0
        self._read_fd: int | None = None
        self._write_fd: int | None = None

    def _CheckUnnotified(self) -> None:
        if self._notified:
            raise RuntimeError("A condition for a single notification was notified already")

    def wait(self, timeout: float | None = None) -> None:
        """Sleep until notified or for that many seconds; 0 looks once."""
        self._CheckOwned()
        self._CheckUnnotified()
        if self._read_fd is None:
            self._read_fd, self._write_fd = os.pipe()
        self._nwaiters += 1
        try:
            # A poll object of its own for each waiter: one can not be polled by two threads.
            poller = select.poll()
            poller.register(self._read_fd, select.POLLHUP)
            self.release()
            try:
                self._Poll(poller, timeout)
            finally:
                self.acquire()
        finally:
            self._nwaiters -= 1
            if self._nwaiters == 0:
                self._Cleanup()

    def _Poll(self, poller: select.poll, timeout: float | None) -> None:
        """Wait for the hang-up. EINTR is not seen here: Python restarts poll by itself."""
        if timeout is None:
            while not poller.poll():
                pass
            return
        end = self._monotonic() + timeout
        left = timeout
        while True:
            # Rounded up: rounding down would spin through the last millisecond.
            wait_ms = min(max(0, math.ceil(left * 1000)), _MAX_POLL_MS)
            if poller.poll(wait_ms):
                return
            left = end - self._monotonic()
            if left <= 0:
                return

    def notifyAll(self) -> None:
        """Wake everybody who waits, once and for all."""
        self._CheckOwned()
        self._CheckUnnotified()
        self._notified = True
        if self._write_fd is not None:
            os.close(self._write_fd)
            self._write_fd = None

    def _Cleanup(self) -> None:
        """The last waiter has left: close what is still open."""
        for fd in (self._read_fd, self._write_fd):
            if fd is not None:
                os.close(fd)
        self._read_fd = self._write_fd = None


class PipeCondition(_BaseCondition):
    """A reusable condition made of single-notification ones, which knows whether somebody waits.

    Each notification ends one generation of waiters: whoever begins to wait after it is not
    woken by it.
    """

    __slots__ = ("_nwaiters", "_rt", "_single")

    def __init__(self, lock: runtime.Lock, rt: runtime.Runtime = runtime.DEFAULT) -> None:
        super().__init__(lock)
        self._rt = rt
        self._single = SingleNotifyPipeCondition(lock, rt)
        #: Waiters of all generations, also those notified that did not get the mutex back yet.
        self._nwaiters = 0

    def wait(self, timeout: float | None = None) -> None:
        """Sleep until notified or for that many seconds; 0 looks once."""
        self._CheckOwned()
        self._nwaiters += 1
        try:
            self._single.wait(timeout)
        finally:
            self._nwaiters -= 1

    def notifyAll(self) -> None:
        """Wake everybody who waits now."""
        self._CheckOwned()
        self._single.notifyAll()
        self._single = SingleNotifyPipeCondition(self._lock, self._rt)

    def has_waiting(self) -> bool:
        """Is anybody still inside C{wait}, notified or not?"""
        self._CheckOwned()
        return self._nwaiters > 0


class CountingCondition(_BaseCondition):
    """The platform's own condition variable, plus the count of those inside C{wait}."""

    __slots__ = ("_condition", "_nwaiters")

    def __init__(self, lock: runtime.Lock, rt: runtime.Runtime = runtime.DEFAULT) -> None:
        super().__init__(lock)
        self._condition = rt.threads.Condition(lock)
        self._nwaiters = 0

    def wait(self, timeout: float | None = None) -> None:
        """Sleep until notified or for that many seconds; 0 looks once."""
        self._CheckOwned()
        self._nwaiters += 1
        try:
            self._condition.wait(timeout)
        finally:
            self._nwaiters -= 1

    def notifyAll(self) -> None:
        """Wake everybody who waits now."""
        self._CheckOwned()
        self._condition.notify_all()

    def has_waiting(self) -> bool:
        """Is anybody still inside C{wait}, notified or not?"""
        self._CheckOwned()
        return self._nwaiters > 0

"""One reader/writer lock with a single queue (design: Locking improvements, SharedLock redesign).

What waits is queued in one place. An exclusive acquire gets an entry of its own; shared acquires
that come one after the other share one. There are two entries for shared acquires, and they take
turns: new sharers join the I{active} one until it is notified, from then on the other. So a
sharer passes the exclusive acquires queued behind its group, and a stream of sharers can still not
starve an exclusive acquire. No queue is longer than 2 + (waiting exclusive acquires).

With priorities there is one such queue for each priority in use; the queue of the lowest number
goes first.

Who may run is decided by the waiters themselves: nothing is handed over. The one duty of everybody
who changes the holders or the queue is L{SharedLock._NotifyHead}: whenever the first entry can run,
it has been notified. In particular a waiter that gives up wakes the entry behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypedDict

from .. import errors, runtime
from .conditions import CountingCondition, GroupCondition
from .helpers import GetOwnerLabel, RunningTimeout

EXCLUSIVE: Final = "exclusive"
SHARED: Final = "shared"

#: Shorter time-outs (seconds) try once instead of going to sleep: the entry in the queue and the
#: two switches of threads cost more than can be gained.
_MIN_WAIT: Final = 0.001

#: Makes the condition variable for a mutex.
ConditionFactory = Callable[[runtime.Lock, runtime.Runtime], GroupCondition]


class LockInfo(TypedDict):
    """Who holds a lock and who waits for it, at one moment."""

    #: Name of the lock, C{""} if it has none.
    name: str
    #: C{exclusive}, C{shared}, or None while nobody holds it.
    mode: str | None
    #: Labels of the holders, sorted.
    owners: list[str]
    #: For each entry of the queue, first one first: wanted mode, labels of the waiters in order of
    #: their arrival, wall-clock time at which the first of them began to wait.
    pending: list[tuple[str, list[str], float]]


@dataclass(slots=True)
class _Waiter:
    label: str
    #: Wall-clock time, for display only.
    since: float


class _Entry:
    """A place in the queue: those who wait for the same thing and are woken together."""

    __slots__ = ("condition", "shared", "waiters")

    def __init__(self, condition: GroupCondition, shared: bool) -> None:
        self.condition = condition
        self.shared = shared
        #: By thread identity; includes the notified who did not get the mutex back yet.
        self.waiters: dict[int, _Waiter] = {}


class _Queue:
    """The waiting entries of one priority.

    Invariant: the inactive shared entry, if queued, stands before the active one; waiters only ever
    join the active one.
    """

    __slots__ = ("_new_entry", "active", "entries", "inactive")

    def __init__(self, new_entry: Callable[[bool], _Entry]) -> None:
        self._new_entry = new_entry
        self.entries: list[_Entry] = []
        self.active = new_entry(True)
        self.inactive = new_entry(True)

    def Join(self, shared: bool) -> _Entry:
        """The entry in which a new acquire of that mode has to wait."""
        if not shared:
            entry = self._new_entry(False)
            self.entries.append(entry)
            return entry
        if self.active not in self.entries:
            self.entries.append(self.active)
        return self.active

    def Notify(self, entry: _Entry) -> None:
        """Wake an entry; sharers who come later wait for their turn in the other one."""
        entry.condition.notifyAll()
        if entry is self.active:
            self.active, self.inactive = self.inactive, self.active

    def PromoteShared(self) -> None:
        """Move the shared entries to the front, in their order."""
        self.entries.sort(key=lambda entry: not entry.shared)


class SharedLock:
    """A lock held by one thread exclusively or by several threads shared.

    Neither recursive nor upgradable; can be deleted, which every waiter learns by an error.

    The rule of the fields: all are read and written with C{_mutex} held, which nobody keeps while
    sleeping. Invariants are listed in L{_CheckInvariants}.

    @param name: for messages and the lock monitor
    @param condition: makes the condition variables the lock waits on
    """

    def __init__(
        self,
        name: str | None = None,
        runtime: runtime.Runtime = runtime.DEFAULT,
        condition: ConditionFactory = CountingCondition,
    ) -> None:
        self.name = name
        self._rt = runtime
        self._ident = runtime.threads.get_ident
        self._condition_factory = condition
        self._mutex = runtime.threads.Lock()
        self._sharers: dict[int, str] = {}
        self._exclusive: int | None = None
        self._exclusive_label = ""
        self._deleted = False
        #: Waiting threads that shall give up.
        self._interrupted: set[int] = set()
        #: By priority; a queue is here only while it has entries.
        self._queues: dict[int, _Queue] = {}
        self._stat_acquired = 0
        self._stat_waited = 0
        self._stat_timed_out = 0

    def __repr__(self) -> str:
        return f"<SharedLock {self.name or hex(id(self))}>"

    # Decisions: pure looks at the state, mutex held

    def _NewEntry(self, shared: bool) -> _Entry:
        return _Entry(self._condition_factory(self._mutex, self._rt), shared)

    def _IsHolder(self, ident: int, shared: int = -1) -> bool:
        if shared < 0:
            return ident == self._exclusive or ident in self._sharers
        if shared:
            return ident in self._sharers
        return ident == self._exclusive

    def _Compatible(self, shared: bool) -> bool:
        """Do the present holders allow one more of that mode?"""
        return self._exclusive is None and (shared or not self._sharers)

    def _FirstQueue(self) -> _Queue | None:
        """The queue that is served next."""
        if not self._queues:
            return None
        return self._queues[min(self._queues)]

    def _IsHead(self, entry: _Entry) -> bool:
        first = self._FirstQueue()
        return first is not None and first.entries[0] is entry

    def _CanTakeNow(self, shared: bool, priority: int) -> bool:
        """May a new acquire have the lock without queueing?

        Only if nobody is queued that goes before it, even where its mode would fit the holders.
        """
        return self._Compatible(shared) and (not self._queues or priority < min(self._queues))

    def _DeletedError(self) -> errors.LockError:
        return errors.LockError(f"Deleted lock {self.name}" if self.name else "Deleted lock")

    # Changes of the state, mutex held

    def _Take(self, ident: int, label: str, shared: bool) -> None:
        if shared:
            self._sharers[ident] = label
        else:
            self._exclusive = ident
            self._exclusive_label = label
        self._stat_acquired += 1

    def _NotifyHead(self) -> None:
        """Wake the first entry if it can run."""
        first = self._FirstQueue()
        if first is not None and self._Compatible(first.entries[0].shared):
            first.Notify(first.entries[0])

    def _Acquire(
        self,
        ident: int,
        shared: bool,
        timeout: float | None,
        priority: int,
    ) -> bool:
        if self._deleted:
            raise self._DeletedError()
        if self._IsHolder(ident):
            raise AssertionError(f"{self!r} is already held by this thread")
        label = GetOwnerLabel(self._rt)
        if self._CanTakeNow(shared, priority):
            self._Take(ident, label, shared)
            return True
        if timeout is not None and timeout < _MIN_WAIT:
            self._stat_timed_out += 1
            return False
        return self._Wait(ident, label, shared, timeout, priority)

    def _Wait(
        self, ident: int, label: str, shared: bool, timeout: float | None, priority: int
    ) -> bool:
        budget = RunningTimeout(timeout, False, self._rt.clock.monotonic)
        if priority not in self._queues:
            self._queues[priority] = _Queue(self._NewEntry)
        entry = self._queues[priority].Join(shared)
        entry.waiters[ident] = _Waiter(label, self._rt.clock.time())
        self._stat_waited += 1
        try:
            while not (self._IsHead(entry) and self._Compatible(shared)):
                remaining = budget.Remaining()
                if remaining is not None and remaining <= 0.0:
                    self._stat_timed_out += 1
                    return False
                entry.condition.wait(remaining)
                if self._deleted:
                    raise self._DeletedError()
                if ident in self._interrupted:
                    self._stat_timed_out += 1
                    return False
            self._Take(ident, label, shared)
            return True
        finally:
            self._interrupted.discard(ident)
            del entry.waiters[ident]
            # A deletion has emptied the queues by itself.
            if not entry.waiters and not self._deleted:
                self._RemoveEntry(entry, priority)

    def _RemoveEntry(self, entry: _Entry, priority: int) -> None:
        queue = self._queues[priority]
        queue.entries.remove(entry)
        if not queue.entries:
            del self._queues[priority]
        # Whoever leaves, with the lock or without, may be all that the next entry waited for.
        self._NotifyHead()

    # Public surface

    def acquire(
        self,
        shared: int = 0,
        timeout: float | None = None,
        test_notify: Callable[[], object] | None = None,
        priority: int = 0,
    ) -> bool:
        """Take the lock.

        @param shared: true = shared, false = exclusive
        @param timeout: seconds; None waits until it is there or deleted, 0 only tries
        @param test_notify: called once at the start, with the internal mutex held
        @param priority: lower goes first; acquires of one priority are served in order
        @return: True; False once the time is over
        @raise errors.LockError: the lock is deleted, or was while waiting
        @raise AssertionError: the thread holds the lock already, or the time-out is negative
        """
        self._CheckTimeout(timeout)
        with self._mutex:
            if test_notify is not None:
                test_notify()
            return self._Acquire(self._ident(), bool(shared), timeout, priority)

    def _CheckTimeout(self, timeout: float | None) -> None:
        if timeout is not None and timeout < 0:
            raise AssertionError(f"{self!r}: negative timeout {timeout!r}; use 0 to try once")

    def release(self) -> None:
        """Give the lock back.

        @raise AssertionError: the thread does not hold it
        """
        ident = self._ident()
        with self._mutex:
            if ident == self._exclusive:
                self._exclusive = None
            elif self._sharers.pop(ident, None) is None:
                raise AssertionError(f"{self!r} is not held by this thread, can not release it")
            self._NotifyHead()

    def downgrade(self) -> bool:
        """Turn exclusive ownership into shared ownership, without a moment of none.

        Sharers waiting in the queue that is served next run at once, also those behind exclusive
        acquires; those that come later do not. Nothing happens if the lock is held shared already.

        @return: True
        @raise AssertionError: the thread does not hold the lock
        """
        ident = self._ident()
        with self._mutex:
            if not self._IsHolder(ident):
                raise AssertionError(f"{self!r} is not held by this thread, can not downgrade it")
            if self._exclusive == ident:
                self._exclusive = None
                self._sharers[ident] = self._exclusive_label
                first = self._FirstQueue()
                if first is not None:
                    first.PromoteShared()
                self._NotifyHead()
        return True

    def delete(self, timeout: float | None = None, priority: int = 0) -> bool:
        """Delete the lock; all who wait for it get an error. Implies release.

        Needs exclusive ownership, which is acquired if the thread does not have it.

        @param timeout: seconds for acquiring, as in L{acquire}
        @return: True; False if the lock could not be had in time (it stays as it was)
        @raise errors.LockError: the lock is deleted, or was while waiting
        @raise AssertionError: the thread holds the lock shared, or the time-out is negative
        """
        self._CheckTimeout(timeout)
        ident = self._ident()
        with self._mutex:
            if ident in self._sharers:
                raise AssertionError(f"{self!r} is held shared by this thread, can not delete it")
            if ident != self._exclusive and not self._Acquire(ident, False, timeout, priority):
                return False
            self._deleted = True
            self._exclusive = None
            for queue in self._queues.values():
                for entry in queue.entries:
                    entry.condition.notifyAll()
            self._queues.clear()
        return True

    def interrupt(self, ident: int) -> bool:
        """Let a thread that waits for the lock give up, as if its time were over.

        @param ident: the thread
        @return: whether it waits
        """
        with self._mutex:
            for queue in self._queues.values():
                for entry in queue.entries:
                    if ident in entry.waiters:
                        self._interrupted.add(ident)
                        # The others in this entry see that nothing has changed for them.
                        entry.condition.notifyAll()
                        return True
        return False

    def is_owned(self, shared: int = -1) -> bool:
        """Does the current thread hold the lock?

        @param shared: -1 = in any mode, 0 = exclusively, 1 = shared
        """
        with self._mutex:
            return self._IsHolder(self._ident(), shared)

    _is_owned = is_owned

    def _count_pending(self) -> int:
        """Number of entries in the queue."""
        with self._mutex:
            return sum(len(queue.entries) for queue in self._queues.values())

    def GetInfo(self) -> LockInfo:
        """Holders and waiters, for the lock monitor."""
        with self._mutex:
            if self._exclusive is not None:
                mode: str | None = EXCLUSIVE
                owners = [self._exclusive_label]
            else:
                mode = SHARED if self._sharers else None
                owners = sorted(self._sharers.values())
            pending = []
            for priority in sorted(self._queues):
                for entry in self._queues[priority].entries:
                    waiters = list(entry.waiters.values())
                    labels = [waiter.label for waiter in waiters]
                    since = min(waiter.since for waiter in waiters)
                    pending.append((SHARED if entry.shared else EXCLUSIVE, labels, since))
        return LockInfo(name=self.name or "", mode=mode, owners=owners, pending=pending)

    def GetStatistics(self) -> dict[str, int]:
        """Counts since the lock was made: acquired, had to wait, gave up for lack of time."""
        with self._mutex:
            return {
                "acquired": self._stat_acquired,
                "waited": self._stat_waited,
                "timed_out": self._stat_timed_out,
            }

    def _CheckInvariants(self) -> None:
        """Raise AssertionError if the state is not one that can be; for tests, mutex held."""
        problems = []
        if self._exclusive is not None and self._sharers:
            problems.append("exclusive holder together with sharers")
        if self._deleted and (self._exclusive is not None or self._sharers or self._queues):
            problems.append("deleted, but held or waited for")
        for priority, queue in self._queues.items():
            entries = queue.entries
            if not entries:
                problems.append(f"empty queue of priority {priority}")
            if any(not entry.waiters for entry in entries):
                problems.append("an entry that nobody waits in")
            exclusive = [entry for entry in entries if not entry.shared]
            if any(len(entry.waiters) != 1 for entry in exclusive):
                problems.append("exclusive acquires sharing an entry")
            if len(entries) > 2 + len(exclusive):
                problems.append("queue longer than 2 + waiting exclusive acquires")
            shared = [entry for entry in entries if entry.shared]
            if any(entry not in (queue.active, queue.inactive) for entry in shared):
                problems.append("a shared entry that is neither active nor inactive")
            if len(shared) == 2 and shared[0] is queue.active:
                problems.append("the active shared entry stands before the inactive one")
        if problems:
            raise AssertionError(f"{self!r}: " + "; ".join(problems))

"""A named set of locks that are acquired together or not at all.

Members are always acquired in alphabetic order, so that two threads that want the same members can
not wait for each other. For the same reason a thread may hold something in a set only through
I{one} acquire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from .. import errors, runtime
from .helpers import RunningTimeout
from .sharedlock import LockInfo, SharedLock

#: In place of a list of names: all members of the set.
ALL_SET: Final = None

#: How the set-lock of a set is shown in the lock monitor; no member can have this name.
SET_LOCK_NAME: Final = "[lockset]"


def _NameList(names: str | Iterable[str]) -> list[str]:
    """A single name or several, without repetitions, in the order given."""
    return [names] if isinstance(names, str) else list(dict.fromkeys(names))


class _Missed(Exception):  # noqa: N818 - not an error: how a try to acquire a set ends early
    """A member was not to be had in time."""


class LockSet:
    """A set of named L{SharedLock}s that can be acquired, added and removed.

    One more lock, the I{set-lock}, protects the set of names: C{add} needs it exclusively, and who
    acquires C{ALL_SET} holds it in the wanted mode. Acquiring explicit names does not touch it, so
    adding others goes on in parallel; removing goes on even while others hold it.

    The rule of the fields: C{_locks} is read and written with C{_table_mutex} held, for moments
    only. In C{_owned} each thread touches only its own key.

    @param members: names to begin with
    @param name: name of the set, first part of the names of its locks in messages and the monitor
    """

    def __init__(
        self,
        members: Iterable[str] | None = None,
        name: str | None = None,
        runtime: runtime.Runtime = runtime.DEFAULT,
    ) -> None:
        self.name = name
        self._rt = runtime
        self._ident = runtime.threads.get_ident
        self._set_lock = self._NewLock(SET_LOCK_NAME)
        self._table_mutex = runtime.threads.Lock()
        self._locks = {member: self._NewLock(member) for member in members or ()}
        #: Names held, by thread. A thread that holds only the set-lock has an empty set.
        self._owned: dict[int, set[str]] = {}

    def __repr__(self) -> str:
        return f"<LockSet {self.name or hex(id(self))}>"

    def _NewLock(self, member: str) -> SharedLock:
        return SharedLock(f"{self.name}/{member}" if self.name else member, runtime=self._rt)

    # The table of names

    def _Snapshot(self) -> dict[str, SharedLock]:
        with self._table_mutex:
            return dict(self._locks)

    def _Lookup(self, names: list[str]) -> list[tuple[str, SharedLock]]:
        """The locks of these names, all of which must exist."""
        with self._table_mutex:
            missing = [name for name in names if name not in self._locks]
            if missing:
                raise self._UnknownError(missing)
            return [(name, self._locks[name]) for name in names]

    def _UnknownError(self, names: Iterable[str]) -> errors.LockError:
        where = f" {self.name}" if self.name else ""
        return errors.LockError(f"Non-existing lock in set{where} ({', '.join(names)})")

    # Ownership

    def _is_owned(self) -> bool:
        """Does the current thread hold anything here, be it only the set-lock?"""
        return self._ident() in self._owned

    is_owned = _is_owned

    def _list_owned(self) -> set[str]:
        """Names of the members that the current thread holds; a copy."""
        return set(self._owned.get(self._ident(), ()))

    list_owned = _list_owned

    def check_owned(self, names: str | Iterable[str], shared: int = -1) -> bool:
        """Does the current thread hold all of these members in that mode?

        @param shared: -1 = in any mode, 0 = exclusively, 1 = shared
        """
        wanted = _NameList(names)
        if not self._list_owned().issuperset(wanted):
            return False
        return all(lock.is_owned(shared) for _, lock in self._Lookup(wanted))

    def _names(self) -> set[str]:
        """Names of all members.

        Takes the set-lock shared unless the thread has it: waits for a running C{add} and for
        exclusive holders of C{ALL_SET}.
        """
        if self._set_lock.is_owned():
            return set(self._Snapshot())
        # Whom an interruption is for waits in acquire() or add(); this here is for moments.
        while not self._set_lock.acquire(shared=1):
            pass
        try:
            return set(self._Snapshot())
        finally:
            self._set_lock.release()

    # Acquire and release

    def acquire(
        self,
        names: str | Iterable[str] | None,
        timeout: float | None = None,
        shared: int = 0,
        test_notify: Callable[[str], object] | None = None,
        priority: int = 0,
        opportunistic: bool = False,
        opportunistic_count: int | None = None,
    ) -> set[str] | None:
        """Acquire members, all or none of them.

        @param names: a name, several, or L{ALL_SET}
        @param timeout: seconds for the whole call; None waits as long as it takes, 0 only tries
        @param shared: true = shared, false = exclusive; with C{ALL_SET} also for the set-lock
        @param test_notify: called with a member's name when the acquire of that member starts
        @param priority: as in L{SharedLock.acquire}
        @param opportunistic: take the members that are free now and leave out the others; the
            time-out then counts for the set-lock only
        @param opportunistic_count: with fewer members than this, an opportunistic acquire gives
            all back and ends as if out of time
        @return: names acquired; None if the time was over, then nothing is held. The members
            with C{ALL_SET} are those that exist once the set-lock was had; the result may be
            empty, and the thread still is an owner. After an empty list of names it is not.
        @raise errors.LockError: a name is unknown or was removed meanwhile; nothing is held
        @raise AssertionError: the thread holds something here already, or a negative time-out
        """
        ident = self._ident()
        if ident in self._owned:
            raise AssertionError(f"{self!r}: this thread owns locks of the set already")
        if timeout is not None and timeout < 0:
            raise AssertionError(f"{self!r}: negative timeout {timeout!r}; use 0 to try once")
        budget = RunningTimeout(timeout, False, self._rt.clock.monotonic)
        want_all = names is None
        wanted: list[tuple[str, SharedLock]] = []
        if names is not None:
            wanted = self._Lookup(sorted(_NameList(names)))
            if not wanted:
                return set()
        try:
            if want_all:
                if not self._set_lock.acquire(shared, budget.Remaining(), priority=priority):
                    raise _Missed
                wanted = sorted(self._Snapshot().items())
            acquired = self._AcquireMembers(
                wanted, budget, shared, test_notify, priority, opportunistic, want_all
            )
            if opportunistic and len(acquired) < (opportunistic_count or 0):
                raise _Missed
        except BaseException as err:
            # Asks the locks themselves what was taken: also right after an asynchronous exception
            # that hit between an acquire and its booking.
            for _, lock in wanted:
                if lock.is_owned():
                    lock.release()
            if self._set_lock.is_owned():
                self._set_lock.release()
            if isinstance(err, _Missed):
                return None
            raise
        if acquired or want_all:
            self._owned[ident] = acquired
        return set(acquired)

    def _AcquireMembers(
        self,
        wanted: list[tuple[str, SharedLock]],
        budget: RunningTimeout,
        shared: int,
        test_notify: Callable[[str], object] | None,
        priority: int,
        opportunistic: bool,
        skip_removed: bool,
    ) -> set[str]:
        acquired = set()
        for name, lock in wanted:
            notify = None if test_notify is None else _Bind(test_notify, name)
            remaining = 0.0 if opportunistic else budget.Remaining()
            try:
                got = lock.acquire(shared, remaining, test_notify=notify, priority=priority)
            except errors.LockError:
                if skip_removed:
                    continue
                raise self._UnknownError([name]) from None
            if got:
                acquired.add(name)
            elif not opportunistic:
                raise _Missed
        return acquired

    def _OwnedNames(self, names: str | Iterable[str] | None, action: str) -> list[str]:
        """The given names, or all that are held; the thread must hold each of them."""
        owned = self._owned.get(self._ident())
        if owned is None:
            raise AssertionError(f"{self!r}: this thread holds nothing here, can not {action}")
        if names is None:
            return sorted(owned)
        wanted = _NameList(names)
        foreign = sorted(set(wanted) - owned)
        if foreign:
            raise AssertionError(
                f"{self!r}: this thread does not hold {', '.join(foreign)}, can not {action}"
            )
        return wanted

    def release(self, names: str | Iterable[str] | None = None) -> None:
        """Give members back.

        The set-lock, if held, goes first and whatever the names: after any partial release, even
        one of an empty list, others can add members again.

        @param names: a name, several, or None for everything held here
        @raise AssertionError: the thread does not hold all of them, or nothing at all
        """
        released = self._Lookup(self._OwnedNames(names, "release"))
        if self._set_lock.is_owned():
            self._set_lock.release()
        ident = self._ident()
        owned = self._owned[ident]
        for name, lock in released:
            lock.release()
            owned.discard(name)
        if not owned:
            del self._owned[ident]

    def downgrade(self, names: str | Iterable[str] | None = None) -> bool:
        """Turn exclusive ownership into shared ownership (L{SharedLock.downgrade}).

        The set-lock follows once no member is held exclusively any more.

        @param names: a name, several, or None for everything held here
        @return: True
        @raise AssertionError: the thread does not hold all of them, or nothing at all
        """
        for _, lock in self._Lookup(self._OwnedNames(names, "downgrade")):
            lock.downgrade()
        if self._set_lock.is_owned(shared=0) and not any(
            lock.is_owned(shared=0) for _, lock in self._Lookup(sorted(self._list_owned()))
        ):
            self._set_lock.downgrade()
        return True

    # Members come and go

    def add(self, names: str | Iterable[str], acquired: int = 0, shared: int = 0) -> bool:
        """Add members.

        Waits for all holders of the set-lock, unless the thread holds it (exclusively).

        @param acquired: true = the thread holds the new members, from before anybody can see them
        @param shared: mode for C{acquired}
        @return: True; False if the wait was interrupted, and nothing was added
        @raise errors.LockError: one of the names exists; nothing was added
        @raise AssertionError: the thread holds something here, but not the set-lock exclusively
        """
        new = _NameList(names)
        has_set_lock = self._set_lock.is_owned(shared=0)
        if self._is_owned() and not has_set_lock:
            raise AssertionError(f"{self!r}: to add while holding locks, hold ALL_SET exclusively")
        if not has_set_lock and not self._set_lock.acquire():
            return False
        try:
            with self._table_mutex:
                duplicates = [name for name in new if name in self._locks]
            if duplicates:
                raise errors.LockError(f"duplicate add ({', '.join(sorted(duplicates))})")
            locks = {name: self._NewLock(name) for name in new}
            if acquired:
                for lock in locks.values():
                    lock.acquire(shared=shared)
            if acquired and new:
                self._owned.setdefault(self._ident(), set()).update(new)
            with self._table_mutex:
                self._locks.update(locks)
        finally:
            if not has_set_lock:
                self._set_lock.release()
        return True

    def remove(self, names: str | Iterable[str]) -> list[str]:
        """Remove members; all who wait for one of them get an error.

        Waits for the holders of each member; no time-out. Members that the thread holds leave
        its possession; without a member and the set-lock it is no longer an owner.

        @return: names really removed, in the order given; unknown ones and those that somebody
            else removed first are left out
        @raise AssertionError: the thread holds something here, but not all of the names, or one
            of them only shared; nothing was removed
        """
        wanted = _NameList(names)
        ident = self._ident()
        owned = self._owned.get(ident)
        if owned is not None and not self.check_owned(wanted, shared=0):
            raise AssertionError(
                f"{self!r}: to remove while holding locks, hold all of"
                f" {', '.join(sorted(wanted))} exclusively"
            )
        removed = []
        for name in wanted:
            with self._table_mutex:
                lock = self._locks.get(name)
            if lock is None or not self._Delete(name, lock, owned is not None):
                continue
            removed.append(name)
            if owned is not None:
                owned.remove(name)
        if owned is not None and not owned and not self._set_lock.is_owned():
            del self._owned[ident]
        return removed

    def _Delete(self, name: str, lock: SharedLock, owned: bool) -> bool:
        """Delete one member; False if somebody else did it first."""
        try:
            # There is no way back for who removes: an interruption is for acquire() and add().
            while not lock.delete():
                pass
        except errors.LockError:
            if owned:
                raise AssertionError(f"{lock!r} was deleted while this thread held it") from None
            return False
        with self._table_mutex:
            # Nobody can have replaced it: add refuses names that are still here.
            del self._locks[name]
        return True

    def interrupt(self, ident: int) -> bool:
        """Let a thread that waits in L{acquire} or L{add} give up, as if its time were over.

        @param ident: the thread
        @return: whether it waits
        """
        return any(lock.interrupt(ident) for lock in [self._set_lock, *self._Snapshot().values()])

    # Monitor

    def GetLockInfo(self) -> list[LockInfo]:
        """Holders and waiters of the set-lock and of each member, by name; waits for nobody."""
        locks = [lock for _, lock in sorted(self._Snapshot().items())]
        return [lock.GetInfo() for lock in [self._set_lock, *locks]]

    def GetStatistics(self) -> dict[str, int]:
        """Number of members, and the sums of L{SharedLock.GetStatistics} over those there are."""
        locks = self._Snapshot().values()
        result = {"members": len(locks)}
        for lock in [self._set_lock, *locks]:
            for key, value in lock.GetStatistics().items():
                result[key] = result.get(key, 0) + value
        return result


def _Bind(notify: Callable[[str], object], name: str) -> Callable[[], object]:
    return lambda: notify(name)

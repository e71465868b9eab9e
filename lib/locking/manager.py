"""All locks of the cluster and the order in which they may be acquired."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from .. import runtime
from .lockset import LockSet
from .sharedlock import LockInfo

#: Levels, in the order in which they are acquired.
LEVEL_CLUSTER: Final = 0
LEVEL_INSTANCE: Final = 1
LEVEL_NODE: Final = 2

LEVELS: Final = [LEVEL_CLUSTER, LEVEL_INSTANCE, LEVEL_NODE]

#: Levels whose members come and go.
LEVELS_MOD: Final = [LEVEL_NODE, LEVEL_INSTANCE]

LEVEL_NAMES: Final = {
    LEVEL_CLUSTER: "cluster",
    LEVEL_INSTANCE: "instance",
    LEVEL_NODE: "node",
}

#: The Big Ganeti Lock, only member of the cluster level. Every operation takes it: shared, or
#: exclusively if it can not run beside others.
BGL: Final = "BGL"


class GanetiLockManager:
    """One L{LockSet} a level.

    Order: first the BGL, then instances, then nodes, each level with one acquire. An attempt to do
    it differently raises AssertionError, for all rules below and in each method. So no set of
    threads can wait for each other in a circle.

    There is one manager a process (strictly: a runtime), kept in C{_instance}.

    @param nodes: names of the nodes
    @param instances: names of the instances
    """

    _instance: ClassVar[GanetiLockManager | None] = None
    _rt: runtime.Runtime

    def __init__(
        self,
        nodes: Iterable[str] | None = None,
        instances: Iterable[str] | None = None,
        runtime: runtime.Runtime = runtime.DEFAULT,
    ) -> None:
        other = GanetiLockManager._instance
        if other is not None and other._rt is runtime:
            raise AssertionError("There is a lock manager already; use that one")
        self._rt = runtime
        members: dict[int, Iterable[str] | None] = {
            LEVEL_CLUSTER: [BGL],
            LEVEL_INSTANCE: instances,
            LEVEL_NODE: nodes,
        }
        self._sets = {
            level: LockSet(members[level], name=LEVEL_NAMES[level], runtime=runtime)
            for level in LEVELS
        }
        GanetiLockManager._instance = self

    # Rules

    def _CheckLevel(self, level: int, levels: list[int] = LEVELS) -> None:
        if level not in levels:
            raise AssertionError(f"Invalid locking level {level!r}, must be one of {levels}")

    def _BGL_owned(self) -> bool:
        """Does the current thread hold the BGL, in any mode?"""
        return BGL in self._sets[LEVEL_CLUSTER].list_owned()

    @staticmethod
    def _contains_BGL(level: int, names: str | Iterable[str] | None) -> bool:
        """Is the BGL among these names of that level?"""
        if level != LEVEL_CLUSTER:
            return False
        return names is None or names == BGL or (not isinstance(names, str) and BGL in names)

    def _upper_owned(self, level: int) -> bool:
        """Does the current thread hold anything at a level that comes after this one?"""
        return any(self._sets[upper].is_owned() for upper in LEVELS if upper > level)

    def _CheckBglOwned(self, level: int, action: str) -> None:
        if not self._BGL_owned():
            raise AssertionError(
                f"The Big Ganeti Lock must be held to {action} at level {LEVEL_NAMES[level]}"
            )

    def _CheckOrder(self, level: int, action: str) -> None:
        if self._upper_owned(level):
            raise AssertionError(
                f"Can not {action} at level {LEVEL_NAMES[level]}"
                " while holding locks of a later level"
            )

    # Ownership

    def is_owned(self, level: int) -> bool:
        """Does the current thread hold anything at this level?"""
        self._CheckLevel(level)
        return self._sets[level].is_owned()

    _is_owned = is_owned

    def list_owned(self, level: int) -> set[str]:
        """Names that the current thread holds at this level."""
        self._CheckLevel(level)
        return self._sets[level].list_owned()

    _list_owned = list_owned

    def check_owned(self, level: int, names: str | Iterable[str], shared: int = -1) -> bool:
        """Does the current thread hold all these in that mode (L{LockSet.check_owned})?"""
        self._CheckLevel(level)
        return self._sets[level].check_owned(names, shared)

    def _names(self, level: int) -> set[str]:
        """Names of all locks of a level (L{LockSet._names})."""
        self._CheckLevel(level)
        return self._sets[level]._names()

    # Locks

    def acquire(
        self,
        level: int,
        names: str | Iterable[str] | None,
        timeout: float | None = None,
        shared: int = 0,
        priority: int = 0,
        opportunistic: bool = False,
        opportunistic_count: int | None = None,
    ) -> set[str] | None:
        """Acquire locks of a level; arguments, result and errors as for L{LockSet.acquire}.

        The BGL must be held or among the names; nothing may be held at a later level.
        """
        self._CheckLevel(level)
        wanted = names if names is None or isinstance(names, str) else list(names)
        if not self._contains_BGL(level, wanted):
            self._CheckBglOwned(level, "acquire locks")
        self._CheckOrder(level, "acquire locks")
        return self._sets[level].acquire(
            wanted,
            timeout=timeout,
            shared=shared,
            priority=priority,
            opportunistic=opportunistic,
            opportunistic_count=opportunistic_count,
        )

    def release(self, level: int, names: str | Iterable[str] | None = None) -> None:
        """Release locks of a level (L{LockSet.release}).

        The BGL must be the last to go.
        """
        self._CheckLevel(level)
        given = names if names is None or isinstance(names, str) else list(names)
        if self._contains_BGL(level, given):
            self._CheckOrder(level, "release the Big Ganeti Lock")
        self._sets[level].release(given)

    def downgrade(self, level: int, names: str | Iterable[str] | None = None) -> bool:
        """Turn exclusive ownership into shared ownership (L{LockSet.downgrade})."""
        self._CheckLevel(level)
        return self._sets[level].downgrade(names)

    def add(
        self, level: int, names: str | Iterable[str], acquired: int = 0, shared: int = 0
    ) -> bool:
        """Add locks to a level (L{LockSet.add}).

        The level must be one of L{LEVELS_MOD}, the BGL held, nothing held at a later level.
        """
        self._CheckLevel(level, LEVELS_MOD)
        self._CheckBglOwned(level, "add locks")
        self._CheckOrder(level, "add locks")
        return self._sets[level].add(names, acquired=acquired, shared=shared)

    def remove(self, level: int, names: str | Iterable[str]) -> list[str]:
        """Remove locks from a level (L{LockSet.remove}).

        The level must be one of L{LEVELS_MOD}, the BGL held, and something held at this level or
        nothing at a later one.
        """
        self._CheckLevel(level, LEVELS_MOD)
        self._CheckBglOwned(level, "remove locks")
        # Removing locks that are held waits for nobody, so the order does not matter then.
        if not self._sets[level].is_owned():
            self._CheckOrder(level, "remove locks that are not held")
        return self._sets[level].remove(names)

    def interrupt(self, ident: int) -> bool:
        """Let a thread that waits in L{acquire} or L{add} give up, as if its time were over.

        @param ident: the thread
        @return: whether it waits
        """
        return any(self._sets[level].interrupt(ident) for level in LEVELS)

    # Monitor

    def GetLockInfo(self) -> list[LockInfo]:
        """Who holds and who waits for each lock, also the free ones; waits for nobody.

        In the order of the levels, by name; each level begins with its set-lock
        (C{instance/[lockset]}). Each entry is a picture of its lock at one moment, the list is not.
        """
        return [info for level in LEVELS for info in self._sets[level].GetLockInfo()]

    def GetStatistics(self) -> dict[str, dict[str, int]]:
        """For each level, by name: L{LockSet.GetStatistics}."""
        return {LEVEL_NAMES[level]: self._sets[level].GetStatistics() for level in LEVELS}

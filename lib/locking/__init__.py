"""Locks of the master daemon: named sets of reader/writer locks in a fixed order of levels.

Every lock here is owned by the I{thread} that acquired it, is neither recursive nor upgradable and
lives in the memory of the master daemon only: locks are gone when it stops.

- L{SharedLock}: one lock with one queue, time-outs, priorities and deletion (L{sharedlock});
- L{LockSet}: a named set of them, acquired together or not at all (L{lockset});
- L{GanetiLockManager}: one set a level, enforces the order of the levels (L{manager});
- L{PipeCondition} and its relatives: what waiting is made of (L{conditions});
- L{RunningTimeout}, L{ssynchronized}, L{SetOwnerLabel}: small helpers.

What can happen through concurrency (a deleted lock, an unknown name, a name added twice) raises
L{errors.LockError <ganeti.errors.LockError>}. What only a mistake in the caller can cause (double
acquire, wrong order, release of something not held) raises C{AssertionError}, explicitly: the
checks stay in place under C{python -O}.

Design: "Locking improvements" of Ganeti 2.1. Names, monitor, priorities, downgrade and
opportunistic acquires are those of later versions; the defaults leave 2.1 call sites as they were.
"""

from __future__ import annotations

from .conditions import CountingCondition, PipeCondition, SingleNotifyPipeCondition
from .helpers import GetOwnerLabel, RunningTimeout, SetOwnerLabel, ssynchronized
from .lockset import ALL_SET, LockSet
from .manager import (
    BGL,
    LEVEL_CLUSTER,
    LEVEL_INSTANCE,
    LEVEL_NAMES,
    LEVEL_NODE,
    LEVELS,
    LEVELS_MOD,
    GanetiLockManager,
)
from .sharedlock import LockInfo, SharedLock

__all__ = [
    "ALL_SET",
    "BGL",
    "LEVELS",
    "LEVELS_MOD",
    "LEVEL_CLUSTER",
    "LEVEL_INSTANCE",
    "LEVEL_NAMES",
    "LEVEL_NODE",
    "CountingCondition",
    "GanetiLockManager",
    "GetOwnerLabel",
    "LockInfo",
    "LockSet",
    "PipeCondition",
    "RunningTimeout",
    "SetOwnerLabel",
    "SharedLock",
    "SingleNotifyPipeCondition",
    "ssynchronized",
]

"""Locks of the master daemon, in a process that does nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from . import bench_conditions, floors
from .place import Place
from .table import Beside, Floor, Row, Setting

THREADS = 8
MEMBERS = 200
WAITERS = 100


def Rates(seconds: float) -> dict[str, float]:
    """Acquires and releases a second; for L{Place.Child}."""
    from ganeti import locking

    lock = locking.SharedLock("bench")
    names = [f"inst{number}.example.com" for number in range(MEMBERS)]
    lock_set = locking.LockSet(names, "bench")

    def _Pair() -> None:
        lock.acquire()
        lock.release()

    def _All() -> None:
        lock_set.acquire(None)
        lock_set.release()

    return {
        "alone": floors.LoopRate(_Pair, seconds),
        "bare": floors.BareLockRate(seconds),
        "contended": floors.LoopRate(_Pair, seconds, THREADS),
        "bare contended": floors.BareLockRate(seconds, THREADS),
        "set": floors.LoopRate(_All, seconds),
    }


def Waking(rounds: int) -> dict[str, float]:
    """Microseconds until the last of some waiters of a condition is awake; for L{Place.Child}."""
    from ganeti.locking import CountingCondition

    classes = {"ours": CountingCondition, "bare": bench_conditions.StdCondition}
    return {
        name: min(bench_conditions.Wake(cls, WAITERS, None, rounds) for _ in range(3)) * 1e6
        for name, cls in classes.items()
    }


def MeasureWaking(place: Place, _: Setting | None) -> Mapping[str, float]:
    """See L{Waking}."""
    found: Mapping[str, float] = place.Child("rows_locking", "Waking", place.Rounds(50, 5))
    return found


def Measure(place: Place, _: Setting | None) -> Mapping[str, float]:
    """See L{Rates}."""
    found: Mapping[str, float] = place.Child("rows_locking", "Rates", place.Rounds(10, 1) / 10)
    return found


_BARE = Beside("a bare threading.Lock", "bare")
_CONTENDED = Beside("a bare threading.Lock", "bare contended")
_SET = Floor(f"{MEMBERS} bare threading.Locks", lambda _, found: found["bare"] / MEMBERS)

ROWS = [
    Row("SharedLock, acquire + release", "/s", 5e5, Measure, "alone", _BARE, at_least=True),
    Row(
        f"SharedLock, acquire + release, {THREADS} threads",
        "/s",
        4e4,
        Measure,
        "contended",
        _CONTENDED,
        at_least=True,
    ),
    Row(
        f"LockSet of {MEMBERS}, acquire all + release",
        "/s",
        1500,
        Measure,
        "set",
        _SET,
        at_least=True,
    ),
    Row(
        f"{WAITERS} waiters of a lock's condition awake",
        "us",
        None,
        MeasureWaking,
        "ours",
        Beside("threading.Condition", "bare"),
    ),
]

"""Locks of the master daemon, in a process that does nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from . import floors
from .place import Place
from .table import Floor, Row, Setting

THREADS = 8
MEMBERS = 200


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


def Measure(place: Place, _: Setting | None) -> Mapping[str, float]:
    """See L{Rates}."""
    found: Mapping[str, float] = place.Child("rows_locking", "Rates", place.Rounds(10, 1) / 10)
    return found


_BARE = Floor("a bare threading.Lock", lambda _, found: found["bare"])
_CONTENDED = Floor("a bare threading.Lock", lambda _, found: found["bare contended"])
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
]

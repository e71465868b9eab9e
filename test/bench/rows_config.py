"""What a change of the configuration costs, in a process that does nothing else."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from . import bench_config, floors
from .place import NewInstance, Place
from .table import Floor, Row, Setting


class TimedLock:
    """A mutex that adds up how long it is held.

    @ivar held: seconds so far
    @ivar longest: seconds of the longest time
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = 0.0
        self.held = 0.0
        self.longest = 0.0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As that of C{threading.Lock}."""
        done = self._lock.acquire(blocking, timeout)
        if done:
            self._since = time.perf_counter()
        return done

    def release(self) -> None:
        """As that of C{threading.Lock}."""
        now = time.perf_counter()
        self.held += now - self._since
        self.longest = max(self.longest, now - self._since)
        self._lock.release()

    def locked(self) -> bool:
        """As that of C{threading.Lock}."""
        return self._lock.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class TimedThreads:
    """Threads of a runtime whose mutexes are timed.

    @ivar locks: those that were made
    """

    def __init__(self, threads: Any) -> None:
        self._threads = threads
        self.locks: list[TimedLock] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._threads, name)

    def Lock(self) -> TimedLock:
        """A timed one."""
        self.locks.append(TimedLock())
        return self.locks[-1]


def Flipper(writer: Any, name: str) -> Callable[[], object]:
    """Commits: marks an instance as up and down in turn."""
    up = False

    def _Flip() -> None:
        nonlocal up
        up = not up
        (writer.MarkInstanceUp if up else writer.MarkInstanceDown)(name)

    return _Flip


def Commits(count: int, rounds: int) -> dict[str, float]:
    """Milliseconds of a commit with that many instances; for L{Place.Child}."""
    from ganeti import config, pathutils
    from ganeti.runtime import DEFAULT

    content = bench_config._Build(count)
    DEFAULT.files.write(pathutils.CLUSTER_CONF_FILE, content)
    name = f"inst{count // 2}.example.com"
    plain = config.ConfigWriter(pathutils.CLUSTER_CONF_FILE, offline=True)
    flip = Flipper(plain, name)
    # The first one writes every object for the first time.
    flip()
    durable = floors.Times(flip, rounds)

    threads = TimedThreads(DEFAULT.threads)
    timed = config.ConfigWriter(
        pathutils.CLUSTER_CONF_FILE,
        offline=True,
        runtime=dataclasses.replace(DEFAULT, threads=threads),
    )
    flip = Flipper(timed, name)
    flip()
    held, longest = [], []
    for _ in range(rounds):
        for lock in threads.locks:
            lock.held = lock.longest = 0.0
        flip()
        held.append(sum(lock.held for lock in threads.locks))
        longest.append(max(lock.longest for lock in threads.locks))
    return {
        "held": statistics.median(held) * 1e3,
        "longest": max(longest) * 1e3,
        "durable": statistics.median(durable) * 1e3,
        "size": os.path.getsize(pathutils.CLUSTER_CONF_FILE),
    }


def _Measure(count: int) -> Callable[[Place, Setting | None], Mapping[str, float]]:
    def _Find(place: Place, _: Setting | None) -> Mapping[str, float]:
        found: Mapping[str, float] = place.Child(
            "rows_config", "Commits", count, place.Rounds(40, 5)
        )
        return found

    return _Find


def _Encode(_: Place, __: Mapping[str, float]) -> float:
    instance = NewInstance(1, "node1.example.com")
    return floors.Median(lambda: json.dumps(instance, sort_keys=True), 1000) * 1e3


def _Write(place: Place, found: Mapping[str, float]) -> float:
    data = b"c" * int(found["size"])
    return statistics.median(floors.WriteTimes(place.Fresh(), data, place.Rounds(40, 5))) * 1e3


def _Rows(count: int) -> list[Row]:
    measure = _Measure(count)
    write = Floor("durable write of that configuration", _Write)
    lock = Floor("one instance as JSON", _Encode)
    what = f"configuration commit, {count:,} instances"
    return [
        Row(f"{what}: its lock held", "ms", 5, measure, "held", lock),
        Row(f"{what}: until durable", "ms", 5, measure, "durable", write),
    ]


ROWS = [row for count in (100, 2000, 10000) for row in _Rows(count)]

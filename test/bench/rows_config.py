"""What a change of the configuration costs, in a process that does nothing else."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import bench_config, floors
from .place import NewInstance, Place
from .table import Beside, Row, Setting


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


class HeldLocks:
    """A commit, and how long each kept others from the configuration.

    @ivar held: seconds, a commit each
    @ivar longest: of the longest time without a pause, a commit each
    """

    def __init__(self, flip: Callable[[], object], locks: Sequence[TimedLock]) -> None:
        self._flip = flip
        self._locks = locks
        self.held: list[float] = []
        self.longest: list[float] = []

    def __call__(self) -> None:
        for lock in self._locks:
            lock.held = lock.longest = 0.0
        self._flip()
        self.held.append(sum(lock.held for lock in self._locks))
        self.longest.append(max(lock.longest for lock in self._locks))


def Commits(count: int, rounds: int) -> dict[str, float]:
    """Milliseconds of a commit with that many instances; for L{Place.Child}.

    As the master does it, with the history.
    """
    from ganeti import config, pathutils
    from ganeti.runtime import DEFAULT

    content = bench_config._Build(count)
    directory = pathutils.DATA_DIR
    threads = TimedThreads(DEFAULT.threads)
    flips = []
    for name, rt in (
        ("plain", DEFAULT),
        ("timed", dataclasses.replace(DEFAULT, threads=threads)),
    ):
        path = os.path.join(directory, name)
        DEFAULT.files.write(path, content)
        writer = config.ConfigWriter(
            path, offline=True, runtime=rt, history_file=os.path.join(directory, f"{name}.history")
        )
        flip = bench_config._Flip(writer, f"inst{count // 2}.example.com")
        # The first one writes every object for the first time.
        flip()
        flips.append(flip)
    instance = NewInstance(1, "node1.example.com")
    timed = HeldLocks(flips[1], threads.locks)
    floor_path = os.path.join(directory, "floor")
    durable, _, write, encode = bench_config._Medians(
        [
            flips[0],
            timed,
            lambda: floors.WriteDurably(floor_path, content),
            lambda: json.dumps(instance, sort_keys=True),
        ],
        rounds,
    )
    return {
        "held": statistics.median(timed.held) * 1e3,
        "longest": max(timed.longest) * 1e3,
        "durable": durable * 1e3,
        "write": write * 1e3,
        "encode": encode * 1e3,
    }


def _Measure(count: int) -> Callable[[Place, Setting | None], Mapping[str, float]]:
    def _Find(place: Place, _: Setting | None) -> Mapping[str, float]:
        found: Mapping[str, float] = place.Child(
            "rows_config", "Commits", count, place.Rounds(40, 5)
        )
        return found

    return _Find


def _Rows(count: int) -> list[Row]:
    measure = _Measure(count)
    write = Beside("durable write of that configuration", "write")
    lock = Beside("one instance as JSON", "encode")
    what = f"configuration commit, {count:,} instances"
    return [
        Row(f"{what}: its lock held", "ms", 5, measure, "held", lock),
        Row(f"{what}: until durable", "ms", 5, measure, "durable", write),
    ]


ROWS = [row for count in (100, 2000, 10000) for row in _Rows(count)]

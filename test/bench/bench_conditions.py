#!/usr/bin/env python3
"""LK6: what waiting costs, on pipes and on the platform's condition variable.

The table of record is in doc/decisions/0003-condition-variable.md.

    python test/bench/bench_conditions.py [--rounds N]

Cases:

- C{notify, nobody waits}: what every release of a lock pays;
- C{wait(0)}: to sleep and wake at once;
- C{wake N}: from the notification until the last of N waiters has had the mutex, with and without
  a time-out (60 s) given to wait;
- C{CPU, N wait 1 s}: processor time burnt by N waiters that sleep until their time-out.
- C{lock hand-over}: two threads that pass a SharedLock to each other, waiting on that condition.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import threading
import time
from typing import Any

from ganeti.locking import CountingCondition, PipeCondition, SharedLock


class StdCondition:
    """C{threading.Condition} itself: the floor, to which the others are compared."""

    def __init__(self, lock: Any, rt: Any = None) -> None:
        condition = threading.Condition(lock)
        self.wait = condition.wait
        self.notifyAll = condition.notify_all


CLASSES = [StdCondition, CountingCondition, PipeCondition]


def TimeCalls(fn: Any, count: int) -> float:
    """Seconds a call."""
    start = time.perf_counter()
    for _ in range(count):
        fn()
    return (time.perf_counter() - start) / count


def NotifyNobody(cls: Any, rounds: int) -> float:
    lock = threading.Lock()
    condition = cls(lock)
    with lock:
        return TimeCalls(condition.notifyAll, 100 * rounds)


def WaitZero(cls: Any, rounds: int) -> float:
    lock = threading.Lock()
    condition = cls(lock)
    with lock:
        return TimeCalls(lambda: condition.wait(0), 10 * rounds)


def Wake(cls: Any, waiters: int, timeout: float | None, rounds: int) -> float:
    """Median time from a notification until all waiters are back."""
    lock = threading.Lock()
    condition = cls(lock)
    turn = 0
    waiting = 0
    all_back = threading.Event()
    all_asleep = threading.Event()

    def Body() -> None:
        nonlocal waiting
        with lock:
            for mine in range(rounds):
                waiting += 1
                if waiting == waiters:
                    all_asleep.set()
                while turn <= mine:
                    condition.wait(timeout)
                waiting -= 1
                if waiting == 0:
                    all_back.set()
                # Nobody may begin the next round before the last one is over.
                while not reset[mine]:
                    lock.release()
                    resets[mine].wait()
                    lock.acquire()

    reset = [False] * rounds
    resets = [threading.Event() for _ in range(rounds)]
    threads = [threading.Thread(target=Body, daemon=True) for _ in range(waiters)]
    for thread in threads:
        thread.start()
    times = []
    for mine in range(rounds):
        all_asleep.wait()
        with lock:
            all_asleep.clear()
            all_back.clear()
            turn = mine + 1
            start = time.perf_counter()
            condition.notifyAll()
        all_back.wait()
        times.append(time.perf_counter() - start)
        reset[mine] = True
        resets[mine].set()
    for thread in threads:
        thread.join()
    return statistics.median(times)


def IdleCpu(cls: Any, waiters: int) -> float:
    """Processor seconds while that many threads wait for one second."""
    lock = threading.Lock()
    condition = cls(lock)

    def Body() -> None:
        with lock:
            condition.wait(1.0)

    threads = [threading.Thread(target=Body, daemon=True) for _ in range(waiters)]
    start = time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.process_time() - start


def HandOver(cls: Any, rounds: int) -> float:
    """Seconds a turn, two threads that take the same lock exclusively."""
    lock = SharedLock(condition=cls)

    def Body() -> None:
        for _ in range(rounds):
            lock.acquire()
            # The other one queues meanwhile, so every turn is one notification and one switch.
            time.sleep(0)
            lock.release()

    threads = [threading.Thread(target=Body, daemon=True) for _ in range(2)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - start) / (2 * rounds)


def Main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds

    cases: list[tuple[str, Any]] = [
        ("notify, nobody waits", lambda cls: NotifyNobody(cls, rounds)),
        ("wait(0)", lambda cls: WaitZero(cls, rounds)),
    ]
    for waiters in (1, 10, 100):
        for timeout in (None, 60.0):
            label = f"wake {waiters}, " + ("no time-out" if timeout is None else "time-out 60 s")
            cases.append((label, lambda cls, w=waiters, t=timeout: Wake(cls, w, t, rounds)))
    cases += [
        (f"CPU, {waiters} wait 1 s", lambda cls, w=waiters: IdleCpu(cls, w))
        for waiters in (10, 100)
    ]
    cases.append(("lock hand-over", lambda cls: HandOver(cls, 10 * rounds)))

    print(f"Python {platform.python_version()}, {platform.platform()}, {rounds} rounds\n")
    row = "{:<24}" + "{:>18}" * len(CLASSES) + "{:>14}{:>14}"
    print(row.format("microseconds", *(c.__name__ for c in CLASSES), "Counting/Std", "Pipe/Std"))
    for label, measure in cases:
        # The best of three: what disturbs a measurement only ever makes it longer.
        best = [min(measure(cls) for _ in range(3)) for cls in CLASSES]
        figures = [f"{value * 1e6:.1f}" for value in best]
        ratios = [f"{value / best[0]:.2f}" for value in best[1:]]
        print(row.format(label, *figures, *ratios), flush=True)


if __name__ == "__main__":
    Main()

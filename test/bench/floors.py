"""What the machine asks at least: the same bytes on the disk, the same round trip, a bare lock."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

#: About what a small job needs on the disk.
JOB_FILE = b"j" * 1000


def Times(fn: Callable[[], Any], rounds: int) -> list[float]:
    """Seconds of each call, sorted."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        fn()
        times.append(time.perf_counter() - start)
    return sorted(times)


def Percentile(ordered: Sequence[float], share: float) -> float:
    """Of sorted values: that below which such a share of them lies."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def Median(fn: Callable[[], Any], rounds: int) -> float:
    """Median of the seconds of a call."""
    return statistics.median(Times(fn, rounds))


def WriteDurably(path: str, data: bytes) -> None:
    """Write, sync, rename, sync the directory."""
    fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(path + ".new", path)
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def WriteTimes(directory: str, data: bytes, rounds: int) -> list[float]:
    """Seconds of durable writes of some files of that content, sorted."""
    numbers = iter(range(rounds))
    return Times(
        lambda: WriteDurably(os.path.join(directory, f"floor-{next(numbers) % 5}"), data), rounds
    )


def WriteManyDurably(directory: str, data: bytes, count: int) -> float:
    """Seconds in which that many files are written, synced together, and renamed."""
    start = time.perf_counter()
    fds = []
    for number in range(count):
        path = os.path.join(directory, f"many-{number}")
        fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        fds.append(fd)
        os.write(fd, data)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    for number, fd in enumerate(fds):
        os.fdatasync(fd)
        os.close(fd)
        path = os.path.join(directory, f"many-{number}")
        os.rename(path + ".new", path)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)
    elapsed = time.perf_counter() - start
    for number in range(count):
        os.unlink(os.path.join(directory, f"many-{number}"))
    return elapsed


_ECHO = """
import socket, sys
sock = socket.socket(fileno=int(sys.argv[1]))
size = int(sys.argv[2])
while True:
    left = size
    while left:
        data = sock.recv(min(left, 1 << 20))
        if not data:
            sys.exit()
        left -= len(data)
    sock.sendall(b"a" * 200)
"""


@contextlib.contextmanager
def Echo(size: int) -> Iterator[Callable[[], object]]:
    """A round trip of that many bytes to another process, and 200 back, over a UNIX socket."""
    ours, theirs = socket.socketpair()
    argv = [sys.executable, "-SEc", _ECHO, str(theirs.fileno()), str(size)]
    with ours, subprocess.Popen(argv, pass_fds=[theirs.fileno()]) as child:
        theirs.close()
        request = b"q" * size

        def _Call() -> None:
            ours.sendall(request)
            left = 200
            while left:
                left -= len(ours.recv(left))

        try:
            _Call()
            yield _Call
        finally:
            ours.close()
            child.wait()


def BareLockRate(seconds: float, threads: int = 1) -> float:
    """Acquires and releases of one C{threading.Lock} a second by that many threads."""
    lock = threading.Lock()

    def _Pair() -> None:
        lock.acquire()
        lock.release()

    return LoopRate(_Pair, seconds, threads)


def LoopRate(fn: Callable[[], object], seconds: float, threads: int = 1) -> float:
    """Calls a second by that many threads together."""
    end = time.perf_counter() + seconds
    counts = [0] * threads

    def _Body(number: int) -> None:
        count = 0
        while time.perf_counter() < end:
            for _ in range(20):
                fn()
            count += 20
        counts[number] = count

    start = time.perf_counter()
    if threads == 1:
        _Body(0)
    else:
        pool = [threading.Thread(target=_Body, args=(i,), daemon=True) for i in range(threads)]
        for thread in pool:
            thread.start()
        for thread in pool:
            thread.join()
    return sum(counts) / (time.perf_counter() - start)


def InterpreterStart(rounds: int) -> float:
    """Seconds of a bare interpreter's life."""
    return Median(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True), rounds)


@contextlib.contextmanager
def SleepingInterpreter() -> Iterator[int]:
    """Process id of a bare interpreter that sleeps."""
    code = "import time; print(flush=True); time.sleep(3600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            yield child.pid
        finally:
            child.kill()

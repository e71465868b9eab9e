"""Fakes of the outside world, for tests: shipped, so that every user of the library has them.

Nothing here sleeps, touches the disk or starts a program. What may go wrong can be made to go wrong
on purpose: a file system that fails or forgets what was not synced, a program that answers as
scripted, a clock that jumps.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from . import DEFAULT, FileStat, HttpRequest, Runtime, Tail

if TYPE_CHECKING:
    from ..utils import pipeline, process

#: Wall clock at which fake time begins: 2026-01-01 00:00:00 UTC.
EPOCH = 1767225600.0


class FakeClock:
    """A clock set by hand; sleeping moves it on at once."""

    def __init__(self, now: float = 0.0, epoch: float = EPOCH) -> None:
        self.now = now
        self.epoch = epoch
        #: Every sleep so far, in seconds.
        self.sleeps: list[float] = []

    def time(self) -> float:
        return self.epoch + self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        self.sleeps.append(seconds)
        self.Advance(seconds)

    def Advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class FakeRandom(random.Random):
    """Reproducible chance; its secrets are none."""

    def token_hex(self, nbytes: int) -> str:
        return self.randbytes(nbytes).hex()


@dataclass
class _File:
    data: bytes
    mode: int
    mtime: float
    inode: int


@dataclass
class _Fault:
    operation: str
    pattern: str
    error: OSError
    times: int


class MemoryFiles:
    """L{runtime.Files} in memory, with a memory of what a power failure would leave.

    @ivar writes: every (operation, path) so far, for tests that count them
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or (lambda: EPOCH)
        self._live: dict[str, _File] = {}
        self._durable: dict[str, _File] = {}
        self._dirs: set[str] = {"/"}
        self._inode = 0
        self._faults: list[_Fault] = []
        self.writes: list[tuple[str, str]] = []

    # Faults

    def Fail(
        self, operation: str, pattern: str = "*", code: int = errno.EIO, times: int = -1
    ) -> None:
        """Make an operation fail on matching paths.

        @param operation: read, write, append, rename, remove, listdir, stat, sync or C{*}
        @param pattern: shell pattern of the path
        @param code: errno of the OSError
        @param times: how often; negative = from now on
        """
        self._faults.append(_Fault(operation, pattern, OSError(code, os.strerror(code)), times))

    def Heal(self) -> None:
        """No operation fails any more."""
        self._faults.clear()

    def AfterCrash(self) -> MemoryFiles:
        """What would be left of them after L{Crash}, as files of their own."""
        left = MemoryFiles(self._clock)
        left._durable = {path: replace(item) for path, item in self._durable.items()}
        left._dirs = set(self._dirs)
        left.Crash()
        return left

    def Crash(self) -> None:
        """Lose everything that was not synced, as a power failure would."""
        self._live = {path: replace(item) for path, item in self._durable.items()}

    def _Check(self, operation: str, path: str) -> None:
        for fault in self._faults:
            if fault.operation in (operation, "*") and fnmatch.fnmatchcase(path, fault.pattern):
                if fault.times == 0:
                    continue
                fault.times -= 1
                err = OSError(fault.error.errno, fault.error.strerror, path)
                raise err

    def _Get(self, path: str) -> _File:
        try:
            return self._live[path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None

    # Contract of runtime.Files

    def read(self, path: str) -> bytes:
        self._Check("read", path)
        return self._Get(path).data

    def write(
        self,
        path: str,
        data: bytes,
        mode: int = 0o600,
        uid: int = -1,
        gid: int = -1,
        durable: bool = True,
    ) -> None:
        self._Check("write", path)
        self._inode += 1
        self._live[path] = _File(bytes(data), mode, self._clock(), self._inode)
        self.writes.append(("write", path))
        if durable:
            self._durable[path] = replace(self._live[path])

    def write_many(self, items: Sequence[tuple[str, bytes]]) -> None:
        for path, data in items:
            self.write(path, data, durable=False)
        for path, _ in items:
            self._Check("sync", os.path.dirname(path))
            self._durable[path] = replace(self._live[path])

    def write_logged(self, path: str, data: bytes, log: Tail, mode: int = 0o600) -> OSError | None:
        problem: OSError | None = None
        try:
            self.append(log)
        except OSError as err:
            problem = err
        self.write(path, data, mode)
        return problem

    def append(self, log: Tail) -> None:
        self._Check("append", log.path)
        kept = self._live[log.path].data[: log.offset] if log.path in self._live else b""
        if len(kept) < log.offset:
            raise OSError(errno.ESTALE, "The file was cut by somebody else", log.path)
        self._PutTail(log.path, kept, log.data)
        self._Check("sync", log.path)
        self._durable[log.path] = replace(self._live[log.path])

    def _PutTail(self, path: str, kept: bytes, data: bytes) -> None:
        # For subclasses that look, or die, in between.
        if path not in self._live:
            self._inode += 1
            self._live[path] = _File(b"", 0o600, self._clock(), self._inode)
        item = self._live[path]
        self._live[path] = replace(item, data=kept + data, mtime=self._clock())
        self.writes.append(("append", path))

    def rename(self, old: str, new: str, mkdir: bool = False, durable: bool = True) -> None:
        self._Check("rename", old)
        self._Get(old)
        self._live[new] = self._live.pop(old)
        self.writes.append(("rename", new))
        if mkdir:
            self.mkdir(os.path.dirname(new))
        if durable:
            for directory in dict.fromkeys([os.path.dirname(new), os.path.dirname(old)]):
                self.sync(directory)

    def remove(self, path: str) -> None:
        self._Check("remove", path)
        self._live.pop(path, None)
        self._durable.pop(path, None)
        self.writes.append(("remove", path))

    def exists(self, path: str) -> bool:
        return path in self._live or path in self._dirs or bool(self._Below(path))

    def _Below(self, path: str) -> set[str]:
        prefix = path.rstrip("/") + "/"
        names = [*self._live, *self._dirs]
        return {name[len(prefix) :].split("/")[0] for name in names if name.startswith(prefix)}

    def listdir(self, path: str) -> list[str]:
        self._Check("listdir", path)
        names = sorted(self._Below(path) - {""})
        if not names and path not in self._dirs:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return names

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        while path not in self._dirs:
            self._dirs.add(path)
            path = os.path.dirname(path)

    def stat(self, path: str) -> FileStat:
        self._Check("stat", path)
        item = self._Get(path)
        return FileStat(size=len(item.data), mtime=item.mtime, inode=item.inode, mode=item.mode)

    def sync(self, path: str) -> None:
        self._Check("sync", path)
        for name in {*self._live, *self._durable}:
            if os.path.dirname(name) == path:
                if name in self._live:
                    self._durable[name] = replace(self._live[name])
                else:
                    del self._durable[name]


@dataclass
class Call:
    """A program that was asked for."""

    argv: list[str]
    env: dict[str, str] | None
    input: str | None


class FakeProcesses:
    """Programs that answer as scripted; what was not scripted is an error of the test.

    @ivar calls: every program asked for so far
    """

    def __init__(self) -> None:
        self._answers: list[tuple[str, int, str, str]] = []
        self.calls: list[Call] = []

    def Answer(self, pattern: str, stdout: str = "", code: int = 0, stderr: str = "") -> None:
        """Commands whose words, joined by blanks, match the shell pattern end like this."""
        self._answers.insert(0, (pattern, code, stdout, stderr))

    def run(
        self,
        argv: Sequence[str],
        *,
        env: dict[str, str] | None = None,
        cwd: str = "/",
        reset_env: bool = False,
        timeout: float | None = None,
        input: str | None = None,  # noqa: A002
        output: str | None = None,
        max_output: int | None = None,
    ) -> process.RunResult:
        from ..utils import process

        self.calls.append(Call(list(argv), env, input))
        command = " ".join(argv)
        for pattern, code, stdout, stderr in self._answers:
            if fnmatch.fnmatchcase(command, pattern):
                return process.RunResult(
                    cmd=command, exit_code=code, signal=None, stdout=stdout, stderr=stderr
                )
        raise AssertionError(f"No answer scripted for the command {command!r}")

    def pipeline(
        self, stages: Sequence[pipeline.Stage], timeout: float | None = None
    ) -> list[pipeline.StageResult]:
        """Each program answers as if it were alone; a code above 128 is that of a signal."""
        from ..utils import pipeline

        results = []
        for stage in stages:
            result = self.run(stage.argv, env=dict(stage.env or {}))
            code = result.exit_code or 0
            results.append(
                pipeline.StageResult(stage, code if code < 128 else 128 - code, result.stderr)
            )
        return results


class FakeTransport:
    """An RPC transport whose nodes are functions; a node that was cut off does not answer.

    @ivar requests: every request so far
    """

    def __init__(self, handler: Callable[[HttpRequest], tuple[int, bytes]]) -> None:
        self._handler = handler
        self._cut: set[str] = set()
        self.requests: list[HttpRequest] = []

    def Cut(self, host: str) -> None:
        """Nobody answers at this address any more."""
        self._cut.add(host)

    def Mend(self, host: str) -> None:
        """The address answers again."""
        self._cut.discard(host)

    def Perform(self, requests: Sequence[HttpRequest]) -> None:
        for request in requests:
            self.requests.append(request)
            if request.host in self._cut:
                request.error = f"Connection to {request.host}:{request.port} timed out"
            else:
                request.status, request.response = self._handler(request)

    def Shutdown(self) -> None:
        """Nothing to close."""


def NewRuntime(seed: int = 0, **parts: Any) -> Runtime:
    """A runtime without an outside; any part can be given instead.

    Threads are real ones: use L{simulation} where their order matters.
    """
    clock = parts.pop("clock", None) or FakeClock()
    defaults: dict[str, Any] = {
        "clock": clock,
        "random": FakeRandom(seed),
        "threads": DEFAULT.threads,
        "files": MemoryFiles(clock.time),
        "processes": FakeProcesses(),
    }
    return Runtime(**{**defaults, **parts})

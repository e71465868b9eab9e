"""The world as an object: clock, randomness, threads, durable files, processes, RPC transport.

Product code is handed a L{Runtime} and asks it for everything that it can not decide by itself. In
production that is L{DEFAULT}: thin names for the operating system's own services, at no cost. In
tests it is one of the fakes shipped beside it:

- L{ganeti.runtime.fake}: a clock that is set by hand, files in memory that forget what was not
  synced and fail on demand, scripted processes;
- L{ganeti.runtime.simulation}: the same, plus threads of which only one runs at a time, in virtual
  time, in an order drawn from a seed.

The names follow the standard library where a thing is the standard library's (C{clock.monotonic},
C{threads.Condition}); the classes here are the contract that each implementation fulfils.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from types import TracebackType

    from ..utils import pipeline, process


class Clock(Protocol):
    """Time, as an input."""

    def time(self) -> float:
        """Wall clock, seconds since the epoch; may jump."""

    def monotonic(self) -> float:
        """Seconds since some fixed point; never goes back: for time-outs and durations."""

    def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""


class Random(Protocol):
    """Chance, as an input; a subset of C{random.Random} and C{secrets}."""

    def random(self) -> float:
        """A number in [0, 1)."""

    def uniform(self, a: float, b: float) -> float:
        """A number between a and b."""

    def randint(self, a: int, b: int) -> int:
        """An integer in [a, b]."""

    def choice(self, seq: Sequence[Any]) -> Any:
        """One element."""

    def shuffle(self, x: list[Any]) -> None:
        """Reorder a list in place."""

    def token_hex(self, nbytes: int) -> str:
        """That many bytes for secrets and ids, as hexadecimal text."""


class Lock(Protocol):
    """A mutex (C{threading.Lock})."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; False if it could not be had (in time)."""

    def release(self) -> None:
        """Give it back."""

    def locked(self) -> bool:
        """Does anybody hold it?"""

    def __enter__(self) -> bool: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None: ...


class Condition(Protocol):
    """A condition variable (C{threading.Condition})."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the mutex of the condition."""

    def release(self) -> None:
        """Give the mutex back."""

    def wait(self, timeout: float | None = None) -> bool:
        """Give the mutex back, sleep until notified, take it again; False after the time-out."""

    def notify(self, n: int = 1) -> None:
        """Wake n waiters."""

    def notify_all(self) -> None:
        """Wake all waiters."""

    def __enter__(self) -> bool: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None: ...


class Event(Protocol):
    """A flag that can be waited for (C{threading.Event})."""

    def is_set(self) -> bool:
        """Is the flag up?"""

    def set(self) -> None:
        """Raise the flag and wake all waiters."""

    def clear(self) -> None:
        """Lower the flag."""

    def wait(self, timeout: float | None = None) -> bool:
        """Return the flag once it is up or the time is over."""


class ThreadHandle(Protocol):
    """A started thread."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def ident(self) -> int | None:
        """What C{get_ident} returns in it."""

    def is_alive(self) -> bool:
        """Has it not ended yet?"""

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended."""


# In the class below the names of its methods hide those of the types.
_Lock = Lock
_Condition = Condition
_Event = Event


class Threads(Protocol):
    """Threads and what they wait on."""

    def Lock(self) -> _Lock:
        """A new mutex."""

    def Condition(self, lock: _Lock | None = None) -> _Condition:
        """A new condition on that mutex, or on one of its own."""

    def Event(self) -> _Event:
        """A new flag, down."""

    def start(
        self,
        target: Callable[..., object],
        args: Sequence[Any] = (),
        name: str | None = None,
        daemon: bool = True,
    ) -> ThreadHandle:
        """Start a thread."""

    def get_ident(self) -> int:
        """Identity of the current thread."""

    def current_name(self) -> str:
        """Name of the current thread."""


@dataclass(frozen=True)
class FileStat:
    """What tells one version of a file from another."""

    size: int
    mtime: float
    inode: int
    mode: int


@dataclass(frozen=True)
class Tail:
    """What a file is to end with.

    @ivar offset: bytes of the file that stay; what is there beyond them goes
    @ivar data: what comes after them
    """

    path: str
    offset: int
    data: bytes


class Files(Protocol):
    """Files that must survive: every write replaces a whole file, atomically.

    What was written with C{durable=True} is there after a power failure once the call returned; a
    write with C{durable=False} may be lost; some file systems may then have an empty file instead
    of the old one. It never leaves half a file.
    """

    def read(self, path: str) -> bytes:
        """Content of a file; OSError if it can not be read."""

    def write(
        self,
        path: str,
        data: bytes,
        mode: int = 0o600,
        uid: int = -1,
        gid: int = -1,
        durable: bool = True,
    ) -> None:
        """Replace a file by one with this content and these permissions from its first byte."""

    def write_many(self, items: Sequence[tuple[str, bytes]]) -> None:
        """Replace several files durably (mode 0600), each as C{write} does, at the cost of fewer
        syncs; after an error any of them may be the old or the new one.
        """

    def write_logged(self, path: str, data: bytes, log: Tail, mode: int = 0o600) -> OSError | None:
        """Replace a file durably, as C{write} does, after the end of a log was written.

        When the new file can be seen the end of the log is durable, at little more than the price
        of the file alone.

        @return: what was wrong with the log; the file is written all the same
        """

    def append(self, tail: Tail) -> None:
        """Make a file, which may be new, end with this, durably.

        Raises: OSError; then any part of the new end may be there.
        """

    def rename(self, old: str, new: str, mkdir: bool = False, durable: bool = True) -> None:
        """Rename a file; C{mkdir} makes the target's directory (0750) if it is missing."""

    def remove(self, path: str) -> None:
        """Remove a file; a missing one is fine."""

    def exists(self, path: str) -> bool:
        """Is there anything of that name?"""

    def listdir(self, path: str) -> list[str]:
        """Names in a directory, sorted."""

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        """Make a directory and what is missing above it; an existing one is fine."""

    def stat(self, path: str) -> FileStat:
        """Size, time and inode; OSError if there is no such file."""

    def sync(self, path: str) -> None:
        """Make durable what was written or renamed in this directory without C{durable}."""


class Processes(Protocol):
    """Running programs; see L{utils.process.RunCmd} for the arguments."""

    def run(
        self,
        argv: Sequence[str],
        *,
        env: dict[str, str] | None = None,
        cwd: str = "/",
        reset_env: bool = False,
        timeout: float | None = None,
        input: str | None = None,  # noqa: A002 - the name subprocess gave it
        output: str | None = None,
        max_output: int | None = None,
    ) -> process.RunResult:
        """Run a program to its end."""

    def pipeline(
        self, stages: Sequence[pipeline.Stage], timeout: float | None = None
    ) -> list[pipeline.StageResult]:
        """Run programs that feed each other; see L{utils.pipeline.Run}."""


@dataclass
class HttpRequest:
    """One request of the RPC client; the transport fills in the last four."""

    host: str
    port: int
    method: str
    path: str
    body: bytes
    #: Seconds until the connection must stand.
    connect_timeout: float = 5.0
    #: Seconds for the whole exchange; None = without limit.
    timeout: float | None = None
    #: May the transport send it again if the connection broke before an answer came?
    repeatable: bool = False
    #: Anything the caller wants to find again.
    tag: Any = None
    #: None if there was no HTTP answer at all (then C{error} says why).
    status: int | None = field(default=None, init=False)
    reason: str = field(default="", init=False)
    response: bytes = field(default=b"", init=False)
    error: str | None = field(default=None, init=False)


class Transport(Protocol):
    """Carries RPC requests to node daemons."""

    def Perform(self, requests: Sequence[HttpRequest]) -> None:
        """Send all requests in parallel; return when each has an answer or an error."""

    def Shutdown(self) -> None:
        """Close all connections."""


class _RealClock:
    # Bound once: no price for going through an object.
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
    time = staticmethod(time.time)


class _RealRandom:
    """C{random.SystemRandom}, imported at its first use: a listing needs no randomness."""

    def __getattr__(self, name: str) -> Any:
        import random
        import secrets

        source = random.SystemRandom()
        for attr in ("random", "uniform", "randint", "choice", "shuffle"):
            setattr(self, attr, getattr(source, attr))
        self.token_hex = secrets.token_hex
        if name not in self.__dict__:
            raise AttributeError(name)
        return self.__dict__[name]


class _RealThreads:
    Lock = staticmethod(threading.Lock)
    Condition: Callable[..., Any] = staticmethod(threading.Condition)
    Event = staticmethod(threading.Event)
    get_ident = staticmethod(threading.get_ident)

    @staticmethod
    def start(
        target: Callable[..., object],
        args: Sequence[Any] = (),
        name: str | None = None,
        daemon: bool = True,
    ) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, name=name, daemon=daemon)
        thread.start()
        return thread

    @staticmethod
    def current_name() -> str:
        return threading.current_thread().name


def _WriteAll(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _WriteTail(log: Tail) -> int:
    """Write the end of a file without waiting for the disk; its open descriptor."""
    fd = os.open(log.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        if size < log.offset:
            raise OSError(errno.ESTALE, "The file was cut by somebody else", log.path)
        if size > log.offset:
            os.ftruncate(fd, log.offset)
        os.lseek(fd, log.offset, os.SEEK_SET)
        _WriteAll(fd, log.data)
        # Starts writing back.
        os.posix_fadvise(fd, log.offset, 0, os.POSIX_FADV_DONTNEED)
    except BaseException:
        os.close(fd)
        raise
    return fd


class RealFiles:
    """L{Files} on the file system of this machine."""

    def read(self, path: str) -> bytes:
        with open(path, "rb") as fobj:
            return fobj.read()

    def write(
        self,
        path: str,
        data: bytes,
        mode: int = 0o600,
        uid: int = -1,
        gid: int = -1,
        durable: bool = True,
    ) -> None:
        self._Replace(path, data, mode, uid, gid, durable)

    def _Replace(
        self,
        path: str,
        data: bytes,
        mode: int,
        uid: int = -1,
        gid: int = -1,
        durable: bool = True,
        before_rename: Callable[[], object] | None = None,
    ) -> None:
        tmp = self._TemporaryName(path)
        fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            try:
                if uid != -1 or gid != -1:
                    os.fchown(fd, uid, gid)
                if mode != 0o600:
                    os.fchmod(fd, mode)
                _WriteAll(fd, data)
                if durable:
                    os.fdatasync(fd)
            finally:
                os.close(fd)
            if before_rename is not None:
                before_rename()
            os.rename(tmp, path)
        except BaseException:
            os.unlink(tmp)
            raise
        if durable:
            self.sync(os.path.dirname(path))

    def write_logged(self, path: str, data: bytes, log: Tail, mode: int = 0o600) -> OSError | None:
        problem: OSError | None = None
        try:
            log_fd = _WriteTail(log)
        except OSError as err:
            self._Replace(path, data, mode)
            return err

        def _SyncLog() -> None:
            nonlocal problem
            # After the sync of the file: what the log needs of the file system's own journal went
            # along with that, most of the time.
            try:
                os.fdatasync(log_fd)
            except OSError as err:
                problem = err

        try:
            self._Replace(path, data, mode, before_rename=_SyncLog)
        finally:
            os.close(log_fd)
        return problem

    def append(self, tail: Tail) -> None:
        fd = _WriteTail(tail)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)
        if tail.offset == 0:
            self.sync(os.path.dirname(tail.path))

    @staticmethod
    def _TemporaryName(path: str) -> str:
        return f"{path}.{os.getpid()}-{threading.get_ident()}.new"

    def write_many(self, items: Sequence[tuple[str, bytes]]) -> None:
        pending: list[tuple[str, str, int]] = []
        try:
            for path, data in items:
                tmp = f"{self._TemporaryName(path)}.{len(pending)}"
                fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                pending.append((tmp, path, fd))
                _WriteAll(fd, data)
                # Starts writing back without waiting: the syncs below then wait for what is under
                # way together instead of one after the other.
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            for _, _, fd in pending:
                os.fdatasync(fd)
            for tmp, path, _ in pending:
                os.rename(tmp, path)
        except BaseException:
            for tmp, _, _ in pending:
                self.remove(tmp)
            raise
        finally:
            for _, _, fd in pending:
                os.close(fd)
        for directory in sorted({os.path.dirname(path) for path, _ in items}):
            self.sync(directory)

    def rename(self, old: str, new: str, mkdir: bool = False, durable: bool = True) -> None:
        try:
            os.rename(old, new)
        except FileNotFoundError:
            if not mkdir or not os.path.exists(old):
                raise
            os.makedirs(os.path.dirname(new), 0o750, exist_ok=True)
            os.rename(old, new)
        if durable:
            # The new name first: in between, the file may have both, but not none.
            for directory in dict.fromkeys([os.path.dirname(new), os.path.dirname(old)]):
                self.sync(directory)

    def remove(self, path: str) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            return

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        os.makedirs(path, mode, exist_ok=True)

    def stat(self, path: str) -> FileStat:
        st = os.stat(path)
        return FileStat(size=st.st_size, mtime=st.st_mtime, inode=st.st_ino, mode=st.st_mode)

    def sync(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as err:
            # Some file systems (FUSE, 9p) have no fsync for directories; theirs is the promise.
            if err.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(fd)


class _RealProcesses:
    @staticmethod
    def run(
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
        # Imported late: what never starts a program does not pay for subprocess.
        from ..utils import process

        return process.RunCmd(
            list(argv),
            env=env,
            cwd=cwd,
            reset_env=reset_env,
            timeout=timeout,
            input=input,
            output=output,
            max_output=max_output,
        )

    @staticmethod
    def pipeline(
        stages: Sequence[pipeline.Stage], timeout: float | None = None
    ) -> list[pipeline.StageResult]:
        from ..utils import pipeline

        return pipeline.Run(stages, timeout)


@dataclass(frozen=True)
class Runtime:
    """Everything outside of the program, handed to whoever needs it.

    @ivar transport: None until the RPC client was initialised
    """

    clock: Clock
    random: Random
    threads: Threads
    files: Files
    processes: Processes
    transport: Transport | None = None


#: The real world.
DEFAULT: Runtime = Runtime(
    clock=_RealClock(),
    random=_RealRandom(),
    threads=_RealThreads(),
    files=RealFiles(),
    processes=_RealProcesses(),
)

"""Locks between processes: flock(2) on a file."""

import fcntl
import os
from types import TracebackType

from .. import errors, runtime
from . import retry

#: First delay, factor and longest delay between attempts, in seconds.
_RETRY_DELAY = (0.1, 1.2, 1.0)


class FileLock:
    """A lock on an open file; the lock is gone when the object is closed or dies.

    One object is for one thread.
    """

    def __init__(self, fd: int, filename: str, runtime: runtime.Runtime = runtime.DEFAULT) -> None:
        """Take over an open descriptor; see Open for the usual way."""
        self._fd: int | None = fd
        self.filename = filename
        self._rt = runtime

    @classmethod
    def Open(cls, filename: str, runtime: runtime.Runtime = runtime.DEFAULT) -> "FileLock":
        """Open a file for locking; it is made (mode 0600) if missing, never truncated.

        A symbolic link is refused: one directory of locks is everybody's.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(filename, flags, 0o600)
        return cls(fd, filename, runtime)

    @classmethod
    def OpenExclusive(
        cls,
        filename: str,
        timeout: float | None = None,
        runtime: runtime.Runtime = runtime.DEFAULT,
    ) -> "FileLock":
        """Open a file that whoever has its lock may replace, and lock it for us alone.

        What is locked then is the file of that name, which for a mere Open and Exclusive may be
        one that was replaced meanwhile.

        Arguments: timeout = seconds to wait for the lock, None = try once.

        Raises: BlockingIOError without a timeout, LockError with one.
        """
        deadline = None if timeout is None else runtime.clock.monotonic() + timeout
        while True:
            lock = cls.Open(filename, runtime)
            try:
                left = None if deadline is None else max(0.0, deadline - runtime.clock.monotonic())
                lock.Exclusive(timeout=left)
                current = lock.IsCurrent()
            except BaseException:
                lock.Close()
                raise
            if current:
                return lock
            lock.Close()

    def IsCurrent(self) -> bool:
        """Is the open file still that of its name?"""
        try:
            there = os.stat(self.filename)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self.fileno()))

    def Replace(self, fd: int) -> None:
        """Go on with the lock of another open file, which has taken the place of this one."""
        self.Close()
        self._fd = fd

    def Close(self) -> None:
        """Close the file and so release the lock."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    def __del__(self) -> None:
        self.Close()

    def __enter__(self) -> "FileLock":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.Close()

    def fileno(self) -> int:
        """The descriptor of the open file."""
        assert self._fd is not None, "Lock was closed"
        return self._fd

    def Exclusive(self, blocking: bool = False, timeout: float | None = None) -> None:
        """Lock for us alone.

        Without blocking a lock that is held elsewhere raises BlockingIOError (EAGAIN). With a
        timeout (seconds) it is tried again until that is over, then LockError is raised. Blocking
        without timeout waits for ever.
        """
        self._Flock(
            fcntl.LOCK_EX, blocking, timeout, f"Failed to lock {self.filename} in exclusive mode"
        )

    def Shared(self, blocking: bool = False, timeout: float | None = None) -> None:
        """Lock together with others who lock shared; see Exclusive."""
        self._Flock(
            fcntl.LOCK_SH, blocking, timeout, f"Failed to lock {self.filename} in shared mode"
        )

    def Unlock(self, blocking: bool = True, timeout: float | None = None) -> None:
        """Release the lock and keep the file open."""
        self._Flock(fcntl.LOCK_UN, blocking, timeout, f"Failed to unlock {self.filename}")

    def _Flock(self, operation: int, blocking: bool, timeout: float | None, message: str) -> None:
        fd = self.fileno()
        if timeout is None:
            fcntl.flock(fd, operation if blocking else operation | fcntl.LOCK_NB)
            return
        try:
            retry.Retry(
                _TryFlock,
                _RETRY_DELAY,
                timeout,
                args=(fd, operation | fcntl.LOCK_NB),
                wait_fn=self._rt.clock.sleep,
                time_fn=self._rt.clock.monotonic,
            )
        except retry.RetryTimeout as err:
            raise errors.LockError(f"{message} within {timeout:g} s") from err


def _TryFlock(fd: int, operation: int) -> None:
    try:
        fcntl.flock(fd, operation)
    except BlockingIOError as err:
        raise retry.RetryAgain(err) from err


def LockFile(fd: int) -> None:
    """Lock an open file exclusively.

    Raises: LockError if it is locked elsewhere.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        raise errors.LockError("File already locked") from err

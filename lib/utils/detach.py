"""Becoming a daemon: leaving the terminal, and telling the starter how the start went."""

import contextlib
import os
import sys
from collections.abc import Collection
from typing import NoReturn

from .. import constants
from . import io


def Daemonize(logfile: str) -> "StartReport":
    """Go on as a daemon: own session, no terminal, directory /, umask 077, output to the log file.

    Returns only in the daemon. The process that called waits for the daemon's report and exits
    with its code; error texts go to its standard error.

    Raises: OSError if the log file can't be opened (before anything is changed).
    """
    log_fd = os.open(logfile, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    read_fd, write_fd = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork() != 0:
        os.close(write_fd)
        _ExitAsReported(read_fd, logfile)
    os.close(read_fd)
    os.setsid()
    # The second fork leaves a process that can never get a terminal again.
    if os.fork() != 0:
        os._exit(0)
    os.chdir("/")
    os.umask(0o077)
    null_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null_fd, 0)
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    for fd in (null_fd, log_fd):
        if fd > 2:
            os.close(fd)
    return StartReport(write_fd)


class StartReport:
    """A daemon's way to tell its starter how the start went; None as descriptor = foreground.

    Ok or Failed are called once; later calls have no effect. A daemon that dies without a word
    counts as failed.
    """

    def __init__(self, fd: int | None = None) -> None:
        self._fd = fd

    @property
    def detached(self) -> bool:
        """Whether somebody waits for the report; false in the foreground and after it."""
        return self._fd is not None

    def Ok(self) -> None:
        """The daemon runs: the starter exits with code 0."""
        self._Send(b"0\n")

    def Failed(self, message: str, code: int = constants.EXIT_FAILURE) -> None:
        """The daemon will not run: the starter shows the message and exits with the code."""
        if self._fd is None:
            return
        self._Send(f"{code}\n{message}".encode("utf-8", "backslashreplace"))

    def _Send(self, data: bytes) -> None:
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        with contextlib.suppress(BrokenPipeError):
            io.WriteAll(fd, data)
        os.close(fd)


def ParseStartReport(data: bytes, logfile: str) -> tuple[int, str]:
    """Exit code and error text from what a daemon wrote to its StartReport."""
    head, _, message = data.decode("utf-8", "replace").partition("\n")
    if not head.isdigit():
        return constants.EXIT_FAILURE, f"The daemon died while starting, see {logfile}"
    return int(head), message


def _ExitAsReported(read_fd: int, logfile: str) -> NoReturn:
    with open(read_fd, "rb") as fobj:
        code, message = ParseStartReport(fobj.read(), logfile)
    if message:
        sys.stderr.write(message.rstrip("\n") + "\n")
        sys.stderr.flush()
    # No exit handlers: what they clean up belongs to the daemon now.
    os._exit(code)


def CloseFDs(keep: Collection[int] = ()) -> None:
    """Close all descriptors from 3 on, except the given ones."""
    limit = os.sysconf("SC_OPEN_MAX")
    start = 3
    for fd in sorted(fd for fd in keep if fd >= start):
        os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, max(limit, start))

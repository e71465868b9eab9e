"""A child process after its start: feeding it, reading it, ending it when its time is over.

Not C{subprocess.Popen.communicate}: that keeps all that a program prints, however much, and at a
time-out it knows of the child alone. What a script started may be in process groups of its own
(C{timeout(1)}, job control of a shell), so everything in its session is ended.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Final

#: What is told to end by a time-out gets this long before it is killed (seconds).
TERM_GRACE = 5.0
#: After KILL, output is waited for no longer than this: who left the session may hold the pipe.
KILL_GRACE = 1.0

#: Between two looks whether a session has ended (seconds).
_POLL: Final = 0.02
#: Between two looks at what grows while the child runs (seconds).
_WATCH_INTERVAL: Final = 0.25
_READ_SIZE: Final = 65536
#: A write of that much to a pipe that is ready never blocks.
_WRITE_SIZE: Final = 512


class Capture:
    """What is kept of a stream: all of it, or its beginning and its end.

    @param limit: bytes that are kept at most, in equal parts; None = all
    """

    def __init__(self, limit: int | None = None) -> None:
        self._head_size = None if limit is None else limit // 2
        self._tail_size = 0 if limit is None else limit - limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0

    def Add(self, data: bytes) -> None:
        """Take what was read."""
        if self._head_size is None:
            self._head += data
            return
        room = self._head_size - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        # Not at every read: moving the tail costs as much as reading it.
        if len(self._tail) > 2 * self._tail_size + _READ_SIZE:
            self._Trim()

    def _Trim(self) -> None:
        surplus = len(self._tail) - self._tail_size
        if surplus > 0:
            del self._tail[:surplus]
            self._dropped += surplus

    def Get(self) -> bytes:
        """What was kept, with a note where something is missing."""
        if self._head_size is not None:
            self._Trim()
        note = b"\n[... %d bytes left out ...]\n" % self._dropped if self._dropped else b""
        return bytes(self._head) + note + bytes(self._tail)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a child ended.

    @ivar code: exit code, or minus the number of the signal that ended it
    @ivar stdout: what it printed, as far as it was kept
    @ivar stderr: likewise
    @ivar timed_out: its time was over, and it or what it had started was ended
    @ivar lingering: at that time it had ended by itself, but others held its output open
    """

    code: int
    stdout: bytes = b""
    stderr: bytes = b""
    timed_out: bool = False
    lingering: bool = False


class _Dialogue:
    """Feeds and reads a child until it has ended and its streams are closed.

    @ivar exited: it has ended (and was not reaped)
    """

    def __init__(
        self,
        proc: subprocess.Popen[bytes],
        data: bytes | None,
        max_output: int | None,
        watch: Callable[[], None] | None,
    ) -> None:
        self.exited = False
        self._watch = watch
        self.stdout = Capture(max_output)
        self.stderr = Capture(max_output)
        self._data = memoryview(data or b"")
        self._selector = selectors.DefaultSelector()
        self._pidfd = os.pidfd_open(proc.pid)
        self._streams = [s for s in (proc.stdin, proc.stdout, proc.stderr) if s is not None]
        self._Register(self._pidfd, selectors.EVENT_READ, self._OnExit)
        for stream, capture in ((proc.stdout, self.stdout), (proc.stderr, self.stderr)):
            if stream is not None:
                self._Register(stream, selectors.EVENT_READ, self._Reader(stream, capture))
        if proc.stdin is not None:
            os.set_blocking(proc.stdin.fileno(), False)
            self._Register(proc.stdin, selectors.EVENT_WRITE, self._Writer(proc.stdin))

    def _Register(self, fobj: int | IO[bytes], events: int, fn: Callable[[], None]) -> None:
        self._selector.register(fobj, events, fn)

    def _OnExit(self) -> None:
        self.exited = True
        self._selector.unregister(self._pidfd)

    def _Reader(self, stream: IO[bytes], capture: Capture) -> Callable[[], None]:
        def Read() -> None:
            data = os.read(stream.fileno(), _READ_SIZE)
            if data:
                capture.Add(data)
            else:
                self._Close(stream)

        return Read

    def _Writer(self, stream: IO[bytes]) -> Callable[[], None]:
        def Write() -> None:
            try:
                written = os.write(stream.fileno(), self._data[:_WRITE_SIZE]) if self._data else 0
            except BrokenPipeError:
                # It reads no more: that is its business.
                written = len(self._data)
            self._data = self._data[written:]
            if not self._data:
                self._Close(stream)

        return Write

    def _Close(self, stream: IO[bytes]) -> None:
        self._selector.unregister(stream)
        stream.close()

    def Run(self, deadline: float | None) -> bool:
        """Go on until everything is over, or until a moment of the monotonic clock; is it over?"""
        while self._selector.get_map():
            wait = None if deadline is None else deadline - time.monotonic()
            if wait is not None and wait <= 0:
                return False
            if self._watch is not None:
                self._watch()
                wait = _WATCH_INTERVAL if wait is None else min(wait, _WATCH_INTERVAL)
            for key, _ in self._selector.select(wait):
                key.data()
        return True

    def Close(self) -> None:
        """Give up what is still open."""
        self._selector.close()
        os.close(self._pidfd)
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.close()


def Communicate(
    proc: subprocess.Popen[bytes],
    data: bytes | None = None,
    timeout: float | None = None,
    max_output: int | None = None,
    own_session: bool = True,
    watch: Callable[[], None] | None = None,
) -> Outcome:
    """Feed and read a child until it ends or its time is over, and reap it.

    Arguments:
      - data: what it reads, if its standard input is a pipe
      - timeout: seconds until its session is told to end (TERM), and killed after TERM_GRACE
      - max_output: bytes of each stream that are kept at most
      - own_session: it is the leader of a session; else it alone is ended
      - watch: called several times a second until it ends
    """
    try:
        dialogue = _Dialogue(proc, data, max_output, watch)
        try:
            return _Converse(proc, dialogue, timeout, own_session)
        finally:
            dialogue.Close()
    except BaseException:
        if proc.returncode is None:
            _Signal(proc, signal.SIGKILL, own_session)
            _Reap(proc, exited=False)
        raise


def _Converse(
    proc: subprocess.Popen[bytes], dialogue: _Dialogue, timeout: float | None, own_session: bool
) -> Outcome:
    in_time = dialogue.Run(None if timeout is None else time.monotonic() + timeout)
    lingering = not in_time and dialogue.exited
    if not in_time:
        # Not reaped yet: as long as it is a zombie, its number is nobody else's.
        for signum, grace in ((signal.SIGTERM, TERM_GRACE), (signal.SIGKILL, KILL_GRACE)):
            if _End(proc, dialogue, signum, grace, own_session):
                break
    return Outcome(
        _Reap(proc, dialogue.exited),
        dialogue.stdout.Get(),
        dialogue.stderr.Get(),
        timed_out=not in_time,
        lingering=lingering,
    )


def _End(
    proc: subprocess.Popen[bytes],
    dialogue: _Dialogue,
    signum: int,
    grace: float,
    own_session: bool,
) -> bool:
    """Signal it, and wait for its end and that of its session."""
    deadline = time.monotonic() + grace
    _Signal(proc, signum, own_session)
    ended = dialogue.Run(deadline)
    while own_session and FindSessionMembers(proc.pid):
        if time.monotonic() >= deadline:
            return False
        if signum == signal.SIGKILL:
            # Somebody may have forked while the others were killed.
            _Signal(proc, signum, own_session)
        time.sleep(_POLL)
    return ended


def _Signal(proc: subprocess.Popen[bytes], signum: int, own_session: bool) -> None:
    if not own_session:
        proc.send_signal(signum)
        return
    for pid in FindSessionMembers(proc.pid):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)


def FindSessionMembers(session: int) -> list[int]:
    """The processes of a session that live; zombies do not."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as fobj:
                stat = fobj.read()
        except OSError:
            continue
        # The name of the program, in parentheses, may contain anything.
        state, _, _, its_session = stat[stat.rindex(b")") + 1 :].split()[:4]
        if int(its_session) == session and state not in (b"Z", b"X"):
            found.append(int(name))
    return found


def _Reap(proc: subprocess.Popen[bytes], exited: bool) -> int:
    """Take its exit status; who can't even be killed (a dead file server) is waited for aside."""
    if exited:
        return proc.wait()
    with contextlib.suppress(subprocess.TimeoutExpired):
        return proc.wait(KILL_GRACE)
    StartReaper(proc)
    return -signal.SIGKILL


def StartReaper(proc: subprocess.Popen[bytes]) -> None:
    """Take the exit status of a child whenever it ends, or it would stay as a zombie."""
    threading.Thread(target=proc.wait, name=f"Reaper-{proc.pid}", daemon=True).start()

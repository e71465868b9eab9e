"""A user at a terminal: starts a program, reads what it says, types answers."""

import os
import pty
import re
import select
import signal
import time


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, argv):
        self.text = ""
        self._seen = 0
        self._code = None
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            try:
                os.execvp(argv[0], argv)
            finally:
                os._exit(127)

    def Expect(self, pattern, timeout=30):
        """Wait until the program says something new that matches; the match.

        A program that ends, or is silent for too long, fails the test with what it said.
        """
        deadline = time.monotonic() + timeout
        while True:
            match = re.compile(pattern).search(self.text, self._seen)
            if match:
                self._seen = match.end()
                return match
            assert self._Read(deadline), (
                f"waited for {pattern!r}, the program said:\n{self.text[self._seen :]}"
            )

    def _Read(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self._fd], [], [], left)[0]:
            return False
        try:
            data = os.read(self._fd, 4096)
        except OSError:
            # What a terminal without programs gives.
            return False
        self.text += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)

    def Type(self, line):
        """Type a line."""
        os.write(self._fd, line.encode() + b"\n")

    def Wait(self, timeout=60):
        """Read all that the program still says; its exit code."""
        deadline = time.monotonic() + timeout
        while self._Read(deadline):
            pass
        if time.monotonic() >= deadline:
            self.Close()
            raise AssertionError(f"the program does not end; it said:\n{self.text}")
        self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self._pid = None
        self.Close()
        return self._code

    def Close(self):
        """End the program if it runs."""
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = None
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

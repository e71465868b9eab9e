"""Writing to a file that may hang: a disk that does not even fail stops nobody.

Design: "Node daemon availability" of 2.1.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Final

from .. import runtime

#: Seconds that who writes waits for it at most.
PATIENCE: Final = 0.5
#: Texts that are kept for a file that hangs.
_MAX_WAITING: Final = 1000


class PatientWriter:
    """A thread that writes texts in their order; whoever hands one over waits a moment only.

    As long as nothing hangs a text is written when L{Write} returns, so that a process that is
    killed has written what it said. C{_changed} guards all fields.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        patience: float,
        rt: runtime.Runtime = runtime.DEFAULT,
    ) -> None:
        """@param write: does it, deals with errors itself, and may hang

        @param patience: seconds to wait for it
        """
        self._write = write
        self._patience = patience
        self._rt = rt
        self._changed = rt.threads.Condition()
        self._waiting: deque[str] = deque()
        self._taken = 0
        self._written = 0
        self._hangs = False
        self._closed = False
        self._pid = 0

    def Write(self, text: str) -> bool:
        """Have a text written; False if it was not yet: it will be if there is room for it."""
        with self._changed:
            if not self._closed and self._HasThread():
                return self._HandOver(text)
        self._write(text)
        return True

    def _HasThread(self) -> bool:
        """Is there a thread, if need be a new one? A child of this process has none."""
        if self._pid == 0:
            try:
                self._rt.threads.start(self._Run, name="LogWriter")
            except RuntimeError:
                # Next time, perhaps.
                return False
            self._pid = os.getpid()
        return self._pid == os.getpid()

    def _HandOver(self, text: str) -> bool:
        if len(self._waiting) >= _MAX_WAITING:
            return False
        self._waiting.append(text)
        self._taken += 1
        number = self._taken
        self._changed.notify_all()
        if self._hangs:
            # Nobody else waits in vain.
            return False
        end = self._rt.clock.monotonic() + self._patience
        while self._written < number:
            left = end - self._rt.clock.monotonic()
            if left <= 0 or self._hangs:
                self._hangs = True
                return False
            self._changed.wait(left)
        return True

    def _Run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closed:
                        return
                    self._changed.wait()
                text = self._waiting.popleft()
            self._write(text)
            with self._changed:
                self._written += 1
                self._hangs = False
                self._changed.notify_all()

    def Close(self) -> bool:
        """Write what is left, unless that takes too long; False if something was not."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            if self._pid != os.getpid():
                return True
            end = self._rt.clock.monotonic() + self._patience
            while self._written < self._taken:
                left = end - self._rt.clock.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True

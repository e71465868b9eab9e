"""A limit for the log file that a foreign program appends to while it runs.

The program has the file itself, not a pipe to us: what it writes is there at once, and processes
that it leaves behind may go on. So what is too much is cut out of the file, again and again, while
the program runs. Its beginning and its end stay.
"""

from __future__ import annotations

import os
from typing import Final

#: Bytes of the newest output that stay, at most.
_MAX_TAIL: Final = 65536


class LogLimit:
    """Keeps what is appended to an open file from growing without end.

    A program that writes in that very moment may lose a few lines more than the note tells.

    @param fd: the file, open for reading and appending; what is in it already is not counted
    @param limit: bytes that may be appended
    """

    def __init__(self, fd: int, limit: int) -> None:
        self._fd = fd
        start = os.fstat(fd).st_size
        self._max_size = start + limit
        self._head_end = start + limit // 2
        self._tail_size = min(limit // 4, _MAX_TAIL)
        self._note_size = 0
        self._dropped = 0

    def Check(self) -> None:
        """Cut the middle out if there is too much."""
        size = os.fstat(self._fd).st_size
        if size <= self._max_size:
            return
        tail = os.pread(self._fd, self._tail_size, size - self._tail_size)
        # Its beginning is half a line.
        tail = tail.partition(b"\n")[2] or tail
        self._dropped += size - self._head_end - self._note_size - len(tail)
        note = b"\n[... %d bytes left out ...]\n" % self._dropped
        self._note_size = len(note)
        os.ftruncate(self._fd, self._head_end)
        os.write(self._fd, note + tail)

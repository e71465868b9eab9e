"""A disk that keeps what was synced, of a machine that dies at a step that was chosen before.

Every change is taken apart into what others see in between: a durable write is I{about to},
I{visible but not on the disk}, I{done}. The machine can die at each of these.
"""

from __future__ import annotations

import os
from dataclasses import replace

from ganeti.runtime.fake import MemoryFiles

#: Only the process died.
KILLED = "killed"
#: Of what was not synced any part may be there, or not.
POWER_LOSS = "power loss"
#: The same, and a file whose data was not synced may be there, but empty.
TORN = "torn"


class Crash(BaseException):
    """The machine is dead."""


class MortalDisk(MemoryFiles):
    """L{MemoryFiles} that can die; see the module.

    @ivar left: steps that it survives; negative = it does not die
    @ivar steps: steps so far
    @ivar dead: has it died?
    """

    def __init__(self, clock, left=-1):
        super().__init__(clock)
        self.left = left
        self.steps = 0
        self.dead = False
        #: Files whose data nobody has synced.
        self._loose = set()
        #: New name -> old name, of renamings that nobody has synced.
        self._renamed = {}

    def CheckAlive(self):
        """Whoever belongs to this machine goes on only while it lives."""
        if self.dead:
            raise Crash

    def _Step(self):
        self.CheckAlive()
        if self.steps == self.left:
            self.dead = True
            raise Crash
        self.steps += 1

    def write(self, path, data, mode=0o600, uid=-1, gid=-1, durable=True):
        self._Step()
        super().write(path, data, mode, uid, gid, durable=False)
        (self._loose.discard if durable else self._loose.add)(path)
        if durable:
            self._Step()
            self._durable[path] = replace(self._live[path])

    def write_many(self, items):
        for path, data in items:
            self._Step()
            super().write(path, data, durable=False)
            self._loose.discard(path)
        self._Step()
        for path, _ in items:
            self._durable[path] = replace(self._live[path])

    def append(self, log):
        self._Step()
        super().append(log)

    def _PutTail(self, path, kept, data):
        # Dead in between, a part of the new end is there.
        for part in (data[: len(data) // 2], data):
            super()._PutTail(path, kept, part)
            self._Step()

    def rename(self, old, new, mkdir=False, durable=True):
        self._Step()
        super().rename(old, new, mkdir, durable=False)
        self._renamed[new] = old
        if old in self._loose:
            self._loose.discard(old)
            self._loose.add(new)
        if durable:
            for directory in (os.path.dirname(new), os.path.dirname(old)):
                self.sync(directory)

    def remove(self, path):
        self._Step()
        self._live.pop(path, None)

    def sync(self, path):
        self._Step()
        super().sync(path)

    def Left(self, how, rng):
        """What is found after the death: path -> content.

        @param how: L{KILLED}, L{POWER_LOSS} or L{TORN}
        """
        result = {}
        # A renaming is one change to a file system, whatever the directories.
        for new, old in self._renamed.items():
            if new in self._live and new not in self._durable and old in self._durable:
                taken = how == KILLED or rng.random() < 0.5
                if taken:
                    result[new] = self._live[new].data
                elif old not in self._live:
                    result[old] = self._durable[old].data
        pairs = [pair for pair in self._renamed.items() if result.keys() & set(pair)]
        settled = {name for pair in pairs for name in pair}
        for path in sorted({*self._live, *self._durable} - settled):
            now, then = self._live.get(path), self._durable.get(path)
            same = now is not None and then is not None and now.data == then.data
            chosen = now if how == KILLED or same or rng.random() < 0.5 else then
            if chosen is None:
                continue
            torn = how == TORN and chosen is now and path in self._loose and rng.random() < 0.5
            result[path] = b"" if torn else chosen.data
        return result

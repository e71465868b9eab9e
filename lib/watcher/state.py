"""What the watcher keeps from run to run, in a file that is its lock as well.

The file is JSON: C{{"instance": {name: {"restart_count": n, "restart_when": time}}, "node": {name:
{"bootid": text}}}}. It is replaced, not rewritten; the new one is locked before it takes the place
of the old, so that the lock never lapses.
"""

from __future__ import annotations

import fcntl
import logging
import os
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

from .. import pathutils, serializer
from ..utils import io
from ..utils.filelock import FileLock

_MODE: Final = 0o600


@dataclass
class Attempts:
    """How often an instance was started in vain.

    @ivar when: time of the last attempt, seconds since the epoch
    """

    count: int
    when: float


@dataclass
class State:
    """See the module.

    @ivar attempts: instance -> what was tried to bring it back
    @ivar boot_ids: node -> id of the boot that it was last seen in
    """

    attempts: dict[str, Attempts] = field(default_factory=dict)
    boot_ids: dict[str, str] = field(default_factory=dict)


def Format(state: State) -> str:
    """Content of the file."""
    document: dict[str, Any] = {
        "instance": {
            name: {"restart_count": attempts.count, "restart_when": attempts.when}
            for name, attempts in state.attempts.items()
        },
        "node": {name: {"bootid": boot_id} for name, boot_id in state.boot_ids.items()},
    }
    return serializer.Dump(document)


def Parse(content: str) -> State:
    """The inverse of L{Format}.

    @raise ValueError: it is something else
    """
    try:
        document = serializer.Load(content)
        attempts = {
            str(name): Attempts(int(entry["restart_count"]), float(entry["restart_when"]))
            for name, entry in document.get("instance", {}).items()
        }
        boot_ids = {
            str(name): str(entry["bootid"]) for name, entry in document.get("node", {}).items()
        }
    except (AttributeError, KeyError, TypeError, OverflowError) as err:
        raise ValueError(f"not the state of a watcher: {type(err).__name__}: {err}") from err
    return State(attempts, boot_ids)


class StateFile:
    """The file, locked from L{Open} to L{Close}."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock
        self._path = lock.filename

    @classmethod
    def Open(cls, path: str = pathutils.WATCHER_STATEFILE) -> StateFile:
        """Open the file, which is made if it is missing, and lock it.

        @raise BlockingIOError: somebody else has the lock
        """
        return cls(FileLock.OpenExclusive(path))

    def Load(self) -> State:
        """What the last run left; nothing if that can not be understood."""
        content = io.ReadFile(self._path)
        if not content:
            return State()
        try:
            return Parse(content)
        except ValueError as err:
            logging.warning("Starting without the state in %s: %s", self._path, err)
            return State()

    def Save(self, state: State) -> None:
        """Replace the content; the time of the file changes in any case.

        @raise OSError: it can not be written
        """
        content = Format(state)
        if content == io.ReadFile(self._path):
            self.Touch()
            return
        fd = io.WriteFile(self._path, data=content, mode=_MODE, prewrite=_Lock, close=False)
        assert fd is not None
        self._lock.Replace(fd)

    def Touch(self) -> None:
        """Show that the watcher ran."""
        os.utime(self._lock.fileno())

    def Close(self) -> None:
        """Give up the lock."""
        self._lock.Close()

    def __enter__(self) -> StateFile:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.Close()


def _Lock(fd: int) -> None:
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

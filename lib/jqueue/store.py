"""Job files on disk: group commit.

All writing is done by one thread. What arrives while it writes is written together the next time:
many submissions share one sync, that of the queue's journal (L{jstore.files}). Nobody holds the
mutex of the queue meanwhile.

There are two kinds of writes. A I{durable} one is answered once the change is synced here and safe
elsewhere (L{replication}): new jobs, opcodes about to run, ends. A I{lazy} one is for what a
restart can find out by itself (an opcode waits for locks, a log line): written a moment later and
not waited for; a durable write of the same file takes it along.

What is written is asked for when it is written: several changes of a job cost one serialisation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from .. import errors, runtime
from ..jstore import files as jstore_files
from ..jstore.journal import Change, Rename, Update
from . import replication

#: Seconds that a lazy write may wait for others.
_LAZY_DELAY: Final = 0.1
#: Seconds between looks at candidates that take too long.
_TICK: Final = 1.0
#: Seconds until what could not be written is tried again.
_RETRY: Final = 5.0

#: Gives the content of a file.
Source = Callable[[], bytes]


class Ticket:
    """The outcome of a durable write, to come."""

    def __init__(self, rt: runtime.Runtime) -> None:
        self._mutex = rt.threads.Lock()
        self._done = rt.threads.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._error: Exception | None = None

    def Wait(self) -> None:
        """Return when it is done.

        @raise errors.JobQueueError: it failed
        """
        self._done.wait()
        if self._error is not None:
            raise self._error

    @property
    def error(self) -> Exception | None:
        """Why it failed; None as long as it did not."""
        return self._error

    def AddDoneCallback(self, fn: Callable[[], None]) -> None:
        """Call this, in any thread, when it is done; at once if it is already."""
        with self._mutex:
            if not self._done.is_set():
                self._callbacks.append(fn)
                return
        fn()

    def Finish(self, error: Exception | None = None) -> None:
        """It is done; only the first word counts."""
        with self._mutex:
            if self._done.is_set():
                return
            self._error = error
            self._done.set()
            callbacks, self._callbacks = self._callbacks, []
        for fn in callbacks:
            try:
                fn()
            except Exception:  # noqa: BLE001 - whoever asked must not harm the thread that writes
                logging.exception("A callback of the job queue failed")


def _GetContents(sources: Mapping[str, Source], failed: dict[str, str]) -> list[tuple[str, bytes]]:
    """What is to be written; a file whose content can not be had does not keep back the others."""
    contents = []
    for path, source in sources.items():
        try:
            contents.append((path, source()))
        except Exception as err:  # noqa: BLE001 - other jobs must not suffer for a mistake in one
            logging.exception("There is no content for the job queue file %s", path)
            failed[path] = f"There is no content for the job queue file {path}: {err!r}"
    return contents


def _GetTarget(change: Change) -> str:
    return change.new if isinstance(change, Rename) else change.path


class _Group:
    """What will be written together."""

    def __init__(self) -> None:
        self.durable: dict[str, Source] = {}
        self.lazy: dict[str, Source] = {}
        #: Those of the durable ones that are tried again if they can't be written.
        self.kept: set[str] = set()
        self.renames: list[tuple[str, str]] = []
        #: To be called when all that is written and handed on.
        self.calls: list[tuple[Ticket, Callable[[], None]]] = []
        #: Who waits for which files.
        self.tickets: list[tuple[Ticket, tuple[str, ...]]] = []
        self.lazy_since = 0.0

    def Place(self, path: str) -> str:
        """Where to write a file of that name: if it is only about to get it, under the old one."""
        return next((old for old, new in self.renames if new == path), path)

    @property
    def urgent(self) -> bool:
        return bool(self.durable or self.renames or self.calls)

    def __bool__(self) -> bool:
        return self.urgent or bool(self.lazy)


class JobStore:
    """Writes the files of the queue.

    The rule of the fields: C{_group}, C{_ending} and the counters under C{_mutex}, which is held
    for moments only; the thread owns the group that it took.
    """

    def __init__(
        self, replicator: replication.Replicator, rt: runtime.Runtime = runtime.DEFAULT
    ) -> None:
        self._replicator = replicator
        self._rt = rt
        self._mutex = rt.threads.Lock()
        self._work = rt.threads.Condition(self._mutex)
        self._group = _Group()
        self._ending = False
        self._files = jstore_files.QueueFiles(rt)
        self._stat_groups = 0
        self._stat_files = 0
        self._thread = rt.threads.start(self._Run, name="JobQueueStore")

    # What others ask for

    def WriteLazily(self, path: str, source: Source) -> None:
        """Write a file some time soon."""
        with self._mutex:
            group = self._group
            path = group.Place(path)
            if path in group.durable:
                return
            if not group.lazy:
                group.lazy_since = self._rt.clock.monotonic()
            group.lazy[path] = source
            self._work.notify_all()

    def WriteDurably(self, files: Sequence[tuple[str, Source]], keep: bool = True) -> Ticket:
        """Write files, synced and copied.

        @param keep: what could not be written is tried again later, though not answered for
        @return: tells when all of them are safe, or that one could not be written
        """
        ticket = Ticket(self._rt)
        with self._mutex:
            self._CheckOpen()
            group = self._group
            placed = [(group.Place(path), source) for path, source in files]
            for path, source in placed:
                group.lazy.pop(path, None)
                group.durable[path] = source
                (group.kept.add if keep else group.kept.discard)(path)
            group.tickets.append((ticket, tuple(path for path, _ in placed)))
            self._work.notify_all()
        return ticket

    def Rename(self, renames: Sequence[tuple[str, str]]) -> Ticket:
        """Rename files, after all that was asked for before.

        @return: tells when it is done and safe; fails if one of them could not be renamed
        """
        ticket = Ticket(self._rt)
        with self._mutex:
            self._CheckOpen()
            self._group.renames.extend(renames)
            self._group.tickets.append((ticket, tuple(new for _, new in renames)))
            self._work.notify_all()
        return ticket

    def Call(self, fn: Callable[[], None]) -> Ticket:
        """Call this between two groups: what was asked for before has been written and handed to
        the copies, nothing else is under way.

        @return: tells when it is done
        """
        ticket = Ticket(self._rt)
        with self._mutex:
            self._CheckOpen()
            self._group.calls.append((ticket, fn))
            self._work.notify_all()
        return ticket

    def Exists(self, path: str) -> bool:
        """Is there such a file, or will there be once what was answered for is in the files?"""
        return self._files.Exists(path)

    def _CheckOpen(self) -> None:
        if self._ending:
            raise errors.JobQueueError("The job queue is closed; the master daemon is ending")

    def Shutdown(self) -> None:
        """Write everything, make it durable, and end."""
        with self._mutex:
            self._ending = True
            self._work.notify_all()
        self._thread.join()
        self._files.Shutdown()

    def GetStatistics(self) -> dict[str, int]:
        """Groups and files written so far."""
        with self._mutex:
            return {"groups": self._stat_groups, "files": self._stat_files}

    # The thread

    def _Run(self) -> None:
        waiting = False
        while True:
            group = self._NextGroup(waiting)
            if group is None:
                break
            if group:
                try:
                    self._WriteGroup(group)
                except Exception as err:  # noqa: BLE001 - the boundary of a thread
                    logging.exception("Writing job files failed")
                    for ticket, _ in [*group.tickets, *group.calls]:
                        ticket.Finish(errors.JobQueueError(f"Writing job files failed: {err!r}"))
            waiting = self._replicator.Tick()

    def _NextGroup(self, tick: bool) -> _Group | None:
        """Wait for something to write; empty if only time has passed, None at the end."""
        with self._mutex:
            tick_end = self._rt.clock.monotonic() + _TICK
            while not self._group.urgent:
                now = self._rt.clock.monotonic()
                deadlines = []
                if self._group.lazy:
                    deadlines.append(self._group.lazy_since + _LAZY_DELAY)
                if tick:
                    deadlines.append(tick_end)
                if self._ending:
                    if not self._group:
                        return None
                    break
                if deadlines and min(deadlines) <= now:
                    break
                self._work.wait(min(deadlines) - now if deadlines else None)
            group, self._group = self._group, _Group()
            if (
                not group.urgent
                and not self._ending
                and not (
                    group.lazy and group.lazy_since + _LAZY_DELAY <= self._rt.clock.monotonic()
                )
            ):
                # Only the tick; what is lazy stays so.
                self._group, group = group, self._group
            else:
                self._stat_groups += 1
                self._stat_files += len(group.durable) + len(group.lazy)
            return group

    def _WriteGroup(self, group: _Group) -> None:
        failed: dict[str, str] = {}
        sources = {**group.lazy, **group.durable}
        group.kept |= group.lazy.keys()
        wanted: list[Change] = [Update(path, data) for path, data in _GetContents(sources, failed)]
        wanted += [Rename(old, new) for old, new in group.renames]
        changes = self._Change(wanted, failed)
        self._TryAgain({path: sources[path] for path in failed if path in group.kept})
        tickets = group.tickets

        def _Tell() -> None:
            for ticket, paths in tickets:
                problems = [failed[path] for path in paths if path in failed]
                ticket.Finish(errors.JobQueueError("; ".join(problems)) if problems else None)

        self._replicator.Submit(changes, _Tell if tickets else None)
        for ticket, fn in group.calls:
            fn()
            ticket.Finish()

    def _TryAgain(self, sources: Mapping[str, Source]) -> None:
        """Write these later, unless they are to be written anyway."""
        if not sources:
            return
        with self._mutex:
            if self._ending:
                return
            group = self._group
            for path, source in sources.items():
                if path not in group.durable:
                    group.lazy.setdefault(path, source)
            group.lazy_since = self._rt.clock.monotonic() + _RETRY

    def _Change(self, wanted: list[Change], failed: dict[str, str]) -> list[Change]:
        """Make these changes; those that were made.

        @param failed: gets what was not done, and why, by the path that the file was to have
        """
        # What a file was to have before it is renamed could not be written: then it stays where
        # it is, for it is written there later.
        for change in wanted:
            if isinstance(change, Rename) and change.path in failed:
                failed[change.new] = failed[change.path]
        wanted = [change for change in wanted if _GetTarget(change) not in failed]
        if not wanted:
            return []
        try:
            failed.update(self._files.Change(wanted))
        except OSError as err:
            if len(wanted) > 1:
                # Find out which one it is, so that the others do not suffer for it.
                return [done for change in wanted for done in self._Change([change], failed)]
            path = _GetTarget(wanted[0])
            failed[path] = f"Can not write the job queue file {path}: {err.strerror}"
            logging.error("%s", failed[path])
        return [change for change in wanted if _GetTarget(change) not in failed]

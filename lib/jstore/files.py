"""Changing the files of the job queue by way of its journal.

A change is durable when it is in the journal, and answered for then. The files follow a moment
later, each with the last content that it was to have, many together; when they have it for certain,
the journal's older part goes. So what is on the disk is the files and, of the last moments, the
journal (L{journal.Recover} puts them together).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import Callable, Sequence
from typing import Final

from .. import errors, pathutils, runtime
from . import journal
from .journal import Change, Rename, Update

#: Seconds until a changed file is written: what is changed again meanwhile is written once.
_DELAY: Final = 0.5
#: The same where others may have the queue, so that nobody reads its files as they go. There the
#: changes of a burst would have to wait for each other and for the files of the last moment.
_SHARED_DELAY: Final = 20.0
#: Seconds without a change after which the journal is emptied, and its size that it is emptied at.
_QUIET: Final = 1.0
_SIZE_LIMIT: Final = 8 * 1024 * 1024
#: Seconds until the next attempt after one that failed.
_RETRY: Final = 5.0
#: Files that are written together; a renaming waits so long.
_CHUNK: Final = 20

#: Gives the right to change the queue's files, for as long as the block lasts.
Turn = Callable[[], contextlib.AbstractContextManager[None]]


class QueueFiles:
    """The files of a queue that this process may change.

    The rule of the fields: C{_dirty}, C{_taken}, C{_due}, C{_touched} and C{_ending} under
    C{_mutex}, for moments only. C{_order} is held from the append to the journal until the memory
    says the same; C{_io} while files are changed. They are taken in the order C{_order}, C{_io},
    C{_mutex}.

    @param turn: to be had for what is done here in the background, where others may have the queue
        in between; None = it is ours for good
    """

    def __init__(self, rt: runtime.Runtime = runtime.DEFAULT, turn: Turn | None = None) -> None:
        self._rt = rt
        self._shared = turn is not None
        self._turn = turn or contextlib.nullcontext
        self._order = rt.threads.Lock()
        self._io = rt.threads.Lock()
        self._mutex = rt.threads.Lock()
        self._work = rt.threads.Condition(self._mutex)
        self._journal = journal.Journal(rt)
        #: What files are to have: path -> content.
        self._dirty: dict[str, bytes] = {}
        #: The same, about to be written; what is dirty is newer.
        self._taken: dict[str, bytes] = {}
        #: When to write what is dirty (monotonic).
        self._due = 0.0
        self._changed = 0.0
        #: When to try again after a failure.
        self._not_before = 0.0
        #: Directories with names that may not be durable yet.
        self._touched: set[str] = set()
        self._ending = False
        self._thread: runtime.ThreadHandle | None = None

    # Changes

    def Change(self, changes: Sequence[Change]) -> dict[str, str]:
        """Make changes durable, all or none; who shares the queue has the turn.

        Renamings are done when this returns.

        @return: for each file that could not be renamed, by its new name, why
        @raise OSError: nothing was changed
        """
        if not changes:
            return {}
        with self._order:
            # First of all: it can fail, too, and after the next step nothing may.
            self._StartThread()
            if self._shared and not self._journal.IsAsLeft():
                self._StartAgain()
            try:
                self._journal.Append(changes)
            except OSError:
                # What is left of it is to be removed.
                self._Notify()
                raise
            failed = {}
            for change in changes:
                if isinstance(change, Update):
                    self._AddDirty(change)
                else:
                    try:
                        self._Rename(change)
                    except OSError as err:
                        failed[change.new] = f"Can not rename {change.path}: {err.strerror}"
                        logging.error("%s", failed[change.new])
            self._Notify()
        return failed

    def _Notify(self) -> None:
        with self._mutex:
            self._changed = self._rt.clock.monotonic()
            self._work.notify_all()

    def _StartThread(self) -> None:
        with self._mutex:
            if self._thread is None:
                self._thread = self._rt.threads.start(self._Run, name="JobQueueFiles")

    def _StartAgain(self) -> None:
        """Somebody else had the queue, and may have gone before the files had all changes."""
        logging.info("The job queue was changed by another process")
        self._Forget()
        # Nothing is ours until all of it is done: if it fails in the middle, it is done again.
        self._journal = journal.Journal(self._rt)
        journal.Recover(self._rt)
        self._journal = journal.Journal(self._rt)

    def _Forget(self) -> None:
        with self._mutex:
            self._dirty.clear()
            self._taken.clear()
            self._touched.clear()

    def _AddDirty(self, change: Update) -> None:
        with self._mutex:
            if not self._dirty:
                self._due = self._rt.clock.monotonic() + (_SHARED_DELAY if self._shared else _DELAY)
            self._dirty[change.path] = change.data

    def _Rename(self, change: Rename) -> None:
        with self._io:
            with self._mutex:
                older = self._taken.pop(change.path, None)
                data = self._dirty.pop(change.path, older)
            if data is not None:
                try:
                    self._rt.files.write(change.path, data)
                except OSError:
                    self._AddDirty(Update(change.path, data))
                    raise
            elif self._shared and not self._rt.files.exists(change.path):
                # Renamed already, or never come here.
                return
            with self._mutex:
                self._touched |= journal.GetDirectories(change)
            self._rt.files.rename(change.path, change.new, mkdir=True, durable=False)

    def Exists(self, path: str) -> bool:
        """Is there such a file, or will there be once the files follow?"""
        with self._mutex:
            if path in self._dirty or path in self._taken:
                return True
        with self._io:
            # Not while it is between the two.
            return self._rt.files.exists(path)

    def Clear(self, remove: Callable[[], None]) -> None:
        """Forget all changes, and let this remove the files; who shares the queue has the turn."""
        with self._order, self._io:
            self._Forget()
            journal.Clear(self._rt)
            self._journal = journal.Journal(self._rt)
            remove()

    # In the background

    def _Run(self) -> None:
        while self._WaitForWork():
            try:
                done = self._Work()
            except (OSError, errors.LockError) as err:
                logging.error("The files of the job queue are behind its journal: %s", err)
                done = False
            if not done:
                with self._mutex:
                    if self._ending:
                        # It is all in the journal.
                        return
                    self._not_before = self._rt.clock.monotonic() + _RETRY

    def _WaitForWork(self) -> bool:
        """Wait until there is something to do; False if there never will be."""
        with self._mutex:
            while not self._ending:
                deadline = self._GetDeadline()
                now = self._rt.clock.monotonic()
                if deadline is not None and deadline <= now:
                    return True
                self._work.wait(None if deadline is None else deadline - now)
            return bool(self._dirty or self._taken) or not self._journal.empty

    def _GetDeadline(self) -> float | None:
        """When there is something to do (monotonic); None if there is nothing."""
        if self._journal.empty and not self._dirty and not self._taken:
            return None
        if self._journal.size > _SIZE_LIMIT:
            return self._not_before
        quiet = self._changed + _QUIET
        due = min(self._due, quiet) if self._dirty else quiet
        return max(due, self._not_before)

    def _Work(self) -> bool:
        """Write what is dirty, and empty the journal if it is time; was all of it done?"""
        with self._order:
            # Without the turn: who has the queue may keep it for years.
            if self._IsLost():
                return True
        with self._mutex:
            quiet = self._ending or self._changed + _QUIET <= self._rt.clock.monotonic()
        if not quiet and self._journal.size <= _SIZE_LIMIT:
            return self._WriteDirty()
        with self._order:
            journal_ = self._journal
            number = journal_.Rotate()
        if not self._WriteDirty():
            return False
        with self._turn(), self._order:
            if self._IsLost() or self._journal is not journal_:
                return True
            with self._mutex:
                touched = set(self._touched)
            # The new names first: in between, a file may have both, but not none.
            for directory in sorted(touched, reverse=True):
                self._rt.files.sync(directory)
            with self._mutex:
                self._touched -= touched
            journal_.Drop(number)
        return True

    def _IsLost(self) -> bool:
        """Had somebody else the queue? Then what is left to do here was done."""
        if not self._shared or self._journal.IsAsLeft():
            return False
        self._Forget()
        self._journal = journal.Journal(self._rt)
        return True

    def _WriteDirty(self) -> bool:
        """Write all that is dirty now; could it all be written?"""
        with self._mutex:
            # What was taken before is still there if the turn could not be had.
            self._taken, self._dirty = {**self._taken, **self._dirty}, {}
        failed = False
        while True:
            with self._turn(), self._io:
                if self._IsLost():
                    return True
                with self._mutex:
                    chunk = list(itertools.islice(self._taken.items(), _CHUNK))
                    for path, _ in chunk:
                        del self._taken[path]
                if not chunk:
                    return not failed
                for path, data in self._WriteChunk(chunk):
                    failed = True
                    with self._mutex:
                        self._dirty.setdefault(path, data)

    def _WriteChunk(self, chunk: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """Write files; those that could not be written."""
        for directory in {os.path.dirname(path) for path, _ in chunk}:
            # A job that was archived before its copy came here.
            with contextlib.suppress(OSError):
                self._rt.files.mkdir(directory, 0o750)
            if directory != pathutils.QUEUE_DIR:
                with self._mutex:
                    # Its name may be new.
                    self._touched.add(os.path.dirname(directory))
        try:
            self._rt.files.write_many(chunk)
        except OSError:
            # Find out which one it is, so that the others do not suffer for it.
            return [item for item in chunk if not self._WriteOne(*item)]
        return []

    def _WriteOne(self, path: str, data: bytes) -> bool:
        try:
            self._rt.files.write(path, data)
        except OSError as err:
            logging.error("Can not write the job queue file %s: %s", path, err.strerror)
            return False
        return True

    def Shutdown(self) -> None:
        """Bring the files up to date, if they can be, and end."""
        with self._mutex:
            self._ending = True
            self._work.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

"""Copies of the job queue on the other master candidates.

One thread and one queue of changes a candidate: who is dead or slow holds up nobody else. Changes
reach each candidate in the order in which they were made here; of several changes of one file that
were not sent yet only the last is.

A change counts as I{safe} once one candidate has confirmed it, or when there is none that can be
reached. A candidate that did not answer is tried again by itself, and gets then what it missed; as
long as it does not answer nobody waits for it.

Why not one call to all candidates at once, as 2.1 does it: the slowest would set the pace of the
queue, and each dead one would cost every job a connect time-out.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from .. import runtime
from ..jstore.journal import Change, Rename, Update

#: Seconds after which a change is considered safe although a candidate is still being asked.
_PATIENCE: Final = 5.0
#: Seconds for which changes are gathered for a candidate that nobody waits for.
_GATHERING: Final = 0.1
#: Files sent, and files renamed, at once while nothing else is to be done.
_BACKGROUND_UPDATES: Final = 10
_BACKGROUND_RENAMES: Final = 500
#: Bytes of files that one call sends.
_CALL_BYTES: Final = 4 * 1024 * 1024
#: Seconds between attempts to reach a candidate: first, and longest.
_RETRY_FIRST: Final = 1.0
_RETRY_LONGEST: Final = 10.0


class QueueRpc(Protocol):
    """The node calls used here: a part of C{rpc.RpcRunner}, all of them static."""

    def call_jobqueue_update_many(
        self,
        node_list: Sequence[str],
        address_list: Sequence[str] | None,
        files: Sequence[tuple[str, bytes]],
    ) -> dict[str, Any]:
        """Write files of the job queue on other nodes."""

    def call_jobqueue_rename(
        self,
        node_list: Sequence[str],
        address_list: Sequence[str] | None,
        rename: Sequence[tuple[str, str]],
    ) -> dict[str, Any]:
        """Rename files of the job queue on other nodes."""


#: By path, what is to be done about a file when there is time: send what this gives, or rename it.
Background = Mapping[str, Callable[[], bytes] | Rename]


def _TakeRun(changes: Sequence[Change]) -> list[Change]:
    """The first ones of these that one call can do: all of one kind, and not too large."""
    run: list[Change] = []
    size = 0
    for change in changes:
        if run and type(change) is not type(run[0]):
            break
        if isinstance(change, Update):
            size += len(change.data)
            if run and size > _CALL_BYTES:
                break
        run.append(change)
    return run


class _Candidate:
    """One candidate; all fields under the mutex of the replicator."""

    def __init__(self, name: str, address: str, background: Background) -> None:
        self.name = name
        self.address = address
        #: What is to be done, too, when there is nothing pending.
        self.background = dict(background)
        #: Changes not sent yet, by kind and path, with the number of the last group they are of.
        self.pending: dict[tuple[type[Change], str], tuple[int, Change]] = {}
        #: All groups up to this one are there; -1 = not even what it has to get first.
        self.confirmed = -1
        self.up = True
        self.delay = _RETRY_FIRST
        self.removed = False
        self.failures = 0

    def Add(self, number: int, change: Change) -> None:
        key = (type(change), change.path)
        # To the end: a change of a file never goes before one that came between.
        self.pending.pop(key, None)
        self.pending[key] = (number, change)
        # That is newer.
        older = self.background.pop(change.path, None)
        if isinstance(change, Rename) and older is not None and not isinstance(older, Rename):
            # Or moves it, as it is there; what it lacks it gets where it is then.
            self.background[change.new] = older

    def TakeBackground(self) -> Background:
        """The next part of what is to be done in the background, of one kind."""
        rename = isinstance(next(iter(self.background.values()), None), Rename)
        count = _BACKGROUND_RENAMES if rename else _BACKGROUND_UPDATES
        taken = {
            path: what
            for path, what in itertools.islice(self.background.items(), count)
            if isinstance(what, Rename) == rename
        }
        for path in taken:
            del self.background[path]
        return taken

    def PutBack(self, unsent: list[tuple[int, Change]]) -> None:
        """What could not be sent goes first again, but for files that have changed since."""
        newer = self.pending
        self.pending = {}
        for number, change in unsent:
            if (type(change), change.path) not in newer:
                self.Add(number, change)
        self.pending.update(newer)


class Replicator:
    """Sends changes of the queue's files to all other master candidates.

    The rule of the fields: all, and those of the candidates, under C{_mutex}; it is not held while
    a node is called or a callback runs.

    @param rpc: makes the calls
    """

    def __init__(self, rpc: QueueRpc, rt: runtime.Runtime = runtime.DEFAULT) -> None:
        self._rpc = rpc
        self._rt = rt
        self._mutex = rt.threads.Lock()
        self._changed = rt.threads.Condition(self._mutex)
        self._candidates: dict[str, _Candidate] = {}
        self._threads: list[runtime.ThreadHandle] = []
        #: The last thread of each node, also of one that is no target any more.
        self._last_threads: dict[str, runtime.ThreadHandle] = {}
        #: Number of the last group.
        self._group = 0
        #: Groups that somebody waits for: number, since when (monotonic), whom to tell.
        self._unsafe: list[tuple[int, float, Callable[[], None]]] = []
        self._ending = False

    # Targets

    def AddTarget(
        self,
        name: str,
        address: str,
        initial: Sequence[Change] = (),
        background: Background | None = None,
    ) -> None:
        """Send changes to this node from now on.

        @param address: its primary IP
        @param initial: what it has to get first
        @param background: what it may have missed long ago, and what is done when there is time,
            for files that nothing else happens to until then
        """
        with self._mutex:
            old = self._candidates.pop(name, None)
            if old is not None:
                old.removed = True
            candidate = _Candidate(name, address, background or {})
            for change in initial:
                candidate.Add(self._group, change)
            self._candidates[name] = candidate
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            thread = self._rt.threads.start(
                self._Serve,
                (candidate, self._last_threads.get(name)),
                name=f"JobQueueCopy-{name}",
            )
            self._threads.append(thread)
            self._last_threads[name] = thread
            self._changed.notify_all()

    def RemoveTarget(self, name: str, timeout: float = 0.0) -> None:
        """Send nothing to this node any more.

        @param timeout: seconds to wait at most for the end of a call that is under way
        """
        with self._mutex:
            candidate = self._candidates.pop(name, None)
            if candidate is not None:
                candidate.removed = True
            thread = self._last_threads.get(name)
            self._changed.notify_all()
        self._Settle()
        if thread is not None and timeout > 0:
            thread.join(timeout)

    def GetTargets(self) -> dict[str, str]:
        """Names and addresses of the nodes that get copies."""
        with self._mutex:
            return {name: candidate.address for name, candidate in self._candidates.items()}

    def WaitSent(self, name: str, timeout: float) -> bool:
        """Wait until a node has all it should have; False if it does not answer or the time is
        over.

        @param timeout: seconds
        """
        end = self._rt.clock.monotonic() + timeout
        with self._mutex:
            while True:
                candidate = self._candidates.get(name)
                if candidate is None or not candidate.up:
                    return False
                if candidate.confirmed >= self._group and not candidate.pending:
                    return True
                left = end - self._rt.clock.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)

    # Changes

    def Submit(self, changes: Sequence[Change], on_safe: Callable[[], None] | None = None) -> None:
        """Hand over a group of changes, in their order; returns at once.

        @param on_safe: called, in any thread, when the group is safe
        """
        with self._mutex:
            self._group += 1
            for candidate in self._candidates.values():
                for change in changes:
                    candidate.Add(self._group, change)
            if on_safe is not None:
                self._unsafe.append((self._group, self._rt.clock.monotonic(), on_safe))
            self._changed.notify_all()
        self._Settle()

    def Tick(self) -> bool:
        """Give up waiting for candidates that take too long.

        @return: whether somebody still waits, so that this should be called again in a second
        """
        self._Settle()
        with self._mutex:
            return bool(self._unsafe)

    def _Settle(self) -> None:
        """Tell those whose group is safe."""
        with self._mutex:
            reachable = [c.confirmed for c in self._candidates.values() if c.up]
            safe = max(reachable) if reachable else self._group
            old = self._rt.clock.monotonic() - _PATIENCE
            told = []
            waiting = []
            for number, since, callback in self._unsafe:
                if number <= safe:
                    told.append(callback)
                elif since <= old:
                    self._MarkHanging(number)
                    told.append(callback)
                else:
                    waiting.append((number, since, callback))
            self._unsafe = waiting
        for callback in told:
            callback()

    def _MarkHanging(self, number: int) -> None:
        """Wait for no candidate that took too long until it has answered; the mutex is held."""
        for candidate in self._candidates.values():
            if candidate.up and candidate.confirmed < number:
                candidate.up = False
                logging.error(
                    "Node %s has not confirmed a change of the job queue within %g s; not waiting"
                    " for it until it answers",
                    candidate.name,
                    _PATIENCE,
                )

    # The thread of a candidate

    def _Serve(self, candidate: _Candidate, before: runtime.ThreadHandle | None) -> None:
        """Send a candidate what it lacks, until it is none any more.

        @param before: sent to the same node; what it has under way is older than all of this, and
            must not come after it
        """
        if before is not None:
            before.join()
        while True:
            with self._mutex:
                while not candidate.pending and not candidate.removed and not self._ending:
                    if candidate.background and candidate.up:
                        break
                    if candidate.confirmed != self._group:
                        candidate.confirmed = self._group
                        # Who waits for that; only once, or the candidates would wake each other.
                        self._changed.notify_all()
                    self._changed.wait()
                if candidate.removed or (self._ending and not candidate.pending):
                    return
                background: Background = {}
                if not candidate.pending:
                    background = candidate.TakeBackground()
                if not background and not self._Gather(candidate):
                    return
                batch = list(candidate.pending.values())
                candidate.pending.clear()
                # Whatever came up to now is in the batch, or was before.
                number = self._group
            # The content is asked for without the mutex: it takes that of the queue.
            batch += [
                (number, what if isinstance(what, Rename) else Update(path, what()))
                for path, what in background.items()
            ]
            failure, unsent = self._SendBatch(candidate, batch)
            with self._mutex:
                if failure is None:
                    candidate.confirmed = number
                    self._MarkUp(candidate)
                else:
                    candidate.PutBack(unsent)
                    self._MarkDown(candidate, failure)
                self._changed.notify_all()
            self._Settle()
            if failure is not None and not self._Pause(candidate):
                return

    def _Gather(self, candidate: _Candidate) -> bool:
        """Let more changes come together, unless this one is waited for; the mutex is held.

        @return: False if the candidate is none any more
        """
        end = self._rt.clock.monotonic() + _GATHERING
        while not candidate.removed and not self._ending and not self._IsFirst(candidate):
            left = end - self._rt.clock.monotonic()
            if left <= 0 or not self._changed.wait(left):
                break
        return not candidate.removed

    def _IsFirst(self, candidate: _Candidate) -> bool:
        """Is this the one whose answer makes changes safe?

        One copy is enough, so all others are spared a call for each group; they get as much in
        fewer calls. Should the first one not answer, the next one's turn comes.
        """
        first = next((item for item in self._candidates.values() if item.up), candidate)
        return first is candidate

    def _SendBatch(
        self, candidate: _Candidate, batch: list[tuple[int, Change]]
    ) -> tuple[str | None, list[tuple[int, Change]]]:
        """Send changes in order; the first failure ends it.

        @return: failure or None, and what was not sent
        """
        where = ([candidate.name], [candidate.address])
        index = 0
        while index < len(batch):
            run = _TakeRun([change for _, change in batch[index:]])
            if isinstance(run[0], Update):
                files = [(item.path, item.data) for item in run if isinstance(item, Update)]
                results = self._rpc.call_jobqueue_update_many(*where, files)
            else:
                renames = [
                    (change.path, change.new) for change in run if isinstance(change, Rename)
                ]
                results = self._rpc.call_jobqueue_rename(*where, renames)
            result = results[candidate.name]
            if result.fail_msg:
                return str(result.fail_msg), batch[index:]
            index += len(run)
        return None, []

    def _MarkUp(self, candidate: _Candidate) -> None:
        if not candidate.up:
            logging.info("Node %s gets copies of the job queue again", candidate.name)
        candidate.up = True
        candidate.delay = _RETRY_FIRST

    def _MarkDown(self, candidate: _Candidate, failure: str) -> None:
        candidate.failures += 1
        if candidate.up:
            logging.error(
                "Node %s gets no copies of the job queue until it answers again: %s",
                candidate.name,
                failure,
            )
        candidate.up = False

    def _Pause(self, candidate: _Candidate) -> bool:
        """Wait before the next attempt; False if there shall be none."""
        end = self._rt.clock.monotonic() + candidate.delay
        with self._mutex:
            while not (candidate.removed or self._ending):
                left = end - self._rt.clock.monotonic()
                if left <= 0:
                    candidate.delay = min(candidate.delay * 2, _RETRY_LONGEST)
                    return True
                self._changed.wait(left)
            return False

    def Shutdown(self) -> None:
        """Send what is left to the candidates that answer, and end."""
        with self._mutex:
            self._ending = True
            self._changed.notify_all()
            threads = list(self._threads)
        for thread in threads:
            thread.join()
        self._Settle()

    def GetStatistics(self) -> dict[str, dict[str, Any]]:
        """For each candidate: does it answer, how many changes wait for it, failures so far."""
        with self._mutex:
            return {
                name: {
                    "up": candidate.up,
                    "pending": len(candidate.pending) + len(candidate.background),
                    "failures": candidate.failures,
                }
                for name, candidate in self._candidates.items()
            }

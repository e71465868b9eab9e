"""How a change of the configuration becomes durable and known.

A change takes three steps: it is put into memory under the mutex, written to disk, and brought to
other nodes. The last two are shared by all changes that wait for them (L{commit}) and run without
the mutex, so that readers never wait for a disk or a node. A caller gets its answer when its change
is on disk and was offered to every node once.

A failed write undoes in memory what it should have made durable, with what came after: memory never
holds what the next start would not find. Readers may see a change shortly before it is durable.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from .. import errors
from ..runtime import FileStat, Runtime
from ..utils import filedelta
from . import claims, commit, distribution, history, verify
from .store import AnyObject, Changes, ConfigStore, View

FeedbackFn = Callable[[str], object]

#: Permissions of the configuration.
FILE_MODE: Final = 0o600


class Pending:
    """The changes of one transaction, collected to be made all at once.

    @ivar ask_all: offer them also to nodes that did not take the last change
    """

    def __init__(self) -> None:
        self.ask_all = False
        self.puts: list[tuple[claims.Key, AnyObject | None]] = []

    def Put(self, key: claims.Key, obj: AnyObject) -> None:
        """Store this object, which nobody may modify from now on."""
        self.puts.append((key, obj))

    def Remove(self, key: claims.Key) -> None:
        """Remove the object with this key."""
        self.puts.append((key, None))


class CommitEngine:
    """The one commit point of a configuration.

    Everything in C{store} and all other fields are guarded by C{lock}, which is never held during
    I/O, and is not reentrant.

    @param path: the file
    @param fingerprint: of the file as it was read
    @param distributor: None = tell nobody
    @param myself: name of this host
    @param log: of what is changed; None = none is kept
    """

    def __init__(
        self,
        store: ConfigStore,
        path: str,
        fingerprint: FileStat,
        distributor: distribution.Distributor | None,
        myself: str,
        runtime: Runtime,
        log: history.HistoryLog | None = None,
    ) -> None:
        self.store = store
        self.log = log
        self.path = path
        self.write_count = 0
        self._rt = runtime
        self._fingerprint = fingerprint
        self._distributor = distributor
        self._myself = myself
        self.lock = runtime.threads.Condition(runtime.threads.Lock())
        #: The result of a write is what is wrong with its record in the log.
        self._writes: commit.Batcher[str | None] = commit.Batcher(
            self.lock, self._Write, self._Undo
        )
        self._sends: commit.Batcher[distribution.Report] = commit.Batcher(self.lock, self._Send)
        self._in_flight: Changes = {}
        #: What was put since the last write began.
        self._commits: list[history.Commit] = []
        #: Thread -> on whose behalf it changes something.
        self._origins: dict[int, history.Origin] = {}
        self._must_write = False
        #: The next round asks also those who did not answer the last.
        self._ask_all = False
        # Serial numbers are never used twice, not even those of changes that were undone.
        self._last_serial: int = store.serial_no
        self._spent: dict[claims.Key, int] = {}
        self._written = self._Describe(store.serial_no)
        #: The file as it was written last, and as the last round took it to nodes; None = as read.
        self._version: filedelta.Version | None = None
        self._sent: filedelta.Version | None = None
        self._distribution = distribution.DistributionState()

    def NextSerial(self, key: claims.Key, current: int | None) -> int:
        """Serial number of the next version of an object; the caller holds the lock."""
        return max(current or 0, self._spent.get(key, 0)) + 1

    def SkipSerials(self, config_serial: int, cluster_serial: int) -> None:
        """Use only serial numbers above these from now on; the caller holds the lock."""
        self._last_serial = max(self._last_serial, config_serial)
        spent = self._spent.get(claims.CLUSTER_KEY, 0)
        self._spent[claims.CLUSTER_KEY] = max(spent, cluster_serial)

    @contextmanager
    def ActingFor(self, origin: history.Origin) -> Iterator[None]:
        """What this thread changes within the block is noted to be done by that."""
        ident = self._rt.threads.get_ident()
        before = self._origins.get(ident)
        self._origins[ident] = origin
        try:
            yield
        finally:
            if before is None:
                del self._origins[ident]
            else:
                self._origins[ident] = before

    @contextmanager
    def Transaction(self, feedback_fn: FeedbackFn | None = None) -> Iterator[Pending]:
        """Change the configuration: with the lock held within the block, durable at its end.

        All puts are made at the end of the block, or none if it raises; without any nothing is
        written.

        @param feedback_fn: gets the texts of what is wrong, besides the log

        Raises: ConfigurationError if it could not be written; then nothing was changed.
        """
        pending = Pending()
        with self.lock:
            yield pending
            if not pending.puts:
                return
            self._PutAll(pending)
            problems = verify.VerifyChanged(
                self.store, self.store.index, [key for key, _ in pending.puts]
            )
            batch = self._writes.Join()
        _ReportProblems(problems, feedback_fn)
        self._Finish(batch, feedback_fn, pending.ask_all)

    def _PutAll(self, pending: Pending) -> None:
        changes = []
        for key, obj in pending.puts:
            changes.append(history.ObjectChange(key, self.store.Get(key), obj))
            self.store.Put(key, obj)
        origin = self._origins.get(self._rt.threads.get_ident(), history.NOBODY)
        self._commits.append(history.Commit(origin, changes))

    def GetWritten(self) -> tuple[history.Version, View]:
        """The version on disk and its objects; the caller does not hold the lock."""
        with self.lock:
            view = self.store.MakeView()
            unwritten = {**self.store.PeekChanges(), **self._in_flight}
            version = history.Version(self.store.serial_no, self.store.mtime)
        return version, view.With(unwritten)

    def Rewrite(self) -> None:
        """Write the configuration though no object was put, as when loading upgraded it."""
        with self.lock:
            self._must_write = True
            batch = self._writes.Join()
        self._Finish(batch, None)

    def DistributeStale(self) -> set[str]:
        """Try again to serve the nodes that lack something.

        @return: names of those that still do
        """
        if self._distributor is None:
            return set()
        self._RetryFailed(self._distributor)
        with self.lock:
            stale = self._distribution.GetStale(self._written, self._myself)
            if not stale - self._distribution.failed.keys():
                return stale
            # Nodes of which nothing is known, or that missed changes while they were tried.
            batch = self._sends.Join()
        self._sends.Wait(batch)
        with self.lock:
            return self._distribution.GetStale(self._written, self._myself)

    def _RetryFailed(self, distributor: distribution.Distributor) -> None:
        """Try those who did not answer, without keeping anybody waiting meanwhile."""
        state = self._distribution
        with self.lock:
            plan = distribution.MakeRetryPlan(state, self._written, self._myself)
            names = plan.config_addresses.keys() | plan.ssconf_addresses.keys()
            if not names:
                return
            state.retried |= names
        config_results: distribution.Results = {}
        ssconf_results: distribution.Results = {}
        try:
            config_results, ssconf_results = distribution.Carry(
                distributor, self.path, plan, distribution.RETRY_TIMEOUT
            )
        finally:
            with self.lock:
                state.retried -= names
                state.Record(plan, config_results, ssconf_results)

    def GetStatistics(self) -> dict[str, int]:
        """Counters of writes and rounds; the caller does not hold the lock."""
        with self.lock:
            writes, sends = self._writes.GetStatistics(), self._sends.GetStatistics()
            return {
                "writes": self.write_count,
                "commits": writes["served"],
                "rounds": sends["runs"],
                "stale_nodes": len(self._distribution.GetStale(self._written, self._myself))
                if self._distributor is not None
                else 0,
                "serial_no": self.store.serial_no,
            }

    def _Finish(
        self, batch: commit.Batch[str | None], feedback_fn: FeedbackFn | None, ask_all: bool = False
    ) -> None:
        problem = self._writes.Wait(batch)
        if problem is not None and feedback_fn is not None:
            feedback_fn(problem)
        if self._distributor is None:
            return
        with self.lock:
            self._ask_all |= ask_all
            send = self._sends.Join()
        _ReportDistribution(self._sends.Wait(send), feedback_fn)

    def _Describe(self, serial_no: int) -> distribution.Written:
        return distribution.Written(
            config_serial=serial_no,
            cluster=self.store.cluster,
            nodes=dict(self.store.nodes),
            node_names=list(self.store.node_names),
            instance_names=list(self.store.instance_names),
        )

    def _Write(self) -> str | None:
        with self.lock:
            if not (self.store.HasChanges() or self._must_write):
                # An earlier run took along what this one was for.
                return None
            self._in_flight = self.store.TakeChanges()
            commits, self._commits = self._commits, []
            base = history.Version(self.store.serial_no, self.store.mtime)
            self._last_serial += 1
            serial_no, mtime = self._last_serial, self._rt.clock.time()
            snapshot = self.store.MakeSnapshot(serial_no, mtime)
            described = self._Describe(serial_no)
        pieces = snapshot.GetPieces()
        content = b"".join(pieces)
        line = b""
        if self.log is not None:
            line = history.FormatRecord(history.Version(serial_no, mtime), base, commits)
        fingerprint = self._WriteFile(content, line)
        with self.lock:
            self._fingerprint = fingerprint
            self._must_write = False
            self._in_flight = {}
            self._written = described
            self._version = filedelta.Version(serial_no, pieces, content)
            self.store.serial_no = serial_no
            self.store.mtime = mtime
            self.write_count += 1
        return None if self.log is None else self.log.problem

    def _WriteFile(self, content: bytes, line: bytes) -> FileStat:
        self._CheckOwnFile()
        try:
            if self.log is None:
                self._rt.files.write(self.path, content, mode=FILE_MODE)
            else:
                self.log.WriteWith(self.path, content, FILE_MODE, line)
            return self._rt.files.stat(self.path)
        except OSError as err:
            self._AdoptOwnFile(content)
            raise errors.ConfigurationError(
                f"Can't write the configuration {self.path}: {err}; the change was not made"
            ) from err

    def _CheckOwnFile(self) -> None:
        """Refuse to overwrite what somebody else wrote."""
        try:
            current = self._rt.files.stat(self.path)
        except OSError as err:
            raise errors.ConfigurationError(
                f"Can't find the configuration {self.path} any more: {err}; restore the file, then"
                " restart the master daemon"
            ) from err
        if current != self._fingerprint:
            raise errors.ConfigurationError(
                f"The configuration {self.path} was changed by somebody else since this process"
                " read it; nothing is written any more. Restart the master daemon to work with"
                " the file as it is now"
            )

    def _AdoptOwnFile(self, content: bytes) -> None:
        # A write may fail after the file was replaced: it is ours all the same. What it holds was
        # undone here, and the next write says so.
        try:
            if self._rt.files.read(self.path) == content:
                self._fingerprint = self._rt.files.stat(self.path)
        except OSError as err:
            logging.debug("Can't look at %s after a failed write: %s", self.path, err)

    def _Undo(self) -> None:
        """A write failed: forget its changes and all that came after; called with the lock held."""
        undone = {**self.store.PeekChanges(), **self._in_flight}
        for key in undone:
            current = self.store.Get(key)
            if current is not None:
                self._spent[key] = max(self._spent.get(key, 0), current.serial_no or 0)
        self.store.Restore(self._in_flight)
        self._in_flight = {}
        self._commits = []

    def _Send(self) -> distribution.Report:
        assert self._distributor is not None
        with self.lock:
            ask_all, self._ask_all = self._ask_all, False
            plan = distribution.MakePlan(self._distribution, self._written, self._myself, ask_all)
            version, sent = self._version, self._sent
            having = plan.Having(self._distribution, sent.serial_no) if sent is not None else set()
            self._sent = version
        change = None
        if having and sent is not None and version is not None:
            change = filedelta.Make(sent, version)
        config_results, ssconf_results = distribution.Carry(
            self._distributor, self.path, plan, distribution.COMMIT_TIMEOUT, change, having
        )
        with self.lock:
            return self._distribution.Record(plan, config_results, ssconf_results)


def _ReportProblems(problems: list[str], feedback_fn: FeedbackFn | None) -> None:
    for problem in problems:
        logging.critical("The configuration is not consistent: %s", problem)
        if feedback_fn is not None:
            feedback_fn(f"The configuration is not consistent: {problem}")


def _ReportDistribution(report: distribution.Report, feedback_fn: FeedbackFn | None) -> None:
    for level, problems in (
        (logging.ERROR, report.config_problems),
        (logging.WARNING, report.ssconf_problems),
    ):
        for problem in problems:
            logging.log(level, "%s", problem)
            if feedback_fn is not None:
                feedback_fn(problem)

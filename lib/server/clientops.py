"""What the master daemon does for each LUXI request.

Three kinds of methods: what is done in a moment is done in the event loop; what waits for a disk, a
node or a lot of rows runs in a thread of the executor; waiting for a job is a future and costs
neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Final

from .. import constants, errors, ht, luxi, mcpu, opcodes, pathutils

if TYPE_CHECKING:
    from .. import jqueue
    from ..cmdlib import base

_Handler = Callable[..., Awaitable[Any]]


class ClientOps:
    """The methods of C{luxi.METHODS}, with arguments that were checked already.

    For use in one event loop.

    @param context: the master daemon's
    @param executor: runs what may take longer than a moment
    @param node_executor: runs what may ask nodes, and so take very long; default: the same
    """

    def __init__(
        self, context: base.Context, executor: Executor, node_executor: Executor | None = None
    ) -> None:
        self._context = context
        self._executor = executor
        self._node_executor = node_executor or executor
        self._queue: jqueue.JobQueue = context.jobqueue
        #: Waits for job changes that are going on, to end them with the daemon.
        self._waits: set[asyncio.Event] = set()
        self._ending = False
        self._handlers: Final[dict[str, _Handler]] = {
            luxi.REQ_SUBMIT_JOB: self._SubmitJob,
            luxi.REQ_SUBMIT_MANY_JOBS: self._SubmitManyJobs,
            luxi.REQ_CANCEL_JOB: self._CancelJob,
            luxi.REQ_ARCHIVE_JOB: self._InThread(self._queue.ArchiveJob),
            luxi.REQ_AUTOARCHIVE_JOBS: self._InThread(self._queue.AutoArchiveJobs),
            luxi.REQ_CHANGE_JOB_PRIORITY: self._InThread(self._queue.ChangeJobPriority),
            luxi.REQ_WAIT_FOR_JOB_CHANGE: self._WaitForJobChange,
            luxi.REQ_QUERY_JOBS: self._InThread(self._queue.QueryJobs),
            luxi.REQ_QUERY_INSTANCES: self._InThread(self._QueryInstances, self._node_executor),
            luxi.REQ_QUERY_NODES: self._InThread(self._QueryNodes, self._node_executor),
            luxi.REQ_QUERY_EXPORTS: self._InThread(self._QueryExports, self._node_executor),
            luxi.REQ_QUERY_CONFIG_VALUES: self._InThread(self._QueryConfigValues),
            luxi.REQ_QUERY_CONFIG_HISTORY: self._InThread(self._QueryConfigHistory),
            luxi.REQ_QUERY_CONFIG_CHANGE: self._InThread(self._QueryConfigChange),
            luxi.REQ_QUERY_CONFIG_AT: self._InThread(self._QueryConfigAt),
            luxi.REQ_QUERY_CLUSTER_INFO: self._InThread(self._QueryClusterInfo),
            luxi.REQ_QUERY_TAGS: self._InThread(self._QueryTags),
            luxi.REQ_QUERY_LOCKS: self._InThread(self._QueryLocks),
            luxi.REQ_QUERY: self._InThread(self._Query),
            luxi.REQ_QUERY_FIELDS: self._InThread(self._QueryFields),
            luxi.REQ_QUEUE_SET_DRAIN_FLAG: self._InThread(self._queue.SetDrainFlag),
            luxi.REQ_SET_WATCHER_PAUSE: self._InThread(self._SetWatcherPause),
        }

    async def Call(self, name: str, args: Sequence[Any]) -> Any:
        """Execute a method.

        @param name: one of C{luxi.METHODS}
        @param args: from C{luxi.ParseArgs}
        """
        return await self._handlers[name](*args)

    def End(self) -> None:
        """Answer all who wait for job changes: the daemon ends."""
        self._ending = True
        for event in self._waits:
            event.set()

    def _InThread(self, fn: Callable[..., Any], executor: Executor | None = None) -> _Handler:
        async def _Run(*args: Any) -> Any:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(executor or self._executor, fn, *args)

        return _Run

    # Jobs

    async def _SubmitJob(self, ops: Sequence[object]) -> str:
        submission = self._queue.BeginSubmit([[opcodes.OpCode.LoadOpCode(op) for op in ops]])
        await _Done(submission)
        job_id = submission.GetSingle()
        logging.info("Job %s submitted", job_id)
        return job_id

    async def _SubmitManyJobs(self, jobs: Sequence[Sequence[object]]) -> list[list[Any]]:
        loop = asyncio.get_running_loop()

        def _Begin() -> jqueue.Submission:
            # All or nothing where the request itself is wrong.
            loaded = [[opcodes.OpCode.LoadOpCode(op) for op in ops] for ops in jobs]
            return self._queue.BeginSubmit(loaded)

        submission = await loop.run_in_executor(self._executor, _Begin)
        await _Done(submission)
        return submission.results

    async def _CancelJob(self, job_id: str, _kill: object) -> list[Any]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._queue.CancelJob, job_id)

    async def _WaitForJobChange(
        self,
        job_id: str,
        fields: Sequence[str],
        prev_job_info: Sequence[Any] | None,
        prev_log_serial: int | None,
        timeout: float,
    ) -> Any:
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def _Notify() -> None:
            # The loop may have ended with the daemon.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(changed.set)

        self._queue.AddChangeListener(job_id, _Notify)
        self._waits.add(changed)
        end = loop.time() + timeout
        try:
            while True:
                changed.clear()
                result = self._queue.PeekJobChanges(job_id, fields, prev_job_info, prev_log_serial)
                left = end - loop.time()
                if result != constants.JOB_NOTCHANGED or left <= 0 or self._ending:
                    return result
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(changed.wait(), left)
        finally:
            self._waits.discard(changed)
            self._queue.RemoveChangeListener(job_id, _Notify)

    # Queries

    def _RunQuery(self, op: opcodes.OpCode) -> Any:
        return mcpu.Processor(self._context, None).QueryOpCode(op)

    @staticmethod
    def _RefuseLocking(use_locking: bool) -> None:
        if use_locking:
            raise errors.OpPrereqError(
                "Sync queries are not allowed; submit the query as a job to hold locks",
                errors.ECODE_INVAL,
            )

    def _QueryInstances(
        self, names: Sequence[str], fields: Sequence[str], use_locking: bool
    ) -> Any:
        self._RefuseLocking(use_locking)
        return self._RunQuery(
            opcodes.OpInstanceQuery(names=names, output_fields=fields, use_locking=False)
        )

    def _QueryNodes(self, names: Sequence[str], fields: Sequence[str], use_locking: bool) -> Any:
        self._RefuseLocking(use_locking)
        return self._RunQuery(
            opcodes.OpNodeQuery(names=names, output_fields=fields, use_locking=False)
        )

    def _QueryExports(self, nodes: Sequence[str], use_locking: bool) -> Any:
        self._RefuseLocking(use_locking)
        return self._RunQuery(opcodes.OpBackupQuery(nodes=nodes, use_locking=False))

    def _QueryConfigValues(self, fields: Sequence[str]) -> Any:
        return self._RunQuery(opcodes.OpClusterConfigQuery(output_fields=fields))

    def _QueryConfigHistory(
        self,
        name: str | None,
        since_serial: int | None,
        since_time: float | None,
        cursor: Sequence[Any] | None,
    ) -> Any:
        return self._context.cfg.history.List(name, since_serial, since_time, cursor)

    def _QueryConfigChange(self, serial: int) -> Any:
        return self._context.cfg.history.Show(serial)

    def _QueryConfigAt(self, serial: int, cursor: Sequence[str] | None) -> Any:
        return self._context.cfg.history.Export(serial, cursor)

    def _QueryClusterInfo(self) -> Any:
        return self._RunQuery(opcodes.OpClusterQuery())

    def _QueryTags(self, kind: str, name: str) -> Any:
        return self._RunQuery(opcodes.OpTagsGet(kind=kind, name=name))

    def _QueryLocks(self, fields: Sequence[str]) -> list[list[Any]]:
        return [
            [_LOCK_VALUES[field](info) for field in fields]
            for info in self._context.glm.GetLockInfo()
        ]

    def _Query(self, what: str, fields: Sequence[str], _filter: object) -> Any:
        raise errors.OpPrereqError(
            f"The query '{what}' of later versions is not implemented yet", errors.ECODE_INVAL
        )

    def _QueryFields(self, what: str, fields: Sequence[str] | None) -> Any:
        return self._Query(what, fields or (), None)

    # Watcher

    def _SetWatcherPause(self, until: float | None) -> float | None:
        try:
            return self._PauseWatcher(until)
        except OSError as err:
            raise errors.GenericError(
                f"Unable to change the pause of the watcher: {pathutils.WATCHER_PAUSEFILE}:"
                f" {err.strerror or err}"
            ) from err

    def _PauseWatcher(self, until: float | None) -> float | None:
        files = self._context.runtime.files
        if until is None:
            files.remove(pathutils.WATCHER_PAUSEFILE)
            return None
        now = self._context.runtime.clock.time()
        if until > _LAST_TIME:
            raise errors.GenericError(
                f"Unable to set the pause of the watcher to {ht.Show(until)}: that is beyond the"
                " year 9999; an end of the pause is given in seconds since the epoch"
            )
        if until < now:
            raise errors.GenericError(
                f"Unable to set the pause of the watcher to {until:.0f}: that was"
                f" {now - until:.0f} seconds ago"
            )
        files.write(pathutils.WATCHER_PAUSEFILE, b"%d\n" % int(until), mode=0o644)
        return until


#: Seconds since the epoch: the end of the year 9999.
_LAST_TIME: Final = 253402300799

#: Values of the fields of C{luxi.LOCK_FIELDS}.
_LOCK_VALUES: Final[dict[str, Callable[[Any], Any]]] = {
    "name": lambda info: info["name"],
    "mode": lambda info: info["mode"],
    "owner": lambda info: info["owners"] or None,
    "pending": lambda info: [[mode, waiters] for mode, waiters, _ in info["pending"]],
}


async def _Done(submission: jqueue.Submission) -> None:
    """Return when the fate of the jobs is known."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def _Set() -> None:
        # The client may have gone meanwhile.
        if not done.done():
            done.set_result(None)

    def _Notify() -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_Set)

    submission.AddDoneCallback(_Notify)
    await done

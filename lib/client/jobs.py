"""Jobs as a command sees them: submit, follow, take the result.

A client that goes away does not end its jobs; an interrupt is told to the user as that
(L{failures.JobsGoOn}).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from .. import constants, errors, luxi
from . import console, failures

if TYPE_CHECKING:
    from ..opcodes import OpCode

#: Gets a log entry: serial, (seconds, microseconds), type, message.
FeedbackFn = Callable[[int, Sequence[int], str, Any], object]

#: Seconds until the user is told what the job waits for; the server would wait longer.
_NOTICE_AFTER: Final = 3

_WAITING_STATES: Final = frozenset(
    [constants.JOB_STATUS_QUEUED, constants.JOB_STATUS_WAITLOCK, constants.JOB_STATUS_CANCELING]
)
#: States in which a client has nothing to wait for any more.
_END_STATES: Final = frozenset(
    [
        constants.JOB_STATUS_SUCCESS,
        constants.JOB_STATUS_ERROR,
        constants.JOB_STATUS_CANCELED,
        constants.JOB_STATUS_CANCELING,
    ]
)

PRIORITIES: Final = {
    "low": constants.OP_PRIO_LOW,
    "normal": constants.OP_PRIO_NORMAL,
    "high": constants.OP_PRIO_HIGH,
}


class JobClient(Protocol):
    """The requests of L{luxi.Client} that following jobs needs."""

    def SubmitJob(self, ops: Sequence[OpCode | dict[str, Any]]) -> str: ...
    def SubmitManyJobs(self, jobs: Sequence[Sequence[OpCode | dict[str, Any]]]) -> list[Any]: ...
    def QueryJobs(self, job_ids: Sequence[str] | None, fields: Sequence[str]) -> list[Any]: ...
    def WaitForJobChangeOnce(
        self,
        job_id: str,
        fields: Sequence[str],
        prev_job_info: Sequence[Any] | None,
        prev_log_serial: int | None,
        timeout: float = ...,
    ) -> Any: ...


def GetClient() -> luxi.Client:
    """A connection to the master daemon.

    @raise errors.OpPrereqError: this machine is in no cluster, or not its master
    @raise luxi.NoMasterError: it is the master, but the daemon does not run
    """
    try:
        return luxi.Client()
    except luxi.NoMasterError:
        from .. import ssconf

        try:
            master, myself = ssconf.GetMasterAndMyself()
        except errors.ConfigurationError:
            raise errors.OpPrereqError(
                "Cluster not initialised or this machine is not part of a cluster"
            ) from None
        if master != myself:
            raise errors.OpPrereqError(
                f"This is not the master node, please connect to node '{master}' and rerun the"
                " command"
            ) from None
        raise


# One job


def FormatLogEntry(timestamp: Sequence[int], message: Any) -> str:
    """The line that shows a log entry of a job."""
    return f"{time.ctime(timestamp[0])} {console.OneLine(message)}"


def PrintLogEntry(serial: int, timestamp: Sequence[int], log_type: str, message: Any) -> None:
    """Show a log entry on standard output."""
    console.ToStdout(FormatLogEntry(timestamp, message))


class WaitNotices:
    """Tells the user, once for each, what a job waits for, or what it is at."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._told: set[str] = set()

    def Tell(self, status: str | None, cl: JobClient) -> None:
        """Nothing happened to the job for a while."""
        if status == constants.JOB_STATUS_RUNNING:
            self._TellStep(cl)
            return
        if status is None or status in self._told:
            return
        self._told.add(status)
        if status == constants.JOB_STATUS_QUEUED:
            console.ToStderr(f"Job {self._job_id} is waiting in queue")
        elif status == constants.JOB_STATUS_WAITLOCK:
            console.ToStderr(
                f"Job {self._job_id} is trying to acquire all necessary locks"
                f" ('gnt-job why {self._job_id}' tells who holds them)"
            )

    def _TellStep(self, cl: JobClient) -> None:
        """Say which hooks a silent job runs: one that hangs is nobody's guess."""
        for row in cl.QueryJobs([self._job_id], ["lock_status"]):
            step = row[0] if row else None
            if step and step not in self._told:
                self._told.add(step)
                console.ToStderr(f"Job {self._job_id} is {step}")


def GetJobResults(job_id: str, status: str, opstatus: Sequence[str], opresult: Any) -> list[Any]:
    """The results of the opcodes of a job that ended.

    @raise errors.OpExecError: it was cancelled or failed
    @raise errors.GenericError: it failed, with the error that its first failed opcode had
    """
    if status == constants.JOB_STATUS_SUCCESS:
        return list(opresult)
    if status in (constants.JOB_STATUS_CANCELED, constants.JOB_STATUS_CANCELING):
        raise errors.OpExecError(f"Job {job_id} was canceled")
    done = False
    for index, (op_status, result) in enumerate(zip(opstatus, opresult, strict=True)):
        if op_status == constants.OP_STATUS_SUCCESS:
            done = True
        elif op_status == constants.OP_STATUS_ERROR:
            errors.MaybeRaise(result)
            prefix = f"partial failure (opcode {index}): " if done else ""
            raise errors.OpExecError(f"{prefix}{result}")
    raise errors.OpExecError(str(opresult))


def PollJob(job_id: str, cl: JobClient, feedback_fn: FeedbackFn | None = None) -> list[Any]:
    """Wait for the end of a job, showing its log.

    @param feedback_fn: gets the log entries; they are printed if there is none
    @return: the results of its opcodes
    @raise errors.JobLost: there is no such job
    @raise errors.GenericError: see L{GetJobResults}
    @raise failures.JobsGoOn: the user interrupted the wait
    """
    try:
        _FollowJob(job_id, cl, feedback_fn or PrintLogEntry)
    except KeyboardInterrupt:
        raise failures.JobsGoOn(job_id) from None
    rows = cl.QueryJobs([job_id], ["status", "opstatus", "opresult"])
    if not rows or rows[0] is None:
        raise errors.JobLost(f"Job with id {job_id} lost")
    return GetJobResults(job_id, *rows[0])


def _FollowJob(job_id: str, cl: JobClient, feedback_fn: FeedbackFn) -> None:
    notices = WaitNotices(job_id)
    job_info: Sequence[Any] | None = None
    serial: int | None = None
    while True:
        status = job_info[0] if job_info else None
        brief = status in _WAITING_STATES
        timeout = _NOTICE_AFTER if brief else luxi.WFJC_TIMEOUT
        answer = cl.WaitForJobChangeOnce(job_id, ["status"], job_info, serial, timeout=timeout)
        if not answer:
            raise errors.JobLost(f"Job with id {job_id} lost")
        if answer == constants.JOB_NOTCHANGED:
            notices.Tell(status, cl)
            continue
        job_info, entries = answer
        for entry_serial, timestamp, log_type, message in entries or ():
            feedback_fn(entry_serial, timestamp, log_type, message)
            serial = max(serial or 0, entry_serial)
        # Entries that came together with the end may not be the last ones
        if not entries and job_info and job_info[0] in _END_STATES:
            return


def SetGenericOpcodeOpts(ops: Sequence[OpCode], opts: Any) -> None:
    """Hand on what the user asked of every operation: dry run, debug level, priority."""
    if opts is None:
        return
    for op in ops:
        op.dry_run = bool(getattr(opts, "dry_run", False))
        op.debug_level = getattr(opts, "debug", 0) or 0
        priority = getattr(opts, "priority", None)
        if priority is not None:
            op.priority = PRIORITIES[priority]


def SubmitJob(ops: Sequence[OpCode], cl: JobClient | None = None, opts: Any = None) -> str:
    """Submit a job and do not wait; its id."""
    SetGenericOpcodeOpts(ops, opts)
    job_id = str((cl or GetClient()).SubmitJob(ops))
    if getattr(opts, "print_jobid", False):
        console.ToStdout(job_id)
    return job_id


def SubmitOpCode(
    op: OpCode,
    cl: JobClient | None = None,
    feedback_fn: FeedbackFn | None = None,
    opts: Any = None,
) -> Any:
    """Run one opcode as a job; its result (None after a dry run, mostly).

    @param opts: options of the command, see L{SetGenericOpcodeOpts}
    @raise errors.GenericError: what went wrong
    """
    cl = cl or GetClient()
    return PollJob(SubmitJob([op], cl, opts), cl, feedback_fn)[0]


def SubmitOrSend(
    op: OpCode,
    opts: Any,
    cl: JobClient | None = None,
    feedback_fn: FeedbackFn | None = None,
) -> Any:
    """Run one opcode as a job; with C{--submit} only submit it.

    @raise failures.JobSubmittedException: it was submitted only
    """
    if getattr(opts, "submit_only", False):
        raise failures.JobSubmittedException(SubmitJob([op], cl, opts))
    return SubmitOpCode(op, cl, feedback_fn, opts)


# Several jobs


class JobResult:
    """How one of several jobs ended.

    @ivar name: what it was about
    @ivar job_id: None if it could not even be submitted
    @ivar success: did it succeed
    @ivar result: results of its opcodes, or the text of its error
    """

    __slots__ = ("job_id", "name", "result", "success")

    def __init__(self, name: str, job_id: str | None, success: bool, result: Any) -> None:
        self.name = name
        self.job_id = job_id
        self.success = success
        self.result = result


class JobExecutor:
    """Several jobs that are submitted in one request and followed one after another."""

    def __init__(
        self,
        cl: JobClient | None = None,
        verbose: bool = True,
        opts: Any = None,
        feedback_fn: FeedbackFn | None = None,
    ) -> None:
        """@param verbose: print the ids of all jobs once they are submitted"""
        self.cl: JobClient = cl or GetClient()
        self.verbose = verbose
        self.opts = opts
        self.feedback_fn = feedback_fn
        self._queue: list[tuple[str, Sequence[OpCode]]] = []
        #: For each job of the queue [was it taken, id or error text]
        self._submitted: list[Any] | None = None

    def QueueJob(self, name: str, *ops: OpCode) -> None:
        """Add a job.

        @param name: what it is about, for messages
        """
        SetGenericOpcodeOpts(ops, self.opts)
        self._queue.append((name, ops))

    def AddJob(self, name: str, ok: bool, value: Any) -> None:
        """Follow a job that somebody else has submitted; then none can be queued.

        @param ok: was it taken?
        @param value: its id, or why it was not
        """
        self._queue.append((name, ()))
        self._submitted = [*(self._submitted or []), (ok, value)]

    def SubmitPending(self) -> None:
        """Submit what is queued."""
        if self._submitted is None:
            self._submitted = (
                self.cl.SubmitManyJobs([ops for _, ops in self._queue]) if self._queue else []
            )

    def GetResults(self) -> list[JobResult]:
        """Submit if that was not done, wait for all; results in the order of the jobs.

        @raise failures.JobsGoOn: the user interrupted the wait
        """
        self.SubmitPending()
        assert self._submitted is not None
        jobs = [
            (index, name, bool(ok), str(value))
            for index, ((name, _), (ok, value)) in enumerate(
                zip(self._queue, self._submitted, strict=True)
            )
        ]
        if self.verbose:
            ids = ", ".join(value for _, _, ok, value in jobs if ok)
            if ids:
                console.ToStdout(f"Submitted jobs {ids}")
        results: dict[int, JobResult] = {}
        pending = []
        for index, name, ok, value in jobs:
            if ok:
                pending.append((index, name, value))
            else:
                console.ToStderr(f"Failed to submit job for {name}: {value}")
                results[index] = JobResult(name, None, False, value)
        try:
            while pending:
                index, name, job_id = pending.pop(self._ChooseJob([job[2] for job in pending]))
                pending.append((index, name, job_id))
                results[index] = self._WaitFor(name, job_id)
                pending.pop()
        except (KeyboardInterrupt, failures.JobsGoOn):
            raise failures.JobsGoOn(*(job[2] for job in sorted(pending))) from None
        return [results[index] for index in sorted(results)]

    def _ChooseJob(self, ids: Sequence[str]) -> int:
        """Index of a job that does not wait any more, else of the first one."""
        if len(ids) > 1:
            for index, row in enumerate(self.cl.QueryJobs(ids, ["status"])):
                if row is None or row[0] not in _WAITING_STATES:
                    return index
        return 0

    def _WaitFor(self, name: str, job_id: str) -> JobResult:
        console.ToStdout(f"Waiting for job {job_id} for {name}...")
        try:
            result = PollJob(job_id, self.cl, self.feedback_fn)
        except errors.GenericError as err:
            _, message = failures.FormatError(err)
            console.ToStderr(f"Job {job_id} for {name} has failed: {message}")
            return JobResult(name, job_id, False, message)
        return JobResult(name, job_id, True, result)

    def WaitOrShow(self, wait: bool) -> list[JobResult]:
        """Wait for the results, or only submit and print the ids."""
        if wait:
            return self.GetResults()
        self.SubmitPending()
        assert self._submitted is not None
        results = []
        for (name, _), (ok, value) in zip(self._queue, self._submitted, strict=True):
            if ok:
                console.ToStdout(f"{value}: {name}")
                results.append(JobResult(name, str(value), True, None))
            else:
                console.ToStderr(f"Failure for {name}: {value}")
                results.append(JobResult(name, None, False, value))
        return results


def GetExitCode(results: Sequence[JobResult]) -> int:
    """Failure if one of the jobs failed."""
    if all(result.success for result in results):
        return constants.EXIT_SUCCESS
    return constants.EXIT_FAILURE

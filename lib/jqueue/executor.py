"""What a worker does with a job: takes its opcodes through the processor, one after the other.

The states it goes through are written before it acts on them: that an opcode runs is on disk before
its unit does anything, so that after a crash at any point it is known to have run, perhaps, and is
not run again.

A job that does not get its locks in time goes back into the queue with its next time-out; its
worker takes another one. While jobs wait that were not tried at all, a first attempt only looks.
Only after many attempts a job may block a worker, and only so many at once that the others can go
on.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from .. import constants, errors, locking, mcpu, opcodes, serializer, workerpool
from . import depends, waiting
from .job import QueuedJob, QueuedOpCode

if TYPE_CHECKING:
    from .queue import JobQueue

#: Jobs that were tried less often than this stand behind fresh ones; after that they take turns,
#: or many fresh ones would keep them from ever being tried again.
_PATIENT_ATTEMPTS: Final = 5
#: Part of the workers that may be blocked in lock acquires without a time limit.
_BLOCKED_PART: Final = 0.5


class QueueEnds(Exception):  # noqa: N818 - an outcome, not an error
    """The daemon ends: leave the job as one that waits."""


class JobWorker(workerpool.BaseWorker):
    """A thread that executes jobs."""

    def RunTask(self, executor: JobExecutor, job: QueuedJob, ticket: int) -> None:
        """Execute one job as far as it goes.

        @param ticket: which of its stays in the queue this is; an older one counts no more
        """
        executor.Run(job, ticket)


class _Callbacks(mcpu.OpExecCbBase):
    """What an opcode tells of itself."""

    def __init__(self, queue: JobQueue, job: QueuedJob, op: QueuedOpCode) -> None:
        self._queue = queue
        self._job = job
        self._op = op

    def NotifyStart(self) -> None:
        """Put on disk that the opcode runs; only then it may."""
        queue, job, op = self._queue, self._job, self._op
        with queue.mutex:
            self._CheckCancelUnlocked()
            if queue.ending:
                raise QueueEnds
            job.lock_status = None
            op.Apply(constants.OP_EVENT_START, queue.Now())
        written = queue.Persist(job)
        queue.NotifyChange(job)
        written.Wait()

    def Feedback(self, *args: Any) -> None:
        """Add to the log of the job: message, or type and message."""
        if len(args) == 1:
            kind, message = constants.ELOG_MESSAGE, args[0]
        else:
            kind, message = args
        if not isinstance(message, str):
            message = _Storable(message)
        queue, job = self._queue, self._job
        with queue.mutex:
            job.AddLogEntry(self._op, kind, message, queue.Now())
        queue.PersistLazily(job)
        queue.NotifyChange(job)

    def ReportLocks(self, text: str) -> None:
        """What the job waits for, for queries; not a change that wakes waiting clients."""
        self._job.lock_status = text

    def ReportStep(self, text: str | None) -> None:
        """What the running opcode is at, for queries, in the same place; None = nothing special."""
        self._job.lock_status = text

    def CheckCancel(self) -> None:
        """Raise CancelJob if a client asked for it."""
        with self._queue.mutex:
            self._CheckCancelUnlocked()

    def _CheckCancelUnlocked(self) -> None:
        if self._op.status == constants.OP_STATUS_CANCELING:
            raise mcpu.CancelJob

    def SubmitManyJobs(self, jobs: list[list[opcodes.OpCode]]) -> list[Any]:
        """Submit jobs that the opcode wants to be done."""
        return self._queue.SubmitManyJobs(jobs)


def _Storable(value: Any) -> Any:
    """A value that is about to become part of a job, if it can be.

    @raise errors.ProgrammerError: it has no form in the job's file, nor in an answer to a client
    """
    try:
        serializer.Dump(value)
    except (TypeError, ValueError, RecursionError) as err:
        raise errors.ProgrammerError(f"This can not be stored in a job: {err}") from err
    return value


class JobExecutor:
    """Executes jobs of a queue; one for all its workers.

    @param max_workers: number of threads that execute jobs
    """

    def __init__(self, queue: JobQueue, max_workers: int) -> None:
        self._queue = queue
        self._max_blocked = max(1, int(max_workers * _BLOCKED_PART))
        #: Jobs that are in an attempt without a time limit; under the queue's mutex.
        self._blocked = 0

    @staticmethod
    def PoolPriority(job: QueuedJob) -> int:
        """Place in the queue of the pool: by priority, at equal priority fresh jobs first."""
        tried = job.strategy is not None and job.strategy.attempt < _PATIENT_ATTEMPTS
        return 2 * job.CalcPriority() + tried

    def Run(self, job: QueuedJob, ticket: int) -> None:
        """Take a job as far as it goes now.

        @raise workerpool.DeferTask: it did not get its locks
        """
        queue = self._queue
        with queue.mutex:
            if ticket != job.ticket or job.claimed is not None or job.final or queue.ending:
                return
            job.claimed = ticket
            job.worker = queue.context.runtime.threads.get_ident()
        try:
            self._RunClaimed(job)
        finally:
            locking.SetOwnerLabel(None)
            with queue.mutex:
                # Unless it was given up before, and belongs to somebody else now.
                if job.claimed == ticket:
                    job.claimed = None

    def _RunClaimed(self, job: QueuedJob) -> None:
        queue = self._queue
        while True:
            verdict, dep_id, why = self._JudgeDependencies(job)
            with queue.mutex:
                op = job.GetCurrentOp()
                if op is None:
                    return
                if op.status == constants.OP_STATUS_CANCELING:
                    verdict = depends.Verdict.CANCEL
                elif verdict is depends.Verdict.WAIT:
                    if not queue.RegisterDependent(dep_id, job):
                        continue
                    if op.status == constants.OP_STATUS_QUEUED:
                        job.Take(op, queue.Now())
                    job.lock_status = why
                    # Together with the registration: from now on it can be queued again.
                    job.claimed = None
                elif op.status == constants.OP_STATUS_QUEUED:
                    job.Take(op, queue.Now())
                if verdict is depends.Verdict.CANCEL:
                    self._CancelUnlocked(job)
                elif verdict is depends.Verdict.FAIL:
                    job.Fail(op, errors.EncodeException(errors.OpPrereqError(why)), queue.Now())
            if job.final:
                queue.JobEnded(job)
                return
            queue.PersistLazily(job)
            queue.NotifyChange(job)
            if verdict is depends.Verdict.WAIT:
                # Whoever ends the other job queues this one again.
                return
            if not self._RunOp(job, op):
                return

    def _JudgeDependencies(self, job: QueuedJob) -> tuple[depends.Verdict, int, str]:
        # The opcode of a claimed job is changed by nobody else; archived jobs are read from disk.
        op = job.GetCurrentOp()
        if op is None or op.status not in (
            constants.OP_STATUS_QUEUED,
            constants.OP_STATUS_WAITLOCK,
        ):
            return depends.Verdict.CONTINUE, 0, ""
        return depends.Judge(op.input.depends, self._queue.GetJobStatus)

    def _CancelUnlocked(self, job: QueuedJob) -> None:
        """End a job that is cancelled; the queue's mutex is held."""
        now = self._queue.Now()
        for op in job.ops:
            if op.status == constants.OP_STATUS_WAITLOCK:
                op.Apply(constants.OP_EVENT_CANCEL, now)
        job.NoticeCancel(now)

    def _RunOp(self, job: QueuedJob, op: QueuedOpCode) -> bool:
        """Make one attempt to execute an opcode.

        @return: whether the job can go on with the next
        @raise workerpool.DeferTask: no locks in time
        """
        queue = self._queue
        processor = mcpu.Processor(queue.context, str(job.id))
        if job.strategy is None:
            fresh = self.PoolPriority(job)
            job.strategy = processor.NewStrategy()
            if queue.HasOthers(fresh):
                # One of them may have nobody in its way: a thousand that want one lock must not
                # keep it from a worker for a second each.
                job.strategy = job.strategy.Look()
        locking.SetOwnerLabel(waiting.GetLabel(job, op.input.OP_ID))
        callbacks = _Callbacks(queue, job, op)
        blocks = self._EnterAttempt(job)
        try:
            result = processor.TryOpCode(op.input, callbacks, job.strategy, job.CalcPriority())
            result = _Storable(result)
        except mcpu.LockAcquireTimeout:
            self._Defer(job)
            return False
        except QueueEnds:
            return False
        except mcpu.CancelJob:
            with queue.mutex:
                self._CancelUnlocked(job)
            queue.JobEnded(job)
            return False
        except Exception as err:  # noqa: BLE001 - the boundary of an opcode
            failure = mcpu.EncodeFailure(err)
            with queue.mutex:
                if op.status == constants.OP_STATUS_CANCELING:
                    logging.info("Job %d failed while being cancelled", job.id)
                job.Fail(op, failure, queue.Now())
            logging.info("Job %d: %s failed: %s", job.id, op.input.Summary(), failure)
            queue.JobEnded(job)
            return False
        finally:
            if blocks:
                with queue.mutex:
                    self._blocked -= 1
        return self._Succeed(job, op, result)

    def _EnterAttempt(self, job: QueuedJob) -> bool:
        """Count an attempt that may block; if too many do, it gets the longest time-out instead."""
        timeouts = mcpu.CalculateLockAttemptTimeouts()
        if job.strategy.attempt < len(timeouts):
            return False
        with self._queue.mutex:
            if self._blocked < self._max_blocked:
                self._blocked += 1
                return True
        job.strategy = job.strategy.LimitedAttempt()
        return False

    def _Defer(self, job: QueuedJob) -> None:
        """Back into the queue, with the next time-out; end it if it is cancelled."""
        queue = self._queue
        with queue.mutex:
            if job.CalcStatus() == constants.JOB_STATUS_CANCELING:
                self._CancelUnlocked(job)
            else:
                job.strategy = job.strategy.NextAttempt()
                raise workerpool.DeferTask(self.PoolPriority(job))
        queue.JobEnded(job)

    def _Succeed(self, job: QueuedJob, op: QueuedOpCode, result: Any) -> bool:
        queue = self._queue
        with queue.mutex:
            job.strategy = None
            canceling = op.status == constants.OP_STATUS_CANCELING
            op.Apply(constants.OP_EVENT_SUCCEED, queue.Now(), result)
            if job.final:
                job.Finish(queue.Now())
            elif canceling:
                # Too late for this one, but not for the rest.
                job.NoticeCancel(queue.Now())
        if job.final:
            queue.JobEnded(job)
            return False
        # Synced with whatever comes next; the next opcode does not start before it is.
        queue.Persist(job)
        queue.NotifyChange(job)
        return True

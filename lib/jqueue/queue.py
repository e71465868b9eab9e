"""The job queue of the master daemon: submit, cancel, archive, query, wait, recover.

All jobs that are not archived are kept in memory; their files are written by the L{store} and
copied by the L{replication}. What the files say at any moment is enough to go on after a crash.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from .. import constants, errors, jstore, opcodes, pathutils, serializer, workerpool
from ..jstore.journal import Change, Rename, Update
from ..utils import filelock
from . import depends, executor, replication, store, waiting, watch
from .job import IsValidField, QueuedJob
from .submission import Submission

if TYPE_CHECKING:
    from .. import objects
    from ..cmdlib import base

#: Query field that tells why a job has not started.
WAIT_REASON: Final = "wait_reason"

#: Jobs that are archived together.
_ARCHIVE_GROUP: Final = 10
#: Directories of the archive that candidates are told of anew at the start.
_ARCHIVES_TOLD: Final = 2
#: Seconds to wait for a new candidate to get its copy of the queue.
_NEW_TARGET_TIMEOUT: Final = 10.0
#: Jobs and seconds between two lines in the log while jobs are loaded.
_PROGRESS_JOBS: Final = 1000
_PROGRESS_TIME: Final = 10.0

_WAITABLE: Final = frozenset(
    [
        constants.JOB_STATUS_QUEUED,
        constants.JOB_STATUS_WAITLOCK,
        constants.JOB_STATUS_RUNNING,
    ]
)


class JobQueue:
    """All jobs that are not archived, and who works on them.

    The rule of the fields: jobs and all tables here are read and written with C{mutex} held, for
    moments only: never while a file is written, a node called or a lock waited for. Nothing else is
    acquired while it is held but the mutexes of store and pool, which are as short.

    Life: construct (opens the queue and takes its lock file, loads and recovers the jobs), L{Start}
    (workers), L{Shutdown}.

    @ivar context: handed to the opcodes
    @ivar ending: the daemon ends, nothing new is begun
    """

    def __init__(
        self,
        context: base.Context,
        num_workers: int = constants.JOB_THREADS,
        open_lock: Callable[[], filelock.FileLock] = jstore.OpenQueueLock,
    ) -> None:
        """Open the queue; waits until nobody else has it.

        @raise errors.JobQueueError: the queue is of another version
        @raise ValueError: a numeric file of it holds something else
        """
        self.context = context
        self._rt = context.runtime
        self.mutex = self._rt.threads.Lock()
        self.ending = False
        self._num_workers = num_workers
        self._jobs: dict[int, QueuedJob] = {}
        #: Accepted, but not safe yet.
        self._arriving: dict[int, QueuedJob] = {}
        #: Not in the queue any more, but their files may not be in the archive yet.
        self._leaving: dict[int, QueuedJob] = {}
        #: Job -> jobs to queue when it has ended.
        self._dependents: dict[int, set[int]] = {}
        self._listeners = watch.ChangeListeners(self._rt)
        self._executor = executor.JobExecutor(self, num_workers)
        self._pool: workerpool.WorkerPool | None = None

        self._lock_file = jstore.InitAndVerifyQueue(True, self._rt, open_lock)
        self._drained = jstore.IsQueueDrained(self._rt)
        self._replicator = replication.Replicator(context.rpc, self._rt)
        self._store = store.JobStore(self._replicator, self._rt)
        ids = jstore.ListJobIds(self._rt)
        self._last_id = self._FindLastId(ids)
        recovered = self._Load(ids)
        self._AddFirstTargets()
        for job in recovered:
            self.Persist(job)

    # Loading

    def _Load(self, ids: Sequence[int]) -> list[QueuedJob]:
        """Read these jobs.

        @return: those that had to be changed
        """
        logging.info("Loading %d jobs", len(ids))
        changed = []
        last_time = self._rt.clock.monotonic()
        for count, job_id in enumerate(ids, 1):
            job = self._LoadJob(job_id)
            if job is not None:
                self._jobs[job_id] = job
                if job.Recover(self.Now()):
                    logging.info("Recovered job %d: %s", job_id, job.CalcStatus())
                    changed.append(job)
            now = self._rt.clock.monotonic()
            if count % _PROGRESS_JOBS == 0 or now >= last_time + _PROGRESS_TIME:
                logging.info("Loaded %d of %d jobs", count, len(ids))
                last_time = now
        return changed

    def _LoadJob(self, job_id: int) -> QueuedJob | None:
        """Read one job; one that can not be restored is moved out of the way."""
        try:
            return QueuedJob.Restore(self._rt.files.read(jstore.GetJobPath(job_id)), job_id)
        except errors.JobFileCorrupted as err:
            path = jstore.GetArchivedJobPath(job_id)
            logging.error("%s; moving it to %s", errors.FormatError(err), path)
            self._store.Rename([(jstore.GetJobPath(job_id), path)])
            return None

    def _FindLastId(self, ids: Sequence[int]) -> int:
        """The last job id given out.

        @param ids: of all job files, also of broken ones

        The serial file is written without waiting for the disk, since the jobs themselves tell.
        """
        return max(
            jstore.ReadSerial(self._rt) or 0,
            max(ids, default=0),
            jstore.FindLastArchivedJobId(self._rt) or 0,
        )

    def _AddFirstTargets(self) -> None:
        cfg = self.context.cfg
        master = cfg.GetMasterNode()
        ended = self._GetEnded()
        for node in cfg.GetAllNodesInfo().values():
            if node.master_candidate and node.name != master:
                self._replicator.AddTarget(
                    node.name, node.primary_ip, self._GetUpdates(include_final=False), ended
                )

    def _GetEnded(self) -> replication.Background:
        """What candidates may have missed of jobs that ended under an earlier master daemon.

        Nobody waits for it, but it has to come: where such a job seems to be waiting, it would run
        again if that node became the master.
        """
        with self.mutex:
            ended: dict[str, store.Source | Rename] = {
                jstore.GetJobPath(job_id): self._Source(job)
                for job_id, job in self._jobs.items()
                if job.final
            }
        for job_id in jstore.ListArchivedJobIds(_ARCHIVES_TOLD, self._rt):
            path = jstore.GetJobPath(job_id)
            if job_id not in self._jobs:
                ended[path] = Rename(path, jstore.GetArchivedJobPath(job_id))
        return ended

    def Start(self) -> None:
        """Start the workers, with all jobs that have not ended in their queue."""
        self._pool = workerpool.WorkerPool(
            "JobQueue", self._num_workers, executor.JobWorker, self._rt
        )
        with self.mutex:
            for job_id in sorted(self._jobs):
                if not self._jobs[job_id].final:
                    self._EnqueueUnlocked(self._jobs[job_id])

    # Small services, also for the executor

    def Now(self) -> float:
        """Seconds since the epoch."""
        return self._rt.clock.time()

    def _Source(self, job: QueuedJob) -> store.Source:
        def _Serialize() -> bytes:
            with self.mutex:
                return job.Serialize()

        return _Serialize

    def _SerialSource(self) -> bytes:
        with self.mutex:
            return jstore.FormatNumber(self._last_id)

    @staticmethod
    def _PathUnlocked(job: QueuedJob) -> str:
        return (jstore.GetArchivedJobPath if job.archived else jstore.GetJobPath)(job.id)

    def _WriteSerial(self) -> None:
        # Not waited for: the jobs tell the last id, too (_FindLastId).
        self._store.WriteLazily(pathutils.JOB_QUEUE_SERIAL_FILE, self._SerialSource)

    def Persist(self, job: QueuedJob, new: bool = False) -> store.Ticket:
        """Write the state of a job, synced and copied.

        @param new: it is refused, and so nothing is tried again, if that fails
        """
        # Where it goes and when, in one step: once the store was asked to archive the job's file,
        # no write may bring that back.
        with self.mutex:
            return self._store.WriteDurably(
                [(self._PathUnlocked(job), self._Source(job))], keep=not new
            )

    def PersistLazily(self, job: QueuedJob) -> None:
        """Write the state of a job, some time soon."""
        with self.mutex:
            self._store.WriteLazily(self._PathUnlocked(job), self._Source(job))

    def NotifyChange(self, job: QueuedJob) -> None:
        """Tell those who wait for changes of a job."""
        self._listeners.Notify(job.id)

    def _EnqueueUnlocked(self, job: QueuedJob) -> None:
        """Put a job into the queue of the workers."""
        job.ticket += 1
        if self._pool is not None:
            self._pool.AddTask(
                self._executor, job, job.ticket, priority=self._executor.PoolPriority(job)
            )

    def HasOthers(self, priority: int) -> bool:
        """Do other jobs of this priority, or more urgent ones, wait for a worker?"""
        return self._pool is not None and self._pool.HasTask(priority)

    def RegisterDependent(self, job_id: int, dependent: QueuedJob) -> bool:
        """Queue a job again when another one has ended; the mutex is held.

        @return: False if that one has ended already
        """
        job = self._KnownUnlocked(job_id)
        if job is None or job.final:
            return False
        self._dependents.setdefault(job_id, set()).add(dependent.id)
        return True

    def JobEnded(self, job: QueuedJob) -> store.Ticket:
        """A job has reached its final state: write it, then tell everybody.

        @return: tells when it is written
        """
        logging.info("Finished job %d, status = %s", job.id, job.CalcStatus())

        def _Written() -> None:
            if written.error is not None:
                logging.error("Final state of job %d is not safe: %s", job.id, written.error)
            with self.mutex:
                for job_id in sorted(self._dependents.pop(job.id, ())):
                    if job_id in self._jobs:
                        self._EnqueueUnlocked(self._jobs[job_id])
            self.NotifyChange(job)

        written = self.Persist(job)
        written.AddDoneCallback(_Written)
        return written

    def GetJobStatus(self, job_id: int) -> str | None:
        """Status of a job, also of an archived one; None if there is none."""
        with self.mutex:
            job = self._KnownUnlocked(job_id)
            if job is not None:
                return job.CalcStatus()
        try:
            data = self._rt.files.read(jstore.GetArchivedJobPath(job_id))
            status = QueuedJob.Restore(data, job_id).CalcStatus()
        except (FileNotFoundError, errors.JobFileCorrupted):
            return None
        # It has ended; its file says otherwise if that could not be written, on a full disk, say.
        return status if status in constants.JOBS_FINALIZED else constants.JOB_STATUS_ERROR

    def _KnownUnlocked(self, job_id: int) -> QueuedJob | None:
        """A job of the queue, or one on its way in or out."""
        return self._jobs.get(job_id) or self._arriving.get(job_id) or self._leaving.get(job_id)

    def _FindUnlocked(self, job_id: object) -> QueuedJob | None:
        number = jstore.ParseJobId(job_id)
        return None if number is None else self._jobs.get(number)

    # Submitting

    def BeginSubmit(self, jobs: Sequence[Sequence[opcodes.OpCode]]) -> Submission:
        """Start to submit jobs; each is accepted or refused on its own.

        Ids are given out for all of them, in order, also to those that are refused.
        """
        submission = Submission(len(jobs), self._rt)
        drained = jstore.IsQueueDrained(self._rt)
        accepted: list[tuple[int, QueuedJob]] = []
        with self.mutex:
            first_id = self._last_id + 1
            self._last_id += len(jobs)
            batch: list[int] = []
            for index, ops in enumerate(jobs):
                try:
                    job = self._AcceptUnlocked(first_id + index, ops, batch, drained)
                except errors.GenericError as err:
                    submission.Refuse(index, err)
                else:
                    accepted.append((index, job))
                batch.append(first_id + index)
        if not accepted:
            self._WriteSerial()
            submission.Finish()
            return submission
        self._Store(submission, accepted)
        return submission

    def _AcceptUnlocked(
        self, job_id: int, ops: Sequence[opcodes.OpCode], batch: Sequence[int], drained: bool
    ) -> QueuedJob:
        """Make a job, or say why not."""
        if self.ending:
            raise errors.JobQueueError("The master daemon is ending and takes no jobs")
        if drained:
            raise errors.JobQueueDrainError("Job queue is drained, refusing job")
        count = len(self._jobs) + len(self._arriving)
        if count >= constants.JOB_QUEUE_SIZE_HARD_LIMIT:
            raise errors.JobQueueFull(
                f"The job queue holds {count} jobs, which is the limit; archive ended ones with"
                " 'gnt-job autoarchive'"
            )
        job = QueuedJob(job_id, ops, self.Now())
        for op in job.ops:
            depends.ResolveRelative(op.input, job_id, batch)
        self._arriving[job_id] = job
        return job

    def _Store(self, submission: Submission, accepted: list[tuple[int, QueuedJob]]) -> None:
        """Write new jobs; let them into the queue once they are safe."""
        self._WriteSerial()
        waiting = len(accepted)

        def _Written(index: int, job: QueuedJob, ticket: store.Ticket) -> None:
            nonlocal waiting
            if ticket.error is not None:
                self._Forget(job)
                submission.Refuse(index, errors.JobQueueError(errors.FormatError(ticket.error)))
            else:
                submission.results[index] = [True, str(job.id)]
            with self.mutex:
                del self._arriving[job.id]
                if ticket.error is None:
                    self._jobs[job.id] = job
                    self._EnqueueUnlocked(job)
                waiting -= 1
                last = waiting == 0
            if last:
                submission.Finish()

        try:
            tickets = [(index, job, self.Persist(job, new=True)) for index, job in accepted]
        except errors.JobQueueError as err:
            with self.mutex:
                for index, job in accepted:
                    submission.Refuse(index, err)
                    self._arriving.pop(job.id, None)
            submission.Finish()
            return
        for index, job, ticket in tickets:
            ticket.AddDoneCallback(functools.partial(_Written, index, job, ticket))

    def _Forget(self, job: QueuedJob) -> None:
        """A job could not be written safely: see that a restart does not find it after all."""
        try:
            self._rt.files.remove(jstore.GetJobPath(job.id))
        except OSError as err:
            logging.error("Can not remove the file of refused job %d: %s", job.id, err)

    def SubmitJob(self, ops: Sequence[opcodes.OpCode]) -> str:
        """Submit one job.

        @return: its id; it is safe
        @raise errors.JobQueueError: the queue is drained or full, or can not write
        @raise errors.OpPrereqError: no opcodes, or an impossible dependency
        """
        submission = self.BeginSubmit([ops])
        submission.Wait()
        return submission.GetSingle()

    def SubmitManyJobs(self, jobs: Sequence[Sequence[opcodes.OpCode]]) -> list[list[Any]]:
        """Submit several jobs, each on its own.

        @return: for each job, in order, [True, id] or [False, error text]
        """
        return self.BeginSubmit(jobs).Wait()

    # Changing

    def CancelJob(self, job_id: object) -> list[Any]:
        """Cancel a job that has not started.

        @return: [is it or will it be cancelled, text]
        """
        with self.mutex:
            job = self._FindUnlocked(job_id)
            if job is None:
                return [False, f"Job {job_id} not found"]
            success, text = job.RequestCancel(self.Now())
            if success and job.claimed is not None:
                # With the mutex held, so that the worker is still at this job.
                self.context.glm.interrupt(job.worker)
        if success:
            # Who was told so must not find it done after a crash.
            if job.final:
                self.JobEnded(job).Wait()
            else:
                written = self.Persist(job)
                self.NotifyChange(job)
                written.Wait()
        return [success, text]

    def ChangeJobPriority(self, job_id: object, priority: int) -> list[Any]:
        """Change the priority of the opcodes of a job that have not started.

        @return: [was it changed, text]
        """
        with self.mutex:
            job = self._FindUnlocked(job_id)
            if job is None:
                return [False, f"Job {job_id} not found"]
            status = job.CalcStatus()
            changed = [
                op
                for op in job.ops
                if op.status in (constants.OP_STATUS_QUEUED, constants.OP_STATUS_WAITLOCK)
            ]
            if not changed or status == constants.JOB_STATUS_CANCELING:
                return [False, f"Job {job.id} has nothing left that waits, it is {status}"]
            for op in changed:
                op.input.priority = priority
            if job.claimed is None and job.id not in self._AllDependentsUnlocked():
                self._EnqueueUnlocked(job)
        self.PersistLazily(job)
        self.NotifyChange(job)
        return [True, f"Priority of job {job.id} is {priority} now"]

    def _AllDependentsUnlocked(self) -> set[int]:
        return {job_id for waiting in self._dependents.values() for job_id in waiting}

    def ArchiveJob(self, job_id: object) -> bool:
        """Move a job that has ended out of the queue; was it?"""
        with self.mutex:
            job = self._FindUnlocked(job_id)
        return job is not None and self._ArchiveJobs([job]) == 1

    def _ArchiveJobs(self, jobs: Iterable[QueuedJob]) -> int:
        """Archive those of these jobs that have ended.

        @return: how many
        """
        with self.mutex:
            archived = [job for job in jobs if job.final and job.id in self._jobs]
            if not archived:
                return 0
            written = self._store.Rename(
                [(jstore.GetJobPath(job.id), jstore.GetArchivedJobPath(job.id)) for job in archived]
            )
            for job in archived:
                job.archived = True
                self._leaving[job.id] = self._jobs.pop(job.id)
        back: list[QueuedJob] = []
        try:
            written.Wait()
        except errors.JobQueueError as err:
            logging.error("Archiving failed: %s", err)
            back = [job for job in archived if self._store.Exists(jstore.GetJobPath(job.id))]
        with self.mutex:
            for job in archived:
                del self._leaving[job.id]
            for job in back:
                job.archived = False
                self._jobs[job.id] = job
        for job in archived:
            self.NotifyChange(job)
        return len(archived) - len(back)

    def AutoArchiveJobs(self, age: float, timeout: float) -> list[int]:
        """Archive jobs that ended long ago.

        @param age: seconds since the end; -1 = all that have ended
        @param timeout: seconds to work at most
        @return: [jobs archived, jobs not looked at because the time was over]
        """
        end = self._rt.clock.monotonic() + timeout
        now = self.Now()
        with self.mutex:
            jobs = [self._jobs[job_id] for job_id in sorted(self._jobs)]
        archived = 0
        group: list[QueuedJob] = []
        for index, job in enumerate(jobs):
            if self._rt.clock.monotonic() > end:
                return [archived + self._ArchiveJobs(group), len(jobs) - index]
            if job.final and (age == -1 or now - job.GetAgeTime() > age):
                group.append(job)
            if len(group) >= _ARCHIVE_GROUP:
                archived += self._ArchiveJobs(group)
                group = []
        return [archived + self._ArchiveJobs(group), 0]

    def SetDrainFlag(self, drain: bool) -> bool:
        """Refuse new jobs, or take them again; survives a restart; True."""
        jstore.SetDrainFlag(drain, self._rt)
        return True

    # Looking

    def QueryJobs(
        self, job_ids: Sequence[object] | None, fields: Sequence[str]
    ) -> list[list[Any] | None]:
        """Rows of values.

        @param job_ids: None or empty = all jobs that are not archived, ascending
        Besides the fields of L{job} there is C{wait_reason}, see L{DescribeWait}.

        @return: rows in the order asked for, None for a job that does not exist
        @raise errors.OpExecError: there is no such field
        """
        stored = ["lock_status" if field == WAIT_REASON else field for field in fields]
        self._CheckFields(stored)
        lock_info = self.context.glm.GetLockInfo() if WAIT_REASON in fields else []
        with self.mutex:
            jobs: list[QueuedJob | None]
            if job_ids:
                jobs = [self._FindUnlocked(job_id) for job_id in job_ids]
            else:
                jobs = [self._jobs[job_id] for job_id in sorted(self._jobs)]
            rows = [None if job is None else job.GetInfo(stored) for job in jobs]
            for index, field in enumerate(fields):
                if field != WAIT_REASON:
                    continue
                for job, row in zip(jobs, rows, strict=True):
                    if job is not None and row is not None:
                        row[index] = waiting.DescribeWait(job, lock_info, self._jobs)
            return rows

    @staticmethod
    def _CheckFields(fields: Sequence[str]) -> None:
        unknown = [field for field in fields if not IsValidField(field)]
        if unknown:
            raise errors.OpExecError(f"Invalid job query field '{unknown[0]}'")

    def DescribeWait(self, job_id: object) -> dict[str, Any] | None:
        """Why a job has not started, and who would have to let go (L{waiting.DescribeWait}).

        @return: None if there is no such job, or it does not wait
        """
        lock_info = self.context.glm.GetLockInfo()
        with self.mutex:
            job = self._FindUnlocked(job_id)
            if job is None:
                return None
            return waiting.DescribeWait(job, lock_info, self._jobs)

    # Waiting

    def AddChangeListener(self, job_id: object, fn: watch.Listener) -> None:
        """Call this, in any thread, at every change of a job. It must return at once."""
        number = jstore.ParseJobId(job_id)
        if number is not None:
            self._listeners.Add(number, fn)

    def RemoveChangeListener(self, job_id: object, fn: watch.Listener) -> None:
        """Undo L{AddChangeListener}."""
        number = jstore.ParseJobId(job_id)
        if number is not None:
            self._listeners.Remove(number, fn)

    def PeekJobChanges(
        self,
        job_id: object,
        fields: Sequence[str],
        prev_info: Sequence[Any] | None,
        prev_log_serial: int | None,
    ) -> Any:
        """What is new about a job, without waiting.

        @param fields: query fields
        @param prev_info: their values as the caller knows them; None = it knows nothing
        @param prev_log_serial: serial of the last log entry that it knows; None = none
        @return: None if there is no such job; [values, new log entries];
            C{constants.JOB_NOTCHANGED} if there is nothing new and the job goes on
        @raise errors.OpExecError: there is no such field
        """
        self._CheckFields(fields)
        with self.mutex:
            job = self._FindUnlocked(job_id)
            if job is None:
                return None
            info = job.GetInfo(fields)
            entries = job.GetLogEntries(prev_log_serial)
            goes_on = job.CalcStatus() in _WAITABLE
        if goes_on and not entries and prev_info is not None:
            known = list(prev_info)
            # As the client has it: tuples became lists, keys became texts.
            if info == known or serializer.Load(serializer.Dump(info)) == known:
                return constants.JOB_NOTCHANGED
        return [info, entries]

    def WaitForJobChanges(
        self,
        job_id: object,
        fields: Sequence[str],
        prev_info: Sequence[Any] | None,
        prev_log_serial: int | None,
        timeout: float,
    ) -> Any:
        """As L{PeekJobChanges}, but wait for something new.

        @param timeout: seconds
        """
        changed = self._rt.threads.Event()
        end = self._rt.clock.monotonic() + timeout
        self.AddChangeListener(job_id, changed.set)
        try:
            while True:
                changed.clear()
                result = self.PeekJobChanges(job_id, fields, prev_info, prev_log_serial)
                left = end - self._rt.clock.monotonic()
                if result != constants.JOB_NOTCHANGED or left <= 0:
                    return result
                changed.wait(left)
        finally:
            self.RemoveChangeListener(job_id, changed.set)

    # Copies on other nodes

    def _GetUpdates(self, include_final: bool) -> list[Change]:
        """All that a node needs to know of the queue."""
        with self.mutex:
            updates: list[Change] = [
                Update(jstore.GetJobPath(job_id), job.Serialize())
                for job_id, job in sorted({**self._jobs, **self._arriving}.items())
                if include_final or not job.final
            ]
            serial = jstore.FormatNumber(self._last_id)
        return [*updates, Update(pathutils.JOB_QUEUE_SERIAL_FILE, serial)]

    def AddNode(self, node: objects.Node) -> None:
        """A node was added, added again, promoted or demoted: bring its copy in line.

        What it has is purged. A candidate then gets all jobs that are not archived; errors are
        logged, and it gets what it missed when it answers again.
        """
        if node.name == self.context.cfg.GetMasterNode():
            raise errors.ProgrammerError("The master is no target of its own job queue")
        self._replicator.RemoveTarget(node.name, _NEW_TARGET_TIMEOUT)
        result = self.context.rpc.call_jobqueue_purge(node.name, address_list=[node.primary_ip])
        if result.fail_msg:
            logging.warning(
                "Can not purge the job queue of node %s: %s", node.name, result.fail_msg
            )
        if not node.master_candidate:
            return

        def _Add() -> None:
            self._replicator.AddTarget(node.name, node.primary_ip, self._GetUpdates(True))

        # By who writes: then all that is not in the picture of the queue is handed on after it.
        self._store.Call(_Add).Wait()
        if not self._replicator.WaitSent(node.name, _NEW_TARGET_TIMEOUT):
            logging.error("Node %s does not have all of the job queue yet", node.name)

    def RemoveNode(self, name: str) -> None:
        """Send no copies to a node any more; it cleans up when it leaves the cluster."""
        self._replicator.RemoveTarget(name)

    # The end

    def PrepareShutdown(self) -> None:
        """Begin nothing new: jobs that wait stay waiting, new ones are refused."""
        with self.mutex:
            self.ending = True

    def Shutdown(self) -> None:
        """End: wait for running opcodes, write everything, release the queue."""
        self.PrepareShutdown()
        if self._pool is not None:
            self._pool.TerminateWorkers()
        self._store.Shutdown()
        self._replicator.Shutdown()
        self._lock_file.Close()

    def GetStatistics(self) -> dict[str, Any]:
        """Numbers of jobs by status, and of what works for them."""
        counts: dict[str, int] = {}
        with self.mutex:
            for job in self._jobs.values():
                status = job.CalcStatus()
                counts[status] = counts.get(status, 0) + 1
        return {
            "jobs": counts,
            "listeners": self._listeners.Count(),
            "workers": self._pool.GetStatistics() if self._pool is not None else {},
            "store": self._store.GetStatistics(),
            "candidates": self._replicator.GetStatistics(),
        }

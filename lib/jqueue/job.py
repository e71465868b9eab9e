"""A job and its opcodes as data: states, transitions, the file's form. No I/O, no locks.

A job is a list of opcodes, executed one after the other; the first that fails ends it. The status
of a job is never stored but computed from its opcodes. What may happen to an opcode's status are
the rows of C{constants.OP_TRANSITIONS}; any other change is refused before it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, cast

from .. import constants, errors, ht, opcodes, serializer
from ..utils import text

#: [seconds, microseconds], as the files have it.
Timestamp = Sequence[int]

#: Result of what a client cancelled, and of what a restart of the daemon interrupted.
CANCELED_TEXT: Final = "Job canceled by request"
UNCLEAN_TEXT: Final = "Unclean master daemon shutdown"

_NOT_RUN: Final = errors.EncodeException(
    errors.OpExecError("Not run, since an earlier opcode of the job failed")
)


_TIMESTAMP: Final = ht.TTuple(ht.TInt, ht.TInt)
_MAYBE_TIMESTAMP: Final = ht.TMaybe(_TIMESTAMP)
_LOG: Final = ht.TListOf(ht.TTuple(ht.TInt, _TIMESTAMP, ht.TString, ht.TAny))


def MakeTimestamp(now: float) -> Timestamp:
    """A moment in the form of the files.

    @param now: seconds since the epoch
    """
    return text.SplitTime(now)


def _LoadTimestamp(state: dict[str, Any], name: str) -> Timestamp | None:
    stamp = state.get(name)
    problem = _MAYBE_TIMESTAMP.Problem(stamp)
    if problem is not None:
        raise ValueError(f"{name}: {problem}")
    return cast("Timestamp | None", stamp)


def _LoadLog(log: Any) -> list[list[Any]]:
    problem = _LOG.Problem(log)
    if problem is not None:
        raise ValueError(f"log: {problem}")
    return list(log)


class QueuedOpCode:
    """One opcode of a job, with what became of it.

    @ivar input: the opcode; the logical unit works on this object, so that names it expanded show
        up in the file
    @ivar status: one of C{constants.OP_STATUS_ALL}; changed by L{Apply} only
    @ivar result: what the unit returned, or the error in the form of C{errors.EncodeException}
    @ivar log: entries [serial, timestamp, type, message]; serials count over the whole job
    @ivar start_timestamp: a worker took it
    @ivar exec_timestamp: all its locks were held
    @ivar end_timestamp: it was final
    """

    __slots__ = (
        "end_timestamp",
        "exec_timestamp",
        "extra",
        "input",
        "log",
        "result",
        "start_timestamp",
        "status",
    )

    def __init__(self, op: opcodes.OpCode) -> None:
        self.input = op
        self.status: str = constants.OP_STATUS_QUEUED
        self.result: Any = None
        self.log: list[list[Any]] = []
        self.start_timestamp: Timestamp | None = None
        self.exec_timestamp: Timestamp | None = None
        self.end_timestamp: Timestamp | None = None
        #: Keys of the file that this version does not know; written back as they were.
        self.extra: dict[str, Any] = {}

    @classmethod
    def Restore(cls, state: dict[str, Any]) -> QueuedOpCode:
        """Make it from its part of a job file.

        @raise ValueError, KeyError: it can not be restored
        """
        self = cls(opcodes.OpCode.LoadOpCode(state["input"], strict=False))
        self.status = state["status"]
        if self.status not in constants.OP_STATUS_ALL:
            raise ValueError(f"Unknown opcode status {self.status!r}")
        # What the queue itself goes by; all else is checked when the opcode is about to run.
        for param in opcodes.COMMON_PARAMS:
            if param.name in ("priority", "depends"):
                problem = param.type.Problem(getattr(self.input, param.name))
                if problem is not None:
                    raise ValueError(f"{param.name} of {self.input.OP_ID}: {problem}")
        self.result = state["result"]
        self.log = _LoadLog(state["log"])
        self.start_timestamp = _LoadTimestamp(state, "start_timestamp")
        self.exec_timestamp = _LoadTimestamp(state, "exec_timestamp")
        self.end_timestamp = _LoadTimestamp(state, "end_timestamp")
        self.extra = {key: value for key, value in state.items() if key not in _OP_KEYS}
        return self

    def Serialize(self) -> dict[str, Any]:
        """Its part of the job file."""
        return {
            **self.extra,
            "input": self.input.__getstate__(),
            "status": self.status,
            "result": self.result,
            "log": self.log,
            "start_timestamp": self.start_timestamp,
            "exec_timestamp": self.exec_timestamp,
            "end_timestamp": self.end_timestamp,
        }

    @property
    def final(self) -> bool:
        """Will nothing happen to it any more?"""
        return self.status in constants.OPS_FINALIZED

    def Apply(self, event: str, now: float, result: Any = None) -> None:
        """Let something happen to it.

        @param event: one of C{constants.OP_EVENT_*}
        @param now: seconds since the epoch
        @param result: for events that end it
        @raise errors.ProgrammerError: that can not happen in its status
        """
        status = constants.OP_TRANSITIONS.get((self.status, event))
        if status is None:
            raise errors.ProgrammerError(
                f"Opcode {self.input.Summary()} is {self.status}: it can not {event}"
            )
        stamp = MakeTimestamp(now)
        self.status = status
        if event == constants.OP_EVENT_TAKE:
            self.result = None
            self.start_timestamp = stamp
        elif event == constants.OP_EVENT_START:
            self.exec_timestamp = stamp
        elif event == constants.OP_EVENT_REQUEUE:
            self.start_timestamp = None
        if status in constants.OPS_FINALIZED:
            self.result = result
            self.end_timestamp = stamp


_OP_KEYS: Final = frozenset(QueuedOpCode(opcodes.OpCode()).Serialize())


class QueuedJob:
    """A job of the queue.

    All fields are read and written with the mutex of the queue held.

    Invariant (L{_CheckInvariants}): the final opcodes are the first ones of the list, and at most
    one opcode is neither final nor queued, unless the job is being cancelled.

    @ivar id: number, unique for the life of the cluster
    @ivar ops: its opcodes
    @ivar log_serial: serial of the last log entry
    @ivar lock_status: what locks it waits for, as text; in memory only
    @ivar archived: its file is, or is about to be, in the archive
    @ivar ticket: number of its present stay in the queue of the workers; an older one is void
    @ivar claimed: the ticket of the worker that is at it, None if none is
    @ivar worker: identity of that worker's thread
    @ivar strategy: time-outs of the next attempt to get the locks of the current opcode
    """

    __slots__ = (
        "__weakref__",
        "archived",
        "claimed",
        "end_timestamp",
        "extra",
        "id",
        "lock_status",
        "log_serial",
        "ops",
        "received_timestamp",
        "start_timestamp",
        "strategy",
        "ticket",
        "worker",
    )

    def __init__(self, job_id: int, ops: Iterable[opcodes.OpCode], now: float) -> None:
        """A new job.

        @param now: when it was received, seconds since the epoch
        @raise errors.OpPrereqError: no opcodes
        """
        self.id = job_id
        self.ops = [QueuedOpCode(op) for op in ops]
        if not self.ops:
            raise errors.OpPrereqError(
                "No opcodes: a job must have at least one", errors.ECODE_INVAL
            )
        self.received_timestamp: Timestamp | None = MakeTimestamp(now)
        self._InitFields()

    def _InitFields(self) -> None:
        self.start_timestamp: Timestamp | None = None
        self.end_timestamp: Timestamp | None = None
        self.extra: dict[str, Any] = {}
        self.log_serial = 0
        self.lock_status: str | None = None
        self.archived = False
        self.ticket = 0
        self.claimed: int | None = None
        self.worker = 0
        self.strategy: Any = None

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.CalcStatus()}: {','.join(self.GetSummary())}>"

    @classmethod
    def Restore(cls, data: bytes | str, job_id: int) -> QueuedJob:
        """Make a job from its file.

        @raise errors.JobFileCorrupted: it can not be restored; says why
        """
        try:
            state = serializer.Load(data)
            self = cls.__new__(cls)
            self.id = int(state["id"])
            if self.id != job_id:
                raise ValueError(f"It says to be job {self.id}")
            self.ops = [QueuedOpCode.Restore(item) for item in state["ops"]]
            if not self.ops:
                raise ValueError("It has no opcodes")
            self._InitFields()
            self.received_timestamp = _LoadTimestamp(state, "received_timestamp")
            self.start_timestamp = _LoadTimestamp(state, "start_timestamp")
            self.end_timestamp = _LoadTimestamp(state, "end_timestamp")
            self.extra = {key: value for key, value in state.items() if key not in _JOB_KEYS}
            self.log_serial = max((entry[0] for op in self.ops for entry in op.log), default=0)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as err:
            raise errors.JobFileCorrupted(
                f"Job file {job_id} can not be restored: {err.__class__.__name__}: {err}"
            ) from err
        return self

    def Serialize(self) -> bytes:
        """Content of the job's file."""
        state = {
            **self.extra,
            "id": str(self.id),
            "ops": [op.Serialize() for op in self.ops],
            "received_timestamp": self.received_timestamp,
            "start_timestamp": self.start_timestamp,
            "end_timestamp": self.end_timestamp,
        }
        return serializer.Dump(state).encode("utf-8")

    # State

    def CalcStatus(self) -> str:
        """The job's status, one of C{constants.JOB_STATUS_ALL}."""
        return CalcJobStatus(op.status for op in self.ops)

    @property
    def final(self) -> bool:
        """Will nothing happen to the job any more?"""
        return self.CalcStatus() in constants.JOBS_FINALIZED

    def CalcPriority(self) -> int:
        """The most urgent priority among the opcodes that are not final."""
        open_ops = [op.input.priority for op in self.ops if not op.final]
        return min(open_ops, default=constants.OP_PRIO_DEFAULT)

    def GetAgeTime(self) -> float:
        """When it ended, started or was received, whatever is known; seconds since the epoch."""
        stamp = self.end_timestamp or self.start_timestamp or self.received_timestamp
        return text.MergeTime(stamp) if stamp else 0.0

    def GetCurrentOp(self) -> QueuedOpCode | None:
        """The first opcode that is not final; None if there is none."""
        return next((op for op in self.ops if not op.final), None)

    def Take(self, op: QueuedOpCode, now: float) -> None:
        """A worker starts on an opcode."""
        op.Apply(constants.OP_EVENT_TAKE, now)
        if self.start_timestamp is None:
            self.start_timestamp = op.start_timestamp

    def AddLogEntry(self, op: QueuedOpCode, kind: str, message: Any, now: float) -> None:
        """Append to the log of an opcode."""
        self.log_serial += 1
        op.log.append([self.log_serial, MakeTimestamp(now), kind, message])

    def GetLogEntries(self, after: int | None) -> list[list[Any]]:
        """Log entries of all opcodes, ascending.

        @param after: only those with a higher serial; None = all
        """
        if after is not None and after >= self.log_serial:
            return []
        return [entry for op in self.ops for entry in op.log if after is None or entry[0] > after]

    def Fail(self, op: QueuedOpCode, result: Any, now: float) -> None:
        """An opcode failed: with it the job ends, and what comes after will not run."""
        op.Apply(constants.OP_EVENT_FAIL, now, result)
        for later in self.ops:
            if later.status == constants.OP_STATUS_QUEUED:
                later.Apply(constants.OP_EVENT_ABANDON, now, _NOT_RUN)
                later.end_timestamp = None
        self.Finish(now)

    def Finish(self, now: float) -> None:
        """Note the end, and forget what only a living job has."""
        self.lock_status = None
        self.end_timestamp = MakeTimestamp(now)

    def RequestCancel(self, now: float) -> tuple[bool, str]:
        """Cancel the job if that is still possible.

        A job that no worker is at ends at once; of one that waits for locks in a worker, or runs
        an opcode that says that it can be interrupted, that worker takes notice (L{NoticeCancel}).

        @return: whether it is or will be cancelled, and a text for the user
        """
        status = self.CalcStatus()
        if status == constants.JOB_STATUS_WAITLOCK:
            for op in self.ops:
                if op.status == constants.OP_STATUS_WAITLOCK:
                    op.Apply(constants.OP_EVENT_CANCEL, now)
            if self.claimed is not None:
                return True, f"Job {self.id} will be canceled"
            self.NoticeCancel(now)
            return True, f"Job {self.id} canceled"
        if status == constants.JOB_STATUS_QUEUED:
            self.NoticeCancel(now)
            return True, f"Job {self.id} canceled"
        if status == constants.JOB_STATUS_CANCELING:
            return True, f"Job {self.id} will be canceled"
        running = self.GetCurrentOp()
        if running is not None and getattr(running.input, "interruptible", False):
            running.Apply(constants.OP_EVENT_CANCEL, now)
            return True, f"Job {self.id} will be canceled"
        return False, f"Job {self.id} is no longer waiting in the queue"

    def NoticeCancel(self, now: float) -> None:
        """All opcodes that are not final are cancelled, and the job ends."""
        for op in self.ops:
            if op.status == constants.OP_STATUS_QUEUED:
                op.Apply(constants.OP_EVENT_CANCEL, now, CANCELED_TEXT)
            elif op.status == constants.OP_STATUS_CANCELING:
                op.Apply(constants.OP_EVENT_NOTICE, now, CANCELED_TEXT)
        self.Finish(now)

    def Recover(self, now: float) -> bool:
        """Bring a job that was just loaded in line with nobody working on it.

        Opcodes that waited for locks did nothing yet and wait again; one that ran may have done
        anything and must not run twice, so the job ends in error; a job that was being cancelled
        while it waited is cancelled.

        @return: whether anything changed
        """
        status = self.CalcStatus()
        if status in constants.JOBS_FINALIZED:
            if self.end_timestamp is not None:
                return False
            # The daemon ended between the two.
            self.Finish(now)
            return True
        changed = False
        for op in self.ops:
            if op.status == constants.OP_STATUS_CANCELING and op.exec_timestamp is None:
                self.NoticeCancel(now)
                return True
            if op.status in (constants.OP_STATUS_RUNNING, constants.OP_STATUS_CANCELING):
                self.Fail(op, UNCLEAN_TEXT, now)
                return True
            if op.status == constants.OP_STATUS_WAITLOCK:
                op.Apply(constants.OP_EVENT_REQUEUE, now)
                changed = True
        return changed

    # What queries show

    def GetSummary(self) -> list[str]:
        """Summaries of the opcodes."""
        return [op.input.Summary() for op in self.ops]

    def GetInfo(self, fields: Sequence[str]) -> list[Any]:
        """Values of query fields, in their order.

        @raise errors.OpExecError: there is no such field
        """
        try:
            return [_FIELDS[field](self) for field in fields]
        except KeyError as err:
            raise errors.OpExecError(
                f"Invalid job query field {err.args[0]!r}; there are {', '.join(sorted(_FIELDS))}"
            ) from None

    def _CheckInvariants(self) -> None:
        finals = [op.final for op in self.ops]
        if finals != sorted(finals, reverse=True):
            raise AssertionError(f"{self!r}: final opcodes after open ones")
        if sum(op.status == constants.OP_STATUS_RUNNING for op in self.ops) > 1:
            raise AssertionError(f"{self!r}: more than one opcode is running")


_JOB_KEYS: Final = frozenset(
    ["id", "ops", "received_timestamp", "start_timestamp", "end_timestamp"]
)


def CalcJobStatus(statuses: Iterable[str]) -> str:
    """Status of a job from those of its opcodes, in their order."""
    result: str = constants.JOB_STATUS_QUEUED
    all_success = True
    for status in statuses:
        if status == constants.OP_STATUS_SUCCESS:
            continue
        all_success = False
        if status in (
            constants.OP_STATUS_CANCELING,
            constants.OP_STATUS_ERROR,
            constants.OP_STATUS_CANCELED,
        ):
            return status
        if status in (constants.OP_STATUS_WAITLOCK, constants.OP_STATUS_RUNNING):
            result = status
    return constants.JOB_STATUS_SUCCESS if all_success else result


def _Each(attribute: str) -> Callable[[QueuedJob], list[Any]]:
    return lambda job: [getattr(op, attribute) for op in job.ops]


#: Query fields: name -> value of a job.
_FIELDS: Final[dict[str, Callable[[QueuedJob], Any]]] = {
    "id": lambda job: str(job.id),
    "status": QueuedJob.CalcStatus,
    "priority": QueuedJob.CalcPriority,
    "ops": lambda job: [op.input.__getstate__() for op in job.ops],
    "opresult": _Each("result"),
    "opstatus": _Each("status"),
    "oplog": lambda job: [list(op.log) for op in job.ops],
    "opstart": _Each("start_timestamp"),
    "opexec": _Each("exec_timestamp"),
    "opend": _Each("end_timestamp"),
    "received_ts": lambda job: job.received_timestamp,
    "start_ts": lambda job: job.start_timestamp,
    "end_ts": lambda job: job.end_timestamp,
    "lock_status": lambda job: job.lock_status,
    "summary": QueuedJob.GetSummary,
}


def IsValidField(field: str) -> bool:
    """Is there a query field of that name?"""
    return field in _FIELDS

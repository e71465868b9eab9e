"""From an opcode to its result: locks, checks, hooks, execution, feedback.

L{Processor.TryOpCode} makes one attempt: it acquires the locks that the logical unit wants, level
by level and within one budget of time, and runs the unit. What could not be had in time is given
up entirely; the next attempt, with the next budget of L{LockAttemptTimeoutStrategy}, starts from
nothing, with a new unit made from the same opcode. The job queue calls it and puts a job that was
out of luck back into its queue; L{Processor.ExecOpCode} tries again in the same thread.

Design: "Locking improvements" of Ganeti 2.1 (rising time-outs, everything dropped between tries,
blocking only in the end).
"""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from . import cmdlib, constants, errors, hooksmaster, locking, opcodes, runtime

if TYPE_CHECKING:
    from .cmdlib import base

_FIRST_TIMEOUT: Final = 1.0
_MIN_TIMEOUT: Final = 0.1
_MAX_TIMEOUT: Final = 10.0
#: Once an opcode was given that many seconds, it blocks.
_TIMEOUT_SUM: Final = 150.0
#: Part of a time-out by which chance moves it either way, so that competing jobs drift apart.
_VARIATION: Final = 0.05


class LockAcquireTimeout(Exception):  # noqa: N818 - an outcome, not an error
    """The locks were not to be had in the time of this attempt; nothing is held."""


class CancelJob(Exception):  # noqa: N818 - an outcome, not an error
    """Somebody wants the job to be cancelled, and it has done nothing yet."""


@functools.cache
def CalculateLockAttemptTimeouts() -> tuple[float, ...]:
    """Seconds of each attempt to get the locks of an opcode; after the last it blocks."""
    result = [_FIRST_TIMEOUT]
    while sum(result) < _TIMEOUT_SUM:
        timeout = (result[-1] * 1.05) ** 1.25
        result.append(min(max(timeout, _MIN_TIMEOUT), _MAX_TIMEOUT))
    return tuple(result)


class LockAttemptTimeoutStrategy:
    """The time-outs of one attempt, and the way to the next."""

    def __init__(
        self,
        attempt: int = 0,
        _time_fn: Callable[[], float] = runtime.DEFAULT.clock.monotonic,
        _random_fn: Callable[[], float] = runtime.DEFAULT.random.random,
    ) -> None:
        """@param attempt: how many were made before

        @raise ValueError: a negative number
        """
        if attempt < 0:
            raise ValueError(f"Attempt must not be negative, got {attempt}")
        timeouts = CalculateLockAttemptTimeouts()
        self.attempt = attempt
        self._time_fn = _time_fn
        self._random_fn = _random_fn
        self._budget = locking.RunningTimeout(
            timeouts[attempt] if attempt < len(timeouts) else None, False, _time_fn
        )
        self._only_looks = False

    def NextAttempt(self) -> LockAttemptTimeoutStrategy:
        """The one after this."""
        if self._only_looks:
            return LockAttemptTimeoutStrategy(self.attempt, self._time_fn, self._random_fn)
        return LockAttemptTimeoutStrategy(self.attempt + 1, self._time_fn, self._random_fn)

    def Look(self) -> LockAttemptTimeoutStrategy:
        """Before this one: an attempt that does not wait."""
        look = LockAttemptTimeoutStrategy(self.attempt, self._time_fn, self._random_fn)
        look._budget = locking.RunningTimeout(0.0, False, self._time_fn)
        look._only_looks = True
        return look

    def LimitedAttempt(self) -> LockAttemptTimeoutStrategy:
        """In place of an attempt that would block: one with the longest time-out."""
        last = len(CalculateLockAttemptTimeouts()) - 1
        return LockAttemptTimeoutStrategy(last, self._time_fn, self._random_fn)

    def CalcRemainingTimeout(self) -> float | None:
        """Seconds for the next acquire of this attempt; None = without limit.

        The budget runs from the first question on.
        """
        remaining = self._budget.Remaining()
        if remaining is None:
            return None
        return remaining * (1 + _VARIATION * (2 * self._random_fn() - 1))


class OpExecCbBase:
    """What the caller of the processor wants to know; this one wants nothing."""

    def NotifyStart(self) -> None:
        """All locks are held, the unit is about to do something."""

    def Feedback(self, *args: Any) -> None:
        """A message for the job's log: text, or type and message."""

    def ReportLocks(self, text: str) -> None:
        """What is being waited for, or was got."""

    def ReportStep(self, text: str | None) -> None:
        """What the unit is at now that may take long; None = nothing special."""

    def CheckCancel(self) -> None:
        """Raise L{CancelJob} if the job shall not go on."""

    def SubmitManyJobs(self, jobs: list[list[opcodes.OpCode]]) -> list[Any]:
        """Submit jobs that a unit returned (C{base.ResultWithJobs})."""
        raise errors.ProgrammerError("Jobs can be submitted only by an opcode of a job")


def FormatLocks(level: int, names: Any, shared: int | bool, state: str) -> str:
    """The text of a lock report, e.g. C{waiting/timeout=1.034211s/node/n1,n2/exclusive}.

    @param state: how far it is: C{waiting/blocking}, C{acquired}, ...
    """
    if names is locking.ALL_SET:
        text = "ALL"
    elif isinstance(names, str):
        text = names
    else:
        text = ",".join(sorted(names))
    mode = "shared" if shared else "exclusive"
    return f"{state}/{locking.LEVEL_NAMES[level]}/{text}/{mode}"


class Processor:
    """Executes opcodes, for one job or one query.

    @param context: the master daemon's
    @param ec_id: who reservations in the configuration belong to, and changes of it are by: the
        job's id; None for queries
    """

    def __init__(
        self,
        context: base.Context,
        ec_id: str | None,
        hooks_class: type[hooksmaster.HooksMaster] = hooksmaster.HooksMaster,
    ) -> None:
        self.context = context
        self._ec_id = ec_id
        self._rt = context.runtime
        self._hooks_class = hooks_class
        self._cbs = OpExecCbBase()
        self._strategy = self.NewStrategy()
        self._priority = constants.OP_PRIO_DEFAULT

    def NewStrategy(self) -> LockAttemptTimeoutStrategy:
        """The time-outs of a first attempt."""
        return LockAttemptTimeoutStrategy(0, self._rt.clock.monotonic, self._rt.random.random)

    # Executing

    def ExecOpCode(self, op: opcodes.OpCode, callbacks: OpExecCbBase | None = None) -> Any:
        """Execute an opcode, however long its locks take.

        @return: what the unit returned
        @raise errors.GenericError: what the unit raised
        """
        strategy = self.NewStrategy()
        while True:
            try:
                return self.TryOpCode(op, callbacks, strategy)
            except LockAcquireTimeout:
                strategy = strategy.NextAttempt()

    def TryOpCode(
        self,
        op: opcodes.OpCode,
        callbacks: OpExecCbBase | None,
        strategy: LockAttemptTimeoutStrategy,
        priority: int = constants.OP_PRIO_DEFAULT,
    ) -> Any:
        """Make one attempt to execute an opcode.

        @param strategy: its time-outs
        @param priority: with which locks are asked for
        @return: what the unit returned
        @raise LockAcquireTimeout: its locks were not to be had; nothing was done
        @raise CancelJob: so said the callbacks; nothing was done
        @raise errors.GenericError: what the unit raised
        """
        lu_class = self._FindUnit(op)
        self._cbs = callbacks or OpExecCbBase()
        self._strategy = strategy
        self._priority = priority
        glm = self.context.glm
        cfg = self.context.cfg
        try:
            self._Acquire(locking.LEVEL_CLUSTER, locking.BGL, not lu_class.REQ_BGL)
            try:
                with cfg.ActingFor(self._ec_id, op.OP_ID):
                    lu = self._PrepareUnit(lu_class, op, self._MakeContext(lu_class, op))
                    return self._LockAndExecLU(lu, locking.LEVEL_INSTANCE)
            finally:
                glm.release(locking.LEVEL_CLUSTER)
        finally:
            if self._ec_id is not None:
                cfg.DropECReservations(self._ec_id)
            self._cbs = OpExecCbBase()

    def QueryOpCode(self, op: opcodes.OpCode) -> Any:
        """Execute an opcode that only looks at things, without any lock.

        The answer is that of one moment for what comes from the configuration, and of the moment
        of asking for what comes from nodes; objects may vanish in between. So nobody who only wants
        to see waits for those who change.

        @raise errors.GenericError: what the unit raised
        """
        lu = self._PrepareUnit(self._FindUnit(op), op, self.context)
        cfg = self.context.cfg
        everything = {
            locking.LEVEL_INSTANCE: cfg.GetInstanceList,
            locking.LEVEL_NODE: cfg.GetNodeList,
        }
        for level in (locking.LEVEL_INSTANCE, locking.LEVEL_NODE):
            if level not in (lu.needed_locks or {}):
                continue
            lu.DeclareLocks(level)
            assert lu.needed_locks is not None
            names = lu.needed_locks[level]
            lu.acquired_locks[level] = _NameSet(
                everything[level]() if names is locking.ALL_SET else names
            )
        lu.CheckPrereq()
        return lu.Exec(self._Feedback)

    def _FindUnit(self, op: opcodes.OpCode) -> type[base.LogicalUnit]:
        if not isinstance(op, opcodes.OpCode):
            raise errors.ProgrammerError(f"Not an opcode: {op!r}")
        lu_class = cmdlib.GetLogicalUnit(op.__class__)
        if lu_class is None:
            raise errors.OpCodeUnknown(f"{op.OP_ID} is not implemented yet")
        return lu_class

    def _MakeContext(self, lu_class: type[base.LogicalUnit], op: opcodes.OpCode) -> base.Context:
        """What a unit may use: in a dry run nothing that changes anything."""
        if not op.dry_run:
            return self.context
        from .cmdlib import dryrun

        return dryrun.CheckingContext(self.context, lu_class.__name__)

    def _PrepareUnit(
        self, lu_class: type[base.LogicalUnit], op: opcodes.OpCode, context: base.Context
    ) -> base.LogicalUnit:
        # Also for those that come from job files, which nobody has checked yet.
        op.Validate()
        lu = lu_class(self, op, context, context.rpc)
        lu.ExpandNames()
        if lu.needed_locks is None:
            raise errors.ProgrammerError(
                f"{lu_class.__name__}.ExpandNames() did not set needed_locks; {{}} means none"
            )
        return lu

    # Locks

    def _Acquire(self, level: int, names: Any, shared: int | bool) -> set[str]:
        """Acquire locks of a level within what is left of the attempt's time.

        @raise LockAcquireTimeout: not in time
        @raise errors.OpPrereqError: an object vanished
        """
        self._cbs.CheckCancel()
        timeout = self._strategy.CalcRemainingTimeout()
        how = "blocking" if timeout is None else f"timeout={timeout:.6f}s"
        self._ReportLocks(FormatLocks(level, names, shared, f"waiting/{how}"))
        try:
            acquired = self.context.glm.acquire(
                level, names, timeout=timeout, shared=int(shared), priority=self._priority
            )
        except errors.LockError as err:
            raise errors.OpPrereqError(
                f"The {locking.LEVEL_NAMES[level]} was removed while the job waited for it: {err}",
                errors.ECODE_NOENT,
            ) from err
        self._ReportLocks(
            FormatLocks(level, names, shared, "timeout" if acquired is None else "acquired")
        )
        if acquired is None:
            raise LockAcquireTimeout
        return acquired

    def _ReportLocks(self, text: str) -> None:
        logging.debug("Locks: %s", text)
        self._cbs.ReportLocks(text)

    def _LockAndExecLU(self, lu: base.LogicalUnit, level: int) -> Any:
        """Acquire the locks of this and all later levels, then run the unit."""
        if level not in locking.LEVELS:
            self._cbs.CheckCancel()
            self._cbs.NotifyStart()
            return self._ExecLU(lu)
        assert lu.needed_locks is not None
        acquiring = level in lu.needed_locks
        adding = level in lu.add_locks
        if acquiring and adding:
            raise NotImplementedError(
                f"{lu.__class__.__name__} both acquires and adds locks of the level"
                f" {locking.LEVEL_NAMES[level]}"
            )
        if not (acquiring or adding):
            return self._LockAndExecLU(lu, level + 1)
        lu.DeclareLocks(level)
        shared = lu.share_locks[level]
        glm = self.context.glm
        try:
            if acquiring:
                lu.acquired_locks[level] = self._Acquire(level, lu.needed_locks[level], shared)
            else:
                self._AddLocks(lu, level, shared)
            try:
                return self._LockAndExecLU(lu, level + 1)
            finally:
                # Only once they were got: else the names belong to somebody else.
                if level in lu.remove_locks:
                    glm.remove(level, lu.remove_locks[level])
        finally:
            if glm.is_owned(level):
                glm.release(level)

    def _AddLocks(self, lu: base.LogicalUnit, level: int, shared: int | bool) -> None:
        names = lu.add_locks[level]
        try:
            added = self.context.glm.add(level, names, acquired=1, shared=int(shared))
        except errors.LockError as err:
            raise errors.OpPrereqError(
                f"Can not create {locking.LEVEL_NAMES[level]} {', '.join(sorted(_NameSet(names)))}:"
                f" another job just did: {err}",
                errors.ECODE_FAULT,
            ) from err
        if not added:
            # Somebody who wants the job to end had the wait end.
            raise LockAcquireTimeout
        lu.remove_locks[level] = names
        lu.acquired_locks[level] = _NameSet(names)

    # The unit

    def _ExecLU(self, lu: base.LogicalUnit) -> Any:
        """Check, run hooks, do the work; all locks are held."""
        cfg = self.context.cfg
        writes = cfg.write_count
        lu.CheckPrereq()
        hooks = self._hooks_class(self.context.rpc.call_hooks_runner, lu)
        results = hooks.RunPhase(constants.HOOKS_PHASE_PRE)
        lu.HooksCallBack(constants.HOOKS_PHASE_PRE, results, self._Feedback, None)
        if lu.op.dry_run:
            self._ReportDryRun(lu, hooks, results)
            return lu.dry_run_result
        try:
            result = self._ProcessResult(lu.Exec(self._Feedback))
            results = hooks.RunPhase(constants.HOOKS_PHASE_POST)
            result = lu.HooksCallBack(constants.HOOKS_PHASE_POST, results, self._Feedback, result)
        finally:
            if cfg.write_count != writes:
                hooks.RunConfigUpdate()
        if not lu.op.OP_RESULT(result):
            logging.error(
                "%s returned %r, which is not as declared: %s",
                lu.__class__.__name__,
                result,
                lu.op.OP_RESULT,
            )
        return result

    def _ReportDryRun(
        self, lu: base.LogicalUnit, hooks: hooksmaster.HooksMaster, pre_results: Any
    ) -> None:
        """Say what a unit, all of whose checks passed, would do."""
        from .cmdlib import dryrun

        self.LogInfo("dry-run mode requested, not actually executing the operation")
        for line in dryrun.FormatReport(lu, hooks, pre_results):
            self._Feedback(line)

    def _ProcessResult(self, result: Any) -> Any:
        """Submit the jobs that a unit returned."""
        from .cmdlib import base

        if not isinstance(result, base.ResultWithJobs):
            return result
        return {**result.other, "jobs": self._cbs.SubmitManyJobs(result.jobs)}

    # Messages

    def _Feedback(self, *args: Any) -> None:
        self._cbs.Feedback(*args)

    def LogStep(self, current: int, total: int, message: str) -> None:
        """Say which step of how many begins."""
        logging.debug("Step %d/%d %s", current, total, message)
        self._Feedback(f"STEP {current}/{total} {message}")

    def LogWarning(self, message: str, *args: Any, hint: str | None = None) -> None:
        """Warn; see C{base.LogicalUnit.LogWarning}."""
        text = message % args if args else message
        if text:
            logging.warning("%s", text)
            self._Feedback(f" - WARNING: {text}")
        if hint:
            self._Feedback(f"      Hint: {hint}")

    def LogInfo(self, message: str, *args: Any) -> None:
        """Inform; see C{base.LogicalUnit.LogInfo}."""
        text = message % args if args else message
        logging.info("%s", text)
        self._Feedback(f" - INFO: {text}")

    def ReportStep(self, text: str | None) -> None:
        """Say what takes long now, for those who ask about the job; None = it is over."""
        logging.debug("Now %s", text or "back at work")
        self._cbs.ReportStep(text)

    def CheckCancel(self) -> None:
        """Raise L{CancelJob} if the job shall be cancelled."""
        self._cbs.CheckCancel()

    def GetECId(self) -> str:
        """Who reservations in the configuration belong to.

        @raise errors.ProgrammerError: a query must not reserve anything
        """
        if self._ec_id is None:
            raise errors.ProgrammerError("Tried to use the execution context id of a query")
        return self._ec_id


def _NameSet(names: str | Iterable[str]) -> set[str]:
    return {names} if isinstance(names, str) else set(names)


def EncodeFailure(err: BaseException) -> Any:
    """What a job shows as the result of an opcode that raised.

    Errors of the suite keep class and arguments; anything else is a mistake in it, shown as text
    (its traceback is in the daemon's log).
    """
    if isinstance(err, errors.GenericError):
        return errors.EncodeException(err)
    logging.error("Opcode failed: %s", "".join(traceback.format_exception(err)))
    return f"{err.__class__.__name__}: {err}" if str(err) else err.__class__.__name__

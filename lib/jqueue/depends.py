"""Jobs that wait for jobs: the decisions. No I/O, no locks.

An opcode may name jobs that must have ended before it starts, and how. Semantics of Ganeti 2.5:
the list of final states may be empty (any will do); a negative number in place of a job's id counts
backwards in the batch that is submitted; if the other job was cancelled, and that does not do, this
one is cancelled as well; any other wrong end is an error.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

from .. import constants, errors, jstore, opcodes


class Verdict(enum.Enum):
    """What a job that depends on others has to do."""

    CONTINUE = "continue"
    WAIT = "wait"
    CANCEL = "cancel"
    FAIL = "fail"


def ResolveRelative(op: opcodes.OpCode, job_id: int, batch: Sequence[int]) -> None:
    """Give the opcode absolute ids in C{depends}, and refuse what can not be waited for.

    @param job_id: id of its own job
    @param batch: ids of the jobs submitted before it in the same batch, in order
    @raise errors.OpPrereqError: a job depends on itself, a later one or one outside of the batch
    """
    if not op.depends:
        return
    resolved = []
    for dep_id, states in op.depends:
        number = jstore.ParseJobId(dep_id)
        if number is None:
            back = -int(dep_id)
            if back > len(batch):
                raise errors.OpPrereqError(
                    f"'depends' of {op.OP_ID} counts {back} jobs back, but only {len(batch)} were"
                    " submitted before it in this batch",
                    errors.ECODE_INVAL,
                )
            number = batch[-back]
        if number >= job_id:
            raise errors.OpPrereqError(
                f"'depends' of {op.OP_ID} names job {number}, which is not older than job {job_id}",
                errors.ECODE_INVAL,
            )
        resolved.append([number, list(states)])
    op.depends = resolved


def Judge(
    depends: Sequence[Any] | None, get_status: Callable[[int], str | None]
) -> tuple[Verdict, int, str]:
    """May an opcode that depends on these jobs go on?

    @param get_status: status of a job; None if it does not exist
    @return: verdict, the job that it is about (0 if none), and why, for people
    """
    for dep_id, states in depends or ():
        number = jstore.ParseJobId(dep_id)
        status = None if number is None else get_status(number)
        if number is None or status is None:
            return Verdict.FAIL, 0, f"Job {dep_id}, on which this one depends, does not exist"
        if status not in constants.JOBS_FINALIZED:
            return Verdict.WAIT, number, f"waiting for job {number}, which is {status}"
        if not states or status in states:
            continue
        text = f"Job {number}, on which this one depends, ended as {status}, not as "
        text += " or ".join(states)
        if status == constants.JOB_STATUS_CANCELED:
            return Verdict.CANCEL, number, text
        return Verdict.FAIL, number, text
    return Verdict.CONTINUE, 0, ""

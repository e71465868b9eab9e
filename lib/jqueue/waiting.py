"""Why a job has not started, and who would have to let go; what a running one is at."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from .. import constants
from .job import QueuedJob

if TYPE_CHECKING:
    from .. import locking

#: Who holds or waits for a lock, if a job does: its id, and its opcode.
_LABEL_RE: Final = re.compile(r"Job ([0-9]+)/(.*)", re.DOTALL)
#: What a job waited for in its last attempt to get locks.
_STATUS_RE: Final = re.compile(r"\w+/(?:[^/]+/)?([a-z]+)/(.+)/(shared|exclusive)")


def GetLabel(job: QueuedJob, opcode: str) -> str:
    """How a job is called as the owner of locks while it executes an opcode."""
    return f"Job {job.id}/{opcode}"


def _HeldSince(label: str, jobs: Mapping[int, QueuedJob]) -> float | None:
    """When the opcode that holds a lock had all its locks; None if it is not known."""
    match = _LABEL_RE.fullmatch(label)
    job = jobs.get(int(match.group(1))) if match else None
    op = job.GetCurrentOp() if job is not None else None
    if op is None or op.exec_timestamp is None:
        return None
    seconds, microseconds = op.exec_timestamp
    return float(seconds + microseconds / 1e6)


def _DescribeLock(
    info: locking.LockInfo,
    mode: str,
    since: float | None,
    ahead: list[str],
    jobs: Mapping[int, QueuedJob],
) -> dict[str, Any]:
    holders = list(info["owners"])
    return {
        "name": info["name"],
        "mode": mode,
        "held": info["mode"],
        "holders": holders,
        "held_since": [_HeldSince(label, jobs) for label in holders],
        "ahead": ahead,
        "since": since,
    }


def _FindPending(
    job: QueuedJob, lock_info: list[locking.LockInfo], jobs: Mapping[int, QueuedJob]
) -> list[dict[str, Any]]:
    """The locks that the job waits for at this moment."""
    label = GetLabel(job, "")
    locks = []
    for info in lock_info:
        ahead: list[str] = []
        for mode, waiters, since in info["pending"]:
            if any(waiter.startswith(label) for waiter in waiters):
                locks.append(_DescribeLock(info, mode, since, ahead, jobs))
                break
            ahead = [*ahead, *waiters]
    return locks


def _FindMissed(
    status: str, lock_info: list[locking.LockInfo], jobs: Mapping[int, QueuedJob]
) -> list[dict[str, Any]]:
    """The locks that were in the way in the last attempt, and still are: between two attempts a
    job waits in the queue.
    """
    match = _STATUS_RE.fullmatch(status)
    if match is None:
        return []
    level, names, mode = match.groups()
    wanted = {f"{level}/{name}" for name in names.split(",")}
    return [
        _DescribeLock(
            info, mode, None, [who for _, labels, _ in info["pending"] for who in labels], jobs
        )
        for info in lock_info
        if info["name"] in wanted and info["mode"] is not None
    ]


def DescribeWait(
    job: QueuedJob,
    lock_info: list[locking.LockInfo],
    jobs: Mapping[int, QueuedJob],
) -> dict[str, Any] | None:
    """Why a job waits; the mutex of the queue is held.

    @param lock_info: from the lock manager
    @param jobs: those of the queue, by id: what their opcodes have held since when
    @return: C{text}, the lock status; C{locks}: for each lock that it waits for its name, mode and
        holders, since when these have it, who else is ahead, and since when it waits (seconds since
        the epoch; None = between two attempts); None if it does not wait, and does nothing that it
        reports (hooks)
    """
    step = job.lock_status
    status = job.CalcStatus()
    if status == constants.JOB_STATUS_RUNNING and step is not None:
        return {"text": step, "locks": []}
    if status not in (constants.JOB_STATUS_QUEUED, constants.JOB_STATUS_WAITLOCK):
        return None
    locks = _FindPending(job, lock_info, jobs) or _FindMissed(step or "", lock_info, jobs)
    return {"text": step or "waiting for a free worker", "locks": locks}

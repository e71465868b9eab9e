"""The files of the job queue: names, numbers, opening, drain flag.

Who writes job files is L{jqueue <ganeti.jqueue>} on the master and the node daemon on candidates;
both find the places here.

Layout of the queue directory (mode 0700): C{job-<id>} for each job that is not archived,
C{archive/<id // 10000>/job-<id>} for the others, C{serial} (the last id given out), C{version},
C{lock} (flock target), C{drain} (its existence means: refuse new jobs) and C{journal/<number>}:
changes that are durable already, but perhaps not in the files yet. Who opens the queue puts them
there first. Files of other names are left alone.

L{journal} is about those, L{files} about changing files by way of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import Final

from .. import constants, errors, pathutils, runtime
from ..utils import filelock, io
from . import journal

_JOB_PREFIX: Final = "job-"
#: No cluster will ever have more jobs; and Python takes no number of any length for one.
_NUMBER: Final = "[0-9]{1,18}"
_NUMBER_RE: Final = re.compile(_NUMBER)
_JOB_FILE_RE: Final = re.compile(f"{_JOB_PREFIX}({_NUMBER})")
#: Longest text that is read as a number, in bytes.
_MAX_NUMBER_SIZE: Final = 128
_DIR_MODE: Final = 0o700


# Names


def FormatJobId(job_id: int | str) -> str:
    """Decimal form of a job id.

    @raise errors.ProgrammerError: negative or no number
    """
    number = ParseJobId(job_id)
    if number is None:
        raise errors.ProgrammerError(f"Job id {job_id!r} is not a non-negative integer")
    return str(number)


def ParseJobId(job_id: object) -> int | None:
    """Number of a job, from an integer or its decimal form; None if it is neither."""
    if isinstance(job_id, str):
        return int(job_id) if _NUMBER_RE.fullmatch(job_id) else None
    if isinstance(job_id, int) and not isinstance(job_id, bool) and job_id >= 0:
        return job_id
    return None


def GetJobPath(job_id: int) -> str:
    """File of a job that is not archived."""
    return os.path.join(pathutils.QUEUE_DIR, f"{_JOB_PREFIX}{job_id}")


def GetArchivedJobPath(job_id: int) -> str:
    """File of an archived job."""
    return os.path.join(
        pathutils.JOB_QUEUE_ARCHIVE_DIR,
        str(job_id // constants.JOBS_PER_ARCHIVE_DIRECTORY),
        f"{_JOB_PREFIX}{job_id}",
    )


def ParseJobFileName(name: str) -> int | None:
    """Number of the job whose file has this name (without directory); None for other files."""
    match = _JOB_FILE_RE.fullmatch(name)
    return int(match.group(1)) if match else None


def _JobIds(names: Iterable[str]) -> list[int]:
    found = [ParseJobFileName(name) for name in names]
    return sorted(job_id for job_id in found if job_id is not None)


def ListJobIds(rt: runtime.Runtime = runtime.DEFAULT) -> list[int]:
    """Numbers of all jobs that are not archived, ascending."""
    return _JobIds(rt.files.listdir(pathutils.QUEUE_DIR))


def FindLastArchivedJobId(rt: runtime.Runtime = runtime.DEFAULT) -> int | None:
    """The highest number among the archived jobs; None if there are none."""
    return max(ListArchivedJobIds(1, rt), default=None)


def ListArchivedJobIds(directories: int, rt: runtime.Runtime = runtime.DEFAULT) -> list[int]:
    """Numbers of archived jobs, ascending: those in the newest directories that have any.

    @param directories: how many to look at
    """
    try:
        names = rt.files.listdir(pathutils.JOB_QUEUE_ARCHIVE_DIR)
    except FileNotFoundError:
        return []
    found: list[int] = []
    for number in sorted((int(name) for name in names if _NUMBER_RE.fullmatch(name)), reverse=True):
        path = os.path.join(pathutils.JOB_QUEUE_ARCHIVE_DIR, str(number))
        try:
            ids = _JobIds(rt.files.listdir(path))
        except (FileNotFoundError, NotADirectoryError):
            # None of ours.
            continue
        found = ids + found
        directories -= bool(ids)
        if directories == 0:
            break
    return found


# Numbers


def ReadNumericFile(path: str, rt: runtime.Runtime = runtime.DEFAULT) -> int | None:
    """The number in a file; None if there is no file, or an empty one.

    Empty is what a power failure may have left of a file that was not synced.

    @raise ValueError: there is something else in it, naming the file
    """
    try:
        data = rt.files.read(path)
    except FileNotFoundError:
        return None
    if not data:
        return None
    text = data[:_MAX_NUMBER_SIZE].decode("ascii", "replace").strip()
    if len(data) > _MAX_NUMBER_SIZE or not _NUMBER_RE.fullmatch(text):
        raise ValueError(f"File {path} must hold a decimal number, not {data[:_MAX_NUMBER_SIZE]!r}")
    return int(text)


def FormatNumber(number: int) -> bytes:
    """What a numeric file holds."""
    return b"%d\n" % number


def ReadSerial(rt: runtime.Runtime = runtime.DEFAULT) -> int | None:
    """The last job id given out, as stored; None if the file is missing."""
    return ReadNumericFile(pathutils.JOB_QUEUE_SERIAL_FILE, rt)


def ReadVersion(rt: runtime.Runtime = runtime.DEFAULT) -> int | None:
    """Version of the queue's format; None if the file is missing."""
    return ReadNumericFile(pathutils.JOB_QUEUE_VERSION_FILE, rt)


# Opening


def OpenQueueLock() -> filelock.FileLock:
    """Make the directories of the queue, enforce their modes and open its lock file, unlocked."""
    directories = [
        pathutils.QUEUE_DIR,
        pathutils.JOB_QUEUE_ARCHIVE_DIR,
        pathutils.JOB_QUEUE_JOURNAL_DIR,
    ]
    io.EnsureDirs([(path, _DIR_MODE) for path in directories])
    return filelock.FileLock.Open(pathutils.JOB_QUEUE_LOCK_FILE)


def InitAndVerifyQueue(
    must_lock: bool,
    rt: runtime.Runtime = runtime.DEFAULT,
    open_lock: Callable[[], filelock.FileLock] = OpenQueueLock,
) -> filelock.FileLock:
    """Open the queue, make its files where they are missing, and finish what its journal says.

    @param must_lock: the master daemon: wait for the lock as long as it takes and keep it. Else
        (the node daemon) the files are checked only if nobody has the lock: who has it did that
    @param open_lock: makes the directories and opens the lock file
    @return: the open lock file; locked only if C{must_lock}
    @raise errors.JobQueueError: the queue is of another version
    @raise ValueError: a numeric file holds something else
    """
    lock = open_lock()
    try:
        try:
            lock.Exclusive(blocking=must_lock)
        except BlockingIOError:
            return lock
        _VerifyFiles(rt)
        journal.Recover(rt)
        if not must_lock:
            lock.Unlock()
    except BaseException:
        lock.Close()
        raise
    return lock


def _VerifyFiles(rt: runtime.Runtime) -> None:
    version = ReadVersion(rt)
    if version is None:
        rt.files.write(pathutils.JOB_QUEUE_VERSION_FILE, FormatNumber(constants.JOB_QUEUE_VERSION))
    elif version != constants.JOB_QUEUE_VERSION:
        raise errors.JobQueueError(
            f"The job queue in {pathutils.QUEUE_DIR} has version {version}, this release knows"
            f" version {constants.JOB_QUEUE_VERSION}"
        )
    if ReadSerial(rt) is None:
        rt.files.write(pathutils.JOB_QUEUE_SERIAL_FILE, FormatNumber(0))


# Drain flag


def IsQueueDrained(rt: runtime.Runtime = runtime.DEFAULT) -> bool:
    """Does the queue refuse new jobs?"""
    return rt.files.exists(pathutils.JOB_QUEUE_DRAIN_FILE)


def SetDrainFlag(drain: bool, rt: runtime.Runtime = runtime.DEFAULT) -> None:
    """Refuse new jobs from now on, or take them again; survives a restart of the daemon."""
    if drain:
        rt.files.write(pathutils.JOB_QUEUE_DRAIN_FILE, b"")
    else:
        rt.files.remove(pathutils.JOB_QUEUE_DRAIN_FILE)
        rt.files.sync(pathutils.QUEUE_DIR)

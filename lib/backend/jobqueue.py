"""Copies of the job queue on this node, which is a master candidate.

Each call opens the queue's lock file anew and holds it exclusively while it works, so that, on the
master, everybody but the master daemon is shut out. Calls of this process first agree among
themselves: one that has to wait for another goes on at once when it is its turn, while a lock on a
file is looked at only ten times a second.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from .. import errors, jstore, pathutils, rpc, runtime
from ..jstore import files, journal
from ..utils import io
from .base import Fail
from .cleaning import CleanDirectory

#: Seconds to wait for the lock of the queue.
LOCK_TIMEOUT: Final = 10.0
#: What no file can take the place of.
_DIRECTORIES: Final = frozenset(
    [
        pathutils.QUEUE_DIR,
        pathutils.JOB_QUEUE_ARCHIVE_DIR,
        pathutils.JOB_QUEUE_JOURNAL_DIR,
    ]
)
#: Held by the call of this process that has, or waits for, the lock file.
_OUR_TURN: Final = runtime.DEFAULT.threads.Lock()


def IsQueueFile(path: str, queue_dir: str = pathutils.QUEUE_DIR) -> bool:
    """Does the path lie in the queue directory, whatever C{..} and links say?

    Its journal is nobody's to write but our own.
    """
    return (
        "\0" not in path
        and io.IsNormAbsPath(path)
        and path not in _DIRECTORIES
        and os.path.commonpath([path, queue_dir]) == queue_dir
        and _IsQueueDirectory(os.path.dirname(path), queue_dir)
    )


def _IsQueueDirectory(path: str, queue_dir: str) -> bool:
    root = os.path.realpath(queue_dir)
    journal_dir = os.path.join(root, os.path.basename(pathutils.JOB_QUEUE_JOURNAL_DIR))
    real = os.path.realpath(path)
    return (
        os.path.commonpath([real, root]) == root
        and os.path.commonpath([real, journal_dir]) != journal_dir
    )


def _CheckQueueFiles(paths: Iterable[str]) -> None:
    """Refuse paths that lie elsewhere; links are looked at once for each directory."""
    good: set[str] = set()
    for path in paths:
        directory = os.path.dirname(path)
        plain = "\0" not in path and io.IsNormAbsPath(path) and path not in _DIRECTORIES
        if not (plain and directory in good):
            if not IsQueueFile(path):
                Fail(f"File {path!r} is not in the queue directory {pathutils.QUEUE_DIR}")
            good.add(directory)


def InitQueue() -> None:
    """Make what is missing of the queue.

    @raise errors.JobQueueError: it is of another version
    @raise ValueError: a file of it holds something else than it must
    @raise OSError: the file system refuses
    """
    jstore.InitAndVerifyQueue(must_lock=False).Close()


@functools.cache
def _GetFiles() -> files.QueueFiles:
    return files.QueueFiles(turn=lambda: _QueueLock(LOCK_TIMEOUT))


def FinishQueue() -> None:
    """The daemon ends: bring the files up to date, unless the queue is somebody else's by now."""
    _GetFiles().Shutdown()
    _GetFiles.cache_clear()


@contextlib.contextmanager
def _QueueLock(timeout: float) -> Iterator[None]:
    try:
        lock = jstore.OpenQueueLock()
    except (OSError, errors.GenericError) as err:
        raise errors.JobQueueError(
            f"Job queue failed initialization, cannot update jobs: {err}"
        ) from err
    if not _OUR_TURN.acquire(timeout=timeout):
        lock.Close()
        raise errors.LockError(
            f"Failed to lock {lock.filename} within {timeout:g} s: another call has it"
        )
    try:
        # Closed, and so given up, before it is the next one's turn
        with lock:
            lock.Exclusive(blocking=True, timeout=timeout)
            yield
    finally:
        _OUR_TURN.release()


def JobQueueUpdate(path: str, encoded: Sequence[Any]) -> None:
    """Write a file of the queue; it is durable when this returns.

    @param encoded: see L{rpc.EncodeData}
    @raise errors.LockError: another process keeps the queue for too long
    @raise RPCFail: the path lies elsewhere, or the content is not encoded as it must be
    """
    JobQueueUpdateMany([(path, encoded)])


def JobQueueUpdateMany(files: Sequence[tuple[str, Sequence[Any]]]) -> None:
    """As L{JobQueueUpdate}, for files that are written all or none.

    @param files: pairs of path and encoded content
    """
    _CheckQueueFiles(path for path, _ in files)
    changes = [journal.Update(path, _Decode(encoded)) for path, encoded in files]
    with _QueueLock(LOCK_TIMEOUT):
        _GetFiles().Change(changes)


def _Decode(encoded: Sequence[Any]) -> bytes:
    try:
        return rpc.DecodeData(encoded)
    except ValueError as err:
        Fail(str(err))


def JobQueueRename(renames: Sequence[Sequence[str]]) -> list[None]:
    """Rename files of the queue, making the directories of their new names.

    What was renamed already, or never came here, is fine: so an error means that asking again may
    help, and one missing file does not keep the others from being renamed.

    @raise errors.LockError: another process keeps the queue for too long
    @raise RPCFail: a path lies elsewhere, or a file can't be renamed
    """
    _CheckQueueFiles(path for pair in renames for path in pair)
    with _QueueLock(LOCK_TIMEOUT):
        failed = _GetFiles().Change([journal.Rename(old, new) for old, new in renames])
    if failed:
        Fail("; ".join(failed.values()))
    return [None] * len(renames)


def JobQueuePurge() -> None:
    """Remove all files of the queue, also archived ones, but for its lock.

    @raise errors.LockError: another process keeps the queue for too long
    """
    if not os.path.isdir(pathutils.QUEUE_DIR):
        return

    def _Remove() -> None:
        CleanDirectory(pathutils.QUEUE_DIR, exclude=[pathutils.JOB_QUEUE_LOCK_FILE])
        CleanDirectory(pathutils.JOB_QUEUE_ARCHIVE_DIR)

    with _QueueLock(LOCK_TIMEOUT):
        _GetFiles().Clear(_Remove)


def JobQueueSetDrainFlag(flag: bool, rt: runtime.Runtime = runtime.DEFAULT) -> None:
    """Mark the queue as drained, or not."""
    logging.debug("Setting the drain flag of the job queue to %s", flag)
    jstore.SetDrainFlag(flag, rt)

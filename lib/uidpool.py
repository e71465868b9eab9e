"""User-ids that are reserved for running processes, each used by one process at a time on a node.

The pool is a list of (low, high) pairs, bounds included, a single id being (n, n); it is a
parameter of the cluster and reaches every node as text through ssconf. A node picks an id with
L{RequestUnusedUid}, starts its process, gives the lock up with L{LockedUid.Unlock} (from now on the
process itself shows that the id is in use), and calls L{ReleaseUid} when the process has ended;
L{ExecWithUnusedUid} does all of that around a function. Nobody else may start processes under ids
of the pool, else the promise is worth nothing.

Design: User-id pool. The lock file of an id is a hint: its absence does not mean that the id is
free, and a left-over one does not mean that it is taken. Only lock plus a look at the processes
decides.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from . import constants, errors, pathutils, runtime
from .utils import text

UidRange = tuple[int, int]

_T = TypeVar("_T")

#: Ids below belong to the system on the usual distributions; worth a warning, not an error.
_FIRST_USER_UID: Final = 1000
_NUMBER: Final = re.compile(r"\s*[0-9]+\s*")
#: Ids that no process of ours can have to itself.
_IMPOSSIBLE_UIDS: Final = {
    0: "it is root's, who always runs something",
    2**32 - 1: "the kernel takes it for 'no change'",
}


# The pool as a value


def ParseUidPool(value: str, separator: str = ",") -> list[UidRange]:
    """Turn text into a pool.

    @param value: ids and C{low-high} ranges; empty elements are skipped
    @param separator: comma on the command line, newline in ssconf
    @return: sorted pairs, as written: nothing is merged
    @raise errors.OpPrereqError: something is no number, lacks a boundary or has several dashes;
        names the element
    """
    elements = value.split(separator)
    return sorted(_ParseRange(element) for element in elements if element.strip())


def _ParseRange(element: str) -> UidRange:
    bounds = element.split("-")
    if len(bounds) > 2:
        raise _Invalid(f"User-id range {element!r} has more than one dash; write low-high")
    for bound, which in ((bounds[0], "lower"), (bounds[-1], "higher")):
        if not bound.strip():
            raise _Invalid(
                f"User-id range {element!r} lacks its {which} boundary; write low-high"
                " (ids are never negative)"
            )
        # Not all that int() takes: 1_000 or digits of other scripts are hardly meant.
        if not _NUMBER.fullmatch(bound):
            raise _Invalid(f"User-id {bound!r} in {element!r} is not a number")
    return int(bounds[0]), int(bounds[-1])


def _Invalid(message: str) -> errors.OpPrereqError:
    return errors.OpPrereqError(message, errors.ECODE_INVAL)


def FormatUidPool(pool: Iterable[Sequence[int]], separator: str = ", ", roman: bool = False) -> str:
    """Turn a pool into text; with the default separator L{ParseUidPool} reads it again.

    @param roman: for display only: numbers are written as Roman numerals
    """
    return separator.join(
        "-".join(str(text.TryToRoman(bound, convert=roman)) for bound in dict.fromkeys(pair))
        for pair in pool
    )


def CheckUidPool(pool: Iterable[Sequence[int]]) -> None:
    """Refuse ranges that can not be.

    @raise errors.OpPrereqError: a range is turned round or outside of the possible ids, or two
        overlap; names them
    """
    ranges = [(low, high) for low, high in pool]
    for low, high in ranges:
        shown = FormatUidPool([(low, high)])
        if low > high:
            raise _Invalid(
                f"User-id range {shown}: the lower boundary {low} is above the higher one {high}"
            )
        if low < constants.UIDPOOL_UID_MIN:
            raise _Invalid(
                f"User-id range {shown}: {low} is below the minimum {constants.UIDPOOL_UID_MIN}"
            )
        if high > constants.UIDPOOL_UID_MAX:
            raise _Invalid(
                f"User-id range {shown}: {high} is above the maximum {constants.UIDPOOL_UID_MAX}"
            )
        for uid, reason in _IMPOSSIBLE_UIDS.items():
            if low <= uid <= high:
                raise _Invalid(f"User-id range {shown} must not have the id {uid}: {reason}")
    CheckUidOverlap(ranges)


def CheckUidOverlap(pool: Iterable[Sequence[int]]) -> None:
    """Refuse ranges that share ids; the very same range twice is only once too often.

    @raise errors.OpPrereqError: names the two
    """
    ranges = sorted({(low, high) for low, high in pool})
    for before, after in zip(ranges, ranges[1:], strict=False):
        if after[0] <= before[1]:
            one, other = FormatUidPool([before]), FormatUidPool([after])
            raise _Invalid(f"The user-id ranges {one} and {other} overlap")


def DescribeUidPoolRisks(pool: Iterable[Sequence[int]]) -> list[str]:
    """What is allowed in a pool but hardly meant: ids of the system.

    @return: sentences to show as warnings
    """
    return [
        f"User-id range {FormatUidPool([item])} has ids below {_FIRST_USER_UID}, which usually"
        " belong to the system"
        for item in sorted((low, high) for low, high in pool)
        if item[0] < _FIRST_USER_UID
    ]


def AddToUidPool(pool: list[UidRange], add: Iterable[Sequence[int]]) -> None:
    """Add ranges to a pool, in place; those that are in it literally are left out."""
    pool[:] = [(low, high) for low, high in pool]
    for low, high in add:
        if (low, high) not in pool:
            pool.append((low, high))
    pool.sort()


def RemoveFromUidPool(pool: list[UidRange], remove: Iterable[Sequence[int]]) -> None:
    """Remove ranges from a pool, in place; all of them or, on an error, none.

    @raise errors.OpPrereqError: a range is not literally in the pool
    """
    remaining = [(low, high) for low, high in pool]
    for low, high in remove:
        if (low, high) not in remaining:
            raise errors.OpPrereqError(
                f"User-id range to be removed is not in the user-id pool:"
                f" {FormatUidPool([(low, high)])} (the pool has: {FormatUidPool(remaining)})",
                errors.ECODE_INVAL,
            )
        remaining.remove((low, high))
    pool[:] = remaining


def ExpandUidPool(pool: Iterable[Sequence[int]]) -> list[int]:
    """Every id of a pool, each once, in no order that matters."""
    return list({uid for low, high in pool for uid in range(low, high + 1)})


# Ids in use


class LockedUid:
    """An id with its lock held: nobody else gets it until L{Unlock} or the end of this process."""

    def __init__(self, uid: int, fd: int) -> None:
        self._uid = uid
        self._fd: int | None = fd

    def Unlock(self) -> None:
        """Give the lock up: the started process shows from now on that the id is in use."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    def GetUid(self) -> int:
        """The id."""
        return self._uid

    def AsStr(self) -> str:
        """The id as decimal text."""
        return str(self._uid)

    def __str__(self) -> str:
        return self.AsStr()

    def __repr__(self) -> str:
        return f"<LockedUid {self._uid} {'unlocked' if self._fd is None else 'locked'}>"


def _LockPath(uid: int) -> str:
    return os.path.join(pathutils.UIDPOOL_LOCKDIR, str(uid))


def _TryLock(uid: int) -> int | None:
    """Lock an id.

    @return: descriptor that holds the lock; None if somebody else has it
    """
    path = _LockPath(uid)
    while True:
        # Not inheritable (Python's default): a started process must not keep the lock.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever released the id in between has removed the file that we locked; the next one
            # would make a new file and lock that, and both would have "the" lock.
            if _IsSameFile(fd, path):
                return fd
        except OSError as err:
            os.close(fd)
            if err.errno in (errno.EAGAIN, errno.EACCES):
                return None
            raise
        os.close(fd)


def _IsSameFile(fd: int, path: str) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _UidsInUse() -> set[int]:
    """All user-ids (real, effective, saved, file system) of all processes of this node.

    @raise errors.LockError: that can not be told, so no id may be called unused
    """
    uids: set[int] = set()
    try:
        pids = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError as err:
        raise errors.LockError(f"Can't tell which user-ids are in use: {err}") from err
    for pid in pids:
        try:
            with open(f"/proc/{pid}/status", "rb") as fobj:
                status = fobj.read()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended in the meantime
        except OSError as err:
            raise errors.LockError(
                f"Can't tell which user-ids are in use: process {pid}: {err}"
            ) from err
        uids.update(_UidsOfStatus(status))
    return uids


def _UidsOfStatus(status: bytes) -> list[int]:
    """All four user-ids in C{/proc/<pid>/status}; none if the process is dead and only unburied."""
    fields = dict(line.partition(b":")[::2] for line in status.splitlines())
    # The first thread may have ended before the others.
    if fields.get(b"State", b"").split()[:1] == [b"Z"] and int(fields.get(b"Threads", 0)) <= 1:
        return []
    return [int(uid) for uid in fields.get(b"Uid", b"").split()]


def _TakenNames() -> set[int]:
    """Ids for which there is a lock file."""
    taken = set()
    for name in os.listdir(pathutils.UIDPOOL_LOCKDIR):
        try:
            taken.add(int(name))
        except ValueError:
            continue  # not ours
    return taken


def RequestUnusedUid(all_uids: Iterable[int], rt: runtime.Runtime = runtime.DEFAULT) -> LockedUid:
    """Pick an id that no process of this node runs with, at random, and lock it.

    @param all_uids: the expanded pool
    @return: the id; call its C{Unlock} once the process runs, L{ReleaseUid} if it did not start
    @raise errors.LockError: all ids are in use, or the lock directory can not be used
    """
    uids = set(all_uids)
    try:
        os.makedirs(pathutils.UIDPOOL_LOCKDIR, 0o755, exist_ok=True)
        taken = uids & _TakenNames()
    except OSError as err:
        raise errors.LockError(
            f"Can't use the lock directory of the user-id pool, {pathutils.UIDPOOL_LOCKDIR}: {err}"
        ) from err

    unused = list(uids - taken)
    rt.random.shuffle(unused)
    # Tried last, but tried: a lock file that was left behind must not block its id for ever.
    leftover = list(taken)
    rt.random.shuffle(leftover)
    if uids and not unused:
        logging.info("All ids of the user-id pool have a lock file; looking for left-over ones")

    for uid in (*unused, *leftover):
        try:
            fd = _TryLock(uid)
        except OSError as err:
            raise errors.LockError(f"Can't lock user-id {uid} ({_LockPath(uid)}): {err}") from err
        if fd is None:
            continue
        locked = LockedUid(uid, fd)
        try:
            # Only now: who had the lock before us may have started its process in between.
            in_use = uid in _UidsInUse()
        except BaseException:
            locked.Unlock()
            raise
        if not in_use:
            return locked
        logging.debug("User-id %d is used by a process, trying the next one", uid)
        locked.Unlock()

    raise errors.LockError(
        "No unused user-id left in the user-id pool"
        f" ({len(uids)} ids); add some with gnt-cluster modify --add-uids"
    )


def ReleaseUid(uid: LockedUid | int) -> None:
    """Give an id back to the pool; does not look whether a process still runs with it.

    @raise errors.LockError: its lock file can not be removed
    """
    number = uid.GetUid() if isinstance(uid, LockedUid) else uid
    path = _LockPath(number)
    try:
        if isinstance(uid, LockedUid) and uid._fd is not None:
            # Removed before it is unlocked: in between nobody can lock the file to be removed.
            _Unlink(path)
            return
        fd = _LockForRemoval(number)
        if fd is None:
            # Somebody has requested the id since; the file is theirs now.
            return
        try:
            _Unlink(path)
        finally:
            os.close(fd)
    except OSError as err:
        raise errors.LockError(f"Can't remove the lock file of user-id {number}: {err}") from err
    finally:
        if isinstance(uid, LockedUid):
            uid.Unlock()


def _LockForRemoval(uid: int) -> int | None:
    # A missing file is not created only to be removed.
    if not os.path.lexists(_LockPath(uid)):
        return None
    return _TryLock(uid)


def _Unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def ExecWithUnusedUid(
    fn: Callable[..., _T], all_uids: Iterable[int], *args: object, **kwargs: object
) -> _T:
    """Call a function that starts a process under an id of its own.

    @param fn: called with the arguments and C{uid=<number>}; must return once the process runs
    @param all_uids: the expanded pool
    @return: what C{fn} returns; if it raises, the id goes back to the pool
    @raise errors.LockError: no id is left
    """
    uid = RequestUnusedUid(all_uids)
    try:
        result = fn(*args, uid=uid.GetUid(), **kwargs)
    except BaseException:
        ReleaseUid(uid)
        raise
    uid.Unlock()
    return result

"""ganeti-cleaner: old logs of its own, and jobs that were archived long ago."""

from __future__ import annotations

import logging
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

from .. import constants, pathutils, runtime
from ..utils import io

PROGRAM: Final = "ganeti-cleaner"
#: Log files that are kept.
MAX_LOGS: Final = 50
#: Days that archived jobs are kept.
MAX_JOB_AGE: Final = 21

_DAY: Final = 24 * 3600
_LOG_PREFIX: Final = "cleaner-"
#: What can be cleaned by itself.
_PARTS: Final = ("node", "master")


def LogName(now: float, pid: int) -> str:
    """Name of the log of a run."""
    return f"{_LOG_PREFIX}{time.strftime('%Y-%m-%dT%H_%M', time.localtime(now))}.{pid}.log"


def FindOldLogs(names: Sequence[str]) -> list[str]:
    """Those of the cleaner's log files that are too many, the oldest."""
    logs = sorted(name for name in names if name.startswith(_LOG_PREFIX) and name.endswith(".log"))
    return logs[:-MAX_LOGS]


def IsOld(mtime: float, now: float) -> bool:
    """Was it modified more than L{MAX_JOB_AGE} whole days ago?"""
    return int((now - mtime) // _DAY) > MAX_JOB_AGE


def FindOldJobs(archive: str, now: float) -> Iterator[str]:
    """Paths of old files in the directories below the archive's own."""
    for directory, _, names in os.walk(archive):
        if directory == archive:
            continue
        for name in sorted(names):
            path = os.path.join(directory, name)
            try:
                info = os.lstat(path)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(info.st_mode) and IsOld(info.st_mtime, now):
                yield path


def _Remove(path: str) -> None:
    io.RemoveFile(path)
    logging.info("Removed %s", path)


def CleanNode() -> None:
    """What every node has: the logs of this program."""
    for name in FindOldLogs(os.listdir(pathutils.LOG_CLEANER_DIR)):
        _Remove(os.path.join(pathutils.LOG_CLEANER_DIR, name))


def CleanMaster(now: float) -> None:
    """What the master and master candidates of a cluster have: archived jobs.

    @param now: seconds since the epoch
    """
    master_file = f"{pathutils.DATA_DIR}/{pathutils.SSCONF_PREFIX}{constants.SS_MASTER_NODE}"
    if not os.path.exists(master_file) or not os.path.isdir(pathutils.JOB_QUEUE_ARCHIVE_DIR):
        return
    for path in FindOldJobs(pathutils.JOB_QUEUE_ARCHIVE_DIR, now):
        _Remove(path)


def Main(argv: Sequence[str] | None = None, rt: runtime.Runtime = runtime.DEFAULT) -> int:
    """The command; the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    usage = f"Usage: {PROGRAM} [{'|'.join(_PARTS)}]\n"
    if args in (["-h"], ["--help"]):
        sys.stdout.write(usage)
        return constants.EXIT_SUCCESS
    if args == ["--version"]:
        sys.stdout.write(f"{PROGRAM} (ganeti) {constants.RELEASE_VERSION}\n")
        return constants.EXIT_SUCCESS
    if len(args) > 1 or not set(args) <= set(_PARTS):
        sys.stderr.write(usage)
        return constants.EXIT_FAILURE
    parts = args or _PARTS
    now = rt.clock.time()
    try:
        io.Makedirs(pathutils.LOG_CLEANER_DIR, mode=0o750)
        path = os.path.join(pathutils.LOG_CLEANER_DIR, LogName(now, os.getpid()))
        logging.basicConfig(filename=path, level=logging.INFO, format="%(message)s", force=True)
    except OSError as err:
        sys.stderr.write(f"{PROGRAM}: can't write its log: {err}\n")
        return constants.EXIT_FAILURE
    logging.info("Cleaner started at %s", time.ctime(now))
    try:
        if "node" in parts:
            CleanNode()
        if "master" in parts:
            CleanMaster(now)
    except OSError as err:
        logging.error("Ended by an error: %s", err)
        return constants.EXIT_FAILURE
    return constants.EXIT_SUCCESS

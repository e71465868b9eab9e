"""The log of what was changed in the configuration: its records and its files.

Each write of the configuration has one record, a line: checksum, the version that the write made,
the version that it was made from, and the commits that shared it, each with who made it and what
was changed. A version is a serial number with the time of the write: the number alone is used again
after an old file was restored, or a crash came before the write was done.

Reading goes backwards along the versions, from one that is known. So records of writes that never
came about, or were given up with a restored file, are passed by, and missing ones are noticed: this
log is one node's own, and another node may have been the master in between.

The log has two files, the older of which goes when the newer is full. A line that is not whole, or
not what was written, is none; behind the last good line of a file the next one is written. Records
are written together with the configuration, see L{runtime.Files.write_logged}.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from .. import serializer
from ..objects.base import ConfigObject
from ..runtime import Runtime, Tail
from ..utils import checkedline
from . import claims, difference

#: Bytes that both files together may have, but for a single record that is larger.
SIZE_LIMIT: Final = 32 * 1024 * 1024
#: Bytes of records that could not be written and are kept for the next time.
_BACKLOG_LIMIT: Final = 1024 * 1024
#: What the name of the older file ends with.
OLDER_SUFFIX: Final = ".1"

_NO_TIME: Final = b"-"
_HEADER_FIELDS: Final = 5


class Version(NamedTuple):
    """One version of the configuration; mtime: seconds since the epoch, None if it has none."""

    serial_no: int
    mtime: float | None


class Origin(NamedTuple):
    """Who changes something: id of the job and its opcode, None for what no job does."""

    job_id: str | None = None
    opcode: str | None = None


NOBODY: Final = Origin()


@dataclass(frozen=True)
class ObjectChange:
    """One object before and after; None: there was, or is, none."""

    key: claims.Key
    before: ConfigObject | None
    after: ConfigObject | None


@dataclass(frozen=True)
class Commit:
    """What one transaction changed. The objects are the store's, and so are never modified."""

    origin: Origin
    changes: Sequence[ObjectChange] = ()


# Records

KIND: Final = "kind"
NAME: Final = "name"
EDITS: Final = "edits"
JOB: Final = "job"
OPCODE: Final = "op"
CHANGES: Final = "changes"


def _PlainChange(change: ObjectChange) -> dict[str, Any]:
    plain: dict[str, Any] = {KIND: change.key.kind, NAME: change.key.name}
    if change.before is not None and change.after is not None:
        plain[EDITS] = difference.Between(change.before, change.after)
    elif change.before is not None:
        plain[difference.OLD] = change.before.ToDict()
    elif change.after is not None:
        plain[difference.NEW] = change.after.ToDict()
    return plain


def _PlainCommit(commit: Commit) -> dict[str, Any]:
    plain: dict[str, Any] = {CHANGES: [_PlainChange(change) for change in commit.changes]}
    if commit.origin.job_id is not None:
        plain[JOB] = commit.origin.job_id
    if commit.origin.opcode is not None:
        plain[OPCODE] = commit.origin.opcode
    return plain


def _FormatVersion(version: Version) -> bytes:
    mtime = _NO_TIME if version.mtime is None else repr(version.mtime).encode("ascii")
    return b"%d %s" % (version.serial_no, mtime)


def FormatRecord(version: Version, base: Version, commits: Iterable[Commit]) -> bytes:
    """The line of a write.

    @param version: that it makes
    @param base: that it was made from
    """
    body = serializer.Dump([_PlainCommit(commit) for commit in commits]).encode("utf-8")
    content = b"%s %s %s" % (_FormatVersion(version), _FormatVersion(base), body.rstrip(b"\n"))
    return checkedline.Format(content)


class Record(NamedTuple):
    """A line of the log, its commits still as text."""

    version: Version
    base: Version
    body: bytes

    def GetCommits(self) -> list[dict[str, Any]]:
        """The commits in the order in which they were made, in the form of the file."""
        commits: list[dict[str, Any]] = serializer.Load(self.body)
        return commits


def _ParseTime(value: bytes) -> float | None:
    if value == _NO_TIME:
        return None
    return int(value) if value.isdigit() else float(value)


def ParseRecord(line: bytes) -> Record | None:
    """The record of a line without its newline; None if it is not one as it was written."""
    content = checkedline.Parse(line)
    if content is None:
        return None
    try:
        serial_no, mtime, base_serial, base_mtime, body = content.split(b" ", _HEADER_FIELDS - 1)
        return Record(
            Version(int(serial_no), _ParseTime(mtime)),
            Version(int(base_serial), _ParseTime(base_mtime)),
            body,
        )
    except ValueError:
        return None


def FindEnd(content: bytes) -> int:
    """Where the next record goes: behind the last good line."""
    end = content.rfind(b"\n") + 1
    while end > 0:
        start = content.rfind(b"\n", 0, end - 1) + 1
        if ParseRecord(content[start : end - 1]) is not None:
            return end
        end = start
    return 0


def IterBackwards(content: bytes) -> Iterator[Record]:
    """The good records of a file, the last one first."""
    end = content.rfind(b"\n")
    while end >= 0:
        start = content.rfind(b"\n", 0, end) + 1
        record = ParseRecord(content[start:end])
        if record is not None:
            yield record
        end = start - 1


# Reading


class Step(NamedTuple):
    """One step back in the history.

    @ivar wanted: the version that this record should have made; if the record made another one,
        the records in between are missing
    """

    record: Record
    wanted: Version

    @property
    def is_gap(self) -> bool:
        """Are records missing after this one?"""
        return self.record.version != self.wanted


def Walk(records: Iterable[Record], start: Version) -> Iterator[Step]:
    """From a version back to the oldest one that the log knows of.

    @param records: all records, the last one first
    """
    wanted = start
    for record in records:
        # Another version of the same number, or a later one, is none of the past of this one.
        if record.version == wanted or record.version.serial_no < wanted.serial_no:
            yield Step(record, wanted)
            wanted = record.base


# Files


class HistoryLog:
    """The log on disk.

    Written by one thread at a time, as runs of the group commit are; read by any at any time.

    @ivar problem: why the last record could not be written; None if it was
    """

    def __init__(self, path: str, runtime: Runtime, size_limit: int = SIZE_LIMIT) -> None:
        """@param size_limit: bytes that the two files together may have"""
        self.path = path
        self.problem: str | None = None
        self._files = runtime.files
        self._file_limit = size_limit // 2
        #: Where the next record goes; None = to be found out.
        self._end: int | None = None
        #: Records that could not be written.
        self._backlog = b""

    def WriteWith(self, path: str, content: bytes, mode: int, line: bytes) -> None:
        """Replace a file durably, and write a record so that it is durable when that is done.

        What is wrong with the record is said in C{problem}, and the record tried again the next
        time.

        Raises: OSError if the file can't be written; then the next record takes the place of this.
        """
        data = self._backlog + line
        problem: OSError | None
        try:
            # Noted before: what is written now is to be overwritten if the file fails.
            self._end = end = self._MakeRoom(len(data))
        except OSError as err:
            problem = err
            self._files.write(path, content, mode=mode)
        else:
            problem = self._files.write_logged(path, content, Tail(self.path, end, data), mode)
            self._end = end + len(data)
        if problem is None:
            self.problem = None
            self._backlog = b""
        else:
            self._NoteProblem(problem, data)

    def _NoteProblem(self, problem: OSError, data: bytes) -> None:
        self._end = None
        self._backlog = data if len(data) <= _BACKLOG_LIMIT else b""
        lost = "" if self._backlog else "; earlier changes are lost to it, the next is tried again"
        self.problem = (
            f"Can't write the configuration's history {self.path}: {problem}; the configuration"
            f" itself is written{lost}"
        )
        logging.error("%s", self.problem)

    def _MakeRoom(self, size: int) -> int:
        end = self._end
        if end is None:
            end = FindEnd(self._Read(self.path))
        if end > 0 and end + size > self._file_limit:
            self._end = None
            self._files.rename(self.path, self.path + OLDER_SUFFIX)
            end = 0
        return end

    def _Read(self, path: str) -> bytes:
        try:
            return self._files.read(path)
        except FileNotFoundError:
            return b""

    def IterRecords(self) -> Iterator[Record]:
        """All records, the last one first; some may come twice while the files change places.

        Raises: OSError
        """
        for path in (self.path, self.path + OLDER_SUFFIX):
            yield from IterBackwards(self._Read(path))

"""The journal of the job queue: changes that are on the disk, but not in the queue's files yet.

To make a file, sync it and put it in its place costs a disk far more than to append a line to one
that is open already, and the lines of many jobs need one sync together. So who changes the queue
appends here, and the files follow (L{files}).

A journal is a directory of numbered files; only the last one grows. Each line is one change:
checksum, and a JSON list: C{["update", path, content]} or C{["rename", old path, new path]}, paths
relative to the queue's directory. Done again, in order, the changes lead to the same files, however
many of them were in the files already. A line that is not whole ends its file: it was never
answered for.

C{["void", number, size]} says that only so many bytes of an earlier file count: a change that
could not be made was refused, and could not be taken back from the file either.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .. import errors, pathutils, runtime, serializer
from ..utils import checkedline

_NUMBER_RE: Final = re.compile("[0-9]{1,18}")
_UPDATE: Final = "update"
_RENAME: Final = "rename"
_VOID: Final = "void"
#: Files that are written together when a journal is done again.
_CHUNK: Final = 200


@dataclass(frozen=True)
class Update:
    """A file has this content now."""

    path: str
    data: bytes


@dataclass(frozen=True)
class Rename:
    """A file has another name now."""

    path: str
    new: str


Change = Update | Rename


@dataclass(frozen=True)
class _Void:
    """Of the journal's file of this number only the first bytes count."""

    number: int
    size: int


# Lines


def _Relative(path: str) -> str:
    return os.path.relpath(path, pathutils.QUEUE_DIR)


def _Absolute(path: str) -> str:
    return os.path.join(pathutils.QUEUE_DIR, path)


def FormatChange(change: Change | _Void) -> bytes:
    """The line of a change."""
    fields: list[str | int]
    if isinstance(change, Update):
        # Any bytes come back as they were.
        text = change.data.decode("utf-8", "surrogateescape")
        fields = [_UPDATE, _Relative(change.path), text]
    elif isinstance(change, Rename):
        fields = [_RENAME, _Relative(change.path), _Relative(change.new)]
    else:
        fields = [_VOID, change.number, change.size]
    return checkedline.Format(serializer.Dump(fields).rstrip("\n").encode("ascii"))


def ParseChange(line: bytes) -> Change | _Void | None:
    """The change of a line without its newline; None if it is not one as it was written.

    @raise errors.JobQueueError: it is one that only a newer release knows
    """
    content = checkedline.Parse(line)
    if content is None:
        return None
    kind, first, second = serializer.Load(content)
    if kind == _UPDATE:
        return Update(_Absolute(first), second.encode("utf-8", "surrogateescape"))
    if kind == _RENAME:
        return Rename(_Absolute(first), _Absolute(second))
    if kind == _VOID:
        return _Void(first, second)
    raise errors.JobQueueError(
        f"The journal in {pathutils.JOB_QUEUE_JOURNAL_DIR} has a change of the kind {kind!r}, which"
        " this release does not know; it was written by a newer one"
    )


@dataclass
class _Content:
    """What a file of the journal says.

    @ivar changes: with the place where each begins
    @ivar damaged: there is more behind a line that can not be read
    """

    changes: list[tuple[int, Change | _Void]]
    damaged: bool


def _ParseAll(data: bytes) -> _Content:
    result = _Content([], False)
    start = 0
    for line in data.split(b"\n"):
        change = ParseChange(line)
        if change is None:
            rest = data[start + len(line) + 1 :].split(b"\n")
            result.damaged = any(checkedline.Parse(later) is not None for later in rest)
            break
        result.changes.append((start, change))
        start += len(line) + 1
    return result


def GetDirectories(change: Rename) -> set[str]:
    """The directories to sync so that a renaming is durable."""
    directory = os.path.dirname(change.new)
    # The one above as well: this one may be new.
    return {os.path.dirname(change.path), directory, os.path.dirname(directory)}


# Files


def _ListNumbers(rt: runtime.Runtime) -> list[int]:
    try:
        names = rt.files.listdir(pathutils.JOB_QUEUE_JOURNAL_DIR)
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if _NUMBER_RE.fullmatch(name))


def _GetPath(number: int) -> str:
    return os.path.join(pathutils.JOB_QUEUE_JOURNAL_DIR, str(number))


def _Remove(numbers: Iterable[int], rt: runtime.Runtime) -> None:
    # The oldest first, and for certain: what a crash leaves must be the end of the story. Its
    # beginning alone would bring back what was changed later.
    for number in sorted(numbers):
        rt.files.remove(_GetPath(number))
        rt.files.sync(pathutils.JOB_QUEUE_JOURNAL_DIR)


class Journal:
    """Appends to the journal of a queue that is ours; one thread at a time."""

    def __init__(self, rt: runtime.Runtime = runtime.DEFAULT) -> None:
        self._rt = rt
        self._number = max(_ListNumbers(rt), default=0) + 1
        #: Bytes of the file that grows.
        self._end = 0
        #: How the disk has the file that grows; None = not known.
        self._stat: runtime.FileStat | None = None
        #: The same of the files that there are, but for the one that grows.
        self._closed: dict[int, runtime.FileStat | None] = {}
        #: The same of files that could not be made or removed, and may be there all the same.
        self._doubtful: dict[int, runtime.FileStat | None] = {}
        #: Files that may have more at their end than counts: number -> what does.
        self._void: dict[int, int] = {}

    @property
    def size(self) -> int:
        """Bytes of the file that grows."""
        return self._end

    @property
    def empty(self) -> bool:
        """Is there nothing to be dropped?"""
        return not self._end and not self._closed and not self._doubtful

    def Append(self, changes: Sequence[Change]) -> None:
        """Make changes durable.

        @raise OSError: none of them was made
        """
        voids = [_Void(*item) for item in self._void.items()]
        data = b"".join(map(FormatChange, [*voids, *changes]))
        try:
            self._rt.files.append(runtime.Tail(_GetPath(self._number), self._end, data))
        except OSError:
            self._TakeBack()
            raise
        self._end += len(data)
        self._void.clear()
        self._Remember()

    def _Stat(self, number: int) -> runtime.FileStat | None:
        try:
            return self._rt.files.stat(_GetPath(number))
        except FileNotFoundError:
            return None

    def _Remember(self) -> None:
        try:
            self._stat = self._Stat(self._number)
        except OSError:
            # It will not be recognized, and so all of it is done again.
            self._stat = None

    def _TakeBack(self) -> None:
        """Of what could not be written nothing shall be found later, and nothing comes behind."""
        try:
            self._rt.files.append(runtime.Tail(_GetPath(self._number), self._end, b""))
        except OSError as err:
            logging.error("The end of a journal of the job queue is not clear: %s", err)
            # Then the next line that can be written says so.
            self._void[self._number] = self._end
        self._Remember()
        if not self._end:
            self._doubtful[self._number] = self._stat
        self.Rotate()

    def Rotate(self) -> int:
        """Begin a new file; all changes up to now are in those up to the number returned."""
        if self._end:
            self._closed[self._number] = self._stat
        self._number += 1
        self._end = 0
        return self._number - 1

    def Drop(self, number: int) -> None:
        """The changes in the files up to this number are in the queue's files, durably."""
        for item in [item for item in self._closed if item <= number]:
            self._doubtful[item] = self._closed.pop(item)
        gone = [item for item in self._doubtful if item <= number]
        _Remove(gone, self._rt)
        for item in gone:
            del self._doubtful[item]
        self._void = {item: end for item, end in self._void.items() if item > number}

    def IsAsLeft(self) -> bool:
        """Is the journal on the disk as this object left it? Else somebody else had the queue.

        Who begins with an empty journal gives its files the numbers that ours have: so it is looked
        at the files, too.
        """
        wanted = {**self._closed, **({self._number: self._stat} if self._end else {})}
        there = set(_ListNumbers(self._rt))
        known = {**wanted, **{n: stat for n, stat in self._doubtful.items() if n in there}}
        return there == known.keys() and all(
            stat is not None and self._Stat(number) == stat for number, stat in known.items()
        )


def Clear(rt: runtime.Runtime = runtime.DEFAULT) -> None:
    """Forget all changes; the queue's lock is held."""
    _Remove(_ListNumbers(rt), rt)


def Recover(rt: runtime.Runtime = runtime.DEFAULT) -> int:
    """Bring all changes of the journal into the files, and empty it; the queue's lock is held.

    @return: how many there were
    @raise OSError: a file can't be read or written; the journal is still there then
    @raise errors.JobQueueError: a newer release wrote it; nothing was done
    """
    numbers = _ListNumbers(rt)
    found = {number: _ParseAll(rt.files.read(_GetPath(number))) for number in numbers}
    count = 0
    contents: dict[str, bytes] = {}
    touched = set()
    for change in _GetValid(found):
        count += 1
        if isinstance(change, Update):
            contents[change.path] = change.data
        else:
            touched |= GetDirectories(change)
            _RenameAgain(change, contents, rt)
    items = list(contents.items())
    for directory in sorted({os.path.dirname(path) for path in contents}):
        rt.files.mkdir(directory, 0o750)
        touched.add(os.path.dirname(directory))
    for start in range(0, len(items), _CHUNK):
        rt.files.write_many(items[start : start + _CHUNK])
    for directory in sorted(touched, reverse=True):
        if rt.files.exists(directory):
            rt.files.sync(directory)
    for number in numbers:
        if found[number].damaged:
            _SetAside(number, rt)
    _Remove(numbers, rt)
    if count:
        logging.info("The job queue's journal had %d changes of %d files", count, len(contents))
    return count


def _GetValid(found: Mapping[int, _Content]) -> Iterator[Change]:
    """All changes that count, in their order."""
    voids = [
        change
        for content in found.values()
        for _, change in content.changes
        if isinstance(change, _Void)
    ]
    ends = {void.number: void.size for void in voids}
    for number, content in found.items():
        for start, change in content.changes:
            if not isinstance(change, _Void) and start < ends.get(number, start + 1):
                yield change


def _SetAside(number: int, rt: runtime.Runtime) -> None:
    """Keep a file of which not all could be read, for whoever wants to look at it."""
    path = _GetPath(number)
    logging.error(
        "The job queue's journal %s is damaged in the middle; what comes behind was not done."
        " It is kept as %s.damaged",
        path,
        path,
    )
    rt.files.rename(path, f"{path}.damaged")


def _RenameAgain(change: Rename, contents: dict[str, bytes], rt: runtime.Runtime) -> None:
    if change.path in contents:
        contents[change.new] = contents.pop(change.path)
    # Of a file that is in both it is the older content; the newer one takes its place.
    if rt.files.exists(change.path):
        rt.files.rename(change.path, change.new, mkdir=True, durable=False)

"""The journal of the job queue: changes that are on the disk, but not in the queue's files yet.

To make a file, sync it and put it in its place costs a disk far more than to append a line to one
that is open already, and the lines of many jobs need one sync together. So who changes the queue
appends here, and the files follow (L{files}).

A journal is a directory of numbered files; only the last one grows. Each line is one change:
checksum, and a JSON list: C{["update", path, content]} or C{["rename", old path, new path]}, paths
relative to the queue's directory. Done again, in order, the changes lead to the same files, however
many of them were in the files already. A line that is not whole ends its file: it was never
answered for.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from .. import pathutils, runtime, serializer
from ..utils import checkedline

_NUMBER_RE: Final = re.compile("[0-9]{1,18}")
_UPDATE: Final = "update"
_RENAME: Final = "rename"
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


# Lines


def _Relative(path: str) -> str:
    return os.path.relpath(path, pathutils.QUEUE_DIR)


def _Absolute(path: str) -> str:
    return os.path.join(pathutils.QUEUE_DIR, path)


def FormatChange(change: Change) -> bytes:
    """The line of a change."""
    if isinstance(change, Update):
        # Any bytes come back as they were.
        text = change.data.decode("utf-8", "surrogateescape")
        fields = [_UPDATE, _Relative(change.path), text]
    else:
        fields = [_RENAME, _Relative(change.path), _Relative(change.new)]
    return checkedline.Format(serializer.Dump(fields).rstrip("\n").encode("ascii"))


def ParseChange(line: bytes) -> Change | None:
    """The change of a line without its newline; None if it is not one as it was written."""
    content = checkedline.Parse(line)
    if content is None:
        return None
    kind, path, what = serializer.Load(content)
    if kind == _UPDATE:
        return Update(_Absolute(path), what.encode("utf-8", "surrogateescape"))
    return Rename(_Absolute(path), _Absolute(what))


def _ParseAll(data: bytes) -> Iterator[Change]:
    for line in data.split(b"\n"):
        change = ParseChange(line)
        if change is None:
            return
        yield change


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
        #: The files that there are, but for the one that grows.
        self._closed: set[int] = set()
        #: Files that could not be made, and may be there all the same, empty.
        self._doubtful: set[int] = set()

    @property
    def size(self) -> int:
        """Bytes of the file that grows."""
        return self._end

    @property
    def empty(self) -> bool:
        """Has it no changes at all?"""
        return not self._end and not self._closed

    def Append(self, changes: Sequence[Change]) -> None:
        """Make changes durable.

        @raise OSError: none of them was made
        """
        data = b"".join(map(FormatChange, changes))
        try:
            self._rt.files.append(runtime.Tail(_GetPath(self._number), self._end, data))
        except OSError:
            self._TakeBack()
            raise
        self._end += len(data)

    def _TakeBack(self) -> None:
        """Of what could not be written nothing shall be found later, and nothing comes behind."""
        try:
            self._rt.files.append(runtime.Tail(_GetPath(self._number), self._end, b""))
        except OSError as err:
            logging.error("The end of a journal of the job queue is not clear: %s", err)
        if not self._end:
            self._doubtful.add(self._number)
        self.Rotate()

    def Rotate(self) -> int:
        """Begin a new file; all changes up to now are in those up to the number returned."""
        if self._end:
            self._closed.add(self._number)
        self._number += 1
        self._end = 0
        return self._number - 1

    def Drop(self, number: int) -> None:
        """The changes in the files up to this number are in the queue's files, durably."""
        _Remove([item for item in self._closed | self._doubtful if item <= number], self._rt)
        self._closed = {item for item in self._closed if item > number}
        self._doubtful = {item for item in self._doubtful if item > number}

    def IsAsLeft(self) -> bool:
        """Is the journal on the disk as this object left it? Else somebody else had the queue."""
        there = set(_ListNumbers(self._rt)) - self._doubtful
        if there != self._closed | ({self._number} if self._end else set()):
            return False
        return not self._end or self._rt.files.stat(_GetPath(self._number)).size == self._end


def Clear(rt: runtime.Runtime = runtime.DEFAULT) -> None:
    """Forget all changes; the queue's lock is held."""
    _Remove(_ListNumbers(rt), rt)


def Recover(rt: runtime.Runtime = runtime.DEFAULT) -> int:
    """Bring all changes of the journal into the files, and empty it; the queue's lock is held.

    @return: how many there were
    @raise OSError: a file can't be read or written; the journal is still there then
    """
    numbers = _ListNumbers(rt)
    count = 0
    contents: dict[str, bytes] = {}
    touched = set()
    for number in numbers:
        for change in _ParseAll(rt.files.read(_GetPath(number))):
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
    _Remove(numbers, rt)
    if count:
        logging.info("The job queue's journal had %d changes of %d files", count, len(contents))
    return count


def _RenameAgain(change: Rename, contents: dict[str, bytes], rt: runtime.Runtime) -> None:
    if change.path in contents:
        contents[change.new] = contents.pop(change.path)
    # Of a file that is in both it is the older content; the newer one takes its place.
    if rt.files.exists(change.path):
        rt.files.rename(change.path, change.new, mkdir=True, durable=False)

"""What makes one version of a large file from another, for who has that other one.

A version is a list of pieces; those that did not change are the same bytes objects in both
versions, as who builds a file of parts has them. A delta is a list of instructions: C{[offset,
length]} takes a part of the old file, a text is new. So its size follows what was changed, not how
large the file is.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

#: Pieces so short are not worth an instruction of their own.
_SHORT: Final = 32
#: Where a member of an indented JSON object begins, in a piece that has many of them.
_MEMBER_RE: Final = re.compile(rb'(?=\n    ")')

Instruction = list[int] | str


@dataclass(frozen=True)
class Version:
    """A version of the file.

    @ivar pieces: what it is made of
    @ivar content: all of them, joined
    """

    serial_no: int
    pieces: Sequence[bytes]
    content: bytes


@dataclass(frozen=True)
class Delta:
    """From one version of the file to another.

    @ivar base_serial, serial: their serial numbers
    @ivar checksum: CRC-32 of the result, by which is seen whether the base was the right one
    """

    base_serial: int
    serial: int
    instructions: Sequence[Instruction]
    checksum: int


def Make(old: Version, new: Version) -> Delta:
    """The delta between two versions."""
    offsets = list(itertools.accumulate(map(len, old.pieces), initial=0))
    known = {id(piece): offset for piece, offset in zip(old.pieces, offsets, strict=False)}
    kept = {id(piece) for piece in new.pieces}
    members: dict[bytes, int] = {}
    for piece, offset in zip(old.pieces, offsets, strict=False):
        if id(piece) not in kept:
            members.update(_IterMembers(piece, offset))
    builder = _Builder(old.content)
    for piece in new.pieces:
        at = known.get(id(piece))
        if at is not None:
            builder.Add(piece, at)
            continue
        for member, _ in _IterMembers(piece, 0):
            builder.Add(member, members.get(member))
    return Delta(old.serial_no, new.serial_no, builder.Finish(), zlib.crc32(new.content))


def _IterMembers(piece: bytes, offset: int) -> Iterator[tuple[bytes, int]]:
    """The members of a piece, each with the offset at which it begins."""
    for member in _MEMBER_RE.split(piece):
        yield member, offset
        offset += len(member)


class _Builder:
    """Joins neighbours: of ten thousand parts that follow each other one instruction is left."""

    def __init__(self, old: bytes) -> None:
        self._old = old
        self._instructions: list[Instruction] = []
        self._start = self._end = 0
        self._new: list[bytes] = []

    def Add(self, part: bytes, at: int | None) -> None:
        """The next part of the new file, and where the old one has it, too."""
        if at != self._end and not self._new and self._old.startswith(part, self._end):
            # There may be several such places: this one goes on with the last instruction.
            at = self._end
        if at is None or (at != self._end and len(part) < _SHORT):
            self._CloseOld()
            self._new.append(part)
            return
        if self._new or at != self._end:
            self._CloseOld()
            self._CloseNew()
            self._start = at
        self._end = at + len(part)

    def _CloseOld(self) -> None:
        if self._end > self._start:
            self._instructions.append([self._start, self._end - self._start])
        self._start = self._end

    def _CloseNew(self) -> None:
        if self._new:
            self._instructions.append(b"".join(self._new).decode("utf-8"))
            self._new = []

    def Finish(self) -> list[Instruction]:
        """All instructions."""
        self._CloseOld()
        self._CloseNew()
        return self._instructions


def Apply(instructions: Sequence[Any], old: bytes, checksum: int) -> bytes | None:
    """The new file; None if this is not the old one that the delta is from."""
    view = memoryview(old)
    parts: list[bytes | memoryview] = []
    for instruction in instructions:
        if isinstance(instruction, str):
            parts.append(instruction.encode("utf-8"))
        else:
            offset, length = instruction
            parts.append(view[offset : offset + length])
    content = b"".join(parts)
    return content if zlib.crc32(content) == checksum else None

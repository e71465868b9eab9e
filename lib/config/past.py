"""Questions about the history of the configuration: who changed what, and what was it like then.

All answers are in JSON's own types, and come in pages where they may be large. A page is worked out
from the log and what is on disk now; that is no matter to its content, as the past is not changed
by anything. An old configuration of which another page is awaited is kept meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from .. import errors, serializer
from . import claims, difference, history
from .engine import CommitEngine
from .store import View

#: Entries, or objects, of a page.
PAGE_SIZE: Final = 2000

#: What happened to an object.
ADDED: Final = "added"
REMOVED: Final = "removed"
MODIFIED: Final = "modified"

_Document = dict[str, Any]

#: Why changes are missing.
_LOST: Final = "another node was the master then, or the log could not be written, or was damaged"


def _WhatHappened(change: Mapping[str, Any]) -> str:
    if history.EDITS in change:
        return MODIFIED
    return ADDED if difference.NEW in change else REMOVED


def IsNamed(change: Mapping[str, Any], name: str) -> bool:
    """Is an object meant by a name: its own, the first labels of that, or C{cluster}?"""
    own: str = change[history.NAME] or change[history.KIND]
    return own == name or own.startswith(name + ".")


def _FormatTime(value: float | None) -> str:
    from ..utils import text

    return "an unknown time" if value is None else text.FormatTime(value)


class _Past(NamedTuple):
    """A version, the objects that were different then (None: there was none), the others."""

    version: history.Version
    objects: dict[claims.Key, _Document | None]
    view: View


class History:
    """Reads the log and the configuration of an engine; for any thread."""

    def __init__(self, engine: CommitEngine, page_size: int = PAGE_SIZE) -> None:
        self._engine = engine
        self._page_size = page_size
        #: The last one of which not all pages were asked for; replaced as a whole, by any thread.
        self._kept: _Past | None = None

    @property
    def _log(self) -> history.HistoryLog:
        if self._engine.log is None:
            raise errors.OpPrereqError(
                f"No history is kept of the configuration {self._engine.path}", errors.ECODE_STATE
            )
        return self._engine.log

    def _Walk(self, start: history.Version) -> Iterator[history.Step]:
        try:
            yield from history.Walk(self._log.IterRecords(), start)
        except OSError as err:
            raise errors.OpExecError(
                f"Can't read the configuration's history {self._log.path}: {err}"
            ) from err

    # What was changed

    def List(
        self,
        name: str | None = None,
        since_serial: int | None = None,
        since_time: float | None = None,
        cursor: Sequence[Any] | None = None,
    ) -> dict[str, Any]:
        """One page of the writes, the last one first.

        @param name: only those that changed this object, see L{IsNamed}
        @param since_serial: no older ones than this
        @param since_time: no older ones than this (seconds since the epoch)
        @param cursor: from an earlier page; None for the first
        @return: C{entries}: for each write C{serial}, C{time}, C{missing} (first and last serial
            number between this and the next newer entry that the log does not have, or None), and
            C{commits} (C{job}, C{op}, C{changes}: [kind, name, what happened]); C{cursor}: for the
            next page, None if this is the last; C{missing}: as above, after the last entry;
            C{problem}: why the last change was not noted

        Raises: OpPrereqError if there is no history; OpExecError if it can't be read.
        """
        log = self._log
        start = self._engine.GetWritten()[0] if cursor is None else history.Version(*cursor)
        needle = None if name is None else _InText(name)
        entries: list[dict[str, Any]] = []
        last: history.Version | None = None
        missing: list[int] | None = None
        for step in self._Walk(start):
            record = step.record
            if step.wanted.serial_no < (since_serial or 0):
                break
            if len(entries) == self._page_size:
                last = step.wanted
                break
            if step.is_gap:
                newest = missing[1] if missing is not None else step.wanted.serial_no
                missing = [max(record.version.serial_no + 1, since_serial or 0), newest]
            if _IsOlder(record.version, since_serial, since_time):
                break
            if needle is not None and needle not in record.body:
                continue
            commits = [_Summary(commit, name) for commit in record.GetCommits()]
            if name is None or any(commit[history.CHANGES] for commit in commits):
                entries.append(
                    {
                        "serial": record.version.serial_no,
                        "time": record.version.mtime,
                        "missing": missing,
                        "commits": [
                            commit for commit in commits if name is None or commit[history.CHANGES]
                        ],
                    }
                )
                missing = None
        return {
            "entries": entries,
            "cursor": None if last is None else list(last),
            "missing": missing,
            "problem": log.problem,
        }

    def Show(self, serial_no: int) -> dict[str, Any]:
        """One write in full, but for secrets.

        @return: C{serial}, C{time} and C{commits}: of each C{job}, C{op} and C{changes}: C{kind},
            C{name} and C{edits} (L{difference}), or the whole object as C{old} or C{new}

        Raises: OpPrereqError if the log has no such write; OpExecError if it can't be read.
        """
        now = self._engine.GetWritten()[0]
        oldest: int | None = None
        is_missing = False
        for step in self._Walk(now):
            record = step.record
            if record.version.serial_no == serial_no:
                return {
                    "serial": serial_no,
                    "time": record.version.mtime,
                    "commits": [_WithoutSecrets(item) for item in record.GetCommits()],
                }
            oldest = record.version.serial_no
            if oldest < serial_no:
                is_missing = step.is_gap
                break
        raise errors.OpPrereqError(
            f"The history of the configuration has no change with the serial number {serial_no}"
            + _WhyNot(serial_no, now.serial_no, oldest, is_missing),
            errors.ECODE_NOENT,
        )

    # What it was like

    def Export(self, serial_no: int, cursor: Sequence[str] | None = None) -> dict[str, Any]:
        """One page of the configuration with some serial number.

        @param cursor: from an earlier page; None for the first
        @return: C{header}: what is in the file besides objects; C{objects}: [kind, name, object];
            C{cursor}: for the next page, None if this is the last

        Raises: OpPrereqError if there was no such version, or the log does not reach back to it;
        OpExecError if it can't be read.
        """
        kept = self._kept
        if cursor is None or kept is None or kept.version.serial_no != serial_no:
            now, view = self._engine.GetWritten()
            kept = _Past(*self._GoBack(now, view, serial_no), view)
        version, objects, view = kept
        header: _Document = {**self._engine.store.constant, "serial_no": version.serial_no}
        if version.mtime is not None:
            header["mtime"] = version.mtime
        keys = sorted(_Present(view, objects))
        if cursor is not None:
            after = claims.Key(*cursor)
            keys = [key for key in keys if key > after]
        page = keys[: self._page_size]
        is_last = len(keys) == len(page)
        self._kept = None if is_last else kept
        return {
            "header": header,
            "objects": [[*key, _GetDocument(view, objects, key)] for key in page],
            "cursor": None if is_last else list(page[-1]),
        }

    def _GoBack(
        self, now: history.Version, view: View, serial_no: int
    ) -> tuple[history.Version, dict[claims.Key, _Document | None]]:
        """The version, and the objects that differ from those now (None: there was none)."""
        documents: dict[claims.Key, _Document | None] = {}
        reached = now
        if reached.serial_no == serial_no:
            return reached, documents
        if reached.serial_no < serial_no:
            raise errors.OpPrereqError(
                f"The configuration has the serial number {reached.serial_no} now; there is no"
                f" {serial_no} yet",
                errors.ECODE_NOENT,
            )
        for step in self._Walk(now):
            if step.is_gap:
                break
            _UndoRecord(view, documents, step.record)
            reached = step.record.base
            if reached.serial_no == serial_no:
                return reached, documents
            if reached.serial_no < serial_no:
                raise errors.OpPrereqError(
                    f"There was no configuration with the serial number {serial_no}: the one after"
                    f" {reached.serial_no} was {step.record.version.serial_no}",
                    errors.ECODE_NOENT,
                )
        raise errors.OpPrereqError(
            f"The history of the configuration does not reach back to the serial number"
            f" {serial_no}, only to {reached.serial_no} of {_FormatTime(reached.mtime)}: it began"
            f" with that, or older changes were dropped because of the log's size, or {_LOST}",
            errors.ECODE_NOENT,
        )


def _WhyNot(serial_no: int, newest: int, oldest: int | None, is_missing: bool) -> str:
    """Why there is no change with a serial number, the second half of a sentence.

    @param oldest: serial number of the oldest change that was seen in the search; None: of none
    @param is_missing: it was passed where changes are missing
    """
    if oldest is None:
        return f"; it has none at all yet, and the configuration has {newest} now"
    if serial_no > newest:
        return f" yet; the newest one is {newest}"
    if is_missing:
        return f"; changes after {oldest} are missing: {_LOST}"
    if serial_no < oldest:
        return f"; the oldest one is {oldest}"
    return "; that number was left out"


def _IsOlder(version: history.Version, since_serial: int | None, since_time: float | None) -> bool:
    return (since_serial is not None and version.serial_no < since_serial) or (
        since_time is not None and version.mtime is not None and version.mtime < since_time
    )


def _InText(name: str) -> bytes:
    """What is in the text of every record that has the name."""
    return serializer.Dump(name).strip().strip('"').encode("utf-8")


def _Summary(commit: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    return {
        history.JOB: commit.get(history.JOB),
        history.OPCODE: commit.get(history.OPCODE),
        history.CHANGES: [
            [change[history.KIND], change[history.NAME], _WhatHappened(change)]
            for change in commit[history.CHANGES]
            if name is None or IsNamed(change, name)
        ],
    }


def _WithoutSecrets(commit: Mapping[str, Any]) -> dict[str, Any]:
    changes = []
    for change in commit[history.CHANGES]:
        hidden = dict(change)
        for side in (difference.OLD, difference.NEW):
            if side in change:
                hidden[side] = difference.HideSecrets(change[side])
        if history.EDITS in change:
            hidden[history.EDITS] = [
                difference.HideSecretsOfEdit(edit) for edit in change[history.EDITS]
            ]
        changes.append(hidden)
    return {
        history.JOB: commit.get(history.JOB),
        history.OPCODE: commit.get(history.OPCODE),
        history.CHANGES: changes,
    }


def _ViewKeys(view: View) -> Iterator[claims.Key]:
    yield claims.CLUSTER_KEY
    yield from (claims.Key(claims.NODE, name) for name in view.nodes)
    yield from (claims.Key(claims.INSTANCE, name) for name in view.instances)


def _Present(view: View, documents: Mapping[claims.Key, _Document | None]) -> set[claims.Key]:
    """The objects that there are with some replaced, or not there."""
    keys = {key for key in _ViewKeys(view) if documents.get(key, True) is not None}
    return keys | {key for key, document in documents.items() if document is not None}


def _GetDocument(
    view: View, documents: Mapping[claims.Key, _Document | None], key: claims.Key
) -> _Document | None:
    if key in documents:
        return documents[key]
    if key.kind == claims.CLUSTER:
        return view.cluster.ToDict()
    obj = view.nodes.get(key.name) if key.kind == claims.NODE else view.instances.get(key.name)
    return None if obj is None else obj.ToDict()


def _UndoRecord(
    view: View, documents: dict[claims.Key, _Document | None], record: history.Record
) -> None:
    """Bring objects to what they were before a write.

    Raises: OpPrereqError if they are not what the write made of them.
    """
    for commit in reversed(record.GetCommits()):
        for change in reversed(commit[history.CHANGES]):
            key = claims.Key(change[history.KIND], change[history.NAME])
            try:
                documents[key] = _UndoChange(_GetDocument(view, documents, key), change)
            except difference.DoesNotFit:
                raise errors.OpPrereqError(
                    f"Can't go back further than the serial number {record.version.serial_no}: its"
                    f" change of {key} is not what is there; the configuration was changed by other"
                    " means after it",
                    errors.ECODE_STATE,
                ) from None


def _UndoChange(document: _Document | None, change: Mapping[str, Any]) -> _Document | None:
    if history.EDITS in change:
        if document is None:
            raise difference.DoesNotFit
        difference.Undo(document, change[history.EDITS])
        return document
    if not difference.IsSame(document, change.get(difference.NEW)):
        raise difference.DoesNotFit
    old: _Document | None = change.get(difference.OLD)
    return old

"""gnt-cluster history: who changed what in the configuration, and what it was like before."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from .. import constants, errors
from . import console, jobs, options, output, values

_TIME_FORMATS: Final = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d")

OPTS: Final = (
    options.Opt(
        "--object", default=None, metavar="NAME",
        help="Only changes of this instance or node, or of the 'cluster' itself",
    ),
    options.Opt(
        "--since", default=None, metavar="TIME|SERIAL",
        help="Only changes since a time ('2026-01-31 12:00', or 2h for the last two hours), or from"
        " a serial number on",
    ),
    options.Opt(
        "--show", type="int", default=None, metavar="SERIAL",
        help="Print all of what was changed with this serial number",
    ),
    options.Opt(
        "--at", type="int", default=None, metavar="SERIAL",
        help="Print the configuration as it was with this serial number, secrets included",
    ),
    *options.LIST_OPTS,
)  # fmt: skip


def _FormatOpcode(value: Any) -> str:
    return output.NOTHING if value is None else str(value).removeprefix("OP_")


_SUFFIXES: Final = {"added": " (added)", "removed": " (removed)", "modified": ""}


def _FormatObject(kind: str, name: str) -> str:
    return f"{kind} {name}" if name else kind


def _FormatChanges(value: Sequence[Any]) -> str:
    return (
        ", ".join(_FormatObject(kind, name) + _SUFFIXES[what] for kind, name, what in value)
        or "(file written again)"
    )


COLUMNS: Final = output.Columns(
    {
        "serial": output.Column("Serial", numeric=True),
        "time": output.Column("Time", output.FormatTime),
        "job": output.Column("Job", output.FormatDash),
        "opcode": output.Column("OpCode", _FormatOpcode),
        "changes": output.Column("Changed", _FormatChanges),
    }
)
DEFAULT_FIELDS: Final = ("serial", "time", "job", "opcode", "changes")


def ParseSince(value: str, now: float) -> tuple[int | None, float | None]:
    """Serial number, or seconds since the epoch.

    @param now: seconds since the epoch
    @raise errors.OpPrereqError: C{wrong_input}
    """
    if value.isdecimal():
        return int(value), None
    for form in _TIME_FORMATS:
        try:
            return None, time.mktime(time.strptime(value, form))
        except (ValueError, OverflowError):
            continue
    try:
        age = values.ParseTimespec(value)
    except errors.OpPrereqError:
        age = -1
    if age < 0:
        raise errors.OpPrereqError(
            f"Invalid value '{value}' of --since: give a serial number, a time such as 2026-01-31"
            " or '2026-01-31 12:00', or how long ago, such as 30m, 2h or 1d",
            errors.ECODE_INVAL,
        )
    return None, now - age


def ConfigHistory(opts: Any, args: list[str]) -> int:
    """List the changes of the configuration, or show one, or an old configuration."""
    if opts.show is not None and opts.at is not None:
        raise errors.OpPrereqError("Give either --show or --at, not both", errors.ECODE_INVAL)
    if (opts.show, opts.at) != (None, None) and (opts.object, opts.since) != (None, None):
        raise errors.OpPrereqError(
            "--object and --since choose changes to list; give them without --show and --at",
            errors.ECODE_INVAL,
        )
    for name, value in (("show", opts.show), ("at", opts.at)):
        if value is not None and value < 0:
            raise errors.OpPrereqError(
                f"--{name} takes a serial number, not {value}", errors.ECODE_INVAL
            )
    if opts.show is not None:
        answer = jobs.GetClient().QueryConfigChange(opts.show)
        if opts.output_format == "json":
            output.PrintJson(answer)
        else:
            for line in FormatChange(answer):
                console.ToStdout(line)
        return constants.EXIT_SUCCESS
    if opts.at is not None:
        output.PrintJson(jobs.GetClient().QueryConfigAt(opts.at))
        return constants.EXIT_SUCCESS
    return _ListChanges(opts)


def _ListChanges(opts: Any) -> int:
    since: tuple[int | None, float | None] = (None, None)
    if opts.since is not None:
        from .. import runtime

        since = ParseSince(opts.since, runtime.DEFAULT.clock.time())
    unknown = set(values.ParseFields(opts.output, DEFAULT_FIELDS)) - COLUMNS.columns.keys()
    if unknown:
        raise errors.OpPrereqError(
            f"Unknown output fields selected: {', '.join(sorted(unknown))}. "
            + output.DescribeFields(COLUMNS, DEFAULT_FIELDS),
            errors.ECODE_INVAL,
        )
    answer = jobs.GetClient().QueryConfigHistory(opts.object, *since)
    entries = answer["entries"]
    entries.reverse()
    code = output.GenericList(
        COLUMNS, DEFAULT_FIELDS, lambda fields: list(_Rows(entries, fields)), opts
    )
    if not entries and answer["missing"] is None:
        console.ToStderr(_DescribeNothing(opts))
    for gap in [answer["missing"], *(entry["missing"] for entry in entries)]:
        if gap is not None:
            first, last = gap
            what = f"change {first} is" if first == last else f"changes {first} to {last} are"
            console.ToStderr(
                f"Note: {what} missing: another node was the master then, or the log could not be"
                " written, or was damaged"
            )
    if answer["problem"] is not None:
        console.ToStderr(f"Warning: {answer['problem']}")
    return code


def _DescribeNothing(opts: Any) -> str:
    whose = "" if opts.object is None else f" of '{opts.object}'"
    when = "" if opts.since is None else f" since {opts.since}"
    hint = (
        ""
        if opts.object is None
        else ". Give the name of a node or an instance, or 'cluster'; the history may be younger"
        " than the last change"
    )
    return f"Note: the history has no change{whose}{when}{hint}"


def _Rows(entries: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> Iterator[list[Any]]:
    """One row for each commit of each write."""
    nothing: Mapping[str, Any] = {"job": None, "op": None, "changes": []}
    for entry in entries:
        for commit in entry["commits"] or [nothing]:
            found = {
                "serial": entry["serial"],
                "time": entry["time"],
                "job": commit["job"],
                "opcode": commit["op"],
                "changes": commit["changes"],
            }
            yield [found[field] for field in fields]


# One change

_UNSET: Final = "(unset)"


_TIMES: Final = frozenset(["ctime", "mtime"])


def _FormatValue(value: Any, path: Sequence[Any] = ()) -> str:
    if path and path[-1] in _TIMES and isinstance(value, (int, float)):
        return output.FormatTime(value)
    from .. import serializer

    return serializer.Dump(value).rstrip("\n")


def _FormatPath(path: Sequence[Any]) -> str:
    return "/".join(map(str, path))


def _IsSimple(value: Any) -> bool:
    return not (value and isinstance(value, (dict, list)))


def _FormatLeaves(value: Any, path: Sequence[Any] = ()) -> Iterator[str]:
    """A line for each value in an object, or in a part of one; lists of values are one."""
    if _IsSimple(value) or (isinstance(value, list) and all(map(_IsSimple, value))):
        yield f"{_FormatPath(path)}: {_FormatValue(value, path)}"
        return
    items = sorted(value.items()) if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield from _FormatLeaves(item, (*path, key))


def _FormatEdit(edit: Mapping[str, Any]) -> Iterator[str]:
    path = edit["path"]
    if "at" not in edit:
        old, new = (
            _FormatValue(edit[side], path) if side in edit else _UNSET for side in ("old", "new")
        )
        yield f"{_FormatPath(path)}: {old} -> {new}"
    elif all(map(_IsSimple, (*edit["old"], *edit["new"]))):
        parts = [f"-{_FormatValue(item)}" for item in edit["old"]]
        parts += [f"+{_FormatValue(item)}" for item in edit["new"]]
        yield f"{_FormatPath(path)}[{edit['at']}]: {' '.join(parts)}"
    else:
        for side, state in (("old", "removed"), ("new", "added")):
            for idx, item in enumerate(edit[side], edit["at"]):
                yield f"{_FormatPath((*path, idx))} {state}:"
                yield from (f"  {line}" for line in _FormatLeaves(item))


def FormatChange(answer: Mapping[str, Any]) -> list[str]:
    """The lines that show one write of the configuration."""
    lines = [f"Change {answer['serial']}, {output.FormatTime(answer['time'])}"]
    for commit in answer["commits"]:
        who = "no job" if commit["job"] is None else f"job {commit['job']}"
        opcode = "" if commit["op"] is None else f", {_FormatOpcode(commit['op'])}"
        lines.append(f"By {who}{opcode}:")
        for change in commit["changes"]:
            lines += [f"  {line}" for line in _FormatObjectChange(change)]
    if not answer["commits"]:
        lines.append("The file was written again without a change of an object")
    return lines


def _FormatObjectChange(change: Mapping[str, Any]) -> list[str]:
    what = _FormatObject(change["kind"], change["name"])
    if "edits" in change:
        return [
            f"{what}:",
            *(f"  {line}" for edit in change["edits"] for line in _FormatEdit(edit)),
        ]
    side = "new" if "new" in change else "old"
    state = "added" if side == "new" else "removed"
    return [f"{what} {state}:", *(f"  {line}" for line in _FormatLeaves(change[side]))]

"""The requests that the master daemon serves: one row each.

The arguments of a request have two generations. In the first, a method of one argument takes it
bare (C{"12"}, C{true}, or the list of opcodes itself), the others take a list. In the later one,
every method takes a list with one element for each argument. L{ParseArgs} understands both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from .. import constants, errors, ht
from .protocol import RequestError

REQ_SUBMIT_JOB: Final = "SubmitJob"
REQ_SUBMIT_MANY_JOBS: Final = "SubmitManyJobs"
REQ_WAIT_FOR_JOB_CHANGE: Final = "WaitForJobChange"
REQ_CANCEL_JOB: Final = "CancelJob"
REQ_ARCHIVE_JOB: Final = "ArchiveJob"
REQ_AUTOARCHIVE_JOBS: Final = "AutoArchiveJobs"
REQ_CHANGE_JOB_PRIORITY: Final = "ChangeJobPriority"
REQ_QUERY: Final = "Query"
REQ_QUERY_FIELDS: Final = "QueryFields"
REQ_QUERY_JOBS: Final = "QueryJobs"
REQ_QUERY_INSTANCES: Final = "QueryInstances"
REQ_QUERY_NODES: Final = "QueryNodes"
REQ_QUERY_EXPORTS: Final = "QueryExports"
REQ_QUERY_CONFIG_VALUES: Final = "QueryConfigValues"
REQ_QUERY_CONFIG_HISTORY: Final = "QueryConfigHistory"
REQ_QUERY_CONFIG_CHANGE: Final = "QueryConfigChange"
REQ_QUERY_CONFIG_AT: Final = "QueryConfigAt"
REQ_QUERY_CLUSTER_INFO: Final = "QueryClusterInfo"
REQ_QUERY_TAGS: Final = "QueryTags"
REQ_QUERY_LOCKS: Final = "QueryLocks"
REQ_QUEUE_SET_DRAIN_FLAG: Final = "SetDrainFlag"
REQ_SET_WATCHER_PAUSE: Final = "SetWatcherPause"

#: Fields of L{REQ_QUERY_LOCKS}.
LOCK_FIELDS: Final = ("name", "mode", "owner", "pending")
#: Fields of jobs that L{REQ_WAIT_FOR_JOB_CHANGE} and L{REQ_QUERY_JOBS} know.
JOB_FIELDS: Final = (
    "id",
    "status",
    "priority",
    "ops",
    "opresult",
    "opstatus",
    "oplog",
    "opstart",
    "opexec",
    "opend",
    "received_ts",
    "start_ts",
    "end_ts",
    "lock_status",
    "summary",
)

_REQUIRED: Final[Any] = object()

# Types

_NAMES: Final = ht.TListOf(ht.TString)
_OPCODE: Final = ht.TDict
_OPCODES: Final = ht.TListOf(_OPCODE)
#: A text that is no number is a job that does not exist.
_JOB_ID: Final = ht.TOr(ht.TNonNegativeInt, ht.TString)
_TIME: Final = ht.TNumber
#: Where a page of the configuration's history begins: serial number and time of a version.
_HISTORY_CURSOR: Final = ht.TTuple(ht.TNonNegativeInt, ht.TMaybe(_TIME))
#: The same for an old configuration: kind and name of an object.
_OBJECT_CURSOR: Final = ht.TTuple(ht.TString, ht.TString)


class Arg:
    """One argument of a request.

    @ivar name: what messages call it
    @ivar type: predicate from L{ht}
    @ivar required: must be given
    @ivar default: its value where it is not given
    """

    __slots__ = ("default", "name", "required", "type")

    def __init__(self, name: str, type_: ht.Type, default: Any = _REQUIRED) -> None:
        self.name = name
        self.type = type_
        self.required = default is _REQUIRED
        self.default = None if self.required else default


class Method:
    """One request.

    @ivar name: on the wire
    @ivar args: the arguments, in order
    @ivar bare: the first generation of clients sends the only (required) argument as it is
    @ivar result: what comes back, for people
    @ivar job_id_at: where the result holds job ids, see L{AdaptJobIds}
    """

    __slots__ = ("args", "bare", "job_id_at", "name", "result")

    def __init__(
        self,
        name: str,
        args: Sequence[Arg],
        result: str,
        *,
        bare: bool = False,
        job_id_at: str | None = None,
    ) -> None:
        self.name = name
        self.args = tuple(args)
        self.result = result
        self.bare = bare
        self.job_id_at = job_id_at


# Where job ids are in a result
_AT_RESULT: Final = "result"
_AT_PAIRS: Final = "pairs"
_AT_ROWS: Final = "rows"
_AT_JOB_INFO: Final = "job info"

#: All requests by name.
METHODS: Final[dict[str, Method]] = {
    method.name: method
    for method in (
        Method(
            REQ_SUBMIT_JOB,
            [Arg("ops", _OPCODES)],
            "id of the job",
            bare=True,
            job_id_at=_AT_RESULT,
        ),
        Method(
            REQ_SUBMIT_MANY_JOBS,
            [Arg("jobs", ht.TListOf(_OPCODES))],
            "for each job [true, id] or [false, error text]",
            bare=True,
            job_id_at=_AT_PAIRS,
        ),
        Method(
            REQ_CANCEL_JOB,
            [Arg("job_id", _JOB_ID), Arg("kill", ht.TElemOf(False), False)],
            "[was or will it be cancelled, text]",
            bare=True,
        ),
        Method(
            REQ_ARCHIVE_JOB,
            [Arg("job_id", _JOB_ID)],
            "was the job archived",
            bare=True,
        ),
        Method(
            REQ_AUTOARCHIVE_JOBS,
            # An age of -1 stands for every finished job
            [Arg("age", ht.TNumber), Arg("timeout", ht.TNonNegativeNumber)],
            "[jobs archived, jobs not looked at]",
        ),
        Method(
            REQ_CHANGE_JOB_PRIORITY,
            [
                Arg("job_id", _JOB_ID),
                Arg(
                    "priority",
                    ht.TIntRange(constants.OP_PRIO_HIGHEST, constants.OP_PRIO_LOWEST),
                ),
            ],
            "[was the priority changed, text]",
        ),
        Method(
            REQ_WAIT_FOR_JOB_CHANGE,
            [
                Arg("job_id", _JOB_ID),
                Arg("fields", _NAMES),
                Arg("prev_job_info", ht.TMaybe(ht.TList)),
                Arg("prev_log_serial", ht.TMaybe(ht.TInt)),
                Arg("timeout", ht.TNonNegativeNumber),
            ],
            "[values of the fields, new log entries]; 'nochange' after the time-out; null for an"
            " unknown job",
            job_id_at=_AT_JOB_INFO,
        ),
        Method(
            REQ_QUERY_JOBS,
            [Arg("job_ids", ht.TMaybe(ht.TListOf(_JOB_ID))), Arg("fields", _NAMES)],
            "rows in the order of the ids, null for an unknown one; no ids: all jobs",
            job_id_at=_AT_ROWS,
        ),
        Method(
            REQ_QUERY_INSTANCES,
            [Arg("names", _NAMES), Arg("fields", _NAMES), Arg("use_locking", ht.TBool)],
            "rows",
        ),
        Method(
            REQ_QUERY_NODES,
            [Arg("names", _NAMES), Arg("fields", _NAMES), Arg("use_locking", ht.TBool)],
            "rows",
        ),
        Method(
            REQ_QUERY_EXPORTS,
            [Arg("nodes", _NAMES), Arg("use_locking", ht.TBool)],
            "{node: names of its exports, or false if it failed}",
        ),
        Method(REQ_QUERY_CONFIG_VALUES, [Arg("fields", _NAMES)], "values", bare=True),
        Method(
            REQ_QUERY_CONFIG_HISTORY,
            [
                Arg("object", ht.TMaybe(ht.TNonEmptyString), None),
                Arg("since_serial", ht.TMaybe(ht.TNonNegativeInt), None),
                Arg("since_time", ht.TMaybe(_TIME), None),
                Arg("cursor", ht.TMaybe(_HISTORY_CURSOR), None),
            ],
            "{entries: who changed what, the last first; cursor: for the next page, or null;"
            " problem: why the last change was not noted, or null}",
        ),
        Method(
            REQ_QUERY_CONFIG_CHANGE,
            [Arg("serial", ht.TNonNegativeInt)],
            "{serial, time, commits: all of what was changed, but for secrets}",
        ),
        Method(
            REQ_QUERY_CONFIG_AT,
            [
                Arg("serial", ht.TNonNegativeInt),
                Arg("cursor", ht.TMaybe(_OBJECT_CURSOR), None),
            ],
            "{header, objects: [kind, name, object], cursor: for the next page, or null}",
        ),
        Method(REQ_QUERY_CLUSTER_INFO, [], "dictionary of the cluster's parameters"),
        Method(
            REQ_QUERY_TAGS,
            [Arg("kind", ht.TString), Arg("name", ht.TString)],
            "tags",
        ),
        Method(
            REQ_QUERY_LOCKS,
            [Arg("fields", ht.TListOf(ht.TElemOf(LOCK_FIELDS)), list(LOCK_FIELDS))],
            "for each lock its name, mode, owners and [mode, names] of those who wait",
        ),
        Method(
            REQ_QUERY,
            [
                Arg("what", ht.TNonEmptyString),
                Arg("fields", _NAMES),
                Arg("filter", ht.TMaybe(ht.TList), None),
            ],
            "{fields: definitions, data: rows of [status, value]}",
        ),
        Method(
            REQ_QUERY_FIELDS,
            [Arg("what", ht.TNonEmptyString), Arg("fields", ht.TMaybe(_NAMES), None)],
            "{fields: definitions}",
        ),
        Method(REQ_QUEUE_SET_DRAIN_FLAG, [Arg("flag", ht.TBool)], "true", bare=True),
        Method(
            REQ_SET_WATCHER_PAUSE,
            [Arg("until", ht.TMaybe(_TIME))],
            "the time until when the watcher pauses; null if it does not",
        ),
    )
}

REQ_ALL: Final = frozenset(METHODS)


def _UnwrapBare(method: Method, args: Any, modern: bool) -> list[Any]:
    """The list of arguments of a method whose first generation of clients sends one bare.

    A list can be the bare argument or a list of arguments. What tells is which of them has the
    declared type; both have it only where the innermost list is empty.
    """
    fits = method.args[0].type
    if not isinstance(args, list) or (fits(args) and not modern):
        return [args]
    if args and fits(args[0]):
        return args
    # Wrong either way: this reading gives the better message.
    return [args] if fits([]) else args


def ParseArgs(name: str, args: Any, modern: bool = False) -> list[Any]:
    """The arguments of a request, checked: one value for each argument of the method.

    Job ids are decimal texts in what is returned, whatever the client sent.

    @param name: a name from L{METHODS}
    @param args: as they came, in the form of either generation
    @param modern: the request came from a later client (it named a version): of two possible
        readings take the later one
    @raise RequestError: the arguments are too many, too few or no list
    @raise errors.OpPrereqError: C{wrong_input}, one of them has a wrong type; names it and its
        value
    """
    method = METHODS[name]
    if method.bare:
        args = _UnwrapBare(method, args, modern)
    takes = ", ".join(arg.name for arg in method.args) or "nothing"
    if not isinstance(args, list):
        raise RequestError(f"{name} takes a list ({takes}), not {ht.Show(args)}")
    least = sum(arg.required for arg in method.args)
    if not least <= len(args) <= len(method.args):
        raise RequestError(f"{name} takes {takes}; it was given {len(args)} arguments")
    values = args + [arg.default for arg in method.args[len(args) :]]
    for arg, value in zip(method.args, values, strict=True):
        if value is arg.default and not arg.required:
            continue
        problem = arg.type.Problem(value)
        if problem is not None:
            raise errors.OpPrereqError(
                f"Argument '{arg.name}' of {name}: {problem}", errors.ECODE_INVAL
            )
    return [
        _NormalizeJobIds(value) if arg.name in ("job_id", "job_ids") else value
        for arg, value in zip(method.args, values, strict=True)
    ]


def _NormalizeJobIds(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_NormalizeJobIds(item) for item in value]
    if isinstance(value, str):
        # What is none stands for a job that does not exist.
        return str(int(value)) if ht.TJobId(value) else value
    return None if value is None else str(value)


def AdaptJobIds(name: str, values: Sequence[Any], result: Any) -> Any:
    """A result with its job ids as the integers that later clients expect.

    @param name: the method
    @param values: its arguments, from L{ParseArgs}
    @param result: with job ids as texts; not changed
    """
    where = METHODS[name].job_id_at
    if where == _AT_RESULT:
        return _IntId(result)
    if where == _AT_PAIRS:
        return [[ok, _IntId(value) if ok else value] for ok, value in result]
    if where == _AT_ROWS:
        fields = values[1]
        return [None if row is None else _IntIdsInRow(fields, row) for row in result]
    if where == _AT_JOB_INFO and isinstance(result, (list, tuple)):
        job_info, log_entries = result
        return [_IntIdsInRow(values[1], job_info), log_entries]
    return result


def _IntIdsInRow(fields: Sequence[str], row: Sequence[Any]) -> list[Any]:
    return [
        _IntId(value) if field == "id" else value for field, value in zip(fields, row, strict=True)
    ]


def _IntId(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else value

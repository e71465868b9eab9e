"""gnt-job: the jobs of the cluster. Looking at jobs makes no job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .. import constants, errors
from . import console, failures, jobs, main, options, output, parser, values

_TIMESTAMP: Final = output.FormatTimestamp


def _FormatTimestamps(value: Any) -> Any:
    return output.UNKNOWN if value is None else [_TIMESTAMP(stamp) for stamp in value]


def _FormatSummary(value: Any) -> Any:
    return output.UNKNOWN if value is None else ",".join(value)


def _FormatWaitReason(value: Any) -> Any:
    return output.NOTHING if value is None else value["text"]


LIST_DEFAULT_FIELDS: Final = ("id", "status", "summary")
LIST_COLUMNS: Final = output.Columns(
    {
        "id": output.Column("ID"),
        "status": output.Column("Status"),
        "priority": output.Column("Priority"),
        "summary": output.Column("Summary", _FormatSummary),
        "ops": output.Column("OpCodes"),
        "opresult": output.Column("OpCode_result"),
        "opstatus": output.Column("OpCode_status"),
        "oplog": output.Column("OpCode_log"),
        "opstart": output.Column("OpCode_start", _FormatTimestamps),
        "opexec": output.Column("OpCode_exec", _FormatTimestamps),
        "opend": output.Column("OpCode_end", _FormatTimestamps),
        "received_ts": output.Column("Received", _TIMESTAMP),
        "start_ts": output.Column("Start", _TIMESTAMP),
        "end_ts": output.Column("End", _TIMESTAMP),
        "lock_status": output.Column("LockStatus", output.FormatDash),
        "wait_reason": output.Column("WaitReason", _FormatWaitReason),
    }
)

#: Options that select by status.
_STATUS_FILTERS: Final[Mapping[str, frozenset[str]]] = {
    "pending": frozenset([constants.JOB_STATUS_QUEUED, constants.JOB_STATUS_WAITLOCK]),
    "running": frozenset([constants.JOB_STATUS_RUNNING]),
    "error": frozenset([constants.JOB_STATUS_ERROR]),
    "finished": frozenset(
        [
            constants.JOB_STATUS_SUCCESS,
            constants.JOB_STATUS_ERROR,
            constants.JOB_STATUS_CANCELED,
        ]
    ),
}


def _WantedStatus(opts: Any) -> frozenset[str] | None:
    chosen = [states for name, states in _STATUS_FILTERS.items() if getattr(opts, name)]
    return frozenset[str]().union(*chosen) if chosen else None


def ListJobs(opts: Any, args: list[str]) -> int:
    """List jobs."""
    cl = jobs.GetClient()
    wanted = _WantedStatus(opts)

    def Query(fields: list[str]) -> Sequence[Any]:
        rows = cl.QueryJobs(args, ["status", *fields])
        for job_id, row in zip(args, rows, strict=False):
            if row is None:
                console.ToStderr(f"No such job: {job_id}")
        return [
            None if row is None else row[1:]
            for row in rows
            if wanted is None or (row is not None and row[0] in wanted)
        ]

    return output.GenericList(LIST_COLUMNS, LIST_DEFAULT_FIELDS, Query, opts)


def ArchiveJobs(opts: Any, args: list[str]) -> int:
    """Archive finished jobs."""
    cl = jobs.GetClient()
    for job_id in args:
        if not cl.ArchiveJob(job_id):
            console.ToStderr(f"Job {job_id} was not archived: it is not there or not finished")
    return constants.EXIT_SUCCESS


def AutoArchiveJobs(opts: Any, args: list[str]) -> int:
    """Archive all jobs that finished some time ago."""
    age = -1 if args[0] == "all" else values.ParseTimespec(args[0])
    archived, left = jobs.GetClient().AutoArchiveJobs(age)
    console.ToStdout(f"Archived {archived} jobs, {left} unchecked left")
    return constants.EXIT_SUCCESS


def CancelJobs(opts: Any, args: list[str]) -> int:
    """Cancel jobs that have not started."""
    cl = jobs.GetClient()
    code: int = constants.EXIT_SUCCESS
    for job_id in args:
        done, message = cl.CancelJob(job_id)
        console.ToStdout(message)
        if not done:
            code = constants.EXIT_FAILURE
    return code


def ChangePriority(opts: Any, args: list[str]) -> int:
    """Change the place of waiting jobs in the queue."""
    if opts.priority is None:
        console.ToStderr("Please give the new priority (--priority).")
        return constants.EXIT_FAILURE
    cl = jobs.GetClient()
    code: int = constants.EXIT_SUCCESS
    for job_id in args:
        done, message = cl.ChangeJobPriority(job_id, jobs.PRIORITIES[opts.priority])
        console.ToStdout(message)
        if not done:
            code = constants.EXIT_FAILURE
    return code


# One job in detail


def _Delta(end: Any, start: Any) -> float | None:
    """Seconds between two timestamps; None if one is missing."""
    if not end or not start:
        return None
    return float(end[0] - start[0] + (end[1] - start[1]) / 1000000.0)


def _FormatTime(label: str, value: Any, since: Any) -> str:
    if not value:
        return f"{label}: unknown ({value})"
    delta = _Delta(value, since)
    suffix = "" if delta is None else f" (delta {delta:.6f}s)"
    return f"{label + ':':<17} {_TIMESTAMP(value)}{suffix}"


def _FormatValue(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(str(element) for element in value)
    return str(value)


def _FormatElement(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_FormatElement(element) for element in value)}]"
    return str(value)


def FormatResult(result: Any) -> list[str]:
    """The lines for the result of an opcode; those that belong to it are one level deeper."""
    if result is None:
        return ["No output data"]
    if isinstance(result, Mapping):
        if not result:
            return ["Result: empty dictionary"]
        return [f"  {key}: {_FormatElement(result[key])}" for key in sorted(result)]
    if isinstance(result, (list, tuple)):
        if not result:
            return ["Result: empty sequence"]
        return ["Result:", *(f"  {_FormatElement(element)}" for element in result)]
    return [f"Result: {result}"]


def FormatOpcode(
    op: Mapping[str, Any], status: str, start: Any, exec_: Any, end: Any, result: Any, log: Any
) -> list[str]:
    """The lines for one opcode of a job."""
    lines = [f"Status: {status}"]
    for value, what in (
        (start, "Processing start"),
        (exec_, "Execution start"),
        (end, "Processing end"),
    ):
        if value:
            lines.append(f"{what + ':':<17} {_TIMESTAMP(value)}")
        else:
            lines.append(f"No {what[0].lower()}{what[1:]} time")
    lines.append("Input fields:")
    lines += [f"  {key}: {_FormatValue(op[key])}" for key in sorted(op) if key != "OP_ID"]
    lines += FormatResult(result)
    lines.append("Execution log:")
    for serial, stamp, log_type, message in log:
        lines.append(f"  {serial}:{_TIMESTAMP(stamp)}:{log_type} {console.OneLine(message)}")
    return [op["OP_ID"], *(f"  {line}" for line in lines)]


_INFO_FIELDS: Final = (
    "id", "status", "lock_status", "received_ts", "start_ts", "end_ts", "ops", "opstatus",
    "opstart", "opexec", "opend", "opresult", "oplog",
)  # fmt: skip


def FormatJob(row: Sequence[Any]) -> list[str]:
    """The lines for one job, from the values of its fields."""
    job_id, status, step, received, start, end, *per_op = row
    total = _Delta(end, received)
    lines = [
        f"Status: {status}",
        *([f"Now: {step}"] if step else []),
        _FormatTime("Received", received, None)
        if received
        else f"Missing received timestamp ({received})",
        _FormatTime("Processing start", start, received),
        _FormatTime("Processing end", end, start),
        f"Total processing time: {'N/A' if total is None else f'{total:.6f} seconds'}",
        "Opcodes:",
    ]
    for op, op_status, op_start, op_exec, op_end, result, log in zip(*per_op, strict=True):
        opcode = FormatOpcode(op, op_status, op_start, op_exec, op_end, result, log)
        lines += [f"  {line}" for line in opcode]
    return [f"Job ID: {job_id}", *(f"  {line}" for line in lines)]


def ShowJobs(opts: Any, args: list[str]) -> int:
    """Print all about jobs."""
    rows = jobs.GetClient().QueryJobs(args, list(_INFO_FIELDS))
    for index, (job_id, row) in enumerate(zip(args, rows, strict=True)):
        if index:
            console.ToStdout("")
        lines = [f"Job ID {job_id} not found"] if row is None else FormatJob(row)
        for line in lines:
            console.ToStdout(line)
    return constants.EXIT_SUCCESS


# Waiting


def WatchJob(opts: Any, args: list[str]) -> int:
    """Show the log of a job until it ends."""
    job_id = args[0]
    heading = f"Output from job {job_id} follows"
    console.ToStdout(f"{heading}\n{'-' * len(heading)}")
    try:
        jobs.PollJob(job_id, jobs.GetClient())
    except errors.GenericError as err:
        code, message = failures.FormatError(err)
        console.ToStderr(f"Job {job_id} failed: {message}")
        return code
    return constants.EXIT_SUCCESS


def _Ago(seconds: float) -> str:
    return f"{max(0, int(seconds))} s"


def FormatWaitReason(
    job_id: str, status: str, reason: Mapping[str, Any] | None, now: float
) -> list[str]:
    """Why a job waits, or what a running one is at, in words.

    @param reason: the field C{wait_reason}: None if it does not wait, else C{text} and C{locks}
    @param now: seconds since the epoch
    """
    if reason is None:
        return [f"Job {job_id} does not wait: its status is {status}"]
    if status == constants.JOB_STATUS_RUNNING:
        return [f"Job {job_id} is {reason['text']}"]
    lines = [f"Job {job_id} is {status}: {reason['text']}"]
    for lock in reason["locks"]:
        holders = [
            holder if since is None else f"{holder} for {_Ago(now - since)}"
            for holder, since in zip(lock["holders"], lock["held_since"], strict=True)
        ]
        held = ", ".join(holders) or "nobody (any more)"
        mode = f" ({lock['held']})" if lock["held"] else ""
        wanted = "" if lock["since"] is None else f" for {_Ago(now - lock['since'])}"
        lines.append(f"  {lock['name']}: wanted {lock['mode']}{wanted}, held by {held}{mode}")
        if lock["ahead"]:
            lines.append(f"    ahead of it: {', '.join(lock['ahead'])}")
    return lines


def _FormatRunning(job_id: str, values: Mapping[str, Any], now: float) -> list[str]:
    """What a running job is at that says nothing about it: its opcode, and its last words."""
    states = values["opstatus"]
    index = next(
        (idx for idx, state in enumerate(states) if state not in constants.OPS_FINALIZED), None
    )
    if index is None:
        return [f"Job {job_id} is about to end"]
    which = f" (opcode {index + 1} of {len(states)})" if len(states) > 1 else ""
    start = values["opexec"][index]
    since = "" if start is None else f" for {_Ago(now - start[0])}"
    lines = [f"Job {job_id} is running: {values['summary'][index]}{which}{since}"]
    if values["oplog"][index]:
        lines.append(f"  its last message: {values['oplog'][index][-1][3]}")
    return lines


def WhyJob(opts: Any, args: list[str]) -> int:
    """Say what jobs wait for, and who would have to let go; of running ones what takes long."""
    from .. import runtime

    fields = ["status", "wait_reason", "summary", "opstatus", "opexec", "oplog"]
    rows = jobs.GetClient().QueryJobs(args, fields)
    now = runtime.DEFAULT.clock.time()
    code: int = constants.EXIT_SUCCESS
    for job_id, row in zip(args, rows, strict=True):
        if row is None:
            console.ToStderr(f"No such job: {job_id}")
            code = constants.EXIT_FAILURE
            continue
        status, reason = row[:2]
        if status == constants.JOB_STATUS_RUNNING and reason is None:
            lines = _FormatRunning(job_id, dict(zip(fields, row, strict=True)), now)
        else:
            lines = FormatWaitReason(job_id, status, reason, now)
        for line in lines:
            console.ToStdout(line)
    return code


_MANY_JOBS: Final = (parser.ArgJobId(1),)

COMMANDS: Final[dict[str, parser.Command]] = {
    "list": parser.Command(
        ListJobs, (parser.ArgJobId(),),
        (
            *options.LIST_OPTS,
            options.Flag("--pending", help="Only jobs that wait"),
            options.Flag("--running", help="Only jobs that run"),
            options.Flag("--error", help="Only jobs that failed"),
            options.Flag("--finished", help="Only jobs that have ended"),
        ),
        "[job_id...]",
        "List the jobs and their status. "
        + output.DescribeFields(LIST_COLUMNS, LIST_DEFAULT_FIELDS),
    ),
    "archive": parser.Command(
        ArchiveJobs, _MANY_JOBS, (), "<job-id> [<job-id>...]", "Archive specified jobs",
        dry_run=False,
    ),
    "autoarchive": parser.Command(
        AutoArchiveJobs, (parser.ArgSuggest(["1d", "1w", "4w", "all"], 1, 1),), (), "<age>|all",
        "Auto archive jobs older than the given age", dry_run=False,
    ),
    "cancel": parser.Command(
        CancelJobs, _MANY_JOBS, (), "<job-id> [<job-id>...]", "Cancel specified jobs",
        dry_run=False,
    ),
    "change-priority": parser.Command(
        ChangePriority, _MANY_JOBS, (options.PRIORITY_OPT,),
        "--priority low|normal|high <job-id> [<job-id>...]",
        "Change the priority of jobs that have not started", dry_run=False,
    ),
    "info": parser.Command(
        ShowJobs, _MANY_JOBS, (), "<job-id> [<job-id>...]",
        "Show detailed information about the specified jobs",
    ),
    "watch": parser.Command(
        WatchJob, (parser.ArgJobId(1, 1),), (), "<job-id>",
        "Follows a job and prints its output as it arrives",
    ),
    "why": parser.Command(
        WhyJob, _MANY_JOBS, (), "<job-id> [<job-id>...]",
        "Say what jobs wait for, and which jobs hold it",
    ),
}  # fmt: skip


def Main() -> int:
    """Run gnt-job."""
    return main.GenericMain(COMMANDS)

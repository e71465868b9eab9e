"""gnt-debug: tests, and looks inside of the master daemon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from .. import constants, errors, luxi
from . import console, jobs, main, options, output, parser, values


def Delay(opts: Any, args: list[str]) -> int:
    """Sleep on the master and on nodes."""
    try:
        duration = float(args[0])
    except ValueError:
        raise errors.OpPrereqError(
            f"Invalid duration '{args[0]}': give a number of seconds", errors.ECODE_INVAL
        ) from None
    from .. import opcodes

    op = opcodes.OpTestDelay(duration=duration, on_master=opts.on_master, on_nodes=opts.on_nodes)
    jobs.SubmitOrSend(op, opts)
    return constants.EXIT_SUCCESS


# Jobs from files


def LoadOpCodes(file_name: str, content: str) -> list[Any]:
    """The opcodes of a file: a JSON list of objects.

    @raise errors.OpPrereqError: C{wrong_input}, naming the file
    """
    from .. import opcodes, serializer

    try:
        data = serializer.Load(content)
    except ValueError as err:
        raise errors.OpPrereqError(f"{file_name} is no JSON: {err}", errors.ECODE_INVAL) from err
    if not isinstance(data, list) or not data:
        raise errors.OpPrereqError(
            f"{file_name} must hold a list of opcodes, each an object with its OP_ID",
            errors.ECODE_INVAL,
        )
    try:
        return [opcodes.OpCode.LoadOpCode(op) for op in data]
    except errors.OpPrereqError as err:
        raise errors.OpPrereqError(f"{file_name}: {err.args[0]}", errors.ECODE_INVAL) from err


def _ReadJobFile(file_name: str) -> str:
    try:
        with open(file_name, encoding="utf-8") as fobj:
            return fobj.read()
    except (OSError, ValueError) as err:
        raise errors.OpPrereqError(
            f"{file_name} can not be read: {err}", errors.ECODE_INVAL
        ) from err


def GenericOpCodes(opts: Any, args: list[str]) -> int:
    """Submit jobs whose opcodes stand in files."""
    from .. import runtime

    clock = runtime.DEFAULT.clock
    cl = jobs.GetClient()
    executor = jobs.JobExecutor(cl, verbose=opts.verbose, opts=opts)

    def Tell(message: str) -> None:
        if opts.timing_stats:
            console.ToStdout(message)

    Tell("Loading...")
    op_count = job_count = 0
    for name in args:
        ops = LoadOpCodes(name, _ReadJobFile(name)) * opts.op_repeat
        for index in range(opts.job_repeat):
            executor.QueueJob(f"file {name}/{index}", *ops)
            op_count += len(ops)
            job_count += 1

    Tell("Submitting...")
    begin = clock.monotonic()
    executor.SubmitPending()
    submitted = clock.monotonic()
    Tell("Executing...")
    results = executor.GetResults()
    end = clock.monotonic()
    for label, count in (("C:op", op_count), ("C:job", job_count)):
        Tell(f"{label:<7} {count:4d}")
    for label, seconds in (
        ("T:submit", submitted - begin),
        ("T:exec", end - submitted),
        ("T:total", end - begin),
    ):
        Tell(f"{label:<8} {seconds:.4f}")
    return jobs.GetExitCode(results)


# Allocators

#: Modes that are about the whole cluster.
_MODES_WITHOUT_NAME: Final = frozenset(
    [constants.IALLOCATOR_MODE_BALANCE, constants.IALLOCATOR_MODE_CAPACITY]
)


def ParseNics(value: str) -> list[dict[str, str | None]]:
    """Network interfaces of C{mac/ip/bridge,...}; what is missing or empty is None."""
    nics = []
    for one in value.split(","):
        parts: list[str | None] = [part or None for part in one.split("/")]
        mac, ip, bridge = (parts + [None] * 3)[:3]
        nics.append({"mac": mac, "ip": ip, "bridge": bridge})
    return nics


def TestAllocator(opts: Any, args: list[str]) -> int:
    """Show what an allocator would be asked, or what it answers."""
    if not args and opts.mode not in _MODES_WITHOUT_NAME:
        console.ToStderr("Error: Command allocator expects at least 1 argument(s)")
        return constants.EXIT_FAILURE
    try:
        disks = [
            {"size": values.ParseSize("--disks", size), "mode": "w"}
            for size in opts.disks.split(",")
        ]
    except errors.OpPrereqError as err:
        console.ToStderr(f"Invalid disks parameter '{opts.disks}': {err.args[0]}")
        return constants.EXIT_FAILURE
    from .. import opcodes

    op = opcodes.OpTestAllocator(
        mode=opts.mode,
        name=args[0] if args else None,
        evac_nodes=args,
        mem_size=opts.mem,
        disks=disks,
        disk_template=opts.disk_template,
        nics=ParseNics(opts.nics),
        os=opts.os,
        vcpus=opts.vcpus,
        tags=opts.tags.split(",") if opts.tags else [],
        direction=opts.direction,
        allocator=opts.iallocator,
    )
    if opts.max_moves is not None:
        op.max_moves = opts.max_moves
    console.ToStdout(str(jobs.SubmitOpCode(op)).rstrip("\n"))
    return constants.EXIT_SUCCESS


# Locks


def _FormatOwners(value: Any) -> str:
    return ",".join(value) if value else output.NOTHING


def _FormatPending(value: Any) -> str:
    return " ".join(f"{mode}:{','.join(names)}" for mode, names in value or ()) or output.NOTHING


LOCK_COLUMNS: Final = output.Columns(
    {
        "name": output.Column("Name"),
        "mode": output.Column("Mode", output.FormatDash),
        "owner": output.Column("Owner", _FormatOwners),
        "pending": output.Column("Pending", _FormatPending),
    }
)


def SelectUsedLocks(rows: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """Of rows that begin with owner and pending, those of locks that somebody holds or wants."""
    return [row for row in rows if row[0] or row[1]]


def ListLocks(opts: Any, args: list[str]) -> int:
    """List who holds and who waits for each lock."""
    cl = jobs.GetClient()

    def Query(fields: list[str]) -> Sequence[Any]:
        unknown = [field for field in fields if field not in luxi.LOCK_FIELDS]
        if unknown:
            raise errors.OpPrereqError(
                f"Unknown output fields selected: {','.join(unknown)}", errors.ECODE_INVAL
            )
        rows: Sequence[Any] = cl.QueryLocks(["owner", "pending", *fields])
        return [row[2:] for row in (SelectUsedLocks(rows) if opts.used else rows)]

    if not opts.watch:
        return output.GenericList(LOCK_COLUMNS, luxi.LOCK_FIELDS, Query, opts)
    from .. import runtime

    try:
        while True:
            output.GenericList(LOCK_COLUMNS, luxi.LOCK_FIELDS, Query, opts)
            runtime.DEFAULT.clock.sleep(opts.interval)
            console.ToStdout("")
    except KeyboardInterrupt:
        return constants.EXIT_SUCCESS


COMMANDS: Final[dict[str, parser.Command]] = {
    "delay": parser.Command(
        Delay, (parser.ArgUnknown(1, 1),),
        (
            options.Flag(
                "--no-master", dest="on_master", action="store_false", default=True,
                help="Do not sleep in the master code",
            ),
            options.Repeated(
                "-n", dest="on_nodes", metavar="NODE", complete=options.COMPLETE_NODE,
                help="Node to sleep on (can be given multiple times)",
            ),
            *options.JOB_OPTS,
        ),
        "[--no-master] [-n node...] <duration>", "Executes a TestDelay OpCode",
    ),
    "submit-job": parser.Command(
        GenericOpCodes, (parser.ArgFile(1),),
        (
            options.VERBOSE_OPT,
            options.Opt(
                "--op-repeat", type="int", default=1, metavar="N",
                help="Repeat the opcodes inside of each job",
            ),
            options.Opt(
                "--job-repeat", type="int", default=1, metavar="N",
                help="Submit each job that many times",
            ),
            options.Flag("--timing-stats", help="Show how long it took"),
            options.PRIORITY_OPT,
        ),
        "<op_list_file...>", "Submits jobs built from json files containing a list of serialized"
        " opcodes",
    ),
    "allocator": parser.Command(
        TestAllocator, (parser.ArgUnknown(),),
        (
            options.Opt(
                "--dir", dest="direction", default=constants.IALLOCATOR_DIR_IN,
                choices=sorted(constants.VALID_IALLOCATOR_DIRECTIONS), metavar="in|out",
                help="Show the input of the allocator (in) or its answer (out)",
            ),
            options.IALLOCATOR_OPT,
            options.Opt(
                "-m", "--mode", default=constants.IALLOCATOR_MODE_RELOC, metavar="MODE",
                choices=sorted(constants.VALID_IALLOCATOR_MODES),
                help="What to ask: " + ", ".join(sorted(constants.VALID_IALLOCATOR_MODES)),
            ),
            options.Opt(
                "--mem", type=options.TYPE_UNIT, default=128, metavar="SIZE",
                help="Memory of the instance",
            ),
            options.Opt(
                "--disks", default="4096,4096", metavar="LIST",
                help="Comma separated list of disk sizes",
            ),
            options.DISK_TEMPLATE_OPT,
            options.Opt(
                "--nics", default="00:11:22:33:44:55", metavar="LIST",
                help="Comma separated list of network interfaces, each mac/ip/bridge",
            ),
            options.OS_OPT,
            options.Opt(
                "-p", "--vcpus", type="int", default=1, metavar="N",
                help="Virtual CPUs of the instance",
            ),
            options.Opt("--tags", default=None, metavar="LIST", help="Comma separated tags"),
            options.Opt(
                "--max-moves", type="int", default=None, metavar="N",
                help="Mode balance: most moves allowed",
            ),
        ),
        "[opts...] {<instance> | <node>...}", "Executes a TestAllocator OpCode", dry_run=False,
    ),
    "locks": parser.Command(
        ListLocks, parser.ARGS_NONE,
        (
            *options.LIST_OPTS,
            options.Flag("--used", help="Only locks that somebody holds or waits for"),
            options.Flag("--watch", help="Show them again and again, until interrupted"),
            options.Opt(
                "--interval", type="float", default=2.0, metavar="SECONDS",
                help="Time between two looks with --watch",
            ),
        ),
        "[--used] [--watch]",
        "Show who holds and who waits for locks in the master daemon. "
        + output.DescribeFields(LOCK_COLUMNS, luxi.LOCK_FIELDS),
    ),
}  # fmt: skip


def Main() -> int:
    """Run gnt-debug."""
    return main.GenericMain(COMMANDS)

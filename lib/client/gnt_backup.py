"""C{gnt-backup}: exports of instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .. import constants, errors
from ..utils import text
from . import console, instance_create, jobs, main, options, parser

#: Some disks were exported, some were not.
EXIT_PARTIAL: Final = 2


def PrintExportList(opts: Any, args: list[str]) -> int:
    """Print the exports on each node."""
    exports = jobs.GetClient().QueryExports(opts.nodes, False)
    code = constants.EXIT_SUCCESS
    for node in text.NiceSort(exports):
        console.ToStdout(f"Node: {node}")
        console.ToStdout("Exports:")
        names = exports[node]
        if isinstance(names, list):
            for name in text.NiceSort(names):
                console.ToStdout(f"\t{name}")
        else:
            console.ToStdout("  Could not get exports list")
            code = constants.EXIT_FAILURE
    return code


def JudgeExport(result: Any) -> tuple[int, str | None]:
    """Exit code of an export, and what to tell.

    @param result: [was the export finished, [was the disk exported, ...]]
    """
    if not (
        isinstance(result, (list, tuple))
        and len(result) == 2
        and isinstance(result[0], bool)
        and isinstance(result[1], (list, tuple))
        and all(isinstance(item, bool) for item in result[1])
    ):
        return constants.EXIT_FAILURE, f"Can't understand the result of the export: {result!r}"
    finished, disks = result
    good = sum(disks)
    bad = len(disks) - good
    code, message = constants.EXIT_SUCCESS, None
    if bad and not good:
        code = constants.EXIT_FAILURE
        message = "Error: No disks were backed up successfully. The export is of no use."
    elif bad:
        code = EXIT_PARTIAL
        message = f"Partial export failure: {good} disks backed up, {bad} disks failed."
    if not finished:
        code = constants.EXIT_FAILURE
        message = message or "Error: The export could not be finished; see the job's log."
    return code, message


def ExportInstance(opts: Any, args: list[str]) -> int:
    """Export an instance to a node."""
    from .. import opcodes

    if opts.node is None:
        raise errors.OpPrereqError(
            "No target node given: say where to keep the export with '-n NODE'", errors.ECODE_INVAL
        )
    op = opcodes.OpBackupExport(
        instance_name=args[0],
        target_node=opts.node,
        shutdown=opts.shutdown,
        shutdown_timeout=opts.shutdown_timeout,
    )
    result = jobs.SubmitOrSend(op, opts)
    if result is None and opts.dry_run:
        return constants.EXIT_SUCCESS
    code, message = JudgeExport(result)
    if message is not None:
        console.ToStderr(message)
    return code


def ImportInstance(opts: Any, args: list[str]) -> int:
    """Create an instance from an export."""
    op = instance_create.BuildCreateOp(opts, args[0], constants.INSTANCE_IMPORT)
    jobs.SubmitOrSend(op, opts)
    return constants.EXIT_SUCCESS


def RemoveExport(opts: Any, args: list[str]) -> int:
    """Remove the export of an instance from all nodes."""
    from .. import opcodes

    jobs.SubmitOrSend(opcodes.OpBackupRemove(instance_name=args[0]), opts)
    return constants.EXIT_SUCCESS


_NOSHUTDOWN_OPT: Final = options.Flag(
    "--noshutdown",
    action="store_false",
    default=True,
    dest="shutdown",
    help="Don't shut the instance down while snapshots are taken: they may be inconsistent",
)
_SRC_NODE_OPT: Final = options.Opt(
    "--src-node",
    default=None,
    metavar="NODE",
    complete=options.COMPLETE_NODE,
    help="Node that has the export; by default all nodes are searched",
)
_SRC_DIR_OPT: Final = options.Opt(
    "--src-dir",
    default=None,
    metavar="DIR",
    complete=options.COMPLETE_FILE,
    help="Directory of the export; by default the instance's name",
)
_IDENTIFY_DEFAULTS_OPT: Final = options.Flag(
    "--identify-defaults",
    help="Don't store parameters that equal the present defaults of the cluster",
)

COMMANDS: Final[Mapping[str, parser.Command]] = {
    "list": parser.Command(
        PrintExportList,
        parser.ARGS_NONE,
        (options.NODE_LIST_OPT,),
        "",
        "Lists instance exports available in the ganeti cluster",
    ),
    "export": parser.Command(
        ExportInstance,
        parser.ARGS_ONE_INSTANCE,
        (
            options.FORCE_OPT,
            options.SINGLE_NODE_OPT,
            _NOSHUTDOWN_OPT,
            options.SHUTDOWN_TIMEOUT_OPT,
            *options.JOB_OPTS,
        ),
        "-n <target_node> [opts...] <name>",
        "Exports an instance to an image",
    ),
    "import": parser.Command(
        ImportInstance,
        parser.ARGS_ONE_INSTANCE,
        (*instance_create.COMMON_OPTS, _SRC_NODE_OPT, _SRC_DIR_OPT, _IDENTIFY_DEFAULTS_OPT),
        "[...] -t disk-type -n node[:secondary-node] <name>",
        "Imports an instance from an exported image",
    ),
    "remove": parser.Command(
        RemoveExport,
        (parser.ArgUnknown(1, 1),),
        options.JOB_OPTS,
        "<name>",
        "Remove exports of named instance from the filesystem.",
    ),
}


def Main(argv: Sequence[str] | None = None) -> int:
    """The program."""
    return main.GenericMain(COMMANDS, argv=argv)

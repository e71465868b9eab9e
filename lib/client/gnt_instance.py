"""C{gnt-instance}: everything about instances.

The table of its commands, and those of an instance's life. What a command needs beside jobs and
queries is imported where it is used: a listing has to be there at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from .. import constants
from ..utils import text
from . import (
    console,
    instance_columns,
    instance_create,
    instance_disks,
    instance_modify,
    instance_moves,
    instance_select,
    jobs,
    main,
    options,
    output,
    parser,
    tags,
)

if TYPE_CHECKING:
    from .. import opcodes

# Listing


def ListInstances(opts: Any, args: list[str]) -> int:
    """Print a table of instances."""
    return output.GenericList(
        instance_columns.COLUMNS,
        instance_columns.DEFAULT_FIELDS,
        lambda fields: jobs.GetClient().QueryInstances(args, fields, False),
        opts,
    )


def ShowInstanceInfo(opts: Any, args: list[str]) -> int:
    """Print all about instances."""
    from .. import opcodes
    from . import instance_info

    if bool(args) == bool(opts.show_all):
        console.ToStderr(
            "Both names and --all are given: leave one out"
            if args
            else "No instance given: name some, or use --all for all of them"
        )
        return constants.EXIT_FAILURE
    op = opcodes.OpInstanceQueryData(instances=args, static=opts.static)
    result = jobs.SubmitOpCode(op, opts=opts)
    if result is None and opts.dry_run:
        return constants.EXIT_SUCCESS
    if not result:
        console.ToStdout("No instances.")
        return constants.EXIT_FAILURE
    for name in text.NiceSort(result):
        lines = instance_info.DescribeInstance(result[name], opts.static, opts.roman_integers)
        console.ToStdout("\n".join(lines))
    return constants.EXIT_SUCCESS


# Creation


def AddInstance(opts: Any, args: list[str]) -> int:
    """Create an instance."""
    op = instance_create.BuildCreateOp(opts, args[0], constants.INSTANCE_CREATE)
    jobs.SubmitOrSend(op, opts)
    return constants.EXIT_SUCCESS


def BatchCreate(opts: Any, args: list[str]) -> int:
    """Submit a job for each instance of a file; nothing is submitted if one entry is wrong."""
    try:
        specs = instance_create.ReadSpecs(args[0])
    except instance_create.SpecFileError as err:
        console.ToStderr(str(err))
        return constants.EXIT_FAILURE
    ops = {name: instance_create.BuildBatchOp(name, spec) for name, spec in specs.items()}
    for name, spec in specs.items():
        for field in instance_create.FindUnknownFields(spec):
            console.ToStderr(f"Warning: instance '{name}': unknown field '{field}' is ignored")
    executor = jobs.JobExecutor(opts=opts)
    for name, op in ops.items():
        executor.QueueJob(name, op)
    return jobs.GetExitCode(executor.WaitOrShow(False))


# Several instances at once


def _MultiOperation(
    opts: Any,
    args: Sequence[str],
    operation: str,
    make_op: Callable[[str], opcodes.OpCode],
) -> int:
    """Submit a job for each selected instance, wait for them unless told otherwise."""
    cl = jobs.GetClient()
    names = instance_select.ExpandMultiNames(opts.multi_mode, args, cl)
    if not instance_select.ConfirmMultiple(opts, names, operation):
        return constants.EXIT_FAILURE
    return _SubmitForEach(opts, cl, names, make_op)


def _SubmitForEach(
    opts: Any, cl: Any, names: Sequence[str], make_op: Callable[[str], opcodes.OpCode]
) -> int:
    executor = jobs.JobExecutor(cl, instance_select.IsMultiple(opts, names), opts)
    for name in names:
        executor.QueueJob(name, make_op(name))
    return jobs.GetExitCode(executor.WaitOrShow(not opts.submit_only))


def StartupInstance(opts: Any, args: list[str]) -> int:
    """Start instances."""
    from .. import opcodes

    changes: dict[str, Any] = {}
    if opts.hvparams:
        changes["hvparams"] = opts.hvparams
    if opts.beparams:
        changes["beparams"] = opts.beparams

    def _MakeOp(name: str) -> opcodes.OpCode:
        return opcodes.OpInstanceStartup(instance_name=name, force=opts.force, **changes)

    return _MultiOperation(opts, args, "startup", _MakeOp)


def ShutdownInstance(opts: Any, args: list[str]) -> int:
    """Stop instances."""
    from .. import opcodes

    def _MakeOp(name: str) -> opcodes.OpCode:
        return opcodes.OpInstanceShutdown(instance_name=name, timeout=opts.timeout)

    return _MultiOperation(opts, args, "shutdown", _MakeOp)


def RebootInstance(opts: Any, args: list[str]) -> int:
    """Reboot instances."""
    from .. import opcodes

    def _MakeOp(name: str) -> opcodes.OpCode:
        return opcodes.OpInstanceReboot(
            instance_name=name,
            reboot_type=opts.reboot_type,
            ignore_secondaries=opts.ignore_secondaries,
            shutdown_timeout=opts.shutdown_timeout,
        )

    return _MultiOperation(opts, args, "reboot", _MakeOp)


def _GetOsNames(rows: Sequence[Sequence[Any]]) -> list[str]:
    """What can be installed, of rows with name, validity and variants of each OS."""
    names = []
    for name, valid, variants in rows:
        if valid:
            names += [f"{name}+{variant}" for variant in variants or ()] or [name]
    return text.NiceSort(names)


def _SelectOs(cl: Any) -> str | None:
    """Let the user choose an OS; None if there is none, or the user wants none."""
    from .. import opcodes

    op = opcodes.OpOsDiagnose(output_fields=["name", "valid", "variants"], names=[])
    names = _GetOsNames(jobs.SubmitOpCode(op, cl) or [])
    if not names:
        console.ToStdout("Can't get the list of operating systems")
        return None
    console.ToStdout("Available OS templates:")
    choices: list[console.Choice] = []
    for number, name in enumerate(names):
        console.ToStdout(f"{number:3d}: {name}")
        choices.append((str(number), name, name))
    choices.append(("x", None, "Exit gnt-instance reinstall"))
    chosen = console.AskUser("Enter OS template number (or x to abort):", choices)
    if chosen is None:
        console.ToStderr("User aborted reinstall")
        return None
    return str(chosen)


def ReinstallInstance(opts: Any, args: list[str]) -> int:
    """Install instances again."""
    from .. import opcodes

    cl = jobs.GetClient()
    names = instance_select.ExpandMultiNames(opts.multi_mode, args, cl)
    os_name = opts.os
    if opts.select_os:
        os_name = _SelectOs(cl)
        if os_name is None:
            return constants.EXIT_FAILURE
    what = f"with OS '{os_name}'" if os_name else "with their present OS"
    warning = f"This will install them {what} and REMOVE all data on their disks.\n"
    if instance_select.IsMultiple(opts, names):
        sure = (
            (opts.force and opts.force_multi)
            or opts.dry_run
            or console.ConfirmOperation(names, "reinstall", extra=warning)
        )
    else:
        sure = (
            opts.force
            or opts.dry_run
            or console.Confirm(
                f"This will reinstall the instance '{names[0]}' and REMOVE all data. Continue?"
            )
        )
    if not sure:
        return constants.EXIT_FAILURE

    def _MakeOp(name: str) -> opcodes.OpCode:
        return opcodes.OpInstanceReinstall(
            instance_name=name, os_type=os_name, force_variant=opts.force_variant
        )

    return _SubmitForEach(opts, cl, names, _MakeOp)


# One instance


def RemoveInstance(opts: Any, args: list[str]) -> int:
    """Remove an instance."""
    from .. import opcodes

    (name,) = args
    cl = jobs.GetClient()
    question = f"This will remove the volumes of the instance {name} (including mirrors), thus"
    if not instance_select.MayGoOn(opts, cl, name, f"{question} removing all its data."):
        return constants.EXIT_FAILURE
    op = opcodes.OpInstanceRemove(
        instance_name=name,
        ignore_failures=opts.ignore_failures,
        shutdown_timeout=opts.shutdown_timeout,
    )
    jobs.SubmitOrSend(op, opts, cl)
    return constants.EXIT_SUCCESS


def RenameInstance(opts: Any, args: list[str]) -> int:
    """Give an instance another name."""
    from .. import opcodes

    name, new_name = args
    op = opcodes.OpInstanceRename(
        instance_name=name, new_name=new_name, ignore_ip=not opts.ip_check
    )
    jobs.SubmitOrSend(op, opts)
    return constants.EXIT_SUCCESS


def ConnectToInstanceConsole(opts: Any, args: list[str]) -> int:
    """Become the program that shows an instance's console, or print its command line."""
    from .. import opcodes

    op = opcodes.OpInstanceConsole(instance_name=args[0])
    argv = jobs.SubmitOpCode(op, opts=opts)
    if argv is None and opts.dry_run:
        return constants.EXIT_SUCCESS
    if opts.show_command:
        console.ToStdout(text.ShellQuoteArgs(argv))
        return constants.EXIT_SUCCESS
    try:
        os.execvp(argv[0], argv)
    except OSError as err:
        console.ToStderr(f"Can't run the console command {text.ShellQuoteArgs(argv)}: {err}")
    return constants.EXIT_FAILURE


# The table

_ONE: Final = parser.ARGS_ONE_INSTANCE
_MANY: Final = parser.ARGS_MANY_INSTANCES
#: Several jobs have several ids, which are printed anyway.
_MULTI_OPTS: Final = (
    *instance_select.SELECTORS,
    instance_select.FORCE_MULTIPLE_OPT,
    options.SUBMIT_OPT,
    options.PRIORITY_OPT,
)

_SHOWCMD_OPT: Final = options.Flag(
    "--show-cmd",
    dest="show_command",
    help="Instead of executing the command that connects to the console, print it",
)
_CLEANUP_OPT: Final = options.Flag(
    "--cleanup", help="Instead of migrating, tidy up after a migration that failed"
)
_STATIC_OPT: Final = options.Flag(
    "-s", "--static", help="Only show what the configuration knows; ask no node"
)
_ALL_OPT: Final = options.Flag("--all", dest="show_all", help="Show info on all instances")
_SELECT_OS_OPT: Final = options.Flag(
    "--select-os", help="Show the available operating systems and ask which one to install"
)
_IGNORE_FAILURES_OPT: Final = options.Flag(
    "--ignore-failures", help="Remove the instance from the configuration whatever fails"
)
_TIMEOUT_OPT: Final = options.Opt(
    "--timeout",
    type="int",
    default=constants.DEFAULT_SHUTDOWN_TIMEOUT,
    metavar="SECONDS",
    help="How long the guest may take to shut down before it is killed",
)
_REBOOT_TYPE_OPT: Final = options.Opt(
    "-t",
    "--type",
    dest="reboot_type",
    default=constants.INSTANCE_REBOOT_HARD,
    choices=[
        constants.INSTANCE_REBOOT_SOFT,
        constants.INSTANCE_REBOOT_HARD,
        constants.INSTANCE_REBOOT_FULL,
    ],
    metavar="soft|hard|full",
    help="In the guest (soft), by the hypervisor (hard), or shutdown and startup (full)",
)
_IGNORE_SECONDARIES_OPT: Final = options.Flag(
    "--ignore-secondaries", help="Full reboot: go on although the secondary's disks fail"
)
_IGNORE_SIZE_OPT: Final = options.Flag(
    "--ignore-size", help="Don't compare the size of the disks with the recorded one"
)
_AUTO_OPT: Final = options.Flag(
    "-a", "--auto", help="Replace the faulty disks, wherever they are, if one side is good"
)
_ON_PRIMARY_OPT: Final = options.Flag(
    "-p", "--on-primary", help="Replace the disks on the primary node"
)
_ON_SECONDARY_OPT: Final = options.Flag(
    "-s", "--on-secondary", help="Replace the disks on the secondary node"
)
_NOSTART_OPT: Final = options.Flag(
    "--no-start",
    action="store_false",
    default=True,
    dest="start",
    help="Don't start the instance after creation",
)
_NOINSTALL_OPT: Final = options.Flag(
    "--no-install", help="Don't install the OS: the disks stay empty and it is not started"
)

COMMANDS: Final[Mapping[str, parser.Command]] = {
    "add": parser.Command(
        AddInstance,
        (parser.ArgHost(1, 1),),
        (
            *instance_create.COMMON_OPTS,
            _NOSTART_OPT,
            options.OS_OPT,
            options.FORCE_VARIANT_OPT,
            _NOINSTALL_OPT,
        ),
        "[...] -t disk-type -n node[:secondary-node] -o os-type <name>",
        "Creates and adds a new instance to the cluster",
    ),
    "batch-create": parser.Command(
        BatchCreate,
        (parser.ArgFile(1, 1),),
        (options.PRIORITY_OPT,),
        "<instances.json>",
        "Create a bunch of instances based on specs in the file.",
    ),
    "console": parser.Command(
        ConnectToInstanceConsole,
        _ONE,
        (_SHOWCMD_OPT, options.PRIORITY_OPT),
        "[--show-cmd] <instance>",
        "Opens a console on the specified instance",
    ),
    "failover": parser.Command(
        instance_moves.FailoverInstance,
        _ONE,
        (
            options.FORCE_OPT,
            options.IGNORE_CONSIST_OPT,
            options.SHUTDOWN_TIMEOUT_OPT,
            options.MOVE_TARGET_OPT,
            options.IALLOCATOR_OPT,
            *options.JOB_OPTS,
        ),
        "[-f] [-n <target> | -I <iallocator>] <instance>",
        "Stops the instance and starts it on the backup node, using the remote mirror (only for"
        " instances of type drbd), or on any node (sharedfile)",
    ),
    "migrate": parser.Command(
        instance_moves.MigrateInstance,
        _ONE,
        (
            options.FORCE_OPT,
            options.NONLIVE_OPT,
            _CLEANUP_OPT,
            options.MOVE_TARGET_OPT,
            options.IALLOCATOR_OPT,
            *options.JOB_OPTS,
        ),
        "[-f] [-n <target> | -I <iallocator>] <instance>",
        "Migrate instance to its secondary node (only for instances of type drbd), or to any node"
        " (sharedfile)",
    ),
    "move": parser.Command(
        instance_moves.MoveInstance,
        _ONE,
        (
            options.FORCE_OPT,
            options.SINGLE_NODE_OPT,
            options.SHUTDOWN_TIMEOUT_OPT,
            options.IGNORE_CONSIST_OPT,
            *options.JOB_OPTS,
        ),
        "[-f] -n <newnode> <instance>",
        "Move instance to an arbitrary node (only for instances of type file and lv)",
    ),
    "info": parser.Command(
        ShowInstanceInfo,
        _MANY,
        (_STATIC_OPT, _ALL_OPT, options.ROMAN_OPT, options.PRIORITY_OPT),
        "[-s] {--all | <instance>...}",
        "Show information on the specified instance(s)",
    ),
    "list": parser.Command(
        ListInstances,
        _MANY,
        (*options.LIST_OPTS, options.USEUNITS_OPT, options.SYNC_OPT, options.ROMAN_OPT),
        "[<instance>...]",
        f"Lists the instances and their status. {instance_columns.DescribeFields()}",
    ),
    "reinstall": parser.Command(
        ReinstallInstance,
        _MANY,
        (
            options.FORCE_OPT,
            options.OS_OPT,
            options.FORCE_VARIANT_OPT,
            _SELECT_OS_OPT,
            *_MULTI_OPTS,
        ),
        "[-f] <instance>...",
        "Reinstall a stopped instance",
    ),
    "remove": parser.Command(
        RemoveInstance,
        _ONE,
        (
            options.FORCE_OPT,
            options.SHUTDOWN_TIMEOUT_OPT,
            _IGNORE_FAILURES_OPT,
            *options.JOB_OPTS,
        ),
        "[-f] <instance>",
        "Shuts down the instance and removes it",
    ),
    "rename": parser.Command(
        RenameInstance,
        (parser.ArgInstance(1, 1), parser.ArgHost(1, 1)),
        (options.NOIPCHECK_OPT, *options.JOB_OPTS),
        "<instance> <new_name>",
        "Rename the instance",
    ),
    "replace-disks": parser.Command(
        instance_disks.ReplaceDisks,
        _ONE,
        (
            _AUTO_OPT,
            options.DISKIDX_OPT,
            options.IALLOCATOR_OPT,
            options.EARLY_RELEASE_OPT,
            options.NEW_SECONDARY_OPT,
            _ON_PRIMARY_OPT,
            _ON_SECONDARY_OPT,
            *options.JOB_OPTS,
        ),
        "[-s|-p|-a|-n NODE|-I NAME] <instance>",
        "Replaces all disks for the instance",
    ),
    "modify": parser.Command(
        instance_modify.SetInstanceParams,
        _ONE,
        (
            options.BACKEND_OPT,
            options.DISK_OPT,
            options.FORCE_OPT,
            options.HVOPTS_OPT,
            options.NET_OPT,
            options.DISK_TEMPLATE_OPT,
            options.SINGLE_NODE_OPT,
            options.OS_OPT,
            options.FORCE_VARIANT_OPT,
            *options.JOB_OPTS,
        ),
        "<instance>",
        "Alters the parameters of an instance",
    ),
    "shutdown": parser.Command(
        ShutdownInstance,
        _MANY,
        (_TIMEOUT_OPT, *_MULTI_OPTS),
        "<instance>...",
        "Stops an instance",
    ),
    "startup": parser.Command(
        StartupInstance,
        _MANY,
        (options.FORCE_OPT, options.HVOPTS_OPT, options.BACKEND_OPT, *_MULTI_OPTS),
        "<instance>...",
        "Starts an instance",
    ),
    "reboot": parser.Command(
        RebootInstance,
        _MANY,
        (
            _REBOOT_TYPE_OPT,
            _IGNORE_SECONDARIES_OPT,
            options.SHUTDOWN_TIMEOUT_OPT,
            *_MULTI_OPTS,
        ),
        "<instance>...",
        "Reboots an instance",
    ),
    "activate-disks": parser.Command(
        instance_disks.ActivateDisks,
        _ONE,
        (_IGNORE_SIZE_OPT, *options.JOB_OPTS),
        "<instance>",
        "Activate an instance's disks",
    ),
    "deactivate-disks": parser.Command(
        instance_disks.DeactivateDisks,
        _ONE,
        options.JOB_OPTS,
        "<instance>",
        "Deactivate an instance's disks",
    ),
    "recreate-disks": parser.Command(
        instance_disks.RecreateDisks,
        _ONE,
        (options.DISKIDX_OPT, *options.JOB_OPTS),
        "<instance>",
        "Recreate an instance's disks",
    ),
    "grow-disk": parser.Command(
        instance_disks.GrowDisk,
        (parser.ArgInstance(1, 1), parser.ArgUnknown(1, 1), parser.ArgUnknown(1, 1)),
        (options.NWSYNC_OPT, *options.JOB_OPTS),
        "<instance> <disk> <amount>",
        "Grow an instance's disk",
    ),
    **tags.GetCommands(constants.TAG_INSTANCE),
}

ALIASES: Final = {
    "activate_block_devs": "activate-disks",
    "replace_disks": "replace-disks",
    "start": "startup",
    "stop": "shutdown",
}


def Main(argv: Sequence[str] | None = None) -> int:
    """The program."""
    return main.GenericMain(
        COMMANDS, ALIASES, override={tags.TAG_TYPE: constants.TAG_INSTANCE}, argv=argv
    )

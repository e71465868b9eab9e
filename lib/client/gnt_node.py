"""gnt-node: the nodes of the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from .. import constants, errors, pathutils
from ..utils import text
from . import console, jobs, main, node_moves, options, output, parser, tags

LIST_DEFAULT_FIELDS: Final = (
    "name", "dtotal", "dfree", "mtotal", "mnode", "mfree", "pinst_cnt", "sinst_cnt",
)  # fmt: skip
LIST_COLUMNS: Final = output.Columns(
    {
        "name": output.Column("Node"),
        "pinst_cnt": output.Column("Pinst", numeric=True),
        "sinst_cnt": output.Column("Sinst", numeric=True),
        "pinst_list": output.Column("PriInstances", output.FormatList),
        "sinst_list": output.Column("SecInstances", output.FormatList),
        "pip": output.Column("PrimaryIP"),
        "sip": output.Column("SecondaryIP"),
        "dtotal": output.Column("DTotal", unit=True),
        "dfree": output.Column("DFree", unit=True),
        "mtotal": output.Column("MTotal", unit=True),
        "mnode": output.Column("MNode", unit=True),
        "mfree": output.Column("MFree", unit=True),
        "bootid": output.Column("BootID"),
        "ctotal": output.Column("CTotal", numeric=True),
        "cnodes": output.Column("CNodes"),
        "csockets": output.Column("CSockets"),
        "tags": output.Column("Tags", output.FormatList),
        "serial_no": output.Column("SerialNo", numeric=True),
        "master_candidate": output.Column("MasterC", output.FormatYN),
        "master": output.Column("IsMaster", output.FormatYN),
        "offline": output.Column("Offline", output.FormatYN),
        "drained": output.Column("Drained", output.FormatYN),
        "role": output.Column("Role"),
        "ctime": output.Column("CTime", output.FormatTime),
        "mtime": output.Column("MTime", output.FormatTime),
        "uuid": output.Column("UUID"),
    }
)

VOLUMES_DEFAULT_FIELDS: Final = ("node", "phys", "vg", "name", "size", "instance")


def _FormatNumber(value: Any) -> Any:
    """Volume sizes come as texts."""
    return output.UNKNOWN if value is None else text.TryConvert(int, value)


VOLUMES_COLUMNS: Final = output.Columns(
    {
        "node": output.Column("Node"),
        "phys": output.Column("PhysDev"),
        "vg": output.Column("VG"),
        "name": output.Column("Name"),
        "size": output.Column("Size", _FormatNumber, unit=True),
        "instance": output.Column("Instance"),
    }
)

STORAGE_DEFAULT_FIELDS: Final = (
    constants.SF_NODE, constants.SF_TYPE, constants.SF_NAME, constants.SF_SIZE,
    constants.SF_USED, constants.SF_FREE, constants.SF_ALLOCATABLE,
)  # fmt: skip
STORAGE_COLUMNS: Final = output.Columns(
    {
        constants.SF_NODE: output.Column("Node"),
        constants.SF_TYPE: output.Column("Type"),
        constants.SF_NAME: output.Column("Name"),
        constants.SF_SIZE: output.Column("Size", unit=True),
        constants.SF_USED: output.Column("Used", unit=True),
        constants.SF_FREE: output.Column("Free", unit=True),
        constants.SF_ALLOCATABLE: output.Column("Allocatable", output.FormatYN),
    }
)


# Adding and removing


_ADD_WARNING: Final = (
    "-- WARNING -- \n"
    "Performing this operation is going to replace the ssh daemon keypair\n"
    "on the target machine with the ones of the current one\n"
    "and grant full intra-cluster ssh root access to/from it\n"
)


#: The job did not do its work, and does not any more; with other errors it may.
_JOB_FAILURES: Final = (
    errors.OpPrereqError,
    errors.OpExecError,
    errors.HooksFailure,
    errors.ConfigurationError,
    errors.JobQueueError,
    errors.LockError,
    errors.ResolverError,
)


def AddNode(opts: Any, args: list[str]) -> int:
    """Make a machine a node of the cluster."""
    from ..utils import net

    cl = jobs.GetClient()
    rows = cl.QueryNodes([], ["name", "sip", "uuid"], False)
    known = {name: secondary_ip for name, secondary_ip, _ in rows}
    names = {uuid: name for name, _, uuid in rows}
    host = net.GetHostInfo(net.HostInfo.NormalizeName(names.get(args[0], args[0])))
    name = host.name
    if name in known and not opts.readd:
        console.ToStderr(f"Node {name} already in the cluster - please retry with '--readd'")
        return constants.EXIT_FAILURE
    if name not in known and opts.readd:
        console.ToStderr(f"Node {name} not in the cluster - please retry without '--readd'")
        return constants.EXIT_FAILURE
    from .. import opcodes

    def NewOp() -> opcodes.OpNodeAdd:
        return opcodes.OpNodeAdd(
            node_name=args[0],
            secondary_ip=known[name] if opts.readd else opts.secondary_ip,
            readd=opts.readd,
        )

    if opts.dry_run:
        # Nothing may be done to the machine, so only the master's checks can be made
        jobs.SubmitOpCode(NewOp(), cl, opts=opts)
        return constants.EXIT_SUCCESS
    # Before any secret leaves this host: can the machine be a node at all?
    check = NewOp()
    check.dry_run = True
    jobs.SubmitOpCode(check, cl, feedback_fn=lambda *_: None)
    if not (opts.readd or opts.force or pathutils.IsVirtual()):
        console.ToStderr(_ADD_WARNING)
        if not console.Confirm(f"Make {name} a node of this cluster?"):
            return constants.EXIT_FAILURE
    from .. import bootstrap, rpc

    rpc.Init()
    try:
        bootstrap.SetupNodeDaemon(
            cl.QueryConfigValues(["cluster_name"])[0],
            name,
            ssh_key_check=opts.ssh_key_check,
            user=console.User(),
        )
        try:
            jobs.SubmitOrSend(NewOp(), opts, cl)
        except _JOB_FAILURES:
            # A node that was one before keeps what it has, and so does one that somebody else has
            # added meanwhile.
            members = [row[0] for row in cl.QueryNodes([], ["name"], False)]
            problem = None if name in members else bootstrap.UndoNodeSetup(name, host.ip)
            if problem:
                console.ToStderr(f"Warning: {problem}")
            raise
    finally:
        rpc.Shutdown()
    return constants.EXIT_SUCCESS


def RemoveNode(opts: Any, args: list[str]) -> int:
    """Take a node out of the cluster."""
    from .. import opcodes

    jobs.SubmitOrSend(opcodes.OpNodeRemove(node_name=args[0]), opts)
    return constants.EXIT_SUCCESS


# Looking


def ListNodes(opts: Any, args: list[str]) -> int:
    """List nodes."""
    cl = jobs.GetClient()

    def Query(fields: list[str]) -> Sequence[Any]:
        return cl.QueryNodes(args, fields, False)

    return output.GenericList(LIST_COLUMNS, LIST_DEFAULT_FIELDS, Query, opts)


def _FormatInstances(role: str, names: Sequence[str]) -> list[str]:
    if not names:
        return [f"  {role} for no instances"]
    return [f"  {role} for instances:", *(f"    - {name}" for name in text.NiceSort(names))]


def ShowNodeInfo(opts: Any, args: list[str]) -> int:
    """Print what is known of nodes."""
    fields = [
        "name", "pip", "sip", "pinst_list", "sinst_list", "master_candidate", "drained", "offline",
    ]  # fmt: skip
    for row in jobs.GetClient().QueryNodes(args, fields, False):
        name, pip, sip, primary, secondary, candidate, drained, offline = row
        for line in (
            f"Node name: {name}",
            f"  primary ip: {pip}",
            f"  secondary ip: {sip}",
            f"  master candidate: {candidate}",
            f"  drained: {drained}",
            f"  offline: {offline}",
            *_FormatInstances("primary", primary),
            *_FormatInstances("secondary", secondary),
        ):
            console.ToStdout(line)
    return constants.EXIT_SUCCESS


def ListVolumes(opts: Any, args: list[str]) -> int:
    """List the logical volumes on nodes."""
    from .. import opcodes

    def Query(fields: list[str]) -> Sequence[Any]:
        rows: Sequence[Any] = jobs.SubmitOpCode(
            opcodes.OpNodeQueryvols(nodes=args, output_fields=fields)
        )
        return rows

    return output.GenericList(VOLUMES_COLUMNS, VOLUMES_DEFAULT_FIELDS, Query, opts)


# Storage units


def ListStorage(opts: Any, args: list[str]) -> int:
    """List storage units of nodes."""
    from .. import opcodes

    def Query(fields: list[str]) -> Sequence[Any]:
        rows: Sequence[Any] = jobs.SubmitOpCode(
            opcodes.OpNodeQueryStorage(
                nodes=args, storage_type=opts.storage_type, output_fields=fields
            )
        )
        return rows

    return output.GenericList(STORAGE_COLUMNS, STORAGE_DEFAULT_FIELDS, Query, opts)


def _CheckStorageType(storage_type: str) -> None:
    if storage_type not in constants.VALID_STORAGE_TYPES:
        raise errors.OpPrereqError(
            f"Unknown storage type '{storage_type}'; there are"
            f" {', '.join(sorted(constants.VALID_STORAGE_TYPES))}",
            errors.ECODE_INVAL,
        )


def ModifyStorage(opts: Any, args: list[str]) -> int:
    """Change a storage unit."""
    node, storage_type, name = args
    _CheckStorageType(storage_type)
    if opts.allocatable is None:
        console.ToStderr("No changes on the storage unit requested")
        return constants.EXIT_SUCCESS
    from .. import opcodes

    op = opcodes.OpNodeModifyStorage(
        node_name=node,
        storage_type=storage_type,
        name=name,
        changes={constants.SF_ALLOCATABLE: opts.allocatable},
    )
    jobs.SubmitOrSend(op, opts)
    return constants.EXIT_SUCCESS


def RepairStorage(opts: Any, args: list[str]) -> int:
    """Repair a volume group."""
    node, storage_type, name = args
    _CheckStorageType(storage_type)
    if not (opts.force or opts.dry_run) and not console.Confirm(
        f"This removes from volume group {name} of node {node} what is on missing physical"
        " volumes. Continue?"
    ):
        return constants.EXIT_FAILURE
    from .. import opcodes

    op = opcodes.OpRepairNodeStorage(
        node_name=node,
        storage_type=storage_type,
        name=name,
        ignore_consistency=opts.ignore_consistency,
    )
    jobs.SubmitOrSend(op, opts)
    return constants.EXIT_SUCCESS


# Roles and power


def SetNodeParams(opts: Any, args: list[str]) -> int:
    """Change the role of a node."""
    if opts.master_candidate is None and opts.drained is None and opts.offline is None:
        console.ToStderr("Please give at least one of the parameters.")
        return constants.EXIT_FAILURE
    from .. import opcodes

    op = opcodes.OpNodeSetParams(
        node_name=args[0],
        master_candidate=opts.master_candidate,
        offline=opts.offline,
        drained=opts.drained,
        force=opts.force,
        auto_promote=opts.auto_promote,
    )
    changes = jobs.SubmitOrSend(op, opts)
    if changes:
        console.ToStdout(f"Modified node {args[0]}")
        for name, value in changes:
            console.ToStdout(f" - {name:<5} -> {value}")
    return constants.EXIT_SUCCESS


def PowercycleNode(opts: Any, args: list[str]) -> int:
    """Reset a node."""
    node = args[0]
    if not (opts.confirm or opts.dry_run) and not console.Confirm(
        f"Are you sure you want to hard powercycle node {node}?"
    ):
        return node_moves.REFUSED
    from .. import opcodes

    result = jobs.SubmitOrSend(opcodes.OpNodePowercycle(node_name=node, force=opts.force), opts)
    if result:
        console.ToStderr(str(result))
    return constants.EXIT_SUCCESS


# Moving instances away


def EvacuateNode(opts: Any, args: list[str]) -> int:
    """Move all secondary instances away from nodes.

    With neither a node nor an allocator, the cluster's default allocator chooses.
    """
    if opts.dst_node is not None and opts.iallocator is not None:
        raise errors.OpPrereqError(
            "Only one of a new secondary node (-n) and an allocator (-I) can be given",
            errors.ECODE_INVAL,
        )
    from .. import opcodes

    cl = jobs.GetClient()
    moves = jobs.SubmitOpCode(
        opcodes.OpNodeEvacStrategy(
            nodes=args, iallocator=opts.iallocator, remote_node=opts.dst_node
        ),
        cl,
    )
    if not moves:
        console.ToStderr(f"No secondary instances on node(s) {text.CommaJoin(args)}, exiting.")
        return constants.EXIT_SUCCESS
    if not (opts.force or opts.dry_run) and not console.Confirm(
        f"Relocate instance(s) {node_moves.QuoteNames([row[0] for row in moves])} from node(s)"
        f" {text.CommaJoin(args)}?"
    ):
        return constants.EXIT_CONFIRMATION
    executor = jobs.JobExecutor(cl, opts=opts)
    for row in moves:
        name, new_node = row[0], row[1]
        console.ToStdout(f"Will relocate instance {name} to node {new_node}")
        executor.QueueJob(
            name,
            opcodes.OpInstanceReplaceDisks(
                instance_name=name,
                remote_node=new_node,
                mode=constants.REPLACE_DISK_CHG,
                disks=[],
                early_release=opts.early_release,
            ),
        )
    return node_moves.ReportMoves(executor.GetResults(), opts)


# The table


def _YesNo(*flags: str, about: str) -> options.Opt:
    return options.Opt(*flags, type=options.TYPE_BOOL, default=None, metavar="yes|no", help=about)


_LIST_OPTS: Final = (*options.LIST_OPTS, options.USEUNITS_OPT)

COMMANDS: Final[dict[str, parser.Command]] = {
    "add": parser.Command(
        AddNode, (parser.ArgHost(1, 1),),
        (
            options.SECONDARY_IP_OPT,
            options.Flag("--readd", help="Set up again a node that is in the cluster already"),
            options.Flag(
                "--no-ssh-key-check", action="store_false", default=True, dest="ssh_key_check",
                help="Don't ask about the machine's SSH host key",
            ),
            options.FORCE_OPT,
            *options.JOB_OPTS,
        ),
        "[-f] [-s ip] [--readd] [--no-ssh-key-check] <node_name>", "Add a node to the cluster",
        local=True,
    ),
    "evacuate": parser.Command(
        EvacuateNode, (parser.ArgNode(1),),
        (
            options.FORCE_OPT, options.IALLOCATOR_OPT, options.NEW_SECONDARY_OPT,
            options.EARLY_RELEASE_OPT, options.PRIORITY_OPT,
        ),
        "[-f] [-I <iallocator> | -n <dst>] <node>...",
        "Relocate the secondary instances from a node to other nodes (only for instances with"
        " drbd disk template)",
    ),
    "failover": parser.Command(
        node_moves.FailoverNode, parser.ARGS_ONE_NODE,
        (
            options.FORCE_OPT, options.IGNORE_CONSIST_OPT, options.SHUTDOWN_TIMEOUT_OPT,
            options.MOVE_TARGET_OPT, options.IALLOCATOR_OPT, options.PRIORITY_OPT,
        ),
        "[-f] [-n <target> | -I <iallocator>] <node>",
        "Stops the primary instances on a node and starts them on their secondary node (only for"
        " instances with drbd disk template), or on any node (sharedfile)",
    ),
    "migrate": parser.Command(
        node_moves.MigrateNode, parser.ARGS_ONE_NODE,
        (
            options.FORCE_OPT, options.NONLIVE_OPT, options.MOVE_TARGET_OPT,
            options.IALLOCATOR_OPT, *options.JOB_OPTS,
        ),
        "[-f] [-n <target> | -I <iallocator>] <node>",
        "Migrate all the primary instances on a node away from it (only for instances of type drbd"
        " or sharedfile)",
    ),
    "info": parser.Command(
        ShowNodeInfo, parser.ARGS_MANY_NODES, (), "[<node_name>...]",
        "Show information about the node(s)",
    ),
    "list": parser.Command(
        ListNodes, parser.ARGS_MANY_NODES,
        (*_LIST_OPTS, options.SYNC_OPT, options.ROMAN_OPT), "[<node>...]",
        "Lists the nodes in the cluster. "
        + output.DescribeFields(LIST_COLUMNS, LIST_DEFAULT_FIELDS),
    ),
    "modify": parser.Command(
        SetNodeParams, parser.ARGS_ONE_NODE,
        (
            options.FORCE_OPT,
            _YesNo("-C", "--master-candidate", about="Shall it be a master candidate"),
            _YesNo("-D", "--drained", about="Shall it be drained: nothing new is put on it"),
            _YesNo("-O", "--offline", about="Shall it be offline: nobody talks to it"),
            options.Flag(
                "--auto-promote", help="Make other nodes master candidates if too few are left"
            ),
            *options.JOB_OPTS,
        ),
        "[opts...] <node_name>", "Alters the parameters of a node",
    ),
    "powercycle": parser.Command(
        PowercycleNode, parser.ARGS_ONE_NODE,
        (options.FORCE_OPT, options.CONFIRM_OPT, *options.JOB_OPTS),
        "<node_name>", "Tries to forcefully powercycle a node",
    ),
    "remove": parser.Command(
        RemoveNode, parser.ARGS_ONE_NODE, options.JOB_OPTS, "<node_name>",
        "Removes a node from the cluster",
    ),
    "volumes": parser.Command(
        ListVolumes, parser.ARGS_MANY_NODES, _LIST_OPTS, "[<node_name>...]",
        "List logical volumes on node(s). "
        + output.DescribeFields(VOLUMES_COLUMNS, VOLUMES_DEFAULT_FIELDS),
    ),
    "list-storage": parser.Command(
        ListStorage, parser.ARGS_MANY_NODES,
        (
            *_LIST_OPTS,
            options.Opt(
                "-t", "--storage-type", default=constants.ST_LVM_PV,
                choices=sorted(constants.VALID_STORAGE_TYPES), metavar="TYPE",
                help="Storage type (" + ", ".join(sorted(constants.VALID_STORAGE_TYPES)) + ")",
            ),
        ),
        "[<node_name>...]",
        "List physical volumes, volume groups or file storage on node(s). "
        + output.DescribeFields(STORAGE_COLUMNS, STORAGE_DEFAULT_FIELDS),
    ),
    "modify-storage": parser.Command(
        ModifyStorage,
        (
            parser.ArgNode(1, 1), parser.ArgChoice([constants.ST_LVM_PV], 1, 1),
            parser.ArgFile(1, 1),
        ),
        (_YesNo("--allocatable", about="May new volumes be put on it"),
         *options.JOB_OPTS),
        "<node_name> <storage_type> <name>", "Modify storage volume on a node",
    ),
    "repair-storage": parser.Command(
        RepairStorage,
        (
            parser.ArgNode(1, 1), parser.ArgChoice([constants.ST_LVM_VG], 1, 1),
            parser.ArgFile(1, 1),
        ),
        (options.FORCE_OPT, options.IGNORE_CONSIST_OPT, *options.JOB_OPTS),
        "<node_name> <storage_type> <name>", "Repairs a storage volume on a node",
    ),
    **tags.GetCommands(constants.TAG_NODE),
}  # fmt: skip


def Main() -> int:
    """Run gnt-node."""
    return main.GenericMain(COMMANDS, override={tags.TAG_TYPE: constants.TAG_NODE})

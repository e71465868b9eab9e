"""gnt-cluster: the cluster as a whole."""

from __future__ import annotations

import os
from typing import Any, Final

from .. import constants, errors
from . import (
    clustercheck,
    clusterparams,
    clustersetup,
    confighistory,
    console,
    jobs,
    main,
    options,
    output,
    parser,
    tags,
    values,
)

_COMMAND_TIMEOUT_OPT: Final = options.Opt(
    "--timeout", type="int", default=None, metavar="SECONDS",
    help="End the command on a node after that many seconds",
)  # fmt: skip


# Jobs on the whole cluster


def RedistributeConfig(opts: Any, args: list[str]) -> int:
    """Send configuration and shared files to all nodes again."""
    from .. import opcodes

    jobs.SubmitOrSend(opcodes.OpClusterRedistConf(), opts)
    return constants.EXIT_SUCCESS


def SearchTags(opts: Any, args: list[str]) -> int:
    """Find tags by a regular expression."""
    from .. import opcodes

    found = jobs.SubmitOpCode(opcodes.OpTagsSearch(pattern=args[0]))
    for path, tag in sorted(map(tuple, found)):
        console.ToStdout(f"{path} {tag}")
    return constants.EXIT_SUCCESS if found else constants.EXIT_FAILURE


# Looking


def ShowClusterVersion(opts: Any, args: list[str]) -> int:
    """Print the versions of this software and of its formats."""
    info = jobs.GetClient().QueryClusterInfo()
    console.ToStdout(f"Software version: {info['software_version']}")
    console.ToStdout(f"Internode protocol: {info['protocol_version']}")
    console.ToStdout(f"Configuration format: {info['config_version']}")
    console.ToStdout(f"OS api version: {info['os_api_version']}")
    console.ToStdout(f"Export interface: {info['export_version']}")
    return constants.EXIT_SUCCESS


def ShowClusterMaster(opts: Any, args: list[str]) -> int:
    """Print the name of the master; needs no daemon."""
    from .. import ssconf

    console.ToStdout(ssconf.SimpleStore().GetMasterNode())
    return constants.EXIT_SUCCESS


def ShowClusterInfo(opts: Any, args: list[str]) -> int:
    """Print the parameters of the cluster."""
    from . import clusterinfo

    info = jobs.GetClient().QueryClusterInfo()
    if opts.as_json:
        output.PrintJson(info)
        return constants.EXIT_SUCCESS
    for line in clusterinfo.FormatClusterInfo(info, opts.roman_integers):
        console.ToStdout(line)
    return constants.EXIT_SUCCESS


# Files and commands on the nodes


def ClusterCopyFile(opts: Any, args: list[str]) -> int:
    """Copy a file of this machine to the same path on other nodes."""
    filename = args[0]
    if not os.path.exists(filename):
        raise errors.OpPrereqError(f"No such filename '{filename}'", errors.ECODE_INVAL)
    if not os.path.isabs(filename):
        raise errors.OpPrereqError(
            f"'{filename}' has the same path on all nodes: give an absolute one, such as"
            f" {os.path.abspath(filename)}",
            errors.ECODE_INVAL,
        )
    if not os.path.isfile(filename):
        raise errors.OpPrereqError(
            f"'{filename}' is no regular file: only such can be copied", errors.ECODE_INVAL
        )
    from .. import ssh
    from . import remote

    cl = jobs.GetClient()
    nodes = remote.GetOnlineNodes(opts.nodes, cl, opts.use_replication_network, without_master=True)
    runner = ssh.GetRunner(cl.QueryConfigValues(["cluster_name"])[0])
    code: int = constants.EXIT_SUCCESS
    for node in nodes:
        problem = runner.CopyFileToNode(node, filename)
        if problem is not None:
            console.ToStderr(f"Copy of file {filename} to node {node} failed")
            console.ToStderr(f"  {problem}")
            code = constants.EXIT_FAILURE
    return code


def RunClusterCommand(opts: Any, args: list[str]) -> int:
    """Run a shell command on all nodes, the master last."""
    for name, value in (("--parallel", opts.parallel), ("--timeout", opts.timeout)):
        if value is not None and value < 1:
            raise errors.OpPrereqError(f"{name}: {value} must be at least 1", errors.ECODE_INVAL)
    from .. import ssh
    from . import remote

    cl = jobs.GetClient()
    cluster_name, master = cl.QueryConfigValues(["cluster_name", "master_node"])
    nodes = remote.GetOnlineNodes(opts.nodes, cl)
    runner = ssh.GetRunner(cluster_name)
    command = " ".join(args)

    def Run(node: str) -> Any:
        return runner.Run(node, constants.GANETI_RUNAS, command, timeout=opts.timeout)

    code: int = constants.EXIT_SUCCESS
    for node, result in remote.RunMasterLast(Run, nodes, master, opts.parallel):
        if result.failed:
            code = constants.EXIT_FAILURE
        elif opts.failure_only:
            continue
        for line in remote.FormatResult(node, result, opts.show_machine_names):
            console.ToStdout(line)
    return code


# Queue and watcher


def QueueOps(opts: Any, args: list[str]) -> int:
    """Let the job queue take no new jobs, let it take them again, or say which."""
    command = args[0]
    cl = jobs.GetClient()
    if command in ("drain", "undrain"):
        cl.SetQueueDrainFlag(command == "drain")
    elif command == "info":
        drained = cl.QueryConfigValues(["drain_flag"])[0]
        console.ToStdout(f"The drain flag is {'set' if drained else 'unset'}")
    else:
        raise errors.OpPrereqError(
            f"Command '{command}' is not valid: use drain, undrain or info", errors.ECODE_INVAL
        )
    return constants.EXIT_SUCCESS


def _ShowWatcherPause(until: float | None) -> None:
    import time

    if until is None:
        console.ToStdout("The watcher is not paused.")
    else:
        console.ToStdout(f"The watcher is paused until {time.ctime(until)}.")


def WatcherOps(opts: Any, args: list[str]) -> int:
    """Keep the watcher from acting for a while, let it act again, or say which."""
    command = args[0]
    if command != "pause" and len(args) > 1:
        raise errors.OpPrereqError(
            f"Only pause takes a time: '{args[1]}' after {command} says nothing", errors.ECODE_INVAL
        )
    cl = jobs.GetClient()
    if command == "continue":
        cl.SetWatcherPause(None)
        console.ToStdout("The watcher is no longer paused.")
    elif command == "pause":
        if len(args) < 2:
            raise errors.OpPrereqError(
                "Missing pause duration: give a time such as 30m or 4h", errors.ECODE_INVAL
            )
        from .. import runtime

        duration = values.ParseTimespec(args[1])
        if duration <= 0:
            raise errors.OpPrereqError(
                f"A pause of '{args[1]}' would be over at once: give a time such as 30m or 4h",
                errors.ECODE_INVAL,
            )
        until = runtime.DEFAULT.clock.time() + duration
        _ShowWatcherPause(cl.SetWatcherPause(until))
    elif command == "info":
        _ShowWatcherPause(cl.QueryConfigValues(["watcher_pause"])[0])
    else:
        raise errors.OpPrereqError(
            f"Command '{command}' is not valid: use pause, continue or info", errors.ECODE_INVAL
        )
    return constants.EXIT_SUCCESS


# Options of single commands

_VG_NAME_OPT: Final = options.Opt(
    "-g", "--vg-name", default=None, metavar="VG",
    help="Volume group of the instances' disks",
)  # fmt: skip
_NO_LVM_OPT: Final = options.Flag(
    "--no-lvm-storage", action="store_false", default=True, dest="lvm_storage",
    help="No support for LVM-based disks",
)  # fmt: skip
_CP_SIZE_OPT: Final = options.Opt(
    "-C", "--candidate-pool-size", type="int", default=None, metavar="N",
    help="How many nodes shall be master candidates",
)  # fmt: skip
_ENABLED_HV_OPT: Final = options.Opt(
    "--enabled-hypervisors", default=None, metavar="LIST",
    help="Comma separated list of hypervisors; the first one is the default",
)  # fmt: skip
_MAINTAIN_OPT: Final = options.Opt(
    "--maintain-node-health", type=options.TYPE_BOOL, default=None, metavar="yes|no",
    help="May the watcher stop what runs on nodes that are marked offline",
)  # fmt: skip
_UID_POOL_OPT: Final = options.Opt(
    "--uid-pool", default=None, metavar="LIST",
    help="User ids for instances: comma separated ids and ranges low-high",
)  # fmt: skip
_SHARED_DIR_OPT: Final = options.Opt(
    "--shared-file-storage-dir", default=None, metavar="DIR", complete=options.COMPLETE_FILE,
    help="Directory that all nodes share, below which the disks of 'sharedfile' instances are",
)  # fmt: skip
_PARAM_OPTS: Final = (
    options.BACKEND_OPT, _CP_SIZE_OPT, _ENABLED_HV_OPT, options.HVLIST_OPT,
    options.NIC_PARAMS_OPT, _NO_LVM_OPT, _VG_NAME_OPT, _MAINTAIN_OPT, _UID_POOL_OPT,
    _SHARED_DIR_OPT,
)  # fmt: skip
_INIT_OPTS: Final = (
    *(opt for opt in _PARAM_OPTS if opt not in (_CP_SIZE_OPT, _ENABLED_HV_OPT)),
    _CP_SIZE_OPT.With(default=constants.MASTER_POOL_SIZE_DEFAULT),
    _ENABLED_HV_OPT.With(default=constants.DEFAULT_ENABLED_HYPERVISOR),
    options.SECONDARY_IP_OPT,
    options.Opt(
        "--file-storage-dir", default=None, metavar="DIR", complete=options.COMPLETE_FILE,
        help="Directory below which the disks of file-based instances are",
    ),
    options.Opt(
        "-m", "--mac-prefix", default=constants.DEFAULT_MAC_PREFIX, metavar="XX:XX:XX",
        help="First half of generated MAC addresses",
    ),
    options.Opt(
        "--master-netdev", default=constants.DEFAULT_BRIDGE, metavar="DEVICE",
        help="Network device for the cluster's address",
    ),
    options.Flag(
        "--no-etc-hosts", action="store_false", default=True, dest="modify_etc_hosts",
        help="Don't modify /etc/hosts",
    ),
    options.Flag(
        "--no-ssh-init", action="store_false", default=True, dest="modify_ssh_setup",
        help="Don't create SSH keys for root",
    ),
    options.PRIORITY_OPT,
)  # fmt: skip
_MODIFY_OPTS: Final = (
    *_PARAM_OPTS,
    options.Opt(
        "--add-uids", default=None, metavar="LIST", help="Ranges to add to the user-id pool"
    ),
    options.Opt(
        "--remove-uids", default=None, metavar="LIST",
        help="Ranges to remove from the user-id pool, exactly as they are in it",
    ),
    options.Opt(
        "-D", "--disk-parameters", dest="diskparams", type=options.TYPE_KEYVAL, default={},
        metavar="KEY=VALUE,...", help="Default disk parameters",
    ),
    options.Repeated(
        "--default-iallocator", metavar="[MODE:]NAME,...",
        complete=options.COMPLETE_IALLOCATOR,
        help="Allocators to try, in this order, where neither nodes nor an allocator are given",
    ),
    *options.JOB_OPTS,
)  # fmt: skip
_VERIFY_OPTS: Final = (
    options.VERBOSE_OPT,
    options.Flag("--debug-simulate-errors", dest="simulate_errors", help="Show every message"),
    options.Flag("--error-codes", help="Show errors in a form for programs"),
    options.Flag(
        "--no-nplus1-mem", dest="skip_nplusone_mem",
        help="Skip the check of memory for the failover of instances",
    ),
    options.JSON_OPT,
    *options.JOB_OPTS,
)  # fmt: skip
_RENEW_OPTS: Final = (
    options.Flag(
        "--new-cluster-certificate", dest="new_cluster_cert",
        help="Make a new certificate of the node daemons",
    ),
    options.Flag(
        "--new-rapi-certificate", dest="new_rapi_cert", help="Make a new certificate of RAPI"
    ),
    options.Opt(
        "--rapi-certificate", dest="rapi_cert", default=None, metavar="FILE",
        complete=options.COMPLETE_FILE, help="File with a new certificate and key of RAPI",
    ),
    options.Flag("--new-confd-hmac-key", dest="new_confd_hmac_key", help="Make a new key of confd"),
    options.FORCE_OPT,
)  # fmt: skip

COMMANDS: Final[dict[str, parser.Command]] = {
    "init": parser.Command(
        clustersetup.InitCluster, (parser.ArgHost(1, 1),), _INIT_OPTS, "[opts...] <cluster_name>",
        "Initialises a new cluster configuration", local=True,
    ),
    "destroy": parser.Command(
        clustersetup.DestroyCluster, parser.ARGS_NONE,
        (options.Flag("--yes-do-it", help="Yes, destroy the cluster"), options.PRIORITY_OPT),
        "", "Destroy cluster", local=True,
    ),
    "rename": parser.Command(
        clustersetup.RenameCluster, (parser.ArgHost(1, 1),), (options.FORCE_OPT, *options.JOB_OPTS),
        "[-f] <new_name>", "Renames the cluster",
    ),
    "redist-conf": parser.Command(
        RedistributeConfig, parser.ARGS_NONE, options.JOB_OPTS, "",
        "Forces a push of the configuration file and ssconf files to the nodes in the cluster",
    ),
    "verify": parser.Command(
        clustercheck.VerifyCluster, parser.ARGS_NONE, _VERIFY_OPTS, "",
        "Does a check on the cluster configuration",
    ),
    "verify-disks": parser.Command(
        clustercheck.VerifyDisks, parser.ARGS_NONE, (options.PRIORITY_OPT,), "",
        "Does a check on the cluster disk status",
    ),
    "repair-disk-sizes": parser.Command(
        clustercheck.RepairDiskSizes, parser.ARGS_MANY_INSTANCES, options.JOB_OPTS, "[instance...]",
        "Updates mismatches in recorded disk sizes",
    ),
    "masterfailover": parser.Command(
        clustersetup.MasterFailover, parser.ARGS_NONE,
        (
            options.Flag("--no-voting", help="Skip the agreement of the other nodes"),
            options.Flag("--yes-do-it", help="With --no-voting: don't ask for confirmation"),
            options.Flag(
                "--force",
                help="Even if another node has a newer configuration, which is lost then",
            ),
        ),
        "[--no-voting [--yes-do-it]] [--force]", "Makes the current node the master",
        dry_run=False, local=True,
    ),
    "version": parser.Command(
        ShowClusterVersion, parser.ARGS_NONE, (), "", "Shows the cluster version"
    ),
    "getmaster": parser.Command(
        ShowClusterMaster, parser.ARGS_NONE, (), "", "Shows the cluster master"
    ),
    "copyfile": parser.Command(
        ClusterCopyFile, (parser.ArgFile(1, 1),),
        (
            options.NODE_LIST_OPT,
            options.Flag(
                "--use-replication-network", help="Copy over the network of the disks"
            ),
        ),
        "[-n node...] <filename>", "Copies a file to all (or only some) nodes",
        dry_run=False, local=True,
    ),
    "command": parser.Command(
        RunClusterCommand, (parser.ArgCommand(1),),
        (
            options.NODE_LIST_OPT,
            options.Flag(
                "-M", "--show-machine-names", help="Show the node's name before each line"
            ),
            options.Flag("--failure-only", help="Only show nodes on which the command failed"),
            options.Opt(
                "--parallel", type="int", default=1, metavar="N", help="Run on N nodes at a time"
            ),
            _COMMAND_TIMEOUT_OPT,
        ),
        "[-n node...] <command>", "Runs a command on all (or only some) nodes",
        dry_run=False, local=True,
    ),
    "info": parser.Command(
        ShowClusterInfo, parser.ARGS_NONE, (options.ROMAN_OPT, options.JSON_OPT),
        "[--roman|--json]",
        "Show cluster configuration",
    ),
    "history": parser.Command(
        confighistory.ConfigHistory, parser.ARGS_NONE, confighistory.OPTS,
        "[--object NAME] [--since TIME|SERIAL] | --show SERIAL | --at SERIAL",
        "Lists the changes of the configuration, shows one, or an old configuration",
    ),
    **tags.GetCommands(constants.TAG_CLUSTER),
    "search-tags": parser.Command(
        SearchTags, (parser.ArgUnknown(1, 1),), (), "<pattern>",
        "Searches the tags on all objects on the cluster for a given pattern (regex)",
    ),
    "queue": parser.Command(
        QueueOps, (parser.ArgChoice(["drain", "undrain", "info"], 1, 1),), (),
        "drain|undrain|info", "Change queue properties", dry_run=False,
    ),
    "watcher": parser.Command(
        WatcherOps,
        (
            parser.ArgChoice(["pause", "continue", "info"], 1, 1),
            parser.ArgSuggest(["30m", "1h", "4h"], 0, 1),
        ),
        (), "{pause <timespec>|continue|info}", "Change watcher properties", dry_run=False,
    ),
    "modify": parser.Command(
        clusterparams.SetClusterParams, parser.ARGS_NONE, _MODIFY_OPTS, "[opts...]",
        "Alters the parameters of the cluster",
    ),
    "renew-crypto": parser.Command(
        clustersetup.RenewCrypto, parser.ARGS_NONE, _RENEW_OPTS, "[opts...]",
        "Renews cluster certificates, keys and secrets", dry_run=False, local=True,
    ),
}  # fmt: skip


def Main() -> int:
    """Run gnt-cluster."""
    return main.GenericMain(COMMANDS, override={tags.TAG_TYPE: constants.TAG_CLUSTER})

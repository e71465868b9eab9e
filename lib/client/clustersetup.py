"""How a cluster begins, changes and ends: the commands of gnt-cluster that set it up."""

from __future__ import annotations

from typing import Any

from .. import constants, errors, pathutils
from . import clusterparams, console, jobs


def InitCluster(opts: Any, args: list[str]) -> int:
    """Make this machine the first node of a new cluster."""
    if not clusterparams.CheckVgOptions(opts):
        return constants.EXIT_FAILURE
    from .. import bootstrap, opcodes, uidpool

    vg_name = opts.vg_name or (constants.DEFAULT_VG if opts.lvm_storage else None)
    file_storage_dir = opts.file_storage_dir or pathutils.DEFAULT_FILE_STORAGE_DIR
    pool = uidpool.ParseUidPool(opts.uid_pool or "")
    uidpool.CheckUidPool(pool)
    for risk in uidpool.DescribeUidPoolRisks(pool):
        console.ToStderr(f"Warning: {risk}")
    params = bootstrap.InitParams(
        cluster_name=args[0],
        mac_prefix=opts.mac_prefix,
        master_netdev=opts.master_netdev,
        file_storage_dir=file_storage_dir if constants.ENABLE_FILE_STORAGE else "",
        shared_file_storage_dir=opts.shared_file_storage_dir or None,
        candidate_pool_size=opts.candidate_pool_size,
        secondary_ip=opts.secondary_ip,
        vg_name=vg_name,
        beparams=clusterparams.BeParams(opts),
        nicparams=clusterparams.NicParams(opts),
        hvparams=clusterparams.HvParams(opts.hvparams),
        enabled_hypervisors=clusterparams.SplitNames(opts.enabled_hypervisors),
        modify_etc_hosts=opts.modify_etc_hosts,
        modify_ssh_setup=opts.modify_ssh_setup,
        maintain_node_health=bool(opts.maintain_node_health),
        uid_pool=pool,
    )
    if opts.dry_run:
        for line in bootstrap.DryInitCluster(params):
            console.ToStdout(line)
        return constants.EXIT_SUCCESS
    bootstrap.InitCluster(params)
    jobs.SubmitOpCode(opcodes.OpClusterPostInit(), opts=opts)
    return constants.EXIT_SUCCESS


def DestroyCluster(opts: Any, args: list[str]) -> int:
    """End the cluster, which must have no instances and no other nodes any more."""
    if not opts.yes_do_it:
        console.ToStderr(
            "Destroying a cluster is irreversible. If you really want to destroy this cluster,"
            " supply the --yes-do-it option."
        )
        return constants.EXIT_FAILURE
    from .. import opcodes

    master = jobs.SubmitOpCode(opcodes.OpClusterDestroy(), opts=opts)
    if opts.dry_run:
        return constants.EXIT_SUCCESS
    from .. import bootstrap, rpc

    rpc.Init()
    try:
        problems = bootstrap.FinalizeClusterDestroy(master)
    finally:
        rpc.Shutdown()
    for problem in problems:
        console.ToStderr(f"Warning: {problem}")
    return constants.EXIT_SUCCESS


def RenameCluster(opts: Any, args: list[str]) -> int:
    """Give the cluster another name and address."""
    name = args[0]
    if not (opts.force or opts.dry_run):
        current = jobs.GetClient().QueryConfigValues(["cluster_name"])[0]
        if not console.Confirm(
            f"This will rename the cluster {current} to {name}. If you are connected over the"
            " network to the cluster's name, the operation is very dangerous as the IP address"
            " will be removed from the node and the change may not go through. Continue?"
        ):
            return constants.EXIT_FAILURE
    from .. import opcodes

    jobs.SubmitOrSend(opcodes.OpClusterRename(name=name), opts)
    return constants.EXIT_SUCCESS


def MasterFailover(opts: Any, args: list[str]) -> int:
    """Make this node the master."""
    from .. import masterfailover

    # What is refused in any case is refused before questions are asked.
    masterfailover.FindOldMaster()
    if (
        opts.no_voting
        and not opts.yes_do_it
        and not console.Confirm(
            "This will perform the failover even if most other nodes are down, or do not agree."
            " This is dangerous: if the old master still runs, there may be two masters for a"
            " while. Check the gnt-cluster(8) man page before proceeding. Continue?"
        )
    ):
        return constants.EXIT_FAILURE
    from .. import rpc

    rpc.Init()
    try:
        masterfailover.MasterFailover(opts.no_voting, opts.force, console.ToStdout)
    finally:
        rpc.Shutdown()
    return constants.EXIT_SUCCESS


def RenewCrypto(opts: Any, args: list[str]) -> int:
    """Replace certificates and keys of the cluster."""
    if opts.new_rapi_cert and opts.rapi_cert:
        console.ToStderr(
            "Only one of the --new-rapi-certificate and --rapi-certificate options can be"
            " specified at the same time."
        )
        return constants.EXIT_FAILURE
    from .. import renewcrypto, rpc
    from ..utils import io

    pem = None
    if opts.rapi_cert:
        try:
            pem = io.ReadFile(opts.rapi_cert)
        except OSError as err:
            raise errors.OpPrereqError(
                f"The certificate {opts.rapi_cert} can not be read: {err}", errors.ECODE_INVAL
            ) from err
        renewcrypto.CheckRapiPem(pem, opts.rapi_cert)
    wishes = renewcrypto.Wishes(
        opts.new_cluster_cert, opts.new_rapi_cert, opts.new_confd_hmac_key, pem
    )
    rpc.Init()
    try:
        renewal = renewcrypto.Renewal(wishes, console.ToStdout)
        preview = renewal.Look()
        question = [
            *preview.Describe(),
            "This requires all daemons on all nodes to be restarted and may take some time."
            " Continue?",
        ]
        if opts.force:
            for line in question[:-1]:
                console.ToStderr(line)
        elif not console.Confirm("\n".join(question)):
            return constants.EXIT_FAILURE
        complete = renewal.Run(preview)
    finally:
        rpc.Shutdown()
    return constants.EXIT_SUCCESS if complete else constants.EXIT_FAILURE

"""How a cluster begins, changes and ends: the commands of gnt-cluster that set it up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import constants, errors, pathutils
from . import console, failures, jobs, values


def _ResetTo(
    params: dict[str, Any], types: Mapping[str, str], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Typed parameters, with built-in defaults for those that shall have them again."""
    typed = values.ForceTypes(params, types, reset=True)
    return {
        name: defaults.get(name) if value == constants.VALUE_DEFAULT else value
        for name, value in typed.items()
    }


def _HvParams(groups: Sequence[tuple[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        # An unknown hypervisor has no defaults; who checks the rest says that it is unknown
        kind: _ResetTo(
            params,
            constants.HVS_PARAMETER_TYPES,
            constants.HVC_DEFAULTS.get(kind, {}),
        )
        for kind, params in values.CheckHvParamGroups(groups).items()
    }


def _BeParams(opts: Any) -> dict[str, Any]:
    return _ResetTo(opts.beparams, constants.BES_PARAMETER_TYPES, constants.BEC_DEFAULTS)


def _NicParams(opts: Any) -> dict[str, Any]:
    return _ResetTo(opts.nicparams, constants.NICS_PARAMETER_TYPES, constants.NICC_DEFAULTS)


def _UidRanges(value: str | None) -> list[list[int]] | None:
    if value is None:
        return None
    from .. import uidpool

    return [list(pair) for pair in uidpool.ParseUidPool(value)]


def _CheckVgOptions(opts: Any) -> bool:
    if opts.vg_name and not opts.lvm_storage:
        console.ToStderr("Options --no-lvm-storage and --vg-name conflict.")
        return False
    return True


def InitCluster(opts: Any, args: list[str]) -> int:
    """Make this machine the first node of a new cluster."""
    if not _CheckVgOptions(opts):
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
        candidate_pool_size=opts.candidate_pool_size,
        secondary_ip=opts.secondary_ip,
        vg_name=vg_name,
        beparams=_BeParams(opts),
        nicparams=_NicParams(opts),
        hvparams=_HvParams(opts.hvparams),
        enabled_hypervisors=opts.enabled_hypervisors.split(","),
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


def _DefaultAllocators(given: Sequence[str] | None) -> Any:
    """The opcode's value for C{--default-iallocator [MODE:]NAME[,NAME...]} options."""
    if not given:
        return None
    by_mode: dict[str, list[str]] = {}
    for value in given:
        mode, separator, names = value.rpartition(":")
        scripts = [name for name in names.split(",") if name]
        if not separator and len(given) == 1 and len(scripts) <= 1:
            return scripts[0] if scripts else ""
        if separator and mode not in constants.VALID_IALLOCATOR_MODES:
            raise errors.OpPrereqError(
                f"--default-iallocator {value}: '{mode}' is none of the modes"
                f" {', '.join(sorted(constants.VALID_IALLOCATOR_MODES))}",
                errors.ECODE_INVAL,
            )
        for one in [mode] if separator else sorted(constants.VALID_IALLOCATOR_MODES):
            by_mode[one] = scripts
    return by_mode


def SetClusterParams(opts: Any, args: list[str]) -> int:
    """Change parameters of the cluster."""
    given = (
        opts.vg_name, opts.enabled_hypervisors, opts.uid_pool, opts.add_uids, opts.remove_uids,
        opts.candidate_pool_size, opts.maintain_node_health, opts.default_iallocator or None,
        opts.hvparams or None, opts.beparams or None, opts.nicparams or None,
        opts.diskparams or None, None if opts.lvm_storage else False,
    )  # fmt: skip
    if all(value is None for value in given):
        console.ToStderr("Please give at least one of the parameters.")
        return constants.EXIT_FAILURE
    if not _CheckVgOptions(opts):
        return constants.EXIT_FAILURE
    enabled = opts.enabled_hypervisors
    diskparams = _ResetTo(opts.diskparams, constants.DPS_PARAMETER_TYPES, constants.DPC_DEFAULTS)
    from .. import opcodes

    op = opcodes.OpClusterSetParams(
        vg_name=opts.vg_name if opts.lvm_storage else "",
        enabled_hypervisors=None if enabled is None else enabled.split(","),
        hvparams=_HvParams(opts.hvparams),
        os_hvp=None,
        beparams=_BeParams(opts),
        nicparams=_NicParams(opts),
        candidate_pool_size=opts.candidate_pool_size,
        maintain_node_health=opts.maintain_node_health,
        uid_pool=_UidRanges(opts.uid_pool),
        add_uids=_UidRanges(opts.add_uids),
        remove_uids=_UidRanges(opts.remove_uids),
    )
    if diskparams:
        op.diskparams = diskparams
    if opts.default_iallocator:
        op.default_iallocator = _DefaultAllocators(opts.default_iallocator)
    jobs.SubmitOrSend(op, opts)
    return constants.EXIT_SUCCESS


def RenewCrypto(opts: Any, args: list[str]) -> int:
    """Replace certificates and keys of the cluster."""
    if opts.new_rapi_cert and opts.rapi_cert:
        console.ToStderr(
            "Only one of the --new-rapi-certificate and --rapi-certificate options can be"
            " specified at the same time."
        )
        return constants.EXIT_FAILURE
    jobs.GetClient()
    if not opts.force and not console.Confirm(
        "This requires all daemons on all nodes to be restarted and may take some time. Continue?"
    ):
        return constants.EXIT_FAILURE
    raise failures.NotImplementedYet("The renewal of certificates and keys")

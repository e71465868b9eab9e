"""Checks that several operations on instances share; each asks at most the nodes it names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import constants, errors, hvparams, objects, pathutils
from ..utils import net
from . import base


def CheckInstanceDown(lu: base.LogicalUnit, instance: objects.Instance, reason: str) -> None:
    """Check that an instance is marked down and does not run.

    @param reason: what is wanted, e.g. "can not reinstall"
    @raise errors.OpPrereqError: C{wrong_state}, or C{environment_error} if its node can not tell
    """
    if instance.admin_up:
        raise errors.OpPrereqError(
            f"Instance {instance.name} is marked to be up, {reason}; stop it with 'gnt-instance"
            f" shutdown {instance.name}' first",
            errors.ECODE_STATE,
        )
    node = instance.primary_node
    result = lu.rpc.call_instance_list([node], [instance.hypervisor])[node]
    result.Raise(f"Node {node} can not list its instances", prereq=True, ecode=errors.ECODE_ENVIRON)
    if instance.name in result.payload:
        raise errors.OpPrereqError(
            f"Instance {instance.name} runs on {node}, {reason}; stop it with 'gnt-instance"
            f" shutdown {instance.name}' first",
            errors.ECODE_STATE,
        )


def CheckAtHome(lu: base.LogicalUnit, instance: objects.Instance) -> None:
    """Check that no migration of an instance broke off that nobody has tidied up after.

    It may run on another node than the configuration says, or be on its way there: started again,
    it would run twice. Only what a node says counts; one that does not answer is no obstacle here.

    @raise errors.OpPrereqError: C{wrong_state}
    """
    if instance.disk_template not in constants.DTS_MIRRORED:
        return
    name, primary = instance.name, instance.primary_node
    advice = f"'gnt-instance migrate --cleanup {name}' puts that right"
    for disk in instance.disks:
        lu.cfg.SetDiskID(disk, primary)
    status = lu.rpc.call_instance_get_migration_status(primary, instance)
    if not status.fail_msg and status.payload["status"] in (
        constants.MIGRATION_ACTIVE,
        constants.MIGRATION_COMPLETED,
    ):
        raise errors.OpPrereqError(
            f"A migration of instance {name} away from node {primary} was not finished; {advice}",
            errors.ECODE_STATE,
        )
    if instance.disk_template in constants.DTS_NET_MIRROR:
        others = sorted(instance.secondary_nodes)
    else:
        others = sorted(set(lu.cfg.GetOnlineNodeList()) - {primary})
    for node, result in lu.rpc.call_instance_list(others, [instance.hypervisor]).items():
        if not result.fail_msg and name in result.payload:
            raise errors.OpPrereqError(
                f"Instance {name} runs on node {node}, not on {primary} as the configuration says;"
                f" {advice}",
                errors.ECODE_STATE,
            )


def CheckNodeFreeMemory(
    lu: base.LogicalUnit, node: str, reason: str, requested: int, hypervisor: str
) -> None:
    """Check that a node has that much memory free.

    @param requested: MiB
    @raise errors.OpPrereqError: C{insufficient_resources}, or C{environment_error} if it can not
        tell
    """
    result = lu.rpc.call_node_info([node], lu.cfg.GetVGName(), hypervisor)[node]
    result.Raise(
        f"Node {node} can not tell its free memory", prereq=True, ecode=errors.ECODE_ENVIRON
    )
    free = result.payload.get("memory_free")
    if not isinstance(free, int):
        raise errors.OpPrereqError(
            f"Node {node} did not tell its free memory, but {free!r}", errors.ECODE_ENVIRON
        )
    if requested > free:
        raise errors.OpPrereqError(
            f"Not enough memory on node {node} for {reason}: {requested} MiB needed, {free} MiB"
            " free",
            errors.ECODE_NORES,
        )


def CheckNodesFreeDisk(lu: base.LogicalUnit, nodes: Sequence[str], requested: int) -> None:
    """Check that each node has that much space free in the volume group.

    @param requested: MiB
    @raise errors.OpPrereqError: C{insufficient_resources}, or C{environment_error} if one can not
        tell
    """
    results = lu.rpc.call_node_info(nodes, lu.cfg.GetVGName(), lu.cfg.GetHypervisorType())
    for node, result in results.items():
        result.Raise(
            f"Node {node} can not tell its free disk space", prereq=True, ecode=errors.ECODE_ENVIRON
        )
        free = result.payload.get("vg_free")
        if not isinstance(free, int):
            raise errors.OpPrereqError(
                f"Node {node} did not tell its free disk space, but {free!r}", errors.ECODE_ENVIRON
            )
        if requested > free:
            raise errors.OpPrereqError(
                f"Not enough disk space on node {node}: {requested} MiB needed, {free} MiB free",
                errors.ECODE_NORES,
            )


def CheckNicBridges(
    lu: base.LogicalUnit, filled_nics: Iterable[Mapping[str, Any]], node: str
) -> None:
    """Check that the bridges of all bridged NICs exist on a node.

    @param filled_nics: the filled parameters of each NIC
    @raise errors.OpPrereqError: C{environment_error}
    """
    bridges = [
        params[constants.NIC_LINK]
        for params in filled_nics
        if params[constants.NIC_MODE] == constants.NIC_MODE_BRIDGED
    ]
    if bridges:
        lu.rpc.call_bridges_exist(node, sorted(set(bridges))).Raise(
            f"Bridges on node {node}", prereq=True, ecode=errors.ECODE_ENVIRON
        )


def CheckInstanceBridges(lu: base.LogicalUnit, instance: objects.Instance, node: str) -> None:
    """As L{CheckNicBridges}, for an instance in the configuration."""
    defaults = lu.cfg.GetClusterInfo().nicparams[constants.PP_DEFAULT]
    filled = [objects.FillDict(defaults, nic.nicparams or {}) for nic in instance.nics]
    CheckNicBridges(lu, filled, node)


def CheckAddressFree(address: str, name: str, advice: str) -> None:
    """Check that nothing answers at the address that a name resolved to.

    @param advice: how to do without this check
    @raise errors.OpPrereqError: C{resource_not_unique}
    """
    # On a loopback address of a virtual cluster, a refused connection proves nothing.
    live = pathutils.IsVirtual()
    if net.TcpPing(address, constants.DEFAULT_NODED_PORT, live_port_needed=live):
        raise errors.OpPrereqError(
            f"The address {address} of {name} answers, so it is in use ({advice})",
            errors.ECODE_NOTUNIQUE,
        )


def CheckDiskParams(where: str, own: Mapping[str, Any] | None) -> None:
    """Check disk parameters of one disk, of the right types; pure.

    @param where: e.g. "disk/0", for the message
    @raise errors.OpPrereqError: C{wrong_input}
    """
    try:
        objects.Disk.CheckParameterSyntax(own or {})
    except errors.ConfigurationError as err:
        raise errors.OpPrereqError(f"{where}: {err}", errors.ECODE_INVAL) from err


def CheckBeParams(what: str, filled: Mapping[str, Any]) -> None:
    """Check filled backend parameters of the right types: can there be such a machine? Pure.

    @param what: name of the opcode's parameter, for the message
    @raise errors.OpPrereqError: C{wrong_input}
    """
    for name in (constants.BE_MEMORY, constants.BE_VCPUS):
        if filled[name] < 1:
            raise errors.OpPrereqError(
                f"{what}: {name} must be at least 1, not {filled[name]}", errors.ECODE_INVAL
            )


def CheckHvParamsSyntax(hypervisor: str, filled: Mapping[str, Any]) -> None:
    """Check filled hypervisor parameters by themselves.

    @raise errors.OpPrereqError: C{wrong_input}
    """
    try:
        hvparams.CheckParameterSyntax(hypervisor, filled)
    except errors.HypervisorError as err:
        raise errors.OpPrereqError(
            f"Parameters of hypervisor {hypervisor}: {err}", errors.ECODE_INVAL
        ) from err


def CheckHvParamsOnNodes(
    lu: base.LogicalUnit, nodes: Sequence[str], hypervisor: str, filled: Mapping[str, Any]
) -> None:
    """Let nodes check filled hypervisor parameters; those marked offline are left out.

    @raise errors.OpPrereqError: C{environment_error}
    """
    results = lu.rpc.call_hypervisor_validate_params(list(nodes), hypervisor, dict(filled))
    for node, result in results.items():
        if not result.offline:
            result.Raise(
                f"Parameters of hypervisor {hypervisor} on node {node}",
                prereq=True,
                ecode=errors.ECODE_ENVIRON,
            )


def CheckOsVariant(os_obj: objects.OS, name: str) -> None:
    """Check that the name of an OS names one of its variants, if it has any; pure.

    @raise errors.OpPrereqError: C{wrong_input}
    """
    variants = os_obj.supported_variants or []
    if not variants:
        return
    _, plus, variant = name.partition("+")
    known = f"it has {', '.join(variants)}"
    if not plus or not variant:
        raise errors.OpPrereqError(
            f"OS name {name!r} must include a variant, like {name.rstrip('+')}+{variants[0]};"
            f" {known}",
            errors.ECODE_INVAL,
        )
    if variant not in variants:
        raise errors.OpPrereqError(
            f"OS {os_obj.name} has no variant {variant!r}; {known} (--force-variant takes any)",
            errors.ECODE_INVAL,
        )


def CheckNodeHasOs(lu: base.LogicalUnit, node: str, os_name: str, force_variant: bool) -> None:
    """Check that a node has a valid OS of that name.

    @raise errors.OpPrereqError: C{wrong_input}
    """
    result = lu.rpc.call_os_get(node, os_name)
    result.Raise(
        f"OS {os_name!r} can not be used on node {node}", prereq=True, ecode=errors.ECODE_INVAL
    )
    if not force_variant:
        CheckOsVariant(result.payload, os_name)

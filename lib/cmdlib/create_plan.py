"""What a creation amounts to: decisions on its arguments and the cluster's defaults; all pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import constants, errors, ht, objects
from . import base, disk_ops, instance_checks, nics

_DISK_TYPES = {**constants.IDISK_PARAMS_TYPES, **constants.DPS_PARAMETER_TYPES}


def Invalid(message: str) -> errors.OpPrereqError:
    """The error for an argument that can not be."""
    return errors.OpPrereqError(message, errors.ECODE_INVAL)


# Arguments


def CheckSettingTypes(
    disks: Sequence[Mapping[str, Any]], nic_settings: Sequence[Mapping[str, Any]]
) -> None:
    """Check names and types of what was said of NICs and disks.

    @raise errors.OpPrereqError: C{wrong_input}, naming the NIC or disk
    """
    for index, nic in enumerate(nic_settings):
        base.ForceTypes(f"nic/{index}", nic, constants.INIC_PARAMS_TYPES)
    for index, disk in enumerate(disks):
        base.ForceTypes(f"disk/{index}", disk, _DISK_TYPES)


def CheckAdoption(
    disks: Sequence[Mapping[str, Any]], template: str | None, iallocator: str | None, mode: str
) -> bool:
    """Are volumes that exist taken over as disks?

    @raise errors.OpPrereqError: C{wrong_input}: they are, but here they can not be
    """
    adopting = [index for index, disk in enumerate(disks) if constants.IDISK_ADOPT in disk]
    if not adopting:
        return False
    where = f"disk/{adopting[0]}: volumes can not be adopted"
    if len(adopting) < len(disks):
        raise Invalid(f"{where} for some disks only: either for all of them or for none")
    if template != constants.DT_PLAIN:
        raise Invalid(f"{where} with the disk template {template}, only with {constants.DT_PLAIN}")
    if iallocator is not None:
        raise Invalid(f"{where} with an allocator: name the node that has them")
    if mode == constants.INSTANCE_IMPORT:
        raise Invalid(f"{where} for an import")
    return True


def CheckDiskSettings(
    disks: Sequence[Mapping[str, Any]], first: int | str = 0, adopting: bool = False
) -> list[dict[str, Any]]:
    """Check names, types and values of what was said of each disk.

    @param first: what the first of them is called in messages: its index, or C{add}
    @param adopting: their sizes will be those of the volumes
    @return: copies with size (MiB), mode, and the disk's own parameters
    @raise errors.OpPrereqError: C{wrong_input}, naming the disk
    """
    result = []
    for index, settings in enumerate(disks):
        where = f"disk/{first if index == 0 else index}"
        disk = base.ForceTypes(where, settings, _DISK_TYPES)
        disk.setdefault(constants.IDISK_MODE, constants.DISK_RDWR)
        if disk[constants.IDISK_MODE] not in constants.DISK_ACCESS_SET:
            raise Invalid(
                f"{where}: mode must be one of {', '.join(sorted(constants.DISK_ACCESS_SET))}, not"
                f" {disk[constants.IDISK_MODE]!r}"
            )
        if constants.IDISK_SIZE not in disk:
            raise Invalid(f"{where}: the size is missing")
        if disk[constants.IDISK_SIZE] < (0 if adopting else 1):
            raise Invalid(f"{where}: the size must be more than 0")
        instance_checks.CheckDiskParams(where, disk_ops.GetOwnParams(disk))
        result.append(disk)
    if len(result) > constants.MAX_DISKS:
        raise Invalid(f"disks: at most {constants.MAX_DISKS} are possible, not {len(result)}")
    return result


def CheckNicSettings(nic_settings: Sequence[Mapping[str, Any]]) -> None:
    """Check what was said of each NIC by itself.

    @raise errors.OpPrereqError: C{wrong_input}, naming the NIC
    """
    if len(nic_settings) > constants.MAX_NICS:
        raise Invalid(f"nics: at most {constants.MAX_NICS} are possible, not {len(nic_settings)}")
    for index, settings in enumerate(nic_settings):
        nics.CheckNicSettings(f"nic/{index}", settings)


def NeedsSecondary(template: str | None, pnode: str | None, snode: str | None) -> bool:
    """Is there a secondary node for these disks? One that was named without is to be ignored.

    @raise errors.OpPrereqError: C{wrong_input}: it has to be named, and is not
    """
    if template not in constants.DTS_NET_MIRROR:
        return False
    if pnode is not None and snode is None:
        raise Invalid(
            f"snode is missing: the disk template {template} needs a secondary node beside the"
            f" primary node {pnode}"
        )
    return True


# What is wanted


@dataclass(frozen=True)
class Request:
    """The instance that is wanted, whether the user says so or an export.

    @ivar disks: for each disk its settings, checked (L{CheckDiskSettings})
    @ivar nics: for each NIC its settings
    """

    os_type: str
    disk_template: str
    disks: list[dict[str, Any]]
    nics: list[dict[str, Any]]
    hypervisor: str | None
    hvparams: dict[str, Any]
    beparams: dict[str, Any]


def CheckOsName(name: str) -> None:
    """Check that a name can be that of an OS.

    @raise errors.OpPrereqError: C{wrong_input}
    """
    problem = ht.TOsName.Problem(name)
    if problem is not None:
        raise Invalid(f"os_type: {problem}")


@dataclass(frozen=True)
class Plan:
    """What will be stored, and with what in effect.

    @ivar hv_filled: the hypervisor parameters with all defaults; likewise C{be_filled}
    @ivar nics: network cards whose MACs may still be C{auto}
    @ivar nics_filled: their parameters with all defaults
    """

    os_type: str
    disk_template: str
    hypervisor: str
    hvparams: dict[str, Any]
    beparams: dict[str, Any]
    hv_filled: dict[str, Any]
    be_filled: dict[str, Any]
    nics: list[objects.NIC] = field(default_factory=list)
    nics_filled: list[dict[str, Any]] = field(default_factory=list)
    disks: list[dict[str, Any]] = field(default_factory=list)


def DropDefaults(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Those values that differ from their defaults."""
    return {
        key: value for key, value in values.items() if key not in defaults or defaults[key] != value
    }


def MakePlan(
    request: Request, cluster: objects.Cluster, name_ip: str | None, identify_defaults: bool
) -> Plan:
    """Check what is wanted against what the cluster has, and fill in what was not said.

    @param name_ip: what the name resolved to; None if it was not checked
    @param identify_defaults: store nothing that equals a default of the cluster
    @raise errors.OpPrereqError: C{wrong_input}, or C{wrong_state} for a hypervisor that is not
        enabled
    """
    hypervisor = request.hypervisor or cluster.enabled_hypervisors[0]
    if hypervisor not in cluster.enabled_hypervisors:
        raise errors.OpPrereqError(
            f"Hypervisor {hypervisor!r} is not enabled in the cluster, only"
            f" {', '.join(cluster.enabled_hypervisors)}",
            errors.ECODE_STATE,
        )
    hvparams = base.ForceTypes("hvparams", request.hvparams, constants.HVS_PARAMETER_TYPES)
    hv_defaults = cluster.GetHVDefaults(hypervisor, request.os_type)
    hv_filled = objects.FillDict(hv_defaults, hvparams)
    instance_checks.CheckHvParamsSyntax(hypervisor, hv_filled)
    global_names = sorted(set(hvparams) & constants.HVC_GLOBALS)
    if global_names:
        raise Invalid(f"hvparams: {', '.join(global_names)} can only be set for the whole cluster")
    beparams = base.ForceTypes("beparams", request.beparams, constants.BES_PARAMETER_TYPES)
    be_defaults = cluster.beparams[constants.PP_DEFAULT]
    be_filled = objects.FillDict(be_defaults, beparams)
    instance_checks.CheckBeParams("beparams", be_filled)
    nic_defaults = cluster.nicparams[constants.PP_DEFAULT]
    new_nics, nics_filled = [], []
    for index, settings in enumerate(request.nics):
        nic, filled = nics.BuildNewNic(
            f"nic/{index}", settings, nic_defaults, name_ip, first=index == 0
        )
        new_nics.append(nic)
        nics_filled.append(filled)
    disks = request.disks
    if identify_defaults:
        hvparams = DropDefaults(hvparams, hv_defaults)
        beparams = DropDefaults(beparams, be_defaults)
        for nic in new_nics:
            nic.nicparams = DropDefaults(nic.nicparams, nic_defaults)
        disk_defaults = cluster.SimpleFillDisk(None)
        disks = [DropDefaults(disk, disk_defaults) for disk in disks]
    return Plan(
        request.os_type,
        request.disk_template,
        hypervisor,
        hvparams,
        beparams,
        hv_filled,
        be_filled,
        new_nics,
        nics_filled,
        [dict(disk) for disk in disks],
    )

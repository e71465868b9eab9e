"""The disks of a new instance: where their files go, and volumes that are taken over."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .. import constants, errors, objects, pathutils
from . import base, create_plan, disk_ops


def CheckTemplate(lu: base.LogicalUnit, template: str, disks: int, relative: str | None) -> None:
    """Check that the cluster has what a disk template needs.

    @param disks: how many there will be
    @param relative: C{file_storage_dir}
    @raise errors.OpPrereqError: C{wrong_input}, or C{wrong_state} without a volume group
    """
    if template not in constants.DISK_TEMPLATES:
        known = ", ".join(sorted(constants.DISK_TEMPLATES))
        raise create_plan.Invalid(f"There is no disk template {template!r}, only {known}")
    if template in constants.DTS_FILEBASED:
        _CheckFileStorage(lu, template, relative or "")
    elif template != constants.DT_DISKLESS and lu.cfg.GetVGName() is None:
        raise errors.OpPrereqError(
            f"Disk template {template!r} needs a volume group, and the cluster has none:"
            " 'gnt-cluster modify --vg-name' names one",
            errors.ECODE_STATE,
        )
    if template == constants.DT_DISKLESS and disks:
        raise create_plan.Invalid("disks: given, but the disk template is 'diskless'")
    if template != constants.DT_DISKLESS and not disks:
        raise create_plan.Invalid(f"disks: none given for the disk template {template!r}")


def _GetStorageDir(lu: base.LogicalUnit, template: str) -> str:
    """Base directory of the files of a disk template; empty if there is none."""
    if template == constants.DT_SHARED_FILE:
        return lu.cfg.GetSharedFileStorageDir()
    return lu.cfg.GetFileStorageDir() or ""


def _CheckFileStorage(lu: base.LogicalUnit, template: str, relative: str) -> None:
    top = _GetStorageDir(lu, template)
    if not pathutils.ENABLE_FILE_STORAGE or not top:
        advice = ""
        if template == constants.DT_SHARED_FILE:
            advice = (
                ": 'gnt-cluster modify --shared-file-storage-dir' names the directory that all"
                " nodes share"
            )
        raise create_plan.Invalid(f"Disk template {template!r} is disabled in this cluster{advice}")
    if not (os.path.normpath(os.path.join(top, relative)) + "/").startswith(top + "/"):
        raise create_plan.Invalid(f"file_storage_dir {relative!r} leads out of {top}")


def GetDirectory(lu: base.LogicalUnit, template: str, relative: str | None, name: str) -> str:
    """Directory of the disk files of an instance; without a meaning for other templates."""
    if template not in constants.DTS_FILEBASED:
        return ""
    return os.path.normpath(os.path.join(_GetStorageDir(lu, template), relative or "", name))


# Adoption


def CheckVolumes(lu: base.LogicalUnit, node: str, names: Sequence[str]) -> list[int]:
    """Check that volumes of the volume group can be taken over, and reserve them.

    @return: their sizes in MiB
    @raise errors.OpPrereqError: C{wrong_input} for one that is named twice or does not exist,
        C{resource_not_unique} if an instance has one, C{wrong_state} if one is in use
    @raise errors.OpExecError: the node can not tell
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise create_plan.Invalid(f"disks: {', '.join(twice)} can be adopted once only")
    for name in names:
        try:
            lu.cfg.ReserveLV(name, lu.proc.GetECId())
        except errors.ReservationError as err:
            raise errors.OpPrereqError(
                f"The volume {name} can not be adopted: {err}", errors.ECODE_NOTUNIQUE
            ) from err
    vg_name = lu.cfg.GetVGName()
    assert vg_name is not None, "CheckTemplate() has seen to that"
    result = lu.rpc.call_lv_list([node], vg_name)[node]
    result.Raise(f"Node {node} can not list its volumes")
    missing = sorted(set(names) - set(result.payload))
    if missing:
        raise create_plan.Invalid(
            f"disks: node {node} has no volume {', '.join(missing)} in {vg_name}"
        )
    in_use = [name for name in names if result.payload[name][2]]
    if in_use:
        raise errors.OpPrereqError(
            f"The volumes {', '.join(in_use)} can not be adopted: they are in use on node {node}",
            errors.ECODE_STATE,
        )
    return [int(float(result.payload[name][0])) for name in names]


def _Named(lu: base.LogicalUnit, disk: objects.Disk, node: str, name: str) -> objects.Disk:
    """A volume, as its node gets it, with another name."""
    device = disk_ops.ForNode(lu, disk, node)
    device.logical_id = device.physical_id = (disk.logical_id[0], name)
    return device


def AdoptVolumes(lu: base.LogicalUnit, instance: objects.Instance, names: Sequence[str]) -> None:
    """Give volumes the names that the disks of the instance have.

    @raise errors.OpExecError: the node could not, or not all of them
    """
    node = instance.primary_node
    devices = [
        (_Named(lu, disk, node, name), disk.logical_id)
        for disk, name in zip(instance.disks, names, strict=True)
    ]
    lu.rpc.call_blockdev_rename(node, devices).Raise(
        f"Volumes on node {node} could not be renamed to be adopted"
    )


def ReturnVolumes(lu: base.LogicalUnit, instance: objects.Instance, names: Sequence[str]) -> None:
    """Give adopted volumes, as far as they have been renamed, the names back that they had.

    @raise errors.OpExecError: the node could not
    """
    node, vg_name = instance.primary_node, lu.cfg.GetVGName()
    assert vg_name is not None, "the volumes are in it"
    devices = [
        (disk_ops.ForNode(lu, disk, node), (vg_name, name))
        for disk, name in zip(instance.disks, names, strict=True)
    ]
    result = lu.rpc.call_lv_list([node], vg_name)[node]
    result.Raise(
        f"Node {node} can not list its volumes; these have to be renamed there, as far as they"
        f" exist: {_FormatNames(devices)}"
    )
    devices = [pair for pair in devices if pair[0].logical_id[1] in result.payload]
    if devices:
        lu.rpc.call_blockdev_rename(node, devices).Raise(
            f"Adopted volumes on node {node} could not be renamed back: {_FormatNames(devices)}"
        )


def _FormatNames(devices: Sequence[tuple[objects.Disk, tuple[str, str]]]) -> str:
    return ", ".join(f"{device.logical_id[1]} to {new_id[1]}" for device, new_id in devices)

"""Adding, removing and changing disks of an instance that there is already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from .. import constants, errors, objects
from ..utils.rollback import Rollback
from . import announce, base, create_plan, disk_ops, instance_checks

#: What is to be done, and the settings that go with it: C{add}, C{remove} or an index.
Change = tuple[Any, dict[str, Any]]


def _Invalid(message: str) -> errors.OpPrereqError:
    return errors.OpPrereqError(message, errors.ECODE_INVAL)


def CheckChange(which: Any, settings: dict[str, Any]) -> Change:
    """Check a change by itself; pure.

    @return: the change with settings of the right types
    @raise errors.OpPrereqError: C{wrong_input}
    """
    where = f"disk/{which}"
    if which == constants.DDM_REMOVE:
        return which, {}
    if constants.IDISK_ADOPT in settings:
        raise _Invalid(f"{where}: adopt is for the disks of a new instance only")
    if which == constants.DDM_ADD:
        return which, create_plan.CheckDiskSettings([settings], first=which)[0]
    if constants.IDISK_SIZE in settings:
        raise _Invalid(f"{where}: the size can not be changed here; use grow-disk")
    mode = base.ForceTypes(where, settings, {constants.IDISK_MODE: constants.VTYPE_STRING}).get(
        constants.IDISK_MODE
    )
    if mode is None:
        raise _Invalid(f"{where}: the mode is missing")
    if mode not in constants.DISK_ACCESS_SET:
        raise _Invalid(
            f"{where}: mode must be one of {', '.join(sorted(constants.DISK_ACCESS_SET))}, not"
            f" {mode!r}"
        )
    return which, {constants.IDISK_MODE: mode}


def CheckChanges(
    lu: base.LogicalUnit, instance: objects.Instance, changes: Sequence[Change]
) -> None:
    """Check changes against the instance and its nodes.

    @raise errors.OpPrereqError: one can not be made
    """
    if not changes:
        return
    if instance.disk_template == constants.DT_DISKLESS:
        raise _Invalid(f"disks: instance {instance.name} is diskless")
    # Each change finds what those before it leave.
    count = len(instance.disks)
    for which, settings in changes:
        if which == constants.DDM_REMOVE:
            if count == 1:
                raise _Invalid("disks: the last disk of an instance can not be removed")
            instance_checks.CheckInstanceDown(lu, instance, "can not remove a disk")
            count -= 1
        elif which == constants.DDM_ADD:
            if count >= constants.MAX_DISKS:
                raise errors.OpPrereqError(
                    f"disks: at most {constants.MAX_DISKS} are possible", errors.ECODE_STATE
                )
            _CheckRoom(lu, instance, settings)
            count += 1
        elif which >= count:
            raise _Invalid(f"disks: the instance has no disk {which}, only {count}")


def _CheckRoom(lu: base.LogicalUnit, instance: objects.Instance, settings: dict[str, Any]) -> None:
    """Is there space for a new disk, and nothing else of its name?"""
    for node in sorted(instance.all_nodes):
        base.CheckNodeOnline(lu, node)
    needed = disk_ops.ComputeDiskSize(instance.disk_template, [settings[constants.IDISK_SIZE]])
    if needed is not None:
        instance_checks.CheckNodesFreeDisk(lu, sorted(instance.all_nodes), needed)
    if instance.disk_template in constants.DTS_FILEBASED:
        disk_ops.CheckDisksAbsent(lu, instance.primary_node, [_MakeDisk(lu, instance, settings)])


def _MakeDisk(
    lu: base.LogicalUnit, instance: objects.Instance, settings: dict[str, Any]
) -> objects.Disk:
    """The next disk of an instance, of the kind of those that it has."""
    directory, driver = "", None
    if instance.disk_template in constants.DTS_FILEBASED:
        driver, path = instance.disks[0].logical_id
        directory = os.path.dirname(path)
    (disk,) = disk_ops.GenerateDiskTemplate(
        lu,
        instance.disk_template,
        instance.name,
        instance.primary_node,
        sorted(instance.secondary_nodes),
        [settings],
        directory,
        driver,
        base_index=len(instance.disks),
    )
    return disk


def DescribeChange(
    instance: objects.Instance, which: Any, settings: dict[str, Any]
) -> list[announce.Change]:
    """What a change would do, for a dry run; makes it in the object."""
    name = instance.name
    mirrored = instance.disk_template in constants.DTS_NET_MIRROR
    if which == constants.DDM_REMOVE:
        disk = instance.disks[-1]
        lines = [announce.OfInstance(name, f"{disk.iv_name}: removed")]
        lines += disk_ops.DescribeForDisks(instance, "remove", [disk])
        if mirrored:
            lines.append(announce.OfCluster(f"port {disk.logical_id[2]} becomes free"))
        instance.disks.pop()
        return lines
    if which == constants.DDM_ADD:
        # Names, ports and minors are for a real run to take.
        disk = objects.Disk(
            dev_type=constants.LD_LV,
            iv_name=f"disk/{len(instance.disks)}",
            size=settings[constants.IDISK_SIZE],
            mode=settings[constants.IDISK_MODE],
        )
        instance.disks.append(disk)
        what = f"{disk.iv_name}: added with {announce.FormatValues(settings)}"
        lines = [announce.OfInstance(name, what)]
        lines += disk_ops.DescribeForDisks(instance, "create", [disk])
        return lines + ([announce.OfCluster("a port is taken for it")] if mirrored else [])
    disk = instance.disks[which]
    before, disk.mode = disk.mode, settings[constants.IDISK_MODE]
    return [announce.OfInstance(name, f"{disk.iv_name}: mode {before} -> {disk.mode}")]


class DiskChanges:
    """Changes the disks of an instance, and finishes that once the configuration is stored.

    As long as the configuration has a disk, its data stays.
    """

    def __init__(self, lu: base.LogicalUnit, instance: objects.Instance, undo: Rollback) -> None:
        self._lu = lu
        self._instance = instance
        self._undo = undo
        self._removed: list[objects.Disk] = []
        self._added: list[objects.Disk] = []

    def Make(self, which: Any, settings: dict[str, Any]) -> list[tuple[str, Any]]:
        """Make a change in the object, and create what is new; it as (name, value).

        @raise errors.OpExecError: a disk can not be created
        """
        instance = self._instance
        if which == constants.DDM_REMOVE:
            self._removed.append(instance.disks.pop())
            return [(f"disk/{len(instance.disks)}", "remove")]
        if which == constants.DDM_ADD:
            index = len(instance.disks)
            self._Add(settings)
            size, mode = settings[constants.IDISK_SIZE], settings[constants.IDISK_MODE]
            return [(f"disk/{index}", f"add:size={size},mode={mode}")]
        instance.disks[which].mode = settings[constants.IDISK_MODE]
        return [(f"disk.mode/{which}", settings[constants.IDISK_MODE])]

    def _Add(self, settings: dict[str, Any]) -> None:
        lu, instance, index = self._lu, self._instance, len(self._instance.disks)
        disk = _MakeDisk(lu, instance, settings)
        disk_ops.AddReleaseSteps(lu, self._undo, instance.name, [disk])
        instance.disks.append(disk)
        self._added.append(disk)
        self._undo.Add(
            f"remove {disk.iv_name}", disk_ops.RemoveDisk, lu, disk, instance.primary_node
        )
        disk_ops.CreateDisks(lu, instance, skip=range(index))

    def Finish(self) -> None:
        """Remove what the configuration does not have any more; failures are warned of."""
        lu, instance = self._lu, self._instance
        if not instance.admin_up and self._added:
            disk_ops.ShutdownDisks(lu, instance, self._added)
        for disk in self._removed:
            disk_ops.RemoveDisk(lu, disk, instance.primary_node)
            if disk.dev_type in constants.LDS_DRBD:
                lu.cfg.AddTcpUdpPort(disk.logical_id[2])

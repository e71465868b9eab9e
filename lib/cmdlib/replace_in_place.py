"""New storage for one side of mirrored disks, on the same node.

The new volumes get the names of the old ones, which are called C{<name>_replaced-<seconds>} until
they are removed: so there is nothing in the configuration that would change. If one disk fails, it
is put back as it was; those before it keep their new volumes.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import constants, errors, objects
from ..utils.rollback import Rollback
from . import disk_ops, replace_base
from .disk_names import DeviceName

#: A volume, and the same volume under its other name.
_Pairs = Sequence[tuple[objects.Disk, objects.Disk]]


class InPlace(replace_base.Replacement):
    """New storage on the plan's target."""

    def Run(self) -> None:
        plan = self._plan
        self._Step(1, "Check device existence")
        self._CheckDevices([plan.other, plan.target])
        self._CheckVolumeGroups([plan.other, plan.target])
        self._Step(2, "Check peer consistency")
        self._CheckConsistency(plan.other)
        self._Step(3, "Allocate new storage")
        #: Volumes under names of their own, which nothing uses (yet).
        self._spare: list[objects.Disk] = []
        try:
            with Rollback(self._feedback) as undo:
                undo.Add("remove the new volumes", self._RemoveSpare)
                new = [self._Allocate(disk) for disk in self._disks]
                self._Step(4, "Changing drbd configuration")
                for disk, volumes in zip(self._disks, new, strict=True):
                    self._Swap(disk, volumes)
        except errors.GenericError:
            self._TellLeft()
            raise
        self._Finish()

    def _Allocate(self, disk: objects.Disk) -> list[objects.Disk]:
        """Create volumes like those of a disk, under other names."""
        node, ec_id = self._plan.target, self._lu.proc.GetECId()
        self._lu.LogInfo("creating new local storage on %s for %s", node, disk.iv_name)
        volumes = []
        for child, part in zip(disk.children or (), ("data", "meta"), strict=True):
            index = str(disk.iv_name).rpartition("/")[2]
            name = f"{self._lu.cfg.GenerateUniqueID(ec_id)}.disk{index}_{part}"
            volume = child.Copy()
            volume.logical_id = (child.logical_id[0], name)
            # What is below a disk has the disk's parameters.
            volume.params = {**(disk.params or {}), **(child.params or {})} or None
            volumes.append(volume)
            # Before: it may be created without an answer.
            self._spare.append(volume)
            self._CreateVolume(volume, node)
        return volumes

    def _RemoveSpare(self) -> None:
        self._RemoveVolumes(self._plan.target, self._spare)

    # One disk

    def _Swap(self, disk: objects.Disk, new: Sequence[objects.Disk]) -> None:
        """Put new volumes in place of those of a disk, or leave all as it was."""
        self._lu.LogInfo("detaching %s drbd from local storage", disk.iv_name)
        children = list(disk.children or ())
        suffix = self._ChooseSuffix(children)
        with Rollback(self._feedback) as undo:
            undo.Add(f"attach {disk.iv_name} to its old volumes", self._AttachAgain, disk)
            self._Detach(disk, children)
            self._lu.LogInfo("renaming the old LVs on the target node")
            away = [
                (volume, _Renamed(volume, volume.logical_id[1] + suffix))
                for volume in children
                if self._Find(volume, self._plan.target) is not None
            ]
            undo.Add(f"rename old volumes back: {_Show(away)}", self._RenameBack, away)
            self._Rename(away)
            self._lu.LogInfo("renaming the new LVs on the target node")
            pairs = list(zip(new, children, strict=True))
            # Whatever has the old names from here on is new.
            undo.Add(f"rename new volumes back: {_Show(pairs)}", self._RenameBack, pairs)
            self._Rename(pairs)
            self._lu.LogInfo("adding new mirror component on %s", self._plan.target)
            undo.Add("detach the new volumes", self._Detach, disk, children)
            self._Attach(disk)
        self._spare = [volume for volume in self._spare if volume not in new]
        self._old += [renamed for _, renamed in away]

    def _HasVolumes(self, disk: objects.Disk) -> bool:
        """Does the device have storage on the target?"""
        status = self._Find(disk, self._plan.target)
        if status is None:
            raise errors.OpExecError(
                f"Disk {disk.iv_name} is not active on node {self._plan.target} any more"
            )
        return status.ldisk_status != constants.LDS_FAULTY

    def _Detach(self, disk: objects.Disk, children: Sequence[objects.Disk]) -> None:
        node = self._plan.target
        device = disk_ops.ForNode(self._lu, disk, node)
        parts = [disk_ops.ForNode(self._lu, child, node) for child in children]
        result = self._rpc.call_blockdev_removechildren(node, device, parts)
        what = f"Disk {disk.iv_name} can not be detached from its volumes on node {node}"
        self._Redo(what, result.fail_msg, lambda: not self._HasVolumes(disk))

    def _Attach(self, disk: objects.Disk) -> None:
        node = self._plan.target
        device = disk_ops.ForNode(self._lu, disk, node)
        result = self._rpc.call_blockdev_addchildren(node, device, device.children)
        what = f"Disk {disk.iv_name} can not be attached to its new volumes on node {node}"
        self._Redo(what, result.fail_msg, lambda: self._HasVolumes(disk))

    def _AttachAgain(self, disk: objects.Disk) -> None:
        if self._HasVolumes(disk):
            return
        node = self._plan.target
        device = disk_ops.ForNode(self._lu, disk, node)
        self._rpc.call_blockdev_addchildren(node, device, device.children).Raise(
            f"Disk {disk.iv_name} has no storage on node {node} now; its data is on"
            f" {self._plan.other}, and the same command makes new storage"
        )

    # Names

    def _ChooseSuffix(self, volumes: Sequence[objects.Disk]) -> str:
        """What old volumes get at the end of their names: no other attempt has left such ones."""
        seconds = int(self._lu.context.runtime.clock.time())
        while True:
            suffix = f"_replaced-{seconds}"
            renamed = [_Renamed(volume, volume.logical_id[1] + suffix) for volume in volumes]
            if all(self._Find(volume, self._plan.target) is None for volume in renamed):
                return suffix
            seconds += 1

    def _Rename(self, pairs: _Pairs) -> None:
        if not pairs:
            return
        node = self._plan.target
        devices = [(disk_ops.ForNode(self._lu, old, node), new.logical_id) for old, new in pairs]
        result = self._rpc.call_blockdev_rename(node, devices)
        self._Redo(
            f"Volumes can not be renamed on node {node} ({_Show(pairs)})",
            result.fail_msg,
            lambda: all(self._IsRenamed(old, new) for old, new in pairs),
        )

    def _IsRenamed(self, old: objects.Disk, new: objects.Disk) -> bool:
        node = self._plan.target
        return self._Find(old, node) is None and self._Find(new, node) is not None

    def _RenameBack(self, pairs: _Pairs) -> None:
        for old, new in pairs:
            if self._IsRenamed(old, new):
                self._Rename([(new, old)])


def _Renamed(volume: objects.Disk, name: str) -> objects.Disk:
    copy = volume.Copy()
    copy.logical_id = (volume.logical_id[0], name)
    return copy


def _Show(pairs: _Pairs) -> str:
    return ", ".join(f"{DeviceName(old)} -> {DeviceName(new)}" for old, new in pairs) or "none"

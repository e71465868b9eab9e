"""Another secondary node for mirrored disks.

Until the configuration names the new node, whatever fails has the old one connected again and what
was made on the new one removed. From then on the instance is mirrored to the new node, if need be
after its disks were activated again.
"""

from __future__ import annotations

from typing import Any

from .. import errors, objects
from ..utils.rollback import Rollback
from . import base, disk_ops, replace_base


class NewSecondary(replace_base.Replacement):
    """The plan's new node takes the place of its target, which was the secondary."""

    def Run(self) -> None:
        plan, instance = self._plan, self._instance
        assert plan.new is not None
        self._new: str = plan.new
        self._primary = plan.other
        self._ips = {name: base.GetNode(self._lu, name).secondary_ip for name in plan.nodes}
        self._Step(1, "Check device existence")
        self._CheckDevices([self._primary])
        self._CheckVolumeGroups([self._primary, self._new])
        self._Step(2, "Check peer consistency")
        self._CheckConsistency(self._primary, ldisk=True)
        self._Step(3, "Allocate new storage")
        before = instance.Copy()
        with Rollback(self._feedback) as undo:
            undo.Add("remove the new volumes", self._RemoveVolumes, self._new, self._GetVolumes())
            for disk in self._disks:
                self._lu.LogInfo("adding new local storage on %s for %s", self._new, disk.iv_name)
                for child in disk.children or ():
                    volume = child.Copy()
                    volume.params = {**(disk.params or {}), **(child.params or {})} or None
                    self._CreateVolume(volume, self._new)
            self._Step(4, "Changing drbd configuration")
            undo.Add("release the DRBD minors", self._lu.cfg.ReleaseDRBDMinors, instance.name)
            new_ids = self._CreateMirrors(undo)
            undo.Add(f"connect node {plan.target} again", self._ConnectAgain, before)
            self._LeaveTarget()
            self._lu.LogInfo("updating instance configuration")
            for disk, new_id in zip(self._disks, new_ids, strict=True):
                disk.logical_id = new_id
                self._lu.cfg.SetDiskID(disk, self._primary)
            self._lu.cfg.Update(instance, self._feedback)
            undo.Commit()
        self._old = self._GetVolumes()
        self._Connect()
        self._Finish()

    def _TellLeft(self) -> None:
        name = self._instance.name
        self._lu.LogWarning(
            "The secondary node of %s is %s now, and is not to be changed again",
            name,
            self._new,
            hint=f"'gnt-instance info {name}' shows its disks; 'gnt-instance activate-disks {name}'"
            " connects what is not connected",
        )
        super()._TellLeft()

    def _GetVolumes(self) -> list[objects.Disk]:
        return [child for disk in self._disks for child in disk.children or ()]

    def _CreateMirrors(self, undo: Rollback) -> list[tuple[Any, ...]]:
        """Create the devices on the new node, without a connection; their future ids."""
        instance = self._instance
        minors = self._lu.cfg.AllocateDRBDMinor([self._new] * len(self._disks), instance.name)
        new_ids = []
        for disk, minor in zip(self._disks, minors, strict=True):
            first, _, port, first_minor, second_minor, secret = disk.logical_id
            own_minor = first_minor if first == self._primary else second_minor
            new_ids.append((self._primary, self._new, port, own_minor, minor, secret))
            alone = disk.Copy()
            # Without a port it does not connect: its peer is still bound to the old node.
            alone.logical_id = (self._primary, self._new, None, own_minor, minor, secret)
            self._lu.LogInfo("activating a new drbd on %s for %s", self._new, disk.iv_name)
            undo.Add(f"shut down /dev/drbd{minor} on {self._new}", self._Shutdown, alone, self._new)
            device = disk_ops.ForNode(self._lu, alone, self._new)
            info = f"originstname+{instance.name}"
            self._rpc.call_blockdev_create(
                self._new, device, device.size, instance.name, False, info
            ).Raise(f"Disk {disk.iv_name} can not be created on node {self._new}")
        return new_ids

    def _Shutdown(self, disk: objects.Disk, node: str) -> None:
        device = disk_ops.ForNode(self._lu, disk, node)
        self._rpc.call_blockdev_shutdown(node, device).Raise(
            f"Disk {disk.iv_name} can not be shut down on node {node}"
        )

    def _LeaveTarget(self) -> None:
        """Take the old secondary out of the mirrors."""
        target = self._plan.target
        for disk in self._disks:
            self._lu.LogInfo("shutting down drbd for %s on old node %s", disk.iv_name, target)
            device = disk_ops.ForNode(self._lu, disk, target)
            assert device.physical_id is not None
            result = self._rpc.call_blockdev_shutdown(target, device)
            if result.fail_msg:
                self._lu.LogWarning(
                    "Disk %s could not be shut down on the old node %s: %s",
                    disk.iv_name,
                    target,
                    result.fail_msg,
                    hint=f"Shut /dev/drbd{device.physical_id[4]} down there by hand as soon as"
                    " possible",
                )
        self._lu.LogInfo("detaching primary drbds from the network (=> standalone)")
        devices = self._GetDevices()
        result = self._rpc.call_drbd_disconnect_net([self._primary], self._ips, devices)[
            self._primary
        ]
        result.Raise(
            f"Node {self._primary} can not disconnect the disks of instance {self._instance.name}"
            f" from {target}, so the secondary was not changed"
        )

    def _GetDevices(self) -> list[objects.Disk]:
        return [disk_ops.ForNode(self._lu, disk, self._primary) for disk in self._disks]

    def _ConnectAgain(self, before: objects.Instance) -> None:
        """Have the old secondary in the mirrors again."""
        for disk, old in zip(self._disks, (before.disks[i] for i in self._plan.disks), strict=True):
            disk.logical_id = old.logical_id
        # As at any activation: what is connected stays so.
        ok, _ = disk_ops.AssembleDisks(self._lu, self._instance, self._disks)
        if not ok:
            raise errors.OpExecError(
                f"the disks are not mirrored to {self._plan.target} now; 'gnt-instance"
                f" activate-disks {self._instance.name}' tries it again"
            )

    def _Connect(self) -> None:
        """Connect both sides; if that fails, the wait for them to be in sync will tell."""
        self._lu.LogInfo("attaching primary drbds to new secondary (standalone => connected)")
        nodes = [self._primary, self._new]
        results = self._rpc.call_drbd_attach_net(
            nodes, self._ips, self._GetDevices(), self._instance.name, False
        )
        for node, result in results.items():
            if result.fail_msg:
                self._lu.LogWarning(
                    "Node %s can not connect the disks: %s",
                    node,
                    result.fail_msg,
                    hint=f"The secondary is {self._new} now: 'gnt-instance activate-disks"
                    f" {self._instance.name}' tries to connect them again",
                )

"""Logical units on the disks of an instance: activate, deactivate, recreate, grow."""

from __future__ import annotations

from typing import Any, Final

from .. import constants, errors, locking, objects, opcodes
from ..utils.rollback import Rollback
from . import announce, base, disk_ops, instance_checks, instance_env


class _InstanceNodesMixin(base.LogicalUnit):
    """Locks the instance and all its nodes."""

    def ExpandNames(self) -> None:
        self._ExpandAndLockInstance()
        assert self.needed_locks is not None
        self.needed_locks[locking.LEVEL_NODE] = []
        self.recalculate_locks[locking.LEVEL_NODE] = base.LOCKS_REPLACE

    def DeclareLocks(self, level: int) -> None:
        if level == locking.LEVEL_NODE:
            self._LockInstancesNodes()


class LUInstanceActivateDisks(_InstanceNodesMixin, base.NoHooksLU):
    """Make the disks of an instance usable on its primary node."""

    def CheckPrereq(self) -> None:
        instance = base.GetInstance(self, self.op.instance_name)
        base.CheckNodeOnline(self, instance.primary_node)

    def DescribeChanges(self) -> list[announce.Change]:
        instance = base.GetInstance(self, self.op.instance_name)
        return disk_ops.DescribeForDisks(instance, "assemble")

    def Exec(self, feedback_fn: base.FeedbackFn) -> list[tuple[str, str | None, Any]]:
        instance = base.GetInstance(self, self.op.instance_name)
        ok, info = disk_ops.AssembleDisks(self, instance, ignore_size=self.op.ignore_size)
        if not ok:
            raise errors.OpExecError(f"The disks of {instance.name} can not be activated")
        return info


class LUInstanceDeactivateDisks(_InstanceNodesMixin, base.NoHooksLU):
    """Shut down the disks of an instance that does not run."""

    def CheckPrereq(self) -> None:
        instance = base.GetInstance(self, self.op.instance_name)
        instance_checks.CheckInstanceDown(self, instance, "can not deactivate its disks")

    def DescribeChanges(self) -> list[announce.Change]:
        instance = base.GetInstance(self, self.op.instance_name)
        return disk_ops.DescribeForDisks(instance, "shut down")

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        disk_ops.ShutdownDisks(self, base.GetInstance(self, self.op.instance_name))


class LUInstanceGrowDisk(_InstanceNodesMixin):
    """Make a disk bigger."""

    HPATH = "disk-grow"
    HTYPE = constants.HTYPE_INSTANCE

    def BuildHooksEnv(self) -> base.HooksEnv:
        instance = base.GetInstance(self, self.op.instance_name)
        env = {
            "DISK": self.op.disk,
            "AMOUNT": self.op.amount,
            **instance_env.BuildInstanceHookEnvByObject(self, instance),
        }
        nodes = sorted({self.cfg.GetMasterNode(), *instance.all_nodes})
        return env, nodes, nodes

    def CheckPrereq(self) -> None:
        instance = base.GetInstance(self, self.op.instance_name)
        for node in sorted(instance.all_nodes):
            base.CheckNodeOnline(self, node)
        if instance.disk_template not in constants.DTS_GROWABLE:
            raise errors.OpPrereqError(
                f"Instance {instance.name} has the disk template {instance.disk_template}, whose"
                " disks can not grow",
                errors.ECODE_INVAL,
            )
        instance.FindDisk(self.op.disk)
        if self.op.amount <= 0:
            raise errors.OpPrereqError(
                f"amount must be positive, not {self.op.amount}", errors.ECODE_INVAL
            )
        if instance.disk_template not in constants.DTS_FILEBASED:
            self._CheckFreeDisk(instance)

    def _CheckFreeDisk(self, instance: objects.Instance) -> None:
        """Check the nodes for what is still to be added there: less after an interrupted growth."""
        nodes: dict[int, list[str]] = {}
        for node, data in self._GetStores(instance):
            measured = self._Measure(node, data)
            missing = self.op.amount if measured is None else self._GetMissing(data, measured)
            nodes.setdefault(missing, []).append(node)
        for missing, names in nodes.items():
            if missing > 0:
                instance_checks.CheckNodesFreeDisk(self, sorted(names), missing)

    def _GetStores(self, instance: objects.Instance) -> list[tuple[str, objects.Disk]]:
        """What holds the data of the disk: (node, device); of a mirror on both nodes."""
        disk = instance.FindDisk(self.op.disk)
        data = disk.children[0] if disk.children else disk
        return [(node, data) for node in disk.GetNodes(instance.primary_node)]

    def _Measure(self, node: str, data: objects.Disk) -> int | None:
        """How big a device is in MiB; None if its node can not tell."""
        result = self.rpc.call_blockdev_getsizes(node, [disk_ops.ForNode(self, data, node)])
        size = None if result.fail_msg or len(result.payload) != 1 else result.payload[0]
        return size >> 20 if isinstance(size, int) else None

    def _GetMissing(self, data: objects.Disk, measured: int) -> int:
        """MiB that a device lacks to what it is to be.

        That counts from the size that is recorded: what an earlier command, which did not come to
        its end, has added is there already.
        """
        return int(data.size + self.op.amount - measured)

    def DescribeChanges(self) -> list[announce.Change]:
        instance = base.GetInstance(self, self.op.instance_name)
        new = instance.Copy()
        new.FindDisk(self.op.disk).RecordGrow(self.op.amount)
        disk = [instance.FindDisk(self.op.disk)]
        lines = disk_ops.DescribeForDisks(instance, "assemble", disk)
        what = f"add {self.op.amount} MiB to"
        lines += disk_ops.DescribeForDisks(instance, what, disk)
        lines += announce.Between(instance, new)
        if not instance.admin_up and self.op.wait_for_sync:
            lines += disk_ops.DescribeForDisks(instance, "shut down", disk)
        return lines

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        instance = base.GetInstance(self, self.op.instance_name)
        disk = instance.FindDisk(self.op.disk)
        with Rollback(feedback_fn) as undo:
            if not instance.admin_up:
                undo.Add("shut down the disk", disk_ops.ShutdownDisks, self, instance, [disk])
            ok, _ = disk_ops.AssembleDisks(self, instance, [disk])
            if not ok:
                raise errors.OpExecError(f"Disk {disk.iv_name} can not be activated to grow")
            self._Grow(instance, disk)
            self.cfg.Update(instance, feedback_fn)
            if self.op.wait_for_sync and not disk_ops.WaitForSync(self, instance, [disk]):
                self.LogWarning("Disk %s is degraded", disk.iv_name)
        if instance.admin_up:
            return
        if self.op.wait_for_sync:
            disk_ops.ShutdownDisks(self, instance, [disk])
        else:
            self.LogWarning(
                "Disk %s stays active though the instance is down",
                disk.iv_name,
                hint=f"gnt-instance deactivate-disks {instance.name}",
            )

    def _Grow(self, instance: objects.Instance, disk: objects.Disk) -> None:
        """Make what holds the data bigger on all nodes, then the mirror over it, once.

        All nodes are asked before the first is changed.
        """
        again = "the same command goes on from here"
        missing = []
        for node, data in self._GetStores(instance):
            measured = self._Measure(node, data)
            if measured is None:
                raise errors.OpExecError(
                    f"Node {node} can not tell how big disk {disk.iv_name} is; nothing was changed"
                )
            missing.append((node, data, self._GetMissing(data, measured)))
        for node, data, amount in missing:
            if amount > 0:
                device = disk_ops.ForNode(self, data, node)
                self.rpc.call_blockdev_grow(node, device, amount).Raise(
                    f"Disk {disk.iv_name} can not grow on node {node}; {again}"
                )
        disk.RecordGrow(self.op.amount)
        if disk.dev_type in constants.LDS_DRBD:
            node = instance.primary_node
            device = disk_ops.ForNode(self, disk, node)
            # By nothing: what is below it has grown, and what the disk says is its new size.
            self.rpc.call_blockdev_grow(node, device, 0).Raise(
                f"Disk {disk.iv_name} has more space on all nodes, but its mirror could not be"
                f" told so on node {node}; {again}"
            )


class LUInstanceRecreateDisks(_InstanceNodesMixin):
    """Create lost disks of an instance again, empty; they are not active then."""

    HPATH = "instance-recreate-disks"
    HTYPE = constants.HTYPE_INSTANCE

    def CheckArguments(self) -> None:
        for index in self.op.disks:
            if index < 0:
                raise errors.OpPrereqError(
                    f"disks: index {index} must not be negative", errors.ECODE_INVAL
                )

    def BuildHooksEnv(self) -> base.HooksEnv:
        instance = base.GetInstance(self, self.op.instance_name)
        env = instance_env.BuildInstanceHookEnvByObject(self, instance)
        nodes = sorted({self.cfg.GetMasterNode(), *instance.all_nodes})
        return env, nodes, nodes

    def CheckPrereq(self) -> None:
        instance = base.GetInstance(self, self.op.instance_name)
        for node in instance.all_nodes:
            base.CheckNodeOnline(self, node)
        if instance.disk_template == constants.DT_DISKLESS:
            raise errors.OpPrereqError(f"Instance {instance.name} has no disks", errors.ECODE_INVAL)
        instance_checks.CheckInstanceDown(self, instance, "can not recreate its disks")
        for index in self.op.disks:
            if index >= len(instance.disks):
                raise errors.OpPrereqError(
                    f"disks: instance {instance.name} has no disk {index}, only"
                    f" {len(instance.disks)}",
                    errors.ECODE_INVAL,
                )
        for node in instance.all_nodes:
            disk_ops.CheckDisksAbsent(self, node, self._GetWanted(instance))

    def _GetWanted(self, instance: objects.Instance) -> list[objects.Disk]:
        return [instance.disks[index] for index in self.op.disks] or list(instance.disks)

    def DescribeChanges(self) -> list[announce.Change]:
        instance = base.GetInstance(self, self.op.instance_name)
        wanted = self._GetWanted(instance)
        what = "create, without any content,"
        return disk_ops.DescribeForDisks(instance, what, wanted)

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        instance = base.GetInstance(self, self.op.instance_name)
        wanted = self.op.disks or range(len(instance.disks))
        skip = [index for index in range(len(instance.disks)) if index not in wanted]
        with Rollback(feedback_fn) as undo:
            # None of them was there before.
            undo.Add("remove the disks", disk_ops.RemoveDisks, self, instance, None, skip)
            disk_ops.CreateDisks(self, instance, skip=skip)
        disk_ops.ShutdownDisks(self, instance, self._GetWanted(instance))


LOGICAL_UNITS: Final = {
    opcodes.OpInstanceActivateDisks: LUInstanceActivateDisks,
    opcodes.OpInstanceDeactivateDisks: LUInstanceDeactivateDisks,
    opcodes.OpInstanceGrowDisk: LUInstanceGrowDisk,
    opcodes.OpInstanceRecreateDisks: LUInstanceRecreateDisks,
}

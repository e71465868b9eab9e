"""Logical units on the disks of an instance: activate, deactivate, recreate, grow."""

from __future__ import annotations

from typing import Any, Final

from .. import constants, errors, locking, opcodes
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
            instance_checks.CheckNodesFreeDisk(self, sorted(instance.all_nodes), self.op.amount)

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
            for node in sorted(instance.all_nodes):
                device = disk_ops.ForNode(self, disk, node)
                self.rpc.call_blockdev_grow(node, device, self.op.amount).Raise(
                    f"Disk {disk.iv_name} can not grow on node {node}; 'gnt-cluster"
                    f" repair-disk-sizes {instance.name}' finds out how big it is"
                )
            disk.RecordGrow(self.op.amount)
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


class LUInstanceRecreateDisks(_InstanceNodesMixin):
    """Create lost disks of an instance again, empty."""

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
        base.CheckNodeOnline(self, instance.primary_node)
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

    def DescribeChanges(self) -> list[announce.Change]:
        instance = base.GetInstance(self, self.op.instance_name)
        wanted = [instance.disks[index] for index in self.op.disks] or None
        return disk_ops.DescribeForDisks(instance, "create, without any content,", wanted)

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        instance = base.GetInstance(self, self.op.instance_name)
        wanted = self.op.disks or range(len(instance.disks))
        skip = [index for index in range(len(instance.disks)) if index not in wanted]
        disk_ops.CreateDisks(self, instance, skip=skip)


LOGICAL_UNITS: Final = {
    opcodes.OpInstanceActivateDisks: LUInstanceActivateDisks,
    opcodes.OpInstanceDeactivateDisks: LUInstanceDeactivateDisks,
    opcodes.OpInstanceGrowDisk: LUInstanceGrowDisk,
    opcodes.OpInstanceRecreateDisks: LUInstanceRecreateDisks,
}

"""Moving an instance to a node that has no copy of its disks: they are copied while it is down."""

from __future__ import annotations

from typing import Any, Final

from .. import constants, errors, locking, objects, opcodes
from ..utils import text
from ..utils.rollback import Rollback
from . import (
    announce,
    base,
    disk_ops,
    instance_checks,
    instance_env,
    instance_target,
)

#: Kinds of disks that can be copied as they are.
_COPIED: Final = frozenset([constants.LD_LV, constants.LD_FILE])


def CheckCopyable(instance: objects.Instance) -> None:
    """Check that the disks of an instance are such that copying them makes sense; pure.

    @raise errors.OpPrereqError: C{wrong_state}
    """
    if instance.disk_template in constants.DTS_MIRRORED:
        raise errors.OpPrereqError(
            f"Instance {instance.name} has the disk template {instance.disk_template}: it need not"
            " be copied to run on another node; use 'gnt-instance migrate' or 'failover'",
            errors.ECODE_STATE,
        )
    for disk in instance.disks:
        if disk.dev_type not in _COPIED:
            raise errors.OpPrereqError(
                f"Disk {disk.iv_name} of instance {instance.name} is of type {disk.dev_type},"
                " which can not be copied",
                errors.ECODE_STATE,
            )


class LUInstanceMove(base.LogicalUnit):
    """Copy an instance to another node and remove it from the one it was on.

    Until the configuration says that the instance is on the other node, whatever fails has the
    copies removed and the instance started again where it was.
    """

    HPATH = "instance-move"
    HTYPE = constants.HTYPE_INSTANCE

    def ExpandNames(self) -> None:
        self._ExpandAndLockInstance()
        assert self.needed_locks is not None
        self.op.target_node = base.ExpandNodeName(self.cfg, self.op.target_node)
        self.needed_locks[locking.LEVEL_NODE] = [self.op.target_node]

    def DeclareLocks(self, level: int) -> None:
        if level == locking.LEVEL_NODE:
            assert self.needed_locks is not None
            # Anew: the same opcode is tried more than once.
            self.needed_locks[locking.LEVEL_NODE] = [self.op.target_node]
            self.recalculate_locks[locking.LEVEL_NODE] = base.LOCKS_APPEND
            self._LockInstancesNodes(primary_only=True)

    def _GetInstance(self) -> objects.Instance:
        return base.GetInstance(self, self.op.instance_name)

    def BuildHooksEnv(self) -> base.HooksEnv:
        instance = self._GetInstance()
        env: dict[str, Any] = {
            "TARGET_NODE": self.op.target_node,
            "SHUTDOWN_TIMEOUT": self.op.shutdown_timeout,
            **instance_env.BuildInstanceHookEnvByObject(self, instance),
        }
        nodes = sorted({self.cfg.GetMasterNode(), instance.primary_node, self.op.target_node})
        return env, nodes, nodes

    def CheckPrereq(self) -> None:
        instance, target = self._GetInstance(), self.op.target_node
        if target == instance.primary_node:
            raise errors.OpPrereqError(
                f"Instance {instance.name} is on node {target} already", errors.ECODE_STATE
            )
        CheckCopyable(instance)
        base.CheckNodeOnline(self, instance.primary_node)
        up = bool(instance.admin_up)
        why = f"moving instance {instance.name}"
        instance_target.CheckTarget(self, instance, target, why, memory=up)
        if not up:
            self.LogInfo(
                "The memory of node %s is not looked at, as the instance will not be started",
                target,
            )
        sizes = [disk.size for disk in instance.disks]
        needed = disk_ops.ComputeDiskSize(instance.disk_template, sizes)
        if needed:
            instance_checks.CheckNodesFreeDisk(self, [target], needed)
        # What is there already may be the only copy, seen from another side: of shared storage.
        disk_ops.CheckDisksAbsent(self, target, instance.disks)

    def DescribeChanges(self) -> list[announce.Change]:
        instance, target = self._GetInstance(), self.op.target_node
        source = instance.primary_node
        new = instance.Copy()
        new.primary_node = target
        limit = f"what takes longer than {self.op.shutdown_timeout} s is killed"
        lines = announce.OnNodes([source], f"shut it down, if it runs; {limit}")
        if instance.disks:
            names = announce.FormatNames([str(disk.iv_name) for disk in instance.disks])
            lines += announce.OnNodes([target], f"create {names}")
            lines += announce.OnNodes([source], f"copy {names} to {target}")
        lines += announce.Between(instance, new)
        if instance.disks:
            lines += announce.OnNodes([source], f"remove {names}")
        return lines + (announce.OnNodes([target], "start it") if instance.admin_up else [])

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        instance, target = self._GetInstance(), self.op.target_node
        source = instance.primary_node
        with Rollback(feedback_fn) as undo:
            feedback_fn(f"Shutting down instance {instance.name} on source node {source}")
            stopped = instance_target.StopOnSource(
                self, instance, self.op.shutdown_timeout, self.op.ignore_consistency
            )
            if stopped and instance.admin_up:
                undo.Add(
                    f"start the instance again on {source}",
                    instance_target.StartAgain,
                    self,
                    instance,
                    None,
                )
            # Once for all disks: a half of them is no use.
            undo.Add(f"remove the copies on {target}", self._RemoveCopies, instance)
            feedback_fn(f"Creating disks on node {target}")
            disk_ops.CreateDisks(self, instance, target_node=target)
            self._CopyDisks(instance, feedback_fn)
            old = instance.Copy()
            instance_target.SetPrimary(self, instance, target, feedback_fn)
            undo.Commit()
        feedback_fn(f"Removing the disks on the original node {source}")
        if not disk_ops.RemoveDisks(self, old, target_node=source):
            self.LogWarning(
                "Not all old disks could be removed",
                hint=f"The instance is on node {target} now: remove what is left on {source}",
            )
        if instance.admin_up:
            feedback_fn(f"Starting instance {instance.name} on node {target}")
            instance_target.StartThere(self, instance, None)

    def _CopyDisks(self, instance: objects.Instance, feedback_fn: base.FeedbackFn) -> None:
        source, target = instance.primary_node, self.op.target_node
        # Of an instance that was not started since its node was, they may not be active.
        disk_ops.StartDisks(self, instance, None)
        for index, disk in enumerate(instance.disks):
            self.CheckCancel()
            feedback_fn(
                f"Copying disk {index} ({text.FormatUnit(disk.size, 'h')}) from {source} to"
                f" {target}"
            )
            device = disk_ops.ForNode(self, disk, target)
            result = self.rpc.call_blockdev_assemble(target, device, instance.name, True)
            result.Raise(f"Disk {disk.iv_name} can not be activated on node {target}")
            path = result.payload
            device = disk_ops.ForNode(self, disk, source)
            self.proc.ReportStep(f"copying disk {index} to {target}")
            try:
                result = self.rpc.call_blockdev_export(
                    source, device, target, path, self.cfg.GetClusterName()
                )
            finally:
                self.proc.ReportStep(None)
            result.Raise(
                f"Disk {disk.iv_name} of instance {instance.name} can not be copied from node"
                f" {source} to {target}, so the instance stays on {source}"
            )
        disk_ops.ShutdownDisks(self, instance)

    def _RemoveCopies(self, instance: objects.Instance) -> None:
        target = self.op.target_node
        if not disk_ops.RemoveDisks(self, instance, target_node=target):
            raise errors.OpExecError(
                f"Not all copies could be removed: remove them on node {target} before you move"
                " the instance there"
            )


LOGICAL_UNITS: Final = {opcodes.OpInstanceMove: LUInstanceMove}

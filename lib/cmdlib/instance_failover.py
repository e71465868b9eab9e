"""Failover: an instance is stopped on its node and started on another one that has its disks."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from .. import constants, errors, objects, opcodes
from ..utils.rollback import Rollback
from . import (
    announce,
    base,
    disk_ops,
    instance_checks,
    instance_target,
)


class LUInstanceFailover(instance_target.MobileInstanceLU):
    """Stop an instance and start it on its secondary node, or on any other if its disks allow.

    Other than in release 2.1, disks that a living node does not shut down are an obstacle, unless
    the consistency is to be ignored. Until the configuration says that the instance is on the other
    node, whatever fails has it started again where it was; from then on C{gnt-instance startup}
    goes on where this broke off.
    """

    HPATH = "instance-failover"

    def _ExtraEnv(self) -> dict[str, Any]:
        return {
            "IGNORE_CONSISTENCY": self.op.ignore_consistency,
            "SHUTDOWN_TIMEOUT": self.op.shutdown_timeout,
        }

    def _HookTargets(self) -> Collection[str]:
        return [self.target]

    def CheckPrereq(self) -> None:
        instance = self._GetInstance()
        instance_checks.CheckAtHome(self, instance)
        self.target = instance_target.ChooseTarget(self, instance)
        up = bool(instance.admin_up)
        why = f"failing over instance {instance.name}"
        instance_target.CheckTarget(self, instance, self.target, why, memory=up)
        if not up:
            self.LogInfo(
                "The memory of node %s is not looked at, as the instance will not be started",
                self.target,
            )

    def DescribeChanges(self) -> list[announce.Change]:
        instance = self._GetInstance()
        new = instance.Copy()
        new.primary_node = self.target
        limit = f"what takes longer than {self.op.shutdown_timeout} s is killed"
        lines = [
            *announce.OnNodes([instance.primary_node], f"shut it down, if it runs; {limit}"),
            *disk_ops.DescribeForDisks(instance, "shut down"),
            *announce.Between(instance, new),
        ]
        if not instance.admin_up:
            return lines
        return [
            *lines,
            *disk_ops.DescribeForDisks(new, "assemble"),
            *announce.OnNodes([self.target], "start it"),
        ]

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        instance = self._GetInstance()
        source, target = instance.primary_node, self.target
        feedback_fn(f"* failing over instance {instance.name} from {source} to {target}")
        if instance.admin_up:
            feedback_fn("* checking disk consistency between source and target")
            self._CheckDisks(instance)
        else:
            feedback_fn("* not checking disk consistency as the instance is marked down")
        with Rollback(feedback_fn) as undo:
            feedback_fn(f"* shutting down instance on source node {source}")
            stopped = instance_target.StopOnSource(
                self, instance, self.op.shutdown_timeout, self.op.ignore_consistency
            )
            if stopped and instance.admin_up:
                undo.Add(
                    f"start the instance again on {source}",
                    instance_target.StartAgain,
                    self,
                    instance,
                    True,
                )
            feedback_fn("* deactivating the instance's disks")
            # A node that is there, but goes on using its side of a mirror, would not let the other
            # side be written to.
            ignore_source = self.op.ignore_consistency or not stopped
            if not disk_ops.ShutdownDisks(self, instance, ignore_primary=ignore_source):
                raise errors.OpExecError(
                    f"Not all disks of instance {instance.name} can be shut down, so it stays on"
                    f" node {source} (if that node is dead: 'gnt-instance failover"
                    f" --ignore-consistency {instance.name}')"
                )
            instance_target.SetPrimary(self, instance, target, feedback_fn)
            undo.Commit()
        if instance.admin_up:
            feedback_fn(f"* activating the instance's disks on target node {target}")
            feedback_fn(f"* starting the instance on the target node {target}")
            # The other side of its mirrors may be what it flees from.
            instance_target.StartThere(self, instance, True)
        if ignore_source and instance.disk_template in constants.DTS_NET_MIRROR:
            self.LogInfo(
                "When node %s is back and the mirrors do not connect, 'gnt-instance migrate"
                " --cleanup %s' makes that node their secondary again",
                source,
                instance.name,
            )

    def _CheckDisks(self, instance: objects.Instance) -> None:
        """Are the copies on the target good?

        @raise errors.OpExecError: nothing was done; they are not, or that is not known
        """
        if instance.disk_template not in constants.DTS_NET_MIRROR:
            return
        # A mirror without its other side is degraded, whatever its data is like.
        source_is_off = base.GetNode(self, instance.primary_node).offline
        for disk in instance.disks:
            good = disk_ops.CheckDiskConsistency(
                self, disk, self.target, False, ldisk=source_is_off
            )
            if good:
                continue
            what = f"Disk {disk.iv_name} on node {self.target} is degraded, or not active there"
            if not self.op.ignore_consistency:
                advice = ""
                if not source_is_off:
                    advice = (
                        f"if both nodes are well, 'gnt-instance activate-disks {instance.name}' has"
                        " the mirrors connect; "
                    )
                raise errors.OpExecError(
                    f"{what}: the failover is given up, nothing was changed ({advice}"
                    "--ignore-consistency goes on with what data there is)"
                )
            self.LogWarning("%s; going on, as asked for", what)


LOGICAL_UNITS: Final = {opcodes.OpInstanceFailover: LUInstanceFailover}

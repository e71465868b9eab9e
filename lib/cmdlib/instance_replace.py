"""Replacing the storage of mirrored disks: on a node that has them, or by another secondary node.

L{replace_plan} decides; L{replace_in_place} and L{replace_secondary} do it.
"""

from __future__ import annotations

from typing import Any, Final

from .. import constants, errors, iallocator, locking, objects, opcodes
from . import (
    announce,
    base,
    disk_ops,
    instance_checks,
    instance_env,
    replace_in_place,
    replace_plan,
    replace_secondary,
)


class LUInstanceReplaceDisks(base.LogicalUnit):
    """Replace the storage of mirrored disks; the instance may run meanwhile.

    An allocator, if one is to choose the new secondary, is asked with all nodes locked; those that
    it does not choose are free again before the work begins.
    """

    HPATH = "mirrors-replace"
    HTYPE = constants.HTYPE_INSTANCE

    def CheckArguments(self) -> None:
        replace_plan.CheckTarget(self.op.mode, self.op.remote_node, self.op.iallocator)

    def ExpandNames(self) -> None:
        self._ExpandAndLockInstance()
        assert self.needed_locks is not None
        if self.op.iallocator is not None:
            self.needed_locks[locking.LEVEL_NODE] = locking.ALL_SET
            return
        if self.op.remote_node is not None:
            self.op.remote_node = base.ExpandNodeName(self.cfg, self.op.remote_node)
        self.needed_locks[locking.LEVEL_NODE] = []

    def DeclareLocks(self, level: int) -> None:
        if level != locking.LEVEL_NODE or self.op.iallocator is not None:
            return
        assert self.needed_locks is not None
        # Anew: the same unit may be asked more than once.
        self.needed_locks[locking.LEVEL_NODE] = (
            [] if self.op.remote_node is None else [self.op.remote_node]
        )
        self.recalculate_locks[locking.LEVEL_NODE] = base.LOCKS_APPEND
        self._LockInstancesNodes()

    def _GetInstance(self) -> objects.Instance:
        return base.GetInstance(self, self.op.instance_name)

    def BuildHooksEnv(self) -> base.HooksEnv:
        instance = self._GetInstance()
        env: dict[str, Any] = {
            "MODE": self.op.mode,
            "NEW_SECONDARY": self.op.remote_node,
            "OLD_SECONDARY": replace_plan.GetSecondary(instance),
            **instance_env.BuildInstanceHookEnvByObject(self, instance),
        }
        nodes = {self.cfg.GetMasterNode(), instance.primary_node}
        if self.op.remote_node is not None:
            nodes.add(self.op.remote_node)
        return env, sorted(nodes), sorted(nodes)

    def CheckPrereq(self) -> None:
        instance = self._GetInstance()
        self.plan = plan = self._MakePlan(instance)
        if plan.new is not None:
            base.CheckNodeOnline(self, plan.new)
            base.CheckNodeNotDrained(self, plan.new)
        else:
            base.CheckNodeOnline(self, plan.target)
        base.CheckNodeOnline(self, plan.other)
        if not plan.disks:
            return
        needed = disk_ops.ComputeDiskSize(
            instance.disk_template, replace_plan.GetSizes(instance, plan)
        )
        assert needed is not None
        instance_checks.CheckNodesFreeDisk(self, [plan.builds_on], needed)
        if plan.new is not None:
            # The volumes have the names of the old ones: undoing must not remove anybody's data.
            parts = [part for disk in instance.disks for part in disk.children or ()]
            disk_ops.CheckDisksAbsent(self, plan.new, parts)

    def _MakePlan(self, instance: objects.Instance) -> replace_plan.Plan:
        op = self.op
        secondary = replace_plan.GetSecondary(instance)
        if op.mode == constants.REPLACE_DISK_AUTO:
            if op.disks:
                # Said before nodes are asked.
                replace_plan.MakeAutoPlan(
                    instance, op.disks, dict.fromkeys([instance.primary_node, secondary], ()), False
                )
            faulty = {
                node: self._FindFaulty(instance, node)
                for node in (instance.primary_node, secondary)
            }
            return replace_plan.MakeAutoPlan(instance, op.disks, faulty, op.early_release)
        new, early_release = op.remote_node, op.early_release
        if op.iallocator is not None:
            (new,) = iallocator.Choose(
                self,
                op.iallocator,
                constants.IALLOCATOR_MODE_RELOC,
                name=instance.name,
                relocate_from=[secondary],
            )
        plan = replace_plan.MakePlan(instance, op.mode, op.disks, new, early_release)
        if op.iallocator is not None:
            base.ReleaseLocks(self, locking.LEVEL_NODE, keep=plan.nodes)
        if plan.new is not None and base.GetNode(self, plan.target).offline:
            if not early_release:
                self.LogInfo(
                    "Old secondary %s is offline, automatically enabling early-release mode",
                    plan.target,
                )
            return replace_plan.MakePlan(instance, op.mode, op.disks, new, True)
        return plan

    def _FindFaulty(self, instance: objects.Instance, node: str) -> list[int]:
        base.CheckNodeOnline(self, node)
        try:
            return disk_ops.FindFaultyDisks(self, instance, node)
        except errors.OpExecError as err:
            raise errors.OpPrereqError(str(err), errors.ECODE_ENVIRON) from err

    def DescribeChanges(self) -> list[announce.Change]:
        instance = self._GetInstance()
        lines = replace_plan.DescribeChanges(instance, self.plan)
        if not lines or instance.admin_up:
            return lines
        return [
            *disk_ops.DescribeForDisks(instance, "assemble"),
            *lines,
            *disk_ops.DescribeForDisks(instance, "shut down"),
        ]

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        instance, plan = self._GetInstance(), self.plan
        if not plan.disks:
            feedback_fn("No disks need replacement")
            return
        indices = ", ".join(str(index) for index in plan.disks)
        feedback_fn(f"Replacing disk(s) {indices} for {instance.name}")
        make = replace_in_place.InPlace if plan.new is None else replace_secondary.NewSecondary
        replacement = make(self, instance, plan, feedback_fn)
        if instance.admin_up:
            replacement.Run()
            return
        # What is to be replaced may keep its side from being activated.
        disk_ops.StartDisks(self, instance, True)
        try:
            replacement.Run()
        finally:
            self._Deactivate(instance)

    def _Deactivate(self, instance: objects.Instance) -> None:
        """Shut the disks down again, but not under an instance that was started by hand."""
        try:
            instance_checks.CheckInstanceDown(self, instance, "its disks stay active")
        except errors.OpPrereqError as err:
            self.LogWarning("The disks of %s are not shut down: %s", instance.name, err.args[0])
            return
        disk_ops.ShutdownDisks(self, instance)


LOGICAL_UNITS: Final = {opcodes.OpInstanceReplaceDisks: LUInstanceReplaceDisks}

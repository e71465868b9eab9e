"""Migrating all instances away from a node.

All checks of all instances come first; then each is migrated by a job of its own. Other than in
release 2.1 they run at the same time as far as their nodes allow, can be watched and cancelled one
by one, and one that fails does not keep the others where they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .. import constants, errors, iallocator, locking, objects, opcodes
from ..utils import text
from . import announce, base, instance_checks, instance_migration, instance_target


def SumMemory(needs: Sequence[tuple[str | None, str, int]]) -> dict[tuple[str, str], int]:
    """MiB that instances need together on each node, by hypervisor; pure.

    @param needs: (node that an instance goes to, its hypervisor, MiB); nobody knows what None needs
    """
    sums: dict[tuple[str, str], int] = defaultdict(int)
    for node, hypervisor, memory in needs:
        if node is not None:
            sums[node, hypervisor] += memory
    return dict(sums)


class LUNodeMigrate(base.LogicalUnit):
    """Migrate all primary instances of a node away, a job for each.

    One instance that can not be migrated refuses all. With an allocator each job asks it just
    before it moves its instance, so that each choice sees the moves that were made already.
    """

    HPATH = "node-migrate"
    HTYPE = constants.HTYPE_NODE

    def CheckArguments(self) -> None:
        if self.op.target_node is not None and self.op.iallocator is not None:
            raise errors.OpPrereqError(
                "Give a target node or an allocator that chooses one, not both",
                errors.ECODE_INVAL,
            )

    def ExpandNames(self) -> None:
        op = self.op
        op.node_name = base.ExpandNodeName(self.cfg, op.node_name)
        if op.target_node is not None:
            op.target_node = base.ExpandNodeName(self.cfg, op.target_node)
        # The jobs have locks of their own; this one only looks.
        self.share_locks = dict.fromkeys(locking.LEVELS, 1)
        self.needed_locks = {
            locking.LEVEL_INSTANCE: [one.name for one in self._GetInstances()],
            locking.LEVEL_NODE: [],
        }

    def _GetInstances(self) -> list[objects.Instance]:
        """The primary instances of the node, naturally sorted by name."""
        found = {
            one.name: one
            for one in self.cfg.GetAllInstancesInfo().values()
            if one.primary_node == self.op.node_name
        }
        return [found[name] for name in text.NiceSort(found)]

    def DeclareLocks(self, level: int) -> None:
        if level != locking.LEVEL_NODE:
            return
        assert self.needed_locks is not None
        extra = [] if self.op.target_node is None else [self.op.target_node]
        self.needed_locks[locking.LEVEL_NODE] = [self.op.node_name, *extra]
        self.recalculate_locks[locking.LEVEL_NODE] = base.LOCKS_APPEND
        self._LockInstancesNodes()

    def BuildHooksEnv(self) -> base.HooksEnv:
        nodes = [self.cfg.GetMasterNode()]
        return {"NODE_NAME": self.op.node_name}, nodes, nodes

    def CheckPrereq(self) -> None:
        op = self.op
        base.CheckNodeOnline(self, op.node_name)
        held = self.acquired_locks.get(locking.LEVEL_INSTANCE, set())
        # One that came in the meantime is for the next time.
        self.instances = [one for one in self._GetInstances() if one.name in held]
        self.targets = {one.name: self._GetTarget(one) for one in self.instances}
        for instance in self.instances:
            target = self.targets[instance.name]
            if target is not None:
                instance_migration.CheckMigratable(self, instance, target, memory=False)
        cluster = self.cfg.GetClusterInfo()
        sums = SumMemory(
            [
                (
                    self.targets[one.name],
                    one.hypervisor,
                    cluster.FillBE(one)[constants.BE_MEMORY],
                )
                for one in self.instances
            ]
        )
        for (node, hypervisor), memory in sums.items():
            why = f"the instances of {op.node_name} that would go there"
            instance_checks.CheckNodeFreeMemory(self, node, why, memory, hypervisor)
        if None in self.targets.values():
            self.unchecked.append("where the allocator wants the instances to be")

    def _GetTarget(self, instance: objects.Instance) -> str | None:
        """Where an instance goes; None: as its job is told by an allocator.

        @raise errors.OpPrereqError: it can not go anywhere
        """
        op = self.op
        instance_target.CheckTemplate(instance)
        if instance.disk_template in constants.DTS_NET_MIRROR:
            # What is said of targets is for those that have a choice.
            return instance_target.GetSecondary(instance)
        target = instance_target.CheckChoice(instance, op.target_node, op.iallocator)
        if target is None:
            iallocator.GetScripts(self.cfg, op.iallocator, constants.IALLOCATOR_MODE_RELOC)
        return target

    def DescribeChanges(self) -> list[announce.Change]:
        return [
            announce.Change(
                f"a job migrates {instance.name} from {self.op.node_name} to"
                f" {self.targets[instance.name] or 'where an allocator says'}"
            )
            for instance in self.instances
        ]

    def Exec(self, feedback_fn: base.FeedbackFn) -> base.ResultWithJobs:
        if not self.instances:
            feedback_fn(f"No instance has its primary on {self.op.node_name}")
        return base.ResultWithJobs([[self._NewJob(one)] for one in self.instances])

    def _NewJob(self, instance: objects.Instance) -> opcodes.OpCode:
        mirrored = instance.disk_template in constants.DTS_NET_MIRROR
        choice: dict[str, Any] = (
            {}
            if mirrored
            else {"target_node": self.op.target_node, "iallocator": self.op.iallocator}
        )
        return opcodes.OpInstanceMigrate(
            instance_name=instance.name, live=self.op.live, cleanup=False, **choice
        )


LOGICAL_UNITS: Final[Mapping[type[opcodes.OpCode], type[base.LogicalUnit]]] = {
    opcodes.OpNodeMigrate: LUNodeMigrate
}

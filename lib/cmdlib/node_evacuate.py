"""Moving the secondaries of instances away from nodes.

Other than in release 2.1, a node is evacuated by a job for each instance: they run at the same time
as far as their nodes allow, can be looked at and cancelled one by one, and one that fails does not
keep the others from moving.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from .. import constants, errors, iallocator, locking, objects, opcodes
from ..utils import text
from . import announce, base


def GetSecondariesOf(
    instances: Iterable[objects.Instance], nodes: Collection[str]
) -> list[objects.Instance]:
    """Instances that have a secondary on one of the nodes, naturally sorted by name; pure."""
    found = {one.name: one for one in instances if set(one.secondary_nodes) & set(nodes)}
    return [found[name] for name in text.NiceSort(found)]


def CheckNewSecondary(
    instances: Iterable[objects.Instance], leaving: Collection[str], node: objects.Node
) -> None:
    """Check that a node can become the secondary of instances; pure.

    @param leaving: the nodes that the instances leave
    @raise errors.OpPrereqError: C{wrong_input}
    """
    here = [one.name for one in instances if one.primary_node == node.name]
    problem = None
    if here:
        problem = f"it is the primary node of {announce.FormatNames(here)}"
    elif node.name in leaving:
        problem = "it is one of the nodes that are to be left"
    elif node.offline or node.drained:
        problem = f"it is marked {'offline' if node.offline else 'drained'}"
    if problem:
        raise errors.OpPrereqError(
            f"Node {node.name} can not be the new secondary: {problem}", errors.ECODE_INVAL
        )


class LUNodeEvacStrategy(base.NoHooksLU):
    """Say where the secondaries of some nodes can go: rows of instance and new secondary."""

    LOOKS_ONLY = True

    def CheckArguments(self) -> None:
        _CheckOnlyOne(self.op)

    def ExpandNames(self) -> None:
        op = self.op
        op.nodes = base.GetWantedNodes(self, op.nodes)
        wanted: Any = locking.ALL_SET
        if op.remote_node is not None:
            op.remote_node = base.ExpandNodeName(self.cfg, op.remote_node)
            wanted = text.UniqueSequence([*op.nodes, op.remote_node])
        self.needed_locks = {locking.LEVEL_NODE: wanted}

    def CheckPrereq(self) -> None:
        op = self.op
        if op.remote_node is None:
            iallocator.GetScripts(self.cfg, op.iallocator, constants.IALLOCATOR_MODE_MEVAC)
            return
        self.instances = GetSecondariesOf(self.cfg.GetAllInstancesInfo().values(), op.nodes)
        if self.instances:
            CheckNewSecondary(self.instances, op.nodes, base.GetNode(self, op.remote_node))

    def Exec(self, feedback_fn: base.FeedbackFn) -> list[list[str]]:
        op = self.op
        if op.remote_node is not None:
            return [[instance.name, op.remote_node] for instance in self.instances]
        try:
            return iallocator.Choose(
                self, op.iallocator, constants.IALLOCATOR_MODE_MEVAC, evac_nodes=op.nodes
            )
        except errors.OpPrereqError as err:
            # Too late for a prerequisite: the script was run.
            raise errors.OpExecError(*err.args) from err


class LUNodeEvacuate(base.LogicalUnit):
    """Move all secondaries away from a node, a job for each instance.

    With an allocator each of these jobs asks it just before it moves its instance, so that each
    choice sees the moves that were made already.
    """

    HPATH = "node-evacuate"
    HTYPE = constants.HTYPE_NODE

    def CheckArguments(self) -> None:
        _CheckOnlyOne(self.op)

    def ExpandNames(self) -> None:
        op = self.op
        op.node_name = base.ExpandNodeName(self.cfg, op.node_name)
        wanted = [op.node_name]
        if op.remote_node is not None:
            op.remote_node = base.ExpandNodeName(self.cfg, op.remote_node)
            wanted.append(op.remote_node)
        # The jobs have locks of their own; this one only looks.
        self.needed_locks = {locking.LEVEL_NODE: text.UniqueSequence(wanted)}
        self.share_locks[locking.LEVEL_NODE] = 1

    def BuildHooksEnv(self) -> base.HooksEnv:
        op = self.op
        env, nodes = {"NODE_NAME": op.node_name}, {self.cfg.GetMasterNode()}
        if op.remote_node is not None:
            env["NEW_SECONDARY"] = op.remote_node
            nodes.add(op.remote_node)
        return env, sorted(nodes), sorted(nodes)

    def CheckPrereq(self) -> None:
        op = self.op
        self.instances = GetSecondariesOf(self.cfg.GetAllInstancesInfo().values(), [op.node_name])
        self.script: str | None = None
        if op.remote_node is None:
            mode = constants.IALLOCATOR_MODE_RELOC
            self.script = iallocator.GetScripts(self.cfg, op.iallocator, mode)[0]
        elif self.instances:
            CheckNewSecondary(self.instances, [op.node_name], base.GetNode(self, op.remote_node))
        self.unchecked.append("what the jobs check that move the instances one by one")

    def DescribeChanges(self) -> list[announce.Change]:
        where = self.op.remote_node or f"where the allocator {self.script} says"
        # Nothing that this unit does itself: its jobs have dry runs of their own.
        return [
            announce.Change(
                f"a job moves the secondary of {instance.name} from {self.op.node_name} to {where}"
            )
            for instance in self.instances
        ]

    def Exec(self, feedback_fn: base.FeedbackFn) -> base.ResultWithJobs:
        op = self.op
        if not self.instances:
            feedback_fn(f"No instance has its secondary on {op.node_name}")
        for instance in self.instances:
            where = op.remote_node or f"a node that {self.script} chooses"
            feedback_fn(f"Will relocate instance {instance.name} to {where}")
        return base.ResultWithJobs(
            [
                [
                    opcodes.OpInstanceReplaceDisks(
                        instance_name=instance.name,
                        mode=constants.REPLACE_DISK_CHG,
                        disks=[],
                        remote_node=op.remote_node,
                        iallocator=self.script,
                        early_release=op.early_release,
                    )
                ]
                for instance in self.instances
            ]
        )


def _CheckOnlyOne(op: Any) -> None:
    if op.iallocator is not None and op.remote_node is not None:
        raise errors.OpPrereqError(
            "At most one of iallocator and remote_node can be given", errors.ECODE_INVAL
        )


LOGICAL_UNITS: Final[Mapping[type[opcodes.OpCode], type[base.LogicalUnit]]] = {
    opcodes.OpNodeEvacStrategy: LUNodeEvacStrategy,
    opcodes.OpNodeEvacuate: LUNodeEvacuate,
}

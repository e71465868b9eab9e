"""Where an instance goes that leaves its primary node: for failover and migration.

Mirrored disks decide it: a DRBD mirror has one other side. Disks that all nodes share leave the
choice to the user, or to an instance allocator.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from .. import constants, errors, iallocator, locking, objects
from ..utils import text
from . import base, instance_checks, instance_env, instance_operation

#: What takes an instance to another node that has no copy of its disks.
_OTHER_WAY: Final = "its disks can be copied to another node with 'gnt-instance move'"


class MobileInstanceLU(base.LogicalUnit):
    """Locks an instance and the nodes that it may end up on.

    The opcode has C{target_node} and C{iallocator}.
    """

    HTYPE = constants.HTYPE_INSTANCE

    def CheckArguments(self) -> None:
        if self.op.target_node is not None and self.op.iallocator is not None:
            raise errors.OpPrereqError(
                "Give a target node or an allocator that chooses one, not both",
                errors.ECODE_INVAL,
            )

    def ExpandNames(self) -> None:
        self._ExpandAndLockInstance()
        assert self.needed_locks is not None
        if self.op.target_node is not None:
            self.op.target_node = base.ExpandNodeName(self.cfg, self.op.target_node)
        self.needed_locks[locking.LEVEL_NODE] = []

    def DeclareLocks(self, level: int) -> None:
        if level != locking.LEVEL_NODE:
            return
        assert self.needed_locks is not None
        instance = base.GetInstance(self, self.op.instance_name)
        if self._ChoiceIsOpen(instance):
            self.needed_locks[locking.LEVEL_NODE] = locking.ALL_SET
        else:
            extra = [] if self.op.target_node is None else [self.op.target_node]
            self.needed_locks[locking.LEVEL_NODE] = text.UniqueSequence(
                [instance.primary_node, *sorted(instance.secondary_nodes), *extra]
            )

    def _ChoiceIsOpen(self, instance: objects.Instance) -> bool:
        """Will an allocator choose?"""
        external = instance.disk_template in constants.DTS_EXT_MIRROR
        return external and self.op.target_node is None

    def _GetInstance(self) -> objects.Instance:
        return base.GetInstance(self, self.op.instance_name)

    def _ExtraEnv(self) -> dict[str, Any]:
        """Variables beyond those of every instance and those of the nodes."""
        return {}

    def _HookTargets(self) -> Collection[str]:
        """Nodes that the instance may end up on."""
        raise NotImplementedError

    def BuildHooksEnv(self) -> base.HooksEnv:
        instance = self._GetInstance()
        targets = sorted(self._HookTargets())
        mirrored = instance.disk_template in constants.DTS_NET_MIRROR
        nodes = {
            "OLD_PRIMARY": instance.primary_node,
            "NEW_PRIMARY": " ".join(targets),
            "OLD_SECONDARY": " ".join(targets) if mirrored else "",
            "NEW_SECONDARY": instance.primary_node if mirrored else "",
        }
        env = instance_env.BuildInstanceHookEnvByObject(self, instance)
        pre = sorted({self.cfg.GetMasterNode(), *targets})
        return (
            {**self._ExtraEnv(), **nodes, **env},
            pre,
            sorted({*pre, instance.primary_node}),
        )


def CheckTemplate(instance: objects.Instance) -> None:
    """Check that another node can get at the disks of an instance; pure.

    @raise errors.OpPrereqError: C{wrong_state}
    """
    if instance.disk_template not in constants.DTS_MIRRORED:
        known = ", ".join(sorted(constants.DTS_MIRRORED))
        advice = "" if instance.disk_template == constants.DT_DISKLESS else f"; {_OTHER_WAY}"
        raise errors.OpPrereqError(
            f"Instance {instance.name} has the disk template {instance.disk_template}, but only"
            f" those with {known} can run on another node as they are{advice}",
            errors.ECODE_STATE,
        )


def GetSecondary(instance: objects.Instance) -> str:
    """The other side of a mirror; pure.

    @raise errors.ConfigurationError: there is none
    """
    secondaries = sorted(instance.secondary_nodes)
    if not secondaries:
        raise errors.ConfigurationError(
            f"Instance {instance.name} has the disk template {instance.disk_template}, but no"
            " secondary node"
        )
    return secondaries[0]


def CheckChoice(
    instance: objects.Instance, target_node: str | None, allocator: str | None
) -> str | None:
    """The node that an instance goes to; None if an allocator is to be asked; pure.

    @param target_node: what the user named, expanded
    @raise errors.OpPrereqError: C{wrong_input}: there is no such choice
    """
    CheckTemplate(instance)
    if instance.disk_template in constants.DTS_NET_MIRROR:
        target = GetSecondary(instance)
        if allocator is not None or target_node not in (None, target):
            raise errors.OpPrereqError(
                f"Instance {instance.name} has its mirrors on {target} and can only go there; for"
                " another secondary node use 'gnt-instance replace-disks -n' first",
                errors.ECODE_INVAL,
            )
        return target
    if target_node == instance.primary_node:
        raise errors.OpPrereqError(
            f"Instance {instance.name} is on node {target_node} already", errors.ECODE_INVAL
        )
    return target_node


def ChooseTarget(lu: MobileInstanceLU, instance: objects.Instance) -> str:
    """The node that an instance goes to, if need be chosen by an allocator.

    @raise errors.OpPrereqError: there is no such choice, or the allocator finds none
    """
    target = CheckChoice(instance, lu.op.target_node, lu.op.iallocator)
    if target is not None:
        return target
    defaults = lu.cfg.GetClusterInfo().default_iallocator
    if lu.op.iallocator is None and not defaults.get(constants.IALLOCATOR_MODE_RELOC):
        raise errors.OpPrereqError(
            f"The disks of instance {instance.name} can be used on all nodes: say where it shall"
            " go (-n NODE), or name an allocator that chooses (-I NAME)",
            errors.ECODE_INVAL,
        )
    (chosen,) = iallocator.Choose(
        lu, lu.op.iallocator, constants.IALLOCATOR_MODE_RELOC, name=instance.name
    )
    return str(chosen)


def CheckTarget(
    lu: base.LogicalUnit, instance: objects.Instance, target: str, why: str, memory: bool
) -> None:
    """Check that a node can take an instance: online, not drained, with its bridges.

    @param why: e.g. "migrating instance x", for the message
    @param memory: does it need memory, too?
    @raise errors.OpPrereqError: it can not
    """
    base.CheckNodeOnline(lu, target)
    base.CheckNodeNotDrained(lu, target)
    if memory:
        wanted = lu.cfg.GetClusterInfo().FillBE(instance)[constants.BE_MEMORY]
        instance_checks.CheckNodeFreeMemory(lu, target, why, wanted, instance.hypervisor)
    instance_checks.CheckInstanceBridges(lu, instance, target)


def SetPrimary(
    lu: base.LogicalUnit, instance: objects.Instance, node: str, feedback_fn: base.FeedbackFn
) -> None:
    """Put on record that an instance is on another node now.

    @raise errors.GenericError: the configuration could not be written; the object is as before
    """
    before = instance.primary_node
    instance.primary_node = node
    try:
        lu.cfg.Update(instance, feedback_fn)
    except Exception:
        instance.primary_node = before
        raise


def StopOnSource(
    lu: base.LogicalUnit, instance: objects.Instance, timeout: int, ignore_consistency: bool
) -> bool:
    """Shut an instance down before it is started on another node.

    A node that does not answer is gone on without if the user wants that, or has marked it offline.

    @param timeout: seconds that the guest has before it is killed
    @return: is it known not to run there?
    @raise errors.OpExecError: it runs there, or may do so
    """
    node = instance.primary_node
    result = lu.rpc.call_instance_shutdown(node, instance, timeout)
    if not result.fail_msg:
        return True
    problem = f"Instance {instance.name} could not be shut down on node {node}: {result.fail_msg}"
    running = lu.rpc.call_instance_list([node], [instance.hypervisor])[node]
    if not running.fail_msg:
        if instance.name in running.payload:
            raise errors.OpExecError(f"{problem}. It runs there, and stays there")
        lu.LogWarning("%s. But the node says that it does not run", problem)
        return True
    if running.offline:
        lu.LogWarning("%s; going on without that node", problem)
        return False
    if not ignore_consistency:
        raise errors.OpExecError(
            f"{problem}. It stays there; if that node is dead, see to it that it is switched off,"
            f" and mark it: 'gnt-node modify --offline=yes {node}'. Or --ignore-consistency goes on"
            " without it"
        )
    lu.LogWarning(
        "%s. Going on all the same: make sure that node %s is down! If the instance still runs"
        " there, it runs twice from now on, and its disks will be damaged",
        problem,
        node,
    )
    return False


def StartAgain(lu: base.LogicalUnit, instance: objects.Instance, force: bool | None) -> None:
    """Start an instance where it was, as it does not go to another node after all.

    @param force: as for L{instance_operation.StartInstance}
    @raise errors.OpExecError: with the command that tries it again
    """
    try:
        instance_operation.StartInstance(lu, instance, force)
    except errors.OpExecError as err:
        raise errors.OpExecError(
            f"{err}; 'gnt-instance startup {instance.name}' tries it again"
        ) from err


def StartThere(lu: base.LogicalUnit, instance: objects.Instance, force: bool | None) -> None:
    """Start an instance on the node that it belongs to now.

    @param force: as for L{instance_operation.StartInstance}
    @raise errors.OpExecError: with the command that tries it again
    """
    try:
        instance_operation.StartInstance(lu, instance, force)
    except errors.OpExecError as err:
        raise errors.OpExecError(
            f"{err}. It belongs to node {instance.primary_node} now and is marked up:"
            f" 'gnt-instance startup {instance.name}' starts it there"
        ) from err

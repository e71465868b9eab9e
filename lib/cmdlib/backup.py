"""Exports of instances: taken, listed, removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from .. import constants, errors, locking, objects, opcodes
from ..utils import text
from . import announce, base, disk_ops, instance_env, instance_operation


class LUBackupQuery(base.NoHooksLU):
    """The exports on each node; False for a node that did not answer."""

    LOOKS_ONLY = True

    def ExpandNames(self) -> None:
        names = base.GetWantedNodes(self, self.op.nodes) if self.op.nodes else locking.ALL_SET
        self.needed_locks = {locking.LEVEL_NODE: names}
        self.share_locks[locking.LEVEL_NODE] = 1

    def CheckPrereq(self) -> None:
        """Nothing to check."""

    def Exec(self, feedback_fn: base.FeedbackFn) -> dict[str, Any]:
        nodes = text.NiceSort(self.acquired_locks[locking.LEVEL_NODE])
        results = self.rpc.call_export_list(nodes)
        return {
            name: False if result.fail_msg else result.payload for name, result in results.items()
        }


class LUBackupExport(base.LogicalUnit):
    """Take snapshots of the disks of an instance and write what its OS makes of them to a node.

    The instance is down only while the snapshots are taken, if at all.
    """

    HPATH = "instance-export"
    HTYPE = constants.HTYPE_INSTANCE

    def ExpandNames(self) -> None:
        self._ExpandAndLockInstance()
        # Older exports are looked for everywhere.
        self.needed_locks = {**(self.needed_locks or {}), locking.LEVEL_NODE: locking.ALL_SET}

    def _GetInstance(self) -> objects.Instance:
        return base.GetInstance(self, self.op.instance_name)

    def BuildHooksEnv(self) -> base.HooksEnv:
        instance = self._GetInstance()
        env = {
            "EXPORT_NODE": self.op.target_node,
            "EXPORT_DO_SHUTDOWN": self.op.shutdown,
            "SHUTDOWN_TIMEOUT": self.op.shutdown_timeout,
            **instance_env.BuildInstanceHookEnvByObject(self, instance),
        }
        nodes = {self.cfg.GetMasterNode(), instance.primary_node, self.op.target_node}
        return env, sorted(nodes), sorted(nodes)

    def CheckPrereq(self) -> None:
        instance = self._GetInstance()
        base.CheckNodeOnline(self, instance.primary_node)
        self.op.target_node = base.ExpandNodeName(self.cfg, self.op.target_node)
        base.CheckNodeOnline(self, self.op.target_node)
        base.CheckNodeNotDrained(self, self.op.target_node)
        if instance.disk_template in constants.DTS_FILEBASED and instance.disks:
            raise errors.OpPrereqError(
                f"Instance {instance.name} can not be exported: its disks are files, of which there"
                " are no snapshots",
                errors.ECODE_INVAL,
            )
        # Before anything is shut down for it.
        target = self.op.target_node
        self.rpc.call_version([target])[target].Raise(
            f"Node {target} does not answer, so nothing can be exported to it",
            prereq=True,
            ecode=errors.ECODE_ENVIRON,
        )

    def DescribeChanges(self) -> list[announce.Change]:
        instance = self._GetInstance()
        primary, target = [instance.primary_node], [self.op.target_node]
        lines = []
        if self.op.shutdown:
            lines += announce.OnNodes(primary, "shut it down while snapshots are taken")
        lines += disk_ops.DescribeForDisks(instance, "take a snapshot of")
        if self.op.shutdown and instance.admin_up:
            lines += announce.OnNodes(primary, "start it")
        if instance.disks:
            lines += announce.OnNodes(primary, f"run the export script of the OS {instance.os}")
        lines += announce.OnNodes(target, f"write an export of {instance.name}")
        older = FindExports(self, instance.name, self._GetOtherNodes())
        return lines + announce.OnNodes(older, f"remove the older export of {instance.name}")

    def _GetOtherNodes(self) -> list[str]:
        """Where older exports are looked for."""
        nodes = set(self.acquired_locks[locking.LEVEL_NODE])
        return text.NiceSort(nodes - {self.op.target_node})

    def Exec(self, feedback_fn: base.FeedbackFn) -> tuple[bool, list[bool]]:
        instance = self._GetInstance()
        others = self._GetOtherNodes()
        # That takes hours. Who exports this instance holds its lock: nobody else writes this.
        base.ReleaseLocks(
            self, locking.LEVEL_NODE, keep=[instance.primary_node, self.op.target_node]
        )
        activated = not instance.admin_up and bool(instance.disks)
        if self.op.shutdown:
            feedback_fn(f"Shutting down instance {instance.name}")
            self.rpc.call_instance_shutdown(
                instance.primary_node, instance, self.op.shutdown_timeout
            ).Raise(f"Instance {instance.name} could not be shut down")
        if activated:
            feedback_fn(f"Activating the disks of {instance.name}")
            disk_ops.StartDisks(self, instance, None)
        snapshots: list[objects.Disk | None] = []
        try:
            try:
                self._TakeSnapshots(instance, snapshots, feedback_fn)
            finally:
                if self.op.shutdown and instance.admin_up:
                    feedback_fn(f"Starting instance {instance.name}")
                    instance_operation.StartInstance(self, instance, None)
            exported = self._SendSnapshots(instance, snapshots, feedback_fn)
        finally:
            # What was sent is gone already.
            for index, snapshot in enumerate(snapshots):
                self._RemoveSnapshot(instance.primary_node, index, snapshot)
            if activated:
                feedback_fn(f"Deactivating the disks of {instance.name}")
                disk_ops.ShutdownDisks(self, instance)
        finished = self._Finish(instance, exported, feedback_fn)
        good = [snapshot is not None for snapshot in exported]
        if finished and all(good):
            RemoveExports(self, instance.name, others)
        elif finished:
            self.LogWarning("The export is not complete, so older ones are kept")
        return finished, good

    def _TakeSnapshots(
        self,
        instance: objects.Instance,
        snapshots: list[objects.Disk | None],
        feedback_fn: base.FeedbackFn,
    ) -> None:
        """Append to a list the snapshot of each disk, None for one that could not be taken."""
        node = instance.primary_node
        for index, disk in enumerate(instance.disks):
            feedback_fn(f"Creating a snapshot of disk/{index} on node {node}")
            result = self.rpc.call_blockdev_snapshot(node, disk_ops.ForNode(self, disk, node))
            if result.fail_msg:
                self.LogWarning(
                    "There is no snapshot of disk/%s on node %s: %s", index, node, result.fail_msg
                )
                snapshots.append(None)
                continue
            names = (_FindVolumeGroup(disk), result.payload)
            snapshots.append(
                objects.Disk(
                    dev_type=constants.LD_LV,
                    size=disk.size,
                    logical_id=names,
                    physical_id=names,
                    iv_name=disk.iv_name,
                )
            )

    def _SendSnapshots(
        self,
        instance: objects.Instance,
        snapshots: list[objects.Disk | None],
        feedback_fn: base.FeedbackFn,
    ) -> list[objects.Disk | None]:
        """Send each snapshot, and remove it.

        @param snapshots: one that is gone is replaced by None
        @return: those whose images are at the target; None for the others
        """
        exported: list[objects.Disk | None] = []
        node = instance.primary_node
        for index, snapshot in enumerate(list(snapshots)):
            self.CheckCancel()
            if snapshot is None:
                exported.append(None)
                continue
            feedback_fn(f"Exporting snapshot {index} from {node} to {self.op.target_node}")
            result = self.rpc.call_snapshot_export(
                node,
                snapshot,
                self.op.target_node,
                instance,
                self.cfg.GetClusterName(),
                index,
                self.op.debug_level,
            )
            if result.fail_msg:
                self.LogWarning(
                    "Disk/%s could not be exported from node %s: %s", index, node, result.fail_msg
                )
            exported.append(None if result.fail_msg else snapshot)
            feedback_fn(f"Removing snapshot {index} on node {node}")
            self._RemoveSnapshot(node, index, snapshot)
            snapshots[index] = None
        return exported

    def _RemoveSnapshot(self, node: str, index: int, snapshot: objects.Disk | None) -> None:
        if snapshot is None:
            return
        result = self.rpc.call_blockdev_remove(node, disk_ops.ForNode(self, snapshot, node))
        if result.fail_msg:
            self.LogWarning(
                "The snapshot %s of disk/%s could not be removed on node %s: %s",
                "/".join(snapshot.logical_id),
                index,
                node,
                result.fail_msg,
            )

    def _Finish(
        self,
        instance: objects.Instance,
        exported: Sequence[objects.Disk | None],
        feedback_fn: base.FeedbackFn,
    ) -> bool:
        target = self.op.target_node
        feedback_fn(f"Finalizing export on {target}")
        result = self.rpc.call_finalize_export(
            target, instance, [disk if disk is not None else False for disk in exported]
        )
        if result.fail_msg:
            self.LogWarning(
                "The export of %s on node %s could not be finished: %s",
                instance.name,
                target,
                result.fail_msg,
            )
        return not result.fail_msg


def _FindVolumeGroup(disk: objects.Disk) -> str:
    """The volume group that a snapshot of a disk is in: that of its data; pure."""
    volume = disk
    while volume.children:
        volume = volume.children[0]
    return str(volume.logical_id[0])


def FindExports(lu: base.LogicalUnit, name: str, nodes: Sequence[str]) -> list[str]:
    """Those of the nodes that have an export of an instance; who can not tell is warned of."""
    found = []
    for node, result in lu.rpc.call_export_list(list(nodes)).items():
        if result.fail_msg and not result.offline:
            lu.LogWarning("Node %s can not list its exports: %s", node, result.fail_msg)
        elif not result.fail_msg and name in result.payload:
            found.append(node)
    return found


def RemoveExports(lu: base.LogicalUnit, name: str, nodes: Sequence[str]) -> list[str]:
    """Remove the exports of an instance from nodes, going on over failures, which are warned of.

    @return: the nodes that had one
    """
    found = FindExports(lu, name, nodes)
    for node in found:
        result = lu.rpc.call_export_remove(node, name)
        if result.fail_msg:
            lu.LogWarning(
                "The export of %s on node %s could not be removed: %s", name, node, result.fail_msg
            )
    return found


class LUBackupRemove(base.NoHooksLU):
    """Remove the exports of an instance, which may be gone itself, from all nodes."""

    def ExpandNames(self) -> None:
        self.needed_locks = {locking.LEVEL_NODE: locking.ALL_SET}

    def CheckPrereq(self) -> None:
        try:
            self.name = base.ExpandInstanceName(self.cfg, self.op.instance_name)
            self.known = True
        except errors.OpPrereqError:
            self.name, self.known = self.op.instance_name, False

    def DescribeChanges(self) -> list[announce.Change]:
        found = FindExports(self, self.name, self._GetNodes())
        return announce.OnNodes(found, f"remove the export of {self.name}")

    def _GetNodes(self) -> list[str]:
        return text.NiceSort(self.acquired_locks[locking.LEVEL_NODE])

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        found = RemoveExports(self, self.name, self._GetNodes())
        if not found and not self.known:
            feedback_fn(
                f"There is no export of {self.name}. If you want to remove one of an instance that"
                " is gone, give its full name"
            )


LOGICAL_UNITS: Final = {
    opcodes.OpBackupExport: LUBackupExport,
    opcodes.OpBackupQuery: LUBackupQuery,
    opcodes.OpBackupRemove: LUBackupRemove,
}

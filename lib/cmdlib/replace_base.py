"""What all ways of replacing the storage of mirrored disks have in common: looking, and the end.

Whatever fails, the node that has the data is not touched but for its connections. A call that fails
may have been done all the same, with only its answer lost: so nodes are looked at before one of
their devices is believed to be there or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from .. import errors, locking, mcpu, objects
from . import base, disk_ops
from .disk_names import DeviceName
from .replace_plan import Plan

_STEPS: Final = 6


class Replacement:
    """One attempt. The caller holds the locks of the instance and of all nodes of the plan."""

    def __init__(
        self,
        lu: base.LogicalUnit,
        instance: objects.Instance,
        plan: Plan,
        feedback_fn: base.FeedbackFn,
    ) -> None:
        self._lu = lu
        self._rpc = lu.rpc
        self._instance = instance
        self._plan = plan
        self._feedback = feedback_fn
        self._disks = [instance.disks[index] for index in plan.disks]
        #: Volumes that are not needed any more once all is in sync, of the plan's target.
        self._old: list[objects.Disk] = []

    def Run(self) -> None:
        """Do it.

        @raise errors.OpExecError: it was undone, or the text says what is left to be done
        """
        raise NotImplementedError

    def _Step(self, number: int, what: str) -> None:
        self._lu.LogStep(number, _STEPS, what)

    # Looking

    def _Find(self, disk: objects.Disk, node: str) -> objects.BlockDevStatus | None:
        """State of a device on a node; None if it is not there.

        @raise errors.OpExecError: the node can not tell
        """
        result = self._rpc.call_blockdev_find(node, disk_ops.ForNode(self._lu, disk, node))
        result.Raise(f"Node {node} can not tell whether it has {DeviceName(disk)}")
        status: objects.BlockDevStatus | None = result.payload
        return status

    def _CheckDevices(self, nodes: Sequence[str]) -> None:
        for disk in self._disks:
            for node in nodes:
                self._lu.LogInfo("checking %s on %s", disk.iv_name, node)
                if self._Find(disk, node) is None:
                    raise errors.OpExecError(
                        f"Disk {disk.iv_name} is not active on node {node}: nothing was changed."
                        f" 'gnt-instance activate-disks {self._instance.name}' makes it so"
                    )

    def _CheckVolumeGroups(self, nodes: Sequence[str]) -> None:
        groups = {child.logical_id[0] for disk in self._disks for child in disk.children or ()}
        self._lu.LogInfo("checking volume groups")
        for node, result in self._rpc.call_vg_list(list(nodes)).items():
            result.Raise(f"Node {node} can not list its volume groups")
            missing = sorted(groups - set(result.payload))
            if missing:
                raise errors.OpExecError(
                    f"Node {node} has no volume group {', '.join(missing)}: nothing was changed"
                )

    def _CheckConsistency(self, node: str, ldisk: bool = False) -> None:
        """Is the data good on the node that has to have it?"""
        on_primary = node == self._instance.primary_node
        for disk in self._disks:
            self._lu.LogInfo("checking %s consistency on node %s", disk.iv_name, node)
            if not disk_ops.CheckDiskConsistency(self._lu, disk, node, on_primary, ldisk):
                raise errors.OpExecError(
                    f"Node {node} does not have good data of disk {disk.iv_name}, so that it can"
                    " not be replaced on the other side: nothing was changed"
                )

    # Volumes

    def _CreateVolume(self, volume: objects.Disk, node: str) -> None:
        device = disk_ops.ForNode(self._lu, volume, node)
        info = f"originstname+{self._instance.name}"
        self._rpc.call_blockdev_create(
            node, device, device.size, self._instance.name, False, info
        ).Raise(f"Volume {DeviceName(volume)} can not be created on node {node}")

    def _RemoveVolumes(self, node: str, volumes: Sequence[objects.Disk]) -> None:
        """Remove volumes that nobody needs; failures are warned of."""
        for volume in volumes:
            device = disk_ops.ForNode(self._lu, volume, node)
            result = self._rpc.call_blockdev_remove(node, device)
            if result.fail_msg:
                self._lu.LogWarning(
                    "Volume %s could not be removed on node %s: %s",
                    DeviceName(volume),
                    node,
                    result.fail_msg,
                    hint=f"Remove it there by hand: lvremove {DeviceName(volume)}",
                )

    def _RemoveOld(self, number: int) -> None:
        self._Step(number, "Removing old storage")
        for disk in self._disks:
            self._lu.LogInfo("remove logical volumes for %s", disk.iv_name)
        self._RemoveVolumes(self._plan.target, self._old)
        self._old = []

    # The end

    def _Finish(self) -> None:
        """Have the new side get all data, and remove the old one, in the order of the plan.

        @raise errors.OpExecError: a disk is not in sync; the text names what is left
        """
        if self._plan.early_release:
            self._RemoveOld(5)
            # Nothing is done on nodes from here on but to look.
            base.ReleaseLocks(self._lu, locking.LEVEL_NODE)
        try:
            self._Sync(6 if self._plan.early_release else 5)
        except (errors.GenericError, mcpu.CancelJob):
            self._TellLeft()
            raise
        if not self._plan.early_release:
            self._RemoveOld(6)

    def _Sync(self, number: int) -> None:
        self._Step(number, "Sync devices")
        disk_ops.WaitForSync(self._lu, self._instance, self._disks)
        node = self._instance.primary_node
        for disk in self._disks:
            status = self._Find(disk, node)
            if status is None or status.is_degraded:
                what = "is not active" if status is None else "is degraded"
                raise errors.OpExecError(
                    f"Disk {disk.iv_name} {what} on node {node}, after its storage was replaced on"
                    f" {self._plan.builds_on}"
                )

    def _TellLeft(self) -> None:
        """Say what is as it should not stay: the old volumes are kept."""
        if not self._old:
            return
        names = " ".join(DeviceName(volume) for volume in self._old)
        self._lu.LogWarning(
            "The old volumes are kept on node %s: %s",
            self._plan.target,
            names,
            hint=f"Once all disks are in sync, remove them there by hand: lvremove {names}",
        )

    def _Redo(self, what: str, error: str | None, done: Callable[[], bool]) -> None:
        """After a call: if it failed, look whether it was done all the same, and go on then.

        @param what: what the call could not do
        @param error: why; None: it did
        @raise errors.OpExecError: it was not done
        """
        if error is None:
            return
        if not done():
            raise errors.OpExecError(f"{what}: {error}")
        self._lu.LogWarning("%s (%s), but it was done all the same", what, error)

"""The disks of an instance while it changes from one node to another, running.

For a while both nodes use them: a mirror with two primaries, or a file that all nodes share.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from .. import constants, errors, objects, rpc
from . import base, disk_ops

#: Seconds between two looks at a mirror that is not in sync: the first time, and at most.
_FIRST_DELAY: Final = 0.1
_MAX_DELAY: Final = 2.0


class MigrationDisks:
    """All disks of an instance, on its nodes.

    The caller holds the locks of the instance and of these nodes.
    """

    def __init__(
        self,
        lu: base.LogicalUnit,
        instance: objects.Instance,
        nodes: Sequence[str],
        feedback_fn: base.FeedbackFn,
    ) -> None:
        """@param nodes: the two sides of a mirror, or the nodes between which a file is shared"""
        self._lu = lu
        self._instance = instance
        self._nodes = list(nodes)
        self._feedback = feedback_fn
        self._mirrored = instance.disk_template in constants.DTS_NET_MIRROR
        self._ips = {
            name: node.secondary_ip
            for name, node in ((name, base.GetNode(lu, name)) for name in self._nodes)
        }

    def OpenOnBoth(self, target: str) -> None:
        """Let a second node use the disks; until then, the job can be cancelled.

        @raise errors.OpExecError: a step failed; L{CloseOn} undoes those before it
        """
        if self._mirrored:
            self._EnsureSecondary(target)
            for results, what in (self._GoStandalone(), self._GoReconnect(True)):
                for node, result in results.items():
                    result.Raise(f"Node {node} can not {what}")
            self._WaitForSync(may_cancel=True)
            return
        for disk in self._instance.disks:
            device = disk_ops.ForNode(self._lu, disk, target)
            result = self._lu.rpc.call_blockdev_assemble(target, device, self._instance.name, True)
            result.Raise(
                f"Node {target} can not use disk {disk.iv_name}, which all nodes should share"
            )

    def CloseOn(self, nodes: Iterable[str], wait: bool = False) -> list[str]:
        """Let these nodes use the disks no more, as far as possible: each step is tried.

        @param nodes: not the one on which the instance runs
        @param wait: for a mirror to be in sync first
        @return: what went wrong
        """
        problems = []
        for node in nodes:
            try:
                self._EnsureSecondary(node)
            except errors.OpExecError as err:
                problems.append(str(err))
        if not self._mirrored:
            return problems
        if wait and not problems:
            problems += self._TryToSync()
        broken = False
        for step in (self._GoStandalone, lambda: self._GoReconnect(False)):
            results, what = step()
            for node, result in results.items():
                if result.fail_msg:
                    broken = True
                    problems.append(f"Node {node} can not {what}: {result.fail_msg}")
        return problems if broken else problems + self._TryToSync()

    def _TryToSync(self) -> list[str]:
        try:
            self._WaitForSync(may_cancel=False)
        except errors.OpExecError as err:
            return [str(err)]
        return []

    def _Devices(self, node: str) -> list[objects.Disk]:
        return [disk_ops.ForNode(self._lu, disk, node) for disk in self._instance.disks]

    def _EnsureSecondary(self, node: str) -> None:
        if self._mirrored:
            self._feedback(f"* switching node {node} to secondary mode")
        # With the name of the instance: the links to its disks go, too.
        self._lu.rpc.call_blockdev_close(node, self._instance.name, self._Devices(node)).Raise(
            f"Node {node} can not close the disks"
        )
        if self._mirrored:
            return
        for disk in self._instance.disks:
            device = disk_ops.ForNode(self._lu, disk, node)
            self._lu.rpc.call_blockdev_shutdown(node, device).Raise(
                f"Node {node} can not shut disk {disk.iv_name} down"
            )

    def _GoStandalone(self) -> tuple[dict[str, rpc.RpcResult], str]:
        self._feedback("* changing into standalone mode")
        devices = self._Devices(self._instance.primary_node)
        results = self._lu.rpc.call_drbd_disconnect_net(self._nodes, self._ips, devices)
        return results, "disconnect the disks"

    def _GoReconnect(self, dual: bool) -> tuple[dict[str, rpc.RpcResult], str]:
        mode = "dual-master" if dual else "single-master"
        self._feedback(f"* changing disks into {mode} mode")
        devices = self._Devices(self._instance.primary_node)
        results = self._lu.rpc.call_drbd_attach_net(
            self._nodes, self._ips, devices, self._instance.name, dual
        )
        return results, f"connect the disks in {mode} mode"

    def _WaitForSync(self, may_cancel: bool) -> None:
        """Wait until both sides have the same data.

        @raise errors.OpExecError: a side can not tell
        """
        self._feedback("* wait until resync is done")
        clock = self._lu.context.runtime.clock
        devices = self._Devices(self._instance.primary_node)
        delay, shown = _FIRST_DELAY, None
        while True:
            if may_cancel:
                self._lu.CheckCancel()
            results = self._lu.rpc.call_drbd_wait_sync(self._nodes, self._ips, devices)
            percents = []
            for node, result in results.items():
                result.Raise(f"Node {node} can not tell whether the disks are in sync")
                done, percent = result.payload
                if not done:
                    percents.append(0.0 if percent is None else percent)
            if not percents:
                return
            text = f"{min(percents):.1f}%"
            if text != shown:
                self._feedback(f"   - progress: {text}")
                shown = text
            clock.sleep(delay)
            delay = min(delay * 1.5, _MAX_DELAY)

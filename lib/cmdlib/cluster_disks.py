"""The disks of all instances: are they there, and as big as the configuration says?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from .. import constants, locking, objects, opcodes
from ..utils import text
from . import announce, base, disk_ops

#: Instance, index of the disk, size in MiB.
_Change = tuple[str, int, int]
_Volumes = dict[tuple[str, str], str]


def MapMirroredVolumes(instances: Iterable[objects.Instance]) -> _Volumes:
    """Volumes of mirrored disks whose instance shall run: (node, volume) -> instance; pure."""
    volumes: _Volumes = {}
    for instance in instances:
        if not instance.admin_up or instance.disk_template != constants.DT_DRBD8:
            continue
        for node, names in instance.MapLVsByNode().items():
            volumes.update({(node, name): instance.name for name in names})
    return volumes


class LUClusterVerifyDisks(base.NoHooksLU):
    """Find mirrored disks that are not active, or whose volumes are missing."""

    LOOKS_ONLY = True

    def ExpandNames(self) -> None:
        self.needed_locks = {
            locking.LEVEL_INSTANCE: locking.ALL_SET,
            locking.LEVEL_NODE: locking.ALL_SET,
        }
        self.share_locks = dict.fromkeys(locking.LEVELS, 1)

    def CheckPrereq(self) -> None:
        """Nothing to check: finding problems is the work itself."""

    def Exec(
        self, feedback_fn: base.FeedbackFn
    ) -> tuple[dict[str, str], list[str], dict[str, list[tuple[str, str]]]]:
        bad_nodes: dict[str, str] = {}
        inactive: list[str] = []
        missing: dict[str, list[tuple[str, str]]] = {}
        expected = MapMirroredVolumes(self.cfg.GetAllInstancesInfo().values())
        if not expected:
            return bad_nodes, inactive, missing
        nodes = text.NiceSort(self.cfg.GetNodeList())
        for node, result in self.rpc.call_lv_list(nodes, self.cfg.GetVGName()).items():
            if result.offline:
                continue
            if result.fail_msg:
                self.LogWarning("Node %s can not list its volumes: %s", node, result.fail_msg)
                bad_nodes[node] = result.fail_msg
                continue
            for name, (_, _, opened) in result.payload.items():
                owner = expected.pop((node, name), None)
                if owner is not None and not opened and owner not in inactive:
                    inactive.append(owner)
        for (node, name), owner in sorted(expected.items()):
            missing.setdefault(owner, []).append((node, name))
        return bad_nodes, inactive, missing


class LUClusterRepairDiskSizes(base.NoHooksLU):
    """Correct the recorded sizes of disks by the real ones."""

    def ExpandNames(self) -> None:
        self.wanted = base.GetWantedInstances(self, self.op.instances)
        self.share_locks = dict.fromkeys(locking.LEVELS, 1)
        if self.op.instances:
            self.needed_locks = {locking.LEVEL_INSTANCE: self.wanted, locking.LEVEL_NODE: []}
            self.recalculate_locks[locking.LEVEL_NODE] = base.LOCKS_REPLACE
        else:
            self.needed_locks = {
                locking.LEVEL_INSTANCE: locking.ALL_SET,
                locking.LEVEL_NODE: locking.ALL_SET,
            }

    def DeclareLocks(self, level: int) -> None:
        if level == locking.LEVEL_NODE and locking.LEVEL_NODE in self.recalculate_locks:
            self._LockInstancesNodes(primary_only=True)

    def CheckPrereq(self) -> None:
        """Nothing to check."""

    def DescribeChanges(self) -> list[announce.Change]:
        """Measures all disks, as only that tells."""
        return [
            announce.OfInstance(name, f"disk {index}: size set to {size} MiB")
            for _, found in self._Measure()
            for name, index, size in found
        ]

    def Exec(self, feedback_fn: base.FeedbackFn) -> list[_Change]:
        found: list[_Change] = []
        for instance, changed in self._Measure():
            self.cfg.Update(instance, feedback_fn)
            found += changed
        return found

    def _Measure(self) -> Iterator[tuple[objects.Instance, list[_Change]]]:
        """Instances with corrected disks, that are not stored yet, and what was corrected."""
        by_node: dict[str, list[objects.Instance]] = {}
        names = self.wanted if self.op.instances else text.NiceSort(self.cfg.GetInstanceList())
        for name in names:
            instance = base.GetInstance(self, name)
            by_node.setdefault(instance.primary_node, []).append(instance)
        for node in text.NiceSort(by_node):
            yield from self._MeasureNode(node, by_node[node])

    def _MeasureNode(
        self, node: str, instances: list[objects.Instance]
    ) -> Iterator[tuple[objects.Instance, list[_Change]]]:
        """Correct all instances of a primary node, which is asked once."""
        devices = [
            disk_ops.ForNode(self, disk, node) for instance in instances for disk in instance.disks
        ]
        if not devices:
            return
        result = self.rpc.call_blockdev_getsizes(node, devices)
        problem = result.fail_msg
        if not problem and len(result.payload) != len(devices):
            problem = f"it told {len(result.payload)} sizes of {len(devices)} disks"
        if problem:
            self.LogWarning("Node %s can not tell the sizes of disks: %s", node, problem)
            return
        sizes = iter(result.payload)
        for instance in instances:
            found = [
                (instance.name, index, size)
                for index, disk in enumerate(instance.disks)
                for size in self._RepairDisk(instance, disk, index, next(sizes))
            ]
            if found:
                yield instance, found

    def _RepairDisk(
        self, instance: objects.Instance, disk: objects.Disk, index: int, measured: Any
    ) -> list[int]:
        """Correct one disk; the sizes that were recorded, once for each correction."""
        if not isinstance(measured, int):
            self.LogWarning(
                "Disk %d of instance %s has no size that node %s could tell",
                index,
                instance.name,
                instance.primary_node,
            )
            return []
        sizes = []
        size = measured >> 20
        if size != disk.size:
            self.LogInfo(
                "Disk %d of instance %s has %d MiB, not %d", index, instance.name, size, disk.size
            )
            disk.size = size
            sizes.append(size)
        if RaiseDataSize(disk):
            sizes.append(disk.size)
        return sizes


def RaiseDataSize(disk: objects.Disk) -> bool:
    """Make what holds the data of a mirrored disk at least as big as that; was anything changed?"""
    if disk.dev_type not in constants.LDS_DRBD or not disk.children:
        return False
    data = disk.children[0]
    changed = data.size < disk.size
    if changed:
        data.size = disk.size
    return RaiseDataSize(data) or changed


LOGICAL_UNITS: Final = {
    opcodes.OpClusterVerifyDisks: LUClusterVerifyDisks,
    opcodes.OpClusterRepairDiskSizes: LUClusterRepairDiskSizes,
}

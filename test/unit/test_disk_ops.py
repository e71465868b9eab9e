"""What operations do with disks, on nodes in memory: conditions, waits, both sides of mirrors."""

import pytest

from ganeti import constants, objects
from ganeti.cmdlib import disk_ops, fake
from ganeti.config import fake as config_fake

NODE1, NODE2, NODE3 = (config_fake.NodeName(number) for number in (1, 2, 3))
NAME = "inst1.example.com"


def NewDrbd(index=0, size=128):
    """A mirrored disk on the nodes 2 and 3."""
    children = [
        objects.Disk(
            dev_type=constants.LD_LV, size=part_size, logical_id=("xenvg", f"u{index}.{part}")
        )
        for part, part_size in (("data", size), ("meta", constants.DRBD_META_SIZE))
    ]
    return objects.Disk(
        dev_type=constants.LD_DRBD8,
        size=size,
        logical_id=(NODE2, NODE3, 11000 + index, index, index + 5, "secret"),
        children=children,
        iv_name=f"disk/{index}",
        mode=constants.DISK_RDWR,
    )


class FakeUnit:
    """As much of a logical unit as the helpers use."""

    def __init__(self, world):
        self.cfg, self.rpc, self.context = world.cfg, world.rpc, world.master
        self.log = []

    def LogWarning(self, message, *args, hint=None):
        self.log.append(message % args if args else message)

    LogInfo = LogWarning

    def CheckCancel(self):
        pass


@pytest.fixture
def lu():
    return FakeUnit(fake.NewWorld(3))


def Put(lu, disk):
    for node in (NODE2, NODE3):
        lu.cfg.SetDiskID(disk, node)
        lu.rpc.nodes[node].Put(disk)


def StateOf(lu, node, disk):
    minor = disk.logical_id[3 if node == disk.logical_id[0] else 4]
    return lu.rpc.nodes[node].drbd[f"drbd{minor}"]


class TestConsistency:
    """Is the data of a disk good on a node?"""

    def test_good(self, lu):
        disk = NewDrbd()
        Put(lu, disk)
        for node, on_primary in ((NODE2, True), (NODE3, False)):
            for ldisk in (False, True):
                assert disk_ops.CheckDiskConsistency(lu, disk, node, on_primary, ldisk)
        assert lu.log == []

    def test_degraded(self, lu):
        """Without its peer a mirror is degraded, but its own data is good."""
        disk = NewDrbd()
        Put(lu, disk)
        StateOf(lu, NODE3, disk).network = None
        assert not disk_ops.CheckDiskConsistency(lu, disk, NODE3, False)
        assert disk_ops.CheckDiskConsistency(lu, disk, NODE3, False, ldisk=True)
        assert disk_ops.CheckDiskConsistency(lu, disk, NODE2, True)

    def test_faulty_children_count_without_ldisk(self, lu):
        disk = NewDrbd()
        Put(lu, disk)
        lu.rpc.nodes[NODE3].faulty = True
        assert not disk_ops.CheckDiskConsistency(lu, disk, NODE3, False, ldisk=True)

    def test_missing_child(self, lu):
        disk = NewDrbd()
        Put(lu, disk)
        lu.rpc.nodes[NODE3].disks.remove("xenvg/u0.data")
        assert not disk_ops.CheckDiskConsistency(lu, disk, NODE3, False)
        assert any("u0.data" in line for line in lu.log)

    def test_not_active(self, lu):
        disk = NewDrbd()
        Put(lu, disk)
        lu.rpc.nodes[NODE3].active.clear()
        assert not disk_ops.CheckDiskConsistency(lu, disk, NODE3, False)
        assert any("disk/0" in line and NODE3 in line for line in lu.log)

    def test_silent_node(self, lu):
        disk = NewDrbd()
        Put(lu, disk)
        lu.rpc.Cut(NODE3)
        assert not disk_ops.CheckDiskConsistency(lu, disk, NODE3, False)
        assert any("timed out" in line for line in lu.log)

    def test_files_are_on_the_primary_only(self, lu):
        disk = objects.Disk(
            dev_type=constants.LD_FILE, size=8, logical_id=("loop", "/srv/x"), iv_name="disk/0"
        )
        assert disk_ops.CheckDiskConsistency(lu, disk, NODE3, False)
        assert not disk_ops.CheckDiskConsistency(lu, disk, NODE2, True)

"""What operations do with disks, on nodes in memory: conditions, waits, both sides of mirrors."""

import pytest

from ganeti import constants, errors, objects
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

    def test_mirror_that_lost_its_disk(self, lu):
        """What is below it is fine, but nobody writes to it."""
        disk = NewDrbd()
        Put(lu, disk)
        StateOf(lu, NODE3, disk).children = []
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


def NewInstance(disks):
    return objects.Instance(
        name=NAME, primary_node=NODE2, disk_template=constants.DT_DRBD8, disks=disks, nics=[]
    )


class TestConnection:
    """The sides of a mirror see each other before one becomes primary, or have had time for it."""

    def Assemble(self, lu, before):
        disk = NewDrbd()
        Put(lu, disk)
        instance = NewInstance([disk])
        disk_ops.ShutdownDisks(lu, instance)
        lu.rpc.before_call = before
        lu.rpc.calls.clear()
        start = lu.context.runtime.clock.monotonic()
        ok, info = disk_ops.AssembleDisks(lu, instance)
        return ok, info, lu.context.runtime.clock.monotonic() - start

    def Alone(self, lu, looks):
        """For the first looks, the primary has no peer."""

        def Before(call, node):
            if call == "blockdev_getmirrorstatus":
                looks[0] -= 1
                StateOf(lu, NODE2, NewDrbd()).degraded = looks[0] >= 0

        return Before

    def test_connected(self, lu):
        ok, info, seconds = self.Assemble(lu, lambda *_: None)
        assert (ok, info, seconds) == (True, [(NODE2, "disk/0", "/dev/drbd0")], 0)
        order = [call for call, _ in lu.rpc.calls]
        assert order == ["blockdev_assemble"] * 2 + [
            "blockdev_getmirrorstatus",
            "blockdev_assemble",
        ]

    def test_a_little_later(self, lu):
        ok, _, seconds = self.Assemble(lu, self.Alone(lu, [4]))
        assert ok
        assert seconds == 2.0

    def test_never(self, lu):
        ok, _, seconds = self.Assemble(lu, self.Alone(lu, [1000]))
        assert ok
        assert 10 <= seconds < 11
        assert any("disk/0" in line for line in lu.log)

    def test_synchronising(self, lu):
        def Before(call, node):
            state = StateOf(lu, NODE2, NewDrbd())
            state.degraded, state.sync_percent = True, 1.0

        assert self.Assemble(lu, Before)[2] == 0

    def test_dead_peer(self, lu):
        """Nobody waits for a side that could not even be prepared."""
        lu.rpc.Cut(NODE3)
        disk = NewDrbd()
        for node in (NODE2, NODE3):
            lu.cfg.SetDiskID(disk, node)
            lu.rpc.nodes[node].Put(disk)
        ok, info = disk_ops.AssembleDisks(lu, NewInstance([disk]), ignore_secondaries=True)
        assert ok
        assert info[0][2] == "/dev/drbd0"
        assert "blockdev_getmirrorstatus" not in [call for call, _ in lu.rpc.calls]

    def test_primary_can_not_tell(self, lu):
        lu.rpc.Fail("blockdev_getmirrorstatus")
        assert self.Assemble(lu, lambda *_: None)[0::2] == (True, 0)


class TestSync:
    def test_transient_degradation(self, lu):
        """A mirror that is degraded for a moment is not given up."""
        disk = NewDrbd()
        Put(lu, disk)
        looks = []

        def Before(call, node):
            looks.append(call)
            StateOf(lu, NODE2, disk).degraded = len(looks) < 8

        lu.rpc.before_call = Before
        assert disk_ops.WaitForSync(lu, NewInstance([disk]))
        assert len(looks) == 8

    def test_degraded(self, lu):
        disk = NewDrbd()
        Put(lu, disk)
        StateOf(lu, NODE2, disk).degraded = True
        assert not disk_ops.WaitForSync(lu, NewInstance([disk]))

    def test_silent_primary(self, lu):
        disk = NewDrbd()
        Put(lu, disk)
        lu.rpc.Cut(NODE2)
        with pytest.raises(errors.RemoteError):
            disk_ops.WaitForSync(lu, NewInstance([disk]))
        assert len([line for line in lu.log if "timed out" in line]) == 10

"""Exports of instances: snapshots, images, description; what is left when a step fails."""

import pytest

from ganeti import errors, locking, objects, opcodes
from ganeti.cmdlib import fake
from ganeti.config import fake as config_fake

NODE1, NODE2, NODE3 = (config_fake.NodeName(number) for number in (1, 2, 3))
NAME = "inst1.example.com"


def Export(**values):
    return opcodes.OpBackupExport(
        **{"instance_name": NAME, "target_node": NODE3, "shutdown": True, **values}
    )


def Remove(name=NAME):
    return opcodes.OpBackupRemove(instance_name=name)


def Volume(number):
    return objects.Disk(
        dev_type="lvm",
        logical_id=("vg", f"x.disk{number}"),
        iv_name=f"disk/{number}",
        size=64,
        mode="rw",
    )


def NewWorld(admin_up=True, template="plain", disks=None):
    world = fake.NewWorld(3)
    disks = [Volume(0), Volume(1)] if disks is None else disks
    world.AddInstance(NAME, NODE2, admin_up=admin_up, disk_template=template, disks=disks)
    return world


def Snapshots(world):
    return {key for node in world.rpc.nodes.values() for key in node.disks if "snap" in key}


def Calls(world, *names):
    return [call for call in world.rpc.calls if call[0] in names]


class TestExport:
    """BASE1: an export of a running and of a stopped instance."""

    def test_running(self):
        world = NewWorld()
        assert world.Run(Export()) == (True, [True, True])
        assert world.rpc.nodes[NODE3].exports == [NAME]
        assert world.rpc.nodes[NODE3].images == {(NAME, "x.disk0.snap"), (NAME, "x.disk1.snap")}
        assert not Snapshots(world)
        assert NAME in world.rpc.nodes[NODE2].running
        names = ("instance_shutdown", "blockdev_snapshot", "instance_start", "snapshot_export")
        # It runs again before the long part.
        assert [call[0] for call in Calls(world, *names)] == [
            "instance_shutdown",
            "blockdev_snapshot",
            "blockdev_snapshot",
            "instance_start",
            "snapshot_export",
            "snapshot_export",
        ]

    def test_without_a_shutdown(self):
        world = NewWorld()
        world.Run(Export(shutdown=False))
        assert not Calls(world, "instance_shutdown", "instance_start")

    def test_stopped(self):
        world = NewWorld(admin_up=False)
        world.rpc.nodes[NODE2].active.clear()
        assert world.Run(Export()) == (True, [True, True])
        assert NAME not in world.rpc.nodes[NODE2].running
        assert not world.rpc.nodes[NODE2].active

    def test_mirror(self):
        disk = config_fake.NewDrbdDisk((NODE1, NODE2), 11000, (0, 1), "secret", "x")
        world = NewWorld(template="drbd", disks=[disk])
        assert world.Run(Export()) == (True, [True])
        assert world.rpc.nodes[NODE3].images == {(NAME, "x.data.snap")}

    def test_diskless(self):
        world = NewWorld(template="diskless", disks=[])
        assert world.Run(Export()) == (True, [])
        assert world.rpc.nodes[NODE3].exports == [NAME]

    def test_older_exports_go(self):
        world = NewWorld()
        for node in world.rpc.nodes.values():
            node.exports += [NAME, "other.example.com"]
        world.Run(Export())
        assert [node.exports for node in world.rpc.nodes.values()] == [
            ["other.example.com"],
            ["other.example.com"],
            [NAME, "other.example.com"],
        ]

    def test_others_can_use_the_other_nodes_meanwhile(self):
        world = NewWorld()
        held = []

        def _Look(call, node):
            if call == "snapshot_export":
                held.append(set(world.master.glm.list_owned(locking.LEVEL_NODE)))

        world.rpc.before_call = _Look
        world.Run(Export())
        assert held[0] == {NODE2, NODE3}

    @pytest.mark.parametrize("call", ["blockdev_snapshot", "snapshot_export", "finalize_export"])
    def test_an_incomplete_export_replaces_nothing_elsewhere(self, call):
        world = NewWorld()
        world.rpc.nodes[NODE1].exports.append(NAME)
        world.rpc.Fail(call)
        finished, disks = world.Run(Export())
        assert (finished, disks) == (
            call != "finalize_export",
            [call == "finalize_export"] * 2,
        )
        assert world.rpc.nodes[NODE1].exports == [NAME]
        assert not Snapshots(world)
        assert NAME in world.rpc.nodes[NODE2].running

    def test_it_starts_again_even_if_taking_snapshots_breaks_off(self):
        world = NewWorld()

        def _Break(call, node):
            if call == "blockdev_snapshot" and Snapshots(world):
                raise RuntimeError("the daemon is ill")

        world.rpc.before_call = _Break
        with pytest.raises(RuntimeError):
            world.Run(Export())
        assert NAME in world.rpc.nodes[NODE2].running
        assert not Snapshots(world)

    def test_a_start_that_fails(self):
        world = NewWorld()
        world.rpc.Fail("instance_start")
        with pytest.raises(errors.OpExecError, match="could not be started"):
            world.Run(Export())
        assert not Snapshots(world)

    def test_a_shutdown_that_fails_takes_no_snapshots(self):
        world = NewWorld()
        world.rpc.Fail("instance_shutdown")
        with pytest.raises(errors.OpExecError, match="could not be shut down"):
            world.Run(Export())
        assert not Calls(world, "blockdev_snapshot")

    def test_snapshots_that_stay_are_named(self):
        world = NewWorld()
        world.rpc.Fail("blockdev_remove")
        world.Run(Export())
        assert any("vg/x.disk0.snap" in line for line in world.log)

    @pytest.mark.parametrize("flag", ["offline", "drained"])
    def test_target_that_takes_nothing(self, flag):
        world = NewWorld()
        node = world.cfg.GetNodeInfo(NODE3)
        setattr(node, flag, True)
        node.master_candidate = False
        world.cfg.Update(node, None)
        with pytest.raises(errors.OpPrereqError) as info:
            world.Run(Export())
        assert info.value.args[1] == errors.ECODE_INVAL

    def test_file_disks_are_refused(self):
        disk = objects.Disk(
            dev_type="file",
            logical_id=("loop", "/srv/ganeti/file-storage/x/disk0"),
            iv_name="disk/0",
            size=64,
            mode="rw",
        )
        world = NewWorld(template="file", disks=[disk])
        with pytest.raises(errors.OpPrereqError, match="no snapshots") as info:
            world.Run(Export())
        assert info.value.args[1] == errors.ECODE_INVAL

    def test_dead_target(self):
        """Nobody's instance is shut down for nothing."""
        world = NewWorld()
        world.rpc.Cut(NODE3)
        with pytest.raises(errors.OpPrereqError, match=NODE3) as info:
            world.Run(Export())
        assert info.value.args[1] == errors.ECODE_ENVIRON
        assert not Calls(world, "instance_shutdown", "blockdev_snapshot")

    def test_unknown_target(self):
        with pytest.raises(errors.OpPrereqError) as info:
            NewWorld().Run(Export(target_node="nosuch"))
        assert info.value.args[1] == errors.ECODE_NOENT


class TestRemove:
    def test_everywhere(self):
        world = NewWorld()
        for name in (NODE1, NODE3):
            world.rpc.nodes[name].exports.append(NAME)
        world.Run(Remove("inst1"))
        assert not any(node.exports for node in world.rpc.nodes.values())

    def test_of_an_instance_that_is_gone(self):
        world = fake.NewWorld(2)
        world.rpc.nodes[NODE2].exports.append("gone.example.com")
        world.Run(Remove("gone.example.com"))
        assert not world.rpc.nodes[NODE2].exports

    def test_nothing_found(self):
        world = fake.NewWorld(2)
        world.Run(Remove("gone"))
        assert any("give its full name" in line for line in world.log)

    def test_a_node_that_can_not_list(self):
        world = NewWorld()
        world.rpc.nodes[NODE3].exports.append(NAME)
        world.rpc.Fail("export_list", nodes=[NODE1])
        world.Run(Remove())
        assert any(NODE1 in line for line in world.log)
        assert not world.rpc.nodes[NODE3].exports

    def test_a_removal_that_fails(self):
        world = NewWorld()
        world.rpc.nodes[NODE3].exports.append(NAME)
        world.rpc.Fail("export_remove", "it is busy")
        world.Run(Remove())
        assert any("it is busy" in line for line in world.log)

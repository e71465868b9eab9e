"""Disks and disk templates of instances change: what it does and refuses, what failures leave."""

import callfaults as cf
import pytest

from ganeti import constants, errors, objects, opcodes
from ganeti.cmdlib import fakedisks

NODE1, NODE2, NODE3, NODE4 = cf.NODE1, cf.NODE2, cf.NODE3, cf.NODE4
TEMPLATES = ["plain", "drbd", "file", "sharedfile"]


def Modify(**values):
    return opcodes.OpInstanceSetParams(instance_name=cf.NAME, **values)


def ToDrbd(node=NODE4):
    return Modify(disk_template="drbd", remote_node=node)


def ToPlain():
    return Modify(disk_template="plain")


def AddDisk(**values):
    return Modify(disks=[["add", {"size": 64, **values}]])


def RemoveDisk():
    return Modify(disks=[["remove", {}]])


def Down(template, **values):
    return lambda: cf.NewWorld(template, up=False, **values)


def Up(template, **values):
    return lambda: cf.NewWorld(template, **values)


def Refused(world, op, code, *fragments):
    """It must be refused with nothing changed."""
    before = cf.Instance(world).ToDict(), cf.ActualKeys(world)
    with pytest.raises(errors.OpPrereqError) as caught:
        world.Run(op)
    text, found = caught.value.args
    assert found == code, text
    for fragment in fragments:
        assert fragment in text
    assert (cf.Instance(world).ToDict(), cf.ActualKeys(world)) == before
    cf.CheckNoHarm(world)


def CheckAllIsThere(world):
    """Nodes have what the configuration says, and nothing else."""
    expected = {
        name: {key for key in keys if not key.startswith("drbd")}
        for name, keys in cf.ExpectedKeys(world).items()
    }
    actual = {
        name: {key for key in keys if not key.startswith("drbd")}
        for name, keys in cf.ActualKeys(world).items()
    }
    assert actual == expected
    cf.CheckNoHarm(world)


class TestDisks:
    """Section 16.3 of the logical units, for every disk template."""

    @pytest.mark.parametrize("template", TEMPLATES)
    def test_add_and_remove(self, template):
        world = cf.NewWorld(template, up=False)
        before = cf.Instance(world).ToDict()
        assert world.Run(AddDisk(mode="ro")) == [("disk/2", "add:size=64,mode=ro")]
        disk = cf.Instance(world).disks[2]
        assert (disk.iv_name, disk.size, disk.mode) == ("disk/2", 64, "ro")
        CheckAllIsThere(world)
        for node in [*world.rpc.nodes.values(), world.rpc.shared]:
            assert not node.active & cf.ExpectedKeys(world)[NODE2], "a disk stays active"
        assert world.Run(RemoveDisk()) == [("disk/2", "remove")]
        CheckAllIsThere(world)
        after = cf.Instance(world).ToDict()
        assert after["disks"] == before["disks"] or [d["logical_id"] for d in after["disks"]] == [
            d["logical_id"] for d in before["disks"]
        ]

    @pytest.mark.parametrize("template", TEMPLATES)
    def test_add_to_a_running_instance(self, template):
        world = cf.NewWorld(template)
        world.Run(AddDisk())
        CheckAllIsThere(world)
        world.Run(opcodes.OpInstanceShutdown(instance_name=cf.NAME))
        world.Run(opcodes.OpInstanceStartup(instance_name=cf.NAME, force=False))
        if template == "drbd":
            cf.CheckMirrors(world)

    def test_port_of_a_mirror(self):
        world = cf.NewWorld("drbd", up=False)
        port = cf.Instance(world).disks[1].logical_id[2]
        world.Run(RemoveDisk())
        assert port in world.cfg.GetClusterInfo().tcpudp_port_pool
        world.Run(AddDisk())
        assert cf.Instance(world).disks[1].logical_id[2] == port

    def test_limits(self):
        world = cf.NewWorld("plain", disks=[{"size": 4}] * constants.MAX_DISKS)
        Refused(world, AddDisk(), errors.ECODE_STATE, "16")
        world = cf.NewWorld("plain", nics=[{}] * constants.MAX_NICS)
        Refused(world, Modify(nics=[["add", {}]]), errors.ECODE_STATE, "8")
        # The number of one does not count for the other.
        world.Run(AddDisk())

    @pytest.mark.parametrize(("template", "nodes"), [("plain", [NODE2]), ("drbd", [NODE2, NODE3])])
    def test_space(self, template, nodes):
        world = cf.NewWorld(template)
        Refused(world, AddDisk(size=50004), errors.ECODE_NORES, "50000 MiB free")
        asked = [node for call, node in world.rpc.calls if call == "node_info"][-len(nodes) :]
        assert sorted(asked) == nodes

    def test_last_disk(self):
        world = cf.NewWorld("plain", up=False, disks=[{"size": 4}])
        Refused(world, RemoveDisk(), errors.ECODE_INVAL, "last disk")

    def test_runs(self):
        Refused(cf.NewWorld("plain"), RemoveDisk(), errors.ECODE_STATE, "shutdown")

    def test_silent_node(self):
        """The configuration does not have the disk any more; what may be left is named."""
        world = cf.NewWorld("drbd", up=False)
        disk = cf.Instance(world).disks[1]
        world.rpc.Cut(NODE3)
        world.Run(RemoveDisk())
        assert len(cf.Instance(world).disks) == 1
        text = "\n".join(world.log)
        assert all("/".join(child.logical_id) in text for child in disk.children)


class TestToDrbd:
    """Section 16.4 of the logical units: what was plain is mirrored."""

    def test_converts(self):
        world = cf.NewWorld("plain", up=False, disks=[{"size": 16, "stripe": 2}, {"size": 32}])
        marks, old = cf.Marks(world, NODE2), cf.Instance(world)
        assert world.Run(ToDrbd()) == [("disk_template", "drbd")]
        new = cf.Instance(world)
        assert new.disk_template == "drbd"
        assert cf.Marks(world, NODE2) == marks
        for before, disk in zip(old.disks, new.disks, strict=True):
            assert disk.logical_id[:2] == (NODE2, NODE4)
            assert (disk.size, disk.mode, disk.iv_name, disk.params) == (
                before.size,
                before.mode,
                before.iv_name,
                before.params,
            )
        CheckAllIsThere(world)
        assert not any(key.startswith("drbd") for key in world.rpc.nodes[NODE2].active)
        world.Run(opcodes.OpInstanceStartup(instance_name=cf.NAME, force=False))
        cf.CheckMirrors(world)

    def test_there_and_back(self):
        world = cf.NewWorld("plain", up=False)
        marks = cf.Marks(world, NODE2)
        world.Run(ToDrbd())
        world.Run(ToPlain())
        world.Run(ToDrbd(NODE3))
        assert cf.Marks(world, NODE2) == marks
        CheckAllIsThere(world)

    def test_hooks(self):
        world = cf.NewWorld("plain", up=False)
        world.Run(ToDrbd())
        (env,) = [
            env
            for _, path, phase, env in world.rpc.hooks
            if (path, phase) == ("instance-modify", "pre")
        ]
        assert env["GANETI_NEW_DISK_TEMPLATE"] == "drbd"
        assert env["GANETI_INSTANCE_DISK_TEMPLATE"] == "plain"

    def test_not_in_sync(self):
        """The configuration says drbd already, and the text says how to go on."""
        world = cf.NewWorld("plain", up=False)
        world.rpc.before_call = lambda call, _: [
            setattr(device, "degraded", call == "blockdev_getmirrorstatus" or device.degraded)
            for device in world.rpc.nodes[NODE2].drbd.values()
        ]
        with pytest.raises(errors.OpExecError, match="replace-disks -s"):
            world.Run(ToDrbd())
        assert cf.Instance(world).disk_template == "drbd"

    @pytest.mark.parametrize(
        ("prepare", "op", "code", "fragments"),
        [
            (Down("plain"), ToPlain(), errors.ECODE_INVAL, ["already"]),
            (Down("file"), ToDrbd(), errors.ECODE_INVAL, ["file", "drbd"]),
            (Down("sharedfile"), ToPlain(), errors.ECODE_INVAL, ["sharedfile"]),
            (Down("plain"), Modify(disk_template="file"), errors.ECODE_INVAL, ["file"]),
            (Down("plain"), Modify(disk_template="drbd"), errors.ECODE_INVAL, ["-n NODE"]),
            (Up("plain"), ToDrbd(), errors.ECODE_STATE, ["shutdown"]),
            (Up("drbd"), ToPlain(), errors.ECODE_STATE, ["shutdown"]),
            (Down("plain"), ToDrbd(NODE2), errors.ECODE_STATE, ["primary", NODE2]),
            (Down("plain"), ToDrbd("node9"), errors.ECODE_NOENT, ["node9"]),
            (Down("plain"), Modify(remote_node=NODE4, beparams={"memory": 256}),
             errors.ECODE_INVAL, ["remote_node"]),
            (Down("drbd"), Modify(disk_template="plain", remote_node=NODE4),
             errors.ECODE_INVAL, ["remote_node"]),
            (Down("plain"), Modify(disk_template="drbd", remote_node=NODE4,
                                   disks=[[0, {"mode": "ro"}]]),
             errors.ECODE_INVAL, ["same time"]),
        ],
    )  # fmt: skip
    def test_refused(self, prepare, op, code, fragments):
        Refused(prepare(), op, code, *fragments)

    @pytest.mark.parametrize("flag", ["offline", "drained"])
    def test_remote_node(self, flag):
        world = cf.NewWorld("plain", up=False)
        node = world.cfg.GetNodeInfo(NODE4)
        setattr(node, flag, True)
        node.master_candidate = False
        world.cfg.Update(node, None)
        Refused(world, ToDrbd(), errors.ECODE_INVAL, NODE4, flag)

    def test_space(self):
        world = cf.NewWorld("plain", up=False, disks=[{"size": 50000 - 124}])
        Refused(world, ToDrbd(), errors.ECODE_NORES, NODE4, "50004 MiB")


class TestToPlain:
    """Section 16.4 of the logical units, and what 2.1 forgot: names of disks, and ports."""

    @pytest.mark.parametrize("swapped", [False, True])
    def test_converts(self, swapped):
        world = cf.NewWorld("drbd", up=False, disks=[{"size": 16, "mode": "ro"}, {"size": 32}])
        if swapped:
            world.Run(opcodes.OpInstanceFailover(instance_name=cf.NAME, ignore_consistency=False))
        old = cf.Instance(world)
        marks = cf.Marks(world, old.primary_node)
        assert world.Run(ToPlain()) == [("disk_template", "plain")]
        new = cf.Instance(world)
        assert (new.disk_template, list(new.secondary_nodes)) == ("plain", [])
        assert cf.Marks(world, new.primary_node) == marks
        for before, disk in zip(old.disks, new.disks, strict=True):
            assert disk.dev_type == constants.LD_LV
            assert (disk.iv_name, disk.mode, disk.size) == (
                before.iv_name,
                before.mode,
                before.size,
            )
            assert before.logical_id[2] in world.cfg.GetClusterInfo().tcpudp_port_pool
        CheckAllIsThere(world)
        assert not world.rpc.nodes[NODE2].active

    def test_data_is_bad(self):
        """The only good copy would be removed."""
        world = cf.NewWorld("drbd", up=False)
        world.rpc.nodes[NODE2].faulty = True
        before = cf.Instance(world).ToDict()
        with pytest.raises(errors.OpExecError, match="failover"):
            world.Run(ToPlain())
        assert cf.Instance(world).ToDict() == before
        CheckAllIsThere(world)

    def test_secondary_is_gone(self):
        """A way to do without it."""
        world = cf.NewWorld("drbd", up=False)
        old = cf.Instance(world)
        node = world.cfg.GetNodeInfo(NODE3)
        node.offline, node.master_candidate = True, False
        world.cfg.Update(node, None)
        world.Run(ToPlain())
        text = "\n".join(world.log)
        assert cf.Instance(world).disk_template == "plain"
        for disk in old.disks:
            assert all("/".join(child.logical_id) in text for child in disk.children)


#: name -> (what there is before, the operation)
SCENARIOS = {
    **{f"add-{name}": (Down(name), AddDisk) for name in TEMPLATES},
    "add-drbd-up": (Up("drbd"), AddDisk),
    **{f"remove-{name}": (Down(name), RemoveDisk) for name in TEMPLATES},
    "to-drbd": (Down("plain"), ToDrbd),
    "to-plain": (Down("drbd"), ToPlain),
}


@pytest.mark.parametrize("mode", cf.MODES)
@pytest.mark.parametrize("scenario", SCENARIOS)
class TestEachCall:
    """A failure at any step leaves the instance as it was, or as it shall be."""

    def test_each(self, scenario, mode):
        prepare, make_op = SCENARIOS[scenario]
        reference = prepare()
        instance = cf.Instance(reference)
        marks = cf.Marks(reference, instance.primary_node)
        before = instance.ToDict()

        def Check(world, fault, err, text):
            _CheckData(world, marks)
            if err is not None and "Could not undo" not in text:
                _CheckOneOfBoth(cf.Instance(world).ToDict(), before, scenario)
            for name, key in cf.FindLeaks(world):
                assert key in text or fault.dead == name, f"nobody knows of {key} on {name}"
            fault.End()
            if err is not None and not _IsDone(world, before):
                again, more = cf.RunAndTell(world, make_op())
                if again is not None:
                    _ByHand(world, text)
                    world.Run(make_op())
            assert _IsDone(world, before)
            for name, key in cf.FindLeaks(world):
                assert key in text, f"nobody knows of {key} on {name}"
            _CheckData(world, marks)

        cf.EachFault(prepare, make_op, mode, Check)


def _CheckData(world, marks):
    cf.CheckNoHarm(world)
    instance = cf.Instance(world)
    # What is still configured, in its place; what was is gone only with its configuration.
    for mark, disk in zip(marks, instance.disks, strict=False):
        data = disk.children[0] if disk.children else disk
        found = cf.FindMark(world, instance.primary_node, mark)
        if found != fakedisks.DeviceKey(data):
            assert found is not None, "data was lost"
            assert found in "\n".join(world.log), f"nobody knows that the data is in {found}"


def _IsDone(world, before):
    """Is the number of disks, or the template, another one?"""
    now = cf.Instance(world)
    return (len(now.disks), now.disk_template) != (len(before["disks"]), before["disk_template"])


def _CheckOneOfBoth(now, before, scenario):
    if (
        len(now["disks"]) == len(before["disks"])
        and now["disk_template"] == before["disk_template"]
    ):
        assert [d["logical_id"] for d in now["disks"]] == [d["logical_id"] for d in before["disks"]]


def _ByHand(world, text):
    """What the job says: names back, and what is left away."""
    for name, key in cf.FindLeaks(world):
        node = world.rpc.nodes[name]
        wanted = cf.ExpectedKeys(world)[name] - node.disks
        for old in wanted:
            line = f"lvrename {key} {old.partition('/')[2]}"
            if line in text:
                device = objects.Disk(
                    dev_type=constants.LD_LV, logical_id=tuple(key.split("/")), size=1
                )
                world.rpc.call_blockdev_rename(name, [(device, old.split("/"))])
                break
        else:
            assert key in text
            node.disks.discard(key)
            node.active.discard(key)
            world.rpc.shared.disks.discard(key)

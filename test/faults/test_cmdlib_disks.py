"""Growing and recreating disks, with each call failing in turn: the next command finishes."""

import createworld as cw
import pytest

from ganeti import constants, errors, opcodes
from ganeti.cmdlib import fakedisks

AMOUNT = 64


def Grow(amount=AMOUNT, disk=1):
    return opcodes.OpInstanceGrowDisk(
        instance_name=cw.NAME, disk=disk, amount=amount, wait_for_sync=True
    )


def Stop():
    return opcodes.OpInstanceShutdown(instance_name=cw.NAME)


def Recreate(*disks):
    return opcodes.OpInstanceRecreateDisks(instance_name=cw.NAME, disks=list(disks))


def SizesOf(world, index):
    """MiB of everything that a disk consists of, by what it is."""
    instance = world.cfg.GetInstanceInfo(cw.NAME)
    disk = instance.disks[index]
    found = {}
    for node in disk.GetNodes(instance.primary_node):
        world.cfg.SetDiskID(disk, node)
        for part in disk.IterTree():
            key = fakedisks.DeviceKey(part)
            store = world.rpc._Store(world.rpc.nodes[node], key)
            found[node, key.rpartition("_")[2] if part is not disk else "top"] = store.sizes[key]
    return found


def CheckGrown(world, kind, size=32 + AMOUNT):
    disk = world.cfg.GetInstanceInfo(cw.NAME).disks[1]
    assert disk.size == size
    for child in (disk.children or [])[:1]:
        assert child.size == size
    sizes = SizesOf(world, 1)
    for (node, part), found in sizes.items():
        # The top of a mirror is only told on the primary: its peer follows.
        if part != "meta" and not (part == "top" and node == cw.NODE3):
            assert found == size, sizes
        if part == "meta":
            assert found == constants.DRBD_META_SIZE
    assert len(sizes) == (6 if kind == "drbd" else 1)


def RunWithFault(world, op, number, lost):
    """Run an operation with one of its calls failing; return the calls and what was raised."""
    made = []

    def Before(call, node):
        world.rpc.Heal()
        if len(made) == number:
            world.rpc.Fail(call, "it broke", lost=lost, nodes=[node])
        made.append((call, node))

    world.rpc.before_call = Before
    try:
        world.Run(op)
    except (errors.OpPrereqError, errors.OpExecError, errors.RemoteError) as err:
        return made, err
    finally:
        world.rpc.before_call = lambda *_: None
        world.rpc.Heal()
    return made, None


KINDS = ["file", "sharedfile", "plain", "drbd"]


def Steps(make_op, *before):
    return [
        pytest.param(kind, number, id=f"{kind}-{number}-{call}-{node.partition('.')[0]}")
        for kind in KINDS
        for world in [Prepare(kind, *before)]
        for number, (call, node) in enumerate(RunWithFault(world, make_op(), -1, False)[0])
    ]


def Prepare(kind, *before):
    world = cw.NewWorld(cw.NewOp(kind))
    for step in before:
        if callable(step):
            step(world)
        else:
            world.Run(step)
    return world


def Lose(world):
    """The disks of all nodes are gone."""
    for store in [*world.rpc.nodes.values(), world.rpc.shared]:
        store.disks -= {name for name in store.disks if "old" not in name}
        store.drbd.clear()
        store.sizes.clear()
        store.active.clear()


class TestGrow:
    """Backing stores first, then the mirror, once; an interrupted growth is finished."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_grow(self, kind):
        world = Prepare(kind)
        world.rpc.calls.clear()
        world.Run(Grow())
        CheckGrown(world, kind)
        made = [(call, node) for call, node in world.rpc.calls if call == "blockdev_grow"]
        nodes = [cw.NODE2, cw.NODE3, cw.NODE2] if kind == "drbd" else [cw.NODE2]
        assert [node for _, node in made] == nodes

    @pytest.mark.parametrize("lost", [False, True])
    @pytest.mark.parametrize(("kind", "number"), Steps(Grow, Stop()))
    def test_fails(self, kind, number, lost):
        world = Prepare(kind, Stop())
        made, err = RunWithFault(world, Grow(), number, lost)
        cw.CheckNothingLeaks(world)
        if err is None:
            assert made[number][0] in (
                "blockdev_getmirrorstatus",
                "blockdev_getsize",
                "blockdev_shutdown",
            )
        else:
            assert world.cfg.GetInstanceInfo(cw.NAME).disks[1].size == 32
            world.Run(Grow())
        CheckGrown(world, kind)
        if "shutdown" not in made[number][0]:
            for node in world.rpc.nodes.values():
                assert node.active == set()

    def test_nobody_grows_if_one_can_not_tell(self):
        world = Prepare("drbd")
        before = SizesOf(world, 1)
        world.rpc.Fail("blockdev_getsize", "hangs", nodes=[cw.NODE3])
        with pytest.raises(errors.OpExecError, match="nothing was changed"):
            world.Run(Grow())
        assert SizesOf(world, 1) == before

    def test_space_that_was_taken_already_counts(self):
        """A node that has grown, and is full now, does not keep the others from it."""
        world = Prepare("drbd")
        made, _ = RunWithFault(world, Grow(40000), -1, False)
        number = [index for index, (call, _) in enumerate(made) if call == "blockdev_grow"][1]
        world = Prepare("drbd")
        _, err = RunWithFault(world, Grow(40000), number, False)
        assert "goes on from here" in str(err)
        asked = []
        check = "ganeti.cmdlib.instance_checks.CheckNodesFreeDisk"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(check, lambda lu, nodes, size: asked.append((list(nodes), size)))
            world.Run(Grow(40000))
        assert asked == [([cw.NODE3], 40000)]
        CheckGrown(world, "drbd", 40032)

    def test_no_space(self):
        world = Prepare("plain")
        with pytest.raises(errors.OpPrereqError, match="50004") as caught:
            world.Run(Grow(50004))
        assert caught.value.args[1] == errors.ECODE_NORES

    def test_dry_run(self):
        world = Prepare("drbd")
        op = Grow()
        op.dry_run = True
        before = SizesOf(world, 1)
        world.Run(op)
        assert SizesOf(world, 1) == before
        assert f"    on {cw.NODE2}, {cw.NODE3}: add 64 MiB to disk/1" in world.log


class TestRecreate:
    """Lost disks are made again as they are recorded; what is there is not touched."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_all(self, kind):
        world = Prepare(kind, Stop(), Lose)
        instance = world.cfg.GetInstanceInfo(cw.NAME)
        world.Run(Recreate())
        assert world.cfg.GetInstanceInfo(cw.NAME).ToDict() == instance.ToDict()
        cw.CheckDisksFit(world)
        assert all(node.active == set() for node in world.rpc.nodes.values())
        world.Run(opcodes.OpInstanceStartup(instance_name=cw.NAME, force=False))

    @pytest.mark.parametrize("lost", [False, True])
    @pytest.mark.parametrize(("kind", "number"), Steps(Recreate, Stop(), Lose))
    def test_fails(self, kind, number, lost):
        world = Prepare(kind, Stop(), Lose)
        config, nodes = cw.Objects(world), cw.OnNodes(world)
        made, err = RunWithFault(world, Recreate(), number, lost)
        cw.CheckNothingLeaks(world)
        assert cw.Objects(world) == config
        if err is None:
            assert made[number][0] == "blockdev_shutdown"
        else:
            found, expected = cw.OnNodes(world), nodes
            assert {name: left[0] for name, left in found.items()} == {
                name: left[0] for name, left in expected.items()
            }
            world.Run(Recreate())
        cw.CheckDisksFit(world)

    @pytest.mark.parametrize("kind", KINDS)
    def test_one_of_two(self, kind):
        """The other one, and the directory they are in, are not touched by undoing."""
        world = Prepare(kind, Stop())
        disk = world.cfg.GetInstanceInfo(cw.NAME).disks[1]
        for node in disk.GetNodes(cw.NODE2):
            world.cfg.SetDiskID(disk, node)
            for part in disk.IterTree():
                key = fakedisks.DeviceKey(part)
                store = world.rpc._Store(world.rpc.nodes[node], key)
                store.disks.remove(key)
                store.drbd.pop(key, None)
                store.active.discard(key)
        before = cw.OnNodes(world)
        world.rpc.Fail("blockdev_create", "no space")
        with pytest.raises(errors.OpExecError, match="no space"):
            world.Run(Recreate(1))
        world.rpc.Heal()
        assert cw.OnNodes(world) == before
        world.Run(Recreate(1))
        cw.CheckDisksFit(world)

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_exists_is_kept(self, kind):
        world = Prepare(kind, Stop())
        nodes = cw.OnNodes(world)
        with pytest.raises(errors.OpPrereqError, match="already") as caught:
            world.Run(Recreate(1))
        assert caught.value.args[1] == errors.ECODE_EXISTS
        assert cw.OnNodes(world) == nodes

    def test_secondary_has_its_half(self):
        """It is the only one with the data now."""
        world = Prepare("drbd", Stop())
        primary = world.rpc.nodes[cw.NODE2]
        primary.disks -= {name for name in primary.disks if "old" not in name}
        primary.drbd.clear()
        nodes = cw.OnNodes(world)
        with pytest.raises(errors.OpPrereqError, match=cw.NODE3):
            world.Run(Recreate())
        assert cw.OnNodes(world) == nodes

    def test_offline_secondary(self):
        world = Prepare("drbd", Stop(), Lose)
        node = world.cfg.GetNodeInfo(cw.NODE3)
        node.offline, node.master_candidate = True, False
        world.cfg.Update(node, None)
        with pytest.raises(errors.OpPrereqError, match=cw.NODE3) as caught:
            world.Run(Recreate())
        assert caught.value.args[1] == errors.ECODE_INVAL

    def test_locks(self):
        world = Prepare("drbd", Stop(), Lose)
        op = Recreate()
        op.dry_run = True
        world.Run(op)
        assert any(f"node {cw.NODE2}, {cw.NODE3} (exclusive)" in line for line in world.log)

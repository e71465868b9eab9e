"""Replacing the storage of mirrored disks: what it does and refuses, what failures leave."""

import callfaults as cf
import pytest

from ganeti import constants, errors, mcpu, opcodes
from ganeti.cmdlib import replace_plan
from ganeti.config import fake as config_fake
from ganeti.iallocator import fake as iallocator_fake

NODE1, NODE2, NODE3, NODE4 = cf.NODE1, cf.NODE2, cf.NODE3, cf.NODE4
PRI, SEC = constants.REPLACE_DISK_PRI, constants.REPLACE_DISK_SEC
CHG, AUTO = constants.REPLACE_DISK_CHG, constants.REPLACE_DISK_AUTO


def Replace(mode, **values):
    return opcodes.OpInstanceReplaceDisks(
        instance_name=cf.NAME, mode=mode, **{"disks": [], **values}
    )


def ToNode4(**values):
    return Replace(CHG, remote_node=NODE4, **values)


@pytest.fixture
def world():
    return cf.NewWorld("drbd")


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


def Steps(world):
    return [line for line in world.log if line.startswith("STEP")]


def SetNode(world, name, **values):
    node = world.cfg.GetNodeInfo(name)
    for key, value in values.items():
        setattr(node, key, value)
    world.cfg.Update(node, None)


class TestInPlace:
    """Section 14.3 of the logical units: new storage on the same node, under the same names."""

    @pytest.mark.parametrize(
        ("mode", "target", "other"), [(PRI, NODE2, NODE3), (SEC, NODE3, NODE2)]
    )
    def test_all_disks(self, world, mode, target, other):
        before, kept = cf.Instance(world).ToDict(), cf.Marks(world, other)
        old = cf.Marks(world, target)
        world.Run(Replace(mode))
        assert cf.Instance(world).ToDict() == before
        assert cf.Marks(world, other) == kept
        assert not set(cf.Marks(world, target)) & set(old)
        assert cf.FindLeaks(world) == []
        cf.CheckMirrors(world)
        cf.CheckNoHarm(world)

    def test_one_disk(self, world):
        old = cf.Marks(world, NODE3)
        world.Run(Replace(SEC, disks=[1, 1]))
        now = cf.Marks(world, NODE3)
        assert now[0] == old[0]
        assert now[1] != old[1]
        assert "Replacing disk(s) 1 for inst1.example.com" in world.log

    def test_steps(self, world):
        world.Run(Replace(SEC))
        whats = [line.partition(" ")[2] for line in Steps(world)]
        assert [what.partition(" ")[2] for what in whats] == [
            "Check device existence",
            "Check peer consistency",
            "Allocate new storage",
            "Changing drbd configuration",
            "Sync devices",
            "Removing old storage",
        ]
        world.Run(Replace(SEC, early_release=True))
        assert [line.rpartition("6 ")[2] for line in Steps(world)][4:] == [
            "Removing old storage",
            "Sync devices",
        ]

    def test_volumes_have_the_disks_parameters(self):
        world = cf.NewWorld("drbd", disks=[{"size": 16, "stripe": 2}])
        world.Run(Replace(SEC))
        key = cf.DataKeys(world, NODE3)[0]
        params = [
            value for name, value in world.rpc.nodes[NODE3].params.items() if "disk0_data" in name
        ]
        assert params[-1]["stripe"] == 2
        assert key in world.rpc.nodes[NODE3].disks

    def test_other_side_is_bad(self, world):
        world.rpc.nodes[NODE2].faulty = True
        before = cf.ActualKeys(world)
        with pytest.raises(errors.OpExecError, match="nothing was changed"):
            world.Run(Replace(SEC))
        assert cf.ActualKeys(world) == before

    def test_volumes_are_lost(self, world):
        """What it is there for: a disk of the node has gone, with all that was on it."""
        node = world.rpc.nodes[NODE3]
        for device in node.drbd.values():
            device.children = []
        node.disks = {key for key in node.disks if key.startswith("drbd")}
        world.Run(Replace(SEC))
        cf.CheckMirrors(world)
        assert cf.FindLeaks(world) == []

    def test_instance_is_down(self):
        world = cf.NewWorld("drbd", up=False)
        node = world.rpc.nodes[NODE3]
        node.disks = {key for key in node.disks if key.startswith("drbd")}
        world.Run(Replace(SEC))
        cf.CheckMirrors(world)
        assert cf.FindLeaks(world) == []

    def test_disks_of_a_running_instance_stay_active(self):
        """Somebody started it by hand while it was marked down."""
        world = cf.NewWorld("drbd", up=False)
        world.rpc.before_call = lambda call, name: (
            call == "blockdev_removechildren"
            and world.rpc.nodes[NODE2].running.update({cf.NAME: 128})
        )
        world.Run(Replace(SEC))
        assert any("are not shut down" in line for line in world.log)
        assert all(key in world.rpc.nodes[NODE2].active for key in world.rpc.nodes[NODE2].drbd)

    @pytest.mark.parametrize("early", [False, True])
    def test_not_in_sync(self, world, early):
        """The old volumes are kept and named, if they are not removed by then."""
        old = cf.Marks(world, NODE3)
        world.rpc.before_call = lambda call, name: [
            setattr(device, "degraded", call == "blockdev_getmirrorstatus" or device.degraded)
            for device in world.rpc.nodes[NODE2].drbd.values()
        ]
        err, text = cf.RunAndTell(world, Replace(SEC, early_release=early))
        assert isinstance(err, errors.OpExecError)
        assert "degraded" in str(err)
        assert ("are kept" in text) is not early
        for mark in [] if early else old:
            key = cf.FindMark(world, NODE3, mark)
            assert f"lvremove {key}" in text or f" {key}" in text.partition("lvremove")[2]

    def test_cancelled_while_it_syncs(self, world, monkeypatch):
        def Cancel(_):
            raise mcpu.CancelJob

        monkeypatch.setattr(mcpu.Processor, "CheckCancel", Cancel)
        err, text = cf.RunAndTell(world, Replace(SEC))
        assert isinstance(err, mcpu.CancelJob)
        assert "The old volumes are kept on node" in text
        cf.CheckMirrors(world)

    @pytest.mark.parametrize("early", [False, True])
    def test_early_release(self, world, early):
        """The nodes are free, and have the space of the old volumes, before all is in sync."""
        seen = []

        def Look(call, name):
            if call == "blockdev_getmirrorstatus":
                held = {info["name"]: info["owners"] for info in world.master.glm.GetLockInfo()}
                seen.append(
                    (
                        bool(held[f"node/{NODE3}"] if f"node/{NODE3}" in held else held.get(NODE3)),
                        any("_replaced-" in key for key in world.rpc.nodes[NODE3].disks),
                    )
                )

        world.rpc.before_call = Look
        world.Run(Replace(SEC, early_release=early))
        assert seen == [(not early, not early)]


class TestSecondary:
    """Section 14.4 of the logical units: another secondary node."""

    @pytest.mark.parametrize("up", [True, False])
    def test_changes(self, up):
        world = cf.NewWorld("drbd", up=up)
        old, kept = cf.Instance(world), cf.Marks(world, NODE2)
        world.Run(ToNode4())
        new = cf.Instance(world)
        assert new.secondary_nodes == (NODE4,) or list(new.secondary_nodes) == [NODE4]
        assert cf.Marks(world, NODE2) == kept
        for before, disk in zip(old.disks, new.disks, strict=True):
            first, second, port, minor, _, secret = disk.logical_id
            assert (first, second) == (NODE2, NODE4)
            assert (port, minor, secret) == (
                before.logical_id[2],
                before.logical_id[3],
                before.logical_id[5],
            )
            assert [c.logical_id for c in disk.children] == [c.logical_id for c in before.children]
        assert cf.FindLeaks(world) == []
        cf.CheckMirrors(world)
        cf.CheckNoHarm(world)

    def test_primary_is_second_in_the_id(self, world):
        """As after a failover: the primary becomes the first one, with its own minor."""
        world.Run(opcodes.OpInstanceFailover(instance_name=cf.NAME, ignore_consistency=False))
        before = cf.Instance(world)
        assert before.primary_node == NODE3
        world.Run(ToNode4())
        for old, disk in zip(before.disks, cf.Instance(world).disks, strict=True):
            assert disk.logical_id[:2] == (NODE3, NODE4)
            assert disk.logical_id[3] == old.logical_id[4]
        cf.CheckMirrors(world)
        assert cf.FindLeaks(world) == []

    def test_old_node_is_offline(self, world):
        SetNode(world, NODE3, offline=True, master_candidate=False)
        world.Run(ToNode4())
        assert any("enabling early-release" in line for line in world.log)
        assert Steps(world)[4].endswith("Removing old storage")
        cf.CheckMirrors(world)

    def test_back_and_forth(self, world):
        world.Run(ToNode4())
        world.Run(Replace(CHG, remote_node=NODE3))
        cf.CheckMirrors(world)
        assert cf.FindLeaks(world) == []
        cf.CheckNoHarm(world)

    def test_allocator(self, world):
        """It is asked with all nodes locked; those that have no part are free afterwards."""
        held = []

        def Look(call, name):
            if call in ("iallocator_runner", "blockdev_getmirrorstatus"):
                held.append(
                    {
                        info["name"]
                        for info in world.master.glm.GetLockInfo()
                        if info["owners"] and info["name"].startswith("node/node")
                    }
                )

        world.rpc.before_call = Look
        world.rpc.allocators["one"] = iallocator_fake.Answer([NODE1])
        world.Run(Replace(CHG, iallocator="one"))
        assert list(cf.Instance(world).secondary_nodes) == [NODE1]
        during, after = held[0], held[-1]
        assert len(during - after) == 1
        assert all(NODE4 in name for name in during - after)

    def test_allocator_refuses(self, world):
        world.rpc.allocators["no"] = iallocator_fake.Refuse("full")
        Refused(world, Replace(CHG, iallocator="no"), errors.ECODE_NORES, "full")

    def test_volumes_are_there(self, world):
        """What has the names of its volumes on the new node is somebody's data."""
        key = cf.DataKeys(world, NODE2)[1]
        world.rpc.nodes[NODE4].disks.add(key)
        Refused(world, ToNode4(), errors.ECODE_EXISTS, key, NODE4)

    def test_data_of_the_primary_is_bad(self, world):
        world.rpc.nodes[NODE2].faulty = True
        with pytest.raises(errors.OpExecError, match="nothing was changed"):
            world.Run(ToNode4())

    def test_hooks(self, world):
        world.Run(ToNode4())
        found = {
            phase: (nodes, env)
            for nodes, path, phase, env in world.rpc.hooks
            if path == "mirrors-replace"
        }
        for phase in ("pre", "post"):
            nodes, env = found[phase]
            assert sorted(nodes) == [NODE1, NODE2, NODE4]
            assert env["GANETI_MODE"] == CHG
            assert env["GANETI_NEW_SECONDARY"] == NODE4
            assert env["GANETI_OLD_SECONDARY"] == NODE3


class TestAuto:
    @pytest.mark.parametrize(("bad", "other"), [(NODE2, NODE3), (NODE3, NODE2)])
    def test_faulty_side(self, world, bad, other):
        kept, lost = cf.Marks(world, other), cf.Marks(world, bad)
        (device, *_) = [world.rpc.nodes[bad].drbd[key] for key in sorted(world.rpc.nodes[bad].drbd)]
        device.children = []
        world.Run(Replace(AUTO))
        assert cf.Marks(world, other) == kept
        now = cf.Marks(world, bad)
        assert now[0] != lost[0]
        assert now[1] == lost[1]
        cf.CheckMirrors(world)
        assert cf.FindLeaks(world) == []

    def test_nothing_to_do(self, world):
        before = cf.ActualKeys(world)
        world.Run(Replace(AUTO))
        assert "No disks need replacement" in world.log
        assert cf.ActualKeys(world) == before

    def test_both_sides(self, world):
        world.rpc.nodes[NODE2].faulty = world.rpc.nodes[NODE3].faulty = True
        Refused(world, Replace(AUTO), errors.ECODE_STATE, NODE2, NODE3, "disk/0, disk/1")

    def test_silent(self, world):
        world.rpc.Cut(NODE3)
        Refused(world, Replace(AUTO), errors.ECODE_ENVIRON, NODE3)


class TestRefused:
    @pytest.mark.parametrize(
        ("op", "fragments"),
        [
            (Replace(CHG), ["remote_node", "iallocator"]),
            (Replace(CHG, remote_node=NODE4, iallocator="x"), ["exactly one"]),
            (Replace(PRI, remote_node=NODE4), ["remote_node", PRI]),
            (Replace(AUTO, iallocator="x"), ["iallocator", AUTO]),
            (Replace(CHG, remote_node=NODE2), [NODE2, "primary"]),
            (Replace(CHG, remote_node=NODE3), [NODE3, "secondary"]),
            (ToNode4(disks=[0]), ["disks"]),
            (Replace(AUTO, disks=[0]), ["disks"]),
            (Replace(SEC, disks=[0, 2]), ["no disk 2"]),
            (Replace(SEC, disks=[-1]), ["-1"]),
        ],
    )
    def test_arguments(self, world, op, fragments):
        Refused(world, op, errors.ECODE_INVAL, *fragments)

    @pytest.mark.parametrize("template", ["plain", "file", "sharedfile"])
    def test_not_mirrored(self, template):
        world = cf.NewWorld(template)
        Refused(world, Replace(SEC), errors.ECODE_INVAL, template)

    @pytest.mark.parametrize(
        ("op", "node"),
        [(Replace(SEC), NODE3), (Replace(PRI), NODE2), (Replace(PRI), NODE3), (ToNode4(), NODE4),
         (ToNode4(), NODE2), (Replace(AUTO), NODE3)],
    )  # fmt: skip
    def test_offline(self, world, op, node):
        SetNode(world, node, offline=True, master_candidate=False)
        Refused(world, op, errors.ECODE_INVAL, node, "offline")

    def test_drained(self, world):
        SetNode(world, NODE4, drained=True, master_candidate=False)
        Refused(world, ToNode4(), errors.ECODE_INVAL, NODE4, "drained")

    @pytest.mark.parametrize("op", [Replace(SEC), ToNode4()])
    def test_space(self, op):
        """50000 MiB are free, which is enough for the disks without their metadata."""
        world = cf.NewWorld("drbd", disks=[{"size": 25000}, {"size": 24000}])
        instance = cf.Instance(world)
        instance.disks[1].size = 25000
        world.cfg.Update(instance, None)
        Refused(world, op, errors.ECODE_NORES, str(50000 + 2 * constants.DRBD_META_SIZE))

    def test_unknown(self, world):
        Refused(world, Replace(CHG, remote_node="node9"), errors.ECODE_NOENT, "node9")


#: name -> (what there is before, the operation, the node that has the data, target, new)
SCENARIOS = {
    "primary": (lambda: cf.NewWorld("drbd"), lambda: Replace(PRI), NODE3),
    "secondary": (lambda: cf.NewWorld("drbd"), lambda: Replace(SEC), NODE2),
    "secondary-early": (
        lambda: cf.NewWorld("drbd"),
        lambda: Replace(SEC, early_release=True),
        NODE2,
    ),
    "one-disk": (lambda: cf.NewWorld("drbd"), lambda: Replace(PRI, disks=[1]), NODE3),
    "down": (lambda: cf.NewWorld("drbd", up=False), lambda: Replace(SEC), NODE2),
    "change": (lambda: cf.NewWorld("drbd"), ToNode4, NODE2),
    "change-early": (lambda: cf.NewWorld("drbd"), lambda: ToNode4(early_release=True), NODE2),
    "change-down": (lambda: cf.NewWorld("drbd", up=False), ToNode4, NODE2),
}


@pytest.mark.parametrize("mode", cf.MODES)
@pytest.mark.parametrize("scenario", SCENARIOS)
class TestEachCall:
    """A failure at any step leaves the data where it was; the next command finishes the work."""

    def test_each(self, scenario, mode):
        prepare, make_op, other = SCENARIOS[scenario]

        def Check(world, fault, err, text):
            _CheckDataIsThere(world, fault, text, other)
            if mode != cf.DEAD:
                _CheckIsUndone(world, err, text)
            _Again(world, fault, err, text, make_op)

        cf.EachFault(prepare, make_op, mode, Check)


def _CheckIsUndone(world, err, text):
    """After a failure that only one call had, all sides of all mirrors are whole and connected."""
    if not isinstance(err, errors.OpExecError) or "Could not undo" in text:
        return
    if "STEP 5/6" in text or not cf.Instance(world).admin_up:
        return
    cf.CheckMirrors(world)
    node = world.rpc.nodes[NODE3]
    for key, size in node.sizes.items():
        # Old volumes of what was finished before are kept and told.
        assert (
            size < 1_000_000
            or "_replaced-" not in key
            or f"{key} " in f"{text} ".replace("\n", " ").partition("old volumes are kept")[2]
        ), f"{key} was not renamed back"


def _CheckDataIsThere(world, fault, text, other):
    cf.CheckNoHarm(world)
    node = world.rpc.nodes[other]
    keys = cf.DataKeys(world, other)
    assert set(keys) <= node.disks, "good data was lost"
    assert all(node.sizes[key] > 1_000_000 for key in keys), "good data was replaced"
    for name, key in cf.FindLeaks(world):
        assert key in text or fault.dead == name, f"nobody knows of {key} on {name}"


def _Again(world, fault, err, text, make_op):
    """The same command once more, or what it or the first one says."""
    fault.End()
    if err is not None:
        again, more = cf.RunAndTell(world, make_op())
        text += "\n--- again\n" + more
        if again is not None and cf.Instance(world).admin_up:
            if "remove it there first" in more:
                # What could not be removed: it was said to do that by hand.
                for name, key in cf.FindLeaks(world):
                    assert name == NODE4
                    world.rpc.nodes[name].disks.discard(key)
                    world.rpc.nodes[name].active.discard(key)
                world.Run(make_op())
            else:
                assert NODE4 in cf.Instance(world).secondary_nodes, more
                assert "activate-disks" in text, more
                world.Run(cf.ActivateDisks())
    elif "activate-disks" in text:
        world.Run(cf.ActivateDisks())
    cf.CheckNoHarm(world)
    if cf.Instance(world).admin_up:
        cf.CheckMirrors(world)
    for name, key in cf.FindLeaks(world):
        assert key in text, f"nobody knows of {key} on {name}"


class TestPlan:
    def test_nodes(self):
        plan = replace_plan.Plan("a", "b", "c", (0,))
        assert plan.nodes == ["a", "b", "c"]
        assert plan.builds_on == "c"
        assert replace_plan.Plan("a", "b").builds_on == "a"

    def test_two_secondaries(self):
        first = config_fake.NewDrbdDisk((NODE1, NODE2), 11000, (0, 0), "x", "a")
        second = config_fake.NewDrbdDisk((NODE1, NODE3), 11001, (1, 0), "y", "b")
        instance = config_fake.NewInstance(
            cf.NAME, NODE1, disk_template="drbd", disks=[first, second]
        )
        with pytest.raises(errors.OpPrereqError) as caught:
            replace_plan.GetSecondary(instance)
        assert caught.value.args[1] == errors.ECODE_FAULT

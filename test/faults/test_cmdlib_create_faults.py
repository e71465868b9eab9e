"""Creations of all kinds in which one call fails, each in turn; or a node from some call on.

The call is refused, or it is done but its answer is lost. After that nothing is left, or the
instance is there as it should be; and the same command can be given again.
"""

import createworld as cw
import pytest

from ganeti import errors, mcpu, pathutils
from ganeti.cmdlib import fake
from ganeti.config import fake as config_fake
from ganeti.runtime.simulation import Simulation

#: After these the instance stays, for somebody to look at.
STAYS = {"instance_os_add", "blockdev_assemble", "blockdev_shutdown", "instance_start"}
#: Failures of these are got over: another node is asked, it is tried again, or a warning is enough.
SURVIVED = {
    "instance_os_import",
    "export_list",
    "blockdev_shutdown",
    "blockdev_getmirrorstatus",
    "node_info",
    "all_instances_info",
    "hypervisor_validate_params",
}


def CallsOf(kind):
    """The calls that a creation makes to nodes, in order, hooks apart."""
    world = cw.NewWorld()
    made = []
    world.rpc.before_call = lambda call, node: made.append((call, node))
    world.Run(cw.NewOp(kind))
    return made


def Steps(kinds):
    """For parametrize: (kind, number of the call)."""
    return [
        pytest.param(kind, number, id=f"{kind}-{number}-{call}-{node.partition('.')[0]}")
        for kind in kinds
        for number, (call, node) in enumerate(CallsOf(kind))
    ]


def RunWithFault(world, op, number, how):
    """Run an operation with one call failing; return that call, and what was raised."""
    made = []

    def Before(call, node):
        world.rpc.Heal()
        if len(made) == number:
            if how == "dead":
                world.rpc.Cut(node)
            else:
                world.rpc.Fail(call, "it broke", lost=how == "lost", nodes=[node])
        made.append((call, node))

    world.rpc.before_call = Before
    try:
        world.Run(op)
    except (errors.OpPrereqError, errors.OpExecError, errors.RemoteError) as err:
        return made[number], err
    finally:
        world.rpc.before_call = lambda *_: None
        world.rpc.Heal()
    return made[number], None


class TestOneCall:
    @pytest.mark.parametrize("how", ["refused", "lost"])
    @pytest.mark.parametrize(("kind", "number"), Steps(cw.KINDS))
    def test_fails(self, kind, number, how):
        world = cw.NewWorld()
        config, nodes = cw.Objects(world), cw.OnNodes(world)
        (call, _), err = RunWithFault(world, cw.NewOp(kind), number, how)
        cw.CheckNothingLeaks(world)
        # Nothing is undone that was not done.
        assert not any("Could not undo" in line for line in world.log)
        instance = world.cfg.GetInstanceInfo(cw.NAME)
        if err is None:
            assert call in SURVIVED
            assert instance is not None
        else:
            assert "it broke" in str(err) or call in STAYS or "could not tell" in str(err)
        if instance is None:
            assert (cw.Objects(world), cw.OnNodes(world)) == (config, nodes)
        else:
            assert err is None or call in STAYS
            cw.CheckDisksFit(world)
            if call == "instance_os_add":
                assert all(node.active == set() for node in world.rpc.nodes.values())
                assert err is None or f"gnt-instance reinstall {cw.NAME}" in str(err)
            if err is not None:
                assert instance.admin_up is (call in ("blockdev_assemble", "instance_start"))
            world.Run(cw.Remove())
            if kind == "adoption":
                # They were its disks, and went with it.
                world.rpc.nodes[cw.NODE2].disks = {"xenvg/old0", "xenvg/old1"}
        world.Run(cw.NewOp(kind))
        cw.CheckNothingLeaks(world)
        cw.CheckDisksFit(world)

    @pytest.mark.parametrize(("kind", "number"), Steps(["file", "plain", "drbd", "adoption"]))
    def test_node_dies(self, kind, number):
        """What is on other nodes is undone all the same, and all that is taken is given back."""
        world = cw.NewWorld()
        config, nodes = cw.Objects(world), cw.OnNodes(world)
        (_, dead), err = RunWithFault(world, cw.NewOp(kind), number, "dead")
        assert err is not None
        cw.CheckNothingLeaks(world)
        if world.cfg.GetInstanceInfo(cw.NAME) is None:
            assert cw.Objects(world) == config
            after = cw.OnNodes(world)
            for node in (cw.NODE1, cw.NODE2, cw.NODE3):
                assert node == dead or after[node] == nodes[node]

    def test_all_kinds_make_the_calls_that_they_are_about(self):
        """Else the tests above would say nothing."""
        wanted = {
            "file": {"file_storage_dir_create", "blockdev_create", "instance_os_add"},
            "drbd": {"blockdev_create", "blockdev_getmirrorstatus", "instance_start"},
            "adoption": {"lv_list", "blockdev_rename"},
            "import": {"export_info", "instance_os_import"},
            "import-found": {"export_list"},
            "allocated": {"iallocator_runner"},
        }
        for kind, calls in wanted.items():
            assert calls <= {call for call, _ in CallsOf(kind)}
        drbd = [node for call, node in CallsOf("drbd") if call == "blockdev_create"]
        # Data, metadata and mirror of two disks on each node.
        assert sorted(drbd) == [cw.NODE2] * 6 + [cw.NODE3] * 6


class TestConfiguration:
    """It can not be written: each write in turn."""

    @pytest.mark.parametrize("number", range(6))
    @pytest.mark.parametrize("kind", ["drbd", "plain", "diskless"])
    def test_write_fails(self, kind, number, monkeypatch):
        world = cw.NewWorld()
        nodes = cw.OnNodes(world)
        writes = []
        files = world.runtime.files
        write = files.write

        def Write(path, *args, **kwargs):
            if path == pathutils.CLUSTER_CONF_FILE:
                writes.append(path)
                if len(writes) == number + 1:
                    raise OSError(28, "No space left on device")
            return write(path, *args, **kwargs)

        monkeypatch.setattr(files, "write", Write)
        try:
            world.Run(cw.NewOp(kind))
        except errors.ConfigurationError:
            monkeypatch.setattr(files, "write", write)
            if world.cfg.GetInstanceInfo(cw.NAME) is None:
                assert cw.OnNodes(world) == nodes
            else:
                world.Run(cw.Remove())
            cw.CheckNothingLeaks(world)
            world.Run(cw.NewOp(kind))
        else:
            assert len(writes) <= number
        cw.CheckNothingLeaks(world)
        cw.CheckDisksFit(world)


class TestWait:
    @pytest.mark.parametrize("kind", ["drbd", "hasty", "adoption"])
    def test_degraded(self, kind):
        """Without redundancy it is removed again; what was adopted is kept."""
        world = cw.NewWorld()
        before = cw.Objects(world), cw.OnNodes(world)
        world.rpc.nodes[cw.NODE2].faulty = True
        with pytest.raises(errors.OpExecError, match="degraded"):
            world.Run(cw.NewOp(kind))
        assert (cw.Objects(world), cw.OnNodes(world)) == before
        cw.CheckNothingLeaks(world)

    @pytest.mark.parametrize("kind", ["drbd", "adoption"])
    def test_cancelled(self, kind, monkeypatch):
        world = cw.NewWorld()
        before = cw.Objects(world), cw.OnNodes(world)

        def CheckCancel(self):
            if world.cfg.GetInstanceInfo(cw.NAME) is not None:
                raise mcpu.CancelJob

        monkeypatch.setattr(mcpu.Processor, "CheckCancel", CheckCancel)
        with pytest.raises(mcpu.CancelJob):
            world.Run(cw.NewOp(kind))
        assert (cw.Objects(world), cw.OnNodes(world)) == before
        cw.CheckNothingLeaks(world)

    def test_adopted_volumes_of_a_silent_node(self):
        """They can not be given their names back then, but the job says what they are called."""
        world = cw.NewWorld()
        world.rpc.before_call = lambda call, node: (
            world.rpc.Cut(node) if call == "blockdev_getmirrorstatus" else None
        )
        with pytest.raises(errors.RemoteError):
            world.Run(cw.NewOp("adoption"))
        assert world.cfg.GetInstanceList() == []
        left = world.rpc.nodes[cw.NODE2].disks
        assert len(left) == 2
        for volume in left:
            assert any(volume.removeprefix("xenvg/") in line for line in world.log)


class TestTogether:
    """Jobs that create at the same time, in virtual time and an order drawn from a seed."""

    @pytest.mark.parametrize("seed", range(6))
    def test_ports_and_minors(self, seed):
        """Mirrored instances on the same nodes share nothing, though one of them fails half way."""
        sim = Simulation(seed)

        def Run():
            world = fake.World(4, sim.runtime)
            nodes = [config_fake.NodeName(number) for number in range(1, 5)]
            failing = []

            def Before(call, node):
                # Somewhere in the middle of one creation.
                failing.append(call)
                if failing.count("blockdev_create") == 9 and call == "blockdev_create":
                    world.rpc.Fail(call, "it broke", nodes=[node])
                else:
                    world.rpc.Heal()

            world.rpc.before_call = Before
            pairs = [(0, 1), (1, 0), (2, 3), (3, 2), (0, 3)]
            ops = [
                fake.NewCreate(
                    f"inst{number}.example.com",
                    nodes[first],
                    snode=nodes[second],
                    disk_template="drbd",
                )
                for number, (first, second) in enumerate(pairs)
            ]
            failed = fake.RunTogether(world, ops)
            assert [type(err) for err in failed] == [errors.OpExecError]
            assert len(world.cfg.GetInstanceList()) == len(pairs) - 1
            cw.CheckNothingLeaks(world)
            cw.CheckDisksFit(world)

        sim.Run(Run)

    @pytest.mark.parametrize("seed", range(6))
    def test_same_volume(self, seed):
        """Only one of two jobs adopts it."""
        sim = Simulation(seed)

        def Run():
            world = fake.World(3, sim.runtime)
            world.rpc.nodes[cw.NODE2].disks.add("xenvg/old0")
            world.rpc.nodes[cw.NODE2].sizes["xenvg/old0"] = 512
            ops = [
                fake.NewCreate(
                    f"inst{number}.example.com",
                    cw.NODE2,
                    disk_template="plain",
                    disks=[{"adopt": "old0", "size": 0}],
                )
                for number in range(2)
            ]
            (err,) = fake.RunTogether(world, ops)
            assert isinstance(err, errors.OpPrereqError)
            assert "old0" in err.args[0]
            cw.CheckNothingLeaks(world)
            cw.CheckDisksFit(world)

        sim.Run(Run)

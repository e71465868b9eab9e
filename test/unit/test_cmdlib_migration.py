"""Failover, migration and move: what is checked, told, waited for, and cancelled."""

import os

import pytest

from ganeti import constants, errors, mcpu, opcodes, pathutils
from ganeti.cmdlib import fake, fakedisks, fakemigration, migration_rules
from ganeti.cmdlib.migration_rules import Locate, Place
from ganeti.config import fake as config_fake

NODE1, NODE2, NODE3 = (config_fake.NodeName(number) for number in (1, 2, 3))
NAME, OTHER = "inst1.example.com", "inst2.example.com"
ACTIVE, COMPLETED = constants.MIGRATION_ACTIVE, constants.MIGRATION_COMPLETED
FAILED, CANCELLED = constants.MIGRATION_FAILED, constants.MIGRATION_CANCELLED


def Migrate(**values):
    defaults = {"instance_name": NAME, "live": True, "cleanup": False}
    return opcodes.OpInstanceMigrate(**{**defaults, **values})


def Failover(**values):
    defaults = {"instance_name": NAME, "ignore_consistency": False}
    return opcodes.OpInstanceFailover(**{**defaults, **values})


def Move(**values):
    return opcodes.OpInstanceMove(**{"instance_name": NAME, "target_node": NODE3, **values})


def NewWorld(template="drbd", name=NAME, world=None, **values):
    """Three nodes and an instance on the second one; the third has its mirrors."""
    if world is None:
        world = fake.NewWorld(3)
        cluster = world.cfg.GetClusterInfo()
        cluster.enabled_hypervisors = ["fake"]
        cluster.volume_group_name = "xenvg"
        cluster.shared_file_storage_dir = fakedisks.SHARED_DIR
        world.cfg.Update(cluster, None)
    more = {"snode": NODE3} if template == constants.DT_DRBD8 else {}
    world.Run(fake.NewCreate(name, NODE2, disk_template=template, **{**more, **values}))
    return world


def SetNode(world, name, **flags):
    node = world.cfg.GetNodeInfo(name)
    for flag, value in flags.items():
        setattr(node, flag, value)
    world.cfg.Update(node, None)


def Refused(world, op):
    """Why an operation is refused: (text, code); it has asked nobody to do anything."""
    nodes = repr(world.rpc.nodes)
    with pytest.raises(errors.OpPrereqError) as caught:
        world.Run(op)
    assert repr(world.rpc.nodes) == nodes
    return caught.value.args


def Fails(world, op):
    with pytest.raises(errors.OpExecError) as caught:
        world.Run(op)
    return str(caught.value)


def Where(world, name=NAME):
    """(primary according to the configuration, where it runs)."""
    return (
        world.cfg.GetInstanceInfo(name).primary_node,
        fakemigration.FindRunning(world.rpc.nodes, name),
    )


@pytest.fixture(autouse=True)
def _Names(monkeypatch):
    os.makedirs(os.path.dirname(pathutils.ETC_HOSTS), exist_ok=True)
    monkeypatch.setattr("ganeti.utils.net.TcpPing", lambda *args, **kwargs: True)


BOTH = [Failover, Migrate]


class TestWhere:
    """Mirrors have one other side; shared files can be used anywhere."""

    @pytest.mark.parametrize("make_op", BOTH)
    @pytest.mark.parametrize("template", ["file", "plain", "diskless"])
    def test_no_other_node_has_the_disks(self, make_op, template):
        disks = {"disks": []} if template == "diskless" else {}
        text, code = Refused(NewWorld(template, **disks), make_op())
        assert code == errors.ECODE_STATE
        assert template in text
        assert ("gnt-instance move" in text) == (template != "diskless")

    @pytest.mark.parametrize("make_op", BOTH)
    def test_a_mirror_has_no_choice(self, make_op):
        world = NewWorld()
        for choice in ({"target_node": NODE1}, {"iallocator": "simple"}):
            text, code = Refused(world, make_op(**choice))
            assert code == errors.ECODE_INVAL
            assert NODE3 in text
        world.Run(make_op(target_node=NODE3))
        assert Where(world) == (NODE3, [NODE3])

    @pytest.mark.parametrize("make_op", BOTH)
    def test_shared_files_need_a_choice(self, make_op):
        world = NewWorld("sharedfile")
        text, code = Refused(world, make_op())
        assert code == errors.ECODE_INVAL
        assert "-n NODE" in text
        assert "-I NAME" in text
        assert Refused(world, make_op(target_node=NODE2))[1] == errors.ECODE_INVAL
        assert Refused(world, make_op(target_node="nosuch"))[1] == errors.ECODE_NOENT
        both = make_op(target_node=NODE3, iallocator="simple")
        assert Refused(world, both)[1] == errors.ECODE_INVAL
        world.Run(make_op(target_node=NODE3))
        assert Where(world) == (NODE3, [NODE3])

    @pytest.mark.parametrize("make_op", BOTH)
    def test_allocator(self, make_op):
        """IA1, IA2: the one that is named, else that of the cluster."""
        world = NewWorld("sharedfile")
        world.Run(make_op(iallocator="simple"))
        first, running = Where(world)
        assert running == [first]
        assert first != NODE2
        cluster = world.cfg.GetClusterInfo()
        cluster.default_iallocator = {constants.IALLOCATOR_MODE_RELOC: ["simple"]}
        world.cfg.Update(cluster, None)
        world.Run(make_op())
        second, running = Where(world)
        assert running == [second]
        assert second != first

    @pytest.mark.parametrize("make_op", BOTH)
    def test_target_is_checked(self, make_op):
        world = NewWorld()
        SetNode(world, NODE3, drained=True)
        text, code = Refused(world, make_op())
        assert (NODE3 in text, code) == (True, errors.ECODE_INVAL)
        SetNode(world, NODE3, drained=False, offline=True, master_candidate=False)
        assert Refused(world, make_op())[1] == errors.ECODE_INVAL
        SetNode(world, NODE3, offline=False)
        world.rpc.nodes[NODE3].memory_free = 100
        assert Refused(world, make_op())[1] == errors.ECODE_NORES
        world.rpc.nodes[NODE3].memory_free = 4096
        world.rpc.nodes[NODE3].bridges.clear()
        assert Refused(world, make_op())[1] == errors.ECODE_ENVIRON

    @pytest.mark.parametrize(
        ("template", "secondary"), [("drbd", (NODE3, NODE2)), ("sharedfile", ("", ""))]
    )
    @pytest.mark.parametrize("make_op", BOTH)
    def test_hooks(self, make_op, template, secondary):
        world = NewWorld(template)
        world.rpc.hooks.clear()
        world.Run(make_op(target_node=NODE3))
        name = "instance-failover" if make_op is Failover else "instance-migrate"
        (pre, post) = [hook for hook in world.rpc.hooks if hook[1] == name]
        assert sorted(pre[0]) == [NODE1, NODE3]
        assert sorted(post[0]) == [NODE1, NODE2, NODE3]
        for _, _, _, env in (pre, post):
            found = [env[f"GANETI_{which}"] for which in ("OLD_PRIMARY", "NEW_PRIMARY")]
            assert found == [NODE2, NODE3]
            assert env["GANETI_INSTANCE_PRIMARY"] == NODE2
            assert (
                env["GANETI_OLD_SECONDARY"],
                env["GANETI_NEW_SECONDARY"],
            ) == secondary


class TestFailover:
    def test_marked_down(self):
        """Neither memory nor the state of the disks matters, and it is not started."""
        world = NewWorld(start=False)
        world.rpc.nodes[NODE3].memory_free = 0
        world.Run(Failover())
        assert Where(world) == (NODE3, [])

    def test_degraded(self):
        world = NewWorld()
        for device in world.rpc.nodes[NODE3].drbd.values():
            device.degraded = True
        text = Fails(world, Failover())
        assert "--ignore-consistency" in text
        # After a power failure the mirrors are not active: that is to be tried first.
        assert f"'gnt-instance activate-disks {NAME}'" in text
        assert Where(world) == (NODE2, [NODE2])
        world.Run(Failover(ignore_consistency=True))
        assert Where(world) == (NODE3, [NODE3])

    @pytest.mark.parametrize("template", ["drbd", "sharedfile"])
    def test_dead_primary(self, template):
        world = NewWorld(template)
        world.rpc.Cut(NODE2)
        text = Fails(world, Failover(target_node=NODE3))
        assert "--ignore-consistency" in text
        assert "--offline=yes" in text
        assert Where(world)[0] == NODE2
        world.Run(Failover(target_node=NODE3, ignore_consistency=True))
        assert Where(world)[0] == NODE3
        assert NAME in world.rpc.nodes[NODE3].running
        assert any(f"make sure that node {NODE2} is down" in line for line in world.log)

    def test_offline_primary(self):
        """The administrator has said that it is off: its mirror can not but be degraded."""
        world = NewWorld()
        world.rpc.nodes[NODE2] = fake.FakeNode()
        SetNode(world, NODE2, offline=True, master_candidate=False)
        for device in world.rpc.nodes[NODE3].drbd.values():
            device.network, device.degraded = None, True
        world.Run(Failover())
        assert Where(world) == (NODE3, [NODE3])

    def test_never_twice(self):
        """Even with --ignore-consistency: not if the node itself says that it runs there."""
        world = NewWorld()
        world.rpc.Fail("instance_shutdown", "the guest does not listen")
        text = Fails(world, Failover(ignore_consistency=True))
        assert "the guest does not listen" in text
        assert Where(world) == (NODE2, [NODE2])

    def test_lost_answer(self):
        """It was shut down after all."""
        world = NewWorld()
        world.rpc.Fail("instance_shutdown", lost=True)
        world.Run(Failover())
        assert Where(world) == (NODE3, [NODE3])

    def test_started_again(self):
        world = NewWorld()
        world.rpc.Fail("blockdev_shutdown", nodes=[NODE3])
        assert f"stays on node {NODE2}" in Fails(world, Failover())
        assert Where(world) == (NODE2, [NODE2])


class TestSteps:
    def _Calls(self, world, op):
        world.rpc.calls.clear()
        world.Run(op)
        looks = ("blockdev_find", "node_info", "bridges_exist", "hooks_runner")
        return [(call, node[4:5]) for call, node in world.rpc.calls if call not in looks]

    def test_mirrors(self):
        mirror = [
            (call, side)
            for call in ("drbd_disconnect_net", "drbd_attach_net", "drbd_wait_sync")
            for side in "23"
        ]
        assert self._Calls(NewWorld(), Migrate()) == [
            ("instance_get_migration_status", "2"),
            ("instance_list", "3"),
            ("instance_migratable", "2"),
            ("migration_info", "2"),
            ("blockdev_close", "3"),
            *mirror,
            ("accept_instance", "3"),
            ("instance_migrate", "2"),
            ("instance_get_migration_status", "2"),
            ("instance_get_migration_status", "2"),
            # Neither of them may be asked to go on before it is known where the guest is.
            ("finalize_migration", "3"),
            ("instance_finalize_migration_src", "2"),
            ("blockdev_close", "2"),
            ("drbd_wait_sync", "2"),
            ("drbd_wait_sync", "3"),
            *mirror,
        ]

    def test_shared_files(self):
        assert self._Calls(NewWorld("sharedfile"), Migrate(target_node=NODE3)) == [
            ("instance_get_migration_status", "2"),
            ("instance_list", "1"),
            ("instance_list", "3"),
            ("instance_migratable", "2"),
            ("migration_info", "2"),
            ("blockdev_assemble", "3"),
            ("blockdev_assemble", "3"),
            ("accept_instance", "3"),
            ("instance_migrate", "2"),
            ("instance_get_migration_status", "2"),
            ("instance_get_migration_status", "2"),
            ("finalize_migration", "3"),
            ("instance_finalize_migration_src", "2"),
            ("blockdev_close", "2"),
            ("blockdev_shutdown", "2"),
            ("blockdev_shutdown", "2"),
        ]


class TestUnfinished:
    """After a master that died in a migration nobody is let near but who tidies up."""

    OPS = (
        lambda: opcodes.OpInstanceStartup(instance_name=NAME, force=False),
        lambda: opcodes.OpInstanceShutdown(instance_name=NAME),
        lambda: opcodes.OpInstanceReboot(
            instance_name=NAME, reboot_type="full", ignore_secondaries=False
        ),
        lambda: opcodes.OpInstanceRemove(instance_name=NAME, ignore_failures=True),
        lambda: Failover(target_node=NODE3, ignore_consistency=True),
        lambda: Migrate(target_node=NODE3),
    )

    def _Leave(self, template, arrived, said):
        """An instance in a migration that nobody watches, or of which the source knows no more."""
        world = NewWorld(template)
        source, target = world.rpc.nodes[NODE2], world.rpc.nodes[NODE3]
        if said is not None:
            source.outgoing[NAME] = fakemigration.FakeOutgoing([ACTIVE], True, status=said)
        if arrived:
            target.running[NAME] = source.running.pop(NAME)
        elif said is not None:
            target.incoming.add(NAME)
        return world

    @pytest.mark.parametrize("make_op", OPS)
    @pytest.mark.parametrize(
        ("arrived", "said"), [(False, ACTIVE), (True, COMPLETED), (True, None)]
    )
    @pytest.mark.parametrize("template", ["drbd", "sharedfile"])
    def test_refused(self, template, arrived, said, make_op):
        """It would run twice, or be marked as what it is not."""
        world = self._Leave(template, arrived, said)
        text, code = Refused(world, make_op())
        assert code == errors.ECODE_STATE
        assert f"'gnt-instance migrate --cleanup {NAME}'" in text

    @pytest.mark.parametrize("make_op", OPS)
    def test_silence_is_no_obstacle(self, make_op):
        """The other node is dead, and so not where it runs."""
        world = self._Leave("sharedfile", False, None)
        world.rpc.Cut(NODE1)
        world.Run(make_op())

    def test_cleanup(self):
        world = self._Leave("sharedfile", True, COMPLETED)
        world.Run(Migrate(cleanup=True))
        assert Where(world) == (NODE3, [NODE3])
        world.Run(self.OPS[0]())
        assert Where(world) == (NODE3, [NODE3])


class TestWatching:
    def test_progress(self):
        world = NewWorld()
        world.rpc.migration_script = [
            *(fakemigration.NewProgress(step, 128) for step in range(1, 60)),
            {"status": COMPLETED, "downtime": 21},
        ]
        world.Run(Migrate())
        shown = [line for line in world.log if "progress" in line and "MiB" in line]
        assert shown
        assert all("of 128 MiB" in line and "s to go" in line for line in shown)
        # Not every look is a line.
        assert len(shown) < 59
        assert "* all was sent; the instance stood still for 21 ms" in world.log

    def test_a_small_guest_is_not_waited_for(self):
        """What takes 20 ms is over in a tenth of a second."""
        world = NewWorld()
        before = world.runtime.clock.monotonic()
        world.Run(Migrate())
        assert world.runtime.clock.monotonic() - before < 0.1

    def test_looks_become_rare(self):
        delays = migration_rules.GetDelays()
        found = [next(delays) for _ in range(20)]
        assert found[0] <= 0.02
        assert found == sorted(found)
        assert found[-1] == 2.0

    def test_it_failed(self):
        world = NewWorld()
        said = {"status": FAILED, "message": "it does not converge"}
        world.rpc.migration_script = [ACTIVE, said]
        text = Fails(world, Migrate())
        assert "it does not converge" in text
        assert f"stays on node {NODE2}" in text
        assert Where(world) == (NODE2, [NODE2])
        assert not world.rpc.nodes[NODE3].incoming

    def test_it_stands_still(self):
        world = NewWorld()
        world.rpc.migration_script = [fakemigration.NewProgress(1, 128)]
        assert "stood still for 30" in Fails(world, Migrate())
        assert Where(world) == (NODE2, [NODE2])

    def test_nobody_knows_how_far_it_is(self):
        world = NewWorld()
        world.rpc.migration_script = [ACTIVE]
        assert "not over after 7" in Fails(world, Migrate())
        assert Where(world) == (NODE2, [NODE2])

    def test_source_goes_silent_for_a_while(self):
        world = NewWorld()
        world.rpc.migration_script = [ACTIVE] * 30 + [COMPLETED]
        looks = []

        def _Before(call, name):
            if call == "instance_get_migration_status":
                looks.append(call)
                if len(looks) == 10:
                    world.rpc.Fail(call)
                if len(looks) == 20:
                    world.rpc.Heal()

        world.rpc.before_call = _Before
        world.Run(Migrate())
        assert Where(world) == (NODE3, [NODE3])

    def test_source_dies(self):
        world = NewWorld()
        world.rpc.migration_script = [ACTIVE]
        world.rpc.before_call = lambda call, name: (
            world.rpc.Cut(NODE2)
            if call == "instance_get_migration_status" and world.rpc.nodes[NODE2].outgoing
            else None
        )
        text = Fails(world, Migrate())
        assert "--cleanup" in text
        assert f"gnt-node modify --offline=yes {NODE2}" in text
        assert Where(world)[0] == NODE2


class _Cancel:
    """Has a job cancelled at the n-th place where it can be."""

    def __init__(self, monkeypatch, number):
        self.places = 0
        self._number = number
        monkeypatch.setattr(fake._Recorder, "CheckCancel", lambda _: self._Check())

    def _Check(self):
        self.places += 1
        if self.places == self._number:
            raise mcpu.CancelJob


class TestCancel:
    """A cancelled job leaves the instance running where it was."""

    @pytest.mark.parametrize("live", [True, False])
    @pytest.mark.parametrize("template", ["drbd", "sharedfile"])
    def test_at_each_place(self, template, live, monkeypatch):
        script = [fakemigration.NewProgress(step, 8) for step in range(1, 6)] + [COMPLETED]
        op = {"target_node": NODE3, "live": live}
        world = NewWorld(template)
        world.rpc.migration_script = script
        counter = _Cancel(monkeypatch, 0)
        world.Run(Migrate(**op))
        cancelled = 0
        for number in range(1, counter.places + 1):
            _Cancel(monkeypatch, 0)
            world = NewWorld(template)
            world.rpc.migration_script = script
            _Cancel(monkeypatch, number)
            with pytest.raises(mcpu.CancelJob):
                world.Run(Migrate(**op))
            cancelled += 1
            assert Where(world) == (NODE2, [NODE2]), number
            for node in world.rpc.nodes.values():
                assert not (node.incoming or node.outgoing or node.paused), number
                for device in node.drbd.values():
                    assert device.network == "single"
            assert not any(dev.primary for dev in world.rpc.nodes[NODE3].drbd.values()), number
            # And it can be migrated afterwards.
            _Cancel(monkeypatch, 0)
            world.Run(Migrate(**op))
            assert Where(world) == (NODE3, [NODE3]), number
        assert cancelled >= len(script)

    def test_too_late(self, monkeypatch):
        """What has left is not called back: the job goes on and says so."""
        world = NewWorld()
        world.rpc.migration_script = [ACTIVE, ACTIVE, COMPLETED]
        _Cancel(monkeypatch, 0)
        real = world.rpc.call_instance_abort_migration

        def _Abort(node, instance):
            # It was faster.
            world.rpc._Look(world.rpc.nodes[NODE2], NAME)
            world.rpc._Look(world.rpc.nodes[NODE2], NAME)
            return real(node, instance)

        world.rpc.call_instance_abort_migration = _Abort
        counter = _Cancel(monkeypatch, 0)
        world.rpc.before_call = lambda call, name: (
            setattr(counter, "_number", counter.places + 1)
            if call == "instance_get_migration_status"
            and world.rpc.nodes[NODE2].outgoing
            and counter._number == 0
            else None
        )
        world.Run(Migrate())
        assert Where(world) == (NODE3, [NODE3])
        assert "* too late: all was sent already" in world.log


class TestCleanup:
    def test_master_was_killed_meanwhile(self):
        """A migration that nobody watches any more is ended first."""
        world = NewWorld()
        world.rpc.migration_script = [ACTIVE]
        instance = world.cfg.GetInstanceInfo(NAME)
        for disk in instance.disks:
            world.cfg.SetDiskID(disk, NODE3)
        for device in world.rpc.nodes[NODE3].drbd.values():
            device.primary = True
        world.rpc.call_accept_instance(NODE3, instance, "", "192.0.2.3")
        world.rpc.call_instance_migrate(NODE2, instance, "", False)
        world.rpc.calls.clear()
        world.Run(Migrate(cleanup=True))
        calls = [call for call, _ in world.rpc.calls]
        assert calls.index("instance_abort_migration") < calls.index("instance_list")
        assert Where(world) == (NODE2, [NODE2])
        for node in world.rpc.nodes.values():
            assert not (node.incoming or node.outgoing or node.paused)
        assert not any(dev.primary for dev in world.rpc.nodes[NODE3].drbd.values())

    def test_it_can_not_be_ended(self):
        world = NewWorld()
        world.rpc.migration_script = [ACTIVE]
        instance = world.cfg.GetInstanceInfo(NAME)
        world.rpc.nodes[NODE3].incoming.add(NAME)
        world.rpc.call_instance_migrate(NODE2, instance, "", True)
        world.rpc.Fail("instance_abort_migration")
        assert f"under way on node {NODE2}" in Fails(world, Migrate(cleanup=True))
        assert Where(world) == (NODE2, [NODE2])

    def test_found_elsewhere(self):
        world = NewWorld("sharedfile")
        world.rpc.nodes[NODE1].running[NAME] = world.rpc.nodes[NODE2].running.pop(NAME)
        world.Run(Migrate(cleanup=True))
        assert Where(world) == (NODE1, [NODE1])

    def test_runs_twice(self):
        world = NewWorld()
        world.rpc.nodes[NODE3].running[NAME] = 128
        text = Fails(world, Migrate(cleanup=True))
        assert NODE2 in text
        assert NODE3 in text
        assert len(Where(world)[1]) == 2

    def test_runs_nowhere(self):
        world = NewWorld()
        world.rpc.nodes[NODE2].running.clear()
        assert f"gnt-instance startup {NAME}" in Fails(world, Migrate(cleanup=True))
        world.Run(opcodes.OpInstanceStartup(instance_name=NAME, force=False))
        assert Where(world) == (NODE2, [NODE2])

    def test_no_memory_is_needed(self):
        world = NewWorld()
        world.rpc.nodes[NODE3].memory_free = 0
        world.Run(Migrate(cleanup=True))

    def test_dead_node(self):
        """Nothing is guessed, but an offline node is taken as switched off."""
        world = NewWorld()
        world.rpc.Cut(NODE3)
        assert f"--offline=yes {NODE3}" in Fails(world, Migrate(cleanup=True))
        SetNode(world, NODE3, offline=True, master_candidate=False)
        world.Run(Migrate(cleanup=True))
        assert Where(world) == (NODE2, [NODE2])

    @pytest.mark.parametrize("template", ["drbd", "sharedfile"])
    def test_it_arrived_where_it_was_sent(self, template):
        """The node that it was sent to may be named although it is its primary by now."""
        world = NewWorld(template)
        world.Run(Migrate(cleanup=True, target_node=NODE2))
        assert Where(world) == (NODE2, [NODE2])

    def test_allocator_makes_no_sense(self):
        world = NewWorld("sharedfile")
        op = Migrate(cleanup=True, iallocator="simple")
        assert Refused(world, op)[1] == errors.ECODE_INVAL


class TestMigratePrereq:
    def test_it_must_run(self):
        world = NewWorld(start=False)
        text, code = Refused(world, Migrate())
        assert code == errors.ECODE_STATE
        assert "gnt-instance failover" in text

    def test_degraded(self):
        world = NewWorld()
        world.rpc.nodes[NODE3].faulty = True
        assert "degraded" in Fails(world, Migrate())
        assert Where(world) == (NODE2, [NODE2])

    def test_offline_primary(self):
        world = NewWorld()
        SetNode(world, NODE2, offline=True, master_candidate=False)
        assert Refused(world, Migrate())[1] == errors.ECODE_INVAL


class TestNodeMigrate:
    """SU6: an operation of the master, a job for each instance."""

    def _Run(self, world, **values):
        jobs = []

        class _Callbacks(fake._Recorder):
            def SubmitManyJobs(self, found):
                jobs.extend(op for (op,) in found)
                return [[True, number] for number in range(len(found))]

        op = opcodes.OpNodeMigrate(node_name=NODE2, live=True, **values)
        op.Validate(True)
        result = mcpu.Processor(world.master, "m").ExecOpCode(op, _Callbacks())
        assert result == {"jobs": [[True, number] for number in range(len(jobs))]}
        return jobs

    def test_jobs(self):
        world = NewWorld()
        NewWorld("sharedfile", name=OTHER, world=world)
        ops = self._Run(world, iallocator="simple")
        assert [(op.instance_name, op.live, op.iallocator) for op in ops] == [
            (NAME, True, None),
            (OTHER, True, "simple"),
        ]
        for op in ops:
            world.Run(op)
        for name in (NAME, OTHER):
            primary, running = Where(world, name)
            assert running == [primary]
            assert primary != NODE2
        assert self._Run(world) == []

    def test_one_refuses_all(self):
        world = NewWorld()
        NewWorld("file", name=OTHER, world=world)
        text, code = Refused(world, opcodes.OpNodeMigrate(node_name=NODE2, live=True))
        assert (OTHER in text, code) == (True, errors.ECODE_STATE)

    def test_memory_of_all(self):
        """Each would fit, but not both."""
        world = NewWorld()
        NewWorld(name=OTHER, world=world)
        world.rpc.nodes[NODE3].memory_free = 200
        text, code = Refused(world, opcodes.OpNodeMigrate(node_name=NODE2, live=True))
        assert ("256 MiB needed" in text, code) == (True, errors.ECODE_NORES)

    def test_choice_is_needed(self):
        world = NewWorld("sharedfile")
        op = opcodes.OpNodeMigrate(node_name=NODE2, live=True)
        assert Refused(world, op)[1] == errors.ECODE_INVAL
        (job,) = self._Run(world, target_node=NODE1)
        assert job.target_node == NODE1
        op = opcodes.OpNodeMigrate(node_name=NODE2, live=True, target_node=NODE2)
        assert Refused(world, op)[1] == errors.ECODE_INVAL


class TestMove:
    @pytest.mark.parametrize("template", ["file", "plain"])
    def test_moved(self, template):
        world = NewWorld(template)
        before = set(world.rpc.nodes[NODE2].disks)
        world.Run(Move())
        assert Where(world) == (NODE3, [NODE3])
        assert world.rpc.nodes[NODE2].disks == set()
        assert world.rpc.nodes[NODE3].disks == before
        assert {(key, node) for key, node, _ in world.rpc.nodes[NODE2].exported} == {
            (key, NODE3) for key in before
        }

    @pytest.mark.parametrize("template", ["drbd", "sharedfile"])
    def test_there_is_a_better_way(self, template):
        text, code = Refused(NewWorld(template), Move())
        assert ("gnt-instance migrate" in text, code) == (True, errors.ECODE_STATE)

    def test_not_to_itself(self):
        assert Refused(NewWorld("file"), Move(target_node=NODE2))[1] == errors.ECODE_STATE

    def test_space(self):
        world = NewWorld("plain", disks=[{"size": 40000}])
        real = world.rpc.call_node_info

        def _Full(nodes, *args):
            answers = real(nodes, *args)
            for result in answers.values():
                result.payload["vg_free"] = 39999
            return answers

        world.rpc.call_node_info = _Full
        text, code = Refused(world, Move())
        assert ("40000 MiB needed" in text, code) == (True, errors.ECODE_NORES)

    def test_what_is_there_is_not_overwritten(self):
        """A directory that both nodes share by chance: the copy would be the original."""
        world = NewWorld("file")
        world.rpc.nodes[NODE3].disks |= world.rpc.nodes[NODE2].disks
        assert Refused(world, Move())[1] == errors.ECODE_EXISTS

    def test_cancelled(self, monkeypatch):
        world = NewWorld("file")
        before = set(world.rpc.nodes[NODE2].disks)
        counter = _Cancel(monkeypatch, 0)
        world.rpc.before_call = lambda call, name: (
            setattr(counter, "_number", counter.places + 1) if call == "blockdev_create" else None
        )
        with pytest.raises(mcpu.CancelJob):
            world.Run(Move())
        assert Where(world) == (NODE2, [NODE2])
        assert world.rpc.nodes[NODE2].disks == before
        assert world.rpc.nodes[NODE3].disks == set()


class TestRules:
    @pytest.mark.parametrize(
        ("status", "at_source", "at_target", "place"),
        [
            # What was sent is gone, whoever says what.
            (COMPLETED, None, None, Place.TARGET),
            (COMPLETED, True, False, Place.TARGET),
            (COMPLETED, False, False, Place.TARGET),
            (CANCELLED, True, False, Place.SOURCE),
            (CANCELLED, True, None, Place.SOURCE),
            (FAILED, False, False, Place.SOURCE),
            (FAILED, False, True, Place.TARGET),
            (FAILED, True, True, Place.BOTH),
            (CANCELLED, None, True, Place.TARGET),
            (None, None, True, Place.TARGET),
            (None, None, False, Place.UNKNOWN),
            (None, None, None, Place.UNKNOWN),
            (None, True, None, Place.UNKNOWN),
            (ACTIVE, True, False, Place.UNKNOWN),
        ],
    )
    def test_locate(self, status, at_source, at_target, place):
        assert Locate(status, at_source, at_target) == place

    @pytest.mark.parametrize(
        ("sent", "total", "elapsed", "text"),
        [
            (32, 128, 2.0, "25.0%, 32 of 128 MiB, 6 s to go"),
            (32, 128, 0.0, "25.0%, 32 of 128 MiB"),
            (128, 128, 9.0, "128 MiB sent of a memory of 128 MiB: what changes meanwhile is sent"),
            (300, 128, 9.0, "300 MiB sent of a memory of 128 MiB"),
            (0, 128, 9.0, "active"),
        ],
    )
    def test_progress(self, sent, total, elapsed, text):
        status = fakemigration.NewProgress(sent, total)
        assert migration_rules.DescribeProgress(status, elapsed).startswith(text)

    def test_progress_unknown(self):
        status = {"transferred_ram": None, "total_ram": None, "message": ""}
        assert migration_rules.DescribeProgress(status, 7.0) == "under way since 7 s"

    def test_watchdog(self):
        dog = migration_rules.Watchdog(100.0, 128)
        moving = fakemigration.NewProgress(1, 8)
        assert dog.Heard(moving, 100.0) is None
        assert dog.Heard(moving, 399.0) is None
        assert "stood still" in dog.Heard(moving, 400.0)
        assert dog.Heard(fakemigration.NewProgress(2, 8), 401.0) is None
        assert dog.Silent("dead", 460.0) is None
        assert "dead" in dog.Silent("dead", 461.0)

    def test_watchdog_without_numbers(self):
        dog = migration_rules.Watchdog(0.0, 128)
        blind = {"status": ACTIVE, "transferred_ram": None, "total_ram": None, "message": ""}
        assert dog.Heard(blind, 727.0) is None
        assert "728" in dog.Heard(blind, 728.0)


class TestConfigurationCanNotBeWritten:
    """The disk of the master is full just when the instance changes nodes."""

    @pytest.fixture
    def full(self, monkeypatch):
        """Call it to fill the disk, or with False to make room again."""

        def _Fill(world, is_full=True):
            real = type(world.cfg).Update

            def _Update(obj, feedback_fn):
                if is_full and getattr(obj, "primary_node", None) == NODE3:
                    raise errors.ConfigurationError("no space left on device")
                return real(world.cfg, obj, feedback_fn)

            monkeypatch.setattr(world.cfg, "Update", _Update)

        return _Fill

    def test_migrate(self, full):
        """What has left has left: it is put on record later."""
        world = NewWorld()
        full(world)
        text = Fails(world, Migrate())
        assert "no space left" in text
        assert "--cleanup" in text
        assert Where(world) == (NODE2, [NODE3])
        assert not world.rpc.nodes[NODE2].outgoing
        full(world, False)
        world.Run(Migrate(cleanup=True))
        assert Where(world) == (NODE3, [NODE3])

    @pytest.mark.parametrize(
        ("template", "make_op"), [("drbd", Failover), ("sharedfile", Failover), ("file", Move)]
    )
    def test_stays(self, full, template, make_op):
        """It is started again where it was, and no copies are left."""
        world = NewWorld(template)
        full(world)
        more = {} if make_op is Move else {"target_node": NODE3}
        with pytest.raises(errors.ConfigurationError):
            world.Run(make_op(**more))
        assert Where(world) == (NODE2, [NODE2])
        if make_op is Move:
            assert not world.rpc.nodes[NODE3].disks
        full(world, False)
        world.Run(make_op(**more))
        assert Where(world) == (NODE3, [NODE3])


class TestInterruptible:
    @pytest.mark.parametrize(
        ("op", "can"), [(Migrate(), True), (Move(), True), (Failover(), False)]
    )
    def test_running_jobs_can_be_cancelled(self, op, can):
        """Those that look whether they are: of the others nobody shall be told so."""
        assert bool(getattr(op, "interruptible", False)) is can

"""Failover, migration and move with one call to a node going wrong, each in turn.

Each operation is run once to count its calls; then once for each call and each way to fail. Then:

- the instance runs on one node at most, and stands still nowhere without a word about it
- the configuration says where it runs, or the job says what to do
- what it says to do leads to an instance that runs where the configuration says, once, with disks
  that only this node uses
"""

import functools
import os

import callfaults as cf
import pytest

from ganeti import constants, errors, locking, opcodes, pathutils
from ganeti.cmdlib import fake, fakedisks, fakemigration
from ganeti.config import fake as config_fake

NODE1, NODE2, NODE3 = (config_fake.NodeName(number) for number in (1, 2, 3))
NAME = "inst1.example.com"

MODES = [*cf.MODES, cf.DIES]


def Migrate(live=True, **values):
    return opcodes.OpInstanceMigrate(instance_name=NAME, live=live, cleanup=False, **values)


def Cleanup(**values):
    return opcodes.OpInstanceMigrate(instance_name=NAME, live=True, cleanup=True, **values)


def Failover(ignore_consistency=False, **values):
    return opcodes.OpInstanceFailover(
        instance_name=NAME, ignore_consistency=ignore_consistency, **values
    )


def Move(**values):
    return opcodes.OpInstanceMove(instance_name=NAME, target_node=NODE3, **values)


def NewWorld(template, up=True):
    """Three nodes and an instance on the second one; the third has its mirrors."""
    world = fake.NewWorld(3)
    cluster = world.cfg.GetClusterInfo()
    cluster.enabled_hypervisors = ["fake"]
    cluster.volume_group_name = "xenvg"
    cluster.shared_file_storage_dir = fakedisks.SHARED_DIR
    world.cfg.Update(cluster, None)
    more = {"snode": NODE3} if template == constants.DT_DRBD8 else {}
    world.Run(fake.NewCreate(NAME, NODE2, disk_template=template, start=up, **more))
    world.rpc.migration_script = [
        fakemigration.NewProgress(1, 4),
        fakemigration.NewProgress(3, 4),
        constants.MIGRATION_COMPLETED,
    ]
    return world


def _BrokenOff(template, to=None):
    """A migration whose last steps the target never heard of."""
    world = NewWorld(template)
    world.rpc.Fail("finalize_migration")
    world.rpc.Fail("instance_finalize_migration_src")
    cf.RunAndTell(world, Migrate(target_node=to))
    world.rpc.Heal()
    return world


#: name -> (what there is before, the operation, template)
SCENARIOS = {
    "failover-drbd": (lambda: NewWorld("drbd"), Failover),
    "failover-drbd-ignoring": (lambda: NewWorld("drbd"), lambda: Failover(True)),
    "failover-drbd-down": (lambda: NewWorld("drbd", up=False), Failover),
    "failover-sharedfile": (lambda: NewWorld("sharedfile"), lambda: Failover(target_node=NODE3)),
    "migrate-drbd": (lambda: NewWorld("drbd"), Migrate),
    "migrate-drbd-non-live": (lambda: NewWorld("drbd"), lambda: Migrate(live=False)),
    "migrate-sharedfile": (lambda: NewWorld("sharedfile"), lambda: Migrate(target_node=NODE3)),
    "migrate-sharedfile-non-live": (
        lambda: NewWorld("sharedfile"),
        lambda: Migrate(live=False, target_node=NODE3),
    ),
    "cleanup-drbd": (lambda: _BrokenOff("drbd"), Cleanup),
    "cleanup-sharedfile": (
        lambda: _BrokenOff("sharedfile", to=NODE3),
        lambda: Cleanup(target_node=NODE2),
    ),
    "move-file": (lambda: NewWorld("file"), Move),
    "move-plain": (lambda: NewWorld("plain"), Move),
    "move-plain-down": (lambda: NewWorld("plain", up=False), Move),
}


@pytest.fixture(autouse=True)
def _Names(monkeypatch):
    os.makedirs(os.path.dirname(pathutils.ETC_HOSTS), exist_ok=True)
    monkeypatch.setattr("ganeti.utils.net.TcpPing", lambda *args, **kwargs: True)


class Fault(cf.Fault):
    """A call goes wrong; what becomes of a node that died of it."""

    def Bury(self):
        """The node is switched off, and marked so."""
        self.Stop()
        _, name = self.hit
        self._world.rpc.nodes[name] = fake.FakeNode()
        node = self._world.cfg.GetNodeInfo(name)
        node.offline, node.master_candidate = True, False
        self._world.cfg.Update(node, None)


@functools.cache
def CountCalls(scenario):
    return cf.CountCalls(*SCENARIOS[scenario])


def Running(world):
    return fakemigration.FindRunning(world.rpc.nodes, NAME)


def Instance(world):
    return world.cfg.GetInstanceInfo(NAME)


def CheckNoHarm(world, text):
    """What must hold at any time."""
    running = Running(world)
    warned = "make sure that node" in text
    assert len(running) <= 1 or warned, f"it runs twice: {running}"
    told = "--cleanup" in text or "failover" in text or "startup" in text
    still = [name for name, node in world.rpc.nodes.items() if NAME in node.paused]
    assert not still or told, f"it stands still on {still}"
    instance = Instance(world)
    if instance.admin_up:
        assert instance.primary_node in running or told, (running, instance.primary_node)
    else:
        assert not running
    for info in world.master.glm.GetLockInfo():
        assert not info["owners"], info
        assert not info["pending"], info
    assert sorted(world.master.glm._names(locking.LEVEL_INSTANCE)) == [NAME]
    assert world.cfg.VerifyConfig() == []


def CheckAllIsWell(world, gone=()):
    """It runs once, where the configuration says, and only that node uses its disks.

    @param gone: nodes that are switched off
    """
    instance = Instance(world)
    primary = instance.primary_node
    assert Running(world) == ([primary] if instance.admin_up else [])
    for name, node in world.rpc.nodes.items():
        if name in gone:
            continue
        assert not node.paused, name
        assert not node.incoming, name
        assert not node.outgoing, name
        for device in node.drbd.values():
            assert not (device.primary and name != primary), f"{name} may still write"
            assert device.network in ("single", None) or gone, f"{name}: {device}"
    for disk in instance.disks:
        key = disk.logical_id[1] if disk.dev_type == "file" else None
        if disk.dev_type == "lvm":
            key = "/".join(disk.logical_id)
        if key is None:
            continue
        store = world.rpc.shared if key.startswith(fakedisks.SHARED_DIR) else None
        assert key in (store or world.rpc.nodes[primary]).disks, f"{key} is lost"


def Finish(world, text):
    """Do what the job said that should be done, and what that says."""
    for _ in range(4):
        instance = Instance(world)
        shared = instance.disk_template == "sharedfile"
        if "--cleanup" in text:
            other = NODE3 if instance.primary_node == NODE2 else NODE2
            if not shared or world.cfg.GetNodeInfo(other).offline:
                other = None
            op = Cleanup(target_node=other)
        elif "gnt-instance failover" in text:
            op = Failover(True, target_node=NODE1 if shared else None)
        elif "gnt-instance startup" in text:
            op = opcodes.OpInstanceStartup(instance_name=NAME, force=True)
            if instance.primary_node and world.cfg.GetNodeInfo(instance.primary_node).offline:
                op = Failover(True, target_node=NODE1 if shared else None)
        else:
            return
        _, text = cf.RunAndTell(world, op)
        CheckNoHarm(world, text)
        # Else whatever the hints say that went with it.
        if Running(world) == [Instance(world).primary_node] and "--cleanup" not in text:
            return


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scenario", SCENARIOS)
class TestEachCall:
    """A failure at any step leaves the instance as it was, or what the next command can finish."""

    def _RunWith(self, scenario, number, mode):
        prepare, make_op = SCENARIOS[scenario]
        world = prepare()
        fault = Fault(world, number, mode)
        err, text = cf.RunAndTell(world, make_op())
        if err is not None and "cleanup" in scenario:
            text += "\nagain: --cleanup"
        return world, fault, err, text

    def test_the_node_comes_back(self, scenario, mode):
        for number in range(1, CountCalls(scenario) + 1):
            world, fault, err, text = self._RunWith(scenario, number, mode)
            try:
                CheckNoHarm(world, text)
                fault.End()
                if "ignoring" in scenario and len(Running(world)) > 1:
                    continue
                Finish(world, text)
                CheckAllIsWell(world)
            except (AssertionError, errors.GenericError) as bad:
                raise AssertionError(
                    f"call {number} {fault.hit}: {bad}\n--- {err!r}\n{text}"
                ) from bad

    def test_the_node_stays_dead(self, scenario, mode):
        if mode not in (cf.DEAD, cf.DIES):
            pytest.skip("the node is well")
        for number in range(1, CountCalls(scenario) + 1):
            world, fault, err, text = self._RunWith(scenario, number, mode)
            if "move" in scenario and fault.hit[1] == Instance(world).primary_node:
                # So is the only copy.
                continue
            try:
                fault.Bury()
                Finish(world, text)
                instance = Instance(world)
                if instance.primary_node == fault.hit[1]:
                    shared = instance.disk_template == "sharedfile"
                    world.Run(Failover(True, target_node=NODE1 if shared else None))
                CheckAllIsWell(world, gone=[fault.hit[1]])
            except (AssertionError, errors.GenericError) as bad:
                raise AssertionError(
                    f"call {number} {fault.hit}: {bad}\n--- {err!r}\n{text}"
                ) from bad

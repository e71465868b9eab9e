"""What is left when something fails half way: it is undone, or finished by the next run.

Each operation is run once to learn which calls it makes to nodes; then once for each of them, with
that call refused, or done with its answer lost. Also: two jobs at once.
"""

import functools
import os

import pytest

from ganeti import errors, locking, mcpu, opcodes, pathutils
from ganeti.cmdlib import fake
from ganeti.config import fake as config_fake
from ganeti.runtime.simulation import Simulation

NODE1, NODE2, NODE3 = (config_fake.NodeName(number) for number in (1, 2, 3))
NAME, NEW_NAME = "inst1.example.com", "inst2.example.com"
NEW_NODE = "node4.example.com"


def Create(**values):
    return fake.NewCreate(NAME, NODE2, **values)


def Stop():
    return opcodes.OpInstanceShutdown(instance_name=NAME)


def Start():
    return opcodes.OpInstanceStartup(instance_name=NAME, force=False)


def Rename():
    return opcodes.OpInstanceRename(instance_name=NAME, new_name=NEW_NAME, ignore_ip=True)


def Remove():
    return opcodes.OpInstanceRemove(instance_name=NAME, ignore_failures=False)


def Modify(**values):
    return opcodes.OpInstanceSetParams(instance_name=NAME, **values)


@pytest.fixture(autouse=True)
def _Names(monkeypatch):
    """Names that resolve, and node daemons that answer, without a network."""
    os.makedirs(os.path.dirname(pathutils.ETC_HOSTS), exist_ok=True)
    with open(pathutils.ETC_HOSTS, "w") as fobj:
        fobj.write(f"192.0.2.4\t{NEW_NODE}\n192.0.2.98\t{NEW_NAME}\n192.0.2.3\t{NODE3}\n")
        fobj.write("192.0.2.99\tother.example.com\n")
    monkeypatch.setattr(
        "ganeti.utils.net.TcpPing", lambda target, *args, **kwargs: target != "192.0.2.99"
    )


def NewWorld(*before):
    """Three nodes, a hypervisor whose instances have a port, and what these operations leave."""
    world = fake.NewWorld(3)
    cluster = world.cfg.GetClusterInfo()
    cluster.enabled_hypervisors = ["kvm", "fake"]
    cluster.modify_ssh_setup = cluster.modify_etc_hosts = False
    world.cfg.Update(cluster, None)
    for op in before:
        world.Run(op)
    return world


def Objects(world):
    """What the configuration has, but for what every write changes."""
    return (
        {name: obj.ToDict() for name, obj in world.cfg.GetAllInstancesInfo().items()},
        {name: obj.ToDict() for name, obj in world.cfg.GetAllNodesInfo().items()},
    )


def OnNodes(world):
    return {
        name: (sorted(node.disks), sorted(node.directories), sorted(node.running))
        for name, node in world.rpc.nodes.items()
    }


def CheckNothingLeaks(world):
    """Locks are free and fit the configuration, nothing is reserved, no port is lost."""
    glm, cfg = world.master.glm, world.cfg
    assert sorted(glm._names(locking.LEVEL_INSTANCE)) == sorted(cfg.GetInstanceList())
    assert sorted(glm._names(locking.LEVEL_NODE)) == sorted(cfg.GetNodeList())
    for info in glm.GetLockInfo():
        assert not info["owners"], info
        assert not info["pending"], info
    reserved = {
        key: value
        for key, value in cfg.GetStatistics().items()
        if key.startswith("reserved_") and value
    }
    assert not reserved
    cluster = cfg.GetClusterInfo()
    ports = {obj.network_port for obj in cfg.GetAllInstancesInfo().values()} - {None}
    assert ports | set(cluster.tcpudp_port_pool) == set(range(11000, cluster.highest_used_port + 1))
    assert cfg.VerifyConfig() == []


def CheckDisksFit(world):
    """Every disk file belongs to an instance of the configuration, which has all of its."""
    expected = {}
    for instance in world.cfg.GetAllInstancesInfo().values():
        paths = {disk.logical_id[1] for disk in instance.disks}
        expected.setdefault(instance.primary_node, set()).update(paths)
    for name, node in world.rpc.nodes.items():
        assert node.disks == expected.get(name, set())


def CallsOf(make_op, *before):
    """The node calls that an operation makes, hooks and copies of the queue apart."""
    world = NewWorld(*before)
    world.rpc.calls.clear()
    world.Run(make_op())
    names = [call for call, _ in world.rpc.calls]
    return sorted({name for name in names if name != "hooks_runner"})


def Faults(make_op, *before):
    """For parametrize: (call, is only the answer lost?)."""
    _MakeHosts()
    return [
        pytest.param(call, lost, id=f"{call}-{'lost' if lost else 'refused'}")
        for call in CallsOf(make_op, *before)
        for lost in (False, True)
    ]


def _MakeHosts():
    os.makedirs(os.path.dirname(pathutils.ETC_HOSTS), exist_ok=True)
    with open(pathutils.ETC_HOSTS, "w") as fobj:
        fobj.write(f"192.0.2.98\t{NEW_NAME}\n")


def RunWithFault(world, op, call, lost):
    """Run an operation in a world where a call fails; return what it raised."""
    world.rpc.Fail(call, "it broke", lost=lost)
    try:
        world.Run(op)
    except (errors.OpPrereqError, errors.OpExecError, errors.RemoteError) as err:
        return err
    finally:
        world.rpc.Heal()
    return None


class TestCreate:
    @pytest.mark.parametrize(("call", "lost"), Faults(Create))
    def test_call_fails(self, call, lost):
        world = NewWorld()
        config, nodes = Objects(world), OnNodes(world)
        err = RunWithFault(world, Create(), call, lost)
        assert err is not None, "an operation without its calls can not have succeeded"
        CheckNothingLeaks(world)
        if world.cfg.GetInstanceList():
            # From the OS on it stays, for somebody to look at.
            assert call in ("instance_os_add", "blockdev_assemble", "instance_start")
            assert world.rpc.nodes[NODE2].active == set()
            world.Run(Remove())
        elif call != "blockdev_remove":
            assert (Objects(world), OnNodes(world)) == (config, nodes)
        world.Run(Create())
        CheckNothingLeaks(world)
        CheckDisksFit(world)

    @pytest.mark.parametrize("lost", [False, True])
    def test_the_second_disk_fails(self, lost):
        world = NewWorld()
        before = Objects(world), OnNodes(world)
        made = []

        def Second(call, _):
            if call == "blockdev_create":
                made.append(call)
                if len(made) == 2:
                    world.rpc.Fail("blockdev_create", "no space", lost=lost)

        world.rpc.before_call = Second
        with pytest.raises(errors.OpExecError, match="no space"):
            world.Run(Create())
        assert (Objects(world), OnNodes(world)) == before
        CheckNothingLeaks(world)

    def test_disk_that_exists_is_not_touched(self):
        """Neither written over nor removed as if it had been made here."""
        world = NewWorld()
        path = f"/srv/ganeti/file-storage/{NAME}/disk1"
        world.rpc.nodes[NODE2].disks.add(path)
        with pytest.raises(errors.OpPrereqError, match="disk1") as caught:
            world.Run(Create())
        assert caught.value.args[1] == errors.ECODE_EXISTS
        assert world.rpc.nodes[NODE2].disks == {path}
        CheckNothingLeaks(world)

    def test_configuration_can_not_be_written(self):
        world = NewWorld()
        before = Objects(world), OnNodes(world)
        calls = []

        def Break(call, _):
            calls.append(call)
            if call == "blockdev_create" and calls.count(call) == 2:
                # The disks are there; what comes next is the configuration.
                world.runtime.files.Fail("write", pathutils.CLUSTER_CONF_FILE, times=1)

        world.rpc.before_call = Break
        with pytest.raises(errors.ConfigurationError):
            world.Run(Create())
        world.rpc.before_call = lambda *_: None
        world.runtime.files.Heal()
        assert (Objects(world), OnNodes(world)) == before
        CheckNothingLeaks(world)

    def test_degraded_disks(self):
        world = NewWorld()
        before = Objects(world), OnNodes(world)
        world.rpc.nodes[NODE2].faulty = True
        with pytest.raises(errors.OpExecError, match="degraded"):
            world.Run(Create())
        assert (Objects(world), OnNodes(world)) == before
        CheckNothingLeaks(world)

    def test_cancelled_while_the_disks_sync(self, monkeypatch):
        world = NewWorld()
        before = Objects(world), OnNodes(world)
        cancelled = []
        world.rpc.before_call = lambda call, _: cancelled.append(call) if "mirror" in call else None

        def CheckCancel(self):
            if cancelled:
                raise mcpu.CancelJob

        world.rpc.nodes[NODE2].faulty = True
        monkeypatch.setattr(mcpu.Processor, "CheckCancel", CheckCancel)
        with pytest.raises(mcpu.CancelJob):
            world.Run(Create())
        assert (Objects(world), OnNodes(world)) == before
        CheckNothingLeaks(world)

    def test_not_started_means_no_active_disks(self):
        world = NewWorld(Create(start=False))
        assert world.rpc.nodes[NODE2].active == set()
        assert ("blockdev_shutdown", NODE2) in world.rpc.calls

    def test_node_is_free_while_the_os_is_installed(self):
        """Others may use the node: the locks of nodes are given back early."""
        world = NewWorld()
        held = {}

        def Look(call, _):
            if call in ("blockdev_create", "instance_os_add"):
                held[call] = [
                    info["name"] for info in world.master.glm.GetLockInfo() if info["owners"]
                ]

        world.rpc.before_call = Look
        world.Run(Create())
        assert any(NODE2 in name for name in held["blockdev_create"])
        assert not any(NODE2 in name for name in held["instance_os_add"])
        assert any(NAME in name for name in held["instance_os_add"])


class TestRename:
    BEFORE = (Create(), Stop())

    @pytest.mark.parametrize(("call", "lost"), Faults(Rename, *BEFORE))
    def test_call_fails(self, call, lost):
        world = NewWorld(*self.BEFORE)
        RunWithFault(world, Rename(), call, lost)
        CheckNothingLeaks(world)
        if NAME in world.cfg.GetInstanceList():
            world.Run(Rename())
        assert world.cfg.GetInstanceList() == [NEW_NAME]
        CheckNothingLeaks(world)
        CheckDisksFit(world)
        assert world.rpc.nodes[NODE2].active == set() or call == "blockdev_shutdown"
        world.Run(opcodes.OpInstanceStartup(instance_name=NEW_NAME, force=False))

    def test_configuration_can_not_be_written(self):
        world = NewWorld(*self.BEFORE)
        before = Objects(world), OnNodes(world)
        world.runtime.files.Fail("write", pathutils.CLUSTER_CONF_FILE)
        with pytest.raises(errors.ConfigurationError):
            world.Run(Rename())
        world.runtime.files.Heal()
        assert (Objects(world), OnNodes(world)) == before
        CheckNothingLeaks(world)

    def test_directory_of_the_new_name_exists(self):
        world = NewWorld(*self.BEFORE)
        other = f"/srv/ganeti/file-storage/{NEW_NAME}"
        world.rpc.nodes[NODE2].directories.add(other)
        before = Objects(world), OnNodes(world)
        with pytest.raises(errors.OpExecError, match="kept its name"):
            world.Run(Rename())
        assert (Objects(world), OnNodes(world)) == before


class TestRemove:
    @pytest.mark.parametrize(("call", "lost"), Faults(Remove, Create()))
    def test_call_fails(self, call, lost):
        world = NewWorld(Create())
        err = RunWithFault(world, Remove(), call, lost)
        assert err is not None
        assert world.cfg.GetInstanceList() == [NAME]
        if call != "instance_shutdown":
            # Nobody shall start it with what is left of its disks.
            assert world.cfg.GetInstanceInfo(NAME).admin_up is False
        CheckNothingLeaks(world)
        world.Run(Remove())
        CheckNothingLeaks(world)
        CheckDisksFit(world)

    def test_dead_node(self):
        world = NewWorld(Create())
        world.rpc.Cut(NODE2)
        with pytest.raises(errors.OpExecError, match="--ignore-failures"):
            world.Run(Remove())
        op = opcodes.OpInstanceRemove(instance_name=NAME, ignore_failures=True)
        world.Run(op)
        CheckNothingLeaks(world)
        assert world.cfg.GetInstanceList() == []


class TestStartup:
    @pytest.mark.parametrize(("call", "lost"), Faults(Start, Create(), Stop()))
    def test_call_fails(self, call, lost):
        world = NewWorld(Create(), Stop())
        err = RunWithFault(world, Start(), call, lost)
        assert err is not None
        assert world.rpc.nodes[NODE2].active == set() or lost
        CheckNothingLeaks(world)
        world.Run(Start())
        assert sorted(world.rpc.nodes[NODE2].running) == [NAME]
        CheckNothingLeaks(world)

    def test_offline_node(self):
        world = NewWorld(Create(), Stop())
        world.Run(opcodes.OpNodeSetParams(node_name=NODE2, offline=True, auto_promote=True))
        before = Objects(world)
        with pytest.raises(errors.OpPrereqError, match="offline"):
            world.Run(Start())
        assert Objects(world) == before


class TestModify:
    ADD = functools.partial(Modify, disks=[["add", {"size": 8}]])
    DROP = functools.partial(Modify, disks=[["remove", {}]])

    @pytest.mark.parametrize(("call", "lost"), Faults(ADD, Create()))
    def test_adding_a_disk_fails(self, call, lost):
        world = NewWorld(Create())
        before = Objects(world), OnNodes(world)
        err = RunWithFault(world, self.ADD(), call, lost)
        assert err is not None
        assert (Objects(world), OnNodes(world)) == before
        CheckNothingLeaks(world)
        world.Run(self.ADD())
        CheckDisksFit(world)

    def test_configuration_can_not_be_written(self):
        world = NewWorld(Create(), Stop())
        for op in (self.ADD(), self.DROP()):
            before = Objects(world), OnNodes(world)
            world.runtime.files.Fail("write", pathutils.CLUSTER_CONF_FILE)
            with pytest.raises(errors.ConfigurationError):
                world.Run(op)
            world.runtime.files.Heal()
            # A disk that the configuration has still has its data, and the other way round.
            assert (Objects(world), OnNodes(world)) == before

    def test_disk_that_exists_is_not_touched(self):
        world = NewWorld(Create())
        path = f"/srv/ganeti/file-storage/{NAME}/disk2"
        world.rpc.nodes[NODE2].disks.add(path)
        with pytest.raises(errors.OpPrereqError, match="disk2"):
            world.Run(self.ADD())
        assert path in world.rpc.nodes[NODE2].disks

    def test_removing_a_disk_on_a_node_that_refuses(self):
        world = NewWorld(Create(), Stop())
        world.rpc.Fail("blockdev_remove", "busy")
        world.Run(self.DROP())
        assert len(world.cfg.GetInstanceInfo(NAME).disks) == 1
        assert any("busy" in line for line in world.log)


class TestGrow:
    GROW = functools.partial(
        opcodes.OpInstanceGrowDisk, instance_name=NAME, disk=0, amount=32, wait_for_sync=True
    )

    @pytest.mark.parametrize(("call", "lost"), Faults(GROW, Create(), Stop()))
    def test_call_fails(self, call, lost):
        world = NewWorld(Create(), Stop())
        RunWithFault(world, self.GROW(), call, lost)
        if call != "blockdev_shutdown":
            assert world.rpc.nodes[NODE2].active == set()
        CheckNothingLeaks(world)
        # What it really has is found out.
        world.Run(opcodes.OpClusterRepairDiskSizes(instances=[NAME]))
        size = world.cfg.GetInstanceInfo(NAME).disks[0].size
        assert size == world.rpc.nodes[NODE2].sizes[f"/srv/ganeti/file-storage/{NAME}/disk0"]


class TestNodeAdd:
    @pytest.mark.parametrize("call", ["version", "node_verify"])
    @pytest.mark.parametrize("readd", [False, True])
    def test_check_fails(self, call, readd):
        world = NewWorld()
        if readd:
            world.Run(opcodes.OpNodeSetParams(node_name=NODE3, offline=True, auto_promote=True))
        before = Objects(world)
        name = NODE3 if readd else NEW_NODE
        with pytest.raises(errors.OpExecError):
            world.rpc.Fail(call)
            world.Run(opcodes.OpNodeAdd(node_name=name, readd=readd))
        world.rpc.Heal()
        # Of a node set up again, only its serial number and time have changed.
        for _, nodes in (before, Objects(world)):
            for obj in nodes.values():
                obj.update(serial_no=0, mtime=0)
        assert Objects(world)[1].keys() == before[1].keys()
        assert world.cfg.GetNodeInfo(NODE3).offline is readd
        assert world.cfg.GetNodeInfo(NODE3).master_candidate is not readd
        CheckNothingLeaks(world)
        world.Run(opcodes.OpNodeAdd(node_name=name, readd=readd))
        assert not world.cfg.GetNodeInfo(name).offline
        CheckNothingLeaks(world)


class TestTogether:
    """Jobs that meet, in virtual time and an order drawn from a seed."""

    @pytest.mark.parametrize("seed", range(8))
    def test_same_name(self, seed):
        """One of two creations wins; the loser leaves nothing and takes nothing away."""
        sim = Simulation(seed)
        outcome = []

        def Run():
            world = fake.World(3, sim.runtime)

            def One(node):
                op = Create(pnode=node, hypervisor="fake")
                op.Validate(True)
                try:
                    mcpu.Processor(world.master, f"job-{node}").ExecOpCode(op)
                except errors.OpPrereqError as err:
                    outcome.append(err.args[1])
                else:
                    outcome.append(node)

            handles = [sim.runtime.threads.start(One, args=(node,)) for node in (NODE2, NODE3)]
            for handle in handles:
                handle.join()
            CheckNothingLeaks(world)
            CheckDisksFit(world)
            assert world.cfg.GetInstanceInfo(NAME).primary_node in outcome

        sim.Run(Run)
        assert len(outcome) == 2
        refused = set(outcome) - {NODE2, NODE3}
        assert refused <= {errors.ECODE_EXISTS, errors.ECODE_FAULT}
        assert len(refused) == 1

    @pytest.mark.parametrize("seed", range(8))
    def test_changes_of_the_cluster(self, seed):
        """None of several changes of the cluster's object is lost, and none fails."""
        sim = Simulation(seed)

        def Run():
            world = fake.World(3, sim.runtime)
            ops = [
                opcodes.OpClusterSetParams(beparams={"memory": 256}),
                opcodes.OpClusterSetParams(beparams={"vcpus": 3}),
                opcodes.OpClusterSetParams(add_uids=[[1000, 1999]]),
                opcodes.OpClusterSetParams(add_uids=[[3000, 3999]]),
                opcodes.OpTagsSet(kind="cluster", name="", tags=["a"]),
                opcodes.OpClusterRedistConf(),
            ]
            assert fake.RunTogether(world, ops) == []
            cluster = world.cfg.GetClusterInfo()
            default = cluster.beparams["default"]
            assert (default["memory"], default["vcpus"]) == (256, 3)
            assert cluster.uid_pool == [[1000, 1999], [3000, 3999]]
            assert cluster.GetTags() == {"a"}

        sim.Run(Run)

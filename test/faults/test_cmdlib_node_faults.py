"""Operations on nodes that fail half way: what they leave, and that the next run can finish.

As in L{test_cmdlib_faults}, each operation is run once to learn which calls it makes to nodes, and
how often it writes the configuration; then once for each of these, failing.
"""

import errno
import functools
import inspect
import os

import pytest

from ganeti import constants, errors, locking, mcpu, opcodes, pathutils, ssh
from ganeti.cmdlib import fake
from ganeti.config import fake as config_fake
from ganeti.runtime.simulation import Simulation

NODES = [config_fake.NodeName(number) for number in range(1, 5)]
MASTER, NODE2, NODE3, NODE4 = NODES
NEW = "node5.example.com"


def _PrepareNames(monkeypatch):
    """Names that resolve, and node daemons that answer, without a network."""
    os.makedirs(os.path.dirname(pathutils.ETC_HOSTS), exist_ok=True)
    ssh.GetUserFiles(constants.GANETI_RUNAS, mkdir=True)
    with open(pathutils.ETC_HOSTS, "w") as fobj:
        for number, name in enumerate([*NODES, NEW], 1):
            fobj.write(f"192.0.2.{number}\t{name}\n")
    monkeypatch.setattr("ganeti.utils.net.TcpPing", lambda *args, **kwargs: True)


@pytest.fixture(autouse=True)
def _Names(monkeypatch):
    _PrepareNames(monkeypatch)


def Add():
    return opcodes.OpNodeAdd(node_name=NEW)


def Readd():
    return opcodes.OpNodeAdd(node_name=NODE3, readd=True)


def Remove():
    return opcodes.OpNodeRemove(node_name=NODE3)


def Modify(name=NODE3, **values):
    return opcodes.OpNodeSetParams(node_name=name, **values)


#: Name -> (what was before, the operation). Three candidates are wanted; the fourth node is none.
CASES = {
    "add": ([], Add),
    "readd-candidate": ([], Readd),
    "readd-offline": ([Modify(offline=True, auto_promote=True)], Readd),
    "readd-drained": ([Modify(drained=True, auto_promote=True)], Readd),
    "remove": ([], Remove),
    "remove-offline": ([Modify(offline=True, auto_promote=True)], Remove),
    "offline": ([], lambda: Modify(offline=True, auto_promote=True)),
    "drain": ([], lambda: Modify(drained=True, auto_promote=True)),
    "demote": ([], lambda: Modify(master_candidate=False, auto_promote=True)),
    "promote": ([], lambda: Modify(NODE4, master_candidate=True)),
    "online": (
        [Modify(offline=True, auto_promote=True)],
        lambda: Modify(offline=False),
    ),
    "undrain": (
        [Modify(drained=True, auto_promote=True)],
        lambda: Modify(drained=False),
    ),
    "offline-to-drained": (
        [Modify(offline=True, auto_promote=True)],
        lambda: Modify(drained=True),
    ),
}


def InSimulation(fn):
    """Run it in virtual time: its first argument becomes C{before -> world}."""

    @functools.wraps(fn)
    def Wrapped(*args, **kwargs):
        sim = Simulation(0)
        return sim.Run(lambda: fn(*args, **kwargs, new_world=lambda b: NewWorld(sim.runtime, b)))

    # The fixture is not pytest's.
    signature = inspect.signature(fn)
    names = [item for name, item in signature.parameters.items() if name != "new_world"]
    Wrapped.__signature__ = signature.replace(parameters=names)
    return Wrapped


def NewWorld(rt, before):
    """Four nodes, three of which are master candidates; hosts file and SSH keys are ours."""
    world = fake.World(4, rt)
    cluster = world.cfg.GetClusterInfo()
    cluster.modify_ssh_setup = cluster.modify_etc_hosts = True
    cluster.candidate_pool_size = 3
    world.cfg.Update(cluster, None)
    node = world.cfg.GetNodeInfo(NODE4)
    node.master_candidate = False
    world.cfg.Update(node, None)
    world.master.jobqueue.AddNode(node)
    world.runtime.files.write(pathutils.RAPI_USERS_FILE, b"x")
    for op in before:
        world.Run(op)
    return world


def Roles(world):
    """What the operations are about."""
    return {
        name: (bool(node.master_candidate), bool(node.offline), bool(node.drained), node.primary_ip)
        for name, node in world.cfg.GetAllNodesInfo().items()
    }


def CheckAgreement(world):
    """Configuration, locks, the queue's copies, ssconf and the hosts file say the same."""
    cfg, glm = world.cfg, world.master.glm
    nodes = cfg.GetAllNodesInfo()
    assert sorted(glm._names(locking.LEVEL_NODE)) == sorted(nodes)
    for info in glm.GetLockInfo():
        assert not info["owners"], info
        assert not info["pending"], info
    reserved = {
        key: value
        for key, value in cfg.GetStatistics().items()
        if key.startswith("reserved_") and value
    }
    assert not reserved
    candidates = {name for name, node in nodes.items() if node.master_candidate}
    assert world.master.jobqueue._replicator.GetTargets() == {
        name: nodes[name].primary_ip for name in candidates - {MASTER}
    }
    for node in nodes.values():
        assert [node.master_candidate, node.offline, node.drained].count(True) <= 1
    assert cfg.VerifyConfig() == []
    stats = cfg.GetMasterCandidateStats()
    assert stats.now >= stats.should
    distributor = cfg._engine._distributor
    for name, node in nodes.items():
        if not node.offline:
            values = distributor.ssconf[name]
            assert values["node_list"].split() == sorted(nodes)
            assert set(values["master_candidates"].split()) == candidates
            offline = {name for name, node in nodes.items() if node.offline}
            assert set(values["offline_nodes"].split()) == offline
    with open(pathutils.ETC_HOSTS) as fobj:
        known = fobj.read()
    # Nobody is entered before it is a node.
    assert nodes.keys() <= set(known.split())


@InSimulation
def _Explore(case, new_world):
    """An operation without faults: the calls that it makes, how often it writes the configuration,
    and what it makes of the nodes.
    """
    before, make_op = CASES[case]
    with pytest.MonkeyPatch.context() as monkeypatch:
        _PrepareNames(monkeypatch)
        world = new_world(before)
        world.rpc.calls.clear()
        writes = world.cfg.GetStatistics()["writes"]
        world.Run(make_op())
        calls = sorted({call for call, _ in world.rpc.calls})
        return calls, world.cfg.GetStatistics()["writes"] - writes, Roles(world)


FOUND = {case: _Explore(case) for case in CASES}
FAULTS = [
    pytest.param(case, call, lost, id=f"{case}-{call}-{'lost' if lost else 'refused'}")
    for case, (calls, _, _) in FOUND.items()
    for call in calls
    for lost in (False, True)
]
WRITES = [(case, n) for case, (_, writes, _) in FOUND.items() for n in range(1, writes + 1)]


def Run(world, op):
    """What it raised, or None."""
    try:
        world.Run(op)
    except errors.GenericError as err:
        return err
    return None


def CheckFinished(world, case):
    """The same again, where that makes sense, ends in what a run without faults does."""
    _, make_op = CASES[case]
    after = Roles(world)
    again = Run(world, make_op())
    CheckAgreement(world)
    if again is not None:
        # Nothing is left to be done: it was done the first time.
        assert isinstance(again, errors.OpPrereqError), again
        assert again.args[1] in (errors.ECODE_EXISTS, errors.ECODE_NOENT), again
        assert Roles(world) == after
    flawless = FOUND[case][2]
    assert Roles(world).keys() == flawless.keys()
    name = make_op().node_name
    assert Roles(world).get(name) == flawless.get(name)


class TestCalls:
    """One call of all is refused, or done with its answer lost."""

    @pytest.mark.parametrize(("case", "call", "lost"), FAULTS)
    @InSimulation
    def test_call_fails(self, case, call, lost, new_world):
        before, make_op = CASES[case]
        world = new_world(before)
        was = Roles(world)
        world.rpc.Fail(call, "it broke", lost=lost)
        err = Run(world, make_op())
        world.rpc.Heal()
        if err is not None:
            assert "it broke" in str(err)
            assert Roles(world) == was
        CheckAgreement(world)
        CheckFinished(world, case)


class TestWrites:
    """The configuration can not be written."""

    @pytest.mark.parametrize(("case", "number"), WRITES)
    @InSimulation
    def test_write_fails(self, case, number, monkeypatch, new_world):
        before, make_op = CASES[case]
        world = new_world(before)
        was = Roles(world)
        write = type(world.cfg._engine)._WriteFile
        left = [number]

        def Write(engine, *args):
            left[0] -= 1
            if left[0] == 0:
                raise errors.ConfigurationError("no space")
            return write(engine, *args)

        with monkeypatch.context() as patch:
            patch.setattr(type(world.cfg._engine), "_WriteFile", Write)
            err = Run(world, make_op())
        assert left[0] <= 0
        assert "no space" in str(err)
        name = make_op().node_name
        assert Roles(world).get(name) == was.get(name)
        CheckAgreement(world)
        CheckFinished(world, case)


class TestSilence:
    """A node does not answer at all."""

    @pytest.mark.parametrize("case", CASES)
    @pytest.mark.parametrize("silent", [NODE2, NODE3, NODE4, NEW])
    @InSimulation
    def test_node_is_dead(self, case, silent, new_world):
        before, make_op = CASES[case]
        world = new_world(before)
        was = Roles(world)
        world.rpc.Cut(silent)
        distributor = world.cfg._engine._distributor
        distributor.Cut(silent)
        err = Run(world, make_op())
        if err is not None:
            assert Roles(world) == was
        world.rpc.Mend(silent)
        distributor.Mend(silent)
        world.cfg.DistributeStale()
        CheckAgreement(world)
        CheckFinished(world, case)


class TestAdd:
    """What a node that does not become one has got is taken back."""

    @pytest.mark.parametrize("what", ["configuration", "hosts"])
    @InSimulation
    def test_nothing_is_left(self, what, monkeypatch, new_world):
        world = new_world([])
        with open(pathutils.ETC_HOSTS) as fobj:
            hosts = fobj.read()

        def Break(*args):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            if what == "configuration":
                world.runtime.files.Fail("write", pathutils.CLUSTER_CONF_FILE, times=1)
            else:
                patch.setattr("ganeti.utils.net.SetEtcHostsEntry", Break)
            assert isinstance(Run(world, Add()), (errors.ConfigurationError, errors.OpExecError))
        world.runtime.files.Heal()
        assert world.rpc.nodes[NEW].left
        with open(pathutils.ETC_HOSTS) as fobj:
            assert fobj.read() == hosts
        CheckAgreement(world)
        CheckFinished(world, "add")

    @InSimulation
    def test_a_node_is_not_thrown_out_again(self, monkeypatch, new_world):
        """The queue's copy fails: it is in the configuration, and stays."""
        world = new_world([])
        jobqueue = type(world.master.jobqueue)

        def Break(*args):
            raise errors.JobQueueError("no space")

        with monkeypatch.context() as patch:
            patch.setattr(jobqueue, "AddNode", Break)
            assert isinstance(Run(world, Add()), errors.JobQueueError)
        assert not world.rpc.nodes[NEW].left
        # Setting it up again does the rest.
        world.Run(opcodes.OpNodeAdd(node_name=NEW, readd=True))
        CheckAgreement(world)

    @InSimulation
    def test_removed_though_the_hosts_file_is_not_written(self, monkeypatch, new_world):
        world = new_world([])

        def Break(*args):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("ganeti.utils.net.RemoveEtcHostsEntry", Break)
        world.Run(Remove())
        assert any("by hand" in line for line in world.log)
        CheckAgreement(world)


class TestTogether:
    """Jobs that meet, in virtual time and an order drawn from a seed."""

    @pytest.mark.parametrize("seed", range(8))
    @pytest.mark.parametrize("flag", ["offline", "drained", "demoted"])
    def test_two_candidates_leave(self, seed, flag):
        """Together they would be too many: the pool never gets too small."""
        change = {"master_candidate": False} if flag == "demoted" else {flag: True}
        sim = Simulation(seed)

        def Go():
            world = NewWorld(sim.runtime, [])
            cluster = world.cfg.GetClusterInfo()
            cluster.candidate_pool_size = 2
            world.cfg.Update(cluster, None)
            refused = []

            def One(name):
                op = Modify(name, **change)
                op.Validate(True)
                try:
                    mcpu.Processor(world.master, f"job-{name}").ExecOpCode(op)
                except errors.OpPrereqError as err:
                    refused.append(err.args)

            handles = [sim.runtime.threads.start(One, args=(name,)) for name in (NODE2, NODE3)]
            for handle in handles:
                handle.join()
            assert refused
            assert all("--auto-promote" in text for text, _ in refused)
            CheckAgreement(world)

        sim.Run(Go)

    @pytest.mark.parametrize("seed", range(8))
    def test_add_remove_and_modify(self, seed):
        sim = Simulation(seed)

        def Go():
            world = NewWorld(sim.runtime, [])
            ops = [
                Add(),
                Remove(),
                Modify(NODE2, offline=True, auto_promote=True),
                Modify(NODE4, master_candidate=True),
            ]
            assert fake.RunTogether(world, ops) == []
            assert sorted(world.cfg.GetNodeList()) == [MASTER, NODE2, NODE4, NEW]
            CheckAgreement(world)

        sim.Run(Go)

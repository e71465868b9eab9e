"""JQ5: the start of the master daemon; its context."""

from __future__ import annotations

import argparse
import asyncio
import io
import types
from concurrent.futures import ThreadPoolExecutor

import pytest

from ganeti import constants, errors, locking, ssconf, voting
from ganeti.config import fake as config_fake
from ganeti.jqueue import fake
from ganeti.runtime.simulation import Simulation
from ganeti.server import masterd


class _Config:
    def __init__(self, master):
        self._master = master

    def GetMasterNode(self):
        return self._master

    def GetNodeList(self):
        return ["node1", "node2"]


def Check(
    monkeypatch,
    args=(),
    master=True,
    agreed=True,
    typed=None,
    config_master="node1",
    **options,
):
    """Run the check function; its exit code (None: go on)."""

    def _CheckMaster(debug):
        if not master:
            raise SystemExit(constants.EXIT_NOTMASTER)

    def _Agree(node_list, myself):
        assert (node_list, myself) == (["node1", "node2"], "node1")
        if isinstance(agreed, Exception):
            raise agreed
        return agreed

    monkeypatch.setattr(ssconf, "CheckMaster", _CheckMaster)
    monkeypatch.setattr(ssconf.SimpleStore, "GetMasterNode", lambda _: "node1")
    monkeypatch.setattr(masterd.config, "ConfigWriter", lambda offline: _Config(config_master))
    monkeypatch.setattr(masterd, "CheckAgreement", _Agree)
    monkeypatch.setattr("sys.stdin", io.StringIO(typed or ""))
    values = {"debug": False, "no_voting": False, "yes_do_it": False, **options}
    return masterd.CheckMasterd(argparse.Namespace(**values), list(args))


class TestCheck:
    """JQ5: when the daemon refuses to start."""

    def test_elected(self, monkeypatch):
        assert Check(monkeypatch) is None

    def test_voted_down(self, monkeypatch):
        assert Check(monkeypatch, agreed=False) == constants.EXIT_FAILURE

    def test_vote_fails(self, monkeypatch, capsys):
        err = errors.ConfigurationError("config.data is broken")
        assert Check(monkeypatch, agreed=err) == constants.EXIT_FAILURE
        assert "config.data is broken" in capsys.readouterr().err

    @pytest.mark.parametrize("no_voting", [False, True])
    def test_configuration_of_another_master(self, monkeypatch, capsys, no_voting):
        """It would tell all nodes so, and then nobody were the master."""
        code = Check(monkeypatch, config_master="node2", no_voting=no_voting, yes_do_it=True)
        assert code == constants.EXIT_FAILURE
        assert "says that node2 is" in capsys.readouterr().err

    def test_arguments(self, monkeypatch):
        assert Check(monkeypatch, args=["x"]) == constants.EXIT_FAILURE

    def test_not_the_master(self, monkeypatch):
        with pytest.raises(SystemExit) as info:
            Check(monkeypatch, master=False, no_voting=True, yes_do_it=True)
        assert info.value.code == constants.EXIT_NOTMASTER

    @pytest.mark.parametrize(
        ("typed", "yes_do_it", "code"),
        [
            ("YES\n", False, None),
            ("yes\n", False, constants.EXIT_FAILURE),
            ("", False, constants.EXIT_FAILURE),
            ("", True, None),
        ],
    )
    def test_no_voting(self, monkeypatch, typed, yes_do_it, code):
        result = Check(monkeypatch, typed=typed, agreed=False, no_voting=True, yes_do_it=yes_do_it)
        assert result == code

    def test_yes_do_it_alone_does_not_skip_the_vote(self, monkeypatch):
        assert Check(monkeypatch, agreed=False, yes_do_it=True) == constants.EXIT_FAILURE


class TestVote:
    def test_reason_is_shown(self, monkeypatch, capsys):
        decision = voting.Decision(voting.Outcome.REFUSED, "node2 is the master")
        monkeypatch.setattr(voting, "CheckAgreement", lambda nodes, myself: decision)
        monkeypatch.setattr(masterd, "rpc", types.SimpleNamespace(Init=_Nothing, Shutdown=_Nothing))
        assert masterd._Vote(["node1", "node2"], "node1") is False
        assert "node2 is the master" in capsys.readouterr().err


def _Nothing():
    pass


class Context(masterd.MasterContext):
    """The real context over fakes."""

    __slots__ = ()

    def __init__(self, rt):
        self.runtime = rt
        self.cfg = config_fake.NewWriter(rt, 2)
        self.rpc = fake.FakeRpc()
        self.glm = locking.GanetiLockManager(self.cfg.GetNodeList(), [], runtime=rt)
        self.jobqueue = fake.JobQueue(self, 2, fake.FakeLock)


class TestContext:
    def test_nodes_come_and_go(self):
        sim = Simulation(1)

        def _Work():
            context = Context(sim.runtime)
            node = config_fake.NewNode(3, master_candidate=True)
            context.glm.acquire(locking.LEVEL_CLUSTER, locking.BGL)
            with pytest.raises(errors.ProgrammerError):
                context.AddNode(node, None)
            context.AddNode(node, "1")
            assert context.cfg.GetNodeInfo(node.name) is not None
            assert node.name in context.jobqueue._replicator.GetTargets()
            assert node.name in context.glm._names(locking.LEVEL_NODE)
            context.ReaddNode(context.cfg.GetNodeInfo(node.name))
            assert context.rpc.calls.count(("jobqueue_purge", node.name)) == 2
            context.RemoveNode(node.name)
            assert context.cfg.GetNodeInfo(node.name) is None
            assert node.name not in context.jobqueue._replicator.GetTargets()
            assert node.name not in context.glm._names(locking.LEVEL_NODE)
            context.glm.release(locking.LEVEL_CLUSTER)
            context.jobqueue.Shutdown()

        sim.Run(_Work)

    def test_immutable(self):
        sim = Simulation(1)

        def _Work():
            context = Context(sim.runtime)
            with pytest.raises(AttributeError):
                context.cfg = None
            with pytest.raises(AttributeError):
                context.other = None
            context.jobqueue.Shutdown()

        sim.Run(_Work)


class TestStaleNodes:
    """Nodes that were away get what they missed, whatever happens in between."""

    def test_goes_on_after_failures(self, monkeypatch):
        monkeypatch.setattr(masterd, "_STALE_NODES_INTERVAL", 0.0)
        answers = iter([OSError("config.data is away"), {"node2"}, KeyError("bug"), set()])
        done = []

        def _DistributeStale():
            answer = next(answers, None)
            if answer is None:
                done.append(True)
                return set()
            if isinstance(answer, Exception):
                raise answer
            return answer

        async def _Main():
            context = types.SimpleNamespace(
                cfg=types.SimpleNamespace(DistributeStale=_DistributeStale)
            )
            with ThreadPoolExecutor(1) as executor:
                duty = asyncio.create_task(masterd._ServeStaleNodes(context, executor))
                while not done and not duty.done():
                    await asyncio.sleep(0)
                duty.cancel()

        asyncio.run(asyncio.wait_for(_Main(), 10))
        assert done

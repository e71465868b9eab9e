"""JQ2: copies of the queue on all master candidates; none of them can block it."""

from __future__ import annotations

import dataclasses
import functools

import pytest

from ganeti import jstore, opcodes, pathutils, rpc
from ganeti.config import fake as config_fake
from ganeti.jqueue import fake, replication
from ganeti.runtime.simulation import Simulation

SEEDS = range(4)
NODES = ["node2.example.com", "node3.example.com"]


def Simulated(fn):
    """Decorator: run the test with a master of three nodes in the simulation."""

    @pytest.mark.parametrize("seed", SEEDS)
    @functools.wraps(fn)
    def _Test(self, seed):
        sim = Simulation(seed)

        def _Run():
            rpc = SlowRpc(sim.runtime)
            master = fake.NewMaster(sim.runtime, nodes=3, rpc_=rpc)
            fn(self, master)
            master.jobqueue.Shutdown()

        sim.Run(_Run)

    del _Test.__wrapped__
    return _Test


class SlowRpc(fake.FakeRpc):
    """Nodes that take time: a cut one until the connect time-out, others as told."""

    def __init__(self, rt):
        super().__init__()
        self._rt = rt
        self.delays = {}

    def call_jobqueue_update_many(self, node_list, address_list, files):
        (name,) = node_list
        self._rt.clock.sleep(5.0 if name in self._cut else self.delays.get(name, 0.001))
        return super().call_jobqueue_update_many(node_list, address_list, files)


def Job(duration=0.0):
    return [opcodes.OpTestDelay(duration=duration, on_master=True, on_nodes=[])]


def Submit(master, duration=0.0):
    """Submit a job; its id and how long that took."""
    before = master.runtime.clock.monotonic()
    job_id = master.jobqueue.SubmitJob(Job(duration))
    return job_id, master.runtime.clock.monotonic() - before


def Settle(master):
    """Let everything be written and sent."""
    master.runtime.clock.sleep(60.0)


def CheckSame(master, nodes=NODES):
    """The nodes have what the master has."""
    files = master.runtime.files
    ids = jstore.ListJobIds(master.runtime)
    for node in nodes:
        copy = master.rpc.files[node]
        for job_id in ids:
            path = jstore.GetJobPath(job_id)
            assert copy[path] == files.read(path)
        assert {path for path in copy if "/queue/job-" in path} == {
            jstore.GetJobPath(job_id) for job_id in ids
        }


class TestCopies:
    @Simulated
    def test_all_get_everything(self, master):
        for _ in range(3):
            Submit(master)
        Settle(master)
        CheckSame(master)
        for node in NODES:
            assert master.rpc.files[node][pathutils.JOB_QUEUE_SERIAL_FILE] == b"3\n"

    @Simulated
    def test_one_has_it_when_the_id_is_returned(self, master):
        job_id, _ = Submit(master, 100.0)
        path = jstore.GetJobPath(int(job_id))
        assert any(path in master.rpc.files.get(node, {}) for node in NODES)

    @Simulated
    def test_archiving(self, master):
        job_id, _ = Submit(master)
        Settle(master)
        assert master.jobqueue.ArchiveJob(job_id)
        Settle(master)
        CheckSame(master)
        for node in NODES:
            assert jstore.GetArchivedJobPath(1) in master.rpc.files[node]

    @Simulated
    def test_slow_candidate_does_not_set_the_pace(self, master):
        master.rpc.delays[NODES[0]] = 3.0
        for _ in range(5):
            assert Submit(master)[1] < 1.0
        Settle(master)
        CheckSame(master)

    @Simulated
    def test_dead_candidate(self, master):
        """The queue waits for it once at most; it gets all it missed when it is back."""
        master.rpc.Cut(NODES[0])
        for _ in range(5):
            assert Submit(master)[1] < 1.0
        Settle(master)
        CheckSame(master, NODES[1:])
        assert master.jobqueue.GetStatistics()["candidates"][NODES[0]]["up"] is False
        master.rpc.Mend(NODES[0])
        Settle(master)
        CheckSame(master)

    @Simulated
    def test_all_candidates_dead(self, master):
        """Only the first submission finds out the hard way."""
        for node in NODES:
            master.rpc.Cut(node)
        assert Submit(master)[1] <= 6.0
        for _ in range(5):
            assert Submit(master)[1] < 1.0
        for node in NODES:
            master.rpc.Mend(node)
        Settle(master)
        CheckSame(master)

    @Simulated
    def test_hanging_candidates(self, master):
        """They never answer, and do not fail either: patience has an end."""
        for node in NODES:
            master.rpc.delays[node] = 50.0
        _, took = Submit(master)
        assert took <= 7.0
        # And is lost once only.
        for _ in range(5):
            assert Submit(master)[1] < 1.0
        for node in NODES:
            master.rpc.delays[node] = 0.0
        master.runtime.clock.sleep(500.0)
        CheckSame(master)


class TestTargets:
    @Simulated
    def test_new_candidate_gets_all(self, master):
        for _ in range(3):
            Submit(master)
        Settle(master)
        node = config_fake.NewNode(4, master_candidate=True)
        master.jobqueue.AddNode(node)
        assert ("jobqueue_purge", node.name) in master.rpc.calls
        CheckSame(master, [node.name])
        Submit(master)
        Settle(master)
        CheckSame(master, [*NODES, node.name])

    @Simulated
    def test_demoted(self, master):
        Submit(master)
        Settle(master)
        node = master.cfg.GetNodeInfo(NODES[0])
        node.master_candidate = False
        master.jobqueue.AddNode(node)
        assert master.rpc.files[NODES[0]] == {}
        Submit(master)
        Settle(master)
        assert master.rpc.files[NODES[0]] == {}
        CheckSame(master, NODES[1:])

    @Simulated
    def test_removed(self, master):
        master.jobqueue.RemoveNode(NODES[0])
        Submit(master)
        Settle(master)
        # Nothing but what it may have got at the start.
        assert jstore.GetJobPath(1) not in master.rpc.files.get(NODES[0], {})

    @Simulated
    def test_new_but_dead(self, master):
        master.rpc.Cut("node4.example.com")
        Submit(master)
        before = master.runtime.clock.monotonic()
        master.jobqueue.AddNode(config_fake.NewNode(4, master_candidate=True))
        assert master.runtime.clock.monotonic() - before <= 10.0
        master.rpc.Mend("node4.example.com")
        Settle(master)
        CheckSame(master, ["node4.example.com"])

    @Simulated
    def test_the_master_is_no_target(self, master):
        from ganeti import errors

        with pytest.raises(errors.ProgrammerError):
            master.jobqueue.AddNode(master.cfg.GetNodeInfo("node1.example.com"))


class TestFirst:
    """JQ2: one copy makes a change safe; all others get as much in fewer calls."""

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("cut", [False, True])
    def test_others_gather(self, seed, cut):
        sim = Simulation(seed)
        rpc = fake.FakeRpc()

        def _Run():
            rep = replication.Replicator(rpc, sim.runtime)
            for name in ("a", "b"):
                rep.AddTarget(name, "192.0.2.9")
            sim.runtime.clock.sleep(1.0)
            rpc.copies.clear()
            if cut:
                rpc.Cut("a")
            safe = []
            for number in range(40):
                rep.Submit([replication.Update(f"f{number}", b"x")], lambda: safe.append(1))
                sim.runtime.clock.sleep(0.01)
            assert len(safe) >= 25
            sim.runtime.clock.sleep(1.0)
            assert len(safe) == 40
            calls = {name: sum(who == name for _, who in rpc.copies) for name in ("a", "b")}
            if cut:
                assert calls["b"] >= 25
            else:
                assert calls["a"] >= 35
                assert calls["b"] <= 8
            assert len(rpc.files["b"]) == 40
            rep.Shutdown()

        sim.Run(_Run)


class TestOrder:
    @pytest.mark.parametrize("seed", range(5))
    def test_old_call_does_not_come_after_new_ones(self, seed):
        """A node is a target again while the last call of its former life is still under way."""
        sim = Simulation(seed)

        class _Slow(fake.FakeRpc):
            def call_jobqueue_update_many(self, node_list, address_list, files):
                sim.runtime.clock.sleep(5.0 if files == [("a", b"old")] else 0.1)
                return super().call_jobqueue_update_many(node_list, address_list, files)

        def _Run():
            rep = replication.Replicator(_Slow(), sim.runtime)
            rep.AddTarget("n", "192.0.2.9", [replication.Update("a", b"old")])
            sim.runtime.clock.sleep(1.0)
            rep.RemoveTarget("n")
            rep.AddTarget("n", "192.0.2.9", [replication.Update("a", b"new")])
            sim.runtime.clock.sleep(30.0)
            assert rep._rpc.files["n"] == {"a": b"new"}
            # Removing can wait for what is under way.
            rep.Submit([replication.Update("a", b"old")])
            sim.runtime.clock.sleep(1.0)
            rep.RemoveTarget("n", 10.0)
            assert rep._rpc.files["n"] == {"a": b"old"}
            rep.Shutdown()

        sim.Run(_Run)

    def test_ended_jobs_at_the_start(self):
        """JQ2: what a candidate missed under an earlier master daemon comes when there is time."""
        sim = Simulation(2)
        rt = sim.runtime

        def _Submit(master, count):
            ids = [
                job_id
                for _, job_id in master.jobqueue.SubmitManyJobs([Job() for _ in range(count)])
            ]
            rt.clock.sleep(10.0)
            return ids

        def _Run():
            first = fake.NewMaster(rt, nodes=2)
            ids = _Submit(first, 30)
            first.rpc.Cut(NODES[0])
            late = _Submit(first, 1)[0]
            assert first.jobqueue.ArchiveJob(ids[0])
            first.jobqueue.Shutdown()
            files = first.rpc.files[NODES[0]]
            assert jstore.GetJobPath(int(late)) not in files
            first.rpc.Mend(NODES[0])
            again = fake.NewMaster(dataclasses.replace(rt), nodes=2, rpc_=first.rpc)
            rt.clock.sleep(10.0)
            assert b"success" in files[jstore.GetJobPath(int(late))]
            assert jstore.GetJobPath(int(ids[0])) not in files
            assert jstore.GetArchivedJobPath(int(ids[0])) in files
            assert again.jobqueue.GetStatistics()["candidates"][NODES[0]]["pending"] == 0
            again.jobqueue.Shutdown()

        sim.Run(_Run)

    def test_background_gives_way(self):
        """What happens now goes before what happened long ago, and is not undone by it."""
        sim = Simulation(4)
        sent = []

        class _Slow(fake.FakeRpc):
            def call_jobqueue_update_many(self, node_list, address_list, files):
                sim.runtime.clock.sleep(0.1)
                sent.extend(files)
                return super().call_jobqueue_update_many(node_list, address_list, files)

        def _Run():
            rep = replication.Replicator(_Slow(), sim.runtime)
            old = {f"job-{number}": lambda: b"old" for number in range(100)}
            rep.AddTarget("n", "192.0.2.9", background=old)
            sim.runtime.clock.sleep(0.05)
            rep.Submit([replication.Update("job-99", b"new"), replication.Rename("job-98", "a-98")])
            sim.runtime.clock.sleep(30.0)
            assert sent.index(("job-99", b"new")) <= 10
            assert ("job-99", b"old") not in sent
            assert ("job-98", b"old") not in sent
            # What it lacks it gets where it is now.
            assert ("a-98", b"old") in sent
            assert len(sent) == 100
            rep.Shutdown()

        sim.Run(_Run)

    def test_refused_rename_is_tried_again(self):
        sim = Simulation(1)
        refusals = [2]

        class _Refusing(fake.FakeRpc):
            def call_jobqueue_rename(self, node_list, address_list, rename):
                if refusals[0] > 0:
                    refusals[0] -= 1
                    return {"n": rpc.RpcResult([False, "disk full"], call="x", node="n")}
                return super().call_jobqueue_rename(node_list, address_list, rename)

        def _Run():
            rep = replication.Replicator(_Refusing(), sim.runtime)
            rep.AddTarget("n", "192.0.2.9", [replication.Update("a", b"1")])
            rep.Submit([replication.Rename("a", "archive/a")])
            sim.runtime.clock.sleep(30.0)
            assert rep._rpc.files["n"] == {"archive/a": b"1"}
            rep.Shutdown()

        sim.Run(_Run)

    def test_renames_stay_behind_updates(self):
        """A candidate that was away gets everything in the order in which it happened."""
        sim = Simulation(3)
        rpc = fake.FakeRpc()

        def _Run():
            rep = replication.Replicator(rpc, sim.runtime)
            rpc.Cut("n")
            rep.AddTarget("n", "192.0.2.9")
            rep.Submit([replication.Update("a", b"1")])
            sim.runtime.clock.sleep(0.1)
            rep.Submit([replication.Update("a", b"2"), replication.Update("b", b"1")])
            rep.Submit([replication.Rename("a", "archive/a"), replication.Rename("x", "y")])
            rpc.Mend("n")
            sim.runtime.clock.sleep(40.0)
            assert rpc.files["n"] == {"archive/a": b"2", "b": b"1"}
            # Only the last content of a file was sent.
            assert [call for call, _ in rpc.copies].count("jobqueue_update_many") <= 5
            rep.Shutdown()

        sim.Run(_Run)

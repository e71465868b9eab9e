"""BASE3: tags, and the units for tests."""

from __future__ import annotations

import pytest

from ganeti import errors, mcpu, opcodes
from ganeti.cmdlib import tags
from ganeti.jqueue import fake
from ganeti.runtime.simulation import Simulation

INST = "inst1.example.com"
NODE = "node1.example.com"


def WithMaster(fn):
    sim = Simulation(1)

    def _Work():
        master = fake.NewMaster(sim.runtime, nodes=2, instances=[INST])
        result = fn(master)
        master.jobqueue.Shutdown()
        return result

    return sim.Run(_Work)


def Exec(master, op):
    return mcpu.Processor(master, "1").ExecOpCode(op)


def Refused(master, op, code):
    with pytest.raises(errors.OpPrereqError) as info:
        Exec(master, op)
    assert info.value.args[1] == code


OBJECTS = [("cluster", ""), ("node", "node1"), ("instance", "inst1")]


class TestTags:
    @pytest.mark.parametrize(("kind", "name"), OBJECTS)
    def test_life(self, kind, name):
        def _Work(master):
            where = {"kind": kind, "name": name}
            assert Exec(master, opcodes.OpTagsGet(**where)) == []
            Exec(master, opcodes.OpTagsSet(**where, tags=["b", "a:1"]))
            # Once more is no error.
            Exec(master, opcodes.OpTagsSet(**where, tags=["b"]))
            assert sorted(Exec(master, opcodes.OpTagsGet(**where))) == ["a:1", "b"]
            Refused(master, opcodes.OpTagsDel(**where, tags=["b", "z"]), errors.ECODE_NOENT)
            Exec(master, opcodes.OpTagsDel(**where, tags=["b", "b"]))
            assert Exec(master, opcodes.OpTagsGet(**where)) == ["a:1"]

        WithMaster(_Work)

    def test_wrong(self):
        def _Work(master):
            Refused(master, opcodes.OpTagsGet(kind="odd", name="x"), errors.ECODE_INVAL)
            Refused(master, opcodes.OpTagsGet(kind="node", name="x"), errors.ECODE_NOENT)
            for tag in ("", "a b", "x" * 129, "é"):
                with pytest.raises(errors.TagError):
                    Exec(master, opcodes.OpTagsSet(kind="cluster", name="", tags=[tag]))

        WithMaster(_Work)

    def test_too_many(self):
        def _Work(master):
            many = [f"t{number}" for number in range(4096)]
            Exec(master, opcodes.OpTagsSet(kind="node", name="node2", tags=many))
            with pytest.raises(errors.OpExecError):
                Exec(master, opcodes.OpTagsSet(kind="node", name="node2", tags=["one-more"]))
            assert len(Exec(master, opcodes.OpTagsGet(kind="node", name="node2"))) == 4096

        WithMaster(_Work)

    @pytest.mark.parametrize("seed", range(4))
    def test_cluster_at_once(self, seed):
        """No lock protects the cluster's tags; no change may get lost, and none may fail."""
        sim = Simulation(seed)

        def _Work():
            master = fake.NewMaster(sim.runtime, nodes=2, num_workers=6)
            ids = [
                master.jobqueue.SubmitJob(
                    [opcodes.OpTagsSet(kind="cluster", name="", tags=[f"t{number}"])]
                )
                for number in range(6)
            ]
            sim.runtime.clock.sleep(100.0)
            assert master.jobqueue.QueryJobs(ids, ["status"]) == [["success"]] * 6
            assert len(master.cfg.GetClusterInfo().GetTags()) == 6
            master.jobqueue.Shutdown()

        sim.Run(_Work)

    def test_search(self):
        def _Work(master):
            for kind, name in OBJECTS:
                Exec(master, opcodes.OpTagsSet(kind=kind, name=name, tags=["x:1", "y"]))
            found = Exec(master, opcodes.OpTagsSearch(pattern=":1$"))
            assert found == [
                ["/cluster", "x:1"],
                [f"/instances/{INST}", "x:1"],
                [f"/nodes/{NODE}", "x:1"],
            ]
            assert Exec(master, opcodes.OpTagsSearch(pattern="nosuch")) == []
            Refused(master, opcodes.OpTagsSearch(pattern="["), errors.ECODE_INVAL)
            Refused(master, opcodes.OpTagsSearch(pattern="(a+)+$"), errors.ECODE_INVAL)

        WithMaster(_Work)

    @pytest.mark.parametrize(
        "pattern", ["(a+)+", "(a|a)*", "((a*))*x", "(?:a{2,}b)+", "(x(a|b))+", "a" * 2000]
    )
    def test_costly(self, pattern):
        assert tags.IsCostlyPattern(pattern)

    @pytest.mark.parametrize(
        "pattern",
        [
            "a+b*c{2}",
            "(ab)+",
            r"\(a+\)+",
            "[(a+)]+",
            "(a|b)x",
            "^os:(debian|fedora)$",
            "(a+)x*",
            "",
        ],
    )
    def test_cheap(self, pattern):
        assert not tags.IsCostlyPattern(pattern)


class TestDelay:
    def test_here_and_there(self):
        def _Work(master):
            op = opcodes.OpTestDelay(duration=2.25, on_master=True, on_nodes=["node2", "node1"])
            assert Exec(master, op) is None
            assert op.on_nodes == ["node1.example.com", "node2.example.com"]
            assert master.rpc.executed == [2.25]
            return master.runtime.clock.monotonic()

        assert WithMaster(_Work) == 2.25

    def test_failures(self):
        def _Work(master):
            with pytest.raises(errors.OpExecError, match="negative"):
                Exec(master, opcodes.OpTestDelay(duration=-1, on_master=True, on_nodes=[]))
            master.rpc.Cut("node2.example.com")
            with pytest.raises(errors.OpExecError, match="node2"):
                Exec(master, opcodes.OpTestDelay(duration=1, on_master=False, on_nodes=["node2"]))
            Refused(
                master,
                opcodes.OpTestDelay(duration=1, on_master=False, on_nodes="node2"),
                errors.ECODE_INVAL,
            )
            Refused(
                master,
                opcodes.OpTestDelay(duration=1, on_master=False, on_nodes=["x"]),
                errors.ECODE_NOENT,
            )

        WithMaster(_Work)

"""Who is said to have changed the configuration: the job and its opcode, or nobody."""

import pytest

from ganeti import constants, errors, locking, mcpu, opcodes
from ganeti.cmdlib import fake as cmdlib_fake
from ganeti.config import fake as config_fake
from ganeti.jqueue import fake
from ganeti.runtime.simulation import Simulation

_SET, _DEL = opcodes.OpTagsSet, opcodes.OpTagsDel


def _Op(cls, *tags):
    return cls(kind=constants.TAG_CLUSTER, name="", tags=list(tags))


def _Origins(cfg):
    """(job, opcode) of every commit, the oldest first."""
    return [
        (commit["job"], commit["op"])
        for entry in reversed(cfg.history.List()["entries"])
        for commit in entry["commits"]
    ]


class TestJobs:
    """Every commit of a job has its id, and the opcode that made it."""

    @pytest.mark.parametrize("seed", range(5))
    def test_jobs_at_the_same_time(self, seed):
        sim = Simulation(seed)

        def _Work():
            master = fake.NewMaster(sim.runtime, nodes=2, instances=["a", "b", "c"])
            jobs = {}
            for name in "abc":
                ops = [
                    cls(kind=constants.TAG_INSTANCE, name=name, tags=["x"]) for cls in (_SET, _DEL)
                ]
                jobs[name] = master.jobqueue.SubmitJob(ops)
            for job_id in jobs.values():
                while master.jobqueue.QueryJobs([job_id], ["status"]) != [["success"]]:
                    sim.runtime.clock.sleep(1.0)
            master.jobqueue.Shutdown()
            for name, job_id in jobs.items():
                found = [
                    (commit["job"], commit["op"], commit["changes"])
                    for entry in reversed(master.cfg.history.List(name)["entries"])
                    for commit in entry["commits"]
                ]
                assert found[1:] == [
                    (job_id, cls.OP_ID, [["instance", name, "modified"]]) for cls in (_SET, _DEL)
                ]

        sim.Run(_Work)

    def test_failed_opcode(self):
        """What it changed before it failed is its work; what comes after it is not."""
        world = cmdlib_fake.NewWorld()
        world.Run(_Op(_SET, "x"))
        with pytest.raises(errors.OpPrereqError):
            world.Run(_Op(_DEL, "y"))
        world.cfg.AllocatePort()
        assert _Origins(world.cfg) == [("1", "OP_TAGS_SET"), (None, None)]

    def test_attempt_without_success(self, monkeypatch):
        """An opcode that did not get its locks leaves nothing behind for who runs next."""
        world = cmdlib_fake.NewWorld()
        world.cfg.AllocatePort()
        config_fake.AddInstance(world.cfg, "inst", config_fake.NodeName(1))
        real = world.master.glm.acquire

        def _Acquire(level, *args, **kwargs):
            return real(level, *args, **kwargs) if level == locking.LEVEL_CLUSTER else None

        monkeypatch.setattr(world.master.glm, "acquire", _Acquire)
        strategy = mcpu.LockAttemptTimeoutStrategy(0, lambda: 0.0, lambda: 0.5)
        with pytest.raises(mcpu.LockAcquireTimeout):
            op = _SET(kind=constants.TAG_INSTANCE, name="inst", tags=["x"])
            mcpu.Processor(world.master, "9").TryOpCode(op, None, strategy)
        world.cfg.AllocatePort()
        assert _Origins(world.cfg) == [(None, None)] * 3


class TestOthers:
    """What no job does has neither."""

    def test_tools_and_the_daemon_itself(self):
        world = cmdlib_fake.NewWorld()
        config_fake.AddInstance(world.cfg, "inst", config_fake.NodeName(1))
        world.cfg._engine.Rewrite()
        assert _Origins(world.cfg) == [(None, None)]

    def test_queries(self):
        """A query is not said to have changed what its thread changes otherwise."""
        world = cmdlib_fake.NewWorld()
        op = opcodes.OpNodeQuery(output_fields=["name"], names=[], use_locking=False)
        mcpu.Processor(world.master, None).QueryOpCode(op)
        assert _Origins(world.cfg) == []
        world.cfg.AllocatePort()
        assert _Origins(world.cfg) == [(None, None)]

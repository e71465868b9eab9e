"""LK1-LK5, LK7, JQ1-JQ3: a whole master, thousands of times, each time in another order.

One seed is one world: its clients, their jobs, the nodes' troubles and the order of the threads. A
failure names its seed; C{SIM_SEEDS=1234:1235 test/run simulation} tells that story again, and
C{SIM_SEEDS=0:100000} tells many.
"""

from __future__ import annotations

import os

import pytest
from simmaster import Violation
from simworld import REACHABLE, RunSeeds, World

from ganeti import constants, opcodes

FIRST, _, _END = os.environ.get("SIM_SEEDS", "0:1500").partition(":")
CHUNK = 100
CHUNKS = [
    (start, min(start + CHUNK, int(_END or int(FIRST) + 1)))
    for start in range(int(FIRST), int(_END or int(FIRST) + 1), CHUNK)
]


class TestAnyOrder:
    """LK1-LK5, LK7, JQ1-JQ3: what must hold, holds in every world."""

    @pytest.mark.parametrize(("first", "end"), CHUNKS)
    def test_worlds(self, first, end):
        RunSeeds(range(first, end))


class TestTheWorlds:
    """The worlds are worth their time: what they are about does happen in them."""

    def test_everything_happens(self):
        statuses, kinds, failing, waited, faults = set(), set(), set(), 0, 0
        for seed in range(60):
            world = World(seed)
            world.Run()
            faults += world.faults
            for level in world.master.glm.GetStatistics().values():
                waited += level["waited"]
            for job in world.master.jobqueue._jobs.values():
                statuses.add(job.CalcStatus())
                for op in job.ops:
                    kinds.add((op.input.OP_ID, op.status))
                    if op.status == constants.OP_STATUS_ERROR:
                        failing.add(op.result[0])
        assert statuses == {"success", "error", "canceled"}
        succeeded = {op_id for op_id, status in kinds if status == "success"}
        assert succeeded >= {
            opcodes.OpInstanceCreate.OP_ID,
            opcodes.OpInstanceStartup.OP_ID,
            opcodes.OpInstanceShutdown.OP_ID,
            opcodes.OpInstanceRemove.OP_ID,
            opcodes.OpInstanceSetParams.OP_ID,
            opcodes.OpTagsSet.OP_ID,
            opcodes.OpNodeSetParams.OP_ID,
            opcodes.OpTestDelay.OP_ID,
        }
        assert failing >= {"OpPrereqError", "OpExecError"}
        assert waited > 100
        assert 15 < faults < 55

    def test_replay(self):
        """The same seed is the same story."""
        stories = []
        for _ in range(2):
            world = World(77)
            world.Run()
            jobs = world.master.jobqueue._jobs
            stories.append(
                (world.sim.switches, world.sim.now, [job.Serialize() for job in jobs.values()])
            )
        assert stories[0] == stories[1]

    def test_seed_is_named(self):
        class _Broken(World):
            def CheckJobs(self):
                raise Violation("planted")

        with pytest.raises(Violation) as caught:
            _Broken(5).Run()
        assert "World(5)" in caught.value.__notes__

    def test_transitions(self):
        """What comes after the end of an opcode: nothing."""
        for status in constants.OPS_FINALIZED:
            assert REACHABLE[status] == {status}
        assert REACHABLE["queued"] == set(constants.OP_STATUS_ALL)

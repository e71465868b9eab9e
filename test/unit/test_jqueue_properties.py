"""JQ1, JQ3: whatever clients ask of a job queue, and however often it restarts, some things hold.

The queue is the real one, in the simulation; what clients do and when is drawn by hypothesis, so
that a sequence that fails is shrunk. Beside it stands L{Model}, which knows of each job only what
its client was told.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ganeti import constants, errors, jstore, opcodes
from ganeti.jqueue import fake
from ganeti.runtime.simulation import Simulation

NODE = "node1.example.com"

SETTINGS = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


@dataclass
class Told:
    """What the client of a job knows.

    @ivar delays: durations of its opcodes; each is unique, and so says which were executed
    @ivar depends: number of the job that it waits for, and how that has to end
    """

    delays: list[float]
    depends: tuple[str, list[str]] | None
    cancelled: bool = False
    archived: bool = False


@dataclass
class Model:
    jobs: dict[str, Told] = field(default_factory=dict)
    drained: bool = False
    #: The highest id seen.
    last_id: int = 0


#: References to jobs: the n-th last one that was accepted.
references = st.integers(0, 5)

steps = st.one_of(
    st.fixed_dictionaries(
        {
            "do": st.just("submit"),
            "ops": st.integers(0, 3),
            "lock": st.booleans(),
            "priority": st.sampled_from([0, 0, -10, 10]),
            "depends": st.none() | st.tuples(references, st.sampled_from([[], ["success"]])),
        }
    ),
    st.fixed_dictionaries(
        {"do": st.sampled_from(["cancel", "archive", "follow"]), "job": references}
    ),
    st.fixed_dictionaries({"do": st.just("drain"), "flag": st.booleans()}),
    st.fixed_dictionaries({"do": st.just("sleep"), "seconds": st.sampled_from([0.0, 0.3, 2.0])}),
    st.fixed_dictionaries({"do": st.just("priority"), "job": references}),
    st.fixed_dictionaries({"do": st.sampled_from(["autoarchive", "restart"])}),
)


class Machine:
    """Does the steps on a queue, and compares."""

    def __init__(self, seed, workers):
        self.sim = Simulation(seed, preempt=0.3)
        self.rt = self.sim.runtime
        self.workers = workers
        self.rpc = fake.FakeRpc()
        self.model = Model()
        self.count = 0

    def Open(self):
        self.master = fake.NewMaster(
            dataclasses.replace(self.rt), num_workers=self.workers, rpc_=self.rpc
        )
        self.queue = self.master.jobqueue

    def _Find(self, reference):
        known = list(self.model.jobs)
        return known[-1 - reference % len(known)] if known else "999"

    def submit(self, step):
        depends = None
        if step["depends"] is not None and self.model.jobs:
            depends = (self._Find(step["depends"][0]), step["depends"][1])
        ops, delays = [], []
        for number in range(step["ops"]):
            self.count += 1
            delays.append(0.1 + self.count / 1000)
            ops.append(
                opcodes.OpTestDelay(
                    duration=delays[-1],
                    on_master=False,
                    on_nodes=[NODE],
                    priority=step["priority"],
                    depends=[[int(depends[0]), depends[1]]] if depends and not number else None,
                )
            )
        try:
            job_id = self.queue.SubmitJob(ops)
        except errors.JobQueueDrainError:
            assert self.model.drained
        except errors.OpPrereqError:
            assert not ops
        else:
            assert ops
            assert not self.model.drained
            assert int(job_id) > self.model.last_id
            self.model.last_id = int(job_id)
            self.model.jobs[job_id] = Told(delays, depends)

    def cancel(self, step):
        job_id = self._Find(step["job"])
        before = self._Status(job_id)
        success, text = self.queue.CancelJob(job_id)
        if success:
            assert before in ("queued", "waiting", "running", "canceling"), (before, text)
            # It may run to its end all the same if it was too late for the present opcode.
            self.model.jobs[job_id].cancelled = True
        elif job_id not in self.model.jobs or self.model.jobs[job_id].archived:
            assert "not found" in text

    def _Status(self, job_id):
        (row,) = self.queue.QueryJobs([job_id], ["status"])
        return row and row[0]

    def archive(self, step):
        job_id = self._Find(step["job"])
        before = self._Status(job_id)
        archived = self.queue.ArchiveJob(job_id)
        if before in constants.JOBS_FINALIZED:
            assert archived
        if archived:
            self.model.jobs[job_id].archived = True
            assert self._Status(job_id) is None

    def autoarchive(self, _):
        ended = {
            row[0]
            for row in self.queue.QueryJobs(None, ["id", "status"])
            if row[1] in constants.JOBS_FINALIZED
        }
        archived, left = self.queue.AutoArchiveJobs(-1, 10)
        assert left == 0
        assert archived >= len(ended)
        there = {row[0] for row in self.queue.QueryJobs(None, ["id"])}
        assert not ended & there
        for job_id, told in self.model.jobs.items():
            told.archived = told.archived or job_id not in there

    def follow(self, step):
        job_id = self._Find(step["job"])
        change = self.queue.WaitForJobChanges(job_id, ["status"], None, None, 1)
        known = job_id in self.model.jobs and not self.model.jobs[job_id].archived
        assert (change is not None) == known

    def priority(self, step):
        self.queue.ChangeJobPriority(self._Find(step["job"]), -5)

    def drain(self, step):
        self.queue.SetDrainFlag(step["flag"])
        self.model.drained = step["flag"]

    def sleep(self, step):
        self.rt.clock.sleep(step["seconds"])

    def restart(self, _):
        self.queue.Shutdown()
        self.rt.files.Crash()
        self.Open()

    def Check(self):
        """What must hold at any time."""
        rows = self.queue.QueryJobs(None, ["id", "status", "opstatus"])
        assert [row[0] for row in rows] == sorted((row[0] for row in rows), key=int)
        wanted = {job_id for job_id, told in self.model.jobs.items() if not told.archived}
        assert {row[0] for row in rows} == wanted
        executed = self.rpc.executed
        assert len(set(executed)) == len(executed), "an opcode ran twice"
        for job_id, _, statuses in rows:
            for delay, status in zip(self.model.jobs[job_id].delays, statuses, strict=True):
                if status == "success":
                    assert delay in executed
                elif status in ("queued", "waiting", "canceled"):
                    assert delay not in executed

    def Finish(self):
        """All jobs end; then what came of each must be what its client may expect."""
        deadline = self.rt.clock.monotonic() + 1000.0
        while any(
            row[0] not in constants.JOBS_FINALIZED for row in self.queue.QueryJobs(None, ["status"])
        ):
            assert self.rt.clock.monotonic() < deadline, "a job does not end"
            self.rt.clock.sleep(1.0)
        self.Check()
        statuses = {job_id: self.queue.GetJobStatus(int(job_id)) for job_id in self.model.jobs}
        for job_id, told in self.model.jobs.items():
            status = statuses[job_id]
            if told.depends is None:
                # A delay does not fail; who did not cancel it has a success.
                assert status == "success" or (told.cancelled and status == "canceled")
                continue
            other, states = told.depends
            if not states or statuses[other] in states:
                assert status == "success" or (told.cancelled and status == "canceled")
            else:
                assert status in ("error", "canceled")
                assert not set(told.delays) & set(self.rpc.executed)
        self.queue.Shutdown()
        for job_id, told in self.model.jobs.items():
            number = int(job_id)
            assert self.rt.files.exists(jstore.GetJobPath(number)) != told.archived
            assert self.rt.files.exists(jstore.GetArchivedJobPath(number)) == told.archived


class TestAnyOrder:
    """JQ1, JQ3: submit, cancel, archive, drain, priorities, dependencies and restarts."""

    @given(
        seed=st.integers(0, 2**32),
        workers=st.integers(1, 4),
        script=st.lists(steps, min_size=1, max_size=25),
    )
    @SETTINGS
    def test_any_order(self, seed, workers, script):
        machine = Machine(seed, workers)

        def _Run():
            machine.Open()
            for step in script:
                getattr(machine, step["do"])(step)
                machine.Check()
            machine.Finish()

        machine.sim.Run(_Run)

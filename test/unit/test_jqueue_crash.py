"""JQ1: the master daemon, or its machine, dies at any change of a file.

Each test lets it die at the first change, the second, and so on until the whole story is told
without dying; then another master daemon takes over what is left.
"""

from __future__ import annotations

import dataclasses

import pytest

from ganeti import constants, jstore, opcodes, pathutils
from ganeti.jqueue import fake
from ganeti.runtime.fake import MemoryFiles
from ganeti.runtime.simulation import Simulation, SimulationError

NODE = "node1.example.com"
OTHER = "node2.example.com"


class MortalRpc(fake.FakeRpc):
    """Node calls of a process that may be dead."""

    def __init__(self, files):
        super().__init__()
        self.mortal = files

    def call_test_delay(self, node_list, duration):
        if self.mortal is not None and self.mortal.dead:
            raise fake.Crash
        return super().call_test_delay(node_list, duration)


def Op(number):
    """The opcode with this number; it needs a lock, so that some of them wait."""
    return opcodes.OpTestDelay(duration=float(number), on_master=False, on_nodes=[NODE])


class Story:
    """What happens to a queue until it dies, and what clients were told."""

    def __init__(self, left, seed, nodes):
        self.sim = Simulation(seed)
        self.files = fake.CrashingFiles(self.sim.runtime.clock.time, -1)
        self.rpc = MortalRpc(self.files)
        self.runtime = dataclasses.replace(self.sim.runtime, files=self.files)
        self.left = left
        self.nodes = nodes
        #: id -> numbers of its opcodes.
        self.accepted = {}
        self.cancelled = set()
        self.archived = set()

    def Tell(self):
        """True if the end was reached alive."""
        try:
            self.sim.Run(self._Script)
        except (fake.Crash, SimulationError):
            # A deadlock is what the others see when the thread that writes is dead.
            assert self.files.dead, "It ended, but not because of the crash"
        return not self.files.dead

    def _Submit(self, queue, *jobs):
        results = queue.SubmitManyJobs([[Op(number) for number in job] for job in jobs])
        for job, (ok, job_id) in zip(jobs, results, strict=True):
            assert ok
            self.accepted[job_id] = job

    def _Script(self):
        master = fake.NewMaster(self.runtime, self.nodes, num_workers=2, rpc_=self.rpc)
        queue = master.jobqueue
        self.files.left = self.left
        self._Submit(queue, [1, 2], [3])
        self._Submit(queue, [4], [5], [6, 7])
        success, _ = queue.CancelJob("5")
        if success:
            self.cancelled.add("5")
        master.runtime.clock.sleep(30.0)
        if queue.ArchiveJob("1"):
            self.archived.add("1")
        self._Submit(queue, [8])
        queue.Shutdown()
        self.files.left = -1


def TakeOver(story, files, nodes=1):
    """Another master daemon finds these files, and works until nothing is left to do."""
    sim = Simulation(story.left + 1000)
    rt = dataclasses.replace(sim.runtime, files=files)
    story.rpc.mortal = None
    found = {}

    def _Work():
        master = fake.NewMaster(rt, nodes, rpc_=story.rpc)
        queue = master.jobqueue
        rows = queue.QueryJobs(None, ["id"])
        for (job_id,) in rows:
            while queue.GetJobStatus(int(job_id)) not in constants.JOBS_FINALIZED:
                rt.clock.sleep(1.0)
        for job_id, status, opstatus, result in queue.QueryJobs(
            None, ["id", "status", "opstatus", "opresult"]
        ):
            found[job_id] = (status, opstatus, result)
        found["new"] = queue.SubmitJob([Op(100 + story.left)])
        queue.Shutdown()

    sim.Run(_Work)
    return found


def Check(story, files, found):
    executed = [number for number in story.rpc.executed if number < 100]
    assert len(set(executed)) == len(executed), f"run twice: {executed}"
    new = found.pop("new")
    for job_id, numbers in story.accepted.items():
        assert int(new) > int(job_id)
        if job_id not in found:
            assert job_id in story.archived or files.exists(
                jstore.GetArchivedJobPath(int(job_id))
            ), f"job {job_id} is lost"
            continue
        status, opstatus, _ = found[job_id]
        if job_id in story.cancelled:
            # Told that it will not run.
            assert status == "canceled", job_id
            assert not set(numbers) & set(executed)
        for number, op in zip(numbers, opstatus, strict=True):
            if op == "success":
                assert number in executed
            elif op == "canceled":
                assert number not in executed
    for status, _, result in found.values():
        assert status in ("success", "canceled") or "Unclean master daemon shutdown" in result


def AllCrashes(nodes=1):
    for left in range(500):
        story = Story(left, seed=left, nodes=nodes)
        alive = story.Tell()
        yield story
        if alive:
            return
    raise AssertionError("The story has no end")


class TestCrash:
    """JQ1: no accepted job is lost, no opcode runs twice."""

    @pytest.mark.parametrize("power_failure", [False, True])
    def test_restart(self, power_failure):
        count = 0
        for story in AllCrashes():
            story.files.Restart(power_failure)
            Check(story, story.files, TakeOver(story, story.files))
            count += 1
        # It really died at many places.
        assert count > 20

    def test_failover(self):
        """JQ2: the other master candidate has all that matters."""
        for story in AllCrashes(nodes=2):
            files = MemoryFiles()
            for path, data in story.rpc.files.get(OTHER, {}).items():
                files.write(path, data)
            files.write(pathutils.JOB_QUEUE_VERSION_FILE, b"1\n")
            found = TakeOver(story, files)
            Check(story, files, found)


class TestRecovery:
    """JQ1: what is done with jobs found at the start."""

    def _Recover(self, *statuses, **fields):
        from ganeti.jqueue.job import QueuedJob

        job = QueuedJob(5, [Op(number) for number, _ in enumerate(statuses, 1)], 1.0)
        for op, status in zip(job.ops, statuses, strict=True):
            op.status = status
            for name, value in fields.items():
                setattr(op, name, value)
        changed = job.Recover(1000.0)
        job._CheckInvariants()
        return changed, [op.status for op in job.ops], job

    def test_queued_stays(self):
        assert self._Recover("success", "queued")[:2] == (False, ["success", "queued"])

    def test_waiting_runs_again(self):
        assert self._Recover("success", "waiting")[:2] == (True, ["success", "queued"])

    def test_running_ends_in_error(self):
        changed, statuses, job = self._Recover("success", "running", "queued")
        assert (changed, statuses) == (True, ["success", "error", "error"])
        assert job.ops[1].result == "Unclean master daemon shutdown"
        assert job.end_timestamp == (1000, 0)

    def test_canceling_is_cancelled(self):
        changed, statuses, job = self._Recover("canceling", "queued")
        assert (changed, statuses) == (True, ["canceled", "canceled"])
        assert job.end_timestamp == (1000, 0)

    def test_interrupted_while_running_ends_in_error(self):
        changed, statuses, _ = self._Recover("canceling", "queued", exec_timestamp=(5, 0))
        assert (changed, statuses) == (True, ["error", "error"])

    def test_final_gets_its_end(self):
        changed, statuses, job = self._Recover("success", "error")
        assert (changed, statuses) == (True, ["success", "error"])
        assert job.end_timestamp is not None
        assert job.Recover(2000.0) is False

    def test_broken_file_is_put_aside(self):
        sim = Simulation(1)

        def _Work():
            for job_id, data in ((7, b"{"), (8, b'{"id": "8"}'), (9, b'{"id": "5", "ops": []}')):
                sim.runtime.files.write(jstore.GetJobPath(job_id), data)
            sim.runtime.files.write(pathutils.QUEUE_DIR + "/job-x", b"not ours")
            master = fake.NewMaster(sim.runtime)
            assert master.jobqueue.QueryJobs(None, ["id"]) == []
            # Its id is not given out again.
            assert int(master.jobqueue.SubmitJob([Op(1)])) > 9
            master.jobqueue.Shutdown()
            assert sim.runtime.files.read(jstore.GetArchivedJobPath(7)) == b"{"

        sim.Run(_Work)

    def test_serial_behind_the_jobs(self):
        """The serial file may be older than the jobs, archived ones included."""
        sim = Simulation(1)

        def _Work():
            master = fake.NewMaster(sim.runtime)
            for _ in range(3):
                master.jobqueue.SubmitJob([Op(1)])
            sim.runtime.clock.sleep(10.0)
            assert master.jobqueue.ArchiveJob("3")
            master.jobqueue.Shutdown()
            sim.runtime.files.write(pathutils.JOB_QUEUE_SERIAL_FILE, b"0\n")
            again = fake.NewMaster(dataclasses.replace(sim.runtime))
            assert again.jobqueue.SubmitJob([Op(1)]) == "4"
            again.jobqueue.Shutdown()

        sim.Run(_Work)

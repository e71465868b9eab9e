"""JQ1, JQ3: the job queue in virtual time: submit, run, cancel, archive, query, wait."""

from __future__ import annotations

import errno
import functools
from unittest import mock

import pytest

from ganeti import constants, errors, jstore, opcodes, pathutils, serializer
from ganeti.cmdlib import test as cmdlib_test
from ganeti.jqueue import fake
from ganeti.runtime.simulation import Simulation

SEEDS = range(4)
NODE = "node1.example.com"


def Simulated(**kwargs):
    """Decorator: run the test with a master in the simulation, once for each seed."""

    def _Decorate(fn):
        @pytest.mark.parametrize("seed", SEEDS)
        @functools.wraps(fn)
        def _Test(self, seed):
            sim = Simulation(seed)

            def _Run():
                master = fake.NewMaster(sim.runtime, **kwargs)
                fn(self, master)
                master.jobqueue.Shutdown()

            sim.Run(_Run)

        # What pytest shall see is the seed only.
        del _Test.__wrapped__
        return _Test

    return _Decorate


def Delay(duration=0.0, nodes=(), **kwargs):
    return opcodes.OpTestDelay(duration=duration, on_master=True, on_nodes=list(nodes), **kwargs)


def NodeDelay(duration, nodes=(NODE,), **kwargs):
    """Holds the locks of nodes; what was executed can be seen in C{rpc.executed}."""
    return opcodes.OpTestDelay(duration=duration, on_master=False, on_nodes=list(nodes), **kwargs)


def WaitFinal(master, job_id):
    queue = master.jobqueue
    info = None
    while True:
        result = queue.WaitForJobChanges(job_id, ["status"], info, None, 60.0)
        assert result is not None
        if result != constants.JOB_NOTCHANGED:
            info = result[0]
            if info[0] in constants.JOBS_FINALIZED:
                return info[0]
            if info[0] == constants.JOB_STATUS_CANCELING:
                # For these there is always an answer at once.
                master.runtime.clock.sleep(0.1)


def Query(master, job_id, *fields):
    (row,) = master.jobqueue.QueryJobs([job_id], fields)
    return row[0] if len(fields) == 1 else row


class TestSubmit:
    @Simulated()
    def test_one(self, master):
        job_id = master.jobqueue.SubmitJob([Delay()])
        assert job_id == "1"
        assert WaitFinal(master, job_id) == "success"
        status, summary, result = Query(master, job_id, "opstatus", "summary", "opresult")
        assert (status, summary, result) == (["success"], ["TEST_DELAY(0.0)"], [None])

    @Simulated()
    def test_on_disk_when_the_id_is_returned(self, master):
        job_id = int(master.jobqueue.SubmitJob([Delay(1000.0)]))
        files = fake.AfterPowerFailure(master.runtime)
        assert files.exists(jstore.GetJobPath(job_id))

    @Simulated()
    def test_files_follow(self, master):
        """The job files say within a second what the journal said before, which is gone then."""
        queue, files = master.jobqueue, master.runtime.files
        path = jstore.GetJobPath(int(queue.SubmitJob([Delay()])))
        assert not files.exists(path)
        master.runtime.clock.sleep(1.0)
        assert b"success" in files.read(path)
        master.runtime.clock.sleep(2.0)
        assert files.listdir(pathutils.JOB_QUEUE_JOURNAL_DIR) == []
        # It was written once, not in each state that it went through.
        assert files.writes.count(("write", path)) == 1

    @Simulated()
    def test_lazy_writes_are_synced(self, master):
        """JQ1: a file that nobody waits for takes the place of one that was promised."""
        queue = master.jobqueue
        job_id = int(queue.SubmitJob([Delay(10.0)]))
        master.runtime.clock.sleep(1.0)
        queue._jobs[job_id].ops[0].log.append([1, [0, 0], "message", "late"])
        queue.PersistLazily(queue._jobs[job_id])
        master.runtime.clock.sleep(1.0)
        files = fake.AfterPowerFailure(master.runtime)
        assert b"late" in files.read(jstore.GetJobPath(job_id))

    @Simulated()
    def test_many_keep_their_order_and_fail_alone(self, master):
        results = master.jobqueue.SubmitManyJobs([[Delay()], [], [Delay(), Delay()]])
        assert [ok for ok, _ in results] == [True, False, True]
        assert "No opcodes" in results[1][1]
        # The id of the refused job is used up.
        assert [results[0][1], results[2][1]] == ["1", "3"]
        for job_id in ("1", "3"):
            assert WaitFinal(master, job_id) == "success"
        assert master.jobqueue.SubmitManyJobs([]) == []

    @Simulated()
    def test_drained(self, master):
        assert master.jobqueue.SetDrainFlag(True) is True
        with pytest.raises(errors.JobQueueDrainError):
            master.jobqueue.SubmitJob([Delay()])
        assert master.jobqueue.SubmitManyJobs([[Delay()]])[0][0] is False
        master.jobqueue.SetDrainFlag(False)
        # Refused submissions use up ids, too.
        assert master.jobqueue.SubmitJob([Delay()]) == "3"

    @Simulated()
    def test_full(self, master):
        limit = constants.JOB_QUEUE_SIZE_HARD_LIMIT
        master.jobqueue._jobs = dict.fromkeys(range(limit))
        with pytest.raises(errors.JobQueueFull):
            master.jobqueue.SubmitJob([Delay()])
        master.jobqueue._jobs = {}

    @Simulated()
    def test_disk_full(self, master):
        files = master.runtime.files
        files.Fail("append", pathutils.JOB_QUEUE_JOURNAL_DIR + "/*")
        with pytest.raises(errors.JobQueueError, match="job-1"):
            master.jobqueue.SubmitJob([Delay()])
        files.Heal()
        assert master.jobqueue.QueryJobs(None, ["id"]) == []
        assert WaitFinal(master, master.jobqueue.SubmitJob([Delay()])) == "success"
        master.runtime.clock.sleep(10.0)
        assert jstore.ListJobIds(master.runtime) == [2]

    @Simulated()
    def test_disk_full_for_a_while(self, master):
        """JQ1: an end that could not be written is written later, and no end is made up."""
        queue, files = master.jobqueue, master.runtime.files
        job_id = queue.SubmitJob([Delay(10.0)])
        master.runtime.clock.sleep(1.0)
        files.Fail("append", pathutils.JOB_QUEUE_JOURNAL_DIR + "/*")
        assert WaitFinal(master, job_id) == "success"
        master.runtime.clock.sleep(60.0)
        path = jstore.GetJobPath(int(job_id))
        assert b"success" not in fake.AfterPowerFailure(master.runtime).read(path)
        files.Heal()
        master.runtime.clock.sleep(10.0)
        assert b"success" in fake.AfterPowerFailure(master.runtime).read(path)

    @Simulated()
    def test_files_that_can_not_be_written(self, master):
        """JQ1: what is in the journal is safe, and stays there until the files can be written."""
        files = master.runtime.files
        files.Fail("write", pathutils.QUEUE_DIR + "/job-1")
        for _ in range(2):
            WaitFinal(master, master.jobqueue.SubmitJob([Delay()]))
        master.runtime.clock.sleep(60.0)
        assert jstore.ListJobIds(master.runtime) == [2]
        files.Heal()
        assert b"success" in fake.AfterPowerFailure(master.runtime).read(jstore.GetJobPath(1))
        master.runtime.clock.sleep(10.0)
        assert b"success" in files.read(jstore.GetJobPath(1))
        assert files.listdir(pathutils.JOB_QUEUE_JOURNAL_DIR) == []

    @Simulated(num_workers=1)
    def test_priority_goes_first(self, master):
        queue = master.jobqueue
        first = queue.SubmitJob([Delay(5.0)])
        low = queue.SubmitJob([Delay(1.0, priority=10)])
        high = queue.SubmitJob([Delay(1.0, priority=-10)])
        for job_id in (first, low, high):
            WaitFinal(master, job_id)
        assert Query(master, high, "end_ts") <= Query(master, low, "start_ts")

    @Simulated(num_workers=1)
    def test_priority_can_be_changed(self, master):
        queue = master.jobqueue
        first = queue.SubmitJob([Delay(5.0)])
        second = queue.SubmitJob([Delay(1.0)])
        third = queue.SubmitJob([Delay(1.0)])
        assert queue.ChangeJobPriority(third, -5)[0] is True
        for job_id in (first, second, third):
            WaitFinal(master, job_id)
        assert Query(master, third, "end_ts") <= Query(master, second, "start_ts")
        assert queue.ChangeJobPriority(third, 0)[0] is False
        assert queue.ChangeJobPriority("77", 0)[0] is False


class TestExecution:
    @Simulated()
    def test_failure_ends_the_job(self, master):
        job_id = master.jobqueue.SubmitJob([Delay(), Delay(-1.0), Delay()])
        assert WaitFinal(master, job_id) == "error"
        status, result, ends = Query(master, job_id, "opstatus", "opresult", "opexec")
        assert status == ["success", "error", "error"]
        assert result[1][0] == "OpExecError"
        assert errors.GetEncodedError(result[2]) is not None
        assert ends[2] is None

    @Simulated()
    def test_unknown_node_is_a_prerequisite(self, master):
        job_id = master.jobqueue.SubmitJob([NodeDelay(1.0, ["nosuch"])])
        assert WaitFinal(master, job_id) == "error"
        (result,) = Query(master, job_id, "opresult")
        assert result == ["OpPrereqError", ["Node 'nosuch' not known", "unknown_entity"]]
        # It never had its locks.
        assert Query(master, job_id, "opexec") == [None]

    @Simulated()
    def test_names_are_expanded_in_the_file(self, master):
        job_id = master.jobqueue.SubmitJob([NodeDelay(1.0, ["node1"])])
        WaitFinal(master, job_id)
        (op,) = Query(master, job_id, "ops")
        assert op["on_nodes"] == [NODE]
        assert op["debug_level"] == 0

    @Simulated()
    def test_opcode_without_unit(self, master):
        job_id = master.jobqueue.SubmitJob([opcodes.OpCode()])
        assert WaitFinal(master, job_id) == "error"
        assert Query(master, job_id, "opresult")[0][0] == "OpCodeUnknown"

    @Simulated()
    def test_result_that_can_not_be_stored(self, master):
        """A mistake of a unit ends its own job, and nobody else notices."""

        def _Exec(lu, feedback_fn):
            if lu.op.comment == "result":
                return {"a": object()}
            feedback_fn("message", object())
            return None

        queue = master.jobqueue
        with mock.patch.object(cmdlib_test.LUTestDelay, "Exec", _Exec):
            results = queue.SubmitManyJobs(
                [[Delay(comment="result")], [Delay(comment="feedback")], [NodeDelay(0.0)]]
            )
            ids = [job_id for _, job_id in results]
            assert [WaitFinal(master, job_id) for job_id in ids[:2]] == ["error", "error"]
        for job_id in ids[:2]:
            (result,) = Query(master, job_id, "opresult")
            assert result[0] == "ProgrammerError"
            assert "can not be stored" in result[1][0]
        serializer.Dump(queue.QueryJobs(None, ["id", "opresult", "oplog"]))

    @Simulated()
    def test_a_file_without_content_harms_no_other(self, master):
        queue = master.jobqueue

        def _Broken():
            raise TypeError("object is nothing that JSON has")

        broken = queue._store.WriteDurably([(jstore.GetJobPath(99), _Broken)])
        good = queue._store.WriteDurably([(jstore.GetJobPath(98), lambda: b"good")])
        queue._store.WriteLazily(jstore.GetJobPath(97), _Broken)
        good.Wait()
        files = fake.AfterPowerFailure(master.runtime)
        assert files.read(jstore.GetJobPath(98)) == b"good"
        with pytest.raises(errors.JobQueueError, match="job-99"):
            broken.Wait()
        assert WaitFinal(master, queue.SubmitJob([Delay()])) == "success"

    @Simulated()
    def test_failing_write_keeps_the_opcode_from_running(self, master):
        queue = master.jobqueue
        blocker = queue.SubmitJob([Delay(2.0, [NODE])])
        job_id = queue.SubmitJob([NodeDelay(7.0)])
        master.runtime.files.Fail("append", pathutils.JOB_QUEUE_JOURNAL_DIR + "/*")
        WaitFinal(master, blocker)
        assert WaitFinal(master, job_id) == "error"
        assert 7.0 not in master.rpc.executed
        master.runtime.files.Heal()

    @Simulated()
    def test_lock_status_and_who_is_in_the_way(self, master):
        queue = master.jobqueue
        holder = queue.SubmitJob([Delay(5.0, [NODE])])
        while Query(master, holder, "status") != "running":
            master.runtime.clock.sleep(0.01)
        waiter = queue.SubmitJob([NodeDelay(1.0)])
        master.runtime.clock.sleep(0.5)
        status, lock_status = Query(master, waiter, "status", "lock_status")
        assert status == "waiting"
        assert lock_status.startswith("waiting/timeout=")
        assert lock_status.endswith(f"s/node/{NODE}/exclusive")
        why = queue.DescribeWait(waiter)
        assert [(lock["name"], lock["holders"]) for lock in why["locks"]] == [
            (f"node/{NODE}", [f"Job {holder}/OP_TEST_DELAY"])
        ]
        (lock,) = why["locks"]
        (exec_ts,) = Query(master, holder, "opexec")
        assert lock["held_since"] == [pytest.approx(exec_ts[0] + exec_ts[1] / 1e6)]
        assert lock["ahead"] == []
        status, reason = Query(master, waiter, "status", "wait_reason")
        assert (status, reason) == ("waiting", why)
        assert Query(master, holder, "wait_reason") is None
        WaitFinal(master, waiter)
        assert Query(master, waiter, "lock_status") is None
        assert queue.DescribeWait(waiter) is None
        assert queue.DescribeWait("99") is None


class TestCancel:
    @Simulated(num_workers=1)
    def test_queued(self, master):
        queue = master.jobqueue
        first = queue.SubmitJob([Delay(5.0)])
        second = queue.SubmitJob([NodeDelay(8.0)])
        master.runtime.clock.sleep(0.1)
        assert queue.CancelJob(second) == [True, f"Job {second} canceled"]
        assert Query(master, second, "status", "opresult", "end_ts")[:2] == [
            "canceled",
            ["Job canceled by request"],
        ]
        # Archived before a worker sees it: that must not bring the file back.
        assert queue.ArchiveJob(second) is True
        WaitFinal(master, first)
        master.runtime.clock.sleep(10.0)
        assert not master.runtime.files.exists(jstore.GetJobPath(int(second)))
        assert master.rpc.executed == []

    @Simulated()
    def test_waiting_for_locks(self, master):
        queue = master.jobqueue
        holder = queue.SubmitJob([Delay(30.0, [NODE])])
        while Query(master, holder, "status") != "running":
            master.runtime.clock.sleep(0.01)
        waiter = queue.SubmitJob([NodeDelay(8.0), NodeDelay(9.0)])
        master.runtime.clock.sleep(0.5)
        assert queue.CancelJob(waiter)[0] is True
        assert WaitFinal(master, waiter) == "canceled"
        assert Query(master, holder, "status") == "running"
        assert Query(master, waiter, "opstatus") == ["canceled", "canceled"]
        WaitFinal(master, holder)
        assert master.rpc.executed == [30.0]

    @Simulated()
    def test_wait_for_locks_ends_at_once(self, master):
        self._CancelWaiting(master, 0.5)

    @Simulated()
    def test_blocking_wait_for_locks_ends_at_once(self, master):
        self._CancelWaiting(master, 300.0)

    def _CancelWaiting(self, master, wait):
        queue = master.jobqueue
        holder = queue.SubmitJob([Delay(1000.0, [NODE])])
        while Query(master, holder, "status") != "running":
            master.runtime.clock.sleep(0.01)
        waiter = queue.SubmitJob([NodeDelay(8.0)])
        other = queue.SubmitJob([NodeDelay(9.0)])
        master.runtime.clock.sleep(wait)
        before = master.runtime.clock.monotonic()
        assert queue.CancelJob(waiter)[0] is True
        assert WaitFinal(master, waiter) == "canceled"
        assert master.runtime.clock.monotonic() < before + 0.5
        # Others that wait for the same are not disturbed.
        assert WaitFinal(master, other) == "success"
        assert sorted(master.rpc.executed) == [9.0, 1000.0]

    @Simulated()
    def test_running_ended_and_unknown(self, master):
        queue = master.jobqueue
        job_id = queue.SubmitJob([Delay(5.0)])
        while Query(master, job_id, "status") != "running":
            master.runtime.clock.sleep(0.01)
        text = f"Job {job_id} is no longer waiting in the queue"
        assert queue.CancelJob(job_id) == [False, text]
        WaitFinal(master, job_id)
        assert queue.CancelJob(job_id) == [False, text]
        assert queue.CancelJob("99999") == [False, "Job 99999 not found"]
        assert queue.CancelJob("text") == [False, "Job text not found"]

    @Simulated()
    def test_interruptible(self, master):
        queue = master.jobqueue
        job_id = queue.SubmitJob([Delay(1000.0, interruptible=True), NodeDelay(9.0)])
        while Query(master, job_id, "status") != "running":
            master.runtime.clock.sleep(0.01)
        assert queue.CancelJob(job_id) == [True, f"Job {job_id} will be canceled"]
        assert queue.CancelJob(job_id) == [True, f"Job {job_id} will be canceled"]
        assert WaitFinal(master, job_id) == "canceled"
        assert master.runtime.clock.monotonic() < 10
        assert Query(master, job_id, "opstatus") == ["canceled", "canceled"]
        assert master.rpc.executed == []

    @Simulated()
    def test_interruptible_that_ends_first(self, master):
        queue = master.jobqueue
        job_id = queue.SubmitJob([Delay(0.5, interruptible=True), NodeDelay(9.0)])
        master.runtime.clock.sleep(0.4)
        assert queue.CancelJob(job_id)[0] is True
        # That one has been done; what comes after it is not.
        assert WaitFinal(master, job_id) == "canceled"
        assert Query(master, job_id, "opstatus") == ["success", "canceled"]
        assert master.rpc.executed == []


class TestArchive:
    @Simulated()
    def test_archive(self, master):
        queue = master.jobqueue
        job_id = queue.SubmitJob([Delay(1.0)])
        assert queue.ArchiveJob(job_id) is False
        WaitFinal(master, job_id)
        assert queue.ArchiveJob(int(job_id)) is True
        assert queue.ArchiveJob(job_id) is False
        assert queue.QueryJobs([job_id], ["id"]) == [None]
        files = fake.AfterPowerFailure(master.runtime)
        assert files.exists(jstore.GetArchivedJobPath(int(job_id)))
        assert not files.exists(jstore.GetJobPath(int(job_id)))

    @Simulated()
    def test_later_write_goes_to_the_archive(self, master):
        """What a worker writes after the job was archived does not bring its file back."""
        queue, files = master.jobqueue, master.runtime.files
        job_id = int(queue.SubmitJob([Delay()]))
        WaitFinal(master, str(job_id))
        job = queue._jobs[job_id]
        archiver = master.runtime.threads.start(queue.ArchiveJob, (job_id,))
        while not job.archived:
            master.runtime.clock.sleep(0.0)
        # Perhaps in one group with the renaming, perhaps after it.
        job.ops[0].log.append([9, [0, 0], "message", "late"])
        queue.Persist(job).Wait()
        archiver.join()
        assert not files.exists(jstore.GetJobPath(job_id))
        after = fake.AfterPowerFailure(master.runtime)
        assert b"late" in after.read(jstore.GetArchivedJobPath(job_id))
        queue.PersistLazily(job)
        master.runtime.clock.sleep(1.0)
        assert b"late" in files.read(jstore.GetArchivedJobPath(job_id))
        assert not files.exists(jstore.GetJobPath(job_id))

    @Simulated()
    def test_known_while_it_is_archived(self, master):
        """A job that depends on one that is being archived finds it, at any moment."""
        queue = master.jobqueue
        job_id = queue.SubmitJob([Delay()])
        WaitFinal(master, job_id)
        archiver = master.runtime.threads.start(queue.ArchiveJob, (job_id,))
        while archiver.is_alive():
            assert queue.GetJobStatus(int(job_id)) == "success"
            master.runtime.clock.sleep(0.0)
        assert queue.GetJobStatus(int(job_id)) == "success"

    @Simulated()
    def test_auto_archive(self, master):
        queue = master.jobqueue
        ids = [job_id for _, job_id in queue.SubmitManyJobs([[Delay()]] * 25)]
        for job_id in ids:
            WaitFinal(master, job_id)
        master.runtime.clock.sleep(100.0)
        late = queue.SubmitJob([Delay()])
        WaitFinal(master, late)
        assert queue.AutoArchiveJobs(86400, 10) == [0, 0]
        assert queue.AutoArchiveJobs(50, 10) == [25, 0]
        assert queue.AutoArchiveJobs(-1, 10) == [1, 0]
        assert queue.QueryJobs(None, ["id"]) == []

    @Simulated()
    def test_auto_archive_out_of_time(self, master):
        queue = master.jobqueue
        ids = [job_id for _, job_id in queue.SubmitManyJobs([[Delay()]] * 5)]
        for job_id in ids:
            WaitFinal(master, job_id)
        assert queue.AutoArchiveJobs(-1, -1) == [0, 5]

    @Simulated()
    def test_failing_rename(self, master):
        queue = master.jobqueue
        job_id = queue.SubmitJob([Delay()])
        WaitFinal(master, job_id)
        master.runtime.files.Fail("rename")
        assert queue.ArchiveJob(job_id) is False
        assert Query(master, job_id, "status") == "success"
        master.runtime.files.Heal()
        assert queue.ArchiveJob(job_id) is True

    @Simulated(nodes=2)
    def test_failing_rename_of_what_is_in_the_journal_only(self, master):
        """No room for another file, but for another line."""
        queue, files = master.jobqueue, master.runtime.files
        files.Fail("write", pathutils.QUEUE_DIR + "/job-*", errno.ENOSPC)
        job_id = queue.SubmitJob([Delay()])
        WaitFinal(master, job_id)
        assert queue.ArchiveJob(job_id) is False
        assert Query(master, job_id, "status") == "success"
        files.Heal()
        assert queue.ArchiveJob(job_id) is True
        assert files.exists(jstore.GetArchivedJobPath(int(job_id)))

    @Simulated(nodes=2)
    def test_end_that_can_not_be_written_with_the_rename(self, master):
        """JQ1: a job whose end is not written is not archived, and does not come back later."""
        queue, files = master.jobqueue, master.runtime.files
        job_id = queue.SubmitJob([Delay()])
        WaitFinal(master, job_id)
        master.runtime.clock.sleep(5.0)
        job = queue._jobs[int(job_id)]
        path = jstore.GetJobPath(int(job_id))
        # Both come together, or one after the other; there is room for the short line alone.
        original = files.append

        def _Append(tail):
            if b"update" in tail.data:
                raise OSError(errno.ENOSPC, "No space left on device", tail.path)
            original(tail)

        files.append = _Append
        with queue._store._mutex:
            queue._store._group.lazy[path] = queue._Source(job)
        assert queue.ArchiveJob(job_id) is False
        files.append = original
        master.runtime.clock.sleep(10.0)
        assert queue.ArchiveJob(job_id) is True
        master.runtime.clock.sleep(20.0)
        assert not files.exists(path)
        assert files.exists(jstore.GetArchivedJobPath(int(job_id)))

    @Simulated(nodes=2)
    def test_update_beside_a_failing_rename(self, master):
        """What could be done is told as done, and the candidates have it."""
        queue, files = master.jobqueue, master.runtime.files
        path, new = jstore.GetJobPath(77), jstore.GetArchivedJobPath(77)
        files.Fail("rename", path)
        written = queue._store.WriteDurably([(path, lambda: b"{}")])
        renamed = queue._store.Rename([(path, new)])
        written.Wait()
        with pytest.raises(errors.JobQueueError, match="Can not rename"):
            renamed.Wait()
        master.runtime.clock.sleep(1.0)
        assert master.rpc.files["node2.example.com"][path] == b"{}"


class TestQuery:
    @Simulated()
    def test_order_and_unknown(self, master):
        queue = master.jobqueue
        queue.SubmitManyJobs([[Delay()]] * 12)
        assert queue.QueryJobs([], ["id"]) == [[str(number)] for number in range(1, 13)]
        assert queue.QueryJobs(["3", 1, "x", "77"], ["id"]) == [["3"], ["1"], None, None]
        with pytest.raises(errors.OpExecError, match="nosuch"):
            queue.QueryJobs(None, ["id", "nosuch"])


class TestWait:
    @Simulated()
    def test_unknown_job(self, master):
        assert master.jobqueue.WaitForJobChanges("99", ["status"], None, None, 1) is None

    @Simulated()
    def test_unknown_field(self, master):
        job_id = master.jobqueue.SubmitJob([Delay()])
        with pytest.raises(errors.OpExecError):
            master.jobqueue.WaitForJobChanges(job_id, ["nosuch"], None, None, 1)

    @Simulated()
    def test_from_running_to_the_end(self, master):
        queue = master.jobqueue
        job_id = queue.SubmitJob([Delay(5.0)])
        while Query(master, job_id, "status") != "running":
            master.runtime.clock.sleep(0.01)
        assert queue.WaitForJobChanges(job_id, ["status"], None, None, 10) == [["running"], []]
        before = master.runtime.clock.monotonic()
        result = queue.WaitForJobChanges(job_id, ["status"], ["running"], 0, 1.5)
        assert result == constants.JOB_NOTCHANGED
        assert master.runtime.clock.monotonic() == pytest.approx(before + 1.5)
        result = queue.WaitForJobChanges(job_id, ["status"], ["running"], 0, 10)
        assert result == [["success"], []]
        # Of an ended job there is always an answer.
        assert queue.WaitForJobChanges(job_id, ["status"], ["success"], 0, 10) == result

    @Simulated()
    def test_tuples_are_lists_to_the_client(self, master):
        queue = master.jobqueue
        job_id = queue.SubmitJob([Delay(5.0)])
        while Query(master, job_id, "status") != "running":
            master.runtime.clock.sleep(0.01)
        fields = ["received_ts", "opstart"]
        known = [list(value) for value in Query(master, job_id, *fields)]
        known = [known[0], [list(known[1][0])]]
        result = queue.WaitForJobChanges(job_id, fields, known, 0, 0.5)
        assert result == constants.JOB_NOTCHANGED

    @Simulated()
    def test_nobody_is_forgotten(self, master):
        """Listeners go when their wait is over."""
        queue = master.jobqueue
        job_id = queue.SubmitJob([Delay(1.0)])
        WaitFinal(master, job_id)
        queue.WaitForJobChanges("77", ["id"], None, None, 0)
        assert queue.GetStatistics()["listeners"] == 0


class TestDependencies:
    @Simulated()
    def test_waits_for_the_other(self, master):
        queue = master.jobqueue
        results = queue.SubmitManyJobs([[Delay(5.0)], [Delay(0.0, depends=[[-1, []]])]])
        first, second = (job_id for _, job_id in results)
        master.runtime.clock.sleep(1.0)
        assert Query(master, second, "status") == "waiting"
        assert f"job {first}" in Query(master, second, "lock_status")
        assert WaitFinal(master, second) == "success"
        assert Query(master, first, "end_ts") <= Query(master, second, "opexec")[0]

    @Simulated()
    def test_wrong_end(self, master):
        queue = master.jobqueue
        first = queue.SubmitJob([Delay(-1.0)])
        second = queue.SubmitJob([Delay(depends=[[int(first), ["success"]]])])
        assert WaitFinal(master, second) == "error"
        assert "ended as error" in Query(master, second, "opresult")[0][1][0]

    @Simulated(num_workers=1)
    def test_cancelled_with_the_other(self, master):
        queue = master.jobqueue
        queue.SubmitJob([Delay(5.0)])
        first = queue.SubmitJob([Delay()])
        second = queue.SubmitJob([Delay(depends=[[int(first), ["success"]]])])
        queue.CancelJob(first)
        assert WaitFinal(master, second) == "canceled"

    @Simulated()
    def test_archived_and_unknown(self, master):
        queue = master.jobqueue
        first = queue.SubmitJob([Delay()])
        WaitFinal(master, first)
        queue.ArchiveJob(first)
        second = queue.SubmitJob([Delay(depends=[[int(first), ["success"]]])])
        assert WaitFinal(master, second) == "success"
        master.runtime.files.remove(jstore.GetArchivedJobPath(int(first)))
        third = queue.SubmitJob([Delay(depends=[[int(first), ["success"]]])])
        assert WaitFinal(master, third) == "error"

    @Simulated()
    def test_archived_without_its_end(self, master):
        """Its last write failed: nobody waits for the end of a job that has none any more."""
        queue, files = master.jobqueue, master.runtime.files
        job_id = int(queue.SubmitJob([Delay()]))
        assert WaitFinal(master, job_id) == "success"
        assert queue.ArchiveJob(job_id)
        path = jstore.GetArchivedJobPath(job_id)
        files.write(path, files.read(path).replace(b'"success"', b'"running"'))
        assert WaitFinal(master, queue.SubmitJob([Delay(depends=[[job_id, []]])])) == "success"
        waiting = queue.SubmitJob([Delay(depends=[[job_id, ["success"]]])])
        assert WaitFinal(master, waiting) == "error"

    @Simulated()
    def test_impossible(self, master):
        queue = master.jobqueue
        with pytest.raises(errors.OpPrereqError, match="not older"):
            queue.SubmitJob([Delay(depends=[[5, []]])])
        with pytest.raises(errors.OpPrereqError, match="2 jobs back"):
            queue.SubmitJob([Delay(depends=[[-2, []]])])

    @Simulated()
    def test_cancel_while_waiting_for_the_other(self, master):
        queue = master.jobqueue
        first = queue.SubmitJob([Delay(5.0)])
        second = queue.SubmitJob([Delay(depends=[[int(first), []]])])
        master.runtime.clock.sleep(1.0)
        assert queue.CancelJob(second) == [True, f"Job {second} canceled"]
        WaitFinal(master, first)
        assert Query(master, second, "status") == "canceled"


class TestLockRetries:
    @Simulated(num_workers=4, instances=[f"inst{number}.example.com" for number in (1, 4)])
    def test_deferred_jobs_end(self, master):
        """LK5: many jobs that want one lock all get it, and others are not held up meanwhile."""
        queue = master.jobqueue
        ids = [queue.SubmitJob([Delay(3.0, [NODE])]) for _ in range(8)]
        master.runtime.clock.sleep(0.1)
        free = queue.SubmitJob([Delay()])
        WaitFinal(master, free)
        done = [job_id for job_id in ids if Query(master, job_id, "status") == "success"]
        assert len(done) < 4
        for job_id in ids:
            assert WaitFinal(master, job_id) == "success"
        assert sorted(master.rpc.executed) == [3.0] * 8

    @Simulated(num_workers=4)
    def test_not_all_workers_block(self, master):
        """LK5: even after all attempts a part of the workers stays free for others."""
        queue = master.jobqueue
        holder = queue.SubmitJob([Delay(400.0, [NODE])])
        master.runtime.clock.sleep(1.0)
        ids = [queue.SubmitJob([NodeDelay(float(number))]) for number in range(1, 7)]
        master.runtime.clock.sleep(350.0)
        before = master.runtime.clock.monotonic()
        free = queue.SubmitJob([Delay()])
        assert WaitFinal(master, free) == "success"
        assert master.runtime.clock.monotonic() < before + 15
        assert Query(master, holder, "status") == "running"
        for job_id in ids:
            assert WaitFinal(master, job_id) == "success"

    def test_thousand_jobs_want_a_held_lock(self):
        """LK5: with 25 workers: a job that nobody is in the way of runs at once."""
        sim = Simulation(1, max_switches=10_000_000, preempt=0.05)

        def _Run():
            master = fake.NewMaster(sim.runtime, num_workers=constants.JOB_THREADS)
            queue, clock = master.jobqueue, master.runtime.clock
            holder = queue.SubmitJob([Delay(600.0, [NODE])])
            clock.sleep(1.0)
            waiting = [job_id for _, job_id in queue.SubmitManyJobs([[NodeDelay(0.0)]] * 1000)]
            # At first, and in every phase of the time-outs, up to where some block.
            for pause, limit in ((0.0, 0.5), (1.0, 0.5), (10.0, 0.5), (60.0, 2.0), (300.0, 2.0)):
                clock.sleep(pause)
                before = clock.monotonic()
                assert WaitFinal(master, queue.SubmitJob([Delay()])) == "success"
                assert clock.monotonic() - before < limit
            assert Query(master, holder, "status") == "running"
            assert {queue.GetJobStatus(int(job_id)) for job_id in waiting} <= {"queued", "waiting"}
            for job_id in waiting:
                assert WaitFinal(master, job_id) == "success"
            assert sorted(master.rpc.executed) == [0.0] * 1000 + [600.0]
            queue.Shutdown()

        sim.Run(_Run)


class TestShutdown:
    @Simulated()
    def test_running_ends_waiting_stays(self, master):
        queue = master.jobqueue
        running = queue.SubmitJob([Delay(5.0, [NODE])])
        while Query(master, running, "status") != "running":
            master.runtime.clock.sleep(0.01)
        waiting = queue.SubmitJob([NodeDelay(8.0)])
        master.runtime.clock.sleep(0.5)
        queue.Shutdown()
        assert Query(master, running, "status") == "success"
        assert Query(master, waiting, "status") == "waiting"
        with pytest.raises(errors.JobQueueError):
            queue.SubmitJob([Delay()])
        # The next master daemon runs it.
        master.runtime.files.Crash()
        again = fake.NewMaster(_NewWorld(master.runtime), rpc_=master.rpc)
        assert WaitFinal(again, waiting) == "success"
        assert master.rpc.executed == [5.0, 8.0]
        again.jobqueue.Shutdown()


def _NewWorld(rt):
    """The same world for another process: a lock manager of its own."""
    import dataclasses

    return dataclasses.replace(rt)

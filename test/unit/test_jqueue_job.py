"""JQ1: jobs as data: the file's form, states and their transitions."""

from __future__ import annotations

import itertools
import pathlib

import pytest

from ganeti import constants, errors, opcodes, serializer
from ganeti.jqueue import waiting
from ganeti.jqueue.job import CalcJobStatus, QueuedJob

GOLDEN = pathlib.Path(__file__).parent.parent / "data" / "golden" / "state" / "queue"


def NewJob(*ops, now=1000.25, job_id=42):
    ops = ops or (opcodes.OpTestDelay(duration=10.0, on_master=True, on_nodes=[]),)
    return QueuedJob(job_id, ops, now)


class TestFile:
    @pytest.mark.parametrize("path", sorted(GOLDEN.glob("job-*")), ids=lambda path: path.name)
    def test_golden_byte_for_byte(self, path):
        data = path.read_bytes()
        job = QueuedJob.Restore(data, int(path.name[4:]))
        job._CheckInvariants()
        assert job.final
        assert job.Serialize() == data

    def test_golden_is_there(self):
        assert len(list(GOLDEN.glob("job-*"))) == 5

    def test_new_job(self):
        job = NewJob()
        assert serializer.Load(job.Serialize()) == {
            "end_timestamp": None,
            "id": "42",
            "ops": [
                {
                    "end_timestamp": None,
                    "exec_timestamp": None,
                    "input": {
                        "OP_ID": "OP_TEST_DELAY",
                        "duration": 10.0,
                        "on_master": True,
                        "on_nodes": [],
                    },
                    "log": [],
                    "result": None,
                    "start_timestamp": None,
                    "status": "queued",
                }
            ],
            "received_timestamp": [1000, 250000],
            "start_timestamp": None,
        }

    def test_newer_file(self):
        """Ids may be integers; keys of later versions stay."""
        data = serializer.Dump(
            {
                "id": 7,
                "archived": False,
                "ops": [
                    {
                        "input": {"OP_ID": "OP_CLUSTER_QUERY", "nosuch": 1},
                        "status": "queued",
                        "result": None,
                        "log": [],
                        "priority": 0,
                    }
                ],
            }
        )
        job = QueuedJob.Restore(data, 7)
        state = serializer.Load(job.Serialize())
        assert (state["id"], state["archived"]) == ("7", False)
        assert state["ops"][0]["priority"] == 0
        assert state["ops"][0]["exec_timestamp"] is None

    @pytest.mark.parametrize(
        "data",
        [
            "",
            "[]",
            "{}",
            '{"id": "x", "ops": []}',
            '{"id": "7", "ops": []}',
            '{"id": "7", "ops": [{}]}',
            '{"id": "7", "ops": [{"input": {"OP_ID": "OP_NOSUCH"}, "status": "queued",'
            ' "result": null, "log": []}]}',
            '{"id": "7", "ops": [{"input": {"OP_ID": "OP_CLUSTER_QUERY"}, "status": "odd",'
            ' "result": null, "log": []}]}',
            '{"id": "8", "ops": [{"input": {"OP_ID": "OP_CLUSTER_QUERY"}, "status": "queued",'
            ' "result": null, "log": []}]}',
        ],
    )
    def test_corrupted(self, data):
        with pytest.raises(errors.JobFileCorrupted):
            QueuedJob.Restore(data, 7)

    @pytest.mark.parametrize(
        ("where", "value"),
        [
            (("ops", 0, "input", "priority"), "x"),
            (("ops", 0, "input", "priority"), None),
            (("ops", 0, "input", "depends"), [["x", 5]]),
            (("ops", 0, "log"), [5]),
            (("ops", 0, "log"), [[1, "x"]]),
            (("ops", 0, "end_timestamp"), "x"),
            (("end_timestamp",), "x"),
            (("received_timestamp",), []),
            (("start_timestamp",), [1.5, None]),
        ],
        ids=str,
    )
    def test_what_the_queue_goes_by(self, where, value):
        """One such file must not end the daemon, or an archiving of all."""
        state = serializer.Load(QueuedJob(7, [opcodes.OpTestDelay(duration=0.0)], 0.0).Serialize())
        assert QueuedJob.Restore(serializer.Dump(state), 7).id == 7
        place = state
        for key in where[:-1]:
            place = place[key]
        place[where[-1]] = value
        with pytest.raises(errors.JobFileCorrupted):
            QueuedJob.Restore(serializer.Dump(state), 7)

    def test_no_opcodes(self):
        with pytest.raises(errors.OpPrereqError):
            QueuedJob(1, [], 0.0)


def _ExpectedStatus(statuses):
    """The rule as the interface describes it, in the plainest way."""
    if all(status == "success" for status in statuses):
        return "success"
    for status in statuses:
        if status in ("canceling", "error", "canceled"):
            return status
    live = [status for status in statuses if status in ("waiting", "running")]
    return live[-1] if live else "queued"


class TestStatus:
    def test_all_combinations_of_three(self):
        for statuses in itertools.product(sorted(constants.OP_STATUS_ALL), repeat=3):
            assert CalcJobStatus(statuses) == _ExpectedStatus(statuses), statuses

    @pytest.mark.parametrize("status", sorted(constants.OP_STATUS_ALL))
    def test_only_rows_of_the_table_are_possible(self, status):
        events = {event for _, event in constants.OP_TRANSITIONS}
        for event in events:
            (op,) = NewJob().ops
            op.status = status
            if (status, event) in constants.OP_TRANSITIONS:
                op.Apply(event, 5.0, "result")
                assert op.status == constants.OP_TRANSITIONS[status, event]
                if op.final:
                    assert op.end_timestamp == (5, 0)
                    assert op.result == "result"
            else:
                with pytest.raises(errors.ProgrammerError):
                    op.Apply(event, 5.0)
                assert op.status == status

    def test_life(self):
        op = opcodes.OpTestDelay(duration=1.0, on_master=True, on_nodes=[])
        job = NewJob(op, opcodes.OpClusterQuery())
        first, second = job.ops
        job.Take(first, 1001.0)
        assert (job.CalcStatus(), job.start_timestamp) == ("waiting", (1001, 0))
        first.Apply(constants.OP_EVENT_START, 1002.0)
        assert job.CalcStatus() == "running"
        job.AddLogEntry(first, "message", "one", 1003.0)
        first.Apply(constants.OP_EVENT_SUCCEED, 1004.0, [1])
        assert job.CalcStatus() == "queued"
        assert job.GetCurrentOp() is second
        job.Take(second, 1005.0)
        assert job.start_timestamp == (1001, 0)
        job.AddLogEntry(second, "message", "two", 1006.0)
        assert [entry[0] for entry in job.GetLogEntries(None)] == [1, 2]
        assert [entry[3] for entry in job.GetLogEntries(1)] == ["two"]
        assert job.GetLogEntries(2) == []
        job.Fail(second, "why", 1007.0)
        assert (job.CalcStatus(), job.end_timestamp) == ("error", (1007, 0))
        # Serials go on after a restart.
        again = QueuedJob.Restore(job.Serialize(), 42)
        again.AddLogEntry(again.ops[1], "message", "three", 1008.0)
        assert again.GetLogEntries(2)[0][0] == 3

    def test_priority_is_that_of_what_is_left(self):
        job = NewJob(opcodes.OpClusterQuery(priority=-5), opcodes.OpClusterQuery(priority=3))
        assert job.CalcPriority() == -5
        job.ops[0].status = "success"
        assert job.CalcPriority() == 3
        job.ops[1].status = "success"
        assert job.CalcPriority() == 0

    def test_invariant(self):
        job = NewJob(opcodes.OpClusterQuery(), opcodes.OpClusterQuery())
        job.ops[1].status = "success"
        with pytest.raises(AssertionError):
            job._CheckInvariants()


class TestQueryFields:
    def test_all_fields(self):
        job = NewJob()
        row = job.GetInfo(
            ["id", "status", "summary", "received_ts", "lock_status", "opstart", "ops", "oplog"]
        )
        assert row[:6] == ["42", "queued", ["TEST_DELAY(10.0)"], (1000, 250000), None, [None]]
        assert row[6][0]["OP_ID"] == "OP_TEST_DELAY"
        assert row[7] == [[]]

    def test_unknown(self):
        with pytest.raises(errors.OpExecError, match="nosuch"):
            NewJob().GetInfo(["id", "nosuch"])


class TestStep:
    """What a running job is at is told like what a waiting one waits for."""

    def test_running(self):
        job = NewJob()
        job.Take(job.ops[0], 1001.0)
        job.ops[0].Apply(constants.OP_EVENT_START, 1001.0)
        assert waiting.DescribeWait(job, [], {}) is None
        job.lock_status = "running pre hooks of x on n1"
        assert waiting.DescribeWait(job, [], {}) == {"text": job.lock_status, "locks": []}

    def test_ended(self):
        job = NewJob()
        job.Take(job.ops[0], 1001.0)
        job.ops[0].Apply(constants.OP_EVENT_START, 1001.0)
        job.ops[0].Apply(constants.OP_EVENT_SUCCEED, 1002.0, None)
        job.lock_status = "left behind"
        assert waiting.DescribeWait(job, [], {}) is None

"""LK8: why a job waits, told of locks and of jobs."""

from __future__ import annotations

from ganeti import constants, opcodes
from ganeti.jqueue import waiting
from ganeti.jqueue.job import QueuedJob


def Job(job_id, since=None):
    """A job that waits for locks or, since then, runs."""
    job = QueuedJob(job_id, [opcodes.OpTestDelay(duration=1.0)], 900.0)
    job.Take(job.ops[0], 901.0)
    if since is not None:
        job.ops[0].Apply(constants.OP_EVENT_START, since)
    return job


def Lock(name, mode, owners, pending=()):
    return {"name": name, "mode": mode, "owners": owners, "pending": list(pending)}


HOLDER = Job(3, 950.5)
WAITER = Job(5)
JOBS = {3: HOLDER, 5: WAITER}


class TestPending:
    def test_who_holds_and_who_is_ahead(self):
        locks = [
            Lock(
                "node/n1",
                "shared",
                ["Job 3/OP_TEST_DELAY", "a thread", "Job 99/OP_GONE"],
                [
                    ("exclusive", ["Job 4/OP_A"], 960.0),
                    ("shared", ["Job 6/OP_B", "Job 5/OP_TEST_DELAY"], 970.0),
                    ("exclusive", ["Job 7/OP_C"], 980.0),
                ],
            ),
            Lock("node/n2", "exclusive", ["Job 4/OP_A"], [("shared", ["Job 50/OP_A"], 1.0)]),
        ]
        found = waiting.DescribeWait(WAITER, locks, JOBS)
        assert found["locks"] == [
            {
                "name": "node/n1",
                "mode": "shared",
                "held": "shared",
                "holders": ["Job 3/OP_TEST_DELAY", "a thread", "Job 99/OP_GONE"],
                "held_since": [950.5, None, None],
                "ahead": ["Job 4/OP_A"],
                "since": 970.0,
            }
        ]


class TestBetweenAttempts:
    """A job that did not get its locks in time waits in the queue, not at the locks."""

    LOCKS = [
        Lock("node/n1", "exclusive", ["Job 3/OP_TEST_DELAY"], [("shared", ["Job 4/OP_A"], 1.0)]),
        Lock("node/n2", None, []),
        Lock("instance/n1", "exclusive", ["Job 8/OP_B"]),
    ]

    def _Locks(self, status):
        job = Job(5)
        job.lock_status = status
        return waiting.DescribeWait(job, self.LOCKS, JOBS)["locks"]

    def test_missed(self):
        (lock,) = self._Locks("timeout/node/n1,n2/exclusive")
        assert (lock["name"], lock["mode"], lock["since"]) == ("node/n1", "exclusive", None)
        assert (lock["held_since"], lock["ahead"]) == ([950.5], ["Job 4/OP_A"])
        assert self._Locks("waiting/timeout=1.034211s/node/n1/shared")[0]["mode"] == "shared"
        assert self._Locks("waiting/blocking/node/n2/shared") == []

    def test_other_texts(self):
        for text in (None, "", "job 3 is to end first", "timeout/node/ALL/shared"):
            assert self._Locks(text) == []

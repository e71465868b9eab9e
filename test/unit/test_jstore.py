"""JQ1: the files of the job queue."""

from __future__ import annotations

import pytest

from ganeti import errors, jstore, pathutils
from ganeti.runtime import fake


class LogLock:
    def __init__(self, held=False):
        self.log = []
        self.held = held

    def Exclusive(self, blocking=False, timeout=None):
        if self.held and not blocking:
            raise BlockingIOError
        self.log.append(("lock", blocking))

    def Unlock(self, blocking=True, timeout=None):
        self.log.append("unlock")

    def Close(self):
        self.log.append("close")


def Open(must_lock, rt, lock=None):
    lock = lock or LogLock()
    return jstore.InitAndVerifyQueue(must_lock, rt, lambda: lock)


class TestNames:
    def test_ids(self):
        assert [jstore.ParseJobId(value) for value in (0, 12, "12", "007")] == [0, 12, 12, 7]
        endless = "9" * 5000
        for value in (-1, "-1", "", "1a", "1.0", 1.0, None, True, [1], endless, "١"):  # noqa: RUF001
            assert jstore.ParseJobId(value) is None, value
            with pytest.raises(errors.ProgrammerError):
                jstore.FormatJobId(value)
        assert jstore.FormatJobId(5) == "5"

    def test_paths(self):
        assert jstore.GetJobPath(42) == pathutils.QUEUE_DIR + "/job-42"
        for job_id, number in ((9999, "0"), (10000, "1"), (25000, "2")):
            assert jstore.GetArchivedJobPath(job_id) == (
                f"{pathutils.JOB_QUEUE_ARCHIVE_DIR}/{number}/job-{job_id}"
            )

    def test_file_names(self):
        assert jstore.ParseJobFileName("job-12") == 12
        for name in (
            "job-",
            "job-1a",
            "job-1.new",
            "xjob-1",
            "job--1",
            "job-1\n",
            "serial",
            "job-" + "9" * 19,
        ):
            assert jstore.ParseJobFileName(name) is None

    def test_list(self):
        rt = fake.NewRuntime()
        for name in ("job-10", "job-9", "job-2", "job-2.123-5.new", "serial", "job-x"):
            rt.files.write(f"{pathutils.QUEUE_DIR}/{name}", b"")
        assert jstore.ListJobIds(rt) == [2, 9, 10]

    def test_last_archived(self):
        rt = fake.NewRuntime()
        assert jstore.FindLastArchivedJobId(rt) is None
        rt.files.write(f"{pathutils.JOB_QUEUE_ARCHIVE_DIR}/3/other", b"")
        # None of ours, whoever left them there.
        for name in ("²/job-1", "9" * 30 + "/job-1", "x/job-1", "007/job-70001"):
            rt.files.write(f"{pathutils.JOB_QUEUE_ARCHIVE_DIR}/{name}", b"")
        for job_id in (5, 10001, 20002, 9999):
            rt.files.write(jstore.GetArchivedJobPath(job_id), b"")
        assert jstore.FindLastArchivedJobId(rt) == 20002
        # Directory 3 has no job.
        assert jstore.ListArchivedJobIds(2, rt) == [10001, 20002]
        assert jstore.ListArchivedJobIds(9, rt) == [5, 9999, 10001, 20002]


class TestOpen:
    def test_fresh(self):
        rt = fake.NewRuntime()
        lock = Open(True, rt)
        assert lock.log == [("lock", True)]
        assert jstore.ReadVersion(rt) == 1
        assert jstore.ReadSerial(rt) == 0
        # Both survive a power failure.
        rt.files.Crash()
        assert rt.files.read(pathutils.JOB_QUEUE_SERIAL_FILE) == b"0\n"
        assert rt.files.read(pathutils.JOB_QUEUE_VERSION_FILE) == b"1\n"

    def test_existing_is_kept(self):
        rt = fake.NewRuntime()
        rt.files.write(pathutils.JOB_QUEUE_SERIAL_FILE, b"94\n")
        Open(True, rt)
        assert jstore.ReadSerial(rt) == 94

    def test_node_daemon_unlocks(self):
        rt = fake.NewRuntime()
        assert Open(False, rt).log == [("lock", False), "unlock"]

    def test_node_daemon_on_the_master(self):
        """Somebody has the lock: they did the checks."""
        rt = fake.NewRuntime()
        lock = Open(False, rt, LogLock(held=True))
        assert lock.log == []
        assert jstore.ReadVersion(rt) is None

    @pytest.mark.parametrize(
        ("name", "data", "error"),
        [
            ("VERSION", b"2\n", errors.JobQueueError),
            ("VERSION", b"x", ValueError),
            ("SERIAL", b"1 2", ValueError),
            ("SERIAL", b"-7\n", ValueError),
            ("SERIAL", b"9" * 19, ValueError),
            ("SERIAL", b"5" + b" " * 5000, ValueError),
            ("SERIAL", "٣".encode(), ValueError),  # noqa: RUF001
        ],
    )
    def test_broken(self, name, data, error):
        rt = fake.NewRuntime()
        rt.files.write(getattr(pathutils, f"JOB_QUEUE_{name}_FILE"), data)
        lock = LogLock()
        with pytest.raises(error):
            Open(True, rt, lock)
        assert lock.log[-1] == "close"

    def test_empty_number(self):
        """JQ1: what a power failure may leave of the serial file keeps nobody from starting."""
        rt = fake.NewRuntime()
        rt.files.write(pathutils.JOB_QUEUE_SERIAL_FILE, b"")
        Open(True, rt)
        assert jstore.ReadSerial(rt) == 0

    def test_real_directories(self):
        """What the master daemon uses."""
        import os
        import stat

        os.makedirs(pathutils.DATA_DIR, exist_ok=True)
        with jstore.InitAndVerifyQueue(True):
            other = jstore.InitAndVerifyQueue(False)
            other.Close()
            for path in (pathutils.QUEUE_DIR, pathutils.JOB_QUEUE_ARCHIVE_DIR):
                assert stat.S_IMODE(os.stat(path).st_mode) == 0o700


class TestDrain:
    def test_flag(self):
        rt = fake.NewRuntime()
        assert not jstore.IsQueueDrained(rt)
        jstore.SetDrainFlag(True, rt)
        rt.files.Crash()
        assert jstore.IsQueueDrained(rt)
        jstore.SetDrainFlag(False, rt)
        jstore.SetDrainFlag(False, rt)
        assert not jstore.IsQueueDrained(rt)

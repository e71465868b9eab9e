"""The user-id pool: UP1, and UP3 as far as the pool itself goes."""

import collections
import itertools
import os
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti import constants, errors, pathutils, uidpool
from ganeti.runtime import fake


@pytest.fixture
def lock_dir(tmp_path, monkeypatch):
    path = tmp_path / "uid-pool"
    monkeypatch.setattr(pathutils, "UIDPOOL_LOCKDIR", str(path))
    return path


class TestPoolAsText:
    """UP1: the pool is parsed, checked and written as the design says."""

    @pytest.mark.parametrize(
        ("text", "separator", "pool"),
        [
            ("1-100,200,", ",", [(1, 100), (200, 200)]),
            ("1000:2000-2500", ":", [(1000, 1000), (2000, 2500)]),
            ("1000\n2000-2500", "\n", [(1000, 1000), (2000, 2500)]),
            ("", ",", []),
            (" 3 - 4 , 1 ", ",", [(1, 1), (3, 4)]),
            ("7,7", ",", [(7, 7), (7, 7)]),
        ],
    )
    def test_parse(self, text, separator, pool):
        assert uidpool.ParseUidPool(text, separator=separator) == pool

    @pytest.mark.parametrize(
        ("text", "names"),
        [
            ("5-", "'5-' lacks its higher"), ("-5", "'-5' lacks its lower"),
            ("1,-", "'-' lacks its lower"), ("1, - 5", "' - 5' lacks its lower"),
            ("a", "'a' in 'a' is not"), ("7,1-2-3", "'1-2-3' has more than one dash"),
            ("5--10", "'5--10' has more"), ("1,x-2", "'x' in 'x-2'"), ("1-2,3 4", "'3 4' in '3 4'"),
            ("1_000", "'1_000'"), ("+5", "'+5'"), ("\u0661", "'\u0661'"), ("1;2", "'1;2'"),
            ("1.5", "'1.5'"), ("1-2 3", "'2 3' in '1-2 3'"),
        ],
    )  # fmt: skip
    def test_parse_refuses_and_names_the_part(self, text, names):
        with pytest.raises(errors.OpPrereqError) as info:
            uidpool.ParseUidPool(text)
        assert info.value.args[1] == errors.ECODE_INVAL
        assert names in info.value.args[0]

    @pytest.mark.parametrize(
        ("text", "names"),
        [
            ("5000,200-100", "range 200-100: the lower boundary 200 is above the higher one 100"),
            ("1-10,7-20", "ranges 1-10 and 7-20 overlap"),
            ("1-100,10-20,500", "ranges 1-100 and 10-20 overlap"),
            ("1-10,10", "ranges 1-10 and 10 overlap"),
            ("5,1000-4294967295", "range 1000-4294967295 must not have the id 4294967295"),
            ("4294967296", "range 4294967296: 4294967296 is above the maximum"),
            ("0-5", "range 0-5 must not have the id 0"),
        ],
    )
    def test_check_names_the_part(self, text, names):
        with pytest.raises(errors.OpPrereqError) as info:
            uidpool.CheckUidPool(uidpool.ParseUidPool(text))
        assert info.value.args[1] == errors.ECODE_INVAL
        assert names in info.value.args[0]

    def test_check_negative(self):
        """From programs: on the command line a dash is the middle of a range."""
        with pytest.raises(errors.OpPrereqError, match="-5-10: -5 is below the minimum 0"):
            uidpool.CheckUidPool([[-5, 10]])

    @pytest.mark.parametrize("text", ["1-10,11-20", "4294967294", "7,7", "20,1-19", "1000-1000"])
    def test_check_takes(self, text):
        uidpool.CheckUidPool(uidpool.ParseUidPool(text))

    @pytest.mark.parametrize(
        ("separator", "text"), [(", ", "1-100, 200"), (":", "1-100:200"), ("\n", "1-100\n200")]
    )
    def test_format(self, separator, text):
        assert uidpool.FormatUidPool([(1, 100), [200, 200]], separator=separator) == text

    def test_format_roman(self):
        assert uidpool.FormatUidPool([(4, 1999), (5000, 5000)], roman=True) == "IV-MCMXCIX, 5000"

    @given(st.lists(st.tuples(st.integers(0, 2**32), st.integers(0, 2**32))))
    def test_format_is_parsed_again(self, pool):
        assert uidpool.ParseUidPool(uidpool.FormatUidPool(pool)) == sorted(pool)

    @pytest.mark.parametrize("pool", [[(0, 0)], [(11, 11)], [(2, 1)], [(1, 2), (5, 11)]])
    def test_check_reads_the_limits_when_called(self, pool, monkeypatch):
        monkeypatch.setattr(constants, "UIDPOOL_UID_MIN", 1)
        monkeypatch.setattr(constants, "UIDPOOL_UID_MAX", 10)
        with pytest.raises(errors.OpPrereqError) as info:
            uidpool.CheckUidPool(pool)
        assert info.value.args[1] == errors.ECODE_INVAL
        uidpool.CheckUidPool([(1, 10)])

    @pytest.mark.parametrize("uid", [0, 2**32 - 1])
    def test_check_refuses_ids_nobody_can_have_alone(self, uid):
        with pytest.raises(errors.OpPrereqError, match=str(uid)):
            uidpool.CheckUidPool([(uid, uid)])

    def test_risks(self):
        assert uidpool.DescribeUidPoolRisks([(1000, 1010), [1011, 1011]]) == []
        (risk,) = uidpool.DescribeUidPoolRisks([(999, 1000), (1001, 1010)])
        assert "999-1000" in risk


class TestPoolChanges:
    """UP1: ranges are added and removed as they were written."""

    def test_add(self):
        pool = [[5, 6], (1, 100)]
        uidpool.AddToUidPool(pool, [[10, 20], [1, 100]])
        assert pool == [(1, 100), (5, 6), (10, 20)]

    def test_remove(self):
        pool = [[1, 100], [5, 6]]
        uidpool.RemoveFromUidPool(pool, [(1, 100)])
        assert pool == [(5, 6)]

    def test_remove_what_is_not_there_changes_nothing(self):
        pool = [(1, 100), (200, 200)]
        with pytest.raises(errors.OpPrereqError, match="10-20"):
            uidpool.RemoveFromUidPool(pool, [(1, 100), (10, 20)])
        assert pool == [(1, 100), (200, 200)]

    def test_expand(self):
        assert sorted(uidpool.ExpandUidPool([(1, 3), [2, 4], (9, 9)])) == [1, 2, 3, 4, 9]


class TestRequest:
    """UP1: an id is handed out only if no process runs with it and nobody else holds it."""

    def test_ids_of_running_processes_are_refused(self, lock_dir):
        with pytest.raises(errors.LockError, match="--add-uids"):
            uidpool.RequestUnusedUid({0, os.getuid()})

    def test_empty_pool(self, lock_dir):
        with pytest.raises(errors.LockError):
            uidpool.RequestUnusedUid(set())

    def test_an_id_is_had_once(self, lock_dir):
        uid = uidpool.RequestUnusedUid({-1})
        assert (uid.GetUid(), uid.AsStr(), str(uid)) == (-1, "-1", "-1")
        with pytest.raises(errors.LockError):
            uidpool.RequestUnusedUid({-1})
        uid.Unlock()
        assert (lock_dir / "-1").exists()
        again = uidpool.RequestUnusedUid({-1})
        uidpool.ReleaseUid(again)
        assert not (lock_dir / "-1").exists()

    def test_ids_without_lock_file_come_first(self, lock_dir):
        lock_dir.mkdir()
        (lock_dir / "-2").touch()
        (lock_dir / "README").touch()
        rt = fake.NewRuntime()
        for _ in range(8):
            uid = uidpool.RequestUnusedUid({-1, -2}, rt)
            assert uid.GetUid() == -1
            uidpool.ReleaseUid(uid)
        uid = uidpool.RequestUnusedUid({-2}, rt)
        assert uid.GetUid() == -2
        uid.Unlock()

    def test_order_is_random(self, lock_dir):
        seen = set()
        for seed in range(20):
            uid = uidpool.RequestUnusedUid(range(-5, 0), fake.NewRuntime(seed))
            seen.add(uid.GetUid())
            uidpool.ReleaseUid(uid)
        assert len(seen) > 1

    def test_lock_directory_can_not_be_made(self, tmp_path, monkeypatch):
        (tmp_path / "file").touch()
        monkeypatch.setattr(pathutils, "UIDPOOL_LOCKDIR", str(tmp_path / "file" / "x"))
        with pytest.raises(errors.LockError, match="file/x"):
            uidpool.RequestUnusedUid({-1})

    def test_cannot_tell_is_not_unused(self, lock_dir, monkeypatch):
        def _Fail():
            raise errors.LockError("Can't tell")

        monkeypatch.setattr(uidpool, "_UidsInUse", _Fail)
        with pytest.raises(errors.LockError, match="Can't tell"):
            uidpool.RequestUnusedUid({-1})
        monkeypatch.undo()
        monkeypatch.setattr(pathutils, "UIDPOOL_LOCKDIR", str(lock_dir))
        uidpool.RequestUnusedUid({-1}).Unlock()

    def test_a_child_does_not_inherit_the_lock(self, lock_dir):
        uid = uidpool.RequestUnusedUid({-1})
        with subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            close_fds=False,
        ) as child:
            child.stdout.readline()
            uid.Unlock()
            uidpool.RequestUnusedUid({-1}).Unlock()
            child.communicate(b"\n")


class TestProcessStatus:
    """UP1: every one of a process' user-ids counts, those of the dead do not."""

    STATUS = (
        b"Name:\tqemu\nState:\t%s\nTgid:\t7\nUid:\t1\t2\t3\t4\nGid:\t5\t5\t5\t5\nThreads:\t%d\n"
    )

    @pytest.mark.parametrize(
        ("state", "threads", "uids"),
        [
            (b"S (sleeping)", 5, [1, 2, 3, 4]),
            (b"Z (zombie)", 1, []),
            (b"Z (zombie)", 2, [1, 2, 3, 4]),
        ],
    )
    def test_uids(self, state, threads, uids):
        assert uidpool._UidsOfStatus(self.STATUS % (state, threads)) == uids


class TestRelease:
    """UP1: what was released can be had again; releasing never takes an id from its new owner."""

    def test_number_and_missing_file(self, lock_dir):
        uidpool.RequestUnusedUid({-1}).Unlock()
        uidpool.ReleaseUid(-1)
        assert not (lock_dir / "-1").exists()
        uidpool.ReleaseUid(-1)

    def test_late_release_of_an_id_that_has_a_new_owner(self, lock_dir):
        uidpool.RequestUnusedUid({-1}).Unlock()  # the old owner, whose process has ended
        owner = uidpool.RequestUnusedUid({-1})
        uidpool.ReleaseUid(-1)  # the old owner's clean-up comes late
        with pytest.raises(errors.LockError):
            uidpool.RequestUnusedUid({-1})
        owner.Unlock()

    def test_file_replaced_between_open_and_lock(self, lock_dir, monkeypatch):
        lock_dir.mkdir()
        real_open, opened = os.open, []

        def _Open(path, *args, **kwargs):
            fd = real_open(path, *args, **kwargs)
            if str(path).endswith("/-1") and not opened:
                opened.append(fd)
                os.unlink(path)  # released by another process just now
            return fd

        monkeypatch.setattr(os, "open", _Open)
        uid = uidpool.RequestUnusedUid({-1})
        assert opened
        assert (lock_dir / "-1").exists(), "holds the lock of a file that is gone"
        uid.Unlock()

    def test_not_removable(self, lock_dir):
        (lock_dir / "-1").mkdir(parents=True)
        with pytest.raises(errors.LockError):
            uidpool.ReleaseUid(-1)


class TestExec:
    """UP1: ExecWithUnusedUid keeps the lock while the function runs, and only then."""

    def test_result_and_lock(self, lock_dir):
        def _Start(word, uid, end):
            with pytest.raises(errors.LockError):
                uidpool.RequestUnusedUid({-1})
            return (word, uid, end)

        assert uidpool.ExecWithUnusedUid(_Start, {-1}, "go", end="!") == ("go", -1, "!")
        assert (lock_dir / "-1").exists()
        uidpool.RequestUnusedUid({-1}).Unlock()

    def test_failure_releases(self, lock_dir):
        def _Start(uid):
            raise ValueError(uid)

        with pytest.raises(ValueError, match="-1"):
            uidpool.ExecWithUnusedUid(_Start, {-1})
        assert not (lock_dir / "-1").exists()


class TestManyProcesses:
    """UP3: two that start at once never share an id."""

    WORKER = textwrap.dedent(
        """
        import os, sys, time
        from ganeti import errors, uidpool

        pool, rounds, log = set(range(-4, 0)), int(sys.argv[1]), int(sys.argv[2])
        sys.stdin.readline()
        for _ in range(rounds):
            try:
                uid = uidpool.RequestUnusedUid(pool)
            except errors.LockError:
                continue
            # One write each, O_APPEND: the log has the true order.
            os.write(log, b"+%d\\n" % uid.GetUid())
            os.sched_yield()
            os.write(log, b"-%d\\n" % uid.GetUid())
            if os.getpid() % 2:
                uidpool.ReleaseUid(uid)
            else:
                uid.Unlock()
                uidpool.ReleaseUid(uid.GetUid())
        """
    )

    def test_never_shared(self, lock_dir, tmp_path):
        log = os.open(tmp_path / "log", os.O_CREAT | os.O_RDWR | os.O_APPEND)
        env = {
            **os.environ,
            "GANETI_ROOTDIR": str(tmp_path / "root"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", self.WORKER, "60", str(log)],
                stdin=subprocess.PIPE,
                pass_fds=[log],
                env=env,
            )
            for _ in range(8)
        ]
        for worker in workers:
            worker.stdin.write(b"go\n")
            worker.stdin.flush()
        for worker in workers:
            worker.communicate()
            assert worker.returncode == 0
        os.close(log)

        held = collections.Counter()
        lines = (tmp_path / "log").read_text().split()
        for line in lines:
            held[line[1:]] += 1 if line[0] == "+" else -1
            assert held[line[1:]] <= 1, f"user-id {line[1:]} was handed out twice"
        assert len(lines) >= 2 * 60
        assert set(itertools.chain(held)) == {"-1", "-2", "-3", "-4"}


class TestDesignExamples:
    """UP1: the code examples of the design run as they are printed."""

    def test_request_and_release(self, lock_dir):
        class SimpleStore:
            def GetUidPool(self):
                return "4000000000-4000000003\n4000000010"

        # Get list of all user-ids in the uid-pool from ssconf
        ss = SimpleStore()
        uid_pool = uidpool.ParseUidPool(ss.GetUidPool(), separator="\n")
        all_uids = set(uidpool.ExpandUidPool(uid_pool))

        uid = uidpool.RequestUnusedUid(all_uids)
        try:
            # Once the process is started, we can release the file lock
            uid.Unlock()
        except OSError:
            # Return the UID to the pool
            uidpool.ReleaseUid(uid)

        assert uid.GetUid() in all_uids
        uidpool.ReleaseUid(uid)
        assert os.listdir(lock_dir) == []

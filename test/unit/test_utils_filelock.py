"""Locks between processes; two open files of one process exclude each other as well."""

import errno
import fcntl
import os

import pytest

from ganeti import errors
from ganeti.runtime import fake
from ganeti.utils import filelock


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "lock")


@pytest.fixture
def clock():
    return fake.FakeClock()


@pytest.fixture
def locks(path, clock):
    rt = fake.NewRuntime(clock=clock)
    with filelock.FileLock.Open(path, rt) as one, filelock.FileLock.Open(path, rt) as two:
        yield one, two


def test_a_link_is_no_lock_file(path, tmp_path):
    """The directory of locks is everybody's: a link there must not have root make a file."""
    os.symlink(tmp_path / "elsewhere", path)
    with pytest.raises(OSError, match="symbolic links"):
        filelock.FileLock.Open(path)
    assert not (tmp_path / "elsewhere").exists()


class TestFileLock:
    def testOpenKeepsContent(self, path):
        with open(path, "w") as fobj:
            fobj.write("state")
        with filelock.FileLock.Open(path) as lock:
            lock.Exclusive()
        with open(path) as fobj:
            assert fobj.read() == "state"

    def testOpenCreates(self, path):
        filelock.FileLock.Open(path).Close()
        assert os.stat(path).st_mode & 0o777 == 0o600

    def testSharedAndShared(self, locks):
        for lock in locks:
            lock.Shared(blocking=False)

    @pytest.mark.parametrize("first", ["Exclusive", "Shared"])
    def testExclusiveExcludes(self, locks, first):
        one, two = locks
        getattr(one, first)(blocking=True)
        with pytest.raises(OSError) as info:  # noqa: PT011
            two.Exclusive(blocking=False)
        assert info.value.errno == errno.EAGAIN
        one.Unlock()
        two.Exclusive(blocking=False)
        with pytest.raises(BlockingIOError):
            one.Shared(blocking=False)

    def testCanBeDowngradedAndUpgraded(self, locks):
        one, two = locks
        one.Exclusive()
        one.Shared()
        two.Shared()
        with pytest.raises(BlockingIOError):
            one.Exclusive()

    @pytest.mark.parametrize("blocking", [False, True])
    def testTimeout(self, locks, clock, path, blocking):
        one, two = locks
        one.Exclusive()
        with pytest.raises(errors.LockError, match=path):
            two.Shared(blocking=blocking, timeout=3)
        assert 3 <= clock.now <= 4
        assert clock.sleeps[:3] == pytest.approx([0.1, 0.12, 0.144])
        assert max(clock.sleeps) <= 1

    def testReleasedWithinTimeout(self, locks, clock, monkeypatch):
        one, two = locks
        one.Exclusive()
        monkeypatch.setattr(clock, "sleep", lambda seconds: one.Unlock())
        two.Exclusive(timeout=3)
        with pytest.raises(BlockingIOError):
            one.Shared()

    def testCloseReleases(self, locks):
        one, two = locks
        one.Exclusive()
        one.Close()
        one.Close()
        two.Exclusive()

    @pytest.mark.parametrize("method", ["Exclusive", "Shared", "Unlock", "fileno"])
    def testClosedLock(self, locks, method):
        one, _ = locks
        one.Close()
        with pytest.raises(AssertionError):
            getattr(one, method)()

    def testVanishesWithTheObject(self, path):
        lock = filelock.FileLock.Open(path)
        lock.Exclusive()
        del lock
        with filelock.FileLock.Open(path) as other:
            other.Exclusive()


class TestLockFile:
    def testBusy(self, path):
        with open(path, "w") as one, open(path, "w") as two:
            filelock.LockFile(one.fileno())
            with pytest.raises(errors.LockError):
                filelock.LockFile(two.fileno())


class TestOpenExclusive:
    """The lock of a file that its holders replace."""

    def _Replace(self, path):
        other = path.with_name("other")
        other.write_text("new")
        other.rename(path)

    def test_current(self, tmp_path):
        path = tmp_path / "lock"
        with filelock.FileLock.OpenExclusive(str(path)) as lock:
            assert lock.IsCurrent()
            with pytest.raises(BlockingIOError):
                filelock.FileLock.OpenExclusive(str(path))
            self._Replace(path)
            assert not lock.IsCurrent()
            path.unlink()
            assert not lock.IsCurrent()

    def test_replaced_while_waiting(self, tmp_path):
        """Who waited for the old file gets the lock of the new one, or none."""
        path = tmp_path / "lock"
        rt = fake.NewRuntime()
        holder = filelock.FileLock.OpenExclusive(str(path))
        sleep = rt.clock.sleep
        waits = []

        def _Sleep(seconds):
            sleep(seconds)
            waits.append(seconds)
            if len(waits) == 1:
                self._Replace(path)
                fd = os.open(path, os.O_RDWR)
                fcntl.flock(fd, fcntl.LOCK_EX)
                holder.Replace(fd)
            elif len(waits) == 4:
                holder.Close()

        rt.clock.sleep = _Sleep
        with filelock.FileLock.OpenExclusive(str(path), 60, rt) as lock:
            assert len(waits) == 4
            assert lock.IsCurrent()

    def test_timeout(self, tmp_path):
        path = str(tmp_path / "lock")
        rt = fake.NewRuntime()
        with filelock.FileLock.OpenExclusive(path), pytest.raises(errors.LockError):
            filelock.FileLock.OpenExclusive(path, 5, rt)
        assert rt.clock.monotonic() >= 5

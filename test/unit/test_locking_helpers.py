"""RunningTimeout, ssynchronized and owner labels."""

from __future__ import annotations

import threading

import pytest

from ganeti import locking, runtime
from ganeti.runtime.fake import FakeClock


class TestRunningTimeout:
    """LK2: one budget of time for several operations."""

    def testNoLimit(self):
        timeout = locking.RunningTimeout(None, False)
        assert timeout.Remaining() is None
        assert timeout.Remaining() is None

    @pytest.mark.parametrize("allow_negative", [False, True])
    def testNegativeIsRefused(self, allow_negative):
        with pytest.raises(ValueError, match="-1.0"):
            locking.RunningTimeout(-1.0, allow_negative)

    def testClockStartsAtFirstQuestion(self):
        clock = FakeClock(now=100)
        timeout = locking.RunningTimeout(5.0, False, _time_fn=clock.monotonic)
        clock.Advance(60)
        assert timeout.Remaining() == 5.0
        clock.Advance(1.5)
        assert timeout.Remaining() == 3.5

    @pytest.mark.parametrize(("allow_negative", "expected"), [(False, 0.0), (True, -2.0)])
    def testUsedUp(self, allow_negative, expected):
        clock = FakeClock()
        timeout = locking.RunningTimeout(5.0, allow_negative, _time_fn=clock.monotonic)
        timeout.Remaining()
        clock.Advance(7)
        assert timeout.Remaining() == expected

    def testZero(self):
        assert locking.RunningTimeout(0, False).Remaining() == 0


class _Counter:
    def __init__(self):
        self._lock = locking.SharedLock("counter")
        self._mutex = threading.Lock()

    @locking.ssynchronized("_lock")
    def Exclusive(self):
        return self._lock._is_owned(shared=0)

    @locking.ssynchronized("_lock", shared=1)
    def Shared(self, a, b=2):
        return self._lock._is_owned(shared=1), a, b

    @locking.ssynchronized("_lock")
    def Fail(self):
        raise KeyError("on purpose")

    @locking.ssynchronized("_mutex")
    def PlainMutex(self):
        """Says whether the mutex is held."""
        return self._mutex.locked()


class TestSsynchronized:
    """The decorator holds the lock for the time of the call."""

    def testLockObject(self):
        lock = locking.SharedLock()

        @locking.ssynchronized(lock)
        def _Exclusive():
            return lock._is_owned(shared=0)

        @locking.ssynchronized(lock, shared=1)
        def _Shared():
            return lock._is_owned(shared=1)

        assert _Exclusive()
        assert _Shared()
        assert not lock._is_owned()

    def testAttributeName(self):
        counter = _Counter()
        assert counter.Exclusive()
        assert counter.Shared(1, b=5) == (True, 1, 5)
        assert not counter._lock._is_owned()
        # Each object has its own lock.
        other = _Counter()
        other._lock.acquire()
        assert counter.Exclusive()

    def testReleasesOnException(self):
        counter = _Counter()
        with pytest.raises(KeyError):
            counter.Fail()
        assert not counter._lock._is_owned()

    def testPlainMutex(self):
        counter = _Counter()
        assert counter.PlainMutex()
        assert not counter._mutex.locked()

    def testKeepsNameAndDocumentation(self):
        assert _Counter.PlainMutex.__name__ == "PlainMutex"
        assert _Counter.PlainMutex.__doc__ == "Says whether the mutex is held."


class TestOwnerLabel:
    """LK8: what the monitor calls the holder of a lock."""

    @pytest.fixture(autouse=True)
    def _Reset(self):
        yield
        locking.SetOwnerLabel(None)

    def testDefaultIsThreadName(self):
        assert locking.GetOwnerLabel() == runtime.DEFAULT.threads.current_name()

    def testIsTheThreadsOwn(self):
        locking.SetOwnerLabel("Job 1")
        seen = []
        thread = threading.Thread(target=lambda: seen.append(locking.GetOwnerLabel()), name="T7")
        thread.start()
        thread.join()
        assert seen == ["T7"]
        assert locking.GetOwnerLabel() == "Job 1"
        locking.SetOwnerLabel(None)
        assert locking.GetOwnerLabel() == runtime.DEFAULT.threads.current_name()

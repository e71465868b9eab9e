"""LK6: the condition classes, their common contract and what sets them apart.

The contract runs on real threads for all classes. No test depends on the scheduler: a waiter
announces itself while it holds the mutex, so whoever gets the mutex next finds it asleep in wait().
Pipes can not be had in virtual time; their timed waits are real ones of a few milliseconds.
"""

from __future__ import annotations

import os
import threading
import time

import pytest

from ganeti import runtime
from ganeti.locking import CountingCondition, PipeCondition, SingleNotifyPipeCondition
from ganeti.runtime.simulation import Simulation

ALL_CLASSES = [SingleNotifyPipeCondition, PipeCondition, CountingCondition]
REUSABLE_CLASSES = [PipeCondition, CountingCondition]

#: Upper bound for anything that must not hang, seconds.
PATIENCE = 20


class _Waiters:
    """Threads that wait on a condition, one after the other, and write down how they came back."""

    def __init__(self, condition, lock):
        self.condition = condition
        self.lock = lock
        self.woken = []
        self.threads = {}

    def Start(self, name, timeout=None):
        entered = threading.Event()

        def Body():
            with self.lock:
                entered.set()
                result = self.condition.wait(timeout)
                self.woken.append((name, result, self.lock.locked()))

        self.threads[name] = threading.Thread(target=Body, daemon=True)
        self.threads[name].start()
        assert entered.wait(PATIENCE)
        # The mutex is free again only once the waiter sleeps.
        with self.lock:
            pass

    def Join(self, *names):
        for name in names or list(self.threads):
            self.threads[name].join(PATIENCE)
            assert not self.threads[name].is_alive(), f"{name} is still waiting"


@pytest.fixture
def lock():
    return threading.Lock()


@pytest.mark.parametrize("cls", ALL_CLASSES)
class TestContract:
    """LK6: what all condition classes have in common."""

    def testNeedsTheMutex(self, cls, lock):
        condition = cls(lock)
        with pytest.raises(RuntimeError, match="without holding"):
            condition.wait(0)
        with pytest.raises(RuntimeError, match="without holding"):
            condition.notifyAll()

    def testRefusesRecursiveLock(self, cls, lock):
        with pytest.raises(AssertionError, match="recursive"):
            cls(threading.RLock())

    def testLendsAcquireAndRelease(self, cls, lock):
        condition = cls(lock)
        assert not condition._is_owned()
        condition.acquire()
        assert lock.locked()
        assert condition._is_owned()
        condition.release()
        assert not lock.locked()

    def testIsOwnedSaysNothingAboutWho(self, cls, lock):
        condition = cls(lock)
        thread = threading.Thread(target=lock.acquire)
        thread.start()
        thread.join()
        assert condition._is_owned()

    def testNotifiedWaiterReturnsHoldingTheMutex(self, cls, lock):
        condition = cls(lock)
        waiters = _Waiters(condition, lock)
        waiters.Start("a")
        with lock:
            condition.notifyAll()
            assert waiters.woken == []
        waiters.Join()
        assert waiters.woken == [("a", None, True)]

    @pytest.mark.parametrize("timeout", [0, 0.0001, 0.01])
    def testTimedWaitReturnsNoneHoldingTheMutex(self, cls, lock, timeout):
        condition = cls(lock)
        with lock:
            before = time.monotonic()
            assert condition.wait(timeout) is None
            assert lock.locked()
            assert time.monotonic() - before >= timeout

    def testLongTimeoutIsCutShortByNotification(self, cls, lock):
        condition = cls(lock)
        waiters = _Waiters(condition, lock)
        # More milliseconds than fit into the argument of poll(2).
        waiters.Start("a", timeout=5e6)
        with lock:
            condition.notifyAll()
        waiters.Join()

    def testOneNotificationWakesAll(self, cls, lock):
        condition = cls(lock)
        waiters = _Waiters(condition, lock)
        for name in "abc":
            waiters.Start(name)
        with lock:
            condition.notifyAll()
        waiters.Join()
        assert sorted(name for name, _, _ in waiters.woken) == ["a", "b", "c"]

    def testWaitAgainAfterTimeout(self, cls, lock):
        condition = cls(lock)
        waiters = _Waiters(condition, lock)
        with lock:
            condition.wait(0)
            condition.wait(0.001)
        waiters.Start("a")
        with lock:
            condition.notifyAll()
        waiters.Join()


class TestSingleNotification:
    """LK6: the condition for one notification."""

    def testUnusableAfterNotification(self, lock):
        condition = SingleNotifyPipeCondition(lock)
        with lock:
            condition.notifyAll()
            with pytest.raises(RuntimeError, match="already"):
                condition.wait(0)
            with pytest.raises(RuntimeError, match="already"):
                condition.notifyAll()

    def testLeavesNoDescriptors(self, lock):
        def _Open():
            return set(os.listdir("/proc/self/fd"))

        before = _Open()
        condition = SingleNotifyPipeCondition(lock)
        with lock:
            condition.wait(0)
        assert _Open() == before
        waiters = _Waiters(condition, lock)
        waiters.Start("a")
        waiters.Start("b")
        assert len(_Open() - before) == 2
        with lock:
            condition.notifyAll()
            assert len(_Open() - before) == 1
        waiters.Join()
        assert _Open() == before


@pytest.mark.parametrize("cls", REUSABLE_CLASSES)
class TestGenerations:
    """LK6: a reusable condition knows its waiters and wakes only those there are."""

    def testLaterWaiterIsNotWoken(self, cls, lock):
        condition = cls(lock)
        waiters = _Waiters(condition, lock)
        with lock:
            assert not condition.has_waiting()
        for name in "abc":
            waiters.Start(name)
        with lock:
            assert condition.has_waiting()
            condition.notifyAll()
            # Notified, but none of them has the mutex back.
            assert condition.has_waiting()
        waiters.Join()
        with lock:
            assert not condition.has_waiting()
        waiters.Start("d")
        assert len(waiters.woken) == 3
        with lock:
            assert condition.has_waiting()
            condition.notifyAll()
        waiters.Join()
        assert [name for name, _, _ in waiters.woken][3:] == ["d"]

    def testLaterWaiterStaysWhileEarlierOnesWakeUp(self, cls, lock):
        condition = cls(lock)
        waiters = _Waiters(condition, lock)
        for name in "abc":
            waiters.Start(name)
        entered = threading.Event()
        fourth_back = []

        def Fourth():
            entered.set()
            condition.wait()
            fourth_back.append(len(waiters.woken))
            lock.release()

        with lock:
            condition.notifyAll()
        lock.acquire()
        # Waits in the same hold of the mutex in which it was started: after the notification.
        thread = threading.Thread(target=Fourth, daemon=True)
        thread.start()
        assert entered.wait(PATIENCE)
        waiters.Join("a", "b", "c")
        assert fourth_back == []
        with lock:
            assert condition.has_waiting()
            condition.notifyAll()
        thread.join(PATIENCE)
        assert fourth_back == [3]

    def testHasWaitingNeedsTheMutex(self, cls, lock):
        with pytest.raises(RuntimeError):
            cls(lock).has_waiting()

    def testNotificationWithoutWaiters(self, cls, lock):
        condition = cls(lock)
        with lock:
            condition.notifyAll()
            condition.notifyAll()
            condition.wait(0)


class TestVirtualTime:
    """LK6: the default condition waits on the runtime it is given."""

    def testTimedWaitTakesVirtualTime(self):
        sim = Simulation(1)

        def Main():
            lock = sim.runtime.threads.Lock()
            condition = CountingCondition(lock, sim.runtime)
            with lock:
                condition.wait(3600)
            return sim.runtime.clock.monotonic()

        before = time.monotonic()
        assert sim.Run(Main) == 3600
        assert time.monotonic() - before < 60

    def testDefaultIsTheRealRuntime(self):
        lock = runtime.DEFAULT.threads.Lock()
        with lock:
            CountingCondition(lock).wait(0)

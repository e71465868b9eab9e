"""SharedLock: the numbered behaviours of the locking design, in virtual time and on real threads.

Most tests run in the simulation: one thread at a time, and time passes only when everybody waits.
So C{world.Settle()} returns when all other threads are asleep, whatever the seed. What has to hold
for real threads too is repeated at the end on the standard library's primitives.
"""

from __future__ import annotations

import threading

import pytest

from ganeti import errors, locking
from ganeti.locking import PipeCondition, SharedLock
from ganeti.runtime.fake import EPOCH
from ganeti.runtime.simulation import Deadlock, Simulation

SEEDS = range(5)

EXCLUSIVE, SHARED = 0, 1


class World:
    """A simulated program with one lock and a log of what its threads did."""

    def __init__(self, sim):
        self.rt = sim.runtime
        self.lock = SharedLock("lock", runtime=self.rt)
        self.log = []
        self.threads = []

    def Settle(self):
        """Let everybody run until all are asleep; takes 0.1 ms of virtual time."""
        self.rt.clock.sleep(0.0001)

    def Start(self, fn, *args, name=None):
        """Run a function in a thread of its own until it sleeps or ends."""
        self.threads.append(self.rt.threads.start(fn, args, name=name))
        self.Settle()
        return self.threads[-1]

    def Acquire(self, name, shared=EXCLUSIVE, hold=0.0, **kwargs):
        """Body of a thread: acquire, log, hold, release."""
        try:
            if not self.lock.acquire(shared=shared, **kwargs):
                self.log.append((name, "timeout"))
                return
        except errors.LockError:
            self.log.append((name, "deleted"))
            return
        self.log.append((name, "got"))
        if hold:
            self.rt.clock.sleep(hold)
        self.lock.release()

    def Delete(self, name, **kwargs):
        """Body of a thread: delete, log."""
        try:
            self.log.append((name, "delete", self.lock.delete(**kwargs)))
        except errors.LockError:
            self.log.append((name, "deleted"))

    def Join(self):
        for thread in self.threads:
            thread.join()
        self.threads = []

    def Names(self, what="got"):
        return [entry[0] for entry in self.log if entry[1] == what]


def Simulated(fn):
    """Decorator: run the test with a L{World}, once for each seed."""

    @pytest.mark.parametrize("seed", SEEDS)
    def _Test(self, seed):
        sim = Simulation(seed)

        def Main():
            world = World(sim)
            fn(self, world)
            # Nothing may be left behind by any test.
            with world.lock._mutex:
                world.lock._CheckInvariants()

        sim.Run(Main)

    _Test.__name__ = fn.__name__
    _Test.__doc__ = fn.__doc__
    return _Test


class TestOwnership:
    """LK1 behaviour 1 and 2: who holds what, and nobody twice."""

    def testSequences(self):
        lock = SharedLock()
        assert [lock._is_owned(), lock._is_owned(0), lock._is_owned(1)] == [False] * 3
        assert lock.acquire(shared=1) is True
        assert [lock._is_owned(), lock._is_owned(0), lock._is_owned(1)] == [True, False, True]
        lock.release()
        assert [lock._is_owned(), lock._is_owned(0), lock._is_owned(1)] == [False] * 3
        assert lock.acquire() is True
        assert [lock._is_owned(), lock._is_owned(0), lock._is_owned(1)] == [True, True, False]
        lock.release()
        lock.acquire(shared=1)
        assert lock.is_owned(shared=1)
        lock.release()
        assert not lock.is_owned()

    @Simulated
    def testOwnerIsTheThread(self, world):
        world.lock.acquire()

        def Other():
            world.log.append(world.lock._is_owned())
            with pytest.raises(AssertionError):
                world.lock.release()

        world.Start(Other)
        assert world.log == [False]
        assert world.lock._is_owned(0)

    @pytest.mark.parametrize("first", [EXCLUSIVE, SHARED])
    @pytest.mark.parametrize("second", [EXCLUSIVE, SHARED])
    @pytest.mark.parametrize("timeout", [None, 0, 1.0])
    def testDoubleAcquireFailsAtOnce(self, first, second, timeout):
        lock = SharedLock()
        lock.acquire(shared=first)
        with pytest.raises(AssertionError, match="already held"):
            lock.acquire(shared=second, timeout=timeout)
        assert lock._count_pending() == 0
        lock.release()
        assert not lock._is_owned()

    def testReleaseOfNothing(self):
        lock = SharedLock("inst1")
        with pytest.raises(AssertionError, match="inst1"):
            lock.release()
        lock.acquire()
        lock.release()
        with pytest.raises(AssertionError):
            lock.release()

    def testNegativeTimeout(self):
        lock = SharedLock()
        with pytest.raises(AssertionError, match="negative"):
            lock.acquire(timeout=-1)
        with pytest.raises(AssertionError, match="negative"):
            lock.delete(timeout=-0.5)
        assert lock.acquire(timeout=0)

    def testNotify(self):
        """test_notify is called once, first of all, with the mutex held."""
        lock = SharedLock()
        calls = []

        def _Notify():
            calls.append(lock._mutex.locked())

        lock.acquire(test_notify=_Notify)
        with pytest.raises(AssertionError):
            lock.acquire(test_notify=_Notify)
        lock.delete()
        with pytest.raises(errors.LockError):
            lock.acquire(test_notify=_Notify)
        assert calls == [True, True, True]


class TestBlocking:
    """LK1 behaviour 3: sharers live together, everything else waits for its turn."""

    @Simulated
    def testSharersCoexist(self, world):
        world.lock.acquire(shared=1)
        for i in range(5):
            world.Start(world.Acquire, i, SHARED)
        assert world.Names() == list(range(5))

    @Simulated
    def testExclusiveBlocksAll(self, world):
        for _ in range(3):
            world.log.clear()
            world.lock.acquire()
            world.Start(world.Acquire, "x", EXCLUSIVE)
            world.Start(world.Acquire, "s", SHARED)
            assert world.log == []
            world.lock.release()
            world.Join()
            assert world.Names() == ["x", "s"]
        world.lock.acquire()
        world.Start(world.Delete, "d")
        assert world.Names() == ["x", "s"]
        world.lock.release()
        world.Join()
        assert world.log[-1] == ("d", "delete", True)

    @Simulated
    def testSharerBlocksExclusiveAndDelete(self, world):
        for _ in range(3):
            world.log.clear()
            world.lock.acquire(shared=1)
            world.Start(world.Acquire, "x", EXCLUSIVE)
            assert world.log == []
            world.lock.release()
            world.Join()
            assert world.Names() == ["x"]
        world.lock.acquire(shared=1)
        world.Start(world.Delete, "d")
        assert world.Names("delete") == []
        world.lock.release()
        world.Join()
        assert world.log[-1] == ("d", "delete", True)

    @Simulated
    def testSharerDoesNotPassWaitingExclusive(self, world):
        """Compatible with the holder, but somebody is queued: the end of the queue."""
        world.lock.acquire(shared=1)
        world.Start(world.Acquire, "x", EXCLUSIVE)
        world.Start(world.Acquire, "s", SHARED)
        assert world.log == []
        world.lock.release()
        world.Join()
        assert world.Names() == ["x", "s"]


class TestDelete:
    """LK4 behaviours 4 and 5: deletion."""

    @pytest.mark.parametrize("timeout", [None, 0, 60.0])
    @pytest.mark.parametrize("held", [True, False])
    def testDeletedLockIsUnusable(self, timeout, held):
        lock = SharedLock("inst1")
        if held:
            lock.acquire()
        assert lock.delete(timeout=timeout) is True
        assert not lock._is_owned()
        for shared in (EXCLUSIVE, SHARED):
            for again in (None, 0, 1.0):
                with pytest.raises(errors.LockError, match="^Deleted lock inst1$"):
                    lock.acquire(shared=shared, timeout=again)
        with pytest.raises(errors.LockError, match="Deleted lock"):
            lock.delete()
        with pytest.raises(AssertionError):
            lock.release()

    def testWithoutName(self):
        lock = SharedLock()
        lock.delete()
        with pytest.raises(errors.LockError, match="^Deleted lock$"):
            lock.acquire()

    @pytest.mark.parametrize("timeout", [None, 0, 1.0])
    def testOwnSharedIsRefused(self, timeout):
        lock = SharedLock()
        lock.acquire(shared=1)
        with pytest.raises(AssertionError, match="shared"):
            lock.delete(timeout=timeout)
        assert lock._is_owned(1)
        lock.release()
        assert lock.acquire(timeout=0)

    @pytest.mark.parametrize("mode", [EXCLUSIVE, SHARED])
    @pytest.mark.parametrize("timeout", [0, 0.0005, 0.02, 5.0])
    def testTimeoutReturnsFalseAndLeavesLockUsable(self, mode, timeout):
        """2.1 raised an AssertionError here."""

        def Main():
            world = World(sim)
            world.Start(world.Acquire, "h", mode, 10.0)
            assert world.lock.delete(timeout=timeout) is False
            assert not world.lock._is_owned()
            assert world.lock._count_pending() == 0
            assert world.lock.acquire() is True
            assert world.rt.clock.monotonic() >= 10.0
            assert world.lock.delete(timeout=0) is True

        sim = Simulation(1)
        sim.Run(Main)

    @Simulated
    def testGenerousTimeout(self, world):
        world.Start(world.Acquire, "h", SHARED, 3.0)
        assert world.lock.delete(timeout=60) is True
        assert 3.0 <= world.rt.clock.monotonic() < 3.1

    @pytest.mark.parametrize("order", [["s", "s", "x", "d"], ["d", "x", "s", "s"]])
    @pytest.mark.parametrize("seed", SEEDS)
    def testAllWaitersLearn(self, order, seed):
        def Main():
            world = World(sim)
            world.lock.acquire()
            for i, kind in enumerate(order):
                timeout = 60 if i % 2 else None
                if kind == "d":
                    world.Start(lambda: world.Delete("d", timeout=60))
                else:
                    world.Start(
                        lambda kind=kind, timeout=timeout: world.Acquire(
                            kind, int(kind == "s"), timeout=timeout
                        )
                    )
            assert world.lock._count_pending() == 3
            assert world.lock.delete() is True
            world.Join()
            assert sorted(world.Names("deleted")) == ["d", "s", "s", "x"]
            assert len(world.log) == 4
            assert world.rt.clock.monotonic() < 1
            assert world.lock._count_pending() == 0

        sim = Simulation(seed)
        sim.Run(Main)


class TestTimeouts:
    """LK2 behaviours 6 and 9: acquires with a time limit."""

    @Simulated
    def testSucceedsAsSoonAsReleased(self, world):
        for mode in (EXCLUSIVE, SHARED):
            world.log.clear()
            world.lock.acquire()
            start = world.rt.clock.monotonic()
            world.Start(lambda mode=mode: world.Acquire("w", mode, timeout=60))
            world.lock.release()
            world.Join()
            assert world.Names() == ["w"]
            assert world.rt.clock.monotonic() - start < 1

    @Simulated
    def testShortTimeoutsAgainstHeldLock(self, world):
        for mode in (EXCLUSIVE, SHARED):
            world.log.clear()
            world.lock.acquire()
            start = world.rt.clock.monotonic()
            for i in range(11):
                timeout = i * 0.002
                world.threads.append(
                    world.rt.threads.start(
                        lambda t=timeout, mode=mode: world.Acquire(t, mode, timeout=t)
                    )
                )
            world.Join()
            assert sorted(world.Names("timeout")) == [i * 0.002 for i in range(11)]
            assert world.Names() == []
            assert world.rt.clock.monotonic() - start == pytest.approx(0.02)
            assert world.lock._count_pending() == 0
            world.lock.release()
            assert world.lock.acquire(shared=mode, timeout=0)
            world.lock.release()

    @Simulated
    def testTakesTheWholeTimeout(self, world):
        world.lock.acquire(shared=1)
        world.Start(lambda: world.Acquire("x", EXCLUSIVE, timeout=7.5))
        world.rt.clock.sleep(7.4)
        assert world.log == []
        world.rt.clock.sleep(0.2)
        assert world.log == [("x", "timeout")]

    @Simulated
    def testReleaseOfOneSharerEndsNoWait(self, world):
        """Behaviour 9; 2.1 returned False after the first of the sharers had released."""
        for i in range(1, 4):
            world.Start(world.Acquire, i, SHARED, float(i))
        world.Start(lambda: world.Acquire("x", EXCLUSIVE, timeout=10))
        world.rt.clock.sleep(2.5)
        assert "x" not in world.Names() + world.Names("timeout")
        world.Join()
        assert world.Names()[-1] == "x"
        assert world.rt.clock.monotonic() < 3.1

    @Simulated
    def testRemainingTimeGetsShorterWithEachNotification(self, world):
        for i in range(1, 20):
            world.Start(world.Acquire, i, SHARED, float(i))
        world.Start(lambda: world.Acquire("x", EXCLUSIVE, timeout=10))
        world.rt.clock.sleep(9.9)
        assert world.Names("timeout") == []
        world.rt.clock.sleep(0.2)
        assert world.Names("timeout") == ["x"]

    @Simulated
    def testWakingUpForNothingEndsNoWait(self, world):
        """A condition may wake its waiters at any time."""
        world.lock.acquire()
        world.Start(lambda: world.Acquire("x", EXCLUSIVE, timeout=10))
        for _ in range(5):
            with world.lock._mutex:
                world.lock._queues[0].entries[0].condition.notifyAll()
            world.rt.clock.sleep(1)
        assert world.log == []
        world.lock.release()
        world.Join()
        assert world.log == [("x", "got")]

    @Simulated
    def testWaiterThatGivesUpWakesTheNext(self, world):
        """In 2.1 the sharer slept on until the next release."""
        world.lock.acquire(shared=1)
        world.Start(lambda: world.Acquire("x", EXCLUSIVE, timeout=5))
        world.Start(world.Acquire, "s", SHARED)
        world.rt.clock.sleep(4)
        assert world.log == []
        world.rt.clock.sleep(2)
        # Whose turn it is first then, the scheduler says.
        assert sorted(world.log) == [("s", "got"), ("x", "timeout")]

    @Simulated
    def testTryDoesNotTouchTheQueue(self, world):
        """LK3: neither a free lock nor a try needs a queue."""
        joined = []
        world.lock._NewEntry = joined.append
        world.lock.acquire()
        world.lock.release()
        world.lock.acquire(shared=1)
        world.Start(lambda: world.Acquire("s", SHARED))
        world.Start(lambda: world.Acquire("x", EXCLUSIVE, timeout=0))
        world.Start(lambda: world.Acquire("y", EXCLUSIVE, timeout=0.0009))
        assert world.log == [("s", "got"), ("x", "timeout"), ("y", "timeout")]
        assert joined == []
        assert world.lock.GetStatistics() == {"acquired": 3, "waited": 0, "timed_out": 2}


class TestQueue:
    """LK1 behaviours 7 and 8: one queue, two entries for sharers."""

    @Simulated
    def testOrder(self, world):
        world.lock.acquire()
        arrivals = [SHARED] * 5 + [EXCLUSIVE] * 3 + [SHARED] * 18 + [EXCLUSIVE] * 3
        for i, mode in enumerate(arrivals):
            world.Start(world.Acquire, (mode, i), mode)
        assert world.lock._count_pending() == 7
        assert world.log == []
        world.lock.release()
        world.Join()
        names = world.Names()
        assert [mode for mode, _ in names[:23]] == [SHARED] * 23
        exclusive = [i for mode, i in names[23:] if mode == EXCLUSIVE]
        assert exclusive == [5, 6, 7, 26, 27, 28]
        assert world.lock._count_pending() == 0

    @Simulated
    def testMixed(self, world):
        for i in range(3):
            world.Start(world.Acquire, i, SHARED, 1.0)
        world.Start(lambda: world.Acquire("x1", EXCLUSIVE, timeout=0.1))
        world.rt.clock.sleep(0.2)
        assert world.Names("timeout") == ["x1"]
        world.Start(world.Acquire, "x2", EXCLUSIVE)
        world.Start(lambda: world.Acquire("x3", EXCLUSIVE, timeout=0.1))
        world.rt.clock.sleep(0.2)
        assert world.Names("timeout") == ["x1", "x3"]
        for i in range(10):
            world.Start(world.Acquire, f"s{i}", SHARED)
        assert sorted(world.Names()) == [0, 1, 2]
        assert world.lock._count_pending() == 2
        world.Join()
        assert world.Names()[3] == "x2"
        assert sorted(world.Names()[4:]) == sorted(f"s{i}" for i in range(10))

    @Simulated
    def testNotifiedGroupIsClosed(self, world):
        """No starvation: who comes after the notification goes behind the exclusive waiter."""
        world.lock.acquire()
        world.Start(world.Acquire, "s1", SHARED, 1.0)
        world.Start(world.Acquire, "x", EXCLUSIVE, 1.0)
        world.lock.release()
        world.Settle()
        assert world.Names() == ["s1"]
        for i in range(3):
            world.Start(world.Acquire, f"late{i}", SHARED)
        world.Join()
        assert world.Names()[:2] == ["s1", "x"]
        assert sorted(world.Names()[2:]) == ["late0", "late1", "late2"]

    @pytest.mark.parametrize("seed", range(30))
    def testNotifiedGroupIsClosedBeforeItWakesUp(self, seed):
        """The same for those that come while the notified ones are still on their way."""

        def Main():
            world = World(sim)
            world.lock.acquire()
            for i in range(3):
                world.Start(world.Acquire, f"s{i}", SHARED, 1.0)
            world.Start(world.Acquire, "x", EXCLUSIVE, 1.0)
            world.lock.release()
            # No pause here: the sharers above may or may not have the lock yet.
            world.Acquire("late", SHARED)
            assert sorted(world.Names()[:3]) == ["s0", "s1", "s2"]
            assert world.Names()[3:] == ["x", "late"]

        sim = Simulation(seed)
        sim.Run(Main)

    @Simulated
    def testStreamOfSharersDoesNotStarveExclusive(self, world):
        def _Stream(start):
            world.rt.clock.sleep(start)
            for _ in range(50):
                world.Acquire("s", SHARED, 1.0)

        for i in range(4):
            world.Start(_Stream, i / 4)
        world.rt.clock.sleep(5)
        start = world.rt.clock.monotonic()
        world.lock.acquire()
        assert world.rt.clock.monotonic() - start < 1.1
        world.lock.release()


class TestPriorities:
    """Beyond 2.1: lower numbers go first, each priority has its own order."""

    @Simulated
    def testOrder(self, world):
        world.lock.acquire()
        for name, priority in [("n1", 0), ("low", 10), ("n2", 0), ("high", -10)]:
            world.Start(lambda n=name, p=priority: world.Acquire(n, EXCLUSIVE, priority=p))
        world.lock.release()
        world.Join()
        assert world.Names() == ["high", "n1", "n2", "low"]

    @Simulated
    def testPassesQueueOfLowerPriority(self, world):
        world.lock.acquire(shared=1)
        world.Start(world.Acquire, "x", EXCLUSIVE)
        world.Start(lambda: world.Acquire("s", SHARED, timeout=0))
        world.Start(lambda: world.Acquire("high", SHARED, timeout=0, priority=-1))
        assert world.log == [("s", "timeout"), ("high", "got")]
        world.lock.release()
        world.Join()
        assert world.Names() == ["high", "x"]

    @Simulated
    def testUrgentWaiterThatGivesUpWakesTheOthers(self, world):
        world.lock.acquire(shared=1)
        world.Start(lambda: world.Acquire("urgent", EXCLUSIVE, timeout=2, priority=-5))
        world.Start(world.Acquire, "s", SHARED)
        world.rt.clock.sleep(3)
        assert sorted(world.log) == [("s", "got"), ("urgent", "timeout")]

    @Simulated
    def testUrgentArrivalAfterNotificationLosesNobody(self, world):
        """An urgent acquire slips in between the notification of a group and its wake-up."""
        world.lock.acquire()
        for i in range(3):
            world.Start(world.Acquire, i, SHARED)
        world.lock.release()
        world.lock.acquire(priority=-1)
        for i in range(3, 6):
            world.Start(world.Acquire, i, SHARED)
        world.lock.release()
        world.Join()
        assert sorted(world.Names()) == list(range(6))


class TestDowngrade:
    """Beyond 2.1: from exclusive to shared without letting go."""

    @Simulated
    def testWakesWaitingSharers(self, world):
        world.lock.acquire()
        world.Start(world.Acquire, "x", EXCLUSIVE)
        world.Start(world.Acquire, "s", SHARED, 1.0)
        assert world.lock.downgrade() is True
        assert world.lock._is_owned(1)
        world.Settle()
        assert world.Names() == ["s"]
        # The transition counts once: who comes now waits behind the exclusive acquire.
        world.Start(world.Acquire, "late", SHARED)
        world.lock.downgrade()
        world.Settle()
        assert world.Names() == ["s"]
        world.lock.release()
        world.Join()
        assert world.Names() == ["s", "x", "late"]

    @Simulated
    def testExclusiveOnlyQueue(self, world):
        world.lock.acquire()
        world.Start(world.Acquire, "x", EXCLUSIVE)
        world.lock.downgrade()
        world.Settle()
        assert world.log == []
        world.lock.release()
        world.Join()

    def testNotOwned(self):
        with pytest.raises(AssertionError, match="downgrade"):
            SharedLock().downgrade()

    def testKeepsTheLabel(self):
        lock = SharedLock()
        lock.acquire()
        before = lock.GetInfo()["owners"]
        lock.downgrade()
        assert (lock.GetInfo()["mode"], lock.GetInfo()["owners"]) == ("shared", before)
        lock.release()


class TestInfo:
    """LK8: holders and waiters can be seen."""

    @Simulated
    def testHoldersAndWaiters(self, world):
        def _Labelled(label, mode, **kwargs):
            locking.SetOwnerLabel(label)
            world.Acquire(label, mode, **kwargs)

        free = {"name": "lock", "mode": None, "owners": [], "pending": []}
        assert world.lock.GetInfo() == free
        world.lock.acquire()
        world.rt.clock.sleep(10)
        start = world.rt.clock.time()
        assert start > EPOCH
        world.Start(_Labelled, "Job 1", SHARED, name="T1")
        world.Start(lambda: _Labelled("Job 2", EXCLUSIVE, hold=1.0, priority=-1))
        world.Start(_Labelled, "Job 3", SHARED)
        info = world.lock.GetInfo()
        assert (info["name"], info["mode"], info["owners"]) == ("lock", "exclusive", ["main"])
        assert [(mode, labels) for mode, labels, _ in info["pending"]] == [
            ("exclusive", ["Job 2"]),
            ("shared", ["Job 1", "Job 3"]),
        ]
        assert [since for _, _, since in info["pending"]] == pytest.approx(
            [start + 0.0001, start], abs=0.00005
        )
        world.lock.release()
        world.Join()
        assert world.lock.GetInfo() == free

    @Simulated
    def testSharers(self, world):
        world.Start(world.Acquire, 2, SHARED, 1.0, name="T2")
        world.Start(world.Acquire, 1, SHARED, 1.0, name="T1")
        info = world.lock.GetInfo()
        assert (info["mode"], info["owners"]) == ("shared", ["T1", "T2"])

    def testRepr(self):
        assert repr(SharedLock("inst1")) == "<SharedLock inst1>"


class TestInvariantCheck:
    """The check that the other tests rely on does find what must not be."""

    def testFindsBrokenStates(self):
        lock = SharedLock()
        lock._CheckInvariants()
        lock._exclusive = 1
        lock._sharers[2] = "x"
        lock._deleted = True
        with pytest.raises(AssertionError, match="together with sharers; deleted"):
            lock._CheckInvariants()

    def testSelfMadeDeadlockIsSeen(self):
        """A forgotten release ends a simulated test with a picture, not with a hang."""
        sim = Simulation(1)

        def Main():
            world = World(sim)
            world.Start(world.lock.acquire)
            world.lock.acquire()

        with pytest.raises(Deadlock):
            sim.Run(Main)


@pytest.mark.parametrize("condition", [locking.CountingCondition, PipeCondition])
class TestRealThreads:
    """LK1, LK6: the same on real threads, for both makes of conditions."""

    def _Start(self, fn):
        entered = threading.Event()
        thread = threading.Thread(target=fn, args=(entered,), daemon=True)
        thread.start()
        # test_notify is called with the mutex held, which is given up only by going to sleep.
        assert entered.wait(20)
        return thread

    def testHandOver(self, condition):
        lock = SharedLock(condition=condition)
        order = []

        def _Body(name, shared):
            def _Run(entered):
                assert lock.acquire(shared=shared, timeout=60, test_notify=entered.set)
                order.append(name)
                lock.release()

            return _Run

        lock.acquire()
        threads = []
        for name, shared in [("x1", 0), ("s1", 1), ("x2", 0), ("s2", 1), ("x3", 0)]:
            threads.append(self._Start(_Body(name, shared)))
            lock._count_pending()
        assert lock._count_pending() == 4
        lock.release()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        assert order[0] == "x1"
        assert sorted(order[1:3]) == ["s1", "s2"]
        assert order[3:] == ["x2", "x3"]
        assert lock._count_pending() == 0

    def testDeleteWakesWaiters(self, condition):
        lock = SharedLock(condition=condition)
        results = []

        def _Body(shared):
            def _Run(entered):
                try:
                    lock.acquire(shared=shared, test_notify=entered.set)
                except errors.LockError as err:
                    results.append(str(err))

            return _Run

        lock.acquire()
        threads = [self._Start(_Body(shared)) for shared in (0, 1, 0, 1)]
        lock.delete()
        for thread in threads:
            thread.join(20)
        assert results == ["Deleted lock"] * 4

    def testTimeout(self, condition):
        lock = SharedLock(condition=condition)

        def _Hold(entered):
            lock.acquire(shared=1)
            entered.set()
            done.wait(20)
            lock.release()

        done = threading.Event()
        thread = self._Start(_Hold)
        assert lock.acquire(timeout=0) is False
        assert lock.acquire(timeout=0.005) is False
        assert lock.delete(timeout=0.005) is False
        assert lock._count_pending() == 0
        done.set()
        thread.join(20)
        assert lock.delete(timeout=0)

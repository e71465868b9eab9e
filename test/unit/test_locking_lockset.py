"""LockSet: members acquired together or not at all, added and removed while others work."""

from __future__ import annotations

import pytest

from ganeti import errors, locking
from ganeti.locking import ALL_SET, LockSet
from ganeti.runtime.simulation import Simulation

SEEDS = range(4)


class World:
    """A simulated program with one set of locks and a log of what its threads did."""

    def __init__(self, sim):
        self.rt = sim.runtime
        self.set = LockSet(["one", "two", "three"], name="test", runtime=self.rt)
        self.log = []
        self.threads = []

    def Settle(self):
        """Let everybody run until all are asleep; takes 0.1 ms of virtual time."""
        self.rt.clock.sleep(0.0001)

    def Start(self, fn, *args, **kwargs):
        """Run a function in a thread of its own until it sleeps or ends."""
        self.threads.append(self.rt.threads.start(lambda: fn(*args, **kwargs)))
        self.Settle()

    def Acquire(self, tag, names, hold=0.0, **kwargs):
        """Body of a thread: acquire, log the result, hold, release."""
        try:
            got = self.set.acquire(names, **kwargs)
        except errors.LockError as err:
            self.log.append((tag, str(err)))
            return
        self.log.append((tag, got))
        if got is None:
            assert not self.set._is_owned()
            return
        if hold:
            self.rt.clock.sleep(hold)
        if self.set._is_owned():
            self.set.release()

    def Add(self, tag, names, **kwargs):
        self.log.append((tag, self.set.add(names, **kwargs)))
        if self.set._is_owned():
            self.set.release()

    def Remove(self, tag, names):
        self.log.append((tag, self.set.remove(names)))

    def Join(self):
        for thread in self.threads:
            thread.join()
        self.threads = []


def Simulated(fn):
    """Decorator: run the test with a L{World}, once for each seed; nothing may be left behind."""

    @pytest.mark.parametrize("seed", SEEDS)
    def _Test(self, seed):
        sim = Simulation(seed)

        def Main():
            world = World(sim)
            fn(self, world)
            world.Join()
            if world.set._is_owned():
                world.set.release()
            assert world.set._owned == {}
            for info in world.set.GetLockInfo():
                assert (info["mode"], info["owners"], info["pending"]) == (None, [], [])

        sim.Run(Main)

    _Test.__name__ = fn.__name__
    _Test.__doc__ = fn.__doc__
    return _Test


@pytest.fixture
def locks():
    return LockSet(["one", "two", "three"], name="test")


class TestAcquire:
    """LK2, LK7: what can be acquired, and what is owned then."""

    def testNames(self, locks):
        assert locks._names() == {"one", "two", "three"}
        assert LockSet()._names() == set()
        locks._names().clear()
        assert locks._names() == {"one", "two", "three"}
        locks.acquire(ALL_SET)
        assert locks._names() == {"one", "two", "three"}
        locks.release()
        locks.acquire("one")
        assert locks._names() == {"one", "two", "three"}

    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            ("one", {"one"}),
            (["one"], {"one"}),
            (["two", "one"], {"one", "two"}),
            (["two", "one", "two", "one", "two"], {"one", "two"}),
            ({"three"}, {"three"}),
            (ALL_SET, {"one", "two", "three"}),
        ],
    )
    @pytest.mark.parametrize("shared", [0, 1])
    @pytest.mark.parametrize("timeout", [None, 0, 1.0])
    def testResultAndOwnership(self, locks, names, expected, shared, timeout):
        assert locks.acquire(names, shared=shared, timeout=timeout) == expected
        assert locks._is_owned()
        assert locks.is_owned()
        assert locks._list_owned() == expected
        assert locks.check_owned(expected, shared=shared)
        assert not locks.check_owned(expected, shared=1 - shared)
        locks.release()
        assert not locks._is_owned()
        assert locks._list_owned() == set()
        assert not locks.check_owned(expected)

    def testOwnedListIsACopy(self, locks):
        result = locks.acquire(["one", "two"])
        result.clear()
        locks._list_owned().clear()
        assert locks._list_owned() == {"one", "two"}

    def testEmptyListOwnsNothing(self, locks):
        assert locks.acquire([]) == set()
        assert not locks._is_owned()
        assert locks.acquire("one") == {"one"}

    def testAllOfEmptySetIsOwned(self):
        locks = LockSet()
        assert locks.acquire(ALL_SET) == set()
        assert locks._is_owned()
        assert locks._list_owned() == set()
        locks.release()
        assert not locks._is_owned()

    @pytest.mark.parametrize("first", ["one", ["one", "two"], ALL_SET])
    @pytest.mark.parametrize("second", ["one", "three", [], ALL_SET])
    def testSecondAcquireIsRefused(self, locks, first, second):
        locks.acquire(first, shared=1)
        with pytest.raises(AssertionError, match="already"):
            locks.acquire(second, shared=1)

    def testNegativeTimeout(self, locks):
        with pytest.raises(AssertionError, match="negative"):
            locks.acquire("one", timeout=-1)
        assert not locks._is_owned()

    def testUnknownName(self, locks):
        started = []
        with pytest.raises(errors.LockError, match=r"Non-existing lock in set test \(five\)"):
            locks.acquire(["one", "five", "two"], test_notify=started.append)
        assert started == []
        assert not locks._is_owned()
        with pytest.raises(errors.LockError, match=r"Non-existing lock in set \(x\)"):
            LockSet().acquire("x")

    def testAlphabeticOrder(self, locks):
        started = []
        locks.acquire(["two", "three", "one", "two"], test_notify=started.append)
        assert started == ["one", "three", "two"]
        locks.release()
        started.clear()
        locks.acquire(ALL_SET, test_notify=started.append)
        assert started == ["one", "three", "two"]

    def testExceptionReleasesEverything(self, locks):
        def _Fail(name):
            if name == "two":
                raise KeyError("on purpose")

        for names in (["one", "two"], ALL_SET):
            with pytest.raises(KeyError):
                locks.acquire(names, test_notify=_Fail)
            assert not locks._is_owned()
            assert all(info["mode"] is None for info in locks.GetLockInfo())
        assert locks.acquire(ALL_SET, timeout=0)

    @Simulated
    def testConcurrentSharedAndExclusive(self, world):
        world.set.acquire(["one", "two"], shared=1)
        world.Start(world.Acquire, "s", ["two", "three"], shared=1)
        world.Start(world.Acquire, "other", "three")
        world.Start(world.Acquire, "x", ["one", "three"])
        assert world.log == [("s", {"two", "three"}), ("other", {"three"})]
        world.set.release()
        world.Join()
        assert world.log[2:] == [("x", {"one", "three"})]


class TestRelease:
    """Ownership after partial releases."""

    def testPartial(self, locks):
        locks.acquire(ALL_SET)
        locks.release("one")
        assert locks._list_owned() == {"two", "three"}
        locks.release([])
        assert locks._list_owned() == {"two", "three"}
        locks.release(["two", "two"])
        assert locks._list_owned() == {"three"}
        locks.release("three")
        assert not locks._is_owned()

    def testWrongRelease(self, locks):
        with pytest.raises(AssertionError, match="holds nothing"):
            locks.release()
        with pytest.raises(AssertionError, match="holds nothing"):
            locks.release("one")
        locks.acquire(["one", "two"])
        with pytest.raises(AssertionError, match="three"):
            locks.release(["one", "three"])
        assert locks._list_owned() == {"one", "two"}
        with pytest.raises(AssertionError):
            locks.release("unknown")
        locks.release("two")
        with pytest.raises(AssertionError):
            locks.release("two")

    @Simulated
    def testReleasedMemberIsFree(self, world):
        world.set.acquire(["one", "two"])
        world.Start(world.Acquire, "a", "one")
        world.set.release("one")
        world.Settle()
        assert world.log == [("a", {"one"})]


class TestTimeout:
    """LK2: a set that can not be had in time is given back entirely."""

    @pytest.mark.parametrize("blocked", ["one", "two", "three"])
    @pytest.mark.parametrize("names", [["one", "two", "three"], ALL_SET])
    @pytest.mark.parametrize("timeout", [0, 0.0005, 0.5, 3.0])
    @pytest.mark.parametrize("shared", [0, 1])
    def testNothingIsKept(self, blocked, names, timeout, shared):
        sim = Simulation(1)

        def Main():
            world = World(sim)
            world.Start(world.Acquire, "h", blocked, hold=100.0)
            start = world.rt.clock.monotonic()
            assert world.set.acquire(names, timeout=timeout, shared=shared) is None
            assert world.rt.clock.monotonic() - start <= timeout
            assert not world.set._is_owned()
            held = [info["name"] for info in world.set.GetLockInfo() if info["owners"]]
            assert held == [f"test/{blocked}"]
            assert world.set.add("new")

        sim.Run(Main)

    @Simulated
    def testSetLockBlocked(self, world):
        world.Start(world.Acquire, "h", ALL_SET, hold=100.0)
        assert world.set.acquire(ALL_SET, timeout=2.0) is None
        assert world.rt.clock.monotonic() == pytest.approx(2.0, abs=0.01)
        assert not world.set._is_owned()

    @Simulated
    def testBudgetIsForTheWholeCall(self, world):
        """Each member is free a second after the one before: three seconds are needed."""
        for i, name in enumerate(["one", "three", "two"]):
            world.Start(world.Acquire, name, name, hold=1.0 + i)
        start = world.rt.clock.monotonic()
        assert world.set.acquire(["one", "two", "three"], timeout=2.5) is None
        assert world.rt.clock.monotonic() - start == pytest.approx(2.5)
        assert world.set.acquire(["one", "two", "three"], timeout=2.5) is not None

    @Simulated
    def testOthersGetWhatWasGivenBack(self, world):
        """The design's example: A has inst4, B wants all, C wants inst1 and need not wait for A."""
        world.set.add(["inst1", "inst2", "inst3", "inst4"])
        world.Start(world.Acquire, "A", "inst4", hold=10.0)

        def _B():
            while world.set.acquire(ALL_SET, timeout=1.0) is None:
                world.rt.clock.sleep(0.1)
            world.log.append(("B", world.rt.clock.monotonic()))
            world.set.release()

        world.Start(_B)
        world.Start(world.Acquire, "C", "inst1")
        assert [tag for tag, _ in world.log] == ["A"]
        world.rt.clock.sleep(1.5)
        assert [tag for tag, _ in world.log] == ["A", "C"]
        world.Join()
        assert world.log[2][0] == "B"
        assert world.log[2][1] >= 10.0


class TestAllSet:
    """Acquiring the whole set takes the set-lock too."""

    @Simulated
    def testSharedLetsSharersInAndBlocksAdd(self, world):
        world.set.acquire(ALL_SET, shared=1)
        world.Start(world.Acquire, "all", ALL_SET, shared=1)
        world.Start(world.Acquire, "one", "one", shared=1)
        assert world.log == [("all", {"one", "two", "three"}), ("one", {"one"})]
        world.Start(world.Add, "add", "new")
        world.Start(world.Acquire, "x", "two")
        assert len(world.log) == 2
        world.set.release()
        world.Join()
        assert sorted(world.log[2:]) == [("add", True), ("x", {"two"})]

    @Simulated
    def testReleaseOfNothingUnblocksAddButNotRemove(self, world):
        world.set.acquire(ALL_SET, shared=1)
        world.Start(world.Add, "add", "new")
        world.Start(world.Remove, "remove", "one")
        assert world.log == []
        world.set.release([])
        world.Settle()
        assert world.log == [("add", True)]
        assert world.set._list_owned() == {"one", "two", "three"}
        world.set.release()
        world.Join()
        assert world.log[1:] == [("remove", ["one"])]

    @Simulated
    def testExclusiveBlocksEverything(self, world):
        world.set.acquire(ALL_SET)
        for names in ("one", ALL_SET):
            for shared in (0, 1):
                world.Start(world.Acquire, "t", names, shared=shared, timeout=0.5)
        world.Start(world.Add, "add", "new")
        world.Start(world.Remove, "remove", "three")
        world.rt.clock.sleep(1)
        assert world.log == [("t", None)] * 4
        world.set.release()
        world.Join()
        assert sorted(world.log[4:], key=str) == [("add", True), ("remove", ["three"])]

    @Simulated
    def testExclusiveOwnerAddsAndRemoves(self, world):
        world.set.acquire(ALL_SET)
        assert world.set.add("free")
        assert world.set.add("mine", acquired=1)
        assert world.set._list_owned() == {"one", "two", "three", "mine"}
        assert world.set.remove(["one", "mine"]) == ["one", "mine"]
        assert world.set._list_owned() == {"two", "three"}
        assert world.set._names() == {"two", "three", "free"}

    @Simulated
    def testEmptiedSetKeepsOthersOut(self, world):
        world.set.acquire(ALL_SET)
        world.set.remove(["one", "two", "three"])
        assert world.set._is_owned()
        assert world.set._list_owned() == set()
        world.Start(world.Acquire, "all", ALL_SET)
        world.Start(world.Add, "add", "new")
        assert world.log == []
        world.set.release()
        assert not world.set._is_owned()
        world.Join()
        assert ("all", set()) in world.log
        assert ("add", True) in world.log

    @Simulated
    def testMembersThatVanishAreSkipped(self, world):
        world.set.acquire(["one", "two"])
        world.Start(world.Acquire, "all", ALL_SET, shared=1)
        assert world.log == []
        assert world.set.remove(["two", "one"]) == ["two", "one"]
        world.Join()
        assert world.log == [("all", {"three"})]

    @Simulated
    def testAllVanished(self, world):
        world.set.acquire(["one", "three", "two"])
        world.Start(world.Acquire, "all", ALL_SET, hold=1.0)
        world.set.remove(["one", "two", "three"])
        world.Settle()
        assert world.log == [("all", set())]
        # Still the owner of the set.
        assert world.set.acquire(ALL_SET, timeout=0) is None

    @Simulated
    def testExplicitNamesLeaveTheSetAlone(self, world):
        world.set.acquire(["one", "two", "three"])
        world.Start(world.Add, "add", ["a", "b"])
        assert world.log == [("add", True)]


class TestAdd:
    """Adding, in every situation of ownership."""

    def testOwningNothing(self, locks):
        assert locks.add("a")
        assert locks.add(["b", "c", "b"])
        assert locks.add([])
        assert locks._names() == {"one", "two", "three", "a", "b", "c"}
        assert not locks._is_owned()

    @pytest.mark.parametrize("shared", [0, 1])
    def testAcquired(self, locks, shared):
        assert locks.add(["a", "b"], acquired=1, shared=shared)
        assert locks._list_owned() == {"a", "b"}
        assert locks.check_owned(["a", "b"], shared=shared)
        locks.release()
        assert not locks._is_owned()
        locks.add([], acquired=1)
        assert not locks._is_owned()

    def testOwningMembers(self, locks):
        locks.acquire(["one"])
        with pytest.raises(AssertionError, match="ALL_SET"):
            locks.add("a")
        locks.release()
        locks.add("a", acquired=1)
        with pytest.raises(AssertionError):
            locks.add("b")
        assert "b" not in locks._names()

    def testOwningSetShared(self, locks):
        locks.acquire(ALL_SET, shared=1)
        with pytest.raises(AssertionError):
            locks.add("a")

    def testAfterPartialRelease(self, locks):
        locks.acquire(ALL_SET)
        locks.release("one")
        with pytest.raises(AssertionError):
            locks.add("a")

    @pytest.mark.parametrize("owning", [False, True])
    def testDuplicates(self, locks, owning):
        if owning:
            locks.acquire(ALL_SET)
        with pytest.raises(errors.LockError, match=r"duplicate add \(one, two\)"):
            locks.add(["new", "two", "one"], acquired=1)
        assert locks._names() == {"one", "two", "three"}
        assert "new" not in locks._list_owned()
        assert locks._is_owned() == owning
        assert locks._set_lock.is_owned() == owning

    @Simulated
    def testNewMemberIsHeldBeforeItIsSeen(self, world):
        def _Adder():
            world.set.add("new", acquired=1)
            world.log.append("added")
            world.rt.clock.sleep(1)
            world.log.append("done")
            world.set.release()

        def _Racer():
            while True:
                try:
                    got = world.set.acquire("new", timeout=0)
                except errors.LockError:
                    world.rt.clock.sleep(0)
                    continue
                if got is not None:
                    break
                world.rt.clock.sleep(0.1)
            world.log.append("raced")
            world.set.release()

        world.threads = [world.rt.threads.start(fn) for fn in (_Racer, _Adder)]
        world.Join()
        assert world.log == ["added", "done", "raced"]


class TestInterrupt:
    """JQ3: who waits for locks can be told to stop waiting; nothing is kept or half done."""

    @Simulated
    def test_add_gives_up(self, world):
        idents = []

        def Add():
            idents.append(world.rt.threads.get_ident())
            world.Add("add", ["four"], acquired=1)

        world.set.acquire(ALL_SET, shared=1)
        world.Start(Add)
        assert world.set.interrupt(idents[0])
        world.Join()
        assert world.log == [("add", False)]
        assert world.set._names() == {"one", "two", "three"}
        world.set.release()

    @Simulated
    def test_removal_goes_on(self, world):
        idents = []

        def Remove():
            idents.append(world.rt.threads.get_ident())
            world.Remove("remove", ["one"])

        world.set.acquire(["one"], shared=1)
        world.Start(Remove)
        assert world.set.interrupt(idents[0])
        world.Settle()
        assert world.log == []
        assert "one" in world.set._names()
        world.set.release()
        world.Join()
        assert world.log == [("remove", ["one"])]


class TestRemove:
    """LK4: removing, in every situation of ownership."""

    def testOwningNothing(self, locks):
        assert locks.remove("one") == ["one"]
        assert locks.remove(["two", "one", "unknown", "three", "two"]) == ["two", "three"]
        assert locks.remove([]) == []
        assert locks._names() == set()

    def testOwnedMembers(self, locks):
        locks.acquire(["one", "two"])
        assert locks.remove("one") == ["one"]
        assert locks._list_owned() == {"two"}
        assert locks.remove(["two"]) == ["two"]
        assert not locks._is_owned()
        assert locks._names() == {"three"}

    def testNotASubsetOfTheOwned(self, locks):
        locks.acquire(["one", "two"])
        for names in ("three", ["one", "three"], "unknown"):
            with pytest.raises(AssertionError):
                locks.remove(names)
        assert locks._list_owned() == {"one", "two"}
        assert locks._names() == {"one", "two", "three"}

    def testOwnedShared(self, locks):
        locks.acquire(["one", "two"], shared=1)
        with pytest.raises(AssertionError, match="exclusively"):
            locks.remove(["one", "two"])
        assert locks._list_owned() == {"one", "two"}
        assert locks._names() == {"one", "two", "three"}

    @Simulated
    def testWaitsForHolders(self, world):
        world.Start(world.Acquire, "s", "one", shared=1, hold=2.0)
        assert world.set.remove(["two", "one"]) == ["two", "one"]
        assert world.rt.clock.monotonic() >= 2.0

    @Simulated
    def testOwnedMembersDoNotWait(self, world):
        world.set.acquire(["one", "two"])
        world.Start(world.Acquire, "h", "three", hold=50.0)
        assert world.set.remove(["one", "two"]) == ["one", "two"]
        assert world.rt.clock.monotonic() < 1

    @Simulated
    def testWaitersOfExplicitNamesGetAnError(self, world):
        world.set.acquire(["one", "two"])
        for names in ("one", ["one", "three"], ["three", "two"]):
            for shared in (0, 1):
                world.Start(world.Acquire, str(names), names, shared=shared)
        world.Start(world.Remove, "remove", "two")
        world.set.remove(["one", "two"])
        world.Join()
        assert ("remove", []) in world.log
        texts = [value for tag, value in world.log if tag != "remove"]
        assert (
            sorted(texts)
            == ["Non-existing lock in set test (one)"] * 4
            + ["Non-existing lock in set test (two)"] * 2
        )

    @Simulated
    def testTwoRemovers(self, world):
        world.set.acquire(["one"], shared=1)
        world.Start(world.Remove, "a", ["one", "two"])
        world.Start(world.Remove, "b", ["one", "two"])
        world.set.release()
        world.Join()
        removed = [name for _, names in world.log for name in names]
        assert sorted(removed) == ["one", "two"]

    @Simulated
    def testAddAgain(self, world):
        world.set.acquire("one")
        world.Start(world.Acquire, "w", "one", timeout=60)
        world.set.remove("one")
        world.set.add("one")
        world.Join()
        assert world.log == [("w", "Non-existing lock in set test (one)")]
        assert world.set.acquire("one") == {"one"}


class TestBeyond:
    """Opportunistic acquires, downgrade, monitor: later than 2.1."""

    @Simulated
    def testOpportunistic(self, world):
        world.Start(world.Acquire, "h", "three", hold=5.0)
        assert world.set.acquire(["one", "three", "two"], opportunistic=True) == {"one", "two"}
        assert world.set._list_owned() == {"one", "two"}
        world.set.release()
        assert world.set.acquire(ALL_SET, opportunistic=True) == {"one", "two"}
        world.set.release()
        assert world.set.acquire(["three"], opportunistic=True) == set()
        assert not world.set._is_owned()
        assert world.rt.clock.monotonic() < 1

    @Simulated
    def testOpportunisticMinimum(self, world):
        world.Start(world.Acquire, "h", "three", hold=5.0)
        for names in (["one", "two", "three"], ALL_SET):
            missed = world.set.acquire(names, opportunistic=True, opportunistic_count=3)
            assert missed is None
            assert not world.set._is_owned()
            got = world.set.acquire(names, opportunistic=True, opportunistic_count=2)
            assert got == {"one", "two"}
            world.set.release()

    @Simulated
    def testDowngrade(self, world):
        world.set.acquire(ALL_SET)
        world.Start(world.Acquire, "one", "one", shared=1)
        world.Start(world.Acquire, "all", ALL_SET, shared=1)
        assert world.set.downgrade("one") is True
        world.Settle()
        assert world.log == [("one", {"one"})]
        assert world.set.check_owned("one", shared=1)
        assert world.set.check_owned("two", shared=0)
        world.set.downgrade()
        world.Settle()
        assert world.log[1:] == [("all", {"one", "two", "three"})]
        with pytest.raises(AssertionError):
            world.set.downgrade("unknown")

    @Simulated
    def testPriority(self, world):
        world.set.acquire("one")
        for tag, priority in [("normal", 0), ("low", 10), ("high", -10)]:
            world.Start(world.Acquire, tag, "one", priority=priority)
        world.set.release()
        world.Join()
        assert [tag for tag, _ in world.log] == ["high", "normal", "low"]

    @Simulated
    def testLockInfo(self, world):
        def _Job():
            locking.SetOwnerLabel("Job 7")
            world.Acquire("j", ["one", "two"])

        world.set.acquire(ALL_SET, shared=1)
        world.Start(_Job)
        assert [
            (i["name"], i["mode"], i["owners"], [p[:2] for p in i["pending"]])
            for i in world.set.GetLockInfo()
        ] == [
            ("test/[lockset]", "shared", ["main"], []),
            ("test/one", "shared", ["main"], [("exclusive", ["Job 7"])]),
            ("test/three", "shared", ["main"], []),
            ("test/two", "shared", ["main"], []),
        ]
        world.set.release()

    def testStatistics(self, locks):
        locks.acquire(ALL_SET)
        locks.release()
        locks.acquire("one")
        assert locks.GetStatistics() == {
            "members": 3,
            "acquired": 5,
            "waited": 0,
            "timed_out": 0,
        }

    def testRepr(self, locks):
        assert repr(locks) == "<LockSet test>"

"""GanetiLockManager: levels and their order (LK7), and the picture of all locks (LK8)."""

from __future__ import annotations

import pytest

from ganeti import errors, locking
from ganeti.locking import (
    ALL_SET,
    BGL,
    LEVEL_CLUSTER,
    LEVEL_INSTANCE,
    LEVEL_NODE,
    GanetiLockManager,
)
from ganeti.runtime.simulation import Simulation

NODES = ["n1", "n2"]
INSTANCES = ["i1", "i2", "i3"]


@pytest.fixture(autouse=True)
def _NoManager(monkeypatch):
    monkeypatch.setattr(GanetiLockManager, "_instance", None)


@pytest.fixture
def glm():
    return GanetiLockManager(nodes=NODES, instances=INSTANCES)


class TestLevels:
    """LK7: the levels are their own order."""

    def testConstants(self):
        assert locking.LEVELS == [0, 1, 2]
        assert (LEVEL_CLUSTER, LEVEL_INSTANCE, LEVEL_NODE) == (0, 1, 2)
        for i, level in enumerate(locking.LEVELS):
            assert level == i
        assert set(locking.LEVEL_NAMES) == set(locking.LEVELS)
        assert locking.LEVEL_NAMES == {0: "cluster", 1: "instance", 2: "node"}
        assert sorted(locking.LEVELS_MOD) == [LEVEL_INSTANCE, LEVEL_NODE]
        assert BGL == "BGL"
        assert ALL_SET is None

    def testNamesPerLevel(self, glm):
        assert glm._names(LEVEL_CLUSTER) == {BGL}
        assert glm._names(LEVEL_INSTANCE) == set(INSTANCES)
        assert glm._names(LEVEL_NODE) == set(NODES)

    def testEmpty(self):
        glm = GanetiLockManager()
        assert glm._names(LEVEL_INSTANCE) == set()
        assert glm._names(LEVEL_NODE) == set()

    @pytest.mark.parametrize("level", [-1, 3, "node", None])
    def testInvalidLevel(self, glm, level):
        glm.acquire(LEVEL_CLUSTER, BGL)
        for call in (glm.acquire, glm.add, glm.remove, glm.release, glm.check_owned):
            with pytest.raises(AssertionError, match="level"):
                call(level, ["x"])
        for query in (glm.is_owned, glm._is_owned, glm._list_owned, glm._names, glm.downgrade):
            with pytest.raises(AssertionError, match="level"):
                query(level)

    def testContainsBgl(self, glm):
        assert glm._contains_BGL(LEVEL_CLUSTER, None)
        assert glm._contains_BGL(LEVEL_CLUSTER, BGL)
        assert glm._contains_BGL(LEVEL_CLUSTER, ["x", BGL])
        assert not glm._contains_BGL(LEVEL_CLUSTER, [])
        assert not glm._contains_BGL(LEVEL_CLUSTER, "xBGLx")
        assert not glm._contains_BGL(LEVEL_INSTANCE, None)
        assert not glm._contains_BGL(LEVEL_NODE, BGL)


class TestSingleton:
    """There is one manager a process."""

    def testSecondIsRefused(self, glm):
        with pytest.raises(AssertionError, match="already"):
            GanetiLockManager()
        assert GanetiLockManager._instance is glm

    def testAnotherRuntimeIsAnotherWorld(self, glm):
        GanetiLockManager(runtime=Simulation(1).runtime)


class TestOrder:
    """LK7: an attempt to break the order of the levels raises, and changes nothing."""

    def testBglFirst(self, glm):
        for level, names in [(LEVEL_INSTANCE, "i1"), (LEVEL_NODE, ["n1"]), (LEVEL_NODE, ALL_SET)]:
            with pytest.raises(AssertionError, match="Big Ganeti Lock"):
                glm.acquire(level, names)
            with pytest.raises(AssertionError, match="Big Ganeti Lock"):
                glm.add(level, "new")
            with pytest.raises(AssertionError, match="Big Ganeti Lock"):
                glm.remove(level, "i1")
        with pytest.raises(AssertionError, match="Big Ganeti Lock"):
            glm.acquire(LEVEL_CLUSTER, [])

    @pytest.mark.parametrize("make", [str, list, tuple, iter, lambda _: ALL_SET])
    @pytest.mark.parametrize("shared", [0, 1])
    def testBglForms(self, glm, make, shared):
        names = BGL if make is str else make([BGL])
        assert glm.acquire(LEVEL_CLUSTER, names, shared=shared) == {BGL}
        assert glm._BGL_owned()
        assert glm.acquire(LEVEL_INSTANCE, "i1") == {"i1"}

    def testDownTheLevels(self, glm):
        glm.acquire(LEVEL_CLUSTER, BGL, shared=1)
        assert glm.acquire(LEVEL_INSTANCE, ALL_SET) == set(INSTANCES)
        assert glm._upper_owned(LEVEL_CLUSTER)
        assert not glm._upper_owned(LEVEL_INSTANCE)
        assert glm.acquire(LEVEL_NODE, ["n2"], shared=1) == {"n2"}
        assert glm.is_owned(LEVEL_NODE)
        assert glm._list_owned(LEVEL_INSTANCE) == set(INSTANCES)
        assert glm.list_owned(LEVEL_NODE) == {"n2"}
        assert glm.check_owned(LEVEL_NODE, "n2", shared=1)
        assert not glm.check_owned(LEVEL_NODE, ["n1", "n2"])
        for level in reversed(locking.LEVELS):
            glm.release(level)
            assert not glm.is_owned(level)

    def testBackwards(self, glm):
        glm.acquire(LEVEL_CLUSTER, BGL, shared=1)
        glm.acquire(LEVEL_NODE, "n1")
        with pytest.raises(AssertionError, match="later level"):
            glm.acquire(LEVEL_INSTANCE, "i1")
        with pytest.raises(AssertionError, match="later level"):
            glm.add(LEVEL_INSTANCE, "new")
        with pytest.raises(AssertionError, match="later level"):
            glm.remove(LEVEL_INSTANCE, "i1")
        assert not glm.is_owned(LEVEL_INSTANCE)
        assert glm._names(LEVEL_INSTANCE) == set(INSTANCES)

    def testSameLevelTwice(self, glm):
        glm.acquire(LEVEL_CLUSTER, BGL)
        with pytest.raises(AssertionError):
            glm.acquire(LEVEL_CLUSTER, BGL)
        glm.acquire(LEVEL_NODE, "n1")
        with pytest.raises(AssertionError):
            glm.acquire(LEVEL_NODE, "n2")

    def testBglIsTheLastToGo(self, glm):
        glm.acquire(LEVEL_CLUSTER, BGL)
        glm.acquire(LEVEL_NODE, "n1")
        for names in (None, BGL, [BGL]):
            with pytest.raises(AssertionError, match="later level"):
                glm.release(LEVEL_CLUSTER, names)
        assert glm._BGL_owned()
        glm.release(LEVEL_NODE)
        glm.release(LEVEL_CLUSTER, BGL)
        assert not glm._BGL_owned()

    def testUnknownName(self, glm):
        glm.acquire(LEVEL_CLUSTER, BGL, shared=1)
        with pytest.raises(errors.LockError, match=r"Non-existing lock in set instance \(i9\)"):
            glm.acquire(LEVEL_INSTANCE, ["i1", "i9"])
        assert not glm.is_owned(LEVEL_INSTANCE)


class TestAddRemove:
    """LK4, LK7: which levels change, and when."""

    def testClusterLevelIsFixed(self, glm):
        glm.acquire(LEVEL_CLUSTER, BGL)
        with pytest.raises(AssertionError, match="level"):
            glm.add(LEVEL_CLUSTER, "BGL2")
        with pytest.raises(AssertionError, match="level"):
            glm.remove(LEVEL_CLUSTER, BGL)

    def testAddAndRemove(self, glm):
        glm.acquire(LEVEL_CLUSTER, BGL, shared=1)
        assert glm.add(LEVEL_INSTANCE, "new", acquired=1)
        assert glm._list_owned(LEVEL_INSTANCE) == {"new"}
        glm.acquire(LEVEL_NODE, "n1")
        # Held members can be removed even with later levels held.
        assert glm.remove(LEVEL_INSTANCE, ["new"]) == ["new"]
        with pytest.raises(AssertionError):
            glm.remove(LEVEL_INSTANCE, "i1")
        glm.release(LEVEL_NODE)
        assert glm.remove(LEVEL_INSTANCE, ["i1", "unknown"]) == ["i1"]
        assert glm.add(LEVEL_NODE, ["n3"], acquired=1, shared=1)
        assert glm.check_owned(LEVEL_NODE, "n3", shared=1)
        glm.release(LEVEL_NODE)
        with pytest.raises(errors.LockError, match="duplicate add"):
            glm.add(LEVEL_INSTANCE, "i2")


class TestConcurrency:
    """LK1, LK7: threads that share the BGL."""

    def _Run(self, seed, fn):
        sim = Simulation(seed)
        log = []

        def Main():
            glm = GanetiLockManager(nodes=NODES, instances=INSTANCES, runtime=sim.runtime)
            fn(sim.runtime, glm, log)
            sim.runtime.clock.sleep(100)
            for info in glm.GetLockInfo():
                assert (info["mode"], info["pending"]) == (None, [])
            assert [locks._owned for locks in glm._sets.values()] == [{}, {}, {}]

        sim.Run(Main)
        return log

    @staticmethod
    def _Operation(rt, glm, log, tag, instances, shared_bgl=1, nodes=None):
        glm.acquire(LEVEL_CLUSTER, BGL, shared=shared_bgl)
        if instances:
            glm.acquire(LEVEL_INSTANCE, instances)
        if nodes:
            glm.acquire(LEVEL_NODE, nodes)
        log.append((tag, "start"))
        rt.clock.sleep(1)
        log.append((tag, "end"))
        for level in reversed(locking.LEVELS):
            if glm.is_owned(level):
                glm.release(level)

    @pytest.mark.parametrize("seed", range(5))
    def testDisjointInstancesRunTogether(self, seed):
        def _Main(rt, glm, log):
            for name in ("i1", "i2"):
                rt.threads.start(self._Operation, (rt, glm, log, name, [name]))

        assert [what for _, what in self._Run(seed, _Main)] == ["start", "start", "end", "end"]

    @pytest.mark.parametrize("seed", range(5))
    def testConflictingInstancesTakeTurns(self, seed):
        def _Main(rt, glm, log):
            for tag in ("a", "b"):
                rt.threads.start(self._Operation, (rt, glm, log, tag, ["i1", "i3"]))

        assert [what for _, what in self._Run(seed, _Main)] == ["start", "end", "start", "end"]

    @pytest.mark.parametrize("seed", range(5))
    def testExclusiveBglRunsAlone(self, seed):
        """It waits for the running ones, and those that come after it wait for it."""

        def _Main(rt, glm, log):
            rt.threads.start(self._Operation, (rt, glm, log, "first", ["i1"]))
            rt.clock.sleep(0.1)
            rt.threads.start(self._Operation, (rt, glm, log, "alone", None, 0))
            rt.clock.sleep(0.1)
            rt.threads.start(self._Operation, (rt, glm, log, "later", ["i2"]))

        assert [tag for tag, _ in self._Run(seed, _Main)] == ["first"] * 2 + ["alone"] * 2 + [
            "later"
        ] * 2

    @pytest.mark.parametrize("seed", range(10))
    def testManyOperationsNeverWaitInACircle(self, seed):
        def _Main(rt, glm, log):
            wishes = [
                (["i1", "i2"], ["n1"]),
                (["i2", "i1"], ["n2", "n1"]),
                (ALL_SET, ["n2"]),
                (None, ["n1", "n2"]),
                (["i3"], ALL_SET),
            ]
            for i, (instances, nodes) in enumerate(wishes * 2):
                rt.threads.start(self._Operation, (rt, glm, log, i, instances, 1, nodes))

        assert len(self._Run(seed, _Main)) == 20


class TestMonitor:
    """LK8: who holds and who waits for each lock."""

    def testAllLocksInOrder(self, glm):
        assert [info["name"] for info in glm.GetLockInfo()] == [
            "cluster/[lockset]",
            "cluster/BGL",
            "instance/[lockset]",
            "instance/i1",
            "instance/i2",
            "instance/i3",
            "node/[lockset]",
            "node/n1",
            "node/n2",
        ]

    def testHolder(self, glm):
        locking.SetOwnerLabel("Job 12/INSTANCE_CREATE")
        try:
            glm.acquire(LEVEL_CLUSTER, BGL, shared=1)
            glm.acquire(LEVEL_INSTANCE, "i2")
        finally:
            locking.SetOwnerLabel(None)
        held = [info for info in glm.GetLockInfo() if info["mode"]]
        owners = ["Job 12/INSTANCE_CREATE"]
        assert held == [
            {"name": "cluster/BGL", "mode": "shared", "owners": owners, "pending": []},
            {"name": "instance/i2", "mode": "exclusive", "owners": owners, "pending": []},
        ]
        glm.downgrade(LEVEL_INSTANCE)
        assert glm.check_owned(LEVEL_INSTANCE, "i2", shared=1)

    def testStatistics(self, glm):
        glm.acquire(LEVEL_CLUSTER, BGL)
        stats = glm.GetStatistics()
        assert sorted(stats) == ["cluster", "instance", "node"]
        assert stats["cluster"]["acquired"] == 1
        assert stats["node"]["members"] == 2

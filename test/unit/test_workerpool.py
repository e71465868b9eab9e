"""JQ: the worker pool behind the job queue, the LUXI server and others."""

from __future__ import annotations

import threading
import zlib

import pytest

from ganeti import workerpool
from ganeti.runtime.simulation import Simulation

SEEDS = range(6)


class LogWorker(workerpool.BaseWorker):
    """Tasks are (what, argument)."""

    def RunTask(self, what, *args):
        self.pool.log.append((what, *args))
        getattr(self, "Do" + what)(*args)

    def DoNothing(self, *args):
        pass

    def DoSleep(self, seconds):
        self.pool._rt.clock.sleep(seconds)
        self.pool.log.append(("Slept", seconds))

    def DoFail(self, error):
        raise error

    def DoCall(self, fn):
        fn(self)


class LogPool(workerpool.WorkerPool):
    def __init__(self, sim, num_workers, worker_class=LogWorker):
        self.log = []
        super().__init__("Test", num_workers, worker_class, runtime=sim.runtime)


def Simulated(fn):
    """Decorator: run the test in the simulation, once for each seed."""

    @pytest.mark.parametrize("seed", SEEDS)
    def _Test(self, seed):
        sim = Simulation(seed)
        sim.Run(lambda: fn(self, sim))

    _Test.__name__ = fn.__name__
    _Test.__doc__ = fn.__doc__
    return _Test


def _CheckEnded(pool):
    """No worker, no task, no thread."""
    assert pool._workers == []
    assert pool._tasks == []
    stats = pool.GetStatistics()
    assert (stats["workers"], stats["running"], stats["queued"]) == (0, 0, 0)


class TestTasks:
    """Tasks are run once each, in the order of their priorities."""

    @Simulated
    def testThreeWorkersTenTasks(self, sim):
        pool = LogPool(sim, 3)
        for i in range(10):
            pool.AddTask("Nothing", i)
        pool.Quiesce()
        assert sorted(pool.log) == [("Nothing", i) for i in range(10)]
        assert pool.GetStatistics() == {
            "workers": 3,
            "running": 0,
            "queued": 0,
            "done": 10,
            "failed": 0,
            "deferred": 0,
        }
        pool.TerminateWorkers()
        _CheckEnded(pool)

    @Simulated
    def testNoTasks(self, sim):
        pool = LogPool(sim, 3)
        pool.TerminateWorkers()
        _CheckEnded(pool)
        assert pool.log == []

    @Simulated
    def testOneWorkerKeepsTheOrder(self, sim):
        pool = LogPool(sim, 1)
        checksum = 1
        for i in range(1, 100):
            pool.AddTask("Nothing", i)
            checksum = zlib.adler32(str(i).encode(), checksum)
        pool.Quiesce()
        found = 1
        for _, i in pool.log:
            found = zlib.adler32(str(i).encode(), found)
        assert found == checksum
        pool.TerminateWorkers()

    @Simulated
    def testManyWorkersStartInOrder(self, sim):
        pool = LogPool(sim, 3)
        for i in range(6):
            pool.AddTask("Sleep", 10.0 - i)
            sim.runtime.clock.sleep(0.01)
        pool.Quiesce()
        started = [seconds for what, seconds in pool.log if what == "Sleep"]
        ended = [seconds for what, seconds in pool.log if what == "Slept"]
        assert started == [10.0, 9.0, 8.0, 7.0, 6.0, 5.0]
        assert ended[0] == 8.0
        pool.TerminateWorkers()

    @Simulated
    def testWorkersWorkAtTheSameTime(self, sim):
        pool = LogPool(sim, 5)
        for _ in range(5):
            pool.AddTask("Sleep", 10.0)
        pool.Quiesce()
        assert sim.runtime.clock.monotonic() == 10.0
        pool.TerminateWorkers()

    @Simulated
    def testPriority(self, sim):
        pool = LogPool(sim, 0)
        for i, priority in enumerate([0, 10, -10, 0, -10, 10]):
            pool.AddTask("Nothing", i, priority=priority)
        pool.Resize(1)
        pool.Quiesce()
        assert [i for _, i in pool.log] == [2, 4, 0, 3, 1, 5]
        pool.TerminateWorkers()

    def testWhoGoesFirst(self):
        pool = workerpool.WorkerPool("Pool", 0, workerpool.BaseWorker)
        assert not pool.HasTask(100)
        pool.AddTask(1, priority=5)
        pool.AddTask(2, priority=9)
        assert [pool.HasTask(priority) for priority in (4, 5, 6)] == [False, True, True]

    @Simulated
    def testArgumentsAreNeverCompared(self, sim):
        """Equal priorities are told apart by number, so arguments need no order."""
        pool = LogPool(sim, 0)
        for _ in range(5):
            pool.AddTask("Nothing", object())
        pool.Resize(2)
        pool.Quiesce()
        assert len(pool.log) == 5
        pool.TerminateWorkers()

    @Simulated
    def testThreadNames(self, sim):
        names = []
        pool = LogPool(sim, 2)
        for _ in range(2):
            pool.AddTask(
                "Call",
                lambda worker: (
                    names.append((worker.worker_id, sim.runtime.threads.current_name())),
                    sim.runtime.clock.sleep(1),
                ),
            )
        pool.Quiesce()
        assert sorted(names) == [("Test1", "Test1"), ("Test2", "Test2")]
        pool.TerminateWorkers()


class TestErrors:
    """What a task does wrong ends the task, not the worker."""

    @pytest.mark.parametrize("error", [ValueError("on purpose"), SystemExit("on purpose")])
    def testIsLogged(self, error, caplog):
        sim = Simulation(1)

        def Main():
            pool = LogPool(sim, 1)
            pool.AddTask("Fail", error)
            pool.AddTask("Nothing")
            pool.Quiesce()
            assert pool.log[-1] == ("Nothing",)
            stats = pool.GetStatistics()
            assert (stats["workers"], stats["done"], stats["failed"]) == (1, 1, 1)
            pool.TerminateWorkers()

        sim.Run(Main)
        assert "Test1: a task failed" in caplog.text
        assert f"{type(error).__name__}: on purpose" in caplog.text

    def testBaseWorkerDoesNothing(self, caplog):
        sim = Simulation(1)

        def Main():
            pool = LogPool(sim, 1, workerpool.BaseWorker)
            pool.AddTask("x")
            pool.Quiesce()
            pool.TerminateWorkers()

        sim.Run(Main)
        assert "NotImplementedError" in caplog.text


class TestDefer:
    """A task that can not go on gives its thread to others."""

    @Simulated
    def testGoesBehindItsPriority(self, sim):
        pool = LogPool(sim, 0)
        tries = []

        def _Deferring(_):
            tries.append(None)
            if len(tries) < 3:
                raise workerpool.DeferTask

        pool.AddTask("Call", _Deferring)
        for i in range(2):
            pool.AddTask("Nothing", i)
        pool.AddTask("Nothing", "low", priority=5)
        pool.Resize(1)
        pool.Quiesce()
        call = ("Call", _Deferring)
        # Behind those of its priority that were waiting, before those of a lower one.
        assert pool.log == [
            call,
            ("Nothing", 0),
            ("Nothing", 1),
            call,
            call,
            ("Nothing", "low"),
        ]
        stats = pool.GetStatistics()
        assert (stats["deferred"], stats["done"], stats["failed"]) == (2, 4, 0)
        pool.TerminateWorkers()

    @Simulated
    def testWithNewPriority(self, sim):
        pool = LogPool(sim, 0)
        order = []

        def _Deferring(worker):
            order.append("deferring")
            if len(order) == 1:
                raise workerpool.DeferTask(priority=10)
            if order.count("deferring") == 2:
                worker.pool.AddTask("Call", lambda _: order.append("added"), priority=5)
                raise workerpool.DeferTask

        pool.AddTask("Call", _Deferring)
        pool.AddTask("Call", lambda _: order.append("normal"))
        pool.AddTask("Call", lambda _: order.append("low"), priority=10)
        pool.Resize(1)
        pool.Quiesce()
        # None keeps the priority of the deferral before, not that of the beginning.
        assert order == ["deferring", "normal", "low", "deferring", "added", "deferring"]
        pool.TerminateWorkers()

    @Simulated
    def testDeferredWhileTerminatingIsDropped(self, sim):
        pool = LogPool(sim, 1)

        def _Deferring(_):
            sim.runtime.clock.sleep(1)
            raise workerpool.DeferTask

        pool.AddTask("Call", _Deferring)
        sim.runtime.clock.sleep(0.5)
        pool.TerminateWorkers()
        _CheckEnded(pool)
        assert len(pool.log) == 1


class TestQuiesce:
    """Waiting for the work there is, and keeping new work out meanwhile."""

    @Simulated
    def testEmptyPool(self, sim):
        pool = LogPool(sim, 3)
        pool.Quiesce()
        assert sim.runtime.clock.monotonic() == 0
        pool.TerminateWorkers()
        pool.Quiesce()

    @Simulated
    def testNewTasksWait(self, sim):
        pool = LogPool(sim, 2)
        pool.AddTask("Sleep", 10.0)
        added = []

        def _Adder():
            sim.runtime.clock.sleep(1)
            pool.AddTask("Nothing")
            added.append(sim.runtime.clock.monotonic())

        adder = sim.runtime.threads.start(_Adder)
        sim.runtime.clock.sleep(0.5)
        pool.Quiesce()
        assert sim.runtime.clock.monotonic() == 10.0
        adder.join()
        assert added == [10.0]
        pool.Quiesce()
        assert pool.log[-1] == ("Nothing",)
        pool.TerminateWorkers()

    @Simulated
    def testTwoAtOnce(self, sim):
        pool = LogPool(sim, 2)
        pool.AddTask("Sleep", 3.0)
        other = sim.runtime.threads.start(pool.Quiesce)
        pool.Quiesce()
        other.join()
        assert sim.runtime.clock.monotonic() == 3.0
        pool.AddTask("Nothing")
        pool.TerminateWorkers()

    @Simulated
    def testTasksOfTasksAreWaitedFor(self, sim):
        """A task that adds another one is not held up: it would be waited for for ever."""
        pool = LogPool(sim, 1)

        def _Parent(worker):
            sim.runtime.clock.sleep(2)
            worker.pool.AddTask("Sleep", 1.0)

        pool.AddTask("Call", _Parent)
        sim.runtime.clock.sleep(1)
        pool.Quiesce()
        assert pool.log[-1] == ("Slept", 1.0)
        assert sim.runtime.clock.monotonic() == 3.0
        pool.TerminateWorkers()

    @Simulated
    def testTaskCanNotWaitForItself(self, sim):
        pool = LogPool(sim, 1)
        errors = []

        def _Bad(worker):
            for call in (pool.Quiesce, pool.TerminateWorkers, lambda: pool.Resize(0)):
                try:
                    call()
                except AssertionError as err:
                    errors.append(str(err))

        pool.AddTask("Call", _Bad)
        pool.Quiesce()
        assert len(errors) == 3
        assert all("wait for itself" in text for text in errors)
        pool.TerminateWorkers()

    @Simulated
    def testTerminationFreesWhoWaits(self, sim):
        pool = LogPool(sim, 0)
        pool.AddTask("Nothing")
        waiting = [sim.runtime.threads.start(pool.Quiesce)]
        sim.runtime.clock.sleep(1)
        waiting.append(sim.runtime.threads.start(pool.AddTask, ("Nothing",)))
        sim.runtime.clock.sleep(1)
        assert all(thread.is_alive() for thread in waiting)
        pool.TerminateWorkers()
        for thread in waiting:
            thread.join()
        assert pool.log == []
        pool.TerminateWorkers()


class TestResize:
    """The number of threads."""

    @Simulated
    def testGrow(self, sim):
        pool = LogPool(sim, 1)
        pool.Resize(1)
        assert pool.GetStatistics()["workers"] == 1
        pool.Resize(4)
        for _ in range(4):
            pool.AddTask("Sleep", 1.0)
        pool.Quiesce()
        assert sim.runtime.clock.monotonic() == 1.0
        assert [worker.worker_id for worker in pool._workers] == [f"Test{i}" for i in range(1, 5)]
        pool.TerminateWorkers()

    @Simulated
    def testShrinkOnlyToNothing(self, sim):
        pool = LogPool(sim, 3)
        with pytest.raises(NotImplementedError, match="from 3 to 2"):
            pool.Resize(2)
        assert pool.GetStatistics()["workers"] == 3
        pool.Resize(0)
        _CheckEnded(pool)

    @Simulated
    def testZeroKeepsTheQueue(self, sim):
        pool = LogPool(sim, 1)
        pool.AddTask("Sleep", 1.0)
        pool.AddTask("Nothing")
        sim.runtime.clock.sleep(0.5)
        pool.Resize(0)
        assert pool.log == [("Sleep", 1.0), ("Slept", 1.0)]
        assert pool.GetStatistics()["queued"] == 1
        pool.Resize(1)
        pool.Quiesce()
        assert pool.log[-1] == ("Nothing",)
        assert pool._workers[0].worker_id == "Test2"
        pool.TerminateWorkers()

    @Simulated
    def testTerminateDropsTheQueueAndFinishesTheTask(self, sim):
        pool = LogPool(sim, 2)
        for _ in range(5):
            pool.AddTask("Sleep", 1.0)
        sim.runtime.clock.sleep(0.5)
        pool.TerminateWorkers()
        assert pool.log == [("Sleep", 1.0)] * 2 + [("Slept", 1.0)] * 2
        _CheckEnded(pool)

    @Simulated
    def testTwoTerminatorsBothWait(self, sim):
        pool = LogPool(sim, 1)
        pool.AddTask("Sleep", 5.0)
        sim.runtime.clock.sleep(0.5)
        ends = []

        def _Terminate():
            pool.TerminateWorkers()
            ends.append(sim.runtime.clock.monotonic())

        threads = [sim.runtime.threads.start(_Terminate) for _ in range(2)]
        for thread in threads:
            thread.join()
        assert ends == [5.0, 5.0]
        _CheckEnded(pool)

    @Simulated
    def testWorkerCanAsk(self, sim):
        pool = LogPool(sim, 1)
        seen = []

        def _Long(worker):
            while not worker.ShouldTerminate():
                seen.append(worker.HasRunningTask())
                sim.runtime.clock.sleep(1)

        pool.AddTask("Call", _Long)
        sim.runtime.clock.sleep(2.5)
        worker = pool._workers[0]
        assert worker.HasRunningTask()
        assert not worker.ShouldTerminate()
        pool.TerminateWorkers()
        assert seen == [True, True, True]
        assert worker.ShouldTerminate()
        assert not worker.HasRunningTask()


class TestRealThreads:
    """The same with threads of the operating system."""

    def testTasksFromManyThreads(self):
        results = []

        class _Worker(workerpool.BaseWorker):
            def RunTask(self, number):
                if number % 10 == 3 and (number, "deferred") not in results:
                    results.append((number, "deferred"))
                    raise workerpool.DeferTask
                results.append((number, "done"))

        before = threading.active_count()
        pool = workerpool.WorkerPool("Real", 4, _Worker)

        def _Add(start):
            for i in range(start, start + 50):
                pool.AddTask(i)

        adders = [threading.Thread(target=_Add, args=(i * 50,)) for i in range(4)]
        for adder in adders:
            adder.start()
        for adder in adders:
            adder.join()
        pool.Quiesce()
        assert sorted(number for number, what in results if what == "done") == list(range(200))
        assert len(results) == 220
        pool.TerminateWorkers()
        _CheckEnded(pool)
        assert threading.active_count() == before

    def testRepr(self):
        pool = workerpool.WorkerPool("Real", 1, workerpool.BaseWorker)
        assert repr(pool) == "<WorkerPool Real>"
        assert repr(pool._workers[0]) == "<BaseWorker Real1>"
        pool.TerminateWorkers()

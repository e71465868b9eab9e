"""The seam to the outside world: the real one and its fakes keep the same contract."""

import errno
import os

import pytest

from ganeti import runtime
from ganeti.runtime import fake
from ganeti.runtime.simulation import Deadlock, Simulation, SimulationError


@pytest.fixture(params=["real", "memory"])
def Place(request, tmp_path):
    """A Files implementation and a directory to use with it."""
    if request.param == "real":
        return runtime.RealFiles(), str(tmp_path)
    files = fake.MemoryFiles()
    files.mkdir("/dir")
    return files, "/dir"


class TestFiles:
    """Durability: the same contract on a disk and in memory."""

    def test_write_replaces(self, Place):
        files, top = Place
        files.write(top + "/a", b"one")
        before = files.stat(top + "/a")
        files.write(top + "/a", b"second", mode=0o444)
        after = files.stat(top + "/a")
        assert files.read(top + "/a") == b"second"
        assert before.inode != after.inode
        assert after.size == 6
        assert before.mode & 0o777 == 0o600
        assert after.mode & 0o777 == 0o444
        assert files.listdir(top) == ["a"]

    def test_missing(self, Place):
        files, top = Place
        for call in (files.read, files.stat):
            with pytest.raises(FileNotFoundError):
                call(top + "/none")
        with pytest.raises(FileNotFoundError):
            files.rename(top + "/none", top + "/other")
        with pytest.raises(FileNotFoundError):
            files.listdir(top + "/nodir")
        files.remove(top + "/none")
        assert not files.exists(top + "/none")

    def test_rename_makes_directory(self, Place):
        files, top = Place
        files.write(top + "/a", b"x")
        files.rename(top + "/a", top + "/sub/b", mkdir=True)
        assert files.read(top + "/sub/b") == b"x"
        assert not files.exists(top + "/a")
        assert files.listdir(top) == ["sub"]

    def test_no_temporary_file_is_left_after_an_error(self, tmp_path):
        files = runtime.RealFiles()
        (tmp_path / "target").mkdir()
        with pytest.raises(OSError):
            files.write(str(tmp_path / "target"), b"x")
        assert os.listdir(tmp_path) == ["target"]


class TestMemoryFiles:
    def test_crash_loses_what_was_not_synced(self):
        files = fake.MemoryFiles()
        files.write("/d/kept", b"1")
        files.write("/d/lost", b"2", durable=False)
        files.write("/d/kept", b"3", durable=False)
        files.Crash()
        assert files.read("/d/kept") == b"1"
        assert files.listdir("/d") == ["kept"]

    def test_sync_keeps(self):
        files = fake.MemoryFiles()
        files.write("/d/a", b"1", durable=False)
        files.rename("/d/a", "/d/b", durable=False)
        files.sync("/d")
        files.Crash()
        assert files.listdir("/d") == ["b"]

    def test_faults(self):
        files = fake.MemoryFiles()
        files.Fail("write", "*/job-*", errno.ENOSPC, times=1)
        files.write("/q/serial", b"1")
        with pytest.raises(OSError, match="No space left") as caught:
            files.write("/q/job-1", b"1")
        assert caught.value.filename == "/q/job-1"
        files.write("/q/job-1", b"1")
        files.Fail("*", "*")
        with pytest.raises(OSError, match="Input/output error"):
            files.read("/q/serial")
        files.Heal()
        assert files.read("/q/serial") == b"1"


class TestFakeClock:
    def test_sleep_moves_the_clock(self):
        clock = fake.FakeClock()
        clock.sleep(2.5)
        clock.Advance(1)
        assert clock.monotonic() == 3.5
        assert clock.time() == fake.EPOCH + 3.5
        assert clock.sleeps == [2.5]


def _Race(seed):
    """Two threads append to a list under a mutex; what order comes out?"""
    sim = Simulation(seed)
    rt = sim.runtime
    order = []

    def Main():
        lock = rt.threads.Lock()

        def Work(name):
            for _ in range(3):
                with lock:
                    order.append(name)

        threads = [rt.threads.start(Work, (n,)) for n in "ab"]
        for thread in threads:
            thread.join()

    sim.Run(Main)
    return "".join(order)


class TestSimulation:
    """One thread at a time, in virtual time, in an order drawn from a seed."""

    def test_seed_replays(self):
        assert _Race(7) == _Race(7)

    def test_seeds_differ(self):
        orders = {_Race(seed) for seed in range(30)}
        assert len(orders) > 5
        assert all(sorted(order) == list("aaabbb") for order in orders)

    def test_virtual_time(self):
        sim = Simulation(1)
        rt = sim.runtime
        seen = []

        def Sleeper(seconds):
            rt.clock.sleep(seconds)
            seen.append((seconds, rt.clock.monotonic()))

        def Main():
            threads = [rt.threads.start(Sleeper, (s,)) for s in (3600, 1, 60)]
            for thread in threads:
                thread.join()

        sim.Run(Main)
        assert seen == [(1, 1.0), (60, 60.0), (3600, 3600.0)]

    def test_condition_timeout_and_notify(self):
        for seed in range(20):
            sim = Simulation(seed)
            rt = sim.runtime
            results = []

            def Main(rt=rt, results=results):
                cond = rt.threads.Condition()
                ready = rt.threads.Event()

                def Waiter():
                    with cond:
                        results.append(cond.wait(5))
                        ready.set()
                        results.append(cond.wait(5))

                thread = rt.threads.start(Waiter)
                while not ready.is_set():
                    with cond:
                        cond.notify_all()
                    rt.clock.sleep(0.1)
                thread.join()

            sim.Run(Main)
            assert results == [True, False], seed

    def test_mutual_exclusion(self):
        for seed in range(20):
            sim = Simulation(seed)
            rt = sim.runtime
            inside = []

            def Main(rt=rt, inside=inside):
                lock = rt.threads.Lock()

                def Work():
                    for _ in range(3):
                        with lock:
                            inside.append(1)
                            rt.clock.sleep(0.5)
                            assert len(inside) == 1
                            inside.pop()

                for thread in [rt.threads.start(Work) for _ in range(4)]:
                    thread.join()

            sim.Run(Main)

    def test_lock_timeout(self):
        sim = Simulation(3)
        rt = sim.runtime

        def Main():
            lock = rt.threads.Lock()
            lock.acquire()
            thread = rt.threads.start(lambda: got.append(lock.acquire(timeout=2)))
            thread.join()
            return rt.clock.monotonic()

        got = []
        assert sim.Run(Main) == 2.0
        assert got == [False]

    def test_deadlock_is_found(self):
        found = 0
        for seed in range(40):
            sim = Simulation(seed)
            rt = sim.runtime

            def Main(rt=rt):
                one, two = rt.threads.Lock(), rt.threads.Lock()

                def Work(first, second):
                    with first, second:
                        pass

                threads = [rt.threads.start(Work, pair) for pair in ((one, two), (two, one))]
                for thread in threads:
                    thread.join()

            try:
                sim.Run(Main)
            except Deadlock as err:
                found += 1
                assert f"seed {seed}" in str(err)
                assert "waits for a mutex" in str(err)
        assert 0 < found < 40

    def test_exception_in_a_thread_is_reported(self):
        sim = Simulation(5)

        def Broken():
            raise ValueError("boom")

        def Main():
            sim.runtime.threads.start(Broken, name="worker").join()
            sim.runtime.clock.sleep(10)

        with pytest.raises(SimulationError, match="seed 5") as caught:
            sim.Run(Main)
        assert isinstance(caught.value.__cause__, ValueError)

    def test_left_over_threads_are_unwound(self):
        sim = Simulation(2)
        rt = sim.runtime
        cleaned = []

        def Daemon():
            cond = rt.threads.Condition()
            try:
                with cond:
                    cond.wait()
            finally:
                cleaned.append(rt.threads.current_name())

        def Main():
            rt.threads.start(Daemon, name="d1")
            rt.threads.start(Daemon, name="d2")
            rt.clock.sleep(1)
            return "done"

        assert sim.Run(Main) == "done"
        assert sorted(cleaned) == ["d1", "d2"]

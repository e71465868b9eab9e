"""The node daemon's HTTPS front end: its threads and its judgement of peers."""

import asyncio
import dataclasses
import threading

import pytest

from ganeti import constants, rpc_defs, runtime
from ganeti.server import rpcserver


class TestCallThreads:
    """Bounded pools: threads only as needed, refusal instead of endless queues."""

    def _Run(self, coroutine_fn, limit=2, backlog=3):
        pool = rpcserver.CallThreads("Test", limit, backlog)

        async def Main():
            return await coroutine_fn(pool, asyncio.get_running_loop())

        return asyncio.run(Main()), pool

    def test_results_and_errors(self):
        async def Main(pool, loop):
            with pytest.raises(ZeroDivisionError):
                await pool.Submit(loop, lambda: 1 / 0)
            return await pool.Submit(loop, lambda: 5)

        result, _ = self._Run(Main)
        assert result == 5

    def test_an_idle_thread_is_used_again(self):
        async def Main(pool, loop):
            for _ in range(20):
                await pool.Submit(loop, threading.get_ident)
                # A thread is idle a moment after its answer
                while pool.GetStatistics()["idle"] == 0:
                    await asyncio.sleep(0)

        _, pool = self._Run(Main)
        assert pool.GetStatistics()["threads"] == 1

    def test_bounds(self):
        """Two run, three wait, the sixth is refused; all five get their answers."""
        gate = threading.Event()

        async def Main(pool, loop):
            started = threading.Semaphore(0)

            def Work():
                started.release()
                gate.wait(10)
                return 1

            running = [pool.Submit(loop, Work) for _ in range(2)]
            for _ in range(2):
                assert started.acquire(timeout=10)
            waiting = [pool.Submit(loop, Work) for _ in range(3)]
            with pytest.raises(rpcserver.Busy):
                pool.Submit(loop, Work)
            assert pool.GetStatistics() == {"threads": 2, "idle": 0, "waiting": 3}
            gate.set()
            return await asyncio.gather(*running, *waiting)

        results, _ = self._Run(Main)
        assert results == [1] * 5

    def test_nobody_waits_any_more(self):
        async def Main(pool, loop):
            future = pool.Submit(loop, lambda: 1)
            future.cancel()
            return await pool.Submit(loop, lambda: 2)

        result, _ = self._Run(Main)
        assert result == 2


class TestNoMoreThreads:
    """The system gives no more threads."""

    class _Threads:
        def __init__(self, left):
            self.left = left
            self.Condition = runtime.DEFAULT.threads.Condition

        def start(self, *args, **kwargs):
            if not self.left:
                raise RuntimeError("can't start new thread")
            self.left -= 1
            return runtime.DEFAULT.threads.start(*args, **kwargs)

    def _Pool(self, left):
        rt = dataclasses.replace(runtime.DEFAULT, threads=self._Threads(left))
        return rpcserver.CallThreads("Test", 3, 5, rt)

    def test_those_that_there_are_do_it(self):
        async def Main():
            pool = self._Pool(1)
            loop = asyncio.get_running_loop()
            results = await asyncio.gather(*(pool.Submit(loop, lambda: 1) for _ in range(4)))
            assert pool.GetStatistics()["threads"] == 1
            return results

        assert asyncio.run(Main()) == [1] * 4

    def test_not_one(self):
        """Refused, and not done later."""
        done = []

        async def Main():
            pool = self._Pool(0)
            loop = asyncio.get_running_loop()
            with pytest.raises(rpcserver.Busy):
                pool.Submit(loop, lambda: done.append("refused"))
            assert pool.GetStatistics() == {"threads": 0, "idle": 0, "waiting": 0}
            pool._rt.threads.left = 1
            await pool.Submit(loop, lambda: done.append("good"))

        asyncio.run(Main())
        assert done == ["good"]

    def test_started_beforehand(self):
        async def Main():
            pool = self._Pool(3)
            pool.StartAll()
            pool._rt.threads.left = 0
            return await pool.Submit(asyncio.get_running_loop(), lambda: 1)

        assert asyncio.run(Main()) == 1


class TestGetPool:
    """Calls that hang keep only those waiting that would hang with them."""

    @pytest.mark.parametrize(
        ("name", "pool"),
        [
            ("version", "vital"),
            ("node_powercycle", "vital"),
            ("master_info", "quick"),
            ("jobqueue_update", "quick"),
            ("node_info", "facts"),
            ("os_diagnose", "facts"),
            ("instance_os_add", "slow"),
            ("instance_shutdown", "slow"),
            ("test_delay", "slow"),
            ("node_verify", "slow"),
        ],
    )
    def test_calls(self, name, pool):
        assert rpcserver.GetPool(rpc_defs.CALLS[name]) == pool

    def test_no_deadlock(self):
        """Calls of two nodes that wait for each other all have a thread, however many jobs run."""
        for name in ("drbd_attach_net", "drbd_wait_sync", "instance_migrate", "hooks_runner"):
            assert rpcserver.GetPool(rpc_defs.CALLS[name]) == "slow"
        assert rpcserver.POOLS["slow"] >= 2 * constants.JOB_THREADS


class TestIsSameCertificate:
    """Peers are compared by the bytes of their certificates."""

    def test_compare(self):
        assert rpcserver.IsSameCertificate(b"der", b"der")
        assert not rpcserver.IsSameCertificate(b"other", b"der")
        assert not rpcserver.IsSameCertificate(b"", b"der")
        assert not rpcserver.IsSameCertificate(None, b"der")
        assert not rpcserver.IsSameCertificate(None, b"")

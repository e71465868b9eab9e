"""The node daemon's HTTPS front end: its threads and its judgement of peers."""

import asyncio
import threading

import pytest

from ganeti import rpc_defs
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


class TestIsQuick:
    """Long calls never keep short ones waiting."""

    @pytest.mark.parametrize(
        ("name", "quick"),
        [
            ("version", True),
            ("node_info", True),
            ("jobqueue_update", True),
            ("os_diagnose", True),
            ("node_powercycle", True),
            ("instance_os_add", False),
            ("instance_shutdown", False),
            ("test_delay", False),
            ("node_verify", False),
        ],
    )
    def test_calls(self, name, quick):
        assert rpcserver.IsQuick(rpc_defs.CALLS[name]) is quick


class TestIsSameCertificate:
    """Peers are compared by the bytes of their certificates."""

    def test_compare(self):
        assert rpcserver.IsSameCertificate(b"der", b"der")
        assert not rpcserver.IsSameCertificate(b"other", b"der")
        assert not rpcserver.IsSameCertificate(b"", b"der")
        assert not rpcserver.IsSameCertificate(None, b"der")
        assert not rpcserver.IsSameCertificate(None, b"")

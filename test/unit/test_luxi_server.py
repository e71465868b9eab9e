"""JQ3, JQ4: the LUXI front end on a real UNIX socket, with a master in memory behind it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ganeti import constants, errors, locking, luxi, opcodes, pathutils, serializer
from ganeti.jqueue import fake
from ganeti.runtime import fake as runtime_fake
from ganeti.server import clientops, luxiserver

NODE = "node1.example.com"
OP = {"OP_ID": "OP_TEST_DELAY", "duration": 0.0, "on_master": True, "on_nodes": []}
HELD = {"OP_ID": "OP_TEST_DELAY", "duration": 1.0, "on_master": False, "on_nodes": [NODE]}


class HeldRpc(fake.FakeRpc):
    """Delays on nodes last until the test lets them go."""

    def __init__(self):
        super().__init__()
        self.go = threading.Event()

    def call_test_delay(self, node_list, duration):
        self.go.wait()
        return super().call_test_delay(node_list, duration)


class Connection:
    """A client of the test."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    @classmethod
    async def Open(cls, path):
        return cls(*await asyncio.open_unix_connection(path))

    async def Receive(self):
        """The next answer as (success, result); None if the connection was closed."""
        try:
            data = await self.reader.readuntil(b"\3")
        except asyncio.IncompleteReadError as err:
            assert err.partial == b""
            return None
        answer = serializer.Load(data[:-1])
        return answer["success"], answer["result"]

    def Send(self, method, args, **extra):
        request = serializer.Dump({"method": method, "args": args, **extra})
        self.writer.write(request.encode() + b"\3")

    async def Call(self, method, args, **extra):
        self.Send(method, args, **extra)
        return await self.Receive()

    async def Result(self, method, args, **extra):
        success, result = await self.Call(method, args, **extra)
        assert success, result
        return result

    async def Error(self, method, args, **extra):
        success, result = await self.Call(method, args, **extra)
        assert not success, result
        return result

    def Close(self):
        self.writer.close()


class World:
    """Master, server and a first connection."""

    def __init__(self, master, server, ops, path, connection):
        self.master = master
        self.server = server
        self.ops = ops
        self.path = path
        self.connection = connection


@pytest.fixture
def many_files():
    """Both ends of thousands of connections are open files of this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    if before[1] < 4500:
        pytest.skip(f"a process may have {before[1]} open files here")
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def serve(tmp_path):
    """Run a coroutine function with a served master."""
    path = str(tmp_path / "socket")

    def _Serve(fn, **kwargs):
        asyncio.run(asyncio.wait_for(_Main(fn, path, kwargs), 30))

    return _Serve


async def _Main(fn, path, kwargs):
    rpc = HeldRpc()
    locking.GanetiLockManager._instance = None
    master = fake.NewMaster(runtime_fake.NewRuntime(), nodes=1, rpc_=rpc)
    executor = ThreadPoolExecutor(4)
    node_executor = ThreadPoolExecutor(1)
    sock = luxiserver.Listen(path)
    # Before the server runs, as an early client.
    connection = await Connection.Open(path)
    ops = clientops.ClientOps(master, executor, node_executor)
    server = luxiserver.LuxiServer(ops.Call, executor, **kwargs)
    await server.Start(sock)
    try:
        await fn(World(master, server, ops, path, connection))
    finally:
        rpc.go.set()
        ops.End()
        await server.Stop()
        connection.Close()
        executor.shutdown()
        node_executor.shutdown()
        await asyncio.to_thread(master.jobqueue.Shutdown)
        sock.close()


async def WaitFinal(connection, job_id):
    info = None
    while True:
        result = await connection.Result("WaitForJobChange", [job_id, ["status"], info, None, 20])
        if result == constants.JOB_NOTCHANGED:
            continue
        info = result[0]
        if info[0] in constants.JOBS_FINALIZED:
            return info[0]


class TestMethods:
    def test_job(self, serve):
        async def _Work(world):
            call = world.connection.Result
            assert await call("SubmitJob", [OP]) == "1"
            assert await WaitFinal(world.connection, "1") == "success"
            rows = await call("QueryJobs", [["1", 1, "9"], ["id", "status", "summary"]])
            assert rows == [["1", "success", ["TEST_DELAY(0.0)"]]] * 2 + [None]
            assert await call("SubmitManyJobs", [[OP], [OP, OP]]) == [[True, "2"], [True, "3"]]
            for job_id in ("2", "3"):
                await WaitFinal(world.connection, job_id)
            assert await call("ArchiveJob", "1") is True
            assert await call("ArchiveJob", "1") is False
            assert await call("AutoArchiveJobs", [-1, 10]) == [2, 0]
            assert await call("QueryJobs", [None, ["id"]]) == []
            assert await call("CancelJob", "99") == [False, "Job 99 not found"]
            endless = "9" * 5000
            assert (await call("CancelJob", endless))[0] is False
            assert await call("QueryJobs", [[endless], ["id"]]) == [None]
            assert await call("WaitForJobChange", [endless, ["id"], None, None, 0]) is None

        serve(_Work)

    def test_wrong_jobs(self, serve):
        async def _Work(world):
            error = world.connection.Error
            for ops in (
                [{"OP_ID": "OP_NOSUCH"}],
                [{**OP, "nosuch": 1}],
                [{"OP_ID": "OP_TEST_DELAY"}],
                [{**OP, "duration": "long"}],
                [{**OP, "depends": [["9" * 5000, []]]}],
                [],
            ):
                name, args = await error("SubmitJob", ops)
                assert name == "OpPrereqError"
                assert args[1] == errors.ECODE_INVAL
            # All or nothing where a request is malformed.
            assert (await error("SubmitManyJobs", [[OP], [{"OP_ID": "OP_NOSUCH"}]]))[0] == (
                "OpPrereqError"
            )
            assert await world.connection.Result("QueryJobs", [None, ["id"]]) == []
            assert (await error("QueryJobs", [None, ["nosuch"]]))[0] == "OpExecError"

        serve(_Work)

    def test_drain(self, serve):
        async def _Work(world):
            assert await world.connection.Result("SetDrainFlag", True) is True
            assert await world.connection.Error("SubmitJob", [OP]) == [
                "JobQueueDrainError",
                ["Job queue is drained, refusing job"],
            ]
            assert await world.connection.Result("SetDrainFlag", False) is True
            assert await world.connection.Result("SubmitJob", [OP])

        serve(_Work)

    def test_cancel(self, serve):
        async def _Work(world):
            call = world.connection.Result
            await call("SubmitJob", [HELD])
            await _Running(world, "1")
            second = await call("SubmitJob", [HELD])
            assert (await call("CancelJob", second))[0] is True
            assert await call("CancelJob", "1") == [
                False,
                "Job 1 is no longer waiting in the queue",
            ]
            world.master.rpc.go.set()
            assert await WaitFinal(world.connection, second) == "canceled"

        serve(_Work)

    def test_priority(self, serve):
        async def _Work(world):
            call = world.connection.Result
            await call("SubmitJob", [OP])
            await WaitFinal(world.connection, "1")
            assert (await call("ChangeJobPriority", ["1", -5]))[0] is False
            assert (await world.connection.Error("ChangeJobPriority", ["1", 99]))[0] == (
                "OpPrereqError"
            )

        serve(_Work)

    def test_queries(self, serve):
        async def _Work(world):
            call, error = world.connection.Result, world.connection.Error
            assert await call("QueryTags", ["cluster", ""]) == []
            assert (await error("QueryTags", ["nosuch", "x"]))[1][1] == errors.ECODE_INVAL
            for method, args in (
                ("QueryInstances", [[], ["name"], True]),
                ("QueryNodes", [[], ["name"], True]),
                ("QueryExports", [[], True]),
            ):
                assert (await error(method, args))[1][1] == errors.ECODE_INVAL
            rows = await call("QueryNodes", [[], ["name", "role"], False])
            assert rows == [[NODE, "M"]]
            assert (await call("QueryClusterInfo", []))["name"] == "cluster.example.com"

        serve(_Work)

    def test_a_node_that_hangs_holds_up_no_job(self, serve):
        """Queries that wait for nodes wait apart from everything else."""

        async def _Work(world):
            go = threading.Event()
            world.ops._RunQuery = lambda op: go.wait()
            clients = [await Connection.Open(world.path) for _ in range(8)]
            for client in clients:
                client.Send("QueryNodes", [[], ["name", "mfree"], False])
            call = world.connection.Result
            assert await call("SubmitManyJobs", [[OP]]) == [[True, "1"]]
            assert await call("QueryJobs", [["1"], ["id"]]) == [["1"]]
            assert (await call("CancelJob", "1"))[0] in (True, False)
            go.set()
            for client in clients:
                assert await client.Receive() == (True, True)
                client.Close()

        serve(_Work)

    def test_locks(self, serve):
        """LK8: who holds a lock, and who waits."""

        async def _Work(world):
            call = world.connection.Result
            await call("SubmitJob", [HELD])
            await _Running(world, "1")
            rows = {row[0]: row[1:] for row in await call("QueryLocks", [])}
            assert rows[f"node/{NODE}"] == ["exclusive", ["Job 1/OP_TEST_DELAY"], []]
            assert await call("QueryLocks", [["mode", "name"]])
            assert await world.connection.Error("QueryLocks", [["nosuch"]])

        serve(_Work)

    def test_watcher_pause(self, serve):
        async def _Work(world):
            files = world.master.runtime.files
            now = world.master.runtime.clock.time()
            call = world.connection.Result
            assert await call("SetWatcherPause", [now + 60]) == now + 60
            assert files.read(pathutils.WATCHER_PAUSEFILE) == b"%d\n" % (now + 60)
            assert await call("SetWatcherPause", [None]) is None
            assert not files.exists(pathutils.WATCHER_PAUSEFILE)
            error = await world.connection.Error("SetWatcherPause", [now - 60])
            assert error[0] == "GenericError"
            assert await world.connection.Error("SetWatcherPause", ["soon"])
            for much in (1e308, 2**62, 9**4000):
                assert await world.connection.Error("SetWatcherPause", [much])

        serve(_Work)

    def test_watcher_pause_on_a_full_disk(self, serve):
        """An error that says which file and why, for both directions."""

        async def _Work(world):
            files = world.master.runtime.files
            now = world.master.runtime.clock.time()
            files.Fail("*", pathutils.WATCHER_PAUSEFILE, errno.ENOSPC)
            name, args = await world.connection.Error("SetWatcherPause", [now + 60])
            assert name == "GenericError"
            assert pathutils.WATCHER_PAUSEFILE in args[0]
            assert "No space left on device" in args[0]

        serve(_Work)

    def test_any_request_on_a_full_disk(self, serve, caplog):
        """What the system refuses is an error that names the request, and no fault of ours."""

        async def _Work(world):
            world.master.runtime.files.Fail("*", "*", errno.ENOSPC)
            for method, args in (("SetDrainFlag", True), ("SetDrainFlag", False)):
                where = pathutils.JOB_QUEUE_DRAIN_FILE
                text = f"{method} failed: {where}: No space left on device"
                assert await world.connection.Error(method, args) == ["GenericError", [text]]
            assert await world.connection.Error("SubmitJob", [OP])
            assert not any(record.exc_info for record in caplog.records)
            world.master.runtime.files.Heal()

        serve(_Work)

    def test_later_clients(self, serve):
        """They name a version, wrap arguments and want integers."""

        async def _Work(world):
            call = world.connection.Result
            assert await call("SubmitJob", [[OP]], version=3000000) == 1
            assert await call("SubmitManyJobs", [[[OP]]], version=3000000) == [[True, 2]]
            assert await call("QueryJobs", [[1], ["id"]], version=3000000) == [[1]]

        serve(_Work)

    def test_all_methods_are_there(self, serve):
        async def _Work(world):
            assert set(world.ops._handlers) == luxi.REQ_ALL

        serve(_Work)

    def test_client_library(self, serve):
        async def _Work(world):
            def _Talk():
                with luxi.Client(world.path) as client:
                    job_id = client.SubmitJob(
                        [opcodes.OpTestDelay(duration=0.0, on_master=True, on_nodes=[])]
                    )
                    client.WaitForJobChange(job_id, ["status"], None, None)
                    with pytest.raises(errors.OpPrereqError):
                        client.QueryInstances([], ["name"], True)
                    return job_id

            assert await asyncio.to_thread(_Talk) == "1"

        serve(_Work)


async def _Running(world, job_id):
    """Return once the job runs."""
    info = None
    while info != ["running"]:
        result = await world.connection.Result(
            "WaitForJobChange", [job_id, ["status"], info, None, 20]
        )
        info = result[0]


class TestWait:
    def test_unknown_and_timeout(self, serve):
        async def _Work(world):
            call = world.connection.Result
            assert await call("WaitForJobChange", ["99", ["status"], None, None, 1]) is None
            await call("SubmitJob", [HELD])
            await _Running(world, "1")
            result = await call("WaitForJobChange", ["1", ["status"], ["running"], 0, 0])
            assert result == "nochange"

        serve(_Work)

    def test_many_clients_without_threads(self, serve, many_files):
        """JQ3: waiting costs no thread."""

        async def _Work(world):
            await world.connection.Result("SubmitJob", [HELD])
            await _Running(world, "1")
            clients = [await Connection.Open(world.path) for _ in range(2000)]
            before = threading.active_count()
            for client in clients:
                client.Send("WaitForJobChange", ["1", ["status"], ["running"], 0, 25])
            while world.master.jobqueue.GetStatistics()["listeners"] < len(clients):
                await asyncio.sleep(0)
            assert threading.active_count() <= before
            # Others are served meanwhile.
            assert await world.connection.Result("QueryJobs", [None, ["id"]]) == [["1"]]
            world.master.rpc.go.set()
            for client in clients:
                assert await client.Receive() == (True, [["success"], []])
                client.Close()
            assert world.master.jobqueue.GetStatistics()["listeners"] == 0

        serve(_Work)

    def test_feedback_wakes(self, serve):
        """JQ4: a log line reaches who waits, without any other event."""

        async def _Work(world):
            await world.connection.Result("SubmitJob", [HELD])
            await _Running(world, "1")
            world.connection.Send("WaitForJobChange", ["1", ["status"], ["running"], None, 25])
            queue = world.master.jobqueue
            while not queue.GetStatistics()["listeners"]:
                await asyncio.sleep(0)
            job = queue._jobs[1]

            def _Feed():
                from ganeti.jqueue import executor

                executor._Callbacks(queue, job, job.ops[0]).Feedback("hello")

            await asyncio.to_thread(_Feed)
            success, (info, entries) = await world.connection.Receive()
            assert (success, info) == (True, ["running"])
            assert [(entry[0], entry[2], entry[3]) for entry in entries] == [
                (1, "message", "hello")
            ]

        serve(_Work)

    def test_client_goes(self, serve):
        """JQ3: what waits for a client that is gone is freed at once, not at its time-out."""

        async def _Work(world):
            await world.connection.Result("SubmitJob", [HELD])
            await _Running(world, "1")
            queue = world.master.jobqueue
            clients = [await Connection.Open(world.path) for _ in range(5)]
            for client in clients:
                client.Send("WaitForJobChange", ["1", ["status"], ["running"], 0, 25])
            while queue.GetStatistics()["listeners"] < len(clients):
                await asyncio.sleep(0)
            # Whatever it sent meanwhile.
            clients[0].Send("QueryJobs", [None, ["id"]])
            for client in clients[:-1]:
                client.Close()
            while queue.GetStatistics()["listeners"] > 1:
                await asyncio.sleep(0)
            while world.server.GetStatistics()["connections"] > 2:
                await asyncio.sleep(0)
            world.master.rpc.go.set()
            assert await clients[-1].Receive() == (True, [["success"], []])
            clients[-1].Close()

        serve(_Work)

    def test_client_sends_no_more(self, serve):
        """Who only closes its own direction still waits for the answer."""

        async def _Work(world):
            await world.connection.Result("SubmitJob", [HELD])
            await _Running(world, "1")
            client = await Connection.Open(world.path)
            client.Send("WaitForJobChange", ["1", ["status"], ["running"], 0, 25])
            client.writer.write_eof()
            while not world.master.jobqueue.GetStatistics()["listeners"]:
                await asyncio.sleep(0)
            for _ in range(20):
                await asyncio.sleep(0)
            world.master.rpc.go.set()
            assert await client.Receive() == (True, [["success"], []])
            assert await client.Receive() is None
            client.Close()

        serve(_Work)

    def test_daemon_ends(self, serve):
        async def _Work(world):
            await world.connection.Result("SubmitJob", [HELD])
            await _Running(world, "1")
            world.connection.Send("WaitForJobChange", ["1", ["status"], ["running"], 0, 25])
            while not world.master.jobqueue.GetStatistics()["listeners"]:
                await asyncio.sleep(0)
            world.ops.End()
            assert await world.connection.Receive() == (True, "nochange")

        serve(_Work)


class TestProtocol:
    @pytest.mark.parametrize(
        "data",
        [
            b"not json",
            b"",
            b"{}",
            b"[1,2]",
            b'{"method": "QueryJobs"}',
            b'{"method": null, "args": []}',
            b'{"method": "QueryJobs", "args": null}',
            b"\xff\xfe",
            b"[" * 100000,
        ],
    )
    def test_no_request(self, serve, data):
        """Answered, closed, and nobody else notices."""

        async def _Work(world):
            client = await Connection.Open(world.path)
            client.writer.write(data + b"\3")
            success, result = await client.Receive()
            assert success is False
            assert isinstance(result, str)
            assert await client.Receive() is None
            client.Close()
            assert await world.connection.Result("QueryJobs", [None, ["id"]]) == []

        serve(_Work)

    @pytest.mark.parametrize(
        ("method", "args"),
        [
            ("NoSuchMethod", []),
            (5, []),
            ({"a": 1}, []),
            ("QueryJobs", [None]),
            ("QueryJobs", [None, ["id"], 5]),
            ("QueryJobs", 5),
            ("SetDrainFlag", ["yes"]),
            ("WaitForJobChange", ["1", ["status"], None, None, "long"]),
        ],
    )
    def test_wrong_request(self, serve, method, args):
        """Answered; the connection goes on."""

        async def _Work(world):
            await world.connection.Error(method, args)
            assert await world.connection.Result("QueryJobs", [None, ["id"]]) == []

        serve(_Work)

    def test_several_in_one_read_and_one_in_several(self, serve):
        async def _Work(world):
            client = world.connection
            client.Send("QueryJobs", [None, ["id"]])
            client.Send("NoSuch", [])
            client.Send("QueryTags", ["cluster", ""])
            assert [(await client.Receive())[0] for _ in range(3)] == [True, False, True]
            request = b'{"method": "QueryJobs", "args": [null, ["id"]]}\3'
            for index in range(len(request)):
                client.writer.write(request[index : index + 1])
                await client.writer.drain()
                await asyncio.sleep(0)
            assert await client.Receive() == (True, [])

        serve(_Work)

    @pytest.mark.parametrize("size", [10, 1_000_000])
    def test_numbers_and_texts_that_python_does_not_like(self, serve, size):
        """Told so, whether they are read at once or, being long, in a thread."""
        filler = b'{"filler": "' + b"x" * size + b'", "method": "QueryJobs", "args": '

        async def _Work(world):
            for args in (
                b"[[" + b"9" * 5000 + b'], ["id"]]',
                b"[[1e5], [NaN]]",
                b"[1e999, 5]",
                b'[["\\ud800"], ["\\ud800"]]',
                b'[["\\u0000"], ["\\u0000"]]',
                b"[" * 5000 + b"]" * 5000,
            ):
                client = await Connection.Open(world.path)
                client.writer.write(filler + args + b"}\3")
                success, result = await client.Receive()
                assert success is False, args[:60]
                assert result
                client.Close()
            assert await world.connection.Result("QueryJobs", [None, ["id"]]) == []

        serve(_Work)

    def test_too_long(self, serve):
        async def _Work(world):
            client = await Connection.Open(world.path)
            with contextlib.suppress(ConnectionError):
                client.writer.write(b"x" * 5000)
                await client.writer.drain()
            assert (await client.Receive())[0] is False
            client.Close()
            assert await world.connection.Result("QueryJobs", [None, ["id"]]) == []

        serve(_Work, max_message_size=2000)

    def test_client_goes_away(self, serve):
        """In the middle of a request, of an answer, of a wait."""

        async def _Work(world):
            for data in (b'{"method"', b'{"method": "QueryJobs", "args": [null, ["id"]]}\3'):
                client = await Connection.Open(world.path)
                client.writer.write(data)
                client.Close()
            assert await world.connection.Result("QueryJobs", [None, ["id"]]) == []

        serve(_Work)

    def test_foreign_user(self, serve):
        async def _Work(world):
            client = await Connection.Open(world.path)
            client.Send("QueryJobs", [None, ["id"]])
            with contextlib.suppress(ConnectionError):
                assert await client.Receive() is None
            client.Close()
            assert world.server.GetStatistics()["requests"] == 0
            assert world.server.GetStatistics()["refused"] >= 1

        serve(_Work, allowed_uids=[os.geteuid() + 1])

    def test_a_storm_of_clients(self, serve):
        """They wait in the backlog while the daemon is busy; nobody is sent away at once."""

        async def _Work(world):
            clients = []
            # Without giving the server a chance to accept any of them.
            for _ in range(400):
                client = socket.socket(socket.AF_UNIX)
                client.setblocking(False)
                client.connect(world.path)
                clients.append(client)
            assert await world.connection.Result("QueryJobs", [None, ["id"]]) == []
            for client in clients:
                client.close()

        serve(_Work)

    def test_too_many_clients(self, serve):
        """Files are left for the daemon's own work, and who is too much is told so."""

        async def _Work(world):
            assert await world.connection.Result("QueryJobs", [None, ["id"]]) == []
            others = [await Connection.Open(world.path) for _ in range(2)]
            success, text = await others[1].Receive()
            assert not success
            assert "try again later" in text
            assert await others[1].Receive() is None
            others[1].Close()
            assert await others[0].Result("QueryJobs", [None, ["id"]]) == []
            others[0].Close()
            while world.server.GetStatistics()["connections"] > 1:
                await asyncio.sleep(0)
            again = await Connection.Open(world.path)
            assert await again.Result("QueryJobs", [None, ["id"]]) == []
            again.Close()

        serve(_Work, max_connections=2)

    def test_socket_is_private(self, tmp_path):
        path = str(tmp_path / "socket")
        for _ in range(2):
            # A stale one is replaced.
            with luxiserver.Listen(path):
                assert stat.S_IMODE(os.stat(path).st_mode) == 0o600

    def test_error_of_a_handler(self, serve):
        """A mistake of ours is a text, and the connection goes on."""

        async def _Work(world):
            async def _Broken():
                raise KeyError("inside")

            world.ops._handlers["QueryClusterInfo"] = _Broken
            result = await world.connection.Error("QueryClusterInfo", [])
            assert result.startswith("Caught exception")
            assert await world.connection.Result("QueryJobs", [None, ["id"]]) == []

        serve(_Work)

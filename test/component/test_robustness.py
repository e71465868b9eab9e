"""Every door under attack: it does not fall, grow, keep others waiting, or tell secrets."""

import asyncio
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import threading
import time
from base64 import b64encode

import pytest
from aiohttp import web

from ganeti.server import httpserver
from ganeti.utils import x509
from vc import WaitFor

ADDRESS = "127.77.14.1"
FINE = httpserver.Limits(handshake_timeout=20, request_timeout=20)


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    path = tmp_path_factory.mktemp("cert") / "cert.pem"
    path.write_text(x509.GenerateSelfSignedX509Cert(key_type=x509.KEY_EC).pem)
    return str(path)


def _Serve(limits, test, context=None, answer=b"hello"):
    """Run a coroutine function beside a server with these limits."""

    async def _Handle(request):
        return web.Response(body=answer)

    async def _Main():
        server = httpserver.HttpServer(_Handle, context, limits)
        port = await server.Start(ADDRESS, 0)
        try:
            async with asyncio.timeout(20):
                await test(server, port)
        finally:
            await server.Stop(0)

    asyncio.run(_Main())


@contextlib.asynccontextmanager
async def _Open(port):
    reader, writer = await asyncio.open_connection(ADDRESS, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _Ended(reader):
    """Everything until the server ends the connection."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65536):
            data += chunk
    return data


async def _Until(condition):
    while not condition():
        await asyncio.sleep(0.01)


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class TestHttpServer:
    """The limits of a server, each by itself."""

    def _Context(self, pem):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        return context

    def _Limits(self, **kwargs):
        return httpserver.Limits(**{**vars(FINE), **kwargs})

    @pytest.mark.parametrize("name", ["connections", "per_source"])
    def test_connections(self, name):
        """One too many is refused; one that ends makes room."""

        async def _Test(server, port):
            async with _Open(port) as (_, first), _Open(port):
                await _Until(lambda: server.GetStatistics()["connections"] == 2)
                async with _Open(port) as (reader, _):
                    assert await _Ended(reader) == b""
                assert server.GetStatistics()["refused"] == 1
                first.close()
                await _Until(lambda: server.GetStatistics()["connections"] == 1)
                async with _Open(port) as (reader, writer):
                    writer.write(GET)
                    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            await _Until(lambda: server.GetStatistics()["connections"] == 0)
            assert not server._by_handler

        _Serve(self._Limits(**{name: 2}), _Test)

    @pytest.mark.parametrize("name", ["handshakes", "handshakes_per_source"])
    def test_oldest_handshake_makes_room(self, pem, name):
        """So whoever means it gets in, however many do not."""

        async def _Test(server, port):
            async with contextlib.AsyncExitStack() as stack:
                idle = [await stack.enter_async_context(_Open(port)) for _ in range(5)]
                assert await _Ended(idle[0][0]) == b""
                assert await _Ended(idle[1][0]) == b""
                await _Until(lambda: server.GetStatistics()["handshakes"] == 3)
                context = ssl.create_default_context(cafile=pem)
                context.check_hostname = False
                reader, writer = await asyncio.open_connection(ADDRESS, port, ssl=context)
                writer.write(GET)
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
                assert server.GetStatistics()["dropped"] == 3
            await _Until(lambda: server.GetStatistics()["connections"] == 0)

        _Serve(self._Limits(**{name: 3}), _Test, self._Context(pem))

    def test_handshake_takes_too_long(self, pem):
        async def _Test(server, port):
            async with _Open(port) as (reader, writer):
                writer.write(b"\x16\x03\x01\x02\x00\x01")
                await _Ended(reader)
            await _Until(lambda: server.GetStatistics()["connections"] == 0)

        _Serve(self._Limits(handshake_timeout=0.2), _Test, self._Context(pem))

    @pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: b\r\n"])
    def test_no_request(self, data):
        async def _Test(server, port):
            async with _Open(port) as (reader, writer):
                writer.write(data)
                assert await _Ended(reader) == b""
            await _Until(lambda: server.GetStatistics()["connections"] == 0)

        _Serve(self._Limits(request_timeout=0.2), _Test)

    def test_answer_is_not_taken(self):
        async def _Test(server, port):
            async with _Open(port) as (_, writer):
                writer.transport.pause_reading()
                writer.write(GET)
                await _Until(lambda: server.GetStatistics()["connections"] == 1)
                await _Until(lambda: server.GetStatistics()["connections"] == 0)

        _Serve(self._Limits(answer_timeout=0.2), _Test, answer=b"x" * 50_000_000)

    def test_address_in_use(self):
        (first,) = httpserver.Bind(ADDRESS, 0)
        with first, pytest.raises(OSError, match=f"can't listen on {ADDRESS} port [0-9]+: Address"):
            httpserver.Bind(ADDRESS, first.getsockname()[1])

    def test_everywhere_with_one_port(self):
        sockets = httpserver.Bind("", 0)
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        for sock in sockets:
            sock.close()


# On a cluster


class Doors:
    """The doors of a cluster, with the keys to them."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.node = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.node.check_hostname = False
        self.node.load_verify_locations(str(cluster.Data("server.pem")))
        self.node.load_cert_chain(str(cluster.Data("server.pem")))
        self.rapi = ssl.create_default_context(cafile=str(cluster.Data("rapi.pem")))
        self.rapi.check_hostname = False
        self.password = cluster.Data("rapi_users").read_text().split()[1]

    def Pid(self, daemon, node="node1"):
        path = self.cluster.Root(node) / f"var/run/ganeti/ganeti-{daemon}.pid"
        return int(path.read_text())

    def Memory(self, daemon, node="node1"):
        """Resident MiB."""
        with open(f"/proc/{self.Pid(daemon, node)}/statm", encoding="ascii") as fobj:
            return int(fobj.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20

    def Rapi(self, method, path, body=b"", headers=(), user=True):
        """Status, None if the connection broke, and document."""
        connection = http.client.HTTPSConnection(
            self.cluster.Address(), 5080, context=self.rapi, timeout=20
        )
        given = dict(headers)
        if user:
            given["Authorization"] = (
                "Basic " + b64encode(f"admin:{self.password}".encode()).decode()
            )
        try:
            connection.request(method, path, body, given)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except OSError:
            return None, None
        finally:
            connection.close()

    def Node(self, name, body, node="node2"):
        connection = http.client.HTTPSConnection(
            self.cluster.Address(node), 1811, context=self.node, timeout=20
        )
        try:
            connection.request("PUT", f"/{name}", body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def Luxi(self, data, timeout=20):
        """The answer; empty if there is none in time."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(timeout)
            sock.connect(str(self.cluster.Root() / "var/run/ganeti/socket/ganeti-master"))
            answer = b""
            with contextlib.suppress(OSError):
                sock.sendall(data)
                while not answer.endswith(b"\x03"):
                    chunk = sock.recv(65536)
                    if not chunk:
                        break
                    answer += chunk
        return json.loads(answer[:-1]) if answer else None

    def Confd(self, datagram):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.2)
            with contextlib.suppress(OSError):
                sock.sendto(datagram, (self.cluster.Address("node2"), 1814))
                return sock.recv(65536)
        return None

    def Sign(self, text):
        key = self.cluster.Data("hmac.key").read_bytes()
        salt = str(int(time.time()))
        digest = hmac.new(key, (salt + text).encode(), hashlib.sha1).hexdigest()
        return b"plj0" + json.dumps({"msg": text, "salt": salt, "hmac": digest}).encode()

    def AssertServed(self, seconds=5.0):
        """All doors are open to honest people, in reasonable time."""
        start = time.monotonic()
        assert self.Rapi("GET", "/2/info")[0] == 200
        assert self.Node("version", b"[]")[0] == 200
        request = b'{"method": "QueryConfigValues", "args": ["cluster_name"]}\x03'
        assert self.Luxi(request)["success"] is True
        assert self.Confd(self.Sign('{"protocol": 1, "type": 0, "rsalt": "2"}')) is not None
        assert time.monotonic() - start < seconds

    def Tracebacks(self):
        paths = self.cluster.Root().parent.glob("*/var/log/ganeti/*.log")
        return sum(path.read_text().count("Traceback") for path in paths)


@pytest.fixture(scope="module")
def doors(cluster):
    doors = Doors(cluster)
    ping = doors.Sign('{"protocol": 1, "type": 0, "rsalt": "2"}')
    WaitFor(lambda: doors.Confd(ping), 10, "the answers of confd")
    return doors


@pytest.fixture
def calm(doors):
    """The doors; afterwards they must serve as before, and nothing was unexpected."""
    before = doors.Tracebacks()
    config = doors.cluster.Config()
    yield doors
    doors.AssertServed()
    assert doors.Tracebacks() == before
    assert doors.cluster.Config() == config


class TestStrangers:
    @pytest.mark.parametrize(
        ("daemon", "node", "port"), [("noded", "node2", 1811), ("rapi", "node1", 5080)]
    )
    @pytest.mark.parametrize("data", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
    def test_half_open_connections(self, calm, daemon, node, port, data):
        """A thousand that only begin a handshake: others get in, memory stays."""
        before = calm.Memory(daemon, node)
        with contextlib.ExitStack() as stack:
            for _ in range(1000):
                sock = stack.enter_context(socket.socket())
                sock.settimeout(5)
                sock.connect((calm.cluster.Address(node), port))
                with contextlib.suppress(OSError):
                    sock.sendall(data)
            calm.AssertServed()
            assert calm.Memory(daemon, node) - before < 40

    def test_slow_requests(self, calm):
        """Connections that send a header without end; others are served meanwhile."""
        with contextlib.ExitStack() as stack:
            socks = []
            for _ in range(100):
                raw = socket.create_connection((calm.cluster.Address(), 5080), 5)
                sock = stack.enter_context(calm.rapi.wrap_socket(raw))
                sock.sendall(b"GET /2/info HTTP/1.1\r\nHost: x\r\nX-A: ")
                socks.append(sock)
            calm.AssertServed()
            for sock in socks:
                sock.sendall(b"y")


#: Bodies that are JSON of a kind that breaks things, or nearly JSON.
STRANGE = [
    b"[" * 100000,
    b"[" * 900 + b"]" * 900,
    b'{"a":' * 100000,
    b"9" * 5000,
    b"9" * 100000,
    b"[1e999]",
    b"[NaN]",
    b'[{"name": "a", "name": "../b"}]',
    b'["\\ud800"]',
    b'{"name": "\\ud800"}',
    b'["\\u0000"]',
    b"\xff\xfe",
    b'"\xed\xa0\x80"',
    b"-",
    b"\x00" * 1000,
]


class TestStrangeJson:
    """NaN, endless numbers, deep nesting, half surrogate pairs, doubled keys, NUL bytes."""

    @pytest.mark.parametrize("body", STRANGE, ids=lambda body: repr(body[:20]))
    def test_everywhere(self, calm, body):
        for method, path in (("POST", "/2/instances"), ("GET", "/2/jobs/1/wait")):
            status, document = calm.Rapi(method, path, body)
            assert status == 400, document
        for name in ("os_get", "instance_start", "node_verify", "blockdev_rename"):
            status, answer = calm.Node(name, body)
            assert status == 400 or json.loads(answer)[0] is False, answer
        request = b'{"method": "SubmitJob", "args": ' + body + b"}\x03"
        assert calm.Luxi(request)["success"] is False
        assert calm.Luxi(body + b"\x03")["success"] is False
        assert calm.Confd(b"plj0" + body[:60000]) is None
        assert calm.Confd(calm.Sign(body[:9000].decode("latin-1"))) is None

    def test_infinite_parameter(self, calm):
        """It would be a job that no file can hold."""
        op = json.dumps({"OP_ID": "OP_CLUSTER_SET_PARAMS", "beparams": {"memory": 7}})
        request = (
            b'{"method": "SubmitJob", "args": [' + op.replace("7", "1e999").encode() + b"]}\x03"
        )
        answer = calm.Luxi(request)
        assert answer["success"] is False
        assert "too large" in json.dumps(answer)

    def test_name_that_leads_elsewhere(self, calm):
        instance = {"name": "../../../x", "hypervisor": "fake", "disks": [], "nics": []}
        instance["beparams"] = {"memory": 1, "vcpus": 1}
        _, answer = calm.Node("instance_start", json.dumps([instance]))
        assert json.loads(answer)[0] is False
        assert "'../../../x' is no instance name" in json.loads(answer)[1]
        assert not (calm.cluster.Root("node2") / "var/x").exists()

    def test_impossible_name_in_a_listing(self, calm):
        ops = [{"OP_ID": "OP_TAGS_SET", "kind": "cluster", "name": "", "tags": ["\ud800\x00\n"]}]
        answer = calm.Luxi(json.dumps({"method": "SubmitJob", "args": ops}).encode() + b"\x03")
        job = answer["result"]
        assert calm.cluster.Run("gnt-job", "watch", job).code == 1
        for command in (["list"], ["info", job]):
            assert "Traceback" not in calm.cluster.Ok("gnt-job", *command)


class TestLongBodies:
    def test_luxi_without_end(self, calm):
        """100 MiB, and no end of it; then the client goes, and its memory with it."""
        before = calm.Memory("masterd")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(calm.cluster.Root() / "var/run/ganeti/socket/ganeti-master"))
            sock.sendall(b'{"method": "' + b"x" * 100 * 2**20)
            calm.AssertServed()
        WaitFor(lambda: calm.Memory("masterd") - before < 60, 10, "the memory given back")

    @pytest.mark.parametrize("user", [False, True])
    def test_rapi(self, calm, user):
        """200 MiB, announced or in chunks, are refused without being kept."""
        before = calm.Memory("rapi")
        assert calm.Rapi("GET", "/2/info", b"x" * 200 * 2**20, user=user)[0] in (413, None)
        chunks = (b"x" * 2**20 for _ in range(200))
        assert calm.Rapi("GET", "/2/info", chunks, user=user)[0] in (413, None)
        assert calm.Memory("rapi") - before < 60

    def test_strangers_have_little_to_say(self, calm):
        """Who may not send the request at all is told so before the body is read."""
        body = b"x" * 100000
        assert calm.Rapi("POST", "/2/instances", body, user=False)[0] == 401
        assert calm.Rapi("GET", "/2/info", body, user=False)[0] == 413
        assert calm.Rapi("GET", "/2/nosuch", body, user=False)[0] == 404

    def test_compressed(self, calm):
        headers = {"Content-Encoding": "gzip"}
        assert calm.Rapi("POST", "/2/instances", b"\x1f\x8b", headers)[0] == 415

    def test_node(self, calm):
        """100 MiB of arguments; others are served meanwhile."""
        results = []
        body = b'["' + b"x" * 100 * 2**20 + b'"]'
        thread = threading.Thread(
            target=lambda: results.append(calm.Node("node_has_ip_address", body))
        )
        thread.start()
        calm.AssertServed(10)
        thread.join()
        assert results == [(200, b"[true, false]\n")]

    def test_confd(self, calm):
        for data in (b"x" * 65000, b"plj0" + b"x" * 65000, b"plj0" + b'{"a":' * 12000):
            assert calm.Confd(data) is None


class TestProcesses:
    """Daemons that are killed, or hang, while somebody waits for them."""

    def _Delay(self, doors):
        op = {"OP_ID": "OP_TEST_DELAY", "duration": 60.0, "on_master": True, "on_nodes": []}
        request = json.dumps({"method": "SubmitJob", "args": [op]}).encode() + b"\x03"
        job = doors.Luxi(request)["result"]
        WaitFor(lambda: doors.Rapi("GET", f"/2/jobs/{job}")[1]["status"] == "running")
        return job

    def test_master_daemon_is_killed(self, doors):
        """Who waits learns it at once; afterwards everything is as before."""
        job = self._Delay(doors)
        body = {"fields": ["status"], "previous_job_info": ["running"], "previous_log_serial": 0}
        results = []
        waits = [
            threading.Thread(target=lambda fn=fn: results.append(fn()))
            for fn in (
                lambda: doors.Rapi("GET", f"/2/jobs/{job}/wait", json.dumps(body))[0],
                lambda: doors.cluster.Run("gnt-job", "watch", job).code,
            )
        ]
        for thread in waits:
            thread.start()
        time.sleep(0.5)
        start = time.monotonic()
        os.kill(doors.Pid("masterd"), signal.SIGKILL)
        for thread in waits:
            thread.join()
        assert time.monotonic() - start < 5
        assert sorted(results) == [1, 502]
        assert doors.Rapi("GET", "/2/jobs")[0] == 502
        result = doors.cluster.Run("gnt-job", "list")
        assert (result.code, "master daemon" in result.err) == (1, True)
        doors.cluster.Vcluster("start", "node1.example.com")
        doors.AssertServed()

    def test_rapi_and_confd_are_killed(self, doors):
        for daemon in ("rapi", "confd"):
            os.kill(doors.Pid(daemon), signal.SIGKILL)
        assert doors.Rapi("GET", "/2/info")[0] is None
        doors.cluster.Vcluster("start", "node1.example.com")
        doors.AssertServed()

    def test_node_daemon_hangs(self, doors):
        """Who asks its node waits, nobody else does; when it goes on, the answer comes."""
        pid = doors.Pid("noded", "node3")
        rows = []
        asking = threading.Thread(
            target=lambda: rows.extend(doors.cluster.Table("gnt-node", "list", "-o", "name,mfree"))
        )
        os.kill(pid, signal.SIGSTOP)
        try:
            asking.start()
            time.sleep(0.5)
            doors.AssertServed()
            assert len(doors.cluster.Table("gnt-node", "list", "-o", "name")) == 3
            assert rows == []
        finally:
            os.kill(pid, signal.SIGCONT)
        asking.join()
        assert len(rows) == 3
        assert "?" not in dict(rows).values()


class TestSecrets:
    """Keys and passwords are in their own files, and those are their owner's."""

    #: Files that hold them.
    OWN = {"server.pem", "rapi.pem", "hmac.key", "rapi_users"}

    def _Secrets(self, cluster):
        for name in ("server.pem", "rapi.pem"):
            key = cluster.Data(name).read_text().partition("PRIVATE KEY-----")[2]
            yield key.split()[0][:40]
        yield cluster.Data("hmac.key").read_text().strip()
        yield cluster.Data("rapi_users").read_text().split()[1]

    def test_nowhere_else(self, cluster):
        cluster.Ok(
            *("gnt-instance", "add", "--no-name-check", "--no-ip-check", "-n", "node2"),
            *("-t", "file", "--disk=0:size=4m", "-o", "noop+default", "inst1.example.com"),
        )
        cluster.Ok("gnt-instance", "reboot", "inst1.example.com")
        cluster.Ok("gnt-cluster", "verify")
        cluster.Ok("gnt-cluster", "redist-conf")
        cluster.Ok("gnt-instance", "remove", "-f", "inst1.example.com")
        secrets = [secret.encode() for secret in self._Secrets(cluster)]
        assert all(len(secret) >= 8 for secret in secrets)
        shown = subprocess.run(["ps", "axeww", "-o", "args"], capture_output=True).stdout
        assert not [secret for secret in secrets if secret in shown]
        seen = set()
        for path in cluster.Root().parent.rglob("*"):
            info = path.lstat()
            if not stat.S_ISREG(info.st_mode):
                continue
            content = path.read_bytes()
            if any(secret in content for secret in secrets):
                assert path.name in self.OWN, path
                assert info.st_mode & 0o077 == 0, path
                seen.add(path.name)
        assert seen == self.OWN

    def test_modes(self, cluster):
        """Nobody else may write anything; only what any program may know can be read by all."""
        for node in ("node1", "node2", "node3"):
            for path in cluster.Root(node).rglob("*"):
                with contextlib.suppress(FileNotFoundError):
                    mode = path.lstat().st_mode
                    if stat.S_ISREG(mode):
                        assert mode & 0o022 == 0, path
                        if path.parent == cluster.Data("x", node).parent:
                            public = path.name.startswith("ssconf_")
                            assert public or mode & 0o077 == 0, path
                        assert path.parent.name not in ("queue", "archive") or mode & 0o077 == 0
                    elif stat.S_ISSOCK(mode):
                        assert mode & 0o077 == 0, path

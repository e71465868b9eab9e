"""The real HTTPS server of the API on a loopback address, asked by sockets, curl and the client."""

import asyncio
import json
import socket
import ssl
import threading
import time

import pytest

from ganeti import constants, luxi, serializer
from ganeti.rapi import auth, baserlib, client, dispatch, fake
from ganeti.server import rapi
from ganeti.utils import x509

ADDRESS = "127.77.13.1"


class _Users:
    def Authenticate(self, name, password):
        return auth.User(name, password, frozenset(["write"])) if password == "secret" else None


class _Luxi:
    """A master daemon that knows one request and takes its time for it."""

    def __init__(self, path):
        self.path = path
        self.delay = 0.0
        self.result = constants.JOB_NOTCHANGED
        self.requests = []

    async def Serve(self):
        async def _Answer(reader, writer):
            data = await reader.readuntil(b"\3")
            self.requests.append(json.loads(data[:-1]))
            await asyncio.sleep(self.delay)
            text = serializer.Dump({"success": True, "result": self.result})
            writer.write(text.encode() + b"\3")
            await writer.drain()
            writer.close()

        return await asyncio.start_unix_server(_Answer, self.path)


class _Server:
    """The server in a thread."""

    def __init__(self, tmp_path, cert):
        self.cert = cert
        self.master = fake.FakeMaster()
        self.master.info = {"name": "c"}
        self.luxi = _Luxi(str(tmp_path / "luxi"))
        context = baserlib.Context(self.master.Connect, list, baserlib.TokenBucket(100, 100.0))
        dispatcher = dispatch.Dispatcher(context, _Users())
        self.loop = asyncio.new_event_loop()
        self.server = rapi.RapiServer(
            dispatcher, rapi.MakeSslContext(cert, cert), luxi_address=self.luxi.path
        )
        ready = threading.Event()

        def _Run():
            asyncio.set_event_loop(self.loop)
            self.luxi_server = self.loop.run_until_complete(self.luxi.Serve())
            self.port = self.loop.run_until_complete(self.server.Start(ADDRESS, 0))
            ready.set()
            self.loop.run_forever()
            self.luxi_server.close()
            self.loop.run_until_complete(self.server.Stop())
            # Connections that failed early are still ending
            self.loop.run_until_complete(self._EndOthers())
            self.loop.close()

        self.thread = threading.Thread(target=_Run)
        self.thread.start()
        ready.wait(10)

    @staticmethod
    async def _EndOthers():
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            await asyncio.wait([task])
        await asyncio.sleep(0.05)

    def Stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    def Connect(self, minimum=ssl.TLSVersion.TLSv1_2, maximum=ssl.TLSVersion.MAXIMUM_SUPPORTED):
        context = ssl.create_default_context(cafile=self.cert)
        context.check_hostname = False
        context.minimum_version = minimum
        context.maximum_version = maximum
        return context.wrap_socket(socket.create_connection((ADDRESS, self.port), 10))

    def Raw(self, data):
        """Status, headers and body for these bytes; the connection must end by itself."""
        with self.Connect() as sock:
            sock.sendall(data)
            answer = b""
            while chunk := sock.recv(65536):
                answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return int(first.split()[1]), headers, body

    def Client(self, **kwargs):
        kwargs = {
            "username": "me",
            "password": "secret",
            "config_ssl_verification": client.CertAuthorityVerify(self.cert),
            "ignore_proxy": True,
            **kwargs,
        }
        return client.GanetiRapiClient(ADDRESS, self.port, **kwargs)


@pytest.fixture(scope="module")
def cert(tmp_path_factory):
    path = tmp_path_factory.mktemp("rapi") / "rapi.pem"
    x509.GenerateSelfSignedSslCert(
        str(path),
        common_name="cluster.example.com",
        key_type=x509.KEY_EC,
        alt_names=[ADDRESS],
    )
    return str(path)


@pytest.fixture
def server(tmp_path, cert):
    found = _Server(tmp_path, cert)
    yield found
    found.Stop()


class TestHttp:
    def test_headers(self, server):
        status, headers, body = server.Raw(b"GET /2/info HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status == 200
        assert json.loads(body)["name"] == "c"
        assert headers["Content-Type"] == "application/json"
        assert headers["Connection"] == "close"
        assert headers["Server"] == f"Ganeti {constants.RELEASE_VERSION}"
        assert int(headers["Content-Length"]) == len(body)
        assert "Date" in headers

    @pytest.mark.parametrize(
        ("request_", "status"),
        [
            (b"GET /version HTTP/1.0\r\n\r\n", 200),
            (b"PATCH /2/info HTTP/1.1\r\nHost: x\r\n\r\n", 501),
            (b"HEAD /2/info HTTP/1.1\r\nHost: x\r\n\r\n", 501),
            (b"GET /2/no%64es HTTP/1.1\r\nHost: x\r\n\r\n", 404),
            (b"PUT /2/tags?tag=a HTTP/1.1\r\nHost: x\r\n\r\n", 401),
            (b"what is this\r\n\r\n", 400),
            (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
            (b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 9000 + b"\r\n\r\n", 431),
            (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\nx", 413),
        ],
    )
    def test_statuses(self, server, request_, status):
        found, headers, body = server.Raw(request_)
        assert found == status
        assert headers["Content-Type"] == "application/json"
        if status != 200 and not request_.startswith(b"HEAD"):
            assert json.loads(body)["code"] == status

    def test_expect(self, server):
        body = b'{"timeout": 1}'
        head = (
            b"PUT /2/instances/a/shutdown HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            b"Authorization: Basic bWU6c2VjcmV0\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        with server.Connect() as sock:
            sock.sendall(head)
            assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")
            sock.sendall(body)
            answer = b""
            while chunk := sock.recv(1000):
                answer += chunk
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert server.master.submitted[0][0]["timeout"] == 1

    @pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
    def test_old_tls_is_refused(self, server):
        with pytest.raises((ssl.SSLError, OSError)):
            server.Connect(ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)


class TestClient:
    def test_round_trip(self, server):
        assert server.Client().GetInfo()["name"] == "c"
        assert server.Client().StartupInstance("a") == "1"
        assert server.Client().AddNodeTags("n", ["x y"]) == "2"
        assert server.master.submitted[1][0]["tags"] == ["x y"]

    def test_many_requests_of_one_client(self, server):
        one = server.Client()
        begin = time.monotonic()
        for _ in range(10):
            one.GetVersion()
            one.DeleteInstance("a")
        assert time.monotonic() - begin < 5

    def test_errors(self, server):
        with pytest.raises(client.GanetiApiError) as caught:
            server.Client().GetInstance("nosuch")
        assert caught.value.code == 404
        with pytest.raises(client.GanetiApiError) as caught:
            server.Client(password="wrong").StartupInstance("a")
        assert caught.value.code == 401

    @pytest.mark.parametrize("verify", [None, client.CertAuthorityVerify()])
    def test_unknown_certificate(self, server, verify):
        with pytest.raises(client.CertificateError):
            server.Client(config_ssl_verification=verify).GetVersion()

    def test_not_verified(self, server):
        one = server.Client(config_ssl_verification=client.NoVerification)
        assert one.GetVersion() == 2

    def test_nobody_there(self, server):
        with pytest.raises(client.GanetiApiError) as caught:
            client.GanetiRapiClient("127.77.13.2", server.port).GetVersion()
        assert caught.value.code is None


class TestWaits:
    """JQ3: waits cost no threads."""

    def test_change(self, server):
        server.luxi.result = [["running"], []]
        change = server.Client().WaitForJobChange(5, ["status"], None, None)
        assert change == {"job_info": ["running"], "log_entries": []}
        assert server.luxi.requests == [
            {"method": luxi.REQ_WAIT_FOR_JOB_CHANGE, "args": ["5", ["status"], None, None, 10.0]}
        ]

    def test_more_waits_than_threads(self, server):
        server.luxi.delay = 1.5
        threads = [
            threading.Thread(
                target=lambda: server.Client().WaitForJobChange(5, ["status"], None, None)
            )
            for _ in range(rapi.THREADS + 8)
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 10
        while len(server.luxi.requests) < len(threads) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.server.GetStatistics()["waits"] > rapi.THREADS
        # Others are served meanwhile
        assert server.Client().GetInfo()["name"] == "c"
        for thread in threads:
            thread.join(10)
        assert server.server.GetStatistics()["waits"] == 0

    def test_no_master_daemon(self, server):
        server.server._luxi_address = server.luxi.path + ".none"
        with pytest.raises(client.GanetiApiError) as caught:
            server.Client().WaitForJobChange(5, ["status"], None, None)
        assert caught.value.code == 502

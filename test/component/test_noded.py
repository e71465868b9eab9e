"""A real node daemon on a loopback address, with real TLS, and the real client."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ganeti import constants, objects, pathutils, rpc, rpc_defs, runtime
from ganeti.rpc.transport import CurlTransport
from ganeti.utils import x509

NODED = Path(__file__).resolve().parents[2] / "daemons" / "ganeti-noded"
ADDRESS = "127.77.11.1"
PORT = constants.DEFAULT_NODED_PORT
#: Nobody listens there.
DEAD = [f"127.77.12.{number}" for number in range(1, 11)]


def _Wait(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("waited in vain")
        time.sleep(0.02)


def _Listens(address=ADDRESS):
    with socket.socket() as sock:
        return sock.connect_ex((address, PORT)) == 0


class _Noded:
    """A node daemon below its own root directory."""

    def __init__(self, root, pem, address=ADDRESS, *args, env=None):
        self.root = root
        self.address = address
        self.data_dir = root / "var" / "lib" / "ganeti"
        self.data_dir.mkdir(parents=True)
        (root / "etc").mkdir()
        (root / "etc" / "hosts").write_text(f"{address} {root.name}\n")
        self.cert = self.data_dir / "server.pem"
        self.cert.write_text(pem)
        self.cert.chmod(0o400)
        self.args = args
        self.env = {
            **os.environ,
            "GANETI_ROOTDIR": str(root),
            "GANETI_HOSTNAME": root.name,
            **(env or {}),
        }
        self.process = None

    def Start(self):
        self.process = subprocess.Popen(
            [sys.executable, NODED, "-f", "-b", self.address, *self.args],
            env=self.env,
            stderr=subprocess.PIPE,
        )
        _Wait(lambda: _Listens(self.address) or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.stderr.read()
        return self

    def Stop(self):
        if self.process is not None:
            if self.process.poll() is None:
                self.process.terminate()
            self.process.wait(40)
            self.process.stderr.close()
            self.process = None

    @property
    def log(self):
        return (self.root / "var" / "log" / "ganeti" / "node-daemon.log").read_text()


@pytest.fixture(scope="module")
def pem():
    return x509.GenerateSelfSignedX509Cert(key_type=x509.KEY_EC).pem


@pytest.fixture(scope="module")
def other_pem():
    return x509.GenerateSelfSignedX509Cert(key_type=x509.KEY_EC).pem


@pytest.fixture(scope="module")
def noded(tmp_path_factory, pem):
    daemon = _Noded(tmp_path_factory.mktemp("vc") / "node11.example.com", pem)
    daemon.Start()
    yield daemon
    daemon.Stop()


@pytest.fixture(scope="module")
def cert_file(tmp_path_factory, pem):
    path = tmp_path_factory.mktemp("client") / "server.pem"
    path.write_text(pem)
    return str(path)


@pytest.fixture
def transport(cert_file):
    result = CurlTransport(cert_file)
    yield result
    result.Shutdown()


@pytest.fixture
def runner(transport):
    rpc.Init(transport=transport)
    yield rpc.RpcRunner
    rpc.Shutdown()


def _Context(cert_file=None):
    """TLS as a stranger would speak it, with or without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if cert_file is not None:
        context.load_cert_chain(cert_file)
    return context


@contextlib.contextmanager
def _Connection(cert_file, address=ADDRESS, timeout=15):
    connection = http.client.HTTPSConnection(
        address, PORT, context=_Context(cert_file), timeout=timeout
    )
    try:
        yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def _TlsSocket(cert_file):
    with (
        socket.create_connection((ADDRESS, PORT), 15) as raw,
        _Context(cert_file).wrap_socket(raw) as sock,
    ):
        yield sock


def _Call(connection, name, args, method="PUT"):
    body = args if isinstance(args, bytes) else json.dumps(args)
    connection.request(method, f"/{name}", body)
    response = connection.getresponse()
    return response.status, response.read(), response


def _Version(runner, address=ADDRESS):
    return runner.call_version(["n"], address_list=[address])["n"]


class TestProtocol:
    """What goes over the wire."""

    @pytest.mark.parametrize("method", ["PUT", "POST"])
    def test_call(self, noded, cert_file, method):
        with _Connection(cert_file) as connection:
            status, body, response = _Call(connection, "version", [], method)
        assert status == 200
        assert json.loads(body) == [True, constants.PROTOCOL_VERSION]
        assert response.headers["Content-Type"].startswith("application/json")
        assert response.headers["Server"] == f"Ganeti {constants.RELEASE_VERSION}"

    @pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD"])
    def test_other_methods(self, noded, cert_file, method):
        with _Connection(cert_file) as connection:
            assert _Call(connection, "version", [], method)[0] == 400

    @pytest.mark.parametrize("name", ["no_such_call", "", "version/", "../version", "__init__"])
    def test_unknown_procedure(self, noded, cert_file, name):
        with _Connection(cert_file) as connection:
            assert _Call(connection, name, [])[0] == 404

    @pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[1,", b"[" * 100000])
    def test_body_is_no_json(self, noded, cert_file, body):
        with _Connection(cert_file) as connection:
            status, page, _ = _Call(connection, "version", body)
            assert status == 400
            assert b"not JSON" in page
            # The connection is good for the next call
            assert _Call(connection, "version", [])[0] == 200

    def test_empty_body(self, noded, cert_file):
        with _Connection(cert_file) as connection:
            status, body, _ = _Call(connection, "version", b"")
        assert (status, json.loads(body)) == (200, [True, constants.PROTOCOL_VERSION])

    def test_failures_are_answers(self, noded, cert_file):
        with _Connection(cert_file) as connection:
            for name, args, text in (
                ("test_delay", [-1], "must not be negative"),
                ("test_delay", ["x"], "Argument 'duration'"),
                ("drbd_wait_sync", [{}, []], "not implemented"),
                ("file_storage_dir_create", ["/etc/x"], "ssconf"),
            ):
                status, body, _ = _Call(connection, name, args)
                success, message = json.loads(body)
                assert (status, success) == (200, False)
                assert text in message

    def test_big_body(self, noded, cert_file):
        text = "x" * 8_000_000
        with _Connection(cert_file, timeout=30) as connection:
            status, body, _ = _Call(connection, "node_has_ip_address", [text])
        assert (status, json.loads(body)) == (200, [True, False])

    def test_http_1_0(self, noded, cert_file):
        """As clients of 2.1 speak it: one request, then the connection is closed."""
        answer = b""
        with _TlsSocket(cert_file) as sock:
            sock.sendall(
                b"PUT /version HTTP/1.0\r\nHost: x\r\nConnection: close\r\n"
                b"Content-Length: 2\r\n\r\n[]"
            )
            while chunk := sock.recv(4096):
                answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b" 200 OK" in head.splitlines()[0]
        assert json.loads(body) == [True, constants.PROTOCOL_VERSION]


class TestPeers:
    """Who has not the cluster's key gets nowhere, and harms nobody."""

    def _Refused(self, cert_file):
        with (
            pytest.raises((ssl.SSLError, ConnectionError)),
            _Connection(cert_file) as connection,
        ):
            _Call(connection, "version", [])

    def test_without_certificate(self, noded, runner):
        self._Refused(None)
        assert _Version(runner).payload == constants.PROTOCOL_VERSION

    def test_with_another_certificate(self, noded, runner, other_pem, tmp_path):
        path = tmp_path / "other.pem"
        path.write_text(other_pem)
        self._Refused(str(path))
        assert _Version(runner).payload == constants.PROTOCOL_VERSION

    def test_with_a_certificate_signed_by_ours(self, noded, pem, tmp_path):
        """The cluster's certificate is no authority: only itself is good."""
        try:
            with _Connection(str(_SignedBy(pem, tmp_path))) as connection:
                status, page, _ = _Call(connection, "version", [])
        except (ssl.SSLError, ConnectionError):
            return
        assert status == 403
        assert b"certificate" in page

    def test_client_refuses_another_server(self, noded, other_pem, tmp_path):
        path = tmp_path / "other.pem"
        path.write_text(other_pem)
        transport = CurlTransport(str(path))
        try:
            request = runtime.HttpRequest(ADDRESS, PORT, "PUT", "/version", b"[]")
            transport.Perform([request])
        finally:
            transport.Shutdown()
        assert request.status is None
        assert "another certificate" in request.error
        assert '"PUT /version' not in noded.log

    def test_client_without_certificate_file(self, tmp_path):
        transport = CurlTransport(str(tmp_path / "missing.pem"))
        request = runtime.HttpRequest(ADDRESS, PORT, "PUT", "/version", b"[]")
        transport.Perform([request])
        transport.Shutdown()
        assert "missing.pem is not usable" in request.error

    def test_old_protocols(self, noded, cert_file):
        context = _Context(cert_file)
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        with (
            socket.create_connection((ADDRESS, PORT), 15) as raw,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            context.wrap_socket(raw)

    @pytest.mark.parametrize(
        "garbage",
        [
            b"",
            b"GET / HTTP/1.0\r\n\r\n",
            b"\x16\x03\x01\xff\xff" + b"\x00" * 100,
            b"\x00" * 5000,
            bytes(range(256)) * 20,
        ],
    )
    def test_no_tls_at_all(self, noded, runner, garbage):
        with (
            socket.create_connection((ADDRESS, PORT), 15) as sock,
            contextlib.suppress(ConnectionError),
        ):
            sock.sendall(garbage)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass
        assert _Version(runner).payload == constants.PROTOCOL_VERSION

    @pytest.mark.parametrize(
        "request_bytes",
        [
            b"nonsense\r\n\r\n",
            b"PUT /version HTTP/9.9\r\n\r\n",
            b"PUT /version HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            b"PUT /version HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
            b"PUT /version HTTP/1.1\r\n" + b"X: " + b"y" * 100000 + b"\r\n\r\n",
            b"PUT /" + b"z" * 100000 + b" HTTP/1.1\r\n\r\n",
            b"PUT /version HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
            b"\x00\x01\x02\x03\r\n\r\n",
        ],
    )
    def test_malformed_requests(self, noded, cert_file, runner, request_bytes):
        with _TlsSocket(cert_file) as sock, contextlib.suppress(ConnectionError, ssl.SSLError):
            sock.sendall(request_bytes)
            first = sock.recv(4096)
            assert b" 200 " not in first.partition(b"\r\n")[0]
        assert _Version(runner).payload == constants.PROTOCOL_VERSION

    def test_half_a_request(self, noded, cert_file, runner):
        """Somebody who stops in the middle keeps nobody waiting."""
        with _TlsSocket(cert_file) as sock:
            sock.sendall(b"PUT /version HTTP/1.1\r\nContent-Length: 100\r\n\r\n[")
            assert _Version(runner).payload == constants.PROTOCOL_VERSION

    def test_many_idle_connections(self, noded, runner):
        with contextlib.ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(socket.create_connection((ADDRESS, PORT), 15))
            assert _Version(runner).payload == constants.PROTOCOL_VERSION


def _SignedBy(pem, tmp_path):
    """A key and a certificate of its own, signed with the key in C{pem}."""
    import datetime

    from cryptography import x509 as cx509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    issuer = cx509.load_pem_x509_certificate(pem[pem.index("-----BEGIN CERT") :].encode())
    issuer_key = serialization.load_pem_private_key(pem.encode(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        cx509.CertificateBuilder()
        .subject_name(cx509.Name([cx509.NameAttribute(cx509.NameOID.COMMON_NAME, "evil")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(cx509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(issuer_key, hashes.SHA256())
    )
    path = tmp_path / "signed.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + cert.public_bytes(serialization.Encoding.PEM)
    )
    return path


class TestExpiredCertificate:
    """An expired certificate must not take away the means to replace it."""

    def test_still_works(self, tmp_path):
        path = tmp_path / "server.pem"
        pair = x509.GenerateSelfSignedX509Cert(key_type=x509.KEY_EC, validity=-100)
        path.write_text(pair.pem)
        daemon = _Noded(tmp_path / "node13.example.com", pair.pem, "127.77.11.3").Start()
        transport = CurlTransport(str(path))
        try:
            request = runtime.HttpRequest("127.77.11.3", PORT, "PUT", "/version", b"[]")
            transport.Perform([request])
        finally:
            transport.Shutdown()
            daemon.Stop()
        assert (request.error, request.status) == (None, 200)


def _CountConnections(noded):
    links = [os.readlink(path) for path in Path(f"/proc/{noded.process.pid}/fd").iterdir()]
    # The one that listens, and the loop's own pair.
    return sum(link.startswith("socket:") for link in links) - 3


class TestConnections:
    """Keep-alive, and what it is worth."""

    def test_reuse(self, noded, runner, transport):
        for _ in range(20):
            assert _Version(runner).fail_msg is None
        stats = transport.GetStatistics()
        assert stats["requests"] == 20
        assert stats["connects"] == 1

    def test_reuse_after_a_failed_call(self, noded, runner, transport):
        _Version(runner)
        for _ in range(3):
            result = runner.call_jobqueue_update(["n"], [ADDRESS], "/etc/passwd", "x")["n"]
            assert "not in the queue directory" in result.fail_msg
        assert transport.GetStatistics()["connects"] == 1

    def test_all_calls_share_connections(self, noded, runner, transport):
        """A call that must not be made twice, as that of hooks, does not cost a handshake."""
        _Version(runner)
        for size in (0, 0, 3, 100):
            body = b"[0" + b" " * size + b"]"
            request = runtime.HttpRequest(ADDRESS, PORT, "PUT", "/test_delay", body)
            transport.Perform([request])
            assert (request.status, request.error) == (200, None)
            assert _Version(runner).fail_msg is None
        assert transport.GetStatistics()["connects"] == 1
        assert _CountConnections(noded) == 1

    def test_restarted_between_calls(self, noded, transport):
        """What was not sent on a dead connection is sent on a new one, whatever the call."""
        for killed in (True, False, True, False, None):
            requests = [
                runtime.HttpRequest(ADDRESS, PORT, "PUT", "/test_delay", b"[0.1]") for _ in range(3)
            ]
            transport.Perform(requests)
            assert [(request.status, request.error) for request in requests] == [(200, None)] * 3
            if killed:
                noded.process.kill()
                noded.process.wait()
                noded.process.stderr.close()
                noded.process = None
                noded.Start()
            elif killed is not None:
                noded.Stop()
                noded.Start()

    def test_parallel_callers(self, noded, runner, transport):
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            results = list(pool.map(lambda _: _Version(runner), range(200)))
        assert {result.payload for result in results} == {constants.PROTOCOL_VERSION}
        assert transport.GetStatistics()["connects"] <= 32

    def test_daemon_was_restarted(self, noded, runner):
        """A connection that the daemon has closed is replaced without a word."""
        assert _Version(runner).fail_msg is None
        noded.Stop()
        dead = _Version(runner)
        assert "Can't connect" in dead.fail_msg
        noded.Start()
        assert _Version(runner).fail_msg is None

    def test_a_call_is_never_made_twice(self, noded, transport):
        """A daemon that dies at work: the answer is not known, and nothing is sent again."""
        # On a connection that was used before by any kind of call.
        for repeatable in (True, False):
            warm = runtime.HttpRequest(ADDRESS, PORT, "PUT", "/version", b"[]")
            warm.repeatable = repeatable
            transport.Perform([warm])
            assert warm.status == 200
        request = runtime.HttpRequest(ADDRESS, PORT, "PUT", "/test_delay", b"[600]")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            done = pool.submit(transport.Perform, [request])
            time.sleep(0.3)
            noded.process.kill()
            noded.process.wait()
            noded.process.stderr.close()
            noded.process = None
            noded.Start()
            done.result(15)
        assert request.status is None
        assert "whether it was carried out is not known" in request.error

    def test_dead_nodes_cost_nothing_on_loopback(self, noded, runner):
        names = [*DEAD, "alive"]
        started = time.monotonic()
        results = runner.call_version(names, address_list=[*DEAD, ADDRESS])
        assert time.monotonic() - started < 3
        assert results["alive"].payload == constants.PROTOCOL_VERSION
        assert all("Can't connect" in results[name].fail_msg for name in DEAD)

    def test_silent_nodes_cost_one_time_out_together(self, noded, transport):
        """Thirty nodes of which ten never answer; others are not delayed by them."""
        with contextlib.ExitStack() as stack:
            for address in DEAD:
                sock = stack.enter_context(socket.socket())
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((address, PORT))
                sock.listen(5)
            requests = [
                runtime.HttpRequest(
                    address, PORT, "PUT", "/version", b"[]", connect_timeout=1.0, timeout=5
                )
                for address in [*DEAD, *[ADDRESS] * 20]
            ]
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                started = time.monotonic()
                slow = pool.submit(transport.Perform, requests)
                quick = runtime.HttpRequest(ADDRESS, PORT, "PUT", "/version", b"[]")
                transport.Perform([quick])
                assert time.monotonic() - started < 0.9
                slow.result(15)
            took = time.monotonic() - started
        assert 0.9 < took < 3
        assert quick.status == 200
        assert [request.status for request in requests] == [None] * 10 + [200] * 20
        assert all("Time-out" in request.error for request in requests[:10])

    def test_time_out_of_a_call(self, noded, transport):
        request = runtime.HttpRequest(ADDRESS, PORT, "PUT", "/test_delay", b"[3]", timeout=0.3)
        transport.Perform([request])
        assert request.status is None
        assert "Time-out" in request.error

    def test_busy_node_does_not_block_others(self, noded, cert_file):
        """More calls to one node than it gets connections: they wait, others do not."""
        transport = CurlTransport(cert_file, max_per_host=2)
        try:
            slow = [
                runtime.HttpRequest(ADDRESS, PORT, "PUT", "/test_delay", b"[0.3]", timeout=30)
                for _ in range(4)
            ]
            starved = runtime.HttpRequest(ADDRESS, PORT, "PUT", "/version", b"[]", timeout=0.1)
            dead = runtime.HttpRequest(DEAD[0], PORT, "PUT", "/version", b"[]", timeout=5)
            started = time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(3) as pool:
                first = pool.submit(transport.Perform, slow)
                time.sleep(0.05)
                second = pool.submit(transport.Perform, [starved])
                third = pool.submit(transport.Perform, [dead])
                third.result(5)
                assert time.monotonic() - started < 0.29
                second.result(5)
                first.result(5)
            assert {request.status for request in slow} == {200}
            assert 0.6 <= time.monotonic() - started < 2
            assert "too many calls" in starved.error
        finally:
            transport.Shutdown()

    def test_shutdown_ends_calls_under_way(self, noded, cert_file):
        transport = CurlTransport(cert_file)
        request = runtime.HttpRequest(ADDRESS, PORT, "PUT", "/test_delay", b"[2]")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            done = pool.submit(transport.Perform, [request])
            time.sleep(0.2)
            transport.Shutdown()
            done.result(1)
        assert "shut down" in request.error

    def test_long_calls_do_not_keep_short_ones_waiting(self, noded, transport):
        """More long calls at once than the daemon has threads for short ones."""
        slow = [
            runtime.HttpRequest(ADDRESS, PORT, "PUT", "/test_delay", b"[1]", timeout=30)
            for _ in range(24)
        ]
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            done = pool.submit(transport.Perform, slow)
            time.sleep(0.2)
            started = time.monotonic()
            quick = runtime.HttpRequest(ADDRESS, PORT, "PUT", "/version", b"[]")
            transport.Perform([quick])
            assert time.monotonic() - started < 0.5
            done.result(15)
        assert quick.status == 200
        assert {request.status for request in slow} == {200}


class TestCallsThatHang:
    """A call that blocks for ever never stops the others."""

    ADDRESS = "127.77.11.5"

    @pytest.fixture
    def hanging(self, tmp_path, pem):
        daemon = _Noded(tmp_path / "node15.example.com", pem, self.ADDRESS).Start()
        yield daemon
        # Threads that hang do not keep it from ending.
        started = time.monotonic()
        daemon.Stop()
        assert time.monotonic() - started < 30

    def _Call(self, transport, name, args, timeout=10):
        request = runtime.HttpRequest(
            self.ADDRESS, PORT, "PUT", f"/{name}", json.dumps(args).encode(), timeout=timeout
        )
        transport.Perform([request])
        return request

    def _Hang(self, cert_file, path, name, args):
        """More calls than there are threads, for a file that can only be opened by who waits for
        somebody to write into it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)
        transport = CurlTransport(cert_file, max_per_host=100)
        requests = [
            runtime.HttpRequest(
                self.ADDRESS, PORT, "PUT", f"/{name}", json.dumps(args).encode(), timeout=1
            )
            for _ in range(40)
        ]
        transport.Perform(requests)
        transport.Shutdown()
        assert {request.status for request in requests} == {None}

    def test_hypervisor_and_then_the_disk(self, hanging, transport, cert_file):
        """What needs neither always works."""
        running = hanging.root / "var/run/ganeti/fake-hypervisor/inst1.example.com"
        self._Hang(cert_file, running, "all_instances_info", [["fake"]])
        assert self._Call(transport, "os_diagnose", [], timeout=0.5).status is None
        answer = self._Call(transport, "master_info", [])
        assert json.loads(answer.response)[0] is False
        assert self._Call(transport, "test_delay", [0]).status == 200
        netdev = hanging.data_dir / "ssconf_master_netdev"
        self._Hang(cert_file, netdev, "master_info", [])
        assert self._Call(transport, "master_info", [], timeout=0.5).status is None
        assert self._Call(transport, "test_delay", [0]).status == 200
        answer = self._Call(transport, "version", [])
        assert json.loads(answer.response) == [True, constants.PROTOCOL_VERSION]
        answer = self._Call(transport, "node_powercycle", ["fake"])
        assert json.loads(answer.response) == [True, "Reboot scheduled in 5 seconds"]


class TestHangingLog:
    """NA2, NA3: the disk of the log takes nothing, and does not even fail."""

    ADDRESS = "127.77.11.6"

    def test_calls(self, tmp_path, pem, cert_file):
        daemon = _Noded(tmp_path / "node16.example.com", pem, self.ADDRESS)
        path = daemon.root / "var/log/ganeti/node-daemon.log"
        path.parent.mkdir(parents=True)
        os.mkfifo(path)
        # Full from the beginning.
        reader = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(reader, b"x" * 4096)
        transport = CurlTransport(cert_file)
        try:
            daemon.Start()
            for name, args in (("version", []), ("test_delay", [0]), ("node_powercycle", ["fake"])):
                request = runtime.HttpRequest(
                    self.ADDRESS, PORT, "PUT", f"/{name}", json.dumps(args).encode(), timeout=5
                )
                transport.Perform([request])
                assert (request.status, request.error) == (200, None)
        finally:
            transport.Shutdown()
            daemon.Stop()
            os.close(reader)


class TestInstanceOnANode:
    """BASE2: an instance with disks in files, from nothing and back, through the real calls."""

    ADDRESS = "127.77.11.5"
    BASE = "/srv/ganeti/file-storage"

    class _Cluster:
        """What the runner must know of the cluster."""

        def __init__(self, address):
            self._node = objects.Node(name="n", primary_ip=address, offline=False)
            self._cluster = objects.Cluster(
                hvparams={"fake": {}},
                os_hvp={},
                beparams={"default": {"memory": 64, "vcpus": 1, "auto_balance": True}},
                nicparams={"default": {"mode": "bridged", "link": "br0"}},
                diskparams={},
            )

        def GetNodeInfo(self, _):
            return self._node

        def GetMasterNode(self):
            return "node9.example.com"

        def GetClusterInfo(self):
            return self._cluster

    @pytest.fixture
    def daemon(self, tmp_path, pem):
        daemon = _Noded(tmp_path / "node15.example.com", pem, self.ADDRESS)
        definition = daemon.root / "srv" / "ganeti" / "os" / "tiny"
        definition.mkdir(parents=True)
        (definition / "ganeti_api_version").write_text("15\n")
        (definition / "variants.list").write_text("default\n")
        for script in ("create", "import", "export", "rename"):
            (definition / script).write_text(
                '#!/bin/sh\necho "$INSTANCE_NAME $OS_VARIANT" | dd of="$DISK_0_PATH"'
                " conv=notrunc 2>/dev/null\n"
            )
            (definition / script).chmod(0o755)
        daemon.Start()
        yield daemon
        daemon.Stop()

    @pytest.fixture
    def call(self, daemon, transport):
        rpc.Init(transport=transport)
        runner = rpc.RpcRunner(self._Cluster(self.ADDRESS))

        def Call(name, *args):
            """The payload of a call that must succeed, and be of the declared type."""
            call = rpc_defs.CALLS[name]
            where = ["n"] if call.kind == rpc_defs.MULTI else "n"
            kwargs = {"address_list": [self.ADDRESS]} if call.static else {}
            result = getattr(runner, call.method)(where, *args, **kwargs)
            result = result["n"] if isinstance(result, dict) else result
            assert result.fail_msg is None, f"{name}: {result.fail_msg}"
            assert rpc_defs.CheckResult(name, result.data[1]) is None
            return result.payload

        yield Call
        rpc.Shutdown()

    def test_life(self, daemon, call):
        path = f"{self.BASE}/inst1/disk0"
        local = daemon.root / path[1:]
        disk = objects.Disk(
            dev_type="file",
            logical_id=("loop", path),
            physical_id=("loop", path),
            size=8,
            mode="rw",
            iv_name="disk/0",
        )
        instance = objects.Instance(
            name="inst1.example.com",
            primary_node="n",
            os="tiny+default",
            hypervisor="fake",
            hvparams={},
            beparams={"memory": 96},
            nics=[objects.NIC(mac="aa:00:00:00:00:01", nicparams={})],
            disks=[disk],
            disk_template="file",
        )
        call("write_ssconf_files", {"file_storage_dir": self.BASE, "cluster_name": "c"})
        ((name, _, valid, _, variants),) = call("os_diagnose")
        assert (name, valid, variants) == ("tiny", True, ["default"])
        assert call("os_get", "tiny+default").supported_variants == ["default"]

        call("file_storage_dir_create", f"{self.BASE}/inst1")
        assert call("blockdev_create", disk, 8, instance.name, True, "info") == ["loop", path]
        # The daemon is asked under the name "n".
        assembled = call("blockdev_assemble", disk, instance.name, True)
        assert assembled == pathutils.VirtualNodeRoot("n") + path
        assert call("blockdev_getsize", [disk]) == [8 << 20]
        assert call("blockdev_find", disk).is_degraded is False
        call("instance_os_add", instance, False, 0)
        assert local.read_bytes().startswith(b"inst1.example.com default\n")
        assert len(local.read_bytes()) == 8 << 20

        call("instance_start", instance)
        assert call("instance_list", ["fake"]) == [instance.name]
        assert call("all_instances_info", ["fake"])[instance.name]["memory"] == 96
        assert call("instance_info", instance.name, "fake")["state"] == "---b-"
        links = daemon.root / "var" / "run" / "ganeti" / "instance-disks"
        assert os.readlink(links / f"{instance.name}:0") == str(local)
        call("instance_migratable", instance)
        call("instance_reboot", instance, "hard", 10)

        started = time.monotonic()
        call("instance_shutdown", instance, 120)
        assert time.monotonic() - started < 2
        assert call("instance_list", ["fake"]) == []
        assert list(links.iterdir()) == []
        call("blockdev_grow", disk, 4)
        assert call("blockdev_getmirrorstatus", [disk])[0].ldisk_status == constants.LDS_OKAY
        call("instance_run_rename", instance, "old.example.com", 0)
        call("blockdev_close", instance.name, [disk])
        call("blockdev_shutdown", disk)
        (row,) = call("storage_list", "file", [[self.BASE]], None, ["name", "used"])
        assert row == [self.BASE, 12]
        call("blockdev_remove", disk)
        call("file_storage_dir_remove", f"{self.BASE}/inst1")
        assert list((daemon.root / self.BASE[1:]).iterdir()) == []
        logs = daemon.root / "var" / "log" / "ganeti" / "os"
        assert sorted(path.name.partition("-")[0] for path in logs.iterdir()) == ["add", "rename"]

    def test_facts(self, daemon, call):
        info = call("node_info", None, "fake")
        assert info["memory_total"] > 0
        call("write_ssconf_files", {"master_netdev": "lo", "master_ip": "127.77.11.99"})
        call("write_ssconf_files", {"master_node": "node15.example.com"})
        assert call("master_info")[:3] == ["lo", "127.77.11.99", "node15.example.com"]
        call("node_start_master", False, False)
        call("node_stop_master", False)
        checks = {
            "hypervisor": ["fake"],
            "instancelist": ["fake"],
            "version": None,
            "hvinfo": "fake",
            "nodesetup": None,
            "time": None,
            "master-ip": ["node15.example.com", "127.77.11.99"],
            "nodelist": ["node15.example.com"],
            "node-net-test": [["node15.example.com", self.ADDRESS, self.ADDRESS]],
            "filelist": [pathutils.ETC_HOSTS],
        }
        result = call("node_verify", checks, "c")
        assert set(result) == set(checks)
        assert result["hypervisor"] == {"fake": None}
        assert result["nodelist"] == {}
        assert result["node-net-test"] == {}
        assert result["master-ip"] is True
        assert result["version"] == [constants.PROTOCOL_VERSION, constants.RELEASE_VERSION]
        assert list(result["filelist"]) == [pathutils.VirtualNodeRoot("n") + "/etc/hosts"]
        assert abs(result["time"][0] - time.time()) < 10
        assert call("node_has_ip_address", self.ADDRESS) is True
        assert call("node_tcp_ping", self.ADDRESS, self.ADDRESS, PORT, 5, True) is True
        assert call("bridges_exist", []) is None
        assert call("hooks_runner", "node-add", "pre", {}) == []
        call("hypervisor_validate_params", "fake", {})
        call("test_delay", 0.01)
        call("jobqueue_set_drain", True)
        assert (daemon.data_dir / "queue" / "drain").exists()
        call("jobqueue_purge")

    def test_upload_between_roots(self, daemon, runner, tmp_path):
        """The same file of two virtual nodes lies at different places."""
        os.makedirs(os.path.dirname(pathutils.ETC_HOSTS), exist_ok=True)
        Path(pathutils.ETC_HOSTS).write_text("127.77.11.5 from-the-master\n")
        result = runner.call_upload_file(["n"], pathutils.ETC_HOSTS, address_list=[self.ADDRESS])[
            "n"
        ]
        assert result.fail_msg is None
        assert (daemon.root / "etc" / "hosts").read_text() == "127.77.11.5 from-the-master\n"


class TestDaemon:
    """Start, end, memory, queue."""

    @pytest.fixture
    def own(self, tmp_path, pem):
        daemons = []

        def Make(*args, env=None):
            root = tmp_path / f"node2{len(daemons)}.example.com"
            daemon = _Noded(root, pem, "127.77.11.2", *args, env=env)
            daemons.append(daemon)
            return daemon

        yield Make
        for daemon in daemons:
            daemon.Stop()

    @pytest.fixture
    def call(self, runner):
        def Call(name, *args):
            method = getattr(runner, rpc_defs.CALLS[name].method)
            if rpc_defs.CALLS[name].kind == rpc_defs.MULTI:
                return method(["n"], *args, address_list=["127.77.11.2"])["n"]
            return method("n", *args, address_list=["127.77.11.2"])

        return Call

    def test_leave_cluster(self, own, call):
        """The daemon answers, removes everything and ends itself."""
        daemon = own().Start()
        (daemon.data_dir / "config.data").write_text("{}")
        result = call("node_leave_cluster", False)
        assert result.payload == "Shutdown scheduled"
        assert daemon.process.wait(15) == 0
        assert [path.name for path in daemon.data_dir.iterdir()] == ["queue"]

    def test_queue_files_are_made(self, own):
        daemon = own().Start()
        names = sorted(path.name for path in (daemon.data_dir / "queue").iterdir())
        assert names == ["archive", "journal", "lock", "serial", "version"]

    def test_queue_of_another_version(self, own):
        daemon = own()
        queue = daemon.data_dir / "queue"
        queue.mkdir()
        (queue / "version").write_text("99\n")
        with pytest.raises(AssertionError, match="version 99"):
            daemon.Start()

    def test_broken_queue_directory(self, own, call):
        """A file system problem is critical, but no reason not to serve."""
        daemon = own()
        (daemon.data_dir / "queue").write_text("not a directory")
        daemon.Start()
        assert "CRITICAL" in daemon.log
        assert call("version").payload == constants.PROTOCOL_VERSION
        path = pathutils.QUEUE_DIR + "/job-1"
        rpc_result = rpc.RpcRunner.call_jobqueue_update(["n"], ["127.77.11.2"], path, "x")["n"]
        assert "Job queue failed initialization" in rpc_result.fail_msg

    def test_queue_update_in_another_root(self, own, call):
        daemon = own().Start()
        path = pathutils.QUEUE_DIR + "/job-7"
        result = rpc.RpcRunner.call_jobqueue_update(["n"], ["127.77.11.2"], path, "x" * 1000)["n"]
        assert result.fail_msg is None
        # Durable now, and in its file when the daemon ends at the latest.
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(15) == 0
        assert (daemon.data_dir / "queue" / "job-7").read_text() == "x" * 1000

    def test_sigterm(self, own):
        daemon = own().Start()
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(15) == 0

    def test_without_certificate(self, own):
        daemon = own()
        daemon.cert.unlink()
        with pytest.raises(AssertionError, match="server.pem"):
            daemon.Start()

    def test_no_arguments(self, own):
        with pytest.raises(AssertionError, match="Too many arguments"):
            own("surplus").Start()

    def test_certificate_is_replaced(self, own, call, other_pem):
        """It goes on with the one that it has until it is started again."""
        daemon = own().Start()
        daemon.cert.unlink()
        assert call("version").fail_msg is None
        daemon.cert.write_text(other_pem)
        assert call("version").fail_msg is None
        daemon.Stop()
        daemon.Start()
        assert "another certificate" in call("version").fail_msg

    def test_memory_is_locked(self, own):
        """NA1: by default all of it, and that of threads to come."""
        daemon = own().Start()
        if "Not locking memory" in daemon.log:
            pytest.skip("this host does not let us lock memory without limit")
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        locked = int(status.partition("VmLck:")[2].split()[0])
        resident = int(status.partition("VmRSS:")[2].split()[0])
        assert locked >= resident * 0.9 > 0

    def test_memory_is_not_locked(self, own):
        daemon = own("--no-mlock").Start()
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        assert int(status.partition("VmLck:")[2].split()[0]) == 0


@pytest.fixture(scope="session")
def failing_disk(tmp_path_factory):
    """The library that makes a program's disk fail; built from the source beside this file."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the failing disk with")
    library = tmp_path_factory.mktemp("lib") / "failing_disk.so"
    source = Path(__file__).with_name("failing_disk.c")
    subprocess.run(
        [compiler, "-Wall", "-O1", "-fPIC", "-shared", "-o", library, source, "-ldl"], check=True
    )
    return library


class TestDeadDisk:
    """NA2, NA3: the system disk fails every read and write."""

    ADDRESS = "127.77.11.4"

    @pytest.fixture
    def disk(self, failing_disk, tmp_path, pem):
        class _Disk:
            def __init__(self):
                self.switch = tmp_path / "switch"
                self.console = tmp_path / "console"
                self.switch.write_bytes(b"\0")
                self.console.write_bytes(b"")
                self.daemon = _Noded(
                    tmp_path / "node14.example.com",
                    pem,
                    TestDeadDisk.ADDRESS,
                    env={
                        "LD_PRELOAD": str(failing_disk),
                        "FAILING_DISK_SWITCH": str(self.switch),
                        "FAILING_DISK_CONSOLE": str(self.console),
                        "GANETI_FAKE_POWERCYCLE": "1",
                    },
                ).Start()

            def Break(self):
                # In place: the daemon has it mapped
                with open(self.switch, "r+b") as fobj:
                    fobj.write(b"\1")

            def Mend(self):
                with open(self.switch, "r+b") as fobj:
                    fobj.write(b"\0")

        result = _Disk()
        yield result
        result.Mend()
        result.daemon.Stop()

    def _Call(self, transport, name, args):
        request = runtime.HttpRequest(
            self.ADDRESS, PORT, "PUT", f"/{name}", json.dumps(args).encode(), timeout=15
        )
        transport.Perform([request])
        assert request.error is None
        assert request.status == 200
        return json.loads(request.response)

    def test_the_disk_really_fails(self, disk, transport):
        """Otherwise the tests below show nothing."""
        hosts = str(disk.daemon.root / "etc" / "hosts")
        checks = [{"filelist": ["/@root@/etc/hosts"]}, "cluster"]
        success, result = self._Call(transport, "node_verify", checks)
        assert success
        assert hosts not in result["filelist"]
        assert list(result["filelist"]) == ["/@root@/etc/hosts"]
        disk.Break()
        success, text = self._Call(transport, "master_info", [])
        assert not success
        assert "Input/output error" in text

    @pytest.mark.parametrize("kind", ["fake", "kvm", "xen-pvm", "chroot"])
    def test_powercycle(self, disk, transport, kind):
        """NA3: answered and carried out, from a cold start, over a new connection."""
        disk.Break()
        answer = self._Call(transport, "node_powercycle", [kind])
        assert answer == [True, "Reboot scheduled in 5 seconds"]
        # This is where a real node would be reset; a virtual one says so, on the console.
        _Wait(lambda: "Powercycle: this is a virtual node" in disk.console.read_text())

    def test_log_goes_to_the_console(self, disk, transport):
        """NA2: what the log file does not take; the daemon goes on, and back."""
        disk.Break()
        assert self._Call(transport, "version", []) == [True, constants.PROTOCOL_VERSION]
        _Wait(lambda: "PUT /version" in disk.console.read_text())
        assert "Cannot log message to" in disk.console.read_text()
        assert "PUT /version" not in disk.daemon.log
        disk.Mend()
        assert self._Call(transport, "version", []) == [True, constants.PROTOCOL_VERSION]
        _Wait(lambda: "PUT /version" in disk.daemon.log)

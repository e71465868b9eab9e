"""Wrong names, types, units and frames at every door: the error names them, and nothing changes."""

import json
import socket
import ssl

import pytest

ONE = "inst1.example.com"
ADD = ("gnt-instance", "add", "--no-name-check", "--no-ip-check")


@pytest.fixture(scope="module")
def with_instance(cluster):
    cluster.Ok(*ADD, "-n", "node1", "-t", "diskless", "-o", "noop+default", ONE)
    return cluster


@pytest.fixture
def unchanged(with_instance):
    """The cluster, whose configuration must be the same before and after the test."""
    before = with_instance.Config()
    yield with_instance
    assert with_instance.Config() == before


COMMANDS = [
    # (command line, exit status, what the error must name)
    (["gnt-instance", "nosuch"], 1, []),
    (["gnt-instance", "list", "-o", "nosuch"], 1, ["nosuch"]),
    (["gnt-instance", "list", "--units=x"], 2, ["--units", "x"]),
    (["gnt-instance", "list", "nosuch"], 1, ["nosuch"]),
    (["gnt-instance", "add"], 1, ["expects"]),
    ([*ADD, "-t", "nosuch", "x.example.com"], 2, ["nosuch"]),
    ([*ADD, "-t", "diskless", "-o", "noop+default", "x.example.com"], 1, ["node"]),
    ([*ADD, "-n", "node9", "-t", "diskless", "-o", "noop+default", "x"], 1, ["node9"]),
    ([*ADD, "-n", "node1", "-t", "diskless", "-o", "nosuch", "x"], 1, ["nosuch"]),
    ([*ADD, "-n", "node1", "-t", "diskless", "-o", "noop+x", "x"], 1, ["'x'"]),
    ([*ADD, "-n", "node1", "-t", "file", "-o", "noop+default", "x"], 1, ["disk"]),
    ([*ADD, "-n", "node1", "-t", "file", "--disk=0:size=abc", "-o", "noop", "x"], 1, ["abc"]),
    ([*ADD, "-n", "node1", "-t", "diskless", "-B", "memory=abc", "-o", "noop", "x"], 1, ["abc"]),
    ([*ADD, "-n", "node1", "-t", "diskless", "-B", "nosuch=1", "-o", "noop", "x"], 1, ["nosuch"]),
    ([*ADD, "-n", "node1", "-t", "diskless", "-H", "kvm:acpi=x", "-o", "noop", "x"], 1, ["acpi"]),
    ([*ADD, "-n", "node1", "-t", "drbd", "-o", "noop+default", "x"], 1, []),
    ([*ADD, "-n", "node1", "-t", "diskless", "-o", "noop+default", "a/b"], 1, ["a/b"]),
    ([*ADD, "-n", "node1", "-t", "diskless", "-o", "noop+default", ONE], 1, [ONE]),
    (["gnt-instance", "startup", "nosuch"], 1, ["nosuch"]),
    (["gnt-instance", "modify", ONE], 1, []),
    (["gnt-instance", "modify", "-B", "vcpus=x", ONE], 1, ["vcpus"]),
    (["gnt-instance", "modify", "-B", "memory=900g", ONE], 1, ["memory"]),
    (["gnt-instance", "modify", "--net", "7:ip=none", ONE], 1, ["7"]),
    (["gnt-instance", "reinstall", "-f", ONE], 1, [ONE]),
    (["gnt-instance", "rename", ONE, "no.such.name.invalid"], 1, [ONE]),
    (["gnt-instance", "batch-create", "/no/such/file"], 1, ["/no/such/file"]),
    (["gnt-instance", "add-tags", ONE, "bad tag"], 1, ["bad tag"]),
    (["gnt-node", "list", "nosuch"], 1, ["nosuch"]),
    (["gnt-node", "modify", "--offline=maybe", "node2"], 1, ["maybe"]),
    (["gnt-node", "modify", "node2"], 1, []),
    (["gnt-node", "modify", "--drained=yes", "node1"], 1, ["node1", "master"]),
    (["gnt-node", "remove", "node1"], 1, ["node1", "master"]),
    (["gnt-node", "add", "no.such.name.invalid"], 1, ["no.such.name.invalid"]),
    (["gnt-node", "add", "node2"], 1, ["node2"]),
    (["gnt-cluster", "modify", "-B", "nosuch=1"], 1, ["nosuch"]),
    (["gnt-cluster", "modify", "--candidate-pool-size=0"], 1, ["0"]),
    (["gnt-cluster", "modify", "--enabled-hypervisors=vmx"], 1, ["vmx"]),
    (["gnt-cluster", "modify", "--uid-pool=9-3"], 1, ["9-3"]),
    (["gnt-cluster", "init", "again.example.com"], 1, []),
    (["gnt-cluster", "search-tags", "("], 1, ["("]),
    (["gnt-cluster", "copyfile", "/no/such/file"], 1, ["/no/such/file"]),
    (["gnt-cluster", "queue", "nosuch"], 1, ["nosuch"]),
    (["gnt-job", "info", "99999"], 0, ["99999 not found"]),
    (["gnt-job", "cancel", "x"], 1, ["x"]),
    (["gnt-os", "modify", "-H", "kvm:nosuch=1", "noop"], 1, ["nosuch"]),
    (["gnt-debug", "submit-job", "/no/such/file"], 1, ["/no/such/file"]),
]


class TestCommands:
    @pytest.mark.parametrize(("argv", "code", "fragments"), COMMANDS, ids=lambda v: None)
    def test_refused(self, unchanged, argv, code, fragments):
        result = unchanged.Run(*argv)
        shown = result.out + result.err
        assert result.code == code, shown
        assert "Traceback" not in shown
        for fragment in fragments:
            assert fragment in shown


def Luxi(cluster, *frames):
    """Send frames as they are; everything that comes back until the end or silence."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(3)
        sock.connect(str(cluster.Root() / "var/run/ganeti/socket/ganeti-master"))
        data = b""
        try:
            for frame in frames:
                sock.sendall(frame)
            while chunk := sock.recv(65536):
                data += chunk
                if data.endswith(b"\x03"):
                    break
        except (TimeoutError, ConnectionError, BrokenPipeError):
            pass
        return data


def Request(method, args):
    return json.dumps({"method": method, "args": args}).encode() + b"\x03"


class TestLuxi:
    @pytest.mark.parametrize(
        "frame",
        [
            b"\x03",
            b"{\x03",
            b"\xff\xfe\x00\x03",
            b"[]\x03",
            b'{"method": 7, "args": []}\x03',
            b'{"args": []}\x03',
            b"[" * 100000 + b"\x03",
            b'{"method": "QueryJobs", "args": NaN}\x03',
        ],
    )
    def test_malformed_frame(self, unchanged, frame):
        answer = Luxi(unchanged, frame)
        assert answer == b"" or json.loads(answer[:-1])["success"] is False
        # Nobody else was harmed.
        assert b'"success": true' in Luxi(unchanged, Request("QueryConfigValues", ["cluster_name"]))

    @pytest.mark.parametrize(
        ("method", "args", "fragment"),
        [
            ("NoSuchMethod", [], "NoSuchMethod"),
            ("QueryInstances", [[], ["nosuch"], False], "nosuch"),
            ("QueryInstances", [[], ["name"], True], "wrong_input"),
            ("QueryInstances", ["x"], ""),
            ("QueryNodes", [None, ["name"], False], "wrong_input"),
            ("QueryNodes", [["node9"], ["name"], False], "node9"),
            ("QueryTags", ["nosuch", ""], "nosuch"),
            ("QueryConfigValues", ["nosuch"], "nosuch"),
            ("SubmitJob", [], ""),
            ("SubmitJob", [{"OP_ID": "OP_NO_SUCH"}], "OP_NO_SUCH"),
            ("SubmitJob", [{"OP_ID": "OP_NODE_REMOVE", "nosuch": 1}], "nosuch"),
            ("SubmitJob", [{"OP_ID": "OP_NODE_REMOVE", "node_name": 7}], "node_name"),
            ("SubmitJob", [{"OP_ID": "OP_NODE_REMOVE"}], "node_name"),
            ("SetDrainFlag", "maybe", ""),
            ("SetWatcherPause", ["soon"], ""),
        ],
    )
    def test_wrong_request(self, unchanged, method, args, fragment):
        answer = json.loads(Luxi(unchanged, Request(method, args))[:-1])
        assert answer["success"] is False
        assert fragment in json.dumps(answer["result"])

    def test_half_a_frame_harms_nobody(self, unchanged):
        with socket.socket(socket.AF_UNIX) as idle:
            idle.connect(str(unchanged.Root() / "var/run/ganeti/socket/ganeti-master"))
            idle.sendall(b'{"method": "Query')
            assert unchanged.Ok("gnt-node", "list")


class TestRapi:
    @pytest.mark.parametrize(
        ("method", "path", "body", "status", "fragment"),
        [
            ("GET", "/2/nosuch", None, 404, ""),
            ("GET", "/2/instances/nosuch", None, 404, "nosuch"),
            ("GET", "/2/nodes/nosuch", None, 404, "nosuch"),
            ("GET", "/2/jobs/99999", None, 404, ""),
            ("PATCH", "/2/instances", None, 501, ""),
            ("POST", "/2/instances", [], 400, ""),
            ("POST", "/2/instances", {"__version__": 1, "nosuch": 1}, 400, ""),
            ("POST", f"/2/instances/{ONE}/reboot?type=nosuch", None, 400, "nosuch"),
            ("PUT", "/2/nodes/node2.example.com/role", "nosuch", 400, "nosuch"),
        ],
    )
    def test_wrong_request(self, unchanged, method, path, body, status, fragment):
        found, document = unchanged.Rapi(method, path, body)
        assert found == status, document
        assert document["code"] == status
        assert fragment in json.dumps(document)

    def test_wrong_password(self, unchanged):
        found, document = unchanged.Rapi("DELETE", f"/2/instances/{ONE}", password="wrong")
        assert (found, document["code"]) == (401, 401)


class TestNodeDaemon:
    def test_without_a_certificate(self, unchanged):
        """A stranger gets no further than the handshake, and others are not disturbed."""
        context = ssl.create_default_context(cafile=str(unchanged.Data("server.pem")))
        context.check_hostname = False
        with (
            pytest.raises((ssl.SSLError, ConnectionError)),
            socket.create_connection((unchanged.Address("node2"), 1811), timeout=5) as raw,
            context.wrap_socket(raw) as sock,
        ):
            sock.sendall(b"PUT /version HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]")
            if not sock.recv(4096):
                raise ConnectionResetError
        rows = dict(unchanged.Table("gnt-node", "list", "-o", "name,mfree"))
        assert "?" not in rows.values()

    def test_noise(self, unchanged):
        for data in (b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01" + b"\xff" * 500, b"\x00" * 10000):
            with socket.create_connection((unchanged.Address("node2"), 1811), timeout=5) as raw:
                try:
                    raw.sendall(data)
                    raw.settimeout(2)
                    raw.recv(4096)
                except OSError:
                    pass
        rows = dict(unchanged.Table("gnt-node", "list", "-o", "name,mfree"))
        assert "?" not in rows.values()


class TestConfd:
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"plj0",
            b"plj0{}",
            b"xxxx{}",
            b'plj0{"msg": "{}", "salt": "1", "hmac": "00"}',
            b"\xff",
        ],
    )
    def test_no_answer(self, unchanged, data):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.3)
            sock.sendto(data, (unchanged.Address("node2"), 1814))
            with pytest.raises(TimeoutError):
                sock.recv(65536)
        assert unchanged.Ok("confd-client", "ping")

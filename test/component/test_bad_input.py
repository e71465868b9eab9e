"""Wrong names, types, units and frames at every door: the error names them, and nothing changes."""

import hashlib
import hmac
import http.client
import json
import socket
import ssl
import time

import pytest

from ganeti import rpc_defs
from vc import WaitFor

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
    (["gnt-instance", "nosuch"], 1, ["Usage: gnt-instance {command}", "add-tags"]),
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
            ("QueryInstances", ["x"], "QueryInstances"),
            ("QueryInstances", ["x", ["name"], False], "'x'"),
            ("QueryInstances", [[], "name", False], "'name'"),
            ("QueryNodes", [None, ["name"], False], "wrong_input"),
            ("QueryNodes", [["node9"], ["name"], False], "node9"),
            ("QueryTags", ["nosuch", ""], "nosuch"),
            ("QueryConfigValues", ["nosuch"], "nosuch"),
            ("QueryJobs", [["1"], ["nosuch"]], "nosuch"),
            ("WaitForJobChange", ["1", ["nosuch"], None, None, 1], "nosuch"),
            ("WaitForJobChange", ["1", ["status"], None, "x", 1], "'x'"),
            ("AutoArchiveJobs", ["old", 1], "'old'"),
            ("CancelJob", {}, "{}"),
            ("SubmitJob", [], "opcode"),
            ("SubmitJob", [{"OP_ID": "OP_NO_SUCH"}], "OP_NO_SUCH"),
            ("SubmitJob", [{"OP_ID": "OP_NODE_REMOVE", "nosuch": 1}], "nosuch"),
            ("SubmitJob", [{"OP_ID": "OP_NODE_REMOVE", "node_name": 7}], "node_name"),
            ("SubmitJob", [{"OP_ID": "OP_NODE_REMOVE"}], "node_name"),
            ("SubmitJob", [{"OP_ID": "OP_TEST_DELAY", "duration": "1s"}], "duration"),
            ("SubmitManyJobs", [[{"OP_ID": "OP_NO_SUCH"}]], "OP_NO_SUCH"),
            ("SetDrainFlag", "maybe", "maybe"),
            ("SetDrainFlag", [[False]], "[False]"),
            ("SetWatcherPause", ["soon"], "soon"),
            ("SetWatcherPause", [1], "seconds ago"),
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


CREATE = {
    "__version__": 1,
    "mode": "create",
    "name": "x.example.com",
    "disk_template": "diskless",
    "disks": [],
    "nics": [{}],
    "os": "noop+default",
    "pnode": "node1",
    "ip_check": False,
    "name_check": False,
}
INST = f"/2/instances/{ONE}"
NODE = "/2/nodes/node2.example.com"

#: Of C{POST /2/instances}: (what is changed in a good body, what the answer must name).
BODIES = [
    ({"disks": "x"}, ["disks", "'x'"]),
    ({"disk_template": "file", "disks": [{"size": "abc"}]}, ["disks[0]", "size", "'abc'"]),
    ({"disk_template": "file", "disks": [{}]}, ["disks[0]", "size"]),
    ({"disk_template": "file", "disks": [{"size": 16, "nosuch": 1}]}, ["disks[0]", "'nosuch'"]),
    ({"disk_template": "nosuch"}, ["disk_template", "'nosuch'"]),
    ({"nics": [7]}, ["nics", "7"]),
    ({"nics": [{"nosuch": 1}]}, ["nics[0]", "'nosuch'"]),
    ({"name": 7}, ["name", "7"]),
    ({"start": "maybe"}, ["start", "'maybe'"]),
    ({"beparams": {"memory": "abc"}}, ["beparams", "memory", "'abc'"]),
    ({"beparams": {"nosuch": 1}}, ["beparams", "'nosuch'"]),
    ({"hypervisor": "fake", "hvparams": {"nosuch": 1}}, ["hvparams", "'nosuch'"]),
    ({"nosuch": 1}, ["'nosuch'"]),
    ({"__version__": 2}, ["__version__", "2"]),
]

REQUESTS = [
    ("GET", "/2/nosuch", None, 404, []),
    ("GET", "/2/instances/nosuch", None, 404, ["nosuch"]),
    ("GET", "/2/instances/nosuch/tags", None, 404, ["nosuch"]),
    ("GET", "/2/nodes/nosuch", None, 404, ["nosuch"]),
    ("GET", "/2/nodes/nosuch/role", None, 404, ["nosuch"]),
    ("GET", "/2/jobs/99999", None, 404, []),
    ("GET", "/2/instances?bulk=yes", None, 400, ["bulk", "'yes'"]),
    ("PATCH", "/2/instances", None, 501, ["PATCH"]),
    ("POST", "/2/instances", None, 400, ["JSON object"]),
    ("POST", "/2/instances", [], 400, ["JSON object"]),
    ("POST", "/2/instances?dry-run=x", CREATE, 400, ["dry-run", "'x'"]),
    ("PUT", "/2/tags", None, 400, ["'tag'"]),
    ("PUT", f"{INST}/startup?force=x", None, 400, ["force", "'x'"]),
    ("POST", f"{INST}/reboot?type=nosuch", None, 400, ["type", "'nosuch'"]),
    ("POST", f"{INST}/replace-disks", None, 400, ["mode"]),
    ("POST", f"{INST}/replace-disks?mode=replace_auto&disks=x", None, 400, ["disks", "'x'"]),
    ("PUT", f"{NODE}/role", "nosuch", 400, ["'nosuch'", "master-candidate"]),
    ("PUT", f"{NODE}/role", 7, 400, ["7"]),
    ("POST", f"{NODE}/migrate?live=x", None, 400, ["live", "'x'"]),
    ("GET", f"{NODE}/storage", None, 400, ["storage_type"]),
    (
        "GET",
        f"{NODE}/storage?storage_type=nosuch&output_fields=name",
        None,
        400,
        ["storage_type", "'nosuch'"],
    ),
    ("GET", "/2/jobs/1/wait", None, 400, ["fields"]),
    ("GET", "/2/jobs/1/wait", {"fields": "x"}, 400, ["fields", "'x'"]),
    ("GET", "/2/jobs/1/wait", {"fields": ["nosuch"]}, 400, ["nosuch"]),
    ("GET", "/2/jobs/1/wait?fields=status,nosuch", None, 400, ["nosuch"]),
]

#: What only the job finds out.
JOBS = [
    ("POST", "/2/instances", {**CREATE, "hypervisor": "vmx"}, "'vmx'"),
    ("POST", "/2/instances", {**CREATE, "pnode": "node9"}, "'node9'"),
    ("POST", "/2/instances", {**CREATE, "os": "nosuch"}, "'nosuch'"),
    ("POST", "/2/instances", {**CREATE, "name": ONE}, ONE),
    ("PUT", "/2/tags?tag=bad%20tag", None, "'bad tag'"),
    ("DELETE", "/2/tags?tag=absent", None, "absent"),
    ("DELETE", "/2/instances/nosuch", None, "'nosuch'"),
    ("PUT", "/2/instances/nosuch/startup", None, "'nosuch'"),
    ("GET", f"{NODE}/storage?storage_type=file&output_fields=nosuch", None, "nosuch"),
]


class TestRapi:
    @pytest.mark.parametrize(("method", "path", "body", "status", "fragments"), REQUESTS)
    def test_wrong_request(self, unchanged, method, path, body, status, fragments):
        found, document = unchanged.Rapi(method, path, body)
        assert found == status, document
        assert document["code"] == status
        for fragment in fragments:
            assert fragment in document["message"]

    @pytest.mark.parametrize(("change", "fragments"), BODIES)
    def test_wrong_body(self, unchanged, change, fragments):
        found, document = unchanged.Rapi("POST", "/2/instances", {**CREATE, **change})
        assert found == 400, document
        for fragment in fragments:
            assert fragment in document["message"]

    @pytest.mark.parametrize("missing", ["name", "disk_template", "disks", "nics", "mode"])
    def test_missing_in_body(self, unchanged, missing):
        body = {key: value for key, value in CREATE.items() if key != missing}
        found, document = unchanged.Rapi("POST", "/2/instances", body)
        assert found == 400, document
        assert missing in document["message"]

    @pytest.mark.parametrize(("method", "path", "body", "fragment"), JOBS)
    def test_job_fails(self, unchanged, method, path, body, fragment):
        status, job = unchanged.Rapi(method, path, body)
        assert status == 200, job

        def Ended():
            found = unchanged.Rapi("GET", f"/2/jobs/{job}")[1]
            return found if found["status"] in ("success", "error") else None

        found = WaitFor(Ended, 10, f"the end of job {job}")
        assert found["status"] == "error"
        assert fragment in found["opresult"][0][1][0]

    def test_wrong_password(self, unchanged):
        found, document = unchanged.Rapi("DELETE", f"/2/instances/{ONE}", password="wrong")
        assert (found, document["code"]) == (401, 401)


#: Not even with wrong arguments: they reset the machine, or take the node out of the cluster.
TOO_DANGEROUS = {"node_powercycle", "node_leave_cluster"}

#: (call, arguments, what the answer must name)
NODE_CALLS = [
    ("os_get", ["nosuch"], "nosuch"),
    ("instance_list", [["vmx"]], "vmx"),
    ("node_info", ["xenvg", "vmx"], "vmx"),
    ("jobqueue_update", ["/etc/passwd", [0, "x"]], "/etc/passwd"),
    ("jobqueue_rename", [["/etc/passwd", "/etc/gone"]], "/etc/passwd"),
    ("upload_file", ["/etc/no-such", [0, "x"], 0o600, 0, 0, 0, 0], "/etc/no-such"),
    ("file_storage_dir_create", ["/etc/x"], "/etc/x"),
    ("file_storage_dir_remove", ["/etc"], "/etc"),
    ("storage_list", ["file", [["/no/such/dir"]], None, ["name"]], "/no/such/dir"),
    ("write_ssconf_files", [{"nosuch": "x"}], "nosuch"),
    ("write_ssconf_files", [{"../hmac.key": "x"}], "hmac.key"),
    ("hooks_runner", ["cluster-verify", "nosuch", {}], "nosuch"),
    ("hypervisor_validate_params", ["kvm", {"kernel_path": "/no/such/file"}], "/no/such/file"),
    ("test_delay", [-1], "negative"),
]


class TestNodeDaemon:
    def _Call(self, cluster, name, args):
        """Speak to node2's daemon as the master does."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(str(cluster.Data("server.pem")))
        context.load_cert_chain(str(cluster.Data("server.pem")))
        connection = http.client.HTTPSConnection(
            cluster.Address("node2"), 1811, context=context, timeout=10
        )
        try:
            connection.request("PUT", f"/{name}", json.dumps(args))
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    @pytest.mark.parametrize("name", sorted(set(rpc_defs.CALLS) - TOO_DANGEROUS))
    def test_wrong_arguments(self, unchanged, name):
        """Of every call: too many arguments, and each of a wrong type, by name."""
        names = [arg.name for arg in rpc_defs.CALLS[name].args]
        status, (success, text) = self._Call(unchanged, name, [None] * (len(names) + 1))
        assert (status, success) == (200, False)
        assert name in text
        if names:
            wrong = [{"no such": object.__name__}] * len(names)
            status, (success, text) = self._Call(unchanged, name, wrong)
            assert (status, success) == (200, False)
            assert any(f"'{arg}'" in text for arg in [*names, "no such"]), text

    @pytest.mark.parametrize(("name", "args", "fragment"), NODE_CALLS)
    def test_wrong_values(self, unchanged, name, args, fragment):
        status, (success, text) = self._Call(unchanged, name, args)
        assert (status, success) == (200, False)
        assert fragment in text

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

    @pytest.mark.parametrize(
        "change",
        [
            {"type": 99},
            {"type": "1"},
            {"type": None},
            {"protocol": 2},
            {"protocol": None},
            {"rsalt": None},
            {"salt": "abc"},
            {"salt": -400},
            {"salt": 400},
            {"key": b"another key"},
        ],
        ids=repr,
    )
    def test_signed_but_wrong(self, unchanged, change):
        """Silence, and the next good question is answered."""
        message = {"protocol": 1, "type": 1, "query": "node1.example.com", "rsalt": "1"}
        message |= {key: value for key, value in change.items() if key in message}
        message = {key: value for key, value in message.items() if value is not None}
        salt = change.get("salt", 0)
        salt = salt if isinstance(salt, str) else str(int(time.time()) + salt)
        key = change.get("key") or unchanged.Data("hmac.key").read_bytes()
        assert self._Send(unchanged, key, salt, message) is None
        key = unchanged.Data("hmac.key").read_bytes()
        good = {"protocol": 1, "type": 0, "rsalt": "2"}
        assert b'"2"' in self._Send(unchanged, key, str(int(time.time())), good)

    @pytest.mark.parametrize(
        ("number", "query"),
        [
            (1, "node9.example.com"),
            (1, ["node1.example.com"]),
            (1, {}),
            (2, "192.0.2.99"),
            (2, {"9": "x"}),
            (2, 7),
            (3, {"3": "0"}),
            (6, ["br0"]),
            (0, "not empty"),
            (4, "not empty"),
        ],
    )
    def test_wrong_query(self, unchanged, number, query):
        """What is understood and wrong is told so: unknown (1), bad argument (3), or a text."""
        key = unchanged.Data("hmac.key").read_bytes()
        message = {"protocol": 1, "type": number, "query": query, "rsalt": "1"}
        data = self._Send(unchanged, key, str(int(time.time())), message)
        answer = json.loads(json.loads(data[4:])["msg"])
        assert (answer["status"], answer["protocol"]) == (1, 1)
        if number in (0, 4):
            assert isinstance(answer["answer"], str)
        else:
            known = isinstance(query, str)
            assert answer["answer"] == (1 if known else 3)

    def _Send(self, cluster, key, salt, message):
        text = json.dumps(message)
        digest = hmac.new(key, (salt + text).encode(), hashlib.sha1).hexdigest()
        envelope = json.dumps({"msg": text, "salt": salt, "hmac": digest})
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.5)
            sock.sendto(b"plj0" + envelope.encode(), (cluster.Address("node2"), 1814))
            try:
                return sock.recv(65536)
            except TimeoutError:
                return None

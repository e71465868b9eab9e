"""Node calls, client side: what is sent, where to, and what is made of the answers."""

import json
import os

import pytest

from ganeti import constants, errors, objects, pathutils, rpc, rpc_defs
from ganeti.rpc import client, encoding
from ganeti.runtime import HttpRequest, fake

HANDLED = (200, b"[true, null]")


def _Node(name, ip, offline=False):
    return objects.Node(name=name, primary_ip=ip, secondary_ip=ip, offline=offline)


class _Config:
    """A cluster of three nodes, of which one is offline."""

    def __init__(self):
        self.nodes = {
            node.name: node
            for node in (
                _Node("node1.example.com", "192.0.2.1"),
                _Node("node2.example.com", "192.0.2.2"),
                _Node("node3.example.com", "192.0.2.3", offline=True),
            )
        }
        self.cluster = objects.Cluster(
            cluster_name="cluster.example.com",
            hvparams={"fake": {}, "kvm": {"kernel_path": "/default", "acpi": True}},
            os_hvp={"debian+lenny": {"kvm": {"kernel_path": "/by-os"}}},
            beparams={"default": {"memory": 128, "vcpus": 1, "auto_balance": True}},
            nicparams={"default": {"mode": "bridged", "link": "xen-br0"}},
            diskparams={},
        )

    def GetNodeInfo(self, node_name):
        return self.nodes.get(node_name)

    def GetMasterNode(self):
        return "node1.example.com"

    def GetClusterInfo(self):
        return self.cluster


def _Instance(**kwargs):
    values = {
        "name": "inst1.example.com",
        "primary_node": "node1.example.com",
        "os": "debian",
        "hypervisor": "kvm",
        "hvparams": {"acpi": False},
        "beparams": {"memory": 512},
        "nics": [objects.NIC(mac="aa:00:00:00:00:01", nicparams={"link": "br9"})],
        "disks": [
            objects.Disk(
                dev_type="file",
                logical_id=("loop", "/srv/d0"),
                physical_id=("loop", "/srv/d0"),
                size=10,
                iv_name="disk/0",
                mode="rw",
            )
        ],
        "disk_template": "file",
    }
    values.update(kwargs)
    return objects.Instance(**values)


@pytest.fixture
def transport():
    return fake.FakeTransport(lambda request: HANDLED)


@pytest.fixture
def runner(transport):
    return rpc.RpcRunner(_Config(), transport=transport)


@pytest.fixture
def static(transport):
    """The process's client, for static calls."""
    rpc.Init(transport=transport)
    yield rpc.RpcRunner
    rpc.Shutdown()


def _Answering(body, status=200):
    return fake.FakeTransport(lambda request: (status, body))


def _Runner(body, status=200):
    return rpc.RpcRunner(_Config(), transport=_Answering(body, status))


class TestEncoding:
    """Contents of files as [encoding, text]."""

    @pytest.mark.parametrize(
        ("size", "expected"),
        [
            (0, constants.RPC_ENCODING_NONE),
            (511, constants.RPC_ENCODING_NONE),
            (512, constants.RPC_ENCODING_ZLIB_BASE64),
            (100000, constants.RPC_ENCODING_ZLIB_BASE64),
        ],
    )
    def test_border(self, size, expected):
        encoded = rpc.EncodeData("x" * size)
        assert encoded[0] == expected
        assert rpc.DecodeData(encoded) == b"x" * size

    def test_border_is_in_bytes(self):
        assert len("\u00e4" * 256) == 256
        assert rpc.EncodeData("\u00e4" * 256)[0] == constants.RPC_ENCODING_ZLIB_BASE64

    def test_what_is_no_text_is_never_sent_plain(self):
        encoded = rpc.EncodeData(b"\xff\xfe")
        assert encoded[0] == constants.RPC_ENCODING_ZLIB_BASE64
        assert rpc.DecodeData(encoded) == b"\xff\xfe"

    @pytest.mark.parametrize(
        "broken",
        [
            [2, "x"],
            [None, "x"],
            ["x"],
            [0, "x", "y"],
            "0x",
            None,
            [0, None],
            [1, "not base64!"],
            [1, "AAAA"],
        ],
    )
    def test_broken(self, broken):
        with pytest.raises(ValueError, match="ncod"):
            encoding.DecodeData(broken)


class TestRpcResult:
    """The shapes of answers and failures."""

    def test_success(self):
        result = rpc.RpcResult(data=[True, 5], call="c", node="n")
        assert (result.fail_msg, result.payload, result.data) == (None, 5, [True, 5])
        assert (result.offline, result.call, result.node) == (False, "c", "n")
        result.Raise("not raised")

    def test_operation_failed(self):
        result = rpc.RpcResult(data=[False, "no space"])
        assert (result.fail_msg, result.payload, result.data) == (
            "no space",
            None,
            [False, "no space"],
        )

    @pytest.mark.parametrize("text", ["", None])
    def test_operation_failed_silently(self, text):
        assert rpc.RpcResult(data=[False, text]).fail_msg == "No error information"

    def test_transport_failed(self):
        result = rpc.RpcResult(data="timed out", failed=True)
        assert (result.fail_msg, result.payload, result.data) == ("timed out", None, None)
        assert rpc.RpcResult(failed=True).fail_msg == "No error information"

    def test_offline(self):
        result = rpc.RpcResult(offline=True)
        assert result.offline
        assert result.fail_msg == "Node is marked offline"
        assert result.data is None

    def test_wrong_type(self):
        text = rpc.RpcResult(data={"a": 1}).fail_msg
        assert text == "RPC layer error: invalid result type (dict)"

    @pytest.mark.parametrize("data", [[], [True], [True, 1, 2]])
    def test_wrong_length(self, data):
        text = rpc.RpcResult(data=data).fail_msg
        assert text == f"RPC layer error: invalid result length ({len(data)}), expected 2"

    def test_raise(self):
        result = rpc.RpcResult(data=[False, "why"], call="c", node="n")
        with pytest.raises(errors.OpExecError) as excinfo:
            result.Raise("Can't do it")
        assert excinfo.value.args == ("Can't do it: why",)
        with pytest.raises(errors.OpPrereqError) as excinfo:
            result.Raise("Can't do it", prereq=True, ecode=errors.ECODE_ENVIRON)
        assert excinfo.value.args == ("Can't do it: why", errors.ECODE_ENVIRON)
        with pytest.raises(errors.OpExecError, match="'c' to node 'n' failed: why"):
            result.Raise(None)


class TestAddresses:
    """Where a call goes."""

    def test_primary_address_and_port(self, runner, transport):
        assert runner.call_instance_list(["node2.example.com"], ["fake"])
        (request,) = transport.requests
        assert (request.host, request.port) == ("192.0.2.2", 1811)
        assert (request.method, request.path) == ("PUT", "/instance_list")

    def test_offline_node_is_not_contacted(self, runner, transport):
        names = ["node3.example.com", "node1.example.com"]
        results = runner.call_instance_list(names, ["fake"])
        assert [request.host for request in transport.requests] == ["192.0.2.1"]
        assert results["node3.example.com"].offline
        assert results["node1.example.com"].fail_msg is None
        assert list(results) == names

    def test_unknown_node_is_resolved(self, runner, transport, monkeypatch):
        class _HostInfo:
            def __init__(self, name):
                if name == "nowhere":
                    raise errors.ResolverError(name, -2, "Name unknown")
                self.ip = "192.0.2.99"

        monkeypatch.setattr(client.net, "HostInfo", _HostInfo)
        results = runner.call_instance_list(["new.example.com", "nowhere"], ["fake"])
        assert [request.host for request in transport.requests] == ["192.0.2.99"]
        assert "Name unknown" in results["nowhere"].fail_msg
        assert not results["nowhere"].offline

    def test_node_named_twice_is_asked_once(self, runner, transport):
        name = "node1.example.com"
        assert list(runner.call_test_delay([name, name], 1)) == [name]
        assert len(transport.requests) == 1

    def test_static_call_with_addresses(self, static, transport):
        results = static.call_version(["a", "b"], address_list=["192.0.2.8", "192.0.2.9"])
        assert [request.host for request in transport.requests] == ["192.0.2.8", "192.0.2.9"]
        assert list(results) == ["a", "b"]

    def test_static_call_reaches_offline_nodes(self, static, transport):
        result = static.call_node_leave_cluster(
            "node3.example.com", True, address_list=["192.0.2.3"]
        )
        assert result.fail_msg is None
        assert len(transport.requests) == 1

    def test_address_list_of_wrong_length(self, static):
        with pytest.raises(AssertionError, match="one address"):
            static.call_version(["a", "b"], address_list=["192.0.2.8"])

    def test_dead_node(self, runner, transport):
        transport.Cut("192.0.2.2")
        names = ["node1.example.com", "node2.example.com"]
        results = runner.call_instance_list(names, ["fake"])
        assert results["node1.example.com"].fail_msg is None
        assert "timed out" in results["node2.example.com"].fail_msg


class TestLifecycle:
    """Init and Shutdown."""

    def test_needs_init(self):
        with pytest.raises(AssertionError, match="RPC module not initialized"):
            rpc.RpcRunner.call_version(["a"], address_list=["192.0.2.8"])

    def test_second_init(self, static):
        with pytest.raises(AssertionError):
            rpc.Init(transport=_Answering(b""))

    def test_again_after_shutdown(self, transport):
        for _ in range(2):
            rpc.Init(transport=transport)
            rpc.Shutdown()
        rpc.Shutdown()

    def test_transport_of_the_runtime(self, transport):
        rpc.Init(fake.NewRuntime(transport=transport))
        try:
            rpc.RpcRunner.call_version(["a"], address_list=["192.0.2.8"])
        finally:
            rpc.Shutdown()
        assert len(transport.requests) == 1


class TestAnswers:
    """What is made of the bytes of an answer."""

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            (b"{}", "invalid result type (dict)"),
            (b"[true]", "invalid result length (1)"),
            (b"<html>", "not JSON"),
            (b"", "not JSON"),
            (b"\xff", "not JSON"),
            (b"[false, null]", "No error information"),
        ],
    )
    def test_malformed(self, body, text):
        result = _Runner(body).call_node_has_ip_address("node1.example.com", "192.0.2.1")
        assert text in result.fail_msg
        assert result.payload is None

    @pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
    def test_http_errors(self, status):
        page = b"<html><head><title>Not shown</title></head><body><h1>Reason given</h1></body>"
        result = _Runner(page, status).call_node_has_ip_address("node1.example.com", "x")
        assert result.fail_msg.startswith(f"HTTP error {status}")
        assert result.fail_msg.endswith(": Reason given")
        assert result.data is None

    def test_status_objects(self):
        status = {"dev_path": "/dev/x", "is_degraded": False, "ldisk_status": 1}
        disk = _Instance().disks[0]
        body = json.dumps([True, status]).encode()
        found = _Runner(body).call_blockdev_find("node1.example.com", disk).payload
        assert isinstance(found, objects.BlockDevStatus)
        assert (found.dev_path, found.sync_percent) == ("/dev/x", None)
        body = json.dumps([True, [status, status]]).encode()
        many = _Runner(body).call_blockdev_getmirrorstatus("node1.example.com", [disk, disk])
        assert [item.ldisk_status for item in many.payload] == [1, 1]

    def test_missing_device(self):
        result = _Runner(b"[true, null]").call_blockdev_find(
            "node1.example.com", _Instance().disks[0]
        )
        assert result.payload is None
        assert result.fail_msg is None

    def test_os_object(self):
        body = json.dumps([True, {"name": "debian", "path": "/srv/os"}]).encode()
        result = _Runner(body).call_os_get("node1.example.com", "debian")
        assert isinstance(result.payload, objects.OS)
        assert result.payload.name == "debian"


class TestInstances:
    """Instances are sent with everything filled in."""

    def _Sent(self, transport):
        return json.loads(transport.requests[-1].body)

    def test_filled(self, runner, transport):
        instance = _Instance(os="debian+lenny")
        runner.call_instance_shutdown("node1.example.com", instance, 120)
        sent, timeout = self._Sent(transport)
        assert timeout == 120
        assert sent["hvparams"] == {"kernel_path": "/by-os", "acpi": False}
        assert sent["beparams"] == {"memory": 512, "vcpus": 1, "auto_balance": True}
        assert sent["nics"][0]["nicparams"] == {"mode": "bridged", "link": "br9"}
        # The caller's object stays as it is
        assert instance.hvparams == {"acpi": False}
        assert instance.nics[0].nicparams == {"link": "br9"}

    def test_disk_parameters(self, runner, transport):
        """PR1: what is below a disk has the disk's; a node knows no defaults."""
        runner._cfg.GetClusterInfo().diskparams["default"] = {"stripe": 1, "data_flushes": True}
        data = objects.Disk(dev_type="lvm", logical_id=("xenvg", "x"), size=8)
        disk = objects.Disk(
            dev_type="drbd8",
            logical_id=("a", "b", 11000, 0, 0, "secret"),
            children=[data],
            size=8,
            params={"stripe": 2},
        )
        instance = _Instance(disks=[disk])
        runner.call_instance_shutdown("node1.example.com", instance, 120)
        (sent,) = self._Sent(transport)[0]["disks"]
        expected = {"stripe": 2, "data_flushes": True}
        assert sent["params"] == expected
        assert sent["children"][0]["params"] == expected
        assert (disk.params, data.params) == ({"stripe": 2}, None)

    def test_overrides_of_a_start(self, runner, transport):
        runner.call_instance_start(
            "node1.example.com", _Instance(), {"kernel_path": "/once"}, {"memory": 64}
        )
        (sent,) = self._Sent(transport)
        assert sent["hvparams"]["kernel_path"] == "/once"
        assert sent["beparams"]["memory"] == 64

    def test_start_without_overrides(self, runner, transport):
        runner.call_instance_start("node1.example.com", _Instance(), None, None)
        (sent,) = self._Sent(transport)
        assert sent["hvparams"]["kernel_path"] == "/default"

    def test_objects_at_any_depth(self, runner, transport):
        disk = _Instance().disks[0]
        runner.call_blockdev_rename("node1.example.com", [(disk, ("loop", "/srv/d9"))])
        ((sent, new_id),) = self._Sent(transport)
        assert sent["logical_id"] == ["loop", "/srv/d0"]
        assert new_id == ["loop", "/srv/d9"]


class TestCalls:
    """Arguments of the methods."""

    def test_every_call_has_its_method(self):
        for call in rpc_defs.CALLS.values():
            assert callable(getattr(rpc.RpcRunner, call.method)), call.name

    def test_arguments_by_name(self, runner, transport):
        runner.call_node_info(["node1.example.com"], hypervisor="kvm", vg_name="xenvg")
        assert json.loads(transport.requests[0].body) == ["xenvg", "kvm"]

    @pytest.mark.parametrize(
        ("args", "kwargs"),
        [(["xenvg"], {}), (["xenvg", "kvm", 1], {}), (["xenvg", "kvm"], {"other": 1})],
    )
    def test_wrong_arguments(self, runner, transport, args, kwargs):
        with pytest.raises(TypeError, match="call_node_info are vg_name, hypervisor"):
            runner.call_node_info(["node1.example.com"], *args, **kwargs)
        assert not transport.requests

    def test_timeouts(self, runner, transport):
        runner.call_instance_list(["node1.example.com"], [])
        runner.call_test_delay(["node1.example.com"], 7.5)
        assert [request.timeout for request in transport.requests] == [60, 12.5]
        assert {request.connect_timeout for request in transport.requests} == {5.0}

    def test_no_arguments_is_an_empty_array(self, static, transport):
        static.call_version(["a"], address_list=["192.0.2.8"])
        assert json.loads(transport.requests[0].body) == []

    def test_names_are_unicode(self, runner, transport):
        runner.call_node_has_ip_address("node1.example.com", "\u00e4")
        assert json.loads(transport.requests[0].body.decode("utf-8")) == ["\u00e4"]

    def test_queue_calls(self, static, transport):
        path = pathutils.QUEUE_DIR + "/job-1"
        static.call_jobqueue_update(["a"], ["192.0.2.8"], path, "text")
        static.call_jobqueue_rename(["a"], ["192.0.2.8"], [(path, path + "0")])
        update, rename = [json.loads(request.body) for request in transport.requests]
        assert pathutils.FromWire(update) == [path, [0, "text"]]
        # The list itself is the array of arguments
        assert pathutils.FromWire(rename) == [[path, path + "0"]]

    def test_queue_files(self, static, transport):
        """JQ2: many files in one call, in their order."""
        paths = [f"{pathutils.QUEUE_DIR}/job-{number}" for number in (2, 1)]
        files = [(paths[0], b"a" * 5000), (paths[1], b"b" * 9000)]
        static.call_jobqueue_update_many(["a"], ["192.0.2.8"], files)
        (args,) = pathutils.FromWire(json.loads(transport.requests[0].body))
        assert [(path, rpc.DecodeData(data)) for path, data in args] == files
        # Small ones are not worth the time that compressing takes.
        assert [encoding for _, (encoding, _) in args] == [0, 1]

    def test_master_without_hooks_is_not_called(self):
        """It is this very node, and most have none."""
        transport = _Answering(json.dumps([True, [["x-pre.d/a", 2, ""]]]).encode())
        runner = rpc.RpcRunner(_Config(), transport=transport)
        names = ["node1.example.com", "node2.example.com"]

        def Ask():
            return {
                name: result.payload
                for name, result in runner.call_hooks_runner(names, "x", "pre", {}).items()
            }

        assert Ask() == {names[0]: [], names[1]: [["x-pre.d/a", 2, ""]]}
        assert [request.host for request in transport.requests] == ["192.0.2.2"]
        os.makedirs(f"{pathutils.HOOKS_BASE_DIR}/x-pre.d")
        try:
            assert Ask() == dict.fromkeys(names, [["x-pre.d/a", 2, ""]])
        finally:
            os.rmdir(f"{pathutils.HOOKS_BASE_DIR}/x-pre.d")

    def test_upload_file(self, static, transport, tmp_path):
        path = tmp_path / "file"
        path.write_bytes(b"content")
        path.chmod(0o640)
        os.utime(path, (1000, 2000))
        static.call_upload_file(["a"], str(path), address_list=["192.0.2.8"])
        name, data, mode, uid, gid, atime, mtime = json.loads(transport.requests[0].body)
        assert name == str(path)
        assert rpc.DecodeData(data) == b"content"
        # Only permissions travel, no type of file
        assert mode == 0o640
        assert (atime, mtime) == (1000, 2000)
        assert rpc_defs.CheckArgs("upload_file", [name, data, mode, uid, gid, atime, mtime]) is None

    def test_upload_of_a_missing_file(self, static, tmp_path):
        with pytest.raises(FileNotFoundError):
            static.call_upload_file(["a"], str(tmp_path / "no"), address_list=["192.0.2.8"])


class TestRepetition:
    """What may be sent again when a connection breaks."""

    def test_names(self):
        assert set(rpc_defs.CALLS) > client.REPEATABLE

    @pytest.mark.parametrize(
        ("name", "repeatable"),
        [
            ("version", True),
            ("jobqueue_update", True),
            ("jobqueue_update_many", True),
            ("config_update", True),
            ("blockdev_create", False),
            ("blockdev_grow", False),
            ("blockdev_rename", False),
            ("hooks_runner", False),
            ("instance_os_add", False),
            ("instance_reboot", False),
            ("node_powercycle", False),
            ("node_leave_cluster", False),
        ],
    )
    def test_calls(self, name, repeatable):
        assert (name in client.REPEATABLE) is repeatable

    def test_requests(self, runner, transport):
        runner.call_node_info(["node1.example.com"], None, "fake")
        runner.call_node_powercycle("node1.example.com", "fake")
        assert [request.repeatable for request in transport.requests] == [True, False]


class TestVirtualPaths:
    """BASE6: nodes of a virtual cluster have different roots."""

    def test_own_root_does_not_travel(self, runner, transport):
        path = pathutils.DEFAULT_FILE_STORAGE_DIR
        runner.call_file_storage_dir_create("node1.example.com", pathutils.AddRoot("/srv/x"))
        assert pathutils.ROOTDIR.encode() not in transport.requests[0].body
        assert path  # the configuration's own paths have no root at all
        runner.call_file_storage_dir_create("node1.example.com", "/srv/x")
        assert json.loads(transport.requests[1].body) == ["/srv/x"]

    def test_answers_get_our_root(self):
        mine = pathutils.AddRoot("/etc/file")
        body = json.dumps([True, pathutils.ToWire({"filelist": {mine: "abc"}})]).encode()
        result = _Runner(body).call_node_verify(["node1.example.com"], {}, "c")
        assert result["node1.example.com"].payload == {"filelist": {mine: "abc"}}


def test_request_is_the_seam():
    """A request knows nothing but what a transport needs."""
    request = HttpRequest("192.0.2.1", 1811, "PUT", "/version", b"[]")
    request.tag = "n"
    request.error = "broken"
    assert client.ParseAnswer(request, "version").fail_msg == "broken"

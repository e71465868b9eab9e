"""The Python client against the resources, in one process."""

import inspect
import json
from urllib import parse

import pytest

from ganeti import constants, errors
from ganeti.rapi import auth, baserlib, client, client_utils, dispatch, fake
from ganeti.runtime import fake as fake_runtime

INST = "web1.example.com"
NODE = "node1.example.com"


class _Users:
    def Authenticate(self, name, password):
        if (name, password) != ("me", "secret"):
            return None
        return auth.User(name, password, frozenset(["write"]))


class World:
    """A client whose transport is a function call."""

    def __init__(self, **kwargs):
        rt = fake_runtime.NewRuntime()
        self.master = fake.FakeMaster()
        context = baserlib.Context(
            self.master.Connect, lambda: ["a"], baserlib.TokenBucket(9, 1.0, rt), rt
        )
        self.dispatcher = dispatch.Dispatcher(context, _Users())
        self.requests = []
        self.answers = []
        self.sleeps = []
        kwargs = {"username": "me", "password": "secret", **kwargs}
        self.client = client.GanetiRapiClient(
            "cluster.example.com", transport=self._Send, sleep=self.sleeps.append, **kwargs
        )

    def _Send(self, method, url, headers, body):
        target = url.removeprefix("https://cluster.example.com:5080")
        self.requests.append((method, target, None if body is None else json.loads(body)))
        if self.answers:
            return self.answers.pop(0)
        answer = self.dispatcher.Handle(
            dispatch.RawRequest(method, target, headers.get("Authorization"), body or b"")
        )
        return answer.status, answer.body


@pytest.fixture
def world():
    return World()


#: Call of a method -> the opcodes it submits.
JOBS = [
    ("AddClusterTags", (["a", "b"],), {}, "OP_TAGS_SET", {"tags": ["a", "b"]}),
    ("DeleteClusterTags", (["a"], True), {}, "OP_TAGS_DEL", {"tags": ["a"], "dry_run": True}),
    ("AddInstanceTags", (INST, ["a"]), {}, "OP_TAGS_SET", {"kind": "instance", "name": INST}),
    ("DeleteInstanceTags", (INST, ["a"]), {}, "OP_TAGS_DEL", {"kind": "instance"}),
    ("AddNodeTags", (NODE, ["a"]), {}, "OP_TAGS_SET", {"kind": "node", "name": NODE}),
    ("DeleteNodeTags", (NODE, ["a"]), {}, "OP_TAGS_DEL", {"kind": "node"}),
    ("GetInstanceInfo", (INST,), {}, "OP_INSTANCE_QUERY_DATA", {"static": False}),
    ("GetInstanceInfo", (INST, True), {}, "OP_INSTANCE_QUERY_DATA", {"static": True}),
    ("DeleteInstance", (INST,), {"dry_run": True}, "OP_INSTANCE_REMOVE", {"dry_run": True}),
    (
        "RebootInstance",
        (INST, "full", True),
        {},
        "OP_INSTANCE_REBOOT",
        {"reboot_type": "full", "ignore_secondaries": True},
    ),
    ("ShutdownInstance", (INST,), {"timeout": 3}, "OP_INSTANCE_SHUTDOWN", {"timeout": 3}),
    ("StartupInstance", (INST,), {}, "OP_INSTANCE_STARTUP", {"force": False}),
    (
        "ReplaceInstanceDisks",
        (INST, [0, 1], client.REPLACE_DISK_CHG, NODE),
        {"dry_run": True},
        "OP_INSTANCE_REPLACE_DISKS",
        {"disks": [0, 1], "mode": "replace_new_secondary", "remote_node": NODE, "dry_run": True},
    ),
    ("ReplaceInstanceDisks", (INST,), {}, "OP_INSTANCE_REPLACE_DISKS", {"disks": []}),
    ("ActivateInstanceDisks", (INST, True), {}, "OP_INSTANCE_ACTIVATE_DISKS", {}),
    ("DeactivateInstanceDisks", (INST,), {}, "OP_INSTANCE_DEACTIVATE_DISKS", {}),
    ("RecreateInstanceDisks", (INST, [1]), {}, "OP_INSTANCE_RECREATE_DISKS", {"disks": [1]}),
    ("GrowInstanceDisk", (INST, 0, 10), {}, "OP_INSTANCE_GROW_DISK", {"disk": 0, "amount": 10}),
    ("ModifyInstance", (INST,), {"os_name": "x"}, "OP_INSTANCE_SET_PARAMS", {"os_name": "x"}),
    ("MigrateInstance", (INST,), {"mode": "non-live"}, "OP_INSTANCE_MIGRATE", {"live": False}),
    ("FailoverInstance", (INST,), {}, "OP_INSTANCE_FAILOVER", {"ignore_consistency": False}),
    ("RenameInstance", (INST, "new"), {}, "OP_INSTANCE_RENAME", {"new_name": "new"}),
    ("ExportInstance", (INST, "local", NODE), {}, "OP_BACKUP_EXPORT", {"target_node": NODE}),
    ("EvacuateNode", (NODE, "hail"), {}, "OP_NODE_EVACUATE", {"iallocator": "hail"}),
    ("MigrateNode", (NODE,), {}, "OP_NODE_MIGRATE", {"live": True}),
    ("MigrateNode", (NODE, False), {}, "OP_NODE_MIGRATE", {"live": False}),
    ("MigrateNode", (NODE,), {"mode": "non-live"}, "OP_NODE_MIGRATE", {"live": False}),
    ("MigrateNode", (NODE,), {"target_node": "n3"}, "OP_NODE_MIGRATE", {"target_node": "n3"}),
    ("MigrateNode", (NODE,), {"iallocator": "hail"}, "OP_NODE_MIGRATE", {"iallocator": "hail"}),
    ("SetNodeRole", (NODE, "offline", True), {}, "OP_NODE_SET_PARAMS", {"offline": True}),
    ("PowercycleNode", (NODE,), {}, "OP_NODE_POWERCYCLE", {"force": False}),
    ("ModifyNode", (NODE,), {"drained": True}, "OP_NODE_SET_PARAMS", {"drained": True}),
    (
        "GetNodeStorageUnits",
        (NODE, "lvm-pv", "name,size"),
        {},
        "OP_NODE_QUERY_STORAGE",
        {"output_fields": ["name", "size"]},
    ),
    (
        "ModifyNodeStorageUnits",
        (NODE, "lvm-pv", "/dev/a b"),
        {"allocatable": True},
        "OP_NODE_MODIFY_STORAGE",
        {"name": "/dev/a b", "changes": {"allocatable": True}},
    ),
    ("RepairNodeStorageUnits", (NODE, "lvm-vg", "x"), {}, "OP_REPAIR_NODE_STORAGE", {"name": "x"}),
    ("RedistributeConfig", (), {}, "OP_CLUSTER_REDIST_CONF", {}),
    ("ModifyCluster", (), {"vg_name": "x"}, "OP_CLUSTER_SET_PARAMS", {"vg_name": "x"}),
]


@pytest.mark.parametrize(("method", "args", "kwargs", "op_id", "params"), JOBS)
def test_jobs(world, method, args, kwargs, op_id, params):
    """BASE1: each method makes the job its name says."""
    assert getattr(world.client, method)(*args, **kwargs) == "1"
    ((op,),) = world.master.submitted
    assert op["OP_ID"] == op_id
    assert {name: op[name] for name in params} == params


def test_reason(world):
    world.client.StartupInstance(INST, reason="why not & so")
    ((op,),) = world.master.submitted
    assert op["reason"][0][1] == "why not & so"


def test_reinstall(world):
    world.client.ReinstallInstance(INST, "noop", no_startup=True)
    (ops,) = world.master.submitted
    assert [op["OP_ID"] for op in ops] == ["OP_INSTANCE_SHUTDOWN", "OP_INSTANCE_REINSTALL"]
    with pytest.raises(client.GanetiApiError, match="OS parameters"):
        world.client.ReinstallInstance(INST, osparams={"a": "b"})


class TestReading:
    def test_lists(self, world):
        world.master.instances = [{"name": "b"}, {"name": "a"}]
        world.master.nodes = [{"name": "n"}]
        world.master.jobs = [{"id": "2"}, {"id": "10"}]
        assert world.client.GetInstances() == ["a", "b"]
        assert world.client.GetNodes() == ["n"]
        assert world.client.GetJobs() == [10, 2]
        assert world.client.GetVersion() == 2
        assert world.client.GetFeatures() == [
            "instance-create-reqv1",
            "node-evac-res1",
            "node-migrate-reqv1",
        ]
        assert world.client.GetClusterTags() == ["a"]
        assert [job["id"] for job in world.client.GetJobs(bulk=True)] == ["2", "10"]
        assert world.client.GetGroups() == ["default"]

    def test_very_old_server(self, world):
        world.answers = [(404, b"")]
        assert world.client.GetFeatures() == []
        world.answers = [(500, b"")]
        with pytest.raises(client.GanetiApiError):
            world.client.GetFeatures()

    def test_wait(self, world):
        world.master.changes = [constants.JOB_NOTCHANGED, [["success"], []]]
        assert world.client.WaitForJobChange(1, ["status"], None, None) is None
        change = world.client.WaitForJobChange(1, ["status"], ["queued"], 3)
        assert change == {"job_info": ["success"], "log_entries": []}
        assert world.requests[-1][2] == {
            "fields": ["status"],
            "previous_job_info": ["queued"],
            "previous_log_serial": 3,
        }

    def test_wait_for_completion(self, world):
        def _Status(status):
            return 200, json.dumps({"status": status}).encode()

        world.answers = [_Status("queued"), _Status("running"), _Status("success")]
        assert world.client.WaitForJobCompletion("1", period=2) is True
        assert world.sleeps == [2, 2]
        world.answers = [_Status("error")]
        assert world.client.WaitForJobCompletion("1") is False
        world.answers = [_Status("running")] * 3
        assert world.client.WaitForJobCompletion("1", retries=2) is False
        assert not world.answers

    def test_cancel(self, world):
        assert world.client.CancelJob(7)[0] is False
        with pytest.raises(client.GanetiApiError) as caught:
            world.client.CancelJob(7, dry_run=True)
        assert caught.value.code == 400


class TestCreate:
    ARGS = ("create", "new", "plain", [{"size": 10}], [{"mac": "auto"}])

    def test_version_1(self, world):
        world.client.CreateInstance(*self.ARGS, os="noop", pnode=NODE, dry_run=True)
        ((op,),) = world.master.submitted
        assert (op["OP_ID"], op["os_type"]) == ("OP_INSTANCE_CREATE", "noop")
        assert op["dry_run"] is True

    def test_required_as_keyword(self, world):
        with pytest.raises(client.GanetiApiError, match="__version__"):
            world.client.CreateInstance(*self.ARGS, __version__=2)

    def _Old(self, world, *args, **kwargs):
        world.answers = [(200, b"[]")]
        return world.client.CreateInstance(*args, **kwargs)

    def test_version_0(self, world):
        self._Old(world, *self.ARGS, os="noop", beparams={"memory": 8}, hvparams={"acpi": True})
        assert world.requests[-1] == (
            "POST",
            "/2/instances",
            {
                "name": "new",
                "disk_template": "plain",
                "disks": [10],
                "mac": "auto",
                "os": "noop",
                "memory": 8,
                "acpi": True,
            },
        )
        assert world.master.submitted[0][0]["beparams"] == {"memory": 8}

    @pytest.mark.parametrize(
        ("disks", "nics", "kwargs"),
        [
            ([{"size": 1, "mode": "rw"}], [{}], {}),
            ([{}], [{}], {}),
            ([], [], {}),
            ([], [{}, {}], {}),
            ([], [{"speed": 1}], {}),
            ([], [{}], {"force_variant": True}),
        ],
    )
    def test_what_version_0_can_not_say(self, world, disks, nics, kwargs):
        with pytest.raises(client.GanetiApiError):
            self._Old(world, "create", "new", "plain", disks, nics, **kwargs)
        # The question for the features, nothing else
        assert len(world.requests) == 1


class TestErrors:
    def test_text_and_code(self, world):
        with pytest.raises(client.GanetiApiError) as caught:
            world.client.GetInstance("nosuch")
        assert caught.value.code == 404
        text = str(caught.value)
        assert text.startswith("404 ") and "nosuch" in text
        assert text.endswith("Nothing matches the given URI")

    def test_wrong_password(self):
        with pytest.raises(client.GanetiApiError) as caught:
            World(password="x").client.GetInfo()
        assert caught.value.code == 401

    @pytest.mark.parametrize("kwargs", [{"password": None}, {"username": None}])
    def test_half_of_the_credentials(self, kwargs):
        with pytest.raises(client.Error):
            World(**kwargs)

    def test_strange_answers(self, world):
        world.answers = [(200, b"<html>"), (503, b"<html>"), (200, b"")]
        for _ in range(2):
            with pytest.raises(client.GanetiApiError):
                world.client.GetInfo()
        assert world.client.GetInfo() is None

    def test_certificate_errors_are_api_errors(self):
        assert issubclass(client.CertificateError, client.GanetiApiError)

    def test_both_targets(self, world):
        with pytest.raises(client.GanetiApiError):
            world.client.EvacuateNode(NODE, "hail", NODE)
        with pytest.raises(client.GanetiApiError):
            world.client.EvacuateNode(NODE, mode="all")
        assert not world.requests

    @pytest.mark.parametrize("value", [[1], (1,), {}])
    def test_query_values(self, value):
        with pytest.raises(ValueError, match="name"):
            client._EncodeQuery([("name", value)])

    def test_query_encoding(self):
        query = client._EncodeQuery([("a", None), ("b", True), ("c", "x&y z")])
        assert parse.parse_qs(query, True) == {"a": [""], "b": ["1"], "c": ["x&y z"]}


class TestCurl:
    """What a curl handle is told, without sending anything."""

    class _Curl:
        def __init__(self):
            self.options = {}

        def setopt(self, option, value):
            self.options[option] = value

        def unsetopt(self, option):
            self.options.pop(option, None)

    def _Options(self, **kwargs):
        handles = []

        def _Factory():
            handles.append(self._Curl())
            return handles[0]

        client.GanetiRapiClient("h", curl_factory=_Factory, **kwargs)
        return handles[0].options

    def test_verified_by_default(self):
        options = self._Options()
        assert options[client.pycurl.SSL_VERIFYPEER]
        assert options[client.pycurl.SSL_VERIFYHOST] == 2

    def test_not_verified_only_if_asked_for(self):
        options = self._Options(config_ssl_verification=client.NoVerification)
        assert not options[client.pycurl.SSL_VERIFYPEER]
        assert options[client.pycurl.SSL_VERIFYHOST] == 0

    def test_authority(self):
        options = self._Options(config_ssl_verification=client.CertAuthorityVerify("/ca.pem"))
        assert options[client.pycurl.CAINFO] == "/ca.pem"
        assert options[client.pycurl.SSL_VERIFYPEER]

    def test_proxy(self):
        assert self._Options(ignore_proxy=True)[client.pycurl.NOPROXY] == "*"
        assert client.pycurl.NOPROXY not in self._Options()


def test_ipv6_literals():
    urls = []

    def _Send(method, url, headers, body):
        urls.append(url)
        return 200, b"2"

    for host in ("2001:db8::1", "[2001:db8::1]"):
        client.GanetiRapiClient(host, transport=_Send).GetVersion()
    assert set(urls) == {"https://[2001:db8::1]:5080/version"}


def test_x509_names():
    assert client.FormatX509Name([(b"CN", b"cluster"), (b"O", b"Ganeti")]) == "/CN=cluster/O=Ganeti"


def test_module_stands_alone():
    """It is copied to machines without the rest of the suite."""
    source = inspect.getsource(client)
    assert "from ." not in source
    assert "import ganeti" not in source


class TestClientUtils:
    """Jobs over the API are followed as on the master."""

    def test_poll(self, world):
        entry = [1, [5, 6], "message", "hello"]
        world.master.changes = [
            constants.JOB_NOTCHANGED,
            [["running"], [entry]],
            [["success"], []],
        ]
        world.master.jobs = [
            {"id": "7", "status": "success", "opstatus": ["success"], "opresult": ["done"]}
        ]
        seen = []
        result = client_utils.PollJob(world.client, 7, lambda *args: seen.append(list(args)))
        assert result == ["done"]
        assert seen == [entry]

    def test_failed(self, world):
        world.master.jobs = [
            {
                "id": "7",
                "status": "error",
                "opstatus": ["error"],
                "opresult": [["OpPrereqError", ["no", errors.ECODE_STATE]]],
            }
        ]
        with pytest.raises(errors.OpPrereqError) as caught:
            client_utils.PollJob(world.client, "7")
        assert caught.value.args == ("no", errors.ECODE_STATE)

    def test_lost(self, world):
        with pytest.raises(errors.JobLost):
            client_utils.PollJob(world.client, 8)

    def test_one_job_only(self, world):
        callbacks = client_utils.RapiJobPollCb(world.client)
        for ids in (None, [], [1, 2]):
            with pytest.raises(NotImplementedError):
                callbacks.QueryJobs(ids, ["status"])
        assert callbacks.QueryJobs([9], ["status"]) == [None]

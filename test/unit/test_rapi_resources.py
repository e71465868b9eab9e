"""Resources against a master in memory: what they submit, what they refuse, how errors look."""

import json
import re

import pytest

from ganeti import constants, errors, luxi
from ganeti.jqueue import job
from ganeti.rapi import auth, baserlib, connector, dispatch, fake, rlib_job
from ganeti.runtime import fake as fake_runtime

NODE = "node1.example.com"
INST = "web1.example.com"


class _Everybody:
    """Users: all may do all."""

    def Authenticate(self, name, password):
        return auth.User(name, password, frozenset(["write"]))


class Api:
    """Requests in one line."""

    def __init__(self):
        self.rt = fake_runtime.NewRuntime()
        self.master = fake.FakeMaster()
        self.master.nodes = [{"name": NODE, "role": "C", "tags": ["a"], "ctotal": None}]
        self.master.instances = [
            {
                "name": INST,
                "uuid": "a-b-c",
                "tags": [],
                "pnode": NODE,
                "oper_state": True,
                "beparams": {"memory": 128, "vcpus": 2},
                "disk.sizes": [10],
                "nic.macs": [],
            }
        ]
        context = baserlib.Context(
            self.master.Connect,
            lambda: ["t"],
            baserlib.TokenBucket(3, 1.0, self.rt),
            self.rt,
        )
        self.dispatcher = dispatch.Dispatcher(context, _Everybody())

    def Send(self, method, target, body=None, anonymous=False):
        """Status and value of the answer."""
        data = body if isinstance(body, bytes) else b""
        if body is not None and not data:
            data = json.dumps(body).encode()
        header = None if anonymous else "Basic eDp5"
        answer = self.dispatcher.Handle(dispatch.RawRequest(method, target, header, data))
        assert self.master.open_clients == 0
        return answer.status, json.loads(answer.body)

    def Submit(self, method, target, body=None):
        """The opcodes of the one job that a request makes."""
        before = len(self.master.submitted)
        status, value = self.Send(method, target, body)
        assert (status, value) == (200, str(self.master.next_job_id - 1)), value
        assert len(self.master.submitted) == before + 1
        return self.master.submitted[-1]

    def Refused(self, method, target, body=None):
        """The text of the 400 that a request gets."""
        before = len(self.master.submitted)
        status, value = self.Send(method, target, body)
        assert status == 400, value
        assert len(self.master.submitted) == before
        return value["message"]


@pytest.fixture
def api():
    return Api()


I_URI = f"/2/instances/{INST}"
N_URI = f"/2/nodes/{NODE}"
I_NAME = {"instance_name": INST}
N_NAME = {"node_name": NODE}

#: Request -> the opcode it submits.
JOBS = [
    ("PUT", "/2/redistribute-config", None, {"OP_ID": "OP_CLUSTER_REDIST_CONF"}),
    (
        "PUT",
        "/2/tags?tag=a&tag=b",
        ["a", "b"],
        {"OP_ID": "OP_TAGS_SET", "kind": "cluster", "name": "", "tags": ["a", "b"]},
    ),
    (
        "DELETE",
        f"{N_URI}/tags?tag=a;tag=b&dry-run=1",
        None,
        {
            "OP_ID": "OP_TAGS_DEL",
            "kind": "node",
            "name": NODE,
            "tags": ["a", "b"],
            "dry_run": True,
        },
    ),
    (
        "PUT",
        f"{N_URI}/role?force=1&auto-promote=0",
        "drained",
        {
            "OP_ID": "OP_NODE_SET_PARAMS",
            **N_NAME,
            "drained": True,
            "master_candidate": None,
            "offline": None,
            "force": True,
            "auto_promote": False,
        },
    ),
    (
        "PUT",
        f"{N_URI}/role",
        "regular",
        {
            "OP_ID": "OP_NODE_SET_PARAMS",
            **N_NAME,
            "drained": False,
            "master_candidate": False,
            "offline": False,
            "force": False,
        },
    ),
    (
        "POST",
        f"{N_URI}/evacuate?iallocator=hail&early_release=1&mode=secondary-only",
        None,
        {"OP_ID": "OP_NODE_EVACUATE", **N_NAME, "iallocator": "hail", "early_release": True},
    ),
    (  # Clients of later versions that have seen the feature node-evac-res1
        "POST",
        f"{N_URI}/evacuate",
        {"remote_node": "node3", "mode": "secondary-only"},
        {"OP_ID": "OP_NODE_EVACUATE", **N_NAME, "remote_node": "node3"},
    ),
    ("POST", f"{N_URI}/migrate", None, {"OP_ID": "OP_NODE_MIGRATE", **N_NAME, "live": True}),
    (
        "POST",
        f"{N_URI}/migrate?live=0",
        None,
        {"OP_ID": "OP_NODE_MIGRATE", **N_NAME, "live": False},
    ),
    (
        "POST",
        f"{N_URI}/migrate?mode=non-live",
        None,
        {"OP_ID": "OP_NODE_MIGRATE", **N_NAME, "live": False},
    ),
    (
        "POST",
        f"{N_URI}/migrate",
        {"mode": "live"},
        {"OP_ID": "OP_NODE_MIGRATE", **N_NAME, "live": True},
    ),
    (  # Clients of later versions that have seen the feature node-migrate-reqv1
        "POST",
        f"{N_URI}/migrate",
        {"mode": "non-live", "target_node": "node3"},
        {"OP_ID": "OP_NODE_MIGRATE", **N_NAME, "live": False, "target_node": "node3"},
    ),
    (
        "POST",
        f"{N_URI}/migrate?iallocator=hail",
        None,
        {"OP_ID": "OP_NODE_MIGRATE", **N_NAME, "live": True, "iallocator": "hail"},
    ),
    (
        "GET",
        f"{N_URI}/storage?storage_type=lvm-pv&output_fields=name,size",
        None,
        {
            "OP_ID": "OP_NODE_QUERY_STORAGE",
            "nodes": [NODE],
            "storage_type": "lvm-pv",
            "output_fields": ["name", "size"],
        },
    ),
    (
        "PUT",
        f"{N_URI}/storage/modify?storage_type=lvm-pv&name=/dev/sda1&allocatable=0",
        None,
        {
            "OP_ID": "OP_NODE_MODIFY_STORAGE",
            **N_NAME,
            "storage_type": "lvm-pv",
            "name": "/dev/sda1",
            "changes": {"allocatable": False},
        },
    ),
    (
        "PUT",
        f"{N_URI}/storage/repair?storage_type=lvm-vg&name=xenvg",
        None,
        {
            "OP_ID": "OP_REPAIR_NODE_STORAGE",
            **N_NAME,
            "storage_type": "lvm-vg",
            "name": "xenvg",
        },
    ),
    (
        "POST",
        f"{N_URI}/powercycle?force=1",
        None,
        {"OP_ID": "OP_NODE_POWERCYCLE", **N_NAME, "force": True},
    ),
    (
        "DELETE",
        I_URI,
        None,
        {"OP_ID": "OP_INSTANCE_REMOVE", **I_NAME, "ignore_failures": False},
    ),
    (
        "DELETE",
        f"{I_URI}?dry-run=1",
        {"shutdown_timeout": 5},
        {
            "OP_ID": "OP_INSTANCE_REMOVE",
            **I_NAME,
            "ignore_failures": False,
            "shutdown_timeout": 5,
            "dry_run": True,
        },
    ),
    (
        "GET",
        f"{I_URI}/info?static=1",
        None,
        {"OP_ID": "OP_INSTANCE_QUERY_DATA", "instances": [INST], "static": True},
    ),
    (
        "POST",
        f"{I_URI}/reboot",
        {},
        {
            "OP_ID": "OP_INSTANCE_REBOOT",
            **I_NAME,
            "reboot_type": "hard",
            "ignore_secondaries": False,
        },
    ),
    (
        "POST",
        f"{I_URI}/reboot?type=soft&ignore_secondaries=1",
        None,
        {
            "OP_ID": "OP_INSTANCE_REBOOT",
            **I_NAME,
            "reboot_type": "soft",
            "ignore_secondaries": True,
        },
    ),
    (
        "PUT",
        f"{I_URI}/startup?force=1&dry-run=1&no_remember=0",
        None,
        {"OP_ID": "OP_INSTANCE_STARTUP", **I_NAME, "force": True, "dry_run": True},
    ),
    ("PUT", f"{I_URI}/shutdown", None, {"OP_ID": "OP_INSTANCE_SHUTDOWN", **I_NAME}),
    (
        "PUT",
        f"{I_URI}/shutdown",
        {"timeout": 3},
        {"OP_ID": "OP_INSTANCE_SHUTDOWN", **I_NAME, "timeout": 3},
    ),
    (
        "POST",
        f"{I_URI}/replace-disks?mode=replace_auto&disks=0,2&dry-run=1",
        None,
        {
            "OP_ID": "OP_INSTANCE_REPLACE_DISKS",
            **I_NAME,
            "mode": "replace_auto",
            "disks": [0, 2],
            "dry_run": True,
        },
    ),
    (
        "PUT",
        f"{I_URI}/activate-disks?ignore_size=1",
        None,
        {"OP_ID": "OP_INSTANCE_ACTIVATE_DISKS", **I_NAME, "ignore_size": True},
    ),
    (
        "PUT",
        f"{I_URI}/deactivate-disks",
        None,
        {"OP_ID": "OP_INSTANCE_DEACTIVATE_DISKS", **I_NAME},
    ),
    (
        "POST",
        f"{I_URI}/disk/1/grow",
        {"amount": 100},
        {
            "OP_ID": "OP_INSTANCE_GROW_DISK",
            **I_NAME,
            "disk": 1,
            "amount": 100,
            "wait_for_sync": True,
        },
    ),
    (
        "PUT",
        f"{I_URI}/modify",
        {"beparams": {"memory": 256}},
        {"OP_ID": "OP_INSTANCE_SET_PARAMS", **I_NAME, "beparams": {"memory": 256}},
    ),
    (
        "PUT",
        f"{I_URI}/rename",
        {"new_name": "other", "ip_check": False},
        {"OP_ID": "OP_INSTANCE_RENAME", **I_NAME, "new_name": "other", "ignore_ip": True},
    ),
    (
        "PUT",
        f"{I_URI}/export",
        {"destination": NODE, "mode": "local"},
        {"OP_ID": "OP_BACKUP_EXPORT", **I_NAME, "target_node": NODE, "shutdown": True},
    ),
    (
        "PUT",
        "/2/modify",
        {"candidate_pool_size": 3},
        {"OP_ID": "OP_CLUSTER_SET_PARAMS", "candidate_pool_size": 3},
    ),
]


class TestJobs:
    """BASE1: each writing resource submits its opcode with what was asked for, and nothing else."""

    @pytest.mark.parametrize(("method", "target", "body", "op"), JOBS)
    def test_table(self, api, method, target, body, op):
        assert api.Submit(method, target, body) == [op]

    @pytest.mark.parametrize(
        ("target", "kinds"),
        [
            ("?os=noop", ["SHUTDOWN", "REINSTALL", "STARTUP"]),
            ("?nostartup=1", ["SHUTDOWN", "REINSTALL"]),
        ],
    )
    def test_reinstall_is_one_job(self, api, target, kinds):
        ops = api.Submit("POST", f"{I_URI}/reinstall{target}")
        assert [op["OP_ID"] for op in ops] == [f"OP_INSTANCE_{kind}" for kind in kinds]
        assert ops[1].get("os_type") == ("noop" if "os=" in target else None)

    def test_reinstall_by_body(self, api):
        ops = api.Submit("POST", f"{I_URI}/reinstall", {"start": False, "os": "noop+x"})
        assert len(ops) == 2
        assert ops[1]["os_type"] == "noop+x"

    def test_reason_is_kept_with_the_job(self, api):
        (op,) = api.Submit("PUT", f"{I_URI}/shutdown?reason=because")
        ((source, text, when),) = op["reason"]
        assert (source, text) == ("gnt:client:rapi", "because")
        assert when == int(api.rt.clock.time() * 10**9)

    @pytest.mark.parametrize(
        ("method", "target", "body", "words"),
        [
            ("PUT", f"{N_URI}/role", "master", ["role", "'master'"]),
            ("PUT", f"{N_URI}/role", None, ["role"]),
            ("PUT", f"{N_URI}/role", ["drained"], ["role"]),
            ("PUT", "/2/tags", None, ["tag"]),
            ("DELETE", f"{I_URI}/tags?tag=", None, ["tag"]),
            ("PUT", f"{I_URI}/startup?force=yes", None, ["force", "'yes'"]),
            ("PUT", f"{I_URI}/startup?no_remember=1", None, ["no_remember"]),
            ("PUT", f"{I_URI}/shutdown", {"timeout": "soon"}, ["timeout", "'soon'"]),
            ("PUT", f"{I_URI}/shutdown", {"tmieout": 3}, ["tmieout", "3"]),
            ("PUT", f"{I_URI}/shutdown", {"instance_name": "other"}, ["instance_name", "'other'"]),
            ("PUT", f"{I_URI}/shutdown?timeout=1", {"timeout": 3}, ["timeout"]),
            ("PUT", f"{I_URI}/shutdown", [1], ["object"]),
            ("PUT", f"{I_URI}/shutdown", b"{", ["JSON"]),
            ("PUT", f"{I_URI}/shutdown", b"\xff", ["JSON"]),
            ("POST", f"{I_URI}/reboot?type=firm", None, ["reboot_type", "'firm'"]),
            ("POST", f"{I_URI}/reinstall?os=a", {"os": "b"}, ["os"]),
            ("POST", f"{I_URI}/reinstall?dry-run=1", None, ["dry-run"]),
            ("POST", f"{I_URI}/replace-disks?mode=replace_auto&disks=0,x", None, ["disks", "'x'"]),
            ("POST", f"{I_URI}/replace-disks", None, ["mode"]),
            ("DELETE", "/2/jobs/1?dry-run=1", None, ["dry-run"]),
            ("GET", f"{N_URI}/storage?storage_type=lvm-pv", None, ["output_fields"]),
            (
                "GET",
                f"{N_URI}/storage?storage_type=disk&output_fields=name",
                None,
                ["storage_type", "'disk'"],
            ),
            ("POST", f"{N_URI}/evacuate?mode=all", None, ["mode", "'all'"]),
            ("GET", "/2/instances?bulk=true", None, ["bulk", "'true'"]),
            ("GET", f"{I_URI}?lock=1", None, ["not allowed"]),
            ("GET", "/2?" + "&".join(["a=1"] * 1001), None, ["query string"]),
        ],
    )
    def test_refused_by_name(self, api, method, target, body, words):
        text = api.Refused(method, target, body)
        for word in words:
            assert word in text

    def test_texts_are_escaped(self, api):
        text = api.Refused("PUT", f"{I_URI}/shutdown", {"<b>&": 1})
        assert "&lt;b&gt;&amp;" in text


def _Create(**changes):
    body = {
        "__version__": 1,
        "mode": "create",
        "name": "new.example.com",
        "disk_template": "file",
        "disks": [{"size": "1g", "mode": "ro"}, {"size": 20}],
        "nics": [{"mode": "routed", "ip": "10.0.0.1", "mac": None}],
        "os": "noop",
        "pnode": NODE,
        "beparams": {"memory": "1g"},
        "hvparams": {"acpi": "true"},
    }
    body.update(changes)
    return {name: value for name, value in body.items() if value is not NotImplemented}


class TestCreate:
    """BASE1: both formats of instance creation, every field checked."""

    def test_version_1(self, api):
        (op,) = api.Submit("POST", "/2/instances", _Create(force_variant=True, start=False))
        assert op == {
            "OP_ID": "OP_INSTANCE_CREATE",
            "mode": "create",
            "instance_name": "new.example.com",
            "disk_template": "file",
            "disks": [{"size": 1024, "mode": "ro"}, {"size": 20}],
            "nics": [{"mode": "routed", "ip": "10.0.0.1"}],
            "os_type": "noop",
            "pnode": NODE,
            "beparams": {"memory": 1024},
            "hvparams": {"acpi": True},
            "force_variant": True,
            "start": False,
            "ip_check": True,
            "name_check": True,
            "wait_for_sync": True,
            "file_driver": "loop",
        }

    def test_names_of_the_opcode(self, api):
        body = _Create(name=NotImplemented, os=NotImplemented)
        body.update(instance_name="x", os_type="noop")
        (op,) = api.Submit("POST", "/2/instances?dry-run=1", body)
        assert (op["instance_name"], op["os_type"], op["dry_run"]) == ("x", "noop", True)

    def test_what_later_clients_add_for_nothing(self, api):
        body = _Create(
            disks=[{"size": 4, "name": None, "spindles": None}], osparams={}, conflicts_check=True
        )
        (op,) = api.Submit("POST", "/2/instances", body)
        assert op["disks"] == [{"size": 4}]

    def test_adoption(self, api):
        """Without a size, as that of the volume is taken."""
        body = _Create(disk_template="plain", disks=[{"adopt": "lv0"}])
        (op,) = api.Submit("POST", "/2/instances", body)
        assert op["disks"] == [{"adopt": "lv0", "size": 0}]

    def test_import(self, api):
        """All but the nodes can be left to the description of the export."""
        body = {
            "__version__": 1,
            "mode": "import",
            "name": "new.example.com",
            "iallocator": "hail",
            "src_node": NODE,
            "src_path": "old.example.com",
            "identify_defaults": True,
        }
        (op,) = api.Submit("POST", "/2/instances", body)
        assert (op["disks"], op["nics"], op["src_path"]) == ([], [], "old.example.com")
        assert (op["mode"], op["identify_defaults"]) == ("import", True)
        assert "disk_template" not in op
        text = api.Refused("POST", "/2/instances", {**body, "disks": {}})
        assert "disks" in text

    def test_version_0(self, api):
        body = {
            "name": "old",
            "disks": [100, 200],
            "disk_template": "plain",
            "os": "noop",
            "pnode": NODE,
            "memory": 64,
            "kernel_path": "/k",
            "ip": "10.0.0.1",
            "bridge": None,
            "ip_check": False,
        }
        (op,) = api.Submit("POST", "/2/instances", body)
        assert op["mode"] == "create"
        assert op["disks"] == [{"size": 100}, {"size": 200}]
        assert op["nics"] == [{"mac": "auto", "ip": "10.0.0.1"}]
        assert op["beparams"] == {"memory": 64}
        assert op["hvparams"] == {"kernel_path": "/k"}
        assert (op["ip_check"], op["name_check"]) == (False, True)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"__version__": 2}, ["__version__", "2"]),
            ({"__version__": True}, ["__version__"]),
            ({"__version__": "1"}, ["__version__"]),
            ({"name": NotImplemented}, ["'name'"]),
            ({"nics": NotImplemented}, ["'nics'"]),
            ({"disk_template": "nosuch"}, ["disk_template", "nosuch"]),
            ({"mode": "clone"}, ["mode", "clone"]),
            ({"disks": {}}, ["disks"]),
            ({"disks": [1]}, ["disks"]),
            ({"disks": [{"mode": "rw"}]}, ["disks[0]", "size"]),
            ({"disks": [{"size": 1}, {"size": "much"}]}, ["disks[1]", "much"]),
            ({"disks": [{"size": 1, "mode": "w"}]}, ["disks[0]", "'w'"]),
            ({"disks": [{"size": 1, "colour": "red"}]}, ["disks[0]", "colour"]),
            ({"nics": [{"ip": 1}]}, ["nics[0].ip", "1"]),
            ({"nics": [{"speed": "1"}]}, ["nics[0]", "speed"]),
            ({"start": "yes"}, ["start", "'yes'"]),
            ({"strat": True}, ["strat", "True"]),
            ({"beparams": {"memory": "x"}}, ["beparams", "'x'"]),
            ({"beparams": {"mem": 1}}, ["beparams", "'mem'"]),
            ({"hvparams": {"nosuch": 1}}, ["hvparams", "'nosuch'"]),
            ({"hvparams": []}, ["hvparams"]),
            ({"osparams": {"a": "b"}}, ["osparams"]),
        ],
    )
    def test_refused(self, api, changes, words):
        text = api.Refused("POST", "/2/instances", _Create(**changes))
        for word in words:
            assert word in text

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (None, ["object"]),
            ([], ["object"]),
            ({"name": "x", "disks": ["1g"], "disk_template": "plain", "os": "o"}, ["disks", "1g"]),
            ({"name": "x", "disks": [1], "disk_template": "plain", "os": "o", "z": 1}, ["'z'"]),
        ],
    )
    def test_refused_version_0(self, api, body, words):
        text = api.Refused("POST", "/2/instances", body)
        for word in words:
            assert word in text


class TestErrors:
    """Errors of the master daemon have the status of who must act."""

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (luxi.NoMasterError("/x"), 502),
            (luxi.ConnectionClosedError("gone"), 502),
            (luxi.RequestError("what?"), 502),
            (luxi.TimeoutError("slow"), 504),
            (errors.JobQueueFull("full"), 503),
            (errors.JobQueueDrainError("drained"), 503),
            (errors.OpPrereqError("no such", errors.ECODE_NOENT), 404),
            (errors.OpPrereqError("bad", errors.ECODE_INVAL), 400),
            (errors.OpPrereqError("in use", errors.ECODE_NOTUNIQUE), 500),
            (errors.OpPrereqError("old form"), 500),
            (errors.TypeEnforcementError("type"), 400),
            (errors.OpExecError("broke"), 500),
            (RuntimeError("bug"), 500),
        ],
    )
    def test_status(self, api, error, status):
        api.master.error = error
        assert api.Send("PUT", f"{I_URI}/shutdown")[0] == status
        assert api.Send("GET", I_URI)[0] == status

    def test_unknown_objects(self, api):
        for target in ("/2/instances/x", "/2/nodes/x", "/2/nodes/x/role", "/2/nodes/x/tags"):
            assert api.Send("GET", target)[0] == 404

    def test_uuid_for_a_name(self, api):
        """UU2: objects are found by their UUID as well."""
        assert api.Send("GET", "/2/instances/a-b-c")[1]["name"] == INST


class TestWait:
    """JQ3: waiting for job changes."""

    def _Wait(self, api, body=None, query="", method="GET"):
        return api.Send(method, f"/2/jobs/7/wait{query}", body)

    def test_change(self, api):
        api.master.changes = [[["running"], [[1, [2, 3], "message", "hello"]]]]
        body = {"fields": ["status"], "previous_job_info": ["queued"], "previous_log_serial": 0}
        assert self._Wait(api, body) == (
            200,
            {"job_info": ["running"], "log_entries": [[1, [2, 3], "message", "hello"]]},
        )
        assert api.master.calls[-1] == ("WaitForJobChange", ["7", ["status"], ["queued"], 0, 10.0])

    def test_no_change(self, api):
        api.master.changes = [constants.JOB_NOTCHANGED]
        assert self._Wait(api, {"fields": ["status"]}) == (200, None)

    def test_fields_are_those_of_the_queue(self):
        assert set(luxi.JOB_FIELDS) == set(job._FIELDS)
        assert {*rlib_job.J_FIELDS, *rlib_job.J_FIELDS_BULK} <= set(luxi.JOB_FIELDS)

    def test_no_job(self, api):
        assert self._Wait(api, {"fields": ["status"]})[0] == 404

    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_query_arguments_or_post(self, api, method):
        api.master.changes = [constants.JOB_NOTCHANGED] * 2
        query = "?fields=id,status&previous_job_info=[%227%22,%22queued%22]&previous_log_serial=4"
        assert self._Wait(api, None, query, method) == (200, None)
        assert api.master.calls[-1][1] == ["7", ["id", "status"], ["7", "queued"], 4, 10.0]
        assert self._Wait(api, {"fields": ["id"]}, "", method) == (200, None)

    @pytest.mark.parametrize(
        ("body", "word"),
        [
            (None, "fields"),
            ({}, "fields"),
            ({"fields": []}, "fields"),
            ({"fields": "status"}, "'status'"),
            ({"fields": ["status", "nosuch"]}, "'nosuch'"),
            ({"fields": ["id"], "previous_log_serial": "1"}, "previous_log_serial"),
            ({"fields": ["id"], "prev": 1}, "prev"),
        ],
    )
    def test_refused(self, api, body, word):
        status, value = self._Wait(api, body)
        assert status == 400
        assert word in value["message"]


class TestJobResults:
    """Resources that wait for a job of their own."""

    def test_failed_job(self, api):
        api.master.results = lambda ops: (
            constants.JOB_STATUS_ERROR,
            [["OpPrereqError", ["no node", errors.ECODE_NOENT]]],
        )
        status, value = api.Send("GET", "/2/os")
        assert (status, value["message"]) == (404, "no node")

    def test_no_list(self, api):
        assert api.Send("GET", "/2/os")[0] == 502

    def test_takes_too_long(self, api):
        clock = api.rt.clock

        class _Slow(list):
            def pop(self, index=-1):
                clock.Advance(25)
                return constants.JOB_NOTCHANGED

        api.master.changes = _Slow([1])
        assert api.Send("GET", "/2/os")[0] == 504

    def test_anonymous_requests_are_bounded(self, api):
        api.master.results = lambda ops: (constants.JOB_STATUS_SUCCESS, [[]])
        statuses = [api.Send("GET", "/2/os", anonymous=True)[0] for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        assert api.Send("GET", f"{I_URI}/info", anonymous=True)[0] == 429
        assert api.Send("GET", "/2/os")[0] == 200
        api.rt.clock.Advance(1)
        assert api.Send("GET", "/2/os", anonymous=True)[0] == 200

    def test_console(self, api):
        api.master.results = lambda ops: (constants.JOB_STATUS_SUCCESS, [["ssh", "x"]])
        status, value = api.Send("GET", f"{I_URI}/console")
        assert status == 200
        assert (value["kind"], value["host"], value["command"]) == ("ssh", NODE, ["ssh", "x"])
        api.master.instances[0]["oper_state"] = False
        assert api.Send("GET", f"{I_URI}/console")[0] == 503


class TestLaterClients:
    """What programs of later generations read without asking for a version."""

    def test_one_group(self, api):
        ((group),) = api.Send("GET", "/2/groups?bulk=1")[1]
        assert group["node_list"] == [NODE]
        assert group["alloc_policy"] == "preferred"
        assert group["ipolicy"]["minmax"][0]["min"]["memory-size"] == 0
        node = api.Send("GET", N_URI)[1]
        assert node["group.uuid"] == group["uuid"]
        assert node["ndparams"] == {"exclusive_storage": False, "spindle_count": 1}
        assert api.Send("GET", "/2/groups/default")[1] == group
        assert api.Send("GET", "/2/groups/other")[0] == 404
        assert api.Send("GET", "/2/networks") == (200, [])

    def test_instances(self, api):
        instance = api.Send("GET", I_URI)[1]
        assert instance["oper_vcpus"] == 2
        assert instance["beparams"]["maxmem"] == instance["beparams"]["minmem"] == 128
        assert instance["beparams"]["memory"] == 128
        assert instance["disk.spindles"] == [None]

    def test_queries_are_handed_on(self, api):
        api.Send("PUT", "/2/query/node", {"fields": ["name"], "qfilter": ["=", "a", 1]})
        assert api.master.calls[-1] == ("Query", ("node", ["name"], ["=", "a", 1]))
        api.Send("GET", "/2/query/node/fields?fields=name")
        assert api.master.calls[-1] == ("QueryFields", ("node", ["name"]))
        assert "nosuch" in api.Refused("PUT", "/2/query/node", {"fields": ["name"], "nosuch": 1})

    def test_bulk_jobs(self, api):
        api.Submit("PUT", f"{I_URI}/shutdown")
        (job,) = api.Send("GET", "/2/jobs?bulk=1")[1]
        assert job["id"] == "1"
        assert "oplog" not in job


class TestConnector:
    def test_targets(self):
        assert connector.ParseTarget("/2/x?a=1&b=&a=2;c=%20") == (
            "/2/x",
            {"a": ["1", "2"], "c": [" "]},
        )
        assert connector.ParseTarget("https://h:1/2/x?a=1?b") == ("/2/x", {"a": ["1?b"]})
        assert connector.ParseTarget("/2/x") == ("/2/x", {})

    @pytest.mark.parametrize(
        "path", ["", "2", "/2/", "/2/nodes/a/b", "/2/jobs/x", "/2/nodes/a%41", "/2/nodes/\u00e9"]
    )
    def test_not_found(self, path):
        with pytest.raises(baserlib.HttpError):
            connector.Mapper().Find(path)

    def test_every_resource_has_documented_methods(self):
        handlers = connector.GetHandlers("n", "i", "j")
        for key, handler in handlers.items():
            assert handler.GetMethods(), key
            assert re.search(r"C\{/", handler.__doc__)
            for method in handler.GetMethods():
                assert getattr(handler, method).__doc__
                assert isinstance(handler.GetAccess(method), tuple)

    def test_what_changes_something_needs_a_user(self):
        for handler in connector.GetHandlers("n", "i", "j").values():
            for method in set(handler.GetMethods()) - {"GET"}:
                assert handler.GetAccess(method), f"{handler} {method}"

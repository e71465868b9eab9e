"""The table of node calls: completeness, checks of arguments, the two forms of unwrapped calls."""

import json
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganeti import errors, rpc, rpc_defs

_GOLDEN = pathlib.Path(__file__).parent.parent / "data" / "golden"
_NAMES = json.loads((_GOLDEN / "surface.json").read_text(encoding="utf-8"))["rpc"]

_DISK = {"dev_type": "lvm", "logical_id": ["xenvg", "u.disk0"], "size": 1024, "iv_name": "disk/0"}
_INST = {"name": "web1.example.com", "hypervisor": "fake", "disks": [_DISK], "nics": []}
_IPS = {"n1": "192.0.2.1", "n2": "192.0.2.2"}

#: For each call arguments as the master sends them.
_SAMPLES = {
    "version": [],
    "master_info": [],
    "node_info": ["xenvg", "fake"],
    "node_verify": [{"version": None, "filelist": ["/etc/hosts"]}, "cluster.example.com"],
    "node_volumes": [],
    "node_add": ["", "", "rsa", "rsa pub", "key", "pub"],
    "node_leave_cluster": [True],
    "node_start_master": [True, False],
    "node_stop_master": [False],
    "node_demote_from_mc": [],
    "node_powercycle": ["fake"],
    "node_tcp_ping": ["127.0.0.1", "192.0.2.1", 1811, 10, True],
    "node_has_ip_address": ["192.0.2.1"],
    "bridges_exist": [["xen-br0"]],
    "upload_file": ["/etc/hosts", [0, "text"], 0o100644, 0, "root", 1263910000.5, 1263910000],
    "write_ssconf_files": [{"cluster_name": "cluster.example.com"}],
    "hooks_runner": ["instance-add", "pre", {"GANETI_HOOKS_VERSION": "2"}],
    "iallocator_runner": ["hail", "{}"],
    "hypervisor_validate_params": ["kvm", {"acpi": True, "boot_order": "disk"}],
    "test_delay": [0.5],
    "instance_info": ["web1.example.com", "fake"],
    "all_instances_info": [["fake", "kvm"]],
    "instance_list": [["fake"]],
    "instance_start": [_INST],
    "instance_shutdown": [_INST, 120],
    "instance_reboot": [_INST, "hard", 120],
    "instance_os_add": [_INST, False, 0],
    "instance_run_rename": [_INST, "web2.example.com", 0],
    "instance_os_import": [_INST, "n1", ["/srv/a", None, False], "cluster.example.com", 0],
    "instance_migratable": [_INST],
    "migration_info": [_INST],
    "accept_instance": [_INST, "opaque", "192.0.2.2"],
    "finalize_migration": [_INST, None, True],
    "instance_migrate": [_INST, "192.0.2.2", True],
    "instance_get_migration_status": [_INST],
    "instance_abort_migration": [_INST],
    "instance_finalize_migration_src": [_INST, True, False],
    "blockdev_create": [_DISK, 1024, "web1.example.com", True, "originstname+web1"],
    "blockdev_remove": [_DISK],
    "blockdev_rename": [[[_DISK, ["xenvg", "new"]]]],
    "blockdev_assemble": [_DISK, "web1.example.com", True],
    "blockdev_shutdown": [_DISK],
    "blockdev_addchildren": [_DISK, [_DISK]],
    "blockdev_removechildren": [_DISK, []],
    "blockdev_getmirrorstatus": [[_DISK, _DISK]],
    "blockdev_find": [_DISK],
    "blockdev_close": ["", [_DISK]],
    "blockdev_getsize": [[_DISK]],
    "blockdev_grow": [_DISK, 64],
    "blockdev_snapshot": [_DISK],
    "blockdev_export": [_DISK, "n2", "/dev/xenvg/x", "cluster.example.com"],
    "drbd_disconnect_net": [_IPS, [_DISK]],
    "drbd_attach_net": [_IPS, [_DISK], "web1.example.com", True],
    "drbd_wait_sync": [_IPS, [_DISK]],
    "lv_list": ["xenvg"],
    "vg_list": [],
    "storage_list": ["file", [["/srv/storage"]], None, ["name", "size"]],
    "storage_modify": ["lvm-pv", [], "/dev/sda1", {"allocatable": False}],
    "storage_execute": ["lvm-vg", [], "xenvg", "fix-consistency"],
    "file_storage_dir_create": ["/srv/storage/web1"],
    "file_storage_dir_remove": ["/srv/storage/web1"],
    "file_storage_dir_rename": ["/srv/storage/web1", "/srv/storage/web2"],
    "os_diagnose": [],
    "os_get": ["debian"],
    "snapshot_export": [_DISK, "n2", _INST, "cluster.example.com", 0, 0],
    "finalize_export": [_INST, [_DISK, False]],
    "export_info": ["/srv/export/web1"],
    "export_list": [],
    "export_remove": ["web1.example.com"],
    "config_update": [[7, 8], [[0, 100], "new text"], 12345],
    "jobqueue_update": ["/var/lib/ganeti/queue/serial", [1, "eJw="]],
    "jobqueue_update_many": [[["/var/lib/ganeti/queue/serial", [1, "eJw="]]]],
    "jobqueue_purge": [],
    "jobqueue_rename": [[["/q/job-1", "/q/archive/0/job-1"]]],
    "jobqueue_set_drain": [True],
}

#: For some calls a payload that is right and one that is not.
_RESULTS = [
    ("version", 30, "30"),
    ("master_info", ["eth0", "192.0.2.9", "n1"], []),
    ("hooks_runner", [["instance-add-pre.d/00x", 2, ""]], [["x", 2]]),
    ("blockdev_find", None, []),
    ("blockdev_getsize", [1073741824, None], [1.5]),
    ("drbd_wait_sync", [False, 12.5], [False]),
    ("lv_list", {"lv1": ["20.06", True, False]}, {"lv1": "20.06"}),
    ("instance_start", None, True),
    ("jobqueue_rename", [None, None], [True]),
]

_READ_ONLY = [
    "all_instances_info",
    "blockdev_find",
    "blockdev_getmirrorstatus",
    "blockdev_getsize",
    "bridges_exist",
    "drbd_wait_sync",
    "export_info",
    "export_list",
    "hypervisor_validate_params",
    "iallocator_runner",
    "instance_get_migration_status",
    "instance_info",
    "instance_list",
    "instance_migratable",
    "lv_list",
    "master_info",
    "migration_info",
    "node_has_ip_address",
    "node_info",
    "node_tcp_ping",
    "node_verify",
    "node_volumes",
    "os_diagnose",
    "os_get",
    "storage_list",
    "version",
    "vg_list",
]

_UNWRAPPED = ["blockdev_getmirrorstatus", "blockdev_rename", "jobqueue_rename"]


_BAD_NAMES = [
    "../x",
    "/x",
    "..",
    ".",
    ".x",
    "-x",
    "a/b",
    "a\0b",
    "a\n",
    "a b",
    "a,b",
    "\ud800",
    "\u00e4",
    "x" * 300,
]


def _Whole(_old, new):
    return new


#: Name of an argument -> where in it a name stands, and what puts another one there.
_NAME_PLACES = {
    "name": [("", _Whole)],
    "instance": [
        ("name", lambda old, new: {**old, "name": new}),
        ("os", lambda old, new: {**old, "os": new}),
    ],
    "old_name": [("", _Whole)],
    "cluster_name": [("", _Whole)],
    "owner": [("", _Whole)],
    "instance_name": [("", _Whole)],
    "hooks_path": [("", _Whole)],
    "vg_name": [("", _Whole)],
    "src_node": [("", _Whole)],
    "dest_node": [("", _Whole)],
    "nodes_ip": [("node", lambda old, new: {**old, new: "192.0.2.3"})],
}
#: Units of storage: a path is a name of some.
_FREE_NAMES = {(call, "name") for call in ("storage_list", "storage_modify", "storage_execute")}


class TestTable:
    """BASE1: every node call of the 2.1 generation, and nothing half declared."""

    @pytest.mark.parametrize("name", _NAMES)
    def test_is_declared(self, name):
        assert rpc_defs.CALLS[name].name == name

    def test_every_call_has_a_sample_here(self):
        assert set(_SAMPLES) == set(rpc_defs.CALLS)

    @pytest.mark.parametrize("call", rpc_defs.CALLS.values(), ids=str)
    def test_rows_are_complete(self, call):
        assert call.kind in (rpc_defs.SINGLE, rpc_defs.MULTI)
        assert call.doc
        names = [arg.name for arg in call.args]
        assert len(names) == len(set(names))
        # The first argument of the client's method is the node, or the nodes.
        assert not {"node", "node_list", "self"} & set(names)
        assert call.GetTimeout(_SAMPLES[call.name]) > 0

    def test_unwrapped_calls_have_one_list(self):
        found = [call for call in rpc_defs.CALLS.values() if call.unwrapped]
        assert sorted(call.name for call in found) == _UNWRAPPED
        assert all(len(call.args) == 1 and call.args[0].type([]) for call in found)

    def test_read_only_calls(self):
        """What a dry run may make; a new call is none of these before somebody thought of it."""
        found = {call.name for call in rpc_defs.CALLS.values() if call.read_only}
        assert sorted(found) == _READ_ONLY
        # What only looks may be asked twice.
        assert found < rpc.client.REPEATABLE

    def test_static_calls(self):
        """What is needed before there is a configuration, or to write it."""
        assert sorted(call.name for call in rpc_defs.CALLS.values() if call.static) == [
            "config_update",
            "jobqueue_purge",
            "jobqueue_rename",
            "jobqueue_set_drain",
            "jobqueue_update",
            "jobqueue_update_many",
            "master_info",
            "node_leave_cluster",
            "node_start_master",
            "node_stop_master",
            "upload_file",
            "version",
            "write_ssconf_files",
        ]

    def test_client_methods(self):
        methods = {call.method for call in rpc_defs.CALLS.values()}
        assert len(methods) == len(rpc_defs.CALLS)
        assert "call_blockdev_getsizes" in methods
        assert "call_instance_start" in methods

    def test_timeouts_that_follow_from_arguments(self):
        calls = rpc_defs.CALLS
        assert calls["test_delay"].GetTimeout([3600]) == 3605
        assert calls["instance_shutdown"].GetTimeout([_INST, 7200]) > 7200
        assert calls["instance_reboot"].GetTimeout([_INST, "hard", 7200]) > 7200
        assert calls["version"].GetTimeout([]) == rpc_defs.TMO_URGENT

    @pytest.mark.parametrize(
        ("env", "seconds"),
        [({}, 960), ({"GANETI_HOOKS_TIMEOUT": "10"}, 90), ({"GANETI_HOOKS_TIMEOUT": "x"}, 960)],
    )
    def test_hooks_are_waited_for_longer_than_the_node_lets_them_run(self, env, seconds):
        assert rpc_defs.CALLS["hooks_runner"].GetTimeout(["node-add", "pre", env]) == seconds


class TestArguments:
    """What a call takes is checked before anything is done."""

    @pytest.mark.parametrize("name", sorted(_SAMPLES))
    def test_round_trip(self, name):
        args = _SAMPLES[name]
        assert rpc_defs.CheckArgs(name, args) is None
        body = json.loads(json.dumps(rpc_defs.EncodeArgs(name, args)))
        assert rpc_defs.DecodeArgs(name, body) == args

    @pytest.mark.parametrize("name", sorted(_SAMPLES))
    def test_every_argument_is_looked_at(self, name):
        """A value of no JSON type fits no argument but an opaque one."""
        for index, arg in enumerate(rpc_defs.CALLS[name].args):
            args = list(_SAMPLES[name])
            args[index] = {3}
            problem = rpc_defs.CheckArgs(name, args)
            if arg.name == "info" and name in ("accept_instance", "finalize_migration"):
                assert problem is None
            else:
                assert f"'{arg.name}' of call '{name}'" in problem
                assert "{3}" in problem

    @pytest.mark.parametrize("name", sorted(_SAMPLES))
    def test_number_of_arguments(self, name):
        args = _SAMPLES[name]
        assert f"takes {len(args)} arguments" in rpc_defs.CheckArgs(name, [*args, None])
        if args:
            assert f"not {len(args) - 1}" in rpc_defs.CheckArgs(name, args[:-1])

    @pytest.mark.parametrize(
        ("name", "args", "says"),
        [
            ("instance_reboot", [_INST, "full", 120], "'full' is not one of soft, hard"),
            ("instance_start", [{"hypervisor": "fake"}], "entry 'name' is missing"),
            ("upload_file", ["/x", [2, "text"], 0, 0, 0, 0, 0], "2 is not one of 0, 1"),
            ("hooks_runner", ["x", "pre", {"GANETI_X": 1}], "entry 'GANETI_X': 1"),
            ("test_delay", ["1"], "'1' is no number"),
        ],
    )
    def test_refusals_say_what_and_where(self, name, args, says):
        problem = rpc_defs.CheckArgs(name, args)
        assert says in problem
        with pytest.raises(errors.RPCFail) as info:
            rpc_defs.DecodeArgs(name, args)
        assert info.value.args == (problem,)

    def _Names(self):
        """(call, where a name stands, its arguments with that name replaced)."""
        for name, args in _SAMPLES.items():
            for index, arg in enumerate(rpc_defs.CALLS[name].args):
                for where, change in _NAME_PLACES.get(arg.name, []):
                    if (name, arg.name) not in _FREE_NAMES:
                        yield (
                            name,
                            f"{arg.name} {where}",
                            lambda bad, args=args, index=index, change=change: [
                                *args[:index],
                                change(args[index], bad),
                                *args[index + 1 :],
                            ],
                        )

    @pytest.mark.parametrize("bad", _BAD_NAMES)
    def test_names_that_would_lead_elsewhere(self, bad):
        """A name becomes a part of paths and command lines on the node."""
        found = 0
        for name, where, change in self._Names():
            with pytest.raises(errors.RPCFail, match=f"of call '{name}'"):
                rpc_defs.DecodeArgs(name, rpc_defs.EncodeArgs(name, change(bad)))
                pytest.fail(f"{name}: {where} may be {bad!r}")
            found += 1
        assert found > 40

    @pytest.mark.parametrize(
        "good", ["a", "A.b-c_d", "xn--bcher-kva.example.com", "0", "_x", "x" * 127]
    )
    def test_names_that_exist(self, good):
        for name, where, change in self._Names():
            # Scripts have no dots in their names.
            value = good.replace(".", "-") if name.endswith("_runner") else good
            assert rpc_defs.CheckArgs(name, change(value)) is None, where

    @pytest.mark.parametrize("body", [{}, "x", 5, True])
    def test_body_that_is_no_array(self, body):
        with pytest.raises(errors.RPCFail, match="'version' must be an array"):
            rpc_defs.DecodeArgs("version", body)

    def test_empty_body(self):
        assert rpc_defs.DecodeArgs("version", None) == []
        with pytest.raises(errors.RPCFail, match="takes 1 arguments"):
            rpc_defs.DecodeArgs("test_delay", None)


class TestUnwrapped:
    """Three calls send their list as the array itself; the wrapped form is understood as well."""

    @pytest.mark.parametrize("name", _UNWRAPPED)
    def test_both_forms(self, name):
        args = _SAMPLES[name]
        assert rpc_defs.EncodeArgs(name, args) == args[0]
        assert rpc_defs.DecodeArgs(name, args[0]) == args
        assert rpc_defs.DecodeArgs(name, args) == args

    @pytest.mark.parametrize("name", _UNWRAPPED)
    def test_empty_list(self, name):
        assert rpc_defs.DecodeArgs(name, []) == [[]]
        assert rpc_defs.DecodeArgs(name, [[]]) == [[]]

    @pytest.mark.parametrize("name", _UNWRAPPED)
    def test_wrong_ones(self, name):
        for body in ([5], [[[5]]], [["a", "b", "c"]], [None, None]):
            with pytest.raises(errors.RPCFail, match=f"of call '{name}'"):
                rpc_defs.DecodeArgs(name, body)


class TestResults:
    """What a node answers is declared, too."""

    @pytest.mark.parametrize(("name", "good", "bad"), _RESULTS)
    def test_results(self, name, good, bad):
        assert rpc_defs.CheckResult(name, good) is None
        assert f"Result of call '{name}'" in rpc_defs.CheckResult(name, bad)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just(_DISK),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


class TestAnyBody:
    """Whatever body comes is either arguments of the declared types or a clear failure."""

    @settings(max_examples=300, deadline=None)
    @given(st.sampled_from(sorted(_SAMPLES)), _JSON)
    def test_decode(self, name, body):
        try:
            args = rpc_defs.DecodeArgs(name, body)
        except errors.RPCFail as err:
            assert name in err.args[0]
            return
        assert rpc_defs.CheckArgs(name, args) is None
        again = json.loads(json.dumps(rpc_defs.EncodeArgs(name, args)))
        assert rpc_defs.DecodeArgs(name, again) == args

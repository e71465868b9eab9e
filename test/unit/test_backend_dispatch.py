"""Node calls, node side: from name and array to the answering pair."""

import pytest

from ganeti import constants, errors, objects, pathutils, rpc_defs
from ganeti.backend import dispatch

DISK = {"dev_type": "file", "logical_id": ["loop", "/d"], "physical_id": ["loop", "/d"], "size": 1}
INSTANCE = {"name": "inst1", "hypervisor": "fake", "disks": [DISK], "nics": []}

#: An acceptable value for each argument of a call.
SAMPLES = {
    "instance": INSTANCE,
    "disk": DISK,
    "disks": [DISK],
    "devices": [[DISK, ["loop", "/e"]]],
    "snapshots": [DISK, False],
    "renames": [["/a", "/b"]],
    "serials": [7, 8],
    "instructions": [[0, 100], "new text"],
    "files": [["/a", [0, "text"]]],
    "data": [0, "text"],
    "checks": {"version": None},
    "env": {"A": "b"},
    "phase": "pre",
    "reboot_type": "soft",
    "storage_type": "file",
    "storage_args": [],
    "fields": ["name"],
    "changes": {},
    "params": {},
    "values": {"cluster_name": "c"},
    "nodes_ip": {"node1": "192.0.2.1"},
    "hypervisors": ["fake"],
    "bridges": ["br0"],
    "src_images": [None, "image"],
}
_BY_TYPE = ("text", 7, True, 1.5, None)


def _Sample(arg):
    if arg.name in SAMPLES:
        return SAMPLES[arg.name]
    return next(value for value in _BY_TYPE if arg.type(value))


class TestEveryCall:
    """Each call of the table is validated, and implemented or clearly refused."""

    @pytest.mark.parametrize("name", sorted(rpc_defs.CALLS))
    def test_arguments_arrive_in_order(self, name):
        call = rpc_defs.CALLS[name]
        args = [_Sample(arg) for arg in call.args]
        seen = []
        body = rpc_defs.EncodeArgs(name, args)
        dispatch.Execute(name, body, {name: lambda *got: seen.extend(got)})
        assert len(seen) == len(args)
        for arg, sent, got in zip(call.args, args, seen, strict=True):
            if arg.name == "instance":
                assert isinstance(got, objects.Instance)
                assert got.disks[0].physical_id == ("loop", "/d")
            elif arg.name == "disk":
                assert isinstance(got, objects.Disk)
            elif arg.name == "disks":
                assert [disk.logical_id for disk in got] == [("loop", "/d")]
            elif arg.name == "devices":
                ((disk, new_id),) = got
                assert (disk.dev_type, new_id) == ("file", ("loop", "/e"))
            else:
                assert got == sent

    @pytest.mark.parametrize(
        "name", [name for name, call in rpc_defs.CALLS.items() if call.unwrapped]
    )
    def test_wrapped_form_of_unwrapped_calls(self, name):
        args = [_Sample(arg) for arg in rpc_defs.CALLS[name].args]
        seen = []
        for body in (args[0], args):
            dispatch.Execute(name, body, {name: seen.append})
        assert len(seen) == 2
        assert repr(seen[0]) == repr(seen[1])

    @pytest.mark.parametrize("name", sorted(set(rpc_defs.CALLS) - set(dispatch.HANDLERS)))
    def test_missing_ones_say_so(self, name):
        args = [_Sample(arg) for arg in rpc_defs.CALLS[name].args]
        success, text = dispatch.Answer(name, rpc_defs.EncodeArgs(name, args))
        assert success is False
        assert text == f"Call '{name}' is not implemented on this node"

    def test_nothing_but_declared_calls(self):
        assert set(dispatch.HANDLERS) <= set(rpc_defs.CALLS)


class TestRefusedArguments:
    """What does not fit is refused by name, before anything is done."""

    @pytest.mark.parametrize(
        ("name", "body", "text"),
        [
            ("test_delay", [], "takes 1 arguments (duration)"),
            ("test_delay", [1, 2], "not 2"),
            ("test_delay", ["1"], "Argument 'duration'"),
            ("test_delay", {"duration": 1}, "must be an array"),
            ("instance_shutdown", [{}, 120], "Argument 'instance'"),
            ("instance_shutdown", [INSTANCE, -1], "Argument 'timeout'"),
            ("blockdev_find", [{"dev_type": ""}], "Argument 'disk'"),
            ("upload_file", ["/x", [7, "x"], 0, 0, 0, 0, 0], "Argument 'data'"),
            ("instance_start", [{**INSTANCE, "disks": ["x"]}], "Argument 'instance'"),
        ],
    )
    def test_refused(self, name, body, text):
        def Handler(*args):
            raise AssertionError(f"called with {args}")

        success, message = dispatch.Answer(name, body, {name: Handler})
        assert success is False
        assert text in message

    def test_nested_deeply(self, caplog):
        """Refused like any wrong argument: nothing of ours has gone wrong."""
        body = []
        for _ in range(5000):
            body = [body]
        success, text = dispatch.Answer("node_verify", body)
        assert (success, "nested too deeply" in text) == (False, True)
        assert not any(record.exc_info for record in caplog.records)

    def test_no_body_means_no_arguments(self):
        assert dispatch.Answer("version", None) == (True, constants.PROTOCOL_VERSION)


class TestOutcomes:
    """Value, failure, mistake, end of the daemon."""

    def _Answer(self, handler):
        return dispatch.Answer("version", [], {"version": handler})

    def _Raise(self, err):
        def Handler():
            raise err

        return self._Answer(Handler)

    def test_value(self):
        assert self._Answer(lambda: None) == (True, None)
        assert self._Answer(lambda: ("a", {"b": (1, 2)})) == (True, ["a", {"b": [1, 2]}])

    def test_objects_travel_as_dictionaries(self):
        status = objects.BlockDevStatus(dev_path="/dev/x", is_degraded=False)
        success, payload = self._Answer(lambda: [status, None])
        assert success is True
        assert payload == [{"dev_path": "/dev/x", "is_degraded": False}, None]

    def test_failure(self):
        assert self._Raise(errors.RPCFail("why")) == (False, "why")

    @pytest.mark.parametrize(
        "err", [KeyError("why"), errors.LockError("why"), OSError(5, "why"), ValueError("why")]
    )
    def test_anything_else(self, err):
        success, text = self._Raise(err)
        assert success is False
        assert text.startswith("Error while executing backend function: ")
        assert "why" in text

    def test_quit_goes_through(self):
        with pytest.raises(errors.QuitGanetiException):
            self._Raise(errors.QuitGanetiException(True, "bye"))

    def test_paths_of_virtual_nodes(self):
        """BASE6: a path below the sender's root is one below ours."""
        mine = pathutils.AddRoot("/etc/x")
        wire = pathutils.ToWire(mine)
        seen = []
        _, payload = dispatch.Answer(
            "export_info", [wire], {"export_info": lambda path: seen.append(path) or path}
        )
        assert seen == [mine]
        assert payload == wire

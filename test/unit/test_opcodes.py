"""Opcodes: declarations, checks at submission, lenient loading of job files, names of others."""

import copy
import json
import pathlib
import pickle
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganeti import constants, errors, opcodes
from ganeti.opcodes import base, later

_GOLDEN = pathlib.Path(__file__).parent.parent / "data" / "golden"
_SURFACE = json.loads((_GOLDEN / "surface.json").read_text(encoding="utf-8"))["opcodes"]
_JOBS = sorted((_GOLDEN / "state" / "queue").glob("job-*"))

_CLASSES = sorted(opcodes.OP_MAPPING.values(), key=lambda cls: cls.OP_ID)


def _Delay(**params):
    state = {"OP_ID": "OP_TEST_DELAY", "duration": 0.5, "on_master": True, "on_nodes": []}
    return {**state, **params}


def _Refusal(state):
    """The text with which a submission is refused."""
    with pytest.raises(errors.OpPrereqError) as info:
        opcodes.OpCode.LoadOpCode(state)
    text, ecode = info.value.args
    assert ecode == errors.ECODE_INVAL
    return text


class TestDeclarations:
    """BASE1: every opcode and parameter of the 2.1 generation."""

    @pytest.mark.parametrize("op_id", sorted(_SURFACE))
    def test_has_all_parameters_and_the_summary_field(self, op_id):
        cls = opcodes.OP_MAPPING[op_id]
        names = [param.name for param in cls.GetAllParams()]
        assert set(_SURFACE[op_id]["params"]) <= set(names)
        assert len(names) == len(set(names))
        assert _SURFACE[op_id]["summary_field"] == cls.OP_DSC_FIELD

    @pytest.mark.parametrize("cls", _CLASSES)
    def test_rows_are_complete(self, cls):
        assert cls.__doc__
        for param in cls.GetAllParams():
            assert param.doc, param
            if param.required:
                assert param.default is None
                # "Given, and not as None" is one thing to check, not two.
                assert not param.type(None), param
            else:
                assert param.default is None or param.type(param.default), param

    @pytest.mark.parametrize("cls", _CLASSES)
    def test_result_of_nothing_is_declared(self, cls):
        assert isinstance(cls.OP_RESULT.name, str)

    @pytest.mark.parametrize(
        ("op_id", "good", "bad"),
        [
            ("OP_CLUSTER_VERIFY", True, None),
            ("OP_CLUSTER_VERIFY_DISKS", [{"n": "e"}, ["i"], {"i": [["n", "lv"]]}], [{}, []]),
            ("OP_INSTANCE_CREATE", ["n1", "n2"], None),
            ("OP_INSTANCE_ACTIVATE_DISKS", [["n1", "disk/0", None]], [["n1", "disk/0"]]),
            ("OP_BACKUP_EXPORT", [True, [True, False]], [True]),
            ("OP_BACKUP_QUERY", {"n1": False, "n2": ["i"]}, ["i"]),
            ("OP_INSTANCE_STARTUP", None, "started"),
        ],
    )
    def test_results(self, op_id, good, bad):
        assert opcodes.OP_MAPPING[op_id].OP_RESULT(good)
        assert not opcodes.OP_MAPPING[op_id].OP_RESULT(bad)

    def test_abstract_class_is_no_opcode(self):
        assert opcodes.OpCode not in opcodes.OP_MAPPING.values()
        assert "OP_ABSTRACT" in _Refusal({"OP_ID": "OP_ABSTRACT"})

    @pytest.mark.parametrize(
        ("name", "op_id"),
        [
            ("OpNodeQueryvols", "OP_NODE_QUERYVOLS"),
            ("OpRepairNodeStorage", "OP_REPAIR_NODE_STORAGE"),
            ("OpInstanceCreate", "OP_INSTANCE_CREATE"),
        ],
    )
    def test_id_follows_from_the_class_name(self, name, op_id):
        assert op_id == getattr(opcodes, name).OP_ID
        assert base._IdFromClassName(name) == op_id

    @pytest.mark.parametrize(("old", "new"), sorted(later.CLASS_ALIASES.items()))
    def test_class_names_of_2_1(self, old, new):
        assert getattr(opcodes, old) is getattr(opcodes, new)

    def test_every_class_is_exported(self):
        exported = {getattr(opcodes, name) for name in opcodes.__all__ if name.startswith("Op")}
        assert exported == {*_CLASSES, opcodes.OpCode}

    def test_unknown_class_name(self):
        with pytest.raises(AttributeError, match="OpInstanceCreat"):
            opcodes.OpInstanceCreat  # noqa: B018

    def test_no_later_id_is_used_for_something_else(self):
        assert not later.LATER_IDS & set(opcodes.OP_MAPPING)
        assert not set(later.ID_ALIASES) & set(opcodes.OP_MAPPING)

    def test_later_parameters_are_not_declared_ones(self):
        for op_id, params in later.LATER_PARAMS.items():
            for name in params:
                assert opcodes.OP_MAPPING[op_id].GetParam(name) is None, (op_id, name)

    def test_import_is_cheap(self):
        """A listing must not pay for libraries that it does not use."""
        code = (
            "import sys, ganeti.opcodes, ganeti.rpc_defs;"
            "print([name for name in ('dataclasses', 'inspect', 'simplejson', 'json', 'asyncio',"
            " 'subprocess', 'socket', 'logging') if name in sys.modules])"
        )
        result = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        assert result.stdout == "[]\n"


class TestRecord:
    """An opcode as a record: absent and set are two states."""

    def test_constructor_takes_declared_names_only(self):
        with pytest.raises(TypeError, match="OpTestDelay.*'nosuch'"):
            opcodes.OpTestDelay(nosuch=1)

    def test_attributes_are_declared_names_only(self):
        op = opcodes.OpTestDelay()
        with pytest.raises(AttributeError, match="nosuch"):
            op.nosuch = 1
        with pytest.raises(AttributeError, match="nosuch"):
            op.nosuch  # noqa: B018

    def test_absent_parameter_reads_as_its_default_and_stays_absent(self):
        op = opcodes.OpInstanceShutdown(instance_name="web1")
        assert op.timeout == constants.DEFAULT_SHUTDOWN_TIMEOUT
        assert not op.IsSet("timeout")
        assert op.__getstate__() == {"OP_ID": "OP_INSTANCE_SHUTDOWN", "instance_name": "web1"}

    def test_absent_required_parameter_has_no_value(self):
        with pytest.raises(AttributeError, match="'instance_name' of OP_INSTANCE_SHUTDOWN"):
            opcodes.OpInstanceShutdown().instance_name  # noqa: B018

    def test_default_is_an_object_of_the_callers_own(self):
        op = opcodes.OpInstanceStartup(instance_name="web1", force=False)
        op.hvparams["acpi"] = True
        assert op.hvparams == {}
        assert opcodes.OpInstanceStartup.GetParam("hvparams").default == {}

    def test_set_parameter_is_kept(self):
        op = opcodes.OpInstanceStartup(instance_name="web1", force=False)
        op.hvparams = {"acpi": True}
        assert op.__getstate__()["hvparams"] == {"acpi": True}
        assert op.IsSet("hvparams")

    def test_none_is_not_absent(self):
        op = opcodes.OpNodeSetParams(node_name="n1", offline=None)
        assert op.__getstate__() == {
            "OP_ID": "OP_NODE_SET_PARAMS",
            "node_name": "n1",
            "offline": None,
        }

    def test_filling_in_defaults(self):
        op = opcodes.OpInstanceShutdown(instance_name="web1")
        op.Validate(set_defaults=True)
        state = op.__getstate__()
        assert state["timeout"] == 120
        assert state["dry_run"] is False
        assert set(state) == {"OP_ID", *(p.name for p in opcodes.OpInstanceShutdown.GetAllParams())}

    @pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, pickle.dumps])
    def test_copies(self, copier):
        op = opcodes.OpTestDelay(duration=1.0, on_nodes=["n1"])
        other = copier(op)
        if isinstance(other, bytes):
            other = pickle.loads(other)
        assert other == op
        assert other is not op
        other.duration = 2.0
        assert other != op

    def test_equality(self):
        assert opcodes.OpClusterDestroy() != opcodes.OpClusterQuery()
        assert opcodes.OpTagsGet(kind="node") != "TAGS_GET"


class TestSummary:
    """What job listings show."""

    @pytest.mark.parametrize(
        ("op", "summary", "tiny"),
        [
            (opcodes.OpClusterVerify(), "CLUSTER_VERIFY", "C_VERIFY"),
            (
                opcodes.OpInstanceCreate(instance_name="web1.example.com"),
                "INSTANCE_CREATE(web1.example.com)",
                "I_CREATE",
            ),
            (opcodes.OpTestDelay(duration=0.1), "TEST_DELAY(0.1)", "TEST_DELAY"),
            (
                opcodes.OpNodeEvacStrategy(nodes=["n1.example.com"]),
                "NODE_EVAC_STRATEGY(['n1.example.com'])",
                "N_EVAC_STRATEGY",
            ),
            (opcodes.OpInstanceRename(instance_name="web1"), "INSTANCE_RENAME", "I_RENAME"),
            (opcodes.OpTestAllocator(), "TEST_ALLOCATOR(None)", "TEST_ALLOCATOR"),
            (opcodes.OpTagsGet(), "TAGS_GET(None)", "TAGS_GET"),
        ],
    )
    def test_summary(self, op, summary, tiny):
        assert op.Summary() == summary
        assert op.TinySummary() == tiny
        assert summary in repr(op)


class TestSubmission:
    """A submission is checked as a whole; refusals name parameter and value."""

    def test_good_one(self):
        op = opcodes.OpCode.LoadOpCode(_Delay(dry_run=True))
        assert isinstance(op, opcodes.OpTestDelay)
        assert op.__getstate__() == _Delay(dry_run=True)

    def test_common_parameters(self):
        common = {
            "dry_run": False,
            "debug_level": 2,
            "priority": -10,
            "depends": [["12", ["success"]], [13, []]],
            "comment": "why not",
            "reason": [["gnt:client", "test", 1263910000000000000]],
        }
        op = opcodes.OpCode.LoadOpCode(_Delay(**common))
        assert op.__getstate__() == _Delay(**common)

    def test_unknown_parameter(self):
        text = _Refusal(_Delay(nosuch=[1]))
        assert "'nosuch'" in text
        assert "[1]" in text
        assert "OP_TEST_DELAY" in text
        assert "duration" in text

    @pytest.mark.parametrize(
        ("name", "value", "shown"),
        [
            ("duration", "long", "'long'"),
            ("duration", True, "True"),
            ("on_master", 1, "1 is no boolean"),
            ("on_nodes", "n1", "'n1'"),
            ("on_nodes", ["n1", 3], "item 1: 3"),
            ("priority", 20, "20 is no integer from -20 to 19"),
            ("depends", ["12"], "item 0: '12'"),
            ("dry_run", "yes", "'yes'"),
        ],
    )
    def test_wrong_type(self, name, value, shown):
        text = _Refusal(_Delay(**{name: value}))
        assert f"'{name}' of OP_TEST_DELAY" in text
        assert shown in text

    def test_message_says_what_would_be_right(self):
        state = {"OP_ID": "OP_INSTANCE_REBOOT", "instance_name": "i", "reboot_type": "warm"}
        state["ignore_secondaries"] = False
        text = _Refusal(state)
        assert "'warm'" in text
        assert "full, hard, soft" in text

    def test_long_values_are_shortened(self):
        assert len(_Refusal(_Delay(duration="x" * 10000))) < 300

    @pytest.mark.parametrize("value", [{}, {"duration": None}])
    def test_missing_required_parameter(self, value):
        state = {"OP_ID": "OP_TEST_DELAY", "on_master": True, "on_nodes": [], **value}
        assert "Required parameter 'duration' of OP_TEST_DELAY missing" in _Refusal(state)

    @pytest.mark.parametrize(
        "data", [None, 5, "OP_TEST_DELAY", [], {}, {"OP_ID": 5}, {"OP_ID": None}, {"OP_ID": "X"}]
    )
    def test_no_opcode_at_all(self, data):
        assert "OP_ID" in _Refusal(data)
        with pytest.raises(ValueError, match="OP_ID"):
            opcodes.OpCode.LoadOpCode(data, strict=False)

    def test_opcode_of_a_later_version(self):
        assert "later version" in _Refusal({"OP_ID": "OP_GROUP_ADD"})

    @pytest.mark.parametrize("alias", sorted(later.ID_ALIASES))
    def test_other_ids(self, alias):
        problem, cls = base._FindClass({"OP_ID": alias})
        assert problem == ""
        assert cls is opcodes.OP_MAPPING[later.ID_ALIASES[alias]]

    def test_none_means_absent_where_the_type_does_not_know_none(self):
        state = {"OP_ID": "OP_INSTANCE_SHUTDOWN", "instance_name": "i", "timeout": None}
        op = opcodes.OpCode.LoadOpCode({**state, "dry_run": None})
        assert op.timeout == 120
        assert op.__getstate__() == {"OP_ID": "OP_INSTANCE_SHUTDOWN", "instance_name": "i"}

    def test_input_is_not_changed(self):
        state = _Delay(timeout=None, dry_run=None, repeat=0)
        before = copy.deepcopy(state)
        opcodes.OpCode.LoadOpCode(state, strict=False)
        assert state == before

    @pytest.mark.parametrize("path", _JOBS, ids=lambda path: path.name)
    def test_what_clients_of_2_1_submit(self, path):
        for op in json.loads(path.read_text(encoding="utf-8"))["ops"]:
            assert opcodes.OpCode.LoadOpCode(op["input"]).__getstate__() == op["input"]

    def test_there_are_such_jobs(self):
        assert len(_JOBS) == 5

    @pytest.mark.parametrize(
        ("op_id", "params"),
        [
            ("OP_CLUSTER_SET_PARAMS", {"candidate_pool_size": "5"}),
            ("OP_CLUSTER_SET_PARAMS", {"uid_pool": [[1000, 1009], (2000, 2000)]}),
            ("OP_CLUSTER_SET_PARAMS", {"os_hvp": {"deb": {"kvm": {"acpi": False}}}}),
            ("OP_CLUSTER_SET_PARAMS", {"default_iallocator": {"allocate": ["hail", "own"]}}),
            ("OP_CLUSTER_SET_PARAMS", {"default_iallocator": "hail"}),
            ("OP_TEST_ALLOCATOR", {"direction": "in", "mode": "capacity"}),
            ("OP_NODE_ADD", {"node_name": "n", "readd": None, "secondary_ip": None}),
            ("OP_TAGS_GET", {"kind": "cluster", "name": ""}),
        ],
    )
    def test_accepted_forms(self, op_id, params):
        state = {"OP_ID": op_id, **params}
        assert opcodes.OpCode.LoadOpCode(state).__getstate__() == state


class TestJobFiles:
    """Job files may come from another version: what is known is taken, the rest left out."""

    def test_unknown_keys_are_left_out(self):
        op = opcodes.OpCode.LoadOpCode(_Delay(nosuch=1), strict=False)
        assert op.__getstate__() == _Delay()

    def test_values_are_taken_as_they_are(self):
        state = {"OP_ID": "OP_TEST_DELAY", "duration": "long", "on_nodes": None}
        op = opcodes.OpCode.LoadOpCode(state, strict=False)
        assert op.__getstate__() == state

    def test_later_names_are_translated(self):
        state = {"OP_ID": "OP_INSTANCE_RENAME", "ip_check": True, "name_check": False}
        op = opcodes.OpCode.LoadOpCode(state, strict=False)
        assert op.__getstate__() == {"OP_ID": "OP_INSTANCE_RENAME", "ignore_ip": False}


_SAMPLES = {
    "OP_CLUSTER_VERIFY": {
        "skip_checks": [],
        "verbose": False,
        "error_codes": False,
        "debug_simulate_errors": False,
    },
    "OP_CLUSTER_SET_PARAMS": {},
    "OP_NODE_ADD": {"node_name": "n1"},
    "OP_NODE_EVACUATE": {"node_name": "n1"},
    "OP_NODE_MIGRATE": {"node_name": "n1"},
    "OP_INSTANCE_CREATE": {
        "instance_name": "i",
        "mode": "create",
        "disks": [],
        "nics": [],
        "start": False,
        "wait_for_sync": True,
        "ip_check": False,
        "hvparams": {},
        "beparams": {},
    },
    "OP_INSTANCE_MIGRATE": {"instance_name": "i", "cleanup": False},
    "OP_INSTANCE_RENAME": {"instance_name": "i", "new_name": "j"},
    "OP_INSTANCE_SET_PARAMS": {"instance_name": "i"},
    "OP_INSTANCE_STARTUP": {"instance_name": "i", "force": False},
    "OP_BACKUP_EXPORT": {"instance_name": "i", "target_node": "n1", "shutdown": True},
    "OP_TEST_ALLOCATOR": {"direction": "in", "mode": "allocate", "name": "i"},
    "OP_TEST_DELAY": {"duration": 1, "on_master": True, "on_nodes": []},
}


class TestLaterVersions:
    """Parameters of later versions: translated, or nothing, or refused; never ignored."""

    @pytest.mark.parametrize(
        ("op_id", "given", "becomes"),
        [
            ("OP_INSTANCE_RENAME", {"ip_check": True}, {"ignore_ip": False}),
            ("OP_INSTANCE_RENAME", {"ip_check": False}, {"ignore_ip": True}),
            ("OP_INSTANCE_RENAME", {"ip_check": None}, {}),
            ("OP_INSTANCE_MIGRATE", {"mode": "live"}, {"live": True}),
            ("OP_INSTANCE_MIGRATE", {"mode": "non-live"}, {"live": False}),
            ("OP_INSTANCE_MIGRATE", {"mode": None, "live": None}, {"live": True}),
            ("OP_INSTANCE_MIGRATE", {"mode": None, "live": False}, {"live": False}),
            ("OP_NODE_MIGRATE", {"mode": "non-live", "ignore_ipolicy": True}, {"live": False}),
            ("OP_TEST_ALLOCATOR", {"memory": 512, "iallocator": "hail"}, {"mem_size": 512}),
            (
                "OP_INSTANCE_SET_PARAMS",
                {
                    "nics": [["add", -1, {"ip": "none"}], ["modify", 0, {"link": "br1"}]],
                    "disks": [("remove", "-1", {}), ["modify", "1", {"mode": "ro"}]],
                },
                {
                    "nics": [["add", {"ip": "none"}], [0, {"link": "br1"}]],
                    "disks": [["remove", {}], [1, {"mode": "ro"}]],
                },
            ),
            ("OP_INSTANCE_STARTUP", {"instance_uuid": "u-1"}, {"instance_name": "u-1"}),
            ("OP_INSTANCE_STARTUP", {"instance_uuid": None}, {"instance_name": "i"}),
            ("OP_BACKUP_EXPORT", {"target_node_uuid": "u-3"}, {"target_node": "u-3"}),
            ("OP_TEST_DELAY", {"on_node_uuids": ["u-1"]}, {"on_nodes": ["u-1"]}),
        ],
    )
    def test_translated(self, op_id, given, becomes):
        state = {"OP_ID": op_id, **_SAMPLES[op_id], **given}
        loaded = opcodes.OpCode.LoadOpCode(state).__getstate__()
        assert {name: loaded[name] for name in becomes} == becomes
        assert not (set(given) - set(becomes)) & set(loaded)

    @pytest.mark.parametrize(
        ("op_id", "name", "value"),
        [
            ("OP_CLUSTER_SET_PARAMS", "osparams", {}),
            ("OP_CLUSTER_SET_PARAMS", "drbd_helper", None),
            ("OP_CLUSTER_VERIFY", "group_name", None),
            ("OP_NODE_ADD", "vm_capable", True),
            ("OP_NODE_EVACUATE", "mode", "secondary-only"),
            ("OP_INSTANCE_CREATE", "ignore_ipolicy", True),
            ("OP_INSTANCE_CREATE", "osparams", {}),
            ("OP_INSTANCE_CREATE", "tags", []),
            ("OP_INSTANCE_CREATE", "pnode_uuid", None),
            ("OP_BACKUP_EXPORT", "mode", "local"),
            ("OP_TEST_DELAY", "repeat", 0),
        ],
    )
    def test_a_wish_for_nothing_is_dropped(self, op_id, name, value):
        state = {"OP_ID": op_id, **_SAMPLES[op_id]}
        if op_id == "OP_NODE_MIGRATE":
            state["live"] = True
        loaded = opcodes.OpCode.LoadOpCode({**state, name: value}).__getstate__()
        assert loaded == state

    @pytest.mark.parametrize(
        ("op_id", "name", "value"),
        [
            ("OP_CLUSTER_SET_PARAMS", "drbd_helper", "/bin/true"),
            ("OP_NODE_EVACUATE", "mode", "all"),
            ("OP_NODE_ADD", "vm_capable", False),
            ("OP_INSTANCE_CREATE", "osparams", {"dhcp": "yes"}),
            ("OP_INSTANCE_MIGRATE", "mode", "warp"),
            ("OP_INSTANCE_MIGRATE", "allow_failover", True),
            ("OP_INSTANCE_CREATE", "target_node_uuid", "u-3"),
            ("OP_INSTANCE_RENAME", "name_check", False),
            ("OP_BACKUP_EXPORT", "mode", "remote"),
            ("OP_TEST_DELAY", "repeat", 3),
        ],
    )
    def test_a_wish_for_a_missing_feature_is_refused(self, op_id, name, value):
        state = (
            {"OP_ID": op_id, "live": True} if op_id == "OP_INSTANCE_MIGRATE" else {"OP_ID": op_id}
        )
        text = _Refusal({**state, **_SAMPLES[op_id], name: value})
        assert f"'{name}' of {op_id}" in text
        assert repr(value) in text
        assert "later version" in text

    def test_changes_that_pairs_can_not_say_are_refused(self):
        state = {"OP_ID": "OP_INSTANCE_SET_PARAMS", "instance_name": "i"}
        text = _Refusal({**state, "nics": [["remove", 0, {}]]})
        assert "'nics'" in text


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def _States(draw):
    cls = draw(st.sampled_from(_CLASSES))
    names = [param.name for param in cls.GetAllParams()]
    names += [*later.LATER_PARAMS.get(cls.OP_ID, ()), "ip_check", "mode", "instance_uuid", "x"]
    state = draw(st.dictionaries(st.sampled_from(names), _JSON, max_size=8))
    return {"OP_ID": cls.OP_ID, **state}


class TestAnyInput:
    """Whatever is submitted is either an opcode or refused with a reason."""

    @settings(max_examples=300, deadline=None)
    @given(_States())
    def test_strict(self, state):
        try:
            op = opcodes.OpCode.LoadOpCode(state)
        except errors.OpPrereqError as err:
            assert err.args[1] == errors.ECODE_INVAL
            return
        op.Validate()
        again = opcodes.OpCode.LoadOpCode(op.__getstate__())
        assert again == op

    @settings(max_examples=200, deadline=None)
    @given(_States())
    def test_lenient(self, state):
        op = opcodes.OpCode.LoadOpCode(state, strict=False)
        assert state["OP_ID"] == op.OP_ID
        assert op.Summary().startswith(op.OP_ID[3:])

    @settings(max_examples=100, deadline=None)
    @given(_JSON)
    def test_no_opcode(self, data):
        with pytest.raises(errors.OpPrereqError):
            opcodes.OpCode.LoadOpCode(data)

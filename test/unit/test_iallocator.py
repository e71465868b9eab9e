"""Instance allocators: what they are told, how they are asked, which answers are believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti import constants, errors, iallocator, opcodes, serializer
from ganeti.cmdlib import fake
from ganeti.config import fake as config_fake
from ganeti.iallocator import answer, document
from ganeti.iallocator import fake as scripts

NODE1, NODE2, NODE3, NODE4 = (config_fake.NodeName(number) for number in (1, 2, 3, 4))
ALLOCATE, RELOCATE, EVACUATE = iallocator.MODES
PLAIN_REQUEST = {
    "name": "new.example.com",
    "disk_template": "plain",
    "disks": [{"size": 100, "mode": "rw"}, {"size": 28, "mode": "ro"}],
    "nics": [],
    "os": "noop+default",
    "memory": 256,
    "vcpus": 2,
}


def Mirrored(name, primary, secondary, **values):
    return fake.NewCreate(name, primary, snode=secondary, disk_template="drbd", **values)


@pytest.fixture
def world():
    """Four nodes; two mirrored instances have their secondary on the second one."""
    world = fake.NewWorld(4)
    world.Run(Mirrored("i1.example.com", NODE1, NODE2))
    world.Run(Mirrored("i2.example.com", NODE3, NODE2, start=False))
    world.Run(fake.NewCreate("files.example.com", NODE1))
    world.Run(fake.NewCreate("empty.example.com", NODE1, disk_template="diskless", disks=[]))
    return world


class Unit:
    """As much of a logical unit as is needed."""

    def __init__(self, world):
        self.cfg, self.rpc, self.log = world.cfg, world.rpc, []

    def LogInfo(self, message, *args):
        self.log.append(message % args if args else message)

    def LogWarning(self, message, *args, hint=None):
        self.LogInfo(message, *args)


@pytest.fixture
def unit(world):
    return Unit(world)


def Ask(world, mode=ALLOCATE, **request):
    return iallocator.IAllocator(world.cfg, world.rpc, mode, **(request or PLAIN_REQUEST))


def SetDefaults(world, **default_iallocator):
    cluster = world.cfg.GetClusterInfo()
    cluster.default_iallocator = default_iallocator
    world.cfg.Update(cluster, None)


def SetNode(world, name, **flags):
    node = world.cfg.GetNodeInfo(name)
    for flag, value in flags.items():
        setattr(node, flag, value)
    world.cfg.Update(node, None)


class TestDocument:
    """IA1: the input of Ganeti 2.1, and of hail."""

    def test_cluster(self, world):
        data = Ask(world).in_data
        assert serializer.Load(Ask(world).in_text) == data
        assert data["version"] == 2
        assert data["cluster_name"] == world.cfg.GetClusterName()
        assert data["cluster_tags"] == []
        assert data["enabled_hypervisors"] == ["fake"]
        assert set(data["nodes"]) == {NODE1, NODE2, NODE3, NODE4}
        (group,) = data["nodegroups"]
        assert {node["group"] for node in data["nodes"].values()} == {group}

    def test_node(self, world):
        world.rpc.nodes[NODE1].running["i1.example.com"] = 100  # Of 128
        node = Ask(world).in_data["nodes"][NODE1]
        expected = {
            "tags": [],
            "primary_ip": world.cfg.GetNodeInfo(NODE1).primary_ip,
            "secondary_ip": world.cfg.GetNodeInfo(NODE1).secondary_ip,
            "offline": False,
            "drained": False,
            "master_candidate": True,
            "total_memory": 8192,
            "reserved_memory": 512,
            "free_memory": 4096 - 100 - 128 - 128 - 28,
            "total_disk": 100000,
            "free_disk": 50000,
            "total_cpus": 4,
            "i_pri_memory": 3 * 128,
            "i_pri_up_memory": 3 * 128,
        }
        assert {key: node[key] for key in expected} == expected

    def test_stopped_instances_keep_their_memory(self, world):
        node = Ask(world).in_data["nodes"][NODE3]
        assert node["free_memory"] == 4096 - 128
        assert (node["i_pri_memory"], node["i_pri_up_memory"]) == (128, 0)

    def test_instance(self, world):
        instances = Ask(world).in_data["instances"]
        one = instances["i1.example.com"]
        nic = world.cfg.GetInstanceInfo("i1.example.com").nics[0]
        expected = {
            "tags": [],
            "admin_up": True,
            "vcpus": 1,
            "memory": 128,
            "os": "noop+default",
            "nodes": [NODE1, NODE2],
            "nics": [
                {
                    "mac": nic.mac,
                    "ip": None,
                    "mode": "bridged",
                    "link": "xen-br0",
                    "bridge": "xen-br0",
                }
            ],
            "disks": [{"size": 16, "mode": "rw"}, {"size": 32, "mode": "rw"}],
            "disk_template": "drbd",
            "hypervisor": "fake",
            "disk_space_total": 16 + 32 + 2 * 128,
        }
        assert {key: one[key] for key in expected} == expected
        assert instances["i2.example.com"]["admin_up"] is False
        assert instances["files.example.com"]["disk_space_total"] == 48
        assert instances["empty.example.com"]["disk_space_total"] == 0

    def test_nodes_that_are_not_asked(self, world):
        live = set(Ask(world).in_data["nodes"][NODE4])
        SetNode(world, NODE4, offline=True, master_candidate=False)
        SetNode(world, NODE3, drained=True, master_candidate=False)
        nodes = Ask(world).in_data["nodes"]
        assert nodes[NODE4]["offline"]
        assert live - set(nodes[NODE4]) >= {"total_memory", "free_disk", "i_pri_memory"}
        # Instances on it have needs, though nothing new is put there
        assert nodes[NODE3]["drained"]
        assert set(nodes[NODE3]) == live

    @pytest.mark.parametrize("call", ["node_info", "all_instances_info"])
    def test_a_node_that_fails_is_not_usable(self, world, call):
        world.rpc.Fail(call, "it broke", nodes=[NODE4])
        question = Ask(world)
        assert "it broke" in question.unusable[NODE4]
        assert question.in_data["nodes"][NODE4]["offline"]
        assert "free_memory" not in question.in_data["nodes"][NODE4]
        assert not question.in_data["nodes"][NODE3]["offline"]

    @pytest.mark.parametrize("value", [None, "12", True, 1.5])
    def test_a_node_without_figures(self, value):
        good = {"memory_total": 1, "memory_dom0": 1, "memory_free": 1, "cpu_total": 1}
        assert document.CheckNodeInfo(good) is None
        for key in good:
            assert key in document.CheckNodeInfo({**good, key: value})
            assert key in document.CheckNodeInfo({k: v for k, v in good.items() if k != key})

    def test_without_a_volume_group(self, world):
        cluster, node = world.cfg.GetClusterInfo(), world.cfg.GetNodeInfo(NODE1)
        info = {"memory_total": 1, "memory_dom0": 1, "memory_free": 1, "cpu_total": 1}
        answers = document.NodeAnswers({NODE1: {**info, "vg_size": None}})
        built = document.BuildNode(cluster, node, [], answers)
        assert (built["total_disk"], built["free_disk"]) == (0, 0)

    def test_allocate(self, world):
        nic = world.cfg.GetInstanceInfo("i1.example.com").nics[0]
        request = Ask(world, **{**PLAIN_REQUEST, "nics": [nic, {"mac": "x"}]}).in_data["request"]
        assert request == {
            "type": "allocate",
            "name": "new.example.com",
            "disk_template": "plain",
            "tags": [],
            "os": "noop+default",
            "vcpus": 2,
            "memory": 256,
            "spindle_use": 1,
            "disks": PLAIN_REQUEST["disks"],
            "disk_space_total": 128,
            "nics": [
                {
                    "mac": nic.mac,
                    "ip": None,
                    "mode": "bridged",
                    "link": "xen-br0",
                    "bridge": "xen-br0",
                    "nicparams": {},
                },
                {"mac": "x"},
            ],
            "required_nodes": 1,
            "hypervisor": "fake",
        }
        assert Ask(world, **{**PLAIN_REQUEST, "disk_template": "drbd"}).required_nodes == 2

    def test_relocate(self, world):
        assert Ask(world, RELOCATE, name="i1.example.com").in_data["request"] == {
            "type": "relocate",
            "name": "i1.example.com",
            "disk_space_total": 16 + 32 + 2 * 128,
            "required_nodes": 1,
            "relocate_from": [NODE2],
        }

    @pytest.mark.parametrize(
        ("name", "code"),
        [("files.example.com", errors.ECODE_INVAL), ("nosuch.example.com", errors.ECODE_NOENT)],
    )
    def test_can_not_be_relocated(self, world, name, code):
        with pytest.raises(errors.OpPrereqError) as err:
            Ask(world, RELOCATE, name=name)
        assert err.value.args[1] == code

    def test_relocate_without_its_secondary(self, world):
        instance = world.cfg.GetInstanceInfo("i1.example.com")
        instance.disks = []
        with pytest.raises(errors.OpPrereqError, match="not exactly one secondary") as err:
            document.BuildRelocate(instance)
        assert err.value.args[1] == errors.ECODE_STATE

    def test_relocate_on_shared_storage(self, world):
        """Without a secondary, it is the primary that is to be left."""
        instance = world.cfg.GetInstanceInfo("files.example.com")
        instance.disk_template = constants.DT_SHARED_FILE
        assert document.BuildRelocate(instance)["relocate_from"] == [NODE1]

    def test_evacuate(self, world):
        request = Ask(world, EVACUATE, evac_nodes=["as", "given"]).in_data["request"]
        assert request == {"type": "multi-evacuate", "evac_nodes": ["as", "given"]}

    def test_no_such_mode(self, world):
        with pytest.raises(errors.OpPrereqError, match="'capacity'"):
            Ask(world, "capacity", name="x")


def Good(**values):
    return serializer.Dump({"success": True, "info": "fine", "result": [NODE1], **values})


#: Whatever a script may print that is JSON.
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
NAMES = st.sampled_from([NODE1, NODE2, NODE3, NODE4, "i1", "i2", "i3", "", "nosuch"])
DOCUMENT = {
    "nodes": {
        NODE1: {"offline": False, "drained": False},
        NODE2: {"offline": False, "drained": False},
        NODE3: {"offline": True, "drained": False},
        NODE4: {"offline": False, "drained": True},
        "node5": {"offline": False, "drained": False},
    },
    "instances": {
        "i1": {"nodes": [NODE1, NODE2]},
        "i2": {"nodes": [NODE2, NODE1]},
        "i3": {"nodes": ["node5", NODE2]},
    },
}


def WithRequest(**request):
    return {**DOCUMENT, "request": request}


class TestAnswer:
    """IA1: answers are taken for hostile."""

    def test_good(self):
        assert answer.Parse("s", Good()) == answer.Answer(True, "fine", [NODE1])
        old = serializer.Dump({"success": True, "info": "", "nodes": [NODE1]})
        assert answer.Parse("s", old).result == [NODE1]
        # A list of nodes beside the result is nobody's business
        assert answer.Parse("s", Good(nodes=3)).result == [NODE1]

    def test_refusal(self):
        text = serializer.Dump({"success": False, "info": "no room", "result": [NODE1]})
        assert answer.Parse("s", text) == answer.Answer(False, "no room", [])

    def test_words_are_made_harmless(self):
        info = answer.Parse("s", Good(info="\x1b[2Jgone\nlost" + "x" * 5000)).info
        assert info.startswith("[2Jgone lost")
        assert len(info) < 2100

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("", "no JSON"),
            ("{", "no JSON"),
            ("[" * 100000, "no JSON"),
            ("3", "JSON object"),
            ("[]", "JSON object"),
            ("{}", "'success' is missing"),
            ('{"success": true, "info": ""}', "'result' is missing"),
            ('{"success": true, "result": []}', "'info' is missing"),
            (Good(success=1), "'success' must be true or false"),
            (Good(success=None), "'success' must be"),
            (Good(info=["x"]), "'info' must be a text"),
            (Good(result="node1"), "'result' must be a list"),
            (Good(result=None), "'result' must be a list"),
            (Good(result={}), "'result' must be a list"),
            (" " * (constants.IALLOCATOR_MAX_OUTPUT + 1), "more than"),
        ],
    )
    def test_wrong_form(self, text, match):
        with pytest.raises(errors.OpExecError, match=f"iallocator 's' is wrong: .*{match}") as err:
            answer.Parse("s", text)
        assert len(str(err.value)) < 500

    @given(st.text() | JSON.map(serializer.Dump))
    def test_anything(self, text):
        """Nothing but an answer or the right error comes out."""
        try:
            found = answer.Parse("s", text)
        except errors.OpExecError:
            return
        assert isinstance(found.success, bool)
        assert isinstance(found.result, list)

    @pytest.mark.parametrize(
        ("result", "match"),
        [
            (["nosuch"], "'nosuch' is no node"),
            ([NODE1[:5]], "is no node"),
            ([3], "3 is no node"),
            ([None], "None is no node"),
            ([[NODE1]], "is no node"),
            ([{}], "is no node"),
            (["node5", "node5"], "twice"),
            ([NODE3], "offline"),
            ([NODE4], "drained"),
            ([NODE1], "is on"),
            ([NODE2], "is on"),
        ],
    )
    def test_wrong_nodes(self, result, match):
        asked = WithRequest(type=RELOCATE, relocate_from=[NODE2])
        with pytest.raises(errors.OpExecError, match=match):
            answer.Check("s", answer.Answer(True, "", result), asked, [NODE1, NODE2])
        assert answer.CheckNodes("s", ["node5"], DOCUMENT["nodes"], [NODE1]) == ["node5"]

    @given(st.lists(NAMES | JSON), st.sets(NAMES))
    def test_any_nodes(self, result, barred):
        try:
            found = answer.CheckNodes("s", result, DOCUMENT["nodes"], barred)
        except errors.OpExecError:
            return
        assert found == result
        assert set(found) <= {NODE1, NODE2, "node5"} - barred
        assert len(set(found)) == len(found)

    GOOD_MOVES = (["i1", "node5"], ["i3", NODE1])

    @pytest.mark.parametrize(
        ("rows", "match"),
        [
            ([["i1", "node5"]], "leaves out the instances i3"),
            ([*GOOD_MOVES, ["i2", "node5"]], "i2 has no secondary on the nodes"),
            ([*GOOD_MOVES, ["i1", "node5"]], "i1 is there twice"),
            ([*GOOD_MOVES, ["nosuch", "node5"]], "'nosuch' is no instance"),
            ([*GOOD_MOVES, [[], "node5"]], "is no instance"),
            ([*GOOD_MOVES, "i1"], "no pair"),
            ([*GOOD_MOVES, ["i1"]], "no pair"),
            ([*GOOD_MOVES, ["i1", "node5", "x"]], "no pair"),
            ([["i1", NODE1], ["i3", NODE1]], "is on"),
            ([["i1", NODE2], ["i3", NODE1]], "is on"),
            ([["i1", NODE3], ["i3", NODE1]], "offline"),
            ([["i1", NODE4], ["i3", NODE1]], "drained"),
            ([["i1", "nosuch"], ["i3", NODE1]], "no node"),
            ([["i1", None], ["i3", NODE1]], "no node"),
        ],
    )
    def test_wrong_moves(self, rows, match):
        asked = WithRequest(type=EVACUATE, evac_nodes=[NODE2])
        with pytest.raises(errors.OpExecError, match=match):
            answer.Check("s", answer.Answer(True, "", rows), asked)
        moves = answer.Check("s", answer.Answer(True, "", list(self.GOOD_MOVES)), asked)
        assert moves.result == list(self.GOOD_MOVES)

    @given(st.lists(st.lists(NAMES, max_size=3) | st.tuples(NAMES, NAMES).map(list) | JSON))
    def test_any_moves(self, rows):
        try:
            found = answer.CheckMoves("s", rows, DOCUMENT, [NODE2])
        except errors.OpExecError:
            return
        assert sorted(instance for instance, _ in found) == ["i1", "i3"]
        for instance, node in found:
            assert node in {NODE1, "node5"} - set(DOCUMENT["instances"][instance]["nodes"])

    @given(st.lists(JSON | st.lists(st.lists(JSON), max_size=3), max_size=4))
    def test_any_answer_of_later(self, result):
        try:
            found = answer.TranslateEvacuation("s", answer.Answer(True, "", result))
        except errors.OpExecError:
            return
        assert isinstance(found.result, list)


class TestChoose:
    """IA1, IA2: what logical units get."""

    def test_allocate(self, unit):
        request = {**PLAIN_REQUEST, "disk_template": "drbd"}
        assert iallocator.Choose(unit, "simple", ALLOCATE, **request) == [NODE2, NODE4]
        assert unit.log == [
            f"Selected nodes for instance new.example.com via iallocator simple: {NODE2}, {NODE4}"
        ]
        assert unit.rpc.allocations[0][0] == "simple"

    def test_relocate(self, unit):
        assert iallocator.Choose(unit, "simple", RELOCATE, name="i1.example.com") == [NODE4]

    def test_evacuate(self, unit):
        moves = iallocator.Choose(unit, "simple", EVACUATE, evac_nodes=[NODE2])
        assert moves == [["i1.example.com", NODE4], ["i2.example.com", NODE4]]

    def _Refused(self, unit, script, error, match, code=None, request=PLAIN_REQUEST):
        unit.rpc.allocators["own"] = script
        with pytest.raises(error, match=match) as err:
            iallocator.Choose(unit, "own", ALLOCATE, **request)
        assert err.value.args[1:] == (() if code is None else (code,))

    def test_its_reasons_are_shown(self, unit):
        self._Refused(
            unit,
            scripts.Refuse("the moon is full"),
            errors.OpPrereqError,
            "Can't compute nodes for instance new.example.com using iallocator 'own': the moon",
            errors.ECODE_NORES,
        )

    @pytest.mark.parametrize("nodes", [[], [NODE1, NODE2]])
    def test_wrong_number_of_nodes(self, unit, nodes):
        self._Refused(
            unit,
            scripts.Answer(nodes),
            errors.OpPrereqError,
            f"returned {len(nodes)} nodes .*needs 1",
            errors.ECODE_FAULT,
        )

    def test_failures(self, unit):
        self._Refused(unit, scripts.Fail("exit code 3"), errors.OpExecError, "exit code 3")
        self._Refused(unit, lambda _: "hm", errors.OpExecError, "no JSON")
        self._Refused(unit, scripts.Answer(["x"]), errors.OpExecError, "no node of this cluster")

    def test_nodes_that_can_not_be_used_are_named(self, unit):
        unit.rpc.Fail("node_info", "it broke", nodes=[NODE2])
        iallocator.Choose(unit, "simple", ALLOCATE, **PLAIN_REQUEST)
        assert NODE2 in unit.log[0]
        assert "it broke" in unit.log[0]

    def test_defaults_are_tried_in_order(self, world, unit):
        world.rpc.allocators |= {
            "broken": scripts.Fail("exit code 3"),
            "full": scripts.Refuse("no room"),
            "never": scripts.Answer([NODE1]),
        }
        SetDefaults(world, allocate=["broken", "full", "simple", "never"], relocate=["never"])
        assert iallocator.Choose(unit, None, ALLOCATE, **PLAIN_REQUEST) == [NODE2]
        assert [name for name, _ in world.rpc.allocations] == ["broken", "full", "simple"]
        assert "exit code 3" in unit.log[0]
        assert "no room" in unit.log[1]
        SetDefaults(world, allocate=["broken", "full"])
        with pytest.raises(errors.OpPrereqError, match="no room"):
            iallocator.Choose(unit, None, ALLOCATE, **PLAIN_REQUEST)

    def test_no_default(self, world, unit):
        SetDefaults(world, relocate=["simple"])
        with pytest.raises(errors.OpPrereqError, match="no default one.*'allocate'") as err:
            iallocator.Choose(unit, None, ALLOCATE, **PLAIN_REQUEST)
        assert err.value.args[1] == errors.ECODE_INVAL

    def _Later(self, result):
        """A script that knows evacuation only as later versions ask for it."""
        asked = []

        def Run(text):
            data = serializer.Load(text)
            if data["request"]["type"] != "node-evacuate":
                raise LookupError("Error: invalid request type")
            asked.append(data)
            return scripts.Answer(result)(text)

        return Run, asked

    def test_evacuate_with_a_script_of_later_versions(self, unit):
        moved = [["i1.example.com", "default", [NODE1, NODE4]], ["i2.example.com", "g", [NODE1]]]
        unit.rpc.allocators["hail"], asked = self._Later([moved, [], [[{"OP_ID": "x"}]]])
        moves = iallocator.Choose(unit, "hail", EVACUATE, evac_nodes=[NODE2])
        assert moves == [["i1.example.com", NODE4], ["i2.example.com", NODE1]]
        assert asked[0]["request"] == {
            "type": "node-evacuate",
            "evac_mode": "secondary-only",
            "instances": ["i1.example.com", "i2.example.com"],
        }
        drained = [name for name, node in asked[0]["nodes"].items() if node["drained"]]
        assert drained == [NODE2]

    def test_evacuation_refused_by_a_script_of_later_versions(self, unit):
        unit.rpc.allocators["hail"], _ = self._Later([[], [["i1.example.com", "no room"]], []])
        with pytest.raises(errors.OpPrereqError, match="i1.example.com: no room"):
            iallocator.Choose(unit, "hail", EVACUATE, evac_nodes=[NODE2])


def NewTest(**values):
    """As gnt-debug sends it."""
    defaults = {
        "direction": "in",
        "mode": "allocate",
        "name": "new.example.com",
        "mem_size": 128,
        "disks": [{"size": 100, "mode": "w"}],
        "disk_template": "plain",
        "os": None,
        "tags": [],
        "nics": [{"mac": "aa:00:00:00:00:01", "ip": None, "bridge": None}],
        "vcpus": 1,
    }
    return opcodes.OpTestAllocator(**{**defaults, **values})


class TestTestAllocator:
    """IA1: C{OP_TEST_ALLOCATOR}."""

    def test_in(self, world):
        data = serializer.Load(world.Run(NewTest(tags=["a"])))
        request = data["request"]
        assert request["disks"] == [{"size": 100, "mode": "w"}]
        assert request["nics"] == [{"mac": "aa:00:00:00:00:01", "ip": None, "bridge": None}]
        assert (request["tags"], request["memory"]) == (["a"], 128)
        assert world.rpc.allocations == []

    def test_out_is_raw(self, world):
        world.rpc.allocators["own"] = lambda text: f"not JSON, {len(text)}"
        out = world.Run(NewTest(direction="out", allocator="own"))
        assert out == f"not JSON, {len(world.Run(NewTest()))}"

    def test_relocate(self, world):
        data = serializer.Load(world.Run(NewTest(mode="relocate", name="i1")))
        assert data["request"]["name"] == "i1.example.com"
        assert data["request"]["relocate_from"] == [NODE2]

    def test_evacuate(self, world):
        text = world.Run(NewTest(mode="multi-evacuate", name="x", evac_nodes=["x", "y"]))
        assert serializer.Load(text)["request"]["evac_nodes"] == ["x", "y"]

    @pytest.mark.parametrize(
        ("values", "code", "match"),
        [
            ({"name": None}, errors.ECODE_INVAL, "name"),
            ({"name": "i1"}, errors.ECODE_EXISTS, "i1.example.com"),
            ({"direction": "out"}, errors.ECODE_INVAL, "allocator"),
            ({"mem_size": None}, errors.ECODE_INVAL, "mem_size"),
            ({"disks": None}, errors.ECODE_INVAL, "disks"),
            ({"disk_template": None}, errors.ECODE_INVAL, "disk_template"),
            ({"disk_template": "floppy"}, errors.ECODE_INVAL, "floppy"),
            ({"tags": None}, errors.ECODE_INVAL, "tags"),
            ({"nics": None}, errors.ECODE_INVAL, "nics"),
            ({"nics": [{"mac": "x", "ip": None}]}, errors.ECODE_INVAL, "bridge"),
            ({"vcpus": None}, errors.ECODE_INVAL, "vcpus"),
            ({"hypervisor": "kvm"}, errors.ECODE_INVAL, "kvm"),
            ({"disks": [{"size": "4", "mode": "w"}]}, errors.ECODE_INVAL, "size.*'4'"),
            ({"disks": [{"size": True, "mode": "w"}]}, errors.ECODE_INVAL, "size"),
            ({"disks": [{"mode": "w"}]}, errors.ECODE_INVAL, "size"),
            ({"disks": [{"size": 4, "mode": "rw"}]}, errors.ECODE_INVAL, "mode.*'rw'"),
            ({"mode": "relocate", "name": "nosuch"}, errors.ECODE_NOENT, "nosuch"),
            ({"mode": "multi-evacuate"}, errors.ECODE_INVAL, "evac_nodes"),
            ({"mode": "capacity"}, errors.ECODE_INVAL, "capacity"),
        ],
    )
    def test_refused(self, world, values, code, match):
        with pytest.raises(errors.OpPrereqError, match=match) as err:
            world.Run(NewTest(**values))
        assert err.value.args[1] == code


class TestEvacuation:
    """SU6: evacuating nodes is the master's work."""

    def test_strategy_with_an_allocator(self, world):
        op = opcodes.OpNodeEvacStrategy(nodes=["node2"], iallocator="simple")
        assert world.Run(op) == [["i1.example.com", NODE4], ["i2.example.com", NODE4]]

    def test_strategy_with_a_node(self, world):
        op = opcodes.OpNodeEvacStrategy(nodes=["node2"], remote_node="node4")
        assert world.Run(op) == [["i1.example.com", NODE4], ["i2.example.com", NODE4]]
        assert world.Run(opcodes.OpNodeEvacStrategy(nodes=["node1"], remote_node="node1")) == []

    def test_strategy_with_the_default(self, world):
        op = opcodes.OpNodeEvacStrategy(nodes=["node2"])
        with pytest.raises(errors.OpPrereqError, match="no default") as err:
            world.Run(op)
        assert err.value.args[1] == errors.ECODE_INVAL
        SetDefaults(world, **{"multi-evacuate": ["simple"]})
        assert len(world.Run(op)) == 2

    def test_strategy_refused(self, world):
        world.rpc.allocators["own"] = scripts.Refuse("no room")
        with pytest.raises(errors.OpExecError, match="no room") as err:
            world.Run(opcodes.OpNodeEvacStrategy(nodes=["node2"], iallocator="own"))
        assert err.value.args[1] == errors.ECODE_NORES

    @pytest.mark.parametrize("op_class", [opcodes.OpNodeEvacStrategy, opcodes.OpNodeEvacuate])
    @pytest.mark.parametrize(
        ("values", "flags", "match"),
        [
            ({"remote_node": "node1"}, {}, "primary node of i1.example.com"),
            ({"remote_node": "node2"}, {}, "to be left"),
            ({"remote_node": "node4"}, {"drained": True}, "drained"),
            ({"remote_node": "node4"}, {"offline": True}, "offline"),
            ({"remote_node": "node4", "iallocator": "simple"}, {}, "At most one"),
        ],
    )
    def test_refused(self, world, op_class, values, flags, match):
        SetNode(world, NODE4, master_candidate=False, **flags)
        key = "nodes" if op_class is opcodes.OpNodeEvacStrategy else "node_name"
        node = ["node2"] if key == "nodes" else "node2"
        with pytest.raises(errors.OpPrereqError, match=match) as err:
            world.Run(op_class(**{key: node}, **values))
        assert err.value.args[1] == errors.ECODE_INVAL

    def test_unknown_nodes(self, world):
        for op in (
            opcodes.OpNodeEvacStrategy(nodes=["nosuch"]),
            opcodes.OpNodeEvacStrategy(nodes=["node2"], remote_node="nosuch"),
            opcodes.OpNodeEvacuate(node_name="nosuch"),
        ):
            with pytest.raises(errors.OpPrereqError) as err:
                world.Run(op)
            assert err.value.args[1] == errors.ECODE_NOENT

    def _Jobs(self, world, **values):
        result = world.Run(opcodes.OpNodeEvacuate(node_name="node2", **values))
        assert result == {"jobs": [[True, "0"], [True, "1"]]}
        for job in world.submitted:
            for op in job:
                op.Validate(True)
        return [
            [(op.instance_name, op.mode, op.remote_node, op.iallocator, op.early_release)]
            for (op,) in world.submitted
        ]

    def test_jobs(self, world):
        mode = constants.REPLACE_DISK_CHG
        jobs = self._Jobs(world, remote_node="node4", early_release=True)
        assert jobs == [
            [("i1.example.com", mode, NODE4, None, True)],
            [("i2.example.com", mode, NODE4, None, True)],
        ]
        assert "Will relocate instance i1.example.com to node4.example.com" in world.log
        jobs = self._Jobs(world, iallocator="simple")
        assert jobs[0] == [("i1.example.com", mode, None, "simple", False)]
        SetDefaults(world, relocate=["own"])
        assert self._Jobs(world)[1] == [("i2.example.com", mode, None, "own", False)]

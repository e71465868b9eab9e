"""Cluster verify: each check finds its problem in a cluster that is otherwise healthy."""

import pytest

from ganeti import constants, objects
from ganeti.cmdlib import verify_checks as checks
from ganeti.cmdlib import verify_simulation, verify_state

NODE1, NODE2 = "node1.example.com", "node2.example.com"
INSTANCE = "inst1.example.com"
CONFIG, SSCONF = "/var/lib/ganeti/config.data", "/var/lib/ganeti/ssconf_node_list"
NOW = 1_800_000_000.0


ALL_CODES = [getattr(constants, name) for name in dir(constants) if name.startswith("CV_E")]
ALL_CODES = [code for code in ALL_CODES if isinstance(code, tuple)]


def Answer(**values):
    """What a healthy node says."""
    return {
        constants.NV_VERSION: [constants.PROTOCOL_VERSION, constants.RELEASE_VERSION],
        constants.NV_HYPERVISOR: {"fake": None},
        constants.NV_NODESETUP: [],
        constants.NV_NODELIST: {},
        constants.NV_NODENETTEST: {},
        constants.NV_MASTERIP: True,
        constants.NV_FILELIST: {SSCONF: "s1", CONFIG: "c1"},
        constants.NV_TIME: [int(NOW), 0],
        constants.NV_INSTANCELIST: [],
        constants.NV_HVINFO: {"memory_free": 4096},
        constants.NV_VGLIST: {"xenvg": 50000.0},
        constants.NV_PVLIST: [[100, "/dev/sda1", "xenvg"]],
        constants.NV_LVLIST: {},
        constants.NV_DRBDLIST: [],
        **values,
    }


def NewState(vg_name=None):
    nodes = {
        name: objects.Node(name=name, master_candidate=True, offline=False, drained=False)
        for name in (NODE1, NODE2)
    }
    instance = objects.Instance(name=INSTANCE, primary_node=NODE2, admin_up=True, disks=[], nics=[])
    return verify_state.State(
        nodes=nodes,
        instances={INSTANCE: instance},
        master=NODE1,
        vg_name=vg_name,
        answers={
            NODE1: Answer(),
            NODE2: Answer(**{constants.NV_INSTANCELIST: [INSTANCE]}),
        },
        failures={},
        files={SSCONF: False, CONFIG: True},
        checksums={SSCONF: "s1", CONFIG: "c1"},
        drbd_map={},
        window=(NOW, NOW),
        backend={INSTANCE: {"auto_balance": True, "memory": 128}},
    )


def All(state):
    """Every problem of a cluster, as (severity, code, item)."""
    found = []
    for name in sorted(state.nodes):
        if not state.nodes[name].offline:
            found += checks.CheckNode(state, name)
    for name in sorted(state.instances):
        found += checks.CheckInstance(state, name)
    found += checks.CheckOrphanVolumes(state)
    found += checks.CheckOrphanInstances(state)
    found += checks.CheckNPlusOne(state)
    return [(problem.severity, problem.code[1], problem.item) for problem in found]


class TestHealthy:
    @pytest.mark.parametrize("vg_name", [None, "xenvg"])
    def test_nothing_is_found(self, vg_name):
        assert All(NewState(vg_name)) == []


class TestNonsense:
    """A node that answers nonsense is reported; it never ends the verification."""

    @pytest.mark.parametrize("key", sorted(Answer()))
    @pytest.mark.parametrize("value", [None, "text", 5, [], [5], ["a"], [[1, 2, 3]], {}, {"x": 5}])
    def test_any_value(self, key, value):
        state = NewState("xenvg")
        # Something for every check to do: a mirrored instance that would have to fail over.
        disk = objects.Disk(
            dev_type="drbd8",
            logical_id=(NODE1, NODE2, 11000, 0, 0, "secret"),
            children=[objects.Disk(dev_type="lvm", logical_id=("xenvg", "x"), size=1, mode="rw")],
            size=1,
            mode="rw",
        )
        state.instances[INSTANCE].disks = [disk]
        for name in (NODE1, NODE2):
            state.answers[name][key] = value
        codes = {code for _, code, _ in All(state)}
        assert codes <= {name for _, name in ALL_CODES}


class TestNode:
    """BASE1: each code of cluster verify that is about nodes."""

    @pytest.mark.parametrize(
        ("values", "code"),
        [
            ({constants.NV_HYPERVISOR: {"fake": "no directory"}}, "ENODEHV"),
            ({constants.NV_NODESETUP: ["no /proc"]}, "ENODESETUP"),
            ({constants.NV_NODESETUP: None}, "ENODESETUP"),
            ({constants.NV_NODELIST: {NODE1: "no way"}}, "ENODESSH"),
            ({constants.NV_NODELIST: None}, "ENODESSH"),
            ({constants.NV_NODENETTEST: {NODE1: "primary"}}, "ENODENET"),
            ({constants.NV_NODENETTEST: None}, "ENODENET"),
            ({constants.NV_MASTERIP: False}, "ENODENET"),
            ({constants.NV_MASTERIP: None}, "ENODENET"),
            ({constants.NV_FILELIST: None}, "ENODEFILECHECK"),
            ({constants.NV_FILELIST: {CONFIG: "c1"}}, "ENODEFILECHECK"),
            ({constants.NV_FILELIST: {SSCONF: "s0", CONFIG: "c1"}}, "ENODEFILECHECK"),
            ({constants.NV_TIME: None}, "ENODETIME"),
            ({constants.NV_TIME: [int(NOW) - 151, 0]}, "ENODETIME"),
            ({constants.NV_TIME: [int(NOW) + 151, 0]}, "ENODETIME"),
            ({constants.NV_HVINFO: {}}, "ENODEHV"),
            ({constants.NV_HVINFO: {"memory_free": "x"}}, "ENODERPC"),
            ({constants.NV_VGLIST: {}}, "ENODELVM"),
            ({constants.NV_VGLIST: {"xenvg": 100}}, "ENODELVM"),
            ({constants.NV_PVLIST: None}, "ENODELVM"),
            ({constants.NV_PVLIST: [[1, "/dev/a:b", "xenvg"]]}, "ENODELVM"),
            ({constants.NV_LVLIST: "lvs failed"}, "ENODELVM"),
            ({constants.NV_DRBDLIST: "no drbd"}, "ENODEDRBD"),
            ({constants.NV_DRBDLIST: [7]}, "ENODEDRBD"),
        ],
    )
    def test_one_problem(self, values, code):
        state = NewState("xenvg")
        state.answers[NODE1].update(values)
        assert All(state) == [("ERROR", code, NODE1)]

    def test_release(self):
        state = NewState()
        state.answers[NODE1][constants.NV_VERSION][1] = "2.1.0"
        assert All(state) == [("WARNING", "ENODEVERSION", NODE1)]

    @pytest.mark.parametrize("answer", [{}, None, "text", {constants.NV_VERSION: 1}])
    def test_an_unusable_answer_is_one_problem(self, answer):
        state = NewState()
        state.answers[NODE1] = answer
        assert All(state) == [("ERROR", "ENODERPC", NODE1)]

    def test_protocol(self):
        state = NewState()
        state.answers[NODE1][constants.NV_VERSION][0] = 29
        assert All(state) == [("ERROR", "ENODEVERSION", NODE1)]

    def test_dead_node(self):
        state = NewState()
        del state.answers[NODE2]
        state.failures[NODE2] = "timed out"
        assert All(state) == [
            ("ERROR", "ENODERPC", NODE2),
            ("ERROR", "EINSTANCEDOWN", INSTANCE),
            ("ERROR", "ENODERPC", NODE2),
        ]

    def test_configuration_on_a_regular_node(self):
        state = NewState()
        state.nodes[NODE2].master_candidate = False
        assert All(state) == [("ERROR", "ENODEFILECHECK", NODE2)]
        del state.answers[NODE2][constants.NV_FILELIST][CONFIG]
        assert All(state) == []

    def test_file_missing_on_the_master(self):
        state = NewState()
        del state.checksums[SSCONF]
        assert {item for _, _, item in All(state)} == {NODE1}

    def test_drbd(self):
        state = NewState("xenvg")
        state.drbd_map = {NODE2: {0: INSTANCE}}
        assert All(state) == [("ERROR", "ENODEDRBD", NODE2)]
        state.answers[NODE2][constants.NV_DRBDLIST] = [0]
        assert All(state) == []
        state.drbd_map = {NODE2: {0: "gone.example.com"}}
        assert All(state) == [("ERROR", "ECLUSTERCFG", None)]


class TestInstance:
    """BASE1: each code of cluster verify that is about instances."""

    def test_down(self):
        state = NewState()
        state.answers[NODE2][constants.NV_INSTANCELIST] = []
        assert All(state) == [("ERROR", "EINSTANCEDOWN", INSTANCE)]
        state.instances[INSTANCE].admin_up = False
        assert All(state) == []

    def test_wrong_node(self):
        state = NewState()
        state.answers[NODE1][constants.NV_INSTANCELIST] = [INSTANCE]
        assert All(state) == [("ERROR", "EINSTANCEWRONGNODE", INSTANCE)]

    def test_offline_and_unknown_nodes(self):
        state = NewState()
        state.nodes[NODE2].offline = True
        assert All(state) == [("ERROR", "EINSTANCEBADNODE", INSTANCE)]
        state = NewState()
        state.instances[INSTANCE].primary_node = "ghost.example.com"
        assert ("ERROR", "EINSTANCEBADNODE", INSTANCE) in All(state)

    def test_missing_and_orphan_volumes(self):
        state = NewState("xenvg")
        state.instances[INSTANCE].disks = [
            objects.Disk(dev_type="lvm", logical_id=("xenvg", "lv1"), size=8)
        ]
        assert All(state) == [("ERROR", "EINSTANCEMISSINGDISK", INSTANCE)]
        state.answers[NODE2][constants.NV_LVLIST] = {"lv1": ["8", False, True]}
        assert All(state) == []
        state.answers[NODE1][constants.NV_LVLIST] = {"lv9": ["8", False, True]}
        assert All(state) == [("ERROR", "ENODEORPHANLV", NODE1)]

    def test_orphan_instance(self):
        state = NewState()
        state.answers[NODE1][constants.NV_INSTANCELIST] = ["who.example.com"]
        assert All(state) == [("ERROR", "ENODEORPHANINSTANCE", NODE1)]

    def test_n_plus_one(self):
        state = NewState("xenvg")
        disk = objects.Disk(
            dev_type="drbd8",
            logical_id=(NODE2, NODE1, 11000, 0, 0, "s"),
            size=8,
            children=[],
        )
        state.instances[INSTANCE].disks = [disk]
        assert All(state) == []
        state.answers[NODE1][constants.NV_HVINFO]["memory_free"] = 100
        assert All(state) == [("ERROR", "ENODEN1", NODE1)]
        state.backend = {INSTANCE: {"auto_balance": False, "memory": 128}}
        assert All(state) == []
        # A node that is gone is reported once, not again as a full one.
        state.backend = {INSTANCE: {"auto_balance": True, "memory": 128}}
        state.nodes[NODE1].offline = True
        del state.answers[NODE1]
        assert ("ERROR", "ENODEN1", NODE1) not in All(state)


class TestReport:
    def test_formats(self):
        problem = verify_state.Problem(constants.CV_ENODEHV, NODE1, "broken")
        assert verify_state.FormatProblem(problem, True) == f"ERROR:ENODEHV:node:{NODE1}:broken"
        assert verify_state.FormatProblem(problem, False) == f"ERROR: node {NODE1}: broken"
        problem = verify_state.Problem(constants.CV_ECLUSTERCFG, None, "odd", constants.CV_WARNING)
        assert verify_state.FormatProblem(problem, True) == "WARNING:ECLUSTERCFG:cluster:None:odd"
        assert verify_state.FormatProblem(problem, False) == "WARNING: cluster: odd"

    def test_simulated_problems_have_every_code(self):
        codes = {problem.code[1] for problem in verify_simulation.SimulatedProblems()}
        assert len(codes) == 21
        assert {"ECLUSTERCFG", "ENODETIME", "EINSTANCEDOWN"} <= codes

    def test_notes(self):
        state = NewState()
        state.nodes[NODE1].drained = True
        assert checks.GetNotes(state) == [
            "1 non-redundant instance(s) found.",
            "1 drained node(s) found.",
        ]

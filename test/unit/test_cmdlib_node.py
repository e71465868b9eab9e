"""Operations on nodes: roles, adding, removing, listing."""

import os

import pytest

from ganeti import errors, locking, objects, opcodes, pathutils
from ganeti.cmdlib import fake, node
from ganeti.config import fake as config_fake

NODE1, NODE2, NODE3 = (config_fake.NodeName(number) for number in (1, 2, 3))


@pytest.fixture
def world():
    """Three candidates; this machine's own keys and hosts file are nobody's business."""
    world = fake.NewWorld(3)
    cluster = world.cfg.GetClusterInfo()
    cluster.modify_ssh_setup = cluster.modify_etc_hosts = False
    world.cfg.Update(cluster, None)
    return world


@pytest.fixture
def hosts(monkeypatch):
    """Names that resolve, and node daemons that answer, without a network."""
    os.makedirs(os.path.dirname(pathutils.ETC_HOSTS), exist_ok=True)
    with open(pathutils.ETC_HOSTS, "w") as fobj:
        fobj.write("192.0.2.4\tnode4.example.com node4\n192.0.2.3\tnode3.example.com\n")
        fobj.write("192.0.2.2\tnode5.example.com\n")
    monkeypatch.setattr("ganeti.utils.net.TcpPing", lambda *args, **kwargs: True)


def Refused(world, op, code, *fragments):
    before = {name: obj.ToDict() for name, obj in world.cfg.GetAllNodesInfo().items()}
    with pytest.raises(errors.OpPrereqError) as caught:
        world.Run(op)
    text, found = caught.value.args
    assert found == code, text
    for fragment in fragments:
        assert fragment in text
    assert before == {name: obj.ToDict() for name, obj in world.cfg.GetAllNodesInfo().items()}


def Role(obj):
    for letter, flag in (("C", "master_candidate"), ("O", "offline"), ("D", "drained")):
        if getattr(obj, flag):
            return letter
    return "R"


def NewRole(letter, **request):
    flags = {"C": "master_candidate", "O": "offline", "D": "drained"}
    obj = objects.Node(name=NODE2, **{flags[letter]: True} if letter != "R" else {})
    room = request.pop("room", True)
    values = {"master_candidate": None, "offline": None, "drained": None, **request}
    change = node.ComputeRoleChange(obj, room=room, **values)
    obj = objects.Node(
        name=NODE2,
        master_candidate=change.master_candidate,
        offline=change.offline,
        drained=change.drained,
    )
    assert [obj.master_candidate, obj.offline, obj.drained].count(True) <= 1
    return Role(obj), change.demote


class TestRoleTable:
    """The table of role transitions; every cell, with and without room in the candidate pool."""

    @pytest.mark.parametrize(
        ("role", "request_", "expected"),
        [
            ("C", {"master_candidate": True}, ("C", False)),
            ("C", {"master_candidate": False}, ("R", True)),
            ("C", {"drained": True}, ("D", True)),
            ("C", {"drained": False}, ("C", False)),
            ("C", {"offline": True}, ("O", False)),
            ("C", {"offline": False}, ("C", False)),
            ("R", {"master_candidate": True}, ("C", False)),
            ("R", {"master_candidate": False}, ("R", True)),
            ("R", {"drained": True}, ("D", False)),
            ("R", {"drained": False}, ("C", False)),
            ("R", {"drained": False, "room": False}, ("R", True)),
            ("R", {"offline": True}, ("O", False)),
            ("R", {"offline": False, "room": False}, ("R", True)),
            ("D", {"master_candidate": False}, ("D", True)),
            ("D", {"drained": False}, ("C", False)),
            ("D", {"drained": False, "room": False}, ("R", True)),
            ("D", {"drained": False, "master_candidate": True}, ("C", False)),
            ("D", {"offline": True}, ("O", False)),
            # It stays drained and so does not become a candidate.
            ("D", {"offline": False}, ("D", False)),
            ("O", {"drained": True}, ("D", False)),
            ("O", {"drained": False}, ("O", False)),
            ("O", {"offline": False}, ("C", False)),
            ("O", {"offline": False, "room": False}, ("R", True)),
            ("O", {"offline": False, "master_candidate": True}, ("C", False)),
        ],
    )
    def test_transition(self, role, request_, expected):
        assert NewRole(role, **request_) == expected

    @pytest.mark.parametrize("role", ["D", "O"])
    def test_no_candidate_that_stays_away(self, role):
        with pytest.raises(errors.OpPrereqError) as caught:
            NewRole(role, master_candidate=True)
        assert caught.value.args[1] == errors.ECODE_INVAL


class TestSetParams:
    def test_drain(self, world):
        op = opcodes.OpNodeSetParams(node_name="node2", drained=True, auto_promote=True)
        result = world.Run(op)
        assert ("drained", "True") in result
        obj = world.cfg.GetNodeInfo(NODE2)
        assert (obj.drained, obj.master_candidate) == (True, False)
        assert world.rpc.nodes[NODE2].demoted

    def test_offline_is_not_asked(self, world):
        world.Run(opcodes.OpNodeSetParams(node_name=NODE2, offline=True, auto_promote=True))
        assert world.cfg.GetNodeInfo(NODE2).offline
        assert not world.rpc.nodes[NODE2].demoted

    def test_master(self, world):
        op = opcodes.OpNodeSetParams(node_name=NODE1, offline=True)
        Refused(world, op, errors.ECODE_INVAL, NODE1, "master")

    def test_too_few_candidates(self, world, hosts):
        cluster = world.cfg.GetClusterInfo()
        cluster.candidate_pool_size = 3
        world.cfg.Update(cluster, None)
        spare = "node4.example.com"
        world.Run(opcodes.OpNodeAdd(node_name=spare))
        assert not world.cfg.GetNodeInfo(spare).master_candidate
        op = opcodes.OpNodeSetParams(node_name=NODE2, master_candidate=False)
        Refused(world, op, errors.ECODE_INVAL, "--auto-promote")
        world.Run(
            opcodes.OpNodeSetParams(node_name=NODE2, master_candidate=False, auto_promote=True)
        )
        assert world.cfg.GetNodeInfo(spare).master_candidate
        assert not world.cfg.GetNodeInfo(NODE2).master_candidate

    @pytest.mark.parametrize(
        ("values", "fragment"),
        [({}, "Nothing"), ({"offline": True, "drained": True}, "only one role")],
    )
    def test_bad_request(self, world, values, fragment):
        op = opcodes.OpNodeSetParams(node_name=NODE2, **values)
        Refused(world, op, errors.ECODE_INVAL, fragment)

    def test_unknown_node(self, world):
        op = opcodes.OpNodeSetParams(node_name="node9", offline=True)
        Refused(world, op, errors.ECODE_NOENT, "'node9'")


class TestRemove:
    def test_remove(self, world):
        world.Run(opcodes.OpNodeRemove(node_name="node3"))
        assert sorted(world.cfg.GetNodeList()) == [NODE1, NODE2]
        assert world.rpc.nodes[NODE3].left
        assert NODE3 not in world.master.glm._names(locking.LEVEL_NODE)
        hooks = [
            (nodes, phase) for nodes, path, phase, _ in world.rpc.hooks if path == "node-remove"
        ]
        assert hooks == [
            ([NODE1, NODE2], "pre"),
            ([NODE3], "post"),
            ([NODE1, NODE2], "post"),
        ]

    def test_a_dead_node_can_be_removed(self, world):
        world.rpc.Cut(NODE3)
        world.Run(opcodes.OpNodeRemove(node_name=NODE3))
        assert sorted(world.cfg.GetNodeList()) == [NODE1, NODE2]
        assert any("could not clean itself" in line for line in world.log)

    def test_master_stays(self, world):
        op = opcodes.OpNodeRemove(node_name=NODE1)
        Refused(world, op, errors.ECODE_INVAL, NODE1, "master")

    def test_node_with_instances_stays(self, world):
        config_fake.AddInstance(world.cfg, "inst1.example.com", NODE2)
        op = opcodes.OpNodeRemove(node_name=NODE2)
        Refused(world, op, errors.ECODE_INVAL, "inst1.example.com")


class TestAdd:
    """BASE1: OP_NODE_ADD; the checks in their order."""

    def test_add(self, world, hosts):
        op = opcodes.OpNodeAdd(node_name="NODE4.example.com.")
        world.Run(op)
        obj = world.cfg.GetNodeInfo("node4.example.com")
        assert (obj.primary_ip, obj.secondary_ip) == ("192.0.2.4", "192.0.2.4")
        assert obj.uuid
        assert obj.ctime
        assert "node4.example.com" in world.master.glm._names(locking.LEVEL_NODE)

    def test_readd(self, world, hosts):
        world.Run(opcodes.OpNodeSetParams(node_name=NODE3, offline=True, auto_promote=True))
        world.Run(opcodes.OpNodeAdd(node_name=NODE3, readd=True))
        obj = world.cfg.GetNodeInfo(NODE3)
        assert (obj.offline, obj.master_candidate) == (False, True)

    def test_refusals(self, world, hosts):
        Add = opcodes.OpNodeAdd
        Refused(world, Add(node_name="node3.example.com"), errors.ECODE_EXISTS, "--readd")
        Refused(world, Add(node_name="node4.example.com", readd=True), errors.ECODE_NOENT, "node4")
        Refused(world, Add(node_name="a b"), errors.ECODE_INVAL, "a b")
        Refused(world, Add(node_name="node5.example.com"), errors.ECODE_NOTUNIQUE, NODE2)
        Refused(
            world,
            Add(node_name="node4.example.com", secondary_ip="1.2.3"),
            errors.ECODE_INVAL,
            "1.2.3",
        )
        Refused(
            world,
            Add(node_name="node4.example.com", secondary_ip="198.51.100.4"),
            errors.ECODE_INVAL,
            "no secondary IP",
        )

    def test_silent_node(self, world, hosts, monkeypatch):
        monkeypatch.setattr("ganeti.utils.net.TcpPing", lambda *args, **kwargs: False)
        op = opcodes.OpNodeAdd(node_name="node4.example.com")
        Refused(world, op, errors.ECODE_ENVIRON, "192.0.2.4:1811")


class TestQuery:
    def Query(self, world, *fields, names=()):
        op = opcodes.OpNodeQuery(output_fields=list(fields), names=list(names), use_locking=False)
        return world.Run(op)

    def test_roles(self, world):
        node2, node3 = world.cfg.GetNodeInfo(NODE2), world.cfg.GetNodeInfo(NODE3)
        node2.master_candidate = node3.master_candidate = False
        node2.drained, node3.offline = True, True
        world.cfg.Update(node2, None)
        world.cfg.Update(node3, None)
        assert self.Query(world, "name", "role", "master", "offline") == [
            [NODE1, "M", True, False],
            [NODE2, "D", False, False],
            [NODE3, "O", False, True],
        ]

    def test_live_fields(self, world):
        world.rpc.Cut(NODE2)
        rows = self.Query(world, "name", "mtotal", "mfree", "mnode", "dtotal", "bootid", "ctotal")
        assert rows[0] == [NODE1, 8192, 4096, 512, 100000, "boot", 4]
        assert rows[1] == [NODE2, None, None, None, None, None, None]

    def test_static_fields_ask_nobody(self, world):
        config_fake.AddInstance(world.cfg, "inst2.example.com", NODE2)
        config_fake.AddInstance(world.cfg, "inst10.example.com", NODE2)
        world.rpc.calls.clear()
        rows = self.Query(world, "pip", "pinst_cnt", "pinst_list", "sinst_cnt", names=["node2"])
        assert rows == [["192.0.2.2", 2, ["inst2.example.com", "inst10.example.com"], 0]]
        assert world.rpc.calls == []

    def test_one_call_a_node(self, world):
        world.rpc.calls.clear()
        self.Query(world, "mfree", "dfree", "ctotal")
        assert world.rpc.calls == [("node_info", name) for name in (NODE1, NODE2, NODE3)]

    def test_unknown(self, world):
        for names, fields, code, fragment in (
            ([], ["nosuch"], errors.ECODE_INVAL, "nosuch"),
            (["node9"], ["name"], errors.ECODE_NOENT, "node9"),
        ):
            with pytest.raises(errors.OpPrereqError, match=fragment) as caught:
                self.Query(world, *fields, names=names)
            assert caught.value.args[1] == code

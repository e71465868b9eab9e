"""Operations on nodes: roles, adding, removing, listing."""

import os

import pytest

from ganeti import errors, locking, objects, opcodes, pathutils, rpc
from ganeti.cmdlib import fake, node_roles
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
    change = node_roles.ComputeRoleChange(obj, room=room, **values)
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
            # It may have been a candidate before it went away.
            ("O", {"drained": True}, ("D", True)),
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

    def test_back_from_offline_without_room(self, world):
        """The node is asked to drop its old configuration once it counts as online again."""
        world.Run(opcodes.OpNodeSetParams(node_name=NODE2, offline=True, auto_promote=True))
        world.Run(opcodes.OpClusterSetParams(candidate_pool_size=2))
        world.Run(opcodes.OpNodeSetParams(node_name=NODE2, offline=False))
        assert Role(world.cfg.GetNodeInfo(NODE2)) == "R"
        assert world.rpc.nodes[NODE2].demoted
        assert not any("WARNING" in line for line in world.log)

    def test_new_candidate_gets_the_shared_files(self, world):
        """RC1: node role changes ship them, to that node alone."""
        world.Run(opcodes.OpNodeSetParams(node_name=NODE2, master_candidate=False))
        path = pathutils.RAPI_USERS_FILE
        world.runtime.files.write(path, b"x")
        world.Run(opcodes.OpNodeSetParams(node_name=NODE2, master_candidate=True))
        assert world.rpc.nodes[NODE2].files == {path}
        assert world.rpc.nodes[NODE3].files == set()

    def test_who_was_offline_gets_the_shared_files(self, world):
        world.Run(opcodes.OpNodeSetParams(node_name=NODE2, offline=True, auto_promote=True))
        path = pathutils.RAPI_USERS_FILE
        world.runtime.files.write(path, b"x")
        world.Run(opcodes.OpClusterRedistConf())
        assert world.rpc.nodes[NODE2].files == set()
        world.Run(opcodes.OpNodeSetParams(node_name=NODE2, offline=False))
        assert world.rpc.nodes[NODE2].files == {path}

    def test_promoted_in_its_place_gets_the_shared_files(self, world):
        world.Run(opcodes.OpClusterSetParams(candidate_pool_size=2))
        world.Run(opcodes.OpNodeSetParams(node_name=NODE3, master_candidate=False))
        path = pathutils.RAPI_USERS_FILE
        world.runtime.files.write(path, b"x")
        world.Run(opcodes.OpNodeSetParams(node_name=NODE2, drained=True, auto_promote=True))
        assert world.cfg.GetNodeInfo(NODE3).master_candidate
        assert world.rpc.nodes[NODE3].files == {path}

    def test_by_uuid(self, world):
        """UU2: nodes have their UUID for a name, too."""
        uuid = world.cfg.GetNodeInfo(NODE2).uuid
        world.Run(opcodes.OpNodeSetParams(node_name=uuid, drained=True, auto_promote=True))
        assert world.cfg.GetNodeInfo(NODE2).drained
        world.Run(opcodes.OpNodePowercycle(node_name=uuid, force=False))
        world.Run(opcodes.OpNodeRemove(node_name=uuid))
        assert NODE2 not in world.cfg.GetNodeList()

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

    def test_name_that_nobody_knows_any_more(self, world, hosts):
        """The hosts file forgets a node though the resolver has forgotten it already."""
        cluster = world.cfg.GetClusterInfo()
        cluster.modify_etc_hosts = True
        world.cfg.Update(cluster, None)
        with open(pathutils.ETC_HOSTS, "w") as fobj:
            fobj.write("192.0.2.33\tnode3 other.example.com\n")
        world.Run(opcodes.OpNodeRemove(node_name=NODE3))
        with open(pathutils.ETC_HOSTS) as fobj:
            assert fobj.read() == "192.0.2.33 other.example.com\n"

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

    def test_regular_node_keeps_no_configuration(self, world, hosts):
        """It was a candidate before, and dead when it was removed."""
        world.Run(opcodes.OpNodeAdd(node_name="node4.example.com"))
        assert not world.cfg.GetNodeInfo("node4.example.com").master_candidate
        assert world.rpc.nodes["node4.example.com"].demoted

    def test_readd(self, world, hosts):
        world.Run(opcodes.OpNodeSetParams(node_name=NODE3, offline=True, auto_promote=True))
        world.Run(opcodes.OpNodeAdd(node_name=NODE3, readd=True))
        obj = world.cfg.GetNodeInfo(NODE3)
        assert (obj.offline, obj.master_candidate) == (False, True)

    def test_failed_readd_leaves_the_node_offline(self, world, hosts):
        world.Run(opcodes.OpNodeSetParams(node_name=NODE3, offline=True, auto_promote=True))
        world.rpc.Fail("node_verify", "no way")
        with pytest.raises(errors.OpExecError, match="no way"):
            world.Run(opcodes.OpNodeAdd(node_name=NODE3, readd=True))
        assert Role(world.cfg.GetNodeInfo(NODE3)) == "O"

    def test_hosts_file(self, world, hosts):
        """Only a node that has passed all checks is entered."""
        cluster = world.cfg.GetClusterInfo()
        cluster.modify_etc_hosts = True
        world.cfg.Update(cluster, None)
        with open(pathutils.ETC_HOSTS) as fobj:
            before = fobj.read()
        world.rpc.Fail("version", "not there")
        with pytest.raises(errors.OpExecError, match="not there"):
            world.Run(opcodes.OpNodeAdd(node_name="node4.example.com"))
        with open(pathutils.ETC_HOSTS) as fobj:
            assert fobj.read() == before
        world.rpc.Heal()
        world.Run(opcodes.OpNodeAdd(node_name="node4.example.com"))
        with open(pathutils.ETC_HOSTS) as fobj:
            assert fobj.read().splitlines()[-1] == "192.0.2.4\tnode4.example.com node4"

    def test_new_node_gets_the_shared_files(self, world, hosts):
        """RC1: node add ships them."""
        path = pathutils.RAPI_USERS_FILE
        world.runtime.files.write(path, b"x")
        world.Run(opcodes.OpNodeAdd(node_name="node4.example.com"))
        assert world.rpc.nodes["node4.example.com"].files == {path}

    def test_master_can_not_be_set_up_again(self, world, hosts):
        with open(pathutils.ETC_HOSTS, "a") as fobj:
            fobj.write("192.0.2.1\tnode1.example.com\n")
        op = opcodes.OpNodeAdd(node_name=NODE1, readd=True)
        Refused(world, op, errors.ECODE_INVAL, NODE1, "master")

    def test_readd_by_uuid(self, world, hosts):
        uuid = world.cfg.GetNodeInfo(NODE3).uuid
        world.Run(opcodes.OpNodeAdd(node_name=uuid, readd=True))
        assert world.cfg.GetNodeInfo(NODE3).master_candidate

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

    def test_secondary_addresses(self, world, hosts, monkeypatch):
        """In a cluster whose nodes have them, each needs its own, and has to have it."""
        for number in (1, 2, 3):
            obj = world.cfg.GetNodeInfo(config_fake.NodeName(number))
            obj.secondary_ip = f"198.51.100.{number}"
            world.cfg.Update(obj, None)
        pings = []

        def Ping(target, port, source=None, **kwargs):
            pings.append((target, source))
            return True

        monkeypatch.setattr("ganeti.utils.net.TcpPing", Ping)

        def Add(secondary_ip=None, name="node4.example.com", readd=False):
            return opcodes.OpNodeAdd(node_name=name, secondary_ip=secondary_ip, readd=readd)

        Refused(world, Add(), errors.ECODE_INVAL, "--secondary-ip")
        Refused(world, Add("192.0.2.4"), errors.ECODE_INVAL, "--secondary-ip")
        Refused(world, Add("198.51.100.3"), errors.ECODE_NOTUNIQUE, NODE3)
        Refused(world, Add("192.0.2.3"), errors.ECODE_NOTUNIQUE, NODE3)
        with monkeypatch.context() as patch:
            patch.setattr(
                world.rpc,
                "call_node_has_ip_address",
                lambda node, _: rpc.RpcResult([True, False], call="has_ip", node=node),
            )
            with pytest.raises(errors.OpExecError, match=r"198\.51\.100\.4"):
                world.Run(Add("198.51.100.4"))
        assert "node4.example.com" not in world.cfg.GetNodeList()
        assert world.rpc.nodes["node4.example.com"].left
        pings.clear()
        world.Run(Add("198.51.100.4"))
        # The second way is tried from the master's address on it.
        assert pings == [("192.0.2.4", None), ("198.51.100.4", "198.51.100.1")]
        assert world.cfg.GetNodeInfo("node4.example.com").secondary_ip == "198.51.100.4"
        # Set up again, it keeps its own.
        world.Run(Add(name=NODE3, readd=True))
        assert world.cfg.GetNodeInfo(NODE3).secondary_ip == "198.51.100.3"
        op = Add("198.51.100.9", name=NODE3, readd=True)
        Refused(world, op, errors.ECODE_INVAL, "198.51.100.3")

    def test_new_primary_address(self, world, hosts):
        """Set up again with another address that its name has now."""
        with open(pathutils.ETC_HOSTS, "w") as fobj:
            fobj.write("192.0.2.33\tnode3.example.com\n")
        # As the command gives what is known of it, or nobody at all.
        for given in ("192.0.2.3", None):
            op = opcodes.OpNodeAdd(node_name=NODE3, readd=True, secondary_ip=given)
            world.rpc.Fail("node_verify", "no way")
            with pytest.raises(errors.OpExecError, match="no way"):
                world.Run(op)
            obj = world.cfg.GetNodeInfo(NODE3)
            assert (obj.primary_ip, obj.secondary_ip) == ("192.0.2.3", "192.0.2.3")
        world.rpc.Heal()
        world.Run(opcodes.OpNodeAdd(node_name=NODE3, readd=True, secondary_ip="192.0.2.3"))
        obj = world.cfg.GetNodeInfo(NODE3)
        assert (obj.primary_ip, obj.secondary_ip) == ("192.0.2.33", "192.0.2.33")
        targets = world.master.jobqueue._replicator.GetTargets()
        assert targets[NODE3] == "192.0.2.33"

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


class TestStorage:
    """SU1, SU2: storage units and logical volumes of nodes."""

    def Query(self, world, *fields, storage_type="file", nodes=(), **values):
        op = opcodes.OpNodeQueryStorage(
            nodes=list(nodes), storage_type=storage_type, output_fields=list(fields), **values
        )
        return world.Run(op)

    def test_list_files(self, world):
        world.Run(opcodes.OpNodeSetParams(node_name=NODE3, offline=True, auto_promote=True))
        directory = "/srv/ganeti/file-storage"
        assert self.Query(world, "node", "type", "name", "size", "used", "free", "allocatable") == [
            [name, "file", directory, 1000, 10, 990, True] for name in (NODE1, NODE2)
        ]
        assert self.Query(world, "free", nodes=["node2"]) == [[990]]

    def test_list_devices(self, world):
        """SU2: in natural order; two that LVM calls alike are one row."""
        world.rpc.nodes[NODE2].units = ["/dev/sdb10", "[unknown]", "/dev/sdb2", "[unknown]"]
        assert self.Query(world, "allocatable", "name", "node", storage_type="lvm-pv") == [
            [True, name, NODE2] for name in ("/dev/sdb2", "/dev/sdb10", "[unknown]")
        ]

    def test_node_that_can_not_tell(self, world):
        world.rpc.Cut(NODE2)
        assert self.Query(world, "node") == [[NODE1], [NODE3]]
        assert any(NODE2 in line for line in world.log)
        assert self.Query(world, "node", storage_type="lvm-pv") == []

    def test_refused(self, world):
        for fields, values, fragment in (
            (["nosuch"], {}, "nosuch"),
            (["node"], {"storage_type": "tape"}, "tape"),
        ):
            with pytest.raises(errors.OpPrereqError, match=fragment) as caught:
                self.Query(world, *fields, **values)
            assert caught.value.args[1] == errors.ECODE_INVAL

    def test_volumes(self, world):
        disk = config_fake.NewDrbdDisk((NODE1, NODE2), 11000, (0, 1), "secret", "x")
        config_fake.AddInstance(
            world.cfg, "inst1.example.com", NODE1, disk_template="drbd", disks=[disk]
        )
        world.rpc.nodes[NODE2].volumes = [
            {"name": "x.data", "vg": "xenvg", "dev": "/dev/sdb", "size": "1024.00"},
            {"name": "other", "vg": "xenvg", "dev": "/dev/sda", "size": "8.25"},
        ]
        op = opcodes.OpNodeQueryvols(
            nodes=[], output_fields=["node", "phys", "vg", "name", "size", "instance"]
        )
        assert world.Run(op) == [
            [NODE2, "/dev/sda", "xenvg", "other", "8", "-"],
            [NODE2, "/dev/sdb", "xenvg", "x.data", "1024", "inst1.example.com"],
        ]

    def test_modify(self, world):
        def Modify(storage_type, **changes):
            return opcodes.OpNodeModifyStorage(
                node_name="node2", storage_type=storage_type, name="/dev/sda", changes=changes
            )

        world.Run(Modify("lvm-pv", allocatable=False))
        assert world.rpc.storage_calls == [
            ("storage_modify", NODE2, "lvm-pv", "/dev/sda", {"allocatable": False})
        ]
        Refused(world, Modify("lvm-vg", allocatable=False), errors.ECODE_INVAL, "lvm-vg")
        Refused(world, Modify("lvm-pv", size=1), errors.ECODE_INVAL, "size")
        world.rpc.Fail("storage_modify", "no such device")
        with pytest.raises(errors.OpExecError, match="no such device"):
            world.Run(Modify("lvm-pv", allocatable=True))


class TestRepairStorage:
    """SU3: only if every instance there has a good copy elsewhere; refused with their names."""

    def Repair(self, **values):
        return opcodes.OpRepairNodeStorage(
            **{"node_name": NODE2, "storage_type": "lvm-vg", "name": "xenvg", **values}
        )

    @pytest.fixture
    def mirrored(self, world):
        disk = config_fake.NewDrbdDisk((NODE1, NODE2), 11000, (0, 1), "secret", "x")
        config_fake.AddInstance(
            world.cfg,
            "inst1.example.com",
            NODE1,
            admin_up=True,
            disk_template="drbd",
            disks=[disk],
        )
        world.PutDisks(world.cfg.GetInstanceInfo("inst1.example.com"))
        return world

    def test_good_copies(self, mirrored):
        mirrored.Run(self.Repair())
        assert mirrored.rpc.storage_calls == [
            ("storage_execute", NODE2, "lvm-vg", "xenvg", "fix-consistency")
        ]

    def test_bad_copy(self, mirrored):
        mirrored.rpc.nodes[NODE1].faulty = True
        Refused(mirrored, self.Repair(), errors.ECODE_STATE, "inst1.example.com", NODE1)
        mirrored.Run(self.Repair(ignore_consistency=True))
        assert len(mirrored.rpc.storage_calls) == 1
        assert any("inst1.example.com" in line for line in mirrored.log)

    def test_node_that_can_not_tell(self, mirrored):
        mirrored.rpc.Cut(NODE1)
        Refused(mirrored, self.Repair(), errors.ECODE_ENVIRON, "inst1.example.com")

    def test_no_copy(self, world):
        disk = objects.Disk(
            dev_type="lvm",
            logical_id=("xenvg", "y"),
            iv_name="disk/0",
            size=8,
            mode="rw",
        )
        config_fake.AddInstance(
            world.cfg, "inst2.example.com", NODE2, disk_template="plain", disks=[disk]
        )
        Refused(world, self.Repair(), errors.ECODE_STATE, "inst2.example.com", "no copy")
        world.Run(self.Repair(node_name=NODE3))

    def test_other_types(self, world):
        Refused(world, self.Repair(storage_type="lvm-pv"), errors.ECODE_INVAL, "lvm-pv")

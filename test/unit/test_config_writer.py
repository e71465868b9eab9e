"""Every change of the configuration: what it does, to which serial numbers, and what it refuses."""

import json
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ganeti import config, constants, errors, objects, pathutils, serializer
from ganeti.config import fake
from ganeti.runtime import fake as runtime_fake

_GOLDEN = pathlib.Path(__file__).parent.parent / "data" / "golden" / "state" / "config.data"
_NODE1, _NODE2, _NODE3 = (fake.NodeName(number) for number in (1, 2, 3))
_INST = "inst1.example.com"


@pytest.fixture
def rt():
    return runtime_fake.NewRuntime()


@pytest.fixture
def cfg(rt):
    writer = fake.NewWriter(rt, nodes=3, candidates=2)
    rt.clock.Advance(100)
    return writer


def _Stored(rt):
    return json.loads(rt.files.read(pathutils.CLUSTER_CONF_FILE))


def _AddDrbd(cfg, name=_INST, nodes=(_NODE1, _NODE2)):
    minors = cfg.AllocateDRBDMinor(list(nodes), name)
    secret = cfg.GenerateDRBDSecret("test")
    disk = fake.NewDrbdDisk(nodes, cfg.AllocatePort(), tuple(minors), secret, name)
    return fake.AddInstance(cfg, name, nodes[0], disks=[disk], disk_template=constants.DT_DRBD8)


class TestLoading:
    def test_init_from_a_minimal_object_set(self, rt):
        """What cluster init writes: one node without times, UUID and instances."""
        node = objects.Node(
            name=_NODE1,
            primary_ip="192.0.2.1",
            secondary_ip="192.0.2.1",
            serial_no=1,
            master_candidate=True,
            offline=False,
            drained=False,
        )
        document = fake.NewConfigData(rt)
        document["nodes"] = {_NODE1: node.ToDict()}
        rt.files.write(pathutils.CLUSTER_CONF_FILE, serializer.Dump(document, indent=True).encode())
        distributor = fake.FakeDistributor()
        cfg = fake.OpenWriter(rt, distributor)
        assert cfg.GetNodeList() == [_NODE1]
        assert cfg.GetInstanceList() == []
        assert cfg.VerifyConfig() == []
        # The node got its UUID, so the file was written, and ssconf with it.
        assert cfg.write_count == 1
        stored = _Stored(rt)
        assert stored["nodes"][_NODE1]["uuid"] == cfg.GetNodeInfo(_NODE1).uuid
        assert stored["serial_no"] == 2
        assert stored["nodes"][_NODE1]["serial_no"] == 1
        assert distributor.ssconf[_NODE1]["node_list"] == _NODE1
        cluster = cfg.GetClusterInfo()
        cfg.Update(cluster)
        assert cluster.serial_no == 2

    def test_uuids_for_everything(self, rt):
        """UU1: cluster, nodes, instances, disks and network cards of an older file get one."""
        document = json.loads(_GOLDEN.read_bytes())
        del document["cluster"]["uuid"]
        rt.files.write(pathutils.CLUSTER_CONF_FILE, json.dumps(document).encode())
        cfg = fake.OpenWriter(rt)
        stored = _Stored(rt)
        found = [stored["cluster"]["uuid"], *(node["uuid"] for node in stored["nodes"].values())]
        for instance in stored["instances"].values():
            found.append(instance["uuid"])
            found.extend(nic["uuid"] for nic in instance["nics"])
            found.extend(disk["uuid"] for disk in instance["disks"])
        assert len(found) == len(set(found)) == 1 + 1 + 3 + 3 + 2
        # Those that were there stayed, and nobody's serial number changed but the file's.
        assert stored["instances"]["inst1.example.com"]["uuid"].startswith("5002d389-")
        assert stored["instances"]["inst1.example.com"]["serial_no"] == 7
        assert (stored["cluster"]["serial_no"], stored["serial_no"]) == (19, 36)
        assert cfg.write_count == 1

    def test_nothing_to_upgrade_nothing_written(self, rt, cfg):
        assert cfg.write_count == 0
        assert _Stored(rt)["serial_no"] == 1

    def test_missing_file(self, rt):
        with pytest.raises(FileNotFoundError):
            fake.OpenWriter(rt)

    def test_problems_are_logged(self, rt, caplog):
        document = fake.NewConfigData(rt)
        document["cluster"]["enabled_hypervisors"] = []
        rt.files.write(pathutils.CLUSTER_CONF_FILE, json.dumps(document).encode())
        fake.OpenWriter(rt)
        assert "No hypervisor is enabled" in caplog.text

    @pytest.mark.parametrize(
        ("key", "value"), [("tcpudp_port_pool", ["x"]), ("highest_used_port", "x")]
    )
    def test_values_of_a_wrong_kind(self, rt, key, value):
        document = fake.NewConfigData(rt)
        document["cluster"][key] = value
        rt.files.write(pathutils.CLUSTER_CONF_FILE, json.dumps(document).encode())
        with pytest.raises(errors.ConfigurationError, match="not the expected form"):
            fake.OpenWriter(rt)

    def test_offline_needs_no_name_and_no_nodes(self, rt):
        fake.NewWriter(rt, nodes=2)
        cfg = config.ConfigWriter(offline=True, runtime=rt)
        cfg.AllocatePort()
        assert cfg.write_count == 1

    def test_is_cluster(self):
        assert config.ConfigWriter.IsCluster() is False


class TestGetters:
    def test_cluster(self, cfg):
        assert cfg.GetConfigVersion() == constants.CONFIG_VERSION
        assert cfg.GetClusterName() == fake.CLUSTER_NAME
        assert cfg.GetMasterNode() == _NODE1
        assert cfg.GetMasterIP() == fake.CLUSTER_IP
        assert cfg.GetMasterNetdev() == "lo"
        assert cfg.GetFileStorageDir() == "/srv/ganeti/file-storage"
        assert cfg.GetVGName() == "xenvg"
        assert cfg.GetMACPrefix() == "aa:00:00"
        assert cfg.GetHostKey() == "AAAA"
        assert cfg.GetHypervisorType() == "fake"
        assert cfg.GetClusterInfo().cluster_name == fake.CLUSTER_NAME
        assert cfg.GetPortList() == set()

    def test_objects(self, cfg):
        fake.AddInstance(cfg, _INST, _NODE1)
        assert sorted(cfg.GetNodeList()) == [_NODE1, _NODE2, _NODE3]
        assert sorted(cfg.GetAllNodesInfo()) == [_NODE1, _NODE2, _NODE3]
        assert cfg.GetInstanceList() == [_INST]
        assert list(cfg.GetAllInstancesInfo()) == [_INST]
        assert cfg.GetNodeInfo(_NODE2).primary_ip == "192.0.2.2"
        assert cfg.GetInstanceInfo(_INST).primary_node == _NODE1
        assert cfg.GetNodeInfo("nosuch") is None
        assert cfg.GetInstanceInfo("nosuch") is None

    def test_online_nodes(self, cfg):
        node = cfg.GetNodeInfo(_NODE3)
        node.offline = True
        cfg.Update(node)
        assert sorted(cfg.GetOnlineNodeList()) == [_NODE1, _NODE2]

    def test_answers_are_copies(self, cfg):
        """What a caller does to an answer changes nothing."""
        fake.AddInstance(cfg, _INST, _NODE1)
        cfg.GetClusterInfo().cluster_name = "x"
        cfg.GetNodeInfo(_NODE1).offline = True
        cfg.GetAllNodesInfo()[_NODE1].offline = True
        cfg.GetInstanceInfo(_INST).hvparams["x"] = 1
        cfg.GetAllInstancesInfo()[_INST].disks.append(objects.Disk())
        cfg.GetPortList().add(11000)
        assert cfg.GetClusterName() == fake.CLUSTER_NAME
        assert not cfg.GetNodeInfo(_NODE1).offline
        assert cfg.GetInstanceInfo(_INST).hvparams == {}
        assert cfg.GetInstanceInfo(_INST).disks == []
        assert cfg.GetPortList() == set()

    @pytest.mark.parametrize(
        ("short", "full"),
        [
            (_NODE1, _NODE1),
            ("node1", _NODE1),
            ("NODE1.Example", _NODE1),
            ("node1.ex", None),
            ("node", None),
            ("nosuch", None),
            ("", None),
        ],
    )
    def test_expand(self, cfg, short, full):
        assert cfg.ExpandNodeName(short) == full

    def test_expand_uuid(self, cfg):
        """UU2: a UUID goes where a name goes."""
        instance = fake.AddInstance(
            cfg, _INST, _NODE1, nics=[objects.NIC(mac="aa:00:00:00:00:01", nicparams={})]
        )
        node = cfg.GetNodeInfo(_NODE2)
        assert cfg.ExpandNodeName(node.uuid) == _NODE2
        assert cfg.ExpandInstanceName(instance.uuid) == _INST
        assert cfg.ExpandInstanceName(node.uuid) is None
        assert cfg.ExpandInstanceName(instance.nics[0].uuid) is None

    def test_expand_instance(self, cfg):
        fake.AddInstance(cfg, "a.example.com", _NODE1)
        fake.AddInstance(cfg, "A.example.org", _NODE1)
        assert cfg.ExpandInstanceName("a.EXAMPLE.com") == "a.example.com"
        assert cfg.ExpandInstanceName("a") is None

    def test_candidate_stats(self, cfg):
        assert cfg.GetMasterCandidateStats() == (2, 2, 3)
        assert cfg.GetMasterCandidateStats([_NODE1]) == (1, 2, 2)

    def test_verify(self, cfg):
        assert cfg.VerifyConfig() == []
        node = cfg.GetNodeInfo(_NODE2)
        node.drained = True
        cfg.Update(node)
        assert any("exclude each other" in problem for problem in cfg.VerifyConfig())


class TestSerials:
    """Serial numbers and times change exactly as the table of the interface says."""

    def _Serials(self, rt):
        stored = _Stored(rt)
        return {
            "file": stored["serial_no"],
            "cluster": stored["cluster"]["serial_no"],
            **{name: node["serial_no"] for name, node in stored["nodes"].items()},
            **{name: inst["serial_no"] for name, inst in stored["instances"].items()},
        }

    @pytest.mark.parametrize(
        ("change", "raised"),
        [
            (lambda cfg: cfg.AddTcpUdpPort(11004), {"file"}),
            (lambda cfg: cfg.AllocatePort(), {"file"}),
            (lambda cfg: cfg.SetVGName("other"), {"file", "cluster"}),
            (lambda cfg: cfg.AddNode(fake.NewNode(9), "test"), {"file", "cluster"}),
            (lambda cfg: cfg.RemoveNode(_NODE3), {"file", "cluster"}),
            (lambda cfg: fake.AddInstance(cfg, "new", _NODE1), {"file", "cluster"}),
            (lambda cfg: cfg.RemoveInstance(_INST), {"file", "cluster"}),
            (lambda cfg: cfg.RenameInstance(_INST, "new"), {"file", "cluster"}),
            (lambda cfg: cfg.MarkInstanceUp(_INST), {"file", _INST}),
            (lambda cfg: cfg.MarkInstanceDown(_INST), set()),
            (lambda cfg: cfg.MaintainCandidatePool([]), set()),
            (lambda cfg: cfg.MaintainCandidatePool([_NODE2]), {"file", "cluster", _NODE3}),
            (lambda cfg: cfg.Update(cfg.GetClusterInfo()), {"file", "cluster"}),
            (lambda cfg: cfg.Update(cfg.GetNodeInfo(_NODE2)), {"file", "cluster", _NODE2}),
            (lambda cfg: cfg.Update(cfg.GetInstanceInfo(_INST)), {"file", _INST}),
            (
                lambda cfg: cfg.SetDiskID(objects.Disk(dev_type="lvm", logical_id=("a", "b")), "x"),
                set(),
            ),
            (lambda cfg: cfg.AllocateDRBDMinor([_NODE1], "x"), set()),
            (lambda cfg: cfg.ReleaseDRBDMinors("x"), set()),
            (lambda cfg: cfg.GenerateMAC("x"), set()),
            (lambda cfg: cfg.GenerateUniqueID("x"), set()),
            (lambda cfg: cfg.DropECReservations("x"), set()),
            (lambda cfg: cfg.VerifyConfig(), set()),
        ],
    )
    def test_table(self, cfg, rt, change, raised):
        fake.AddInstance(cfg, _INST, _NODE1)
        before, writes = self._Serials(rt), cfg.write_count
        rt.clock.Advance(50)
        change(cfg)
        after = self._Serials(rt)
        assert {name for name in before if after.get(name, before[name]) != before[name]} == raised
        assert all(after[name] == before[name] + 1 for name in raised)
        assert cfg.write_count == writes + (1 if raised else 0)
        stored = _Stored(rt)
        now = rt.clock.time()
        if "file" in raised:
            assert stored["mtime"] == now
        if "cluster" in raised:
            assert stored["cluster"]["mtime"] == now
        for name in raised & set(stored["nodes"]):
            assert stored["nodes"][name]["mtime"] == now
        for name in raised & set(stored["instances"]):
            assert stored["instances"][name]["mtime"] == now

    def test_new_objects(self, cfg, rt):
        node = fake.NewNode(9, serial_no=77, ctime=1.0)
        cfg.AddNode(node, "test")
        instance = fake.AddInstance(cfg, _INST, _NODE1, serial_no=77)
        for mine, stored in (
            (node, cfg.GetNodeInfo(node.name)),
            (instance, cfg.GetInstanceInfo(_INST)),
        ):
            assert mine.serial_no == stored.serial_no == 1
            assert mine.ctime == mine.mtime == stored.ctime == stored.mtime == rt.clock.time()
            assert mine.uuid == stored.uuid
            assert mine.uuid


class TestTakeOver:
    """The new master counts on from above what other nodes may have."""

    def test_serials(self, cfg, rt):
        before = _Stored(rt)
        cfg.TakeOver(_NODE2, 500, 300)
        after = _Stored(rt)
        assert (after["serial_no"], after["cluster"]["serial_no"]) == (501, 301)
        assert after["cluster"]["master_node"] == _NODE2
        assert after["nodes"] == before["nodes"]
        cluster = cfg.GetClusterInfo()
        cluster.AddTag("later")
        cfg.Update(cluster)
        assert (_Stored(rt)["serial_no"], cluster.serial_no) == (502, 302)

    def test_nothing_is_skipped_without_need(self, cfg, rt):
        before = _Stored(rt)["serial_no"]
        cfg.TakeOver(_NODE2, before, 1)
        assert _Stored(rt)["serial_no"] == before + 1

    def test_unknown_node(self, cfg, rt):
        before = _Stored(rt)
        with pytest.raises(errors.ConfigurationError, match="nosuch"):
            cfg.TakeOver("nosuch", 500, 300)
        assert _Stored(rt) == before


class TestUpdate:
    def _Objects(self, cfg):
        fake.AddInstance(cfg, _INST, _NODE1)
        return [cfg.GetClusterInfo(), cfg.GetNodeInfo(_NODE1), cfg.GetInstanceInfo(_INST)]

    def test_twice_in_a_row(self, cfg):
        for obj in self._Objects(cfg):
            obj.AddTag("one")
            cfg.Update(obj, None)
            first = obj.serial_no
            obj.AddTag("two")
            cfg.Update(obj, None)
            assert obj.serial_no > first
        assert cfg.GetClusterInfo().GetTags() == {"one", "two"}
        assert cfg.GetNodeInfo(_NODE1).GetTags() == {"one", "two"}
        assert cfg.GetInstanceInfo(_INST).GetTags() == {"one", "two"}

    def test_after_adding(self, cfg):
        instance = fake.AddInstance(cfg, _INST, _NODE1)
        instance.admin_up = True
        cfg.Update(instance)
        node = fake.NewNode(9)
        cfg.AddNode(node, "test")
        node.offline = True
        cfg.Update(node)
        assert cfg.GetInstanceInfo(_INST).admin_up
        assert cfg.GetNodeInfo(node.name).offline

    def test_what_was_stored_is_not_the_callers(self, cfg):
        for obj in self._Objects(cfg):
            cfg.Update(obj)
            obj.AddTag("unsaved")
        assert not cfg.GetInstanceInfo(_INST).GetTags()

    def test_refuses_strangers(self, cfg):
        for real, stranger in zip(
            self._Objects(cfg),
            (objects.Cluster(), objects.Node(), objects.Instance()),
            strict=True,
        ):
            for _ in range(2):
                with pytest.raises(errors.ConfigurationError, match="unknown object"):
                    cfg.Update(stranger)
                cfg.Update(real)

    def test_refuses_namesakes(self, cfg):
        for real in self._Objects(cfg):
            namesake = real.Copy()
            namesake.uuid = "11111111-1111-4111-8111-111111111111"
            with pytest.raises(errors.ConfigurationError, match="unknown object"):
                cfg.Update(namesake)

    @pytest.mark.parametrize("thing", [None, "x", {}, objects.NIC(), objects.Disk()], ids=repr)
    def test_refuses_other_things(self, cfg, thing):
        with pytest.raises(errors.ProgrammerError):
            cfg.Update(thing)

    def test_lost_update(self, cfg):
        """CF: of two who read the same version only the first can store."""
        for reader in (
            cfg.GetClusterInfo,
            lambda: cfg.GetNodeInfo(_NODE1),
        ):
            first, second = reader(), reader()
            first.AddTag("first")
            second.AddTag("second")
            cfg.Update(first)
            with pytest.raises(errors.ConfigurationError, match="updated since"):
                cfg.Update(second)
            assert reader().GetTags() == {"first"}
            again = reader()
            again.AddTag("second")
            cfg.Update(again)
            assert reader().GetTags() == {"first", "second"}

    def test_mark_counts_as_change(self, cfg):
        *_, instance = self._Objects(cfg)
        cfg.MarkInstanceUp(_INST)
        with pytest.raises(errors.ConfigurationError, match="updated since"):
            cfg.Update(instance)

    def test_removed_and_added_again(self, cfg):
        *_, instance = self._Objects(cfg)
        cfg.RemoveInstance(_INST)
        with pytest.raises(errors.ConfigurationError, match="not in the configuration"):
            cfg.Update(instance)
        fake.AddInstance(cfg, _INST, _NODE1)
        with pytest.raises(errors.ConfigurationError):
            cfg.Update(instance)

    def test_cluster_is_not_stale_because_others_come_and_go(self, cfg):
        """The cluster's serial also rises for what only ssconf shows: nothing is lost by that."""
        cluster = cfg.GetClusterInfo()
        fake.AddInstance(cfg, _INST, _NODE1)
        cfg.Update(cfg.GetNodeInfo(_NODE2))
        serial = cfg.GetClusterInfo().serial_no
        cluster.AddTag("kept")
        cfg.Update(cluster)
        assert cluster.serial_no == serial + 1
        assert cfg.GetClusterInfo().GetTags() == {"kept"}

    def test_cluster_is_stale_after_a_change_of_its_own(self, cfg):
        cluster = cfg.GetClusterInfo()
        cfg.SetVGName("other")
        with pytest.raises(errors.ConfigurationError, match="updated since"):
            cfg.Update(cluster)
        future = cfg.GetClusterInfo()
        future.serial_no += 1
        with pytest.raises(errors.ConfigurationError, match="updated since"):
            cfg.Update(future)

    def test_ports_are_not_the_callers(self, cfg):
        """Ports given out while somebody held the cluster object are not given out again."""
        cluster = cfg.GetClusterInfo()
        port = cfg.AllocatePort()
        cfg.AddTcpUdpPort(11900)
        cluster.AddTag("x")
        cfg.Update(cluster)
        assert cluster.highest_used_port == port
        assert cluster.tcpudp_port_pool == cfg.GetPortList() == {11900}
        assert cfg.AllocatePort() == 11900
        assert cfg.AllocatePort() == port + 1

    def test_new_parts_get_uuids(self, cfg):
        """UU1: disks and network cards have one, which stays."""
        instance = _AddDrbd(cfg)
        before = [disk.uuid for disk in instance.disks[0].IterTree()]
        assert len(set(before)) == 3
        instance.nics.append(objects.NIC(mac="aa:00:00:00:00:01", nicparams={}))
        cfg.Update(instance)
        stored = cfg.GetInstanceInfo(_INST)
        assert stored.nics[0].uuid == instance.nics[0].uuid
        assert instance.nics[0].uuid
        assert [disk.uuid for disk in stored.disks[0].IterTree()] == before

    def test_problems_are_told(self, cfg, caplog):
        *_, instance = self._Objects(cfg)
        instance.primary_node = "gone"
        told = []
        cfg.Update(instance, told.append)
        (text,) = told
        assert "unknown primary node 'gone'" in text
        assert any(record.levelname == "CRITICAL" for record in caplog.records)
        assert cfg.GetInstanceInfo(_INST).primary_node == "gone"


class TestNodes:
    def test_add_refuses(self, cfg, rt):
        cfg.AddNode(fake.NewNode(9), "test")
        writes = cfg.write_count
        with pytest.raises(errors.ConfigurationError, match="already"):
            cfg.AddNode(fake.NewNode(9), "test")
        with pytest.raises(errors.ConfigurationError, match="UUID"):
            cfg.AddNode(fake.NewNode(10, uuid=cfg.GetNodeInfo(_NODE1).uuid), "test")
        with pytest.raises(errors.ConfigurationError, match="UUID"):
            cfg.AddNode(fake.NewNode(10, uuid=_NODE1), "test")
        assert cfg.write_count == writes
        assert fake.NodeName(10) not in cfg.GetNodeList()

    def test_given_uuid_is_kept(self, cfg):
        cfg.AddNode(fake.NewNode(9, uuid="given"), "test")
        assert cfg.GetNodeInfo(fake.NodeName(9)).uuid == "given"

    def test_remove_refuses(self, cfg):
        with pytest.raises(errors.ConfigurationError, match="Unknown node 'nosuch'"):
            cfg.RemoveNode("nosuch")

    def test_candidate_pool(self, rt, caplog):
        cfg = fake.NewWriter(rt, nodes=6, candidates=4)
        cluster = cfg.GetClusterInfo()
        cluster.candidate_pool_size = 5
        cfg.Update(cluster)
        caplog.clear()
        excepted = fake.NodeName(5)
        (promoted,) = cfg.MaintainCandidatePool([excepted])
        assert promoted.name == fake.NodeName(6)
        assert promoted.master_candidate
        assert cfg.GetNodeInfo(promoted.name).master_candidate
        promoted.AddTag("mine")
        cfg.Update(promoted)
        assert cfg.MaintainCandidatePool([excepted]) == []
        assert not caplog.records

    def test_candidate_pool_ignores_the_unfit_and_never_demotes(self, rt):
        cfg = fake.NewWriter(rt, nodes=4, candidates=1)
        for number, flag in ((2, "offline"), (3, "drained")):
            node = cfg.GetNodeInfo(fake.NodeName(number))
            setattr(node, flag, True)
            cfg.Update(node)
        cluster = cfg.GetClusterInfo()
        cluster.candidate_pool_size = 10
        cfg.Update(cluster)
        assert [node.name for node in cfg.MaintainCandidatePool([])] == [fake.NodeName(4)]
        cluster = cfg.GetClusterInfo()
        cluster.candidate_pool_size = 1
        cfg.Update(cluster)
        assert cfg.MaintainCandidatePool([]) == []
        assert cfg.GetMasterCandidateStats() == (2, 1, 2)


class TestInstances:
    def test_add_refuses(self, cfg):
        nic = objects.NIC(mac="aa:00:00:00:00:01", nicparams={})
        fake.AddInstance(cfg, _INST, _NODE1, nics=[nic])
        writes = cfg.write_count
        with pytest.raises(errors.ProgrammerError):
            cfg.AddInstance("inst", "test")
        with pytest.raises(errors.ConfigurationError, match="already"):
            fake.AddInstance(cfg, _INST, _NODE1)
        with pytest.raises(errors.ConfigurationError, match="MAC address aa:00:00:00:00:01.*inst1"):
            fake.AddInstance(cfg, "other", _NODE1, nics=[nic.Copy()])
        with pytest.raises(errors.ConfigurationError, match="UUID"):
            fake.AddInstance(cfg, "other", _NODE1, uuid=cfg.GetInstanceInfo(_INST).uuid)
        with pytest.raises(errors.ConfigurationError, match="UUID"):
            fake.AddInstance(cfg, "other", _NODE1, uuid="x", nics=[objects.NIC(uuid="x")])
        assert cfg.write_count == writes
        assert cfg.GetInstanceList() == [_INST]

    @pytest.mark.parametrize(
        "change",
        [
            lambda cfg: cfg.RemoveInstance("nosuch"),
            lambda cfg: cfg.RenameInstance("nosuch", "x"),
            lambda cfg: cfg.MarkInstanceUp("nosuch"),
            lambda cfg: cfg.MarkInstanceDown("nosuch"),
        ],
    )
    def test_unknown(self, cfg, change):
        with pytest.raises(errors.ConfigurationError, match="Unknown instance 'nosuch'"):
            change(cfg)
        assert cfg.write_count == 0

    def test_remove_gives_ports_back(self, cfg):
        instance = _AddDrbd(cfg)
        instance.network_port = cfg.AllocatePort()
        cfg.Update(instance)
        ports = {instance.disks[0].logical_id[2], instance.network_port}
        cfg.RemoveInstance(_INST)
        assert cfg.GetPortList() == ports
        assert {cfg.AllocatePort(), cfg.AllocatePort()} == ports

    def test_mark(self, cfg):
        fake.AddInstance(cfg, _INST, _NODE1)
        cfg.MarkInstanceUp(_INST)
        assert cfg.GetInstanceInfo(_INST).admin_up is True
        cfg.MarkInstanceDown(_INST)
        assert cfg.GetInstanceInfo(_INST).admin_up is False

    def test_rename(self, cfg, rt):
        path = "/srv/ganeti/file-storage/inst1.example.com/disk0"
        disk = objects.Disk(
            dev_type=constants.LD_FILE,
            logical_id=("loop", path),
            physical_id=("loop", path),
            iv_name="disk/0",
            size=10,
            mode="rw",
        )
        instance = fake.AddInstance(cfg, _INST, _NODE1, disks=[disk], disk_template="file")
        cfg.RenameInstance(_INST, "new.example.com")
        assert cfg.GetInstanceList() == ["new.example.com"]
        stored = cfg.GetInstanceInfo("new.example.com")
        assert stored.name == "new.example.com"
        assert stored.uuid == instance.uuid
        expected = ("loop", "/srv/ganeti/file-storage/new.example.com/disk0")
        assert stored.disks[0].logical_id == stored.disks[0].physical_id == expected
        assert list(_Stored(rt)["instances"]) == ["new.example.com"]

    def test_rename_keeps_other_disks(self, cfg):
        before = _AddDrbd(cfg).disks[0].logical_id
        cfg.RenameInstance(_INST, "new")
        assert cfg.GetInstanceInfo("new").disks[0].logical_id == before

    def test_rename_refuses(self, cfg):
        fake.AddInstance(cfg, "a", _NODE1)
        fake.AddInstance(cfg, "b", _NODE1)
        with pytest.raises(errors.ConfigurationError, match="already"):
            cfg.RenameInstance("a", "b")
        assert sorted(cfg.GetInstanceList()) == ["a", "b"]


class TestDiskIds:
    def test_physical_ids(self, cfg):
        disk = fake.NewDrbdDisk((_NODE1, _NODE2), 11000, (3, 4), "s", "d")
        cfg.SetDiskID(disk, _NODE1)
        assert disk.physical_id == ("192.0.2.1", 11000, "192.0.2.2", 11000, 3, "s")
        cfg.SetDiskID(disk, _NODE2)
        assert disk.physical_id == ("192.0.2.2", 11000, "192.0.2.1", 11000, 4, "s")
        assert disk.children[0].physical_id == ("xenvg", "d.data")

    @pytest.mark.parametrize("node", [_NODE3, "nosuch"])
    def test_elsewhere(self, cfg, node):
        disk = fake.NewDrbdDisk((_NODE1, _NODE2), 11000, (3, 4), "s", "d")
        with pytest.raises(errors.ConfigurationError):
            cfg.SetDiskID(disk, node)

    def test_unknown_peer(self, cfg):
        disk = fake.NewDrbdDisk((_NODE1, "gone"), 11000, (3, 4), "s", "d")
        with pytest.raises(errors.ConfigurationError):
            cfg.SetDiskID(disk, _NODE1)


class TestReservations:
    """What is given to one job is not given to another, until it is dropped or configured."""

    def test_mac_form(self, cfg):
        mac = cfg.GenerateMAC("job1")
        prefix, rest = mac[:8], mac[8:]
        assert prefix == "aa:00:00"
        assert len(rest) == 9
        assert rest[0::3] == ":::"
        assert mac == mac.lower()

    def test_secret_form(self, cfg):
        secret = cfg.GenerateDRBDSecret("job1")
        assert len(secret) == 40
        int(secret, 16)
        assert secret != cfg.GenerateDRBDSecret("job1")

    def test_mac_reservation(self, cfg):
        mac = cfg.GenerateMAC("job1")
        with pytest.raises(errors.ReservationError, match="job1"):
            cfg.ReserveMAC(mac, "job2")
        cfg.DropECReservations("job1")
        cfg.ReserveMAC(mac, "job2")
        with pytest.raises(errors.ReservationError):
            cfg.ReserveMAC(mac, "job2")
        fake.AddInstance(cfg, _INST, _NODE1, nics=[objects.NIC(mac=mac, nicparams={})])
        cfg.DropECReservations("job2")
        with pytest.raises(errors.ReservationError, match=f"in use by instance {_INST}"):
            cfg.ReserveMAC(mac, "job3")

    def test_generated_macs_avoid_everybody(self, cfg, rt):
        values = iter(["000001", "000002", "000003", "000004"])
        rt.random.token_hex = lambda nbytes: next(values)
        fake_nic = objects.NIC(mac="aa:00:00:00:00:01", nicparams={}, uuid="n")
        fake.AddInstance(cfg, _INST, _NODE1, uuid="i", nics=[fake_nic])
        cfg.ReserveMAC("aa:00:00:00:00:02", "job1")
        assert cfg.GenerateMAC("job2") == "aa:00:00:00:00:03"

    def test_no_macs_left(self, cfg, rt):
        rt.random.token_hex = lambda nbytes: "00" * nbytes
        cfg.GenerateMAC("job1")
        with pytest.raises(errors.ConfigurationError, match="64"):
            cfg.GenerateMAC("job2")

    def test_lv(self, cfg):
        cfg.ReserveLV("lv1", "job1")
        with pytest.raises(errors.ReservationError):
            cfg.ReserveLV("lv1", "job2")
        _AddDrbd(cfg)
        with pytest.raises(errors.ReservationError, match="in use"):
            cfg.ReserveLV(f"{_INST}.data", "job2")

    def test_unique_id_avoids_everything(self, cfg, rt):
        first = cfg.GenerateUniqueID("job1")
        cfg.AddNode(fake.NewNode(9, name="00000000-0000-4000-8000-000000000099"), "test")
        hexes = iter([first.replace("-", ""), "0" * 19 + "0" * 11 + "99", "f" * 32])
        rt.random.token_hex = lambda nbytes: next(hexes)
        assert cfg.GenerateUniqueID("job2").startswith("ffffffff")

    def test_statistics(self, cfg):
        cfg.GenerateMAC("job1")
        cfg.GenerateUniqueID("job1")
        cfg.AllocateDRBDMinor([_NODE1], "x")
        statistics = cfg.GetStatistics()
        assert statistics["reserved_macs"] == statistics["reserved_ids"] == 1
        assert statistics["reserved_minors"] == 1
        cfg.DropECReservations("job1")
        assert cfg.GetStatistics()["reserved_macs"] == 0


class TestPorts:
    def test_in_order(self, cfg):
        assert [cfg.AllocatePort() for _ in range(3)] == [11000, 11001, 11002]

    def test_pool_first(self, cfg, rt):
        cfg.AllocatePort()
        cfg.AllocatePort()
        cfg.AddTcpUdpPort(11000)
        assert cfg.GetPortList() == {11000}
        assert _Stored(rt)["cluster"]["tcpudp_port_pool"] == [11000]
        assert cfg.AllocatePort() == 11000
        assert cfg.AllocatePort() == 11002

    @pytest.mark.parametrize("port", ["11000", None, 1.5, True])
    def test_only_numbers(self, cfg, port):
        with pytest.raises(errors.ProgrammerError):
            cfg.AddTcpUdpPort(port)

    def test_limit(self, rt):
        document = fake.NewConfigData(rt)
        document["cluster"]["highest_used_port"] = 14997
        rt.files.write(pathutils.CLUSTER_CONF_FILE, json.dumps(document).encode())
        cfg = fake.OpenWriter(rt)
        assert cfg.AllocatePort() == 14998
        with pytest.raises(errors.ConfigurationError, match="14998.*no ports left"):
            cfg.AllocatePort()
        cfg.AddTcpUdpPort(12345)
        assert cfg.AllocatePort() == 12345

    def test_a_pool_port_in_use_is_not_given_out(self, cfg):
        instance = fake.AddInstance(cfg, _INST, _NODE1)
        instance.network_port = cfg.AllocatePort()
        cfg.Update(instance)
        cfg.AddTcpUdpPort(instance.network_port)
        assert cfg.AllocatePort() == instance.network_port + 1


class TestMinors:
    def test_lowest_free(self, cfg):
        assert cfg.AllocateDRBDMinor([_NODE1, _NODE2], "a") == [0, 0]
        assert cfg.AllocateDRBDMinor([_NODE1, _NODE3], "b") == [1, 0]

    def test_same_node_twice_keeps_the_order(self, cfg):
        assert cfg.AllocateDRBDMinor([_NODE1, _NODE2, _NODE1, _NODE1], "a") == [0, 0, 1, 2]

    def test_gaps_are_filled(self, cfg):
        for name in ("a", "b", "c"):
            _AddDrbd(cfg, name)
        cfg.RemoveInstance("b")
        assert cfg.AllocateDRBDMinor([_NODE1, _NODE2], "d") == [1, 1]

    def test_release(self, cfg):
        cfg.AllocateDRBDMinor([_NODE1], "a")
        cfg.AllocateDRBDMinor([_NODE1], "b")
        cfg.ReleaseDRBDMinors("a")
        cfg.ReleaseDRBDMinors("nobody")
        assert cfg.AllocateDRBDMinor([_NODE1], "c") == [0]
        assert cfg.ComputeDRBDMap()[_NODE1] == {0: "c", 1: "b"}

    def test_released_by_add_and_update(self, cfg):
        instance = _AddDrbd(cfg)
        assert cfg.GetStatistics()["reserved_minors"] == 0
        assert cfg.ComputeDRBDMap() == {_NODE1: {0: _INST}, _NODE2: {0: _INST}, _NODE3: {}}
        cfg.AllocateDRBDMinor([_NODE1], _INST)
        cfg.Update(instance)
        assert cfg.GetStatistics()["reserved_minors"] == 0
        assert cfg.AllocateDRBDMinor([_NODE1], "x") == [1]

    def test_update_of_another_releases_nothing(self, cfg):
        other = fake.AddInstance(cfg, "other", _NODE1)
        cfg.AllocateDRBDMinor([_NODE1], _INST)
        cfg.Update(other)
        assert cfg.GetStatistics()["reserved_minors"] == 1

    def test_unknown_node(self, cfg):
        with pytest.raises(errors.ConfigurationError, match="nosuch"):
            cfg.AllocateDRBDMinor([_NODE1, "nosuch"], "a")
        assert cfg.GetStatistics()["reserved_minors"] == 0

    def test_duplicates_stop_everything(self, cfg):
        _AddDrbd(cfg, "a")
        disk = fake.NewDrbdDisk((_NODE1, _NODE3), 11900, (0, 0), "s", "b")
        fake.AddInstance(cfg, "b", _NODE1, disks=[disk])
        with pytest.raises(errors.ConfigurationError, match=f"DRBD minor 0 of node {_NODE1}"):
            cfg.AllocateDRBDMinor([_NODE2], "c")
        with pytest.raises(errors.ConfigurationError):
            cfg.ComputeDRBDMap()

    def test_reserved_for_one_but_used_by_another(self, cfg):
        cfg.AllocateDRBDMinor([_NODE1], "a")
        disk = fake.NewDrbdDisk((_NODE1, _NODE3), 11900, (0, 0), "s", "b")
        fake.AddInstance(cfg, "b", _NODE1, disks=[disk])
        with pytest.raises(errors.ConfigurationError, match="reserved for instance a"):
            cfg.ComputeDRBDMap()


class _Machine(RuleBasedStateMachine):
    """Instances come and go in any order: nothing is ever given to two, nothing leaks."""

    @initialize()
    def Begin(self):
        self.rt = runtime_fake.NewRuntime()
        self.cfg = fake.NewWriter(self.rt, nodes=3)
        self.held_ports = set()
        self.counter = 0

    @rule(
        name=st.sampled_from("abcde"),
        pair=st.sampled_from([(_NODE1, _NODE2), (_NODE2, _NODE1), (_NODE3, _NODE1)]),
    )
    def Add(self, name, pair):
        if name not in self.cfg.GetInstanceList():
            self.counter += 1
            ec_id = f"job{self.counter}"
            minors = self.cfg.AllocateDRBDMinor(list(pair), name)
            port = self.cfg.AllocatePort()
            assert port not in self.held_ports
            disk = fake.NewDrbdDisk(
                pair, port, tuple(minors), self.cfg.GenerateDRBDSecret(ec_id), ec_id
            )
            nic = objects.NIC(mac=self.cfg.GenerateMAC(ec_id), nicparams={})
            fake.AddInstance(self.cfg, name, pair[0], ec_id, disks=[disk], nics=[nic])
            self.cfg.DropECReservations(ec_id)

    @rule(name=st.sampled_from("abcde"))
    def Remove(self, name):
        if name in self.cfg.GetInstanceList():
            self.cfg.RemoveInstance(name)

    @rule(name=st.sampled_from("abcde"), new=st.sampled_from("abcde"))
    def Rename(self, name, new):
        names = self.cfg.GetInstanceList()
        if name in names and new not in names:
            self.cfg.RenameInstance(name, new)

    @rule(name=st.sampled_from("abcde"), pair=st.sampled_from([(_NODE2, _NODE3)]))
    def GiveUp(self, name, pair):
        if name not in self.cfg.GetInstanceList():
            self.cfg.AllocateDRBDMinor(list(pair), name)
            self.cfg.ReleaseDRBDMinors(name)

    @rule()
    def TakePort(self):
        self.held_ports.add(self.cfg.AllocatePort())

    @rule()
    def GivePort(self):
        if self.held_ports:
            self.cfg.AddTcpUdpPort(self.held_ports.pop())

    @invariant()
    def Sound(self):
        if not hasattr(self, "cfg"):
            return
        assert self.cfg.VerifyConfig() == []
        instances = self.cfg.GetAllInstancesInfo().values()
        used = {disk.logical_id[2] for inst in instances for disk in inst.disks}
        highest = self.cfg.GetClusterInfo().highest_used_port
        pool = self.cfg.GetPortList()
        everything = set(range(11000, highest + 1))
        assert used | pool | self.held_ports == everything
        assert len(used) + len(pool) + len(self.held_ports) == len(everything)
        # Minors are dense enough: never more than instances on the node.
        for minors in self.cfg.ComputeDRBDMap().values():
            assert len(minors) <= len(instances)
        statistics = self.cfg.GetStatistics()
        assert all(statistics[name] == 0 for name in statistics if name.startswith("reserved"))
        # And the next start finds the same.
        reopened = fake.OpenWriter(self.rt)
        assert reopened.write_count == 0
        assert {n: i.ToDict() for n, i in reopened.GetAllInstancesInfo().items()} == {
            inst.name: inst.ToDict() for inst in instances
        }


TestAnyOrder = _Machine.TestCase
TestAnyOrder.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)


@given(st.lists(st.sampled_from([_NODE1, _NODE2, _NODE3]), max_size=8))
@settings(max_examples=30, deadline=None)
def test_minors_of_one_request_differ(nodes):
    cfg = fake.NewWriter(runtime_fake.NewRuntime(), nodes=3)
    minors = cfg.AllocateDRBDMinor(nodes, "a")
    pairs = list(zip(nodes, minors, strict=True))
    assert len(set(pairs)) == len(pairs)
    for node in set(nodes):
        assert [minor for name, minor in pairs if name == node] == list(range(nodes.count(node)))

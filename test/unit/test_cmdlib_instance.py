"""Operations on instances: what they do to nodes and configuration, and what they refuse."""

import os
import types

import pytest

from ganeti import errors, locking, opcodes, pathutils, rpc
from ganeti.cmdlib import cluster_disks, disk_ops, fake
from ganeti.config import fake as config_fake

NODE1, NODE2 = "node1.example.com", "node2.example.com"
NAME = "inst1.example.com"


def NewCreate(**values):
    disks = [{"size": 16}, {"size": "1g", "mode": "ro"}]
    return fake.NewCreate(NAME, NODE2, **{"disks": disks, **values})


@pytest.fixture
def world():
    return fake.NewWorld(3)


@pytest.fixture
def with_instance(world):
    world.Run(NewCreate())
    return world


def Fingerprint(world):
    """What must not change when an operation is refused."""
    config = world.cfg
    return (
        sorted(config.GetInstanceList()),
        {name: obj.ToDict() for name, obj in config.GetAllInstancesInfo().items()},
        {name: obj.ToDict() for name, obj in config.GetAllNodesInfo().items()},
        sorted(world.master.glm._names(locking.LEVEL_INSTANCE)),
        {name: sorted(node.disks) for name, node in world.rpc.nodes.items()},
    )


def Refused(world, op, code, *fragments):
    """Run an operation that must be refused with nothing changed."""
    before = Fingerprint(world)
    with pytest.raises(errors.OpPrereqError) as caught:
        world.Run(op)
    text, found = caught.value.args
    assert found == code, text
    for fragment in fragments:
        assert fragment in text
    assert Fingerprint(world) == before


class TestCreate:
    """BASE1: OP_INSTANCE_CREATE with the disk templates diskless and file, and what it refuses."""

    def test_file(self, world):
        assert world.Run(NewCreate()) == [NODE2]
        instance = world.cfg.GetInstanceInfo(NAME)
        assert instance.admin_up is True
        assert [disk.size for disk in instance.disks] == [16, 1024]
        assert [disk.mode for disk in instance.disks] == ["rw", "ro"]
        assert [disk.iv_name for disk in instance.disks] == ["disk/0", "disk/1"]
        assert instance.disks[1].logical_id == (
            "loop",
            f"/srv/ganeti/file-storage/{NAME}/disk1",
        )
        assert instance.nics[0].mac.startswith("aa:00:00:")
        assert instance.uuid
        node = world.rpc.nodes[NODE2]
        assert node.running == {NAME: 128}
        assert node.scripts == [("create", NAME)]
        assert world.rpc.nodes[NODE1].running == {}
        assert NAME in world.master.glm._names(locking.LEVEL_INSTANCE)
        assert "* running the instance OS create scripts..." in world.log

    def test_diskless_without_start(self, world):
        world.Run(NewCreate(disk_template="diskless", disks=[], start=False))
        instance = world.cfg.GetInstanceInfo(NAME)
        assert instance.admin_up is False
        assert instance.disks == []
        assert world.rpc.nodes[NODE2].scripts == []

    def test_no_install_means_no_start(self, world):
        world.Run(NewCreate(no_install=True))
        assert world.cfg.GetInstanceInfo(NAME).admin_up is False
        assert world.rpc.nodes[NODE2].scripts == []

    def test_sub_directory(self, world):
        world.Run(NewCreate(file_storage_dir="group1", file_driver="blktap"))
        disk = world.cfg.GetInstanceInfo(NAME).disks[0]
        assert disk.logical_id == ("blktap", f"/srv/ganeti/file-storage/group1/{NAME}/disk0")

    def test_dry_run_changes_nothing(self, world):
        before = Fingerprint(world)
        assert world.Run(NewCreate(dry_run=True)) == [NODE2]
        assert Fingerprint(world) == before

    def test_identify_defaults(self, world):
        world.Run(
            NewCreate(
                beparams={"memory": 128, "vcpus": 2},
                nics=[{"link": "xen-br0"}],
                identify_defaults=True,
            )
        )
        instance = world.cfg.GetInstanceInfo(NAME)
        assert instance.beparams == {"vcpus": 2}
        assert instance.nics[0].nicparams == {}

    def test_failed_disk_is_undone(self, world):
        world.rpc.Fail("blockdev_create", "no space")
        before = Fingerprint(world)
        with pytest.raises(errors.OpExecError, match="no space"):
            world.Run(NewCreate())
        assert Fingerprint(world) == before
        assert world.rpc.nodes[NODE2].directories == set()

    def test_failed_os_leaves_the_instance(self, world):
        world.rpc.Fail("instance_os_add", "script failed")
        with pytest.raises(errors.OpExecError, match="script failed"):
            world.Run(NewCreate())
        assert world.cfg.GetInstanceInfo(NAME).admin_up is False

    def test_hooks(self, world):
        world.Run(NewCreate())
        phases = [(nodes, path, phase) for nodes, path, phase, _ in world.rpc.hooks]
        assert phases[:2] == [
            ([NODE1, NODE2], "instance-add", "pre"),
            ([NODE1, NODE2], "instance-add", "post"),
        ]
        env = world.rpc.hooks[0][3]
        assert env["GANETI_ADD_MODE"] == "create"
        assert env["GANETI_INSTANCE_DISK1_SIZE"] == "1024"
        assert env["GANETI_INSTANCE_NIC0_BRIDGE"] == "xen-br0"
        assert env["GANETI_INSTANCE_BE_memory"] == "128"

    @pytest.mark.parametrize(
        ("values", "code", "fragments"),
        [
            ({"pnode": "node9"}, errors.ECODE_NOENT, ["node9"]),
            ({"pnode": None}, errors.ECODE_INVAL, ["primary node"]),
            ({"os_type": "nosuch"}, errors.ECODE_INVAL, ["nosuch"]),
            ({"os_type": "noop"}, errors.ECODE_INVAL, ["variant", "noop+default"]),
            ({"os_type": "noop+x"}, errors.ECODE_INVAL, ["'x'"]),
            ({"os_type": None}, errors.ECODE_INVAL, ["os_type"]),
            ({"disk_template": None}, errors.ECODE_INVAL, ["disk_template"]),
            ({"disk_template": "drbd"}, errors.ECODE_INVAL, ["snode", "drbd"]),
            ({"iallocator": "hail"}, errors.ECODE_INVAL, ["not both"]),
            ({"disks": []}, errors.ECODE_INVAL, ["disks"]),
            ({"disks": [{"size": "abc"}]}, errors.ECODE_INVAL, ["disk/0", "abc"]),
            ({"disks": [{"size": 8}, {}]}, errors.ECODE_INVAL, ["disk/1", "size"]),
            ({"disks": [{"size": 0}]}, errors.ECODE_INVAL, ["disk/0", "size"]),
            ({"disks": [{"size": 8, "mode": "rx"}]}, errors.ECODE_INVAL, ["'rx'"]),
            ({"disks": [{"size": 8, "speed": 1}]}, errors.ECODE_INVAL, ["disk/0", "speed"]),
            ({"disks": [{"size": 8, "adopt": "lv"}]}, errors.ECODE_INVAL, ["disk/0"]),
            ({"disks": [{"size": 8}] * 17}, errors.ECODE_INVAL, ["16"]),
            ({"disk_template": "diskless"}, errors.ECODE_INVAL, ["diskless"]),
            ({"nics": [{"speed": "1"}]}, errors.ECODE_INVAL, ["nic/0", "speed"]),
            ({"nics": [{"ip": "1.2.3"}]}, errors.ECODE_INVAL, ["nic/0", "1.2.3"]),
            ({"nics": [{}, {"mac": "zz"}]}, errors.ECODE_INVAL, ["nic/1", "zz"]),
            ({"nics": [{"mode": "routed"}]}, errors.ECODE_INVAL, ["nic/0"]),
            ({"nics": [{"mode": "x"}]}, errors.ECODE_INVAL, ["nic/0", "'x'"]),
            ({"nics": [{"link": "br7"}]}, errors.ECODE_ENVIRON, ["br7"]),
            ({"nics": [{"link": "a", "bridge": "b"}]}, errors.ECODE_INVAL, ["nic/0"]),
            ({"nics": [{}] * 9}, errors.ECODE_INVAL, ["8"]),
            ({"hypervisor": "kvm"}, errors.ECODE_STATE, ["'kvm'"]),
            ({"hvparams": {"nosuch": 1}}, errors.ECODE_INVAL, ["nosuch"]),
            ({"hvparams": {"migration_port": 1}}, errors.ECODE_INVAL, ["migration_port"]),
            ({"beparams": {"memory": "lots"}}, errors.ECODE_INVAL, ["lots"]),
            ({"beparams": {"memory": 0}}, errors.ECODE_INVAL, ["memory"]),
            ({"beparams": {"vcpus": -1}}, errors.ECODE_INVAL, ["vcpus", "-1"]),
            ({"beparams": {"memory": 5000}}, errors.ECODE_NORES, ["5000", "4096"]),
            ({"beparams": {"nosuch": 1}}, errors.ECODE_INVAL, ["nosuch"]),
            ({"ip_check": True}, errors.ECODE_INVAL, ["ip_check"]),
            ({"instance_name": "a/b"}, errors.ECODE_INVAL, ["a/b"]),
            ({"file_storage_dir": "/abs"}, errors.ECODE_INVAL, ["/abs"]),
            ({"file_storage_dir": "../.."}, errors.ECODE_INVAL, ["../.."]),
        ],
    )
    def test_bad_input_changes_nothing(self, world, values, code, fragments):
        Refused(world, NewCreate(**values), code, *fragments)

    def test_existing_name(self, with_instance):
        Refused(with_instance, NewCreate(), errors.ECODE_EXISTS, NAME)

    def test_mac_in_use(self, with_instance):
        mac = with_instance.cfg.GetInstanceInfo(NAME).nics[0].mac
        op = NewCreate(instance_name="other.example.com", nics=[{"mac": mac.upper()}])
        Refused(with_instance, op, errors.ECODE_NOTUNIQUE, mac)

    @pytest.mark.parametrize("flag", ["offline", "drained"])
    def test_unusable_node(self, world, flag):
        node = world.cfg.GetNodeInfo(NODE2)
        setattr(node, flag, True)
        node.master_candidate = False
        world.cfg.Update(node, None)
        Refused(world, NewCreate(), errors.ECODE_STATE, NODE2, flag)

    def test_dead_node(self, world):
        world.rpc.Cut(NODE2)
        Refused(world, NewCreate(), errors.ECODE_ENVIRON, NODE2, "timed out")


class TestLife:
    """BASE1: startup, shutdown, reboot, reinstall, rename, remove, console."""

    def test_shutdown_and_startup(self, with_instance):
        world = with_instance
        world.Run(opcodes.OpInstanceShutdown(instance_name="inst1"))
        assert world.cfg.GetInstanceInfo(NAME).admin_up is False
        node = world.rpc.nodes[NODE2]
        assert (node.running, node.active) == ({}, set())
        world.Run(opcodes.OpInstanceStartup(instance_name="inst1", force=False))
        assert world.cfg.GetInstanceInfo(NAME).admin_up is True
        assert node.running == {NAME: 128}
        assert node.active == node.disks

    def test_failed_startup_takes_the_disks_down(self, with_instance):
        world = with_instance
        world.Run(opcodes.OpInstanceShutdown(instance_name=NAME))
        world.rpc.Fail("instance_start", "no kernel")
        with pytest.raises(errors.OpExecError, match="no kernel"):
            world.Run(opcodes.OpInstanceStartup(instance_name=NAME, force=False))
        assert world.rpc.nodes[NODE2].active == set()
        # The wanted state is what the user asked for.
        assert world.cfg.GetInstanceInfo(NAME).admin_up is True

    def test_startup_checks_the_memory_of_this_run(self, with_instance):
        world = with_instance
        world.Run(opcodes.OpInstanceShutdown(instance_name=NAME))
        op = opcodes.OpInstanceStartup(instance_name=NAME, force=False, beparams={"memory": "8g"})
        Refused(world, op, errors.ECODE_NORES, "8192")
        op = opcodes.OpInstanceStartup(instance_name=NAME, force=False, beparams={"memory": 256})
        world.Run(op)
        assert world.rpc.nodes[NODE2].running == {NAME: 256}
        assert world.cfg.GetInstanceInfo(NAME).beparams == {}

    def test_shutdown_failure_is_a_warning(self, with_instance):
        world = with_instance
        world.rpc.Fail("instance_shutdown", "guest hangs")
        world.Run(opcodes.OpInstanceShutdown(instance_name=NAME))
        assert any("guest hangs" in line for line in world.log)

    @pytest.mark.parametrize("kind", ["soft", "hard"])
    def test_reboot(self, with_instance, kind):
        op = opcodes.OpInstanceReboot(
            instance_name=NAME, reboot_type=kind, ignore_secondaries=False
        )
        with_instance.Run(op)
        assert ("instance_reboot", NODE2) in with_instance.rpc.calls

    def test_full_reboot(self, with_instance):
        world = with_instance
        world.rpc.calls.clear()
        op = opcodes.OpInstanceReboot(
            instance_name=NAME, reboot_type="full", ignore_secondaries=False
        )
        world.Run(op)
        names = [call for call, _ in world.rpc.calls if call.startswith("instance_")]
        assert names == ["instance_shutdown", "instance_start"]
        assert world.rpc.nodes[NODE2].running == {NAME: 128}

    def test_reinstall(self, with_instance):
        world = with_instance
        op = opcodes.OpInstanceReinstall(instance_name=NAME, os_type="noop+other")
        Refused(world, op, errors.ECODE_STATE, NAME, "gnt-instance shutdown")
        world.Run(opcodes.OpInstanceShutdown(instance_name=NAME))
        bad = opcodes.OpInstanceReinstall(instance_name=NAME, os_type="noop+bad")
        Refused(world, bad, errors.ECODE_INVAL, "'bad'")
        world.Run(op)
        assert world.cfg.GetInstanceInfo(NAME).os == "noop+other"
        assert world.rpc.nodes[NODE2].scripts[-1] == ("reinstall", NAME)
        assert world.rpc.nodes[NODE2].active == set()

    def test_reinstall_failure_takes_the_disks_down(self, with_instance):
        world = with_instance
        world.Run(opcodes.OpInstanceShutdown(instance_name=NAME))
        world.rpc.Fail("instance_os_add", "broken script")
        with pytest.raises(errors.OpExecError, match="broken script"):
            world.Run(opcodes.OpInstanceReinstall(instance_name=NAME))
        assert world.rpc.nodes[NODE2].active == set()

    def test_rename(self, with_instance):
        world = with_instance
        world.Run(opcodes.OpInstanceShutdown(instance_name=NAME))
        op = opcodes.OpInstanceRename(instance_name=NAME, new_name="localhost", ignore_ip=True)
        world.Run(op)
        new = op.new_name
        assert world.cfg.GetInstanceInfo(NAME) is None
        instance = world.cfg.GetInstanceInfo(new)
        assert instance.disks[0].logical_id[1] == f"/srv/ganeti/file-storage/{new}/disk0"
        node = world.rpc.nodes[NODE2]
        assert f"/srv/ganeti/file-storage/{new}/disk0" in node.disks
        assert node.scripts[-1] == ("rename", new)
        locks = world.master.glm._names(locking.LEVEL_INSTANCE)
        assert new in locks
        assert NAME not in locks

    def test_remove(self, with_instance):
        world = with_instance
        op = opcodes.OpInstanceRemove(instance_name=NAME, ignore_failures=False)
        world.Run(op)
        node = world.rpc.nodes[NODE2]
        assert (node.running, node.disks, node.directories) == ({}, set(), set())
        assert world.cfg.GetInstanceList() == []
        assert NAME not in world.master.glm._names(locking.LEVEL_INSTANCE)

    def test_remove_keeps_what_could_not_be_removed(self, with_instance):
        world = with_instance
        world.rpc.Fail("blockdev_remove", "busy")
        op = opcodes.OpInstanceRemove(instance_name=NAME, ignore_failures=False)
        with pytest.raises(errors.OpExecError, match="--ignore-failures"):
            world.Run(op)
        assert world.cfg.GetInstanceList() == [NAME]
        assert NAME in world.master.glm._names(locking.LEVEL_INSTANCE)
        world.Run(opcodes.OpInstanceRemove(instance_name=NAME, ignore_failures=True))
        assert world.cfg.GetInstanceList() == []

    def test_console(self, with_instance):
        world = with_instance
        os.makedirs(pathutils.VirtualNodeRoot(NODE2), exist_ok=True)
        argv = world.Run(opcodes.OpInstanceConsole(instance_name=NAME))
        assert "onsole not available" in " ".join(argv)
        assert NODE2 in " ".join(argv)
        world.Run(opcodes.OpInstanceShutdown(instance_name=NAME))
        with pytest.raises(errors.OpExecError, match="does not run"):
            world.Run(opcodes.OpInstanceConsole(instance_name=NAME))

    @pytest.mark.parametrize(
        "op_class",
        [
            opcodes.OpInstanceStartup,
            opcodes.OpInstanceShutdown,
            opcodes.OpInstanceReboot,
            opcodes.OpInstanceReinstall,
            opcodes.OpInstanceRename,
            opcodes.OpInstanceRemove,
            opcodes.OpInstanceConsole,
            opcodes.OpInstanceActivateDisks,
            opcodes.OpInstanceSetParams,
        ],
    )
    def test_unknown_instance(self, with_instance, op_class):
        extra = {
            opcodes.OpInstanceStartup: {"force": False},
            opcodes.OpInstanceReboot: {"reboot_type": "soft", "ignore_secondaries": False},
            opcodes.OpInstanceRename: {"new_name": "localhost"},
            opcodes.OpInstanceRemove: {"ignore_failures": True},
            opcodes.OpInstanceSetParams: {"beparams": {"vcpus": 1}},
        }.get(op_class, {})
        op = op_class(instance_name="nosuch", **extra)
        Refused(with_instance, op, errors.ECODE_NOENT, "'nosuch'")


class TestDisks:
    def test_deactivate_needs_a_stopped_instance(self, with_instance):
        world = with_instance
        op = opcodes.OpInstanceDeactivateDisks(instance_name=NAME)
        Refused(world, op, errors.ECODE_STATE, NAME)
        world.Run(opcodes.OpInstanceShutdown(instance_name=NAME))
        paths = world.Run(opcodes.OpInstanceActivateDisks(instance_name=NAME))
        assert [entry[:2] for entry in paths] == [(NODE2, "disk/0"), (NODE2, "disk/1")]
        assert world.rpc.nodes[NODE2].active
        world.Run(op)
        assert world.rpc.nodes[NODE2].active == set()

    def test_grow(self, with_instance):
        world = with_instance
        op = opcodes.OpInstanceGrowDisk(instance_name=NAME, disk=0, amount=32, wait_for_sync=True)
        world.Run(op)
        assert world.cfg.GetInstanceInfo(NAME).disks[0].size == 48
        bad = opcodes.OpInstanceGrowDisk(instance_name=NAME, disk=5, amount=32, wait_for_sync=True)
        Refused(world, bad, errors.ECODE_INVAL, "5")

    def test_recreate(self, with_instance):
        world = with_instance
        world.Run(opcodes.OpInstanceShutdown(instance_name=NAME))
        node = world.rpc.nodes[NODE2]
        node.disks.clear()
        world.Run(opcodes.OpInstanceRecreateDisks(instance_name=NAME, disks=[1]))
        assert node.disks == {f"/srv/ganeti/file-storage/{NAME}/disk1"}


class TestSetParams:
    """PR1: values of an instance over those of the cluster."""

    def Modify(self, world, **values):
        return world.Run(opcodes.OpInstanceSetParams(instance_name=NAME, **values))

    def test_backend(self, with_instance):
        world = with_instance
        result = self.Modify(world, beparams={"memory": "512", "vcpus": 2})
        assert sorted(result) == [("be/memory", "512"), ("be/vcpus", 2)]
        assert world.cfg.GetInstanceInfo(NAME).beparams == {"memory": 512, "vcpus": 2}
        self.Modify(world, beparams={"memory": "default"})
        assert world.cfg.GetInstanceInfo(NAME).beparams == {"vcpus": 2}

    def test_too_much_memory(self, with_instance):
        op = opcodes.OpInstanceSetParams(instance_name=NAME, beparams={"memory": 5000})
        Refused(with_instance, op, errors.ECODE_NORES, NODE2)
        self.Modify(with_instance, beparams={"memory": 5000}, force=True)
        assert with_instance.cfg.GetInstanceInfo(NAME).beparams == {"memory": 5000}

    def test_nics(self, with_instance):
        world = with_instance
        result = self.Modify(world, nics=[["add", {"ip": "192.0.2.9"}]])
        nics = world.cfg.GetInstanceInfo(NAME).nics
        assert len(nics) == 2
        assert result[0][0] == "nic.1"
        assert nics[1].mac in result[0][1]
        self.Modify(world, nics=[[1, {"ip": "none", "mac": "AA:00:00:01:02:03"}]])
        nics = world.cfg.GetInstanceInfo(NAME).nics
        assert (nics[1].ip, nics[1].mac) == (None, "aa:00:00:01:02:03")
        self.Modify(world, nics=[["remove", {}]])
        assert len(world.cfg.GetInstanceInfo(NAME).nics) == 1

    def test_disks(self, with_instance):
        world = with_instance
        assert self.Modify(world, disks=[["add", {"size": 8}]]) == [
            ("disk/2", "add:size=8,mode=rw")
        ]
        assert f"/srv/ganeti/file-storage/{NAME}/disk2" in world.rpc.nodes[NODE2].disks
        self.Modify(world, disks=[[0, {"mode": "ro"}]])
        assert world.cfg.GetInstanceInfo(NAME).disks[0].mode == "ro"
        world.Run(opcodes.OpInstanceShutdown(instance_name=NAME))
        self.Modify(world, disks=[["remove", {}]])
        assert len(world.cfg.GetInstanceInfo(NAME).disks) == 2
        assert f"/srv/ganeti/file-storage/{NAME}/disk2" not in world.rpc.nodes[NODE2].disks

    def test_each_disk_change_finds_what_the_ones_before_leave(self, with_instance):
        """The disk that was removed can not be changed: nothing is, when one change is wrong."""
        world = with_instance
        world.Run(opcodes.OpInstanceShutdown(instance_name=NAME))
        op = opcodes.OpInstanceSetParams(
            instance_name=NAME, disks=[["remove", {}], [1, {"mode": "ro"}]]
        )
        Refused(world, op, errors.ECODE_INVAL, "no disk 1")
        changes = [["add", {"size": 8}], [2, {"mode": "ro"}]]
        self.Modify(world, disks=changes)
        assert world.cfg.GetInstanceInfo(NAME).disks[2].mode == "ro"

    def test_os_changes_with_its_parameters(self, with_instance):
        """Parameters are checked over those of the OS that is to be, not of the one that was."""
        world = with_instance
        seen = []
        call = world.rpc.call_hypervisor_validate_params
        world.rpc.call_hypervisor_validate_params = lambda nodes, kind, params: (
            seen.append(params) or call(nodes, kind, params)
        )
        cluster = world.cfg.GetClusterInfo()
        cluster.enabled_hypervisors = ["kvm"]
        cluster.os_hvp = {"noop+other": {"kvm": {"acpi": False}}}
        world.cfg.Update(cluster, None)
        world.Run(NewCreate(instance_name="inst2.example.com", hypervisor="kvm"))
        world.Run(
            opcodes.OpInstanceSetParams(
                instance_name="inst2", os_name="noop+other", hvparams={"boot_order": "disk"}
            )
        )
        assert [params["acpi"] for params in seen] == [True, False]

    @pytest.mark.parametrize(
        ("values", "code", "fragments"),
        [
            ({}, errors.ECODE_INVAL, ["Nothing"]),
            ({"beparams": {"nosuch": 1}}, errors.ECODE_INVAL, ["nosuch"]),
            ({"beparams": {"nosuch": "default"}}, errors.ECODE_INVAL, ["nosuch"]),
            ({"beparams": {"vcpus": "x"}}, errors.ECODE_INVAL, ["vcpus"]),
            ({"beparams": {"vcpus": 0}}, errors.ECODE_INVAL, ["vcpus"]),
            ({"hvparams": {"migration_port": 1}}, errors.ECODE_INVAL, ["migration_port"]),
            ({"disk_template": "drbd"}, errors.ECODE_INVAL, ["-n NODE"]),
            ({"nics": [[3, {"ip": "none"}]]}, errors.ECODE_INVAL, ["3"]),
            ({"nics": [[0, {"ip": "x"}]]}, errors.ECODE_INVAL, ["nic/0"]),
            ({"nics": [[0, {"link": "br9"}]]}, errors.ECODE_ENVIRON, ["br9"]),
            ({"nics": [[0, {"mode": "routed"}]]}, errors.ECODE_INVAL, ["nic/0"]),
            ({"disks": [[7, {"mode": "ro"}]]}, errors.ECODE_INVAL, ["7"]),
            ({"disks": [[0, {"size": 8}]]}, errors.ECODE_INVAL, ["grow-disk"]),
            ({"disks": [["add", {}]]}, errors.ECODE_INVAL, ["size"]),
            ({"disks": [["remove", {}]]}, errors.ECODE_STATE, [NAME]),
            ({"disks": [["add", {"size": 0}]]}, errors.ECODE_INVAL, ["size"]),
            ({"disks": [["add", {"size": 8, "adopt": "x"}]]}, errors.ECODE_INVAL, ["adopt"]),
            ({"os_name": "nosuch"}, errors.ECODE_INVAL, ["nosuch"]),
        ],
    )
    def test_bad_input_changes_nothing(self, with_instance, values, code, fragments):
        op = opcodes.OpInstanceSetParams(instance_name=NAME, **values)
        Refused(with_instance, op, code, *fragments)


class TestQuery:
    def Query(self, world, *fields, names=()):
        op = opcodes.OpInstanceQuery(
            output_fields=list(fields), names=list(names), use_locking=False
        )
        return world.Run(op)

    def test_status(self, with_instance):
        """Every state that a list can show, from wanted and real state."""
        world = with_instance
        fields = ("name", "status", "oper_state", "oper_ram")
        assert self.Query(world, *fields) == [[NAME, "running", True, 128]]
        node = world.rpc.nodes[NODE2]
        node.running.clear()
        assert self.Query(world, *fields) == [[NAME, "ERROR_down", False, "-"]]
        world.cfg.MarkInstanceDown(NAME)
        assert self.Query(world, *fields) == [[NAME, "ADMIN_down", False, "-"]]
        node.running[NAME] = 64
        assert self.Query(world, *fields) == [[NAME, "ERROR_up", True, 64]]
        world.rpc.Cut(NODE2)
        assert self.Query(world, *fields) == [[NAME, "ERROR_nodedown", None, None]]
        obj = world.cfg.GetNodeInfo(NODE2)
        obj.offline, obj.master_candidate = True, False
        world.cfg.Update(obj, None)
        assert self.Query(world, *fields) == [[NAME, "ERROR_nodeoffline", None, None]]

    def test_another_node_does_not_count(self, with_instance):
        world = with_instance
        world.rpc.nodes[NODE2].running.clear()
        world.rpc.nodes[NODE1].running[NAME] = 128
        assert self.Query(world, "status") == [["ERROR_down"]]

    @pytest.mark.parametrize("admin_up", [True, False])
    def test_wrong_node(self, with_instance, admin_up):
        """It runs where it should not: starting it would have it run twice."""
        world = with_instance
        world.Run(fake.NewCreate("inst2.example.com", NODE1))
        if not admin_up:
            world.cfg.MarkInstanceDown(NAME)
        world.rpc.nodes[NODE1].running[NAME] = world.rpc.nodes[NODE2].running.pop(NAME)
        assert self.Query(world, "status", "oper_state", names=[NAME, "inst2"]) == [
            ["ERROR_wrongnode", False],
            ["running", True],
        ]

    def test_static_fields_ask_nobody(self, with_instance):
        world = with_instance
        world.rpc.calls.clear()
        row = self.Query(
            world,
            "pnode",
            "disk.sizes",
            "disk.size/1",
            "disk.size/9",
            "sda_size",
            "nic.count",
            "nic.modes",
            "nic.link/0",
            "nic.ip/4",
            "bridge",
            "be/memory",
            "hv/acpi",
            "disk_usage",
            names=["inst1"],
        )
        assert row == [
            [NODE2, [16, 1024], 1024, None, 16, 1, ["bridged"], "xen-br0", None, "xen-br0"]
            + [128, None, None]
        ]
        assert world.rpc.calls == []

    def test_one_call_a_node(self, with_instance):
        world = with_instance
        for number in range(5):
            world.Run(NewCreate(instance_name=f"more{number}.example.com"))
        world.rpc.calls.clear()
        assert len(self.Query(world, "name", "status")) == 6
        assert world.rpc.calls == [("all_instances_info", NODE2)]

    @pytest.mark.parametrize("field", ["nosuch", "disk.size/x", "hv/migration_port", "be/"])
    def test_unknown_field(self, world, field):
        with pytest.raises(errors.OpPrereqError) as caught:
            self.Query(world, "name", field)
        assert caught.value.args[1] == errors.ECODE_INVAL
        assert field in caught.value.args[0]

    def test_query_data(self, with_instance):
        op = opcodes.OpInstanceQueryData(instances=["inst1"], static=False)
        data = with_instance.Run(op)[NAME]
        assert (data["config_state"], data["run_state"]) == ("up", "up")
        assert data["disks"][0]["pstatus"][0].endswith("/disk0")
        assert data["disks"][0]["uuid"]
        assert data["nics"][0][2:] == ["bridged", "xen-br0"]
        op = opcodes.OpInstanceQueryData(instances=[], static=True)
        data = with_instance.Run(op)[NAME]
        assert data["run_state"] is None
        assert data["disks"][0]["pstatus"] is None

    def test_query_data_of_mirrors(self, world):
        """Every part of a disk on every node; its secret is nobody's business."""
        world.Run(NewCreate(disk_template="drbd", snode=NODE1))
        secret = world.cfg.GetInstanceInfo(NAME).disks[0].logical_id[5]
        op = opcodes.OpInstanceQueryData(instances=[], static=False)
        data = world.Run(op)[NAME]
        disk = data["disks"][0]
        for part, count in ((disk, 2), *((child, 0) for child in disk["children"])):
            assert part["pstatus"]
            assert part["sstatus"]
            assert len(part["children"]) == count
        assert len(disk["logical_id"]) == len(disk["physical_id"]) == 6
        assert secret not in repr(data)
        node = world.cfg.GetNodeInfo(NODE1)
        node.offline = True
        world.rpc.offline = lambda name: name == NODE1
        disk = world.Run(op)[NAME]["disks"][0]
        assert disk["pstatus"]
        assert disk["sstatus"] is None
        world.rpc.offline = lambda name: False
        world.rpc.Cut(NODE1)
        with pytest.raises(errors.OpExecError, match=NODE1):
            world.Run(op)

    def test_query_data_of_parameters(self, world):
        """PR1: what an object has of its own, and what is inherited."""
        world.Run(
            NewCreate(
                disks=[{"size": 16, "stripe": 2}],
                nics=[{"link": "xen-br0"}, {}],
                beparams={"memory": 256},
            )
        )
        data = world.Run(opcodes.OpInstanceQueryData(instances=[], static=True))[NAME]
        assert data["nics_instance"] == [{"link": "xen-br0"}, {}]
        assert data["nics_actual"] == [{"link": "xen-br0", "mode": "bridged"}] * 2
        assert data["be_instance"] == {"memory": 256}
        (disk,) = data["disks"]
        assert disk["params_instance"] == {"stripe": 2}
        assert disk["params_actual"]["stripe"] == 2
        assert set(disk["params_actual"]) > {"stripe", "stripe_size"}


class TestDiskParams:
    """PR1: parameters of a disk over those of the cluster, on their way to the node."""

    def Path(self, index):
        return f"/srv/ganeti/file-storage/{NAME}/disk{index}"

    def test_create_and_add(self, world):
        world.Run(opcodes.OpClusterSetParams(diskparams={"data_flushes": False}))
        world.Run(NewCreate(disks=[{"size": 16, "stripe": "2"}, {"size": 16}]))
        first, second = world.cfg.GetInstanceInfo(NAME).disks
        assert first.params == {"stripe": 2}
        assert not second.params
        on_node = world.rpc.nodes[NODE2].params
        assert (on_node[self.Path(0)]["stripe"], on_node[self.Path(1)]["stripe"]) == (2, 1)
        assert on_node[self.Path(1)]["data_flushes"] is False
        op = opcodes.OpInstanceSetParams(
            instance_name=NAME, disks=[["add", {"size": 8, "stripe": 3}]]
        )
        world.Run(op)
        assert world.cfg.GetInstanceInfo(NAME).disks[2].params == {"stripe": 3}
        assert on_node[self.Path(2)]["stripe"] == 3

    def test_defaults_are_not_stored(self, world):
        world.Run(NewCreate(disks=[{"size": 16, "stripe": 1}], identify_defaults=True))
        assert not world.cfg.GetInstanceInfo(NAME).disks[0].params

    @pytest.mark.parametrize("value", [0, 10**6, "many"])
    def test_refused(self, world, value):
        op = NewCreate(disks=[{"size": 16, "stripe": value}])
        Refused(world, op, errors.ECODE_INVAL, "disk/0", "stripe")

    def test_parts_have_the_parameters_of_their_disk(self, world):
        lu = types.SimpleNamespace(cfg=world.cfg)
        disk = config_fake.NewDrbdDisk((NODE1, NODE2), 11000, (0, 1), "secret", "x")
        disk.params = {"stripe": 2}
        sent = disk_ops.ForNode(lu, disk, NODE2)
        assert [part.params["stripe"] for part in sent.IterTree()] == [2, 2, 2]
        assert sent.physical_id == ("192.0.2.2", 11000, "192.0.2.1", 11000, 1, "secret")
        assert disk.params == {"stripe": 2}
        assert disk.children[0].params is None


class TestNicRules:
    def test_no_bridge_for_what_is_routed_by_default(self, world):
        world.Run(opcodes.OpClusterSetParams(nicparams={"mode": "routed"}))
        op = NewCreate(nics=[{"bridge": "xen-br0", "ip": "192.0.2.9"}])
        Refused(world, op, errors.ECODE_INVAL, "nic/0", "bridge")

    def test_link_none(self, world):
        world.Run(NewCreate(nics=[{"mode": "routed", "link": "100", "ip": "192.0.2.9"}, {}]))
        world.Run(opcodes.OpInstanceSetParams(instance_name=NAME, nics=[[0, {"link": "none"}]]))
        assert world.cfg.GetInstanceInfo(NAME).nics[0].nicparams["link"] == ""
        op = opcodes.OpInstanceSetParams(instance_name=NAME, nics=[[1, {"bridge": "none"}]])
        Refused(world, op, errors.ECODE_INVAL, "nic/1", "link")

    def test_two_nics_of_one_mac(self, world):
        mac = "aa:00:00:01:02:03"
        op = NewCreate(nics=[{"mac": mac}, {"mac": mac}])
        Refused(world, op, errors.ECODE_NOTUNIQUE, "nic/1", mac)


class TestNames:
    """UU2: a UUID, a short name or a name in capitals where a name is wanted."""

    @pytest.mark.parametrize("form", ["uuid", "short", "capitals"])
    def test_instance_and_node(self, world, form):
        node = world.cfg.GetNodeInfo(NODE2)
        names = {"uuid": node.uuid, "short": "node2", "capitals": NODE2.upper()}
        world.Run(NewCreate(pnode=names[form], start=False))
        instance = world.cfg.GetInstanceInfo(NAME)
        assert instance.primary_node == NODE2
        name = {"uuid": instance.uuid, "short": "inst1", "capitals": NAME.upper()}[form]
        for op in (
            opcodes.OpInstanceStartup(instance_name=name, force=False),
            opcodes.OpInstanceReboot(
                instance_name=name, reboot_type="full", ignore_secondaries=False
            ),
            opcodes.OpInstanceSetParams(instance_name=name, beparams={"vcpus": 2}),
            opcodes.OpInstanceGrowDisk(instance_name=name, disk=0, amount=8, wait_for_sync=False),
            opcodes.OpInstanceQuery(output_fields=["name"], names=[name], use_locking=False),
            opcodes.OpInstanceQueryData(instances=[name], static=False),
            opcodes.OpClusterRepairDiskSizes(instances=[name]),
            opcodes.OpInstanceShutdown(instance_name=name),
            opcodes.OpInstanceReinstall(instance_name=name),
            opcodes.OpInstanceActivateDisks(instance_name=name),
            opcodes.OpInstanceDeactivateDisks(instance_name=name),
            opcodes.OpInstanceRename(instance_name=name, new_name="localhost", ignore_ip=True),
        ):
            world.Run(op)
        world.Run(opcodes.OpInstanceRemove(instance_name=instance.uuid, ignore_failures=False))
        assert world.cfg.GetInstanceList() == []


class TestRepairDiskSizes:
    def test_repair(self, with_instance):
        world = with_instance
        world.rpc.nodes[NODE2].sizes[f"/srv/ganeti/file-storage/{NAME}/disk1"] = 2048
        op = opcodes.OpClusterRepairDiskSizes(instances=[])
        assert world.Run(op) == [(NAME, 1, 2048)]
        assert [disk.size for disk in world.cfg.GetInstanceInfo(NAME).disks] == [16, 2048]
        assert world.Run(op) == []

    def test_one_call_a_node(self, with_instance):
        world = with_instance
        world.Run(NewCreate(instance_name="inst2.example.com"))
        world.rpc.calls.clear()
        world.Run(opcodes.OpClusterRepairDiskSizes(instances=[]))
        assert world.rpc.calls == [("blockdev_getsize", NODE2)]

    @pytest.mark.parametrize("answer", [[None, None], [1 << 24], "lots"])
    def test_answers_of_no_use(self, with_instance, monkeypatch, answer):
        world = with_instance
        before = Fingerprint(world)
        monkeypatch.setattr(
            world.rpc,
            "call_blockdev_getsizes",
            lambda node, disks: rpc.RpcResult([True, answer], call="x", node=node),
        )
        assert world.Run(opcodes.OpClusterRepairDiskSizes(instances=[])) == []
        assert Fingerprint(world) == before
        assert any("WARNING" in line for line in world.log)

    def test_data_of_a_mirrored_disk(self):
        disk = config_fake.NewDrbdDisk((NODE1, NODE2), 11000, (0, 1), "secret", "x")
        assert not cluster_disks.RaiseDataSize(disk)
        disk.size = 2048
        assert cluster_disks.RaiseDataSize(disk)
        assert [child.size for child in disk.children] == [2048, 128]


class TestVerifyDisks:
    def test_files_ask_nobody(self, with_instance):
        with_instance.rpc.calls.clear()
        assert with_instance.Run(opcodes.OpClusterVerifyDisks()) == ({}, [], {})
        assert with_instance.rpc.calls == []

    def test_mirrored(self, world):
        disk = config_fake.NewDrbdDisk((NODE1, NODE2), 11000, (0, 1), "secret", "x")
        config_fake.AddInstance(
            world.cfg, NAME, NODE1, admin_up=True, disk_template="drbd", disks=[disk]
        )
        world.rpc.nodes[NODE1].lvs = {
            "x.data": ("1024.00", False, False),
            "x.meta": ("128.00", False, True),
        }
        world.rpc.Cut(NODE2)
        failed, inactive, missing = world.Run(opcodes.OpClusterVerifyDisks())
        assert list(failed) == [NODE2]
        assert inactive == [NAME]
        assert missing == {NAME: [(NODE2, "x.data"), (NODE2, "x.meta")]}

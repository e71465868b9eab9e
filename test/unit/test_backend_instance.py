"""Instances on a node: starting, stopping, listing."""

import os
import shutil

import pytest

from ganeti import constants, errors, hypervisor, objects, pathutils, rpc_defs, ssconf
from ganeti.backend import blockdev, dispatch, instance
from ganeti.hypervisor import hv_base
from ganeti.runtime import fake

BASE = "/srv/ganeti/file-storage"


class _Hypervisor:
    """A hypervisor that does what a test says.

    @ivar stubborn: soft requests that a guest ignores before it stops; None = all
    @ivar survives: forced stops without effect
    """

    def __init__(self):
        self.running = {}
        self.calls = []
        self.stubborn = 0
        self.survives = 0
        self.stop_error = None
        self.start_error = None
        self.list_error = None
        self.cleanup_error = None
        self.migration_error = None
        self.soft = 0

    def ListInstances(self):
        if self.list_error:
            raise errors.HypervisorError(self.list_error)
        return list(self.running)

    def GetInstanceInfo(self, name):
        return self.running.get(name)

    def GetAllInstancesInfo(self):
        return list(self.running.values())

    def StartInstance(self, inst, block_devices):
        self.calls.append(("start", inst.name, [path for _, path in block_devices]))
        if self.start_error:
            raise errors.HypervisorError(self.start_error)
        self.running[inst.name] = _Info(inst.name)

    def StopInstance(self, inst, force=False, retry=False, name=None):
        self.calls.append(("stop", force, retry))
        if self.stop_error == "gone":
            del self.running[inst.name]
            raise errors.HypervisorError("not running")
        if self.stop_error:
            raise errors.HypervisorError(self.stop_error)
        if force:
            if self.survives:
                self.survives -= 1
            else:
                del self.running[inst.name]
        else:
            self.soft += 1
            if self.stubborn is not None and self.soft > self.stubborn:
                del self.running[inst.name]

    def CleanupInstance(self, name):
        self.calls.append(("cleanup", name))
        if self.cleanup_error:
            raise errors.HypervisorError(self.cleanup_error)

    def RebootInstance(self, inst):
        self.calls.append(("reboot", inst.name))

    def MigrateInstance(self, inst, target, live):
        raise errors.HypervisorError("no way")

    def AcceptInstance(self, inst, info, target):
        self.calls.append(("accept", info, target))
        if self.migration_error:
            raise errors.HypervisorError(self.migration_error)
        return target + ":8103"

    def FinalizeMigration(self, inst, info, success):
        self.calls.append(("finalize", success))
        if self.migration_error:
            raise errors.HypervisorError(self.migration_error)

    def FinalizeMigrationSource(self, inst, success, live):
        self.calls.append(("finalize source", success, live))
        if self.migration_error:
            raise errors.HypervisorError(self.migration_error)

    def AbortMigration(self, inst):
        self.calls.append(("abort",))

    def GetMigrationStatus(self, inst):
        return hv_base.MigrationStatus("active", 5, 10, 1.5, "on the way")


def _Info(name, memory=128, vcpus=1):
    return (name, 7, memory, vcpus, "---b-", 1.5)


@pytest.fixture
def hyper(monkeypatch):
    result = _Hypervisor()
    monkeypatch.setattr(hypervisor, "GetHypervisor", lambda kind: result)
    return result


@pytest.fixture
def rt():
    return fake.NewRuntime()


@pytest.fixture(autouse=True)
def node():
    for path in (
        pathutils.LocalPath(BASE) + "/inst1",
        pathutils.DATA_DIR,
        pathutils.LOCK_DIR,
        pathutils.BDEV_CACHE_DIR,
        pathutils.DISK_LINKS_DIR,
    ):
        os.makedirs(path, exist_ok=True)
    ssconf.SimpleStore().WriteFiles({constants.SS_FILE_STORAGE_DIR: BASE})
    yield
    shutil.rmtree(pathutils.ROOTDIR)
    os.mkdir(pathutils.ROOTDIR)


def _Instance(disks=2, name="inst1"):
    paths = [f"{BASE}/inst1/disk{index}" for index in range(disks)]
    return objects.Instance(
        name=name,
        hypervisor="fake",
        hvparams={},
        beparams={},
        nics=[],
        disks=[
            objects.Disk(
                dev_type="file", logical_id=("loop", path), physical_id=("loop", path), size=1
            )
            for path in paths
        ],
    )


def _Links():
    return sorted(os.listdir(pathutils.DISK_LINKS_DIR))


def _CreateDisks(inst):
    for disk in inst.disks:
        blockdev.BlockdevCreate(disk, inst.name, True, "")


class TestStart:
    """Starting is idempotent, and the machine gets links for disks."""

    def test_start(self, hyper):
        inst = _Instance()
        _CreateDisks(inst)
        instance.StartInstance(inst)
        links = [f"{pathutils.DISK_LINKS_DIR}/inst1:{index}" for index in range(2)]
        assert hyper.calls == [("start", "inst1", links)]
        assert os.readlink(links[1]) == pathutils.LocalPath(f"{BASE}/inst1/disk1")

    def test_running_already(self, hyper):
        hyper.running["inst1"] = _Info("inst1")
        instance.StartInstance(_Instance())
        assert hyper.calls == []

    def test_missing_disk(self, hyper):
        with pytest.raises(errors.RPCFail, match="not set up"):
            instance.StartInstance(_Instance())
        assert hyper.calls == []

    def test_hypervisor_refuses(self, hyper):
        inst = _Instance()
        _CreateDisks(inst)
        hyper.start_error = "no memory"
        with pytest.raises(errors.RPCFail, match="no memory"):
            instance.StartInstance(inst)
        assert _Links() == []

    def test_diskless(self, hyper):
        instance.StartInstance(_Instance(disks=0))
        assert hyper.calls == [("start", "inst1", [])]


class TestShutdown:
    """Ask, wait, ask again, force."""

    @pytest.fixture(autouse=True)
    def running(self, hyper):
        inst = _Instance()
        _CreateDisks(inst)
        instance.StartInstance(inst)
        hyper.calls.clear()

    def _Shutdown(self, rt, timeout=120):
        instance.InstanceShutdown(_Instance(), timeout, rt)

    def test_well_behaved_guest_costs_no_wait(self, hyper, rt):
        self._Shutdown(rt)
        assert hyper.calls == [("stop", False, False), ("cleanup", "inst1")]
        assert rt.clock.now == 0
        assert _Links() == []

    def test_not_running(self, hyper, rt):
        """What has died is cleaned up all the same."""
        hyper.running.clear()
        self._Shutdown(rt)
        assert hyper.calls == [("cleanup", "inst1")]
        assert _Links() == []

    def test_needs_three_requests(self, hyper, rt):
        hyper.stubborn = 2
        self._Shutdown(rt)
        assert hyper.calls == [
            ("stop", False, False),
            ("stop", False, True),
            ("stop", False, True),
            ("cleanup", "inst1"),
        ]
        # Repeated every five seconds
        assert 10 <= rt.clock.now <= 13

    def test_ignores_all_requests(self, hyper, rt):
        hyper.stubborn = None
        self._Shutdown(rt, 20)
        assert hyper.calls[-2:] == [("stop", True, False), ("cleanup", "inst1")]
        assert 20 <= rt.clock.now <= 22
        assert _Links() == []

    def test_time_out_of_zero(self, hyper, rt):
        hyper.stubborn = None
        self._Shutdown(rt, 0)
        soft = [call for call in hyper.calls if call == ("stop", False, False)]
        assert len(soft) == 1
        assert ("stop", True, False) in hyper.calls

    def test_survives_force_for_a_moment(self, hyper, rt):
        hyper.stubborn, hyper.survives = None, 1
        with pytest.raises(errors.RPCFail, match="even by force"):
            self._Shutdown(rt, 0)
        assert _Links() != []

    def test_refused(self, hyper, rt):
        hyper.stop_error = "go away"
        with pytest.raises(errors.RPCFail, match="go away"):
            self._Shutdown(rt)

    def test_gone_while_asked(self, hyper, rt):
        hyper.stop_error = "gone"
        self._Shutdown(rt)
        assert hyper.calls[-1] == ("cleanup", "inst1")

    def test_clean_up_is_only_warned_of(self, hyper, rt):
        hyper.cleanup_error = "stuck"
        self._Shutdown(rt)
        assert _Links() == []


class TestReboot:
    """Soft, hard, and nothing else."""

    def test_soft(self, hyper, rt):
        hyper.running["inst1"] = _Info("inst1")
        instance.InstanceReboot(_Instance(), "soft", 120, rt)
        assert hyper.calls == [("reboot", "inst1")]

    def test_hard(self, hyper, rt):
        hyper.running["inst1"] = _Info("inst1")
        instance.InstanceReboot(_Instance(disks=0), "hard", 120, rt)
        assert [call[0] for call in hyper.calls] == ["stop", "cleanup", "start"]

    def test_not_running(self, hyper, rt):
        with pytest.raises(errors.RPCFail, match="not running"):
            instance.InstanceReboot(_Instance(), "soft", 120, rt)

    def test_full_is_the_masters(self, hyper, rt):
        hyper.running["inst1"] = _Info("inst1")
        with pytest.raises(errors.RPCFail, match="full"):
            instance.InstanceReboot(_Instance(), "full", 120, rt)


class TestLooking:
    """Lists and facts."""

    def test_info(self, hyper):
        hyper.running["inst1"] = _Info("inst1")
        expected = {"memory": 128, "state": "---b-", "time": 1.5}
        assert instance.GetInstanceInfo("inst1", "fake") == expected
        assert instance.GetInstanceInfo("other", "fake") == {}

    def test_list(self, hyper):
        hyper.running["inst1"] = _Info("inst1")
        assert instance.GetInstanceList(["fake", "kvm"]) == ["inst1", "inst1"]
        hyper.list_error = "broken"
        with pytest.raises(errors.RPCFail, match="fake: broken"):
            instance.GetInstanceList(["fake"])

    def test_all_info(self, hyper):
        hyper.running["inst1"] = _Info("inst1")
        expected = {"memory": 128, "vcpus": 1, "state": "---b-", "time": 1.5}
        assert instance.GetAllInstancesInfo(["fake", "kvm"]) == {"inst1": expected}

    def test_two_hypervisors_disagree(self, monkeypatch):
        two = {"xen-pvm": _Hypervisor(), "fake": _Hypervisor()}
        two["xen-pvm"].running["inst1"] = _Info("inst1", memory=128)
        two["fake"].running["inst1"] = _Info("inst1", memory=256)
        monkeypatch.setattr(hypervisor, "GetHypervisor", lambda kind: two[kind])
        with pytest.raises(errors.RPCFail, match="inst1 runs twice"):
            instance.GetAllInstancesInfo(["xen-pvm", "fake"])

    def test_migratable(self, hyper):
        inst = _Instance()
        with pytest.raises(errors.RPCFail, match="not running"):
            instance.GetInstanceMigratable(inst)
        _CreateDisks(inst)
        instance.StartInstance(inst)
        instance.GetInstanceMigratable(inst)
        os.unlink(f"{pathutils.DISK_LINKS_DIR}/inst1:1")
        with pytest.raises(errors.RPCFail, match="inst1:1 is missing"):
            instance.GetInstanceMigratable(inst)

    def test_migration_refused(self, hyper):
        with pytest.raises(errors.RPCFail, match="Can't migrate instance inst1: no way"):
            instance.MigrateInstance(_Instance(), "192.0.2.9", True)


class TestMigration:
    """TG1: the disks' links are where the guest is; what the hypervisor refuses is said."""

    def test_accept_makes_links_and_tells_the_port(self, hyper):
        inst = _Instance()
        _CreateDisks(inst)
        assert instance.AcceptInstance(inst, "info", "192.0.2.9") == "192.0.2.9:8103"
        assert hyper.calls == [("accept", "info", "192.0.2.9")]
        assert _Links() == ["inst1:0", "inst1:1"]

    def test_disk_is_not_there(self, hyper):
        with pytest.raises(errors.RPCFail, match="Can't accept instance inst1: block device"):
            instance.AcceptInstance(_Instance(), "info", "192.0.2.9")
        assert hyper.calls == []

    @pytest.mark.parametrize("success", [True, False])
    @pytest.mark.parametrize("where", ["target", "source"])
    def test_links_stay_where_it_runs(self, hyper, success, where):
        inst = _Instance()
        _CreateDisks(inst)
        instance.StartInstance(inst)
        for _ in range(2):
            if where == "target":
                instance.FinalizeMigration(inst, "info", success)
            else:
                instance.FinalizeMigrationSource(inst, success, True)
        stays = success == (where == "target")
        assert _Links() == (["inst1:0", "inst1:1"] if stays else [])

    def test_links_stay_if_it_may_run(self, hyper):
        inst = _Instance()
        _CreateDisks(inst)
        instance.StartInstance(inst)
        hyper.migration_error = "has arrived"
        with pytest.raises(errors.RPCFail, match="migration of inst1: has arrived"):
            instance.FinalizeMigration(inst, "info", False)
        with pytest.raises(errors.RPCFail, match="on the node it left: has arrived"):
            instance.FinalizeMigrationSource(inst, True, True)
        assert _Links() == ["inst1:0", "inst1:1"]

    def test_over_the_wire(self, hyper):
        """The calls as the master makes them, with their answers as it checks them."""
        inst = _Instance().ToDict()
        for name, args, expected in (
            (
                "instance_get_migration_status",
                [inst],
                {
                    "status": "active",
                    "transferred_ram": 5,
                    "total_ram": 10,
                    "downtime": 1.5,
                    "message": "on the way",
                },
            ),
            ("instance_abort_migration", [inst], None),
            ("instance_finalize_migration_src", [inst, False, True], None),
        ):
            success, payload = dispatch.Answer(name, rpc_defs.EncodeArgs(name, args))
            assert (success, payload) == (True, expected)
            assert rpc_defs.CALLS[name].result.Problem(payload) is None
        assert hyper.calls == [("abort",), ("finalize source", False, True)]

    @pytest.mark.parametrize(
        ("name", "args"),
        [
            ("instance_get_migration_status", ["inst1"]),
            ("instance_abort_migration", [{"name": "../x"}]),
            ("instance_finalize_migration_src", [{"name": "inst1"}, "yes", True]),
            ("instance_finalize_migration_src", [{"name": "inst1"}, True, None]),
            ("instance_migrate", [{"name": "inst1"}, "[::1]:x", True]),
        ],
    )
    def test_wrong_arguments(self, hyper, name, args):
        success, text = dispatch.Answer(name, args)
        assert not success
        assert name in text
        assert hyper.calls == []


class TestFakeHypervisor:
    """The same with the real fake hypervisor."""

    def test_life(self, rt):
        inst = _Instance(disks=0)
        inst.beparams = {"memory": 64, "vcpus": 2}
        instance.StartInstance(inst)
        assert instance.GetAllInstancesInfo(["fake"])["inst1"]["memory"] == 64
        instance.InstanceShutdown(inst, 120, rt)
        assert instance.GetInstanceList(["fake"]) == []

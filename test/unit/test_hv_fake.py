"""Registry of hypervisors, the interface they share, and the fake one (BASE2)."""

import errno
import logging
import os
from pathlib import Path

import pytest

from ganeti import constants, errors, hvconsole, hvparams, hypervisor, objects, pathutils
from ganeti.hypervisor import hv_base, hv_fake, linux
from ganeti.runtime import fake

DATA = Path(__file__).parents[1] / "data/golden/tools"

MEMINFO = """MemTotal:        7870584 kB
MemFree:         1549012 kB
Buffers:          227328 kB
Cached:          4647780 kB
SwapCached:         2988 kB
Active:          2787880 kB
Active(anon):    1951852 kB
HugePages_Total:       0
"""


def _Instance(name="inst1.example.com", memory=128):
    return objects.Instance(
        name=name,
        hypervisor=constants.HT_FAKE,
        primary_node="node1.example.com",
        hvparams={},
        beparams={"memory": memory, "vcpus": 2, "auto_balance": True},
        nics=[],
        disks=[],
    )


@pytest.fixture
def hv():
    return hv_fake.FakeHypervisor(fake.NewRuntime(), "/run/fake")


class TestRegistry:
    """BASE2: all five kinds are there, and refuse what they can not do yet."""

    @pytest.mark.parametrize("kind", sorted(constants.HYPER_TYPES))
    def test_class(self, kind):
        cls = hypervisor.GetHypervisorClass(kind)
        assert kind == cls.KIND
        assert cls.GetAncillaryFiles() == list(hvparams.ANCILLARY_FILES[kind])
        cls.CheckParameterSyntax(constants.HVC_DEFAULTS[kind])
        with pytest.raises(errors.HypervisorError, match="no-such"):
            cls.CheckParameterSyntax({**constants.HVC_DEFAULTS[kind], "no-such": 1})

    def test_instance_is_new_each_time(self):
        one, two = (hypervisor.GetHypervisor(constants.HT_FAKE) for _ in range(2))
        assert one is not two
        assert isinstance(one, hv_fake.FakeHypervisor)

    def test_unknown(self):
        with pytest.raises(errors.HypervisorError, match="'lguest'.*xen-pvm"):
            hypervisor.GetHypervisorClass("lguest")

    def test_preload(self):
        hypervisor.Preload()

    @pytest.mark.parametrize(
        ("method", "args"),
        [
            ("MigrationInfo", (None,)),
            ("AcceptInstance", (None, "", "192.0.2.1")),
            ("MigrateInstance", (None, "192.0.2.1", True)),
            ("FinalizeMigration", (None, "", True)),
            ("GetMigrationStatus", (None,)),
            ("AbortMigration", (None,)),
            ("FinalizeMigrationSource", (None, True, True)),
        ],
    )
    def test_what_a_kind_can_not_do_is_said(self, method, args):
        hv = hypervisor.GetHypervisor(constants.HT_CHROOT)
        assert not hv.CAN_MIGRATE
        with pytest.raises(errors.HypervisorError, match=r"chroot: .*migrat.* is not possible"):
            getattr(hv, method)(*args)

    @pytest.mark.parametrize("kind", sorted(constants.HYPER_TYPES))
    def test_every_kind_can_do_the_rest(self, kind):
        cls = hypervisor.GetHypervisorClass(kind)
        base = hv_base.BaseHypervisor
        for name in (
            *("StartInstance", "StopInstance", "CleanupInstance", "RebootInstance"),
            *("ListInstances", "GetInstanceInfo", "GetAllInstancesInfo", "Verify"),
        ):
            assert getattr(cls, name) is not getattr(base, name), name
        moves = [name for name in vars(base) if "Migrat" in name or name == "AcceptInstance"]
        assert len(moves) == 7
        for name in moves:
            assert (getattr(cls, name) is not getattr(base, name)) == cls.CAN_MIGRATE, name


#: What leads elsewhere, or to no file at all.
BAD_NAMES = [
    "../x",
    "/etc/x",
    "..",
    ".",
    "",
    ".hidden",
    "-x",
    "a/b",
    "a\0b",
    "a\nb",
    "a b",
    "x" * 256,
]


class TestNames:
    """Names are parts of paths: none leads out of the hypervisor's directory."""

    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_refused(self, tmp_path, name):
        root = tmp_path / "fake"
        hv = hv_fake.FakeHypervisor(root_dir=str(root))
        instance = objects.Instance(name=name, beparams={"memory": 1, "vcpus": 1})
        for act in (
            lambda: hv.StartInstance(instance, []),
            lambda: hv.StopInstance(instance),
            lambda: hv.StopInstance(None, name=name, force=True),
            lambda: hv.RebootInstance(instance),
            lambda: hv.GetInstanceInfo(name),
            lambda: hv.AcceptInstance(instance, "", "192.0.2.1"),
            lambda: hv.FinalizeMigration(instance, "", True),
            lambda: hv.FinalizeMigration(instance, "", False),
            lambda: hv.GetMigrationStatus(instance),
            lambda: hv.AbortMigration(instance),
            lambda: hv.FinalizeMigrationSource(instance, True, True),
            lambda: hv.FinalizeMigrationSource(instance, False, True),
        ):
            with pytest.raises(errors.HypervisorError, match="no instance name"):
                act()
        assert [path.name for path in tmp_path.rglob("*")] == ["fake"]

    def test_strange_files_are_no_instances(self, tmp_path):
        hv = hv_fake.FakeHypervisor(root_dir=str(tmp_path))
        (tmp_path / ".nfs0001").write_text("0\n1\n1\n")
        (tmp_path / "inst1").write_text("0\n1\n1\n")
        assert hv.ListInstances() == ["inst1"]


class TestFakeLife:
    """BASE2: instances of the fake hypervisor are files of three lines."""

    def test_life(self, hv):
        instance = _Instance()
        assert hv.ListInstances() == []
        assert hv.GetInstanceInfo(instance.name) is None
        hv.StartInstance(instance, [])
        assert hv._rt.files.read("/run/fake/inst1.example.com") == b"0\n128\n2\n"
        info = (instance.name, "0", 128, 2, "---b-", "0")
        assert hv.GetInstanceInfo(instance.name) == info
        assert hv.GetAllInstancesInfo() == [info]
        assert hv.ListInstances() == [instance.name]
        with pytest.raises(errors.HypervisorError, match="already running"):
            hv.StartInstance(instance, [])
        hv.RebootInstance(instance)
        hv.StopInstance(instance)
        hv.CleanupInstance(instance.name)
        assert hv.ListInstances() == []
        with pytest.raises(errors.HypervisorError, match="not running"):
            hv.StopInstance(instance, force=True)
        with pytest.raises(errors.HypervisorError, match="not running"):
            hv.RebootInstance(instance)

    def test_stop_by_name(self, hv):
        hv.StartInstance(_Instance(), [])
        hv.StopInstance(None, name="inst1.example.com")
        assert hv.ListInstances() == []
        with pytest.raises(errors.ProgrammerError):
            hv.StopInstance(None)

    @pytest.mark.parametrize(
        ("content", "memory", "vcpus"),
        [(b"0\nmany\n2\n", "many", 2), (b"0\n", "", ""), (b"", "", "")],
    )
    def test_odd_files(self, hv, content, memory, vcpus):
        hv._rt.files.write("/run/fake/odd", content)
        assert hv.GetInstanceInfo("odd")[2:4] == (memory, vcpus)
        hv.GetNodeInfo()

    def test_unreadable(self, hv):
        hv.StartInstance(_Instance(), [])
        hv._rt.files.Fail("read", code=errno.EIO)
        with pytest.raises(errors.HypervisorError, match="inst1"):
            hv.GetAllInstancesInfo()
        hv._rt.files.Heal()
        hv._rt.files.Fail("write")
        with pytest.raises(errors.HypervisorError, match="inst2"):
            hv.StartInstance(_Instance("inst2"), [])

    def test_left_over_temporary_file_is_no_instance(self, hv):
        hv._rt.files.write("/run/fake/inst1.example.com.77-88.new", b"0\n")
        hv._rt.files.write("/run/fake/web.new", b"0\n")
        assert hv.ListInstances() == ["web.new"]

    def test_migration(self, hv):
        instance = _Instance()
        target = hv_fake.FakeHypervisor(hv._rt, "/run/other")
        hv.StartInstance(instance, [])
        info = hv.MigrationInfo(instance)
        assert target.AcceptInstance(instance, info, "192.0.2.2") is None
        assert target.ListInstances() == []
        hv.MigrateInstance(instance, "192.0.2.2", True)
        status = hv.GetMigrationStatus(instance)
        assert (status.status, status.total_ram) == ("completed", 128 * 2**20)
        target.FinalizeMigration(instance, info, True)
        for _ in range(2):
            hv.FinalizeMigrationSource(instance, True, True)
            assert (hv.ListInstances(), target.ListInstances()) == ([], [instance.name])
        assert hv.GetMigrationStatus(instance).status == "failed"
        with pytest.raises(errors.HypervisorError, match="not running"):
            hv.MigrateInstance(instance, "192.0.2.2", True)
        with pytest.raises(errors.HypervisorError, match="already running"):
            target.AcceptInstance(instance, info, "192.0.2.2")
        target.FinalizeMigration(instance, info, False)
        assert target.ListInstances() == []

    def test_migration_that_failed_leaves_it_at_the_source(self, hv):
        instance = _Instance()
        hv.StartInstance(instance, [])
        assert hv.GetMigrationStatus(instance).message == "no migration was started"
        hv.FinalizeMigrationSource(instance, False, True)
        assert hv.ListInstances() == [instance.name]
        hv.MigrateInstance(instance, "192.0.2.2", True)
        assert hv.ListInstances() == []
        hv.AbortMigration(instance)
        for _ in range(2):
            hv.FinalizeMigrationSource(instance, False, True)
            assert hv.ListInstances() == [instance.name]

    def test_old_migration_is_forgotten_at_a_start(self, hv):
        instance = _Instance()
        hv.StartInstance(instance, [])
        hv.MigrateInstance(instance, "192.0.2.2", True)
        hv.StartInstance(instance, [])
        assert hv.GetMigrationStatus(instance).status == "failed"

    def test_verify(self, hv):
        assert hv.Verify() is None
        other = hv_fake.FakeHypervisor(fake.NewRuntime(), "/run/fake")
        other._rt.files._dirs.clear()
        assert "/run/fake" in other.Verify()

    def test_memory_of_instances_is_not_free(self, hv, monkeypatch):
        monkeypatch.setattr(linux, "GetNodeInfo", lambda: {"memory_free": 1000})
        hv.StartInstance(_Instance("a", 300), [])
        hv.StartInstance(_Instance("b", 200), [])
        assert hv.GetNodeInfo() == {"memory_free": 500}
        hv.StartInstance(_Instance("c", 9000), [])
        assert hv.GetNodeInfo() == {"memory_free": 0}


class TestNodeInfo:
    """BASE2: facts about the node, from this kernel and from older ones."""

    def test_memory(self):
        assert linux.ParseMemInfo(MEMINFO) == {
            "memory_total": 7686,
            "memory_free": 1512 + 222 + 4538,
            "memory_dom0": 2722,
        }

    def test_memory_of_newer_kernels(self):
        info = linux.ParseMemInfo(MEMINFO + "MemAvailable:    2048000 kB\n")
        assert info["memory_free"] == 2000

    @pytest.mark.parametrize("text", ["", "MemTotal: 5 kB\nMemFree: x kB\n"])
    def test_unexpected_memory(self, text):
        with pytest.raises(errors.HypervisorError, match="meminfo"):
            linux.ParseMemInfo(text)

    def test_processors(self):
        text = (
            "processor\t: 0\nphysical id\t: 0\n\nprocessor\t: 1\nphysical id\t: 1\n\n"
            "processor : 2\nphysical id : 1\nmodel name : x : y\n"
        )
        assert linux.ParseCpuInfo(text, 2) == {"cpu_total": 3, "cpu_nodes": 2, "cpu_sockets": 2}
        assert linux.ParseCpuInfo("Processor : ARM\n", 0) == {
            "cpu_total": 0,
            "cpu_nodes": 1,
            "cpu_sockets": 1,
        }

    def test_golden(self):
        cpus = linux.ParseCpuInfo((DATA / "proc_cpuinfo.txt").read_text(), 1)
        assert cpus == {"cpu_total": 4, "cpu_nodes": 1, "cpu_sockets": 1}
        memory = linux.ParseMemInfo((DATA / "proc_meminfo.txt").read_text())
        assert memory["memory_total"] == 7686

    def test_this_machine(self):
        info = linux.GetNodeInfo()
        assert info["memory_total"] >= info["memory_free"] > 0
        assert info["cpu_total"] == os.sysconf("SC_NPROCESSORS_ONLN")
        assert linux.ResidentMebibytes(os.getpid()) > 0
        assert linux.ResidentMebibytes(2**30) == 0

    def test_unreadable(self, tmp_path):
        with pytest.raises(errors.HypervisorError):
            linux.GetNodeInfo(proc=str(tmp_path))


class TestPowercycle:
    """NA3: a powercycle tries one way after the other, and none of them on a machine it may not."""

    def test_next_way_after_an_error(self, caplog):
        done = []

        def _Fail():
            raise OSError(errno.EIO, "Input/output error")

        ways = [("first", _Fail), ("second", lambda: done.append(2)), ("third", _Fail)]
        linux.Powercycle(ways)
        assert done == [2]
        assert "first" in caplog.text
        with pytest.raises(errors.HypervisorError, match="first: .*Input/output.*third"):
            linux.Powercycle([ways[0], ways[2]])

    def test_a_container_does_not_restart_its_host(self):
        assert [what for what, _ in linux.RebootWays(0xEFFFFFFC)] == [
            "writing to /proc/sysrq-trigger",
            "running reboot -n -f",
            "calling reboot(2)",
        ]
        assert "sysrq" not in str([what for what, _ in linux.RebootWays(4026532001)])

    def test_virtual_nodes_leave_the_machine_alone(self, monkeypatch, caplog):
        monkeypatch.setattr(linux, "Powercycle", lambda: pytest.fail("powercycle"))
        monkeypatch.setenv(hv_fake.ALLOW_POWERCYCLE, "1")
        assert pathutils.IsVirtual()
        for kind in constants.HYPER_TYPES:
            hypervisor.GetHypervisorClass(kind).PowercycleNode()
        assert "virtual node" in caplog.text

    def test_fake_only_if_allowed(self, monkeypatch, caplog):
        done = []
        monkeypatch.setattr(linux, "Powercycle", lambda: done.append(1))
        monkeypatch.setattr(pathutils, "IsVirtual", lambda: False)
        caplog.set_level(logging.WARNING)
        monkeypatch.delenv(hv_fake.ALLOW_POWERCYCLE, raising=False)
        hv_fake.FakeHypervisor.PowercycleNode()
        assert done == []
        assert hv_fake.ALLOW_POWERCYCLE in caplog.text
        monkeypatch.setenv(hv_fake.ALLOW_POWERCYCLE, "1")
        hv_fake.FakeHypervisor.PowercycleNode()
        hv_base.BaseHypervisor.PowercycleNode.__func__(hv_fake.FakeHypervisor)
        assert done == [1, 1]


class TestConsole:
    """BASE3: the console's shell command for each kind of hypervisor."""

    def _Command(self, kind, node="node1.example.com", port=11005, **hvparams_):
        instance = objects.Instance(
            name="inst1.example.com", primary_node=node, network_port=port, hypervisor=kind
        )
        params = {**constants.HVC_DEFAULTS[kind], **hvparams_}
        return hypervisor.GetHypervisorClass(kind).GetShellCommandForConsole(instance, params, {})

    def test_others(self):
        assert self._Command("xen-pvm") == "xl console inst1.example.com"
        assert self._Command("xen-hvm") == "xl console -t serial inst1.example.com"
        assert self._Command("fake").startswith("echo ")
        root = f"{pathutils.RUN_GANETI_DIR}/chroot-hypervisor/inst1.example.com"
        assert self._Command("chroot").startswith(f"chroot {root} /bin/sh ")

    def test_kvm_serial(self):
        socket = hvconsole.KvmSerialSocket("inst1.example.com")
        command = self._Command("kvm")
        assert (
            f"then exec {pathutils.SOCAT_PATH} STDIO,raw,echo=0,escape=0x1d UNIX-CONNECT:{socket};"
        ) in command
        assert command.endswith(f"{hvconsole._CONSOLE_HELPER} {socket}; fi")
        assert "VNC" not in command

    def test_kvm_on_another_virtual_node(self):
        other = pathutils.VirtualNodeRoot("node2.example.com")
        command = self._Command("kvm", node="node2.example.com")
        assert f"UNIX-CONNECT:{other}/var/run/ganeti/kvm-hypervisor/ctrl/" in command
        assert pathutils.ROOTDIR not in command

    def test_kvm_vnc(self):
        command = self._Command("kvm", vnc_bind_address="192.0.2.1")
        assert command.startswith("echo ")
        assert "192.0.2.1:11005 (display 5105)" in command
        assert "; if test -x" in command
        only = self._Command("kvm", vnc_bind_address="192.0.2.1", serial_console=False)
        assert "display 5105" in only
        assert "test -x" not in only

    @pytest.mark.parametrize("vnc", ["", "/run/vnc"])
    def test_kvm_nothing(self, vnc):
        command = self._Command("kvm", vnc_bind_address=vnc, serial_console=False)
        assert command.startswith("echo ")
        assert "serial_console" in command

    def test_unknown(self):
        with pytest.raises(errors.HypervisorError):
            hvconsole.GetShellCommand("lguest", None, {})

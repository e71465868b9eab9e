"""The KVM hypervisor class with a scripted QEMU: start, stop, reboot, clean-up (BASE2, UP3)."""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from ganeti import constants, errors, objects, pathutils, uidpool
from ganeti.hypervisor import (
    hv_kvm,
    kvm_accel,
    kvm_capabilities,
    kvm_files,
    kvm_net,
    kvm_qmp,
    kvm_security,
)
from ganeti.runtime import fake
from ganeti.utils import process

DEFAULTS = constants.HVC_DEFAULTS[constants.HT_KVM]
CAPS = kvm_capabilities.Capabilities(
    "/usr/bin/qemu",
    (7, 2, 22),
    "pc-i440fx-7.2",
    frozenset(["virtio-blk-pci", "virtio-net-pci", "e1000", "qemu-xhci"]),
    frozenset(),
    True,
)


class FakeQmp:
    """Stands for a session; remembers what was asked for."""

    def __init__(self, log, fail=()):
        self._log, self._fail = log, fail

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def Execute(self, command, arguments=None):
        self._log.append((command, *(arguments or {}).values()))
        if command in self._fail:
            raise kvm_qmp.QmpError(f"{command} failed")

    def ExecuteHmp(self, line):
        self._log.append(("hmp", line))
        return r"nic0: x" + "\r\n" + r" \ net0: index=0,type=tap,ifname=tap9"


@pytest.fixture
def node(tmp_path, monkeypatch):
    return Node(tmp_path, monkeypatch)


class Node:
    """A KVM hypervisor whose QEMU is scripted and whose processes are a table."""

    def __init__(self, tmp_path, monkeypatch):
        self.alive = {}
        self.qmp = []
        self.qmp_fails = ()
        self.killed = []
        self.rt = fake.NewRuntime(files=hv_kvm.runtime.DEFAULT.files)
        self.tmp_path = tmp_path
        root = tmp_path / "R"
        self.hv = hv_kvm.KVMHypervisor(self.rt, str(root), str(tmp_path / "L"), kill=self._Kill)
        self.root = root
        monkeypatch.setattr(kvm_capabilities, "Probe", lambda rt: CAPS)
        monkeypatch.setattr(kvm_files, "FindProcess", lambda paths: self.alive.get(paths.name))
        monkeypatch.setattr(self.hv, "_Qmp", lambda paths: FakeQmp(self.qmp, self.qmp_fails))
        self.kvm_works = (True, "")
        monkeypatch.setattr(kvm_accel, "KvmWorks", lambda *_: self.kvm_works)
        monkeypatch.setattr(pathutils, "UIDPOOL_LOCKDIR", str(tmp_path / "uids"))
        monkeypatch.setattr(kvm_security, "_PoolUids", lambda: {-5})
        monkeypatch.setattr(kvm_security, "_AccountName", lambda uid: f"account{uid}")
        self.disk = tmp_path / "disk"
        self.disk.write_bytes(b"")
        self.result = (0, "")
        self.runs = []
        monkeypatch.setattr(self.rt.processes, "run", self._Run)

    def _Run(self, argv, **kwargs):
        self.runs.append(list(argv))
        if argv[1:3] == ["rule", "del"]:
            return process.RunResult(" ".join(argv), 2)
        code, stderr = self.result
        self.rt.processes._answers.clear()
        self.rt.processes.Answer("*", code=code, stderr=stderr)
        name = argv[argv.index("-name") + 1].partition(",")[0] if "-name" in argv else None
        if name and not code:
            self.alive[name] = kvm_files.ParseCommandLine(77, "\0".join(argv).encode())
            Path(self.Paths(name).pid).write_text("77\n")
        return fake.FakeProcesses.run(self.rt.processes, argv, **kwargs)

    def _Kill(self, pid, timeout):
        self.killed.append(pid)
        self.alive = {name: item for name, item in self.alive.items() if item.pid != pid}

    def Paths(self, name="inst1.example.com"):
        return kvm_files.Paths(name, str(self.root), str(self.tmp_path / "L"))

    def Instance(self, nics=0, **hvparams):
        return objects.Instance(
            name="inst1.example.com",
            uuid=None,
            hypervisor="kvm",
            primary_node="node1.example.com",
            network_port=11005,
            hvparams={**DEFAULTS, "vnc_bind_address": "0.0.0.0", **hvparams},
            beparams={"memory": 128, "vcpus": 1, "auto_balance": True},
            nics=[
                objects.NIC(mac="aa:0", nicparams={"mode": "bridged", "link": "br0"})
                for _ in range(nics)
            ],
            disks=[objects.Disk(dev_type=constants.LD_FILE, mode="rw")],
        )

    def Start(self, instance):
        self.hv.StartInstance(instance, [(instance.disks[0], str(self.disk))])


class TestNames:
    """Names are parts of paths: none leads out of the hypervisor's directories."""

    @pytest.mark.parametrize("name", ["../x", "/x", "..", "", ".x", "a/b", "a\0b", "-x", "a,b"])
    def test_refused(self, node, name):
        instance = node.Instance()
        instance.name = name
        before = sorted(node.tmp_path.rglob("*"))
        for act in (
            lambda: node.Start(instance),
            lambda: node.hv.StopInstance(None, force=True, name=name),
            lambda: node.hv.CleanupInstance(name),
            lambda: node.hv.GetInstanceInfo(name),
        ):
            with pytest.raises(errors.HypervisorError, match="no instance name"):
                act()
        assert sorted(node.tmp_path.rglob("*")) == before
        assert node.runs == []


class TestStart:
    """BASE2: a guest runs only after all around it is set up; a failure leaves nothing."""

    def test_order(self, node, monkeypatch):
        monkeypatch.setattr(kvm_net, "UserNetworkReason", lambda nics: None)
        password = node.tmp_path / "password"
        password.write_text("\n  secret\n\n")
        node.Start(node.Instance(nics=1, vnc_password_file=str(password)))
        assert node.qmp == [
            ("set_password", "vnc", "  secret"),
            ("hmp", "info network"),
            ("cont",),
        ]
        qemu, *network = node.runs
        assert "-S" in qemu
        assert [words[-1] for words in network] == ["tap9", "up", "br0"]
        assert (Path(node.Paths().nics) / "0").read_text() == "tap9\n"
        assert not os.path.exists(node.Paths().starting)

    def test_already_running(self, node):
        node.Start(node.Instance())
        with pytest.raises(errors.HypervisorError, match="process 77"):
            node.Start(node.Instance())

    @pytest.mark.parametrize("what", ["qemu", "cont", "interface"])
    def test_failure_leaves_nothing(self, node, what, monkeypatch):
        nics = 0
        if what == "qemu":
            node.result = (1, "Could not open disk")
        elif what == "cont":
            node.qmp_fails = ("cont",)
        else:
            monkeypatch.setattr(kvm_net, "UserNetworkReason", lambda nics: None)
            monkeypatch.setattr(kvm_net, "ParseHmpNetwork", lambda text: {})
            nics = 1
        instance = node.Instance(nics=nics, security_model="pool", use_chroot=True)
        with pytest.raises(errors.HypervisorError):
            node.Start(instance)
        assert node.alive == {}
        assert node.hv.ListInstances() == []
        assert [path for path in node.root.rglob("inst1*")] == []
        assert os.listdir(pathutils.UIDPOOL_LOCKDIR) == []

    def test_disk_is_not_there(self, node):
        node.disk.unlink()
        with pytest.raises(errors.HypervisorError, match=str(node.disk)):
            node.Start(node.Instance())

    @pytest.mark.parametrize("content", [None, "", "\n \n", "a\nb\n", b"\xff\n"])
    def test_password_file(self, node, content):
        path = node.tmp_path / "password"
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            path.write_text(content)
        with pytest.raises(errors.HypervisorError, match=str(path)):
            node.Start(node.Instance(vnc_password_file=str(path)))
        assert node.runs == []

    @pytest.mark.parametrize(("password", "warned"), [("12345678", False), ("123456789", True)])
    def test_password_that_is_cut(self, node, password, warned, caplog):
        path = node.tmp_path / "password"
        path.write_text(password)
        node.Start(node.Instance(vnc_password_file=str(path)))
        assert ("first 8 characters" in caplog.text) is warned
        assert password not in caplog.text

    def test_password_file_without_vnc_is_not_needed(self, node):
        node.Start(node.Instance(vnc_password_file="/no/file", vnc_bind_address=""))
        assert node.qmp == [("cont",)]


class TestAccelerator:
    """BASE2: what a guest runs on is decided at its start and stays, or it could not migrate."""

    @pytest.mark.parametrize(
        ("flag", "works", "accelerator"),
        [
            ("", True, "kvm"),
            ("", False, "tcg"),
            ("disabled", True, "tcg"),
            ("enabled", False, "kvm"),
        ],
    )
    def test_stays_over_a_reboot(self, node, flag, works, accelerator):
        instance = node.Instance(kvm_flag=flag)
        node.kvm_works = (works, "")
        node.Start(instance)
        assert node.runs[-1][node.runs[-1].index("-accel") + 1] == accelerator
        node.kvm_works = (not works, "")
        node.rt.clock.sleep = lambda seconds: node.alive.clear()
        node.hv.RebootInstance(instance)
        assert node.runs[-1][node.runs[-1].index("-accel") + 1] == accelerator
        assert instance.hvparams["kvm_flag"] == flag


class TestUidPool:
    """UP3: an id of the pool goes with the process and comes back."""

    def test_start_and_cleanup(self, node):
        node.Start(node.Instance(security_model="pool"))
        argv = node.runs[0]
        assert argv[argv.index("-runas") + 1] == "account-5"
        assert Path(node.Paths().uid).read_text() == "-5\n"
        assert os.listdir(pathutils.UIDPOOL_LOCKDIR) == ["-5"]
        uidpool.RequestUnusedUid({-5}).Unlock()  # unlocked: the process itself is the proof now

        node.hv.StopInstance(node.Instance(), force=True)
        node.hv.CleanupInstance("inst1.example.com")
        assert os.listdir(pathutils.UIDPOOL_LOCKDIR) == []
        assert not os.path.exists(node.Paths().uid)

    def test_wrong_uid_file_is_a_warning(self, node, caplog):
        Path(node.Paths().uid).write_text("<ganeti.uidpool.LockedUid object>")
        node.hv.CleanupInstance("inst1.example.com")
        assert "LockedUid" in caplog.text
        assert not os.path.exists(node.Paths().uid)

    def test_user_model(self, node):
        node.Start(node.Instance(security_model="user", security_domain="joe"))
        argv = node.runs[0]
        assert argv[argv.index("-runas") + 1] == "joe"


class TestStop:
    """BASE2: power button, force, and what is left is cleaned up."""

    @pytest.mark.parametrize(
        ("acpi", "force", "qmp", "killed"),
        [
            (True, False, [("system_powerdown",)], []),
            (True, True, [], [77]),
            (False, False, [], [77]),
        ],
    )
    def test_how(self, node, acpi, force, qmp, killed):
        instance = node.Instance(acpi=acpi)
        node.Start(instance)
        node.qmp.clear()
        # What counts is what the guest was started with.
        instance.hvparams["acpi"] = not acpi
        node.hv.StopInstance(instance, force=force)
        assert (node.qmp, node.killed) == (qmp, killed)

    def test_qemu_that_does_not_answer_is_left_to_force(self, node, caplog):
        node.Start(node.Instance())
        node.qmp_fails = ("system_powerdown",)
        node.hv.StopInstance(node.Instance())
        assert "power button" in caplog.text
        assert node.killed == []

    def test_not_running(self, node):
        node.hv.StopInstance(node.Instance())
        node.hv.StopInstance(None, force=True, name="inst1.example.com")

    def test_by_name_only_with_force(self, node):
        with pytest.raises(errors.HypervisorError, match="use force"):
            node.hv.StopInstance(None, name="inst1.example.com")
        with pytest.raises(errors.ProgrammerError):
            node.hv.StopInstance(None, force=True)

    def test_cleanup_of_a_running_one(self, node):
        node.Start(node.Instance())
        with pytest.raises(errors.HypervisorError, match="still runs"):
            node.hv.CleanupInstance("inst1.example.com")

    def test_half_started_one_is_ended(self, node, monkeypatch):
        node.Start(node.Instance(security_model="pool"))
        Path(node.Paths().starting).write_text("123456789\n")
        assert node.hv.ListInstances() == []
        node.hv.CleanupInstance("inst1.example.com")
        assert node.killed == [77]
        assert os.listdir(pathutils.UIDPOOL_LOCKDIR) == []

    def test_what_a_dead_one_left_is_removed_by_the_next_start(self, node, monkeypatch):
        monkeypatch.setattr(kvm_net, "UserNetworkReason", lambda nics: None)
        vnc = node.tmp_path / "vnc"
        vnc.mkdir()
        instance = node.Instance(nics=1, security_model="pool", vnc_bind_address=str(vnc))
        node.Start(instance)
        (vnc / "inst1.example.com.vnc").write_text("")
        node.alive.clear()
        node.runs.clear()
        node.Start(node.Instance(use_chroot=True, vnc_bind_address=""))
        assert not os.path.exists(node.Paths().uid)
        assert os.listdir(pathutils.UIDPOOL_LOCKDIR) == []
        assert not os.path.exists(node.Paths().nics)
        assert list(vnc.iterdir()) == []
        assert [pathutils.IP_PATH, "rule", "del", "dev", "tap9"] in node.runs

    def test_chroot_that_is_not_empty_is_kept(self, node, caplog):
        node.Start(node.Instance(use_chroot=True))
        (Path(node.Paths().chroot) / "evidence").write_text("x")
        node.hv.StopInstance(None, force=True, name="inst1.example.com")
        node.hv.CleanupInstance("inst1.example.com")
        (kept,) = (node.root / "chroot-quarantine").iterdir()
        assert kept.name.startswith("inst1.example.com-1767225600-")
        assert (kept / "evidence").exists()
        assert str(kept) in caplog.text


class TestReboot:
    """BASE2: a soft reboot gives the guest the machine it had, and time to shut down."""

    def test_unchanged_machine(self, node):
        instance = node.Instance(acpi=True)
        node.Start(instance)
        first = node.runs[-1]
        node.rt.clock.sleep = lambda seconds: node.alive.clear()
        instance.beparams["memory"] = 4096
        instance.hvparams["nic_type"] = "e1000"
        node.hv.RebootInstance(instance)
        assert node.runs[-1] == first
        assert node.killed == []
        assert ("system_powerdown",) in node.qmp

    def test_after_an_upgrade_of_qemu(self, node, monkeypatch):
        """The words are those of today's QEMU, the machine is the one the guest knows."""
        instance = node.Instance(use_chroot=True)
        node.Start(instance)
        newer = dataclasses.replace(
            CAPS,
            path="/usr/bin/qemu-new",
            version=(10, 0, 2),
            machine="pc-i440fx-10.0",
            run_with=frozenset(["chroot"]),
        )
        monkeypatch.setattr(kvm_capabilities, "Probe", lambda rt: newer)
        node.hv.RebootInstance(instance)
        argv = node.runs[-1]
        assert argv[0] == "/usr/bin/qemu-new"
        assert "-run-with" in argv
        assert "-chroot" not in argv
        assert argv[argv.index("-machine") + 1] == "pc-i440fx-7.2,acpi=on"
        # And at the next one, too; where the guest was first started stays known.
        kept = json.loads(Path(node.Paths().runtime).read_text())
        assert (kept["machine"], kept["qemu"]) == ("pc-i440fx-7.2", [7, 2, 22])

    def test_started_by_2_1(self, node, monkeypatch):
        """Parameters and NICs are those of the file, disks and memory of the configuration."""
        monkeypatch.setattr(pathutils, "DISK_LINKS_DIR", str(node.tmp_path))
        os.symlink(node.disk, node.tmp_path / "inst1.example.com:0")
        instance = node.Instance()
        node.Start(instance)
        old = {name: value for name, value in DEFAULTS.items() if name != "vhost_net"}
        nic = {"mac": "aa:1", "ip": None, "nicparams": {"mode": "bridged", "link": "br0"}}
        Path(node.Paths().runtime).write_text(
            json.dumps([["kvm", "-name", "inst1"], [nic], {**old, "nic_type": "e1000"}])
        )
        node.hv.RebootInstance(instance)
        argv = node.runs[-1]
        assert any(word.startswith("e1000,netdev=net0") and "mac=aa:1" in word for word in argv)
        assert any(f"{node.tmp_path}/inst1.example.com:0" in word for word in argv)
        assert argv[argv.index("-m") + 1] == "128"
        assert argv[argv.index("-machine") + 1].startswith(CAPS.machine + ",")

    def test_force_after_a_while(self, node):
        instance = node.Instance()
        node.Start(instance)
        node.hv.RebootInstance(instance)
        assert node.killed == [77]
        assert node.rt.clock.monotonic() >= 60

    def test_not_running(self, node):
        with pytest.raises(errors.HypervisorError, match="not running"):
            node.hv.RebootInstance(node.Instance())


class TestDirectories:
    """BASE2: state lies on the node, sockets where only root can reach them."""

    def test_made(self, node):
        assert sorted(os.listdir(node.root)) == [
            *("chroot", "chroot-quarantine", "conf", "ctrl", "nic", "pid", "uid")
        ]
        assert (node.root / "ctrl").stat().st_mode & 0o777 == 0o750

    def test_not_possible(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(errors.HypervisorError, match="file/R"):
            hv_kvm.KVMHypervisor(root_dir=str(tmp_path / "file/R"))

    def test_too_long_for_a_socket(self, node):
        instance = node.Instance()
        instance.name = "x" * 90
        with pytest.raises(errors.HypervisorError, match="107"):
            node.Start(instance)

    def test_verify(self, node, monkeypatch):
        assert node.hv.Verify() is None

        def _Fail(rt):
            raise errors.HypervisorError("QEMU is not installed")

        monkeypatch.setattr(kvm_capabilities, "Probe", _Fail)
        assert node.hv.Verify() == "QEMU is not installed"

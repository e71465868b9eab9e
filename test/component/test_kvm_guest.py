"""Real guests under the KVM hypervisor class, without daemons (BASE2, BASE3 console, UP3)."""

import concurrent.futures
import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from kvmlab import FilesAbout

from ganeti import constants, errors, hvconsole, pathutils, uidpool
from ganeti.hypervisor import hv_kvm, kvm_accel, kvm_capabilities, kvm_files, kvm_qmp, kvm_security


@pytest.mark.timeout(300)
class TestLifeOfAGuest:
    """BASE2: a kvm instance starts, is seen, talks, reboots and shuts down."""

    def test_start_console_reboot_shutdown(self, lab):
        lab.Install("inst1.example.com")
        instance = lab.Instance("inst1.example.com", nics=1)
        serial = lab.Start(instance)
        up = serial.WaitFor("MARK up")
        assert "host=inst1.example.com" in up
        assert "variant=default how=create" in up
        assert "nics=1 disk=/dev/vda:65536 boots=1" in up

        # A second daemon finds it too: nothing is kept in memory.
        other = hv_kvm.KVMHypervisor()
        assert other.ListInstances() == ["inst1.example.com"]
        name, pid, memory, vcpus, state, _ = other.GetInstanceInfo("inst1.example.com")
        assert (name, memory, vcpus, state) == ("inst1.example.com", 96, 1, "---b-")
        assert os.path.exists(f"/proc/{pid}")
        assert other.GetAllInstancesInfo()[0][1] == pid
        assert other.GetInstanceInfo("inst1.example") is None
        with pytest.raises(errors.HypervisorError, match="already running"):
            lab.Start(instance)
        with pytest.raises(errors.HypervisorError, match="still runs"):
            other.CleanupInstance("inst1.example.com")

        serial.Send("\necho answer-$((6*7))\n")
        serial.WaitFor("answer-42")
        serial.Close()

        lab.hv.RebootInstance(instance)
        serial = lab.Console(instance.name)
        assert "boots=2" in serial.WaitFor("MARK up")
        assert lab.hv.GetInstanceInfo(instance.name)[1] != pid

        lab.hv.StopInstance(instance)
        serial.WaitFor("MARK powerbutton")
        lab.WaitUntilGone(instance.name)
        serial.Close()
        lab.hv.StopInstance(instance)  # not running: nothing to do
        lab.hv.CleanupInstance(instance.name)
        assert FilesAbout(instance.name) == []

    def test_power_button_ignored_then_forced(self, lab):
        lab.Install("inst2.example.com", "nopower")
        instance = lab.Instance("inst2.example.com")
        serial = lab.Start(instance)
        assert "variant=nopower" in serial.WaitFor("MARK up")
        lab.hv.StopInstance(instance)
        serial.Send("\necho still-$((40+2))\n")
        serial.WaitFor("still-42")
        with pytest.raises(errors.HypervisorError, match="force"):
            lab.hv.StopInstance(None, name=instance.name)
        lab.hv.StopInstance(None, force=True, name=instance.name)
        assert lab.hv.ListInstances() == []
        # QEMU's last words are kept, though it has no standard error.
        assert "terminating on signal 15" in Path(kvm_files.Paths(instance.name).log).read_text()

    def test_console_command(self, lab):
        """BASE3: the console's command works without socat."""
        lab.Install("inst3.example.com")
        instance = lab.Instance("inst3.example.com")
        serial = lab.Start(instance)
        serial.WaitFor("MARK up")
        serial.Close()  # QEMU serves one at a time
        command = hv_kvm.KVMHypervisor.GetShellCommandForConsole(
            instance, instance.hvparams, instance.beparams
        )
        command = command.replace(pathutils.SOCAT_PATH, "/no/such/socat")
        assert hvconsole._CONSOLE_HELPER in command
        console = subprocess.Popen(
            ["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        console.stdin.write(b"\necho via-$((100-58))\n")
        console.stdin.flush()
        seen = b""
        while b"via-42" not in seen:
            data = os.read(console.stdout.fileno(), 4096)
            assert data, f"console ended: {seen!r}"
            seen += data
        console.stdin.write(b"\x1d")
        console.stdin.close()
        console.stdout.close()
        assert console.wait(10) == 0


@pytest.mark.timeout(300)
class TestHardware:
    """BASE2: what parameters say is what QEMU and the guest have."""

    @pytest.mark.parametrize(
        ("hvparams", "disk"),
        [
            ({"disk_type": "scsi", "disk_cache": "writeback"}, "/dev/sda"),
            ({"disk_cache": "writethrough", "nic_type": "e1000"}, "/dev/vda"),
            ({"disk_cache": "none", "acpi": True, "usb_mouse": "tablet"}, "/dev/vda"),
        ],
    )
    def test_boots(self, lab, hvparams, disk):
        lab.Install("inst1.example.com")
        serial = lab.Start(lab.Instance("inst1.example.com", nics=2, **hvparams))
        assert f"disk={disk}" in serial.WaitFor("MARK up")

    @pytest.mark.parametrize("nic_type", constants.HT_KVM_VALID_NIC_TYPES)
    @pytest.mark.parametrize("boot_order", ["disk", "network"])
    def test_every_nic_type_is_accepted(self, lab, nic_type, boot_order):
        hvparams = {"nic_type": nic_type, "boot_order": boot_order, "kernel_path": ""}
        lab.Start(lab.Instance("inst1.example.com", nics=1, **hvparams))
        assert lab.hv.ListInstances() == ["inst1.example.com"]

    @pytest.mark.parametrize("cache", constants.HT_VALID_CACHE_TYPES)
    @pytest.mark.parametrize("disk_type", ["paravirtual", "ide", "scsi"])
    def test_every_disk_type_and_cache_mode(self, lab, disk_type, cache):
        cd = lab.directory / "cd.iso"
        cd.write_bytes(bytes(2**20))
        hvparams = {
            "disk_type": disk_type,
            "disk_cache": cache,
            "cdrom_image_path": str(cd),
            "boot_order": "cdrom",
            "kernel_path": "",
        }
        lab.Start(lab.Instance("inst1.example.com", disks=2, **hvparams))
        assert lab.hv.ListInstances() == ["inst1.example.com"]

    @pytest.mark.parametrize("value", [False, True])
    def test_switches(self, lab, value, monkeypatch):
        """What QEMU says that it has, with each of them and without."""
        monkeypatch.setenv("TZ", "LOCAL-5")
        instance = lab.Instance(
            "inst1.example.com",
            nics=1,
            kernel_path="",
            acpi=value,
            serial_console=value,
            use_localtime=value,
            usb_mouse="tablet" if value else "mouse",
            use_chroot=value,
            # Its boot code is loaded before the process is locked in.
            boot_order="network",
        )
        lab.hv.StartInstance(instance, [(instance.disks[0], instance.disks[0].physical_id[1])])
        paths = kvm_files.Paths(instance.name)
        assert os.path.exists(paths.serial) is value
        with kvm_qmp.QmpClient(paths.qmp) as qmp:
            assert qmp.Execute("query-status")["status"] == "running"
            acpi = qmp.Execute("qom-get", {"path": "/machine", "property": "acpi"})
            assert acpi == ("on" if value else "off")
            pointer = "USB Tablet" if value else "USB Mouse"
            assert pointer in qmp.ExecuteHmp("info usb")
            clock = qmp.Execute("qom-get", {"path": "/machine", "property": "rtc-time"})
        shown = (clock["tm_hour"] - time.gmtime().tm_hour) % 24
        # One more if an hour has just begun.
        assert shown in ((5, 4) if value else (0, 23))

    def test_refusal_leaves_nothing(self, lab):
        instance = lab.Instance("inst1.example.com", initrd_path="/no/such/initrd")
        with pytest.raises(errors.HypervisorError, match="/no/such/initrd"):
            lab.Start(instance)
        assert lab.hv.ListInstances() == []
        assert FilesAbout(instance.name) == []


@pytest.mark.timeout(300)
class TestAccelerator:
    """BASE2: without kvm_flag a guest boots on any node, with KVM only where that works."""

    def test_trial_is_one_that_guests_pass(self, tmp_path):
        """On a processor without flaws, which is an emulated one."""
        image = tmp_path / "trial.bios"
        image.write_bytes(kvm_accel.TrialImage())
        argv = kvm_accel.TrialCommand(kvm_capabilities.Probe(), str(image))
        argv[argv.index(kvm_accel.KVM)] = kvm_accel.TCG
        result = subprocess.run(argv, check=False, capture_output=True, timeout=60)
        assert (result.returncode, result.stderr) == (33, b"")

    def test_boots_with_what_works(self, lab):
        lab.Install("inst1.example.com")
        serial = lab.Start(lab.Instance("inst1.example.com", kvm_flag=""))
        serial.WaitFor("MARK up")
        # The next one costs no trial.
        works = kvm_accel.KvmWorks(Unusable(), kvm_capabilities.Probe(), kvm_files.ROOT_DIR)
        pid = lab.hv.GetInstanceInfo("inst1.example.com")[1]
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        assert words[words.index("-accel") + 1] == ("kvm" if works[0] else "tcg")


class Unusable:
    """A runtime of which nothing may be used."""


def _PoolAccounts():
    """Two accounts that no process runs under (not root's)."""
    in_use = uidpool._UidsInUse()
    return [item.pw_uid for item in pwd.getpwall() if item.pw_uid and item.pw_uid not in in_use][:2]


@pytest.mark.timeout(300)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of other users")
class TestSecurity:
    """UP3: each guest of the pool runs under a user of its own, which goes back at the end."""

    def test_pool(self, lab, monkeypatch):
        accounts = _PoolAccounts()
        if len(accounts) < 2:
            pytest.skip("fewer than two idle accounts on this machine")
        monkeypatch.setattr(kvm_security, "_PoolUids", lambda: set(accounts))
        names = ["pool1.example.com", "pool2.example.com", "pool3.example.com"]
        instances = [
            lab.Instance(name, disks=0, security_model="pool", kernel_path="") for name in names
        ]
        used = set()
        for instance in instances[:2]:
            lab.Start(instance)
            pid = lab.hv.GetInstanceInfo(instance.name)[1]
            used.add(os.stat(f"/proc/{pid}").st_uid)
        assert used == set(accounts)
        with pytest.raises(errors.LockError):
            lab.Start(instances[2])

        lab.hv.StopInstance(instances[0], force=True)
        lab.hv.CleanupInstance(names[0])
        assert len(os.listdir(pathutils.UIDPOOL_LOCKDIR)) == 1
        lab.Start(instances[2])
        assert set(lab.hv.ListInstances()) == set(names[1:])

    def test_failed_start_gives_the_user_back(self, lab, monkeypatch):
        accounts = _PoolAccounts()
        monkeypatch.setattr(kvm_security, "_PoolUids", lambda: set(accounts))
        instance = lab.Instance(
            "pool1.example.com", security_model="pool", initrd_path="/no/such/initrd"
        )
        with pytest.raises(errors.HypervisorError):
            lab.Start(instance)
        assert os.listdir(pathutils.UIDPOOL_LOCKDIR) == []

    def test_user_and_chroot(self, lab):
        lab.Install("inst1.example.com")
        instance = lab.Instance(
            "inst1.example.com",
            nics=1,
            security_model="user",
            security_domain="nobody",
            use_chroot=True,
        )
        disk = lab.DiskPath(instance.name)
        os.chmod(disk, 0o600)
        serial = lab.Start(instance)
        serial.WaitFor("MARK up")
        pid = lab.hv.GetInstanceInfo(instance.name)[1]
        assert os.stat(f"/proc/{pid}").st_uid == pwd.getpwnam("nobody").pw_uid
        chroot = Path(kvm_files.Paths(instance.name).chroot)
        assert os.readlink(f"/proc/{pid}/root") == str(chroot)
        assert chroot.stat().st_mode & 0o777 == 0o700
        # Somebody has been in there.
        (chroot / "evidence").write_text("")
        # Its disk is root's, and it writes to it all the same, at its new end as well.
        os.truncate(disk, 33 * 2**20)
        with kvm_qmp.QmpClient(kvm_files.Paths(instance.name).qmp) as qmp:
            qmp.Execute("block_resize", {"node-name": "blk0", "size": 33 * 2**20})
        serial.Send(
            "\nsleep 1; echo new | dd of=/dev/vda bs=1M seek=32 conv=fsync && echo writ$((1))\n"
        )
        serial.WaitFor("writ1")
        with open(disk, "rb") as fobj:
            fobj.seek(32 * 2**20)
            assert fobj.read(4) == b"new\n"
        lab.hv.StopInstance(instance)
        serial.WaitFor("MARK powerbutton")
        lab.WaitUntilGone(instance.name)
        lab.hv.CleanupInstance(instance.name)
        assert FilesAbout(instance.name) == []
        (kept,) = Path(kvm_files.QuarantineDir()).glob(f"{instance.name}-*")
        assert [path.name for path in kept.iterdir()] == ["evidence"]
        shutil.rmtree(kept)


@pytest.mark.timeout(300)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make bridges")
@pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="no /dev/net/tun")
@pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 is not installed")
class TestNetwork:
    """PR4: taps join the bridge; a routed card gets a route; the site's script goes before both."""

    BRIDGE = "gnttest0"

    @pytest.fixture
    def bridge(self):
        made = subprocess.run(
            ["ip", "link", "add", self.BRIDGE, "type", "bridge"], check=False, capture_output=True
        )
        if made.returncode != 0:
            pytest.skip(f"can't make a bridge: {made.stderr.decode().strip()}")
        subprocess.run(["ip", "link", "set", self.BRIDGE, "up"], check=True)
        yield self.BRIDGE
        subprocess.run(["ip", "link", "del", self.BRIDGE], check=True)

    @staticmethod
    def _Tap(name, index=0):
        return Path(f"{kvm_files.Paths(name).nics}/{index}").read_text().strip()

    def test_bridged_and_vhost(self, lab, bridge):
        lab.Install("inst1.example.com")
        instance = lab.Instance(
            "inst1.example.com", nics=2, vhost_net=os.path.exists("/dev/vhost-net")
        )
        for nic in instance.nics:
            nic.nicparams["link"] = bridge
        serial = lab.Start(instance)
        taps = [self._Tap(instance.name, index) for index in range(2)]
        assert len(set(taps)) == 2
        for tap in taps:
            assert os.path.exists(f"/sys/class/net/{bridge}/brif/{tap}")
        assert "nics=2" in serial.WaitFor("MARK up")
        lab.hv.StopInstance(instance, force=True)
        assert not os.path.exists(f"/sys/class/net/{taps[0]}")

    def test_routed(self, lab, bridge):
        instance = lab.Instance("inst1.example.com", nics=1, kernel_path="")
        instance.nics[0].ip = "198.51.100.7"
        instance.nics[0].nicparams = {"mode": "routed", "link": "77"}
        lab.Start(instance)
        tap = self._Tap(instance.name)
        routes = subprocess.run(
            ["ip", "route", "show", "table", "77"], check=True, capture_output=True, text=True
        ).stdout
        assert f"198.51.100.7 dev {tap} proto static" in routes
        assert Path(f"/proc/sys/net/ipv4/conf/{tap}/proxy_arp").read_text() == "1\n"
        rules = subprocess.run(["ip", "rule"], check=True, capture_output=True, text=True).stdout
        assert f"iif {tap}" in rules
        subprocess.run(["ip", "rule", "del", "dev", tap, "table", "77"], check=True)

    def test_script_of_the_site(self, lab, bridge):
        script = Path(pathutils.KVM_NETWORK_SCRIPT)
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(
            f"#!/bin/sh\nenv | sort > {lab.directory}/env\necho $@ > {lab.directory}/args\n"
        )
        script.chmod(0o755)
        instance = lab.Instance("inst1.example.com", nics=1, kernel_path="")
        instance.nics[0].nicparams["link"] = bridge
        instance.nics[0].ip = "192.0.2.77"
        try:
            lab.Start(instance)
        finally:
            script.unlink()
        arguments = (lab.directory / "args").read_text()
        env = dict(line.split("=", 1) for line in (lab.directory / "env").read_text().splitlines())
        tap = self._Tap(instance.name)
        expected = {
            "INSTANCE": "inst1.example.com",
            "MAC": "aa:00:00:00:01:00",
            "IP": "192.0.2.77",
            "MODE": "bridged",
            "LINK": bridge,
            "BRIDGE": bridge,
            "INTERFACE": tap,
            "TAGS": "blue web",
        }
        assert {key: env.get(key) for key in expected} == expected
        assert {"/sbin", "/usr/sbin"} <= set(env["PATH"].split(":"))
        assert arguments == f"{tap}\n"
        # Nothing else happens.
        assert not os.path.exists(f"/sys/class/net/{bridge}/brif/{tap}")

    def test_no_network_no_guest(self, lab, bridge):
        instance = lab.Instance("inst1.example.com", nics=1, kernel_path="")
        # A mode that needs an address and has none.
        instance.nics[0].nicparams = {"mode": "routed", "link": ""}
        with pytest.raises(errors.HypervisorError, match="needs an IP"):
            lab.Start(instance)
        assert lab.hv.ListInstances() == []
        assert FilesAbout(instance.name) == []


def _BootSector(directory):
    """A guest of 512 bytes."""
    source = Path(__file__).parents[1] / "data/qemu/boot.S"
    for argv in (
        ["as", "--32", "-o", "boot.o", source],
        ["ld", "-m", "elf_i386", "-Ttext", "0", "--oformat", "binary", "-o", "boot.bin", "boot.o"],
    ):
        subprocess.run(argv, cwd=directory, check=True)
    return (directory / "boot.bin").read_bytes()


@pytest.mark.timeout(300)
@pytest.mark.skipif(not shutil.which("as") or not shutil.which("ld"), reason="no binutils")
class TestManyAtOnce:
    """BASE2: a node starts, knows and ends twenty guests at once."""

    COUNT = 20

    def test_twenty(self, lab):
        sector = _BootSector(lab.directory)
        instances = []
        for number in range(self.COUNT):
            instance = lab.Instance(f"many{number}.example.com", kernel_path="")
            instance.beparams["memory"] = 16
            with open(lab.DiskPath(instance.name), "r+b") as disk:
                disk.write(sector)
            instances.append(instance)

        def _ForAll(function):
            start = time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(self.COUNT) as pool:
                results = list(pool.map(function, instances))
            return results, time.monotonic() - start

        serials, start_time = _ForAll(lab.Start)
        _, up_time = _ForAll(lambda instance: serials[instances.index(instance)].WaitFor("tick 1"))
        names = {instance.name for instance in instances}
        start = time.monotonic()
        found = hv_kvm.KVMHypervisor().GetAllInstancesInfo()
        list_time = time.monotonic() - start
        assert {item[0] for item in found} == names
        assert len({item[1] for item in found}) == self.COUNT
        for instance in instances:
            with open(lab.DiskPath(instance.name), "rb") as disk:
                disk.seek(512)
                assert disk.read(2) == b"\1\0", f"{instance.name} was not booted once"

        def _End(instance):
            lab.hv.StopInstance(instance, force=True)
            lab.hv.CleanupInstance(instance.name)

        _, stop_time = _ForAll(_End)
        assert lab.hv.ListInstances() == []
        assert FilesAbout("many") == []
        print(
            f"{self.COUNT} guests at once: started in {start_time:.2f} s, up {up_time:.2f} s later,"
            f" listed in {list_time * 1000:.0f} ms, ended in {stop_time:.2f} s"
        )
        # Not one second each.
        assert start_time < self.COUNT


@pytest.mark.timeout(300)
class TestDaemonDies:
    """BASE2: a node daemon that dies while it starts an instance leaves none that only looks up."""

    def test_half_started(self, lab, monkeypatch):
        instance = lab.Instance("inst1.example.com", kernel_path="")
        lab.Start(instance)
        pid = lab.hv.GetInstanceInfo(instance.name)[1]
        dead = subprocess.Popen(["true"])
        dead.wait()
        Path(kvm_files.Paths(instance.name).starting).write_text(f"{dead.pid}\n")
        assert lab.hv.ListInstances() == []
        lab.Start(instance)
        assert lab.hv.GetInstanceInfo(instance.name)[1] != pid
        with kvm_qmp.QmpClient(kvm_files.Paths(instance.name).qmp) as qmp:
            assert qmp.Execute("query-status")["status"] == "running"


@pytest.mark.timeout(300)
class TestOsDefinition:
    """OS1: the scripts of the test OS do what the OS interface says."""

    def test_export_import_rename(self, lab):
        lab.Install("old.example.com", "nopower")
        dump = lab.directory / "dump"
        result = lab.Script(
            "export",
            "old.example.com",
            EXPORT_DEVICE=lab.DiskPath("old.example.com"),
            EXPORT_INDEX="0",
        )
        assert result.returncode == 0, result.stderr
        dump.write_bytes(result.stdout)
        with open(dump, "rb") as fobj:
            result = lab.Script(
                "import",
                "new.example.com",
                stdin=fobj,
                IMPORT_DEVICE=lab.DiskPath("new.example.com"),
                IMPORT_INDEX="0",
            )
        assert result.returncode == 0, result.stderr
        os.rename(lab.DiskPath("new.example.com"), lab.directory / "last.example.com.disk0")
        result = lab.Script("rename", "last.example.com", OLD_INSTANCE_NAME="new.example.com")
        assert result.returncode == 0, result.stderr
        up = lab.Start(lab.Instance("last.example.com")).WaitFor("MARK up")
        assert "host=last.example.com variant=nopower how=rename" in up

    def test_unknown_variant_is_refused_even_if_forced(self, lab):
        result = lab.Script("create", "inst1.example.com", "nosuch")
        assert result.returncode != 0
        assert b"nosuch" in result.stderr

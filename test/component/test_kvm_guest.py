"""Real guests under the KVM hypervisor class, without daemons (BASE2, BASE3 console, UP3)."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from ganeti import constants, errors, hvconsole, objects, pathutils, uidpool
from ganeti.hypervisor import hv_kvm, kvm_files, kvm_qmp
from ganeti.vcluster import guest

OS_DIR = Path(__file__).resolve().parents[1] / "os" / "busybox-guest"

#: Real time that a step of a guest may take under TCG on a busy machine (seconds).
PATIENCE = 90


@pytest.fixture(scope="session")
def assets():
    try:
        return guest.Prepare(install=os.environ.get("GANETI_TEST_INSTALL") == "1")
    except errors.OpPrereqError as err:
        pytest.skip(str(err))


class Serial:
    """The guest's serial console, read from the moment of connecting."""

    def __init__(self, path):
        self.text = ""
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.connect(path)
        self._sock.settimeout(PATIENCE)

    def WaitFor(self, marker):
        deadline = time.monotonic() + PATIENCE
        while marker not in self.text:
            if time.monotonic() > deadline:
                raise AssertionError(f"no {marker!r} on the console: {self.text!r}")
            data = self._sock.recv(4096)
            if not data:
                raise AssertionError(f"console ended without {marker!r}: {self.text!r}")
            self.text += data.decode("utf-8", "replace")
        # To the end of the line.
        while not self.text.partition(marker)[2].count("\n"):
            self.text += self._sock.recv(4096).decode("utf-8", "replace")
        return marker + self.text.partition(marker)[2].splitlines()[0]

    def Send(self, text):
        self._sock.sendall(text.encode())

    def Close(self):
        self._sock.close()


class Lab:
    """Instances of one node, all ended at the end."""

    def __init__(self, assets, directory):
        self.assets = assets
        self.directory = directory
        self.hv = hv_kvm.KVMHypervisor()
        self._names = set()
        self._serials = []

    def Instance(self, name, disks=1, nics=0, **hvparams):
        self._names.add(name)
        return objects.Instance(
            name=name,
            uuid="7d3a1a5c-51e1-4f0c-b1a7-2c1f7a9f3e11",
            primary_node="node1.example.com",
            hypervisor=constants.HT_KVM,
            network_port=11001,
            hvparams={
                **constants.HVC_DEFAULTS[constants.HT_KVM],
                "kernel_path": self.assets.kernel,
                "initrd_path": self.assets.initrd,
                "kernel_args": "quiet panic=1",
                # That /dev/kvm can be opened is no promise that guests run on it.
                "kvm_flag": "disabled",
                **hvparams,
            },
            beparams={"memory": 96, "vcpus": 1, "auto_balance": True},
            nics=[
                objects.NIC(
                    mac=f"aa:00:00:00:01:{index:02x}",
                    ip=None,
                    nicparams={"mode": "bridged", "link": "no-such-bridge"},
                )
                for index in range(nics)
            ],
            disks=[
                objects.Disk(
                    dev_type=constants.LD_FILE,
                    size=32,
                    mode="rw",
                    iv_name=f"disk/{index}",
                    logical_id=("loop", self.DiskPath(name, index)),
                    physical_id=("loop", self.DiskPath(name, index)),
                    children=[],
                )
                for index in range(disks)
            ],
            tags={"web", "blue"},
        )

    def DiskPath(self, name, index=0):
        path = self.directory / f"{name}.disk{index}"
        if not path.exists():
            with open(path, "wb") as fobj:
                fobj.truncate(32 * 2**20)
        return str(path)

    def Script(self, script, name, variant="default", **env):
        """Run a script of the guest's OS definition."""
        return subprocess.run(
            [OS_DIR / script],
            cwd=OS_DIR,
            check=False,
            capture_output=True,
            stdin=env.pop("stdin", subprocess.DEVNULL),
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "INSTANCE_NAME": name,
                "OS_VARIANT": variant,
                "DISK_COUNT": "1",
                "DISK_0_PATH": self.DiskPath(name),
                **env,
            },
        )

    def Install(self, name, variant="default"):
        result = self.Script("create", name, variant)
        assert result.returncode == 0, result.stderr

    def Start(self, instance):
        devices = [(disk, disk.physical_id[1]) for disk in instance.disks]
        self.hv.StartInstance(instance, devices)
        return self.Console(instance.name)

    def Console(self, name):
        serial = Serial(kvm_files.Paths(name).serial)
        self._serials.append(serial)
        return serial

    def WaitUntilGone(self, name):
        deadline = time.monotonic() + PATIENCE
        while name in self.hv.ListInstances():
            assert time.monotonic() < deadline, f"{name} still runs"
            time.sleep(0.05)

    def Close(self):
        for serial in self._serials:
            serial.Close()
        for name in self._names:
            self.hv.StopInstance(None, force=True, name=name)
            self.hv.CleanupInstance(name)


@pytest.fixture
def lab(assets, tmp_path):
    lab = Lab(assets, tmp_path)
    yield lab
    lab.Close()


def _FilesAbout(name):
    return [
        str(path)
        for path in Path(kvm_files.ROOT_DIR).rglob(f"{name}*")
        if "quarantine" not in str(path)
    ]


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
        assert _FilesAbout(instance.name) == []

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

    def test_vnc_password_and_socket(self, lab):
        password = lab.directory / "password"
        password.write_text("verysecret\n")
        instance = lab.Instance(
            "inst1.example.com",
            vnc_bind_address=str(lab.directory),
            vnc_password_file=str(password),
            kernel_path="",
        )
        lab.Start(instance)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(lab.directory / "inst1.example.com.vnc"))
            assert sock.recv(12) == b"RFB 003.008\n"
            sock.sendall(b"RFB 003.008\n")
            # One security type: VNC authentication.
            assert sock.recv(2) == b"\x01\x02"
        lab.hv.StopInstance(instance, force=True)
        lab.hv.CleanupInstance(instance.name)
        assert not (lab.directory / "inst1.example.com.vnc").exists()

    def test_vnc_on_an_address_with_anonymous_tls(self, lab):
        instance = lab.Instance(
            "inst1.example.com", vnc_bind_address="127.0.0.1", vnc_tls=True, kernel_path=""
        )
        lab.Start(instance)
        with socket.create_connection(("127.0.0.1", 11001)) as sock:
            assert sock.recv(12) == b"RFB 003.008\n"

    def test_refusal_leaves_nothing(self, lab):
        instance = lab.Instance("inst1.example.com", initrd_path="/no/such/initrd")
        with pytest.raises(errors.HypervisorError, match="/no/such/initrd"):
            lab.Start(instance)
        assert lab.hv.ListInstances() == []
        assert _FilesAbout(instance.name) == []


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
        monkeypatch.setattr(hv_kvm, "_PoolUids", lambda: set(accounts))
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
        monkeypatch.setattr(hv_kvm, "_PoolUids", lambda: set(accounts))
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
        serial = lab.Start(instance)
        serial.WaitFor("MARK up")
        pid = lab.hv.GetInstanceInfo(instance.name)[1]
        assert os.stat(f"/proc/{pid}").st_uid == pwd.getpwnam("nobody").pw_uid
        assert os.readlink(f"/proc/{pid}/root") == kvm_files.Paths(instance.name).chroot
        lab.hv.StopInstance(instance)
        serial.WaitFor("MARK powerbutton")
        lab.WaitUntilGone(instance.name)
        lab.hv.CleanupInstance(instance.name)
        assert _FilesAbout(instance.name) == []


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
        script.write_text(f"#!/bin/sh\nenv | sort > {lab.directory}/env\necho $1 >> $0.args\n")
        script.chmod(0o755)
        instance = lab.Instance("inst1.example.com", nics=1, kernel_path="")
        instance.nics[0].nicparams["link"] = bridge
        try:
            lab.Start(instance)
        finally:
            script.unlink()
        env = dict(line.split("=", 1) for line in (lab.directory / "env").read_text().splitlines())
        assert env["INTERFACE"] == self._Tap(instance.name)
        assert (env["INSTANCE"], env["MODE"], env["BRIDGE"], env["TAGS"]) == (
            "inst1.example.com",
            "bridged",
            bridge,
            "blue web",
        )

    def test_no_network_no_guest(self, lab, bridge):
        instance = lab.Instance("inst1.example.com", nics=1, kernel_path="")
        # A mode that needs an address and has none.
        instance.nics[0].nicparams = {"mode": "routed", "link": ""}
        with pytest.raises(errors.HypervisorError, match="needs an IP"):
            lab.Start(instance)
        assert lab.hv.ListInstances() == []
        assert _FilesAbout(instance.name) == []


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

"""The testbed itself: its nodes are machines of their own, and nothing of it is left behind."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from bed import holder, host, layout
from realcluster import RealCluster
from vc import CleanEnvironment, WaitFor


def Lacks(what):
    reason = host.Lacks(what)
    if reason:
        pytest.skip(f"this machine lacks {reason}")


class TestNameServer:
    """The switch's name server, without a network."""

    QUERY = bytes.fromhex("abcd 0100 0001 0000 0000 0000")
    NAME = b"\x05node2\x07EXAMPLE\x03com\x00"

    def Ask(self, name, kind=1):
        return holder.Answer(self.QUERY + name + kind.to_bytes(2, "big") + b"\0\1", layout.Names())

    def test_address(self):
        answer = self.Ask(self.NAME)
        assert answer[:8] == bytes.fromhex("abcd 8580 0001 0001")
        assert answer[-4:] == bytes([192, 0, 2, 12])

    def test_no_such_name(self):
        assert self.Ask(b"\x05nodeX\0")[:8] == bytes.fromhex("abcd 8583 0001 0000")

    def test_no_such_kind(self):
        """No error: an address of the other kind is there."""
        assert self.Ask(self.NAME, kind=28)[:8] == bytes.fromhex("abcd 8580 0001 0000")

    @pytest.mark.parametrize("query", [b"", b"x", QUERY, QUERY + b"\x3fabc", QUERY + b"\xff" * 4])
    def test_garbage(self, query):
        assert holder.Answer(query, {}) is None


@pytest.fixture(scope="module")
def bed(NewTestbed):
    return NewTestbed("--nodes=2")


class TestNode:
    """A node is a machine of its own."""

    def test_names(self, bed):
        assert bed.Ok("hostname; hostname --fqdn; hostname -i").split() == [
            "node1",
            "node1.example.com",
            "192.0.2.11",
        ]
        hosts = bed.Ok("cat /etc/hosts")
        assert "node1.example.com" in hosts
        assert "node2" not in hosts
        # The rest is the name server's.
        assert bed.Ok("getent hosts node2").split() == ["192.0.2.12", "node2.example.com"]
        assert bed.Run("getent hosts nobody").code == 2

    def test_addresses(self, bed):
        addresses = bed.Ok("ip -4 -o addr show", node="node2").splitlines()
        assert [line.split()[1] + " " + line.split()[3] for line in addresses] == [
            "lo 127.0.0.1/8",
            "eth1 198.51.100.12/24",
            "br0 192.0.2.12/24",
        ]

    def test_network_is_closed(self, bed):
        """There is a way to the others and none to this machine or further."""
        bed.Ok("ping -c 1 -W 2 node2 && ping -c 1 -W 2 198.51.100.12")
        routes = bed.Ok("ip route show").splitlines()
        assert [line.split()[0] for line in routes] == ["192.0.2.0/24", "198.51.100.0/24"]
        assert "unreachable" in bed.Fails("ping -c 1 -W 1 203.0.113.1")

    def test_processes(self, bed):
        """A node sees its own, the first one being 1."""
        pids = bed.Ok("ps -e -o pid=,args=").splitlines()
        assert len(pids) < 10
        assert pids[0].split()[0] == "1"
        assert any("sshd" in line for line in pids)

    def test_files(self, bed):
        """What a node writes is its own; what this machine keeps for itself is not seen."""
        for path in ("/etc/ganeti/file", "/usr/share/testbed-file", "/tmp/testbed-file"):
            bed.Ok(f"echo mine > {path}")
            assert bed.Run("test", "-e", path, node="node2").code == 1
            assert not os.path.exists(path)
        with tempfile.NamedTemporaryFile(dir="/tmp") as marker:
            assert bed.Run("test", "-e", marker.name, node="node2").code == 1
        assert bed.Ok("ls -A /home /srv /etc/ganeti", node="node2").split() == [
            "/etc/ganeti:", "/home:", "/srv:", "shared",
        ]  # fmt: skip
        bed.Ok("echo ours > /srv/shared/file")
        assert bed.Ok("cat /srv/shared/file", node="node2") == "ours\n"
        assert ".ssh" not in bed.Ok("ls -A /root", node="node2").split()

    def test_host_keys_and_devices(self, bed):
        key = "cat /etc/ssh/ssh_host_rsa_key.pub"
        assert bed.Ok(key) != bed.Ok(key, node="node2")
        bed.Ok("dd if=/dev/zero of=/dev/null count=1; test ! -b /dev/vda; test ! -b /dev/sda")
        bed.Ok("echo hello > /dev/console")
        assert "hello" in bed.Do("console", "node1")
        assert "hello" not in bed.Do("console", "node2")

    def test_machine_is_guarded(self, bed):
        """The tree and the kernel's switches can not be changed from a node."""
        assert "Read-only" in bed.Fails("touch", str(layout.TREE) + "/lib/file")
        assert "Read-only" in bed.Fails("echo 1 > /sys/kernel/uevent_seqnum")
        assert "Permission" not in bed.Ok("id -un")

    def test_real_root(self, bed):
        bed.Ok("ip link add dummy7 type bridge && ip link del dummy7")
        bed.Ok("mkdir -p /srv/m && mount -t tmpfs x /srv/m && umount /srv/m")

    def test_commands_of_the_suite(self, bed):
        assert "node1.example.com" in bed.Ok("python3 -c 'from ganeti.utils import net;"
                                             " print(net.HostInfo().name)'")  # fmt: skip
        assert "Usage" in bed.Ok("gnt-cluster --help") + bed.Ok("daemon-util --help")

    def test_exec(self, bed):
        result = bed.Testbed("exec", "node2", "--", "sh", "-c", "hostname; exit 7")
        assert (result.code, result.out) == (7, "node2\n")
        assert "no node 'node9'" in bed.Testbed("exec", "node9", "--", "true").err

    def test_ssh_with_password(self, bed):
        """A real SSH server asks for the real password of root."""
        terminal = bed.At("ssh", "-o", "StrictHostKeyChecking=accept-new", "node2", "hostname")
        terminal.Expect("password: ")
        terminal.Type("wrong")
        terminal.Expect("password: ")
        terminal.Type(layout.PASSWORD)
        assert terminal.Wait() == 0
        assert terminal.text.endswith("node2\n")


def Ping(bed, target, count=1, node="node1"):
    """How many of some pings came back."""
    argv = ["ping", "-n", "-q", "-c", str(count), "-i", "0.02", "-W", "1", target]
    out = bed.Run(*argv, node=node).out
    return int(out.split(" received")[0].rsplit(" ", 1)[1])


class TestNetwork:
    """Cables can be cut and made bad."""

    def test_cut_and_mend(self, bed):
        bed.Do("cut", "node2")
        assert Ping(bed, "192.0.2.12") == Ping(bed, "198.51.100.12") == 0
        bed.Do("mend", "node2")
        assert Ping(bed, "192.0.2.12") == Ping(bed, "198.51.100.12") == 1

    def test_cut_replication_only(self, bed):
        bed.Do("cut", "node2", "--network=secondary")
        assert (Ping(bed, "192.0.2.12"), Ping(bed, "198.51.100.12")) == (1, 0)
        bed.Do("mend", "node2")

    def test_loss(self, bed):
        Lacks("loss")
        bed.Do("slow", "node2", "--loss=50%")
        # A quarter comes back; the chance for an end of this range is 1 to 10^8.
        assert 5 <= Ping(bed, "192.0.2.12", 100) <= 60
        bed.Do("mend", "node2")
        assert Ping(bed, "192.0.2.12", 20) == 20

    def test_delay(self, bed):
        Lacks("delay")
        bed.Do("slow", "node2", "--delay=200ms")
        out = bed.Ok("ping -n -c 1 -W 2 192.0.2.12")
        assert 200 <= float(out.split("time=")[1].split()[0]) < 1000
        bed.Do("mend", "node2")

    def test_missing_delay_is_named(self, bed):
        if not host.Lacks("delay"):
            pytest.skip("this machine can delay packets")
        result = bed.Testbed("slow", "node2", "--delay=50ms")
        assert result.code == 1
        assert "sch_netem" in result.err

    def test_rate(self, bed):
        Lacks("rate")
        bed.Do("slow", "node2", "--rate=1mbit")
        bed.Ok("head -c 100000 /dev/zero > /tmp/data", node="node1")
        start = time.monotonic()
        server = "exec socat -u TCP-LISTEN:7000,reuseaddr /dev/null"
        with subprocess.Popen(bed.Command(server, node="node2")) as proc:
            # Done once the other side has taken the last byte.
            bed.Ok("socat -u -t 9 FILE:/tmp/data TCP:192.0.2.12:7000,retry=50,interval=0.1")
            assert proc.wait(20) == 0
        # What is more than the bucket's 32 KiB goes at 125 kB a second.
        assert time.monotonic() - start > 0.3
        bed.Do("mend", "node2")


class TestPower:
    """A node can be killed whole and started again."""

    def test_kill_and_start(self, bed):
        bed.Ok("echo kept > /var/lib/ganeti/file; echo lost > /run/file", node="node2")
        bed.Ok("setsid sleep 600 >/dev/null 2>&1 &", node="node2")
        boot_id = bed.Ok("cat /proc/sys/kernel/random/boot_id", node="node2")
        inside = bed.Do("status")
        bed.Do("kill", "node2")
        assert "node2.example.com 192.0.2.12 198.51.100.12 down" in bed.Do("status")
        assert "up" in inside
        assert Ping(bed, "192.0.2.12") == 0
        assert "node2 is down" in bed.Testbed("exec", "node2", "--", "true").err
        assert "node2 is down" in bed.Testbed("kill", "node2").err
        bed.Do("start", "node2")
        assert "node2 is up already" in bed.Testbed("start", "node2").err
        assert Ping(bed, "192.0.2.12") == Ping(bed, "198.51.100.12") == 1
        assert bed.Ok("cat /var/lib/ganeti/file", node="node2") == "kept\n"
        assert bed.Run("test -e /run/file", node="node2").code == 1
        assert "sleep" not in bed.Ok("ps -e -o args=", node="node2")
        assert bed.Ok("cat /proc/sys/kernel/random/boot_id", node="node2") != boot_id

    def test_reset_from_inside(self, bed):
        """What asks the kernel for a restart ends this node and not the machine."""
        if not os.path.exists("/proc/sysrq-trigger"):
            pytest.skip("this machine's kernel lacks CONFIG_MAGIC_SYSRQ")
        bed.Run("echo b > /proc/sysrq-trigger; sleep 5", node="node2", timeout=10)
        WaitFor(lambda: "198.51.100.12 down" in bed.Do("status"), what="the end of node2")
        bed.Do("start", "node2")


# Nothing is left


def Devices():
    return sorted(os.listdir("/sys/class/net"))


class Traces:
    """What there is of testbeds on this machine, outside of the given directories."""

    def __init__(self, directory):
        self.directory = str(directory)

    def Processes(self):
        """Processes with the directory in their arguments, mounts or working directory."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            if int(path.name) == os.getpid():
                continue
            try:
                texts = [(path / name).read_text(errors="replace") for name in
                         ("cmdline", "mountinfo")]  # fmt: skip
                texts.append(os.readlink(path / "cwd"))
            except OSError:
                continue
            if any(self.directory in text for text in texts):
                found.append(path.name)
        return found

    def Check(self):
        """Nothing is left but perhaps an empty directory."""
        # The kernel ends processes one after the other.
        WaitFor(lambda: not self.Processes(), timeout=10, what=f"the end of {self.directory}")
        left = os.listdir(self.directory) if os.path.exists(self.directory) else []
        assert left == []


@pytest.fixture
def place(NewTestbed):
    """A directory for a testbed that does not live long; checks in the end that it is clean."""
    directory = tempfile.mkdtemp(prefix="testbed", dir="/tmp")
    devices = Devices()
    # Loaded by the first testbed at the latest.
    yield RealCluster(directory)
    try:
        Traces(directory).Check()
        assert Devices() == devices
    finally:
        RealCluster(directory).Testbed("down")
        shutil.rmtree(directory, ignore_errors=True)


class TestNothingIsLeft:
    """Processes, mounts, namespaces, devices and files go with the testbed, however it ends."""

    def test_down(self, place):
        place.Up("--nodes=1")
        place.Ok("daemon-util --help; (setsid sleep 600 >/dev/null 2>&1 </dev/null &)")
        assert Traces(place.directory).Processes()
        place.Do("down")
        assert not os.path.exists(place.directory)
        place.Do("down")

    def test_failure(self, place):
        """Where there is no room for the nodes' files."""
        result = place.Testbed("up", "--nodes=2", "--size=64k")
        assert result.code == 1
        assert "node" in result.err
        assert "No space left" in result.err

    def Begin(self, place, moment):
        """C{up} in the background, once a file is there."""
        proc = subprocess.Popen(
            place.Argv("up", "--nodes=3"),
            env=CleanEnvironment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        path = Path(place.directory) / moment
        WaitFor(lambda: path.exists() or proc.poll() is not None, what=moment)
        assert proc.poll() is None
        return proc

    @pytest.mark.parametrize("moment", [layout.NODES_DIR, layout.STATE_FILE])
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_interrupted(self, place, moment, number):
        proc = self.Begin(place, moment)
        proc.send_signal(number)
        assert proc.wait(30) == 128 + number

    def test_killed(self, place):
        """Not even KILL leaves a process behind; the files go with C{down}."""
        proc = self.Begin(place, layout.STATE_FILE)
        proc.kill()
        proc.wait()
        WaitFor(lambda: not Traces(place.directory).Processes(), what="the end of all processes")
        place.Do("down")

    def test_holder_dies(self, place):
        """Everything hangs on one process: with it the kernel ends all others."""
        place.Up("--nodes=1")
        os.kill(place._manager.HolderPid(), signal.SIGKILL)
        WaitFor(
            lambda: "has died; remove it" in place.Testbed("status").err, what="the holder's end"
        )
        assert not Traces(place.directory).Processes()
        place.Do("down")

    def test_directory_removed(self, place):
        """A testbed that nobody can find any more ends itself."""
        place.Up("--nodes=1")
        shutil.rmtree(place.directory)
        WaitFor(lambda: not Traces(place.directory).Processes(), what="the end of all processes")

    def test_foreign_directory(self, place):
        """A directory with other files is left alone."""
        path = Path(place.directory) / "precious"
        path.write_text("")
        assert "not empty" in place.Testbed("up").err
        assert "no testbed" in place.Testbed("down").err
        assert os.listdir(place.directory) == ["precious"]
        path.unlink()

    def test_side_by_side(self, place, bed):
        """Two testbeds have the same names and addresses and know nothing of each other."""
        place.Up("--nodes=1")
        bed.Ok("echo first > /srv/which")
        place.Ok("echo second > /srv/which")
        assert bed.Ok("cat /srv/which") == "first\n"
        assert Ping(place, "192.0.2.12") == 0
        assert Ping(bed, "192.0.2.12") == 1
        place.Do("down")
        assert bed.Ok("cat /srv/which") == "first\n"


class TestWithoutRights:
    """Who can not have a testbed is told why."""

    def test_no_root(self, tmp_path, monkeypatch):
        monkeypatch.setattr(host.os, "geteuid", lambda: 1000)
        assert host.Missing() == ["root rights"]

    def test_missing_program(self, monkeypatch):
        if os.geteuid() != 0:
            pytest.skip("needs root rights")
        monkeypatch.setattr(host, "_PROGRAMS", {"no-such-program": "some-package"})
        assert host.Missing() == ["the program no-such-program (Debian package some-package)"]
